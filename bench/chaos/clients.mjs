// The clients: each does one kind of thing again and again, and holds what comes of it against the model.

import { createHash, createHmac } from 'node:crypto'
import http from 'node:http'
import net from 'node:net'
import { sleep } from '../../tests/process.mjs'
import { HOST } from './balancer.mjs'
import { ISSUER, SECRET, TOKEN } from './cluster.mjs'
import { body, KINDS, selects, target, targets } from './model.mjs'

/** So many of each at the same time. */
const CROWD = { readers: 20, conditionals: 4, ranges: 3, writers: 3, uploaders: 2, purgers: 3, tunnels: 3, feeds: 2, listeners: 3 }
const USERS = KINDS.mine.users
const LATEST = 20 // ETags that a client remembers

/** Starts all of them; resolves when the run is over and the last one has ended. */
export async function runClients (run) {
  const acts = { readers: read, conditionals: readAgain, ranges: readPart, writers: write, uploaders: upload, purgers: purge, tunnels: talk, feeds: follow }
  const crowds = Object.entries(acts).flatMap(([name, act]) => Array.from({ length: CROWD[name] }, () => again(run, name, act)))
  const listeners = Array.from({ length: CROWD.listeners }, () => listen(run))
  await Promise.all([...crowds, ...listeners])
}

const PAUSES = { readers: 40, conditionals: 60, ranges: 150, writers: 800, uploaders: 600, purgers: 700, tunnels: 200, feeds: 300 } // ms, at most

async function again (run, name, act) {
  const mine = { remembered: new Map() }
  while (!run.isOver) {
    await sleep(run.random.below(PAUSES[name]))
    await act(run, mine)
  }
}

const bearers = Array.from({ length: USERS }, (_, i) => bearer(`user-${i}`))

function bearer (sub) {
  const part = value => Buffer.from(JSON.stringify(value)).toString('base64url')
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ iss: ISSUER, sub, exp: Math.floor(Date.now() / 1000) + 86_400 })}`
  return `Bearer ${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`
}

function fields (it, color) {
  return { ...(it.user && { authorization: bearers[Number(it.user.split('-')[1])] }), ...(color && { 'x-color': color }) }
}

// ── Readers ──

/** One in two asks for the few first targets of a kind, so that there are hits. */
function anyTarget (random) {
  const kind = random.pick(Object.keys(KINDS))
  const { count, users = 0 } = KINDS[kind]
  return target(kind, random.below(random.oneIn(2) ? Math.ceil(count / 4) : count), users ? `user-${random.below(users)}` : '')
}

async function read (run) {
  const method = run.random.oneIn(12) ? 'HEAD' : 'GET'
  await readOne(run, anyTarget(run.random), { method, isHttp2: run.random.oneIn(3), what: 'reads' })
}

async function readAgain (run, { remembered }) {
  const it = anyTarget(run.random)
  const conditional = remembered.get(it.name) ?? []
  const answer = await readOne(run, it, { conditional, isHttp2: run.random.oneIn(2), what: 'conditional reads' })
  if (answer?.headers.etag) remembered.set(it.name, [answer.headers.etag, ...conditional].slice(0, LATEST))
}

async function readPart (run) {
  const it = target('large', run.random.below(KINDS.large.count))
  const size = body(it, '', 1).length // versions of up to the same number of digits are as long
  const first = run.random.below(size - 1)
  const part = [first, first + 1 + run.random.below(size - first - 1)]
  await readOne(run, it, { part, isHttp2: run.random.oneIn(2), what: 'ranges' })
}

/** Reads a target, and holds the answer against the model. */
async function readOne (run, it, { method = 'GET', conditional = [], part, isHttp2, node, what }) {
  const { colors } = KINDS[it.kind]
  const color = colors ? run.random.pick(colors) : ''
  const headers = fields(it, color)
  if (conditional.length) headers['if-none-match'] = conditional.join(', ')
  if (part) headers.range = `bytes=${part[0]}-${part[1] - 1}`
  const asked = { target: it, color, begun: Date.now(), everywhere: run.model.floor(it), conditional, part }
  const before = new Map(run.cluster.nodes.map(node => [node.number, run.model.floor(it, node.number)]))
  const answer = await run.ask(what, { method, path: it.path, headers, isHttp2, node }, asked.begun)
  if (!answer) return
  asked.floor = before.get(answer.node.number) ?? asked.everywhere
  asked.isTroubled = run.faults.during(asked.begun - 5000).some(({ trouble }) => trouble)
  const found = run.model.judge(asked, answer)
  run.tally.cache(answer.headers['x-api-cache'])
  if (found) run.found(what, found, `${method} ${it.name} ${color}`, asked.begun, answer)
  return answer
}

/** Has something that is selected read on every node, and waits for none of it: what is under way when a purge comes, and what follows it. */
function readEverywhere (run, selector) {
  const it = run.random.pick(targets.filter(each => selects(selector, each)))
  for (const node of run.cluster.ready()) readOne(run, it, { node, what: 'reads' })
}

// ── Writers ──

let writes = 0

async function write (run) {
  const it = run.random.oneIn(2) ? target('mine', run.random.below(KINDS.mine.count), `user-${run.random.below(USERS)}`) : target('steady', run.random.below(KINDS.steady.count))
  const id = `w${++writes}`
  const before = await lateWrites(run)
  const request = { method: run.random.pick(['PUT', 'POST', 'PATCH']), path: it.path, headers: { ...fields(it), 'x-write': id }, body: id, isFresh: run.random.oneIn(2) }
  const begun = Date.now()
  const answer = await run.ask('writes', request, begun)
  const done = run.model.writes.get(id) ?? 0
  if (done > 1) run.found('writes', { wrong: `done ${done} times` }, `${request.method} ${it.name}`, begun, answer)
  if (!answer) return
  if (answer.bytes.toString() !== id || done !== 1) return run.found('writes', { wrong: `answered with ${answer.bytes}, done ${done} times` }, it.name, begun, answer)
  // What it changed is read no more: on the node that took it at once, everywhere if its purge held before the answer.
  const number = Number(answer.headers['x-number'])
  const selector = it.user ? { tag: `mine:${it.user}` } : { path: it.path }
  run.model.hold(selector, number, answer.node.number)
  const late = await answer.node.lateWrites()
  if (late !== undefined && late === before.get(answer.node.number)) run.model.hold(selector, number)
}

/** By the number of each process, its writes that were answered too early. */
async function lateWrites ({ cluster }) {
  return new Map(await Promise.all(cluster.ready().map(async node => [node.number, await node.lateWrites()])))
}

async function upload (run) {
  const id = `u${++writes}`
  const bytes = Buffer.alloc(1000 + run.random.below(700_000), id)
  const begun = Date.now()
  const answer = await run.ask('uploads', { method: 'POST', path: '/upload', headers: { 'x-write': id }, body: bytes, isFresh: run.random.oneIn(2) }, begun)
  const done = run.model.writes.get(id) ?? 0
  if (done > 1) run.found('uploads', { wrong: `done ${done} times` }, id, begun, answer)
  if (answer && answer.bytes.toString() !== createHash('sha256').update(bytes).digest('hex')) run.found('uploads', { wrong: 'the origin got other bytes' }, id, begun, answer)
}

// ── Purgers ──

let purges = 0

async function purge (run) {
  if (run.isQuiet) return
  const source = run.random.pick(['api', 'method', 'webhook'])
  const selector = anySelector(run.random, source)
  const mark = `ev:${++purges}`
  readEverywhere(run, selector)
  await sleep(run.random.below(20))
  const before = run.model.last + 1
  const begun = Date.now()
  const answer = await run.ask('purges', call(source, selector, mark), begun, { mayBeUnavailable: true })
  if (answer?.status !== 200) return run.tally.count(`purges not acknowledged (${answer?.status ?? 'lost'})`)
  run.tally.count(`purges acknowledged: ${source}, by ${Object.keys(selector)[0]}`)
  run.model.hold(selector, before)
  readEverywhere(run, selector)
  if (source !== 'method' && !selector.user) run.marks.set(mark, { begun })
}

function anySelector (random, source) {
  const it = anyTarget(random)
  const tags = [{ tag: it.kind }, { tag: `${it.kind}:${it.number}` }, ...(it.user ? [{ tag: `mine:${it.user}` }] : [])]
  const paths = it.user ? [] : [{ path: it.path }]
  if (source === 'webhook') return random.pick(tags)
  if (source === 'method') return random.pick([...paths, ...tags])
  return random.pick([...paths, ...tags, { user: `user-${random.below(USERS)}` }])
}

function call (source, { tag, path, user }, mark) {
  const tags = [mark, ...(tag ? [tag] : [])]
  if (source === 'webhook') return post('/_larder/webhooks/shop', SECRET, { tags })
  if (source === 'method') return { method: 'PURGE', path: path ?? '/', headers: path ? {} : { 'surrogate-key': tag }, isFresh: true }
  // The mark goes with a purge that is not bound to a user, else it would be bound as well.
  const body = user ? { user, reason: mark } : { tags, urls: path ? [`http://${HOST}${path}`] : [] }
  return { ...post('/v1/purge', TOKEN, body), isAdmin: true }
}

function post (path, token, value) {
  return { method: 'POST', path, headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' }, body: JSON.stringify(value), isFresh: true }
}

// ── What stays open ──

/** An upgraded connection for two seconds: what is said has to come back. */
async function talk (run) {
  const node = run.random.pick(run.cluster.ready())
  const begun = Date.now()
  run.tally.asked('tunnels')
  const socket = net.connect({ host: '127.0.0.1', port: node.port, noDelay: true })
  let heard = ''
  let ended
  socket.on('data', bytes => { heard += bytes }).on('close', () => { ended ??= 'closed' }).on('error', error => { ended = error.code })
  socket.write(`GET /socket HTTP/1.1\r\nHost: ${HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n`)
  const until = async what => {
    const end = Date.now() + 10_000
    const isOver = () => heard.includes(what) || ended || Date.now() > end
    while (!isOver()) await sleep(10)
    return heard.includes(what)
  }
  let isWell = await until('\r\n\r\n') && heard.startsWith('HTTP/1.1 101')
  const isRefused = ended === 'ECONNREFUSED'
  for (let i = 0; i < 10 && isWell; i++) {
    socket.write(`line ${begun} ${i}\n`)
    isWell = await until(`line ${begun} ${i}\n`)
    await sleep(200)
  }
  socket.destroy()
  if (!isWell && !isRefused) run.failed('tunnels', { error: ended ?? `no answer, but ${heard.slice(0, 60)}`, node, begun })
}

/** The origin's own event stream: numbers without a gap. */
async function follow (run) {
  const begun = Date.now()
  const answer = await run.ask('feeds', { path: '/feed' }, begun)
  const whole = Array.from({ length: 40 }, (_, i) => `data: ${i}\n\n`).join('')
  if (answer && answer.bytes.toString() !== whole) run.found('feeds', { wrong: `${answer.bytes.length} bytes of ${whole.length}` }, '/feed', begun, answer)
}

/** Larder's event stream: each acknowledged purge that is shown has to come, or a reset after it. `run.streams` holds what came. */
async function listen (run) {
  const stream = { begun: undefined, seen: new Set(), reset: 0 }
  run.streams.push(stream)
  let last
  while (!run.isOver) {
    const node = run.random.pick(run.cluster.ready())
    last = await hearken(run, node, stream, last)
    await sleep(200)
  }
}

/** One connection of such a stream, until it ends; the last id. */
function hearken (run, node, stream, last) {
  return new Promise(resolve => {
    const request = http.get({ host: '127.0.0.1', port: node.port, path: '/_larder/events', agent: false, headers: { Host: HOST, ...(last && { 'Last-Event-ID': last }) } }, response => {
      let text = ''
      run.tally.asked('event streams')
      response.on('data', chunk => {
        text += chunk
        const events = text.split('\n\n')
        text = events.pop()
        for (const event of events) last = heed(event, stream) ?? last
      })
      response.on('error', () => {})
      response.on('close', () => { clearInterval(timer); resolve(last) })
    })
    request.on('error', () => { clearInterval(timer); resolve(last) })
    // Each one is left after a while, so that coming back is tried as well.
    const leave = Date.now() + run.random.between(3000, 15_000)
    const timer = setInterval(() => { if (run.isOver || Date.now() > leave) request.destroy() }, 100)
  })
}

function heed (event, stream) {
  const field = name => new RegExp(`^${name}: ?(.*)$`, 'm').exec(event)?.[1]
  const data = field('data') ? JSON.parse(field('data')) : {}
  if (field('event') === 'hello') stream.begun ??= Date.now()
  if (field('event') === 'reset') stream.reset = Date.now()
  for (const tag of data.tags ?? []) stream.seen.add(tag)
  return field('id')
}

/** The acknowledged purges that a stream has missed. */
export function missed (run) {
  return run.streams.flatMap(({ begun, seen, reset }) =>
    [...run.marks].filter(([mark, at]) => begun < at.begun && reset < at.begun && !seen.has(mark)).map(([mark]) => mark))
}

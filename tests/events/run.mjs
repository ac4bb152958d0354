// Chromium and node's `EventSource` follow `/_larder/events` of three nodes while Redis is killed and comes back with its data or without, hangs, and
// while nodes end and browsers come to others: each acknowledged purge is heard once and in order, nothing hidden is, and nobody has to begin anew.
//
//   node run.mjs --packages FOLDER [--larder PATH] [--chromium COMMAND]      FOLDER has the node_modules of package-lock.json

import { execFileSync } from 'node:child_process'
import http from 'node:http'
import { createRequire } from 'node:module'
import net from 'node:net'
import { readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Score } from '../origins/compare.mjs'
import { options, scratch, sleep, startLarder } from '../process.mjs'
import { Chromium } from './chromium.mjs'
import { Fleet, Relay, TOKEN } from './fleet.mjs'
import { InNode, InPage } from './listeners.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const given = options({
  larder: join(process.env.CARGO_TARGET_DIR ?? join(here, '../../target'), 'optimized/larder'),
  packages: join(here, '../../target/test-tools/events'),
  chromium: 'chromium'
})
const { EventSource } = createRequire(join(resolve(given.packages), 'package.json'))('eventsource')

/** How long it may take until everybody has heard the last purge: browsers come back after five seconds at most. */
const HEARD = 20_000

/** How long Redis is away: longer than the lease of a node. */
const OUTAGE = 3500

/** After that a log is old enough that purges no longer wait for leases that nobody may know of. */
const SETTLED = 4000

/** How many listen to one node at the end, where so many sockets may be open. */
const CROWD = 5000

const origin = await serve((request, response) => {
  response.setHeader('Cache-Control', 'max-age=3600')
  response.setHeader('Content-Type', 'text/html')
  response.end('<!doctype html><title>a page</title>')
})
const score = new Score()
const [app, stranger] = [`http://localhost:${origin.port}`, `http://127.0.0.1:${origin.port}`]
const fleet = await Fleet.start(resolve(given.larder), `http://127.0.0.1:${origin.port}`, `[events]\nallow_origins = ["${app}"]\ntags = ["tile:*"]\nper_client = 5000\n`)
const relay = await Relay.to(fleet.nodes[2].port)
const browser = await Chromium.start(given.chromium)
const listeners = await everybody()
await opened()
console.log(`${browser.product}, ${listeners.map(({ name }) => name).join(', ')}`)

await phase('all is well', () => fleet.purgeUntil(sleep(SETTLED), [0, 1, 2]))
await phase('Redis is killed and comes back with its data', () => fleet.purgeUntil(restart(), [0, 1, 2]))
await phase('Redis hangs', () => fleet.purgeUntil(hang(), [0, 1, 2]))
await phase('Redis comes back empty', restartEmpty)
await phase('a node crashes, and browsers come to another and to the next process', () => fleet.purgeUntil(crash(), [0, 1]))
await phase('browsers change nodes while Redis restarts', () => fleet.purgeUntil(Promise.all([restart(), changeNodes()]), [0, 1, 2]))
await phase('a node is replaced, and browsers go on in the log before the last', replace)
await lossy('Redis loses what is under way', () => fleet.purgeUntil(loseUnderWay(), [0, 1, 2], 24))
await strangers()
await documents()
await unknownPlaces()
await overHttp2()
await Promise.all(listeners.map(listener => listener.close()))
await crowd()
score.close()
await browser.stop()
relay.stop()
await fleet.stop()
origin.server.close()
process.exit()

// ── What happens ──

async function restart () {
  await sleep(500)
  await fleet.redis.kill()
  await sleep(OUTAGE)
  await fleet.restoreRedis()
  await sleep(SETTLED)
}

async function hang () {
  await sleep(500)
  fleet.redis.signal('SIGSTOP')
  await sleep(OUTAGE)
  fleet.redis.signal('SIGCONT')
  await sleep(2000)
}

/** Nothing is under way when it ends, so that nothing is lost. */
async function restartEmpty () {
  await fleet.purgeUntil(sleep(500), [0, 1, 2])
  await fleet.redis.kill()
  const back = sleep(OUTAGE).then(() => fleet.restoreRedis({ empty: true })).then(() => sleep(SETTLED))
  await fleet.purgeUntil(back, [0, 1, 2])
}

/** What one node has applied and another has not is lost, and what was not acknowledged is purged again. */
async function loseUnderWay () {
  for (let round = 0; round < 3; round++) {
    await sleep(500)
    await fleet.redis.kill()
    await fleet.restoreRedis({ empty: true })
    await sleep(SETTLED)
  }
}

async function crash () {
  await sleep(500)
  await fleet.nodes[2].kill()
  relay.lead(fleet.nodes[0].port)
  await sleep(1500)
  await fleet.replace(2)
  await sleep(500)
}

async function changeNodes () {
  await sleep(1000)
  relay.lead(fleet.nodes[1].port)
  await sleep(OUTAGE)
  relay.lead(fleet.nodes[2].port)
}

/** Redis restarts while those at node 1 are away; they come to a process that has not seen the log that they were in. */
async function replace () {
  await fleet.nodes[1].stop()
  await fleet.redis.kill()
  await fleet.restoreRedis()
  await fleet.purgeUntil(sleep(500), [0, 2])
  await fleet.replace(1)
  await fleet.purgeUntil(sleep(500), [0, 1, 2])
}

// ── Who listens ──

/** To each node a page of its own, one of another origin, and node; and both through the relay. */
async function everybody () {
  const all = []
  const remote = await browser.open(`${app}/remote.html`)
  for (const [number, { url }] of [...fleet.nodes, relay].entries()) {
    const way = number < fleet.nodes.length ? `node ${number}` : 'the relay'
    const events = `${url}/_larder/events`
    all.push(new InPage(`Chromium at ${way}`, await browser.open(`${url}/page.html`), '/_larder/events'))
    all.push(new InPage(`Chromium of another origin at ${way}`, remote, events))
    all.push(new InNode(`node's EventSource at ${way}`, EventSource, events))
  }
  return all
}

async function opened () {
  await Promise.all(listeners.map(listener => listener.open()))
  for (const listener of listeners) await until(async () => (await listener.state()).heard.length > 0, `${listener.name} is greeted`)
}

/** Lets something happen, and checks what everybody heard of all that was purged so far. */
async function phase (name, act) {
  const [repeated, before] = [fleet.repeated, fleet.acknowledged.length]
  await act()
  const expected = [...fleet.acknowledged].sort((one, other) => one.seq - other.seq)
  const last = expected.at(-1).seq
  for (const listener of listeners) {
    const hasHeard = async () => (await listener.state()).heard.some(({ type, seq }) => seq >= last && type !== 'hello')
    await until(hasHeard, `${name}: ${listener.name} hears ${last}`, false)
    score.check(`${name}: ${listener.name}`, compare((await listener.state()).heard, expected))
  }
  console.log(`${name}: ${expected.length - before} purges, ${fleet.repeated - repeated} attempts in vain`)
}

/** The same where something may be lost: whoever misses a purge is told to begin anew, and numbers still go up. */
async function lossy (name, act) {
  const known = new Map()
  for (const listener of listeners) known.set(listener, (await listener.state()).heard.length)
  const before = fleet.acknowledged.length
  await act()
  await fleet.purge([0, 1, 2])
  const expected = fleet.acknowledged.slice(before)
  const last = fleet.acknowledged.at(-1).seq
  let resets = 0
  for (const listener of listeners) {
    const news = async () => (await listener.state()).heard.slice(known.get(listener))
    await until(async () => (await news()).some(({ seq }) => seq === last), `${name}: ${listener.name} hears ${last}`, false)
    const heard = await news()
    const tags = heard.filter(({ type }) => type === 'purge').flatMap(({ tags }) => tags)
    const missing = expected.filter(({ tag }) => !tags.includes(tag))
    const isTold = heard.some(({ type }) => type === 'reset')
    resets += isTold ? 1 : 0
    score.check(`${name}: ${listener.name}`, [
      ...(missing.length && !isTold ? [`missing without a reset: ${missing.map(({ seq, tag }) => `${seq} ${tag}`)}`] : []),
      ...heard.filter(({ seq }, index) => index > 0 && heard[index - 1].seq > seq).map(({ type, seq }) => `${type} at ${seq} comes after a later one`),
      ...tags.filter(tag => !tag.startsWith('tile:')).map(tag => `it was shown ${tag}`)
    ])
  }
  console.log(`${name}: ${expected.length} purges, ${resets} of ${listeners.length} listeners told to begin anew`)
}

function compare (heard, expected) {
  const [hello, ...purges] = heard
  const problems = hello?.type === 'hello' ? [] : [`it was greeted with ${JSON.stringify(hello)}`]
  for (const { type, seq } of purges) if (type !== 'purge') problems.push(`${type} at ${seq}`)
  const told = purges.filter(({ type }) => type === 'purge')
  for (const { id, seq, tags } of told) {
    if (id !== `${seq}`) problems.push(`the id of ${seq} is ${id}`)
    if (tags.length !== 1) problems.push(`${seq} shows ${tags}`)
  }
  const is = told.map(({ seq, tags }) => `${seq} ${tags}`)
  const should = expected.map(({ seq, tag }) => `${seq} ${tag}`)
  if (is.join() === should.join()) return problems
  const [had, due] = [new Set(is), new Set(should)]
  const named = (what, list) => list.length ? [`${what}: ${list.slice(0, 8).join(', ')}${list.length > 8 ? `, and ${list.length - 8} more` : ''}`] : []
  return [
    ...problems,
    ...named('missing', should.filter(one => !had.has(one))),
    ...named('too much', is.filter(one => !due.has(one))),
    ...named('repeated', is.filter((one, index) => is.indexOf(one) !== index)),
    'not the same in the same order'
  ].slice(0, 12)
}

// ── What else is asked ──

/** A page of an origin that is not allowed hears nothing and reads nothing. */
async function strangers () {
  const page = await browser.open(`${stranger}/stranger.html`)
  const { url } = fleet.nodes[0]
  const listener = new InPage('a stranger', page, `${url}/_larder/events`)
  await listener.open()
  await until(async () => (await listener.state()).readyState === 2, 'a stranger is refused')
  await fleet.purge([0])
  score.check('a page of a strange origin hears nothing', expect((await listener.state()).heard, []))
  const reads = path => page.run(`fetch('${url}${path}').then(() => true, () => false)`)
  for (const path of ['/_larder/sync', '/_larder/version']) score.check(`a page of a strange origin does not read ${path}`, expect(await reads(path), false))
}

/** A page reads the documents, of its own origin and of another, and asks again with their tags. */
async function documents () {
  const last = fleet.acknowledged.at(-1).seq
  for (const { name, page, url } of listeners.filter(listener => listener instanceof InPage).slice(0, 2)) {
    const ask = (path, headers = {}) => page.run(`fetch(${JSON.stringify(new URL(path, new URL(url, fleet.nodes[0].url)).href)}, { headers: ${JSON.stringify(headers)}, cache: 'no-store' })
      .then(async answer => ({ status: answer.status, tag: answer.headers.get('etag'), text: await answer.text() }))`)
    for (const path of ['/_larder/version', `/_larder/sync?since=${last - 1}`]) {
      const first = await ask(path)
      const again = await ask(path, { 'If-None-Match': first.tag })
      score.check(`${name} reads ${path}`, [...expect(first.status, 200), ...expect(again.status, 304), ...expect(again.text, ''), ...expect(JSON.parse(first.text).seq >= last, true)])
    }
  }
}

/** Who comes from a place that nobody knows is told so, and goes on. */
async function unknownPlaces () {
  const listener = new InNode('lost', EventSource, `${fleet.nodes[0].url}/_larder/events?since=1-0123456789abcdef`)
  await listener.open()
  const heard = async () => (await listener.state()).heard
  await until(async () => (await heard()).length > 0, 'who is lost is told')
  await fleet.purge([0, 1, 2])
  await until(async () => (await heard()).length > 1, 'who was lost goes on')
  const is = (await heard()).map(({ type }) => type)
  score.check('who comes from an unknown place is told once, and goes on', expect(is, ['reset', 'purge']))
  await listener.close()
}

/** Over HTTP/2 one page may have more streams than the six connections of HTTP/1.1. */
async function overHttp2 () {
  const folder = scratch()
  const [cert, key] = ['cert.pem', 'key.pem'].map(name => join(folder, name))
  const made = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost']
  execFileSync('openssl', ['req', '-x509', ...made, '-keyout', key, '-out', cert], { stdio: 'ignore' })
  const extra = `[tls]\ncert = "${cert}"\nkey = "${key}"\n[events]\ntags = ["tile:*"]\n`
  const node = await startLarder(resolve(given.larder), `http://127.0.0.1:${origin.port}`, { extra, token: TOKEN })
  const page = await browser.open(`https://localhost:${node.port}/page.html`)
  const crowd = Array.from({ length: 20 }, (_, number) => new InPage(`stream ${number}`, page, '/_larder/events'))
  for (const listener of crowd) await listener.open()
  for (const listener of crowd) await until(async () => (await listener.state()).heard.length > 0, `${listener.name} over HTTP/2 is greeted`)
  await fetch(`${node.admin}/v1/purge`, { method: 'POST', headers: { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json' }, body: '{"tags":["tile:a"]}' })
  for (const listener of crowd) {
    await until(async () => (await listener.state()).heard.length > 1, `${listener.name} over HTTP/2 hears`, false)
    score.check(`${listener.name} over HTTP/2`, expect((await listener.state()).heard.map(({ type }) => type), ['hello', 'purge']))
  }
  const protocol = await page.run("performance.getEntriesByType('navigation')[0].nextHopProtocol")
  score.check('the page is read over HTTP/2', expect(protocol, 'h2'))
  await node.stop()
}

/** Thousands listen to one node, and all of them hear of a purge. */
async function crowd () {
  const { port, pid } = fleet.nodes[0]
  const count = Math.min(CROWD, openFiles(process.pid) - 200, openFiles(pid) - 200)
  const before = memory(pid)
  const sockets = []
  const greeted = []
  for (let number = 0; number < count; number++) {
    const socket = net.connect(port, '127.0.0.1')
    socket.text = ''
    socket.setEncoding('latin1').on('data', text => { socket.text += text; socket.check?.() }).on('error', error => { socket.failure = error })
    socket.write('GET /_larder/events HTTP/1.1\r\nHost: a.test\r\n\r\n')
    sockets.push(socket)
    greeted.push(says(socket, 'event: hello\n'))
    if (number % 100 === 99) await Promise.all(greeted)
  }
  await Promise.all(greeted)
  const each = Math.round((memory(pid) - before) / count / 1024)
  const begun = performance.now()
  await fleet.purge([1])
  const { seq, tag } = fleet.acknowledged.at(-1)
  const acknowledged = performance.now()
  await Promise.all(sockets.map(socket => says(socket, `id: ${seq}\nevent: purge\n`)))
  const took = Math.round(performance.now() - begun)
  const often = sockets.filter(({ text }) => text.split(`"${tag}"`).length !== 2).length
  console.log(`${count} listeners on one node: ${each} KiB each; all heard ${took} ms after the call began, ${Math.round(acknowledged - begun)} ms of them for its receipt`)
  score.check(`${count} listeners hear of a purge once`, [...expect(often, 0), ...expect(each < 32, true)])
  for (const socket of sockets) socket.destroy()
  await until(async () => /^larder_event_listeners 0$/m.test(await fleet.metrics(0)), 'nobody listens any more')
}

function says (socket, text) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`nobody says ${JSON.stringify(text)}: ${socket.failure ?? socket.text.slice(-200)}`)), HEARD)
    socket.check = () => {
      if (!socket.text.includes(text)) return
      socket.check = undefined
      clearTimeout(late)
      resolve()
    }
    socket.check()
  })
}

// ── What the checks are made of ──

async function serve (answer) {
  const server = http.createServer(answer)
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  return { server, port: server.address().port }
}

/** Waits until something holds; if it does not, that is a failure, of the check or of all. */
async function until (holds, what, isFatal = true) {
  for (const deadline = Date.now() + HEARD; Date.now() < deadline; await sleep(50)) if (await holds()) return
  if (isFatal) throw new Error(`not within ${HEARD} ms: ${what}`)
}

function expect (is, expected) {
  const [one, other] = [is, expected].map(value => JSON.stringify(value))
  return one === other ? [] : [`${one} instead of ${other}`]
}

function openFiles (pid) {
  return Number(/^Max open files +(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))?.[1] ?? Infinity)
}

function memory (pid) {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) * 1024
}

// Normal clients beside hostile ones (hostile.mjs), then beside polite ones that send as many bytes: what the hostile ones cost.
//
//   node bench/soak.mjs --larder PATH [--seconds N] [--share 0.3] [--memory MiB] [--constant MiB] [--only ATTACK,…] [--write]
//
// Larder has one core; all clients and the origin have another. Half of the time at most goes to the control. Fails where a bar is broken.

import { createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { options, sleep, start, startLarder } from '../tests/process.mjs'
import { answerHostile } from './hostile.mjs'
import { writeSection } from './results.mjs'
import { LOAD_CORE, SERVER_CORE } from './servers.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const MIB = 1024 * 1024
const given = options({
  larder: join(process.env.CARGO_TARGET_DIR ?? join(here, '../target'), 'optimized/larder'),
  seconds: '600',
  share: '0.3', // of a core, for the hostile clients
  memory: '64', // MiB
  constant: '128', // MiB over `memory`, as README says
  files: '256', // the soft limit on open files that the node starts with
  only: '',
  write: false
})
const HOST = 'api.test'
const SECRET = 'a secret of the soak, and of no one else'
const CONNECTION = 32 << 10 // what README allows for each open connection
const HITS = 100 // targets that are stored before anything begins
const RATE = { h1: 200, h2: 100, fresh: 5, livez: 4, webhooks: 1 } // a second
// One in so many new targets may be evicted before its second request. A tenth of `memory` is for new responses, 6.4 MiB here, and a single
// HTTP/2 connection asks for as much at once; the clients share a core with the hostile ones, so that their second request may come 100 ms later.
const EVICTED = 500
const WARM_UP = 3 // seconds of normal clients alone, and again with the other clients, before it is measured

// ── The origin ──

const origin = http.createServer({ maxHeaderSize: 1 << 20 }, (request, response) => {
  if (request.url.startsWith('/hostile/')) return answerHostile(request, response)
  request.resume()
  const size = Number(/\/(\d+)k$/.exec(request.url)?.[1] ?? 1) * 1024
  response.setHeader('Cache-Control', 'max-age=3600')
  response.setHeader('Content-Type', 'text/plain')
  response.end(Buffer.alloc(size, 'x'))
})
origin.on('upgrade', (request, socket) => {
  socket.on('error', () => {})
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
  socket.pipe(socket)
})
await new Promise(resolve => origin.listen(0, '127.0.0.1', 4096, resolve))

// ── A phase ──

/** A node of its own, normal clients, and others beside them for so long. */
async function phase (name, seconds, how) {
  // Soft limits of open files are low nearly everywhere: a node has to raise its own.
  const prefix = [...SERVER_CORE, 'prlimit', `--nofile=${given.files}:4096`]
  const node = await startLarder(resolve(given.larder), `http://127.0.0.1:${origin.address().port}`, { prefix, extra: config(), memory: `${given.memory}MiB` })
  const normal = new Normal(node)
  await normal.prime()
  const memory = watch(node)
  // What is asked for often is known as such before the others come.
  const running = normal.run()
  await sleep(WARM_UP * 1000)
  const others = start([...LOAD_CORE, 'node', join(here, 'hostile.mjs'), `--port=${node.port}`, `--share=${given.share}`, ...how])
  await sleep(WARM_UP * 1000)
  normal.forget()
  const before = await buckets(node)
  await sleep(seconds * 1000)
  normal.isOver = true
  await running
  const after = await buckets(node)
  const isUp = node.isRunning()
  const said = JSON.parse(others.tail(1))
  await others.kill()
  const { peak, gauges } = memory()
  await node.stop()
  return { name, seconds, isUp, peak, gauges, others: said, server: quantiles(before, after), ...normal.figures() }
}

function config () {
  return `
[[route]]
name = "hits"
match = "/hits/**"
[events]
tags = ["shown"]
[[webhook]]
name = "shop"
scheme = "hmac"
header = "x-signature"
secret = "${SECRET}"
[[webhook.on]]
purge = ["shop"]`
}

/** The largest resident size from now on, in bytes, and the node's own account of its memory about that time. */
function watch (node) {
  let peak = 0
  let gauges = []
  let asked = 0
  const look = async () => {
    const size = resident(node.pid, 'VmRSS')
    if (size <= peak) return
    peak = size
    if (Date.now() - asked < 1000) return
    asked = Date.now()
    gauges = await ownAccount(node)
  }
  const timer = setInterval(look, 50)
  return () => {
    clearInterval(timer)
    return { peak: Math.max(peak, resident(node.pid, 'VmHWM')), gauges }
  }
}

/** The metrics that are about memory, and about bodies that were not stored, without those that are zero. */
async function ownAccount (node) {
  const text = await metrics(node)
  return text.split('\n').filter(line => /^larder_\w*(memory|store|bodies|filling|pressure|connections|tunnels|streams|evict|pinned)/.test(line) && !/_bucket|_sum| 0$/.test(line))
}

function resident (pid, field) {
  try {
    return Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) * 1024
  } catch { return 0 } // it has ended
}

// ── Normal clients ──

/** What normal clients do at fixed rates, and what came of it. */
class Normal {
  constructor (node) {
    this.node = node
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 16 })
    this.number = 0
    this.isOver = false
    this.forget()
  }

  /** What came until now does not count. */
  forget () {
    this.counts = { asked: 0, notHit: 0, failed: 0, fresh: 0, notStored: 0, freshFailed: 0, livez: 0, notAlive: 0, webhooks: 0, notTaken: 0 }
    this.examples = []
    this.took = []
  }

  /** Has all targets of the hits stored. */
  async prime () {
    for (let i = 0; i < HITS; i++) await this.h1(hit(i))
  }

  async run () {
    const under = new Set()
    const every = (rate, act) => setInterval(() => {
      const done = act().finally(() => under.delete(done))
      under.add(done)
    }, 1000 / rate)
    const timers = [
      every(RATE.h1, () => this.hit(target => this.h1(target))),
      every(RATE.h2, () => this.hit(target => this.h2(target))),
      every(RATE.fresh, () => this.fresh()),
      every(RATE.livez, () => this.livez()),
      every(RATE.webhooks, () => this.webhook())
    ]
    while (!this.isOver) await sleep(50)
    timers.forEach(clearInterval)
    await Promise.race([Promise.all(under), sleep(5000)])
    this.session?.destroy()
    this.agent.destroy()
  }

  /** What is stored is asked for, and has to be a hit. */
  async hit (ask) {
    const { counts } = this
    counts.asked++
    const begun = performance.now()
    const answer = await ask(hit(Math.floor(Math.random() * HITS))).catch(error => ({ error }))
    if (counts === this.counts) this.took.push(performance.now() - begun)
    if (answer.error || answer.status !== 200) this.note(counts, 'failed', answer)
    else if (answer.cache !== 'HIT') this.note(counts, 'notHit', answer)
  }

  /** What nobody asked for before is asked for twice, and has to be stored in between. */
  async fresh () {
    const { counts } = this
    counts.fresh++
    const number = this.number++
    const target = `/fresh/${number}/${number % 4 ? 16 : 64}k`
    const begun = performance.now()
    const first = await this.h1(target).catch(error => ({ error }))
    const second = await this.h1(target).catch(error => ({ error }))
    const failed = [first, second].find(answer => answer.error || answer.status !== 200)
    if (failed) this.note(counts, 'freshFailed', failed)
    else if (second.cache !== 'HIT') {
      const took = Math.round(performance.now() - begun)
      const third = await this.h1(target).catch(error => ({ error }))
      this.note(counts, 'notStored', { target, first: first.why, second: second.why, third: third.why ?? third.cache, took })
    }
  }

  async livez () {
    const { counts } = this
    counts.livez++
    const { status, error } = await this.h1('/livez', { port: this.node.adminPort, agent: false }).catch(error => ({ error }))
    if (status !== 200) this.note(counts, 'notAlive', { status, error })
  }

  async webhook () {
    const { counts } = this
    const body = JSON.stringify({ number: ++counts.webhooks })
    const signature = createHmac('sha256', SECRET).update(body).digest('hex')
    const headers = { 'X-Signature': signature, 'Content-Type': 'application/json' }
    const { status, error } = await this.h1('/_larder/webhooks/shop', { method: 'POST', headers, body }).catch(error => ({ error }))
    if (status !== 200) this.note(counts, 'notTaken', { status, error })
  }

  h1 (path, { port = this.node.port, agent = this.agent, method = 'GET', headers = {}, body } = {}) {
    return new Promise((resolve, reject) => {
      const options = { host: '127.0.0.1', port, agent, method, path, headers: { Host: HOST, ...headers }, timeout: 2000 }
      const request = http.request(options, response => {
        response.on('data', () => {})
        response.on('error', reject)
        response.on('end', () => resolve(outcome(response.statusCode, response.headers)))
      })
      request.on('timeout', () => request.destroy(new Error('no answer in 2 s')))
      request.on('error', reject)
      request.end(body)
    })
  }

  h2 (path) {
    if (!this.session || this.session.closed || this.session.destroyed) {
      this.session = http2.connect(this.node.url)
      this.session.on('error', () => {})
    }
    return new Promise((resolve, reject) => {
      const stream = this.session.request({ ':path': path, ':authority': HOST })
      let got
      stream.setTimeout(2000, () => stream.destroy(new Error('no answer in 2 s')))
      stream.on('response', headers => { got = outcome(headers[':status'], headers) })
      stream.on('data', () => {})
      stream.on('error', reject)
      stream.on('close', () => got ? resolve(got) : reject(new Error('the stream ended without an answer')))
    })
  }

  /** Counts something that must not be, among what counted when its request began. */
  note (counts, what, example) {
    counts[what]++
    if (counts === this.counts && this.examples.length < 20) this.examples.push(`${what}: ${example.error?.message ?? JSON.stringify(example)}`)
  }

  figures () {
    const sorted = this.took.sort((a, b) => a - b)
    const at = share => sorted[Math.floor(share * (sorted.length - 1))]
    return { ...this.counts, examples: this.examples, client: { p50: at(0.5), p99: at(0.99) } }
  }
}

function hit (number) {
  return `/hits/${number}/${1 + number % 16}k`
}

function outcome (status, headers) {
  return { status, cache: headers['x-api-cache'], why: headers['cache-status'] }
}

// ── Figures ──

function metrics (node) {
  return fetch(`${node.admin}/metrics`, { signal: AbortSignal.timeout(5000) }).then(answer => answer.text(), () => '')
}

/** How many hits of normal clients took how long on the server, by the buckets of its histogram: [seconds, so many at most that long]; none where it gives no answer. */
async function buckets (node) {
  const text = await metrics(node)
  const line = /^larder_request_duration_seconds_bucket\{([^}]*)\} (\d+)$/gm
  const ours = [...text.matchAll(line)].filter(([, labels]) => labels.includes('route="hits"') && labels.includes('cache="HIT"'))
  return ours.map(([, labels, count]) => [Number(/le="([^"]+)"/.exec(labels)[1].replace('+Inf', 'Infinity')), Number(count)])
}

/** The median and the 99th percentile between two looks, in ms, each as far into its bucket as its share. */
function quantiles (before, after) {
  if (!after.length) return { p50: NaN, p99: NaN }
  const counts = after.map(([le, count], i) => [le * 1000, count - (before[i]?.[1] ?? 0)])
  const total = counts.at(-1)[1]
  const at = share => {
    const index = counts.findIndex(([, count]) => count >= share * total)
    const [from, under] = index ? counts[index - 1] : [0, 0]
    const [to, count] = counts[index]
    return to === Infinity ? from : from + (to - from) * (share * total - under) / (count - under)
  }
  return { p50: at(0.5), p99: at(0.99) }
}

/** What has to hold: a sentence, and whether it does. */
function bars (hostile, control) {
  const limit = (Number(given.memory) + Number(given.constant)) * MIB + hostile.others.connections * CONNECTION
  return [
    ['the node is still there', hostile.isUp && control.isUp],
    ['hits stay hits', hostile.notHit === 0 && hostile.failed === 0],
    ['new targets stay stored until their second request', hostile.notStored <= Math.max(1, hostile.fresh / EVICTED) && hostile.freshFailed === 0],
    ['p99 on the server is within twice that of the control', hostile.server.p99 <= 2 * control.server.p99],
    [`memory stays under ${(limit / MIB).toFixed(0)} MiB: ${given.memory} + ${given.constant} MiB, and 32 KiB for each connection`, hostile.peak < limit],
    ['/livez always answers', hostile.notAlive === 0],
    ['signed webhooks are always taken', hostile.notTaken === 0],
    [`the hostile clients use at most ${given.share} of a core`, hostile.others.share <= Number(given.share) + 0.02]
  ]
}

function header () {
  const [date] = new Date().toISOString().split('T')
  return [`Measured ${date} by \`bench/soak.sh ${given.seconds}\`; \`memory = "${given.memory}MiB"\`, one core for Larder, one for all clients and the origin.`, '']
}

function table (hostile, control) {
  const row = (what, show) => `| ${what} | ${show(hostile)} | ${show(control)} |`
  const ms = value => `${value.toFixed(2)} ms`
  return [
    '| beside | hostile clients | polite clients, same bytes |', '|---|---:|---:|',
    row('seconds', each => each.seconds),
    row('their share of a core', each => `${(100 * each.others.share).toFixed(0)} %`),
    row('their requests, bytes a second', each => `${Math.round(rate(each, 'requests'))}, ${Math.round(rate(each, 'sent') / 1024)} KiB`),
    row('their connections at the end', each => each.others.connections),
    row('hits of normal clients', each => each.asked),
    row('… not hits, failed', each => `${each.notHit}, ${each.failed}`),
    row('new targets, requested twice', each => each.fresh),
    row('… evicted in between, failed', each => `${each.notStored}, ${each.freshFailed}`),
    row('hits on the server: median, p99', each => `${ms(each.server.p50)}, ${ms(each.server.p99)}`),
    row('hits at the client: median, p99', each => `${ms(each.client.p50)}, ${ms(each.client.p99)}`),
    row('peak memory', each => `${(each.peak / MIB).toFixed(0)} MiB`),
    row('`/livez` without a response', each => `${each.notAlive} of ${each.livez}`),
    row('signed webhooks refused', each => `${each.notTaken} of ${each.webhooks}`)
  ]
}

/** How much of something the other clients did a second. */
function rate (of, what) {
  return of.others[what] / of.others.seconds
}

// ── Both phases ──

const hostile = await phase('hostile', Number(given.seconds), [`--only=${given.only}`])
const control = await phase('polite', Math.max(10, Number(given.seconds) / 2), [`--polite=${rate(hostile, 'sent')}`, `--requests=${rate(hostile, 'requests')}`])
const lines = table(hostile, control)
console.log(lines.join('\n'))
const broken = bars(hostile, control).filter(([, holds]) => !holds)
for (const [what] of broken) console.log(`BROKEN: ${what}`)
if (broken.length) console.log(['at the peak of memory:', ...hostile.gauges].join('\n   '))
for (const each of [hostile, control]) each.examples.forEach(example => console.log(`   beside ${each.name} clients: ${example}`))
if (given.write) writeSection('Hostile clients', [...header(), ...lines])
console.log(`${bars(hostile, control).length - broken.length} passed, ${broken.length} failed`)
process.exit(broken.length ? 1 : 0)

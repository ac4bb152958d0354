// Instructions of one request in user space, counted by valgrind: every machine can, and whatever else runs makes no difference. Counted are those
// of the worker thread alone, in batches of requests that arrive one at a time (`stepwise.mjs`). NOTES.md says what else made the figures differ from run to
// run, and what was done about it.

import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { sleep, startLarder, startRedis } from '../tests/process.mjs'
import { SECRET, requests } from './requests.mjs'
import { Client, Stepper, startOrigin, startRelay } from './stepwise.mjs'

const BATCHES = 9
const BATCH = 16 // requests, few enough for one second on a busy machine
const WARM_UP = 128 // requests
const TRIES = 3 * BATCHES
// What jemalloc does from time to time by the clock, or after so many bytes.
const ALLOCATOR = 'narenas:1,experimental_tcache_gc:false,tcache_gc_incr_bytes:1073741824,background_thread:false,dirty_decay_ms:-1,muzzy_decay_ms:-1'
const BODY = `{"data":"${'x'.repeat(1013)}"}`
const ROUTES = `
[user]
jwt = { secret = "${SECRET}" }

[[route]]
name = "mine"
match = "/items/mine/**"
ttl = "1h"
partition = "user"

[[route]]
name = "hits"
match = "/hit/**"
ttl = "1h"

[[route]]
name = "stocks"
match = "/items/stocks/{symbol}"
ttl = "1h"
`

const CODED = `
[[route]]
name = "coded"
match = "/coded/**"
ttl = "1h"
encode = ["br", "zstd", "gzip"]
`

const GRAPHQL = `
[[route]]
name = "graphql"
match = "/graphql"
graphql = true
ttl = "1h"
`

/**
 * What a request of each kind takes in a build of Larder, of `requests.mjs`: `{ all, digest, spread }` by kind. `digest` are the instructions
 * of SHA-256, which valgrind emulates without the processor's own instructions; `all` and `digest` are medians of the batches, `spread` is the difference of the
 * largest and the smallest `all`. `path` replaces that of the requests; `keep` is a folder that gets callgrind's file of the last batch of each kind.
 */
export async function instructions (binary, kinds, { path, keep } = {}) {
  const counted = {}
  for (const setting of new Set(kinds.map(settingOf))) {
    Object.assign(counted, await inOneProcess(binary, setting, kinds.filter(kind => settingOf(kind) === setting), { path, keep }))
  }
  return Object.fromEntries(kinds.map(kind => [kind, counted[kind]]))
}

/** Requests of one setting are sent to one process. Only those for coded responses and of GraphQL need a build that knows `encode` or `graphql`. */
function settingOf (kind) {
  const { isTrusted, isRedis, isCoded, isGraphql } = requests[kind]
  return isTrusted ? 'trusted' : isRedis ? 'redis' : isCoded ? 'coded' : isGraphql ? 'graphql' : 'memory'
}

async function inOneProcess (binary, setting, kinds, { path, keep }) {
  const folder = mkdtempSync('/tmp/larder-callgrind-')
  const stepper = new Stepper()
  const origin = await startOrigin(stepper, BODY)
  const redis = setting === 'redis' ? await startRedis() : undefined
  const relay = redis && await startRelay(stepper, redis.port)
  const larder = await startCounted(binary, join(folder, setting), origin, setting, relay)
  stepper.watch(larder.pid)
  const counted = {}
  for (const kind of kinds) {
    try {
      counted[kind] = await count({ larder, stepper, origin }, { ...requests[kind], ...(path && { path }) }, keep && join(keep, kind))
    } catch (error) {
      throw new Error(`${kind}: ${error.message}\n${larder.tail()}`)
    }
  }
  for (const each of [larder, relay, redis, origin]) await each?.stop()
  rmSync(folder, { recursive: true, force: true })
  return counted
}

async function startCounted (binary, file, origin, setting, relay) {
  const larder = await startLarder(binary, `http://${origin.host}`, {
    // One core, so one worker thread.
    prefix: ['taskset', '-c', firstCore(), 'valgrind', '--tool=callgrind', '--instr-atstart=no', '--separate-threads=yes', `--callgrind-out-file=${file}`],
    top: setting === 'trusted' ? 'trusted_proxies = ["127.0.0.0/8"]' : '',
    // A deadline earlier than all other timers of the thread would wake its event loop once more: that would depend on the moment.
    env: { _RJEM_MALLOC_CONF: ALLOCATOR },
    ...(relay && { redis: relay.url, memory: '0', store: 'timeout = "60s"' }),
    extra: ROUTES + ({ coded: CODED, graphql: GRAPHQL }[setting] ?? '')
  })
  const ready = async () => (await fetch(`${larder.admin}/readyz`)).text()
  if (relay) for (let text = ''; !text.includes('purge log: synced') || !text.includes('redis: up'); text = await ready()) await sleep(20)
  return { ...larder, dump: keep => dump(larder, file, keep), callgrind: (...command) => vgdb(larder, ...command) }
}

function firstCore () {
  return /^Cpus_allowed_list:\s*(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]
}

async function count ({ larder, stepper, origin }, request, keep) {
  const client = new Client(stepper, larder.port)
  const size = request.batch ?? BATCH
  let number = 0
  const ask = () => client.ask(text(request, number++))
  for (let i = 0; i < WARM_UP; i++) await ask()
  larder.callgrind('instrumentation', 'on')
  const [batches, rest] = [[], []]
  for (let i = 0; i < TRIES && batches.length < BATCHES; i++) {
    const made = []
    for (let i = 0; i < (request.responses ?? 1); i++) made.push(within(await ask()))
    larder.callgrind('zero')
    const before = origin.requests()
    let isOneSecond = true
    for (let i = 0; i < size; i++) {
      const head = await ask()
      verify(request, head)
      isOneSecond &&= within(head) === made[i % made.length]
    }
    const counted = larder.dump(keep)
    const wanted = ['pass', 'store'].includes(request.does) ? size : 0
    if (origin.requests() - before !== wanted) throw new Error(`the origin received ${origin.requests() - before} of ${size} requests instead of ${wanted}`)
    // Each second a hit's head is made anew. What is over in less does not count that, unless the machine is too slow.
    const list = isOneSecond ? batches : rest
    list.push({ all: counted.all / size, digest: counted.digest / size })
  }
  rest.sort((one, other) => one.all - other.all)
  batches.push(...rest.slice(0, BATCHES - batches.length))
  larder.callgrind('instrumentation', 'off')
  client.close()
  const sorted = part => batches.map(batch => batch[part]).sort((a, b) => a - b)
  const all = sorted('all')
  return { all: all[BATCHES >> 1], digest: sorted('digest')[BATCHES >> 1], spread: all.at(-1) - all[0] }
}

/** What a response says of the second in which it was made. */
function within (head) {
  return /^date: .*/im.exec(head)?.[0] + /^age: .*/im.exec(head)?.[0]
}

function text ({ path, fields, content }, number) {
  const lines = Object.entries(fields).flatMap(([name, value]) => value === undefined ? [] : [`${name}: ${typeof value === 'function' ? value(number) : value}`])
  if (content) lines.push(`Content-Length: ${Buffer.byteLength(content)}`)
  const method = content ? 'POST' : 'GET'
  const head = [`${method} ${path} HTTP/1.1`, 'Host: api.test', ...lines].map(line => line.replace('{number}', `${100000 + number}`))
  return [...head, '', content ?? ''].join('\r\n')
}

/** Fails if a response is of another kind than was to be counted. */
function verify ({ does = 'hit' }, head) {
  const [result, status] = [/^x-api-cache: (\S+)/im.exec(head)?.[1], /^HTTP\/1.1 (\d+)/.exec(head)[1]]
  const expected = { hit: ['200', 'HIT'], 'not-modified': ['304', 'HIT'], pass: ['200', 'MISS'], store: ['200', 'MISS'] }[does]
  if (status !== expected[0] || result !== expected[1]) throw new Error(`expected ${expected.join(' ')}, but received\n${head}`)
}

/** Has callgrind write what it has counted since the last time, and returns the instructions of the busiest thread; its file is copied to `keep`. */
function dump (larder, file, keep) {
  vgdb(larder, 'dump')
  const folder = dirname(file)
  const parts = readdirSync(folder).filter(name => new RegExp(`^${basename(file)}\\.\\d+-\\d+$`).test(name)).map(name => join(folder, name))
  if (!parts.length) throw new Error('callgrind wrote nothing')
  const threads = parts.map(part => ({ part, ...read(readFileSync(part, 'utf8')) }))
  const busiest = threads.reduce((busiest, each) => each.all > busiest.all ? each : busiest)
  if (!threads.every(each => each.all >= 0) || !busiest.all) throw new Error('callgrind counted nothing')
  if (keep) {
    mkdirSync(dirname(keep), { recursive: true })
    copyFileSync(busiest.part, keep)
  }
  for (const part of parts) rmSync(part)
  return busiest
}

function vgdb ({ pid }, ...command) {
  return execFileSync('vgdb', [`--pid=${pid}`, ...command], { stdio: 'pipe' }).toString()
}

/** All instructions in a file of callgrind, and those of the digest itself. */
function read (text) {
  const names = new Map()
  let [isDigest, isCall, digest] = [false, false, 0]
  for (const line of text.split('\n')) {
    const [, kind, number, name] = /^(c?fn)=\((\d+)\)(?: (.*))?$/.exec(line) ?? []
    if (kind) {
      if (name) names.set(number, name)
      if (kind === 'fn') isDigest = /sha256_block/.test(names.get(number))
    } else if (line.startsWith('calls=')) {
      isCall = true // the next line is what is called
    } else if (/^[\d+*-]/.test(line)) {
      if (isDigest && !isCall) digest += Number(line.split(' ')[1])
      isCall = false
    }
  }
  return { all: Number(/^totals: (\d+)/m.exec(text)?.[1]), digest }
}

// How far back the purge log reaches under steady writes of many users: 1,000 users write 50 times a second through one node of a fleet
// with Redis, and each write purges the user's own responses and a tag of the user's. Beside them stand responses for everybody with a
// lifetime of a day. In the middle the node is restarted. Prints the hit ratio of what is for everybody before and after.
//
//   node bench/writes.mjs [--larder PATH] [--seconds N] [--rate N] [--users N] [--shared N]

import { createHmac } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort, options, sleep, start, startRedis } from '../tests/process.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const given = options({
  larder: join(process.env.CARGO_TARGET_DIR ?? join(here, '../target'), 'release/larder'),
  seconds: '600',
  rate: '50', // writes a second
  users: '1000',
  shared: '500' // responses for everybody, fresh for a day
})
const [seconds, rate, users, shared] = [given.seconds, given.rate, given.users, given.shared].map(Number)
const SECRET = '0123456789abcdef0123456789abcdef'
const ISSUER = 'https://issuer.example'
const HOST = 'api.example'

const folder = mkdtempSync(join(tmpdir(), 'larder-writes-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
const agent = new http.Agent({ keepAlive: true, maxSockets: 32 })
const verdicts = []

let asked = 0
const origin = http.createServer((request, response) => {
  asked++
  request.resume()
  response.setHeader('Content-Type', 'application/json')
  request.on('end', () => response.end(JSON.stringify({ target: request.url, asked })))
})
await new Promise(resolve => origin.listen(0, '127.0.0.1', 1024, resolve))
const redis = await startRedis()
let node = await startNode()

const tokens = Array.from({ length: users }, (_, user) => token(user))
await primeShared()
const before = await ratio()
await primeOwn()
const half = Math.round(seconds / 2)
await writeFor(half)
const middle = await ratio()
const reachBefore = await metric('larder_purge_log_reach_seconds')
await node.stop()
const restarted = Date.now()
node = await startNode()
const caughtUp = (Date.now() - restarted) / 1000
const afterRestart = await ratio()
await writeFor(seconds - half)
const after = await ratio()

const records = await metric('larder_purge_log_seq')
const reach = await metric('larder_purge_log_reach_seconds')
const rises = await metric('larder_purge_floor_rises_total')
const bytes = await redisBytes()
console.log(`writes: ${written} in ${seconds} s by ${users} users, ${failures} failed; records of the log: ${records}`)
console.log(`Redis: ${(bytes / 1e6).toFixed(1)} MB for the log, ${Math.round(bytes / records)} bytes a record`)
console.log(`ready ${caughtUp.toFixed(2)} s after the restart, which replayed the log`)
console.log(`hit ratio of what is for everybody (ttl 24 h): ${percent(before)} at first, ${percent(middle)} after ${half} s of writes, ${percent(afterRestart)} after the restart, ${percent(after)} at the end`)
console.log(`reach of the log: ${reachBefore} s before the restart, ${reach} s at the end; selectors ${await metric('larder_purge_selectors')}, evicted ${await metric('larder_purge_selectors_evicted_total')}; floor rises ${rises}`)
verdict('the hit ratio is unchanged', before === 1 && middle === 1 && afterRestart === 1 && after === 1)
verdict('the log reaches back to the beginning', reach >= seconds)
verdict('no write failed', failures === 0)
verdict('a write is seen by its user, and by no other', await isSeen())
const failed = verdicts.filter(isGood => !isGood).length
console.log(`${verdicts.length - failed} passed, ${failed} failed`)
for (const each of [node, redis]) await each.stop()
origin.close()
process.exit(failed ? 1 : 0)

async function startNode () {
  const [port, admin] = [await freePort(), await freePort()]
  const file = join(folder, 'proxy.toml')
  writeFileSync(file, `
listen = "127.0.0.1:${port}"
origin = "http://127.0.0.1:${origin.address().port}"
admin = { listen = "127.0.0.1:${admin}" }
log = { access = "off" }
store = { redis = "${redis.url}", memory = "64MiB" }
[user]
jwt = { secret = "${SECRET}", iss = "${ISSUER}" }
digest_key = "${SECRET}"
[[route]]
name = "market"
match = "GET /market/{name}"
ttl = "24h"
tags = ["market"]
[[route]]
name = "stocks"
match = "/stocks/**"
ttl = "24h"
partition = "user"
tags = ["stocks:{user}"]
on_write = { purge = ["stocks:{user}"] }
`)
  const child = await start(resolve(given.larder), ['run', '--config', file], {}, `http://127.0.0.1:${admin}/readyz`)
  for (;;) {
    const synced = await text(admin, '/metrics').then(found => /^larder_purge_log_synced 1$/m.test(found), () => false)
    if (synced) break
    await sleep(20)
  }
  return { ...child, stop: () => child.stop(), port, admin }
}

function token (user) {
  const part = value => Buffer.from(JSON.stringify(value)).toString('base64url')
  const exp = Math.floor(Date.now() / 1000) + 86400
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ iss: ISSUER, sub: `user-${user}`, exp })}`
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`
}

async function primeShared () {
  await each(shared, i => ask('GET', `/market/${i}`))
  await sleep(1000) // until all of it is in Redis
}

async function primeOwn () {
  await each(users, user => ask('GET', '/stocks/all', tokens[user]))
}

/** The share of hits among what is for everybody, each asked for once. */
async function ratio () {
  let hits = 0
  await each(shared, async i => {
    const { cache } = await ask('GET', `/market/${i}`)
    if (cache === 'HIT') hits++
  })
  return hits / shared
}

var written = 0
var failures = 0
async function writeFor (time) {
  const begun = Date.now()
  const under = new Set()
  for (let i = 0; i < time * rate; i++) {
    await sleep(begun + i * 1000 / rate - Date.now())
    const user = (written + i * 7) % users
    const write = ask('PUT', `/stocks/${i % 5}`, tokens[user]).then(({ status }) => { if (status !== 200) failures++ }, () => failures++)
    written++
    under.add(write)
    write.finally(() => under.delete(write))
  }
  await Promise.all(under)
}

/** Whether a user reads what it has written, while another's response stays. */
async function isSeen () {
  await ask('GET', '/stocks/all', tokens[1])
  const kept = await ask('GET', '/stocks/all', tokens[1])
  await ask('GET', '/stocks/all', tokens[2])
  await ask('PUT', '/stocks/1', tokens[2])
  const own = await ask('GET', '/stocks/all', tokens[2])
  const others = await ask('GET', '/stocks/all', tokens[1])
  return kept.cache === 'HIT' && own.cache !== 'HIT' && others.cache === 'HIT'
}

async function each (count, act) {
  let next = 0
  await Promise.all(Array.from({ length: 16 }, async () => {
    while (next < count) await act(next++)
  }))
}

function ask (method, path, bearer) {
  const headers = { Host: HOST, ...(bearer && { Authorization: `Bearer ${bearer}` }) }
  return new Promise((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', port: node.port, method, path, headers, agent }, response => {
      response.resume()
      response.on('end', () => resolve({ status: response.statusCode, cache: response.headers['x-api-cache'] }))
    })
    request.on('error', reject)
    request.end()
  })
}

async function text (port, path) {
  return (await fetch(`http://127.0.0.1:${port}${path}`)).text()
}

async function metric (name) {
  const lines = (await text(node.admin, '/metrics')).split('\n').filter(line => line.startsWith(`${name} `) || line.startsWith(`${name}{`))
  return lines.reduce((sum, line) => sum + Number(line.split(' ').pop()), 0)
}

async function redisBytes () {
  const found = await redis.command('MEMORY', 'USAGE', 'larder:log', 'SAMPLES', '0')
  return Number(found)
}

function percent (share) {
  return `${(100 * share).toFixed(1)} %`
}

function verdict (what, isGood) {
  verdicts.push(isGood)
  console.log(`${isGood ? 'passed' : 'FAILED'}: ${what}`)
}

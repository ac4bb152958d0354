// What it takes to purge a tag that a million stored responses have, on a fleet of three nodes with one Redis, beside a tag that ten have:
// from the call to its acknowledgement. NOTES.md says how to read it.
//
//   node bench/purge.mjs [--larder PATH] [--entries N] [--pairs N] [--write]

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { cpus } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { options, sleep, start, startLarder, startRedis } from '../tests/process.mjs'
import { writeSection } from './results.mjs'
import { startTaggedOrigin } from './servers.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const given = options({
  larder: join(process.env.CARGO_TARGET_DIR ?? join(here, '../target'), 'release/larder'),
  entries: '1000000',
  pairs: '100', // purges of either tag
  write: false
})
const NODES = 3
const HOST = 'api.example' // for all nodes, so that they share what they store
const TOKEN = 'bench'
const FEW = 10
const OTHERS = 100
const SAMPLE = 1000
const FILLING_SECONDS = 240 // and then it is given up
const LEASE_MS = 3500 // until a log is this old, purges wait for nodes that nobody knows of
const BAR = { median: 10, ratio: 2 }

const entries = Number(given.entries)
const folder = mkdtempSync('/dev/shm/larder-purge-')
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
execFileSync('chmod', ['755', folder])
const origin = await startTaggedOrigin(folder)
const redis = await startRedis()
const nodes = await Promise.all(Array.from({ length: NODES }, startNode))
const agent = new http.Agent({ keepAlive: true, maxSockets: 16 })
const caller = new http.Agent({ keepAlive: true, maxSockets: 1 })
const verdicts = []

const begun = Date.now()
await fill()
const filled = (Date.now() - begun) / 1000
const stored = await count()
verdict(`at least 99 % of ${grouped(entries)} are stored`, stored.redis >= 0.99 * entries)
await sleep(begun + LEASE_MS - Date.now())
const first = await purgeAllOnce()
const { all, few } = await purgeInTurn()
const lines = report()
console.log(lines.join('\n'))
if (given.write) writeSection('Purging', lines)
verdict(`acknowledged within ${BAR.median} ms in the median`, median(all) <= BAR.median)
verdict(`within ${BAR.ratio} times a tag on ${FEW}`, median(all) <= BAR.ratio * median(few))
const failed = verdicts.filter(isGood => !isGood).length
console.log(`${verdicts.length - failed} passed, ${failed} failed`)
for (const each of [...nodes, redis, origin]) await each.stop()
process.exit(failed ? 1 : 0)

function startNode () {
  return startLarder(resolve(given.larder), origin.url, {
    memory: '2GiB',
    redis: redis.url,
    extra: `[[admin.tokens]]\ntoken = "${TOKEN}"\nmay = ["read", "purge"]`
  })
}

/** Has the nodes fetch and store everything: a third of the many each, all of the few and of the others. */
async function fill () {
  for (const path of [...targets('few', FEW), ...targets('other', OTHERS)]) await ask(nodes[0], path)
  const script = join(folder, 'fill.lua')
  writeFileSync(script, `
local ports, begun = { ${nodes.map(node => node.port).join(', ')} }, 0
function setup(thread)
  thread.addr = wrk.lookup("127.0.0.1", tostring(ports[begun + 1]))[1]
  thread:set("number", begun)
  begun = begun + 1
end
function init()
  share, last = math.ceil(${entries} / #ports), 0
end
function request()
  local path = "/all/" .. (number + #ports * (last % share))
  last = last + 1
  return "GET " .. path .. " HTTP/1.1\\r\\nHost: ${HOST}\\r\\n\\r\\n"
end
`)
  const client = start(['wrk', `-t${NODES}`, `-c${NODES * 16}`, `-d${FILLING_SECONDS}s`, '--timeout', '10s', '-s', script, nodes[0].url])
  while (client.isRunning() && !await everyNode(node => total(node, 'larder_origin_requests_total'), asked => asked >= share())) await sleep(250)
  await client.stop()
  while (!await everyNode(node => total(node, 'larder_store_queue_writes'), waiting => waiting === 0)) await sleep(50)
}

function share () {
  return Math.floor(entries / NODES)
}

async function everyNode (figure, isEnough) {
  return (await Promise.all(nodes.map(figure))).every(isEnough)
}

/** How many responses stand where. */
async function count () {
  const inMemory = await Promise.all(nodes.map(node => total(node, 'larder_store_entries')))
  const size = execFileSync('redis-cli', ['-p', String(redis.port), 'dbsize']).toString().trim()
  return { redis: Number(size), memory: inMemory.reduce((sum, each) => sum + each, 0) }
}

/** The first purge hits all of them, and nothing else: looked up on every node. */
async function purgeAllOnce () {
  const sample = Array.from({ length: SAMPLE }, (_, i) => `/all/${Math.floor(i * entries / SAMPLE)}`)
  const rest = [...targets('few', FEW), ...targets('other', OTHERS)]
  // Under load Redis may miss its time once: then a stored response is fetched anew.
  verdict('a sample is stored, for any node', await shareOf('HIT', sample) >= 0.99)
  const first = await purge(nodes[0], 'all')
  verdict('after the purge none of the sample is stored', await shareOf('MISS', sample) === 1)
  for (const node of nodes) verdict('what has other tags is still stored', await shareOf('HIT', rest, [node]) >= 0.99)
  return first
}

/** The times of both purges in turn. Before each pair as many of the many are fetched as there are of the few. */
async function purgeInTurn () {
  const times = { all: [], few: [] }
  const again = [...targets('few', FEW), ...targets('all', FEW)]
  for (let i = 0; i < 10; i++) for (const node of nodes) await purge(node, 'nobody-has-it') // connections and code are warm
  await purge(nodes[0], 'few')
  await purge(nodes[0], 'all')
  let misses = 0
  for (let i = 0; i < Number(given.pairs); i++) {
    const node = nodes[i % NODES]
    misses += await shareOf('MISS', again, [node])
    for (const tag of i % 2 ? ['few', 'all'] : ['all', 'few']) times[tag].push(await purge(node, tag))
  }
  verdict('what was fetched again was gone after each pair', misses === Number(given.pairs))
  return times
}

/** Milliseconds from a purge's call to its acknowledgement by every node. */
async function purge (node, tag) {
  const body = JSON.stringify({ tags: [tag] })
  const headers = { Authorization: `Bearer ${TOKEN}`, 'Content-Type': 'application/json', 'Content-Length': body.length }
  const asked = performance.now()
  const answer = await send(`${node.admin}/v1/purge`, { method: 'POST', headers, agent: caller }, body)
  const taken = performance.now() - asked
  const { applied, total } = JSON.parse(answer.text).nodes ?? {}
  if (answer.status !== 200 || applied !== NODES || total !== NODES) throw new Error(`a purge is answered ${answer.status} ${answer.text}`)
  return taken
}

/** The share of paths that a node answers with this word, asked of the nodes in turn. */
async function shareOf (word, paths, of = nodes) {
  let found = 0
  for (let i = 0; i < paths.length; i += 10) {
    const answers = await Promise.all(paths.slice(i, i + 10).map((path, j) => ask(of[(i + j + 1) % of.length], path)))
    found += answers.filter(answer => answer.headers['x-api-cache'] === word).length
  }
  return found / paths.length
}

async function ask (node, path) {
  const answer = await send(node.url + path, { headers: { Host: HOST }, agent })
  if (answer.status !== 200) throw new Error(`${path} is answered ${answer.status}`)
  return answer
}

function send (url, how, body) {
  return new Promise((resolve, reject) => {
    http.request(url, how, response => {
      let text = ''
      response.on('data', piece => { text += piece })
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, text }))
      response.on('error', reject)
    }).on('error', reject).end(body)
  })
}

/** The sum of a metric over its labels. */
async function total (node, metric) {
  const { text } = await send(`${node.admin}/metrics`, { headers: { Authorization: `Bearer ${TOKEN}` }, agent })
  return [...text.matchAll(new RegExp(`^${metric}(?:\\{.*\\})? (\\d+)`, 'gm'))].reduce((sum, [, value]) => sum + Number(value), 0)
}

function targets (kind, number) {
  return Array.from({ length: number }, (_, i) => `/${kind}/${i}`)
}

function report () {
  const row = (what, times) => `| ${what} | ${time(median(times))} | ${time(percentile(times, 99))} | ${time(Math.max(...times))} | ${times.length} |`
  return [
    `Measured ${new Date().toISOString().slice(0, 10)} by \`node bench/purge.mjs\` on ${cpus()[0].model.trim()}, ${cpus().length} cores, which also run Redis, the origin and the caller.`,
    '',
    `${NODES} nodes, ${grouped(stored.redis)} keys in Redis, ${grouped(stored.memory)} entries in the nodes' memory, ` +
      `filled through the nodes in ${Math.round(filled)} s. The first purge selected all ${grouped(entries)} and took ${time(first)}.`,
    '',
    '| purge of a tag on | median | p99 | longest | calls |', '|---|---:|---:|---:|---:|',
    row(`${grouped(entries)} responses`, all), row(`${FEW} responses`, few), '',
    `Ratio of the medians: ${(median(all) / median(few)).toFixed(2)}.`
  ]
}

function verdict (name, isGood) {
  verdicts.push(isGood)
  if (!isGood) console.log(`FAILED ${name}`)
}

function median (list) {
  return percentile(list, 50)
}

function percentile (list, percent) {
  const sorted = [...list].sort((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * percent / 100) - 1)]
}

function grouped (number) {
  return Math.round(number).toLocaleString('en-US')
}

function time (milliseconds) {
  return `${milliseconds.toFixed(2)} ms`
}

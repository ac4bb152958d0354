// Hits in a content coding against hits that are sent as stored, by server CPU: one Larder, interleaved runs, the same bytes on the wire.
//
//   node bench/encoding.mjs --larder PATH [--rounds N] [--seconds S] [--connections N] [--limit RATIO]
//
// Fails if the median ratio of any coding is under the limit, or if Larder encodes during a run.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { options, sleep, start, startLarder } from '../tests/process.mjs'
import { cpuSeconds } from './processes.mjs'
import { LOAD_CORE } from './servers.mjs'

const given = options({ larder: 'target/release/larder', rounds: '9', seconds: '2', connections: '64', limit: '0.97' })
const ACCEPTED = 'gzip, deflate, br, zstd' // as browsers say it
const folder = mkdtempSync('/dev/shm/larder-encoding-')
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

const items = Array.from({ length: 40 }, (_, id) => ({ id, name: `item ${id * 7919 % 97}`, price: id * 7919 % 1000 / 100, tags: ['new', 'sale'] }))
const json = JSON.stringify(items)
const filler = { length: 0, head: 0 } // of /same/…: as long as the coded body, and its head as long as the coded one's

const origin = http.createServer((request, response) => {
  response.setHeader('cache-control', 'max-age=3600')
  response.setHeader('content-type', 'application/json')
  response.setHeader('etag', '"r17"')
  if (request.url.startsWith('/same/')) {
    if (filler.head) response.setHeader('x-filler', 'x'.repeat(filler.head))
    return response.end('x'.repeat(filler.length))
  }
  response.end(json)
})
await new Promise(resolve => origin.listen(0, '127.0.0.1', resolve))
const route = coding => `[[route]]\nname = "${coding}"\nmatch = "/${coding}/**"\nttl = "1h"\nencode = ["${coding}"]\n`
let isMet = true
console.log(`JSON of ${json.length} bytes, ${given.connections} connections, \`Accept-Encoding: ${ACCEPTED}\`\n`)
console.log('| coding | bytes of a response | as stored, requests/CPU second | coded, requests/CPU second | ratio |\n|---|---:|---:|---:|---:|')
for (const coding of ['br', 'zstd', 'gzip']) isMet = await compare(coding) && isMet
origin.close()
process.exit(isMet ? 0 : 1)

async function compare (coding) {
  const larder = await startLarder(given.larder, `http://127.0.0.1:${origin.address().port}`, { prefix: ['taskset', '-c', '0'], extra: route(coding) })
  const coded = `/${coding}/a`
  const hit = await settled(larder, coded, coding)
  Object.assign(filler, { length: hit.body, head: 0 })
  const plain = await settled(larder, `/same/${coding}/0`, undefined)
  const name = '\r\nx-filler: '.length
  filler.head = Math.max(hit.head - plain.head - name, 0)
  const same = `/same/${coding}/1`
  const stored = await settled(larder, same, undefined)
  if (Math.abs(stored.head + stored.body - hit.head - hit.body) > 4) throw new Error(`${stored.head + stored.body} and ${hit.head + hit.body} bytes`)
  const encodings = await metric(larder, 'larder_encodings_total')
  const rates = { [same]: [], [coded]: [] }
  const ratios = []
  for (let round = 0; round < Number(given.rounds); round++) {
    const order = round % 2 ? [coded, same] : [same, coded]
    const rate = {}
    for (const path of order) rate[path] = await load(larder, path)
    for (const path of order) rates[path].push(rate[path])
    ratios.push(rate[coded] / rate[same])
  }
  if (await metric(larder, 'larder_encodings_total') !== encodings) throw new Error('a form was made again')
  await larder.stop()
  const ratio = median(ratios)
  console.log(`| ${coding} | ${hit.head + hit.body} | ${Math.round(median(rates[same]))} | ${Math.round(median(rates[coded]))} | ${ratio.toFixed(3)} |`)
  return ratio >= Number(given.limit)
}

/** Asks until the response is a hit in this coding, and returns the bytes of its head and its body. */
async function settled (larder, path, coding) {
  for (let i = 0; i < 50; i++) {
    const { response, body } = await get(larder, path)
    if (response.headers['x-api-cache'] === 'HIT' && response.headers['content-encoding'] === coding) {
      return { head: response.rawHeaders.reduce((sum, text) => sum + text.length + 2, 0), body }
    }
    await sleep(20)
  }
  throw new Error(`${path} is no hit in ${coding}\n${larder.tail()}`)
}

function get ({ url }, path) {
  return new Promise((resolve, reject) => {
    http.get(url + path, { headers: { 'accept-encoding': ACCEPTED } }, response => {
      let body = 0
      response.on('data', chunk => { body += chunk.length })
      response.on('end', () => resolve({ response, body }))
    }).on('error', reject)
  })
}

/** Requests per second of server CPU, all of them hits. */
async function load (larder, path) {
  const [before, hits] = [cpuSeconds(larder.pid), await metric(larder, 'larder_requests_total', 'cache="HIT"')]
  const client = start([...LOAD_CORE, 'wrk', '-t1', `-c${given.connections}`, `-d${given.seconds}s`, '-H', `Accept-Encoding: ${ACCEPTED}`,
    '-s', script(), larder.url + path])
  while (client.isRunning()) await sleep(20)
  const used = cpuSeconds(larder.pid) - before
  const [, answered, errors] = /RESULT (\d+) (\d+)/.exec(client.tail()) ?? []
  if (!answered || Number(errors)) throw new Error(`the load failed\n${client.tail()}`)
  if (await metric(larder, 'larder_requests_total', 'cache="HIT"') - hits < Number(answered)) throw new Error('not all answers were hits')
  return Number(answered) / used
}

function script () {
  const file = join(folder, 'report.lua')
  writeFileSync(file, `done = function(summary)
  local e = summary.errors
  io.write(string.format("RESULT %d %d\\n", summary.requests, e.connect + e.read + e.write + e.status + e.timeout))
end
`)
  return file
}

async function metric (larder, name, labels = '') {
  const text = await (await fetch(`${larder.admin}/metrics`)).text()
  const lines = text.split('\n').filter(line => line.startsWith(`${name}{`) && line.includes(labels))
  return lines.reduce((sum, line) => sum + Number(line.split(' ').pop()), 0)
}

function median (list) {
  const sorted = [...list].sort((a, b) => a - b)
  return sorted[sorted.length >> 1]
}

// What stored responses cost in memory: resident size with many small ones against their own bytes, and the ceiling that
// `memory` promises under more than fits, and under clients that do not read or send heads that HPACK makes large.
//
//   node bench/memory.mjs [--larder PATH] [--responses N] [--ratio R] [--constant MiB]

import { readFileSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import net from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { options, startLarder } from '../tests/process.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const MIB = 1024 * 1024
const given = options({
  larder: join(process.env.CARGO_TARGET_DIR ?? join(here, '../target'), 'optimized/larder'),
  responses: '100000',
  ratio: '1.6',
  constant: '128', // MiB over `memory`: the program, its buffers and connections
  budget: '64' // MiB of `memory` in the second part
})
const count = Number(given.responses)
const agent = new http.Agent({ keepAlive: true, maxSockets: 64 })

// The origin answers any target; its length is the last part of the path, in KiB.
const origin = http.createServer((request, response) => {
  if (request.url.startsWith('/never/')) return
  const kibibytes = Number(request.url.split('/').pop())
  response.setHeader('Content-Type', 'application/json')
  response.setHeader('Cache-Control', 'max-age=3600')
  response.setHeader('ETag', `"${request.url.length}"`)
  response.end(Buffer.alloc(kibibytes * 1024, 'x'))
})
await new Promise(resolve => origin.listen(0, '127.0.0.1', 4096, resolve))
const originUrl = `http://127.0.0.1:${origin.address().port}`

const verdicts = []
await smallResponses()
await smallBudget()
await hostileClients()
const failed = verdicts.filter(isGood => !isGood).length
console.log(`${verdicts.length - failed} passed, ${failed} failed`)
process.exit(failed ? 1 : 0)

async function smallResponses () {
  const larder = await startLarder(resolve(given.larder), originUrl, { memory: '512MiB' })
  const before = resident(larder.pid)
  const target = i => `/catalogue/items/${i}/1`
  const each = await size(originUrl, target(0))
  await all(larder, count, target)
  const sample = Array.from({ length: 1000 }, (_, i) => target(Math.floor(i * count / 1000)))
  const tokens = await Promise.all(sample.map(path => ask(larder.url, path)))
  const hits = tokens.filter(({ headers }) => headers['x-api-cache'] === 'HIT').length
  const after = resident(larder.pid)
  const bytes = each * count
  console.log(`${count} responses of ${each} bytes with their fields: ${mib(bytes)} MiB; resident ${mib(before)} MiB before, ` +
    `${mib(after)} MiB after; ratio ${(after / bytes).toFixed(2)} (growth alone ${((after - before) / bytes).toFixed(2)}); ` +
    `${hits} of ${sample.length} asked again are hits`)
  verdict('all stay stored', hits === sample.length)
  verdict(`resident size under ${given.ratio} times their bytes`, after < Number(given.ratio) * bytes)
  await larder.stop()
}

async function smallBudget () {
  const larder = await startLarder(resolve(given.larder), originUrl, { memory: `${given.budget}MiB` })
  const limit = (Number(given.budget) + Number(given.constant)) * MIB
  let peak = 0
  const watch = setInterval(() => { peak = Math.max(peak, resident(larder.pid)) }, 20)
  for (const [kibibytes, number] of [[100, 4000], [1, 100000], [1024, 400], [10, 20000]]) {
    await all(larder, number, i => `/bulk/${i}/${kibibytes}`)
  }
  clearInterval(watch)
  peak = Math.max(peak, highWater(larder.pid))
  console.log(`memory = ${given.budget} MiB under about 1,100 MiB of responses: peak resident ${mib(peak)} MiB, ` +
    `${mib(peak - Number(given.budget) * MIB)} MiB over the budget`)
  verdict(`resident size under memory + ${given.constant} MiB`, peak < limit)
  await larder.stop()
}

/** Clients that take memory and give nothing, all at once for ten seconds; and one that wants its hits beside them. */
async function hostileClients () {
  const larder = await startLarder(resolve(given.larder), originUrl, { memory: `${given.budget}MiB` })
  await ask(larder.url, '/wanted/1')
  const ends = [
    ...Array.from({ length: 8 }, (_, n) => withoutWindow(larder, 100, i => `/unread/${n}/${i}/1024`)),
    ...Array.from({ length: 8 }, (_, n) => withoutWindow(larder, 100, i => `/unread/${n}/${i}/60`)),
    ...Array.from({ length: 8 }, (_, n) => withLargeHeads(larder, 100, i => `/never/${n}/${i}`)),
    ...Array.from({ length: 100 }, (_, n) => withoutReading(larder, `/unread/http1/${n}/1024`))
  ]
  let [peak, connections, hits, asked] = [0, 0, 0, 0]
  const until = Date.now() + 10000
  while (Date.now() < until) {
    const { headers } = await ask(larder.url, '/wanted/1')
    asked++
    if (headers['x-api-cache'] === 'HIT') hits++
    peak = Math.max(peak, resident(larder.pid))
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  peak = Math.max(peak, highWater(larder.pid))
  connections = ends.length + 64
  ends.forEach(end => end())
  const limit = (Number(given.budget) + Number(given.constant)) * MIB + connections * 32 * 1024
  console.log(`memory = ${given.budget} MiB under ${ends.length} hostile connections: peak resident ${mib(peak)} MiB; ` +
    `${hits} of ${asked} requests beside them were hits`)
  verdict(`resident size under memory + ${given.constant} MiB + 32 KiB a connection beside hostile clients`, peak < limit)
  verdict('others get their hits beside hostile clients', hits === asked)
  await larder.stop()
}

/** Asks for many responses over HTTP/2 and takes none of them. */
function withoutWindow (larder, number, target) {
  const session = http2.connect(larder.url, { settings: { initialWindowSize: 0 } })
  session.on('error', () => {})
  for (let i = 0; i < number; i++) session.request({ ':path': target(i) }).on('error', () => {})
  return () => session.destroy()
}

/** Asks with heads that are large only once HPACK's table has been looked up. */
function withLargeHeads (larder, number, target) {
  const session = http2.connect(larder.url)
  session.on('error', () => {})
  const large = 'v'.repeat(3900)
  for (let i = 0; i < number; i++) {
    session.request({ ':path': target(i), 'x-large': Array(7).fill(large) }).on('error', () => {})
  }
  return () => session.destroy()
}

/** Asks over HTTP/1.1 and reads nothing. */
function withoutReading (larder, path) {
  const { hostname, port } = new URL(larder.url)
  const socket = net.connect(Number(port), hostname, () => socket.write(`GET ${path} HTTP/1.1\r\nHost: api.test\r\n\r\n`))
  socket.on('error', () => {})
  socket.pause()
  return () => socket.destroy()
}

function verdict (name, isGood) {
  verdicts.push(isGood)
  if (!isGood) console.log(`FAILED ${name}`)
}

/** `number` requests by 64 connections, each answer read whole. */
async function all (larder, number, target) {
  let next = 0
  await Promise.all(Array.from({ length: 64 }, async () => {
    while (next < number) await ask(larder.url, target(next++))
  }))
  if (!larder.isRunning()) throw new Error(`the proxy ended by itself\n${larder.tail()}`)
}

function ask (base, path) {
  const { hostname, port } = new URL(base)
  return new Promise((resolve, reject) => {
    http.get({ hostname, port, path, agent }, response => {
      response.on('data', () => {})
      response.on('end', () => response.statusCode === 200
        ? resolve({ headers: response.headers, rawHeaders: response.rawHeaders })
        : reject(new Error(`status ${response.statusCode} for ${path}`)))
      response.on('error', reject)
    }).on('error', reject)
  })
}

/** The bytes of an answer as its origin sent it: status line, fields, body. */
async function size (base, path) {
  const { headers, rawHeaders } = await ask(base, path)
  const fields = rawHeaders.reduce((sum, part) => sum + part.length + 2, 0)
  return 'HTTP/1.1 200 OK\r\n'.length + fields + 2 + Number(headers['content-length'])
}

function resident (pid) {
  return status(pid, 'VmRSS')
}

function highWater (pid) {
  return status(pid, 'VmHWM')
}

function status (pid, field) {
  return Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) * 1024
}

function mib (bytes) {
  return (bytes / MIB).toFixed(1)
}

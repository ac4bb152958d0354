// Instructions of a hit from memory in user space, of two builds of Larder, counted by valgrind: every machine can, and
// whatever else runs makes no difference. Fails if the first takes more than the second by a limit. `fence.sh` builds both.
//
//   node bench/count.mjs --larder PATH --twin PATH [--kinds plain,browser,…] [--path PATH] [--rounds N] [--limit PERCENT] [--keep FOLDER]
//
// The kinds are those of `requests.mjs`; `--path` asks for another path instead of theirs, `--keep` leaves what callgrind wrote.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { answering, options, sleep, start, startLarder } from '../tests/process.mjs'
import { SECRET, requests } from './requests.mjs'
import { startOrigin } from './servers.mjs'

const given = options({ larder: '', twin: '', kinds: 'plain', path: '', rounds: '3', limit: '3', keep: '' })
const SECONDS = 3
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
name = "coded"
match = "/coded/**"
ttl = "1h"
encode = ["br", "zstd", "gzip"]

[[route]]
name = "stocks"
match = "/items/stocks/{symbol}"
ttl = "1h"
`

const folder = mkdtempSync('/dev/shm/larder-count-')
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
execFileSync('chmod', ['755', folder])
const origin = await startOrigin(folder)
const names = ['larder', 'twin'].filter(name => given[name])
const kinds = given.kinds.split(',')
const counted = Object.fromEntries(kinds.flatMap(kind => names.map(name => [`${kind} ${name}`, []])))
for (let round = 0; round < Number(given.rounds); round++) {
  for (const kind of kinds) for (const name of names) counted[`${kind} ${name}`].push(await count(name, kind))
}
await origin.stop()
const of = (kind, name, part) => median(counted[`${kind} ${name}`].map(run => run[part]))
console.log(['', 'instructions', 'of them SHA-256', 'without'].join('\t'))
for (const kind of kinds) {
  for (const name of names) {
    const [all, digest] = [of(kind, name, 'all'), of(kind, name, 'digest')]
    console.log([`${kind} ${name}`, ...[all, digest, all - digest].map(each => each.toFixed(0))].join('\t'))
  }
}
if (!given.twin) process.exit(0)
// The key's digest is taken out: valgrind knows the processor's own instructions for it not, and counts ten times as many.
let isUnder = true
for (const kind of kinds) {
  const [larder, twin] = ['larder', 'twin'].map(name => of(kind, name, 'all') - of(kind, name, 'digest'))
  const more = 100 * (larder / twin - 1)
  isUnder &&= more < Number(given.limit)
  console.log(`${more < Number(given.limit) ? 'passed' : 'FAILED'} ${kind}: ${more.toFixed(2)} % more instructions, ${given.limit} % are allowed`)
}
process.exit(isUnder ? 0 : 1)

/** What one request takes under a load of some seconds. */
async function count (name, kind) {
  const request = { ...requests[kind], ...(given.path && { path: given.path }) }
  const told = join(given.keep || folder, `${kind}.${name}`)
  const prefix = ['valgrind', '--tool=callgrind', '--instr-atstart=no', `--callgrind-out-file=${told}`]
  const top = request.isTrusted ? 'trusted_proxies = ["127.0.0.0/8"]' : ''
  const server = await startLarder(given[name], `http://${origin.host}`, { prefix, top, extra: ROUTES })
  // Under valgrind the first answers take their time.
  for (let i = 0; i < 10; i++) await answering(server.url + request.path, server, { status: 200 })
  await load(server, request, 1)
  if (!request.path.startsWith('/pass/') && !/\bhit\b/.test(await cacheStatus(server, request))) throw new Error(`${name} answers ${kind} without a hit`)
  control(server, 'on')
  const answered = await load(server, request, SECONDS)
  control(server, 'off')
  await server.stop()
  const { all, digest } = read(readFileSync(told, 'utf8'))
  if (!(all > 0)) throw new Error(`valgrind counted nothing\n${server.tail()}`)
  return { all: all / answered, digest: digest / answered }
}

function cacheStatus ({ url }, { path, fields }) {
  const headers = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
  return new Promise((resolve, reject) => {
    http.get(url + path, { headers, agent: false }, response => resolve(response.resume().headers['cache-status'])).on('error', reject)
  })
}

function control ({ pid }, state) {
  execFileSync('callgrind_control', [`--instr=${state}`, String(pid)], { stdio: 'pipe' })
}

/** How many requests were answered. */
async function load ({ port }, { path, fields }, seconds) {
  const lines = Object.entries(fields).flatMap(([name, value]) => value === undefined ? [] : ['-H', `${name}: ${value}`])
  const client = start(['wrk', '-t1', '-c16', `-d${seconds}s`, '--timeout', '10s', ...lines, `http://127.0.0.1:${port}${path}`])
  while (client.isRunning()) await sleep(20)
  const answered = Number(/(\d+) requests in/.exec(client.tail())?.[1])
  if (!answered || /Non-2xx|Socket errors/.test(client.tail())) throw new Error(`the load failed\n${client.tail()}`)
  return answered
}

/** All instructions that callgrind's file tells of, and those of the digest itself. */
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

function median (list) {
  const sorted = [...list].sort((a, b) => a - b)
  return sorted[sorted.length >> 1]
}

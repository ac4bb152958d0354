// Measures Larder against its peers and against servers that only send bytes, in interleaved rounds. NOTES.md says how to read it.
//
//   bench/run.sh [--only WORKLOAD,…] [--servers NAME,…] [--rounds N] [--seconds S] [--minutes M] [--quick] [--write] [--json FILE]
//
// `--quick` takes two rounds of a second, whatever the control says: to see that everything works.

import { execFile, execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { freePort, options, sleep, start } from '../tests/process.mjs'
import { measureLatency } from './latency.mjs'
import { run } from './load.mjs'
import { measureMemory } from './stored_bytes.mjs'
import { cpuSeconds } from './processes.mjs'
import { writePage } from './results.mjs'
import { LOAD_CORE, servers, startOrigin } from './servers.mjs'
import { page } from './tables.mjs'
import { WORKLOADS } from './workloads.mjs'

const OTHERS = { latency: measureLatency, 'memory-1k': measureMemory } // measurements that are no workload
const given = options({
  only: [...Object.keys(WORKLOADS), ...Object.keys(OTHERS)].join(','),
  servers: Object.keys(servers).filter(name => !servers[name].isAskedFor).join(','),
  rounds: '4',
  seconds: '2', // whole ones, for wrk
  minutes: '15', // for all of it; a workload's share of it limits the rounds that it gets because others were disturbed
  quick: false,
  larder: '',
  twin: '', // another build of Larder to compare with, see fence.sh
  bare: '', // of the bench's own package, with its other programs beside it
  json: '',
  write: false
})
if (given.quick) Object.assign(given, { rounds: '2', seconds: '1', minutes: '0' })
const begun = Date.now()
const names = given.servers.split(',')
for (const name of names) if (!servers[name]) throw new Error(`no server ${name}; known: ${Object.keys(servers).join(', ')}`)
const asked = given.only.split(',')
const known = [...Object.keys(WORKLOADS), ...Object.keys(OTHERS)]
for (const name of asked) if (!known.includes(name)) throw new Error(`no workload ${name}; known: ${known.join(', ')}`)
const workloads = asked.filter(workload => WORKLOADS[workload] && names.some(name => takesPart(name, workload)))

const folder = mkdtempSync('/dev/shm/larder-bench-')
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
let rooms = 0
const origin = await startOrigin(room())
const etag = (await fetch(`http://${origin.host}/hit/1k`)).headers.get('etag')
const control = await startControl()
let reference = 0 // the best the control has ever been: the machine undisturbed
const running = {}
const measured = {}
for (const [index, workload] of workloads.entries()) {
  for (const name of names.filter(name => takesPart(name, workload))) running[name] ??= await begin(name)
  const done = workloads.slice(0, index + 1).reduce((sum, each) => sum + weight(each), 0)
  const all = asked.reduce((sum, each) => sum + weight(each), 0)
  measured[workload] = await measure(workload, begun + Number(given.minutes) * 60000 * done / all)
  const later = workloads.slice(index + 1)
  for (const name of Object.keys(running)) if (!later.some(each => takesPart(name, each))) await end(name)
}
const used = Object.keys(servers).filter(name => workloads.some(workload => names.includes(name) && takesPart(name, workload)))
const others = {}
for (const name of asked.filter(name => OTHERS[name])) {
  others[name] = await OTHERS[name]({ names, servers, begin, end, running, given, folder, originRequests })
}
for (const name of Object.keys(running)) await end(name)
const versions = [...new Set(used.map(name => servers[name].version?.(given)).filter(Boolean))]
const results = { date: new Date().toISOString().slice(0, 10), given: { rounds: given.rounds, seconds: given.seconds }, reference, versions, workloads: measured, ...others }
const text = page(results)
console.log(text)
if (given.json) writeFileSync(given.json, JSON.stringify(results, null, 1))
if (given.write) writePage(text)
await control.stop()
await origin.stop()
process.exit()

function room () {
  const path = join(folder, `${++rooms}`)
  mkdirSync(path, { mode: 0o755 })
  execFileSync('chmod', ['755', folder, path]) // varnishd and nginx workers may drop privileges
  return path
}

function takesPart (name, workload) {
  const { group, does = 'hit' } = WORKLOADS[workload]
  return servers[name].group === group && (!servers[name].isStub || servers[name].does.includes(does))
}

/** How long a workload takes in comparison with the others: one for each server. */
function weight (workload) {
  if (OTHERS[workload]) return 10
  return names.filter(name => takesPart(name, workload)).length + (WORKLOADS[workload].group === 'stored' ? 10 : 0)
}

async function begin (name) {
  const server = await servers[name].start(room(), origin, given)
  for (let left = 400; ; left--) {
    const status = await get({ ...server, isTls: servers[name].group === 'tls' }, '/hit/1k').then(({ status }) => status, () => undefined)
    if (status === 200) return server
    if (!left || !server.isRunning()) throw new Error(`${name} does not respond: ${status}\n${server.tail()}`)
    await sleep(50)
  }
}

async function end (name) {
  await running[name].stop()
  delete running[name]
}

/**
 * All runs of one workload: A B C … A B C …, each round starting one server further on, so that drift cancels out, until
 * every server has had enough undisturbed ones; but no more than four times as many rounds as were asked for, and no additional
 * one after `deadline`.
 */
async function measure (workload, deadline) {
  const taking = names.filter(name => takesPart(name, workload))
  const wanted = Number(given.rounds)
  const rounds = []
  for (const name of taking) {
    await verify(name, WORKLOADS[workload])
    await load(name, workload, 1)
  }
  for (let round = 0; round < 4 * wanted; round++) {
    if (round >= wanted && (Date.now() > deadline || taking.every(name => undisturbed(rounds, name).length >= wanted))) break
    const results = {}
    for (let i = 0; i < taking.length; i++) {
      const name = taking[(i + round) % taking.length]
      const before = await controlNow()
      const result = await load(name, workload, Number(given.seconds))
      results[name] = { ...result, control: Math.min(before, await controlNow()) }
      process.stderr.write(`${workload} ${round + 1} ${name}: ${Math.round(result.perSecond)}/s, ${Math.round(result.perCpuSecond)} ` +
        `per CPU second, control ${Math.round(results[name].control)}\n`)
    }
    rounds.push(results)
  }
  return rounds
}

/** The runs of a server before and after which the control stood near its best. */
function undisturbed (rounds, name) {
  return rounds.map(round => round[name]).filter(run => run.control >= 0.8 * reference)
}

async function startControl () {
  const port = await freePort()
  const program = join(dirname(given.bare), 'control')
  const echo = start(['taskset', '-c', '0', program, 'echo', `127.0.0.1:${port}`])
  await sleep(200)
  if (!echo.isRunning()) throw new Error(`the control did not start\n${echo.tail()}`)
  return { ...echo, ask: [...LOAD_CORE, program, 'ask', `127.0.0.1:${port}`, '60'] }
}

async function controlNow () {
  const [program, ...rest] = control.ask
  const { stdout } = await promisify(execFile)(program, rest)
  reference = Math.max(reference, Number(stdout))
  return Number(stdout)
}

/** A run; one that is not valid is repeated twice, because a server that gets no processor for a moment may drop its Redis. */
async function load (name, workload, seconds, attempts = 3) {
  try {
    return await loadOnce(name, workload, seconds)
  } catch (error) {
    if (attempts === 1) throw error
    process.stderr.write(`not valid: ${error.message.split('\n')[0]}\n`)
    await sleep(500)
    return load(name, workload, seconds, attempts - 1)
  }
}

/** One run of a load on its core. An error, a wrong size or an answer of the wrong kind makes it invalid. */
async function loadOnce (name, workload, seconds) {
  const { bytes, does = 'hit' } = WORKLOADS[workload]
  const server = running[name]
  const originBefore = await originRequests()
  const foundBefore = server.redis?.hits()
  const before = cpu(server)
  const result = await run(WORKLOADS[workload], server, { seconds, fields: fieldsOf(does), folder, bare: given.bare })
  const used = Object.fromEntries(Object.entries(cpu(server)).map(([whose, seconds]) => [whose, seconds - before[whose]]))
  const found = server.redis?.hits() - foundBefore
  const asked = await originRequests() - originBefore - 1
  const { requests, errors } = result
  const isShort = result.bytes / requests < bytes
  const isLong = does === 'not-modified' && result.bytes / requests > 1024
  const fault = errors ? `${errors} errors` : isShort || isLong ? 'answers of another size' : wrongKind(name, does, asked, requests, found)
  if (fault) throw new Error(`${name}, ${workload}: ${fault}\n${result.said}\n${server.tail()}`)
  return {
    perSecond: requests / result.seconds,
    p50: result.p50,
    p99: result.p99,
    load: used.all / result.seconds,
    redisLoad: used.redis / result.seconds,
    perCpuSecond: requests / used.all
  }
}

function fieldsOf (does) {
  return does === 'not-modified' ? { 'If-None-Match': etag } : {}
}

/**
 * Hits must not reach the origin, and passed and stored requests must all do so: its own counter is the witness. Hits from Redis must
 * all be found there, as Redis itself counts.
 */
function wrongKind (name, does, asked, requests, found) {
  if (found < requests) return `Redis was asked for only ${found} of ${requests} hits`
  if (does === 'pass' || does === 'store') return asked >= requests ? '' : `only ${asked} of ${requests} requests reached the origin`
  if (servers[name].isStub) return ''
  return asked <= 5 ? '' : `${asked} of ${requests} requests were no hits`
}

/** Asks for everything until the origin need not be asked any more, but at least twice, so that what can be stored is. */
async function verify (name, { path, keys, isFresh, bytes, does, group }) {
  if (isFresh) return
  const server = { ...running[name], isTls: group === 'tls' }
  const targets = server.requests ?? (keys ? Array.from({ length: keys }, (_, i) => ({ path: `${path}${(i + 1) * (server.stride ?? 1)}` })) : [{ path }])
  const agent = new (server.isTls ? https : http).Agent({ keepAlive: true, maxSockets: 32 })
  for (let i = 0; i < 10; i++) {
    if (does === 'not-modified') await get(server, path, { agent })
    const before = await originRequests()
    for (let j = 0; j < targets.length; j += 1000) {
      await Promise.all(targets.slice(j, j + 1000).map(each => verifyOne(name, server, each, does, bytes, agent)))
    }
    if (i > 0 && (does === 'pass' || await originRequests() - before === 1)) break
    await sleep(100) // what is stored is written after its first answer
  }
  agent.destroy()
}

async function verifyOne (name, server, { path, headers }, does, bytes, agent) {
  const { status, length } = await get(server, path, { agent, headers: headers ?? fieldsOf(does) })
  const expected = does === 'not-modified' ? 304 : 200
  if (status !== expected || length !== bytes) throw new Error(`${name}: ${path} is answered ${status} with ${length} bytes, not ${expected} with ${bytes}`)
}

function get ({ port, isTls }, path, { agent = false, headers = {} } = {}) {
  return new Promise((resolve, reject) => {
    (isTls ? https : http).get({ host: '127.0.0.1', port, path, agent, headers, rejectUnauthorized: false }, response => {
      let length = 0
      response.on('data', chunk => { length += chunk.length })
      response.on('end', () => resolve({ status: response.statusCode, length }))
    }).on('error', reject)
  })
}

async function originRequests () {
  const page = await (await fetch(`http://${origin.host}/requests`)).text()
  return Number(/\n\s*\d+ \d+ (\d+)/.exec(page)[1])
}

/** What a server has used until now, in seconds: `all` of it, and its Redis alone. */
function cpu ({ pid, redis }) {
  const its = redis ? cpuSeconds(redis.pid) : 0
  return { all: cpuSeconds(pid) + its, redis: its }
}

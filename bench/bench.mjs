// Measures Larder against nginx, HAProxy, Varnish, nginx with Lua and Redis, and a bare hyper server, in interleaved rounds.
// NOTES.md says how to read it.
//
//   bench/run.sh [--only WORKLOAD,…] [--servers NAME,…] [--rounds N] [--seconds S] [--write] [--json FILE]

import { execFile, execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { answering, freePort, options, sleep, start } from '../tests/process.mjs'
import { writePage } from './results.mjs'
import { LOAD_CORE, servers, startOrigin } from './servers.mjs'

const KEYS = 5000 // more than are ever under way at once: no two requests can share one answer of Redis
const WORKLOADS = {
  'hit-1k-64': { path: '/hit/1k', connections: 64, bytes: 1024, title: 'Hits, 1 KiB, 64 connections' },
  'hit-1k-1000': { path: '/hit/1k', connections: 1000, bytes: 1024, title: 'Hits, 1 KiB, 1,000 connections' },
  'hit-100k-64': { path: '/hit/100k', connections: 64, bytes: 102400, title: 'Hits, 100 KiB, 64 connections' },
  'hit-100k-1000': { path: '/hit/100k', connections: 1000, bytes: 102400, title: 'Hits, 100 KiB, 1,000 connections' },
  'redis-1k-64': {
    path: '/items/',
    keys: KEYS,
    connections: 64,
    bytes: 1024,
    isRedis: true,
    title: 'Hits from Redis, 1 KiB, 64 connections, CPU of proxy and Redis'
  },
  'redis-1k-1000': {
    path: '/items/',
    keys: KEYS,
    connections: 1000,
    bytes: 1024,
    isRedis: true,
    title: 'Hits from Redis, 1 KiB, 1,000 connections, CPU of proxy and Redis'
  },
  'pass-64': { path: '/pass/1k', connections: 64, bytes: 1024, isPass: true, title: 'Pass-through (`no-store`), 1 KiB, 64 connections' }
}
const PEERS = ['nginx', 'haproxy', 'varnish', 'nginx-lua']
const CLOCK_TICKS = 100 // of /proc/*/stat, a second: USER_HZ, the same on every Linux

const given = options({
  only: Object.keys(WORKLOADS).join(','),
  servers: Object.keys(servers).filter(name => !servers[name].isAskedFor).join(','),
  rounds: '7',
  seconds: '2',
  larder: '',
  twin: '', // another build of Larder to compare with, see fence.sh
  bare: '', // of the bench's own package, with `control` beside it
  json: '',
  write: false
})
const names = given.servers.split(',')
for (const name of names) if (!servers[name]) throw new Error(`no server ${name}; known: ${Object.keys(servers).join(', ')}`)
const asked = given.only.split(',')
for (const name of asked) if (!WORKLOADS[name]) throw new Error(`no workload ${name}; known: ${Object.keys(WORKLOADS).join(', ')}`)
const workloads = asked.filter(workload => names.some(name => takesPart(name, workload)))

const folder = mkdtempSync('/dev/shm/larder-bench-')
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
const report = join(folder, 'report.lua')
writeFileSync(report, `-- With arguments, a path and a number: asks for as many targets in turn.
init = function(args)
  if not args[1] then return end
  local requests, last = {}, 0
  for i = 1, tonumber(args[2]) do requests[i] = wrk.format("GET", args[1] .. i) end
  request = function()
    last = last % #requests + 1
    return requests[last]
  end
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
`)

const origin = await startOrigin(room('origin'))
const control = await startControl()
let reference = 0 // the best the control has ever been: the machine undisturbed
const running = {}
for (const name of names) if (workloads.some(workload => takesPart(name, workload))) running[name] = await begin(name)
const measured = {}
for (const workload of workloads) measured[workload] = await measure(workload)
const text = page()
console.log(text)
if (given.json) writeFileSync(given.json, JSON.stringify(measured, null, 1))
if (given.write) writePage(text)
for (const server of Object.values(running)) await server.stop()
await control.stop()
await origin.stop()
process.exit()

function room (name) {
  const path = join(folder, name)
  mkdirSync(path, { mode: 0o755 })
  execFileSync('chmod', ['755', folder, path]) // varnishd and nginx workers may drop privileges
  return path
}

function takesPart (name, workload) {
  const { isRedis, isPass } = WORKLOADS[workload]
  return Boolean(servers[name].isRedis) === Boolean(isRedis) && !(isPass && name === 'bare')
}

async function begin (name) {
  const server = await servers[name].start(room(name), origin, given)
  await answering(`http://127.0.0.1:${server.port}/hit/1k`, server, { status: 200 })
  return server
}

/**
 * All runs of one workload: A B C … A B C …, each round starting one server further on, so that drift cancels out, until
 * every server has had enough undisturbed ones; but no more than four times as many rounds as were asked for.
 */
async function measure (workload) {
  const taking = names.filter(name => takesPart(name, workload))
  const wanted = Number(given.rounds)
  const rounds = []
  for (const name of taking) {
    await verify(name, WORKLOADS[workload])
    await load(name, workload, 1)
  }
  for (let round = 0; round < 4 * wanted; round++) {
    if (taking.every(name => undisturbed(rounds, name).length >= wanted)) break
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

/** One run of wrk on its core; an error, a wrong size or an answer of the wrong kind ends the bench. */
async function load (name, workload, seconds) {
  const { path, keys, connections, bytes, isPass } = WORKLOADS[workload]
  const server = running[name]
  const originBefore = await originRequests()
  const foundBefore = server.redis?.hits()
  const before = cpu(server)
  const client = start([...LOAD_CORE, 'wrk', '-t1', `-c${connections}`, `-d${seconds}s`, '--timeout', '10s', '-s', report,
    `http://127.0.0.1:${server.port}${path}`, ...(keys ? ['--', path, String(keys)] : [])])
  while (client.isRunning()) await sleep(20)
  const used = Object.fromEntries(Object.entries(cpu(server)).map(([whose, seconds]) => [whose, seconds - before[whose]]))
  const found = server.redis?.hits() - foundBefore
  const asked = await originRequests() - originBefore - 1
  const result = /RESULT (.+)/.exec(client.tail())
  if (!result) throw new Error(`${name}: wrk said\n${client.tail()}`)
  const [requests, microseconds, received, p50, p99, errors] = result[1].split(' ').map(Number)
  const fault = errors ? `${errors} errors` : received / requests < bytes ? 'short answers' : wrongKind(name, isPass, asked, requests, found)
  if (fault) throw new Error(`${name}, ${workload}: ${fault}\n${client.tail()}\n${server.tail()}`)
  const rate = amount => amount * 1e6 / microseconds
  return { perSecond: rate(requests), p50, p99, load: rate(used.all), redisLoad: rate(used.redis), perCpuSecond: requests / used.all }
}

/**
 * Hits must not reach the origin, and passed requests must all do so: its own counter is the witness. Hits from Redis must
 * all be found there, as Redis itself counts.
 */
function wrongKind (name, isPass, asked, requests, found) {
  if (name === 'bare') return ''
  if (found < requests) return `Redis was asked for only ${found} of ${requests} hits`
  if (isPass) return asked >= requests ? '' : `only ${asked} of ${requests} requests reached the origin`
  return asked <= 5 ? '' : `${asked} of ${requests} requests were no hits`
}

/** Asks for everything until the origin need not be asked any more, but at least twice, so that what can be stored is. */
async function verify (name, { path, keys, bytes, isPass }) {
  const paths = keys ? Array.from({ length: keys }, (_, i) => `${path}${i + 1}`) : [path]
  const agent = new http.Agent({ keepAlive: true, maxSockets: 32 })
  for (let i = 0; i < 10; i++) {
    const before = await originRequests()
    for (let j = 0; j < paths.length; j += 1000) {
      await Promise.all(paths.slice(j, j + 1000).map(each => verifyOne(name, each, bytes, agent)))
    }
    if (i > 0 && (isPass || await originRequests() - before === 1)) break
    await sleep(100) // what is stored is written after its first answer
  }
  agent.destroy()
}

async function verifyOne (name, path, bytes, agent) {
  const length = await new Promise((resolve, reject) => {
    http.get({ host: '127.0.0.1', port: running[name].port, path, agent }, response => {
      let received = 0
      response.on('data', chunk => { received += chunk.length })
      response.on('end', () => resolve(response.statusCode === 200 ? received : `status ${response.statusCode}`))
    }).on('error', reject)
  })
  if (length !== bytes) throw new Error(`${name}: ${path} has ${length} bytes, not ${bytes}`)
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

/** User and system time of a process and all that it has started, in seconds. */
function cpuSeconds (pid) {
  const parents = new Map()
  const ticks = new Map()
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    try {
      const fields = readFileSync(`/proc/${entry}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ')
      parents.set(Number(entry), Number(fields[1]))
      ticks.set(Number(entry), Number(fields[11]) + Number(fields[12]))
    } catch { /* it has ended meanwhile */ }
  }
  const isOurs = each => each === pid || (parents.has(each) && isOurs(parents.get(each)))
  let total = 0
  for (const [each, used] of ticks) if (isOurs(each)) total += used
  return total / CLOCK_TICKS
}

// ── What is said about it ──

function median (list) {
  const sorted = [...list].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

function page () {
  return [
    '# Results', '',
    `Measured ${new Date().toISOString().slice(0, 10)} by \`bench/run.sh\`: medians of ${given.rounds} or more interleaved runs of ` +
      `${given.seconds} s each. [NOTES.md](NOTES.md) explains the figures; on another machine only the ratios apply.`, '',
    `Machine: ${cpus()[0].model.trim()}, ${cpus().length} cores, Linux ${execFileSync('uname', ['-r']).toString().trim()}; best control ` +
      `${grouped(reference)} round trips/s. Servers: ${Object.keys(running).map(name => servers[name].version(given) || name).join(' · ')} · load by ${wrkVersion()}.`, '',
    ...workloads.flatMap(workload => [`## ${WORKLOADS[workload].title}`, '', ...table(measured[workload]), ''])
  ].join('\n')
}

function wrkVersion () {
  return /wrk \S+/.exec(execFileSync('bash', ['-c', 'wrk -v 2>&1 || true']).toString())?.[0].replace('debian/', '') ?? 'wrk'
}

function table (rounds) {
  const taking = Object.keys(running).filter(name => rounds[0][name])
  const isCalm = taking.every(name => undisturbed(rounds, name).length >= Math.min(3, given.rounds))
  const runs = name => isCalm ? undisturbed(rounds, name) : rounds.map(round => round[name])
  const of = (name, key) => median(runs(name).map(run => run[key]))
  const best = PEERS.filter(name => taking.includes(name)).sort((a, b) => of(b, 'perCpuSecond') - of(a, 'perCpuSecond'))[0]
  const ratio = (name, to, digits = 2) =>
    taking.includes(to) ? (of(name, 'perCpuSecond') / of(to, 'perCpuSecond')).toFixed(digits) : '–'
  const overall = (name, to, digits = 2) =>
    taking.includes(to) ? median(rounds.map(round => round[name].perCpuSecond / round[to].perCpuSecond)).toFixed(digits) : '–'
  return [
    '| server | requests/s | p50 | p99 | server CPU | requests per second of server CPU | × best peer | × bare hyper | × best peer, all runs |',
    '|---|---:|---:|---:|---:|---:|---:|---:|---:|',
    ...taking.map(name => `| ${name === best ? `${name} (best peer)` : name} | ${grouped(of(name, 'perSecond'))} | ${time(of(name, 'p50'))} | ` +
      `${time(of(name, 'p99'))} | ${percent(of(name, 'load'))}${running[name].redis ? `, Redis ${percent(of(name, 'redisLoad'))}` : ''} | ${grouped(of(name, 'perCpuSecond'))} | ${ratio(name, best)} | ` +
      `${ratio(name, 'bare')} | ${overall(name, best)} |`),
    '',
    ...(taking.includes('twin') && taking.includes('larder')
      ? [`larder / twin: ${ratio('larder', 'twin', 3)}; all runs: ${overall('larder', 'twin', 3)}.`, '']
      : []),
    isCalm
      ? `Undisturbed runs, of ${rounds.length} for each server: ${taking.map(name => `${name} ${undisturbed(rounds, name).length}`).join(', ')}.`
      : `**The machine was disturbed for too long: all ${rounds.length} runs of each server count, and the ratios are rough.**`
  ]
}

function percent (share) {
  return `${Math.round(100 * share)} %`
}

function grouped (number) {
  return Math.round(number).toLocaleString('en-US')
}

function time (microseconds) {
  return microseconds < 1000 ? `${Math.round(microseconds)} µs` : `${(microseconds / 1000).toFixed(1)} ms`
}

// Measures Larder against nginx, HAProxy, Varnish and a bare hyper server, in interleaved rounds. NOTES.md says how to read it.
//
//   bench/run.sh [--only WORKLOAD,…] [--servers NAME,…] [--rounds N] [--seconds S] [--write] [--json FILE]

import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { answering, options, sleep, start } from '../tests/process.mjs'
import { LOAD_CORE, servers, startOrigin } from './servers.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const WORKLOADS = {
  'hit-1k-64': { path: '/hit/1k', connections: 64, bytes: 1024, title: 'Hits, 1 KiB, 64 connections' },
  'hit-1k-1000': { path: '/hit/1k', connections: 1000, bytes: 1024, title: 'Hits, 1 KiB, 1,000 connections' },
  'hit-100k-64': { path: '/hit/100k', connections: 64, bytes: 102400, title: 'Hits, 100 KiB, 64 connections' },
  'hit-100k-1000': { path: '/hit/100k', connections: 1000, bytes: 102400, title: 'Hits, 100 KiB, 1,000 connections' },
  'pass-64': { path: '/pass/1k', connections: 64, bytes: 1024, isPass: true, title: 'Pass-through (`no-store`), 1 KiB, 64 connections' }
}
const PEERS = ['nginx', 'haproxy', 'varnish']
const CLOCK_TICKS = 100 // of /proc/*/stat, a second: USER_HZ, the same on every Linux

const given = options({
  only: Object.keys(WORKLOADS).join(','),
  servers: Object.keys(servers).join(','),
  rounds: '5',
  seconds: '5',
  larder: '',
  bare: '',
  json: '',
  write: false
})
const names = given.servers.split(',')
const workloads = given.only.split(',')
for (const name of workloads) if (!WORKLOADS[name]) throw new Error(`no workload ${name}; known: ${Object.keys(WORKLOADS).join(', ')}`)

const folder = mkdtempSync('/dev/shm/larder-bench-')
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
const report = join(folder, 'report.lua')
writeFileSync(report, `done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
`)

const origin = await startOrigin(room('origin'))
const running = {}
for (const name of names) running[name] = await begin(name)
const measured = {}
for (const workload of workloads) measured[workload] = await measure(workload)
const text = page()
console.log(text)
if (given.json) writeFileSync(given.json, JSON.stringify(measured, null, 1))
if (given.write) writeFileSync(join(here, 'RESULTS.md'), text)
for (const server of Object.values(running)) await server.stop()
await origin.stop()
process.exit()

function room (name) {
  const path = join(folder, name)
  mkdirSync(path, { mode: 0o755 })
  execFileSync('chmod', ['755', folder, path]) // varnishd and nginx workers may drop privileges
  return path
}

async function begin (name) {
  const server = await servers[name].start(room(name), origin, given)
  await answering(`http://127.0.0.1:${server.port}/hit/1k`, server, { status: 200 })
  return server
}

/** All rounds of one workload: A B C … A B C …, each round starting one server further on, so that drift cancels out. */
async function measure (workload) {
  const { isPass } = WORKLOADS[workload]
  const taking = names.filter(name => !(isPass && name === 'bare'))
  const rounds = []
  for (const name of taking) await load(name, workload, 1)
  for (let round = 0; round < Number(given.rounds); round++) {
    const results = {}
    for (let i = 0; i < taking.length; i++) {
      const name = taking[(i + round) % taking.length]
      results[name] = await load(name, workload, Number(given.seconds))
      process.stderr.write(`${workload} ${round + 1}/${given.rounds} ${name}: ${Math.round(results[name].perSecond)}/s, ` +
        `${Math.round(results[name].perCpuSecond)} per CPU second\n`)
    }
    rounds.push(results)
  }
  return rounds
}

/** One run of wrk on its core; an error, a wrong size or an answer of the wrong kind ends the bench. */
async function load (name, workload, seconds) {
  const { path, connections, bytes, isPass } = WORKLOADS[workload]
  const server = running[name]
  await verify(name, path, bytes)
  const originBefore = await originRequests()
  const cpuBefore = cpuSeconds(server.pid)
  const client = start([...LOAD_CORE, 'wrk', '-t1', `-c${connections}`, `-d${seconds}s`, '--timeout', '10s', '-s', report,
    `http://127.0.0.1:${server.port}${path}`])
  while (client.isRunning()) await sleep(20)
  const cpu = cpuSeconds(server.pid) - cpuBefore
  const asked = await originRequests() - originBefore - 1
  const result = /RESULT (.+)/.exec(client.tail())
  if (!result) throw new Error(`${name}: wrk said\n${client.tail()}`)
  const [requests, microseconds, received, p50, p99, errors] = result[1].split(' ').map(Number)
  const fault = errors ? `${errors} errors` : received / requests < bytes ? 'short answers' : wrongKind(name, isPass, asked, requests)
  if (fault) throw new Error(`${name}, ${workload}: ${fault}\n${client.tail()}\n${server.tail()}`)
  return { perSecond: requests * 1e6 / microseconds, p50, p99, cpu, load: cpu * 1e6 / microseconds, perCpuSecond: requests / cpu }
}

/** Hits must not reach the origin, and passed requests must all do so: its own counter is the witness. */
function wrongKind (name, isPass, asked, requests) {
  if (name === 'bare') return ''
  if (isPass) return asked >= requests ? '' : `only ${asked} of ${requests} requests reached the origin`
  return asked <= 5 ? '' : `${asked} of ${requests} requests were no hits`
}

async function verify (name, path, bytes) {
  for (let i = 0; i < 2; i++) {
    const length = await new Promise((resolve, reject) => {
      http.get({ host: '127.0.0.1', port: running[name].port, path, agent: false }, response => {
        let received = 0
        response.on('data', chunk => { received += chunk.length })
        response.on('end', () => resolve(response.statusCode === 200 ? received : `status ${response.statusCode}`))
      }).on('error', reject)
    })
    if (length !== bytes) throw new Error(`${name}: ${path} has ${length} bytes, not ${bytes}`)
  }
}

async function originRequests () {
  const page = await (await fetch(`http://${origin.host}/requests`)).text()
  return Number(/\n\s*\d+ \d+ (\d+)/.exec(page)[1])
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
    `Measured ${new Date().toISOString().slice(0, 10)} by \`bench/run.sh\`: ${given.rounds} interleaved rounds of ${given.seconds} s, medians. ` +
      'NOTES.md says how to read it; only ratios within a table mean anything on another machine.', '',
    `Machine: ${cpus()[0].model.trim()}, ${cpus().length} cores, Linux ${execFileSync('uname', ['-r']).toString().trim()}. ` +
      `Servers: ${names.map(name => servers[name].version(given) || name).join(' · ')} · load by ${wrkVersion()}.`, '',
    ...workloads.flatMap(workload => [`## ${WORKLOADS[workload].title}`, '', ...table(measured[workload]), ''])
  ].join('\n')
}

function wrkVersion () {
  return /wrk \S+/.exec(execFileSync('bash', ['-c', 'wrk -v 2>&1 || true']).toString())?.[0].replace('debian/', '') ?? 'wrk'
}

function table (rounds) {
  const of = (name, key) => median(rounds.map(round => round[name][key]))
  const taking = Object.keys(running).filter(name => rounds[0][name])
  const best = PEERS.filter(name => taking.includes(name)).sort((a, b) => of(b, 'perCpuSecond') - of(a, 'perCpuSecond'))[0]
  const ratio = (name, to) => taking.includes(to) ? median(rounds.map(round => round[name].perCpuSecond / round[to].perCpuSecond)).toFixed(2) : '–'
  return [
    '| server | requests/s | p50 | p99 | server CPU | requests per second of server CPU | × best peer | × bare hyper |',
    '|---|---:|---:|---:|---:|---:|---:|---:|',
    ...taking.map(name => `| ${name === best ? `${name} (best peer)` : name} | ${grouped(of(name, 'perSecond'))} | ${time(of(name, 'p50'))} | ` +
      `${time(of(name, 'p99'))} | ${Math.round(100 * of(name, 'load'))} % | ${grouped(of(name, 'perCpuSecond'))} | ${ratio(name, best)} | ${ratio(name, 'bare')} |`)
  ]
}

function grouped (number) {
  return Math.round(number).toLocaleString('en-US')
}

function time (microseconds) {
  return microseconds < 1000 ? `${Math.round(microseconds)} µs` : `${(microseconds / 1000).toFixed(1)} ms`
}

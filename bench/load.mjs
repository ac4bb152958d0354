// The programs that send the load: `load` of bench/bare, and over TLS wrk, h2load and `handshakes.mjs`. Each runs on the core of the load and comes to the same figures.

import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { sleep, start } from '../tests/process.mjs'
import { LOAD_CORE } from './servers.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const DONE = `
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
`
const text = value => `[==[${value}]==]`
let fresh = 0 // targets that were requested once

/**
 * One run: `{ requests, seconds, bytes, p50, p99, errors, said }`, times in microseconds. `server` has a `port`, and may have
 * a `stride` of its targets, or `requests` of its own in their place; `fields` are those of each request. `folder` is for the script of wrk.
 *
 * If the server tells its `cores`, each of them runs a load with its share of the connections. The percentiles are then those of the slowest.
 */
export async function run (workload, server, given) {
  const { cores } = server
  if (!cores) return await runOn(LOAD_CORE, workload, server, given)
  const share = { ...workload, connections: workload.connections / cores.length }
  const results = await Promise.all(cores.map(core => runOn(['taskset', '-c', String(core)], share, server, given)))
  const [sum, most] = [what => results.reduce((sum, result) => sum + result[what], 0), what => Math.max(...results.map(result => result[what]))]
  return {
    requests: sum('requests'),
    bytes: sum('bytes'),
    errors: sum('errors'),
    seconds: most('seconds'),
    p50: most('p50'),
    p99: most('p99'),
    said: results.map(({ said }) => said).join('\n')
  }
}

async function runOn (core, { client = 'load', ...workload }, server, { seconds, fields = {}, folder, bare }) {
  const command = { wrk, h2load, handshakes, load }[client](workload, server, { seconds, fields, folder, bare })
  const child = start([...core, ...command])
  while (child.isRunning()) await sleep(20)
  const said = child.tail()
  const result = { wrk: readResult, h2load: readH2load, handshakes: readResult, load: readLoad }[client](said)
  if (!result) throw new Error(`${client} said\n${said}`)
  if (workload.isFresh) fresh += result.requests + workload.connections
  return { ...result, said }
}

/** wrk's script that sends these requests in turn; they have a `path`, and may have a `method`, `headers` and a `body`. */
export function scriptOf (requests) {
  const lines = requests.map(({ method = 'GET', path, headers = {}, body }) =>
    `wrk.format("${method}", ${text(path)}, {${Object.entries(headers).map(([name, value]) => `["${name}"] = ${text(value)}`).join(', ')}}, ${body ? text(body) : 'nil'})`)
  return `${DONE}init = function() requests = {${lines.join(',\n')}}; last = 0 end
request = function() last = last % #requests + 1; return requests[last] end
`
}

function wrk ({ path, connections }, { port }, { seconds, folder }) {
  const script = join(folder, 'load.lua')
  writeFileSync(script, DONE)
  return ['wrk', '-t1', `-c${connections}`, `-d${seconds}s`, '--timeout', '10s', '-s', script, `https://127.0.0.1:${port}${path}`]
}

/** The figures of a program that prints `RESULT`. */
export function readResult (said) {
  const figures = /RESULT (.+)/.exec(said)?.[1].split(' ').map(Number)
  if (!figures) return undefined
  const [requests, microseconds, bytes, p50, p99, errors] = figures
  return { requests, seconds: microseconds / 1e6, bytes, p50, p99, errors }
}

function h2load ({ path, connections }, { port }, { seconds }) {
  return ['h2load', '-t1', `-c${connections}`, '-m8', `-D${seconds}`, `https://127.0.0.1:${port}${path}`]
}

function readH2load (said) {
  const figure = pattern => Number(pattern.exec(said)?.[1])
  const requests = figure(/(\d+) done/)
  const good = figure(/status codes: (\d+) 2xx/)
  const faults = ['failed', 'errored', 'timeout'].reduce((sum, what) => sum + figure(new RegExp(`(\\d+) ${what}`)), 0)
  if (!requests || !/TLSv1\.3/.test(said)) return undefined
  // h2load has no percentiles.
  return { requests, seconds: figure(/finished in ([\d.]+)s/), bytes: figure(/, \S+ \((\d+)\) data/), errors: faults + Math.max(0, requests - good) }
}

function load ({ path, keys, isFresh, connections }, { port, stride = 1, requests }, { seconds, fields, folder, bare }) {
  const program = join(dirname(bare), 'load')
  const [address, ...rest] = [`127.0.0.1:${port}`, seconds, connections].map(String)
  if (isFresh) return [program, 'fresh', address, path, String(fresh + 1), ...rest]
  const targets = keys ? Array.from({ length: keys }, (_, i) => ({ path: `${path}${(i + 1) * stride}` })) : [{ path }]
  const heads = join(folder, 'heads')
  writeFileSync(heads, (requests ?? targets).map(({ path, headers = fields }) => headOf(path, { Host: address, ...headers })).join(''))
  return [program, 'closed', address, ...rest, heads]
}

/** The head of a `GET`, as bytes of HTTP/1.1. */
function headOf (path, headers) {
  return `GET ${path} HTTP/1.1\r\n${Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`
}

function readLoad (said) {
  if (!said.startsWith('{')) return undefined
  return { ...JSON.parse(said), errors: 0 }
}

function handshakes ({ path, connections, isResumed }, { port }, { seconds }) {
  return ['node', join(here, 'handshakes.mjs'), '--port', String(port), '--path', path, '--connections', String(connections), '--seconds', String(seconds),
    ...(isResumed ? ['--resumed'] : [])]
}

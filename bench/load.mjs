// The programs that send the load: wrk, h2load, `load` of bench/bare, and `handshakes.mjs`. Each runs on the core of the load and comes to the same figures.

import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { sleep, start } from '../tests/process.mjs'
import { LOAD_CORE } from './servers.mjs'

const here = dirname(fileURLToPath(import.meta.url))
// Arguments: a prefix of targets, how many there are of them and how far their numbers are apart; or `fresh`, the prefix and the number of the first
// target, each of which is requested once.
const SCRIPT = `
init = function(args)
  if not args[1] then return end
  if args[1] == "fresh" then
    local number = tonumber(args[3])
    request = function()
      number = number + 1
      return wrk.format("GET", args[2] .. string.format("%d", number))
    end
    return
  end
  local requests, last = {}, 0
  for i = 1, tonumber(args[2]) do requests[i] = wrk.format("GET", args[1] .. string.format("%d", i * tonumber(args[3]))) end
  request = function()
    last = last % #requests + 1
    return requests[last]
  end
end
`
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
 */
export async function run ({ client = 'wrk', ...workload }, server, { seconds, fields = {}, folder, bare }) {
  const command = { wrk, h2load, handshakes, load }[client](workload, server, { seconds, fields, folder, bare })
  const child = start([...LOAD_CORE, ...command])
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

function wrk ({ path, keys, isFresh, connections, group }, { port, stride = 1, requests }, { seconds, fields, folder }) {
  const script = join(folder, 'load.lua')
  writeFileSync(script, requests ? scriptOf(requests) : SCRIPT + DONE)
  const lines = Object.entries(fields).flatMap(([name, value]) => ['-H', `${name}: ${value}`])
  const targets = isFresh ? ['--', 'fresh', path, String(fresh)] : keys ? ['--', path, String(keys), String(stride)] : []
  return ['wrk', '-t1', `-c${connections}`, `-d${seconds}s`, '--timeout', '10s', '-s', script, ...lines,
    `${group === 'tls' ? 'https' : 'http'}://127.0.0.1:${port}${path}`, ...targets]
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

// wrk waits for the body that HAProxy announces in a 304 and must not send.
function load ({ path, connections }, { port }, { seconds, fields, bare }) {
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}`)
  return [join(dirname(bare), 'load'), 'closed', `127.0.0.1:${port}`, path, String(seconds), String(connections), ...lines]
}

function readLoad (said) {
  if (!said.startsWith('{')) return undefined
  return { ...JSON.parse(said), errors: 0 }
}

function handshakes ({ path, connections, isResumed }, { port }, { seconds }) {
  return ['node', join(here, 'handshakes.mjs'), '--port', String(port), '--path', path, '--connections', String(connections), '--seconds', String(seconds),
    ...(isResumed ? ['--resumed'] : [])]
}

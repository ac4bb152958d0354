// The page of the bench: a summary with the bars, and a table for each workload.

import { execFileSync } from 'node:child_process'
import { cpus } from 'node:os'
import { servers } from './servers.mjs'
import { BARS, WORKLOADS } from './workloads.mjs'

/** Peers are the servers that do what Larder does. */
const PEERS = ['nginx', 'haproxy', 'varnish', 'nginx-lua', 'nginx-tls', 'haproxy-tls']

/** The share of a constant rate below which a server is saturated. */
export const REACHED = 0.98
/** How late the load may be itself in an open loop, in microseconds. */
const MAX_LAG = 500

/** The page as lines of Markdown. */
export function page (results) {
  const { date, given, reference, versions, workloads, latency, 'memory-1k': memory } = results
  return [
    '# Results', '',
    `Measured ${date} by \`bench/run.sh\`: medians of ${given.rounds} or more interleaved runs of ` +
      `${given.seconds} s each. [NOTES.md](NOTES.md) explains the figures; on another machine only the ratios apply.`, '',
    `Machine: ${cpus()[0].model.trim()}, ${cpus().length} cores, Linux ${execFileSync('uname', ['-r']).toString().trim()}; best control ` +
      `${grouped(reference)} round trips/s. Servers: ${versions.join(' · ')} · load by ${loadVersions().join(', ')}.`, '',
    ...summary(results),
    ...Object.entries(workloads).flatMap(([workload, rounds]) => [`## ${WORKLOADS[workload].title}`, '', ...table(workload, rounds, reference), '']),
    ...(latency ? latencyTables(latency) : []),
    ...(memory ? memoryTable(memory) : [])
  ].join('\n')
}

function loadVersions () {
  const said = command => execFileSync('bash', ['-c', `${command} 2>&1 || true`]).toString()
  const wrk = /wrk \S+/.exec(said('wrk -v'))?.[0].replace('debian/', '') ?? 'wrk'
  const h2load = /h2load nghttp2\/\S+/.exec(said('h2load --version'))?.[0] ?? 'h2load'
  return [wrk, h2load, 'bench/bare']
}

/** Every bar of what was measured: a ratio in each round, their median and how far they are apart. */
function summary ({ workloads, latency, 'memory-1k': memory, reference }) {
  const rows = BARS.flatMap(bar => workloads[bar.workload] ? barRow(bar, workloads[bar.workload], reference) : [])
  if (latency?.runs.larder) rows.push(...latencyRow(latency))
  if (memory?.bytes.larder && memory.bytes.varnish) rows.push(memoryRow(memory))
  if (!rows.length) return []
  return [
    '## Summary', '',
    'Ratios of requests per second of server CPU, if not stated, each within its round: the median, and in brackets the lowest and the highest.', '',
    '| work | server | against | ratio | bar | met |', '|---|---|---|---:|---:|---|',
    ...rows.map(({ title, server, against, ratios, bar, isMost }) => {
      const ratio = median(ratios)
      const verdict = bar ? [`${isMost ? '≤' : '≥'} ${bar}`, (isMost ? ratio <= bar : ratio >= bar) ? 'yes' : 'no'] : ['–', '–']
      return `| ${title} | ${server} | ${against} | ${ratio.toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)}) | ` +
        `${verdict.join(' | ')} |`
    }), ''
  ]
}

function barRow ({ workload, server = 'larder', against, bar }, rounds, reference) {
  const taking = Object.keys(rounds[0])
  const other = against === 'best peer' ? bestPeer(rounds, reference) : against
  if (!taking.includes(server) || !taking.includes(other)) return []
  const calm = rounds.filter(round => [server, other].every(name => isUndisturbed(round[name], reference)))
  const ratios = (calm.length >= 3 ? calm : rounds).map(round => round[server].perCpuSecond / round[other].perCpuSecond)
  return [{ title: WORKLOADS[workload].title, server, against: against === 'best peer' ? `${other} (best peer)` : other, ratios, bar }]
}

/** At half of the saturating rate: the 99.9th percentile against the lowest one of the peers. */
function latencyRow ({ shares, rates, runs }) {
  const half = shares.indexOf(0.5)
  const of = name => median(runs[name][half].map(run => run.p999))
  const isReached = name => median(runs[name][half].map(run => run.perSecond)) >= REACHED * rates[half]
  const best = Object.keys(runs).filter(name => PEERS.includes(name) && isReached(name)).sort((a, b) => of(a) - of(b))[0]
  if (!best || !isReached('larder')) return []
  const ratios = runs.larder[half].map((run, i) => run.p999 / runs[best][half][i].p999)
  return [{ title: `p99.9 of a hit at ${grouped(rates[half])} requests/s, half of the best peer's rate`, server: 'larder', against: `${best} (best peer)`, ratios, bar: 1, isMost: true }]
}

function memoryRow ({ bytes }) {
  const ratios = bytes.larder.map((each, i) => each / bytes.varnish[i])
  return { title: 'Memory per stored response of 1 KiB', server: 'larder', against: 'varnish', ratios, bar: 0.8, isMost: true }
}

function isUndisturbed (run, reference) {
  return run.control >= 0.8 * reference
}

/** The runs that count: the undisturbed ones, or all if a server has too few of them. */
export function counting (rounds, reference) {
  const taking = Object.keys(rounds[0])
  const undisturbed = name => rounds.map(round => round[name]).filter(run => isUndisturbed(run, reference))
  const isCalm = taking.every(name => undisturbed(name).length >= Math.min(3, rounds.length))
  return { isCalm, undisturbed, runs: name => isCalm ? undisturbed(name) : rounds.map(round => round[name]) }
}

function bestPeer (rounds, reference) {
  const { runs } = counting(rounds, reference)
  const of = name => median(runs(name).map(run => run.perCpuSecond))
  return Object.keys(rounds[0]).filter(name => PEERS.includes(name)).sort((a, b) => of(b) - of(a))[0]
}

function table (workload, rounds, reference) {
  const taking = Object.keys(servers).filter(name => rounds[0][name])
  const { isCalm, undisturbed, runs } = counting(rounds, reference)
  const of = (name, key) => median(runs(name).map(run => run[key]))
  const best = bestPeer(rounds, reference) ?? taking[0]
  const columns = [[best, PEERS.includes(best) ? 'best peer' : best], ['bare', 'bare hyper'], ['tokio', 'tokio loop']].filter(([name]) => taking.includes(name))
  const ratio = (name, to, digits = 2) => (of(name, 'perCpuSecond') / of(to, 'perCpuSecond')).toFixed(digits)
  const overall = (name, to, digits = 2) => median(rounds.map(round => round[name].perCpuSecond / round[to].perCpuSecond)).toFixed(digits)
  const isRedis = taking.some(name => servers[name].group === 'redis')
  const spread = name => {
    const rates = runs(name).map(run => run.perCpuSecond)
    return `± ${(50 * (Math.max(...rates) - Math.min(...rates)) / median(rates)).toFixed(1)} %`
  }
  return [
    `| server | requests/s | p50 | p99 | server CPU | requests per second of server CPU | spread | ${columns.map(([, title]) => `× ${title}`).join(' | ')} | × ${columns[0][1]}, all runs |`,
    `|---|---:|---:|---:|---:|---:|---:|${columns.map(() => '---:|').join('')}---:|`,
    ...taking.map(name => `| ${name === best && PEERS.includes(name) ? `${name} (best peer)` : name} | ${grouped(of(name, 'perSecond'))} | ${time(of(name, 'p50'))} | ` +
      `${time(of(name, 'p99'))} | ${percent(of(name, 'load'))}${isRedis ? `, Redis ${percent(of(name, 'redisLoad'))}` : ''} | ${grouped(of(name, 'perCpuSecond'))} | ` +
      `${spread(name)} | ${columns.map(([to]) => ratio(name, to)).join(' | ')} | ${overall(name, columns[0][0])} |`),
    '',
    ...(taking.includes('twin') && taking.includes('larder') ? [`larder / twin: ${ratio('larder', 'twin', 3)}; all runs: ${overall('larder', 'twin', 3)}.`, ''] : []),
    isCalm
      ? `Undisturbed runs, of ${rounds.length} for each server: ${taking.map(name => `${name} ${undisturbed(name).length}`).join(', ')}.`
      : `**The machine was disturbed for too long: all ${rounds.length} runs of each server count, and the ratios are rough.**`
  ]
}

function latencyTables ({ shares, rates, saturation, runs }) {
  const of = (name, index, key) => median(runs[name][index].map(run => run[key]))
  const rows = key => Object.keys(runs).map(name => `| ${name} | ${rates.map((rate, index) => cell(name, index, key)).join(' | ')} |`)
  const cell = (name, index, key) => of(name, index, 'perSecond') < REACHED * rates[index] ? 'saturated' : time(of(name, index, key))
  const head = ['| server | ' + rates.map((rate, index) => `${grouped(rate)}/s (${percent(shares[index])})`).join(' | ') + ' |', `|---|${rates.map(() => '---:|').join('')}`]
  const lag = Math.max(...Object.values(runs).flat(2).map(run => run.lag))
  return [
    '## Latency at a constant rate, hits of 1 KiB, 64 connections', '',
    'An open loop: a time counts from when the request was due. Rates are shares of the highest one that a peer reaches in a closed loop. Saturated: fewer responses than requests.', '',
    ...(lag > MAX_LAG ? [`**The load itself was late by up to ${time(lag)} (p99.9 of a run): other processes had its core, and the times include that.**`, ''] : []),
    `Closed loop: ${Object.entries(saturation).map(([name, rate]) => `${name} ${grouped(rate)}/s`).join(', ')}. The load itself was late by ${time(lag)} at most.`, '',
    ...['p50', 'p99', 'p999'].flatMap(key => [`**${key === 'p999' ? 'p99.9' : key}**`, '', ...head, ...rows(key), ''])
  ]
}

function memoryTable ({ count, bytes }) {
  return [
    `## Memory per stored response of 1 KiB, ${grouped(count)} responses`, '',
    'Growth of the resident memory of the server and its children.', '',
    '| server | bytes per response | lowest | highest |', '|---|---:|---:|---:|',
    ...Object.entries(bytes).map(([name, rounds]) => `| ${name} | ${grouped(median(rounds))} | ${grouped(Math.min(...rounds))} | ${grouped(Math.max(...rounds))} |`), ''
  ]
}

export function median (list) {
  const sorted = [...list].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

function percent (share) {
  return `${Math.round(100 * share)} %`
}

export function grouped (number) {
  return Math.round(number).toLocaleString('en-US')
}

function time (microseconds) {
  if (microseconds === undefined || Number.isNaN(microseconds)) return '–'
  return microseconds < 1000 ? `${Math.round(microseconds)} µs` : `${(microseconds / 1000).toFixed(1)} ms`
}

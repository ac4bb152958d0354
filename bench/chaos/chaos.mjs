// Chaos: three nodes before two origins and a Redis Cluster, under a mixed load, while all of them are killed, stopped, cut off and slowed down from a
// seed, with hostile clients beside. Each answer is held against a model of what the origin has said.
//
//   node bench/chaos/chaos.mjs --larder PATH [--seconds N] [--seed N] [--without-hostile] [--write]
//
// Prints a table, and fails where an answer was wrong or staler than the rules allow, where a request failed through no fault of the origin, where a
// client missed a purge, or where a node took more memory than it may.

import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { options, sleep, start } from '../../tests/process.mjs'
import { writeSection } from '../results.mjs'
import { Balancer } from './balancer.mjs'
import { missed, runClients } from './clients.mjs'
import { Cluster, MEMORY } from './cluster.mjs'
import { Faults } from './faults.mjs'
import { Model } from './model.mjs'
import { Origin } from './origin.mjs'
import { Random } from './random.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const given = options({
  larder: join(process.env.CARGO_TARGET_DIR ?? join(here, '../../target'), 'optimized/larder'),
  seconds: '600',
  seed: '1',
  constant: '128', // MiB over `memory`, as README says
  'without-hostile': false,
  write: false
})
const [seconds, seed] = [Number(given.seconds), Number(given.seed)]
/** The faults of an origin that may make a request of a kind fail. */
const READS = ['refused', 'stalled', 'failing', 'broken']
const TOUCHED = { reads: READS, 'conditional reads': READS, ranges: READS, writes: ['refused', 'stalled', 'failing'], uploads: ['refused', 'stalled'], feeds: ['refused', 'stalled'], tunnels: ['refused'] }
const CALM = 5_000 // ms before the first fault, and after the last one
const QUIET = 3_000 // ms at the end without purges, so that the last ones are heard
const EXAMPLES = 12
const GROWTH = 8 // MiB that a node may grow by in the last third of its life
const LONG = 180_000 // ms of life before that is looked at

/** What came of the requests, by what kind of client asked. */
class Tally {
  constructor () {
    Object.assign(this, { rows: new Map(), caches: {}, counts: {}, examples: [] })
  }

  row (what) {
    if (!this.rows.has(what)) this.rows.set(what, { asked: 0, failed: 0, origin: 0, killed: 0, wrong: 0, stale: 0, took: [] })
    return this.rows.get(what)
  }

  asked (what) { this.row(what).asked++ }
  cache (word) { this.caches[word] = (this.caches[word] ?? 0) + 1 }
  count (what) { this.counts[what] = (this.counts[what] ?? 0) + 1 }
  sum (column) { return [...this.rows.values()].reduce((sum, row) => sum + row[column], 0) }

  example (text) {
    if (this.examples.length < EXAMPLES) this.examples.push(text)
  }
}

/** Whether an answer stands for a failure of the origin that belongs to a request which this one waited for. */
function isShared (answer) {
  return /; fwd-status=(5\d\d|429); collapsed; detail=origin-error$/.test(answer.headers['cache-status'] ?? '')
}

/** A run: what its clients share. */
class Run {
  constructor (cluster, faults, model, balancer, random) {
    Object.assign(this, { cluster, faults, model, balancer, random, tally: new Tally(), marks: new Map(), streams: [], isQuiet: false, isOver: false, begin: Date.now() })
  }

  /** The answer to a request, unless it failed, or the origin's failure was passed on. */
  async ask (what, request, begun, { mayBeUnavailable = false } = {}) {
    this.tally.asked(what)
    const answer = await this.balancer.ask(request).catch(error => { this.failed(what, { error: error.message, isRefused: error.isRefused, node: error.node, begun, request }) })
    if (!answer) return
    this.tally.row(what).took.push(Date.now() - begun)
    if (answer.status < 500 || (mayBeUnavailable && answer.status === 503)) return answer
    if (answer.headers['x-number'] || isShared(answer)) this.tally.row(what).origin++
    else if (answer.status === 504 && answer.node.wasStoppedSince(begun)) this.tally.row(what).killed++
    else this.failed(what, { error: `${answer.status} ${answer.headers['cache-status']} ${answer.bytes.subarray(0, 200)}`, node: answer.node, begun, request, id: answer.headers['x-request-id'] })
  }

  /** A request failed: through the origin, with a node that was killed, or else it is a failure of ours. */
  failed (what, { error, isRefused, node, begun, request, id }) {
    const row = this.tally.row(what)
    if (request?.node && isRefused) row.asked-- // it was to go to this node and no other, which has ended
    else if (node?.wasKilledSince(begun)) row.killed++
    else if (this.faults.excuses(begun, TOUCHED[what] ?? [])) row.origin++
    else {
      row.failed++
      this.tally.example(`FAILED ${this.when(begun)} ${what}: ${request ? `${request.method ?? 'GET'} ${request.path}` : ''} on node ${node?.slot}: ${error}${this.traces(node, id)}`)
    }
  }

  /** What the origins did with a request, and what the node logged last. */
  traces (node, id) {
    if (this.tally.examples.length >= EXAMPLES) return ''
    const seen = this.model.requests.filter(each => each.id === id).map(({ port, mode, asked, said }) => `${port} (${mode}) got it at ${this.at(asked)}, answered at ${said ? this.at(said) : '–'}`)
    return `\n  origins: ${seen.join('; ') || 'never got it'}${node ? `\n  ${node.child.tail(3).replaceAll('\n', '\n  ')}` : ''}`
  }

  /** An answer is not what it has to be. */
  found (what, { wrong, stale }, asked, begun, answer) {
    this.tally.row(what)[wrong ? 'wrong' : 'stale']++
    this.tally.example(`${wrong ? 'WRONG' : 'STALE'} ${this.when(begun)} ${what}: ${asked} on node ${answer?.node.slot}: ${wrong ?? stale} [${answer?.headers['x-api-cache']}; ${answer?.headers['cache-status']}]`)
  }

  /** A moment of the run, and what was out of order then. */
  when (from) {
    const faults = this.faults.during(from - 1000).map(({ name, slot }) => slot === undefined ? name : `${name} (${slot})`)
    return `at ${this.at(from)}–${this.at(Date.now())} s (${faults.join(', ') || 'all well'})`
  }

  at (time) { return ((time - this.begin) / 1000).toFixed(1) }
}

const model = new Model()
const origins = [new Origin(model, new Random(seed * 1000 + 1)), new Origin(model, new Random(seed * 1000 + 2))]
for (const origin of origins) await origin.start()
const cluster = new Cluster(resolve(given.larder), origins)
await cluster.start()
const faults = new Faults(cluster, new Random(seed * 1000 + 3))
const random = new Random(seed * 1000 + 4)
const balancer = new Balancer(cluster, random)
const run = new Run(cluster, faults, model, balancer, random)

const begin = Date.now()
const end = begin + seconds * 1000
const ports = cluster.nodes.map(node => node.port).join(',')
const hostile = given['without-hostile'] ? undefined : start(['nice', 'node', join(here, '../hostile.mjs'), `--port=${ports}`, '--share=0.1', '--scale=0.2'])
faults.watch()
const clients = runClients(run)
await faults.run({ begin: begin + CALM, killing: begin + seconds * 600, end: end - CALM - QUIET })
await sleep(Math.max(CALM, end - QUIET - Date.now()))
run.isQuiet = true
await sleep(QUIET)
run.isOver = true
await Promise.race([clients, sleep(40_000).then(() => { run.tally.example('clients did not end within 40 s') })])
const isWell = await cluster.untilWell()
balancer.stop()
await hostile?.kill()
const panics = cluster.past.filter(({ child }) => /panicked/.test(child.tail(1e9)))
await cluster.stop()
process.exitCode = report() ? 0 : 1
process.exit()

/** Prints what came of it; whether nothing was broken. */
function report () {
  const { tally } = run
  const lives = cluster.past.map(life)
  const lost = missed(run)
  const lines = [...requestTable(tally), '',
    `Responses: ${list(tally.caches)}. Requests to the origins: ${model.records.length}. Retried on another node: ${balancer.retried}.`,
    `Purges: ${list(tally.counts)}.`, `Faults: ${list(faults.counts())}.`, '', ...memoryTable(lives)]
  console.log(`seed ${seed}, ${seconds} s\n\n${lines.join('\n')}\n`)
  if (given.write) writeSection('Chaos', [`Measured ${new Date().toISOString().split('T')[0]} by \`bench/chaos/run.sh ${seconds} ${seed}\`: 3 nodes, 2 origins, a Redis Cluster of 6 processes.`, '', ...lines])
  for (const { name, error } of faults.events.filter(({ error }) => error)) console.log(`the fault "${name}" did not work: ${error}`)
  for (const each of tally.examples) console.log(each)
  for (const mark of lost.slice(0, 5)) console.log(`missed on a stream: ${mark}`)
  for (const { child, slot } of panics) console.log(`node ${slot}: ${/.*panicked[^]{0,300}/.exec(child.tail(1e9))?.[0]}`)
  const all = bars(tally, lives, lost)
  const broken = all.filter(([, holds]) => !holds)
  for (const [what] of broken) console.log(`BROKEN: ${what}`)
  console.log(`${all.length - broken.length} passed, ${broken.length} failed`)
  return broken.length === 0
}

/** What has to hold: a sentence, and whether it does. */
function bars (tally, lives, lost) {
  return [
    ['no answer is wrong', tally.sum('wrong') === 0],
    ['no answer is staler than the rules allow', tally.sum('stale') === 0],
    ['no request fails but through the origin', tally.sum('failed') === 0],
    ['every acknowledged purge that is shown reaches every event stream', lost.length === 0],
    ['all is well again in the end', isWell],
    ['no node panicked', panics.length === 0],
    [`no node took more than ${MEMORY} + ${given.constant} MiB`, lives.every(({ peak }) => peak < MEMORY + Number(given.constant))],
    [`no node that lived for ${LONG / 60_000} minutes grew by more than ${GROWTH} MiB in its last third`, lives.every(({ lived, growth }) => lived < LONG || growth < GROWTH)],
    ['enough happened', (tally.caches.HIT ?? 0) > 20 * seconds && run.marks.size > seconds / 4 && faults.events.length > seconds / 4]
  ]
}

function requestTable (tally) {
  const columns = ['asked', 'failed', 'origin', 'killed', 'wrong', 'stale']
  const rows = [...tally.rows].map(([what, row]) => {
    const sorted = row.took.sort((a, b) => a - b)
    const at = share => sorted.length ? `${sorted[Math.floor(share * (sorted.length - 1))]} ms` : ''
    return `| ${[what, ...columns.map(column => row[column]), at(0.5), at(0.99), at(1)].join(' | ')} |`
  })
  return ['| | requests | failed | the origin\'s own failures | lost with a killed or stopped node | wrong | too stale | p50 | p99 | longest |',
    '|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|', ...rows, `| all | ${columns.map(column => tally.sum(column)).join(' | ')} | | | |`]
}

function memoryTable (lives) {
  const row = ({ slot, number, lived, peak, growth, slope }) =>
    `| ${slot} | ${number} | ${Math.round(lived / 1000)} s | ${peak.toFixed(0)} MiB | ${growth.toFixed(1)} MiB | ${slope.toFixed(1)} MiB |`
  return ['| node | process | lived | peak memory | growth in its last third | a minute |', '|---|---:|---:|---:|---:|---:|', ...lives.map(row)]
}

function list (counts) {
  return Object.entries(counts).sort().map(([what, count]) => `${count} ${what}`).join(', ')
}

/** What a process took: MiB at the peak, by how much the last third of its life is over the one before, and that a minute. */
function life ({ slot, number, memory }) {
  const lived = memory.length ? memory.at(-1)[0] - memory[0][0] : 0
  const third = Math.ceil(memory.length / 3)
  const median = part => part.map(([, mib]) => mib).sort((a, b) => a - b)[Math.floor(part.length / 2)] ?? 0
  const growth = median(memory.slice(-third)) - median(memory.slice(-2 * third, -third))
  return { slot, number, lived, growth, peak: Math.max(0, ...memory.map(([, mib]) => mib)), slope: lived ? growth / (lived / 3) * 60_000 : 0 }
}

// Compares the instructions of requests (`callgrind.mjs`) with those of the ledger, `instructions.json`. Fails if a request of any kind takes more
// than its bound allows; says so if one takes less by as much, so that the ledger can be brought up to date.
//
//   node bench/ledger.mjs [--larder PATH] [--kinds hit,pass,…] [--write]
//
// `--write` makes the figures of this build the ledger's.

import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { options } from '../tests/process.mjs'
import { instructions } from './callgrind.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const FILE = join(here, 'instructions.json')
const BOUND = 2 // percent
// By the ledger's names: the kind of `requests.mjs`, and a bound of its own for what differs by more between runs of one build.
const KINDS = {
  hit: { request: 'plain' },
  'hit of a browser': { request: 'browser' },
  'hit with other values each time': { request: 'users' },
  'hit of GraphQL by POST': { request: 'graphql' },
  'hit from Redis': { request: 'redis' },
  'not modified (304)': { request: 'not-modified' },
  pass: { request: 'passed' },
  'miss and store': { request: 'stored' }
}

const given = options({
  larder: join(process.env.CARGO_TARGET_DIR ?? join(here, '../target'), 'optimized/larder'),
  kinds: Object.keys(KINDS).join(','),
  write: false
})
const kinds = given.kinds.split(',')
for (const kind of kinds) if (!KINDS[kind]) throw new Error(`no kind '${kind}'; known: ${Object.keys(KINDS).join(', ')}`)
if (process.arch !== 'x64') {
  console.log(`SKIPPED: the ledger holds for x86_64, not for ${process.arch}`)
  process.exit(0)
}

const larder = resolve(given.larder)
const binary = readFileSync(larder)
// Incremental builds name their units otherwise.
if (!binary.includes('/@/larder.')) {
  console.log(`FAILED: ${larder} is an incremental build, in which less is inlined: up to 9 % more instructions. \`tests/run.sh build\` makes the one to count.`)
  console.log('0 passed, 1 failed')
  process.exit(1)
}

const figures = await count(kinds)
const tools = toolsHere()
const ledger = existsSync(FILE) ? JSON.parse(readFileSync(FILE, 'utf8')) : { tools, kinds: {} }
if (given.write) {
  writeFileSync(FILE, JSON.stringify({ tools, kinds: { ...ledger.kinds, ...figures } }, null, 2) + '\n')
  for (const kind of kinds) console.log(`${kind}: ${said(ledger.kinds[kind])} → ${said(figures[kind])}`)
  process.exit(0)
}
// What disturbs a count adds to it, so the smaller of two counts is the better one.
const doubtful = kinds.filter(kind => change(kind) >= boundOf(kind))
if (doubtful.length) {
  for (const [kind, again] of Object.entries(await count(doubtful))) if (total(again) < total(figures[kind])) figures[kind] = again
}
const failures = kinds.filter(kind => !isWithin(kind)).length
if (failures) explain()
console.log(`${kinds.length - failures} passed, ${failures} failed`)
process.exit(failures ? 1 : 0)

async function count (kinds) {
  const counted = await instructions(larder, kinds.map(kind => KINDS[kind].request))
  return Object.fromEntries(kinds.map(kind => {
    const { all, digest } = counted[KINDS[kind].request]
    return [kind, { instructions: Math.round(all - digest), sha256: Math.round(digest) }]
  }))
}

function total ({ instructions, sha256 }) {
  return instructions + sha256
}

function boundOf (kind) {
  return KINDS[kind].bound ?? BOUND
}

/** By how many percent a kind takes more than in the ledger. A kind that is not there is no doubtful one. */
function change (kind) {
  const before = ledger.kinds[kind]
  return before ? 100 * (total(figures[kind]) / total(before) - 1) : -Infinity
}

/** Says how a kind compares with the ledger, and whether it is within its bound. */
function isWithin (kind) {
  const [before, now] = [ledger.kinds[kind], figures[kind]]
  if (!before) {
    console.log(`FAILED ${kind}: ${said(now)}, and not in the ledger`)
    return false
  }
  const [bound, more] = [boundOf(kind), change(kind)]
  const verdict = more >= bound ? 'FAILED' : more <= -bound ? 'better' : 'passed'
  console.log(`${verdict} ${kind}: ${said(now)}; ${said(before)} in the ledger: ${more < 0 ? '' : '+'}${more.toFixed(2)} %, bound ${bound} %`)
  if (verdict === 'better') console.log(`       keep what was won: node bench/ledger.mjs --kinds '${kind}' --write`)
  return verdict !== 'FAILED'
}

function explain () {
  console.log('A request of each kind marked FAILED takes more instructions in user space than the ledger allows. If the change is worth that, say why in its')
  console.log('commit, and bring the ledger up to date:')
  console.log('  tests/run.sh build && node bench/ledger.mjs --write')
  console.log('What differs between two builds is shown by `node bench/count.mjs --larder PATH --twin PATH --kinds KIND --keep FOLDER` and callgrind_annotate.')
  const others = Object.keys(tools).filter(name => tools[name] !== ledger.tools[name])
  for (const name of others) console.log(`NOTE: ${name} is ${tools[name]} here, and was ${ledger.tools[name]} for the ledger. That alone changes the figures.`)
}

/** What the figures depend on besides the code. */
function toolsHere () {
  const cpu = readFileSync('/proc/cpuinfo', 'utf8')
  const comment = binary.indexOf('rustc version ')
  return {
    compiler: comment < 0 ? 'unknown' : binary.toString('latin1', comment, binary.indexOf(0, comment)),
    valgrind: execFileSync('valgrind', ['--version']).toString().trim(),
    libc: process.report.getReport().header.glibcVersionRuntime ?? 'unknown',
    // valgrind emulates one of a few processors; these features of the real one decide which.
    processor: ['avx2', 'f16c', 'rdrand', 'rdseed'].filter(flag => new RegExp(`\\b${flag}\\b`).test(cpu)).join(' ')
  }
}

function said (figure) {
  return figure ? `${figure.instructions.toLocaleString('en-US')} instructions (and ${figure.sha256.toLocaleString('en-US')} of SHA-256)` : 'none'
}

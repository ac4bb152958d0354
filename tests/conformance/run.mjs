// Runs http-cache-tests through a proxy and holds the outcome against ledger.json, which can only improve.
//
//   node run.mjs --larder PATH            the whole suite through that binary (default: target/optimized/larder)
//   node run.mjs --store redis            the same with Redis as the only store; --store both: with memory before it
//   node run.mjs --only ID                one test, with every request and response shown
//   node run.mjs --update                 also write what has improved into the ledger
//   node run.mjs --update --accept-worse  write everything; a new failure gets an empty reason, which must then be filled in
//   node run.mjs --proxy 'CMD {port} {origin}' --no-ledger   another proxy, for comparison: figures only
//
// Options besides: --suite FOLDER (the installed package), --surrogate (also the Surrogate-Control group), --json FILE.
// LARDER_CACHE_TESTS=FOLDER takes a checkout of the suite's repository instead of the npm release, with a ledger of its own.

import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { answering, freePort, options, scratch, sleep, start, startLarder, startRedis } from '../process.mjs'
import { isCheckout, suites, verdicts } from './suite.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const target = process.env.CARGO_TARGET_DIR ?? join(here, '../../target')
const given = options({
  larder: join(target, 'optimized/larder'),
  suite: process.env.LARDER_CACHE_TESTS || join(here, '../../target/test-tools/conformance/node_modules/http-cache-tests'),
  proxy: '',
  store: 'memory',
  only: '',
  json: '',
  surrogate: false,
  update: false,
  'accept-worse': false,
  'no-ledger': false
})
// What is stored where decides nothing: there is one ledger for all of them.
const stores = { memory: {}, redis: { memory: '0', hasRedis: true }, both: { hasRedis: true } }
if (!(given.store in stores)) throw new Error(`no store '${given.store}'; there are: ${Object.keys(stores).join(' ')}`)
const suite = resolve(given.suite)
const ledgerFile = join(here, isCheckout(suite) ? 'ledger.checkout.json' : 'ledger.json')

const tests = (await suites(suite)).filter(set => given.surrogate || set.id !== 'surrogate-control').flatMap(set => set.tests)
const origin = start(['node', join(here, 'origin.mjs'), suite])
const redis = stores[given.store].hasRedis ? await startRedis() : undefined
const proxy = await startProxy(await originUrl())

if (given.only) {
  await pass([given.only], true)
} else {
  const outcome = verdicts(tests, await everything())
  summarise(outcome)
  if (given.json) writeFileSync(given.json, JSON.stringify(Object.fromEntries(outcome), null, 1))
  if (!given['no-ledger']) compare(outcome)
}
await proxy.stop()
await redis?.stop()
await origin.stop()
process.exit()

async function originUrl () {
  for (let i = 0; i < 200; i++) {
    const found = /Listening on (http:\/\/[0-9.]+:[0-9]+)/.exec(origin.tail())
    if (found) return found[1]
    await sleep(25)
  }
  throw new Error(`the suite's origin did not start\n${origin.tail()}`)
}

async function startProxy (originAddress) {
  if (!given.proxy) return startLarder(resolve(given.larder), originAddress, { memory: stores[given.store].memory, redis: redis?.url })
  const port = await freePort()
  const command = given.proxy.replaceAll('{port}', port).replaceAll('{origin}', originAddress.replace('http://', ''))
  const child = start(['bash', '-c', command])
  await answering(`http://127.0.0.1:${port}/`, child)
  return { ...child, url: `http://127.0.0.1:${port}` }
}

/** All tests once; then once more those whose ground was not laid, which on a busy machine may be a matter of timing. */
async function everything () {
  const results = await pass(tests.map(test => test.id))
  const unsure = [...verdicts(tests, results)].filter(([, { own }]) => ['setup', 'retry', 'harness', 'untested'].includes(own))
  if (unsure.length === 0) return results
  const again = await pass(unsure.map(([id]) => id))
  const settled = Object.keys(again).filter(id => again[id] === true)
  if (settled.length) console.log(`settled by a second try: ${settled.join(', ')}`)
  return { ...results, ...again }
}

async function pass (ids, isShown = false) {
  const output = join(scratch(), 'results.json')
  const client = start(['node', '--no-warnings', join(here, 'client.mjs'), suite, proxy.url, output, ...ids],
    { env: { DUMP: isShown ? '1' : '0' } })
  for (let i = 0; i < 1800 && client.isRunning(); i++) await sleep(100)
  await client.stop()
  if (isShown) console.log(client.tail(500))
  if (!proxy.isRunning()) throw new Error(`the proxy ended by itself\n${proxy.tail()}`)
  const results = JSON.parse(readFileSync(output, 'utf8'))
  if (isShown) console.log(JSON.stringify(results, null, 1))
  return results
}

function summarise (outcome) {
  for (const kind of ['required', 'optimal', 'check']) {
    const { passed, total } = count(outcome, kind)
    const others = tally(outcome, kind)
    console.log(`${kind.padEnd(8)} ${passed}/${total} (${(100 * passed / total).toFixed(1)} %)${others}`)
  }
}

function count (outcome, kind) {
  const ofKind = tests.filter(test => (test.kind ?? 'required') === kind)
  const passed = ofKind.filter(test => isGood(outcome.get(test.id).verdict)).length
  const inapplicable = ofKind.filter(test => outcome.get(test.id).verdict === 'inapplicable').length
  return { passed, inapplicable, total: ofKind.length }
}

function tally (outcome, kind) {
  const counts = {}
  for (const test of tests.filter(test => (test.kind ?? 'required') === kind)) {
    const { verdict } = outcome.get(test.id)
    if (!isGood(verdict)) counts[verdict] = (counts[verdict] ?? 0) + 1
  }
  return Object.entries(counts).map(([verdict, number]) => ` · ${verdict} ${number}`).join('')
}

function isGood (verdict) {
  return verdict === 'pass' || verdict === 'yes'
}

/** Every difference from the ledger is a failure, better or worse, so that the ledger always says what is. */
function compare (outcome) {
  const ledger = JSON.parse(readFileSync(ledgerFile, 'utf8'))
  const worse = []
  const better = []
  const unargued = []
  const next = {}
  for (const test of tests) {
    const { verdict, detail } = outcome.get(test.id)
    const known = ledger.tests[test.id]
    const isExpected = known === 'pass' || known === 'yes'
    const line = `${test.id} (${test.kind ?? 'required'}, ${test.group}): ${verdict}${detail ? ` · ${detail}` : ''}`
    next[test.id] = known
    if (test.kind === 'check') {
      const now = isGood(verdict) ? 'yes' : 'no'
      if (now !== known) { (known === undefined ? better : worse).push(`${line}; the ledger says ${known ?? 'nothing'}`) }
      if (given.update && (known === undefined || given['accept-worse'])) next[test.id] = now
    } else if (isGood(verdict) && !isExpected) {
      better.push(`${line}; the ledger can only improve: move it to "pass"`)
      if (given.update) next[test.id] = 'pass'
    } else if (!isGood(verdict) && (isExpected || known === undefined)) {
      worse.push(line)
      if (given.update && given['accept-worse']) next[test.id] = { fail: '' }
    }
    if (next[test.id]?.fail === '') unargued.push(test.id)
  }
  const gone = Object.keys(ledger.tests).filter(id => !(id in next) && !isSurrogate(id))
  for (const id of Object.keys(ledger.tests).filter(isSurrogate)) next[id] ??= ledger.tests[id]
  if (given.update) writeFileSync(ledgerFile, render({ ...ledger, tests: next }))
  report(outcome, ledger.bar, { worse, better, unargued, gone })
}

function isSurrogate (id) {
  return !isCheckout(suite) && id.startsWith('surrogate-') && !given.surrogate
}

function report (outcome, bar, { worse, better, unargued, gone }) {
  const section = (title, lines) => { if (lines.length) console.log(`\n${title}\n  ${lines.join('\n  ')}`) }
  section('WORSE than the ledger:', worse)
  section(given.update ? 'BETTER, written into the ledger:' : 'BETTER than the ledger (run with --update):', better)
  section('Failures in the ledger without a reason:', unargued)
  section('In the ledger, but no longer in the suite:', gone)
  const required = count(outcome, 'required')
  const optimal = count(outcome, 'optimal')
  const below = []
  const failing = required.total - required.passed - required.inapplicable
  if (failing > bar.required_failures_at_most) below.push(`required: more than ${bar.required_failures_at_most} fail`)
  if (optimal.passed < bar.optimal_at_least * optimal.total) below.push(`optimal: under ${bar.optimal_at_least * 100} %`)
  section('Below the bar:', below)
  const wrong = given.update ? [...unargued, ...below, ...(given['accept-worse'] ? [] : worse)] : [...worse, ...better, ...unargued, ...gone, ...below]
  const cases = tests.length
  const failed = Math.min(cases, wrong.length)
  console.log(`\n${cases - failed} passed, ${failed} failed`)
  process.exitCode = failed ? 1 : 0
}

/** One line a test, in the suite's order, so that a change of the ledger reads well. */
function render (ledger) {
  const rows = Object.entries(ledger.tests).filter(([, known]) => known !== undefined)
    .map(([id, known]) => `    ${JSON.stringify(id)}: ${JSON.stringify(known)}`)
  return `{\n  "suite": ${JSON.stringify(ledger.suite)},\n  "bar": ${JSON.stringify(ledger.bar)},\n  "tests": {\n${rows.join(',\n')}\n  }\n}\n`
}

// A trading journal behind login, used as a dashboard is: first without Larder, then through two nodes with one Redis. What it comes to in calls of the
// origin, whether writers see what they wrote on both nodes, and whether anybody gets or loses what is another's. NOTES.md says how to read it.
//
//   node bench/journal/bench.mjs --python VENV/bin/python [--larder PATH] [--users N] [--seconds S] [--seed N] [--write]

import { readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { answering, freePort, onFreePort, options, scratch, start, startRedis } from '../../tests/process.mjs'
import { writeSection } from '../results.mjs'
import { Tally } from './tally.mjs'
import { live } from './user.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const target = process.env.CARGO_TARGET_DIR ?? join(here, '../../target')
const given = options({
  larder: join(target, 'optimized/larder'),
  python: join(target, 'journal-python/bin/python'),
  users: '200',
  seconds: '60',
  seed: '1',
  write: false
})
const NODES = 2
const SAVED = 0.7 // of the requests, at least
const NOT_STORED = 'GET /api/account'

const verdicts = []
const direct = await withoutLarder()
const proxied = await throughLarder()
const lines = report()
console.log(lines.join('\n'))
if (given.write) writeSection('A trading journal behind login', lines)
judge()
const failed = verdicts.filter(isGood => !isGood).length
console.log(`${verdicts.length - failed} passed, ${failed} failed`)
process.exit(failed ? 1 : 0)

/** All users at once, until the time is over; what they met, and what the origin was called. */
async function load (journal, ports) {
  const tally = new Tally()
  const end = Date.now() + Number(given.seconds) * 1000
  const users = Array.from({ length: Number(given.users) }, (_, number) => live({ number, seed: Number(given.seed), ports, end, tally }))
  await Promise.all(users)
  const calls = await (await fetch(`${journal.url}/calls`)).json()
  return { tally, calls, total: Object.values(calls).reduce((sum, each) => sum + each, 0) }
}

async function withoutLarder () {
  const journal = await onFreePort(startJournal)
  const results = await load(journal, [journal.port])
  await journal.stop()
  return results
}

async function throughLarder () {
  const journal = await onFreePort(startJournal)
  const redis = await startRedis()
  const nodes = []
  for (let i = 0; i < NODES; i++) nodes.push(await onFreePort(() => startNode(journal, redis)))
  const results = await load(journal, nodes.map(node => node.port))
  const metrics = await Promise.all(nodes.map(async node => (await fetch(`${node.admin}/metrics`)).text()))
  results.warmed = warmed(metrics.join('\n'))
  for (const each of [...nodes, redis, journal]) await each.stop()
  return results
}

async function startJournal () {
  const port = await freePort()
  const child = start([resolve(given.python), '-m', 'uvicorn', 'app:app', '--port', `${port}`, '--log-level', 'warning', '--no-access-log'], {
    cwd: here, env: { PYTHONDONTWRITEBYTECODE: '1' }
  })
  await answering(`http://127.0.0.1:${port}/calls`, child, { status: 200, seconds: 30 })
  return { ...child, port, url: `http://127.0.0.1:${port}` }
}

/** A node with the configuration that stands beside this file. */
async function startNode (journal, redis) {
  const [port, adminPort] = [await freePort(), await freePort()]
  const config = join(scratch(), 'proxy.toml')
  writeFileSync(config, readFileSync(join(here, 'proxy.toml')))
  const env = {
    PORT: `${port}`,
    ADMIN_PORT: `${adminPort}`,
    JOURNAL: journal.url,
    REDIS: redis.url,
    JOURNAL_SECRET: 'journal-secret-of-at-least-32-bytes',
    DIGEST_KEY: 'a digest key of at least thirty-two bytes'
  }
  const child = start([resolve(given.larder), 'run', '--config', config], { env })
  await answering(`http://127.0.0.1:${adminPort}/readyz`, child, { status: 200 })
  return { ...child, port, admin: `http://127.0.0.1:${adminPort}` }
}

/** What became of the requests sent ahead, by result. */
function warmed (metrics) {
  const counts = {}
  for (const [, labels, value] of metrics.matchAll(/^larder_warm_outcomes_total\{([^}]*)\} (\d+)$/gm)) {
    const words = [...labels.matchAll(/"([^"]*)"/g)].map(([, word]) => word).filter(Boolean).join(' ')
    if (Number(value)) counts[words] = (counts[words] ?? 0) + Number(value)
  }
  return counts
}

// ── What is said of it ──

function saved () {
  return 1 - proxied.total / proxied.tally.requests
}

/** Calls of the origin per request where nothing may be stored. */
function perRequest ({ calls, tally }, name) {
  return (calls[name] ?? 0) / (tally.asked[name] ?? 1)
}

function report () {
  const { tally } = proxied
  const words = Object.entries(tally.words).sort(([, one], [, other]) => other - one)
  const reasons = Object.entries(tally.reasons).sort(([, one], [, other]) => other - one)
  const names = [...new Set([...Object.keys(direct.calls), ...Object.keys(proxied.calls)])].sort()
  return [
    `Measured ${new Date().toISOString().slice(0, 10)} on ${cpus()[0].model}, ${cpus().length} cores: ${given.users} users for ${given.seconds} s, mean think time 0.5 s, ${NODES} nodes with one Redis.`,
    '',
    '| | without Larder | through Larder |',
    '|---|---:|---:|',
    `| requests | ${direct.tally.requests} | ${tally.requests} |`,
    `| origin requests | ${direct.total} | ${proxied.total} |`,
    `| origin requests saved | 0 % | ${percent(saved())} |`,
    `| origin requests per unstorable request | ${perRequest(direct, NOT_STORED).toFixed(2)} | ${perRequest(proxied, NOT_STORED).toFixed(2)} |`,
    `| median and 99th percentile of reads | ${direct.tally.latencies()} | ${tally.latencies()} |`,
    `| reads right after a user's own write, on every node | ${direct.tally.checks} | ${tally.checks} |`,
    `| … that missed it | ${direct.tally.stale.length} | ${tally.stale.length} |`,
    `| responses of another user | ${direct.tally.foreign.length} | ${tally.foreign.length} |`,
    `| hits lost to a write of another user | – | ${tally.lost.length} |`,
    '',
    `Responses through Larder: ${words.map(([word, count]) => `${count} ${word}`).join(', ')}. Reasons for the others: ${reasons.map(([reason, count]) => `${count} ${reason}`).join(', ')}.`,
    `Repeated origin requests for a response that the user had read: ${Object.entries(tally.again).map(([reason, count]) => `${count} ${reason}`).join(', ') || 'none'}.`,
    `Warmed after logins: ${Object.entries(proxied.warmed).map(([result, count]) => `${count} ${result}`).join(', ') || 'none'}.`,
    '',
    '| origin request | without | through |',
    '|---|---:|---:|',
    ...names.map(name => `| \`${name}\` | ${direct.calls[name] ?? 0} | ${proxied.calls[name] ?? 0} |`)
  ]
}

function percent (share) {
  return `${(share * 100).toFixed(1)} %`
}

function judge () {
  const { tally } = proxied
  const show = list => list.slice(0, 5).map(each => `\n    ${each}`).join('')
  verdict(`the origin is called ${percent(saved())} less, ${percent(SAVED)} or more`, saved() >= SAVED)
  verdict(`every read after a user's own write sees it, on both nodes (${tally.checks} reads)${show(tally.stale)}`, tally.checks > 0 && tally.stale.length === 0)
  verdict(`no answer is another user's${show(tally.foreign)}`, tally.foreign.length === 0)
  verdict(`no user loses a hit through another's write${show(tally.lost)}`, tally.lost.length === 0)
  verdict('where nothing may be stored the origin is called as often as without Larder', perRequest(proxied, NOT_STORED) <= perRequest(direct, NOT_STORED))
  verdict(`no request fails${show(tally.failures)}`, tally.failures.length === 0 && direct.tally.failures.length === 0)
}

function verdict (what, isGood) {
  verdicts.push(isGood)
  console.log(`${isGood ? 'ok    ' : 'FAILED'} ${what}`)
}

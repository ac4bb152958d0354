// Instructions of a hit from memory in user space, of two builds of Larder, counted by valgrind: every machine can, and
// whatever else runs makes no difference. Fails if the first takes more than the second by a limit. `fence.sh` builds both.
//
//   node bench/count.mjs --larder PATH --twin PATH [--path PATH] [--rounds N] [--limit PERCENT]

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { answering, options, sleep, start, startLarder } from '../tests/process.mjs'
import { startOrigin } from './servers.mjs'

const given = options({ larder: '', twin: '', path: '/hit/1k', rounds: '3', limit: '3' })
const SECONDS = 3

const folder = mkdtempSync('/dev/shm/larder-count-')
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
execFileSync('chmod', ['755', folder])
const origin = await startOrigin(folder)
const counted = {}
for (const name of ['larder', 'twin']) if (given[name]) counted[name] = []
for (let round = 0; round < Number(given.rounds); round++) {
  for (const name of Object.keys(counted)) counted[name].push(await count(given[name]))
}
await origin.stop()
const of = (name, part) => median(counted[name].map(run => run[part]))
console.log(['', 'instructions', 'of them SHA-256', 'without'].join('\t'))
for (const name of Object.keys(counted)) {
  console.log([name, of(name, 'all'), of(name, 'digest'), of(name, 'all') - of(name, 'digest')].map(each => each.toFixed?.(0) ?? each).join('\t'))
}
if (!counted.twin) process.exit(0)
// The key's digest is taken out: valgrind knows the processor's own instructions for it not, and counts ten times as many.
const [larder, twin] = ['larder', 'twin'].map(name => of(name, 'all') - of(name, 'digest'))
const more = 100 * (larder / twin - 1)
const isUnder = more < Number(given.limit)
console.log(`${isUnder ? 'passed' : 'FAILED'} ${more.toFixed(2)} % more instructions, ${given.limit} % are allowed`)
process.exit(isUnder ? 0 : 1)

/** What one request takes under a load of some seconds. */
async function count (binary) {
  const told = join(folder, 'told')
  const prefix = ['valgrind', '--tool=callgrind', '--instr-atstart=no', `--callgrind-out-file=${told}`]
  const server = await startLarder(binary, `http://${origin.host}`, { prefix })
  // Under valgrind the first answers take their time.
  for (let i = 0; i < 10; i++) await answering(server.url + given.path, server, { status: 200 })
  await load(server, 1)
  control(server, 'on')
  const requests = await load(server, SECONDS)
  control(server, 'off')
  await server.stop()
  const { all, digest } = read(readFileSync(told, 'utf8'))
  if (!(all > 0)) throw new Error(`valgrind counted nothing\n${server.tail()}`)
  return { all: all / requests, digest: digest / requests }
}

function control ({ pid }, state) {
  execFileSync('callgrind_control', [`--instr=${state}`, String(pid)], { stdio: 'pipe' })
}

/** How many requests were answered. */
async function load ({ port }, seconds) {
  const client = start(['wrk', '-t1', '-c16', `-d${seconds}s`, '--timeout', '10s', `http://127.0.0.1:${port}${given.path}`])
  while (client.isRunning()) await sleep(20)
  const requests = Number(/(\d+) requests in/.exec(client.tail())?.[1])
  if (!requests || /Non-2xx|Socket errors/.test(client.tail())) throw new Error(`the load failed\n${client.tail()}`)
  return requests
}

/** All instructions that callgrind's file tells of, and those of the digest itself. */
function read (text) {
  const names = new Map()
  let [isDigest, isCall, digest] = [false, false, 0]
  for (const line of text.split('\n')) {
    const [, kind, number, name] = /^(c?fn)=\((\d+)\)(?: (.*))?$/.exec(line) ?? []
    if (kind) {
      if (name) names.set(number, name)
      if (kind === 'fn') isDigest = /sha256_block/.test(names.get(number))
    } else if (line.startsWith('calls=')) {
      isCall = true // the next line is what is called
    } else if (/^[\d+*-]/.test(line)) {
      if (isDigest && !isCall) digest += Number(line.split(' ')[1])
      isCall = false
    }
  }
  return { all: Number(/^totals: (\d+)/m.exec(text)?.[1]), digest }
}

function median (list) {
  const sorted = [...list].sort((a, b) => a - b)
  return sorted[sorted.length >> 1]
}

// Instructions and cycles of a hit from memory, of two builds of Larder in turn; fails if the first takes more
// instructions than the second by a limit. `fence.sh` builds both.
//
//   node bench/count.mjs --larder PATH --twin PATH [--rounds N] [--limit PERCENT]

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { options, sleep, start } from '../tests/process.mjs'
import { LOAD_CORE, servers, startOrigin } from './servers.mjs'

const EVENTS = ['instructions:u', 'cycles:u', 'instructions', 'cycles']
const given = options({ larder: '', twin: '', rounds: '5', limit: '3' })

const folder = mkdtempSync('/dev/shm/larder-count-')
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
execFileSync('chmod', ['755', folder])
const origin = await startOrigin(folder)
const running = { larder: await servers.larder.start('', origin, given), twin: await servers.twin.start('', origin, given) }
const counted = { larder: [], twin: [] }
for (const name of Object.keys(running)) await count(running[name])
for (let round = 0; round < Number(given.rounds); round++) {
  for (const name of round % 2 ? ['twin', 'larder'] : ['larder', 'twin']) counted[name].push(await count(running[name]))
}
const of = (name, event) => median(counted[name].map(run => run[event]))
const more = event => 100 * (of('larder', event) / of('twin', event) - 1)
console.log(['', ...EVENTS].join('\t'))
for (const name of Object.keys(running)) {
  console.log([name, ...EVENTS.map(event => Math.round(of(name, event)))].join('\t'))
}
console.log(['more', ...EVENTS.map(event => `${more(event).toFixed(2)} %`)].join('\t'))
for (const server of Object.values(running)) await server.stop()
await origin.stop()
const isUnder = more('instructions:u') < Number(given.limit)
console.log(`${isUnder ? 'passed' : 'FAILED'} less than ${given.limit} % more instructions in user space`)
process.exit(isUnder ? 0 : 1)

/** What one request takes, by event, under the load of `hit-1k-64` for a second. */
async function count ({ pid, port }) {
  const told = join(folder, 'perf')
  const client = start([...LOAD_CORE, 'perf', 'stat', '-x,', '-o', told, '-e', EVENTS.join(','), '-p', String(pid), '--',
    'wrk', '-t1', '-c64', '-d1s', `http://127.0.0.1:${port}/hit/1k`])
  while (client.isRunning()) await sleep(20)
  const requests = Number(/(\d+) requests in/.exec(client.tail())?.[1])
  if (!requests || /Non-2xx|Socket errors/.test(client.tail())) throw new Error(`the load failed\n${client.tail()}`)
  const lines = readFileSync(told, 'utf8').split('\n').map(line => line.split(','))
  return Object.fromEntries(EVENTS.map(event => {
    const total = Number(lines.find(line => line[2] === event)?.[0])
    if (!(total > 0)) throw new Error(`this machine does not count ${event}\n${readFileSync(told, 'utf8')}`)
    return [event, total / requests]
  }))
}

function median (list) {
  const sorted = [...list].sort((a, b) => a - b)
  return sorted[sorted.length >> 1]
}

// Latency of hits at a constant rate, an open loop: how long a response takes from when its request was due. The rates are shares of the highest one
// that a peer reaches with the same load in a closed loop.

import { execFile } from 'node:child_process'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { run } from './load.mjs'
import { LOAD_CORE } from './servers.mjs'

const SHARES = [0.1, 0.3, 0.5, 0.7, 0.9]
const CONNECTIONS = 64
const PATH = '/hit/1k'
const ROUNDS = 3

/** By server, the runs at each rate. */
export async function measureLatency ({ names, servers, begin, running, given, folder }) {
  const taking = names.filter(name => !servers[name].group && !servers[name].isStub)
  for (const name of taking) running[name] ??= await begin(name)
  const send = async (name, rate) => {
    const [program, ...command] = [...LOAD_CORE, join(dirname(given.bare), 'load'), 'open', `127.0.0.1:${running[name].port}`, PATH]
    const { stdout } = await promisify(execFile)(program, [...command, ...[rate, given.seconds, CONNECTIONS].map(String)])
    return JSON.parse(stdout)
  }
  const saturate = (name, seconds) => run({ path: PATH, connections: CONNECTIONS }, running[name], { seconds, folder, bare: given.bare })
  const saturation = {}
  for (const name of taking) {
    await saturate(name, 0.5)
    const { requests, seconds } = await saturate(name, given.seconds)
    saturation[name] = requests / seconds
  }
  const peers = taking.filter(name => name !== 'larder')
  const highest = Math.max(...(peers.length ? peers : taking).map(name => saturation[name]))
  const rates = SHARES.map(share => Math.round(highest * share / 100) * 100)
  const runs = Object.fromEntries(taking.map(name => [name, rates.map(() => [])]))
  for (let round = 0; round < (given.quick ? 1 : ROUNDS); round++) {
    for (const [index, rate] of rates.entries()) {
      for (let i = 0; i < taking.length; i++) {
        const name = taking[(i + round) % taking.length]
        const { requests, seconds, histogram, ...times } = await send(name, rate)
        runs[name][index].push({ perSecond: requests / seconds, ...times })
        process.stderr.write(`latency ${round + 1} ${name}: ${rate}/s, p50 ${times.p50} µs, p99.9 ${times.p999} µs\n`)
      }
    }
  }
  return { shares: SHARES, rates, saturation, runs }
}

// Memory per stored response: how much a server grows by 100,000 responses of 1 KiB. Servers that reserve their memory at the start, or store in files, do not take part.

import { residentBytes } from './processes.mjs'
import { fill } from './servers.mjs'

const COUNT = 100000
const TAKING = ['varnish', 'larder']

/** By server: bytes per stored response, in each round. */
export async function measureMemory ({ names, servers, begin, end, running, given, originRequests }) {
  const bytes = {}
  for (const name of TAKING.filter(name => names.includes(name))) {
    bytes[name] = []
    for (let round = 0; round < (given.quick ? 1 : 3); round++) {
      if (running[name]) await end(name) // one that has stored nothing yet
      running[name] = await begin(name)
      fill(given, running[name], '/items/warm/', 1000)
      const before = residentBytes(running[name].pid)
      fill(given, running[name], '/items/', COUNT)
      bytes[name].push((residentBytes(running[name].pid) - before) / COUNT)
      const asked = await originRequests()
      fill(given, running[name], '/items/', COUNT)
      const missing = await originRequests() - asked - 1
      if (missing > COUNT / 1000) throw new Error(`${name} has not stored ${missing} of ${COUNT} responses`)
      process.stderr.write(`memory-1k ${round + 1} ${name}: ${Math.round(bytes[name].at(-1))} bytes per response\n`)
    }
  }
  return { count: COUNT, bytes }
}

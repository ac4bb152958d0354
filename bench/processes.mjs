// What processes have used, as the kernel counts it: processor time, and memory.

import { readFileSync, readdirSync } from 'node:fs'

const CLOCK_TICKS = 100 // of /proc/*/stat, a second: USER_HZ, the same on every Linux

/** User and system time of a process and all that it has started, in seconds. */
export function cpuSeconds (pid) {
  const ticks = tree(pid).map(({ fields }) => Number(fields[11]) + Number(fields[12]))
  return ticks.reduce((sum, each) => sum + each, 0) / CLOCK_TICKS
}

/** The memory of a process and all that it has started, in bytes; what they share counts once. */
export function residentBytes (pid) {
  return tree(pid).reduce((sum, { pid }) => {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
    return sum + Number(/^Pss:\s+(\d+) kB/m.exec(rollup)[1]) * 1024
  }, 0)
}

function tree (pid) {
  const all = new Map()
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    try {
      const fields = readFileSync(`/proc/${entry}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ')
      all.set(Number(entry), { pid: Number(entry), parent: Number(fields[1]), fields })
    } catch { /* it has ended meanwhile */ }
  }
  const isOurs = each => each === pid || (all.has(each) && isOurs(all.get(each).parent))
  return [...all.values()].filter(each => isOurs(each.pid))
}

// The ways from each node to each Redis, on a thread of their own: connections that can be cut, stopped and slowed down.
// A node finds every Redis under an address of its own, so that one node can lose Redis while the others keep it.

import net from 'node:net'
import { parentPort, Worker, workerData } from 'node:worker_threads'
import { fileURLToPath } from 'node:url'
import { sleep } from '../../tests/process.mjs'

/**
 * Refused: connections end, and new ones too · blocked: nothing passes, and what was sent meanwhile is lost · stalled: it passes later ·
 * deaf: only what Redis answers is late · slow: everything takes `DELAY` · half: every other connection is blocked.
 */
export const MODES = ['refused', 'blocked', 'stalled', 'deaf', 'slow', 'half']
const DELAY = 150 // ms

export function host (slot) {
  return `127.0.0.${11 + slot}`
}

/** Starts the links of so many nodes to Redis at these ports; `set(slot, mode)` changes those of a node, 'open' heals them. */
export async function startLinks (slots, ports) {
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { slots, ports } })
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
  return { set: (slot, mode) => worker.postMessage({ slot, mode }), stop: () => worker.terminate() }
}

class Links {
  constructor () {
    this.mode = 'open'
    this.pairs = new Set()
    this.count = 0
  }

  accept (near, port) {
    if (this.mode === 'refused') return near.destroy()
    const far = net.connect({ host: '127.0.0.1', port, noDelay: true })
    const pair = { near, far, isOdd: this.count++ % 2 === 1, isLost: false }
    this.pairs.add(pair)
    const end = () => { near.destroy(); far.destroy(); this.pairs.delete(pair) }
    for (const socket of [near, far]) socket.on('error', end).on('close', end)
    near.on('data', this.passing(far))
    far.on('data', this.passing(near))
    this.hold(pair)
  }

  /** Passes bytes on in their order, however the delay changes meanwhile. */
  passing (to) {
    let last = Promise.resolve()
    let waiting = 0
    const send = bytes => { if (!to.destroyed) to.write(bytes) }
    return bytes => {
      if (this.mode !== 'slow' && !waiting) return send(bytes)
      const due = performance.now() + (this.mode === 'slow' ? DELAY : 0)
      waiting++
      last = last.then(() => sleep(Math.max(0, due - performance.now()))).then(() => { waiting--; send(bytes) })
    }
  }

  hold (pair) {
    const isBlocked = this.mode === 'blocked' || (this.mode === 'half' && pair.isOdd)
    if (isBlocked) pair.isLost = true
    if (isBlocked || this.mode === 'stalled') pair.near.pause()
    if (isBlocked || this.mode === 'stalled' || this.mode === 'deaf') pair.far.pause()
  }

  set (mode) {
    this.mode = mode
    for (const pair of this.pairs) {
      if (mode === 'refused' || (mode === 'open' && pair.isLost)) pair.near.destroy()
      else if (mode === 'open') [pair.near, pair.far].forEach(socket => socket.resume())
      else this.hold(pair)
    }
  }
}

if (parentPort) {
  const all = Array.from({ length: workerData.slots }, () => new Links())
  for (const [slot, links] of all.entries()) {
    for (const port of workerData.ports) {
      const server = net.createServer({ noDelay: true }, near => links.accept(near, port))
      await new Promise(resolve => server.listen(port, host(slot), resolve))
    }
  }
  parentPort.on('message', ({ slot, mode }) => all[slot].set(mode))
  parentPort.postMessage('ready')
}

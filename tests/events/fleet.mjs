// Three nodes, a Redis that writes before it answers, a way to a node that can be led to another, and purges that are repeated until they are acknowledged.

import { randomUUID } from 'node:crypto'
import net from 'node:net'
import { freePort, scratch, sleep, startLarder, startRedis } from '../process.mjs'

const TOKEN = 'a-token-for-the-events-suite'

/** How long one attempt to purge may take, and all of them together, in milliseconds. */
const ATTEMPT = 15_000
const PATIENCE = 60_000

export class Fleet {
  nodes = []
  /** Purges that were acknowledged: their place, and the tags that clients are shown. */
  acknowledged = []
  repeated = 0
  #tags = 0

  static async start (binary, origin, extra) {
    const fleet = Object.assign(new Fleet(), { binary, origin, extra, folder: scratch() })
    fleet.redis = await startRedis({ folder: fleet.folder })
    for (let node = 0; node < 3; node++) fleet.nodes.push(await fleet.#node({ port: await freePort(), adminPort: await freePort() }))
    return fleet
  }

  #node ({ port, adminPort }) {
    return startLarder(this.binary, this.origin, { extra: this.extra, redis: this.redis.url, token: TOKEN, port, adminPort })
  }

  /** Another process in the place of a node that has ended. */
  async replace (node) {
    this.nodes[node] = await this.#node(this.nodes[node])
  }

  /** Another Redis at the same place: with what it had, or empty. */
  async restoreRedis ({ empty = false } = {}) {
    if (empty) this.folder = scratch()
    this.redis = await startRedis({ port: this.redis.port, folder: this.folder })
  }

  /**
   * Purges a tag that nobody has purged before, again and again under one key until it is acknowledged, at `nodes` in turn. Beside it goes a tag that is
   * hidden, and now and then a purge of hidden things alone.
   */
  async purge (nodes) {
    const tag = `tile:${this.#tags += 1}`
    const hidden = `secret:${this.#tags}`
    if (this.#tags % 3 === 0) await this.#until(nodes, { tags: [hidden], urls: ['/tile:hidden'], reason: 'nobody shall hear of it' })
    const receipt = await this.#until(nodes, { tags: [hidden, tag], prefixes: ['/tile:'], mode: this.#tags % 2 ? 'hard' : 'soft' })
    this.acknowledged.push({ seq: receipt.seq, tag })
  }

  /** Purges at these nodes, by several at once, until `ends` is settled. */
  async purgeUntil (ends, nodes, callers = 3) {
    let isOver = false
    const over = Promise.resolve(ends).finally(() => { isOver = true })
    const caller = async () => {
      while (!isOver) {
        await this.purge(nodes)
        await sleep(20)
      }
    }
    await Promise.all([over, ...Array.from({ length: callers }, caller)])
  }

  async #until (nodes, body) {
    const key = randomUUID()
    for (let attempt = 0, deadline = Date.now() + PATIENCE; Date.now() < deadline; attempt++) {
      const { admin } = this.nodes[nodes[(this.#tags + attempt) % nodes.length]]
      const answer = await this.#attempt(admin, key, body)
      if (answer) return answer
      this.repeated += 1
      await sleep(50)
    }
    throw new Error(`no purge was acknowledged within ${PATIENCE} ms: ${JSON.stringify(body)}`)
  }

  async #attempt (admin, key, body) {
    try {
      const headers = { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json', 'idempotency-key': key }
      const answer = await fetch(`${admin}/v1/purge`, { method: 'POST', headers, body: JSON.stringify(body), signal: AbortSignal.timeout(ATTEMPT) })
      const json = await answer.json()
      if (answer.status === 200) return json
      if (answer.status !== 503 && answer.status !== 202) throw new Error(`a purge is answered with ${answer.status}: ${JSON.stringify(json)}`)
    } catch (error) {
      if (!['TypeError', 'TimeoutError'].includes(error.name)) throw error // `fetch failed`: nobody there
    }
  }

  metrics (node) {
    return fetch(`${this.nodes[node].admin}/metrics`, { headers: { authorization: `Bearer ${TOKEN}` } }).then(answer => answer.text())
  }

  async stop () {
    await Promise.all(this.nodes.map(node => node.stop()))
    await this.redis.kill()
  }
}

/** A TCP address that leads to one node, and later to another. */
export class Relay {
  #open = new Set()

  static async to (port) {
    const relay = Object.assign(new Relay(), { target: port })
    relay.server = net.createServer(client => relay.#carry(client)).listen(0, '127.0.0.1')
    await new Promise(resolve => relay.server.once('listening', resolve))
    relay.url = `http://127.0.0.1:${relay.server.address().port}`
    return relay
  }

  /** Leads to another node; connections end. */
  lead (port) {
    this.target = port
    for (const socket of this.#open) socket.destroy()
  }

  stop () {
    this.lead(0)
    this.server.close()
  }

  #carry (client) {
    const server = net.connect(this.target, '127.0.0.1')
    for (const [one, other] of [[client, server], [server, client]]) {
      this.#open.add(one)
      one.on('error', () => {}).on('close', () => { this.#open.delete(one); other.destroy() })
      one.pipe(other)
    }
  }
}

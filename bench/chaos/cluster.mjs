// Three nodes, a Redis Cluster of three primaries and three replicas, two origins: started, asked, ended, started again.

import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { answering, freePort, scratch, sleep, start } from '../../tests/process.mjs'
import { host, startLinks } from './links.mjs'
import { KINDS } from './model.mjs'

export const NODES = 3
const REDIS = 6 // processes: half of them replicas
export const SECRET = 'a-secret-of-the-chaos-and-of-no-one-else'
export const ISSUER = 'https://issuer.test'
export const TOKEN = 'an-admin-token-of-the-chaos'
export const MEMORY = 32 // MiB
/** How often nodes are asked whether they are ready, and how long that may take: what a balancer does. */
const PROBE = 200 // ms
const PROBE_TIMEOUT = 1000 // ms
const run = promisify(execFile)

/** A process in the place of a node; the next one in that place is another. */
class Node {
  constructor (slot, number, child, ports) {
    Object.assign(this, { slot, number, child, ...ports, isReady: true, memory: [], begun: Date.now() })
  }

  get isRunning () { return this.child.isRunning() }

  /** Whether it was killed since: then what it had under way is lost, and nothing it could have done. */
  wasKilledSince (time) { return this.killed >= time }

  /** Whether it stood still since: then its deadlines have passed before it could see what had come. */
  wasStoppedSince (time) { return this.stopped >= time }

  async metrics () {
    const answer = await fetch(`http://127.0.0.1:${this.admin}/metrics`, { headers: { authorization: `Bearer ${TOKEN}` }, signal: AbortSignal.timeout(10_000) })
    return answer.text()
  }

  /** Writes that were answered before their purges held everywhere; nothing where it does not tell. */
  async lateWrites () {
    const text = await this.metrics().catch(() => undefined)
    const lines = text?.matchAll(/^larder_write_purges_total\{result="(?:late|pending)"\} (\d+)/gm)
    return lines && [...lines].reduce((sum, [, count]) => sum + Number(count), 0)
  }

  /** Whether it follows the purge log and reaches Redis. */
  async isWell () {
    const text = await this.metrics().catch(() => '')
    return /^larder_purge_log_synced 1$/m.test(text) && /^larder_store_breaker_open\{[^}]*\} 0$/m.test(text)
  }

  note () {
    try {
      const kib = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.child.pid}/status`, 'utf8'))[1])
      this.memory.push([Date.now(), kib / 1024])
    } catch { /* it has just ended */ }
  }
}

export class Cluster {
  constructor (larder, origins) {
    Object.assign(this, { larder, origins, nodes: [], past: [], redis: [], ports: [], folder: scratch(), number: 0 })
  }

  async start () {
    await this.startRedis()
    this.links = await startLinks(NODES, this.redis.map(each => each.port))
    for (let slot = 0; slot < NODES; slot++) {
      this.ports[slot] = { port: await freePort(), admin: await freePort() }
      await this.begin(slot)
    }
    this.timers = [setInterval(() => this.probe(), PROBE), setInterval(() => this.nodes.forEach(node => node?.note()), 1000)]
    await this.untilWell()
  }

  async stop () {
    this.timers.forEach(clearInterval)
    await Promise.all(this.nodes.map(node => node.child.stop()))
    await this.links.stop()
    await Promise.all(this.redis.map(({ child }) => child.kill()))
  }

  // ── Nodes ──

  config (slot) { return join(this.folder, `${slot}.toml`) }

  /** Writes a node's configuration. `change`: how often it was changed, so that a reload finds another one. */
  configure (slot, change = 0) {
    const { port, admin } = this.ports[slot]
    writeFileSync(this.config(slot), configuration({ port, admin, origins: this.origins, redis: this.redisUrl(slot), change }))
  }

  /** Starts a process in a place that is empty, and waits until it is ready. */
  async begin (slot) {
    this.configure(slot)
    const child = start([this.larder, 'run', '--config', this.config(slot)], { patience: 15_000 })
    const node = new Node(slot, this.number++, child, this.ports[slot])
    await answering(`http://127.0.0.1:${node.admin}/readyz`, child, { status: 200 })
    this.nodes[slot] = node
    this.past.push(node)
    return node
  }

  async kill (slot) {
    const node = this.nodes[slot]
    node.killed = Infinity
    node.isReady = false
    await node.child.kill()
    node.killed = Date.now()
  }

  /** Has a node stand still for so many ms. */
  async pause (slot, time) {
    const node = this.nodes[slot]
    node.stopped = Infinity
    node.child.signal('SIGSTOP')
    await sleep(time)
    node.child.signal('SIGCONT')
    node.stopped = Date.now()
  }

  /** Ends a node in order, and waits until it has ended. */
  async drain (slot) {
    const node = this.nodes[slot]
    node.child.signal('SIGTERM')
    while (node.isRunning) await sleep(5)
    node.isReady = false
  }

  reload (slot) { this.nodes[slot].child.signal('SIGHUP') }

  /** Those that are ready, in whose place a balancer sends requests; all, if none is. */
  ready () {
    const ready = this.nodes.filter(node => node.isReady)
    return ready.length ? ready : this.nodes
  }

  async probe () {
    await Promise.all(this.nodes.map(async node => {
      const options = { signal: AbortSignal.timeout(PROBE_TIMEOUT) }
      node.isReady = node.isRunning && await fetch(`http://127.0.0.1:${node.admin}/readyz`, options).then(({ status }) => status === 200, () => false)
    }))
  }

  async untilWell (seconds = 60) {
    const deadline = Date.now() + seconds * 1000
    while (Date.now() < deadline) {
      if ((await Promise.all(this.nodes.map(node => node.isWell()))).every(Boolean)) return true
      await sleep(100)
    }
    return false
  }

  // ── Redis ──

  redisUrl (slot) {
    const [first, ...others] = this.redis.map(({ port }) => `${host(slot)}:${port}`)
    return `redis-cluster://${first}?${others.map(each => `node=${each}`).join('&')}`
  }

  async startRedis () {
    for (let i = 0; i < REDIS; i++) this.redis.push({ port: await freePort(), bus: await freePort(), folder: scratch() })
    for (const each of this.redis) this.beginRedis(each)
    for (const each of this.redis) await this.untilRedis(each)
    const addresses = this.redis.map(({ port }) => `127.0.0.1:${port}`)
    await run('redis-cli', ['--cluster', 'create', ...addresses, '--cluster-replicas', '1', '--cluster-yes'])
    while (!(await this.command(this.redis[0], 'CLUSTER', 'INFO')).includes('cluster_state:ok')) await sleep(50)
  }

  beginRedis (each) {
    each.child = start(['redis-server', '--port', `${each.port}`, '--bind', '127.0.0.1', '--dir', each.folder, '--save', '', '--appendonly', 'no',
      '--cluster-enabled', 'yes', '--cluster-port', `${each.bus}`, '--cluster-node-timeout', '1500', '--cluster-require-full-coverage', 'no',
      // Clients take the address by which they came for that of the whole cluster: so each node keeps to its own links.
      '--cluster-preferred-endpoint-type', 'unknown-endpoint'])
  }

  async untilRedis (each) {
    while (!(await this.command(each, 'PING')).includes('PONG')) await sleep(50)
  }

  /** What a Redis answers; nothing where it does not. */
  async command ({ port }, ...words) {
    return run('redis-cli', ['-p', `${port}`, ...words.map(String)], { timeout: 3000 }).then(({ stdout }) => stdout, () => '')
  }

  /** Moves the slot of a key, with what is in it, to this primary. */
  async moveSlot (key, to) {
    const slot = Number(await this.command(to, 'CLUSTER', 'KEYSLOT', key))
    const ids = new Map()
    for (const each of await this.primaries()) ids.set(each, (await this.command(each, 'CLUSTER', 'MYID')).trim())
    const shards = (await this.command(to, 'CLUSTER', 'NODES')).split('\n').map(line => line.split(' '))
    const isOwner = ([, , , , , , , , ...slots]) => slots.some(range => { const [first, last = first] = range.split('-').map(Number); return first <= slot && slot <= last })
    const owner = shards.find(isOwner)?.[0]
    const [from] = [...ids].find(([, id]) => id === owner) ?? []
    if (!from || from === to) return
    await this.command(to, 'CLUSTER', 'SETSLOT', slot, 'IMPORTING', ids.get(from))
    await this.command(from, 'CLUSTER', 'SETSLOT', slot, 'MIGRATING', ids.get(to))
    for (let keys; (keys = (await this.command(from, 'CLUSTER', 'GETKEYSINSLOT', slot, '100')).split('\n').filter(Boolean)).length;) {
      await this.command(from, 'MIGRATE', '127.0.0.1', to.port, '', '0', '2000', 'KEYS', ...keys)
    }
    for (const each of [to, from]) await this.command(each, 'CLUSTER', 'SETSLOT', slot, 'NODE', ids.get(to))
  }

  /** The Redis processes that are primaries, as they say themselves. */
  async primaries () {
    const roles = await Promise.all(this.redis.map(each => this.command(each, 'ROLE')))
    return this.redis.filter((_, i) => roles[i].startsWith('master'))
  }
}

function configuration ({ port, admin, origins, redis, change }) {
  const rules = Object.entries(KINDS).filter(([kind]) => kind !== 'passed').map(([kind, { ttl, swr, error, silent, users }]) => `
[[route]]
name = "${kind}"
match = "/${kind}/{number}"
${silent ? `ttl = "${ttl}s"` : ''}
${swr ? `stale_while_revalidate = "${swr}s"` : ''}
stale_if_error = "${error ? `${error}s` : '0'}"
${users ? 'partition = "user"\ntags = ["mine:{user}"]\non_write = { purge = ["mine:{user}"] }' : ''}`)
  return `
listen = "127.0.0.1:${port}"
server_timing = ${change % 2 === 1}
[origin]
urls = [${origins.map(({ url }) => `"${url}"`).join(', ')}]
first_byte_timeout = "4s"
[admin]
listen = "127.0.0.1:${admin}"
token = "${TOKEN}"
purge_from = ["127.0.0.1"]
[limits]
drain = "5s"
drain_delay = "1s"
[store]
redis = "${redis}"
memory = "${MEMORY}MiB"
[user]
jwt = { secret = "${SECRET}", iss = "${ISSUER}" }
digest_key = "${SECRET}"
[log]
access = "off"
[events]
tags = ["ev:*"]
[[webhook]]
name = "shop"
scheme = "bearer"
secret = "${SECRET}"
[[webhook.on]]
purge = ["{$.tags[*]}"]
${rules.join('\n')}
`
}

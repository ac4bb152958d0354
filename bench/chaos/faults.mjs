// What goes wrong, and what that excuses: lanes of faults from a seed, one for the nodes, one for Redis, one for the origins.

import { appendFileSync } from 'node:fs'
import { sleep } from '../../tests/process.mjs'
import { MODES as CUTS } from './links.mjs'
import { MODES as TROUBLES } from './origin.mjs'

const LOG = 'larder:log'
/** How long what failed before may still be felt: a fetch that began, a server that was taken out. */
const AFTER = 1000 // ms
const HELD_UP = 500 // ms

export class Faults {
  constructor (cluster, random) {
    Object.assign(this, { cluster, random, events: [], changes: 0 })
  }

  /** Everything until `end` (ms since the epoch); nodes are killed only from `killing` on, for every purge is slow after that. */
  async run ({ begin, killing, end }) {
    const deck = now => [...nodeFaults, ...(now >= killing ? endings : [])]
    const lanes = [
      this.lane(deck, begin, end, { lasting: [500, 5000], pause: [300, 1500] }),
      this.lane(() => redisFaults, begin + 1000, end, { lasting: [300, 6000], pause: [1500, 4000] }),
      this.lane(() => originFaults, begin + 500, end, { lasting: [300, 5000], pause: [500, 3000] })
    ]
    await Promise.all(lanes)
  }

  /** Counts as trouble of both origins when this process, which they are part of, does not get its turn for long. */
  watch () {
    let last = Date.now()
    return setInterval(() => {
      const now = Date.now()
      if (now - last > HELD_UP) this.events.push({ name: 'origins held up by the machine', trouble: 'stalled', count: 2, from: last, to: now })
      last = now
    }, 50)
  }

  /** One fault after the other, each of the deck once before any comes again. */
  async lane (deck, begin, end, { lasting, pause }) {
    await sleep(begin - Date.now())
    let left = []
    while (Date.now() < end) {
      if (!left.length) left = this.random.shuffled(deck(Date.now()))
      const fault = left.pop()
      const event = { name: fault.name, from: Date.now(), to: Infinity }
      this.events.push(event)
      await fault(this, event, Math.round(this.random.between(...lasting))).catch(error => { event.error = error.message })
      event.to = Date.now()
      await sleep(this.random.between(...pause))
    }
  }

  /** The faults that overlap a time. */
  during (from, to = Date.now()) {
    return this.events.filter(event => event.from <= to && event.to >= from)
  }

  /**
   * Whether an origin's fault is why a request from `from` to now failed; `by`: the faults that touch requests of its kind. One origin of two that is
   * gone is no reason once what it had under way is over, nor is one that fails: the other is asked.
   */
  excuses (from, by) {
    return this.during(from - AFTER).some(({ trouble, count, from: began }) => {
      if (!by.includes(trouble)) return false
      if (count > 1 || trouble === 'stalled' || trouble === 'broken') return true
      return trouble === 'refused' && began >= from - AFTER
    })
  }

  counts () {
    const counts = {}
    for (const { name } of this.events) counts[name] = (counts[name] ?? 0) + 1
    return counts
  }
}

// ── Of nodes ──

const cuts = CUTS.map(mode => named(`node cut off Redis: ${mode}`, async ({ cluster, random }, event, time) => {
  const slot = event.slot = random.below(cluster.nodes.length)
  cluster.links.set(slot, mode)
  await sleep(time)
  cluster.links.set(slot, 'open')
}))

const nodeFaults = [
  ...cuts,
  named('node stopped', async ({ cluster, random }, event, time) => {
    const slot = event.slot = random.below(cluster.nodes.length)
    await cluster.pause(slot, time)
  }),
  named('reload', async (faults, event) => {
    const slot = event.slot = faults.random.below(faults.cluster.nodes.length)
    faults.cluster.configure(slot, ++faults.changes)
    faults.cluster.reload(slot)
    await sleep(500)
  }),
  named('reload of a broken file', async ({ cluster, random }, event, time) => {
    const slot = event.slot = random.below(cluster.nodes.length)
    appendFileSync(cluster.config(slot), 'nonsense = 1\n')
    cluster.reload(slot)
    await sleep(time / 2)
    cluster.configure(slot)
  }),
  named('rolling restart', async ({ cluster }) => {
    for (let slot = 0; slot < cluster.nodes.length; slot++) {
      await cluster.drain(slot)
      await cluster.begin(slot)
    }
  })
]

const endings = [
  named('node killed', async ({ cluster, random }, event, time) => {
    // The first one stays, so that there is one whose memory is seen for long.
    const slot = event.slot = 1 + random.below(cluster.nodes.length - 1)
    await cluster.kill(slot)
    await sleep(time / 2)
    await cluster.begin(slot)
  })
]

// ── Of Redis ──

const redisFaults = [
  named('Redis primary killed', async ({ cluster, random }, event, time) => {
    const it = random.pick(await cluster.primaries())
    await it.child.kill()
    await sleep(time)
    cluster.beginRedis(it)
    await cluster.untilRedis(it)
  }),
  named('Redis primary stopped', async ({ cluster, random }, event, time) => {
    const it = random.pick(await cluster.primaries())
    it.child.signal('SIGSTOP')
    await sleep(time)
    it.child.signal('SIGCONT')
  }),
  named('Redis replica killed', async ({ cluster, random }, event, time) => {
    const primaries = await cluster.primaries()
    const it = random.pick(cluster.redis.filter(each => !primaries.includes(each)))
    await it.child.kill()
    await sleep(time)
    cluster.beginRedis(it)
    await cluster.untilRedis(it)
  }),
  named('Redis all stopped', async ({ cluster }, event, time) => {
    cluster.redis.forEach(({ child }) => child.signal('SIGSTOP'))
    await sleep(time)
    cluster.redis.forEach(({ child }) => child.signal('SIGCONT'))
  }),
  named('Redis failover', async ({ cluster, random }) => {
    const primaries = await cluster.primaries()
    const replica = random.pick(cluster.redis.filter(each => !primaries.includes(each)))
    await cluster.command(replica, 'CLUSTER', 'FAILOVER')
  }),
  named('Redis flushed', async ({ cluster }) => {
    for (const each of await cluster.primaries()) await cluster.command(each, 'FLUSHALL')
  }),
  named('Redis connections ended', async ({ cluster }) => {
    for (const each of cluster.redis) await cluster.command(each, 'CLIENT', 'KILL', 'TYPE', 'normal')
  }),
  named('Redis log moved to another primary', async ({ cluster, random }) => {
    const primaries = await cluster.primaries()
    await cluster.moveSlot(LOG, random.pick(primaries))
  }),
  named('Redis full', async ({ cluster }, event, time) => {
    const set = async bytes => { for (const each of cluster.redis) await cluster.command(each, 'CONFIG', 'SET', 'maxmemory', bytes) }
    await set('1')
    await sleep(time)
    await set('0')
  })
]

// ── Of origins ──

const originFaults = TROUBLES.flatMap(mode => [1, 2].map(count => named(`${count === 1 ? 'an origin' : 'both origins'} ${mode}`, async ({ cluster, random }, event, time) => {
  const chosen = random.shuffled(cluster.origins).slice(0, count)
  Object.assign(event, { trouble: mode, count })
  for (const origin of chosen) await origin.set(mode)
  await sleep(time)
  for (const origin of chosen) await origin.set('well')
})))

function named (name, fault) {
  return Object.defineProperty(fault, 'name', { value: name })
}

// A user of the journal: logs in, looks at the dashboard, reads, and now and then writes.

import http from 'node:http'

const THINK_MS = 500 // on average
const WRITES = 0.05
const LOGINS = 0.002
const HOST = 'journal.example'
const NOT_STORED = '/api/account'
const SYMBOLS = ['S1,S2,S3', 'S4,S5', 'S6']
const WRITTEN = ['stocks', 'stocks', 'stocks', 'options', 'trade-notes', 'notebook']

/** What a dashboard asks for, and how often in comparison. */
const READS = [
  [16, () => '/api/stocks'],
  [7, () => '/api/options'],
  [12, random => `/api/stocks/analytics?range=${random.pick(['30d', '30d', '30d', '7d', '1y'])}`],
  [5, () => '/api/stocks/analytics/pnl?range=30d'],
  [3, () => '/api/stocks/analytics/win-rate?range=30d'],
  [5, () => '/api/options/analytics?range=30d'],
  [6, () => '/api/trade-notes'],
  [5, () => '/api/notebook/notes'],
  [3, () => '/api/playbook'],
  [32, random => `/api/market/quotes?symbols=${random.pick(SYMBOLS)}`],
  [8, () => '/api/market/movers'],
  [4, () => '/api/notebook/holidays?year=2026'],
  [2, () => NOT_STORED]
]

/** Random numbers that are the same in every run (mulberry32). */
class Random {
  constructor (seed) {
    this.state = seed >>> 0
  }

  next () {
    this.state = (this.state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.state ^ (this.state >>> 15), this.state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  pick (list) {
    return list[Math.floor(this.next() * list.length)]
  }

  /** One of these by weight. */
  weighted (choices) {
    let left = this.next() * choices.reduce((sum, [weight]) => sum + weight, 0)
    return choices.find(([weight]) => (left -= weight) < 0)[1]
  }
}

/** Lives until the time is over. */
export async function live (options) {
  const user = new User(options)
  await user.think() // not all log in at once
  await user.logIn()
  while (Date.now() < user.end) {
    await user.think()
    const chance = user.random.next()
    if (chance < LOGINS) await user.logIn()
    else if (chance < LOGINS + WRITES) await user.write()
    else await user.read(user.random.weighted(READS)(user.random))
  }
  user.agent.destroy()
}

class User {
  known = new Set() // targets that are stored for this user, as far as the user can tell
  versions = {} // by kind of list: what reads have to show after a write
  items = {}

  constructor ({ number, seed, ports, end, tally }) {
    Object.assign(this, { ports, end, tally, name: `u${number}`, random: new Random(seed * 1_000_003 + number) })
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 4 })
  }

  think () {
    const pause = Math.min(-Math.log(1 - this.random.next()) * THINK_MS, THINK_MS * 8)
    return new Promise(resolve => setTimeout(resolve, pause))
  }

  async logIn () {
    const { token } = await this.ask('POST', '/login', { user: this.name, password: `password of ${this.name}` }) ?? {}
    if (!token) return
    this.token = token
    this.known.clear() // a new token is checked by the origin once on each route
    await this.ask('POST', '/user/initialize')
    // The dashboard loads.
    await Promise.all(['/api/stocks', '/api/stocks/analytics?range=30d', '/api/market/movers'].map(target => this.read(target)))
  }

  /** Reads from any node, and notes what is wrong with the answer. */
  async read (target, port = this.random.pick(this.ports), isChecked = false) {
    const version = this.versions[kindOf(target)] ?? 0
    const isKnown = this.known.has(target)
    const begun = performance.now()
    const answer = await this.ask('GET', target, undefined, port)
    if (!answer) return
    this.tally.times.push(performance.now() - begun)
    if (isChecked) this.tally.checks += 1
    const { owner, items, says: { word, status } } = answer
    if (owner !== undefined && owner !== this.name) this.tally.foreign.push(`${this.name} got what is of ${owner} at ${target}`)
    if (answer.version < version) this.tally.stale.push(`${this.name} read version ${answer.version} of ${target}, not ${version}: ${word} ${status}`)
    if (items) this.items[kindOf(target)] = items
    if (target === NOT_STORED) return
    if (isKnown && word !== undefined && !answer.isHit) this.tally.note(`${this.name} ${target}`, word, status)
    this.known.add(target)
  }

  /** Writes, and reads what depends on it from every node. */
  async write () {
    const kind = this.random.pick(WRITTEN)
    for (const target of [...this.known].filter(target => kindOf(target) === kind)) this.known.delete(target)
    const answer = await this.ask(...this.change(kind))
    if (!answer) return
    this.versions[kind] = answer.version
    const targets = isTrade(kind) ? [listOf(kind), `/api/${kind}/analytics?range=30d`] : [listOf(kind)]
    for (const target of targets) await Promise.all(this.ports.map(port => this.read(target, port, true)))
  }

  /** A request that changes a list of this kind: half of them add something. */
  change (kind) {
    const body = isTrade(kind) ? { symbol: this.random.pick(['S1', 'S2', 'S3']), side: 'BUY', quantity: 5, entry: 100, exit: 104 } : { text: 'a note' }
    const [items, chance] = [this.items[kind] ?? [], this.random.next()]
    if (kind === 'notebook' || items.length === 0 || chance < 0.5) return ['POST', listOf(kind), body]
    const item = `/api/${kind}/${this.random.pick(items).id}`
    return chance < 0.8 ? ['PUT', item, body] : ['DELETE', item]
  }

  /** Sends a request to a node; what it said, and nothing where it failed. */
  async ask (method, target, body, port = this.random.pick(this.ports)) {
    this.tally.requests += 1
    this.tally.count(this.tally.asked, `${method} ${target.split('?')[0].split('/').slice(0, 4).join('/')}`)
    try {
      const { response, text } = await this.send(method, target, body, port)
      if (response.statusCode >= 400) throw new Error(`${response.statusCode} ${text}`)
      const says = { word: response.headers['x-api-cache'], status: response.headers['cache-status'] }
      if (method === 'GET' && says.word) this.note(says)
      return { ...(text ? JSON.parse(text) : {}), says, isHit: ['HIT', 'STALE'].includes(says.word) }
    } catch (error) {
      this.tally.failures.push(`${this.name} ${method} ${target}: ${error.message}`)
    }
  }

  note ({ word, status }) {
    this.tally.count(this.tally.words, word)
    if (word === 'HIT') return
    const reason = /detail="?([a-z-]+)/.exec(status)?.[1] ?? /fwd=([a-z-]+)/.exec(status)?.[1] ?? 'no reason'
    this.tally.count(this.tally.reasons, reason)
  }

  send (method, path, body, port) {
    const text = body === undefined ? undefined : JSON.stringify(body)
    const headers = {
      Host: HOST,
      Accept: 'application/json, text/plain, */*',
      'Accept-Encoding': 'gzip, deflate, br, zstd',
      'Accept-Language': 'en-GB,en;q=0.9',
      Origin: 'https://app.journal.example',
      Referer: 'https://app.journal.example/dashboard',
      'User-Agent': 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36',
      ...(this.token && path !== '/login' ? { Authorization: `Bearer ${this.token}` } : {}),
      ...(text === undefined ? {} : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) })
    }
    return new Promise((resolve, reject) => {
      const request = http.request({ host: '127.0.0.1', port, method, path, headers, agent: this.agent, timeout: 20_000 }, response => {
        const parts = []
        response.on('data', part => parts.push(part))
        response.on('end', () => resolve({ response, text: Buffer.concat(parts).toString() }))
        response.on('error', reject)
      })
      request.on('timeout', () => request.destroy(new Error('no answer in time')))
      request.on('error', reject)
      request.end(text)
    })
  }
}

function listOf (kind) {
  return kind === 'notebook' ? '/api/notebook/notes' : `/api/${kind}`
}

function isTrade (kind) {
  return kind === 'stocks' || kind === 'options'
}

/** The kind of list that a target is made of; nothing where it belongs to nobody. */
function kindOf (target) {
  return WRITTEN.find(kind => target.startsWith(listOf(kind)))
}

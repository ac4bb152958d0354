// What the origin holds and has said, and whether an answer may be what it is: of whom it is, of which version, how old at most.

/**
 * What there is to read. Times in seconds: `ttl`, and how long after it an answer may still come while it is renewed (`swr`) or while the origin
 * fails (`error`). `silent`: the route has the ttl, not the origin. `users`: each user has one of its own.
 */
export const KINDS = {
  quick: { count: 20, ttl: 1, swr: 2, error: 20 },
  steady: { count: 60, ttl: 30, swr: 0, error: 60 },
  strict: { count: 20, ttl: 2, swr: 0, error: 0, silent: true },
  large: { count: 6, ttl: 10, swr: 0, error: 30 },
  varied: { count: 12, ttl: 5, swr: 0, error: 20, colors: ['red', 'blue', 'green'] },
  mine: { count: 4, ttl: 5, swr: 0, error: 20, silent: true, users: 20 },
  passed: { count: 10, ttl: 0, swr: 0, error: 0 }
}

/** `Age` counts whole seconds, and so does `Date`. */
const ROUNDING = 1000 // ms

/** A route's ttl counts from the receipt of a response, however long a node waited for it: its `first_byte_timeout` (s). */
const ON_ITS_WAY = 4

/** A target: `path` and, where each user has its own, `user`; `name` is both. */
export const targets = Object.entries(KINDS).flatMap(([kind, { count, users = 0 }]) =>
  Array.from({ length: count * Math.max(1, users) }, (_, i) => target(kind, i % count, users ? `user-${Math.floor(i / count)}` : '')))

export function target (kind, number, user = '') {
  const path = `/${kind}/${number}`
  return { kind, number, user, path, name: `${path}|${user}` }
}

/** What a purge selects: a tag, a path, or a user. */
export function selects ({ tag, path, user }, target) {
  if (path !== undefined) return target.path === path
  if (user !== undefined) return target.user === user
  return tag === target.kind || tag === `${target.kind}:${target.number}` || (target.user !== '' && tag === `mine:${target.user}`)
}

/** The body of a version, whose bytes say everywhere whose it is. */
export function body (target, color, version) {
  const line = `${target.path}|${target.user}|${color}|${version};`
  const size = target.kind === 'large' ? 300_000 + target.number * 150_000 : 100 + (target.number * 977) % 20_000
  return Buffer.alloc(size, line)
}

export function etag (target, color, version) {
  return `"${Buffer.from(`${target.name}|${color}`).toString('base64url')}.${version}"`
}

/** What the origin holds, what it has said under which number, and from which number on a target may be read. */
export class Model {
  constructor () {
    this.versions = new Map() // target|color → version
    this.records = [] // by number: what was asked, and when it was said
    this.latest = new Map() // ETag → the last that says it is current: by number, and by when it was said
    this.floors = new Map() // target → the number, everywhere
    this.local = new Map() // process|target → the number, on one node
    this.writes = new Map() // id of a write → how often it was done
    this.requests = [] // those that reached the origins last: { id, port, mode, asked, said }
  }

  version (target, color) {
    return this.versions.get(`${target.name}|${color}`) ?? 1
  }

  /** The data changes: all colours of a target. */
  change (target) {
    for (const color of KINDS[target.kind].colors ?? ['']) this.versions.set(`${target.name}|${color}`, this.version(target, color) + 1)
  }

  /** A request reaches the origin: its number. */
  asked (target, color) {
    const number = this.records.length
    this.records.push({ number, target, color, asked: Date.now() })
    return number
  }

  /** A request reaches an origin, whatever it asks for. Its note, for `said`. */
  noted (id, port, mode) {
    const note = { id, port, mode, asked: Date.now() }
    this.requests.push(note)
    if (this.requests.length > 20_000) this.requests.splice(0, 10_000)
    return note
  }

  /** It answers with this version. */
  said (number, version) {
    const record = this.records[number]
    Object.assign(record, { version, said: Date.now() })
    const tag = etag(record.target, record.color, version)
    const before = this.latest.get(tag)
    this.latest.set(tag, before ? { ...record, number: Math.max(number, before.number) } : record)
  }

  written (id) {
    this.writes.set(id, (this.writes.get(id) ?? 0) + 1)
  }

  get last () {
    return this.records.length - 1
  }

  /** From now on nothing that was asked for before this number is read of what is selected: nowhere, or on one process. */
  hold (selector, number, process) {
    for (const target of targets.filter(each => selects(selector, each))) {
      const [map, key] = process === undefined ? [this.floors, target.name] : [this.local, `${process}|${target.name}`]
      map.set(key, Math.max(map.get(key) ?? 0, number))
    }
  }

  floor (target, process) {
    return Math.max(this.floors.get(target.name) ?? 0, this.local.get(`${process}|${target.name}`) ?? 0)
  }

  /**
   * What is wrong with an answer: { wrong } or { stale }, or nothing. `read`: the target and colour that were asked for, `begun` (ms), the `floor` at
   * that time, `part` ([first, end]) of a range, `conditional` (the ETags that were sent), and whether the origin `isTroubled` meanwhile.
   */
  judge (read, { status, headers, bytes, method }) {
    const record = status === 304 ? this.latest.get(headers.etag) : this.records[headers['x-number']]
    if (!record) return { wrong: `the origin never said that: ${status} ${headers['x-number']} ${headers.etag}` }
    const { target, color } = read
    if (record.target.name !== target.name || record.color !== color) return { wrong: `it is what was said of ${record.target.name} ${record.color}` }
    const version = Number(headers.etag?.split('.').pop().slice(0, -1))
    if (headers.etag !== etag(target, color, version)) return { wrong: `another ETag: ${headers.etag}` }
    if (version !== record.version) return { wrong: `version ${version} under the number of ${record.version}` }
    const wrong = judgeBody(read, { status, headers, bytes, method }, body(target, color, version))
    return wrong ? { wrong } : this.judgeAge(read, record, headers)
  }

  judgeAge (read, record, headers) {
    if (record.number < read.floor) return { stale: `asked for before what was purged: ${record.number}, not ${read.floor} or later` }
    const { ttl, swr, error, silent } = KINDS[read.target.kind]
    const age = read.begun - record.said
    const cache = headers['x-api-cache']
    if (cache === 'BYPASS') return record.asked < read.begun ? { stale: 'not passed, but older' } : undefined
    if (cache === 'STALE' && swr === 0 && !read.isTroubled) return { stale: `served stale while the origin was well: ${headers['cache-status']}` }
    const grace = cache !== 'STALE' ? 0 : read.isTroubled ? Math.max(swr, error) : swr
    const most = (ttl + grace + (silent ? ON_ITS_WAY : 0)) * 1000 + ROUNDING
    if (age > most) return { stale: `${cache}, ${age} ms old, ${most} at most` }
  }
}

/** What is wrong with the bytes of an answer. */
function judgeBody ({ part, conditional }, { status, headers, bytes, method }, whole) {
  if (status === 304) return conditional?.includes(headers.etag) ? undefined : 'a 304 to what the client does not have'
  if (method === 'HEAD') return Number(headers['content-length']) === whole.length ? undefined : `HEAD with ${headers['content-length']} of ${whole.length}`
  if (status === 200) return bytes.equals(whole) ? undefined : differs(bytes, whole)
  if (status !== 206 || !part) return `status ${status}`
  const [first, end] = part
  if (headers['content-range'] !== `bytes ${first}-${end - 1}/${whole.length}`) return `another range: ${headers['content-range']}`
  return bytes.equals(whole.subarray(first, end)) ? undefined : `other bytes in the range ${first}-${end - 1}`
}

function differs (bytes, whole) {
  return `${bytes.length} bytes of ${whole.length}, beginning with ${bytes.subarray(0, 40)} in place of ${whole.subarray(0, 40)}`
}

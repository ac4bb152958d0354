// The origins: servers that answer from one model, and what can go wrong with each.

import { createHash } from 'node:crypto'
import http from 'node:http'
import { sleep } from '../../tests/process.mjs'
import { answerHostile } from '../hostile.mjs'
import { body, etag, KINDS, target } from './model.mjs'

/**
 * Refused: nothing listens, and connections end · stalled: nothing is answered until it is over · slow: it takes up to a second ·
 * failing: 503 · broken: bodies end in the middle.
 */
export const MODES = ['refused', 'stalled', 'slow', 'failing', 'broken']
const SLOW = [50, 1000] // ms
const USUAL = [0, 20] // ms
const FEED = 50 // ms between two messages

export class Origin {
  constructor (model, random) {
    Object.assign(this, { model, random, mode: 'well', sockets: new Set(), waiting: [] })
  }

  async start () {
    this.server = http.createServer({ maxHeaderSize: 1 << 20 }, (request, response) => this.answer(request, response).catch(() => response.destroy()))
    this.server.on('connection', socket => {
      this.sockets.add(socket)
      socket.on('close', () => this.sockets.delete(socket)).on('error', () => {})
    })
    this.server.on('upgrade', (request, socket) => this.upgrade(request, socket))
    // Clients keep connections for long: who closes them first is not what is looked for here.
    this.server.keepAliveTimeout = 600_000
    await this.listen()
  }

  get url () { return `http://127.0.0.1:${this.port}` }

  listen () {
    return new Promise(resolve => this.server.listen(this.port ?? 0, '127.0.0.1', 4096, () => {
      this.port = this.server.address().port
      resolve()
    }))
  }

  async set (mode) {
    const before = this.mode
    this.mode = mode
    if (mode === 'refused') {
      this.server.close()
      this.sockets.forEach(socket => socket.destroy())
    } else if (before === 'refused') await this.listen()
    if (before === 'stalled') this.waiting.splice(0).forEach(go => go())
  }

  async answer (request, response) {
    if (request.url.startsWith('/hostile/')) return answerHostile(request, response)
    const note = this.model.noted(request.headers['x-request-id'], this.port, this.mode)
    response.on('finish', () => { note.said = Date.now() })
    const { pathname } = new URL(request.url, 'http://origin')
    const id = request.headers['x-write']
    const sent = await received(request)
    const [, kind, number] = pathname.split('/')
    const it = KINDS[kind] && target(kind, Number(number), KINDS[kind].users ? userOf(request) : '')
    // What it says is settled when the request comes, and may be old when it is said.
    const isRead = it && ['GET', 'HEAD'].includes(request.method)
    const said = isRead && this.look(it, request)
    await this.delay()
    if (isRead) return this.read(said, request, response)
    if (it) return this.write(it, id, response)
    if (pathname === '/feed') return this.feed(response)
    if (pathname === '/upload') return this.upload(id, sent, response)
    response.writeHead(404).end()
  }

  async delay () {
    if (this.mode === 'stalled') await new Promise(resolve => this.waiting.push(resolve))
    const [min, max] = this.mode === 'slow' ? SLOW : USUAL
    await sleep(this.random.between(min, max))
  }

  look (it, request) {
    const color = KINDS[it.kind].colors ? request.headers['x-color'] ?? '' : ''
    return { it, color, number: this.model.asked(it, color), version: this.model.version(it, color) }
  }

  async read ({ it, color, number, version }, request, response) {
    const { ttl, colors, silent } = KINDS[it.kind]
    if (this.mode === 'failing') return response.writeHead(503, { 'X-Number': number, 'Content-Type': 'text/plain' }).end('the origin fails')
    this.model.said(number, version)
    const tag = etag(it, color, version)
    response.setHeader('X-Number', number)
    response.setHeader('ETag', tag)
    response.setHeader('Surrogate-Key', `${it.kind} ${it.kind}:${it.number}`)
    if (!silent) response.setHeader('Cache-Control', ttl ? `max-age=${ttl}` : 'no-store')
    if (colors) response.setHeader('Vary', 'X-Color')
    if (request.headers['if-none-match'] === tag) return response.writeHead(304).end()
    const bytes = body(it, color, version)
    response.setHeader('Content-Type', 'text/plain')
    response.setHeader('Content-Length', bytes.length)
    if (this.mode !== 'broken' || request.method === 'HEAD') return response.end(bytes)
    response.write(bytes.subarray(0, bytes.length / 2))
    await sleep(10)
    response.destroy()
  }

  write (it, id, response) {
    if (this.mode === 'failing') return response.writeHead(503, { 'X-Number': this.model.last }).end()
    this.model.written(id)
    this.model.change(it)
    response.writeHead(200, { 'X-Number': this.model.asked(it, ''), 'X-Write': id })
    response.end(id)
  }

  upload (id, sent, response) {
    this.model.written(id)
    response.writeHead(200, { 'X-Number': 0, 'Content-Type': 'text/plain' })
    response.end(sent.digest)
  }

  /** Numbers, one a message, for a while. */
  async feed (response) {
    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store', 'X-Number': 0 })
    for (let number = 0; number < 40 && !response.destroyed; number++) {
      response.write(`data: ${number}\n\n`)
      await sleep(FEED)
    }
    response.end()
  }

  /** Says back what it hears, whatever the protocol is called. */
  upgrade (request, socket) {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
    socket.pipe(socket)
  }
}

/** The user of a token that Larder has verified: the origin sees it as it was sent. */
function userOf (request) {
  const payload = request.headers.authorization?.split('.')[1]
  return payload ? JSON.parse(Buffer.from(payload, 'base64url')).sub : 'nobody'
}

async function received (request) {
  const digest = createHash('sha256')
  for await (const chunk of request) digest.update(chunk)
  return { digest: digest.digest('hex') }
}

// How clients come to the nodes: as through a balancer that asks nodes whether they are ready, and tries another one where a connection is refused.

import http from 'node:http'
import http2 from 'node:http2'

export const HOST = 'api.test'
/** Longer than a node is stopped and an origin is waited for. */
const PATIENCE = 30_000 // ms
const ATTEMPTS = 6

/** A request that brought no answer, or only a part of one. */
export class Lost extends Error {
  /** `isRefused`: it did not reach the node. `isIdle`: the connection had been used before, and ended before any byte came. */
  constructor (error, { isRefused = false, isIdle = false } = {}) {
    super(error.message)
    Object.assign(this, { isRefused, isIdle })
  }
}

export class Balancer {
  constructor (cluster, random) {
    Object.assign(this, { cluster, random, sessions: new Map(), retried: 0, agent: new http.Agent({ keepAlive: true }) })
  }

  /**
   * The answer to a request: { node, status, headers, bytes, method }, or an error with the `node` that failed. What a node surely did not do is
   * tried again: refused connections and streams; of safe requests also what a connection that was idle, or a node that was killed, took along.
   */
  async ask (request) {
    const isSafe = ['GET', 'HEAD'].includes(request.method ?? 'GET')
    for (let attempt = 1; ; attempt++) {
      const node = request.node ?? this.random.pick(this.cluster.ready())
      const begun = Date.now()
      try {
        const answer = await (request.isHttp2 ? this.http2(node, request) : this.http1(node, request))
        return { node, ...answer, method: request.method ?? 'GET' }
      } catch (error) {
        const mayRetry = error.isRefused || (isSafe && (error.isIdle || node.wasKilledSince(begun)))
        if (!mayRetry || attempt === ATTEMPTS) throw Object.assign(error, { node, begun })
        this.retried++
      }
    }
  }

  http1 (node, { method = 'GET', path, headers = {}, body, isFresh = false, isAdmin = false }) {
    return new Promise((resolve, reject) => {
      const fields = { Host: HOST, ...headers, ...(body !== undefined && { 'Content-Length': Buffer.byteLength(body) }) }
      const agent = isFresh || isAdmin ? false : this.agent
      const request = http.request({ host: '127.0.0.1', port: isAdmin ? node.admin : node.port, method, path, headers: fields, agent, timeout: PATIENCE }, response => {
        const chunks = []
        response.on('data', chunk => chunks.push(chunk))
        response.on('error', error => reject(new Lost(error)))
        response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, bytes: Buffer.concat(chunks) }))
      })
      request.on('timeout', () => request.destroy(new Error(`no answer in ${PATIENCE / 1000} s`)))
      request.on('error', error => {
        const isIdle = request.reusedSocket && ['ECONNRESET', 'EPIPE'].includes(error.code)
        reject(new Lost(error, { isRefused: error.code === 'ECONNREFUSED', isIdle }))
      })
      request.end(body)
    })
  }

  http2 (node, { method = 'GET', path, headers = {} }) {
    return new Promise((resolve, reject) => {
      const stream = this.session(node).request({ ':method': method, ':path': path, ':authority': HOST, ...headers })
      const chunks = []
      let head
      stream.setTimeout(PATIENCE, () => stream.destroy(new Error(`no answer in ${PATIENCE / 1000} s`)))
      stream.on('response', fields => { head = fields })
      stream.on('data', chunk => chunks.push(chunk))
      stream.on('error', error => {
        const isRefused = stream.rstCode === http2.constants.NGHTTP2_REFUSED_STREAM || ['ERR_HTTP2_GOAWAY_SESSION', 'ECONNREFUSED'].includes(error.code)
        // A session that ended before any byte of the answer came.
        const isIdle = !head && ['ERR_HTTP2_STREAM_CANCEL', 'ECONNRESET', 'ERR_HTTP2_SESSION_ERROR'].includes(error.code)
        reject(new Lost(error, { isRefused, isIdle }))
      })
      stream.on('close', () => {
        if (head && stream.readableEnded) return resolve({ status: head[':status'], headers: head, bytes: Buffer.concat(chunks) })
        reject(new Lost(new Error(`the stream ended with code ${stream.rstCode}`), { isRefused: stream.rstCode === http2.constants.NGHTTP2_REFUSED_STREAM }))
      })
    })
  }

  session (node) {
    const known = this.sessions.get(node.number)
    if (known && !known.closed && !known.destroyed) return known
    const session = http2.connect(`http://127.0.0.1:${node.port}`)
    session.on('error', () => {})
    this.sessions.set(node.number, session)
    return session
  }

  stop () {
    this.agent.destroy()
    this.sessions.forEach(session => session.destroy())
  }
}

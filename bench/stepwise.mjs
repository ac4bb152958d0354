// A Larder whose instructions are counted hears from outside only while its worker thread waits in `epoll_wait`: the client sends its next
// request, the origin its response and Redis its reply then, and not before. So each request takes the same turns of the event loop, however
// fast the machine is and whatever else it does.

import { readFileSync, readdirSync } from 'node:fs'
import net from 'node:net'
import { ETAG } from './requests.mjs'

const WAITS = new Set(['232', '281', '441']) // epoll_wait, epoll_pwait, epoll_pwait2 on x86_64
const LOOKS = 3 // in a row that find the worker waiting

/** Says when the worker thread of a Larder waits. Before `watch`, it counts as waiting. */
export class Stepper {
  #syscall

  /** Finds the worker of a process, which must have one alone. */
  watch (pid) {
    const tasks = readdirSync(`/proc/${pid}/task`)
    const workers = tasks.filter(task => /^worker-\d+$/.test(readFileSync(`/proc/${pid}/task/${task}/comm`, 'utf8').trim()))
    if (workers.length !== 1) throw new Error(`${workers.length} worker threads instead of one`)
    this.#syscall = `/proc/${pid}/task/${workers[0]}/syscall`
  }

  /** Resolves once the worker waits. */
  async waits () {
    for (let found = 0; found < LOOKS;) {
      found = !this.#syscall || WAITS.has(readFileSync(this.#syscall, 'utf8').split(' ')[0]) ? found + 1 : 0
      await new Promise(resolve => setImmediate(resolve))
    }
  }
}

/**
 * An origin that responds in one write: `/pass/…` with `no-store`, any other target with a response that is fresh for an hour. `body` is its
 * body. `requests()` returns how many it has received.
 */
export async function startOrigin (stepper, body) {
  let received = 0
  const server = net.createServer({ noDelay: true }, socket => {
    let text = ''
    socket.on('error', () => {})
    socket.on('data', async data => {
      text += data.toString('latin1')
      while (text.includes('\r\n\r\n')) {
        const target = text.split(' ', 2)[1]
        text = text.slice(text.indexOf('\r\n\r\n') + 4)
        received++
        await stepper.waits()
        socket.write(response(target, body))
      }
    })
  })
  const port = await listening(server)
  return { host: `127.0.0.1:${port}`, requests: () => received, stop: () => server.close() }
}

function response (target, body) {
  return [
    'HTTP/1.1 200 OK', 'Server: origin', `Date: ${new Date().toUTCString()}`, 'Content-Type: application/json', `Content-Length: ${body.length}`,
    `ETag: ${ETAG}`, `Cache-Control: ${target.startsWith('/pass/') ? 'no-store' : 'max-age=3600'}`, 'Connection: keep-alive', '', body
  ].join('\r\n')
}

/** A relay before a Redis, which holds back replies until the worker waits. */
export async function startRelay (stepper, redisPort) {
  const server = net.createServer({ noDelay: true }, near => {
    const far = net.connect({ port: redisPort, host: '127.0.0.1', noDelay: true })
    let last = Promise.resolve()
    near.on('data', data => far.write(data))
    far.on('data', data => { last = last.then(() => stepper.waits()).then(() => near.write(data)) })
    for (const [one, other] of [[near, far], [far, near]]) one.on('error', () => {}).on('close', () => other.destroy())
  })
  const port = await listening(server)
  return { url: `redis://127.0.0.1:${port}/0`, stop: () => server.close() }
}

/** One connection to Larder, with one request under way at most. */
export class Client {
  #stepper
  #socket
  #received = ''
  #done

  constructor (stepper, port) {
    this.#stepper = stepper
    this.#socket = net.connect({ port, host: '127.0.0.1', noDelay: true })
    this.#socket.on('data', data => {
      this.#received += data.toString('latin1')
      const head = this.#received.indexOf('\r\n\r\n') + 4
      if (head < 4) return
      const length = /^HTTP\/1.1 304/.test(this.#received) ? 0 : Number(/^content-length: (\d+)/im.exec(this.#received)?.[1])
      if (this.#received.length < head + length) return
      const text = this.#received.slice(0, head)
      this.#received = ''
      this.#done?.resolve(text)
    })
    this.#socket.on('error', error => this.#done?.reject(error))
    this.#socket.on('close', () => this.#done?.reject(new Error('the connection was closed')))
  }

  /** Sends a request while the worker waits, and returns the head of its response once the worker waits again. */
  async ask (request) {
    await this.#stepper.waits()
    const head = await new Promise((resolve, reject) => {
      this.#done = { resolve, reject }
      this.#socket.write(request)
    })
    this.#done = undefined
    await this.#stepper.waits()
    return head
  }

  close () {
    this.#socket.destroy()
  }
}

function listening (server) {
  return new Promise((resolve, reject) => {
    server.on('error', reject)
    server.listen(0, '127.0.0.1', () => resolve(server.address().port))
  })
}

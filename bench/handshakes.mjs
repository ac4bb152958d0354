// A load of TLS 1.3 handshakes: each connection sends one request over HTTP/1.1 and closes. Prints `RESULT`, with the number of connections, microseconds, bytes,
// the 50th and 99th percentile of a connection's time in microseconds, and errors.
//
//   node bench/handshakes.mjs --port PORT [--path PATH] [--connections N] [--seconds S] [--resumed]
//
// With `--resumed` each connection resumes the session of an earlier one, and one that does not is an error.

import tls from 'node:tls'
import { options } from '../tests/process.mjs'

const given = options({ port: '', path: '/', connections: '16', seconds: '2', resumed: false })
const request = `GET ${given.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`
const context = tls.createSecureContext({ minVersion: 'TLSv1.3' })
const times = []
let [bytes, errors] = [0, 0]

/** One connection: returns the session that the server gave it. */
function connect (session) {
  return new Promise((resolve, reject) => {
    let next
    let received = 0
    const socket = tls.connect({ port: Number(given.port), host: '127.0.0.1', secureContext: context, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'], session })
    socket.on('secureConnect', () => {
      if (socket.isSessionReused() !== Boolean(session)) errors++
      socket.write(request)
    })
    socket.on('session', ticket => { next = ticket })
    socket.on('data', data => {
      if (received === 0 && !data.toString('latin1', 0, 12).startsWith('HTTP/1.1 200')) errors++
      received += data.length
    })
    socket.on('close', () => {
      bytes += received
      resolve(next)
    })
    socket.on('error', reject)
  })
}

async function connectUntil (end) {
  let session = given.resumed ? await connect() : undefined
  while (performance.now() < end) {
    const opened = performance.now()
    const next = await connect(session)
    times.push(performance.now() - opened)
    if (given.resumed) session = next ?? session
  }
}

const begun = performance.now()
const ends = Array.from({ length: Number(given.connections) }, () => connectUntil(begun + Number(given.seconds) * 1000))
await Promise.all(ends)
const taken = performance.now() - begun
times.sort((a, b) => a - b)
const percentile = share => Math.round(1000 * (times[Math.ceil(times.length * share) - 1] ?? 0))
console.log('RESULT', times.length, Math.round(taken * 1000), bytes, percentile(0.5), percentile(0.99), errors)
process.exit(0)

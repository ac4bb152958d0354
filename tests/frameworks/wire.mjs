// Requests sent byte for byte as described: targets, hosts and repeated fields that HTTP libraries would correct.

import http2 from 'node:http2'
import net from 'node:net'
import { gunzipSync } from 'node:zlib'

/** How long a server may take, in milliseconds. */
const PATIENCE = 10_000

/** Sends a request on a connection of its own; answers status, fields as [name, value] pairs in order, and the body. */
export function send (port, { method = 'GET', target, host, fields = [] }) {
  const lines = [`${method} ${target} HTTP/1.1`, `Host: ${host}`, 'Connection: close', ...fields.map(([name, value]) => `${name}: ${value}`)]
  return new Promise((resolve, reject) => {
    const chunks = []
    const socket = net.connect({ port, host: '127.0.0.1', noDelay: true }, () => socket.write(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'))
    socket.setTimeout(PATIENCE, () => socket.destroy(new Error(`no answer within ${PATIENCE} ms to ${lines[0]}`)))
    socket.on('error', reject)
    socket.on('data', chunk => chunks.push(chunk))
    socket.on('end', () => {
      socket.destroy()
      try { resolve(read(Buffer.concat(chunks), method)) } catch (error) { reject(new Error(`${error.message}: ${lines[0]}`)) }
    })
  })
}

function read (bytes, method) {
  const end = bytes.indexOf('\r\n\r\n')
  if (end < 0) throw new Error('the connection ended without an answer')
  const [first, ...lines] = bytes.subarray(0, end).toString('latin1').split('\r\n')
  const fields = lines.map(line => {
    const [, name, value] = /^([^:]*):\s*(.*)$/s.exec(line)
    return [name.toLowerCase(), value]
  })
  const isChunked = fields.some(([name, value]) => name === 'transfer-encoding' && value === 'chunked')
  const body = method === 'HEAD' ? Buffer.alloc(0) : bytes.subarray(end + 4)
  return answered(Number(first.split(' ')[1]), fields, isChunked ? dechunked(body) : body)
}

/** An answer with its content decoded. */
function answered (status, fields, body) {
  const codings = fields.filter(([name]) => name === 'content-encoding').map(([, value]) => value)
  if (codings.join() === 'gzip' && body.length) body = gunzipSync(body)
  return { status, fields, body: body.toString() }
}

function dechunked (bytes) {
  const parts = []
  for (let at = 0; ;) {
    const line = bytes.indexOf('\r\n', at)
    const size = Number.parseInt(bytes.subarray(at, line).toString('latin1'), 16)
    if (!size) return Buffer.concat(parts)
    parts.push(bytes.subarray(line + 2, line + 2 + size))
    at = line + 2 + size + 2
  }
}

/** The same over HTTP/2 with prior knowledge, each cookie in a field of its own, as browsers send them. */
export function sendOverHttp2 (port, { method = 'GET', target, host, fields = [] }) {
  const headers = { ':method': method, ':path': target, ':authority': host, ':scheme': 'http' }
  for (const [name, value] of fields) {
    const parts = name === 'Cookie' ? value.split('; ') : [value]
    headers[name.toLowerCase()] = [...(headers[name.toLowerCase()] ?? []), ...parts]
  }
  return new Promise((resolve, reject) => {
    const session = http2.connect(`http://127.0.0.1:${port}`)
    const fail = error => { session.destroy(); reject(new Error(`${error.message}: ${method} ${target} over HTTP/2`)) }
    session.on('error', fail)
    const stream = session.request(headers)
    stream.setTimeout(PATIENCE, () => fail(new Error(`no answer within ${PATIENCE} ms`)))
    const chunks = []
    let answer
    stream.on('error', fail)
    stream.on('response', (given, flags, raw) => {
      const fields = []
      for (let at = 0; at < raw.length; at += 2) if (!raw[at].startsWith(':')) fields.push([raw[at], raw[at + 1]])
      answer = { status: given[':status'], fields }
    })
    stream.on('data', chunk => chunks.push(chunk))
    stream.on('end', () => {
      session.close()
      try { resolve(answered(answer.status, answer.fields, Buffer.concat(chunks))) } catch (error) { fail(error) }
    })
  })
}

/** All values of a field, in order. */
export function values (answer, name) {
  return answer.fields.filter(([field]) => field === name).map(([, value]) => value)
}

// Requests sent byte for byte as described: targets, hosts and repeated fields that HTTP libraries would correct.

import net from 'node:net'

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
  return { status: Number(first.split(' ')[1]), fields, body: (isChunked ? dechunked(body) : body).toString() }
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

/** All values of a field, in order. */
export function values (answer, name) {
  return answer.fields.filter(([field]) => field === name).map(([, value]) => value)
}

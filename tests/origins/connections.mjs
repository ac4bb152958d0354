// The connections to real origins: none of their habits of closing, limiting and refusing costs a request.
//
//   node connections.mjs --python PATH [--larder PATH]
//
// `--python` is an interpreter that has uvicorn.

import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { answering, freePort, onFreePort, options, scratch, sleep, start, startLarder } from '../process.mjs'
import { Score } from './compare.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const given = options({
  larder: join(process.env.CARGO_TARGET_DIR ?? join(here, '../../target'), 'optimized/larder'),
  python: join(here, '../../target/test-tools/frameworks-python/bin/python')
})

const score = new Score()
const certificate = selfSigned()
await nginx('its default keepalive_requests', '', 4800)
await nginx('keepalive_requests 20', 'keepalive_requests 20;', 1000)
await nginx('keepalive_requests 1', 'keepalive_requests 1;', 300)
await node('its default settings', {})
await node('50 concurrent streams', { settings: { maxConcurrentStreams: 50 } })
await uvicorn()
score.close()
process.exit()

// ── nginx as an https origin that speaks HTTP/2 ──

async function nginx (name, directive, posts) {
  const counting = await startCounting()
  const origin = await onFreePort(() => startNginx(directive, counting.port))
  const larder = await startLarder(given.larder, origin.url, { ca: certificate.chain })
  const answers = await load(larder.url, posts, 64)
  score.check(`nginx with ${name}: no POST of ${posts} is lost`, failures(answers))
  const doubled = [...counting.seen].filter(([, times]) => times !== 1)
  const lost = posts - counting.seen.size
  score.check(`nginx with ${name}: each POST arrives once and whole`, lost || doubled.length ? [`${lost} missing, ${doubled.length} doubled`] : [])
  for (const child of [larder, origin]) await child.stop()
  counting.close()
}

/** An HTTP/1.1 server that counts the bodies which it gets. */
async function startCounting () {
  const seen = new Map()
  const server = http.createServer((request, response) => {
    let body = ''
    request.on('data', part => { body += part })
    request.on('end', () => {
      seen.set(body, (seen.get(body) ?? 0) + 1)
      response.end('ok')
    })
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  return { seen, port: server.address().port, close: () => server.close() }
}

async function startNginx (directive, upstream) {
  const [folder, port] = [scratch(), await freePort()]
  mkdirSync(join(folder, 'tmp'))
  const config = join(folder, 'nginx.conf')
  writeFileSync(config, `
daemon off; worker_processes 1; pid ${folder}/pid; error_log stderr warn;
events { worker_connections 2048; }
http {
  access_log off;
  client_body_temp_path ${folder}/tmp/a; proxy_temp_path ${folder}/tmp/b; fastcgi_temp_path ${folder}/tmp/c;
  uwsgi_temp_path ${folder}/tmp/d; scgi_temp_path ${folder}/tmp/e;
  server {
    listen 127.0.0.1:${port} ssl http2;
    ssl_certificate ${certificate.chain}; ssl_certificate_key ${certificate.key};
    ${directive}
    location / { proxy_pass http://127.0.0.1:${upstream}; }
  }
}`)
  const child = start(['nginx', '-c', config, '-e', 'stderr'])
  await listening(port, child)
  return { ...child, url: `https://localhost:${port}` }
}

// ── node's own HTTP/2 server ──

async function node (name, settings) {
  const key = readFileSync(certificate.key)
  const cert = readFileSync(certificate.chain)
  const sessions = new Set()
  const server = http2.createSecureServer({ key, cert, allowHTTP1: true, ...settings }, (request, response) => {
    if (request.url === '/events') {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      return response.write('data: 1\n\n')
    }
    response.end('ok')
  })
  server.on('session', session => sessions.add(session))
  server.on('upgrade', (request, socket) => {
    socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello')
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  const origin = `https://localhost:${server.address().port}`
  const larder = await startLarder(given.larder, origin, { ca: certificate.chain })
  const streams = await Promise.all(Array.from({ length: 400 }, () => openEvents(larder.url)))
  score.check(`node with ${name}: 400 streams of events begin`, failures(streams.map(stream => stream.status)))
  const answers = await load(larder.url, 200, 20)
  score.check(`node with ${name}: 200 plain requests beside them are answered`, failures(answers))
  const upgraded = await upgrade(larder.url)
  score.check(`node with ${name}: a WebSocket goes through`, upgraded === 'hello' ? [] : [upgraded])
  for (const stream of streams) stream.close()
  await larder.stop()
  for (const session of sessions) session.destroy()
  server.close()
}

function openEvents (base) {
  return new Promise(resolve => {
    const request = http.get(`${base}/events`, { agent: false }, response => {
      response.on('error', () => {})
      response.once('data', () => resolve({ status: response.statusCode, close: () => request.destroy() }))
    })
    request.setTimeout(15000, () => request.destroy())
    request.on('error', error => resolve({ status: error.message, close () {} }))
  })
}

function upgrade (base) {
  return new Promise(resolve => {
    const headers = { connection: 'upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==' }
    const request = http.get(base, { agent: false, headers }, response => {
      response.resume()
      resolve(`status ${response.statusCode}`)
    })
    request.on('upgrade', (_response, socket, head) => {
      let text = head.toString()
      socket.on('data', part => { text += part })
      socket.on('end', () => resolve(text))
    })
    request.on('error', error => resolve(error.message))
  })
}

// ── uvicorn, which closes idle connections after 5 seconds and says nothing of it ──

async function uvicorn () {
  const folder = scratch()
  writeFileSync(join(folder, 'app.py'), `
seen = {}

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["method"] == "POST":
        seen[body] = seen.get(body, 0) + 1
    answer = ("%d %d" % (len(seen), sum(seen.values()))).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(answer)).encode())]})
    await send({"type": "http.response.body", "body": answer})
`)
  const port = await freePort()
  const child = start([given.python, '-m', 'uvicorn', 'app:app', '--port', `${port}`, '--log-level', 'warning'], { cwd: folder })
  await answering(`http://127.0.0.1:${port}/`, child)
  const larder = await startLarder(given.larder, `http://127.0.0.1:${port}`)
  const statuses = []
  // Each lane sends again when its connection to uvicorn is about to be closed, or has just been.
  const lanes = Array.from({ length: 120 }, async (_, lane) => {
    for (let round = 0; round < 3; round++) {
      statuses.push((await post(larder.url, `${lane} ${round}`)).status)
      if (round < 2) await sleep(4970 + lane / 2)
    }
  })
  await Promise.all(lanes)
  score.check('uvicorn: no POST after 5 s of silence is lost', failures(statuses))
  const { body } = await post(larder.url, 'last')
  score.check('uvicorn: each POST arrives once', body === '361 361' ? [] : [body])
  for (const one of [larder, child]) await one.stop()
}

// ── What they share ──

/** Sends this many POSTs, so many at a time; answers their statuses. */
async function load (base, count, parallel) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: parallel })
  const statuses = []
  let next = 0
  const lane = async () => {
    while (next < count) statuses.push((await post(base, `post ${next++} ${'x'.repeat(200)}`, agent)).status)
  }
  await Promise.all(Array.from({ length: parallel }, lane))
  agent.destroy()
  return statuses
}

function post (base, body, agent = false) {
  return new Promise(resolve => {
    const request = http.request(base, { method: 'POST', agent, headers: { 'content-length': Buffer.byteLength(body) } }, response => {
      let text = ''
      response.on('data', part => { text += part })
      response.on('end', () => resolve({ status: response.statusCode, body: text }))
    })
    request.setTimeout(15000, () => request.destroy(new Error('no answer within 15 s')))
    request.on('error', error => resolve({ status: error.message, body: '' }))
    request.end(body)
  })
}

function failures (statuses) {
  const kinds = new Map()
  for (const status of statuses) if (status !== 200) kinds.set(status, (kinds.get(status) ?? 0) + 1)
  return [...kinds].map(([status, times]) => `${times} of ${statuses.length}: ${status}`)
}

function selfSigned () {
  const folder = scratch()
  const [chain, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost',
    '-addext', 'subjectAltName=DNS:localhost', '-addext', 'basicConstraints=critical,CA:FALSE', '-keyout', key, '-out', chain], { stdio: 'ignore' })
  return { chain, key }
}

/** Waits until a TLS server takes connections. */
async function listening (port, child) {
  for (let attempt = 0; attempt < 400 && child.isRunning(); attempt++) {
    const isUp = await new Promise(resolve => {
      const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
      session.on('connect', () => { session.close(); resolve(true) })
      session.on('error', () => resolve(false))
    })
    if (isUp) return
    await sleep(25)
  }
  throw new Error(`nothing listens on ${port}\n${child.tail()}`)
}

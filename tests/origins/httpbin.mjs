// httpbin as an origin: for every endpoint and method that it has, the answer through Larder equals the direct one,
// the first time and again when it may come from the cache.
//
//   node httpbin.mjs --python VENV/bin/python [--larder PATH] [--proxy URL_TEMPLATE_COMMAND]

import { createHash } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import zlib from 'node:zlib'
import { answering, freePort, options, start, startLarder } from '../process.mjs'
import { differences, HOST, Score, send, values } from './compare.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const given = options({
  larder: join(process.env.CARGO_TARGET_DIR ?? join(here, '../../target'), 'optimized/larder'),
  python: join(here, '../../target/test-tools/httpbin/bin/python'),
  proxy: ''
})

// ── What must differ, and how it is made alike ──

// Bodies that echo the request as the origin received it: a proxy adds its own account of the way (Via, Forwarded,
// X-Forwarded-*, a request id), and frames each connection by itself (Connection, Transfer-Encoding, Content-Length).
// Everything else in the echo (method, URL, arguments, form, JSON, other fields) has to arrive unchanged.
const ADDED_ON_THE_WAY = /^(via|forwarded|x-forwarded-.*|x-real-ip|x-request-id|connection|transfer-encoding|content-length)$/i
const echo = rewriteText(text => text.trimEnd().split(/\n(?=\{)/).map(document => {
  const told = JSON.parse(document)
  for (const name of Object.keys(told.headers ?? {})) if (ADDED_ON_THE_WAY.test(name)) delete told.headers[name]
  return JSON.stringify(told)
}).join('\n'))

// The same, in a coding: what arrives has to be decodable, and to say the same (gzip holds a time of its own).
const coded = decode => answer => answer.body.length ? echo({ ...answer, body: decode(answer.body) }) : answer

// A fresh random UUID in each answer.
const uuid = rewriteText(text => text.replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/, 'UUID'))

// Unseeded random bytes: only their number can agree.
const random = answer => ({ ...answer, body: Buffer.from(`${answer.body.length} bytes`) })

// A new nonce and opaque in each challenge.
const challenge = rewriteField('www-authenticate', value => value.replace(/(nonce|opaque)="[0-9a-f]+"/g, '$1="…"'))

// /cache makes a random ETag, and a Last-Modified of the current second, in each answer.
const madeNow = both(echo, rewriteField('etag', () => 'ETAG'), rewriteField('last-modified', () => 'NOW'))

// cookies/delete says when the cookie expired: in the current second or the next.
const expired = rewriteField('set-cookie', value => value.replace(/Expires=[^;]+/, 'Expires=…'))

function rewriteText (rewrite) {
  return answer => answer.body.length && answer.status < 400
    ? { ...answer, body: Buffer.from(rewrite(answer.body.toString())) }
    : answer
}

function rewriteField (name, rewrite) {
  return answer => ({ ...answer, fields: answer.fields.map(([field, value]) => [field, field === name ? rewrite(value) : value]) })
}

function both (...steps) {
  return answer => steps.reduce((now, step) => step(now), answer)
}

// ── The cases: for each rule of httpbin's URL map, one or more requests; each is sent by every method of the rule ──

const json = { body: '{"stock": ["ACME", 12.5], "note": "naïve"}', headers: { 'Content-Type': 'application/json' } }
const form = { body: 'custname=Ada&topping=cheese&topping=onion&comments=a%20b%26c', headers: { 'Content-Type': 'application/x-www-form-urlencoded' } }
const multipart = {
  body: '--edge\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--edge--\r\n',
  headers: { 'Content-Type': 'multipart/form-data; boundary=edge' }
}
const uploads = path => [
  { path, send: json, as: echo }, { path, send: form, as: echo }, { path, send: multipart, as: echo },
  { path, send: { ...json, chunked: true }, as: echo }, { path, as: echo }
]
const basic = { Authorization: `Basic ${Buffer.from('ada:secret').toString('base64')}` }

const cases = {
  '/': [{ path: '/' }],
  '/absolute-redirect/<int:n>': [{ path: '/absolute-redirect/1' }, { path: '/absolute-redirect/3' }],
  '/anything': [
    ...uploads('/anything'),
    { path: '/anything?b=2&a=1&a=%2F&empty=&plus=a+b', as: echo },
    { path: '/anything', headers: { Accept: 'application/json;q=0.9', 'Accept-Language': 'de, en;q=0.5', 'X-Custom': 'a, b' }, as: echo },
    { path: '/anything', headers: { 'X-Forwarded-Unknown': '1', Cookie: 'a=1; b=2', Authorization: 'Bearer token' }, as: echo }
  ],
  '/anything/<path:anything>': [{ path: '/anything/a/b%20c/%C3%A9//d;p=1?q=%25', as: echo }],
  '/base64/<value>': [{ path: '/base64/SFRUUEJJTiBpcyBhd2Vzb21l' }],
  '/basic-auth/<user>/<passwd>': [{ path: '/basic-auth/ada/secret' }, { path: '/basic-auth/ada/secret', headers: basic }],
  '/bearer': [{ path: '/bearer' }, { path: '/bearer', headers: { Authorization: 'Bearer abc' } }],
  '/brotli': [{ path: '/brotli', as: coded(zlib.brotliDecompressSync), headers: { 'Accept-Encoding': 'br' } }],
  '/bytes/<int:n>': [{ path: '/bytes/2048?seed=7' }, { path: '/bytes/1000', as: random }],
  '/cache': [
    { path: '/cache', as: madeNow },
    // httpbin answers 304 to any condition here, whatever it says; Larder judges it, and it does not hold.
    { path: '/cache', headers: { 'If-Modified-Since': 'Sat, 01 Jan 2000 00:00:00 GMT' }, isJudgedFalse: true, as: madeNow },
    { path: '/cache', headers: { 'If-None-Match': '"x"' }, isJudgedFalse: true, as: madeNow }
  ],
  '/cache/<int:value>': [{ path: '/cache/60', as: echo, hits: true }, { path: '/cache/0', as: echo }],
  '/cookies': [{ path: '/cookies' }, { path: '/cookies', headers: { Cookie: 'a=1; b="two"' } }],
  '/cookies/delete': [{ path: '/cookies/delete?a&b', as: expired }],
  '/cookies/set': [{ path: '/cookies/set?a=1&b=two' }],
  '/cookies/set/<name>/<value>': [{ path: '/cookies/set/a/1' }],
  '/deflate': [{ path: '/deflate', as: coded(zlib.inflateSync), headers: { 'Accept-Encoding': 'deflate' } }],
  '/delay/<delay>': [{ path: '/delay/0.1', as: echo }],
  '/delete': [...uploads('/delete')],
  '/deny': [{ path: '/deny' }],
  '/digest-auth/<qop>/<user>/<passwd>': digest('/digest-auth/auth/ada/secret', 'MD5'),
  '/digest-auth/<qop>/<user>/<passwd>/<algorithm>': digest('/digest-auth/auth/ada/secret/SHA-256', 'SHA-256'),
  '/digest-auth/<qop>/<user>/<passwd>/<algorithm>/<stale_after>': digest('/digest-auth/auth/ada/secret/MD5/never', 'MD5'),
  '/drip': [{ path: '/drip?duration=0.3&numbytes=30' }, { path: '/drip?duration=0.1&numbytes=5&code=503' }],
  '/encoding/utf8': [{ path: '/encoding/utf8' }],
  '/etag/<etag>': [
    { path: '/etag/abc', as: echo },
    { path: '/etag/abc', headers: { 'If-None-Match': '"abc"' } },
    { path: '/etag/abc', headers: { 'If-None-Match': '"x", "abc"' } },
    { path: '/etag/abc', headers: { 'If-None-Match': '"other"' }, isJudgedFalse: true, as: echo },
    { path: '/etag/abc', headers: { 'If-Match': '"abc"' }, as: echo },
    { path: '/etag/abc', headers: { 'If-Match': '"other"' } }
  ],
  '/forms/post': [{ path: '/forms/post' }],
  '/get': [{ path: '/get?show_env=1&x=1', as: echo }, { path: '/get', as: echo }],
  '/gzip': [{ path: '/gzip', as: coded(zlib.gunzipSync), headers: { 'Accept-Encoding': 'gzip' } }],
  '/headers': [{ path: '/headers', headers: { 'X-One': '1', 'X-Two': 'two words', Accept: '*/*' }, as: echo }],
  '/hidden-basic-auth/<user>/<passwd>': [
    { path: '/hidden-basic-auth/ada/secret' }, { path: '/hidden-basic-auth/ada/secret', headers: basic }
  ],
  '/html': [{ path: '/html' }],
  '/image': ['image/webp', 'image/svg+xml', 'image/jpeg', 'image/png', 'image/*', 'text/plain']
    .map(type => ({ path: '/image', headers: { Accept: type } })),
  '/image/jpeg': [{ path: '/image/jpeg' }],
  '/image/png': [{ path: '/image/png' }],
  '/image/svg': [{ path: '/image/svg' }],
  '/image/webp': [{ path: '/image/webp' }],
  '/ip': [{ path: '/ip' }],
  '/json': [{ path: '/json' }],
  '/links/<int:n>': [{ path: '/links/5' }],
  '/links/<int:n>/<int:offset>': [{ path: '/links/5/2' }],
  '/patch': uploads('/patch'),
  '/post': uploads('/post'),
  '/put': uploads('/put'),
  '/range/<int:numbytes>': [
    { path: '/range/5000' }, { path: '/range/26?duration=0.2&chunk_size=5' },
    ...['bytes=0-99', 'bytes=100-', 'bytes=-50', 'bytes=4999-4999', 'bytes=9000-9001']
      .map(range => ({ path: '/range/5000', headers: { Range: range } })),
    { path: '/range/0' }
  ],
  '/redirect-to': [
    { path: '/redirect-to?url=http://example.test/a%3Fb=c' }, { path: '/redirect-to?url=/get&status_code=307' },
    { path: '/redirect-to?url=/get&status_code=301' }
  ],
  '/redirect/<int:n>': [{ path: '/redirect/1' }, { path: '/redirect/2' }, { path: '/redirect/2?absolute=true' }],
  '/relative-redirect/<int:n>': [{ path: '/relative-redirect/1' }, { path: '/relative-redirect/3' }],
  '/response-headers': [
    { path: '/response-headers?X-Test=one&X-Test=two&Content-Language=de' },
    { path: '/response-headers?Cache-Control=public,max-age=60&ETag=%22v1%22&Last-Modified=Sat,%2001%20Jan%202000%2000:00:00%20GMT', hits: true },
    { path: '/response-headers?Cache-Control=max-age=60&Vary=Accept-Language', headers: { 'Accept-Language': 'de' }, hits: true },
    { path: '/response-headers?Cache-Control=max-age=60&Vary=Accept-Language', headers: { 'Accept-Language': 'en' }, hits: true },
    { path: '/response-headers?Cache-Control=no-store&Warning=199%20-%20%22x%22&Link=%3C/a%3E;%20rel=next' },
    { path: '/response-headers?Cache-Control=max-age=60&Set-Cookie=session=1' },
    { path: '/response-headers?Surrogate-Key=a%20b&Cache-Tag=c&Cache-Groups=%22g%22&Server-Timing=db;dur=3' }
  ],
  '/robots.txt': [{ path: '/robots.txt' }],
  '/static/<path:filename>': [
    { path: '/static/favicon.ico' },
    { path: '/static/favicon.ico', headers: { Range: 'bytes=0-15' } },
    { path: '/static/favicon.ico', headers: { 'If-None-Match': '"other"' } },
    { path: '/static/favicon.ico', headers: { 'If-Modified-Since': 'Sat, 01 Jan 2000 00:00:00 GMT' } },
    { path: '/static/favicon.ico', validate: true }, // with the ETag that the origin gives
    { path: '/static/no-such-file' }
  ],
  // Final statuses only: the 1xx ones httpbin would send as if they were final, which is no HTTP.
  '/status/<codes>': [200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308, 400, 401, 402,
    403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429,
    431, 451, 499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511, 599].map(code => ({ path: `/status/${code}` })),
  '/stream-bytes/<int:n>': [{ path: '/stream-bytes/5000?seed=3&chunk_size=700' }, { path: '/stream-bytes/100', as: random }],
  '/stream/<int:n>': [{ path: '/stream/7', as: echo }],
  '/user-agent': [{ path: '/user-agent' }],
  '/uuid': [{ path: '/uuid', as: uuid }],
  '/xml': [{ path: '/xml' }]
}

/** Without credentials, with the right ones (the nonce is the client's word), and with wrong ones. */
function digest (path, algorithm) {
  const hash = text => createHash(algorithm === 'MD5' ? 'md5' : 'sha256').update(text).digest('hex')
  const authorization = password => method => {
    const response = hash(`${hash(`ada:realm:${password}`)}:nonce:00000001:cnonce:auth:${hash(`${method}:${path}`)}`)
    return {
      Authorization: `Digest username="ada", realm="realm", nonce="nonce", uri="${path}", algorithm=${algorithm}, ` +
        `qop=auth, nc=00000001, cnonce="cnonce", response="${response}"`
    }
  }
  return [
    { path, as: challenge },
    { path, headersFor: authorization('secret'), as: challenge },
    { path, headersFor: authorization('wrong'), as: challenge }
  ]
}

// ── The run ──

const score = new Score()
const origin = await startHttpbin()
const proxy = await startProxy()
const rules = JSON.parse(execFileSync(resolve(given.python), ['-c', `
import json, logging
logging.disable(logging.CRITICAL)
import httpbin
print(json.dumps({rule.rule: sorted(rule.methods) for rule in httpbin.app.url_map.iter_rules()}))`]))

for (const rule of Object.keys(rules)) score.check(`${rule} has a case`, cases[rule]?.length ? [] : ['a new endpoint: describe a request to it'])
for (const rule of Object.keys(cases)) score.check(`${rule} exists`, rules[rule] ? [] : ['httpbin has no such endpoint any more'])
for (const [rule, methods] of Object.entries(rules)) {
  for (const each of cases[rule] ?? []) {
    for (const method of methods) await compare(method, each)
  }
}
score.close()
await proxy.stop()
await origin.stop()
process.exit()

async function startHttpbin () {
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const child = start([resolve(given.python), '-m', 'gunicorn', '-b', `127.0.0.1:${port}`, '-k', 'gthread', '--threads', '8',
    '--keep-alive', '30', '--no-control-socket', 'httpbin:app'], { env: { PYTHONHASHSEED: '0' } })
  await answering(`${url}/get`, child, { status: 200 })
  return { ...child, url }
}

async function startProxy () {
  if (!given.proxy) return startLarder(resolve(given.larder), origin.url)
  const port = await freePort()
  const child = start(['bash', '-c', given.proxy.replaceAll('{port}', port).replaceAll('{origin}', new URL(origin.url).host)])
  await answering(`http://127.0.0.1:${port}/get`, child, { status: 200 })
  return { ...child, url: `http://127.0.0.1:${port}` }
}

/** Directly, and twice through the proxy: the second answer may come from the cache and must be equal too. */
async function compare (method, each) {
  const upload = each.send && !['GET', 'HEAD', 'OPTIONS', 'TRACE'].includes(method) ? each.send : undefined
  const headers = { ...each.headers, ...upload?.headers, ...each.headersFor?.(method) }
  const request = { method, path: each.path, headers, body: upload?.body, chunked: upload?.chunked }
  const name = `${method} ${each.path} ${JSON.stringify({ ...each.headers, ...upload?.headers })}`
  try {
    if (each.validate) headers['If-None-Match'] = values(await send(origin.url, { path: each.path }), 'etag')[0]
    // A condition that Larder judges itself, and that does not hold, never reaches the origin.
    const direct = await send(origin.url, each.isJudgedFalse && ['GET', 'HEAD'].includes(method) ? { ...request, headers: {} } : request)
    for (const turn of ['first', 'second']) {
      const proxied = await send(proxy.url, request)
      const problems = differences(request, direct, proxied, each.as)
      const token = values(proxied, 'x-api-cache')[0]
      if (turn === 'second' && each.hits && method === 'GET' && token !== 'HIT') problems.push(`X-API-Cache: ${token}, not HIT`)
      score.check(`${name} (${turn})`, problems)
    }
  } catch (error) {
    score.check(name, [`${error.message}; Host ${HOST}${proxy.isRunning() ? '' : `; the proxy ended by itself\n${proxy.tail()}`}`])
  }
}

// One request sent to the origin and through the proxy, and what may differ between the two answers.

import http from 'node:http'
import { createHash } from 'node:crypto'

// Both sides see the same Host, so that absolute URLs in answers agree.
export const HOST = 'api.example.test'
const agent = new http.Agent({ keepAlive: true, maxSockets: 8 })
process.on('exit', () => agent.destroy())

/** Sends one request exactly as described; answers status, fields as [name, value] pairs in order, and the raw body. */
export function send (base, { method = 'GET', path, headers = {}, body, chunked = false }) {
  const url = new URL(base)
  const fields = { Host: HOST, 'User-Agent': 'larder-tests', ...headers }
  if (body !== undefined && !chunked) fields['Content-Length'] = Buffer.byteLength(body)
  if (body !== undefined && chunked) fields['Transfer-Encoding'] = 'chunked'
  return new Promise((resolve, reject) => {
    const request = http.request({ host: url.hostname, port: url.port, method, path, headers: fields, agent, timeout: 20000 })
    request.on('error', reject)
    request.on('timeout', () => request.destroy(new Error('no answer within 20 s')))
    request.on('response', response => {
      const chunks = []
      response.on('data', chunk => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () => resolve({
        status: response.statusCode,
        reason: response.statusMessage,
        fields: pairs(response.rawHeaders),
        trailers: pairs(response.rawTrailers),
        body: Buffer.concat(chunks)
      }))
    })
    request.end(body)
  })
}

function pairs (raw) {
  const list = []
  for (let i = 0; i < raw.length; i += 2) list.push([raw[i].toLowerCase(), raw[i + 1]])
  return list
}

/** All values of a field, in order. */
export function values (answer, name) {
  return answer.fields.filter(([field]) => field === name).map(([, value]) => value)
}

// Fields in which a proxied answer may differ from the direct one, and nothing else may.
const CONTRACT = new Set([
  'x-api-cache', 'cache-status', 'age', 'via', // said by the proxy about what it did
  'date', // each answer is made at its own time
  'x-request-id' // made by the proxy where the client sends none
])
// What the proxy lets scripts of other origins read of what it says itself, beside what the origin lets them read.
const EXPOSED = 'X-API-Cache, Cache-Status, Age'
const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'te', 'trailer', 'upgrade'])
const TAGS = new Set(['surrogate-key', 'xkey', 'cache-tag']) // read and stripped
// RFC 9110 section 15.4.5: what a 304 must carry if the 200 would; the rest of it is the sender's choice. `Vary` is not
// compared: Express sends less of it with a 304 than with the content, Larder what belongs to the content.
const NOT_MODIFIED = new Set(['cache-control', 'content-location', 'etag', 'expires'])

/**
 * The differences between the direct and the proxied answer, as lines of text; none means equal.
 * `normalise` maps an answer to one in which what must differ (argued where it is defined) is made alike.
 */
export function differences (request, direct, proxied, normalise) {
  const found = contract(request, proxied)
  if (direct.status !== proxied.status) found.push(`status: ${direct.status} direct, ${proxied.status} proxied`)
  found.push(...framing(request, direct, proxied, normalise))
  const [left, right] = normalise ? [normalise(direct), normalise(proxied)] : [direct, proxied]
  found.push(...fields(left, right))
  if (!left.body.equals(right.body)) found.push(`body: ${describe(left.body)} direct, ${describe(right.body)} proxied`)
  return found
}

function contract (request, proxied) {
  const found = []
  const token = values(proxied, 'x-api-cache')
  if (token.length !== 1 || !/^(HIT|MISS|EXPIRED|REVALIDATED|STALE|BYPASS)$/.test(token[0])) found.push(`X-API-Cache: ${JSON.stringify(token)}`)
  if (values(proxied, 'cache-status').length === 0) found.push('Cache-Status is missing')
  if (values(proxied, 'date').length !== 1) found.push(`Date stands ${values(proxied, 'date').length} times`)
  if (token[0] === 'HIT' && values(proxied, 'age').length !== 1) found.push('a HIT without Age')
  const exposes = values(proxied, 'access-control-expose-headers').includes(EXPOSED)
  if (exposes !== values(proxied, 'access-control-allow-origin').length > 0) found.push(`scripts ${exposes ? 'may' : 'may not'} read what the proxy says`)
  for (const name of TAGS) if (values(proxied, name).length) found.push(`${name} was not stripped`)
  return found
}

/** A length that the origin tells is told through the proxy too; a proxied length is that of the body. */
function framing ({ method = 'GET' }, direct, proxied, isNormalised) {
  const hasNoContent = method === 'HEAD' || [204, 304].includes(proxied.status)
  const [there, here] = [values(direct, 'content-length'), values(proxied, 'content-length')]
  if (hasNoContent) {
    if (proxied.body.length) return ['a body where none may be']
    return method === 'HEAD' && !isNormalised && there[0] !== here[0] && here.length
      ? [`content-length of HEAD: ${there} direct, ${here} proxied`]
      : []
  }
  if (here.length > 1) return ['several Content-Length fields']
  if (here.length === 1 && Number(here[0]) !== proxied.body.length) return ['Content-Length is not the length of the body']
  if (there.length === 1 && here.length === 0) return ['Content-Length was lost']
  return []
}

function fields (direct, proxied) {
  const found = []
  const isNotModified = direct.status === 304 && proxied.status === 304
  const isFromStore = values(proxied, 'x-api-cache')[0] === 'HIT'
  const names = new Set([...direct.fields, ...proxied.fields].map(([name]) => name))
  for (const name of names) {
    if (CONTRACT.has(name) || HOP_BY_HOP.has(name) || TAGS.has(name) || name === 'content-length') continue
    const [there, here] = [values(direct, name), values(proxied, name).filter(value => value !== EXPOSED)]
    if (name === 'vary' && isNotModified) continue
    if (name === 'set-cookie' && isFromStore) continue // never stored
    if (name === 'etag' && there.length === 0 && here.length === 1) continue // made where the origin sends none
    if (isNotModified && !NOT_MODIFIED.has(name) && (there.length === 0 || here.length === 0)) continue
    if (JSON.stringify(there) !== JSON.stringify(here)) found.push(`${name}: ${JSON.stringify(there)} direct, ${JSON.stringify(here)} proxied`)
  }
  if (JSON.stringify(direct.trailers) !== JSON.stringify(proxied.trailers)) found.push('the trailers differ')
  return found
}

function describe (body) {
  const isText = body.length <= 600 && !/[^\x09\x0a\x0d\x20-\x7e]/.test(body.toString('latin1'))
  return isText ? JSON.stringify(body.toString()) : `${body.length} bytes (${createHash('sha256').update(body).digest('hex').slice(0, 12)})`
}

/** Counts cases, prints each failure in full and the closing line, sets the exit code. */
export class Score {
  passed = 0
  failed = 0

  check (name, problems) {
    if (problems.length === 0) { this.passed += 1; return }
    this.failed += 1
    console.log(`FAILED ${name}\n    ${problems.join('\n    ')}`)
  }

  close () {
    console.log(`${this.passed} passed, ${this.failed} failed`)
    process.exitCode = this.failed === 0 && this.passed > 0 ? 0 : 1
  }
}

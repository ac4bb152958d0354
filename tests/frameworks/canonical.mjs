// What the origin sees of a request by the contract, and whether an answer is the one that a framework gives to it.

import { values } from './wire.mjs'

/** Query parameters outside the key, by path, as the configuration in `run.mjs` has them. */
const OUTSIDE = {
  '/search': name => /^utm_/.test(name) || name === 'fbclid',
  '/only': name => name !== 'page'
}

function decoded (name) {
  try { return decodeURIComponent(name) } catch { return name }
}

/** Fields about the way of a request: those of strangers do not reach the origin. */
const FORWARDING = /^(forwarded|x-forwarded(-.*)?|x-real-ip|x-host|x-original-host|front-end-https|x-url-scheme)$/

/** Fields that replace the method or the target: they reach the origin as they are, but not spelled with `_`. */
const OVERRIDE = /^(x-http-method(-override)?|x-method-override|x-original-url|x-rewrite-url)$/

/**
 * The forms in which the origin may see this request: parameters outside the key are left out where the answer may be stored. With `isTrusted` the
 * client is a proxy whose word counts.
 */
export function canonical (request, isTrusted) {
  const { host, target } = origin(request)
  const fields = request.isHttp2 ? joined(request.fields ?? []) : request.fields ?? []
  const given = fields.filter(([name]) => isTrusted || !isDropped(name))
  const own = [['X-Forwarded-For', '127.0.0.1'], ['X-Forwarded-Proto', 'http'], ['X-Forwarded-Host', host]]
  const sees = [...given, ...own.filter(([name]) => !given.some(([other]) => other === name))]
  const targets = [...new Set([target, kept(target), kept(target, decoded)])]
  // A stored response to GET answers HEAD too (RFC 9110 section 9.3.2), also where a framework has no HEAD.
  const isHead = request.method === 'HEAD'
  const methods = isHead ? ['HEAD', 'GET'] : [request.method]
  return targets.flatMap(target => methods.map(method => ({ method, isHead, host, target, fields: sees })))
}

/** The cookies of an HTTP/2 request are one field (RFC 9113 section 8.2.3). */
function joined (fields) {
  const isCookie = ([name]) => name === 'Cookie'
  const cookies = fields.filter(isCookie).map(([, value]) => value)
  return [...fields.filter(field => !isCookie(field)), ...(cookies.length ? [['Cookie', cookies.join('; ')]] : [])]
}

/** The target in origin form, and the host in lower case without what says nothing: default port, empty port, trailing dot. */
function origin ({ target, host }) {
  const [, authority = host, path = target] = /^https?:\/\/([^/?]*)(.*)$/is.exec(target) ?? []
  const canonicalHost = authority.toLowerCase().replace(/:(0*80)?$/, '').replace(/\.(?=:|$)/, '')
  return { host: canonicalHost, target: path.startsWith('/') ? path : `/${path}` }
}

function isDropped (name) {
  const dashed = name.toLowerCase().replaceAll('_', '-')
  return FORWARDING.test(dashed) || (OVERRIDE.test(dashed) && name.includes('_'))
}

/** The target without parameters outside the key, by their names as `read`. A pair with `;` or NUL may be read in two ways and stays. */
function kept (target, read = name => name) {
  const [path, ...rest] = target.split('?')
  const isOutside = OUTSIDE[path]
  if (!isOutside || rest.length === 0) return target
  const isKept = pair => /;|%3b|%00/i.test(pair) || !isOutside(read(pair.split('=')[0]))
  const query = rest.join('?').split('&').filter(isKept).join('&')
  return query ? `${path}?${query}` : path
}

/** Whether a request takes content in this coding (RFC 9110 section 12.5.3), as far as it says so plainly. */
function takes ({ fields = [] }, coding) {
  const wanted = fields.filter(([name]) => name === 'Accept-Encoding').flatMap(([, value]) => value.toLowerCase().split(','))
  const weights = wanted.map(member => member.split(';')).filter(([name]) => [coding, `x-${coding}`, '*'].includes(name.trim()))
  return weights.some(([, weight = 'q=1']) => !/^\s*q\s*=\s*0(\.0*)?\s*$/.test(weight))
}

/** In what an answer through Larder differs from the framework's own, as lines; none means that it is one that the framework gives. */
export function differences (request, direct, proxied) {
  const found = []
  const compare = (what, there, here) => {
    if (JSON.stringify(there) !== JSON.stringify(here)) found.push(`${what}: ${JSON.stringify(there)} directly, ${JSON.stringify(here)} through Larder`)
  }
  compare('status', direct.status, proxied.status)
  for (const name of ['content-type', 'location', 'cache-control', 'content-language']) compare(name, values(direct, name), values(proxied, name))
  compare('body', direct.body, proxied.body)
  for (const coding of values(proxied, 'content-encoding')) {
    // Some frameworks send what the client does not take. A stored variant in another coding is right if the client takes it.
    if (!takes(request, coding) && !values(direct, 'content-encoding').includes(coding)) found.push(`it is in ${coding}, which the client does not take`)
  }
  const word = values(proxied, 'x-api-cache').join()
  if (!/^(HIT|MISS|EXPIRED|REVALIDATED|STALE|BYPASS)$/.test(word)) found.push(`X-API-Cache: ${word}`)
  const cookies = values(proxied, 'set-cookie').map(nameOf)
  if (word === 'HIT' && cookies.length) found.push(`a stored answer sets ${cookies}`)
  const own = new Set(values(direct, 'set-cookie').map(nameOf))
  for (const name of cookies) if (!own.has(name)) found.push(`it sets the cookie ${name}, the framework does not`)
  return found
}

function nameOf (cookie) {
  return cookie.split('=')[0]
}

/** Whether Larder itself says no. */
export function isRefusal (answer) {
  const isProblem = values(answer, 'content-type').join() === 'application/problem+json' && values(answer, 'x-api-cache').length === 0
  return isProblem && [400, 421, 431, 501].includes(answer.status)
}

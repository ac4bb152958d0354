// Requests as clients and the proxies in front of a server send them, for `callgrind.mjs`: a path and fields. If they are `isTrusted`, the peer is one
// of `trusted_proxies`; if they are `isRedis`, the response is in Redis alone. They are hits, unless `does` says `not-modified`, `pass` or `store`;
// `{number}` in a path or a field differs in each request, and the value of a field may be a function of that number. One with `content` is a `POST`. One
// with `responses` asks for as many in turn. Of those with many fields Larder examines every 64th anew, so that they are counted in batches of that size.
// None has a cookie that any version of Larder takes for a session's.

import { createHmac } from 'node:crypto'

/** The secret of the tokens. */
export const SECRET = 'a secret of the bench, and of no one else'
/** The entity tag of the origin's responses. */
export const ETAG = '"6905a2c0-400"'

const base64 = value => Buffer.from(value).toString('base64url')

/** A signed token of a user. */
export function tokenOf (user) {
  const claims = {
    sub: user,
    scope: 'openid profile read write',
    exp: Math.floor(Date.now() / 1000) + 86400,
    jti: '0f1c5a0e-6b7e-4a2c',
    name: 'Zoe Example',
    email: 'zoe@example.com'
  }
  const signed = `${base64('{"alg":"HS256","typ":"JWT"}')}.${base64(JSON.stringify(claims))}`
  return `${signed}.${createHmac('sha256', SECRET).update(signed).digest('base64url')}`
}

// As many as the requests of a batch, so that each batch has the same ones.
const tokens = Array.from({ length: 16 }, (_, user) => tokenOf(`user-${10 + user}`))

const curl = { 'User-Agent': 'curl/8.14.1', Accept: '*/*' }

const chromium = {
  'User-Agent': 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36',
  Accept: 'application/json, text/plain, */*',
  'sec-ch-ua': '"Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"',
  'sec-ch-ua-mobile': '?0',
  'sec-ch-ua-platform': '"Linux"',
  'Sec-Fetch-Site': 'same-origin',
  'Sec-Fetch-Mode': 'cors',
  'Sec-Fetch-Dest': 'empty',
  Referer: 'https://shop.example.com/stocks?range=1d',
  Origin: 'https://shop.example.com',
  'Accept-Encoding': 'gzip, deflate, br, zstd',
  'Accept-Language': 'en-GB,en;q=0.9,de;q=0.8',
  DNT: '1',
  'Sec-GPC': '1',
  Priority: 'u=1, i',
  Connection: 'keep-alive',
  Cookie: [
    '_ga=GA1.1.1093817405.1763022211', '_ga_4S2K1Q7LXN=GS2.1.s1763990000$o7$g1$t1763990412$j28$l0$h0', '_gid=GA1.2.559201733.1763889021',
    '_gcl_au=1.1.771263519.1763022211', '_fbp=fb.1.1763022211930.617203948571', '_uetvid=5c3e8f60b7a211efb1d36d0f8e1f7c55',
    '_clck=1x9j2lq%5E2%5Eg1a%5E0%5E2140', '_rdt_uuid=1763022212310.4f6c', 'ajs_anonymous_id=0f1c5a0e-6b7e-4a2c-9d38-3f8d2a7f9b11',
    'OptanonConsent=isGpcEnabled=0&datestamp=Tue+Nov+25+2025&version=202501.1.0&groups=C0001%3A1%2CC0002%3A1',
    'OptanonAlertBoxClosed=2025-11-13T08:24:01.733Z', 'cookieconsent_status=allow'
  ].join('; ')
}

// Axios and Angular, and a tracer in the page: 25 fields with `Host`.
const browser = {
  ...chromium,
  'X-Requested-With': 'XMLHttpRequest',
  'X-XSRF-TOKEN': '6e1f4f0c2b7a4b0d',
  'X-App-Version': '4.18.2',
  'X-Request-ID': '0a4f1c2e9b7d4e61a3c58f20d7b6e914',
  traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
  'sentry-trace': '771a43a4192642f0b136d5159a501700-a1b2c3d4e5f60718-0',
  baggage: 'sentry-environment=production,sentry-release=4.18.2'
}

// The same page through Cloudflare, an ALB and nginx.
const proxied = {
  ...chromium,
  'CF-Ray': '9a41e2c0ff2b3a5d-FRA',
  'CF-Visitor': '{"scheme":"https"}',
  'CF-Connecting-IP': '203.0.113.7',
  'CF-IPCountry': 'DE',
  'CDN-Loop': 'cloudflare; loops=1',
  'X-Forwarded-For': '203.0.113.7, 172.68.1.9',
  'X-Forwarded-Proto': 'https',
  'X-Forwarded-Port': '443',
  'X-Forwarded-Host': 'shop.example.com',
  'X-Amzn-Trace-Id': 'Root=1-6925a1b0-3f2a6c1d0e9b8a7755443322',
  'X-Real-IP': '203.0.113.7'
}

// As clients write queries: 1 KiB with its variables.
const fieldsOfQuery = Array.from({ length: 25 }, (_, number) => `      field${number}: metric(name: "m${number}") { value }`).join('\n')
const query = `query sales($branch: ID!, $days: Int = 30) {\n  branch(id: $branch) {\n    __typename\n    id\n${fieldsOfQuery}\n  }\n}\n`
const graphql = JSON.stringify({ operationName: 'sales', variables: { branch: '1' }, query }).padEnd(1024)

const accepting = { ...curl, 'Accept-Encoding': chromium['Accept-Encoding'] }

export const requests = {
  plain: { path: '/hit/1k', fields: curl },
  traced: { path: '/hit/1k', fields: { ...curl, 'X-Request-ID': '0a4f1c2e9b7d4e61a3c58f20d7{number}' } },
  accepting: { path: '/hit/1k', fields: accepting },
  coded: { path: '/coded/1k', fields: accepting, isCoded: true },
  browser: { path: '/hit/1k', fields: browser, batch: 64 },
  user: { path: '/items/mine/list', fields: { ...curl, Authorization: `Bearer ${tokenOf('user-1')}` } },
  users: { path: '/items/mine/list', fields: { ...curl, Authorization: number => `Bearer ${tokens[number % tokens.length]}`, 'X-Request-ID': '{number}' }, responses: tokens.length },
  cookieless: { path: '/hit/1k', fields: { ...browser, Cookie: undefined }, batch: 64 },
  capitals: { path: '/items/stocks/AAPL?range=1d&interval=5m', fields: browser, batch: 64 },
  trusted: { path: '/hit/1k', fields: proxied, batch: 64, isTrusted: true },
  untrusted: { path: '/hit/1k', fields: proxied, batch: 64 },
  graphql: { path: '/graphql', fields: { ...curl, 'Content-Type': 'application/json' }, content: graphql, isGraphql: true },
  redis: { path: '/items/redis', fields: curl, isRedis: true },
  'not-modified': { path: '/hit/1k', fields: { ...curl, 'If-None-Match': ETAG }, does: 'not-modified' },
  passed: { path: '/pass/1k', fields: curl, does: 'pass' },
  'passed-browser': { path: '/pass/1k', fields: browser, batch: 64, does: 'pass' },
  stored: { path: '/catalogue/{number}', fields: curl, does: 'store' }
}

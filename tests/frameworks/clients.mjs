// What usual clients and proxies send with each request must not keep an API's response out of the cache: the second one is a hit.

import { createRequire } from 'node:module'
import { join } from 'node:path'
import { startFramework, startProxy } from './frameworks.mjs'
import { send, values } from './wire.mjs'

const HOST = 'api.example.test'

/** Cookies of analytics, advertising and consent, as a shop's visitor collects them. */
const ANALYTICS = number => [
  `_ga=GA1.1.${number}.1700000000`, `_ga_ABCDEF1234=GS1.1.${number}.1.1.1700000000.60.0.0`, `_gid=GA1.2.${number}.1700000000`, `_gcl_au=1.1.${number}.1700000000`,
  `_fbp=fb.1.1700000000.${number}`, `_hjSessionUser_123=${number}`, `_clck=${number}`, `_uetsid=${number}`, `ajs_anonymous_id=${number}`,
  `OptanonConsent=isGpcEnabled=0&version=6.${number}`, `CookieConsent=true`, `__hstc=${number}.1.1`
].join('; ')

const CHROMIUM = number => [
  ['sec-ch-ua', '"Chromium";v="156", "Not-A.Brand";v="24"'], ['sec-ch-ua-mobile', '?0'], ['sec-ch-ua-platform', '"Linux"'],
  ['User-Agent', `Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/156.0.0.0 Safari/537.${number}`], ['Accept', '*/*'], ['DNT', '1'],
  ['Origin', 'https://shop.example.test'], ['Sec-Fetch-Site', 'same-site'], ['Sec-Fetch-Mode', 'cors'], ['Sec-Fetch-Dest', 'empty'], ['Sec-Fetch-User', '?1'],
  ['Referer', `https://shop.example.test/?${number}`], ['Accept-Encoding', 'gzip, deflate, br, zstd'], ['Accept-Language', 'de-DE,de;q=0.9,en;q=0.8'],
  ['Priority', 'u=1, i'], ['Cookie', ANALYTICS(number)]
]
const ANGULAR = number => [
  ...CHROMIUM(number).filter(([name]) => name !== 'Accept'), ['Accept', 'application/json, text/plain, */*'], ['X-XSRF-TOKEN', `csrf-${number}`]
]
const CLOUDFLARE = number => [
  ...CHROMIUM(number), ['CF-Ray', `${number}-FRA`], ['CF-Visitor', '{"scheme":"https"}'], ['CF-Connecting-IP', `192.0.2.${number}`], ['CF-IPCountry', 'DE'], ['CDN-Loop', 'cloudflare; loops=1'],
  ['X-Forwarded-For', `192.0.2.${number}`], ['X-Forwarded-Proto', 'https']
]
const BALANCER = number => [
  ...CHROMIUM(number), ['X-Forwarded-For', `192.0.2.${number}`], ['X-Forwarded-Proto', 'https'], ['X-Forwarded-Port', '443'], ['X-Amzn-Trace-Id', `Root=1-${number}-1`]
]
const NGINX = number => [
  ...ANGULAR(number), ['X-Real-IP', `192.0.2.${number}`], ['X-Forwarded-For', `192.0.2.${number}`], ['X-Forwarded-Proto', 'https'], ['X-Forwarded-Host', HOST], ['X-Request-ID', `r${number}`]
]

/** Clients that come directly, and those behind a proxy that Larder trusts. */
const DIRECT = { Chromium: CHROMIUM, Angular: ANGULAR }
const PROXIED = { Cloudflare: CLOUDFLARE, 'a load balancer of AWS': BALANCER, nginx: NGINX }

const ROUTE = `
[[route]]
name = "stocks"
match = "/api/**"
ttl = "60s"
`

export async function clients (where, tally) {
  const framework = await startFramework('FastAPI', where)
  for (const [kinds, trusted] of [[DIRECT, ''], [PROXIED, ''], [PROXIED, 'trusted_proxies = ["127.0.0.0/8"]\n']]) {
    const larder = await startProxy(where.larder, framework, { top: trusted, extra: ROUTE })
    for (const [name, fields] of Object.entries(kinds)) await twice(`${name}${trusted && ', trusted'}`, larder, fields, tally)
    if (kinds === DIRECT) await axios(where.packages, larder, tally)
    await larder.stop()
  }
  await framework.stop()
}

/** Two visitors: the second is answered from the cache with what the framework gave to the first. */
async function twice (name, larder, fields, tally) {
  const target = `/api/${encodeURIComponent(name)}`
  const answers = []
  for (const number of [1, 2]) answers.push(await send(larder.port, { target, host: HOST, fields: fields(number) }))
  const [first, second] = answers
  const word = values(second, 'x-api-cache')[0]
  tally.check(`${name}: the second request is a hit`, word === 'HIT' && second.body === first.body ? [] : [`${word} (${values(second, 'cache-status')})`, `${first.status} ${first.body}`])
}

async function axios (packages, larder, tally) {
  const client = createRequire(join(packages, 'package.json'))('axios')
  const headers = { Cookie: ANALYTICS(1), 'X-XSRF-TOKEN': 'csrf' }
  const answers = []
  for (let number = 0; number < 2; number += 1) answers.push(await client.get(`${larder.url}/api/axios`, { headers }))
  const word = answers[1].headers['x-api-cache']
  tally.check('axios: the second request is a hit', word === 'HIT' ? [] : [`${word} (${answers[1].headers['cache-status']})`])
}

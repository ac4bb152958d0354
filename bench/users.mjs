// Hits of users' own partitions against hits that all share, by server CPU: one Larder, interleaved runs, as many stored responses in each.
// Users prove themselves by tokens: RS256 with the issuer's keys (JWKS), and HS256 with a secret.
//
//   node bench/users.mjs --larder PATH [--users N] [--rounds N] [--seconds S] [--connections N] [--limit RATIO]
//
// Fails if the median ratio of any kind is under the limit.

import { createHmac, generateKeyPairSync, sign } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import { options, startLarder } from '../tests/process.mjs'
import { load, median, verify } from './hits.mjs'
import { startOrigin } from './servers.mjs'

const given = options({ larder: 'target/release/larder', users: '200', rounds: '7', seconds: '2', connections: '64', limit: '0.85' })
const USERS = Number(given.users)
const SECRET = 'a secret of the bench, and of no one else'
const ISSUER = 'https://issuer.test'

const folder = mkdtempSync('/dev/shm/larder-users-')
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
const base64 = value => Buffer.from(value).toString('base64url')
const claims = user => ({ iss: ISSUER, aud: 'api', sub: `user-${user}`, scope: 'openid profile read write', exp: Math.floor(Date.now() / 1000) + 86400, jti: `${user}-0f1c5a0e-6b7e-4a2c` })
const kinds = {
  'RS256, JWKS': {
    token: user => signed({ alg: 'RS256', typ: 'JWT', kid: 'bench' }, claims(user), text => sign('sha256', text, privateKey)),
    jwt: url => `jwks = "${url}", aud = "api", iss = "${ISSUER}"`
  },
  'HS256, secret': {
    token: user => signed({ alg: 'HS256', typ: 'JWT' }, claims(user), text => createHmac('sha256', SECRET).update(text).digest()),
    jwt: () => `secret = "${SECRET}"`
  }
}

const issuer = http.createServer((request, response) => {
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'bench', use: 'sig', alg: 'RS256' }] }))
})
await new Promise(resolve => issuer.listen(0, '127.0.0.1', resolve))
const jwks = `http://127.0.0.1:${issuer.address().port}/jwks.json`
const origin = await startOrigin(folder)
let isMet = true
console.log('| tokens | bytes of a token | shared, requests/CPU second | users\', requests/CPU second | ratio |\n|---|---:|---:|---:|---:|')
for (const [name, kind] of Object.entries(kinds)) isMet &&= await compare(name, kind)
await origin.stop()
issuer.close()
process.exit(isMet ? 0 : 1)

async function compare (name, { token, jwt }) {
  const extra = `[user]\njwt = { ${jwt(jwks)} }\n` +
    ['mine', 'shared'].map(each => `[[route]]\nname = "${each}"\nmatch = "/items/${each}/**"\nttl = "1h"\n${each === 'mine' ? 'partition = "user"\n' : ''}`).join('')
  const prefix = ['taskset', '-c', '0']
  const larder = await startLarder(given.larder, `http://${origin.host}`, { prefix, extra })
  const tokens = Array.from({ length: USERS }, (_, user) => token(user))
  const asks = {
    shared: tokens.map((_, user) => ({ path: `/items/shared/${user}` })),
    users: tokens.map(each => ({ path: '/items/mine/list', headers: { Authorization: `Bearer ${each}` } }))
  }
  for (const requests of Object.values(asks)) await verify(larder, requests)
  const ratios = []
  const rates = { shared: [], users: [] }
  for (let round = 0; round < Number(given.rounds); round++) {
    const order = round % 2 ? ['users', 'shared'] : ['shared', 'users']
    const rate = {}
    for (const each of order) rate[each] = await load(larder, asks[each], { ...given, folder })
    for (const each of order) rates[each].push(rate[each])
    ratios.push(rate.users / rate.shared)
  }
  await larder.stop()
  const ratio = median(ratios)
  console.log(`| ${name} | ${tokens[0].length} | ${Math.round(median(rates.shared))} | ${Math.round(median(rates.users))} | ${ratio.toFixed(3)} |`)
  return ratio >= Number(given.limit)
}

function signed (header, payload, sign) {
  const text = `${base64(JSON.stringify(header))}.${base64(JSON.stringify(payload))}`
  return `${text}.${base64(sign(text))}`
}

// Real frameworks behind Larder: whatever one client sends, no other gets an answer that the framework would not have given to it. Each answer through
// Larder is compared with the framework's own to the same request in the form that the contract lets the origin see. Then browsers with sessions over
// HTTP/2, and the requests of usual clients and proxies, which have to be hits.
//
//   node run.mjs --packages FOLDER --python VENV/bin/python [--larder PATH] [--chromium COMMAND] [--only FRAMEWORK] [--show N]

import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { options } from '../process.mjs'
import { behindLogin } from './behind_login.mjs'
import { browsers } from './browsers.mjs'
import { canonical, differences, isRefusal } from './canonical.mjs'
import { conversations, describe, HOST } from './cases.mjs'
import { clients } from './clients.mjs'
import { warmUps } from './warm.mjs'
import { NAMES, startFramework, startProxy } from './frameworks.mjs'
import { send, sendOverHttp2, values } from './wire.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const tools = join(here, '../../target/test-tools')
const given = options({
  larder: join(process.env.CARGO_TARGET_DIR ?? join(here, '../../target'), 'optimized/larder'),
  packages: join(tools, 'frameworks'),
  python: join(tools, 'frameworks-python/bin/python'),
  chromium: 'chromium',
  only: '',
  show: '20'
})
const TOKEN = 'secret'
const SHOWN = Number(given.show)

/** A route with a rule for everything that frameworks read; the account is never cached. */
const ROUTES = `
[[route]]
name = "account"
match = "/account/**"
cache = false
[[route]]
name = "search"
match = "/search"
ttl = "60s"
query = { ignore = ["utm_*", "fbclid"] }
[[route]]
name = "only"
match = "/only"
ttl = "60s"
query = { only = ["page"] }
[[route]]
name = "theme"
match = "/theme"
ttl = "60s"
vary = { cookies = ["theme"] }
[[route]]
name = "cached"
match = "/cached/**"
[[route]]
name = "static"
match = "/static/**"
ttl = "60s"
[[route]]
name = "rest"
match = "/**"
ttl = "60s"
`

/** Counts the answers of one framework, and shows the first ones that are wrong. */
class Tally {
  passed = 0
  failed = 0

  constructor (name) {
    this.name = name
  }

  check (what, problems) {
    if (problems.length === 0) { this.passed += 1; return }
    this.failed += 1
    if (this.failed <= SHOWN) console.log(`FAILED ${this.name}: ${what}\n    ${problems.join('\n    ')}`)
    if (this.failed === SHOWN + 1) console.log(`… ${this.name}: further failures are counted only (--show N)`)
  }

  close () {
    console.log(`-- ${this.name}: ${this.passed} passed, ${this.failed} failed`)
  }
}

const where = { larder: resolve(given.larder), python: resolve(given.python), packages: resolve(given.packages), chromium: given.chromium }
const names = given.only ? NAMES.filter(name => name === given.only) : NAMES
const suites = [...names.map(name => () => converse(name))]
if (!given.only || given.only === 'browsers') suites.push(() => checked('browsers', tally => browsers(where, tally)))
if (!given.only || given.only === 'clients') suites.push(() => checked('clients', tally => clients(where, tally)))
if (!given.only || given.only === 'behind-login') suites.push(() => checked('behind-login', tally => behindLogin(where, tally)))
if (!given.only || given.only === 'warm') suites.push(() => checked('warm', tally => warmUps(where, tally)))
const tallies = await inTurns(suites, 2)
const sum = key => tallies.reduce((sum, tally) => sum + tally[key], 0)
console.log(`${sum('passed')} passed, ${sum('failed')} failed`)
process.exit(sum('failed') === 0 && sum('passed') > 0 ? 0 : 1)

/** What all of these come to, so many at a time. */
async function inTurns (jobs, atOnce) {
  const results = []
  const turn = async () => { while (jobs.length) results.push(await jobs.shift()()) }
  await Promise.all(Array.from({ length: atOnce }, turn))
  return results
}

async function checked (name, run) {
  const tally = new Tally(name)
  try {
    await run(tally)
  } catch (error) {
    tally.check('the run', [error.stack])
  }
  tally.close()
  return tally
}

function converse (name) {
  return checked(name, async tally => {
    const framework = await startFramework(name, where)
    const larder = await startProxy(where.larder, framework, { extra: ROUTES, token: TOKEN })
    const trusting = await startProxy(where.larder, framework, { top: 'trusted_proxies = ["127.0.0.0/8"]', extra: ROUTES, token: TOKEN })
    const sessions = await login(framework)
    const ask = asking(framework)
    for (const { name, requests, isTrusted } of conversations()) {
      const proxy = isTrusted ? trusting : larder
      await forget(proxy)
      for (const [step, request] of requests.entries()) {
        const sent = signed(request, sessions)
        const answer = await (sent.isHttp2 ? sendOverHttp2 : send)(proxy.port, sent)
        const problems = await judge(sent, answer, canonical(sent, isTrusted), ask)
        tally.check(`${name} (${step + 1}): ${describe(sent)}`, problems)
      }
    }
    await larder.stop()
    await trusting.stop()
    await framework.stop()
  })
}

/** Empties the cache. */
async function forget ({ admin }) {
  const answer = await fetch(`${admin}/v1/purge`, {
    method: 'POST', headers: { authorization: `Bearer ${TOKEN}` }, body: '{"everything":true}'
  })
  if (answer.status !== 200) throw new Error(`the purge is answered ${answer.status}`)
}

/** The session cookies of some users, from the framework itself. */
async function login (framework) {
  const sessions = {}
  for (const user of ['alice', 'bob', 'carol']) {
    const answer = await send(framework.port, { target: `/login?user=${user}`, host: HOST })
    sessions[user] = values(answer, 'set-cookie').map(cookie => cookie.split(';')[0]).join('; ')
    if (!sessions[user]) throw new Error(`${framework.name} gives ${user} no session: ${answer.status} ${answer.body}`)
  }
  return sessions
}

/** The request with the session cookies of its users. */
function signed (request, sessions) {
  const users = request.users ?? (request.user ? [request.user] : [])
  if (users.length === 0) return request
  return { ...request, fields: [...(request.fields ?? []), ['Cookie', users.map(user => sessions[user]).join('; ')]] }
}

/** In what an answer is wrong: the least differences to those that the framework gives to the forms in which it may see the request. */
async function judge (request, proxied, forms, ask) {
  if (isRefusal(proxied)) return request.hit ? [`refused: ${proxied.body}`] : []
  const all = await Promise.all(forms.map(async form => differences(request, await ask(form), proxied)))
  const problems = all.reduce((least, problems) => problems.length < least.length ? problems : least)
  const [word, status] = [values(proxied, 'x-api-cache')[0], values(proxied, 'cache-status')]
  if (request.hit && word !== 'HIT') problems.push(`${word}, not HIT`)
  return problems.length ? [...problems, `(${status})`] : []
}

/** Asks a framework directly; once for each request. A HEAD is answered with the head of what a GET gets. */
function asking (framework) {
  const known = new Map()
  return ({ method, isHead, target, host, fields }) => {
    const key = JSON.stringify([method, isHead, target, host, fields])
    const answer = known.get(key) ?? send(framework.port, { method, target, host, fields }).then(answer => isHead ? { ...answer, body: '' } : answer)
    known.set(key, answer)
    return answer
  }
}

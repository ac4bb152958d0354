// Deliveries signed with the vendors' own libraries, sent to a running Larder: they are believed, and purge. With any byte altered that is signed,
// too old, made with another secret, or sent once more, they purge nothing.
//
//   node run.mjs --packages FOLDER [--larder PATH]      FOLDER has the node_modules of package-lock.json

import http from 'node:http'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Score, send } from '../origins/compare.mjs'
import { options, startLarder } from '../process.mjs'
import { vendors as load } from './vendors.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const given = options({
  larder: join(process.env.CARGO_TARGET_DIR ?? join(here, '../../target'), 'optimized/larder'),
  packages: join(here, '../../target/test-tools/webhooks')
})

/** What Larder allows by itself, in seconds, and a little more than a test takes. */
const TOLERANCE = 300
const SLACK = 30

const origin = http.createServer((request, response) => {
  response.setHeader('Cache-Control', 'max-age=3600')
  response.end(request.url)
})
await new Promise(resolve => origin.listen(0, '127.0.0.1', resolve))
const vendors = await load(resolve(given.packages))
const larder = await startLarder(resolve(given.larder), `http://127.0.0.1:${origin.address().port}`, { extra: configuration() })

const score = new Score()
let [ids, refusals] = [0, 0]
for (const [name, vendor] of Object.entries(vendors)) await check(name, vendor)
await challenge()
await counted()
score.close()
await larder.stop()
origin.close()
process.exit()

function configuration () {
  const webhooks = Object.entries(vendors).map(([name, vendor]) => `[[webhook]]
name = "${name}"
scheme = "${vendor.scheme}"
secrets = ${JSON.stringify(vendor.secrets)}
[[webhook.on]]
event = "changed"
purge = ["tile:{$.tile}"]
`)
  return `[[route]]\nname = "tiles"\nmatch = "/tiles/{tile}"\ntags = ["tile:{tile}"]\n${webhooks.join('')}`
}

async function check (name, vendor) {
  await believed(name, vendor)
  await repeated(name, vendor)
  await fill(name)
  await altered(name, vendor)
  await missing(name, vendor)
  await aged(name, vendor)
  await otherSecret(name, vendor)
  await holds(`${name}: what is refused purges nothing`, async () => expect(await cached(name), 'HIT'))
}

async function believed (name, vendor) {
  for (const [index, secret] of vendor.secrets.entries()) {
    await holds(`${name}: a delivery under secret ${index + 1} of ${vendor.secrets.length} purges`, async () => {
      await fill(name)
      const answer = await deliver(name, await delivery(name, vendor, { secret }))
      return [...expect(answer.status, 200), ...expect(Object.keys(answer.json), ['seq', 'nodes']), ...expect(await cached(name), 'MISS')]
    })
  }
  await holds(`${name}: another event purges nothing and is no error`, async () => {
    const answer = await deliver(name, await delivery(name, vendor, { event: 'other' }))
    return expect(answer.status, 202)
  })
}

async function repeated (name, vendor) {
  await holds(`${name}: what is sent again purges nothing and is no error`, async () => {
    const one = await delivery(name, vendor)
    const first = await deliver(name, one)
    await fill(name)
    const again = await deliver(name, one)
    return [...expect(again.status, 200), ...expect(again.json, { ...first.json, duplicate: true }), ...expect(await cached(name), 'HIT')]
  })
}

/** Every byte that proves anything is altered, one at a time. */
async function altered (name, vendor) {
  const one = await delivery(name, vendor)
  for (const field of [vendor.signature, ...vendor.signed]) {
    await holds(`${name}: every byte of ${field} counts`, () => each(one.headers[field].length, index => {
      const value = one.headers[field]
      const headers = { ...one.headers, [field]: value.slice(0, index) + next(value[index]) + value.slice(index + 1) }
      return refused(name, { ...one, headers })
    }))
  }
  if (vendor.signsNoBody) return
  await holds(`${name}: every byte of the body counts`, () => each(one.body.length, index => {
    const body = Buffer.from(one.body)
    body[index] ^= 1
    return refused(name, { ...one, body })
  }))
  for (const [what, body] of [['longer', `${one.body}\n`], ['shorter', one.body.slice(0, -1)], ['rewritten', JSON.stringify(JSON.parse(one.body), null, 1)], ['empty', '']]) {
    await holds(`${name}: a body that is ${what} is refused`, () => refused(name, { ...one, body }))
  }
}

async function missing (name, vendor) {
  const one = await delivery(name, vendor)
  for (const field of [vendor.signature, ...vendor.signed]) {
    const { [field]: _, ...rest } = one.headers
    await holds(`${name}: without ${field} it is refused`, () => refused(name, { ...one, headers: rest }))
    await holds(`${name}: with an empty ${field} it is refused`, () => refused(name, { ...one, headers: { ...rest, [field]: '' } }))
  }
}

async function aged (name, vendor) {
  const signsTime = vendor.signed.some(field => field.endsWith('timestamp')) || vendor.scheme === 'stripe'
  if (!signsTime) return
  for (const [what, by] of [['old', -TOLERANCE - SLACK], ['far ahead', TOLERANCE + SLACK]]) {
    await holds(`${name}: a time that is too ${what} is refused`, async () => refused(name, await delivery(name, vendor, { at: now() + by })))
  }
  await holds(`${name}: a time within the tolerance is believed`, async () => {
    const answer = await deliver(name, await delivery(name, vendor, { at: now() - TOLERANCE + SLACK, tile: 'nothing' }))
    return expect(answer.status, 200)
  })
}

async function otherSecret (name, vendor) {
  const [secret] = vendor.secrets
  const others = [vendor.scheme === 'standard' ? 'whsec_AfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw' : secret + '1', vendor.scheme === 'standard' ? 'AAAA' : secret.slice(0, -1)]
  for (const other of others) await holds(`${name}: another secret is refused`, async () => refused(name, await delivery(name, vendor, { secret: other })))
}

async function challenge () {
  const { slack } = vendors
  const body = JSON.stringify({ token: 'x', challenge: '3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P', type: 'url_verification' })
  const headers = slack.sign({ secret: slack.secrets[0], body, at: now() })
  await holds('slack: its challenge comes back', async () => {
    const answer = await deliver('slack', { headers, body })
    return [...expect(answer.status, 200), ...expect(answer.json, { challenge: JSON.parse(body).challenge })]
  })
}

async function counted () {
  await holds('every refusal is counted', async () => {
    const metrics = await (await fetch(`${larder.admin}/metrics`)).text()
    const lines = metrics.matchAll(/^larder_webhook_deliveries_total\{result="refused",.*\} (\d+)$/gm)
    return expect([...lines].reduce((sum, [, count]) => sum + Number(count), 0), refusals)
  })
}

// ── What the checks are made of ──

/** A delivery as the vendor makes it, with an id of its own. */
async function delivery (name, vendor, { secret = vendor.secrets[0], at = now(), event = 'changed', tile = name } = {}) {
  const id = `delivery_${ids += 1}`
  const body = JSON.stringify(vendor.body(tile, event, id))
  return { headers: await vendor.sign({ secret, body, at, event, id }), body }
}

async function deliver (name, { headers, body }) {
  const given = { 'content-type': 'application/json', ...headers }
  const answer = await send(larder.url, { method: 'POST', path: `/_larder/webhooks/${name}`, headers: given, body })
  return { status: answer.status, json: JSON.parse(answer.body.toString()) }
}

async function refused (name, one) {
  refusals += 1
  const answer = await deliver(name, one)
  return expect([answer.status, answer.json.title], [401, 'Invalid signature'])
}

async function each (count, problemsOf) {
  const problems = []
  for (let index = 0; index < count; index++) problems.push(...(await problemsOf(index)).map(problem => `byte ${index}: ${problem}`))
  return count > 0 ? problems.slice(0, 5) : ['there is none']
}

async function fill (name) {
  await cached(name)
  const problems = expect(await cached(name), 'HIT')
  if (problems.length) throw new Error(`/tiles/${name} is not stored: ${problems}`)
}

async function cached (name) {
  const answer = await fetch(`${larder.url}/tiles/${name}`)
  await answer.arrayBuffer()
  return answer.headers.get('x-api-cache')
}

async function holds (name, problemsOf) {
  score.check(name, await problemsOf())
}

function expect (is, expected) {
  const [one, other] = [is, expected].map(value => JSON.stringify(value))
  return one === other ? [] : [`${one} instead of ${other}`]
}

/** Another character of the same kind, so that what is altered can still be read. */
function next (character) {
  const kinds = ['0123456789abcdef', 'ABCDEFGHIJKLMNOPQRSTUVWXYZghijklmnopqrstuvwxyz+/']
  const kind = kinds.find(kind => kind.includes(character))
  return kind ? kind[(kind.indexOf(character) + 1) % kind.length] : String.fromCharCode(character.charCodeAt(0) + 1)
}

function now () {
  return Math.floor(Date.now() / 1000)
}

// Real GraphQL servers behind Larder, asked by real clients: what is a hit, how long, what a mutation and a purge end, persisted queries, and that no
// spelling of a mutation is ever answered by the cache.
//
//   node run.mjs --packages FOLDER --python VENV/bin/python [--larder PATH] [--only SERVER]

import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import { options } from '../process.mjs'
import { clientsOf } from './clients.mjs'
import { spellings } from './mutations.mjs'
import { SERVERS, startProxy, startServer } from './servers.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const tools = join(here, '../../target/test-tools')
const given = options({
  larder: join(process.env.CARGO_TARGET_DIR ?? join(here, '../../target'), 'optimized/larder'),
  packages: join(tools, 'graphql'),
  python: join(tools, 'graphql-python/bin/python'),
  only: ''
})
const where = { larder: resolve(given.larder), packages: resolve(given.packages), python: resolve(given.python) }
const TOKEN = 'secret'

const ROUTE = `
[[route]]
name = "graphql"
match = "/graphql"
graphql = true
operation = { productList = "1h", productOne = "10m", branchList = "24h", brokenOne = "1h" }
on_write = { purge_by_operation = { deleteOne = ["Product:{$.variables.id}", "type:Product"] } }
`

const LIST = 'query productList($first: Int) { products(first: $first) { __typename id name price } }'
const ONE = 'query productOne($id: ID!) { product(id: $id) { __typename id name price } }'
const BRANCHES = 'query branchList { branchList { __typename id name } }'
const GROWTH = 'query monthlySalesGrowth { monthlySalesGrowth }'
const PRICE = 'mutation setPrice($id: ID!, $price: Int!) { setPrice(id: $id, price: $price) { __typename id price } }'
const ADD = 'mutation addProduct($name: String!) { addProduct(name: $name) { __typename id } }'
const DELETE = 'mutation deleteOne($id: ID!) { deleteProduct(id: $id) }'

let passed = 0
let failed = 0

function check (what, isRight, found = '') {
  if (isRight) { passed += 1; return }
  failed += 1
  if (failed <= 40) console.log(`FAILED ${what} ${found && JSON.stringify(found)}`)
}

for (const name of Object.keys(SERVERS).filter(name => !given.only || name === given.only)) {
  const before = { passed, failed }
  try {
    await suite(name)
  } catch (error) {
    check(`${name}: the run`, false, error.stack)
  }
  console.log(`-- ${name}: ${passed - before.passed} passed, ${failed - before.failed} failed`)
}
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed === 0 && passed > 0 ? 0 : 1)

async function suite (name) {
  const server = await startServer(name, where)
  const larder = await startProxy(where.larder, server, { extra: ROUTE, token: TOKEN })
  const context = { name, server, larder }
  for (const [client, make] of Object.entries(clientsOf(where.packages))) {
    await forget(larder, { everything: true })
    await reads({ ...context, client, make })
    await writes({ ...context, client, make })
  }
  for (const client of ['Apollo Client', 'urql']) {
    for (const byGet of [false, true]) await persisted({ ...context, client, make: clientsOf(where.packages)[client], byGet })
  }
  await notData(context)
  await mutations(context)
  await larder.stop()
  await server.stop()
}

async function forget ({ admin }, selection) {
  const answer = await fetch(`${admin}/v1/purge`, { method: 'POST', headers: { authorization: `Bearer ${TOKEN}` }, body: JSON.stringify(selection) })
  if (answer.status !== 200) throw new Error(`the purge is answered ${answer.status}`)
}

/** Asks once, and returns the data with what the cache said. */
async function ask (client, text, variables) {
  const from = client.answers.length
  const data = await client.query(text, variables)
  return { data, ...client.answers[from] }
}

/** Hits, lifetimes by operation, and the same data as without Larder. */
async function reads ({ name, server, larder, client, make }) {
  const [proxied, direct] = [make({ url: larder.url }), make({ url: server.url })]
  for (const [text, variables, lifetime] of [[LIST, { first: 2 }, 3600], [ONE, { id: '1' }, 600], [BRANCHES, {}, 86400]]) {
    const what = `${name}, ${client}, ${text.split(' ')[1]}:`
    const first = await ask(proxied, text, variables)
    check(`${what} is fetched first`, first.cache === 'MISS', first)
    const calls = await server.calls()
    const second = await ask(proxied, text.replaceAll(' ', '\n  '), variables)
    check(`${what} is a hit in another layout`, second.cache === 'HIT', second)
    check(`${what} has its lifetime`, Number(/ttl=(\d+)/.exec(second.status)?.[1]) > lifetime - 20 && Number(/ttl=(\d+)/.exec(second.status)?.[1]) <= lifetime, second)
    check(`${what} does not reach the server`, isDeepStrictEqual(await server.calls(), calls))
    check(`${what} is what the server says`, isDeepStrictEqual(second.data, (await ask(direct, text, variables)).data), second)
  }
  const other = await ask(proxied, ONE, { id: '2' })
  check(`${name}, ${client}: other variables are another answer`, other.cache === 'MISS' && other.data.product.id === '2', other)
  const unlisted = [await ask(proxied, GROWTH), await ask(proxied, GROWTH)]
  check(`${name}, ${client}: an operation that is not listed passes`, unlisted.every(it => it.cache === 'BYPASS' && it.status.includes('graphql-operation')), unlisted)
  check(`${name}, ${client}: and is asked each time`, unlisted[0].data.monthlySalesGrowth !== unlisted[1].data.monthlySalesGrowth, unlisted)
}

/** What mutations and purges end, and what stays. */
async function writes ({ name, server, larder, client, make }) {
  const proxied = make({ url: larder.url })
  const state = async (text, variables) => (await ask(proxied, text, variables)).cache
  const fill = async () => { for (const read of READS) await ask(proxied, ...read) }
  const READS = [[LIST, { first: 9 }], [ONE, { id: '1' }], [ONE, { id: '2' }], [BRANCHES, {}]]
  const states = async () => {
    const found = []
    for (const read of READS) found.push(await state(...read))
    return found.join()
  }
  const price = 100 + Math.floor(Math.random() * 1000)
  await fill()
  check(`${name}, ${client}: all are hits before`, await states() === 'HIT,HIT,HIT,HIT')
  await proxied.mutate(PRICE, { id: '1', price })
  check(`${name}, ${client}: a mutation purges its type and no other`, await states() === 'MISS,MISS,MISS,HIT')
  check(`${name}, ${client}: and its result is read`, (await ask(proxied, ONE, { id: '1' })).data.product.price === price)
  const { id } = (await proxied.mutate(ADD, { name: 'New' })).addProduct
  const list = await ask(proxied, LIST, { first: 9 })
  check(`${name}, ${client}: a list has a new object at once`, list.cache === 'MISS' && list.data.products.some(it => it.id === id), list)
  await fill()
  await proxied.mutate(DELETE, { id })
  check(`${name}, ${client}: the tags of an operation are purged`, await states() === 'MISS,MISS,MISS,HIT')
  check(`${name}, ${client}: the object is gone`, !(await ask(proxied, LIST, { first: 9 })).data.products.some(it => it.id === id))
  await forget(larder, { tags: ['Product:2'] })
  check(`${name}, ${client}: an object is purged by its tag`, await states() === 'MISS,HIT,MISS,HIT')
  await forget(larder, { tags: ['type:Branch'] })
  check(`${name}, ${client}: a type is purged by its tag`, await states() === 'HIT,HIT,HIT,MISS')
  await forget(larder, { urls: [`${larder.url}/graphql`] })
  check(`${name}, ${client}: the URL stands for all`, await states() === 'MISS,MISS,MISS,MISS')
  const { purges } = await (await fetch(`${larder.admin}/v1/purges`, { headers: { authorization: `Bearer ${TOKEN}` } })).json()
  const written = purges?.filter(it => it.source === 'write').length
  await fill()
  const again = await (await fetch(`${larder.admin}/v1/purges`, { headers: { authorization: `Bearer ${TOKEN}` } })).json()
  check(`${name}, ${client}: queries append nothing to the purge log`, again.purges?.filter(it => it.source === 'write').length === written, again)
}

/** Hashes instead of documents, whether or not the server reads hashes. */
async function persisted ({ name, server, larder, client, make, byGet }) {
  await forget(larder, { everything: true })
  const what = `${name}, ${client}, persisted${byGet ? ' by GET' : ''}:`
  const text = `query productOne($id: ID!) { product(id: $id) { __typename id name ${client === 'urql' ? 'price' : ''} ${byGet ? 'branch { id }' : ''} } }`
  const first = make({ url: larder.url, persisted: true, byGet })
  const data = (await ask(first, text, { id: '1' })).data
  check(`${what} the document is sent where the hash is not known`, first.answers.length === 2, first.answers)
  const calls = await server.calls()
  const second = make({ url: larder.url, persisted: true, byGet })
  const hit = await ask(second, text, { id: '1' })
  check(`${what} the hash alone is a hit afterwards`, second.answers.length === 1 && (hit.cache === 'HIT' || byGet), second.answers)
  const third = make({ url: larder.url, persisted: true, byGet })
  check(`${what} and again`, (await ask(third, text, { id: '1' })).cache === 'HIT', third.answers)
  if (!byGet) check(`${what} it does not reach the server`, isDeepStrictEqual(await server.calls(), calls))
  check(`${what} with the same data`, isDeepStrictEqual(hit.data, data), hit)
  for (const price of [501, 502]) {
    await third.mutate(PRICE, { id: '1', price })
    const sent = await ask(make({ url: larder.url }), ONE, { id: '1' })
    check(`${what} a mutation is executed and purges`, sent.data.product.price === price, sent)
  }
}

async function send ({ larder }, { method = 'POST', search = '', body, headers = {} }) {
  const init = { method, body, headers: { ...body && { 'content-type': 'application/json' }, 'x-apollo-operation-name': 'x', ...headers } }
  const response = await fetch(`${larder.url}/graphql${search}`, init)
  return { code: response.status, cache: response.headers.get('x-api-cache'), status: response.headers.get('cache-status') ?? '', text: await response.text() }
}

/** Errors, the schema, pages for people and batches are not stored. */
async function notData (context) {
  const { name, server } = context
  const query = text => ({ body: JSON.stringify({ query: text }) })
  for (const [what, request, reason] of [
    ['an answer with errors', query('query brokenOne { broken }'), 'graphql-errors'],
    ['the schema', query('query branchList { __schema { queryType { name } } }'), 'graphql-introspection'],
    ['a page', { method: 'GET', headers: { accept: 'text/html' } }, 'graphql-unclear'],
    ['a query with a page', { method: 'GET', search: '?query=query+branchList{branchList{id}}', headers: { accept: 'text/html' } }, ''],
    ...server.batches ? [['a batch', { body: JSON.stringify([{ query: BRANCHES }, { query: LIST }]) }, 'graphql-batch']] : []
  ]) {
    const answers = [await send(context, request), await send(context, request)]
    const isStored = answers.some(it => it.cache === 'HIT' && !it.text.startsWith('{"data"'))
    check(`${name}: ${what} is not stored`, !isStored && (!reason || answers.every(it => it.cache !== 'HIT' && it.status.includes(reason))), answers.map(it => [it.cache, it.status]))
  }
}

/** Sends each spelling of a mutation twice: the second has to run as well, and nothing of it is ever a hit. */
async function mutations (context) {
  const { name, server } = context
  let sent = 0
  let ran = 0
  for (const request of spellings(server)) {
    const before = (await server.calls()).mutation
    const answers = [await send(context, request), await send(context, request)]
    const after = (await server.calls()).mutation
    const done = answers.filter(it => it.code === 200 && it.text.includes('"price":7')).length
    const isPassed = answers.every(it => it.cache === 'BYPASS')
    check(`${name}: a mutation is no hit`, isPassed && after - before === done, { request, answers, before, after })
    sent += 1
    ran += done === 2 ? 1 : 0
  }
  console.log(`   ${sent} spellings of a mutation; the server ran ${ran}`)
  check(`${name}: enough spellings`, sent > 500 && ran > 200, { sent, ran })
}

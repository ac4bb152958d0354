// Hits of GraphQL queries against hits of a GET, by server CPU: one Larder, interleaved runs, responses of the same length.
//
//   node bench/graphql.mjs --larder PATH [--rounds N] [--seconds S] [--connections N] [--limit RATIO]
//
// Fails if the median ratio of the queries with one set of variables is under the limit.

import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import { options, startLarder } from '../tests/process.mjs'
import { load, median, verify } from './hits.mjs'

const given = options({ larder: 'target/release/larder', rounds: '7', seconds: '2', connections: '64', limit: '0.6' })
const SETS = 200 // of variables
const folder = mkdtempSync('/dev/shm/larder-graphql-')
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

// A query of 1 KiB, as clients write them, and a response of 1 KiB.
const fields = Array.from({ length: 24 }, (_, number) => `      field${number}: metric(name: "m${number}") { value }`).join('\n')
const document = `query sales($branch: ID!, $days: Int = 30) {\n  branch(id: $branch) {\n    __typename\n    id\n${fields}\n  }\n}\n`
const query = document.replace('  branch(', `${' '.repeat(Math.max(0, 1024 - document.length))}  branch(`)
const answer = JSON.stringify({ data: { branch: { __typename: 'Branch', id: '1', note: 'x'.repeat(950) } } })

const origin = http.createServer((request, response) => {
  response.setHeader('content-type', 'application/json')
  response.end(answer)
  request.resume()
})
await new Promise(resolve => origin.listen(0, '127.0.0.1', resolve))
const extra = '[[route]]\nname = "graphql"\nmatch = "/graphql"\ngraphql = true\nttl = "1h"\n[[route]]\nname = "items"\nmatch = "/items/**"\nttl = "1h"\n'
const larder = await startLarder(given.larder, `http://127.0.0.1:${origin.address().port}`, { prefix: ['taskset', '-c', '0'], extra })
const json = { 'content-type': 'application/json' }
const post = branch => ({ method: 'POST', path: '/graphql', headers: json, body: JSON.stringify({ operationName: 'sales', variables: { branch: `${branch}` }, query }) })
const kinds = {
  GET: [{ path: '/items/1' }],
  [`GET, ${SETS} targets`]: Array.from({ length: SETS }, (_, number) => ({ path: `/items/${number}` })),
  'POST, one set of variables': [post(1)],
  [`POST, ${SETS} sets of variables`]: Array.from({ length: SETS }, (_, number) => post(number)),
  'GET of GraphQL': [{ path: `/graphql?operationName=sales&variables=${encodeURIComponent('{"branch":"1"}')}&query=${encodeURIComponent(query)}` }]
}
for (const requests of Object.values(kinds)) await verify(larder, requests)
const rates = Object.fromEntries(Object.keys(kinds).map(name => [name, []]))
for (let round = 0; round < Number(given.rounds); round++) {
  const names = Object.keys(kinds)
  for (const name of round % 2 ? names.reverse() : names) rates[name].push(await load(larder, kinds[name], { ...given, folder }))
}
await larder.stop()
origin.close()
console.log(`a query of ${query.length} bytes, a response of ${answer.length}\n\n| hits | requests/CPU second | ratio to as many targets by GET |\n|---|---:|---:|`)
const ratios = Object.fromEntries(Object.entries(rates).map(([name, list]) => {
  const base = rates[name.includes(`${SETS}`) ? `GET, ${SETS} targets` : 'GET']
  const ratio = median(list.map((rate, round) => rate / base[round]))
  console.log(`| ${name} | ${Math.round(median(list))} | ${ratio.toFixed(3)} |`)
  return [name, ratio]
}))
process.exit(ratios['POST, one set of variables'] >= Number(given.limit) ? 0 : 1)

// Sends traffic of each kind through Larder and holds its /metrics against `promtool check metrics`.

import { spawnSync } from 'node:child_process'
import http from 'node:http'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { options, startLarder } from './process.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const given = options({ larder: join(process.env.CARGO_TARGET_DIR ?? join(here, '../target'), 'optimized/larder') })

const origin = http.createServer((request, response) => {
  if (request.url.startsWith('/gone')) return request.socket.destroy()
  response.setHeader('Cache-Control', request.url.startsWith('/fresh') ? 'max-age=60' : 'no-store')
  response.end(request.url)
})
await new Promise(resolve => origin.listen(0, '127.0.0.1', resolve))
const larder = await startLarder(resolve(given.larder), `http://127.0.0.1:${origin.address().port}`)

const traffic = [
  ['GET', '/fresh/1'], ['GET', '/fresh/1'], ['HEAD', '/fresh/1'], ['GET', '/private'], ['POST', '/fresh/1'], ['GET', '/fresh/1'],
  ['GET', '/gone'], ['OPTIONS', '/private'], ['GET', '/fresh/1', { 'Cache-Control': 'no-cache' }], ['GET', '/fresh/1', { Range: 'bytes=0-2' }]
]
for (const [method, path, headers] of traffic) {
  await (await fetch(larder.url + path, { method, headers })).arrayBuffer()
}
const answer = await fetch(`${larder.admin}/metrics`)
const text = await answer.text()
const said = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' })
const problems = `${said.stdout}${said.stderr}${said.error ?? ''}`.trim()
const names = new Set(text.match(/^larder_[a-z_]+/gm))

const checks = [
  ['/metrics answers 200 as text', answer.status === 200 && answer.headers.get('content-type').startsWith('text/plain')],
  ['promtool has nothing to say', said.status === 0 && problems === ''],
  ['there are larder_ metrics', names.size > 0],
  ['every request is counted once', requestsCounted() === traffic.length]
]
for (const [name, isGood] of checks) if (!isGood) console.log(`FAILED ${name}`)
if (problems) console.log(problems)
const failed = checks.filter(([, isGood]) => !isGood).length
if (failed) console.log(text)
console.log(`${checks.length - failed} passed, ${failed} failed`)
await larder.stop()
process.exit(failed ? 1 : 0)

function requestsCounted () {
  return [...text.matchAll(/^larder_requests_total(?:\{.*\})? (\d+)/gm)].reduce((sum, [, value]) => sum + Number(value), 0)
}

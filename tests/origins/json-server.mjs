// json-server as an origin: reading, paging, validating and writing through Larder gives the answers that a second
// json-server with the same data gives directly, and a write is seen by the next read.
//
//   node json-server.mjs --bin node_modules/json-server/lib/cli/bin.js [--larder PATH] [--proxy COMMAND]

import { writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { answering, freePort, options, scratch, start, startLarder } from '../process.mjs'
import { differences, Score, send, values } from './compare.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const given = options({
  larder: join(process.env.CARGO_TARGET_DIR ?? join(here, '../../target'), 'optimized/larder'),
  bin: join(here, '../../target/test-tools/origins/node_modules/json-server/lib/cli/bin.js'),
  proxy: ''
})

const score = new Score()
await scenario('the origin decides', '')
// json-server forbids unvalidated reuse (no-cache); a rule that overrides it makes plain hits, which writes must end.
await scenario('a rule of 60 s', '[[route]]\nname = "all"\nmatch = "/**"\nttl = "60s"\nttl_from = "rule"\n')
score.close()
process.exit()

async function scenario (name, extra) {
  const direct = await startJsonServer()
  const origin = await startJsonServer()
  const proxy = await startProxy(origin.url, extra)
  const sides = { name, direct, proxy }
  await reads(sides)
  await validation(sides)
  await writes(sides)
  if (extra) await hits(sides)
  for (const child of [proxy, origin, direct]) await child.stop()
}

async function reads (sides) {
  const paths = ['/posts', '/posts/1', '/posts/99', '/posts?_page=1&_limit=5', '/posts?_page=3&_limit=5', '/posts?_sort=title&_order=desc',
    '/posts?author=ada', '/posts?q=seven', '/posts/1?_embed=comments', '/posts/1/comments', '/comments?_expand=post', '/profile', '/db', '/nothing']
  for (const path of paths) {
    for (const method of ['GET', 'HEAD', 'OPTIONS', 'GET']) await same(sides, { method, path })
    await same(sides, { path, headers: { 'Accept-Encoding': 'gzip' } })
    await same(sides, { path, headers: { Origin: 'https://app.example.test' } })
  }
  const page = await send(sides.proxy.url, { path: '/posts?_page=2&_limit=5' })
  const problems = []
  if (values(page, 'x-total-count')[0] !== '12') problems.push(`X-Total-Count: ${values(page, 'x-total-count')}`)
  for (const relation of ['first', 'prev', 'next', 'last']) if (!values(page, 'link')[0]?.includes(`rel="${relation}"`)) problems.push(`Link without ${relation}`)
  score.check(`${sides.name}: a page tells the total and its neighbours`, problems)
}

async function validation (sides) {
  for (const path of ['/posts', '/posts/2', '/profile']) {
    const first = await send(sides.proxy.url, { path })
    const [tag] = values(first, 'etag')
    const again = await send(sides.proxy.url, { path, headers: { 'If-None-Match': tag ?? '' } })
    score.check(`${sides.name}: ${path} is not sent again to who has it`, again.status === 304 && again.body.length === 0 ? [] : [`status ${again.status}, ${again.body.length} bytes`])
    await same(sides, { path, headers: { 'If-None-Match': tag } })
    await same(sides, { path, headers: { 'If-None-Match': '"other"' } })
  }
}

async function writes (sides) {
  const json = value => ({ headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(value) })
  const steps = [
    ['POST', '/posts', { title: 'thirteen', author: 'grace' }, ['/posts', '/posts/13']],
    ['PUT', '/posts/1', { title: 'one again', author: 'ada' }, ['/posts/1']],
    ['PATCH', '/posts/1', { title: 'patched' }, ['/posts/1']],
    ['PUT', '/profile', { name: 'renamed' }, ['/profile']],
    ['POST', '/posts', { id: 13, title: 'duplicate' }, ['/posts/13']],
    ['DELETE', '/posts/1', undefined, ['/posts/1']],
    ['DELETE', '/posts/1', undefined, ['/posts/1']],
    ['PUT', '/posts/77', { title: 'absent' }, ['/posts/77']]
  ]
  for (const [method, path, value, seen] of steps) {
    for (const read of seen) await same(sides, { path: read }) // so that there is something stored to be wrong
    await same(sides, { method, path, ...(value ? json(value) : {}) })
    for (const read of seen) await same(sides, { path: read })
    for (const read of seen) await same(sides, { path: read })
  }
}

async function hits (sides) {
  const before = await twice(sides, '/posts/3')
  await send(sides.proxy.url, { method: 'PATCH', path: '/posts/3', headers: { 'Content-Type': 'application/json' }, body: '{"title":"written"}' })
  const after = await twice(sides, '/posts/3')
  score.check(`${sides.name}: a stored answer is a hit`, before.token === 'HIT' ? [] : [`X-API-Cache: ${before.token}`])
  score.check(`${sides.name}: the next read sees the write`, after.text.includes('written') ? [] : [after.text])
  score.check(`${sides.name}: what was written is a hit again`, after.token === 'HIT' ? [] : [`X-API-Cache: ${after.token}`])
}

async function twice (sides, path) {
  await send(sides.proxy.url, { path })
  const answer = await send(sides.proxy.url, { path })
  return { token: values(answer, 'x-api-cache')[0], text: answer.body.toString() }
}

/** The same request to the untouched server and through the proxy. */
async function same (sides, request) {
  const name = `${sides.name}: ${request.method ?? 'GET'} ${request.path} ${JSON.stringify(request.headers ?? {})}`
  try {
    score.check(name, differences(request, await send(sides.direct.url, request), await send(sides.proxy.url, request)))
  } catch (error) {
    score.check(name, [`${error.message}${sides.proxy.isRunning() ? '' : `; the proxy ended by itself\n${sides.proxy.tail()}`}`])
  }
}

async function startJsonServer () {
  const authors = ['ada', 'grace', 'edsger']
  const words = ['one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten', 'eleven', 'twelve']
  const file = join(scratch(), 'db.json')
  writeFileSync(file, JSON.stringify({
    posts: words.map((title, index) => ({ id: index + 1, title, author: authors[index % 3] })),
    comments: words.map((body, index) => ({ id: index + 1, body: `${body}, naïve`, postId: 1 + index % 4 })),
    profile: { name: 'json-server' }
  }))
  const port = await freePort()
  const child = start(['node', resolve(given.bin), '--host', '127.0.0.1', '--port', String(port), '--quiet', file])
  await answering(`http://127.0.0.1:${port}/profile`, child, { status: 200 })
  return { ...child, url: `http://127.0.0.1:${port}` }
}

async function startProxy (origin, extra) {
  if (!given.proxy) return startLarder(resolve(given.larder), origin, { extra })
  const port = await freePort()
  const child = start(['bash', '-c', given.proxy.replaceAll('{port}', port).replaceAll('{origin}', new URL(origin).host)])
  await answering(`http://127.0.0.1:${port}/profile`, child, { status: 200 })
  return { ...child, url: `http://127.0.0.1:${port}` }
}

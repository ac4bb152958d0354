// The examples of docs/behind-login.md, each loaded as it stands there, before an application that logs its users in: two users read and write, and none of
// them gets what is the other's, more than the document says, or less often from the cache.

import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { answering, freePort, onFreePort, scratch, start } from '../process.mjs'
import { startProxy } from './frameworks.mjs'
import { send, values } from './wire.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const apps = join(here, 'apps')
const DOCUMENT = readFileSync(join(here, '../../docs/behind-login.md'), 'utf8')
const HOST = 'api.example.test'
const ENVIRONMENT = { JWT_SECRET: 'the-secret-of-the-examples-32-bytes', DIGEST_KEY: 'a digest key of at least thirty-two bytes' }

/** The block of the document behind the mark of this example. */
function example (name) {
  const found = new RegExp(`<!-- example: ${name} -->\\n\`\`\`\\w+\\n([^]*?)\`\`\``).exec(DOCUMENT)
  if (!found) throw new Error(`docs/behind-login.md has no example ${name}`)
  return found[1]
}

const node = file => ({ port }) => [process.execPath, join(apps, file), port]

/** How each application is started, and how its users show who they are. */
const LOGINS = {
  fastapi: { start: ({ port, python }) => [python, '-m', 'uvicorn', 'login_fastapi:app', '--port', port, '--log-level', 'warning'], fields: bearer, hasTokens: true },
  express: { start: node('login_express.cjs'), fields: bearer, hasTokens: true },
  django: {
    start: ({ port, python }) => [python, '-m', 'gunicorn', '-b', `127.0.0.1:${port}`, '--threads', '4', '--log-level', 'warning', 'login_django:application'],
    fields: session
  },
  spring: { start: options => [...node('login_spring.cjs')(options), '--api'], fields: bearer, hasTokens: true },
  gateway: { start: node('login_gateway.cjs'), fields: async (_, name) => [['Cookie', `session=session-of-${name}`]], isBehindGateway: true, isShared: true }
}

async function bearer (app, name, seconds = 600) {
  const { token } = JSON.parse((await send(app.port, { method: 'POST', target: `/login?name=${name}&seconds=${seconds}`, host: HOST, fields: [['Content-Length', '0']] })).body)
  return [['Authorization', `Bearer ${token}`]]
}

async function session (app, name) {
  const answer = await send(app.port, { target: `/login?name=${name}`, host: HOST })
  return [['Cookie', values(answer, 'set-cookie').map(cookie => cookie.split(';')[0]).join('; ')]]
}

/** Runs all examples, and counts what holds. */
export async function behindLogin (where, tally) {
  for (const [name, login] of Object.entries(LOGINS)) await converse(name, login, where, tally)
  await refusesByDefault(where, tally)
}

async function startApp (command, { python, packages }) {
  return onFreePort(async () => {
    const port = `${await freePort()}`
    const env = { NODE_PATH: join(packages, 'node_modules'), NODE_ENV: 'production', PYTHONDONTWRITEBYTECODE: '1', PYTHONPATH: apps }
    const child = start(command({ port, python }), { env, cwd: apps })
    await answering(`http://127.0.0.1:${port}/ready`, child, { status: 200, seconds: 30 })
    return { ...child, port: Number(port), url: `http://127.0.0.1:${port}` }
  })
}

async function converse (name, login, where, tally) {
  const app = await startApp(login.start, where)
  const larder = await startProxy(where.larder, app, { extra: example(name), env: ENVIRONMENT })
  const gateway = login.isBehindGateway ? await startGateway(larder, app) : undefined
  const { port } = gateway ?? larder
  const [alice, bob] = [await login.fields(app, 'alice'), await login.fields(app, 'bob')]
  const ask = async (what, fields, expected, { method = 'GET', target = '/api/orders' } = {}) => {
    const length = method === 'GET' ? [] : [['Content-Length', '0']]
    const answer = await send(port, { method, target, host: HOST, fields: [...fields, ...length] })
    const [word, status] = [values(answer, 'x-api-cache')[0], values(answer, 'cache-status')]
    const content = answer.status === 200 ? JSON.parse(answer.body) : {}
    const got = { status: answer.status, word, user: content.user, orders: content.orders?.length }
    const problems = Object.keys(expected).filter(key => got[key] !== expected[key]).map(key => `${key} is ${got[key]}, not ${expected[key]} (${status})`)
    tally.check(`${name}: ${what}`, problems)
  }
  const own = (user, word, orders = 0) => ({ status: 200, word, user, orders })
  await ask('a user reads', alice, own('alice', 'MISS'))
  await ask('and reads again', alice, own('alice', 'HIT'))
  await ask('another user gets another answer', bob, own('bob', 'MISS'))
  await ask('and has it stored apart', bob, own('bob', 'HIT'))
  await ask('a user writes', alice, { status: 201 }, { method: 'POST' })
  await ask('and sees it', alice, own('alice', 'MISS', 1))
  await ask('which costs another no hit', bob, own('bob', 'HIT'))
  await ask('nobody gets nothing', [], { status: 401 })
  const quotes = { target: '/api/quotes' }
  await ask('quotes are fetched', alice, { status: 200, word: 'MISS' }, quotes)
  if (login.hasTokens || login.isShared) {
    await ask('another user is checked by the origin once', bob, { status: 200 }, quotes)
    await ask('and share from then on', bob, { status: 200, word: 'HIT' }, quotes)
  } else {
    await ask('each session has quotes of its own', bob, { status: 200, word: 'MISS' }, quotes)
  }
  if (login.hasTokens) {
    await ask('an expired token is refused', await bearer(app, 'alice', -10), { status: 401 })
    const forged = [['Authorization', `${alice[0][1].slice(0, -4)}AAAA`]]
    await ask('a forged token is refused', forged, { status: 401 })
  }
  if (gateway) {
    await ask('what a client says itself does not count', [...bob, ['X-User-Id', 'alice']], own('bob', 'HIT'))
  }
  for (const each of [gateway, larder, app]) await each?.stop()
}

/** nginx with the location of the document before Larder. */
function startGateway (larder, app) {
  return onFreePort(async () => {
    const [port, folder] = [await freePort(), scratch()]
    const config = join(folder, 'nginx.conf')
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(name => `${name}_temp_path ${folder}/${name};`).join(' ')
    writeFileSync(config, `daemon off; pid ${folder}/pid; error_log ${folder}/error.log; events {}
http { access_log off; ${temporary}
upstream larder { server 127.0.0.1:${larder.port}; }
server { listen 127.0.0.1:${port};
location = /auth { internal; proxy_pass http://127.0.0.1:${app.port}/auth; proxy_pass_request_body off; proxy_set_header Content-Length ""; }
${example('nginx')}
} }`)
    const child = start(['nginx', '-c', config, '-e', join(folder, 'error.log')])
    await answering(`http://127.0.0.1:${port}/`, child, { status: 401 })
    return { ...child, port }
  })
}

/** Spring Security's own fields keep everything out of the cache. */
async function refusesByDefault (where, tally) {
  const app = await startApp(node('login_spring.cjs'), where)
  const larder = await startProxy(where.larder, app, { extra: example('spring'), env: ENVIRONMENT })
  const fields = await bearer(app, 'alice')
  for (let i = 0; i < 2; i++) {
    const answer = await send(larder.port, { target: '/api/orders', host: HOST, fields })
    const word = values(answer, 'x-api-cache')[0]
    tally.check('spring: its default fields forbid storing', answer.status === 200 && word !== 'HIT' ? [] : [`${answer.status} ${word}`])
  }
  await larder.stop()
  await app.stop()
}

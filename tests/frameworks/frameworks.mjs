// The frameworks under test: each a small application behind its usual server.

import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { answering, freePort, onFreePort, start, startLarder } from '../process.mjs'

const apps = join(dirname(fileURLToPath(import.meta.url)), 'apps')

/** How each is started on a port. `python` is a virtual environment's, `packages` a folder with `node_modules`. */
const COMMANDS = {
  Express: ({ port }) => [process.execPath, join(apps, 'express.cjs'), port],
  Koa: ({ port }) => [process.execPath, join(apps, 'koa.cjs'), port],
  Flask: options => gunicorn('flask_app:app', options),
  Django: options => gunicorn('django_app:application', options),
  FastAPI: ({ port, python }) => [python, '-m', 'uvicorn', 'fastapi_app:app', '--port', port, '--proxy-headers', '--forwarded-allow-ips', '*', '--log-level', 'warning']
}

export const NAMES = Object.keys(COMMANDS)

/** Applications for one suite alone. */
const OTHERS = {
  'FastAPI with CORS': ({ port, python }) => [python, '-m', 'uvicorn', 'warmed_fastapi:app', '--port', port, '--log-level', 'warning']
}

function gunicorn (application, { port, python }) {
  return [python, '-m', 'gunicorn', '-b', `127.0.0.1:${port}`, '-k', 'gthread', '--threads', '4', '--keep-alive', '30', '--log-level', 'warning', application]
}

/** Starts a framework, and waits until it answers. */
export function startFramework (name, where) {
  return onFreePort(() => attempt(name, where))
}

async function attempt (name, { python, packages, env: further = {} }) {
  const port = `${await freePort()}`
  const env = { NODE_PATH: join(packages, 'node_modules'), NODE_ENV: 'production', PYTHONDONTWRITEBYTECODE: '1', PYTHONPATH: apps, ...further }
  const child = start((COMMANDS[name] ?? OTHERS[name])({ port, python }), { env, cwd: apps })
  await answering(`http://127.0.0.1:${port}/api/ready`, child, { status: 200, seconds: 30 })
  return { ...child, name, port: Number(port), url: `http://127.0.0.1:${port}` }
}

/** Starts Larder before a framework. */
export function startProxy (binary, framework, options) {
  return onFreePort(() => startLarder(binary, framework.url, options))
}

// The GraphQL servers under test: one shop behind each.

import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { answering, freePort, onFreePort, start, startLarder } from '../process.mjs'

const apps = join(dirname(fileURLToPath(import.meta.url)), 'apps')

/** How each is started on a port, and whether it reads several requests at once. */
export const SERVERS = {
  'GraphQL Yoga': { command: ({ port }) => [process.execPath, join(apps, 'yoga.cjs'), port], batches: true },
  'Apollo Server': { command: ({ port }) => [process.execPath, join(apps, 'apollo.cjs'), port], batches: true },
  Strawberry: { command: ({ port, python }) => [python, '-m', 'uvicorn', 'strawberry_app:app', '--port', port, '--log-level', 'warning'] }
}

/** Starts a server, and waits until it answers. */
export function startServer (name, where) {
  return onFreePort(() => attempt(name, where))
}

async function attempt (name, { python, packages }) {
  const port = `${await freePort()}`
  const env = { NODE_PATH: join(packages, 'node_modules'), NODE_ENV: 'production', PYTHONDONTWRITEBYTECODE: '1', PYTHONPATH: apps }
  const child = start(SERVERS[name].command({ port, python }), { env, cwd: apps })
  await answering(`http://127.0.0.1:${port}/calls`, child, { status: 200, seconds: 30 })
  const url = `http://127.0.0.1:${port}`
  return { ...child, ...SERVERS[name], name, url, calls: async () => (await fetch(`${url}/calls`)).json() }
}

/** Starts Larder before a server. */
export function startProxy (binary, server, options) {
  return onFreePort(() => startLarder(binary, server.url, options))
}

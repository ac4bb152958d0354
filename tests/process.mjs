// Child processes for the suites and the bench: started on free loopback ports, waited for, always stopped.

import { spawn } from 'node:child_process'
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const running = new Set()
const folders = new Set()

process.on('exit', () => {
  for (const child of running) signal(child, 'SIGKILL')
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(name, () => process.exit(130))

/** A temporary folder that goes away with this process. */
export function scratch () {
  const folder = mkdtempSync(join(tmpdir(), 'larder-tests-'))
  folders.add(folder)
  return folder
}

/** A TCP port of the loopback address that was free a moment ago. */
export function freePort () {
  return new Promise((resolve, reject) => {
    const server = net.createServer()
    server.on('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

/**
 * What `start` comes to. Where its server finds that another process has taken its port in between, it is started again.
 * `freePort` cannot keep a port, and connections to other servers use ports of the same range.
 */
export async function onFreePort (start, attempts = 5) {
  for (;;) {
    try {
      return await start()
    } catch (error) {
      attempts -= 1
      if (attempts === 0 || !/address already in use|EADDRINUSE/i.test(error.message)) throw error
    }
  }
}

/**
 * Starts a program in a process group of its own; what it prints goes to a log file.
 * `tail()` answers the end of that log, `stop()` ends the group (SIGTERM, after `patience` ms SIGKILL), `kill()` at once; `signal(name)` is sent to
 * the group. With `pipes` the program has two more: it reads from descriptor 3 and writes to 4.
 */
export function start (command, { env = {}, cwd, patience = 5000, pipes = false } = {}) {
  const log = join(scratch(), 'log')
  const out = openSync(log, 'a')
  const child = spawn(command[0], command.slice(1), {
    cwd,
    detached: true,
    env: { ...process.env, ...env },
    stdio: ['ignore', out, out, ...(pipes ? ['pipe', 'pipe'] : [])]
  })
  running.add(child)
  const ended = new Promise(resolve => {
    child.once('error', error => { child.failure = error; running.delete(child); resolve() })
    child.once('exit', () => { running.delete(child); resolve() })
  })
  const isRunning = () => child.exitCode === null && child.signalCode === null && !child.failure
  return {
    pid: child.pid,
    pipes: child.stdio.slice(3),
    isRunning,
    signal: name => signal(child, name),
    kill: async () => {
      signal(child, 'SIGKILL')
      await ended
    },
    tail: (lines = 40) => {
      const text = readFileSync(log, 'utf8').trimEnd().split('\n').slice(-lines).join('\n')
      return child.failure ? `${child.failure.message}\n${text}` : text
    },
    stop: async () => {
      if (!isRunning()) return
      signal(child, 'SIGTERM')
      const killer = setTimeout(() => signal(child, 'SIGKILL'), patience)
      await ended
      clearTimeout(killer)
    }
  }
}

function signal (child, name) {
  try { process.kill(-child.pid, name) } catch { /* it has ended by itself */ }
}

/** Waits until `url` answers with `status` (default: with any); throws with the process's log if it never does. */
export async function answering (url, child, { status, seconds = 20 } = {}) {
  const deadline = Date.now() + seconds * 1000
  while (Date.now() < deadline && (!child || child.isRunning())) {
    const got = await fetchStatus(url)
    if (got !== undefined && (status === undefined || got === status)) return
    await sleep(50)
  }
  throw new Error(`nothing answered at ${url}\n${child ? child.tail() : ''}`)
}

function fetchStatus (url) {
  return new Promise(resolve => {
    const request = http.get(url, { agent: false, timeout: 2000 }, response => {
      response.resume()
      resolve(response.statusCode)
    })
    request.on('timeout', () => request.destroy())
    request.on('error', () => resolve(undefined))
  })
}

export function sleep (milliseconds) {
  return new Promise(resolve => setTimeout(resolve, milliseconds))
}

/**
 * Starts a Redis server on a free port, or on `port`, and waits until it is ready. It is empty and keeps nothing on disk; or it has what is in `folder`,
 * and writes each change there before it answers.
 */
export async function startRedis ({ prefix = [], seconds = 20, port, folder } = {}) {
  port ??= await freePort()
  const keeping = ['--appendonly', folder ? 'yes' : 'no', '--appendfsync', 'always', '--dir', folder ?? scratch()]
  const child = start([...prefix, 'redis-server', '--port', `${port}`, '--bind', '127.0.0.1', '--save', '', ...keeping])
  const deadline = Date.now() + seconds * 1000
  while (!child.tail().includes('Ready to accept connections')) {
    if (!child.isRunning() || Date.now() > deadline) throw new Error(`Redis did not start\n${child.tail()}`)
    await sleep(20)
  }
  return { ...child, port, url: `redis://127.0.0.1:${port}/0` }
}

/**
 * Starts Larder before an origin, on free ports, with a configuration file of its own, and waits for `/readyz`.
 * `top` is TOML for the beginning (keys of the file itself), `extra` for the end (tables), `memory` the budget of the first tier, `redis` the URL of the second, `store` more TOML for `[store]`; `prefix` a command to run it under; `port`
 * and `adminPort` where it is to listen; `token` that of the admin listener; `ca` a file with the authority to trust for an https origin.
 */
export async function startLarder (binary, origin, { top = '', extra = '', memory = '256MiB', redis, store = '', prefix = [], env, port, adminPort, token, ca } = {}) {
  port ??= await freePort()
  adminPort ??= await freePort()
  const config = join(scratch(), 'proxy.toml')
  writeFileSync(config, [
    `listen = "127.0.0.1:${port}"`,
    ca ? `origin = { urls = ["${origin}"], tls = { ca = "${ca}" } }` : `origin = "${origin}"`,
    top,
    '[admin]', `listen = "127.0.0.1:${adminPort}"`, token ? `token = "${token}"` : '',
    '[store]', `memory = "${memory}"`, redis ? `redis = "${redis}"` : '', store,
    '[log]', 'access = "off"',
    extra, ''
  ].join('\n'))
  const child = start([...prefix, binary, 'run', '--config', config], { env })
  await answering(`http://127.0.0.1:${adminPort}/readyz`, child, { status: 200 })
  return { ...child, url: `http://127.0.0.1:${port}`, port, adminPort, admin: `http://127.0.0.1:${adminPort}` }
}

/** Reads `--name value`, `--name=value` and `--flag` from a command line; an option not in `known` is an error. */
export function options (known, argv = process.argv.slice(2)) {
  const read = {}
  for (let i = 0; i < argv.length; i++) {
    const [, name, inline] = /^--([a-z-]+)(?:=(.*))?$/s.exec(argv[i]) ?? []
    if (!(name in known)) {
      console.error(`unknown argument ${argv[i]}; known: ${Object.keys(known).map(key => `--${key}`).join(' ')}`)
      process.exit(2)
    }
    const isFlag = typeof known[name] === 'boolean'
    read[name] = isFlag ? true : inline ?? argv[++i]
  }
  return { ...known, ...read }
}

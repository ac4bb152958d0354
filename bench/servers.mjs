// The servers under test and the origin behind them: how each is configured and started.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { execFileSync } from 'node:child_process'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { answering, freePort, start, startLarder, startRedis } from '../tests/process.mjs'
import { SECRET, tokenOf } from './requests.mjs'

const here = dirname(fileURLToPath(import.meta.url))
export const SERVER_CORE = ['taskset', '-c', '0']
export const LOAD_CORE = ['taskset', '-c', String(cpus().length - 1)]

// What every nginx here has in common: one worker, no log, every file in `folder`.
const nginx = (folder, http, modules = '') => `
${modules}
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
user root;
pid ${folder}/pid;
error_log ${folder}/error.log crit;
events { worker_connections 8192; multi_accept on; }
http {
  access_log off;
  sendfile on;
  tcp_nopush off;
  tcp_nodelay on;
  keepalive_timeout 600;
  keepalive_requests 100000000;
  open_file_cache max=10000 inactive=600s;
  open_file_cache_valid 600s;
  types { }
  default_type application/octet-stream;
  client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fastcgi;
  uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
  ${http}
}
`

/**
 * nginx serving /hit/1k, /hit/100k and 1 KiB at any /items/… (fresh for an hour), the same as JSON under /coded/, /pass/1k (never
 * stored) and /requests (how many it has had).
 */
export async function startOrigin (folder) {
  const port = await freePort()
  const files = join(folder, 'files')
  mkdirSync(files, { recursive: true })
  writeFileSync(join(files, '1k'), 'x'.repeat(1024))
  writeFileSync(join(files, '100k'), 'x'.repeat(100 * 1024))
  const config = join(folder, 'nginx.conf')
  writeFileSync(config, nginx(folder, `
  server {
    listen 127.0.0.1:${port} backlog=4096;
    sendfile off; # so that head and body leave in one segment, as those of most APIs do, and the origin is faster than the servers
    location /hit/ { alias ${files}/; add_header Cache-Control max-age=3600; }
    location /coded/ { alias ${files}/; default_type application/json; add_header Cache-Control max-age=3600; }
    location /items/ { root ${files}; try_files /1k =404; add_header Cache-Control max-age=3600; }
    location /pass/ { alias ${files}/; add_header Cache-Control no-store; }
    location = /requests { stub_status; }
  }`))
  const child = start([...LOAD_CORE, 'nginx', '-c', config, '-e', join(folder, 'error.log')])
  await answering(`http://127.0.0.1:${port}/hit/1k`, child, { status: 200 })
  return { ...child, port, host: `127.0.0.1:${port}` }
}

/** nginx answering /all/…, /few/… and /other/… with a small body and the tag of that name, fresh for an hour. */
export async function startTaggedOrigin (folder) {
  const port = await freePort()
  const config = join(folder, 'nginx.conf')
  writeFileSync(config, nginx(folder, `
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location ~ ^/(all|few|other)/ {
      default_type application/json;
      add_header Cache-Control max-age=3600;
      add_header Surrogate-Key $1;
      return 200 '{"target":"$uri"}';
    }
  }`))
  const child = start(['nginx', '-c', config, '-e', join(folder, 'error.log')])
  await answering(`http://127.0.0.1:${port}/other/0`, child, { status: 200 })
  return { ...child, url: `http://127.0.0.1:${port}` }
}

/** A self-signed certificate of P-256 for `localhost`: the files of the certificate, of its key, and of both. */
export function certificate (folder) {
  const [cert, key, both] = ['cert.pem', 'key.pem', 'both.pem'].map(name => join(folder, name))
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30', '-subj', '/CN=localhost',
    '-keyout', key, '-out', cert], { stdio: 'pipe' })
  writeFileSync(both, readFileSync(cert, 'utf8') + readFileSync(key, 'utf8'))
  return { cert, key, both }
}

const startNginx = (folder, origin) => startNginxWith(folder, origin, port => `listen 127.0.0.1:${port} backlog=4096;`)

function startNginxTls (folder, origin) {
  const { cert, key } = certificate(folder)
  return startNginxWith(folder, origin, port => `listen 127.0.0.1:${port} ssl http2 backlog=4096;
    ssl_certificate ${cert}; ssl_certificate_key ${key}; ssl_protocols TLSv1.3;`)
}

async function startNginxWith (folder, origin, listen) {
  const port = await freePort()
  const config = join(folder, 'nginx.conf')
  writeFileSync(config, nginx(folder, `
  proxy_cache_path ${folder}/cache levels=1:2 keys_zone=bench:64m max_size=1g inactive=60m use_temp_path=off;
  upstream origin { server ${origin.host}; keepalive 256; keepalive_requests 100000000; }
  server {
    ${listen(port)}
    location / {
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_cache bench;
      add_header X-Cache $upstream_cache_status;
    }
  }`))
  return { ...start([...SERVER_CORE, 'nginx', '-c', config, '-e', join(folder, 'error.log')]), port }
}

const startHaproxy = (folder, origin) => startHaproxyWith(folder, origin, '')

function startHaproxyTls (folder, origin) {
  return startHaproxyWith(folder, origin, `ssl crt ${certificate(folder).both} alpn h2,http/1.1 ssl-min-ver TLSv1.3`)
}

async function startHaproxyWith (folder, origin, tls) {
  const port = await freePort()
  const config = join(folder, 'haproxy.cfg')
  writeFileSync(config, `
global
  nbthread 1
  maxconn 8000
cache bench
  total-max-size 512
  max-object-size 1048576
  max-age 3600
  process-vary off
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  option http-keep-alive
  http-reuse always
frontend bench
  bind 127.0.0.1:${port} backlog 4096 ${tls}
  default_backend origin
backend origin
  http-request cache-use bench
  http-response cache-store bench
  server origin ${origin.host} pool-max-conn 512
`)
  return { ...start([...SERVER_CORE, 'haproxy', '-db', '-f', config]), port }
}

async function startVarnish (folder, origin) {
  const port = await freePort()
  const config = join(folder, 'bench.vcl')
  const [host, originPort] = origin.host.split(':')
  writeFileSync(config, `vcl 4.1;\nbackend default { .host = "${host}"; .port = "${originPort}"; .max_connections = 2000; }\n`)
  const parameters = ['thread_pools=1', 'thread_pool_min=200', 'thread_pool_max=2000', 'timeout_idle=600', 'listen_depth=4096']
  const child = start([...SERVER_CORE, 'varnishd', '-F', '-n', join(folder, 'work'), '-a', `127.0.0.1:${port}`, '-f', config,
    '-s', 'malloc,512m', '-t', '3600', ...parameters.flatMap(each => ['-p', each])])
  return { ...child, port }
}

const startBare = (folder, origin, { bare }) => startProgram(bare, [origin.host])
const startCeiling = (folder, origin, { bare }, rest = [], prefix) => startProgram(join(dirname(bare), 'ceiling'), [origin.host, ...rest], prefix)

async function startProgram (program, rest, prefix = SERVER_CORE) {
  const port = await freePort()
  return { ...start([...prefix, program, `127.0.0.1:${port}`, ...rest]), port }
}

function startLarderPinned (folder, origin, { larder }, options = {}) {
  return startLarder(larder, `http://${origin.host}`, { memory: '512MiB', prefix: SERVER_CORE, ...options })
}

function startLarderTls (folder, origin, given) {
  const { cert, key } = certificate(folder)
  return startLarderPinned(folder, origin, given, { top: `tls = { cert = "${cert}", key = "${key}" }` })
}

/** A server with a worker on each of these cores, beside a load of its own. */
const onCores = (cores, start) => async (folder, origin, given) => ({ ...await start(folder, origin, given, ['taskset', '-c', cores.join()]), cores })
const startWorkers = cores => onCores(cores, (folder, origin, given, prefix) => startLarderPinned(folder, origin, given, { prefix }))
const startCeilingWorkers = cores => onCores(cores, (folder, origin, given, prefix) => startCeiling(folder, origin, given, [], prefix))

/** Larder with as many routes, of which the last one matches what is requested. */
const startRoutes = count => (folder, origin, given) => {
  const others = Array.from({ length: count - 1 }, (_, i) => `[[route]]\nname = "resource-${i}"\nmatch = "/api/v1/resource-${i}/{id}/**"\nttl = "1h"\n`)
  return startLarderPinned(folder, origin, given, { extra: `${others.join('')}[[route]]\nname = "hits"\nmatch = "/hit/**"\nttl = "1h"\n` })
}

/**
 * Larder that has stored `/items/1` to `/items/count`, and is asked for a thousand of them. Of a million they are 997 apart, which is odd: Larder's cache of
 * heads has a power of two of slots, by the number of the response.
 */
const startStored = count => async (folder, origin, given) => {
  const larder = await startLarderPinned(folder, origin, given, { memory: '4GiB' })
  if (count > 1000) fill(given, larder, '/items/', count)
  return { ...larder, stride: strideOf(count) }
}

const startStoredCeiling = count => async (...given) => ({ ...await startCeiling(...given, [String(count)]), stride: strideOf(count) })
const strideOf = count => count > 1000 ? 997 : 1

/** Larder with users who prove themselves by tokens: requests for what all share, or each user's for a response of the user's own. */
const startUsers = isOwn => async (folder, origin, given) => {
  const route = (name, rest) => `[[route]]\nname = "${name}"\nmatch = "/items/${name}/**"\nttl = "1h"\n${rest}`
  const extra = `[user]\njwt = { secret = "${SECRET}" }\n${route('shared', '')}${route('mine', 'partition = "user"\n')}`
  const larder = await startLarderPinned(folder, origin, given, { extra })
  const users = Array.from({ length: 200 }, (_, user) => user)
  const requests = isOwn
    ? users.map(user => ({ path: '/items/mine/list', headers: { Authorization: `Bearer ${tokenOf(`user-${user}`)}` } }))
    : users.map(user => ({ path: `/items/shared/${user}` }))
  return { ...larder, requests }
}

/** Requests each of the targets with the numbers 1 to `count` once. */
export function fill ({ bare }, { port }, path, count) {
  const [program, ...rest] = [...LOAD_CORE, join(dirname(bare), 'load'), 'fill', `127.0.0.1:${port}`, path, String(count), '32']
  execFileSync(program, rest, { stdio: ['ignore', 'pipe', 'pipe'] })
}

// A Redis on the core of the server that asks it: their work is counted together.
async function startOwnRedis () {
  const redis = await startRedis({ prefix: SERVER_CORE })
  return { ...redis, hits: () => Number(/keyspace_hits:(\d+)/.exec(redisSays(redis.port, 'info', 'stats'))[1]) }
}

function redisSays (port, ...command) {
  return execFileSync('redis-cli', ['-p', String(port), ...command], { stdio: 'pipe' }).toString().trim()
}

/** A server with a Redis of its own: `redis` is that process, and `stop()` ends both. */
function withRedis (server, redis) {
  return { ...server, redis, stop: async () => { await server.stop(); await redis.stop() } }
}

async function startNginxLua (folder, origin) {
  const redis = await startOwnRedis()
  const port = await freePort()
  const config = join(folder, 'nginx.conf')
  writeFileSync(config, nginx(folder, `
  lua_package_path "${here}/?.lua;;";
  lua_socket_log_errors off;
  init_by_lua_block { require('redis_cache').use(${redis.port}) }
  upstream origin { server ${origin.host}; keepalive 256; keepalive_requests 100000000; }
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location / { content_by_lua_block { require('redis_cache').answer() } }
    location /.origin/ { internal; proxy_pass http://origin/; }
    location @origin { proxy_pass http://origin; }
  }`, 'load_module modules/ndk_http_module.so;\nload_module modules/ngx_http_lua_module.so;'))
  return withRedis({ ...start([...SERVER_CORE, 'nginx', '-c', config, '-e', join(folder, 'error.log')]), port }, redis)
}

async function startLarderRedis (folder, origin, { larder }) {
  const redis = await startOwnRedis()
  return withRedis(await startLarder(larder, `http://${origin.host}`, { memory: '0', redis: redis.url, prefix: SERVER_CORE }), redis)
}

function startTwin (folder, origin, { twin }) {
  return startLarderPinned(folder, origin, { larder: twin })
}

/**
 * By name: how to start it, and how it tells its version. The servers of a `group` take part in the workloads of that group alone; one that `isAskedFor` takes
 * part only if `--servers` names it; one with `isStub` does no more than its comment in `bench/bare` says, in the workloads of `does` alone.
 */
export const servers = {
  nginx: { start: startNginx, version: () => `nginx ${told('nginx', '-v')}` },
  haproxy: { start: startHaproxy, version: () => `HAProxy ${told('haproxy', '-v')}` },
  varnish: { start: startVarnish, version: () => `Varnish ${told('varnishd', '-V')}` },
  bare: { start: startBare, version: () => 'hyper as in bench/bare/Cargo.lock', isStub: true, does: ['hit', 'not-modified', 'pass'] },
  tokio: { start: startCeiling, version: () => 'tokio as there', isStub: true, does: ['hit', 'not-modified', 'pass'] },
  larder: { start: startLarderPinned, version: ({ larder }) => `Larder ${told(larder, '--version')}` },
  'nginx-lua': { start: startNginxLua, version: () => `nginx with ${packages('libnginx-mod-http-lua', 'lua-nginx-redis')}`, group: 'redis' },
  'larder-redis': { start: startLarderRedis, version: redisVersion, group: 'redis' },
  'nginx-tls': { start: startNginxTls, group: 'tls' },
  'haproxy-tls': { start: startHaproxyTls, group: 'tls' },
  'larder-tls': { start: startLarderTls, group: 'tls' },
  'users-shared': { start: startUsers(false), group: 'users' },
  'users-own': { start: startUsers(true), group: 'users' },
  'workers-1': { start: startWorkers([0]), group: 'workers' },
  'workers-2': { start: startWorkers([0, 1]), group: 'workers' },
  'tokio-workers-1': { start: startCeilingWorkers([0]), group: 'workers', isStub: true, does: ['hit'] },
  'tokio-workers-2': { start: startCeilingWorkers([0, 1]), group: 'workers', isStub: true, does: ['hit'] },
  'routes-1': { start: startRoutes(1), group: 'routes' },
  'routes-100': { start: startRoutes(100), group: 'routes' },
  'routes-1000': { start: startRoutes(1000), group: 'routes' },
  'stored-1000': { start: startStored(1000), group: 'stored' },
  'stored-1000000': { start: startStored(1000000), group: 'stored' },
  'tokio-1000': { start: startStoredCeiling(1000), group: 'stored', isStub: true, does: ['hit'] },
  'tokio-1000000': { start: startStoredCeiling(1000000), group: 'stored', isStub: true, does: ['hit'] },
  twin: { start: startTwin, version: () => 'another build of larder', isAskedFor: true }
}

function redisVersion () {
  return `Redis ${/v=(\S+)/.exec(execFileSync('redis-server', ['--version']).toString())?.[1]}`
}

function packages (...names) {
  try {
    return execFileSync('dpkg-query', ['-W', '-f', '${Package} ${Version}, ', ...names]).toString().replace(/, $/, '')
  } catch { // not a Debian
    return names.join(', ')
  }
}

/** The first version number that a program prints. */
function told (...command) {
  const said = execFileSync('bash', ['-c', 'exec 2>&1; "$@" || true', 'told', ...command]).toString()
  return /\d+\.\d+[^\s,)]*/.exec(said)?.[0] ?? 'of unknown version'
}

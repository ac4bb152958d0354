// What the bench measures: the workloads, by name, and the bars that the summary compares them with.
//
// A workload has a `path`; or `keys` targets, the path with the numbers 1 to `keys` in turn; or `isFresh` targets, each requested once. `group` says which
// servers take part (`servers.mjs`), which may have requests of their own. `does` is what becomes of a request: `hit` if not given, `pass`, `store` or `not-modified`.

const KEYS = 5000 // more than are ever under way at once: no two requests can share one answer of Redis

export const WORKLOADS = {
  'hit-1k-64': { path: '/hit/1k', connections: 64, bytes: 1024, title: 'Hits, 1 KiB, 64 connections' },
  'hit-1k-1000': { path: '/hit/1k', connections: 1000, bytes: 1024, title: 'Hits, 1 KiB, 1,000 connections' },
  'hit-100k-64': { path: '/hit/100k', connections: 64, bytes: 102400, title: 'Hits, 100 KiB, 64 connections (nginx with `sendfile`)' },
  'hit-100k-1000': { path: '/hit/100k', connections: 1000, bytes: 102400, title: 'Hits, 100 KiB, 1,000 connections (nginx with `sendfile`)' },
  'not-modified-64': { path: '/hit/1k', does: 'not-modified', connections: 64, bytes: 0, title: '`304` answers from the cache, 64 connections' },
  'redis-1k-64': {
    path: '/items/',
    keys: KEYS,
    group: 'redis',
    connections: 64,
    bytes: 1024,
    title: 'Hits from Redis, 1 KiB, 64 connections, CPU of proxy and Redis'
  },
  'redis-1k-1000': {
    path: '/items/',
    keys: KEYS,
    group: 'redis',
    connections: 1000,
    bytes: 1024,
    title: 'Hits from Redis, 1 KiB, 1,000 connections, CPU of proxy and Redis'
  },
  'pass-64': { path: '/pass/1k', does: 'pass', connections: 64, bytes: 1024, title: 'Pass-through (`no-store`), 1 KiB, 64 connections' },
  'store-64': { path: '/items/', isFresh: true, does: 'store', connections: 64, bytes: 1024, title: 'Misses that are stored, 1 KiB, 64 connections' },
  'tls-http1-64': { path: '/hit/1k', group: 'tls', client: 'wrk', connections: 64, bytes: 1024, title: 'Hits over TLS 1.3 and HTTP/1.1, 1 KiB, 64 connections' },
  'tls-http2-64': {
    path: '/hit/1k',
    group: 'tls',
    client: 'h2load',
    connections: 64,
    bytes: 1024,
    title: 'Hits over TLS 1.3 and HTTP/2, 1 KiB, 64 connections of 8 streams'
  },
  'handshake-full': { path: '/hit/1k', group: 'tls', client: 'handshakes', connections: 16, bytes: 1024, title: 'Full TLS 1.3 handshakes, a hit each' },
  'handshake-resumed': {
    path: '/hit/1k',
    group: 'tls',
    client: 'handshakes',
    isResumed: true,
    connections: 16,
    bytes: 1024,
    title: 'Resumed TLS 1.3 handshakes, a hit each'
  },
  'users-64': { path: '/items/', group: 'users', connections: 64, bytes: 1024, title: "Hits of users' own partitions against shared ones, 1 KiB, 64 connections" },
  'workers-64': { path: '/hit/1k', group: 'workers', connections: 64, bytes: 1024, title: 'Two workers against one: hits, 1 KiB, 64 connections' },
  'routes-64': { path: '/hit/1k', group: 'routes', connections: 64, bytes: 1024, title: '1, 100 and 1,000 routes: hits of the last one, 1 KiB, 64 connections' },
  'stored-64': {
    path: '/items/',
    keys: 1000,
    group: 'stored',
    connections: 64,
    bytes: 1024,
    title: '1,000,000 stored responses against 1,000: hits of 1,000 targets, 1 KiB, 64 connections'
  }
}

/**
 * The rows of the summary: in a workload, `server` reaches at least `bar` times the rate of `against`, which is a server or `best peer`. Rows without a bar
 * say what a program reaches that does as little as is possible (`bench/bare`).
 */
export const BARS = [
  { workload: 'hit-1k-64', against: 'best peer', bar: 1.4 },
  { workload: 'hit-1k-64', against: 'bare', bar: 1.05 },
  { workload: 'hit-1k-64', against: 'tokio', bar: 0.85 },
  { workload: 'hit-1k-1000', against: 'best peer', bar: 1.5 },
  { workload: 'hit-1k-1000', against: 'bare', bar: 1.05 },
  { workload: 'hit-1k-1000', against: 'tokio', bar: 0.75 },
  { workload: 'hit-100k-64', against: 'nginx', bar: 1 },
  { workload: 'hit-100k-64', against: 'haproxy', bar: 1.4 },
  { workload: 'hit-100k-64', against: 'varnish', bar: 1.4 },
  { workload: 'hit-100k-1000', against: 'nginx', bar: 1 },
  { workload: 'hit-100k-1000', against: 'haproxy', bar: 1.4 },
  { workload: 'hit-100k-1000', against: 'varnish', bar: 1.4 },
  { workload: 'not-modified-64', against: 'best peer', bar: 1.5 },
  { workload: 'not-modified-64', server: 'tokio', against: 'best peer' },
  { workload: 'redis-1k-64', server: 'larder-redis', against: 'best peer', bar: 2 },
  { workload: 'redis-1k-1000', server: 'larder-redis', against: 'best peer', bar: 2 },
  { workload: 'pass-64', against: 'nginx', bar: 1 },
  { workload: 'pass-64', server: 'bare', against: 'nginx' },
  { workload: 'store-64', against: 'nginx', bar: 1 },
  { workload: 'tls-http1-64', server: 'larder-tls', against: 'nginx-tls', bar: 1.2 },
  { workload: 'tls-http2-64', server: 'larder-tls', against: 'nginx-tls', bar: 1.2 },
  { workload: 'handshake-full', server: 'larder-tls', against: 'nginx-tls', bar: 1 },
  { workload: 'handshake-resumed', server: 'larder-tls', against: 'nginx-tls', bar: 1 },
  { workload: 'users-64', server: 'users-own', against: 'users-shared', bar: 0.85 },
  { workload: 'workers-64', server: 'workers-2', against: 'workers-1', bar: 0.9 },
  { workload: 'workers-64', server: 'tokio-workers-2', against: 'tokio-workers-1' },
  { workload: 'routes-64', server: 'routes-1000', against: 'routes-1', bar: 0.97 },
  { workload: 'stored-64', server: 'stored-1000000', against: 'stored-1000', bar: 0.95 },
  { workload: 'stored-64', server: 'tokio-1000000', against: 'tokio-1000' }
]

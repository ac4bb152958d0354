// Hits of one Larder under load, by server CPU: for the comparisons of kinds of hits.

import { writeFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { sleep, start } from '../tests/process.mjs'
import { readResult, scriptOf } from './load.mjs'
import { cpuSeconds } from './processes.mjs'
import { LOAD_CORE } from './servers.mjs'

/** Asks until all are hits. Requests have a `path`, and may have a `method`, `headers` and a `body`. */
export async function verify (larder, requests) {
  for (let i = 0; i < 50; i++) {
    const results = []
    for (const request of requests) results.push(await result(larder, request))
    if (results.every(each => each === 'HIT')) return
    await sleep(100)
  }
  throw new Error(`not all are hits\n${larder.tail()}`)
}

function result ({ url }, { method = 'GET', path, headers = {}, body = '' }) {
  return new Promise((resolve, reject) => {
    const length = body ? { 'content-length': Buffer.byteLength(body) } : {}
    const request = http.request(url + path, { method, headers: { ...headers, ...length } }, response => resolve(response.resume().headers['x-api-cache']))
    request.on('error', reject)
    request.end(body)
  })
}

/** Requests per second of server CPU, all of them hits. `folder` is for the script of the load. */
export async function load (larder, requests, { folder, connections, seconds }) {
  const script = join(folder, 'load.lua')
  writeFileSync(script, scriptOf(requests))
  const [before, hits] = [cpuSeconds(larder.pid), await hitCount(larder)]
  const client = start([...LOAD_CORE, 'wrk', '-t1', `-c${connections}`, `-d${seconds}s`, '-s', script, larder.url])
  while (client.isRunning()) await sleep(20)
  const used = cpuSeconds(larder.pid) - before
  const { requests: answered, errors } = readResult(client.tail()) ?? {}
  if (!answered || errors) throw new Error(`the load failed\n${client.tail()}`)
  if (await hitCount(larder) - hits < answered) throw new Error('not all answers were hits')
  return answered / used
}

async function hitCount (larder) {
  const text = await (await fetch(`${larder.admin}/metrics`)).text()
  return text.split('\n').filter(line => /^larder_requests_total\{.*cache="HIT"/i.test(line)).reduce((sum, line) => sum + Number(line.split(' ').pop()), 0)
}

export function median (list) {
  const sorted = [...list].sort((a, b) => a - b)
  return sorted[sorted.length >> 1]
}

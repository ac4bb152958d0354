// Draws the figures of `bench/run.sh --json FILE` as SVG: throughput, latency against the rate, memory per stored response.
//
//   node bench/plot.mjs --json FILE [--folder bench/plots]

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { options } from '../tests/process.mjs'
import { REACHED, counting, grouped, median } from './tables.mjs'
import { WORKLOADS } from './workloads.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const given = options({ json: '', folder: join(here, 'plots') })
const WIDTH = 760
const COLOURS = { larder: '#0b6e4f', nginx: '#8fa3ad', haproxy: '#5b7c99', varnish: '#b7a57a', bare: '#c9c9c9', tokio: '#dddddd' }
const TITLES = { larder: 'Larder', nginx: 'nginx', haproxy: 'HAProxy', varnish: 'Varnish', bare: 'bare hyper', tokio: 'tokio loop' }
const VARIANTS = { 'nginx-lua': 'nginx with Lua' } // the others are named like their server

const results = JSON.parse(readFileSync(given.json, 'utf8'))
mkdirSync(given.folder, { recursive: true })
const plots = { throughput: throughput(), latency: results.latency && latency(), memory: results['memory-1k'] && memory() }
for (const [name, svg] of Object.entries(plots)) {
  if (!svg) continue
  writeFileSync(join(given.folder, `${name}.svg`), svg)
  console.log(join(given.folder, `${name}.svg`))
}

/** One panel of bars for each workload that compares servers, each panel with its own scale. */
function throughput () {
  const panels = Object.entries(results.workloads).filter(([name]) => [undefined, 'redis', 'tls'].includes(WORKLOADS[name].group)).map(([name, rounds]) => ({
    title: WORKLOADS[name].title.replaceAll('`', ''),
    bars: Object.keys(rounds[0]).map(server => ({ server, value: median(counting(rounds, results.reference).runs(server).map(run => run.perCpuSecond)) }))
  }))
  return panels.length && bars('Requests per second of server CPU', panels, grouped)
}

function memory () {
  const bytes = results['memory-1k'].bytes
  const values = Object.entries(bytes).map(([server, rounds]) => ({ server, value: median(rounds) }))
  return bars('Memory per stored response of 1 KiB, in bytes', [{ title: '', bars: values }], grouped)
}

function bars (title, panels, said) {
  const parts = []
  let y = 46
  for (const panel of panels) {
    if (panel.title) parts.push(text(16, y + 12, panel.title, { weight: 600 }))
    y += panel.title ? 22 : 4
    const most = Math.max(...panel.bars.map(bar => bar.value))
    for (const { server, value } of panel.bars.sort((a, b) => b.value - a.value)) {
      const length = Math.max(1, 480 * value / most)
      parts.push(text(150, y + 12, titleOf(server), { anchor: 'end' }))
      parts.push(`<rect x="158" y="${y + 1}" width="${length.toFixed(1)}" height="14" rx="2" fill="${colourOf(server)}"/>`)
      parts.push(text(164 + length, y + 12, said(value)))
      y += 19
    }
    y += 12
  }
  return svg(y + 6, title, parts)
}

/** The 50th and the 99.9th percentile of each server; a server ends where it no longer reaches the rate. */
function latency () {
  const { rates, runs } = results.latency
  const [left, right, top, bottom] = [70, WIDTH - 120, 60, 380]
  const lines = Object.keys(runs).flatMap(server => ['p50', 'p999'].map(key => ({
    server,
    key,
    points: rates.map((rate, index) => ({
      rate,
      isReached: median(runs[server][index].map(run => run.perSecond)) >= REACHED * rate,
      time: median(runs[server][index].map(run => run[key]))
    })).filter(point => point.isReached)
  }))).filter(line => line.points.length)
  const times = lines.flatMap(line => line.points.map(point => point.time))
  const [low, high] = [Math.floor(Math.log10(Math.min(...times))), Math.ceil(Math.log10(Math.max(...times)))]
  const x = rate => left + (right - left) * rate / rates.at(-1)
  const y = time => bottom - (bottom - top) * (Math.log10(time) - low) / (high - low)
  const parts = []
  for (let power = low; power <= high; power++) {
    parts.push(`<line x1="${left}" x2="${right}" y1="${y(10 ** power)}" y2="${y(10 ** power)}" stroke="#e2e2e2"/>`)
    parts.push(text(left - 8, y(10 ** power) + 4, timeOf(10 ** power), { anchor: 'end' }))
  }
  for (const rate of rates) parts.push(text(x(rate), bottom + 20, grouped(rate), { anchor: 'middle' }))
  parts.push(text((left + right) / 2, bottom + 40, 'requests per second, at a constant rate', { anchor: 'middle' }))
  let free = top
  for (const { server, key, points } of lines) {
    const path = points.map(({ rate, time }, i) => `${i ? 'L' : 'M'}${x(rate).toFixed(1)} ${y(time).toFixed(1)}`).join(' ')
    parts.push(`<path d="${path}" fill="none" stroke="${colourOf(server)}" stroke-width="${server === 'larder' ? 3 : 2}"${key === 'p50' ? ' stroke-dasharray="5 4"' : ''}/>`)
    for (const { rate, time } of points) parts.push(`<circle cx="${x(rate).toFixed(1)}" cy="${y(time).toFixed(1)}" r="3" fill="${colourOf(server)}"/>`)
    if (key !== 'p999') continue
    parts.push(`<rect x="${right + 18}" y="${free - 9}" width="10" height="10" fill="${colourOf(server)}"/>`, text(right + 34, free, titleOf(server)))
    free += 20
  }
  parts.push(text(right + 18, free + 14, '— p99.9'), text(right + 18, free + 32, '- - p50'))
  return svg(bottom + 56, 'Latency of hits of 1 KiB, 64 connections', parts)
}

function svg (height, title, parts) {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="system-ui, sans-serif" font-size="12">`,
    `<title>${escaped(title)}</title>`, `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    text(16, 26, title, { weight: 700, size: 15 }), ...parts,
    text(WIDTH - 12, height - 6, `measured ${results.date}`, { anchor: 'end', size: 10 }), '</svg>', ''
  ].join('\n')
}

function text (x, y, said, { anchor = 'start', weight = 400, size = 12 } = {}) {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}" font-weight="${weight}" font-size="${size}" fill="#222222">${escaped(said)}</text>`
}

function escaped (said) {
  return said.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
}

function family (server) {
  return server.split('-')[0]
}

function titleOf (server) {
  return VARIANTS[server] ?? TITLES[family(server)] ?? server
}

function colourOf (server) {
  return COLOURS[family(server)] ?? '#999999'
}

function timeOf (microseconds) {
  return microseconds < 1000 ? `${microseconds} µs` : microseconds < 1e6 ? `${microseconds / 1000} ms` : `${microseconds / 1e6} s`
}

// A scheduled warm-up before FastAPI with its GZip and CORS middlewares: the page of another origin in a real browser hits what was fetched ahead, may read
// it, and reads in X-API-Cache that it was a hit.

import { createServer } from 'node:http'
import { Chromium } from '../events/chromium.mjs'
import { freePort } from '../process.mjs'
import { startFramework, startProxy } from './frameworks.mjs'

/** Longer than the minute that a schedule may take. */
const PATIENCE = 70_000

/** Fetches a target in a page, and returns what its script can see. */
const READ = url => `fetch(${JSON.stringify(url)}).then(async answer => ({
  word: answer.headers.get('x-api-cache'), detail: answer.headers.get('cache-status'), name: (await answer.json()).name
}), error => ({ word: String(error) }))`

export async function warmUps (where, tally) {
  const pages = createServer((_, answer) => answer.setHeader('content-type', 'text/html').end('<!doctype html>'))
  await new Promise(resolve => pages.listen(0, '127.0.0.1', resolve))
  const page = `http://127.0.0.1:${pages.address().port}`
  const framework = await startFramework('FastAPI with CORS', { ...where, env: { PAGE: page } })
  const browser = await Chromium.start(where.chromium)
  const script = await browser.open(`${page}/`)
  await Promise.all([
    asConfigured({ where, framework, page, script, tally }),
    asClientsSent({ where, framework, script, tally })
  ])
  await browser.stop()
  await framework.stop()
  pages.close()
}

/** No client has come: host and origin of the page stand in the file. */
async function asConfigured ({ where, framework, page, script, tally }) {
  const port = await freePort()
  const extra = `[[schedule]]\ncron = "* * * * *"\nwarm = ["/data/configured"]\nhost = "localhost:${port}"\nheaders = { origin = "${page}" }\n`
  const larder = await startProxy(where.larder, framework, { port, extra })
  await hits({ larder, framework, script, tally }, 'configured')
  await larder.stop()
}

/** A browser has asked for something else: what it sent is sent. */
async function asClientsSent ({ where, framework, script, tally }) {
  const extra = '[[schedule]]\ncron = "* * * * *"\nwarm = ["/data/sent"]\n'
  const larder = await startProxy(where.larder, framework, { extra })
  const first = await script.run(READ(`http://localhost:${larder.port}/data/other`))
  tally.check('what is not stored is a miss', first.word === 'MISS' ? [] : [JSON.stringify(first)])
  await hits({ larder, framework, script, tally }, 'sent')
  await larder.stop()
}

async function hits ({ larder, framework, script, tally }, name) {
  const end = Date.now() + PATIENCE
  while (await times(framework, name) === 0) {
    if (Date.now() > end) return tally.check(`${name}: the warm-up`, ['did not come'])
    await new Promise(resolve => setTimeout(resolve, 200))
  }
  await new Promise(resolve => setTimeout(resolve, 500))
  const seen = await script.run(READ(`http://localhost:${larder.port}/data/${name}`))
  const isHit = seen.word === 'HIT' && seen.name === name && seen.detail?.includes('hit')
  tally.check(`${name}: the page hits what was warmed, and reads it`, isHit ? [] : [JSON.stringify(seen)])
  const count = await times(framework, name)
  tally.check(`${name}: only the warm-up reached the application`, count === 1 ? [] : [`${count} requests`])
}

async function times (framework, name) {
  return (await (await fetch(`${framework.url}/asked/${name}`)).json()).times
}

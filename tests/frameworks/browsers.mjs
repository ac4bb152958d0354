// Chromium over TLS and HTTP/2, where it splits its cookies into many fields: it keeps its session at the application behind Larder, and two browsers
// never see each other's pages.

import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { Chromium } from '../events/chromium.mjs'
import { scratch } from '../process.mjs'
import { startFramework, startProxy } from './frameworks.mjs'

/** Analytics cookies that the application sets beside its session. */
const COOKIES = 12

/** How often each browser asks for its page. */
const ROUNDS = 5

const CACHED = `
[[route]]
name = "all"
match = "/**"
ttl = "60s"
`

/** Flask and Django with sessions, each with two browsers. */
export async function browsers (where, tally) {
  const certificate = selfSigned()
  const tls = `[tls]\ncert = "${certificate.cert}"\nkey = "${certificate.key}"\n`
  const both = await Promise.all([Chromium.start(where.chromium), Chromium.start(where.chromium)])
  for (const name of ['Flask', 'Django']) {
    const framework = await startFramework(name, where)
    const larder = await startProxy(where.larder, framework, { extra: `${tls}${CACHED}` })
    await visit(`https://localhost:${larder.port}`, name, both, tally)
    await larder.stop()
    await framework.stop()
  }
  await Promise.all(both.map(browser => browser.stop()))
}

async function visit (base, name, [first, second], tally) {
  const pages = { alice: await first.open(`${base}/`), bob: await second.open(`${base}/`) }
  const stranger = await ask(pages.bob, '/me')
  tally.check(`${name}: nobody is logged in`, stranger.status === 401 ? [] : [JSON.stringify(stranger)])
  for (const [user, page] of Object.entries(pages)) {
    const answer = await ask(page, `/login?user=${user}&cookies=${COOKIES}`)
    tally.check(`${name}: ${user} logs in`, answer.status === 200 ? [] : [JSON.stringify(answer)])
    const protocol = await page.run('performance.getEntriesByType("resource").at(-1).nextHopProtocol')
    tally.check(`${name}: ${user} speaks HTTP/2`, protocol === 'h2' ? [] : [protocol])
  }
  for (let round = 1; round <= ROUNDS; round += 1) {
    for (const [user, page] of Object.entries(pages)) {
      for (const path of ['/me', '/account/me']) {
        const { status, body } = await ask(page, path)
        tally.check(`${name}: ${path} is ${user}'s, round ${round}`, status === 200 && body.user === user ? [] : [`${status} ${JSON.stringify(body)}`])
      }
    }
  }
  if (name === 'Django') for (const [user, page] of Object.entries(pages)) await submit(page, user, tally)
}

/** A form with Django's CSRF protection: its cookie has to arrive beside the session's. */
async function submit (page, user, tally) {
  const token = 'document.cookie.split("; ").find(cookie => cookie.startsWith("csrftoken=")).slice(10)'
  const { status, body } = await ask(page, '/note', `{ method: 'POST', headers: { 'X-CSRFToken': ${token} } }`)
  tally.check(`Django: ${user} sends a form`, status === 200 && body.user === user ? [] : [`${status} ${JSON.stringify(body)}`])
}

/** What `fetch` in the page is answered. */
function ask (page, path, options = '{}') {
  return page.run(`fetch(${JSON.stringify(path)}, ${options}).then(async answer => {
    const text = await answer.text()
    try { return { status: answer.status, body: JSON.parse(text) } } catch { return { status: answer.status, body: text.slice(0, 300) } }
  })`)
}

function selfSigned () {
  const folder = scratch()
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=localhost',
    '-addext', 'subjectAltName=DNS:localhost', '-keyout', key, '-out', cert], { stdio: 'ignore' })
  return { cert, key }
}

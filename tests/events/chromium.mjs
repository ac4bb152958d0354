// A headless Chromium with an empty profile, driven through pipes by the DevTools protocol: no port, no driver, no package.

import { scratch, sleep, start } from '../process.mjs'

const SWITCHES = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-dev-shm-usage', '--no-first-run', '--no-default-browser-check',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-breakpad', '--disable-extensions',
  '--disable-background-timer-throttling', '--disable-renderer-backgrounding', '--no-proxy-server', '--remote-debugging-pipe'
]

/** How long the browser may take for an answer, in milliseconds. */
const PATIENCE = 20_000

export class Chromium {
  #process
  #waiting = new Map()
  #calls = 0
  #unread = ''

  /** A browser that has answered. */
  static async start (command) {
    const browser = new Chromium()
    browser.#process = start([command, ...SWITCHES, `--user-data-dir=${scratch()}`, 'about:blank'], { pipes: true })
    const [, out] = browser.#process.pipes
    out.setEncoding('utf8').on('data', text => browser.#take(text))
    const { product } = await browser.#call('Browser.getVersion')
    browser.product = product
    return browser
  }

  /** Opens a page, and waits until it is loaded. */
  async open (url) {
    const { targetId } = await this.#call('Target.createTarget', { url: 'about:blank' })
    const { sessionId } = await this.#call('Target.attachToTarget', { targetId, flatten: true })
    const page = new Page((method, parameters) => this.#call(method, parameters, sessionId))
    await page.go(url)
    return page
  }

  stop () {
    return this.#process.stop()
  }

  async #call (method, params = {}, sessionId) {
    const id = this.#calls += 1
    const answer = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }))
    this.#process.pipes[0].write(`${JSON.stringify({ id, method, params, sessionId })}\0`)
    const late = sleep(PATIENCE).then(() => { throw new Error(`Chromium does not answer to ${method}\n${this.#process.tail()}`) })
    late.catch(() => {})
    return Promise.race([answer, late])
  }

  #take (text) {
    const messages = (this.#unread + text).split('\0')
    this.#unread = messages.pop()
    for (const { id, result, error } of messages.map(message => JSON.parse(message))) {
      const waiting = this.#waiting.get(id)
      this.#waiting.delete(id)
      if (error) waiting?.reject(new Error(error.message))
      else waiting?.resolve(result)
    }
  }
}

class Page {
  constructor (call) {
    this.call = call
  }

  async go (url) {
    const { errorText } = await this.call('Page.navigate', { url })
    if (errorText) throw new Error(`${url}: ${errorText}`)
    const isThere = `document.readyState === 'complete' && location.href === ${JSON.stringify(url)}`
    for (const deadline = Date.now() + PATIENCE; !await this.run(isThere);) {
      if (Date.now() > deadline) throw new Error(`${url} does not load`)
      await sleep(20)
    }
  }

  /** What an expression is in the page. */
  async run (expression) {
    const { result, exceptionDetails } = await this.call('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true })
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
    return result.value
  }
}

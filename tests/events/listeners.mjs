// Who listens: an `EventSource` in a page of Chromium, or node's of the package `eventsource`. Each keeps what it heard, in order.

/** What an EventSource keeps; runs in pages as well. */
function listen (EventSource, url) {
  const source = new EventSource(url)
  const listener = { source, heard: [], opened: 0, failed: 0 }
  for (const type of ['hello', 'purge', 'reset']) {
    source.addEventListener(type, event => listener.heard.push({ type, id: event.lastEventId, ...JSON.parse(event.data) }))
  }
  source.addEventListener('message', event => listener.heard.push({ type: 'message', data: event.data }))
  source.addEventListener('open', () => { listener.opened += 1 })
  source.addEventListener('error', () => { listener.failed += 1 })
  return listener
}

export class InPage {
  constructor (name, page, url) {
    Object.assign(this, { name, page, url })
  }

  open () {
    return this.page.run(`(() => {
      globalThis.listeners ??= {}
      globalThis.listeners[${JSON.stringify(this.name)}] = (${listen})(EventSource, ${JSON.stringify(this.url)})
    })()`)
  }

  /** What it heard, and how it stands. */
  state () {
    const own = `globalThis.listeners[${JSON.stringify(this.name)}]`
    return this.page.run(`({ heard: ${own}.heard, opened: ${own}.opened, failed: ${own}.failed, readyState: ${own}.source.readyState })`)
  }

  close () {
    return this.page.run(`globalThis.listeners[${JSON.stringify(this.name)}].source.close()`)
  }
}

export class InNode {
  constructor (name, EventSource, url) {
    Object.assign(this, { name, EventSource, url })
  }

  async open () {
    this.listener = listen(this.EventSource, this.url)
  }

  async state () {
    const { heard, opened, failed, source } = this.listener
    return { heard, opened, failed, readyState: source.readyState }
  }

  async close () {
    this.listener.source.close()
  }
}

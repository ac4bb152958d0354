// What the users of a run met.

export class Tally {
  requests = 0
  checks = 0
  asked = {} // by method and resource
  words = {} // X-API-Cache
  reasons = {} // why not a hit
  stale = [] // reads that did not see a write of their user
  foreign = [] // answers of another user
  lost = [] // what a purge took from a user who did not write
  again = {} // why else the origin was asked for what the user had read before, by reason
  failures = []
  times = []

  count (counts, name) {
    counts[name] = (counts[name] ?? 0) + 1
  }

  /** Notes that something was no hit although its user had read it, and has written nothing to it since. */
  note (what, word, status) {
    const reason = /detail="?([a-z-]+)/.exec(status)?.[1] ?? 'no reason'
    if (reason === 'recheck' || reason === 'cold' || reason === 'vary-mismatch') this.count(this.again, reason)
    else this.lost.push(`${what}: ${word} ${status}`)
  }

  /** Median and 99th percentile of the reads. */
  latencies () {
    const sorted = [...this.times].sort((one, other) => one - other)
    const at = share => (sorted[Math.floor(sorted.length * share)] ?? 0).toFixed(1)
    return `${at(0.5)} ms, ${at(0.99)} ms`
  }
}

// What the users of a run met.

export class Tally {
  requests = 0
  checks = 0
  asked = {} // by method and resource
  words = {} // X-API-Cache
  reasons = {} // why not a hit
  stale = [] // reads that did not see a write of their user
  foreign = [] // answers of another user
  lost = [] // what was stored for a user and is not any more, without a write of theirs
  failures = []
  times = []

  count (counts, name) {
    counts[name] = (counts[name] ?? 0) + 1
  }

  /** Median and 99th percentile of the reads. */
  latencies () {
    const sorted = [...this.times].sort((one, other) => one - other)
    const at = share => (sorted[Math.floor(sorted.length * share)] ?? 0).toFixed(1)
    return `${at(0.5)} ms, ${at(0.99)} ms`
  }
}

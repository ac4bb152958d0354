// Random choices from a seed (mulberry32): the same seed makes the same choices.

export class Random {
  constructor (seed) { this.state = seed >>> 0 }

  next () {
    this.state = this.state + 0x6d2b79f5 >>> 0
    let mixed = Math.imul(this.state ^ this.state >>> 15, this.state | 1)
    mixed ^= mixed + Math.imul(mixed ^ mixed >>> 7, mixed | 61)
    return ((mixed ^ mixed >>> 14) >>> 0) / 4294967296
  }

  below (count) { return Math.floor(this.next() * count) }
  between (min, max) { return min + this.next() * (max - min) }
  oneIn (count) { return this.below(count) === 0 }
  pick (list) { return list[this.below(list.length)] }

  shuffled (list) {
    const all = [...list]
    for (let end = all.length - 1; end > 0; end--) {
      const other = this.below(end + 1);
      [all[end], all[other]] = [all[other], all[end]]
    }
    return all
  }
}

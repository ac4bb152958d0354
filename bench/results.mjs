// RESULTS.md: the page of the bench, and after it sections that other measurements keep up by themselves.

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const FILE = join(dirname(fileURLToPath(import.meta.url)), 'RESULTS.md')
const OWN = ['Purging', 'A trading journal behind login', 'Hostile clients', 'Chaos'] // sections that are not of the page

/** Writes the page of `bench.mjs`; the other sections stay. */
export function writePage (text) {
  writeFileSync(FILE, [wrapped(text.trimEnd()), ...OWN.flatMap(title => section(title) ?? [])].join('\n\n') + '\n')
}

/** Wraps the prose at 100 columns. */
function wrapped (text) {
  const lines = text.split('\n').map(line => /^[|#]/.test(line) ? line : line.replace(/(.{1,100})(?: |$)/g, '$1\n').trimEnd())
  return lines.join('\n')
}

/** Writes one of the other sections; the rest stays. */
export function writeSection (title, lines) {
  const text = wrapped([`## ${title}`, '', ...lines].join('\n').trimEnd())
  const old = section(title)
  const page = read()
  writeFileSync(FILE, old ? page.replace(old, () => text) : `${page.trimEnd()}\n\n${text}\n`)
}

/** A section with its title, without the empty lines after it. */
function section (title) {
  return new RegExp(`^## ${title}\\n[^]*?(?=\\n+## |\\n*$(?![^]))`, 'm').exec(read())?.[0]
}

function read () {
  return existsSync(FILE) ? readFileSync(FILE, 'utf8') : ''
}

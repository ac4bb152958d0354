// Instructions of a request in user space, of one build of Larder or of two (`callgrind.mjs`). Fails if the first takes more than the second by
// a limit. `fence.sh` builds both.
//
//   node bench/count.mjs --larder PATH [--twin PATH] [--kinds plain,browser,…] [--path PATH] [--limit PERCENT] [--keep FOLDER]
//
// The kinds are those of `requests.mjs`; `--path` asks for another path instead of theirs, `--keep` gets callgrind's file of each
// kind, in a folder for each build.

import { join } from 'node:path'
import { options } from '../tests/process.mjs'
import { instructions } from './callgrind.mjs'
import { requests } from './requests.mjs'

const given = options({ larder: '', twin: '', kinds: 'plain', path: '', limit: '3', keep: '' })
const names = ['larder', 'twin'].filter(name => given[name])
const kinds = given.kinds.split(',')
for (const kind of kinds) if (!requests[kind]) throw new Error(`no kind ${kind}; known: ${Object.keys(requests).join(', ')}`)
const counted = {}
for (const name of names) counted[name] = await instructions(given[name], kinds, { path: given.path, keep: given.keep && join(given.keep, name) })

console.log(['', 'instructions', 'of them SHA-256', 'without', 'spread'].join('\t'))
for (const kind of kinds) {
  for (const name of names) {
    const { all, digest, spread } = counted[name][kind]
    console.log([`${kind} ${name}`, ...[all, digest, all - digest].map(each => each.toFixed(0)), `${(100 * spread / all).toFixed(2)} %`].join('\t'))
  }
}
if (!given.twin) process.exit(0)
// The key's digest is taken out: valgrind does not have the processor's own instructions for it, and counts ten times as many.
let isUnder = true
for (const kind of kinds) {
  const [larder, twin] = names.map(name => counted[name][kind].all - counted[name][kind].digest)
  const more = 100 * (larder / twin - 1)
  isUnder &&= more < Number(given.limit)
  console.log(`${more < Number(given.limit) ? 'passed' : 'FAILED'} ${kind}: ${more.toFixed(2)} % more instructions, ${given.limit} % are allowed`)
}
process.exit(isUnder ? 0 : 1)

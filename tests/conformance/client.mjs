// One pass of the suite's own client: node client.mjs SUITE BASE_URL OUTPUT [ID…]. A process of its own, because the suite
// keeps results, and what it filled into its test data, in module state.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { suites } from './suite.mjs'

const [suite, baseUrl, output, ...ids] = process.argv.slice(2)
const { runTests, getResults } = await import(pathToFileURL(join(suite, 'client', 'runner.mjs')))
const fetch = createRequire(join(suite, 'package.json'))('node-fetch')

const wanted = (await suites(suite)).map(set => ({
  ...set,
  tests: set.tests
    .filter(test => ids.length === 0 || ids.includes(test.id))
    .map(test => ({ ...test, dump: process.env.DUMP === '1' }))
}))
await runTests(wanted, fetch, false, baseUrl)
writeFileSync(output, JSON.stringify(getResults()))

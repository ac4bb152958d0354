// One pass of the suite's own client: node client.mjs SUITE BASE_URL OUTPUT [ID…]. A process of its own, because the suite
// keeps results, and what it filled into its test data, in module state.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createRequire } from 'node:module'
import { engine, isCheckout, suites } from './suite.mjs'

const [suite, baseUrl, output, ...ids] = process.argv.slice(2)
const { runTests, getResults } = await import(engine(suite, 'client', 'runner.mjs'))
// The npm release takes a fetch function as its second argument; a checkout uses Node's own.
const transport = isCheckout(suite) ? [] : [createRequire(join(suite, 'package.json'))('node-fetch')]

const wanted = (await suites(suite)).map(set => ({
  ...set,
  tests: set.tests
    .filter(test => ids.length === 0 || ids.includes(test.id))
    .map(test => ({ ...test, dump: process.env.DUMP === '1' }))
}))
await runTests(wanted, ...transport, false, baseUrl)
writeFileSync(output, JSON.stringify(getResults()))

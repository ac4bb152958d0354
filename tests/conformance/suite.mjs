// What http-cache-tests holds, where its parts are, and what a raw result of it means.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

/** Whether a folder is a checkout of the suite's repository. The npm release has another layout, and is older. */
export function isCheckout (folder) {
  return existsSync(join(folder, 'test-engine'))
}

/** A module of the suite's client or server. */
export function engine (folder, ...path) {
  return pathToFileURL(join(folder, isCheckout(folder) ? 'test-engine' : '.', ...path))
}

/** The groups of tests that apply outside a browser; the optional Surrogate-Control group, which only the npm release has, comes last. */
export async function suites (folder) {
  const load = async name => (await import(pathToFileURL(join(folder, 'tests', name)))).default
  const groups = await load('index.mjs')
  const optional = existsSync(join(folder, 'tests', 'surrogate-control.mjs')) ? [await load('surrogate-control.mjs')] : []
  return [...groups, ...optional].map(set => ({
    ...set,
    tests: set.tests.filter(test => test.browser_only !== true).map(test => ({ ...test, group: set.id }))
  }))
}

/**
 * The verdict of each test, by the rules of the suite's `lib/display.mjs`:
 * pass · fail (kinds required and optimal) · yes · no (kind check: behaviour without a right or wrong) ·
 * setup (what the test builds on did not happen) · retry (the proxy sent a request twice) ·
 * dependency (a test it depends on did not pass) · inapplicable (it depends on a behaviour that the proxy does not have:
 * a check answered with no) · harness (no answer at all) · untested.
 */
export function verdicts (tests, results) {
  const byId = new Map(tests.map(test => [test.id, test]))
  const own = id => {
    const result = results[id]
    const isCheck = byId.get(id).kind === 'check'
    if (result === undefined) return 'untested'
    if (result === true) return isCheck ? 'yes' : 'pass'
    if (result[0] === 'Setup') return result[1] === 'retry' ? 'retry' : 'setup'
    if (result[0] !== 'Assertion') return 'harness'
    return isCheck ? 'no' : 'fail'
  }
  const judge = id => {
    const dependencies = byId.get(id).depends_on ?? []
    const isMet = dependency => byId.has(dependency) && ['pass', 'yes'].includes(judge(dependency))
    const unmet = dependencies.filter(dependency => !isMet(dependency))
    if (unmet.length === 0) return own(id)
    return unmet.every(dependency => byId.has(dependency) && judge(dependency) === 'no') ? 'inapplicable' : 'dependency'
  }
  return new Map(tests.map(test => [test.id, { verdict: judge(test.id), own: own(test.id), detail: detail(results[test.id]) }]))
}

function detail (result) {
  return Array.isArray(result) ? `${result[0]}: ${result[1]}` : ''
}

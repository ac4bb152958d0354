// The clients that ask: Apollo Client, urql, and `fetch` as Relay's network layer does. Each asks one URL and keeps nothing itself, so that every request reaches it.

import { createHash } from 'node:crypto'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const sha256 = text => createHash('sha256').update(text).digest('hex')

/** The clients by name. `persisted` sends hashes of documents (by GET where `byGet`) instead of documents. */
export function clientsOf (packages) {
  const load = createRequire(join(packages, 'package.json'))
  return {
    'Apollo Client': options => apollo(load, options),
    urql: options => urql(load, options),
    Relay: options => relay(options)
  }
}

/** Counts what the cache says of each answer. */
function recording (answers) {
  return async (url, init) => {
    const response = await fetch(url, init)
    answers.push({ cache: response.headers.get('x-api-cache'), status: response.headers.get('cache-status') ?? '', method: init.method ?? 'GET' })
    return response
  }
}

function apollo (load, { url, persisted = false, byGet = false }) {
  const { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } = load('@apollo/client')
  const { PersistedQueryLink } = load('@apollo/client/link/persisted-queries')
  const answers = []
  const http = new HttpLink({ uri: `${url}/graphql`, fetch: recording(answers) })
  const link = persisted ? ApolloLink.from([new PersistedQueryLink({ sha256, useGETForHashedQueries: byGet }), http]) : http
  const options = { fetchPolicy: 'no-cache', errorPolicy: 'all' }
  const client = new ApolloClient({ link, cache: new InMemoryCache(), defaultOptions: { query: options, mutate: options } })
  return {
    answers,
    query: async (text, variables) => (await client.query({ query: gql(text), variables })).data,
    mutate: async (text, variables) => (await client.mutate({ mutation: gql(text), variables })).data
  }
}

function urql (load, { url, persisted = false, byGet = false }) {
  const { Client, fetchExchange } = load('@urql/core')
  const { persistedExchange } = load('@urql/exchange-persisted')
  const answers = []
  const exchanges = persisted ? [persistedExchange({ preferGetForPersistedQueries: byGet }), fetchExchange] : [fetchExchange]
  const client = new Client({ url: `${url}/graphql`, exchanges, fetch: recording(answers), requestPolicy: 'network-only', preferGetMethod: false, fetchOptions: { headers: { 'apollo-require-preflight': 'true' } } })
  return {
    answers,
    query: async (text, variables) => (await client.query(text, variables ?? {}).toPromise()).data,
    mutate: async (text, variables) => (await client.mutation(text, variables ?? {}).toPromise()).data
  }
}

/** What Relay's documentation shows as `fetchQuery`; with `persisted`, documents by their name. */
function relay ({ url }) {
  const answers = []
  const ask = async (query, variables) => {
    const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ query, variables }) }
    return (await (await recording(answers)(`${url}/graphql`, init)).json()).data
  }
  return { answers, query: ask, mutate: ask }
}

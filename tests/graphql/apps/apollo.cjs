// Apollo Server behind Express. NODE_PATH leads to its packages.
//   node apollo.cjs PORT

const express = require('express')
const { ApolloServer } = require('@apollo/server')
const { ApolloServerPluginCacheControl } = require('@apollo/server/plugin/cacheControl')
const { expressMiddleware } = require('@as-integrations/express5')
const { SCHEMA, resolvers, calls } = require('./shop.cjs')

async function main () {
  // By default, Apollo Server sends `Cache-Control: no-store` with all that has no @cacheControl.
  const plugins = [ApolloServerPluginCacheControl({ calculateHttpHeaders: 'if-cacheable' })]
  const server = new ApolloServer({ typeDefs: SCHEMA, resolvers, plugins, introspection: true, allowBatchedHttpRequests: true, includeStacktraceInErrorResponses: false })
  await server.start()
  const app = express()
  app.get('/calls', (request, response) => { response.json(calls) })
  app.use('/graphql', express.json(), expressMiddleware(server))
  app.listen(Number(process.argv[2]), '127.0.0.1')
}

main()

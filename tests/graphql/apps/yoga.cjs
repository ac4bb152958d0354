// GraphQL Yoga. NODE_PATH leads to its packages.
//   node yoga.cjs PORT

const http = require('node:http')
const { createSchema, createYoga } = require('graphql-yoga')
const { useAPQ } = require('@graphql-yoga/plugin-apq')
const { SCHEMA, resolvers, calls } = require('./shop.cjs')

const yoga = createYoga({ schema: createSchema({ typeDefs: SCHEMA, resolvers }), plugins: [useAPQ()], batching: true, logging: false })
const server = http.createServer((request, response) => {
  if (request.url === '/calls') return response.end(JSON.stringify(calls))
  return yoga(request, response)
})
server.listen(Number(process.argv[2]), '127.0.0.1')

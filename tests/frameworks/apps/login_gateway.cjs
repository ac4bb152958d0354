// What stands around Larder where a gateway logs users in. On one port the service that the gateway asks who a session is of (`/auth`), and the API, which
// believes the field of the gateway.
//   node login_gateway.cjs PORT

const express = require('express')

const app = express()
const orders = new Map()
app.get('/ready', (_, response) => response.json({}))
app.get('/auth', (request, response) => {
  const name = /session=session-of-(\w+)/.exec(request.get('cookie') ?? '')?.[1]
  if (!name) return response.status(401).end()
  response.set('X-User-Id', name).end()
})
app.use((request, response, next) => {
  request.user = request.get('x-user-id')
  if (request.user) next()
  else response.status(401).end()
})
app.get('/api/orders', (request, response) => response.json({ user: request.user, orders: orders.get(request.user) ?? [] }))
app.post('/api/orders', ({ user }, response) => {
  orders.set(user, [...orders.get(user) ?? [], 'an order'])
  response.status(201).json({ user })
})
app.get('/api/quotes', (_, response) => response.json({ quotes: { ACME: 42 } }))
app.listen(Number(process.argv[2]), '127.0.0.1')

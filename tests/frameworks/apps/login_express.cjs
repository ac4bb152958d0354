// Express behind a login by JWT: the list of each user, and quotes for all who are logged in. NODE_PATH leads to its packages.
//   node login_express.cjs PORT

const express = require('express')
const jwt = require('jsonwebtoken')

const SECRET = 'the-secret-of-the-examples-32-bytes'
const OPTIONS = { issuer: 'https://login.example', audience: 'api' }
const app = express()
const orders = new Map()

app.get('/ready', (_, response) => response.json({}))
app.post('/login', ({ query }, response) => {
  response.json({ token: jwt.sign({}, SECRET, { ...OPTIONS, subject: query.name, expiresIn: Number(query.seconds ?? 600) }) })
})
app.use((request, response, next) => {
  try {
    request.user = jwt.verify(request.get('authorization')?.replace(/^Bearer /, ''), SECRET, { ...OPTIONS, algorithms: ['HS256'] }).sub
    next()
  } catch {
    response.status(401).set('WWW-Authenticate', 'Bearer').json({ error: 'log in' })
  }
})
app.get('/api/orders', ({ user }, response) => response.json({ user, orders: orders.get(user) ?? [] }))
app.post('/api/orders', ({ user }, response) => {
  orders.set(user, [...orders.get(user) ?? [], 'an order'])
  response.status(201).json({ user })
})
app.get('/api/quotes', (_, response) => response.json({ quotes: { ACME: 42 } }))
app.listen(Number(process.argv[2]), '127.0.0.1')

// Not Spring, which no Debian package of today brings: an API that sends the fields of Spring Security 6 as its documentation lists them. With
// `--api`, those of its cache control are left out, as `headers.cacheControl(c -> c.disable())` does.
//   node login_spring.cjs PORT [--api]

const express = require('express')
const jwt = require('jsonwebtoken')

const SECRET = 'the-secret-of-the-examples-32-bytes'
const OPTIONS = { issuer: 'https://login.example', audience: 'api' }
const CACHE_CONTROL = { 'Cache-Control': 'no-cache, no-store, max-age=0, must-revalidate', Pragma: 'no-cache', Expires: '0' }
const app = express()
const orders = new Map()
app.disable('x-powered-by')

app.use((_, response, next) => {
  response.set({ 'X-Content-Type-Options': 'nosniff', 'X-XSS-Protection': '0', 'X-Frame-Options': 'DENY' })
  response.vary(['Origin', 'Access-Control-Request-Method', 'Access-Control-Request-Headers'])
  if (!process.argv.includes('--api')) response.set(CACHE_CONTROL)
  next()
})
app.get('/ready', (_, response) => response.json({}))
app.post('/login', ({ query }, response) => {
  response.json({ token: jwt.sign({}, SECRET, { ...OPTIONS, subject: query.name, expiresIn: Number(query.seconds ?? 600) }) })
})
app.use((request, response, next) => {
  try {
    request.user = jwt.verify(request.get('authorization')?.replace(/^Bearer /, ''), SECRET, { ...OPTIONS, algorithms: ['HS256'] }).sub
    next()
  } catch {
    response.status(401).set('WWW-Authenticate', 'Bearer').end()
  }
})
app.get('/api/orders', ({ user }, response) => response.json({ user, orders: orders.get(user) ?? [] }))
app.post('/api/orders', ({ user }, response) => {
  orders.set(user, [...orders.get(user) ?? [], 'an order'])
  response.status(201).json({ user })
})
app.get('/api/quotes', (_, response) => response.json({ quotes: { ACME: 42 } }))
app.listen(Number(process.argv[2]), '127.0.0.1')

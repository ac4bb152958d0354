// Express: what it makes of a request, route by route. NODE_PATH leads to its packages.
//   node express.cjs PORT

const express = require('express')
const cookies = require('cookie-parser')
const session = require('express-session')
const override = require('method-override')

const app = express()
app.set('trust proxy', true)
app.set('query parser', 'extended')
for (const name of ['X-HTTP-Method', 'X-HTTP-Method-Override', 'X-Method-Override']) app.use(override(name, { methods: null }))
app.use((request, _, next) => {
  const target = request.get('x-original-url') ?? request.get('x-rewrite-url')
  if (target?.startsWith('/')) request.url = target
  next()
})
app.use(cookies())
app.use(session({ secret: 'secret', resave: false, saveUninitialized: false }))

const FORWARDING = ['x-host', 'x-original-host', 'front-end-https', 'x-url-scheme', 'x-forwarded-prefix', 'x-forwarded-server', 'x-forwarded-scheme', 'x-forwarded-ssl']

app.get('/api/:name', ({ params }, response) => response.json({ route: 'stocks', ...params }))
app.delete('/api/:name', ({ params }, response) => response.json({ route: 'deleted', ...params }))
app.get('/projects/:id', ({ params }, response) => response.json({ route: 'project', ...params }))
app.get('/projects/:id/:file', ({ params }, response) => response.json({ route: 'file', ...params }))
app.get('/static/*path', ({ params }, response) => response.json({ route: 'static', ...params }))
app.get('/cached/*path', ({ params, query }, response) => response.set('Cache-Control', 'max-age=60').json({ route: 'cached', ...params, query }))
app.get('/links', (request, response) => response.json({
  route: 'links',
  link: `${request.protocol}://${request.host}/links`,
  further: Object.fromEntries(FORWARDING.map(name => [name, request.get(name)]))
}))
app.get('/search', ({ query }, response) => response.json({ route: 'search', query }))
app.get('/only', ({ query }, response) => response.json({ route: 'only', query }))
app.get('/theme', ({ cookies }, response) => response.json({ route: 'theme', theme: cookies.theme }))
app.get('/cookies', ({ cookies }, response) => response.set('Cache-Control', 'public, max-age=60').vary('Cookie').json({ route: 'cookies', cookies }))
app.get('/private', ({ session }, response) => response.set('Cache-Control', 'private, max-age=60').json({ route: 'private', user: session.user }))
app.get('/whoami', (request, response) => response.json({
  route: 'whoami', authorization: request.get('authorization'), key: request.get('x-api-key'), token: request.query.access_token
}))
app.get('/greet', (request, response) => {
  const language = request.acceptsLanguages(['en', 'de', 'fr']) || 'en'
  response.set({ 'Cache-Control': 'max-age=60', 'Content-Language': language }).vary('Accept-Language').json({ route: 'greet', language })
})
app.get('/large', (_, response) => response.set('Cache-Control', 'max-age=60').json({ route: 'large', text: 'large '.repeat(500) }))
app.get(['/account/me', '/me'], ({ session }, response) => response.status(session.user ? 200 : 401).json({ route: 'me', user: session.user }))
app.get('/login', (request, response) => {
  request.session.user = request.query.user
  response.json({ route: 'login' })
})
app.use((request, response) => response.status(404).json({ route: 'none', path: request.path }))
app.listen(Number(process.argv[2]), '127.0.0.1')

// Koa: what it makes of a request, route by route. NODE_PATH leads to its packages.
//   node koa.cjs PORT

const Koa = require('koa')
const { Router } = require('@koa/router')
const sessions = require('koa-session')
const session = sessions.default ?? sessions

const app = new Koa({ proxy: true })
app.keys = ['secret']
app.use(async (context, next) => {
  const method = ['x-http-method', 'x-http-method-override', 'x-method-override'].map(name => context.get(name)).find(Boolean)
  if (method) context.method = method.toUpperCase()
  const target = context.get('x-original-url') || context.get('x-rewrite-url')
  if (target.startsWith('/')) context.url = target
  await next()
})
app.use(session(app))

const FORWARDING = ['x-host', 'x-original-host', 'front-end-https', 'x-url-scheme', 'x-forwarded-prefix', 'x-forwarded-server', 'x-forwarded-scheme', 'x-forwarded-ssl']
const router = new Router()
const echo = route => context => { context.body = { route, ...context.params } }
router.get('/api/:name', echo('stocks'))
router.delete('/api/:name', echo('deleted'))
router.get('/projects/:id', echo('project'))
router.get('/projects/:id/:file', echo('file'))
router.get('/static/*path', echo('static'))
router.get('/cached/*path', context => {
  context.set('Cache-Control', 'max-age=60')
  context.body = { route: 'cached', ...context.params, query: context.query }
})
router.get('/links', context => {
  const further = Object.fromEntries(FORWARDING.map(name => [name, context.get(name)]).filter(([, value]) => value))
  context.body = { route: 'links', link: `${context.protocol}://${context.host}/links`, further }
})
router.get('/search', context => { context.body = { route: 'search', query: context.query } })
router.get('/only', context => { context.body = { route: 'only', query: context.query } })
router.get('/theme', context => { context.body = { route: 'theme', theme: context.cookies.get('theme') } })
router.get('/cookies', context => {
  context.set({ 'Cache-Control': 'public, max-age=60', Vary: 'Cookie' })
  context.body = { route: 'cookies', a: context.cookies.get('a'), b: context.cookies.get('b') }
})
router.get('/private', context => {
  context.set('Cache-Control', 'private, max-age=60')
  context.body = { route: 'private', user: context.session.user }
})
router.get('/whoami', context => {
  context.body = { route: 'whoami', authorization: context.get('authorization'), key: context.get('x-api-key'), token: context.query.access_token }
})
router.get('/greet', context => {
  const language = context.acceptsLanguages(['en', 'de', 'fr']) || 'en'
  context.set({ 'Cache-Control': 'max-age=60', 'Content-Language': language, Vary: 'Accept-Language' })
  context.body = { route: 'greet', language }
})
router.get('/large', context => {
  context.set('Cache-Control', 'max-age=60')
  context.body = { route: 'large', text: 'large '.repeat(500) }
})
for (const path of ['/account/me', '/me']) {
  router.get(path, context => {
    const { user } = context.session
    context.status = user ? 200 : 401
    context.body = { route: 'me', user }
  })
}
router.get('/login', context => {
  context.session.user = context.query.user
  context.body = { route: 'login' }
})
app.use(router.routes())
app.use(context => {
  context.status = 404
  context.body = { route: 'none', path: context.path }
})
app.listen(Number(process.argv[2]), '127.0.0.1')

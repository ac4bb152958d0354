// Conversations: an attacker's spelling of a request and a victim's plain one, in both orders, and what may come from the cache.

/** The host that victims ask for. */
export const HOST = 'api.example.test'

const get = (target, further = {}) => ({ target, host: HOST, ...further })
const withFields = (target, ...fields) => get(target, { fields })
const cookies = (target, ...lines) => withFields(target, ...lines.map(line => ['Cookie', line]))
const as = (user, target) => get(target, { user })
const hit = request => ({ ...request, hit: true })

/** Both orders of an attacker's request and the victim's, twice each. */
function pair (attack, victim) {
  const name = describe(attack)
  return [
    { name: `${name}, then ${describe(victim)}`, requests: [attack, victim, attack, victim] },
    { name: `${describe(victim)}, then ${name}`, requests: [victim, attack, victim, attack] }
  ]
}

/** A request in one line. */
export function describe ({ method = 'GET', target, host, fields = [], user, isHttp2 }) {
  const parts = [isHttp2 && 'HTTP/2', user && `${user}:`, method === 'GET' ? '' : method, target, host === HOST ? '' : `Host: ${host}`, ...fields.map(field => field.join(': '))]
  return parts.filter(Boolean).join(' ')
}

// ── Paths ──

const STOCKS = [
  '/api/%73tocks', '/%61pi/stocks', '/api/%2573tocks', '/API/stocks', '/api/STOCKS', '/api/stocks/', '//api/stocks', '/api//stocks', '/api/./stocks',
  '/./api/stocks', '/x/../api/stocks', '/api/x/../stocks', '/api/x/%2e%2e/stocks', '/api/%2e/stocks', '/api/x%2f..%2fstocks', '/api%2fstocks', '/api%2Fstocks',
  '/api%252fstocks', '/api\\stocks', '/api%5cstocks', '/api/stocks;x=1', '/api;x/stocks', '/api/;/stocks', '/api/stocks?', '/api/stocks%3f', '/api/stocks%00',
  '/api/stocks%20', '/api/stocks%0a', '/api/stocks%23x', '/api/stocks/.', '/api/stocks/..', '/api/stocks/../stocks', '/api/sto%63ks', '/api/%C5%9Ftocks', '/api/%ff',
  '/api/stocks.', '/api/stocks%2e', '/api/stocks%', '/api/stocks+x', '/api/stocks%2bx'
]
const PROJECTS = ['/projects/a%2Fb', '/projects/a%2fb', '/projects/a%252Fb', '/projects/a%5Cb', '/projects/a\\b', '/projects/a/b/', '/projects//a/b', '/projects/a;v=1/b', '/projects/a/%62']
const ACCOUNT = [
  '/account/me', '//account/me', '/account//me', '/account%2fme', '/account%252fme', '/account;x/me', '/account/me;x', '/account/me/', '/Account/me', '/ACCOUNT/ME',
  '/account\\me', '/account%5cme', '/account/%6de', '/%61ccount/me', '/%2561ccount/me', '/./account/me', '/static/../account/me', '/static/..%2faccount/me',
  '/static/%2e%2e/account/me', '/static/..%5caccount/me', '/static\\..\\account\\me', '/static/..;/account/me', '/static/..%252faccount/me', '/account/me/a.css',
  '/account/me%2fa.css', '/account/me%00.css', '/account/me;a.css', '/account/me?a.css', '/account/me%3fa.css', '/account/x/../me'
]

const CACHED = [
  '/cached/%61', '/cached//a', '/cached/a/', '/cached/./a', '/cached/x/../a', '/cached%2fa', '/CACHED/a', '/cached/A', '/cached/a;x', '/cached\\a', '/cached/a%20', '/cached/%2561',
  '/cached/a%00', '/cached/..%2fcached/a', '/static/..%2fcached/a'
]

function paths () {
  return [
    ...CACHED.flatMap(path => pair(get(path), get('/cached/a'))),
    ...STOCKS.flatMap(path => pair(get(path), get('/api/stocks'))),
    ...PROJECTS.flatMap(path => pair(get(path), get('/projects/a/b'))),
    ...ACCOUNT.flatMap(path => [as('alice', path), as('bob', path)].flatMap(own => [
      { name: `${describe(own)}, then others`, requests: [own, get(path), get('/account/me'), as('carol', path), as('alice', '/account/me'), own] },
      { name: `others, then ${describe(own)}`, requests: [get(path), own, get(path), get('/account/me'), as('carol', '/account/me')] }
    ])),
    { name: 'plain and encoded names come from the cache', requests: [get('/api/stocks'), hit(get('/api/stocks')), get('/api/a%20b'), hit(get('/api/a%20b'))] }
  ]
}

// ── Hosts ──

const HOSTS = [
  'API.Example.TEST', `${HOST}:80`, `${HOST}:`, `${HOST}.`, `${HOST}.:80`, `${HOST}:8080`, `${HOST}:443`, 'evil.test', `evil.test:80@${HOST}`, `${HOST},evil.test`,
  `${HOST}/evil`, `${HOST}:080`, `${HOST}..`, '[::1]', '127.0.0.1'
]

function hosts () {
  const plain = get('/links')
  const absolute = [
    get(`http://${HOST}/links`, { host: 'evil.test' }), get('http://evil.test/links'), get(`HTTP://${HOST.toUpperCase()}:80/links`), get(`https://${HOST}/links`),
    get(`http://${HOST}`), get('http://evil.test:80@x/links')
  ]
  return [
    ...HOSTS.flatMap(host => pair(get('/links', { host }), plain)),
    ...absolute.flatMap(attack => pair(attack, plain)),
    { name: 'spellings of one host share', requests: [plain, ...HOSTS.slice(0, 4).map(host => hit(get('/links', { host })))] }
  ]
}

// ── Queries ──

const SEARCH = [
  'q=1;x=2', 'q=1;q=2', '%71=1', 'q=1&q=2', 'q=2&q=1', 'q=1&Q=2', 'q=1&utm_source=evil', 'utm_source=a;q=2&q=1', 'q=1&utm_source=x%26q=2', 'q=1&%75tm_source=e',
  'q=1&utm%5Fsource=e', 'q=1&utm_source[q]=2', 'q[]=1', 'q[a]=1', 'q=1&', '&q=1', 'q=1&&', 'q=1%00', 'q=+1', 'q=%201', 'q=%2B1', 'q=1&utm_source=', 'q=1&fbclid', 'q=1&amp;q=2',
  'q=1&utm_x=1;q=5', 'utm_x;q=5&q=1', 'q=1&utm_x%00=2', 'q=1&utm_x=%00', 'q=1?q=2', 'q==1', 'q', 'q=', 'q=%ff', 'q=%', 'q=1%3Bq=2', 'q=1#', 'utm_source=evil', 'q%5B%5D=1', 'q%3D1', 'q=1&+utm_a=2'
]
const ONLY = ['page=1&q=5', 'page=1;q=3', 'q=3;page=2&page=1', '%70age=1', 'page=1&page=2', 'page[]=2&page=1', 'Page=2&page=1', 'x=%26page=2&page=1', 'page=1&q', 'page%00=2&page=1', 'page=1%26page=2']

function queries () {
  return [
    ...SEARCH.flatMap(query => pair(get(`/search?${query}`), get('/search?q=1'))),
    ...ONLY.flatMap(query => pair(get(`/only?${query}`), get('/only?page=1'))),
    ...SEARCH.slice(0, 12).flatMap(query => pair(get(`/cached/a?${query}`), get('/cached/a?q=1'))),
    { name: 'parameters outside the key share', requests: [get('/search?q=1'), hit(get('/search?q=1&utm_source=a')), hit(get('/search?fbclid=b&q=1'))] },
    { name: 'only listed parameters count', requests: [get('/only?page=1&x=1'), hit(get('/only?y=2&page=1'))] }
  ]
}

// ── Fields ──

const OVERRIDES = ['X-HTTP-Method', 'X-HTTP-Method-Override', 'X-Method-Override', 'X_HTTP_Method_Override', 'x_method_override'].map(name => [name, 'DELETE'])
const TARGETS = ['X-Original-URL', 'X-Rewrite-URL', 'X_Original_URL', 'X_Rewrite_URL'].map(name => [name, '/account/me'])
const FORWARDING = [
  ['X-Forwarded-Host', 'evil.test'], ['X_Forwarded_Host', 'evil.test'], ['x-forwarded_host', 'evil.test'], ['X-Host', 'evil.test'], ['X_Host', 'evil.test'],
  ['X-Original-Host', 'evil.test'], ['X-Forwarded-Server', 'evil.test'], ['Forwarded', 'host=evil.test;proto=https'], ['X-Forwarded-Proto', 'https'],
  ['X_Forwarded_Proto', 'https'], ['X-Forwarded-Scheme', 'https'], ['X-Url-Scheme', 'https'], ['X-Forwarded-Ssl', 'on'], ['Front-End-Https', 'on'],
  ['X-Forwarded-Port', '444'], ['X-Forwarded-Prefix', '/evil'], ['X_Forwarded_Prefix', '/evil'], ['X-Forwarded-For', '6.6.6.6']
]

function fields () {
  return [
    ...[...OVERRIDES, ...TARGETS].flatMap(field => pair(withFields('/api/stocks', field), get('/api/stocks'))),
    ...TARGETS.map(field => ({ name: `alice with ${field[0]}`, requests: [{ ...withFields('/api/stocks', field), user: 'alice' }, get('/api/stocks'), get('/account/me')] })),
    ...FORWARDING.flatMap(field => pair(withFields('/links', field), get('/links'))),
    ...pair(get('/api/stocks', { method: 'HEAD' }), get('/api/stocks')),
    ...pair(get('/api/stocks', { method: 'OPTIONS' }), get('/api/stocks')),
    ...pair(get('/api/stocks', { method: 'DELETE' }), get('/api/stocks')),
    ...pair(withFields('/api/stocks', ['TE', 'trailers']), get('/api/stocks'))
  ]
}

// ── Credentials and languages ──

const CREDENTIALS = [
  withFields('/whoami', ['Authorization', 'Bearer a']), withFields('/whoami', ['Authorization', 'Bearer b']), withFields('/whoami', ['Authorization', 'Basic YTpi']),
  withFields('/whoami', ['X-API-Key', 'a']), withFields('/whoami', ['X-API-Key', 'b']), withFields('/whoami', ['X_API_Key', 'a']), get('/whoami?access_token=a'),
  get('/whoami?access_token=b'), get('/whoami?%61ccess_token=a'), get('/whoami?access_token=a&access_token=b')
]
const LANGUAGES = [
  ['en'], ['de'], ['DE'], ['de-AT'], ['fr;q=0.5, de;q=0.4'], ['de;q=0.4, fr;q=0.5'], ['fr, de'], ['*'], ['xx, de'], ['xx'], ['de', 'fr'], ['de;q=0'], ['de;q=0, fr'],
  ['fr ;q = 0.1,de'], ['i-klingon, de'], ['de;level=1, fr;q=0.9'], [''], ['de-x-private'], ['en;q=0.001, *;q=0.5']
].map(values => withFields('/greet', ...values.map(value => ['Accept-Language', value])))

const CODINGS = [
  'gzip', 'identity', 'gzip;q=0', 'br', 'gzip, br', 'GZIP', 'x-gzip', '*', '*;q=0', 'identity;q=0', 'gzip;q=0.001', 'deflate, gzip;q=0.5', 'xgzip', 'gzip;q=1;x=2', 'gzip, gzip;q=0', ''
].map(value => withFields('/large', ['Accept-Encoding', value]))

function negotiation () {
  return [
    ...CODINGS.flatMap(request => [...pair(request, get('/large')), ...pair(request, CODINGS[0])]),
    ...CREDENTIALS.flatMap(request => [...pair(request, get('/whoami')), ...pair(request, CREDENTIALS[0]), ...pair(request, CREDENTIALS[7])]),
    ...LANGUAGES.flatMap(request => [...pair(request, get('/greet')), ...pair(request, LANGUAGES[1])]),
    // Of languages with one weight most frameworks take the first.
    ...pair(withFields('/greet', ['Accept-Language', 'de, fr']), withFields('/greet', ['Accept-Language', 'fr, de']))
  ]
}

// ── Cookies and sessions ──

const THEMES = [
  ['theme=light'], ['theme=dark; theme=light'], ['theme=light; theme=dark'], ['theme=dark', 'theme=light'], ['theme="dark"'], ['theme=dark,light'], ['Theme=light; theme=dark'],
  [' theme =light'], ['%74heme=light; theme=dark'], ['theme=%64ark'], ['$Version=1; theme=dark'], ['x="a; theme=light"; theme=dark'], ['theme'], ['theme='], ['x; theme=dark'],
  ['theme=dark;theme=light'], ['theme=dark;;x=1'], ['theme[a]=light; theme=dark'], ['a=b, theme=light; theme=dark'], ['theme=j:{"a":1}'], ['x=é; theme=dark']
]

function sessions () {
  const users = ['alice', 'bob', undefined]
  const rounds = ['/me', '/account/me', '/private'].flatMap(target => users.map(first => ({
    name: `${first ?? 'a stranger'} first at ${target}`,
    requests: [as(first, target), ...users.map(user => as(user, target)), ...users.map(user => as(user, '/me'))]
  })))
  return [
    ...rounds,
    { name: 'logging in', requests: [get('/login?user=mallory'), get('/login?user=mallory'), get('/me'), as('alice', '/me'), get('/me')] },
    { name: 'two sessions at once', requests: [get('/me', { users: ['alice', 'bob'] }), as('alice', '/me'), get('/me', { users: ['bob', 'alice'] }), as('bob', '/me'), get('/me')] },
    ...THEMES.flatMap(lines => pair(cookies('/theme', ...lines), cookies('/theme', 'theme=dark'))),
    ...[['a=1', 'b=2'], ['b=2; a=1'], ['a=1; a=2'], ['a="1"'], ['a=1;b=2'], ['a=1; b=3'], ['a=1, b=2']].flatMap(lines => pair(cookies('/cookies', ...lines), cookies('/cookies', 'a=1; b=2'))),
    { name: 'a cookie that a route names chooses the variant', requests: [cookies('/theme', 'theme=dark'), hit(cookies('/theme', 'theme=dark')), cookies('/theme', 'theme=light'), hit(cookies('/theme', 'theme=dark'))] }
  ]
}

// ── HTTP/2 ──

const VISITOR = ['_ga=GA1.1.1', '_gid=GA1.2.1', '_fbp=fb.1.1', 'theme=dark', 'consent=yes', 'empty=']

function http2 () {
  const over = request => ({ ...request, isHttp2: true })
  const visitor = (user, target) => over({ ...cookies(target, ...VISITOR), user })
  const methods = ['HEAD', 'OPTIONS', 'DELETE'].map(method => over(get('/api/stocks', { method })))
  const themes = [['theme=light'], ['theme=dark', 'theme=light'], ['theme=dark; theme=light'], ['a="x', 'theme=light"', 'theme=dark'], ['theme=']]
  return [
    ...['/me', '/account/me', '/private'].flatMap(target => [['alice', 'bob'], ['bob', 'alice']].map(([first, second]) => ({
      name: `${first} before ${second} over HTTP/2`,
      requests: [visitor(first, target), visitor(second, target), visitor(undefined, target), over(as(first, target)), as(second, target), visitor(second, target)]
    }))),
    ...methods.flatMap(attack => pair(attack, over(get('/api/stocks')))),
    ...['API.Example.TEST', `${HOST}:80`, `${HOST}.`, 'evil.test'].flatMap(host => pair(over(get('/links', { host })), get('/links'))),
    ...themes.flatMap(lines => pair(over(cookies('/theme', ...lines)), cookies('/theme', 'theme=dark'))),
    ...pair(over(withFields('/api/stocks', ['TE', 'trailers'])), get('/api/stocks')),
    ...FORWARDING.slice(0, 8).flatMap(field => pair(over(withFields('/links', field)), get('/links'))),
    { name: 'one field or several are the same cookies', requests: [over(cookies('/cookies', 'a=1', 'b=2')), hit(cookies('/cookies', 'a=1; b=2')), cookies('/cookies', 'a=1', 'b=2')] }
  ]
}

// ── Behind a proxy that Larder trusts ──

const TRUSTED = [
  [['X-Forwarded-Host', 'a.test']], [['X-Forwarded-Host', 'b.test']], [['X-Forwarded-Proto', 'https']],
  [['X-Forwarded-Host', 'a.test'], ['X-Forwarded-Proto', 'https']], [['X-Forwarded-Prefix', '/shop']], [['X-Forwarded-For', '192.0.2.1']]
]

function trusted () {
  return TRUSTED.flatMap(fields => pair(withFields('/links', ...fields), get('/links')).map(conversation => ({ ...conversation, isTrusted: true })))
}

/** Every conversation; those with `isTrusted` are for a Larder that trusts its peer. */
export function conversations () {
  return [...paths(), ...hosts(), ...queries(), ...fields(), ...negotiation(), ...sessions(), ...http2(), ...trusted()]
}

// The suite's own origin server, but on a free port of the loopback address only (it would listen everywhere).
// Usage: node origin.mjs SUITE. It prints the address it listens at.

import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { engine } from './suite.mjs'

const listen = http.Server.prototype.listen
http.Server.prototype.listen = function () { return listen.call(this, { port: 0, host: '127.0.0.1' }) }

process.env.npm_config_protocol = 'http'
process.env.npm_config_port = '0'
process.env.npm_config_pidfile = join(tmpdir(), `larder-conformance-${process.pid}.pid`)
await import(engine(process.argv[2], 'server', 'server.mjs'))

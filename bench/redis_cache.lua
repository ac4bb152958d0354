-- nginx's side of the Redis workloads, written as one would for production: a GET is answered from Redis where it is
-- stored there, by one command over a pooled connection; what is not is asked of the origin, and stored if it may be.
--
-- A stored response is one string: the second it was stored, its fields a line each, an empty line, the body.

local redis = require 'nginx.redis'

local byte, find, lower, match, sub = string.byte, string.find, string.lower, string.match, string.sub
local concat = table.concat
local print, exec, eof, time, var = ngx.print, ngx.exec, ngx.eof, ngx.time, ngx.var
local null = ngx.null

local KEPT = { 'Content-Type', 'ETag', 'Last-Modified', 'Cache-Control' }
local POOL = { pool_size = 64, backlog = 8192 } -- connections of this worker; beyond them requests wait their turn
local IDLE = 60000 -- milliseconds
local TIMEOUT = 5000 -- milliseconds, waiting for a connection included
local LINE_FEED = 10
local port

-- Runs `command` (a method of the client) on a pooled connection, and gives the connection back.
local function ask(command, ...)
  local client = redis:new()
  client:set_timeout(TIMEOUT)
  local ok, failure = client:connect('127.0.0.1', port, POOL)
  if not ok then return nil, failure end
  local answer, fault = client[command](client, ...)
  if answer == nil then
    client:close()
  else
    client:set_keepalive(IDLE)
  end
  return answer, fault
end

-- Answers out of a stored response. The searches are for plain text, so that LuaJIT compiles them.
local function deliver(stored)
  local header = ngx.header
  local stop = find(stored, '\n', 1, true)
  header['Age'] = time() - sub(stored, 1, stop - 1)
  while byte(stored, stop + 1) ~= LINE_FEED do
    local colon = find(stored, ':', stop + 1, true)
    local next = find(stored, '\n', colon, true)
    header[sub(stored, stop + 1, colon - 1)] = sub(stored, colon + 1, next - 1)
    stop = next
  end
  header['Content-Length'] = #stored - stop - 1
  header['X-Cache'] = 'HIT'
  print(sub(stored, stop + 2))
end

-- For how many seconds a response may be stored; nil if it may not.
local function lifetime(response)
  local control = response.header['Cache-Control']
  if response.status ~= 200 or response.truncated or type(control) ~= 'string' then return nil end
  if response.header['Set-Cookie'] or response.header['Vary'] or var.http_authorization then return nil end
  control = lower(control)
  if find(control, 'no-store', 1, true) or find(control, 'no-cache', 1, true) or find(control, 'private', 1, true) then
    return nil
  end
  local seconds = tonumber(match(control, 's%-maxage=(%d+)') or match(control, 'max%-age=(%d+)'))
  return seconds and seconds > 0 and seconds or nil
end

local function packed(response)
  local lines = { time() }
  for i = 1, #KEPT do
    local value = response.header[KEPT[i]]
    if value then lines[#lines + 1] = KEPT[i] .. ':' .. value end
  end
  lines[#lines + 1] = ''
  lines[#lines + 1] = response.body
  return concat(lines, '\n')
end

-- Asks the origin, answers, and stores afterwards.
local function fetch(key)
  local response = ngx.location.capture('/.origin' .. var.request_uri)
  ngx.status = response.status
  for name, value in pairs(response.header) do ngx.header[name] = value end
  ngx.header['X-Cache'] = 'MISS'
  print(response.body)
  eof()
  local seconds = lifetime(response)
  if seconds then ask('set', key, packed(response), 'EX', seconds) end
end

local cache = {}

-- Which Redis is asked; called once.
function cache.use(its_port) port = its_port end

-- Answers the request at hand.
function cache.answer()
  if var.request_method ~= 'GET' then return exec('@origin') end
  local key = 'cache:' .. var.host .. var.request_uri
  local stored = ask('get', key)
  if not stored then return exec('@origin') end -- Redis is away
  if stored == null then return fetch(key) end
  return deliver(stored)
end

return cache

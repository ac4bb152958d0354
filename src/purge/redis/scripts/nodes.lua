-- The nodes that follow the log, in a hash beside it. Under a node's id: when its lease ends, for how long
-- it uses what it asked for without one, whether it is on or off, and how far it has applied which log.
-- Under `log`: which log that is about, and since when at the latest.
-- KEYS: the stream, the hash.
local LEASE, FORGOTTEN = 3000, 600000

local function whole(number) return string.format('%.0f', number) end

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- For how long there has been this log here, at least. If that is less than a lease, leases may still
-- hold that nobody here knows of; those that are known were granted by another clock, and run from now.
local function age(log, now)
  local known, since = string.match(redis.call('HGET', KEYS[2], 'log') or '', '^(%x+) (%d+)$')
  if known == log and tonumber(since) <= now then return now - since end
  local fields = redis.call('HGETALL', KEYS[2])
  for index = 1, #fields, 2 do
    local rest = string.match(fields[index + 1], '^%d+( %d+ %a+ %x+ %d+)$')
    if rest then redis.call('HSET', KEYS[2], fields[index], whole(now + LEASE) .. rest) end
  end
  redis.call('HSET', KEYS[2], 'log', log .. ' ' .. whole(now))
  return 0
end

-- All of them, six values each: the id, what is left of the lease, and the rest as it stands. Those whose
-- lease ended long ago are forgotten.
local function nodes(now)
  local answer = {}
  local fields = redis.call('HGETALL', KEYS[2])
  for index = 1, #fields, 2 do
    local id, value = fields[index], fields[index + 1]
    local ends, rest = string.match(value, '^(%d+)( %d+ %a+ %x+ %d+)$')
    if ends then
      local left = ends - now
      if left > LEASE then
        left = LEASE
        redis.call('HSET', KEYS[2], id, whole(now + left) .. rest)
      end
      if left < -FORGOTTEN then
        redis.call('HDEL', KEYS[2], id)
      else
        local ttl, state, log, seq = string.match(rest, '^ (%d+) (%a+) (%x+) (%d+)$')
        for _, part in ipairs({id, whole(left), ttl, state, log, seq}) do
          answer[#answer + 1] = part
        end
      end
    end
  end
  return answer
end

-- The hash of the nodes that follow the log. Under a node's id: the end of its lease, how long it serves
-- a fetched response without a lease, `on` or `off`, its log, and its position. Under `log`: the current
-- log, and the latest time at which it began.
-- KEYS: the stream, the hash.
local LEASE, FORGOTTEN = 3000, 600000

local function whole(number) return string.format('%.0f', number) end

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Returns the minimum age of the log on this server. Below the duration of a lease, unknown leases may
-- still be valid. Known leases were granted by another clock, and are restarted.
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

-- Returns all nodes, six values each: the id, the remaining time of the lease, and the stored values.
-- Removes nodes with a lease that ended long ago.
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

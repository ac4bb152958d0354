-- Signs a node off, so that no node waits for it.
-- KEYS: the stream, the hash of the nodes. ARGV: the node.
local value = redis.call('HGET', KEYS[2], ARGV[1]) or ''
local ttl, place = string.match(value, '^%d+ (%d+) %a+ (%x+ %d+)$')
if ttl then
  redis.call('HSET', KEYS[2], ARGV[1], whole(clock()) .. ' ' .. ttl .. ' off ' .. place)
end
return 1

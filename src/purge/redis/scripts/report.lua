-- Stores a node's position in the hash, and publishes it to the nodes that wait for it.
-- KEYS: the stream, the hash of the nodes. ARGV: the node, the log, the sequence number; the channels.
local node, log, seq = unpack(ARGV, 1, 3)
local lease = string.match(redis.call('HGET', KEYS[2], node) or '', '^%d+ %d+ on ')
if lease then redis.pcall('HSET', KEYS[2], node, lease .. log .. ' ' .. seq) end
for index = 4, #ARGV do
  redis.call('PUBLISH', ARGV[index], node .. ' ' .. log .. ' ' .. seq)
end
return 1

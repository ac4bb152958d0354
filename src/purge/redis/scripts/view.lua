-- Returns a view of the stream, and renews the lease of the node.
-- KEYS: the stream, the hash of the nodes.
-- ARGV: the id of the node's last entry, the node, how long it serves a fetched response without a lease,
-- its log and sequence number; then the other nodes that it knows, three values each: the id, the maximum
-- remaining time of the lease, and the time without a lease.
-- Returns the run id of the server; the first entry, the last entry and the node's last entry, without
-- records; '1', or '0' if the lease could not be written; the age of the log; and the nodes.
local function brief(entries)
  local entry = entries[1]
  if not entry then return {} end
  local kept = {}
  for at = 1, #entry[2], 2 do
    local name = entry[2][at]
    if name == 'log' or name == 'run' or name == 'nonce' then
      kept[#kept + 1] = name
      kept[#kept + 1] = entry[2][at + 1]
    end
  end
  return {entry[1], kept}
end

local function log_of(entry)
  for at = 1, #(entry[2] or {}), 2 do
    if entry[2][at] == 'log' then return entry[2][at + 1] end
  end
end

local function register(log)
  local now, place = clock(), ARGV[4] .. ' ' .. ARGV[5]
  local known = log and age(log, now) or 0
  for index = 6, #ARGV, 3 do
    local ends = whole(now + ARGV[index + 1])
    local value = ends .. ' ' .. ARGV[index + 2] .. ' on 0000000000000000 0'
    redis.call('HSETNX', KEYS[2], ARGV[index], value)
  end
  local own = redis.call('HGET', KEYS[2], ARGV[2]) or ''
  local granted = not string.match(own, '^%d+ %d+ off ')
  if granted then
    local value = whole(now + LEASE) .. ' ' .. ARGV[3] .. ' on ' .. place
    redis.call('HSET', KEYS[2], ARGV[2], value)
  end
  return {granted and '1' or '0', whole(known), nodes(now)}
end

local last = brief(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1))
local is_done, lease = pcall(register, log_of(last))
if not is_done then lease = {'0', '0', {}} end
return {
  server_run(),
  brief(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)),
  last,
  brief(redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])),
  lease[1], lease[2], lease[3]
}

-- Sets a value with a lifetime, and returns OK; with 'new', returns nil if the key already exists.
-- KEYS: the key. ARGV: the value, the lifetime in milliseconds, and 'new' or 'any'.
local options = {'PX', ARGV[2]}
if ARGV[3] == 'new' then options[3] = 'NX' end
return redis.call('SET', KEYS[1], ARGV[1], unpack(options))

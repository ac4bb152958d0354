-- Sets a value that ends by itself; with 'new' only where there is none. Answers OK, or nothing where there
-- was one.
-- KEYS: its name. ARGV: the value, for how many milliseconds, and 'new' or 'any'.
local options = {'PX', ARGV[2]}
if ARGV[3] == 'new' then options[3] = 'NX' end
return redis.call('SET', KEYS[1], ARGV[1], unpack(options))

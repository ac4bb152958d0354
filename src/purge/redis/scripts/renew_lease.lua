-- Renews a lease, or releases it if the time is 0. Returns 1 if the holder still held it, else 0.
-- KEYS: the lease. ARGV: the holder, and the time in milliseconds.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])

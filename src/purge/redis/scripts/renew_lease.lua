-- Renews what is held, or gives it up where the time is 0. Answers whether it was held still.
-- KEYS: what is held. ARGV: by whom, and for how many milliseconds.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])

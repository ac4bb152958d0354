-- Aborts a script that starts after its deadline.
-- ARGV: the arguments of the script, then the deadline in milliseconds.
local deadline = tonumber(table.remove(ARGV))
do
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  if now > deadline then
    return redis.error_reply('OVERDUE ' .. string.format('%.0f', now))
  end
end

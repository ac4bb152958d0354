-- Reads records in order: as many as fit into a number of bytes, but at least one record.
-- KEYS: the stream. ARGV: the id before the first record, and the number of bytes.
local from, room = '(' .. ARGV[1], tonumber(ARGV[2])
local AT_ONCE = 16
local answer = {}
while true do
  local entries = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', AT_ONCE)
  for _, entry in ipairs(entries) do
    for _, text in ipairs(entry[2]) do room = room - #text end
    if room < 0 and #answer > 0 then return answer end
    answer[#answer + 1] = entry
  end
  if #entries < AT_ONCE or room <= 0 then return answer end
  from = '(' .. entries[#entries][1]
end

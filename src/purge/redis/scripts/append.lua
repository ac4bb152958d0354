-- Appends a record, preceded by a boundary if a new log has to begin. Without a nonce, appends no
-- record, and only ensures that a log exists that may continue. If the idempotency key was used before,
-- appends nothing.
-- KEYS: the stream, the hash of the nodes, and optionally the idempotency key.
-- ARGV: the id for a new log, the last sequence number known to the caller, a log that must not continue
-- or '', the nonce or '', the record, the boundary, the node, the lifetime of the idempotency key in
-- milliseconds, the minimum and maximum number of records kept, and the lifetime of further records in
-- milliseconds.
-- Returns the log, the sequence number of the record (without a nonce, of the last record), 'again' or
-- 'first', the age of the log, and the nodes.
local key = KEYS[1]
local new_log, hint, doubted, nonce, record, boundary, node, remembered = unpack(ARGV, 1, 8)
local keep, most, lifetime = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])

-- Maximum exact integer. Entries with larger ids were not written by Larder.
local HIGHEST = 999999999999999

local now = clock()

-- Maximum number of records trimmed by age per append.
local AT_ONCE = 1000

-- Returns the trimming strategy and threshold of XADD.
local function trimming(seq)
  local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  local from = first and tonumber(string.match(first[1], '^(%d+)%-0$'))
  if not from or seq - from < keep then return 'MAXLEN', '~', whole(most) end
  if seq - from >= most then return 'MAXLEN', '~', whole(most) end
  local until_seq = math.min(from + AT_ONCE, seq - keep)
  local entry = redis.call('XRANGE', key, whole(until_seq) .. '-0', '+', 'COUNT', 1)[1]
  for index = 1, #(entry and entry[2] or {}), 2 do
    if entry[2][index] == 'at' and now - tonumber(entry[2][index + 1]) > lifetime then
      return 'MINID', '~', entry[1]
    end
  end
  return 'MAXLEN', '~', whole(most)
end

local function add(seq, fields)
  local strategy, about, threshold = trimming(seq)
  redis.call('XADD', key, strategy, about, threshold, whole(seq) .. '-0', 'at', whole(now), unpack(fields))
end

-- Returns the highest id ever used, which survives trimming.
local function highest()
  local info = redis.pcall('XINFO', 'STREAM', key)
  for index = 1, #info, 2 do
    if info[index] == 'last-generated-id' then
      return tonumber(string.match(info[index + 1], '^%d+'))
    end
  end
  return 0
end

-- Returns the log of the record at this position, if it exists. Nodes in a later log have passed it.
local function log_at(seq)
  local entry = redis.call('XRANGE', key, seq .. '-0', seq .. '-0')[1] or {'', {}}
  for index = 1, #entry[2], 2 do
    if entry[2][index] == 'log' then return entry[2][index + 1] end
  end
end

local run = server_run()
local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
local seq, log, begins = tonumber(hint), nil, nil
if not last then
  begins = 'empty'
else
  local fields = {}
  for index = 1, #last[2], 2 do fields[last[2][index]] = last[2][index + 1] end
  local known_run = fields.run or ''
  seq, log = tonumber(string.match(last[1], '^%d+')), fields.log
  if not string.match(last[1], '^%d+%-0$') or not log or not fields.nonce then
    begins = 'foreign'
  elseif run ~= '' and known_run ~= '' and run ~= known_run then
    begins = 'restart'
  elseif log == doubted then
    begins = 'foreign'
  end
  if run == '' then run = known_run end
end

local top = highest()
if top > seq then
  begins = begins or 'foreign'
  seq = top
end
if seq >= HIGHEST then
  redis.call('DEL', key)
  begins, seq = 'foreign', tonumber(hint)
end

if begins then
  seq, log = seq + 1, new_log
  add(seq, {'log', log, 'run', run, 'nonce', log, 'begins', begins, 'record', boundary})
end
local known = age(log, now)

local earlier_log, earlier
if KEYS[3] then
  earlier_log, earlier = string.match(redis.call('GET', KEYS[3]) or '', '^(%x+) (%d+)$')
end
if earlier and (earlier_log == log or log_at(earlier) == earlier_log) then
  return {log, earlier, 'again', whole(known), nodes(now)}
end
if nonce ~= '' then
  seq = seq + 1
  add(seq, {'log', log, 'run', run, 'nonce', nonce, 'by', node, 'record', record})
end
if KEYS[3] then redis.call('SET', KEYS[3], log .. ' ' .. whole(seq), 'PX', remembered) end
return {log, whole(seq), 'first', whole(known), nodes(now)}

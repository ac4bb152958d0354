-- The server's run: it changes when the server restarts and when another takes over. '' where nobody
-- may know.
local function server_run()
  local info = redis.pcall('INFO', 'server')
  if type(info) ~= 'string' then return '' end
  return string.match(info, 'run_id:(%w+)') or ''
end

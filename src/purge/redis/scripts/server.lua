-- Returns the run id of the server, which changes on restart and failover; '' if the ACL denies it.
local function server_run()
  local info = redis.pcall('INFO', 'server')
  if type(info) ~= 'string' then return '' end
  return string.match(info, 'run_id:(%w+)') or ''
end

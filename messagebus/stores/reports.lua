-- Returns {worker, report, ...} of the reports that count. Writes nothing.
--
-- KEYS: 1 until when each report counts, by worker, 2 the reports by worker

local now = redis.call("TIME")
local seconds = tonumber(now[1]) + tonumber(now[2]) / 1e6
local found = {}
for _, worker in ipairs(redis.call("ZRANGEBYSCORE", KEYS[1], string.format("(%.6f", seconds), "+inf")) do
  local report = redis.call("HGET", KEYS[2], worker)
  if report then
    found[#found + 1] = worker
    found[#found + 1] = report
  end
end
return found

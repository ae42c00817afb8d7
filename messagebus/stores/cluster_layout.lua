-- Says how a bus is laid out on this cluster, and notes it where nothing is noted yet.
--
-- KEYS: 1 layout
-- ARGV: 1 the layout that this process expects
-- Returns the layout in force.

if not redis.REDIS_VERSION_NUM then
  return redis.error_reply("ERR a bus on a cluster needs Redis 7 or newer")
end
local found = redis.call("GET", KEYS[1])
if not found then
  redis.call("SET", KEYS[1], ARGV[1])
end
return found or ARGV[1]

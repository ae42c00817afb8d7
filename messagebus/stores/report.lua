-- Keeps a worker's report, and drops some of those whose time is over.
--
-- KEYS: 1 until when each report counts, by worker, 2 the reports by worker
-- ARGV: 1 worker, 2 report, 3 seconds that it counts, 4 seconds that the keys live

local now = redis.call("TIME")
local seconds = tonumber(now[1]) + tonumber(now[2]) / 1e6
redis.call("ZADD", KEYS[1], seconds + ARGV[3], ARGV[1])
redis.call("HSET", KEYS[2], ARGV[1], ARGV[2])
for _, worker in ipairs(redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", seconds, "LIMIT", 0, 100)) do
  redis.call("ZREM", KEYS[1], worker)
  redis.call("HDEL", KEYS[2], worker)
end
redis.call("EXPIRE", KEYS[1], ARGV[4])
redis.call("EXPIRE", KEYS[2], ARGV[4])

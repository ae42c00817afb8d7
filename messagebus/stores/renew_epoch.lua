-- Gives the store's life another name where it still has the old one, and tells the feeds.
--
-- KEYS: 1 epoch, 2 global id, 3 known channels, 4 last id that was announced by channel
-- ARGV: 1 the old epoch, empty: none, 2 the new one, 3 pub/sub channel,
--       4 what the feeds are told, 5 the pub/sub channel for those that hear only some channels
-- Returns {global id, epoch}.

if (redis.call("GET", KEYS[1]) or "") == ARGV[1] then
  redis.call("SET", KEYS[1], ARGV[2])
  if redis.call("EXISTS", KEYS[2]) == 0 and redis.call("EXISTS", KEYS[3]) == 1 then
    -- It was there. What is kept has higher global ids than the next ones would have; so these begin above them all.
    local now = redis.call("TIME")
    redis.call("SET", KEYS[2], string.format("%.0f", now[1] * 1000 + math.floor(now[2] / 1000)))
    redis.call("DEL", KEYS[4])
  end
  -- Where this user may not, the feeds find it out by themselves within seconds.
  redis.pcall("PUBLISH", ARGV[3], ARGV[4])
  redis.pcall("PUBLISH", ARGV[5], ARGV[4])
end
return { redis.call("GET", KEYS[2]) or "0", redis.call("GET", KEYS[1]) }

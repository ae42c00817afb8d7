-- Numbers a message, keeps it and announces it, as one step. The layout of the keys is shared with other programs.
--
-- KEYS: 1 global id, 2 the channel's id, 3 the channel's backlog, 4 global backlog, 5 epoch
-- ARGV: 1 the channel as key names have it, 2 the channel as stored messages have it, 3 envelope,
--       4 max backlog age (s), 5 age of the channel's id (s), 6 max backlog size, 7 max global backlog size,
--       8 clear every n-th id, 9 pub/sub channel, 10 the epoch of a store that has none yet
-- Returns {message id, global id}.

local channel, age = ARGV[1], tonumber(ARGV[4])
local max_size, max_global_size, clear_every = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

local global_id = redis.call("INCR", KEYS[1])
local message_id = redis.call("INCR", KEYS[2])
redis.call("SETNX", KEYS[5], ARGV[10])

-- Lua would write large numbers as 1e+14.
local ids = string.format("%.0f|%.0f", global_id, message_id)
local stored = ids .. "|" .. ARGV[2] .. "|" .. ARGV[3]
redis.call("ZADD", KEYS[3], message_id, stored)
redis.call("ZADD", KEYS[4], global_id, string.format("%.0f|", message_id) .. channel)

redis.call("EXPIRE", KEYS[2], ARGV[5])
redis.call("EXPIRE", KEYS[3], age)
-- Longer at most: one channel with a short age must not take the other channels' pointers with it. (The option GT of
-- EXPIRE would do the same from Redis 7 on.)
if redis.call("PTTL", KEYS[4]) < age * 1000 then
  redis.call("EXPIRE", KEYS[4], age)
end

if message_id % clear_every == 0 then
  redis.call("ZREMRANGEBYSCORE", KEYS[3], "-inf", string.format("%.0f", message_id - max_size))
end
if global_id % clear_every == 0 then
  redis.call("ZREMRANGEBYSCORE", KEYS[4], "-inf", string.format("%.0f", global_id - max_global_size))
end

redis.call("PUBLISH", ARGV[9], stored)
return { message_id, global_id }

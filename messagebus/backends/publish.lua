-- Numbers messages, keeps them and announces them, as one step. The layout of the keys is shared with other programs.
--
-- KEYS: 1 global id, 2 global backlog, 3 epoch; then for each message: the channel's id, the channel's backlog
-- ARGV: 1 max global backlog size, 2 clear every n-th id, 3 pub/sub channel, 4 the epoch of a store that has none yet;
--       then for each message: the channel as key names have it, the channel as stored messages have it, envelope,
--       max backlog age (s), age of the channel's id (s), max backlog size
-- Returns {message id, global id, message id, ...}. An error in the middle leaves the messages before it stored.

local max_global_size, clear_every = tonumber(ARGV[1]), tonumber(ARGV[2])
local call, format = redis.call, string.format
local count = (#KEYS - 3) / 2
local ids = {}

call("SETNX", KEYS[3], ARGV[4])

-- What holds for a whole channel is done once, with the last of its messages.
local last_of = {}
for message = 1, count do
  last_of[KEYS[message * 2 + 2]] = message
end

local longest = 0
for message = 1, count do
  local id_key, backlog_key, first = KEYS[message * 2 + 2], KEYS[message * 2 + 3], message * 6 - 1
  local age = ARGV[first + 3]

  local global_id = call("INCR", KEYS[1])
  local message_id = call("INCR", id_key)
  -- Lua would write large numbers as 1e+14.
  local stored = format("%.0f|%.0f|", global_id, message_id) .. ARGV[first + 1] .. "|" .. ARGV[first + 2]
  call("ZADD", backlog_key, message_id, stored)
  call("ZADD", KEYS[2], global_id, format("%.0f|", message_id) .. ARGV[first])

  local is_last = last_of[id_key] == message
  if is_last then
    call("EXPIRE", id_key, ARGV[first + 4])
    call("EXPIRE", backlog_key, age)
  end
  longest = math.max(longest, tonumber(age))
  if message_id % clear_every == 0 and (is_last or clear_every > 1) then
    call("ZREMRANGEBYSCORE", backlog_key, "-inf", format("%.0f", message_id - tonumber(ARGV[first + 5])))
  end
  if global_id % clear_every == 0 and (clear_every > 1 or message == count) then
    call("ZREMRANGEBYSCORE", KEYS[2], "-inf", format("%.0f", global_id - max_global_size))
  end

  call("PUBLISH", ARGV[3], stored)
  ids[message * 2 - 1], ids[message * 2] = message_id, global_id
end

-- Longer at most: one channel with a short age must not take the other channels' pointers with it. (The option GT of
-- EXPIRE would do the same from Redis 7 on.)
if call("PTTL", KEYS[2]) < longest * 1000 then
  call("EXPIRE", KEYS[2], longest)
end
return ids

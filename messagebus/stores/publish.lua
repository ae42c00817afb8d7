-- Numbers messages, keeps them and announces them, as one step. The layout of the keys is shared with other programs.
--
-- KEYS: 1 global id, 2 global backlog, 3 epoch; then for each target: the channel's id, the channel's backlog
-- ARGV: 1 max global backlog size, 2 clear every n-th id, 3 pub/sub channel, 4 the epoch of a store that has none yet;
--       then for each target: the channel as key names have it, the channel as stored messages have it,
--       max backlog age (s), age of the channel's id (s), max backlog size;
--       then for each message: its target's number, from 1; envelope
-- Returns {message id, global id, message id, ...}. An error in the middle leaves the messages before it stored.

local max_global_size, clear_every = tonumber(ARGV[1]), tonumber(ARGV[2])
local call, format = redis.call, string.format
local ids = {}

call("SETNX", KEYS[3], ARGV[4])

local targets, longest = {}, 0
local contents = 5  -- where the messages begin
for key = 4, #KEYS, 2 do
  local age = ARGV[contents + 2]
  targets[#targets + 1] = {
    id_key = KEYS[key], backlog_key = KEYS[key + 1],
    key_name = ARGV[contents], stored_name = "|" .. ARGV[contents + 1] .. "|",
    age = age, ids_age = ARGV[contents + 3], size = tonumber(ARGV[contents + 4]),
  }
  longest = math.max(longest, tonumber(age))
  contents = contents + 5
end

-- What holds for a whole channel is done once, with the last of its messages. (Two targets may be one channel.)
local last_of = {}
for message = contents, #ARGV, 2 do
  last_of[targets[tonumber(ARGV[message])].id_key] = message
end

for message = contents, #ARGV, 2 do
  local target = targets[tonumber(ARGV[message])]

  local global_id = call("INCR", KEYS[1])
  local message_id = call("INCR", target.id_key)
  -- Lua would write large numbers as 1e+14.
  local number = format("%.0f", message_id)
  local stored = format("%.0f|", global_id) .. number .. target.stored_name .. ARGV[message + 1]
  call("ZADD", target.backlog_key, message_id, stored)
  call("ZADD", KEYS[2], global_id, number .. "|" .. target.key_name)

  local is_last = last_of[target.id_key] == message
  if is_last then
    call("EXPIRE", target.id_key, target.ids_age)
    call("EXPIRE", target.backlog_key, target.age)
  end
  if message_id % clear_every == 0 and (is_last or clear_every > 1) then
    call("ZREMRANGEBYSCORE", target.backlog_key, "-inf", format("%.0f", message_id - target.size))
  end
  if global_id % clear_every == 0 and (clear_every > 1 or message == #ARGV - 1) then
    call("ZREMRANGEBYSCORE", KEYS[2], "-inf", format("%.0f", global_id - max_global_size))
  end

  call("PUBLISH", ARGV[3], stored)
  ids[#ids + 1] = message_id
  ids[#ids + 1] = global_id
end

-- Longer at most: one channel with a short age must not take the other channels' pointers with it. (The option GT of
-- EXPIRE would do the same from Redis 7 on.)
if call("PTTL", KEYS[2]) < longest * 1000 then
  call("EXPIRE", KEYS[2], longest)
end
return ids

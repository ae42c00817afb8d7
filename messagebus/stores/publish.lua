-- Numbers messages, keeps them and announces them, as one step. The layout of the keys is shared with other programs.
--
-- KEYS: 1 global id, 2 global backlog, 3 epoch, 4 known channels;
--       then for each target: the channel's id, the channel's backlog
-- ARGV: 1 max global backlog size, 2 clear every n-th id, 3 pub/sub channel, 4 the epoch of a store that has none yet;
--       then for each target: the channel as key names have it, the channel as stored messages have it,
--       max backlog age (s), age of the channel's id (s), max backlog size;
--       then for each message: its target's number, from 1; envelope
-- Returns {message id, global id, message id, ...}. An error in the middle leaves the messages before it stored.
--
-- Ids do not begin again while the epoch stays, whatever became of the keys that count them: they may have been evicted
-- or deleted, and a channel's expires. Known channels is a Bloom filter with two bits for each channel that ever had an
-- id, so that a channel that was forgotten can be told from one that is new.

local KNOWN_BITS = 4194304
local max_global_size, clear_every = tonumber(ARGV[1]), tonumber(ARGV[2])
local call, format = redis.call, string.format
local ids = {}

-- The highest id of a backlog.
local function newest(backlog_key)
  return tonumber(call("ZREVRANGE", backlog_key, 0, 0, "WITHSCORES")[2] or 0)
end

-- The next global id.
local function next_global_id()
  local id = call("INCR", KEYS[1])
  if id == 1 then
    id = newest(KEYS[2]) + 1
    if id > 1 then
      call("SET", KEYS[1], format("%.0f", id))
    end
  end
  return id
end

-- The next id of a channel. Without its counter it follows the newest message that is kept. Where none is, a channel
-- that was known goes on at the global id, which no id of a channel can have passed.
local function next_message_id(target, global_id)
  local id = call("INCR", target.id_key)
  if id == 1 then
    local knows_others = global_id == 1 or call("EXISTS", KEYS[4]) == 1
    local hash = redis.sha1hex(target.key_name)
    local known = call("SETBIT", KEYS[4], tonumber(string.sub(hash, 1, 8), 16) % KNOWN_BITS, 1)
      + call("SETBIT", KEYS[4], tonumber(string.sub(hash, 9, 16), 16) % KNOWN_BITS, 1)
    id = newest(target.backlog_key) + 1
    if id == 1 and (known == 2 or not knows_others) then
      id = global_id
    end
    if id > 1 then
      call("SET", target.id_key, format("%.0f", id))
    end
  end
  return id
end

-- An epoch that was lost alone is another one, which the feeds are told as they are by renew_epoch.lua.
if call("SETNX", KEYS[3], ARGV[4]) == 1 and call("EXISTS", KEYS[1]) == 1 then
  call("PUBLISH", ARGV[3], '-1|-1|/__epoch|{"data":null}')
end

local targets, longest = {}, 0
local contents = 5  -- where the messages begin
for key = 5, #KEYS, 2 do
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

  local global_id = next_global_id()
  local message_id = next_message_id(target, global_id)
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

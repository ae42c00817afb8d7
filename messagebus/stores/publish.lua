-- Numbers messages, keeps them and announces them, as one step. The layout of the keys is shared with other programs.
--
-- KEYS: 1 global id, 2 global backlog, 3 epoch, 4 known channels, 5 record of the publication, 6 last id that was
--       announced by channel, 7 whether others are not, 8 the replication history that the epoch belongs to; then for
--       each channel: its id, its backlog
-- ARGV: 1 max global backlog size, 2 clear every n-th id, 3 pub/sub channel, 4 the epoch of a store that has none yet,
--       5 the publication's number in its record, 6 how long the record lives (s), 0: the publication has none,
--       7 what the pub/sub channel of a channel begins with, empty: messages are announced on the common one alone,
--       8 the server's replication history, empty: not known;
--       then for each channel: its name in key names, its name in stored messages, max backlog age (s), age of its id
--       (s), max backlog size;
--       then for each message: its channel's number, from 1; envelope
-- Returns "publication's number|first message's global id|first message id on each channel|...". The record holds the
-- same: where it holds that of this number already, it is returned, and nothing else changes.
--
-- All that Redis may refuse is asked for before the first write, so that a refusal leaves nothing behind. Memory that
-- is full and a server that is read-only it refuses at the first write itself.
--
-- Ids do not begin again while the epoch stays, whatever became of the keys that count them: they may have been evicted
-- or deleted, and a channel's expires. Known channels is a Bloom filter with two bits for each channel that ever had an
-- id, so that a channel that was forgotten can be told from one that is new.
--
-- Where the server is in another replication history than the store, messages may be missing, and their ids would be
-- given again. Nothing is numbered until renew_history.lua has given the store another epoch.
--
-- On a cluster what is announced begins with "@epoch|", for a primary that was replaced and does not know it yet passes
-- on what it announces to the one that has taken its place, whose listeners would take it for that one's.
--
-- Who hears only some channels hears nothing of a message that was announced on the common channel alone. So whoever
-- announces by channel notes the last global id, and if it is not the one that was noted last, that somebody does not.

local call, format, match = redis.call, string.format, string.match
local GLOBAL_ID, GLOBAL_BACKLOG, EPOCH, KNOWN, RECORD = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local KNOWN_BITS = 4194304
local FORGOTTEN = -1
local ID = "%.0f"  -- Lua by itself would write large numbers as 1e+14
local max_global_size, clear_every, pubsub_channel = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local number, remembered = ARGV[5], ARGV[6] ~= "0"
local ANNOUNCED, OTHERS, own_prefix = KEYS[6], KEYS[7], ARGV[7]
local HISTORY, history = KEYS[8], ARGV[8]
local OTHERS_SECONDS = 3600
local IS_SHARDED = false  -- true in the script for a cluster
local by_channel = own_prefix ~= ""
local channels = (#KEYS - 8) / 2
-- KEYS and ARGV of a channel begin behind these.
local function keys_of(channel)
  return KEYS[2 * channel + 7], KEYS[2 * channel + 8]
end
local function argument_of(channel)
  return 4 + 5 * channel
end

-- What is there already.
local string_keys = { GLOBAL_ID, EPOCH, RECORD, HISTORY, KEYS[9] }
for channel = 2, channels do
  string_keys[channel + 4] = keys_of(channel)
end
if by_channel then
  string_keys[channels + 5] = ANNOUNCED
end
local values = call("MGET", unpack(string_keys))

if history ~= "" and values[4] ~= history and (values[2] or values[4]) then
  return redis.error_reply("HISTORY the store belongs to another replication history than its server")
end

if values[3] and remembered then
  local known = match(values[3], "^%d+")
  if known == number then
    -- Written to, so that WAIT waits for this connection's replicas: it may have written nothing else.
    call("SET", RECORD, values[3], "KEEPTTL")
    return values[3]
  elseif tonumber(known) > tonumber(number) then
    return redis.error_reply("STALE the same publisher has published something later already")
  end
end

-- The last id that a counter has given. Without it, the highest of the backlog: 0 where that is gone as well.
local function last_id(value, key, backlog_key)
  -- MGET gives nothing for a key of another type, and GET says that it is one.
  value = value or call("GET", key) or call("ZREVRANGE", backlog_key, 0, 0, "WITHSCORES")[2] or "0"
  return #value < 16 and match(value, "^%d+$") and tonumber(value)
end

local global_before, global_kept = last_id(values[1], GLOBAL_ID, GLOBAL_BACKLOG), call("ZCARD", GLOBAL_BACKLOG)
if global_before == 0 and not values[1] and call("EXISTS", KNOWN) == 1 then
  -- It was there, and nothing is left of it. It goes on above all that was given: no store takes 1,000 messages a
  -- millisecond. (renew_epoch.lua does the same.)
  local now = call("TIME")
  global_before = now[1] * 1000 + math.floor(now[2] / 1000)
end
local before, kept, bits = {}, {}, {}
local knows_others = global_before == 0 or nil
for channel = 1, channels do
  local id_key, backlog_key = keys_of(channel)
  local last = last_id(values[channel + 4], id_key, backlog_key)
  if not last then
    break
  end
  kept[channel] = call("ZCARD", backlog_key)
  if not values[channel + 4] then
    local hash = redis.sha1hex(ARGV[argument_of(channel)])
    local first, second = tonumber(hash:sub(1, 8), 16) % KNOWN_BITS, tonumber(hash:sub(9, 16), 16) % KNOWN_BITS
    local is_known = call("GETBIT", KNOWN, first) + call("GETBIT", KNOWN, second) == 2
    knows_others = knows_others or call("EXISTS", KNOWN) == 1
    bits[#bits + 1], bits[#bits + 2] = first, second
    if last == 0 and (is_known or not knows_others) then
      -- It was known, and nothing is left of it. It goes on at the global id, which no id of a channel can have passed.
      last = FORGOTTEN
    end
  end
  before[channel] = last
end
if not global_before or #before < channels then
  return redis.error_reply("WRONGTYPE a key that should hold a channel's last id, or the global one, holds no number")
end

-- What there is to be.
local global_id, last = global_before, { unpack(before) }
local pointers, stored, own, added = {}, {}, {}, {}
for message = argument_of(channels + 1), #ARGV, 2 do
  local channel = tonumber(ARGV[message])
  global_id = global_id + 1
  if last[channel] == FORGOTTEN then
    last[channel], before[channel] = global_id - 1, global_id - 1
  end
  local message_id = last[channel] + 1
  last[channel] = message_id
  local id, names = format(ID, message_id), argument_of(channel)
  local text = format(ID, global_id) .. "|" .. id .. "|" .. ARGV[names + 1] .. "|" .. ARGV[message + 1]
  stored[#stored + 1] = text
  if by_channel then
    own[#own + 1] = own_prefix .. ARGV[names]
  end
  pointers[#pointers + 1] = global_id
  pointers[#pointers + 1] = id .. "|" .. ARGV[names]
  local members = added[channel]
  if members then
    members[#members + 1] = id
    members[#members + 1] = text
  else
    added[channel] = { id, text }
  end
end

local tag = IS_SHARDED and "@" .. (values[2] or ARGV[4]) .. "|" or ""
local function announce()
  for each = 1, #stored do
    call("PUBLISH", pubsub_channel, tag .. stored[each])
    if by_channel then
      call("PUBLISH", own[each], tag .. stored[each])
    end
  end
end

-- What this user may do: each key, and each kind of write.
local may = redis.acl_check_cmd
if may then
  local missing
  local function need(command, key, ...)
    if not missing and not may(command, key, ...) then
      missing = command .. " " .. key
    end
  end
  need("PUBLISH", pubsub_channel, "")
  if by_channel then
    need("PUBLISH", own[1], "")
    need("SET", ANNOUNCED, "")
  end
  need("SET", GLOBAL_ID, "")
  need("ZADD", GLOBAL_BACKLOG, 0, "")
  if history ~= "" then
    need("SET", HISTORY, "")
  end
  if remembered then
    need("SET", RECORD, "")
  end
  if bits[1] then
    need("SETBIT", KNOWN, 0, 1)
  end
  for channel = 1, channels do
    local id_key, backlog_key = keys_of(channel)
    need("EXPIRE", id_key, 1)
    need("ZREMRANGEBYSCORE", backlog_key, 1, 0)
  end
  if missing then
    return redis.error_reply("NOPERM the user of this connection may not run " .. missing)
  end
else
  -- Before Redis 7 a script cannot ask. So the commands are run in a way that changes nothing, and are refused as they
  -- would be later. PUBLISH has no such way, and comes before all that does.
  call("SET", GLOBAL_ID, values[1] or "", "XX", "KEEPTTL")
  call("ZADD", GLOBAL_BACKLOG, "XX", 0, "")
  if remembered then
    call("SET", RECORD, values[3] or "", "XX", "KEEPTTL")
  end
  for channel = 1, channels do
    local id_key, backlog_key = keys_of(channel)
    call("EXPIRE", id_key, ARGV[argument_of(channel) + 3])
    call("ZADD", backlog_key, "XX", 0, "")
    call("ZREMRANGEBYSCORE", backlog_key, 1, 0)
  end
  announce()
end

-- From here on it writes, first what takes memory.
if not values[2] and call("SET", EPOCH, ARGV[4], "NX") and values[1] then
  -- An epoch that was lost alone is another one, which the feeds are told as they are by renew_epoch.lua.
  call("PUBLISH", pubsub_channel, '-1|-1|/__epoch|{"data":null}')
  if by_channel then
    call("PUBLISH", own_prefix .. "/__epoch", '-1|-1|/__epoch|{"data":null}')
  end
end
if history ~= "" and not values[4] then
  call("SET", HISTORY, history)
end
for _, bit in ipairs(bits) do
  call("SETBIT", KNOWN, bit, 1)
end

-- Of the ids that are multiples of clear_every, the newest is the one at which a backlog was cut last.
local function cut(backlog_key, from, to, size, max_size)
  local at = to - to % clear_every
  if at > from and size > max_size then
    call("ZREMRANGEBYSCORE", backlog_key, "-inf", format(ID, at - max_size))
  end
end

local longest = 0
call("SET", GLOBAL_ID, format(ID, global_id))
if by_channel then
  local announced = values[channels + 5]
  if announced and values[1] and announced ~= values[1] then
    call("SET", OTHERS, "1", "EX", OTHERS_SECONDS)
  end
  call("SET", ANNOUNCED, format(ID, global_id))
end
call("ZADD", GLOBAL_BACKLOG, unpack(pointers))
cut(GLOBAL_BACKLOG, global_before, global_id, global_kept + #stored, max_global_size)
local answer = number .. "|" .. format(ID, global_before + 1)
for channel = 1, channels do
  local id_key, backlog_key = keys_of(channel)
  local names = argument_of(channel)
  local age, members = ARGV[names + 2], added[channel]
  call("SET", id_key, format(ID, last[channel]), "EX", ARGV[names + 3])
  call("ZADD", backlog_key, unpack(members))
  call("EXPIRE", backlog_key, age)
  cut(backlog_key, before[channel], last[channel], kept[channel] + #members / 2, tonumber(ARGV[names + 4]))
  longest = math.max(longest, tonumber(age))
  before[channel] = format(ID, before[channel] + 1)
end
-- Longer at most: one channel with a short age must not take the other channels' pointers with it. (The option GT of
-- EXPIRE would do the same from Redis 7 on.)
if call("PTTL", GLOBAL_BACKLOG) < longest * 1000 then
  call("EXPIRE", GLOBAL_BACKLOG, longest)
end
if may then
  announce()
end

answer = answer .. "|" .. table.concat(before, "|")
if remembered then
  call("SET", RECORD, answer, "EX", ARGV[6])
end
return answer

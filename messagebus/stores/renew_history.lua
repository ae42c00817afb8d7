-- Gives the store another epoch because its server is in another replication history, and notes how much of the old
-- epoch the new one has: everything up to the last global id, as none has been given in this history.
--
-- KEYS: 1 epoch, 2 the history that it belongs to, 3 lineage, 4 global id, 5 known channels
-- ARGV: 1 the server's history, 2 the new epoch, 3 former epochs to remember, 4 what the feeds are told,
--       then the pub/sub channels for that
-- The lineage is "epoch former:shared former:shared ...", the newest first.

local EPOCH, HISTORY, LINEAGE, GLOBAL_ID, KNOWN = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local history, epoch, last_id = redis.call("GET", HISTORY), redis.call("GET", EPOCH), redis.call("GET", GLOBAL_ID)
if history == ARGV[1] then
  return 0
end
redis.call("SET", HISTORY, ARGV[1])
if not last_id and redis.call("EXISTS", KNOWN) == 0 then
  last_id = "0"
end
if not epoch or (not history and last_id == "0") then
  return 0  -- there was nothing yet
end
local entries = {}
if last_id then
  entries[1] = epoch .. ":" .. last_id
  local known = redis.call("GET", LINEAGE)
  if known and known:match("^%S+") == epoch then
    for entry in known:gmatch(" (%S+)") do
      entries[#entries + 1] = #entries < tonumber(ARGV[3]) and entry or nil
    end
  end
end
redis.call("SET", LINEAGE, table.concat({ ARGV[2], unpack(entries) }, " "))
redis.call("SET", EPOCH, ARGV[2])
for channel = 5, #ARGV do
  -- Where this user may not, the feeds find it out by themselves within seconds.
  redis.pcall("PUBLISH", ARGV[channel], ARGV[4])
end
return 1

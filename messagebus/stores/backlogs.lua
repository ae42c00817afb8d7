-- Reads parts of several channels' backlogs, each as it stands at one moment. Writes nothing, so that it also runs
-- where Redis is full, or a replica.
--
-- KEYS: the epoch; then for each query: the channel's id, the channel's backlog
-- ARGV: 1 bytes after which a part ends; then for each query: the message id after which it begins, or -k for the newest k
-- Returns the epoch (false: none), then for each query {after, through, last id, first id, milliseconds left or negative,
-- {stored message, ...}}: every kept message with after < id <= through is there; first id is the oldest that is kept,
-- last id + 1 where none is.

local STEP = 100
local max_bytes = tonumber(ARGV[1])
local call = redis.call
local pages = { call("GET", KEYS[1]) }

for query = 1, (#KEYS - 1) / 2 do
  local id_key, backlog_key = KEYS[2 * query], KEYS[2 * query + 1]
  local oldest = call("ZRANGE", backlog_key, 0, 0, "WITHSCORES")
  local newest = call("ZRANGE", backlog_key, -1, -1, "WITHSCORES")
  -- Other programs let the id's key expire with the backlog; the one may go a moment before the other.
  local last_id = math.max(tonumber(call("GET", id_key) or 0), tonumber(newest[2] or 0))
  local first_id = oldest[2] and tonumber(oldest[2]) or last_id + 1
  local after = tonumber(ARGV[query + 1])
  if after < 0 then
    after = math.max(last_id + after, 0)
  end

  local messages, size, through = {}, 0, last_id
  local rank = call("ZCOUNT", backlog_key, "-inf", string.format("%.0f", after))  -- Lua would write 1e+14
  repeat
    local step = call("ZRANGE", backlog_key, rank, rank + STEP - 1)
    for number, stored in ipairs(step) do
      messages[#messages + 1] = stored
      size = size + #stored
      if size >= max_bytes then
        through = tonumber(call("ZRANGE", backlog_key, rank + number - 1, rank + number - 1, "WITHSCORES")[2])
        break
      end
    end
    rank = rank + STEP
  until #step < STEP or size >= max_bytes

  pages[query + 1] = { after, through, last_id, first_id, call("PTTL", backlog_key), messages }
end
return pages

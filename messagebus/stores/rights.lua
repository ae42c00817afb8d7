-- What of a list of commands the user may not run. Writes nothing.
--
-- KEYS: 1 a key such as those of the bus
-- ARGV: 1 pub/sub channel, 2 that of announcements, 3 one channel's own, empty: there are none; then the commands, a subcommand behind a |
-- Returns those that are refused, as they were given. Before Redis 7 a script cannot ask, and nothing is returned.

local refused = {}
if not redis.acl_check_cmd then
  return refused
end
local key, channel, announcements, own = KEYS[1], ARGV[1], ARGV[2], ARGV[3] ~= "" and ARGV[3] or ARGV[1]
-- Arguments that the command takes: Redis looks for its keys and channels among them.
local arguments = {
  publish = { channel, "" }, subscribe = { channel, announcements, own }, unsubscribe = { own }, ping = {}, multi = {}, exec = {}, select = { "0" },
  evalsha = { "", "1", key }, script = { "load", "" }, scan = { "0" }, mget = { key }, set = { key, "" },
  expire = { key, "1" }, getbit = { key, "0" }, setbit = { key, "0", "1" }, zadd = { key, "1", "" },
  zcount = { key, "0", "0" }, zrange = { key, "0", "0" }, zrevrange = { key, "0", "0" },
  zrangebyscore = { key, "0", "0" }, zremrangebyscore = { key, "0", "0" }, zrem = { key, "" }, hset = { key, "", "" }, hget = { key, "" },
  hdel = { key, "" }, info = { "replication" }, wait = { "0", "0" }, spublish = { channel, "" }, ssubscribe = { channel, own },
  sunsubscribe = { own }, cluster = { "slots" }, command = {},
}
for number = 4, #ARGV do
  local command = ARGV[number]:match("^[^|]+")
  if not redis.acl_check_cmd(command, unpack(arguments[command] or { key })) then
    refused[#refused + 1] = ARGV[number]
  end
end
return refused

-- Put events into a participant's inbox and nudge the owner.
-- KEYS[1] inbox of the participant   KEYS[2] owners   KEYS[3] inboxes   KEYS[4] records
-- ARGV[1] student_id   ARGV[2] member   ARGV[3] prefix of worker channels   ARGV[4] '1' if the record must exist
-- ARGV[5...] events
-- Returns {owner or false, 1 if put or 0 if there is no such participant}.
-- Each event is put as "<number> <event>"; numbers rise, so that a save can name the last one that it decided and may be
-- repeated. They begin with the time, so that they rise even after Redis came back empty.
if ARGV[4] == '1' and redis.call('HEXISTS', KEYS[4], ARGV[1]) == 0 then
  return {false, 0}
end
local time = redis.call('TIME')
local number = time[1] * 1000000 + time[2]
local last = redis.call('LINDEX', KEYS[1], -1)
if last then
  number = math.max(number, tonumber(string.match(last, '^%d+')) + 1)
end
for i = 5, #ARGV do
  redis.call('RPUSH', KEYS[1], string.format('%.0f ', number) .. ARGV[i])
  number = number + 1
end
redis.call('SADD', KEYS[3], ARGV[2])
local owner = redis.call('HGET', KEYS[2], ARGV[1])
if not owner then
  return {false, 1}
end
local worker = string.sub(owner, 1, string.find(owner, ' ', 1, true) - 1)
redis.call('PUBLISH', ARGV[3] .. worker, 'n' .. ARGV[2])
return {worker, 1}

-- Make a worker the owner of a participant, and hand it everything that is known.
-- KEYS[1] records   KEYS[2] owners   KEYS[3] inbox of the participant   KEYS[4] exam
-- ARGV[1] student_id   ARGV[2] worker
-- Returns {record or false, epoch, previous owner or false, exam or false, inbox event...}. The inbox stays: it is
-- taken by the save of what it caused.
local owner = redis.call('HGET', KEYS[2], ARGV[1])
local previous, epoch = false, 0
if owner then
  local space = string.find(owner, ' ', 1, true)
  previous = string.sub(owner, 1, space - 1)
  epoch = tonumber(string.sub(owner, space + 1))
end
epoch = epoch + 1
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' ' .. epoch)
local answer = {redis.call('HGET', KEYS[1], ARGV[1]), epoch, previous, redis.call('GET', KEYS[4])}
for _, event in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
  answer[#answer + 1] = event
end
return answer

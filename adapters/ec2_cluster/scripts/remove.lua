-- Take a student out of an exam, if nobody owns the participant and the record is still the one that was looked at; have
-- everybody who watches read the exam again: a hole in the numbers of a publisher says that something was lost.
-- KEYS[1] records   KEYS[2] owners   KEYS[3] inbox of the participant
-- ARGV[1] channel   ARGV[2] student_id   ARGV[3] record   ARGV[4] publisher   ARGV[5] its last number
-- Returns 1 if removed, else 0.
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[3] or redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 then
  return 0
end
redis.call('HDEL', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[3])
local number = tonumber(ARGV[5])
redis.call('PUBLISH', ARGV[1], ARGV[4] .. ' ' .. string.format('%.0f', number + 1) .. '\n\n')
redis.call('PUBLISH', ARGV[1], ARGV[4] .. ' ' .. string.format('%.0f', number + 3) .. '\n\n')
return 1

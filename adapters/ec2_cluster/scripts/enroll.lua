-- Put students of a roster among the records of an exam, each only if nobody owns the participant and the record is still
-- the one that the decision started from; publish the views of those that were put.
-- KEYS[1] records   KEYS[2] owners
-- ARGV[1] channel   ARGV[2] header of the publication
-- ARGV[3] number of students, then for each: student_id, record before ('' for none), record after, view
-- Returns a list of 1 (put, or put before by the same call) or 0 (refused), in the order given.
local at = 3
local put, views = {}, {}
for i = 1, tonumber(ARGV[at]) do
  local student, before, after, view = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  at = at + 4
  local stored = redis.call('HGET', KEYS[1], student) or ''
  if stored == after then
    put[i] = 1
  elseif stored ~= before or redis.call('HEXISTS', KEYS[2], student) == 1 then
    put[i] = 0
  else
    redis.call('HSET', KEYS[1], student, after)
    views[#views + 1] = view
    put[i] = 1
  end
end
if #views > 0 then
  redis.call('PUBLISH', ARGV[1], ARGV[2] .. '\n' .. table.concat(views, ',') .. '\n')
end
return put

-- Save an exam if its stored version is still the one that the decision started from, with its journal entries; tell
-- the workers of its partition.
-- KEYS[1] exam   KEYS[2] journal   KEYS[3] exams
-- ARGV[1] version it started from (-1: there was none)   ARGV[2] exam   ARGV[3] control channel   ARGV[4] ident
-- ARGV[5...] entries
-- Returns 1 if saved, else 0.
local stored = redis.call('GET', KEYS[1])
local version = -1
if stored then
  version = cjson.decode(stored).version or 0
end
if version ~= tonumber(ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SADD', KEYS[3], ARGV[4])
for i = 5, #ARGV do
  redis.call('XADD', KEYS[2], '*', 'e', ARGV[i])
end
redis.call('PUBLISH', ARGV[3], ARGV[2])
return 1

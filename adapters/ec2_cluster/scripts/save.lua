-- Save participants of one exam if this worker still owns all of them under the epochs that it names; then, in the same
-- step: set and clear deadlines, take the decided events off the inboxes, append journal entries, publish.
-- KEYS[1] records  KEYS[2] owners  KEYS[3] deadlines  KEYS[4] journal  KEYS[5] inboxes
-- KEYS[6...] the inboxes that events are taken off
-- ARGV[1] channel   ARGV[2] publication ('' for none)   ARGV[3] journal entries, one a line ('' for none)
-- ARGV[4] number of participants, then for each: student_id, "<worker> <epoch>", record
-- then the number of deadlines, and for each: its time, member ('' for the time: there is none any more)
-- then for each of those inboxes: its member, number of the last event decided
-- Returns the numbers (from 1) of the participants that others own; if there are any, nothing is saved or shown.
--
-- Many participants are few commands, because each costs more than what it does: at most 500 of them, for Lua's stack.
-- A participant without an owner is accepted: Redis came back empty, and its owner writes it back. So is one of an older
-- epoch: Redis lost a claim, or somebody who had owned it earlier wrote back first.
-- A deadline leaves the set only here, with what it caused: rule 5 of docs/architecture.md.
local students, records, owners = {}, {}, {}
local at = 5
for i = 1, tonumber(ARGV[4]) do
  local student = ARGV[at]
  students[i] = student
  owners[i] = ARGV[at + 1]
  records[2 * i - 1] = student
  records[2 * i] = ARGV[at + 2]
  at = at + 3
end
local refused, unowned = {}, {}
for i, owner in ipairs(redis.call('HMGET', KEYS[2], unpack(students))) do
  if not owner then
    unowned[#unowned + 1] = students[i]
    unowned[#unowned + 1] = owners[i]
  elseif owner ~= owners[i] then
    if tonumber(string.match(owners[i], '%d+$')) > tonumber(string.match(owner, '%d+$')) then
      unowned[#unowned + 1] = students[i]
      unowned[#unowned + 1] = owners[i]
    else
      refused[#refused + 1] = i
    end
  end
end
if #refused > 0 then
  if ARGV[2] ~= '' then
    -- its number is used up: without it, every subscriber would take it for lost and read the whole exam again
    redis.call('PUBLISH', ARGV[1], string.match(ARGV[2], '^[^\n]*') .. '\n')
  end
  return refused
end
if #unowned > 0 then
  redis.call('HSET', KEYS[2], unpack(unowned))
end
redis.call('HSET', KEYS[1], unpack(records))
for _ = 1, tonumber(ARGV[at]) do
  if ARGV[at + 1] == '' then
    redis.call('ZREM', KEYS[3], ARGV[at + 2])
  else
    redis.call('ZADD', KEYS[3], ARGV[at + 1], ARGV[at + 2])
  end
  at = at + 2
end
for i = 6, #KEYS do
  local inbox, decided = KEYS[i], tonumber(ARGV[at + 2])
  local head = redis.call('LINDEX', inbox, 0)
  while head and tonumber(string.match(head, '^%d+')) <= decided do
    redis.call('LPOP', inbox)
    head = redis.call('LINDEX', inbox, 0)
  end
  if not head then
    redis.call('SREM', KEYS[5], ARGV[at + 1])
  end
  at = at + 2
end
if ARGV[3] ~= '' then
  redis.call('XADD', KEYS[4], '*', 'e', ARGV[3])
end
if ARGV[2] ~= '' then
  redis.call('PUBLISH', ARGV[1], ARGV[2])
end
return refused

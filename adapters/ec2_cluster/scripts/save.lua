-- Save participants of one exam, each only if this worker still owns it under the epoch that it names; for those, in
-- the same step: set the deadline, take the decided events off the inbox, append journal entries, publish.
-- KEYS[1] records  KEYS[2] owners  KEYS[3] deadlines  KEYS[4] journal  KEYS[5] inboxes
-- ARGV[1] worker  ARGV[2] channel  ARGV[3] header of the publication  ARGV[4] member prefix  ARGV[5] inbox prefix
-- ARGV[6] number of participants, then for each:
--   student_id, epoch, record, check_at ('' for none), number of the last inbox event decided ('' for none), view ('' for none),
--   number of frames, frame..., number of entries, entry...
-- Returns a list of 1 (saved) or 0 (refused), in the order given.
--
-- A participant without an owner is accepted: Redis came back empty, and its owner writes it back.
-- A deadline leaves the set only here, with what it caused: rule 5 of docs/architecture.md.
local worker, channel, header, prefix, inbox_prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local at = 7
local saved, views, frames = {}, {}, {}
for i = 1, tonumber(ARGV[6]) do
  local student, epoch, record, check_at = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local decided, view, frame_count = tonumber(ARGV[at + 4]), ARGV[at + 5], tonumber(ARGV[at + 6])
  at = at + 7
  local mine = worker .. ' ' .. epoch
  local owner = redis.call('HGET', KEYS[2], student)
  local accepted = owner == mine or not owner
  if accepted then
    if not owner then
      redis.call('HSET', KEYS[2], student, mine)
    end
    redis.call('HSET', KEYS[1], student, record)
    if check_at == '' then
      redis.call('ZREM', KEYS[3], prefix .. student)
    else
      redis.call('ZADD', KEYS[3], check_at, prefix .. student)
    end
    if decided then
      local inbox = inbox_prefix .. student
      local head = redis.call('LINDEX', inbox, 0)
      while head and tonumber(string.match(head, '^%d+')) <= decided do
        redis.call('LPOP', inbox)
        head = redis.call('LINDEX', inbox, 0)
      end
      if not head then
        redis.call('SREM', KEYS[5], prefix .. student)
      end
    end
    if view ~= '' then
      views[#views + 1] = view
    end
    for f = 0, frame_count - 1 do
      frames[#frames + 1] = ARGV[at + f]
    end
    saved[i] = 1
  else
    saved[i] = 0
  end
  at = at + frame_count
  local entry_count = tonumber(ARGV[at])
  if accepted then
    for e = 1, entry_count do
      redis.call('XADD', KEYS[4], '*', 'e', ARGV[at + e])
    end
  end
  at = at + 1 + entry_count
end
if #views > 0 or #frames > 0 then
  redis.call('PUBLISH', channel, header .. '\n' .. table.concat(views, ',') .. '\n' .. table.concat(frames, '\n'))
end
return saved

#!lua name=weir_@VERSION@
-- What must be atomic about a partition's state. KEYS[1] is the partition's meta: a hash of incarnation, epoch,
-- state_hash, vector (offsets joined by commas), attempt (the last write begun under this epoch) and groups
-- (incarnation, then number:hash:incarnation:since of each, joined by semicolons). For readers alone: until
-- (incarnation:offsets up to which it was to be rebuilt when it began; empty where there was nothing),
-- partitions (of the topic, at the last claim that said) and written (this server's clock, ms, at the last write).
-- begin and write answer why they refused, or an empty string. @VERSION@ is a digest of this file: workers of
-- different releases share a server.

local function whole(number)
  return string.format('%.0f', number) -- tostring would round beyond 14 digits
end

-- Whether every offset of `low` is at most that of `high`.
local function within(low, high)
  local rest = string.gmatch(high, '%d+')
  for offset in string.gmatch(low, '%d+') do
    if tonumber(offset) > tonumber(rest() or -1) then return false end
  end
  return rest() == nil
end

local function now()
  local clock = redis.call('TIME')
  return clock[1] * 1000 + math.floor(clock[2] / 1000)
end

-- ARGV: partitions. The epoch is the clock's millisecond, or one more than before where that is higher: so it stays unique even where
-- the server was wiped, or lost its newest writes in a failover.
local function claim(keys, args)
  if args[1] ~= '' then redis.call('HSET', keys[1], 'partitions', args[1]) end
  local found = redis.call('HMGET', keys[1], 'epoch', 'incarnation', 'state_hash', 'vector', 'until', 'partitions',
    'written', 'groups')
  local epoch = whole(math.max(tonumber(found[1] or 0) + 1, now()))
  redis.call('HSET', keys[1], 'epoch', epoch, 'attempt', 0)
  return {epoch, found[2], found[3], found[4], found[5], found[6], found[7], found[8]}
end

-- ARGV: epoch, incarnation, state_hash, vector, until, groups
local function begin(keys, args)
  local epoch, incarnation, state_hash, vector, goal, groups = unpack(args)
  local found = redis.call('HMGET', keys[1], 'epoch', 'incarnation', 'vector')
  if found[1] ~= epoch then return 'the owner epoch is ' .. (found[1] or 'missing') .. ', not ' .. epoch end
  if found[2] == incarnation and found[3] ~= vector then
    return 'incarnation ' .. incarnation .. ' has begun and is at ' .. found[3]
  end
  redis.call('HSET', keys[1], 'incarnation', incarnation, 'state_hash', state_hash, 'vector', vector, 'attempt', 0,
    'until', goal, 'groups', groups, 'written', whole(now()))
  return ''
end

-- KEYS[2..]: rows. ARGV: incarnation, epoch, follows, unanswered, vector, attempt, last (0/1), TTL in ms (0 = none),
-- then the rows' values. The meta's vector must be `follows`, or lie between it and `unanswered`: the vector of an
-- earlier write of this owner whose answer it did not see. A chunk of an earlier attempt that arrives late (from a
-- connection that the owner has given up) is refused by its attempt.
local function write(keys, args)
  local incarnation, epoch, follows, unanswered, vector, attempt, last, ttl = unpack(args, 1, 8)
  local found = redis.call('HMGET', keys[1], 'incarnation', 'epoch', 'vector', 'attempt')
  if not found[1] then return 'the meta is missing' end
  if found[1] ~= incarnation then return 'the incarnation is ' .. found[1] .. ', not ' .. incarnation end
  if found[2] ~= epoch then return 'the owner epoch is ' .. found[2] .. ', not ' .. epoch end
  if tonumber(attempt) < tonumber(found[4]) then return 'a later write has begun' end
  if found[3] ~= follows and not (within(follows, found[3]) and within(found[3], unanswered)) then
    return 'the vector is ' .. found[3] .. ', not ' .. follows
  end
  for i = 2, #keys do
    if ttl == '0' then
      redis.call('SET', keys[i], args[i + 7])
    else
      redis.call('SET', keys[i], args[i + 7], 'PX', ttl)
    end
  end
  if last == '1' then
    redis.call('HSET', keys[1], 'vector', vector, 'attempt', attempt, 'written', whole(now()))
  elseif attempt ~= found[4] then
    redis.call('HSET', keys[1], 'attempt', attempt)
  end
  return ''
end

-- The few bytes of a meta find room where rows do not: a partition can be taken over while the server is full.
local small = {'allow-oom'}
redis.register_function{function_name = 'weir_@VERSION@_claim', callback = claim, flags = small}
redis.register_function{function_name = 'weir_@VERSION@_begin', callback = begin, flags = small}
redis.register_function('weir_@VERSION@_write', write)

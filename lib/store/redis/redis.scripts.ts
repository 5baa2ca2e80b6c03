import { createHash } from 'node:crypto';

/** The Lua scripts, which Redis runs atomically. All keys of a script are in one slot. */
export interface Script {
  readonly source: string;
  readonly sha: string;
}

function script(...parts: string[]): Script {
  const source = parts.join('\n');
  return { source, sha: createHash('sha1').update(source).digest('hex') };
}

// Instants and versions are passed and returned as text: Lua would round numbers of this size when it formats them.

/**
 * `read()` returns the fields that decide about a write. It returns nil if there is no visit: no key, a value that is
 * not a hash, or a hash without the fields that every visit has.
 */
const READ = `
local key = KEYS[1]
local function whole(text)
  return text and string.find(text, '^%-?%d+$') and tonumber(text) or nil
end
local function read()
  if redis.call('TYPE', key).ok ~= 'hash' then return nil end
  local v = redis.call(
    'HMGET', key, 'keyHash', 'previousKeyHash', 'previousKeyUntil', 'endedAt', 'sessionVersion', 'accessed', 'expiry'
  )
  local version, accessed, expiry = whole(v[5]), whole(v[6]), whole(v[7])
  if not (v[1] and version and accessed and expiry) then return nil end
  return {
    keyHash = v[1], previousKeyHash = v[2], previousKeyUntil = whole(v[3]), ended = v[4], endedAt = whole(v[4]),
    version = version, accessed = accessed, expiry = expiry, expiryText = v[7],
  }
end`;

/** Why a write must be refused; the same rules as in `visit.record.ts`. */
const GUARD = `
local function refusal(visit, keyHash, now)
  if not visit then return 'unknown' end
  if visit.ended then return 'ended' end
  if visit.keyHash == keyHash then return nil end
  if visit.previousKeyHash == keyHash and (visit.previousKeyUntil or 0) > tonumber(now) then return nil end
  return 'retired'
end`;

/**
 * Never shortens the lifetime of a key, because another call may have set a longer one. Keys without an expiry keep
 * none.
 */
const EXTEND = `
local function extend(ttl)
  local left = redis.call('PTTL', key)
  if left >= 0 and left < tonumber(ttl) then redis.call('PEXPIRE', key, ttl) end
end`;

/** ARGV: lifetime · fields and values. Returns 1, or 0 if the key exists. */
export const CREATE = script(`
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1`);

/** Reverts a create whose neighbors failed, before any caller was told about it. ARGV: hash of the key · version. */
export const UNDO_CREATE = script(
  READ,
  `
local visit = read()
if visit and visit.keyHash == ARGV[1] and visit.version == tonumber(ARGV[2]) and not visit.ended then
  return redis.call('DEL', key)
end
return 0`,
);

/** Whether this owner holds the lock, and the lease has not expired. */
const LEASE = `
local function holds(owner, now)
  local lock = redis.call('HMGET', key, 'lockOwner', 'lockedUntil')
  return lock[1] == owner and (whole(lock[2]) or 0) > tonumber(now)
end`;

/**
 * ARGV: hash of the key · now · version · '1' for data · data · owner of the lock or ''. Also returns the expiry if the
 * visit had been wiped.
 */
export const SAVE = script(
  READ,
  GUARD,
  LEASE,
  `
local visit = read()
local reason = refusal(visit, ARGV[1], ARGV[2])
if reason then return {'refused', reason} end
if ARGV[6] ~= '' and not holds(ARGV[6], ARGV[2]) then return {'refused', 'unlocked'} end
if visit.version ~= tonumber(ARGV[3]) then
  return {'conflict', visit.version, redis.call('HGET', key, 'sessionData')}
end
local version = redis.call('HINCRBY', key, 'sessionVersion', 1)
if ARGV[4] ~= '1' then
  redis.call('HDEL', key, 'sessionData')
  return {'saved', version, false}
end
redis.call('HSET', key, 'sessionData', ARGV[5])
local unwiped = redis.call('HDEL', key, 'wiped') == 1
return {'saved', version, unwiped and visit.expiryText}`,
);

/**
 * ARGV: accessed · expiry · lifetime · `keyChanged` as the caller knew it, or ''. If the expiry moves, returns the new
 * one, the remaining lifetime, and the user.
 */
export const TOUCH = script(
  READ,
  EXTEND,
  `
local visit = read()
if not visit or visit.ended then return false end
if ARGV[4] ~= '' and (whole(redis.call('HGET', key, 'keyChanged')) or 0) > tonumber(ARGV[4]) then return false end
local accessed, moves = tonumber(ARGV[1]) > visit.accessed and ARGV[1], tonumber(ARGV[2]) > visit.expiry
if not moves then
  if accessed then redis.call('HSET', key, 'accessed', accessed) end
  return false
end
-- Free memory first: Redis then allows the rest of the script, even if its memory is full.
redis.call('HDEL', key, 'wiped')
redis.call('HSET', key, 'expiry', ARGV[2])
if accessed then redis.call('HSET', key, 'accessed', accessed) end
extend(ARGV[3])
return {ARGV[2], redis.call('PTTL', key), redis.call('HGET', key, 'userId')}`,
);

/**
 * ARGV: hash of the key · now for the guard · new hash · until when the replaced one works, or '' · now · 'link',
 * 'unlink' or 'leave' · user id · linked · authenticated · permanent or '' · expiry or '' · absolute expiry, 'none', or
 * '' · lifetime · hash to store as the previous one, or '' for the replaced one.
 */
export const REKEY = script(
  READ,
  GUARD,
  EXTEND,
  `
local visit = read()
local reason = refusal(visit, ARGV[1], ARGV[2])
if reason then return {'refused', reason} end
local previousKeyHash = ARGV[14] ~= '' and ARGV[14] or visit.keyHash
redis.call('HSET', key, 'previousKeyHash', previousKeyHash, 'keyHash', ARGV[3], 'keyChanged', ARGV[5])
if ARGV[4] == '' then redis.call('HDEL', key, 'previousKeyUntil')
else redis.call('HSET', key, 'previousKeyUntil', ARGV[4]) end
if ARGV[6] == 'link' then redis.call('HSET', key, 'userId', ARGV[7], 'linked', ARGV[8], 'authenticatedAt', ARGV[9]) end
if ARGV[6] == 'unlink' then redis.call('HDEL', key, 'userId', 'linked', 'authenticatedAt') end
if ARGV[10] ~= '' then redis.call('HSET', key, 'permanent', ARGV[10]) end
local expiry = visit.expiryText
if ARGV[11] ~= '' and (ARGV[4] == '' or tonumber(ARGV[11]) > visit.expiry) then
  expiry = ARGV[11]
  redis.call('HDEL', key, 'wiped')
  redis.call('HSET', key, 'expiry', expiry)
  extend(ARGV[13])
end
if ARGV[12] == 'none' then redis.call('HDEL', key, 'absoluteExpiry')
elseif ARGV[12] ~= '' then redis.call('HSET', key, 'absoluteExpiry', ARGV[12]) end
return {'done', expiry, redis.call('PTTL', key), redis.call('HGET', key, 'userId')}`,
);

/** ARGV: hash of the key · now · owner · until · '1' to renew a lease. */
export const LOCK = script(
  READ,
  GUARD,
  LEASE,
  `
local reason = refusal(read(), ARGV[1], ARGV[2])
if not reason and ARGV[5] == '1' and not holds(ARGV[3], ARGV[2]) then reason = 'unlocked' end
if reason then return {'refused', reason} end
local lock = redis.call('HMGET', key, 'lockOwner', 'lockedUntil')
if lock[1] and lock[1] ~= ARGV[3] and (whole(lock[2]) or 0) > tonumber(ARGV[2]) then return {'held'} end
redis.call('HSET', key, 'lockOwner', ARGV[3], 'lockedUntil', ARGV[4])
return {'locked'}`,
);

/** ARGV: owner. */
export const UNLOCK = script(
  READ,
  `
if read() and redis.call('HGET', key, 'lockOwner') == ARGV[1] then
  return redis.call('HDEL', key, 'lockOwner', 'lockedUntil')
end
return 0`,
);

/**
 * ARGV: at · reason · '1' to retire the key, too · lifetime · '1' to end only a visit of this user · user id. Returns
 * expiry and user of the visit that it has ended.
 */
export const END = script(
  READ,
  `
local visit = read()
if not visit or visit.ended then return false end
if ARGV[5] == '1' and redis.call('HGET', key, 'userId') ~= ARGV[6] then return false end
-- Free memory first, so that a visit can be ended even if the memory of Redis is full.
redis.call('HDEL', key, 'sessionData', 'lockOwner', 'lockedUntil', 'wiped')
redis.call('HINCRBY', key, 'sessionVersion', 1)
redis.call('HSET', key, 'endedAt', ARGV[1], 'endReason', ARGV[2])
if ARGV[3] == '1' then redis.call('HSET', key, 'previousKeyUntil', ARGV[1], 'keyChanged', ARGV[1]) end
redis.call('PEXPIRE', key, ARGV[4])
return {visit.expiryText, redis.call('HGET', key, 'userId')}`,
);

/**
 * ARGV: before. Returns 'deleted' with the user; 'gone' if there is no visit; 'kept' with the instant at which to check
 * it again.
 */
export const EXPUNGE = script(
  READ,
  `
local visit = read()
if not visit then return {'gone'} end
local before = tonumber(ARGV[1])
local ended = visit.ended and (visit.endedAt or 0)
if visit.expiry >= before and not (ended and ended < before) then
  return {'kept', ended and ended < visit.expiry and visit.ended or visit.expiryText}
end
local userId = redis.call('HGET', key, 'userId')
redis.call('DEL', key)
return {'deleted', userId}`,
);

/** ARGV: before. Returns 'wiped' if there was data; 'live' with the expiry; otherwise 'empty'. */
export const WIPE = script(
  READ,
  `
local visit = read()
if not visit or visit.ended then return {'empty'} end
if visit.expiry >= tonumber(ARGV[1]) then return {'live', visit.expiryText} end
local had = redis.call('HDEL', key, 'sessionData') == 1
redis.call('HSET', key, 'wiped', '1')
if not had then return {'empty'} end
redis.call('HINCRBY', key, 'sessionVersion', 1)
return {'wiped'}`,
);

/** Returns expiry · end or false · whether it has a user · whether it has data; false if there is no visit. */
export const INSPECT = script(
  READ,
  `
local visit = read()
if not visit then return false end
local hasUser, hasData = redis.call('HEXISTS', key, 'userId'), redis.call('HEXISTS', key, 'sessionData')
return {visit.expiryText, visit.ended, hasUser, hasData}`,
);

// ---- Sorted sets of ids

/** ARGV: before · offset · count. Returns ids and scores, the lowest first. */
export const ENTRIES_BEFORE = script(`
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1], 'WITHSCORES', 'LIMIT', ARGV[2], ARGV[3])`);

/** Returns all ids and scores. */
export const ENTRIES = script(`return redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')`);

/**
 * Moves entries from the first set to the second in one step, where the lower score wins. Code that reads first the one
 * and then the other misses none. ARGV: id · score, …
 */
export const RETIRE = script(`
for i = 1, #ARGV, 2 do redis.call('ZREM', KEYS[1], ARGV[i]) end
for i = 1, #ARGV, 2 do redis.call('ZADD', KEYS[2], 'LT', ARGV[i + 1], ARGV[i]) end
return 0`);

/**
 * Changes entries whose score is still the one that was read. ARGV: id · score as read · new score, or '' to remove, …
 */
export const SETTLE = script(`
for i = 1, #ARGV, 3 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if score and tonumber(score) == tonumber(ARGV[i + 1]) then
    if ARGV[i + 2] == '' then redis.call('ZREM', KEYS[1], ARGV[i])
    else redis.call('ZADD', KEYS[1], ARGV[i + 2], ARGV[i]) end
  end
end
return 0`);

/**
 * Adds ids, or raises their scores, and returns the size of the set. If a lifetime is given, the set expires with the
 * visit that is kept longest. ARGV: lifetime or '' · id · score, …
 */
export const ENTER = script(`
-- Removes nothing. But if the memory of Redis is full, a script may only begin with a command that frees memory.
redis.call('ZREM', KEYS[1], '')
for i = 2, #ARGV, 2 do redis.call('ZADD', KEYS[1], 'GT', ARGV[i + 1], ARGV[i]) end
if ARGV[1] ~= '' and redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return redis.call('ZCARD', KEYS[1])`);

/** Lowers the score of an existing id. ARGV: id · score. */
export const LOWER = script(`return redis.call('ZADD', KEYS[1], 'XX', 'LT', ARGV[2], ARGV[1])`);

/**
 * Stores when all visits of a user were ended. ARGV: hash of the user · at · the earliest relevant instant · lifetime.
 */
export const REMEMBER = script(`
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[3])
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 0`);

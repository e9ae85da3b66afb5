"""The Lua scripts of the job store: each runs in Redis as one step that nobody else can come between.

Jobs of an API key are indexed twice: among all (`jobs`, `jobs:{status}`) and among its own (`owner:{id}:jobs`, ...).
"""

_SCOPES = """
local function scopes(owner)
  if owner and owner ~= '' then return {'', 'owner:' .. owner .. ':'} end
  return {''}
end
local function milliseconds(estimate) return math.floor((tonumber(estimate) or 0) * 1000 + 0.5) end
"""

# KEYS: job, events, preview, counters, counters of the day. ARGV: prefix, id, allowed statuses, new status, owning
# execution or "", event, time if the status is terminal or "", what the attempts change by, JSON list of names and
# amounts to add to the counters, seconds for which those of the day stay, fields...
TRANSITION = (
    _SCOPES
    + """
local prefix, id, new = ARGV[1], ARGV[2], ARGV[4]
local job = redis.call('HMGET', KEYS[1], 'status', 'owner', 'execution', 'priority', 'estimated_s', 'webhook')
local status = job[1]
if not status then return 'missing' end
if not string.find(ARGV[3], ',' .. status .. ',', 1, true) then
  -- Sent again after a lost answer: it was this very execution that ended the job.
  if status == new and ARGV[5] ~= '' and job[3] == ARGV[5] then return 'ok' end
  return status
end
if ARGV[5] ~= '' and job[3] ~= ARGV[5] then return 'lost' end
-- Before anything is written: a script that fails leaves what it has done.
local counts = cjson.decode(ARGV[9])
local model
if #counts > 0 then
  local readable, request = pcall(cjson.decode, redis.call('HGET', KEYS[1], 'request') or '')
  model = readable and request.model or 'unknown'
end
redis.call('HSET', KEYS[1], 'status', new, unpack(ARGV, 11))
redis.call('HINCRBY', KEYS[1], 'attempts', ARGV[8])
for at = 1, #counts, 2 do
  local name = model .. '\t' .. counts[at]
  redis.call('HINCRBYFLOAT', KEYS[4], name, counts[at + 1])
  redis.call('HINCRBYFLOAT', KEYS[5], name, counts[at + 1])
end
if #counts > 0 then redis.call('EXPIRE', KEYS[5], ARGV[10]) end
for _, scope in ipairs(scopes(job[2])) do
  redis.call('ZREM', prefix .. scope .. 'jobs:' .. status, id)
  redis.call('ZADD', prefix .. scope .. 'jobs:' .. new, 0, id)
end
if status == 'queued' then
  redis.call('ZREM', prefix .. 'queue', id)
  redis.call('DECRBY', prefix .. 'queued_ms', milliseconds(job[5]))
  if redis.call('EXISTS', prefix .. 'queue') == 0 then redis.call('DEL', prefix .. 'queued_ms') end
elseif new == 'queued' then
  local rank = {high = 0, normal = 1, low = 2}
  redis.call('ZADD', prefix .. 'queue', rank[job[4]], id)
  redis.call('INCRBY', prefix .. 'queued_ms', milliseconds(job[5]))
end
if ARGV[7] ~= '' then
  redis.call('ZADD', prefix .. 'ended', ARGV[7], id)
  if job[6] and job[6] ~= 'null' then redis.call('ZADD', prefix .. 'webhooks', ARGV[7], id) end
end
-- It is of one execution, and only while that runs.
redis.call('DEL', KEYS[3])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 1000, '*', 'event', 'state', 'data', ARGV[6])
return 'ok'
"""
)

# KEYS: job, events. ARGV: owning execution, progress. Returns whether the job should go on.
PROGRESS = """
if redis.call('HGET', KEYS[1], 'status') ~= 'running' then return 0 end
if redis.call('HGET', KEYS[1], 'execution') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'progress', ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 1000, '*', 'event', 'progress', 'data', ARGV[2])
return redis.call('HGET', KEYS[1], 'cancel_requested') == '1' and 0 or 1
"""

# KEYS: job, events, preview. ARGV: owning execution, picture, seconds for which it stays, event.
PREVIEW = """
if redis.call('HGET', KEYS[1], 'status') ~= 'running' then return end
if redis.call('HGET', KEYS[1], 'execution') ~= ARGV[1] then return end
redis.call('SET', KEYS[3], ARGV[2], 'EX', ARGV[3])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 1000, '*', 'event', 'preview', 'data', ARGV[4])
"""

# KEYS: job. ARGV: field, value. A job that has been deleted in the meantime must not come to life again.
SET_FIELD = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end"

# KEYS: job, events, preview. ARGV: prefix, id, seconds for which the tombstone stays (0: none). Only an ended job is
# forgotten.
FORGET = (
    _SCOPES
    + """
local prefix, id = ARGV[1], ARGV[2]
local status = redis.call('HGET', KEYS[1], 'status')
if status == 'queued' or status == 'running' then return 0 end
local owner = redis.call('HGET', KEYS[1], 'owner')
for _, scope in ipairs(scopes(owner)) do
  redis.call('ZREM', prefix .. scope .. 'jobs', id)
  if status then redis.call('ZREM', prefix .. scope .. 'jobs:' .. status, id) end
end
redis.call('ZREM', prefix .. 'ended', id)
redis.call('ZREM', prefix .. 'webhooks', id)
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
if status and tonumber(ARGV[3]) > 0 then
  redis.call('SET', prefix .. 'expired:' .. id, owner or '', 'EX', ARGV[3])
end
return 1
"""
)

# Heartbeats are compared on Redis's own clock: those of workers' machines may differ.
_NOW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
"""

# KEYS: workers, what they tell. ARGV: name, lifetime in seconds, what it tells.
BEAT = (
    _NOW
    + """
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
"""
)

# KEYS: workers, what they tell. Returns what those tell whose heartbeat is fresh.
LIVE_WORKERS = (
    _NOW
    + """
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)
for _, name in ipairs(dead) do
  redis.call('ZREM', KEYS[1], name)
  redis.call('HDEL', KEYS[2], name)
end
local live = redis.call('ZRANGE', KEYS[1], 0, -1)
if #live == 0 then return {} end
return redis.call('HMGET', KEYS[2], unpack(live))
"""
)

# KEYS: upkeep. ARGV: worker, milliseconds. Returns whether it is that worker's.
TAKE_UPKEEP = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# KEYS: queue. ARGV: prefix, id, or "" for a job of normal priority that would come now, and how many jobs are looked
# at one by one; those further ahead count as the queue's mean, since every submission asks. Returns the number of jobs
# ahead, their seconds together with those left of running jobs, how many of them have no estimate, and the number of
# workers; nothing when the job is not queued.
PLACE = (
    _NOW
    + """
local prefix = ARGV[1]
local rank
if ARGV[2] == '' then rank = redis.call('ZCOUNT', KEYS[1], '-inf', 1)
else rank = redis.call('ZRANK', KEYS[1], ARGV[2]) end
if not rank then return nil end
local seconds, unknown = 0, 0
local function add(value)
  if tonumber(value) then seconds = seconds + value else unknown = unknown + 1 end
end
local near = math.min(rank, tonumber(ARGV[3]))
if near > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, near - 1)) do
    add(redis.call('HGET', prefix .. 'job:' .. id, 'estimated_s'))
  end
end
if rank > near then
  local mean = (redis.call('GET', prefix .. 'queued_ms') or 0) / redis.call('ZCARD', KEYS[1]) / 1000
  if mean == 0 then unknown = unknown + 1 else seconds = seconds + (rank - near) * mean end
end
for _, id in ipairs(redis.call('ZRANGE', prefix .. 'jobs:running', 0, -1)) do
  local job = redis.call('HMGET', prefix .. 'job:' .. id, 'progress', 'estimated_s')
  local progress = job[1] and cjson.decode(job[1]) or {}
  add(tonumber(progress.eta_s) or job[2])
end
return {rank, tostring(seconds), unknown, redis.call('ZCOUNT', prefix .. 'workers', now, '+inf')}
"""
)

# KEYS: idempotency key, RQ's set of keys of queues. ARGV: prefix, owner, number of jobs, their milliseconds, most
# queued jobs, most queued milliseconds, most active jobs of the owner or 0, fingerprint or "", id of the job, lifetime
# of the idempotency key, what the keys of our queues begin with, then commands, each as its number of words and its
# words.
SUBMIT = """
local prefix, owner = ARGV[1], ARGV[2]
-- Sent again after a lost answer.
if redis.call('EXISTS', prefix .. 'job:' .. ARGV[9]) == 1 then return {'ok', ARGV[9]} end
local count, work, most_jobs, most_work, most_active =
  tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
if ARGV[8] ~= '' then
  local known = redis.call('HMGET', KEYS[1], 'fingerprint', 'job')
  if known[1] and redis.call('EXISTS', prefix .. 'job:' .. known[2]) == 1 then
    if known[1] == ARGV[8] then return {'known', known[2]} end
    return {'conflict', known[2]}
  end
end
local queued = redis.call('ZCARD', prefix .. 'queue')
local queued_work = tonumber(redis.call('GET', prefix .. 'queued_ms') or 0)
-- Cancelled jobs wait no longer, but their messages stay until a worker drops them.
local messages = 0
for _, queue in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  if string.sub(queue, 1, #ARGV[11]) == ARGV[11] then messages = messages + redis.call('LLEN', queue) end
end
local full = queued + count > most_jobs or messages + count > 2 * most_jobs
if full then return {'full', queued, queued_work} end
-- A job that is longer than the bound all by itself may still run when nothing waits.
if queued > 0 and queued_work + work > most_work then return {'full', queued, queued_work} end
if most_active > 0 then
  local own = prefix .. 'owner:' .. owner .. ':jobs:'
  local active = redis.call('ZCARD', own .. 'queued') + redis.call('ZCARD', own .. 'running')
  if active + count > most_active then return {'quota', active} end
end
local at = 12
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, at + words))
  at = at + words + 1
end
if ARGV[8] ~= '' then
  redis.call('HSET', KEYS[1], 'fingerprint', ARGV[8], 'job', ARGV[9])
  redis.call('EXPIRE', KEYS[1], ARGV[10])
end
return {'ok', ARGV[9]}
"""

"""One rate budget for all who can reach a Redis; needs redis: ``pip install "nex-async[redis]"``.

The script below is `Ledger` (`nex_async.transport.ledger`) over its two limits, in Lua: one round trip an ask, all or
nothing, by the clock of Redis. A change to one of them belongs into the other too; a test compares them.
"""

from __future__ import annotations

import secrets
from typing import Any

try:
    from redis import Redis as _BlockingRedis
    from redis import RedisCluster as _BlockingRedisCluster
    from redis.asyncio import Redis, RedisCluster
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError('this needs redis: pip install "nex-async[redis]"', name=_missing.name) from None

from ..errors import ConfigError
from ..transport.ledger import (
    FREE,
    HORIZON,
    LATE,
    LONGEST_WAIT,
    MOST_PERMITS,
    PUBLISHED,
    SHORTEST_WAIT,
    Ask,
    KnownLimits,
    Lease,
    SharedLimit,
    checked_limits,
)
from ..transport.limiter import Standing, WindowLimit

__all__ = ["RedisBudget"]

KEPT = 3600.0
"""Seconds for which a limit that nobody asks for is remembered, once nothing that is known of it holds anybody up."""
_LONGEST_KEPT = 366 * 86_400.0
_CONSTANTS = {
    "HORIZON": HORIZON,
    "FREE": FREE,
    "LATE": LATE,
    "LONGEST_WAIT": LONGEST_WAIT,
    "SHORTEST_WAIT": SHORTEST_WAIT,
    "MOST_PERMITS": MOST_PERMITS,
    "FLOOR": SharedLimit.FLOOR,
    "CEILING": SharedLimit.CEILING,
    "OFF": SharedLimit.OFF,
    "CUT": SharedLimit.CUT,
    "GROWTH_BELOW": SharedLimit.GROWTH_BELOW,
    "GROWTH_ABOVE": SharedLimit.GROWTH_ABOVE,
    "QUIET": SharedLimit.QUIET,
    "EVIDENCE": SharedLimit.EVIDENCE,
    "LAG": SharedLimit.LAG,
    "MOST_PASSED": SharedLimit.MOST_PASSED,
    "KEPT": KEPT,
    "LONGEST_KEPT": _LONGEST_KEPT,
}
_LUA = """
if redis.replicate_commands then redis.replicate_commands() end -- before Redis 7, TIME may not precede a write without it

-- KEYS[1]: a hash, the `state` and one field for each slot taken of a known limit. KEYS[2]: when calls passed, a list.
local memory, passes = KEYS[1], KEYS[2]
local worker, wanted, passed, throttled = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local retry_after, known_epoch = tonumber(ARGV[5]), ARGV[6]
local told_rate, told_ceiling, told_pause = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local new_epoch, count, period, raw = ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local min, max, floor, text = math.min, math.max, math.floor, string.format

if not raw then
  local time = redis.call('TIME')
  raw = time[1] * 1000000 + time[2]
end
local packed = redis.call('HGET', memory, 'state')
local s
if packed then
  s = cmsgpack.unpack(packed)
  s.clock = s.clock + max(0, raw - s.raw) -- microseconds since the state was made; it stands when the server's goes back
  s.raw = raw
else
  redis.call('DEL', memory, passes)
  s = {
    epoch = new_epoch, raw = raw, clock = 0, gate = 0, line = {}, swept = 0, is_guess = false,
    active = false, rate = CEILING, ceiling = CEILING, next = 0, cut_until = 0, grown_at = 0,
    first = 0, taken = 0, last = 0,
  }
end
local now = s.clock / 1000000
local line = s.line

-- ---- a known limit (WindowLimit): `taken` slots so far, those from `first` on are fields of the hash ----

local used = {}

local function used_at(number)
  if used[number] == nil then
    local at = number >= s.first and redis.call('HGET', memory, text('%.0f', number))
    used[number] = at and tonumber(at) or false
  end
  return used[number]
end

local function window_slot(position)
  local place = position % count
  local at = used_at(s.taken - count + place)
  return max(now, s.gate, at and at + period or now) + (position - place) / count * period
end

local function window_take(at)
  used[s.taken], s.last = at, at
  redis.call('HSET', memory, text('%.0f', s.taken), text('%.17g', at))
  s.taken = s.taken + 1
  while s.first < s.taken - count do
    redis.call('HDEL', memory, text('%.0f', s.first))
    s.first = s.first + 1
  end
end

-- ---- a limit nobody published (AdaptiveLimit) ----

local function adaptive_slot(position)
  return max(now, s.gate, s.next) + position / s.rate
end

local function adaptive_take(at)
  s.next = max(s.next, s.gate, at - LAG) + 1 / s.rate
end

local function succeeded()
  if not s.active or now < s.grown_at + 1 then return end
  if s.is_guess or now >= s.cut_until + QUIET then
    s.rate = s.rate + s.rate * GROWTH_BELOW
  else
    s.rate = s.rate + s.ceiling * (s.rate < s.ceiling and GROWTH_BELOW or GROWTH_ABOVE)
  end
  s.grown_at = now
  if s.rate >= OFF then s.rate, s.ceiling, s.active = CEILING, CEILING, false end
end

local function measured(pause)
  local horizon, recent = now - max(1, pause), 0
  local times = redis.call('LRANGE', passes, 0, -1)
  for i = #times, 1, -1 do
    if times[i] / 1000000 <= horizon then break end
    recent = recent + 1
  end
  local rate = recent >= EVIDENCE and recent / (max(1, pause) + pause) or math.huge
  return max(rate, s.rate / 2) -- many workers have not told yet what they sent
end

local function adaptive_throttled()
  local pause = retry_after or 0
  if not s.active or now >= s.cut_until then
    local rate = measured(pause)
    s.is_guess = rate == math.huge and not s.active
    s.ceiling = min(s.rate, rate)
    s.rate = max(FLOOR, s.ceiling * CUT)
    s.cut_until = now + max(1, pause)
    s.grown_at = s.cut_until
    s.active = true
  end
  s.gate = max(s.gate, now + pause)
end

local function adaptive_adopt()
  if not told_rate then return end
  local pause = max(0, told_pause)
  if not s.active or told_rate < s.rate then
    s.rate, s.ceiling = max(FLOOR, told_rate), told_ceiling
    s.cut_until, s.grown_at = now + pause, now + pause
    s.active = true
  end
  s.gate = max(s.gate, now + pause)
  s.next = max(s.next, HORIZON) -- until then what was let go before lies ahead
end

local slot, take = count and window_slot or adaptive_slot, count and window_take or adaptive_take

-- ---- the line (Ledger): an array of {worker, wanted, back} ----

local function index_of(who)
  for i, place in ipairs(line) do
    if place[1] == who then return i end
  end
end

local function ahead_of(who, share)
  local ahead = 0
  for _, place in ipairs(line) do
    if place[1] == who then break end
    ahead = ahead + min(place[2], share)
  end
  return ahead
end

local function answer(free, delays, wait, due)
  redis.call('HSET', memory, 'state', cmsgpack.pack(s))
  local matters = max(0, s.gate - now, s.next - now, count and s.taken > 0 and s.last + period - now or 0)
  local kept = text('%.0f', min(LONGEST_KEPT, KEPT + matters) * 1000)
  redis.call('PEXPIRE', memory, kept)
  redis.call('PEXPIRE', passes, kept)
  local rate, ceiling, pause = s.rate, s.ceiling, max(0, s.gate - now)
  if count then
    rate, ceiling = count / period, 0
  elseif not s.active then
    rate, pause = nil, 0
  end
  -- What Redis replies as a number is cut to an integer.
  return table.concat({
    text('%s.%.0f', s.epoch, floor(raw / 1000000)), rate and text('%.17g', rate) or '-', text('%.17g', ceiling),
    text('%.6f %.6f %.6f %.6f', pause, free, wait, due), unpack(delays),
  }, ' ')
end

-- ---- what a worker met ----

-- An epoch comes back with the second of its lease: what was asked for within KEPT was lost, else it was let lapse.
local epoch, asked_at = string.match(known_epoch, '^(%w+)%.(%d+)$')
if epoch and epoch ~= s.epoch and told_pause then
  if not count then
    adaptive_adopt()
  else
    local lost = raw / 1000000 - asked_at < KEPT
    s.gate = max(s.gate, lost and period or 0, now + told_pause)
  end
end
if not count then
  if passed > 0 then succeeded() end -- for all of them: it grows once in a second
  if not s.active then
    redis.call('DEL', passes) -- the other workers have not told yet what they sent freely
  elseif passed > 0 then
    local times, clock = {}, text('%.0f', s.clock)
    for i = 1, min(passed, MOST_PASSED) do times[i] = clock end
    redis.call('RPUSH', passes, unpack(times))
    redis.call('LTRIM', passes, -MOST_PASSED, -1)
  end
end
if throttled then
  if count then
    s.gate = max(s.gate, now + (retry_after or period / count))
  else
    adaptive_throttled()
  end
end

-- ---- what it may do ----

if not (count or s.active) then
  s.line = {}
  return answer(FREE, {}, 0, 0)
end
if now >= s.swept + LATE / 4 then -- a thousand workers ask hundreds of times a second
  s.swept = now
  for i = #line, 1, -1 do
    if line[i][3] + LATE < now then table.remove(line, i) end
  end
end
local mine = index_of(worker)
if wanted <= 0 then
  if mine then table.remove(line, mine) end
  return answer(0, {}, 0, 0)
end
local room, beyond = 0, MOST_PERMITS + 1
while beyond - room > 1 do -- the first `room` slots are within the horizon, the one at `beyond` - 1 is not
  local middle = floor((room + beyond) / 2)
  if slot(middle - 1) <= now + HORIZON then room = middle else beyond = middle end
end
if not mine then
  line[#line + 1] = {worker, wanted, now}
  mine = #line
end
local share = max(1, floor(room / #line))
local free = room - ahead_of(worker, share)
local delays = {}
for i = 1, min(wanted, share, free) do
  local at = slot(0)
  take(at)
  delays[i] = text('%.6f', at - now)
end
if #delays > 0 then table.remove(line, mine) end -- it had its turn, and stands behind the others for more
wanted = wanted - #delays
if wanted <= 0 then return answer(0, delays, 0, 0) end
if #delays > 0 then
  line[#line + 1] = {worker, wanted, now}
  mine = #line
end
local due = slot(ahead_of(worker, #delays > 0 and share or 1)) - now
local wait = min(LONGEST_WAIT, max(SHORTEST_WAIT, due - HORIZON / 2))
line[mine][2], line[mine][3] = wanted, now + wait
return answer(0, delays, wait, due)
"""
_SCRIPT = "".join(f"local {name} = {value!r}\n" for name, value in _CONSTANTS.items()) + _LUA


class RedisBudget:
    """A budget server that keeps the rate limits in a Redis, for all workers that can reach it; see `BudgetServer`.

    ``SessionPool(rate_budget=RedisBudget(Redis(...)))`` in each of them. `client` is your own, and stays open: a
    `redis.asyncio.Redis` or `RedisCluster`, used from one event loop; Redis 3.2 or newer. `limits` are those you know
    beforehand, `{"default": (600, 60.0)}`: at most 600 calls in any 60 seconds, all workers together; give the same to each.
    The keys of Redis begin with `{prefix:`; workers share a budget that have the same prefix. They hold a digest of key and
    server, never the key.

    An ask is one script, and so one round trip. Times are those of Redis' clock, so that the workers' own may differ. What
    nobody asks for is forgotten after an hour, later where a pause or a window is longer. A Redis that has lost its memory
    is taught by its workers.

    Raises `ConfigError` for arguments that cannot be right.
    """

    def __init__(
        self, client: Redis | RedisCluster, *, limits: KnownLimits | None = None, prefix: str = "nex:budget"
    ) -> None:
        if isinstance(client, (_BlockingRedis, _BlockingRedisCluster)) or not hasattr(client, "register_script"):
            raise ConfigError("client must be a redis.asyncio.Redis or a redis.asyncio.RedisCluster")
        if not isinstance(prefix, str) or not prefix or "{" in prefix or "}" in prefix:
            raise ConfigError("prefix must be a text without braces, and not empty")
        self._prefix = prefix
        self._known = {
            group: (count, period + WindowLimit.MARGIN)
            for group, (count, period) in {**PUBLISHED, **checked_limits(limits)}.items()
        }
        self._script: Any = client.register_script(_SCRIPT)

    async def lease(self, ask: Ask, /) -> Lease:
        """See `BudgetServer`. Raises what the client raises while Redis cannot be reached, or refuses."""
        return await self._lease(ask)

    async def _lease(self, ask: Ask, now: float | None = None) -> Lease:
        """Lease as if Redis' clock stood at `now`, in seconds, for the tests; None asks its clock."""
        # What stands in braces decides the slot of a cluster, and the two keys must share theirs.
        memory = f"{{{self._prefix}:{ask.account}:{ask.group}}}"
        rate, ceiling, pause = ask.standing or ("", "", "")
        reply = await self._script(
            keys=(memory, f"{memory}:passed"),
            args=(
                ask.worker,
                ask.wanted,
                ask.passed,
                int(ask.throttled),
                "" if ask.retry_after is None else repr(ask.retry_after),
                ask.epoch,
                "" if rate is None else repr(rate),
                ceiling,
                pause,
                secrets.token_hex(8),  # what Redis calls random is the same after each restart
                *self._known.get(ask.group, ("", "")),
                "" if now is None else round(now * 1e6),
            ),
        )
        epoch, allowed, *rest = (reply if isinstance(reply, str) else reply.decode()).split(" ")
        numbers = [float(number) for number in rest]
        standing = Standing(None if allowed == "-" else float(allowed), numbers[0], numbers[1])
        return Lease(epoch, standing, numbers[2], tuple(numbers[5:]), numbers[3], numbers[4])

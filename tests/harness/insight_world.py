"""A Nex server for insights on a virtual clock, with its ledger open: it stands where a tenant stands, below the real sender.

Times without a unit are seconds of the event loop; moments of the server are integer nanoseconds since 1970. Everything
is drawn from one `random.Random(seed)`, so a world repeats itself for a client that repeats itself.
"""

from __future__ import annotations

import asyncio
import json
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import formatdate
from heapq import heapify, heappop, heappush
from math import inf
from random import Random
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import unquote

import aiohttp
from multidict import CIMultiDict

from nex_async.errors import BodyTruncated, ConnectError, ConnectionLost, NexError, Timeout
from nex_async.models import Insight
from nex_async.transport.limiter import KeyState
from nex_async.transport.retry import RetryPolicy
from nex_async.transport.sweeper import Sweeper
from nex_async.transport.wire import Reply, Request

__all__ = ["EPOCH", "SECOND", "Conditions", "Crash", "Fingerprint", "InsightWorld", "Row", "WorldTenant", "moment_ns"]

SECOND = 1_000_000_000
EPOCH = int(datetime(2026, 3, 2, 8, tzinfo=timezone.utc).timestamp())
"""What the server's clock shows when a world begins; the machine's own clock is far away."""
DAY = 86_400.0
REPLAYED = 20
KEEPALIVE = 30.0

Fingerprint: TypeAlias = tuple[str, str]
"""The type of an insight and its text, normalised: all that its forms have in common."""
Kill: TypeAlias = Literal["fin", "cut", "rst", "half"]


class Crash(NamedTuple):
    """The client ends at `at` (seconds into the world) and comes back `down` seconds later; `graceful` ones close first."""

    at: float
    down: float
    graceful: bool = False


class Burst(NamedTuple):
    """`size` insights within `spread` seconds, `at` seconds into the world."""

    at: float
    size: int
    spread: float


@dataclass(frozen=True)
class Conditions:
    """What a world is like; unchanged it is healthy. Seconds, unless a name says otherwise; shares are of 1."""

    chaos: float = 3600.0
    """Faults end after this; insights come on, slowly."""
    settle: float = 2400.0
    rate: float = 60.0
    """Insights per hour."""
    batch: int = 3
    """The most insights that come at once, bursts apart."""
    bursts: tuple[Burst, ...] = ()
    duplicates: float = 0.0
    """Share of insights that say the same as an earlier one."""
    old: int = 0
    """Insights from the months before the world began."""
    orphans: float = 0.0
    """Share of insights that the stream brings and the list never shows."""
    quiet: tuple[tuple[float, float], ...] = ()
    """Spans without a new insight."""

    stream_ids: bool = False
    stream_created_at: bool = False
    lost: float = 0.0
    """Share of insights that are never emitted."""
    doubled: float = 0.0
    """Share of batches that are emitted twice."""
    deaf: float = 0.0
    """Share of connections that carry keepalives and nothing else after the replay."""
    emit_within: float = 1.0
    straggling: float = 0.0
    """Share of emissions that come up to 30 seconds late."""
    early: float = 0.0
    """Every emission is so long before the row can be read."""
    replay: Literal["envelope", "one_each", "simplified"] = "envelope"
    replay_ahead: bool = False
    """Whether the replay knows rows the list does not show yet."""
    split: float = 0.05

    late: float = 0.5
    """The most a row takes to be readable, for `late_share` of them; the rest takes half a second at most."""
    late_share: float = 1.0
    very_late: float = 0.0
    """Share of rows that take up to `very_late_by`."""
    very_late_by: float = 3000.0
    lag: float = 0.0
    """How far the slowest of three replicas is behind."""
    inclusive: bool = True
    order: Literal["newest", "oldest", "any"] = "newest"
    cut: Literal["newest", "oldest", "any"] = "newest"
    """Which rows a full reply keeps."""
    cap: int = 100
    times: Literal["exact", "stored_whole", "shown_whole", "asked_whole"] = "exact"
    """Where the fractions of seconds are lost: nowhere, in the store, in the reply, in the request's window."""
    suffix: str = ""
    """What the list adds to every text, and the stream does not."""
    decomposed: bool = False
    """Whether the list writes accents as characters of their own."""

    connect_failures: float = 0.0
    rest_failures: float = 0.0
    kills: float = 0.0
    """Connections killed per hour."""
    kill_kinds: tuple[Kill, ...] = ("fin", "cut", "rst", "half")
    outages: tuple[tuple[float, float], ...] = ()
    """Spans in which nothing can be reached; open connections die silently or loudly."""
    rest_outages: tuple[tuple[float, float], ...] = ()
    date_error: float = 0.0
    """How far the clock behind the `Date` header is from the one that stamps rows."""
    emit_error: float = 0.0

    crashes: tuple[Crash, ...] = ()
    mode: Literal["fast", "exact"] = "fast"
    start: Literal["replay", "now", "past"] = "replay"
    """`past` is a moment half an hour before the world begins."""
    checkpoint: bool = True
    work: float = 0.0
    """The most the consumer takes for one event."""


@dataclass(slots=True, eq=False)
class Row:
    """One insight: as the list shows it and the stream tells it, when it was made and can be read."""

    id: str
    type: str
    content: str
    told: str
    created: int
    shown: str
    born: float
    visible: float
    emitted: int = 0
    """How often it went to an open connection, replays apart."""
    listed: str = field(init=False)
    """The row in JSON, as the list shows it."""

    def __post_init__(self) -> None:
        row = {"id": self.id, "workspace_id": "11", "content": self.content, "type": self.type, "created_at": self.shown}
        self.listed = _json(row)

    @property
    def fingerprint(self) -> Fingerprint:
        """What all forms of the insight have in common."""
        return self.type, self.told


class Emission(NamedTuple):
    """A batch that reaches the listeners at a moment, and was stamped by the server at another."""

    at: float
    stamped: float
    rows: tuple[Row, ...]


class InsightWorld:
    """The server. `rows` is its ledger, `requests` every request to the list, `trace` what happened to whom and when."""

    def __init__(self, conditions: Conditions, seed: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.conditions = conditions
        self.random = Random(seed)
        self.begun = self.loop.time()
        self.calm_at = self.begun + conditions.chaos
        self.end_at = self.calm_at + conditions.settle
        self.rows: list[Row] = []
        self.requests: list[tuple[float, str, int]] = []
        """When, what was asked, and how many rows the reply held (-1: it failed)."""
        self.trace: list[tuple[float, str]] = []
        self.streams: list[WorldStream] = []
        self.first_contact: int | None = None
        """The server's moment of the first stream it opened or list it returned: from then on a client can miss nothing."""
        self.sequence = 0
        worst = conditions.lag
        self.replicas = (0.0, self.random.uniform(0.0, worst), worst)
        self.outages = [(self.begun + start, self.begun + end) for start, end in conditions.outages]
        self.rest_outages = [(self.begun + start, self.begun + end) for start, end in conditions.rest_outages]
        self._texts: list[Fingerprint] = []
        self._emissions: list[Emission] = []
        self._make_rows()
        self.rows.sort(key=lambda row: row.created)
        self._created = [row.created for row in self.rows]
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._plan()

    # ---- what will happen -------------------------------------------------------------------------------------------

    def _make_rows(self) -> None:
        conditions, random = self.conditions, self.random
        for _ in range(conditions.old):
            self._make_row(-random.uniform(DAY, 90 * DAY), prompt=True)
        mean = (1 + conditions.batch) / 2
        at = 0.0
        while True:
            calm = at >= conditions.chaos
            rate = min(conditions.rate, 20.0) if calm else conditions.rate
            at += random.expovariate(rate / mean / 3600.0)
            if at > conditions.chaos + conditions.settle - 300.0:
                break
            if not any(start <= at < end for start, end in conditions.quiet):
                self._make_batch(at, random.randint(1, conditions.batch), 0.005)
        for burst in conditions.bursts:
            left = burst.size
            while left:
                size = min(left, random.randint(1, 100))
                self._make_batch(burst.at, size, burst.spread)
                left -= size

    def _make_batch(self, at: float, size: int, spread: float) -> None:
        conditions, random = self.conditions, self.random
        calm = at >= conditions.chaos
        rows = [self._make_row(at + random.random() * spread, prompt=calm) for _ in range(size)]
        told = [row for row in rows if calm or random.random() >= conditions.lost]
        delay = random.random() * conditions.emit_within
        stamped = moment = max(row.born for row in rows) + delay
        if not calm and random.random() < conditions.straggling:
            moment += random.random() * 30.0
        if conditions.early and not calm:
            for row in rows:
                row.visible = moment + conditions.early
        if not told:
            return
        self._emissions.append(Emission(moment, stamped, tuple(told)))
        if not calm and random.random() < conditions.doubled:
            self._emissions.append(Emission(moment + random.random() * 3.0, stamped, tuple(told)))

    def _make_row(self, at: float, *, prompt: bool) -> Row:
        conditions, random = self.conditions, self.random
        kind, told = self._text()
        content = (unicodedata.normalize("NFD", told) if conditions.decomposed else told) + conditions.suffix
        created = EPOCH * SECOND + int(at * 1e6) * 1000 + random.randrange(1000)
        if conditions.times == "stored_whole":
            created -= created % SECOND
        shown = created - created % SECOND if conditions.times == "shown_whole" else created
        born = self.begun + at
        wait = self._wait_until_visible(prompt)
        row = Row(
            str(70_000_000_000_000_000 + len(self.rows) * 977), kind, content, told, created, _rfc3339(shown), born, born
        )
        row.visible = born + wait
        self.rows.append(row)
        return row

    def _wait_until_visible(self, prompt: bool) -> float:
        conditions, random = self.conditions, self.random
        if prompt:
            return random.random() * 0.5
        if random.random() < conditions.orphans:
            return inf
        if random.random() < conditions.very_late:
            return random.uniform(conditions.late, conditions.very_late_by)
        if random.random() < conditions.late_share:
            return random.random() * conditions.late
        return random.random() * 0.5

    def fingerprint(self, insight: Insight) -> Fingerprint:
        """Return the fingerprint of an insight in whichever form it came."""
        content = (insight.content or "").removesuffix(self.conditions.suffix)
        return insight.type or "", unicodedata.normalize("NFC", content)

    def _text(self) -> Fingerprint:
        random, texts = self.random, self._texts
        if texts and random.random() < self.conditions.duplicates:
            return texts[-random.randint(1, min(50, len(texts)))]
        kind = random.choice(("risk", "milestone", "opportunity", "fact"))
        text = (kind, f"café {len(texts)} {random.randrange(10**6)}")
        texts.append(text)
        return text

    def _plan(self) -> None:
        conditions, random = self.conditions, self.random
        for number, emission in enumerate(self._emissions):
            self._due.append((emission.at, number, lambda emission=emission: self._emit(emission)))
        at = 0.0
        while conditions.kills:
            at += random.expovariate(conditions.kills / 3600.0)
            if at >= conditions.chaos:
                break
            self._due.append((self.begun + at, len(self._due), self._kill_one))
        for start, _ in self.outages:
            self._due.append((start, len(self._due), self._kill_all))
        heapify(self._due)
        self._arm()

    def _arm(self) -> None:
        if self._due:
            self._timer = self.loop.call_at(self._due[0][0], self._act)

    def _act(self) -> None:
        now = self.loop.time()
        while self._due and self._due[0][0] <= now:
            heappop(self._due)[2]()
        self._arm()

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Do something at a moment of the loop's clock."""
        self.sequence += 1
        heappush(self._due, (moment, 1_000_000 + self.sequence, action))
        if self._timer is not None:
            self._timer.cancel()
        self._arm()

    def close(self) -> None:
        """Let nothing more happen."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
        for stream in list(self.streams):
            stream.close()

    # ---- what happens -----------------------------------------------------------------------------------------------

    @property
    def calm(self) -> bool:
        """Whether the faults are over."""
        return self.loop.time() >= self.calm_at

    def note(self, what: str) -> None:
        """Write a line of the trace."""
        self.trace.append((self.loop.time() - self.begun, what))

    def server_ns(self, error: float = 0.0) -> int:
        """Return what a clock of the server shows that is `error` seconds ahead of the one that stamps rows."""
        return EPOCH * SECOND + int((self.loop.time() - self.begun + error) * 1e6) * 1000

    def headers(self, **more: str) -> CIMultiDict[str]:
        """Return the headers of a reply given now."""
        seconds = self.server_ns(self.conditions.date_error) // SECOND
        headers = CIMultiDict({"Date": formatdate(seconds, usegmt=True), "Content-Type": "application/json"})
        headers.update({name.replace("_", "-"): value for name, value in more.items()})
        return headers

    def met(self) -> None:
        """Note that a client got what it asked for."""
        if self.first_contact is None:
            self.first_contact = self.server_ns()

    def unreachable(self, spans: list[tuple[float, float]]) -> bool:
        """Return whether now lies in one of the spans."""
        now = self.loop.time()
        return any(start <= now < end for start, end in spans)

    def _emit(self, emission: Emission) -> None:
        if not self.streams:
            return
        data: bytes | None = None
        for stream in list(self.streams):
            if stream.hears():
                if data is None:
                    stamp = EPOCH * SECOND + int((emission.stamped - self.begun) * 1e6) * 1000
                    data = self._frame("insight.batch.created", emission.rows, stamp)
                for row in emission.rows:
                    row.emitted += 1
                stream.send(data)

    def _frame(self, name: str, rows: tuple[Row, ...] | list[Row], stamped: int) -> bytes:
        """Return an event with the rows in the shape of the stream."""
        simplified = name == "insight.replay" and self.conditions.replay == "simplified"
        payload: dict[str, Any] = {} if simplified else {"workspace": {"name": "Alder", "slug": "alder"}}
        payload["insights"] = [self._enriched(row) for row in rows]
        if not simplified:
            payload["insight_count"] = len(rows)
            shown = stamped + int(self.conditions.emit_error * SECOND)
            payload["emitted_at"] = _rfc3339(shown - shown % 1_000_000)
        return f"event: {name}\ndata: {_json(payload)}\n\n".encode()

    def _enriched(self, row: Row) -> dict[str, Any]:
        item: dict[str, Any] = {"type": row.type, "content": row.told, "confidence": 0.9, "target": {"hint": "Ada"}}
        if self.conditions.stream_ids:
            item["id"] = row.id
        if self.conditions.stream_created_at:
            item["created_at"] = row.shown
        return item

    def replay(self) -> bytes:
        """Return what a connection made now begins with: the newest insights, in the form these conditions ask for."""
        now, conditions = self.loop.time(), self.conditions
        horizon = inf if conditions.replay_ahead else now - self.random.choice(self.replicas)
        found: list[Row] = []
        for row in reversed(self.rows[: bisect_right(self._created, self.server_ns())]):
            if row.visible <= horizon and row.born <= now:
                found.append(row)
                if len(found) == REPLAYED:
                    break
        if not found:
            return b""
        if self.random.random() < 0.5:
            found.reverse()
        if conditions.replay == "one_each":
            return b"".join(self._frame("insight.replay", [row], self.server_ns()) for row in found)
        return self._frame("insight.replay", found, self.server_ns())

    def _kill_one(self) -> None:
        kind = self.random.choice(self.conditions.kill_kinds)
        if self.streams:
            self.random.choice(self.streams).kill(kind)

    def _kill_all(self) -> None:
        for stream in list(self.streams):
            stream.kill(self.random.choice(("rst", "half")))

    # ---- the list ---------------------------------------------------------------------------------------------------

    def listing(self, query: Mapping[str, str]) -> tuple[bytes, int]:
        """Return the reply to `GET /v1/insights` and how many rows it holds."""
        conditions, random = self.conditions, self.random
        horizon = self.loop.time() - (0.0 if self.calm else random.choice(self.replicas))
        limit = min(int(query.get("limit", "20")), conditions.cap)
        if "from" in query:
            start, end = moment_ns(query["from"]), moment_ns(query["to"])
            if conditions.times == "asked_whole":
                start, end = start - start % SECOND, end - end % SECOND
        elif "last" in query:
            start, end = self.server_ns() - _duration(query["last"]), self.server_ns(DAY)
        else:
            return self._newest(limit, horizon)
        low = bisect_left(self._created, start)
        high = (bisect_right if conditions.inclusive else bisect_left)(self._created, end)
        found = [row for row in self.rows[low:high] if row.visible <= horizon]
        if len(found) > limit:
            if conditions.cut == "any":
                found = random.sample(found, limit)
            else:
                found = found[-limit:] if conditions.cut == "newest" else found[:limit]
        return self._rendered(found)

    def _newest(self, limit: int, horizon: float) -> tuple[bytes, int]:
        found: list[Row] = []
        for row in reversed(self.rows):
            if row.visible <= horizon:
                found.append(row)
                if len(found) == limit:
                    break
        found.reverse()
        return self._rendered(found)

    def _rendered(self, found: list[Row]) -> tuple[bytes, int]:
        order = self.conditions.order
        if order == "newest":
            found.reverse()
        elif order == "any":
            self.random.shuffle(found)
        return f'{{"data":[{",".join([row.listed for row in found])}]}}'.encode(), len(found)

    # ---- the clients ------------------------------------------------------------------------------------------------

    def tenant(self) -> WorldTenant:
        """Return what stands where the tenant of one client stands, for one life of it."""
        return WorldTenant(self)


class WorldTenant:
    """One life of a client, as the server sees it: a tenant and its binding in one."""

    def __init__(self, world: InsightWorld) -> None:
        self.world = world
        self.loop = world.loop
        self.keys = KeyState(RetryPolicy().budget)
        self.sweeper = Sweeper(world.loop)
        self.replied: Mapping[str, str] | None = None
        self.alive = True

    @property
    def connections(self) -> WorldTenant:
        return self

    def bind(self) -> WorldTenant:
        return self

    async def aclose(self) -> None:
        self.sweeper.close()

    def kill(self) -> None:
        """End the life: nothing it still sends arrives, and nothing reaches it."""
        self.alive = False
        for stream in list(self.world.streams):
            if stream.tenant is self:
                stream.kill("rst")

    async def exchange(self, request: Request, timeout: aiohttp.ClientTimeout) -> Reply:
        """Answer a request to the list."""
        world, random = self.world, self.world.random
        path, _, text = request.target.partition("?")
        query = _query(text)
        if request.method != "GET" or path != "/v1/insights" or query.keys() - {"from", "to", "last", "limit"}:
            return Reply(404, world.headers(), b'{"code":404,"message":"no such path"}')
        self._check_alive()
        asked = world.loop.time()
        try:
            await self._pass(world.rest_outages, timeout)
            if not world.calm and random.random() < world.conditions.rest_failures:
                return await self._fail(timeout)
            first = random.random() < 0.5
            latency = 0.02 + random.random() ** 4
            body, count = world.listing(query) if first else (b"", 0)
            await asyncio.sleep(latency)
            self._check_alive()
            if not first:
                body, count = world.listing(query)
        except (NexError, asyncio.CancelledError):
            world.requests.append((asked, text, -1))
            raise
        world.requests.append((asked, text, count))
        world.met()
        self.replied = world.headers()
        return Reply(200, self.replied, body)

    def _check_alive(self) -> None:
        if not self.alive:
            raise ConnectionLost("this client is dead", sent="maybe")

    async def _pass(self, spans: list[tuple[float, float]], timeout: aiohttp.ClientTimeout) -> None:
        """Raise what a connection meets that is made during an outage."""
        world = self.world
        if world.unreachable(world.outages) or world.unreachable(spans):
            if world.random.random() < 0.3:
                await asyncio.sleep(timeout.sock_connect or 5.0)
                raise Timeout("no connection could be made in time", sent="no", phase="connect")
            await asyncio.sleep(0.01 + world.random.random() * 0.2)
            raise ConnectError("connection refused", sent="no")

    async def _fail(self, timeout: aiohttp.ClientTimeout) -> Reply:
        world, random = self.world, self.world.random
        kind = random.choice(("refused", "lost", "truncated", "silent", "429", "500", "503", "502"))
        if kind == "silent" and random.random() < 0.7:
            kind = "lost"
        await asyncio.sleep((timeout.sock_read or 30.0) if kind == "silent" else 0.05 + random.random())
        self._check_alive()
        if kind == "refused":
            raise ConnectError("connection refused", sent="no")
        if kind == "lost":
            raise ConnectionLost("the connection broke", sent="maybe")
        if kind == "truncated":
            raise BodyTruncated("the body ended early", sent="maybe")
        if kind == "silent":
            raise Timeout("the server fell silent", sent="maybe", phase="headers")
        world.requests.append((world.loop.time(), kind, -1))
        self.replied = self._refusal_headers(kind)
        return Reply(int(kind), self.replied, _refusal(kind))

    def _refusal_headers(self, status: str) -> CIMultiDict[str]:
        random = self.world.random
        if status in ("429", "503") and random.random() < 0.5:
            return self.world.headers(Retry_After=str(random.randint(1, 20)))
        return self.world.headers()

    async def open_stream(self, request: Request, timeout: aiohttp.ClientTimeout) -> WorldStream:
        """Open the stream, or refuse to."""
        world, random = self.world, self.world.random
        self._check_alive()
        await self._pass([], timeout)
        await asyncio.sleep(0.02 + random.random() ** 4)
        self._check_alive()
        if not world.calm and random.random() < world.conditions.connect_failures:
            kind = random.choice(("refused", "lost", "429", "500", "503"))
            world.note(f"connect fails: {kind}")
            if kind == "refused":
                raise ConnectError("connection refused", sent="no")
            if kind == "lost":
                raise ConnectionLost("the connection broke", sent="maybe")
            refusal = WorldStream(self, int(kind), self._refusal_headers(kind), timeout)
            refusal.content.put(_refusal(kind))
            refusal.content.end()
            return refusal
        stream = WorldStream(self, 200, world.headers(Content_Type="text/event-stream"), timeout)
        stream.begin()
        return stream


class WorldStream:
    """A connection to the stream, with the parts of `aiohttp.ClientResponse` that a reader of it needs."""

    def __init__(self, tenant: WorldTenant, status: int, headers: CIMultiDict[str], timeout: aiohttp.ClientTimeout) -> None:
        self.tenant = tenant
        self.world = tenant.world
        self.status = status
        self.headers = headers
        self.content = WorldContent(self.world.loop, timeout.sock_read)
        self.closed = False
        self._frozen = False
        self._deaf = False
        self._pending = b""
        self._subscribed = inf

    def begin(self) -> None:
        """Send the first bytes, subscribe, and read the replay, the last two in either order."""
        world, random = self.world, self.world.random
        world.streams.append(self)
        world.note("connected")
        world.met()
        self._deaf = not world.calm and random.random() < world.conditions.deaf
        now = world.loop.time()
        self.send(b": connected workspace_id=11 token_id=13\n" + (b"\n" if random.random() < 0.8 else b""))
        self._subscribed = now + random.random() * 0.5
        world.at(now + random.random() * 0.5, lambda: self.send(world.replay()))
        self._keep_alive()

    def _keep_alive(self) -> None:
        def beat() -> None:
            if not self.closed and not self._frozen:
                self.send(b": keepalive\n\n")
                self._keep_alive()

        self.world.loop.call_later(KEEPALIVE, beat)

    def hears(self) -> bool:
        """Return whether a batch emitted now would go out on this connection."""
        return not (self.closed or self._frozen or self._deaf) and self.world.loop.time() >= self._subscribed

    def send(self, data: bytes) -> None:
        """Send bytes, now and then in two parts."""
        if self.closed or self._frozen or not data:
            return
        world = self.world
        if self._pending:
            self._pending += data
        elif len(data) > 1 and world.random.random() < world.conditions.split:
            cut = world.random.randrange(1, len(data))
            self.content.put(data[:cut])
            self._pending = data[cut:]
            world.loop.call_later(world.random.random() * 0.2, self._flush)
        else:
            self.content.put(data)
        if self.content.size > 1 << 20:
            self.kill("rst")

    def _flush(self) -> None:
        data, self._pending = self._pending, b""
        if data and not self.closed and not self._frozen:
            self.content.put(data)

    def kill(self, kind: Kill) -> None:
        """End the connection: in good order, in the middle of an event, by a reset, or without telling."""
        self.world.note(f"kill {kind}")
        if kind == "half":
            self._frozen = True
            return
        if kind == "cut":
            self.content.put(b'event: insight.batch.created\ndata: {"insights":[{"type":"ri')
        self._leave()
        if kind == "rst":
            error = aiohttp.ClientOSError(104, "Connection reset by peer")
            self.content.set_exception(error)
        elif kind == "cut" and self.world.random.random() < 0.5:
            self.content.set_exception(aiohttp.ClientPayloadError("Response payload is not completed"))
        else:
            self.content.end()

    def _leave(self) -> None:
        self.closed = True
        if self in self.world.streams:
            self.world.streams.remove(self)

    def close(self) -> None:
        """Close it, as the client does."""
        self._leave()
        self.content.closed()


class WorldContent:
    """The body of a stream: waits for bytes, and for no longer than the connection's read timeout."""

    def __init__(self, loop: asyncio.AbstractEventLoop, patience: float | None) -> None:
        self._loop = loop
        self._patience = patience
        self._chunks: list[bytes] = []
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.size = 0

    def put(self, data: bytes) -> None:
        """Add bytes for the reader."""
        self._chunks.append(data)
        self.size += len(data)
        self._wake()

    def end(self) -> None:
        """Let the body end."""
        self._ended = True
        self._wake()

    def closed(self) -> None:
        """Wake a reader whose own side closed the connection."""
        if self._error is None and not self._ended:
            self.set_exception(aiohttp.ClientConnectionError("Connection closed"))

    def set_exception(self, error: BaseException, cause: BaseException | None = None) -> None:
        """Let the reader raise `error`, now and from now on."""
        self._error = error
        self._wake()

    def is_eof(self) -> bool:
        """Return whether all bytes have arrived."""
        return self._ended

    def at_eof(self) -> bool:
        """Return whether all bytes were read."""
        return self._ended and not self._chunks

    def read_nowait(self) -> bytes:
        """Return what has arrived, if anything. Raises what broke the connection."""
        if self._error is not None:
            raise self._error
        data = b"".join(self._chunks)
        self._chunks.clear()
        self.size = 0
        return data

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def readany(self) -> bytes:
        """Return what has arrived; nothing at the end. Raises what broke the connection."""
        while True:
            data = self.read_nowait()
            if data or self._ended:
                return data
            await self._wait()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        timer: asyncio.TimerHandle | None = None
        if self._patience:
            silence = aiohttp.SocketTimeoutError("Timeout on reading data from socket")
            timer = self._loop.call_later(self._patience, self.set_exception, silence)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _query(text: str) -> dict[str, str]:
    return {name: unquote(value) for name, _, value in (part.partition("=") for part in text.split("&"))}


def _refusal(status: str) -> bytes:
    if status == "502":
        return b"<html><body>Bad Gateway</body></html>"
    return f'{{"code":{status},"message":"try again"}}'.encode()


@dataclass
class _Seconds:
    """The texts of whole seconds, each made once."""

    known: dict[int, str] = field(default_factory=dict)

    def text(self, second: int) -> str:
        found = self.known.get(second)
        if found is None:
            if len(self.known) > 100_000:
                self.known.clear()
            found = self.known[second] = datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        return found


_seconds = _Seconds()


def _rfc3339(moment: int) -> str:
    """Return a moment as Go writes it: nine fraction digits, without the zeros at their end."""
    second, fraction = divmod(moment, SECOND)
    text = _seconds.text(second)
    return f"{text}.{fraction:09d}".rstrip("0") + "Z" if fraction else text + "Z"


def moment_ns(text: str) -> int:
    """Return the nanoseconds since 1970 of an RFC 3339 timestamp in UTC."""
    whole, _, fraction = text.removesuffix("Z").removesuffix("+00:00").partition(".")
    second = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return second * SECOND + int(fraction[:9].ljust(9, "0") or "0")


def _duration(text: str) -> int:
    """Return the nanoseconds of a duration such as `1h30m`."""
    total, number = 0, ""
    for character in text:
        if character in "hms":
            total += int(number) * {"h": 3600, "m": 60, "s": 1}[character]
            number = ""
        else:
            number += character
    return total * SECOND

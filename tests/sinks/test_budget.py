"""A rate budget in a real Redis: the leases of the ledger in Python, many processes, and a Redis that dies or forgets."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nex_async import Nex, RetryPolicy, SessionPool
from nex_async.emulator import Emulator
from nex_async.errors import ConfigError, DeadlineExceeded
from nex_async.transport.ledger import FREE, HORIZON, Ask, Ledgers, SharedLimit
from nex_async.transport.limiter import Standing

from ..harness.canary import KEY, SECRET
from ..harness.services import service
from .servers import Server, running, until

pytest.importorskip("redis", reason="redis is not installed: run `nox -s sinks`")

import redis as blocking
from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from nex_async.integrations.redis import KEPT, RedisBudget

if TYPE_CHECKING:
    from nex_async.emulator.request_log import Entry

REDIS = ("redis-server", "--bind", "127.0.0.1", "--port", "{port}", "--dir", "{place}", "--save", "")
ACCOUNT = "0" * 32
ASK = Ask(ACCOUNT, "default", "a", 5)
START = 1_700_000_000.0
PATIENT = RetryPolicy(retries=100, max_retry_after=60.0)
KEPT_FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture
async def redis_server(tmp_path: Path) -> AsyncIterator[Server]:
    """A Redis that keeps nothing on its disk."""
    async with running(tmp_path / "redis", *REDIS) as server:
        yield server


@pytest.fixture
async def redis(redis_server: Server) -> AsyncIterator[Redis]:
    """A client of it, which does not try again."""
    async with client_of(redis_server) as client:
        yield client


def client_of(server: Server, **options: Any) -> Redis:
    return Redis(port=server.port, retry=Retry(NoBackoff(), 0), **options)


# ---- the same leases as those of the ledger in Python ---------------------------------------------------------------

TICK = 1 / 64
"""In seconds; exact in microseconds and in binary, so that both keepers see the same moments."""
STEPS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 192), st.sampled_from([64 * 70, 64 * 400])),
        st.integers(0, 5),
        st.one_of(st.integers(0, 20), st.just(300)),
        st.sampled_from([0, 0, 1, 3, 8, 40, 5000]),
        st.sampled_from([None, None, None, None, 0.0, 0.7, 5.0, 30.0, "none"]),
        st.sampled_from(["", "", "", "", "", "", "lost", "taught"]),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=100, deadline=None, suppress_health_check=KEPT_FIXTURES)
@given(STEPS, st.sampled_from(["default", "text"]), st.sampled_from([None, None, (10, 60.0), (3, 1.0), (400, 2.0)]))
async def test_it_leases_as_the_ledger_does(redis: Redis, steps: list[Any], group: Any, known: Any) -> None:
    """Over any schedule of asks, 429s and lost memories the script gives the leases that the Python ledger gives."""
    limits = {group: known} if known else None
    budget, ledgers = RedisBudget(redis, limits=limits), Ledgers(limits)
    await redis.flushall()
    now, born = START, None
    lasts: dict[int, tuple[str, str, Standing, float]] = {}
    for ticks, worker, wanted, passed, throttled, event in steps:
        now += ticks * TICK
        if event == "lost":
            await redis.flushall()
            ledgers, born = Ledgers(limits), None
        if born is None:
            born = now
        ask = Ask(ACCOUNT, group, str(worker), wanted, passed)
        if throttled is not None:
            ask = ask._replace(throttled=True, retry_after=None if throttled == "none" else throttled)
        theirs = ours = ""
        if event == "taught":
            theirs, ours = "feed", f"feed.{now:.0f}"
            ask = ask._replace(standing=Standing(199.5, 198.0, 0.5))
        elif last := lasts.get(worker):
            theirs, ours, stood, at = last
            ask = ask._replace(standing=stood._replace(pause=max(0.0, stood.pause - (now - at))))
        expected = ledgers.lease(ask._replace(epoch=theirs), now - born)
        lease = await budget._lease(ask._replace(epoch=ours), now)
        assert len(lease.delays) == len(expected.delays)
        assert lease.delays == pytest.approx(expected.delays, abs=1e-5)
        assert (lease.free, lease.wait, lease.due) == pytest.approx(expected[2:3] + expected[4:], abs=1e-5)
        assert lease.standing == pytest.approx(expected.standing, abs=1e-5)
        lasts[worker] = expected.epoch, lease.epoch, expected.standing, now
        for other, same in ((each[0] == expected.epoch, each[1].split(".")[0]) for each in lasts.values()):
            assert other == (same == lease.epoch.split(".")[0]), "an epoch changes when a memory is lost, and only then"


async def test_its_measure_reaches_as_far_as_the_ledgers(redis: Redis) -> None:
    """A pause of many seconds is held against the last 4 096 calls, as in Python; what came before is let go."""
    budget, ledgers = RedisBudget(redis), Ledgers()
    taught = ASK._replace(wanted=0, epoch="feed.1", standing=Standing(10.0, 20.0, 0.0))
    ledgers.lease(taught, 0.0)
    await budget._lease(taught, START)
    for second in range(1, 60):
        ask = ASK._replace(wanted=0, passed=100)
        expected, lease = ledgers.lease(ask, float(second)), await budget._lease(ask, START + second)
        assert lease.standing == pytest.approx(expected.standing)
    assert await redis.llen(f"{{nex:budget:{ACCOUNT}:default}}:passed") == 4096
    last = ASK._replace(throttled=True, retry_after=90.0)
    expected, lease = ledgers.lease(last, 60.0), await budget._lease(last, START + 60)
    assert lease.standing == pytest.approx(expected.standing)
    assert lease.standing.rate == pytest.approx(0.7 * 4096 / 180)


# ---- what Redis holds, and for how long -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "retry_after", "least"),
    [("default", None, KEPT), ("default", 7200.0, KEPT + 7200.0), ("text", None, KEPT + 60.0)],
)
async def test_it_is_forgotten_when_nobody_asks(redis: Redis, group: Any, retry_after: float | None, least: float) -> None:
    """Everything in Redis has an end: an hour after the last ask, or after the pause and the window, if they end later."""
    ask = ASK._replace(group=group, passed=3, throttled=retry_after is not None, retry_after=retry_after)
    await RedisBudget(redis).lease(ask._replace(epoch="feed.1", standing=Standing(5.0, 6.0, 0.0)))
    held = [await redis.pttl(key) for key in await redis.keys()]
    assert len(held) == (2 if group == "default" else 1)
    assert all(least - 5.0 < ttl / 1000 <= least + 2.0 for ttl in held)


async def test_a_window_is_held_against_a_lost_memory_only(redis: Redis) -> None:
    """A worker that comes after a loss waits for a window that may be used up; one that was away for long does not."""
    budget = RedisBudget(redis)
    ask = ASK._replace(group="text", wanted=10)
    first = await budget._lease(ask, START)
    ask = ask._replace(epoch=first.epoch, standing=first.standing)
    await redis.flushall()
    lost = await budget._lease(ask, START + 10)
    assert lost.delays == ()
    assert lost.due == pytest.approx(60.5)
    await redis.flushall()
    away = await budget._lease(ask, START + KEPT + 10)
    assert away.delays == (0.0,) * 10


async def test_a_clock_that_is_set_back_holds_nobody(redis: Redis) -> None:
    """When Redis' clock is set back the limit's own stands still: permits stay apart, and go on at once."""
    budget = RedisBudget(redis, limits={"default": (5, 10.0)})
    assert len((await budget._lease(ASK, START)).delays) == 5
    back = await budget._lease(ASK, START - 3600)
    assert back.delays == ()
    assert back.due == pytest.approx(10.5)
    assert (await budget._lease(ASK, START - 3600 + 10.5)).delays == (0.0,) * 5


async def test_budgets_with_other_prefixes_are_apart(redis: Redis) -> None:
    """Two prefixes are two budgets, and nothing in Redis stands outside of a budget's prefix."""
    ask = ASK._replace(group="text", wanted=10)
    for prefix in ("nex:budget", "staging"):
        assert len((await RedisBudget(redis, prefix=prefix).lease(ask)).delays) == 10
    assert sorted(await redis.keys()) == [f"{{{prefix}:{ACCOUNT}:text}}".encode() for prefix in ("nex:budget", "staging")]


async def test_the_key_is_never_in_redis(redis_server: Server, redis: Redis, emulator: Emulator) -> None:
    """Neither the key nor the server's name is in anything that Redis is sent, or holds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", redis_server.port)
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    emulator.switches.set(rate_limits="global=5, window=1")
    async with SessionPool(rate_budget=RedisBudget(redis)) as pool, Nex(KEY, base_url=emulator.url, pool=pool) as nex:
        await asyncio.gather(*(nex.objects.list() for _ in range(8)))
        await nex.context.add_text("Ada signed.")
    held: list[Any] = []
    for key in await redis.keys():
        held.append(key)
        is_hash = await redis.type(key) == b"hash"
        held.append(await redis.hgetall(key) if is_hash else await redis.lrange(key, 0, -1))
    await redis.echo("the end")
    sent = await reader.readuntil(b"the end")
    writer.close()
    await writer.wait_closed()
    assert len(held) > 3
    assert b"EVALSHA" in sent
    for text in (repr(held), sent.decode()):
        assert SECRET not in text
        assert emulator.url.partition("//")[2] not in text


# ---- many at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
async def test_asks_at_the_same_moment_stay_apart(redis_server: Server, known: bool) -> None:
    """Of 200 asks at once, over many connections, none gets a permit that another has."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(redis_server)) for _ in range(4)]
        budgets = [RedisBudget(client, limits={"default": (600, 60.0)} if known else None) for client in clients]
        if not known:
            await budgets[0]._lease(ASK._replace(wanted=0, epoch="feed.1", standing=Standing(100.0, 120.0, 0.0)), START)
        granted: list[float] = []
        for moment in range(1, 5):  # what was let go before it was taught is over by then
            asks = [ASK._replace(worker=str(number)) for number in range(200)]
            now = START + moment
            leases = await asyncio.gather(*(budgets[int(ask.worker) % 4]._lease(ask, now) for ask in asks))
            granted += [moment + delay for lease in leases for delay in lease.delays]
    granted.sort()
    if known:
        assert len(granted) == 600
    else:
        # At each moment the one that is due, those within the horizon, and what a keeper that comes late makes up for.
        assert 4 * 100 * HORIZON <= len(granted) <= 4 * (1 + 100 * (HORIZON + SharedLimit.LAG))
        assert all(later - first >= 0.01 - 1e-5 for first, later in zip(granted, granted[3:], strict=False))
        assert len(set(granted)) >= len(granted) - 2 * 4  # at most LAG's worth at one moment


LIMIT, WINDOW = 30, 3.0


def pauses(entries: list[Entry]) -> list[tuple[float, float]]:
    """Return of each 429 when it came, and until when it asks to wait at the least."""
    let_in = [entry.time for entry in entries if entry.status != 429]
    found = []
    for entry in entries:
        if entry.status == 429:
            before = [at for at in let_in if at <= entry.time]
            found.append((entry.time, before[-LIMIT] + WINDOW))
    return found


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.usefixtures("few_records")
async def test_processes_keep_one_limit(redis_server: Server, emulator: Emulator, tmp_path: Path, known: bool) -> None:
    """Processes that share nothing but Redis keep one limit together, fairly; in a pause nobody sends."""
    emulator.switches.set(rate_limits=f"global={LIMIT}, window={WINDOW}")
    seconds = 9.0
    async with contextlib.AsyncExitStack() as stack:
        workers = []
        for number in range(3):
            place = tmp_path / str(number)
            place.mkdir()
            arguments = (redis_server.port, emulator.url, LIMIT if known else 0, WINDOW, seconds)
            command = ("-m", "tests.sinks.budget_worker", *arguments)
            workers.append(await stack.enter_async_context(service(place, *command, NEX_API_KEY=KEY)))
        done, later = zip(*[map(int, (await worker.line()).split()) for worker in workers], strict=True)
        assert [await worker.over() for worker in workers] == [0, 0, 0]
    entries = list(emulator.requests)
    refused = pauses(entries)
    assert min(later) >= 0.3 * max(later), (done, later)  # a process that the machine lets wait asks for less
    if known:
        assert refused == []
        assert sum(done) >= 0.5 * LIMIT / WINDOW * seconds
    else:
        assert refused, "the limit was never found"
        since = entries[0].time + 1.0
        late = [at for at, _ in refused if at > since]
        assert len(late) <= 0.1 * len(entries)
        heard = HORIZON + FREE + 0.25
        for at, shut in refused:
            early = [entry.time for entry in entries if at + heard < entry.time < shut - 0.01]
            assert early == [], f"{len(early)} sent in the pause of {shut - at:.2f} s"
        assert sum(done) >= 0.3 * LIMIT / WINDOW * seconds


# ---- a Redis that forgets, dies, or is not there --------------------------------------------------------------------


class Crew:
    """Three pools, each with a budget and a client of its own, that call as fast as they may."""

    def __init__(self, server: Server, emulator: Emulator) -> None:
        self.server, self.emulator = server, emulator
        self._tasks: list[asyncio.Task[None]] = []

    async def _work(self) -> None:
        async with client_of(self.server) as client, SessionPool(rate_budget=RedisBudget(client)) as pool:
            async with Nex(KEY, base_url=self.emulator.url, pool=pool, retry=PATIENT) as nex:

                async def calls() -> None:
                    while True:
                        await nex.objects.list(timeout=60)

                await asyncio.gather(*(calls() for _ in range(4)))

    async def __aenter__(self) -> Crew:
        self._tasks = [asyncio.ensure_future(self._work()) for _ in range(3)]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        for done in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert isinstance(done, asyncio.CancelledError)

    def sent(self, since: float = 0.0, status: int | None = None) -> int:
        """Return how many requests came, of a status or of any."""
        return sum(entry.time >= since and status in (None, entry.status) for entry in self.emulator.requests)


@pytest.mark.parametrize("fault", ["killed", "flushed"])
@pytest.mark.usefixtures("few_records")
async def test_a_redis_without_memory_is_taught(redis_server: Server, emulator: Emulator, fault: str) -> None:
    """While Redis is away nobody sends; when it is back, empty, its workers teach it what it knew: no second storm."""
    emulator.switches.set(rate_limits="global=40, window=1")
    async with Crew(redis_server, emulator) as crew:
        await asyncio.sleep(3.0)
        assert crew.sent(status=429)
        if fault == "killed":
            await redis_server.kill()
            await asyncio.sleep(HORIZON + FREE + 0.25)
            before = crew.sent()
            await asyncio.sleep(1.5)
            assert crew.sent() == before, "nothing is sent without the budget"
            await redis_server.start()
        async with client_of(redis_server) as client:
            await client.flushall()
        back = time.time()
        await asyncio.sleep(4.0)
        assert crew.sent(back, 429) < 12, "a storm refuses every call in flight"
        assert crew.sent(back, 200) >= 30
        assert crew.sent(back) <= 4.0 * 40 * 1.2


async def test_calls_fail_in_time_while_redis_stays_away(redis_server: Server, redis: Redis, emulator: Emulator) -> None:
    """Nothing is sent without the budget: a call ends by its deadline with an error that says why; it works once Redis is back."""
    async with SessionPool(rate_budget=RedisBudget(redis)) as pool, Nex(KEY, base_url=emulator.url, pool=pool) as nex:
        await redis_server.kill()
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"budget cannot be asked \(ConnectionError\)"):
            await nex.objects.list(timeout=0.5)
        assert time.monotonic() - started < 1.5
        assert len(emulator.requests) == 0
        await redis_server.start()
        assert await nex.objects.list(timeout=20)


async def test_a_lost_script_is_sent_again(redis: Redis) -> None:
    """A Redis that has forgotten the script, or was replaced, is told it again."""
    budget = RedisBudget(redis)
    first = await budget.lease(ASK)
    await redis.script_flush()
    assert (await budget.lease(ASK)).epoch.split(".")[0] == first.epoch.split(".")[0]


async def test_what_redis_refuses_is_raised(redis: Redis) -> None:
    """A key of another type is raised as the client raises it."""
    await redis.set(f"{{nex:budget:{ACCOUNT}:default}}", "1")
    with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
        await RedisBudget(redis).lease(ASK)


# ---- clients of every kind ------------------------------------------------------------------------------------------


async def test_a_client_that_decodes_replies(redis_server: Server) -> None:
    """A client whose replies are text leases as well."""
    async with client_of(redis_server, decode_responses=True) as client:
        lease = await RedisBudget(client).lease(ASK._replace(throttled=True, retry_after=1.5))
        assert (lease.standing.rate, lease.standing.pause) == (140.0, 1.5)


async def test_a_cluster_keeps_a_budget(tmp_path: Path) -> None:
    """In a cluster the two keys of a limit share a slot, and permits are apart as elsewhere."""
    async with running(tmp_path / "cluster", *REDIS, "--cluster-enabled", "yes") as server:
        async with client_of(server) as node:
            await node.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")  # type: ignore[no-untyped-call]

            async def stands() -> bool:
                return b"cluster_state:ok" in await node.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]

            await until(stands)
        async with RedisCluster(host="127.0.0.1", port=server.port) as cluster:
            budget = RedisBudget(cluster, limits={"default": (8, 60.0)})
            leases = [await budget.lease(ASK._replace(worker=worker, passed=1)) for worker in "abc"]
            assert [len(lease.delays) for lease in leases] == [5, 3, 0]
            assert (await RedisBudget(cluster, prefix="other").lease(ASK._replace(throttled=True, passed=1))).standing.rate


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda client: RedisBudget(client, limits={"other": (1, 1.0)}), "limits"),  # type: ignore[dict-item]
        (lambda client: RedisBudget(client, limits={"default": (0, 1.0)}), "limits"),
        (lambda client: RedisBudget(client, prefix=""), "prefix"),
        (lambda client: RedisBudget(client, prefix="a{b"), "prefix"),
        (lambda client: RedisBudget(client, prefix=None), "prefix"),  # type: ignore[arg-type]
        (lambda client: RedisBudget("redis://localhost"), "client"),  # type: ignore[arg-type]
        (lambda client: RedisBudget(blocking.Redis()), "client"),  # type: ignore[arg-type]
    ],
)
async def test_arguments_that_cannot_be_right(make: Callable[[Redis], RedisBudget], match: str) -> None:
    """What cannot work is refused before anything is asked."""
    async with Redis() as client:
        with pytest.raises(ConfigError, match=match):
            make(client)


def test_without_redis_it_says_what_to_install() -> None:
    """Without the extra the import says what is missing, and the rest of the SDK works."""
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "import nex_async.integrations\n"
        "try:\n    import nex_async.integrations.redis\n"
        "except ModuleNotFoundError as error:\n    print(error.name, error)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'redis this needs redis: pip install "nex-async[redis]"'

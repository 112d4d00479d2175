"""Calls that block: what they return and raise, options, hooks, context variables, and what is refused."""

from __future__ import annotations

import contextvars
import copy
import pickle
import threading
import time
import traceback
import warnings
from typing import Any

import aiohttp
import msgspec
import pytest

from nex_async import (
    ClientClosed,
    ConfigError,
    DeadlineExceeded,
    InvalidRequestError,
    NotFoundError,
    RateLimitError,
    Record,
    RetryPolicy,
)
from nex_async import SessionPool as AsyncSessionPool
from nex_async.blocking import Nex, SessionPool, deadline
from nex_async.emulator import Emulator
from tests.blocking.conftest import Came
from tests.harness.canary import KEY, leaked


class Person(msgspec.Struct):
    name: str
    email_addresses: list[str] = []


def test_every_kind_of_call(nex: Nex) -> None:
    """Creating, changing, reading, searching and deleting give what they give in asynchronous code."""
    ada = nex.records.create("person", {"name": "Ada", "email_addresses": ["ada@x.io"]})
    assert isinstance(ada, Record)
    assert nex.records.update(ada.id, {"job_title": "CTO"}).text("job_title") == "CTO"
    assert (
        nex.records.upsert("person", {"name": "A", "email_addresses": ["ada@x.io"]}, match_on="email_addresses").id == ada.id
    )
    assert nex.records.get(ada.id, as_type=Person).attributes == Person("A", ["ada@x.io"])
    assert nex.search("ada@x.io").results["person"][0].id == ada.id
    assert [hit.id for hit in nex.search.all("ada@x.io")] == [ada.id]
    assert nex.request("GET", f"/v1/records/{ada.id}")["id"] == ada.id
    assert nex.notifications.preferences().digest_enabled is not None
    task = nex.tasks.create("Call", entity_ids=[ada.id])
    assert nex.tasks.list(entity_id=ada.id).collect()[0].id == task.id
    nex.records.delete(ada.id)
    with pytest.raises(NotFoundError):
        nex.records.get(ada.id)


def test_bad_input_is_refused_at_the_callers_line(nex: Nex, came: Came) -> None:
    """What cannot be right raises before anything is sent, and the traceback begins where the call was written."""
    with pytest.raises(InvalidRequestError) as caught:
        nex.tasks.create("")  # this line
    first = traceback.extract_tb(caught.value.__traceback__)[0]
    assert (first.filename, first.line) == (__file__, 'nex.tasks.create("")  # this line')
    with pytest.raises(InvalidRequestError):
        nex.records.list("person", limit=0)
    with pytest.raises(InvalidRequestError):
        nex.request("GET", "v1/objects")
    assert not came._count.acquire(blocking=False)


def test_errors_are_the_same_and_tell_the_whole_story(nex: Nex, emulator: Emulator) -> None:
    """An error has its class, its attempts and a traceback from the caller's line down to the wire, and hides the key."""
    emulator.faults.add(kind="rate_limit", route="getTask", times=None, retry_after=0.01)
    view = nex.with_options(retries=1)
    with pytest.raises(RateLimitError) as caught:
        view.tasks.get("7")
    error = caught.value
    assert error.request is not None
    assert error.request.operation == "getTask"
    assert len(error.attempts) == 2
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    assert files[0] == __file__
    assert files[-1].endswith(("transport/call.py", "transport/wire.py"))
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert not leaked(shown)
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), copied.attempts) == (RateLimitError, error.attempts)


def test_a_key_is_hidden_when_the_client_cannot_be_made() -> None:
    """A setting that cannot be right is told without the key, also in the locals of the traceback."""
    with pytest.raises(ConfigError) as caught:
        Nex(KEY, base_url="http://example.com")
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert not leaked(shown.replace(f"KEY = '{KEY}'", ""))
    assert repr(Nex.__new__(Nex)) == "<blocking Nex, not configured>"


async def test_what_belongs_to_another_loop_is_refused() -> None:
    """A session of aiohttp and an asynchronous pool are refused, with the reason."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConfigError, match="event loop"):
            Nex(KEY, session=session)  # type: ignore[arg-type]
    async with AsyncSessionPool() as pool:
        with pytest.raises(ConfigError, match="blocking"):
            Nex(KEY, pool=pool)  # type: ignore[arg-type]


def test_clients_and_pools_do_not_travel(nex: Nex) -> None:
    """Neither a client nor a pool can be pickled or copied."""
    with SessionPool() as pool:
        for one in (nex, pool, nex.with_options(timeout=1)):
            with pytest.raises(TypeError):
                pickle.dumps(one)
            with pytest.raises(TypeError):
                copy.copy(one)


def test_hooks_tell_of_every_attempt(emulator: Emulator, nex: Nex) -> None:
    """Hooks of a blocking client hear of requests, retries and replies."""
    told: list[str] = []
    emulator.faults.add(kind="status", status=503, route="getTask")
    with (
        Nex(
            KEY,
            base_url=nex.base_url,
            retry=RetryPolicy(retries=2),
            headers={"X-Trace": "1"},
            source="tests",
            on_request=lambda details: told.append("request"),
            on_retry=lambda details: told.append("retry"),
            on_response=lambda details: told.append(f"{details.status}"),
        ) as other,
        pytest.raises(NotFoundError),
    ):
        other.tasks.get("7")
    assert told == ["request", "503", "retry", "request", "404"]


def test_views_have_their_own_options(nex: Nex, emulator: Emulator) -> None:
    """A view's options hold for its calls, and for no others."""
    emulator.faults.add(kind="status", status=503, route="listTasks", times=1)
    impatient = nex.with_options(retries=0)
    with pytest.raises(Exception, match="503"):
        impatient.tasks.list().collect()
    assert nex.tasks.list().collect() == []
    assert impatient.base_url == nex.base_url
    assert repr(impatient) == repr(nex)


def test_one_deadline_for_many_calls(nex: Nex, emulator: Emulator) -> None:
    """Calls inside `deadline` end when it passes, pages included; blocks nest, and calls of other threads go on."""
    emulator.faults.add(kind="stall", route="getTask", times=None)
    free: list[object] = []
    with deadline(0.3):
        with pytest.raises(DeadlineExceeded), deadline(60):
            nex.tasks.get("1")
        other = threading.Thread(target=lambda: free.append(nex.objects.list().collect()))
        other.start()
        other.join()
        with pytest.raises(DeadlineExceeded):
            list(nex.objects.list())
    assert free
    assert nex.objects.list().collect()


def test_context_variables_travel() -> None:
    """A hook sees the context variables of the thread that makes the call: traces go on across the loop."""
    trace = contextvars.ContextVar("trace", default="none")
    seen: list[str] = []
    with Nex.local(on_request=lambda details: seen.append(trace.get())) as nex:
        trace.set("mine")
        nex.objects.list().collect()
        other = contextvars.copy_context()
        other.run(trace.set, "other")
        other.run(lambda: nex.objects.list().collect())
    assert seen == ["mine", "other"]


def test_warnings_reach_the_caller(nex: Nex) -> None:
    """A warning that is an error ends the call it belongs to."""
    for index in range(200):
        nex.notes.create(str(index))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Warning, match="200 rows"):
            nex.notes.list().collect()
    with pytest.warns(UserWarning, match="200 rows"):
        assert len(nex.notes.list().collect()) == 200


def test_what_no_exception_is_reaches_the_caller() -> None:
    """`SystemExit` raised by a hook is raised by the call, and leaves the loop as it is."""

    def leave(details: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise SystemExit(3)

    with Nex.local(on_request=leave) as nex:
        for _ in range(2):
            with pytest.raises(SystemExit):
                nex.objects.list().collect()


def test_a_second_call_inside_the_first() -> None:
    """A signal handler may call the client while the main thread waits for a call."""
    import signal

    with Nex.local(keys={KEY: None}, processing_delay=0) as nex:
        found: list[Any] = []

        def handle(number: int, frame: object) -> None:
            found.append(nex.objects.list().collect())

        before = signal.signal(signal.SIGALRM, handle)
        try:
            nex._async._emulator.faults.add(kind="delay", route="listTasks", seconds=0.5)  # type: ignore[attr-defined]
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            assert nex.tasks.list().collect() == []
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert found


def test_calls_cost_one_crossing(nex: Nex, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call crosses to the loop once, a listing once a page, however many rows it has."""
    for index in range(30):
        nex.records.create("person", {"name": str(index)})
    portal = nex._lease.portal()
    crossings: list[object] = []
    call = portal.call

    def counted(work: Any, inbox: Any = None) -> Any:
        crossings.append(work)
        return call(work, inbox)

    monkeypatch.setattr(portal, "call", counted)
    nex.objects.get("person")
    assert len(crossings) == 1
    crossings.clear()
    assert len(list(nex.records.list("person", limit=10))) == 30
    assert len(crossings) == 3
    crossings.clear()
    assert len(nex.records.list("person", limit=10).collect()) == 30
    assert len(crossings) == 1
    crossings.clear()
    with nex.records.list("person", limit=10).prefetch(3) as rows:
        assert len(list(rows)) == 30
    assert len(crossings) == 3 + 2


def test_closing_is_told_to_those_who_wait_to_begin() -> None:
    """A client that is closed while a thread makes its first call gives the reply or `ClientClosed`, and leaves no thread."""
    for _ in range(30):
        nex = Nex.local()
        results: list[object] = []

        def call(nex: Nex = nex, results: list[object] = results) -> None:
            try:
                results.append(len(nex.objects.list().collect()))
            except ClientClosed as error:
                results.append(error)

        caller = threading.Thread(target=call)
        caller.start()
        time.sleep(0.001)
        nex.close()
        caller.join(20)
        assert len(results) == 1

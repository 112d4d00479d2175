"""The extra `otel`: what spans and metrics tell, what they never tell, and that they disturb nothing."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from nex_async import ConfigError, ConnectError, Nex, NexError, NotFoundError, ServerError, SessionPool
from nex_async.emulator import Emulator
from nex_async.errors import OutcomeUnknownError, ProtocolError
from nex_async.routes import GET_TASK
from nex_async.telemetry import OpenTelemetry
from nex_async.telemetry import figures as figures_module

from .harness.canary import KEY, SECRET
from .harness.raw_server import NO_WAIT, TASK, RawServer, Seen, json_reply, serve
from .harness.virtual import Outcome, VirtualWire, reply, run_virtual, virtual_client

URL = "http://127.0.0.1:9/api/developers"


class Observed:
    """Everything that one `OpenTelemetry` exports, in memory."""

    def __init__(self, *, sampler: Any = None, propagate: bool = True) -> None:
        self._exporter = InMemorySpanExporter()
        tracers = TracerProvider(sampler=sampler)
        tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = tracers.get_tracer("test")
        self.reader = InMemoryMetricReader()
        meters = MeterProvider(metric_readers=[self.reader])
        self.telemetry = OpenTelemetry(tracer_provider=tracers, meter_provider=meters, propagate=propagate)

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, without those of the test."""
        return [span for span in self._exporter.get_finished_spans() if span.instrumentation_scope.name != "test"]  # type: ignore[union-attr]

    def span(self, name: str) -> ReadableSpan:
        """The one span of this name."""
        [found] = [span for span in self.spans if span.name == name]
        return found

    def value(self, name: str, *attributes: tuple[str, Any]) -> Any:
        """The sum, or the count, of the points of a metric that have these attributes."""
        found = [point for point in self.points(name) if {*attributes} <= {*point.attributes.items()}]
        return sum(getattr(point, "value", None) or getattr(point, "count", 0) for point in found)

    def metrics(self) -> list[Any]:
        """Every metric there is."""
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in (data.resource_metrics if data else ()) for scope in resource.scope_metrics]
        return [metric for scope in scopes for metric in scope.metrics]

    def points(self, name: str) -> list[Any]:
        """The data points of a metric."""
        return [point for metric in self.metrics() if metric.name == name for point in metric.data.data_points]

    def everything(self) -> str:
        """All that was exported, as text."""
        return "\n".join([*(span.to_json() for span in self.spans), *(metric.to_json() for metric in self.metrics())])


@pytest.fixture
def observed() -> Observed:
    return Observed()


@pytest.fixture
def seen_nex(emulator: Emulator, observed: Observed) -> Nex:
    """A client of the embedded Nex whose telemetry is `observed`; tests close it."""
    return Nex(KEY, base_url=emulator.url, retry=NO_WAIT, telemetry=observed.telemetry)


def events(span: ReadableSpan) -> dict[str, dict[str, Any]]:
    return {event.name: dict(event.attributes or {}) for event in span.events}


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def id_of(span: Any) -> int:
    return int(span.get_span_context().span_id)


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something holds."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came true")


# ---- what a span tells ----------------------------------------------------------------------------------------------


async def test_a_call_is_one_client_span_named_by_its_operation(
    emulator: Emulator, observed: Observed, seen_nex: Nex
) -> None:
    """A span has the HTTP attributes of the semantic conventions, our own under `nex.`, and no status when all went well."""
    async with seen_nex as nex:
        task = await nex.tasks.create("x")
        await nex.tasks.get(task.id)
    span = observed.span("getTask")
    port = int(emulator.url.split(":")[2].partition("/")[0])
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": port,
        "url.scheme": "http",
        "url.full": f"http://127.0.0.1:{port}/api/developers/v1/tasks/REDACTED",
        "url.template": "/api/developers/v1/tasks/{task_id}",
        "nex.operation": "getTask",
        "nex.attempts": 1,
    }
    assert (span.events, span.parent) == ((), None)
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "nex_async"


async def test_a_call_that_was_retried_is_one_span(emulator: Emulator, observed: Observed, seen_nex: Nex) -> None:
    """Each retry is an event with its wait; the durations tell of every request, the span's of the whole call."""
    emulator.faults.add(kind="status", status=503, times=2)
    async with seen_nex as nex:
        await nex.tasks.list(limit=1)
    span = observed.span("listTasks")
    attributes = dict(span.attributes or {})
    assert (attributes["nex.attempts"], attributes["http.request.resend_count"]) == (3, 2)
    assert attributes["http.response.status_code"] == 200
    assert "error.type" not in attributes
    retries = [dict(event.attributes or {}) for event in span.events if event.name == "nex.retry"]
    assert [(retry["nex.attempt"], retry["error.type"]) for retry in retries] == [(1, "503"), (2, "503")]
    assert all(retry["nex.delay"] >= 0 for retry in retries)
    name = "http.client.request.duration"
    assert observed.value(name, ("error.type", "503"), ("http.response.status_code", 503)) == 2
    assert observed.value(name) == 3
    assert observed.value("nex.client.call.duration") == 1
    assert observed.value("nex.client.retries") == 2


async def test_a_refusal_is_an_error_by_its_status(observed: Observed, seen_nex: Nex) -> None:
    """The span of a call that fails has the error status; its type is the HTTP status, its exception our class."""
    async with seen_nex as nex:
        with pytest.raises(NotFoundError):
            await nex.tasks.get("1")
    span = observed.span("getTask")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "NotFoundError"
    assert dict(span.attributes or {})["error.type"] == "404"
    assert events(span) == {"exception": {"exception.type": "nex_async.errors.NotFoundError"}}
    assert observed.value("nex.client.call.duration", ("error.type", "NotFoundError")) == 1
    assert observed.value("nex.client.calls", ("nex.outcome", "failed"), ("error.type", "NotFoundError")) == 1


async def test_an_error_without_a_reply_tells_its_reason(observed: Observed) -> None:
    """Where no server spoke, the message is ours, and shown."""
    async with Nex(KEY, base_url="http://127.0.0.1:1", telemetry=observed.telemetry, retry=NO_WAIT) as nex:
        with pytest.raises(ConnectError) as caught:
            await nex.tasks.get("1")
    span = observed.span("getTask")
    attributes = dict(span.attributes or {})
    assert attributes["error.type"] == "ConnectError"
    assert "http.response.status_code" not in attributes
    assert events(span)["exception"]["exception.message"] == caught.value.message == span.status.description


def test_a_wait_in_line_is_an_event(observed: Observed) -> None:
    """A call that waited for a rate limit says for how long; the time is a counter, the line a level."""

    async def main() -> None:
        wire = VirtualWire([Outcome(0.01, reply(body=b'{"artifact_id":"7"}'))])
        async with virtual_client(wire, telemetry=observed.telemetry) as nex:
            calls = [asyncio.ensure_future(nex.context.add_text("x")) for _ in range(11)]
            await asyncio.sleep(1)
            assert observed.value("nex.client.rate_limit.waiting", ("nex.limit", "text")) == 1
            assert observed.value("nex.client.calls.in_flight") == 1
            await asyncio.gather(*calls)

    run_virtual(main())
    waits = [events(span)["nex.rate_limit.wait"] for span in observed.spans if span.events]
    assert waits == [{"nex.limit": "text", "nex.delay": pytest.approx(60.5)}]
    assert observed.value("nex.client.wait.time", ("nex.wait", "rate_limit")) == pytest.approx(60.5)
    assert observed.value("nex.client.wait.time", ("nex.wait", "backoff")) == 0


async def test_a_cancelled_call_ends_its_span(emulator: Emulator, observed: Observed, seen_nex: Nex) -> None:
    """A call that nobody waits for any more is no error; its span ends, says so, and is current no longer."""
    fault = emulator.faults.add(kind="stall")
    async with seen_nex as nex:
        current: list[Any] = []

        async def caller() -> None:
            try:
                await nex.tasks.get("1")
            finally:
                current.append(trace.get_current_span())

        call = asyncio.ensure_future(caller())
        await until(lambda: fault.hits)
        assert observed.spans == []
        call.cancel()
        await asyncio.wait([call])
    span = observed.span("getTask")
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {})["nex.cancelled"] is True
    assert current == [trace.INVALID_SPAN]
    assert observed.value("nex.client.call.duration", ("error.type", "CancelledError")) == 1


async def test_closing_the_client_ends_spans(emulator: Emulator, observed: Observed, seen_nex: Nex) -> None:
    """A call that the client's end cuts off is an error, of the class that its caller sees."""
    fault = emulator.faults.add(kind="stall")
    call = asyncio.ensure_future(seen_nex.tasks.get("1"))
    await until(lambda: fault.hits)
    await seen_nex.aclose(drain=0)
    await asyncio.wait([call])
    assert dict(observed.span("getTask").attributes or {})["error.type"] == "ClientClosed"


def test_a_deadline_between_attempts_is_an_error_of_the_call(observed: Observed) -> None:
    """A call whose deadline forbids another attempt fails under the name its caller sees, with its attempts."""

    async def main() -> None:
        wire = VirtualWire([Outcome(1.9, reply(503))])
        async with virtual_client(wire, telemetry=observed.telemetry, timeout=2) as nex:
            with pytest.raises(NexError) as caught:
                await nex.tasks.get("1")
            assert dict(observed.span("getTask").attributes or {})["error.type"] == type(caught.value).__name__

    run_virtual(main())


async def test_what_may_have_acted_says_so(emulator: Emulator, observed: Observed, seen_nex: Nex) -> None:
    """A create that a 502 answered is an unknown outcome, and no server's word is repeated."""
    emulator.faults.add(kind="status", status=502, body="no sooner said than done")
    async with seen_nex as nex:
        with pytest.raises(OutcomeUnknownError):
            await nex.tasks.create("x")
    span = observed.span("createTask")
    assert dict(span.attributes or {})["error.type"] == "OutcomeUnknownError"
    assert events(span)["exception"] == {"exception.type": "nex_async.errors.OutcomeUnknownError"}
    assert "sooner" not in observed.everything()


async def test_the_raw_way_out_has_a_span_without_a_path(observed: Observed, seen_nex: Nex) -> None:
    """Of a path the caller wrote himself nothing is told, for nobody knows what in it is an id."""
    async with seen_nex as nex:
        with pytest.raises(NotFoundError):
            await nex.request("GET", "/v1/tasks/12345678901234567")
    attributes = dict(observed.span("GET request").attributes or {})
    assert str(attributes["url.full"]).endswith("/api/developers/v1/REDACTED")
    assert "url.template" not in attributes


# ---- whose child a span is ------------------------------------------------------------------------------------------


async def test_concurrent_calls_are_children_of_their_own_callers(observed: Observed, seen_nex: Nex) -> None:
    """Each of many calls at once belongs to the span its caller was in; none to another call."""
    async with seen_nex as nex:

        async def caller() -> tuple[int, int]:
            with observed.tracer.start_as_current_span("caller") as span:
                await nex.tasks.list(limit=1)
                await nex.tasks.list(limit=1)
                assert trace.get_current_span() is span
                return id_of(span), span.get_span_context().trace_id

        callers = dict(await asyncio.gather(*[caller() for _ in range(20)]))
    parents = [parent_of(span) for span in observed.spans]
    assert sorted(parents) == sorted([*callers, *callers])  # type: ignore[type-var]
    assert all(span.context.trace_id == callers[parent_of(span)] for span in observed.spans)  # type: ignore[index,union-attr]


async def test_pages_ahead_and_bulk_rows_belong_to_who_asked(observed: Observed, seen_nex: Nex) -> None:
    """Pages that are fetched ahead, and rows that workers carry, are children of the span they were asked for in."""
    async with seen_nex as nex:
        with observed.tracer.start_as_current_span("nightly") as nightly:
            rows = [{"name": f"P{number}", "email_addresses": [f"p{number}@x.io"]} for number in range(30)]
            await nex.records.upsert_many("person", rows, match_on="email_addresses")
            async with nex.records.list("person", limit=5).prefetch(4) as people:
                assert len([person async for person in people]) == 30
    assert {span.name for span in observed.spans} == {"getObjectDefinition", "upsertRecord", "listRecords"}
    assert len(observed.spans) >= 1 + 30 + 6
    assert {parent_of(span) for span in observed.spans} == {id_of(nightly)}


async def test_what_a_feed_does_by_itself_begins_traces_of_its_own(observed: Observed, seen_nex: Nex) -> None:
    """A feed outlives the span it was opened in by weeks: neither its stream nor its readings become children of it."""
    async with seen_nex as nex:
        with observed.tracer.start_as_current_span("startup"):
            feed = await nex.insights.stream().__aenter__()
        await until(lambda: feed.stats.sweeps)
        assert {span.name for span in observed.spans} == {"streamInsights", "getInsights"}
        assert {parent_of(span) for span in observed.spans} == {None}
        with observed.tracer.start_as_current_span("request") as request:
            job = await nex.context.add_text("Ada from x.io asked for a demo")
            await job
        polls = [span for span in observed.spans if span.name == "getArtifact"]
        assert {parent_of(span) for span in polls} == {id_of(request)}
        await feed.aclose()


async def test_the_span_is_current_while_the_call_is_under_way(emulator: Emulator, observed: Observed) -> None:
    """Hooks, and the log records of a call, see the call's span; outside of it nothing has changed."""
    current: list[Any] = []
    hook = lambda details: current.append(trace.get_current_span())  # noqa: E731
    arguments: dict[str, Any] = {"on_request": hook, "on_response": hook, "telemetry": observed.telemetry}
    async with Nex(KEY, base_url=emulator.url, **arguments) as nex:
        await nex.tasks.list(limit=1)
    assert {id_of(span) for span in current} == {id_of(observed.span("listTasks"))}
    assert len(current) == 2
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_coroutine_that_is_thrown_away_ends_its_span(observed: Observed, caplog: pytest.LogCaptureFixture) -> None:
    """The collector ends calls in a context of its own: the span ends, and nothing is logged about it."""
    call = contextvars.copy_context().run(observed.telemetry.on_call, GET_TASK, URL)
    contextvars.Context().run(call.on_end, GeneratorExit())
    assert observed.span("getTask").end_time
    assert caplog.records == []
    inside = observed.telemetry.on_call(GET_TASK, URL)
    inside.on_end(GeneratorExit())
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_the_stream_has_a_span_until_it_stands(observed: Observed, seen_nex: Nex) -> None:
    """Opening the stream is a span of a moment; that the stream then stands for weeks is none."""
    async with seen_nex as nex, nex.insights.stream():
        span = observed.span("streamInsights")
        assert dict(span.attributes or {})["http.response.status_code"] == 200
        assert "nex.cancelled" not in dict(span.attributes or {})


async def test_a_stream_that_is_refused_is_an_error(emulator: Emulator, observed: Observed) -> None:
    """What keeps the stream from standing is told like the failure of any call."""
    async with Nex("sk-wrong-key", base_url=emulator.url, telemetry=observed.telemetry) as nex:
        with pytest.raises(NexError):
            await nex.insights.stream().__aenter__()
    span = observed.span("streamInsights")
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == "401"


# ---- what the server gets to know -----------------------------------------------------------------------------------


def headers_of(server: RawServer) -> list[dict[str, str]]:
    return [seen.headers for seen in server.requests]


async def test_the_server_learns_of_the_span(observed: Observed) -> None:
    """Every attempt of a call carries `traceparent` with the call's span."""
    replies = iter([json_reply({"code": 503, "message": "no"}, 503), TASK, TASK])
    async with RawServer([serve(lambda seen: next(replies))]) as server:
        async with Nex(KEY, base_url=server.url, retry=NO_WAIT, telemetry=observed.telemetry) as nex:
            await nex.tasks.get("1")
            span = observed.span("getTask").context
            assert span is not None
            expected = f"00-{span.trace_id:032x}-{span.span_id:016x}"
            told = [headers["traceparent"].rpartition("-") for headers in headers_of(server)]
            assert [(ids, int(flags, 16) & 1) for ids, _, flags in told] == [(expected, 1), (expected, 1)]
            await nex.tasks.create("x")
            assert headers_of(server)[2]["traceparent"].startswith("00-")


def test_what_the_caller_sets_himself_is_sent_once(observed: Observed) -> None:
    """A header of the caller's, in whatever case, takes the place of ours; the request has it once."""

    async def main() -> None:
        wire = VirtualWire([reply()])
        async with virtual_client(wire, telemetry=observed.telemetry) as nex:
            await nex.tasks.get("1", headers={"TraceParent": "mine"})
        assert wire.calls[0].request.headers == {"TraceParent": "mine"}

    run_virtual(main())


async def test_propagation_can_be_turned_off() -> None:
    """With `propagate=False` the server learns nothing, and spans are made all the same."""
    observed = Observed(propagate=False)
    async with RawServer([serve(lambda seen: TASK)]) as server:
        async with Nex(KEY, base_url=server.url, telemetry=observed.telemetry) as nex:
            await nex.tasks.get("1")
    assert "traceparent" not in headers_of(server)[0]
    assert observed.span("getTask")


async def test_a_call_that_is_not_sampled_is_propagated_as_such() -> None:
    """A span that nobody records still tells the server which trace it belongs to; durations count it."""
    observed = Observed(sampler=ALWAYS_OFF)
    async with RawServer([serve(lambda seen: TASK)]) as server:
        async with Nex(KEY, base_url=server.url, telemetry=observed.telemetry) as nex:
            await nex.tasks.get("1")
    assert int(headers_of(server)[0]["traceparent"].rpartition("-")[2], 16) & 1 == 0
    assert observed.spans == []
    assert observed.value("http.client.request.duration") == 1


async def test_nothing_is_propagated_to_another_host(observed: Observed) -> None:
    """A redirect is not followed, so that no other server ever sees the headers."""
    async with RawServer([serve(lambda seen: TASK)]) as other:
        moved = json_reply({}, 307, {"Location": other.url})
        async with RawServer([serve(lambda seen: moved)]) as server:
            async with Nex(KEY, base_url=server.url, telemetry=observed.telemetry) as nex:
                with pytest.raises(ProtocolError):
                    await nex.tasks.get("1")
        assert (len(server.requests), len(other.requests)) == (1, 0)


# ---- what is never told ---------------------------------------------------------------------------------------------

HOSTILE = {
    "id": "555hostile000id555",
    "slug": "hostileslug",
    "value": "hostile.person@victim.example",
    "query": "hostile search words",
    "header": "hostile-header-value",
    "title": "hostile title of a task",
    "server": "hostile words of a server",
    "place": "hostile-place.example",
    "baggage": "hostile-baggage",
}


async def test_no_value_and_no_id_is_ever_exported(observed: Observed) -> None:
    """Values in ids, paths, queries, bodies, headers and replies, good and bad, appear in no span and in no metric."""

    def handler(seen: Seen) -> bytes:
        words = {"message": f"{HOSTILE['server']} {seen.target} {seen.body.decode()} {KEY}", "id": HOSTILE["id"]}
        status = (200, 400, 404, 409, 422, 429, 500, 503, 307, 700)[len(server.requests) % 10]
        return json_reply(words, status, {"X-Request-Id": HOSTILE["server"], "Location": f"http://{HOSTILE['place']}/x"})

    token = context.attach(baggage.set_baggage("user", HOSTILE["baggage"]))
    calls: list[Callable[[Nex], Any]] = [
        lambda nex: nex.tasks.get(HOSTILE["id"]),
        lambda nex: nex.tasks.list(search=HOSTILE["query"], limit=7),
        lambda nex: nex.tasks.create(HOSTILE["title"]),
        lambda nex: nex.records.get(HOSTILE["id"]),
        lambda nex: nex.records.create(HOSTILE["slug"], {"email_addresses": [HOSTILE["value"]]}),
        lambda nex: nex.records.upsert(HOSTILE["slug"], {"email_addresses": [HOSTILE["value"]]}, match_on="email_addresses"),
        lambda nex: nex.records.list(HOSTILE["slug"], sort=HOSTILE["slug"]),
        lambda nex: nex.search(HOSTILE["query"]),
        lambda nex: nex.context.ask(HOSTILE["query"]),
        lambda nex: nex.request("GET", f"/v1/{HOSTILE['slug']}/{HOSTILE['id']}", query={"q": HOSTILE["query"]}),
        lambda nex: nex.request("POST", "/v1/anything", body={"x": HOSTILE["value"]}),
        lambda nex: nex.tasks.update(HOSTILE["id"], title=HOSTILE["title"]),
        lambda nex: nex.tasks.delete(HOSTILE["id"]),
    ]
    headers = {"X-Custom": HOSTILE["header"]}
    try:
        async with RawServer([serve(handler)]) as server:
            arguments: dict[str, Any] = {"retry": NO_WAIT, "headers": headers, "telemetry": observed.telemetry}
            async with Nex(KEY, base_url=server.url, **arguments) as nex:
                for turn in range(10):
                    for call in calls[turn % 3 :]:
                        try:
                            await call(nex)
                        except NexError:
                            pass
    finally:
        context.detach(token)
    sent = " ".join(f"{seen.target} {seen.headers} {seen.body!r}" for seen in server.requests)
    assert all(value.partition(" ")[0] in sent for key, value in HOSTILE.items() if key not in ("server", "place"))
    exported = observed.everything()
    assert len(observed.spans) > 100
    statuses = {(span.attributes or {}).get("http.response.status_code") for span in observed.spans}
    assert statuses == {200, 400, 404, 409, 422, 429, 500, 503, None}
    for value in ("hostile", "victim", SECRET, "X-Custom", *HOSTILE.values()):
        assert value not in exported, value


async def test_metrics_have_few_points_however_many_ids(observed: Observed, seen_nex: Nex) -> None:
    """The number of data points grows with operations and outcomes, never with ids, values or clients."""
    async with seen_nex as nex:
        counts = []
        for number in range(3):
            for index in range(20):
                with pytest.raises(NotFoundError):
                    await nex.tasks.get(1_000_000 + 100 * number + index)
            counts.append({metric.name: len(metric.data.data_points) for metric in observed.metrics()})
    assert counts[0] == counts[1] == counts[2]
    assert counts[0]["http.client.request.duration"] == 1


# ---- metrics --------------------------------------------------------------------------------------------------------


async def test_durations_have_the_buckets_of_the_conventions(observed: Observed, seen_nex: Nex) -> None:
    """Seconds are counted in buckets of seconds, without any view; names and units are those of the conventions."""
    async with seen_nex as nex:
        await nex.tasks.list(limit=1)
    metrics = {metric.name: metric for metric in observed.metrics()}
    duration = metrics["http.client.request.duration"]
    [point] = duration.data.data_points
    assert (duration.unit, tuple(point.explicit_bounds)[:3], tuple(point.explicit_bounds)[-1]) == (
        "s",
        (0.005, 0.01, 0.025),
        10,
    )
    assert set(point.attributes) == {
        "http.request.method", "http.response.status_code", "server.address", "server.port", "nex.operation",
    }  # fmt: skip
    assert 0 < point.sum < 5
    [point] = metrics["nex.client.call.duration"].data.data_points
    assert tuple(point.explicit_bounds)[-1] == 300
    assert all(name == name.lower() and metric.unit and metric.description for name, metric in metrics.items())


async def test_clients_of_one_telemetry_are_summed_up(emulator: Emulator, observed: Observed) -> None:
    """Many clients are one set of figures; connections that they share count once; a client that is gone stays counted."""
    async with SessionPool() as pool:
        clients = [Nex(KEY, base_url=emulator.url, pool=pool, telemetry=observed.telemetry) for _ in range(3)]
        for client in clients:
            await client.tasks.list(limit=1)
            await client.with_options(timeout=5).tasks.list(limit=1)
        del client
        assert observed.value("nex.client.calls", ("nex.outcome", "succeeded")) == 6
        assert observed.value("nex.client.connections", ("http.connection.state", "idle")) == 1
        for gone in clients:
            await gone.aclose()
        del gone
        clients.clear()
        gc.collect()
        assert observed.value("nex.client.calls", ("nex.outcome", "succeeded")) == 6
        assert list(observed.telemetry._clients.living()) == []
        assert observed.telemetry._clients._known == {}


def test_clients_that_are_gone_cost_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client for every request, and no reader of metrics: what is remembered of them does not grow."""
    monkeypatch.setattr(figures_module, "_MANY", 10)
    telemetry = OpenTelemetry()
    for _ in range(100):
        Nex(KEY, base_url=URL, telemetry=telemetry)
    gc.collect()
    Nex(KEY, base_url=URL, telemetry=telemetry)
    assert len(telemetry._clients._known) <= 11


async def test_feeds_are_measured(emulator: Emulator, observed: Observed) -> None:
    """Lag and silence are of the worst feed; lost connections and dropped events are sums that outlive feed and client."""

    async def use() -> int:
        async with Nex(KEY, base_url=emulator.url, telemetry=observed.telemetry) as nex, nex.insights.stream() as feed:
            queue = feed.queue(maxsize=2, overflow="drop_oldest")
            emulator.faults.add(kind="cut_event", ending="reset")
            for number in range(4):
                await nex.context.add_text(f"Ada Park from x{number}.io asked for a demo of the product")
            await until(lambda: queue.dropped >= 2 and feed.stats.reconnects and feed.stats.connected)
            assert observed.value("nex.client.feeds", ("nex.feed.connected", True)) == 1
            assert observed.value("nex.client.feed.lag") == feed.stats.lag >= 2
            assert 0 < observed.value("nex.client.feed.silence") < 60
            await feed.aclose()
            assert observed.value("nex.client.feeds") == 0
            assert observed.points("nex.client.feed.lag") == []
            return queue.dropped

    dropped = await use()
    gc.collect()
    assert observed.value("nex.client.feed.reconnects") == 1
    assert observed.value("nex.client.feed.dropped") == dropped
    assert observed.value("nex.client.feed.gaps") == 0


async def test_throttling_is_measured(emulator: Emulator, observed: Observed, seen_nex: Nex) -> None:
    """An answer 429 counts, and so does the time it cost."""
    emulator.faults.add(kind="rate_limit", retry_after=0)
    async with seen_nex as nex:
        await nex.tasks.list(limit=1)
    assert observed.value("nex.client.throttled") == 1
    assert events(observed.span("listTasks"))["nex.retry"]["error.type"] == "429"


# ---- where it goes, and what it must not do -------------------------------------------------------------------------


async def test_an_embedded_nex_and_its_views_are_followed(observed: Observed) -> None:
    """`Nex.local()` takes it as `Nex()` does, and a view has what its client has."""
    async with Nex.local(telemetry=observed.telemetry) as nex:
        await nex.with_options(retries=0).tasks.list(limit=1)
        await nex.tasks.list(limit=1)
    assert len(observed.spans) == 2


class Broken(TextMapPropagator):
    """A propagator with a bug, or with bad intentions."""

    def __init__(self, headers: Mapping[str, str] | None) -> None:
        self._headers = headers

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        return context

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        if self._headers is None:
            raise RuntimeError("a bug")
        carrier.update(self._headers)

    @property
    def fields(self) -> set[str]:
        return set()


@pytest.fixture
def _own_propagator() -> Iterator[None]:
    before = propagate.get_global_textmap()
    yield
    propagate.set_global_textmap(before)


@pytest.mark.usefixtures("_own_propagator")
@pytest.mark.parametrize(
    "headers", [None, {"Authorization": "x"}, {"a": "b\r\nHost: evil"}], ids=["raises", "key", "splits"]
)
async def test_a_broken_propagator_disturbs_no_call(emulator: Emulator, observed: Observed, headers: Any) -> None:
    """What a propagator raises, or may not write, is logged and counted; the call goes out without it."""
    propagate.set_global_textmap(Broken(headers))
    async with Nex(KEY, base_url=emulator.url, telemetry=observed.telemetry) as nex:
        await nex.tasks.list(limit=1)
        assert nex.hook_errors == 1
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_telemetry_that_raises_disturbs_no_call(
    emulator: Emulator, observed: Observed, seen_nex: Nex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the tracer's span does, a call's result is its own; the context is as it was."""

    def broken(*arguments: Any, **more: Any) -> Any:
        raise RuntimeError("a bug")

    real = observed.telemetry._recorder.tracer.start_span("")
    for name in ("set_attributes", "add_event", "end", "set_status"):
        monkeypatch.setattr(type(real), name, broken)
    emulator.faults.add(kind="status", status=503)
    async with seen_nex as nex:
        await nex.tasks.list(limit=1)
        with pytest.raises(ServerError):
            emulator.faults.add(kind="status", status=503, times=None)
            await nex.tasks.list(limit=1)
        assert nex.hook_errors > 2
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_without_an_sdk_it_does_nothing(emulator: Emulator) -> None:
    """With the API alone, as libraries install it, calls go their way, and carry nothing."""
    async with RawServer([serve(lambda seen: TASK)]) as server:
        async with Nex(KEY, base_url=server.url, telemetry=OpenTelemetry()) as nex:
            assert (await nex.tasks.get("1")).id == "1"
            assert nex.hook_errors == 0
    assert "traceparent" not in headers_of(server)[0]


def test_what_is_no_telemetry_is_refused() -> None:
    """A wrong argument is named before anything is sent."""
    with pytest.raises(ConfigError, match="telemetry"):
        Nex(KEY, telemetry="yes")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="telemetry"):
        Nex.local(telemetry=object())  # type: ignore[arg-type]


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    return done.stdout + done.stderr[-2000:]


def test_a_client_without_telemetry_loads_none_of_it() -> None:
    """Who does not ask for telemetry does not load OpenTelemetry, nor our module for it."""
    code = """
import sys, nex_async.client
print([name for name in sys.modules if name.startswith("opentelemetry") or "telemetry" in name])
"""
    assert run(code).strip() == "[]"


def test_without_the_extra_the_error_says_what_to_install() -> None:
    """Where OpenTelemetry is missing, importing the module tells the command that brings it."""
    code = """
import sys
sys.modules["opentelemetry"] = None
try:
    import nex_async.telemetry
except ModuleNotFoundError as error:
    print(error)
"""
    assert run(code).strip() == 'this needs OpenTelemetry: pip install "nex-async[otel]"'

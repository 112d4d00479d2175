"""Every switch, flipped for the whole server and by one request."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from nex_async.emulator import Emulator
from nex_async.emulator.switches import CHOICES

from .conftest import Api, Clock
from .listening import add, listening

_KEYS = {"sk-all": None, "sk-writer": ["record.write"], "sk-nobody": []}
_TEXT = "Ada Park <ada@techflow.io> asked for a demo."


@dataclasses.dataclass
class Answer:
    """A reply, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Bench:
    """An emulator without delay, and requests with headers of their own."""

    def __init__(self, api: Api, emulator: Emulator) -> None:
        self.api = api
        self.emulator = emulator
        self.headers: dict[str, str] = {}
        """Sent with the request that is looked at, not with those that prepare it."""

    async def __call__(self, method: str, path: str, body: Any = None, *, key: str = "") -> Answer:
        headers = {"Authorization": f"Bearer {key or self.api.key}", **self.headers}
        options: dict[str, Any] = {"json": body} if body is not None else {}
        async with self.api.session.request(
            method, self.api.url + path, headers=headers, allow_redirects=False, **options
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def listen(self) -> tuple[str, Any]:
        """Return the first event of the stream."""
        given = {name.removeprefix("X-Emulator-").replace("-", "_"): value for name, value in self.headers.items()}
        async with listening(self.api, **given) as stream:
            return await stream.event()


@pytest.fixture
async def bench(clock: Clock) -> AsyncIterator[Bench]:
    async with Emulator(clock=clock, keys=_KEYS, processing_delay=0) as emulator, aiohttp.ClientSession() as session:
        yield Bench(Api(session, emulator.url, "sk-all"), emulator)


async def _insights(bench: Bench) -> Any:
    await add(bench.api, _TEXT)
    return (await bench("GET", "/v1/insights")).json


async def _replayed(bench: Bench) -> Any:
    await add(bench.api, _TEXT)
    return (await bench.listen())[1]


async def _asked(bench: Bench) -> Any:
    await add(bench.api, _TEXT)
    return (await bench("POST", "/v1/context/ask", {"query": "Who is Ada?"})).json


async def _added(bench: Bench) -> Any:
    return (await bench("POST", "/v1/context/text", {"content": _TEXT})).json["artifact_id"]


async def _artifact(bench: Bench) -> Any:
    return (await bench("GET", f"/v1/context/artifacts/{await add(bench.api, _TEXT)}")).json["result"]


async def _jobs(bench: Bench) -> Any:
    created = (await bench("POST", "/v1/context/list/jobs", {"query": "Ada"})).json
    number = (created.get("message") or created)["job_id"]
    return created, (await bench("GET", f"/v1/context/list/jobs/{number}")).json


async def _attributes(bench: Bench) -> Any:
    values = {"location": {"city": "Leipzig"}, "email_addresses": ["ada@x.io"], "job_title": "Head"}
    body = {"matching_attribute": "email_addresses", "attributes": {"name": "Ada Park", **values}}
    made = await bench.api("PUT", "/v1/objects/person", body)
    one = (await bench("GET", f"/v1/records/{made['id']}")).json["attributes"]
    page = (await bench("POST", "/v1/objects/person/records", {"limit": 1})).json["data"][0]["attributes"]
    assert one == page
    return one


async def _task(bench: Bench) -> Any:
    return (await bench("POST", "/v1/tasks", {"title": "Call"})).json


async def _empty_page(bench: Bench) -> Any:
    return (await bench("GET", "/v1/tasks")).json["data"]


async def _deleted(bench: Bench) -> bytes:
    note = await bench.api("POST", "/v1/notes", {"title": "Memo"})
    return (await bench("DELETE", f"/v1/notes/{note['id']}")).body


async def _statuses(bench: Bench) -> tuple[int, int]:
    """What a key with `record.write` and one without any scope are answered."""
    return tuple([(await bench("POST", "/v1/context/text", {"content": "x"}, key=key)).status for key in list(_KEYS)[1:]])  # type: ignore[return-value]


async def _eleven(bench: Bench) -> list[int]:
    return [(await bench("POST", "/v1/context/text", {"content": "x"})).status for _ in range(11)]


async def _refused(bench: Bench) -> Answer:
    for _ in range(10):
        await add(bench.api, "x")
    answer = await bench("POST", "/v1/context/text", {"content": "x"})
    assert answer.status == 429
    return answer


async def _listed(bench: Bench) -> Answer:
    return await bench("GET", "/v1/tasks")


async def _asked_slowly(bench: Bench) -> bool:
    """Whether a question is still unanswered after a while."""
    try:
        await asyncio.wait_for(bench("POST", "/v1/context/ask", {"query": "Who?"}), 0.3)
    except asyncio.TimeoutError:
        return True
    return False


async def _end_of_stream(bench: Bench) -> bool:
    """Whether the stream ends in good order in the middle of the next event."""
    given = {name.removeprefix("X-Emulator-").replace("-", "_"): value for name, value in bench.headers.items()}
    async with listening(bench.api, **given) as stream:
        await add(bench.api, "A demo.")
        while (frame := await asyncio.wait_for(stream.frame(), 5)).startswith("event: insight.replay\n"):
            continue
        return frame.startswith("event: insight.batch.created\n") and not frame.endswith("\n\n")


async def _silent(bench: Bench) -> bool:
    """Whether neither events nor keepalives come."""
    given = {name.removeprefix("X-Emulator-").replace("-", "_"): value for name, value in bench.headers.items()}
    async with listening(bench.api, keepalive="0.05", **given) as stream:
        await add(bench.api, "A demo.")
        try:
            while (await asyncio.wait_for(stream.frame(), 0.3)).startswith("event: insight.replay\n"):
                continue
        except asyncio.TimeoutError:
            return True
        return False


async def _fresh(bench: Bench) -> int:
    note = await bench.api("POST", "/v1/notes", {"title": "Memo"})
    return (await bench("GET", f"/v1/notes/{note['id']}")).status


async def _created_at(bench: Bench) -> str:
    return str((await _task(bench))["created_at"])


async def _with_slash(bench: Bench) -> Answer:
    return await bench("GET", "/v1/tasks/?limit=1")


Probe = Callable[[Bench], Awaitable[Any]]

_TYPED = {
    "name": {"type": "full_name", "first_name": "Ada", "last_name": "Park"},
    "email_addresses": [{"type": "email", "email": "ada@x.io"}],
    "location": {"type": "location", "city": "Leipzig"},
    "job_title": {"type": "text", "text": "Head"},
}

_ROWS: list[tuple[str, str, Probe, Callable[[Any], bool]]] = [
    ("insights_rest", "enriched", _insights, lambda reply: "target" in reply.get("insights", [{}])[0]),
    ("insights_rest", "bare_array", _insights, lambda reply: isinstance(reply, list) and "id" in reply[0]),
    ("insights_replay", "one_per_insight", _replayed, lambda event: list(event) == ["insight"]),
    ("insights_replay", "bare_object", _replayed, lambda event: "content" in event and "insights" not in event),
    (
        "insights_replay",
        "simplified",
        _replayed,
        lambda event: not {"workspace", "operation_id"} & set(event) and "evidence" not in event["insights"][0],
    ),
    ("ask_shape", "chat", _asked, lambda reply: set(reply) == {"answer", "session_id", "entity_references"}),
    ("ask_shape", "both", _asked, lambda reply: {"signals_used", "entity_references", "session_id"} <= set(reply)),
    ("artifact_id_type", "string", _added, lambda number: isinstance(number, str) and number.isdigit()),
    (
        "artifact_result",
        "lists",
        _artifact,
        lambda result: (
            result["insights"] == [{"content": _TEXT, "confidence": 0.6}]
            if isinstance(result.get("insights"), list)
            else False
        ),
    ),
    ("job_envelope", "wrapped", _jobs, lambda jobs: all(list(job) == ["message"] for job in jobs)),
    ("attribute_encoding", "typed", _attributes, lambda values: values == _TYPED),
    ("omit_zero_values", "on", _task, lambda task: not {"is_completed", "due_date", "description"} & set(task)),
    ("null_arrays", "on", _empty_page, lambda data: data is None),
    ("delete_body", "{}", _deleted, lambda body: body == b"{}"),
    ("delete_body", "null", _deleted, lambda body: body == b"null"),
    ("scope_map", "official_guide", _statuses, lambda statuses: statuses == (200, 403)),
    ("scope_map", "off", _statuses, lambda statuses: statuses == (200, 200)),
    ("rate_limits", "off", _eleven, lambda statuses: set(statuses) == {200}),
    ("rate_limits", "text=4, window=30", _eleven, lambda statuses: statuses == [200] * 4 + [429] * 7),
    ("rate_limits", "global=2, window=60", _eleven, lambda statuses: statuses == [200] * 2 + [429] * 9),
    ("retry_after", "date", _refused, lambda answer: answer.headers["Retry-After"].endswith(" GMT")),
    ("retry_after", "absent", _refused, lambda answer: "Retry-After" not in answer.headers),
    ("rate_limit_body", "empty", _refused, lambda answer: answer.body == b""),
    (
        "faults",
        "html_502",
        _listed,
        lambda answer: (answer.status, answer.headers["Content-Type"]) == (502, "text/html") and b"<h1>" in answer.body,
    ),
    ("faults", "truncated_json", _listed, lambda answer: not answer.body.endswith(b"}")),
    ("faults", "slow_ask", _asked_slowly, bool),
    ("faults", "eof_mid_stream", _end_of_stream, bool),
    ("faults", "keepalive_silence", _silent, bool),
    ("faults", "not_found_after_write", _fresh, lambda status: status == 404),
    ("timestamps", "nanoseconds", _created_at, lambda moment: len(moment) == len("2026-09-21T14:13:20.250000123Z")),
    ("trailing_slash", "redirect", _with_slash, lambda answer: answer.status == 308),
]


def test_every_choice_has_a_row() -> None:
    """Each value of each switch but the default is flipped below."""
    flipped = {(name, value) for name, value, _, _ in _ROWS}
    assert {(name, value) for name, values in CHOICES.items() for value in values[1:]} <= flipped


@pytest.mark.parametrize(("name", "value", "probe", "holds"), _ROWS, ids=[f"{row[0]}={row[1]}" for row in _ROWS])
async def test_a_switch_flips_for_the_server_and_for_one_request(
    bench: Bench, clock: Clock, name: str, value: str, probe: Probe, holds: Callable[[Any], bool]
) -> None:
    """By default the core contract holds; a header changes one request, a switch all of them, until it is reset."""
    assert not holds(await probe(bench))
    clock.now += 100
    bench.headers = {f"X-Emulator-{name.replace('_', '-').title()}": value}
    assert holds(await probe(bench))
    bench.headers = {}
    clock.now += 100
    bench.emulator.switches.set(**{name: value})
    assert bench.emulator.switches[name] == value
    assert holds(await probe(bench))
    clock.now += 100
    bench.emulator.switches.reset()
    assert not holds(await probe(bench))


async def test_the_published_limits_hold_by_default(bench: Bench, clock: Clock) -> None:
    """Ten texts a minute and key, in a sliding window; the eleventh is told in whole seconds when it may come."""
    for _ in range(10):
        await add(bench.api, "x")
        clock.now += 1
    answer = await bench("POST", "/v1/context/text", {"content": "x"})
    assert (answer.status, answer.headers["Retry-After"], answer.json["code"]) == (429, "50", 429)
    assert (await bench("POST", "/v1/context/text", {"content": "x"}, key="sk-writer")).status == 403
    clock.now += 50
    await add(bench.api, "x")
    assert (await bench("POST", "/v1/context/text", {"content": "x"})).status == 429


async def test_a_retry_date_counts_from_the_date_of_the_answer(bench: Bench) -> None:
    """Retry-After as a date is later than the Date header by the seconds to wait."""
    bench.emulator.switches.set(retry_after="date", rate_limits="text=1")
    await add(bench.api, "x")
    answer = await bench("POST", "/v1/context/text", {"content": "x"})
    dates = [parsedate_to_datetime(answer.headers[name]) for name in ("Retry-After", "Date")]
    assert 58 <= (dates[0] - dates[1]).total_seconds() <= 62


async def test_a_redirect_keeps_the_query(bench: Bench) -> None:
    """The redirect of a trailing slash goes to the same path and query without it."""
    bench.headers = {"X-Emulator-Trailing-Slash": "redirect"}
    location = (await _with_slash(bench)).headers["Location"]
    assert location == "/api/developers/v1/tasks?limit=1"


async def test_latency_delays_every_reply(bench: Bench) -> None:
    """A latency, fixed or drawn from a range, passes before the reply."""
    for value in ("0.05", "0.05-0.06"):
        bench.headers = {"X-Emulator-Latency": value}
        start = time.perf_counter()
        await _listed(bench)
        assert time.perf_counter() - start >= 0.05


async def test_a_conversation_keeps_its_session(bench: Bench) -> None:
    """In the chat shape a session id comes back; without one a new one is made; a person is type 14."""
    await add(bench.api, _TEXT)
    bench.headers = {"X-Emulator-Ask-Shape": "chat"}
    first = (await bench("POST", "/v1/context/ask", {"query": "Who is Ada?"})).json
    again = (await bench("POST", "/v1/context/ask", {"query": "And?", "session_id": first["session_id"]})).json
    assert again["session_id"] == first["session_id"]
    assert first["entity_references"][0]["type"] in ("14", "15")


async def test_thin_replies_keep_what_users_wrote(bench: Bench) -> None:
    """Zero values vanish from the fields of the service, not from attributes."""
    await bench.api.attribute("person", "visits", "number")
    await bench.api.attribute("person", "vip", "boolean")
    bench.headers = {"X-Emulator-Omit-Zero-Values": "on"}
    made = await bench("POST", "/v1/objects/person", {"attributes": {"name": "Ada", "visits": 0, "vip": False}})
    assert made.json["attributes"] == {"name": "Ada", "visits": 0, "vip": False}


async def test_nanoseconds_keep_the_order(bench: Bench, clock: Clock) -> None:
    """With nanoseconds the stream and REST tell the very same moments."""
    bench.emulator.switches.set(timestamps="nanoseconds", insights_rest="enriched")
    async with listening(bench.api) as stream:
        await add(bench.api, _TEXT)
        live = (await stream.event())[1]
    rest = (await bench("GET", "/v1/insights")).json
    assert live["insights"] == rest["insights"]
    assert live["emitted_at"].startswith("2026-09-21T14:13:20.250000")


_WRONG: list[tuple[str, Any, str]] = [
    ("insights_rest", "fancy", "insights_rest"),
    ("omit_zero_values", "yes", "omit_zero_values"),
    ("nothing", "on", "nothing"),
    ("latency", "fast", "latency"),
    ("latency", "2-1", "latency"),
    ("latency", "-1", "latency"),
    ("latency", "nan", "latency"),
    ("keepalive", "0.01", "keepalive"),
    ("keepalive", "inf", "keepalive"),
    ("rate_limits", "text=0", "rate_limits"),
    ("rate_limits", "text=many", "rate_limits"),
    ("rate_limits", "mail=7", "mail"),
    ("rate_limits", "", "rate_limits"),
]


@pytest.mark.parametrize(("name", "value", "word"), _WRONG)
async def test_what_is_no_switch_is_refused_by_name(bench: Bench, name: str, value: str, word: str) -> None:
    """An unknown switch or value is a 400 that names it, in a header and over control, and a ValueError in Python."""
    with pytest.raises(ValueError, match=word):
        Emulator(switches={name: value})
    with pytest.raises(ValueError, match=word):
        bench.emulator.switches.set(**{name: value})
    url = bench.api.url.replace("/api/developers", "/_emulator/switches")
    async with bench.api.session.put(url, json={name: value}) as response:
        assert response.status == 400
        assert word in (await response.json())["message"]
    bench.headers = {f"X-Emulator-{name.replace('_', '-')}": value}
    answer = await _listed(bench)
    assert answer.status == 400
    assert word in answer.json["message"]


async def test_switches_over_http(bench: Bench) -> None:
    """Control shows every switch with its choices, sets some, and goes back; words of Python are understood."""
    url = bench.api.url.replace("/api/developers", "/_emulator/switches")
    session = bench.api.session
    async with session.get(url) as response:
        shown = await response.json()
    assert shown["switches"] == dict(bench.emulator.switches)
    assert shown["switches"]["rate_limits"] == "on"
    assert shown["choices"]["insights_rest"] == ["simple", "enriched", "bare_array"]
    change = {"null_arrays": True, "rate_limits": {"text": 3, "window": 5}, "latency": 0, "keepalive": 1}
    async with session.put(url, json=change) as response:
        assert (await response.json())["switches"]["rate_limits"] == "text=3, window=5"
    assert bench.emulator.switches["null_arrays"] == "on"
    assert await _empty_page(bench) is None
    async with session.delete(url) as response:
        assert (await response.json())["switches"] == shown["switches"]
    async with session.put(url, data=b"[1") as response:
        assert response.status == 400
    async with session.post(url) as response:
        assert response.status == 405

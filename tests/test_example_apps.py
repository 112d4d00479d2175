"""The examples that are web applications, run as such: in processes of their own, asked over HTTP, ended by signals."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from nex_async import AuthenticationError, Nex, Secret, SessionPool
from nex_async.emulator import Emulator

from .harness.canary import KEY
from .harness.raw_server import RawServer, Seen, answer, hold, json_reply, read_request, serve
from .harness.raw_server import signal as told
from .harness.services import EXAMPLES, Service, service, settings

OTHER = "sk-another-tenant-5d1c"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")
needs_fastapi = pytest.mark.skipif(importlib.util.find_spec("fastapi") is None, reason="fastapi is not installed")


class Application:
    """An application in its process, and an HTTP client of it."""

    def __init__(self, process: Service, http: aiohttp.ClientSession) -> None:
        self.process = process
        self.http = http

    async def ask(self, method: str, path: str, json: Any = None, **headers: str) -> tuple[int, Any, Any]:
        """Return the status, the body and the headers of a reply; an underscore in a header's name is a dash."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.request(method, path, json=json, headers=named) as response:
            return response.status, await response.json(), response.headers


@contextlib.asynccontextmanager
async def application(place: Path, *command: object, **environment: str) -> AsyncIterator[Application]:
    async with service(place, *command, **environment) as process:
        if "uvicorn" in command:
            url = (await process.logged(r"Uvicorn running on (http://127\.0\.0\.1:\d+)"))[1]
        else:
            found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", await process.line())
            assert found, process.log
            url = found[1]
        async with aiohttp.ClientSession(url) as http:
            yield Application(process, http)


# ---- many tenants under FastAPI -------------------------------------------------------------------------------------

TENANTS = ("-m", "uvicorn", "examples.fastapi_tenants:app", "--port", "0")


@pytest.fixture
async def shared() -> AsyncIterator[Emulator]:
    """A Nex that knows two keys."""
    async with Emulator(keys={KEY: None, OTHER: None}) as server:
        yield server


@needs_fastapi
async def test_each_tenant_is_answered_as_if_alone(shared: Emulator, tmp_path: Path) -> None:
    """Errors get the status that tells the caller what to do; a tenant out of its limit disturbs no other; deadlines hold."""
    environment = {**settings(shared), "NEX_API_KEY_ACME": KEY, "NEX_API_KEY_GLOBEX": OTHER}
    async with application(tmp_path, *TENANTS, **environment) as app:
        ada = {"name": "Ada Park", "email_addresses": ["ada@x.io"]}
        status, saved, _ = await app.ask("PUT", "/people", ada, X_Tenant="acme")
        assert (status, saved["name"]) == (200, "Ada Park")
        assert (await app.ask("GET", "/people", X_Tenant="acme"))[1]["people"] == [{"id": saved["id"], "name": "Ada Park"}]
        assert (await app.ask("GET", f"/people/{saved['id']}", X_Tenant="acme"))[0] == 200
        assert (await app.ask("GET", "/people/1", X_Tenant="acme"))[0] == 404
        assert (await app.ask("PUT", "/people", {"nme": "Ada"}, X_Tenant="acme"))[0] == 422
        for tenant, refused in (("nobody", 404), ("../acme", 422)):
            assert (await app.ask("GET", "/people", X_Tenant=tenant))[0] == refused

        texts = [await app.ask("POST", "/texts", {"content": f"Ada signed {n}."}, X_Tenant="acme") for n in range(11)]
        assert [status for status, _, _ in texts] == [202] * 10 + [429]
        assert 0 < int(texts[-1][2]["Retry-After"]) <= 61
        assert (await app.ask("POST", "/texts", {"content": "Bo signed."}, X_Tenant="globex"))[0] == 202

        shared.faults.add(kind="rate_limit", route="listRecords", retry_after=40, times=1)
        for _ in range(2):  # the second is not even sent
            status, _, headers = await app.ask("GET", "/people", X_Tenant="acme")
            assert (status, 30 < int(headers["Retry-After"]) <= 41) == (429, True)
        assert (await app.ask("GET", "/people", X_Tenant="globex"))[0] == 200

        shared.faults.add(kind="stall", route="getRecord", times=1)
        since = asyncio.get_running_loop().time()
        assert (await app.ask("GET", "/people/1", X_Tenant="globex", X_Request_Timeout="0.2"))[0] == 504
        assert asyncio.get_running_loop().time() - since < 10
        shared.faults.add(kind="status", route="getRecord", status=403, times=1)
        assert (await app.ask("GET", "/people/1", X_Tenant="globex", X_Request_Timeout="soon"))[0] == 502

        assert (await app.ask("GET", "/health"))[1] == {"open": 2, "in_use": 0}
        assert await app.process.end() in (0, -signal.SIGTERM)
        assert "Traceback" not in app.process.log
        assert OTHER not in app.process.log


@needs_fastapi
async def test_tenants_can_be_tried_at_once(tmp_path: Path) -> None:
    """With `NEX_LOCAL=1` there are two tenants, each with data of its own."""
    async with application(tmp_path, *TENANTS, NEX_LOCAL="1", HOME=str(tmp_path)) as app:
        ada = {"name": "Ada Park", "email_addresses": ["ada@x.io"]}
        assert (await app.ask("PUT", "/people", ada, X_Tenant="acme"))[0] == 200
        totals = [(await app.ask("GET", "/people", X_Tenant=tenant))[1]["total"] for tenant in ("acme", "globex")]
        assert totals == [1, 0]
        assert (await app.ask("GET", "/people", X_Tenant="nobody"))[0] == 404


@needs_fastapi
async def test_no_client_is_closed_while_it_is_used() -> None:
    """The bound holds once requests are over: the client used last stays open, the others are closed."""
    from examples.fastapi_tenants import Access, Clients

    async def access(tenant: str) -> Access:
        return Access(Secret(f"sk-{tenant}"), "http://127.0.0.1:1")

    async with SessionPool() as pool, contextlib.AsyncExitStack() as requests:
        clients = Clients(pool, access, most=1)
        one = await requests.enter_async_context(clients.of("one"))
        async with clients.of("two") as two:
            assert clients.counts == {"open": 2, "in_use": 2}
        assert (one.closed, two.closed) == (False, True)
        async with clients.of("one") as again:
            assert again is one
        await requests.aclose()
        async with clients.of("three") as three:
            assert not one.closed
        assert (one.closed, three.closed, clients.counts) == (True, False, {"open": 1, "in_use": 0})
        await clients.aclose()
        assert three.closed


@needs_fastapi
async def test_a_refused_key_is_asked_for_anew(emulator: Emulator) -> None:
    """A client whose key was refused ends with its last request; the next request gets one with the key of that day."""
    from examples.fastapi_tenants import Access, Clients

    keys = [OTHER, KEY]

    async def access(tenant: str) -> Access:
        return Access(Secret(keys.pop(0)), emulator.url)

    async with SessionPool() as pool, contextlib.AsyncExitStack() as requests:
        clients = Clients(pool, access, most=10)
        old = await requests.enter_async_context(clients.of("acme"))
        with pytest.raises(AuthenticationError):
            async with clients.of("acme") as nex:
                assert nex is old
                await nex.objects.list()
        assert not old.closed
        async with clients.of("acme") as new:
            await new.objects.list()
        await requests.aclose()
        assert (old.closed, new.closed) == (True, False)
        await clients.aclose()


# ---- aiohttp --------------------------------------------------------------------------------------------------------

APP = EXAMPLES / "aiohttp_app.py"


async def test_the_aiohttp_application_answers(emulator: Emulator, nex: Nex, tmp_path: Path) -> None:
    """Each route does what it says, errors get the status that tells the caller what to do, SIGTERM ends it in good order."""
    async with application(tmp_path, "-W", "error", APP, PORT="0", PAGE_SIZE="2", **settings(emulator)) as app:
        for name in ("Ada", "Bo", "Cem", "Dan", "Eve"):
            attributes = {"name": name, "email_addresses": [f"{name.lower()}@x.io"]}
            status, saved, _ = await app.ask("PUT", "/people", attributes)
            assert (status, saved["name"]) == (200, name)
        async with app.http.get("/people.jsonl") as response:
            lines = (await response.text()).splitlines()
        assert sorted(json.loads(line)["name"] for line in lines) == ["Ada", "Bo", "Cem", "Dan", "Eve"]
        assert (await app.ask("GET", "/search?q=ada"))[1][0]["value"] == "Ada"
        assert (await app.ask("GET", "/search"))[0] == 422
        assert (await app.ask("PUT", "/people", {"nme": "Ada"}))[0] == 422
        async with app.http.put("/people", data="Ada") as response:
            assert response.status == 400
        assert "Ada" in (await app.ask("POST", "/questions", {"question": "Who is Ada?"}))[1]["answer"]

        emulator.faults.add(kind="status", route="listRecords", status=403, times=1)
        assert (await app.ask("GET", "/people.jsonl"))[0] == 502
        emulator.faults.add(kind="status", route="listRecords", status=403, after=1, times=1)
        async with app.http.get("/people.jsonl") as response:
            with pytest.raises(aiohttp.ClientError):  # a part is not taken for the whole
                await response.read()
        emulator.faults.add(kind="rate_limit", route="searchRecords", retry_after=300, times=1)
        for path in ("/search?q=ada", "/people.jsonl"):  # the second is not even sent
            status, _, headers = await app.ask("GET", path)
            assert (status, 290 < int(headers["Retry-After"]) <= 301) == (429, True)
        assert (await app.ask("GET", "/health"))[0] == 200
        assert await app.process.end() == 0
        assert "Traceback" not in app.process.log


async def test_a_slow_reader_holds_only_its_own_pages(tmp_path: Path) -> None:
    """Pages are asked for as the reader takes them; one that takes nothing stops the asking, one that reads on gets all."""
    total, text = 60, "x" * 1_000_000

    def page(seen: Seen) -> bytes:
        offset = json.loads(seen.body or b"{}").get("offset", 0)
        return json_reply({"data": [{"id": str(offset), "attributes": {"name": text}}], "total": total})

    async with (
        RawServer([serve(page)]) as upstream,
        application(tmp_path, APP, PORT="0", PAGE_SIZE="1", NEX_API_KEY=KEY, NEX_API_BASE_URL=upstream.url) as app,
    ):
        port = app.http._base_url.port  # type: ignore[union-attr]
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 16)
            writer.write(b"GET /people.jsonl HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            asked, quiet = 0, 0
            while not asked or quiet < 20:  # each of these passes through the application's loop
                await app.ask("GET", "/health")
                asked, quiet = len(upstream.requests), quiet + 1 if len(upstream.requests) == asked else 0
            assert asked < total / 2
            received = 0
            while block := await reader.read(1 << 20):
                received += block.count(b"\n{") + block.count(b'{"id"')
            assert len(upstream.requests) == total
            assert received >= total
            writer.close()
            await writer.wait_closed()


async def test_a_reader_that_leaves_ends_what_is_asked_for_it(tmp_path: Path) -> None:
    """When the client disconnects, the request for the next page is given up."""
    left = asyncio.Event()
    first = json_reply({"data": [{"id": "1", "attributes": {"name": "Ada"}}], "total": 2})
    async with (
        RawServer([answer(first), read_request, hold, told(left)]) as upstream,
        application(tmp_path, APP, PORT="0", PAGE_SIZE="1", NEX_API_KEY=KEY, NEX_API_BASE_URL=upstream.url) as app,
    ):
        async with app.http.get("/people.jsonl") as response:
            assert json.loads(await response.content.readline()) == {"id": "1", "name": "Ada"}
            response.close()
        await asyncio.wait_for(left.wait(), 10)
        assert (await app.ask("GET", "/health"))[0] == 200


async def test_the_aiohttp_application_can_be_tried_at_once(tmp_path: Path) -> None:
    """With `NEX_LOCAL=1` it needs no key, and has people to show."""
    async with application(tmp_path, APP, PORT="0", NEX_LOCAL="1", HOME=str(tmp_path)) as app:
        async with app.http.get("/people.jsonl") as response:
            assert len((await response.text()).splitlines()) == 300
        assert await app.process.end(signal.SIGINT) == 0

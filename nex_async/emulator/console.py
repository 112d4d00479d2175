"""The console at `/_emulator/`: a page for developers, and what it asks for.

None of it counts as a call of the API: it stands in no request log, meets no fault and no rate limit, and needs no key on
this machine (see `control.admit`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import msgspec
from aiohttp import web

from nex_async import routes
from nex_async.emulator import bodies
from nex_async.emulator.call import Call
from nex_async.emulator.control import check_method, json_reply
from nex_async.emulator.dispatch import read_body
from nex_async.emulator.enrichment import read_newest, render_enriched
from nex_async.emulator.faults import Kind
from nex_async.emulator.listing import read_page
from nex_async.emulator.static_files import read_static
from nex_async.emulator.store import Store
from nex_async.emulator.watch import Watcher

if TYPE_CHECKING:
    from nex_async.emulator.server import Emulator

__all__ = ["events", "page", "records", "texts", "workspace"]

_FILES = {
    "/_emulator/": ("console.html", "text/html"),
    "/_emulator/console.css": ("console.css", "text/css"),
    "/_emulator/console.js": ("console.js", "text/javascript"),
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
_SHOWN = 50
_COUNTED = ("tasks", "notes", "relationships", "insights", "artifacts")


async def page(emulator: Emulator, request: web.BaseRequest) -> web.StreamResponse:
    """`GET`: the page, its style and its script."""
    check_method(request, "GET")
    name, kind = _FILES[request.rel_url.raw_path]
    return web.Response(text=read_static(name), content_type=kind, charset="utf-8", headers=_HEADERS)


async def workspace(emulator: Emulator, request: web.BaseRequest) -> web.StreamResponse:
    """`GET`: objects and lists with their counts, how much else there is, and the words a fault can be made of."""
    check_method(request, "GET")
    held = await emulator.run(_read_workspace)
    words = {"kinds": get_args(Kind), "operations": [route.name for route in routes.ALL]}
    return json_reply({**held, "listeners": emulator.stream.listeners, **words})


def _read_workspace(store: Store) -> dict[str, Any]:
    counts: dict[int, int] = dict(store.rows("SELECT id, record_count FROM objects"))
    objects = [
        {"slug": each.slug, "name": each.name_plural or each.name, "type": each.type, "count": counts[each.id]}
        for each in store.schema.objects.values()
    ]
    return {"objects": objects, "counts": {name: store.count(f"SELECT count(*) FROM {name}") for name in _COUNTED}}


async def records(emulator: Emulator, request: web.BaseRequest) -> web.StreamResponse:
    """`GET ?object=`: the newest 50 records of an object or members of a list; `?offset=` goes on."""
    check_method(request, "GET")
    call = Call({}, request.query, b"")
    offset = call.number("offset", default=0, low=0, high=2**31)
    slug = request.query.get("object", "")

    def read(store: Store) -> str:
        return read_page(store, store.schema.object(slug), bodies.ListRecords(limit=_SHOWN, offset=offset))

    return web.Response(text=await emulator.run(read), content_type="application/json")


async def texts(emulator: Emulator, request: web.BaseRequest) -> web.StreamResponse:
    """`POST {"content": "...", "context": "..."}`: take a text in, as the API would; its insights go out on the stream."""
    check_method(request, "POST")
    receipt = await emulator.perform("POST", routes.ADD_TEXT.path, {}, await read_body(request))
    return web.Response(body=receipt, content_type="application/json")


async def events(emulator: Emulator, request: web.BaseRequest) -> web.StreamResponse:
    """`GET`: an event stream of requests as they come and end, and of insights as they are made; begins with the newest."""
    check_method(request, "GET")
    watcher = Watcher()
    emulator.stream.watchers.add(watcher)
    emulator.requests.observers.add(watcher.see_request)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    try:
        await response.prepare(request)
        await response.write(await _beginning(emulator))
        while (event := await watcher.next_event()) is not None:
            await response.write(event)
        await response.write_eof()
    except ConnectionError:  # the page was closed
        pass
    finally:
        emulator.stream.watchers.discard(watcher)
        emulator.requests.observers.discard(watcher.see_request)
    return response


async def _beginning(emulator: Emulator) -> bytes:
    newest = await emulator.run(lambda store: read_newest(store, _SHOWN))
    past = {"requests": list(emulator.requests)[-_SHOWN:], "insights": [render_enriched(insight) for insight in newest]}
    return b"data: " + msgspec.json.encode(past) + b"\n\n"

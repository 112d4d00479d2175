"""A web application on aiohttp: one client for its life, a listing streamed line by line at the browser's pace. Copy it.

    pip install nex-async
    NEX_LOCAL=1 python examples/aiohttp_app.py           # against an embedded Nex, with 300 people in it
    python examples/aiohttp_app.py                       # against yours: NEX_API_KEY, NEX_API_BASE_URL

    curl -N http://127.0.0.1:8080/people.jsonl
    curl -X PUT http://127.0.0.1:8080/people -d '{"name": "Ada Park", "email_addresses": ["ada@x.io"]}'
    curl 'http://127.0.0.1:8080/search?q=ada'
    curl -X POST http://127.0.0.1:8080/questions -d '{"question": "Who is at x.io?"}'

The next page is asked for once the last was taken: a slow reader holds nothing but its own page. One that leaves ends the
handler, and with it what is being asked of Nex. A listing that fails half-way ends without its last chunk, so that no reader
takes the part for the whole.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import AsyncIterator
from json import JSONDecodeError
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from nex_async import (
    BadRequestError,
    DeadlineExceeded,
    InvalidRequestError,
    Nex,
    NexError,
    NotFoundError,
    RateLimitError,
    Record,
    UnprocessableError,
)

log = logging.getLogger("aiohttp_app")

NEX = web.AppKey("NEX", Nex)
PAGE = int(os.environ.get("PAGE_SIZE", "200"))
PORT = int(os.environ.get("PORT", "8080"))
routes = web.RouteTableDef()


async def client(app: web.Application) -> AsyncIterator[None]:
    """Hold one client as long as the application runs."""
    local = os.environ.get("NEX_LOCAL") == "1"
    async with Nex.local() if local else Nex() as nex:
        app[NEX] = nex
        if local:
            people = ({"name": f"Person {n}", "email_addresses": [f"p{n}@x.io"]} for n in range(300))
            await nex.records.upsert_many("person", people, match_on="email_addresses")
        yield


@routes.get("/people.jsonl")
async def list_people(request: web.Request) -> web.StreamResponse:
    """Stream all people as JSON Lines, page by page."""
    pages = aiter(request.app[NEX].records.list("person", limit=PAGE).pages())
    page = await anext(pages, None)  # what is refused is refused before anything is sent
    response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
    await response.prepare(request)
    try:
        while page is not None:
            await response.write(b"".join(map(line, page)))  # returns once the reader has room
            page = await anext(pages, None)
    except NexError as error:
        log.warning("the listing was cut off: %s", error)
        if request.transport is not None:
            request.transport.abort()
    return response


def line(person: Record) -> bytes:
    """Return a person as a line of JSON."""
    return json.dumps({"id": person.id, **person.attributes}).encode() + b"\n"


@routes.put("/people")
async def save_person(request: web.Request) -> web.Response:
    """Create or update a person by the address."""
    person = await request.app[NEX].records.upsert("person", await body(request), match_on="email_addresses")
    return web.json_response({"id": person.id, **person.attributes})


@routes.get("/search")
async def search(request: web.Request) -> web.Response:
    """Search every kind of record."""
    hits = await request.app[NEX].search.all(request.query.get("q", ""))
    return web.json_response([{"id": hit.id, "value": hit.primary_value, "score": hit.score} for hit in hits])


@routes.post("/questions")
async def ask(request: web.Request) -> web.Response:
    """Answer a question. It may take a minute, and costs: one that nobody waits for any more is given up."""
    answer = await request.app[NEX].context.ask((await body(request)).get("question", ""), timeout=60)
    return web.json_response({"answer": answer.answer})


@routes.get("/health")
async def health(request: web.Request) -> web.Response:
    """Say that the application runs."""
    return web.json_response({"closed": request.app[NEX].closed})


async def body(request: web.Request) -> dict[str, Any]:
    """Return the JSON object of a request's body. Raises `HTTPBadRequest`."""
    try:
        content = await request.json()
    except (JSONDecodeError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict):
        raise web.HTTPBadRequest(text="the body must be a JSON object")
    return content


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer an error of the SDK with the status that tells the caller what to do."""
    try:
        return await handler(request)
    except NexError as error:
        status = status_of(error)
        log.log(logging.WARNING if status >= 500 else logging.INFO, "%s %s: %s", request.method, request.path, error)
        wait = getattr(error, "retry_after", None)
        headers = {} if wait is None else {"Retry-After": str(math.ceil(wait))}
        return web.json_response({"error": str(error)}, status=status, headers=headers)


def status_of(error: NexError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, (InvalidRequestError, BadRequestError, UnprocessableError)):
        return 422
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, RateLimitError) or (isinstance(error, DeadlineExceeded) and error.retry_after is not None):
        return 429  # by the server's word, or by what the SDK knows of the limit
    return 504 if isinstance(error, TimeoutError) else 502


def application() -> web.Application:
    """Return the application, for `web.run_app`, for a runner of your own, and for tests."""
    app = web.Application(middlewares=[errors])
    app.cleanup_ctx.append(client)
    app.add_routes(routes)
    return app


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    web.run_app(application(), host="127.0.0.1", port=PORT, handler_cancellation=True)

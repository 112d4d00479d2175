"""A web application that shows insights in browsers as they come: one client and one feed for the app, a queue per browser.

    pip install nex-async fastapi uvicorn
    NEX_LOCAL=1 uvicorn examples.fastapi_feed:app      # against an embedded Nex, data in memory
    uvicorn examples.fastapi_feed:app                  # against yours: NEX_API_KEY, NEX_API_BASE_URL

Open http://127.0.0.1:8000/ twice and send a text: what is derived from it appears in both. A browser that is slow loses the
oldest of its hundred waiting insights and holds nobody back; one that leaves takes its queue along.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Annotated

import anyio
from fastapi import Body, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse

from nex_async import InsightEvent, InsightFeed, InvalidRequestError, Nex, NexError

log = logging.getLogger("uvicorn.error")

KEEPALIVE_SECONDS = 15.0


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold one client and one feed as long as the app runs. The app does not start when the key or the stream is refused."""
    async with Nex.local() if os.environ.get("NEX_LOCAL") == "1" else Nex() as nex:
        feed = nex.insights.stream(start="now")
        feed.on("*", lambda event: log.info("insight feed: %s", event), where=lambda event: event.kind != "insight")
        async with feed:
            running = asyncio.create_task(run(feed))
            app.state.nex, app.state.feed = nex, feed
            with stopped_by_signals(feed):
                yield
            feed.stop()
            await running


async def run(feed: InsightFeed) -> None:
    """Log the feed's signals until it ends."""
    try:
        await feed.run()
    except NexError as error:
        log.critical("the insight feed has ended: %s", error)


@contextmanager
def stopped_by_signals(feed: InsightFeed) -> Iterator[None]:
    """End the feed, and so every browser's stream, at SIGTERM: uvicorn waits for open replies before it ends the app."""
    loop = asyncio.get_running_loop()
    before: dict[int, Callable[[int, FrameType | None], object]] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(feed.stop)
        before[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(handler := signal.getsignal(number)):
                before[number] = handler
                signal.signal(number, stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


app = FastAPI(lifespan=lifespan)


@app.get("/insights")
async def insights(request: Request) -> StreamingResponse:
    """Relay insights to one browser as server-sent events."""
    if request.app.state.feed.closed:
        raise HTTPException(503, "the insight feed has ended")
    return StreamingResponse(relay(request.app.state.feed), media_type="text/event-stream")


async def relay(feed: InsightFeed) -> AsyncIterator[str]:
    """Yield what a browser is sent until it leaves, or the feed ends."""
    queue = feed.queue(maxsize=100, overflow="drop_oldest")
    try:
        yield ": welcome\n\n"
        while True:
            event = None
            with anyio.move_on_after(KEEPALIVE_SECONDS):
                event = await queue.get()
            yield ": keepalive\n\n" if event is None else frame(event)
    except NexError:  # the feed has ended; `run` says why
        return
    finally:
        queue.close()


def frame(event: InsightEvent) -> str:
    """Return an insight as a server-sent event."""
    insight = event.insight
    data = {"key": event.key, "source": event.source, "type": insight.type, "content": insight.content}
    return f"event: insight\nid: {event.key}\ndata: {json.dumps(data)}\n\n"


@app.post("/texts", status_code=202)
async def add_text(request: Request, content: Annotated[str, Body(embed=True)]) -> dict[str, str]:
    """Ingest a text, and return the id by which `nex.context.attach` finds its job again."""
    job = await request.app.state.nex.context.add_text(content, timeout=20)
    return {"artifact_id": job.id}


@app.get("/health")
async def health(request: Request) -> dict[str, object]:
    """Return how the feed stands; `consumers` are the browsers and the log."""
    stats = request.app.state.feed.stats
    return {"connected": stats.connected, "consumers": stats.consumers, "live": stats.live, "dropped": stats.dropped}


@app.exception_handler(NexError)
async def failed(request: Request, error: NexError) -> JSONResponse:
    """Answer 422 for input that cannot be right, and 502 for what Nex did."""
    return JSONResponse({"detail": str(error)}, 422 if isinstance(error, InvalidRequestError) else 502)


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """Return a page that shows insights as they come. Their text is untrusted, and is shown as text."""
    return PAGE


PAGE = """<!doctype html>
<meta charset="utf-8"><title>Insights</title>
<form id="form"><input id="text" size="60" value="Ada Park <ada@x.io> asked for a demo."><button>Send</button></form>
<ul id="list"></ul>
<script>
new EventSource("/insights").addEventListener("insight", (event) => {
  const item = document.createElement("li"), insight = JSON.parse(event.data);
  item.textContent = `${insight.type}: ${insight.content}`;
  list.prepend(item);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const body = JSON.stringify({content: text.value});
  fetch("/texts", {method: "POST", headers: {"Content-Type": "application/json"}, body});
});
</script>
"""

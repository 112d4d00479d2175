"""Which handler answers which path outside the API: the control interface under `/_emulator/`, and pages for people."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from aiohttp import web

from nex_async.emulator import approval, console, control, openapi

if TYPE_CHECKING:
    from nex_async.emulator.server import Emulator

__all__ = ["PAGES", "Page", "find_page"]

Page: TypeAlias = Callable[["Emulator", web.BaseRequest], Awaitable[web.StreamResponse]]
"""Runs on the event loop; an `ApiError` it raises becomes the API's envelope. It sees every method of its path."""

PAGES: dict[str, Page] = {
    "/openapi.json": openapi.document,
    "/_emulator/": console.page,
    "/_emulator/console.css": console.page,
    "/_emulator/console.js": console.page,
    "/_emulator/workspace": console.workspace,
    "/_emulator/records": console.records,
    "/_emulator/texts": console.texts,
    "/_emulator/events": console.events,
    "/_emulator/switches": control.switches,
    "/_emulator/faults": control.faults,
    "/_emulator/requests": control.requests,
    "/_emulator/restart": control.restart,
}
"""By exact path; only those under `/_emulator/` are closed to strangers (see `control.admit`)."""


def find_page(path: str) -> Page | None:
    """Return the handler of a path, None where the API answers."""
    found = PAGES.get(path)
    return approval.approval if found is None and path.startswith(approval.PLACE) else found

"""The page behind an `auth_url`: a developer plays the person who lets the workspace into an account."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

from aiohttp import web

from nex_async.emulator.call import ApiError
from nex_async.emulator.control import check_method, json_reply, read_object
from nex_async.emulator.dispatch import read_body
from nex_async.emulator.integrations import approve, describe
from nex_async.emulator.static_files import read_static

if TYPE_CHECKING:
    from nex_async.emulator.server import Emulator

__all__ = ["PLACE", "approval"]

PLACE = "/_emulator/connect/"
_FORM = "application/x-www-form-urlencoded"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
    "Content-Type": "text/html; charset=utf-8",
}


async def approval(emulator: Emulator, request: web.BaseRequest) -> web.StreamResponse:
    """`GET`: a page with a button. `POST`: connect; the body may name the account, `{"identifier": "ada@x.io"}`."""
    check_method(request, "GET", "POST")
    token = unquote(request.rel_url.raw_path.removeprefix(PLACE))
    if request.method == "GET":
        return await _show(emulator, token)
    if request.content_type == _FORM:
        form = parse_qs((await read_body(request)).decode(errors="replace"))
        given = form.get("identifier")
        return await _connect_by_form(emulator, token, given[0] if given else None)
    identifier = (await read_object(request)).get("identifier") if request.can_read_body else None
    if identifier is not None and not isinstance(identifier, str):
        raise ApiError(400, "identifier must be a string")
    return json_reply(await emulator.run(lambda store: approve(store, token, identifier)))


async def _connect_by_form(emulator: Emulator, token: str, identifier: str | None) -> web.StreamResponse:
    try:
        await emulator.run(lambda store: approve(store, token, identifier))
    except ApiError as error:
        return _page("This cannot be connected", error.message, "", error.status)
    return await _show(emulator, token)


async def _show(emulator: Emulator, token: str) -> web.StreamResponse:
    try:
        name, is_connected, identifier = await emulator.run(lambda store: describe(store, token))
    except ApiError as error:
        return _page("This cannot be connected", error.message, "", error.status)
    if is_connected:
        return _page(f"{name} is connected", "You can close this page.", "", 200)
    form = read_static("approval_form.html").replace("{{identifier}}", escape(identifier))
    return _page(f"Connect {name}", "The embedded Nex asks in place of the real service.", form, 200)


def _page(title: str, text: str, form: str, status: int) -> web.Response:
    body = read_static("approval.html").replace("{{title}}", escape(title)).replace("{{text}}", escape(text))
    return web.Response(body=body.replace("{{form}}", form).encode(), headers=_HEADERS, status=status)

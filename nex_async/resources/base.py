"""What every resource stands on: a sender, pagers over routes, and checks of arguments before anything is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from ..errors import InvalidRequestError
from ..models import TypedRecord
from ..models.base import Rows, decode, decode_rows
from ..paging import Kind, Limits, OnBadRow, Pager, Position, Source
from ..routes import Route
from ..transport.options import RequestOptions
from ..transport.sender import Sender
from ..transport.wire import Id, Query, rfc3339

__all__ = ["Attributes", "Resource", "Selection", "given"]

T = TypeVar("T")
R = TypeVar("R")

Attributes: TypeAlias = "Mapping[str, Any] | msgspec.Struct"
"""Attribute values by slug: a mapping, or a Struct of your own."""
Selection: TypeAlias = "str | Sequence[str]"
"""Which attributes a listing returns: `all`, `primary`, `none`, or a sequence of slugs."""
Maybe: TypeAlias = "T | UnsetType"


class Resource:
    """One group of operations, as an attribute of the client."""

    __slots__ = ("_sender",)

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def _single(
        self,
        route: Route[Rows[T]],
        path: tuple[Id, ...] = (),
        query: Query | None = None,
        *,
        options: RequestOptions,
        on_bad_row: OnBadRow,
        silent_cap: int | None = None,
    ) -> Pager[T]:
        """Return a pager over a listing that comes in one page."""
        send = self._sender.send

        async def fetch(position: Position) -> Rows[T]:
            return await send(route, path, query, options=options)

        source = Source(fetch, "single", _name(route, path, query), silent_cap=silent_cap)
        return Pager(source, Limits(on_bad_row=on_bad_row))

    def _paged(
        self,
        route: Route[Rows[T]],
        path: tuple[Id, ...],
        query: dict[str, Any],
        kind: Kind,
        *,
        limit: int | None,
        limits: Limits,
        options: RequestOptions,
    ) -> Pager[T]:
        """Return a pager whose position goes into the query: as `offset` or as `cursor`."""
        key = "offset" if kind == "offset" else "cursor"

        def ask(asked: Route[R], position: Position) -> Awaitable[R]:
            # The first page is asked for by leaving the position out.
            place = {key: position} if position else {}
            return self._sender.send(asked, path, {**query, "limit": limit, **place}, options=options)

        return _pager(route, ask, kind, _name(route, path, query), limit, limits, self._asks_again(options))

    def _listed(
        self,
        route: Route[Rows[T]],
        path: tuple[Id, ...],
        body: dict[str, Any],
        *,
        limit: int | None,
        limits: Limits,
        options: RequestOptions,
    ) -> Pager[T]:
        """Return a pager whose position goes into the body (the two record listings)."""
        if limit is not None:
            body = {**body, "limit": limit}

        def ask(asked: Route[R], position: Position) -> Awaitable[R]:
            return self._sender.send(asked, path, body={**body, "offset": position}, options=options)

        return _pager(route, ask, "offset", _name(route, path, body), limit, limits, self._asks_again(options))

    def _asks_again(self, options: RequestOptions) -> bool:
        return options.get("retries", self._sender.settings.policy.retries) != 0


class _Ask(Protocol):
    """Sends for the page at a position, by a route of the caller's choice."""

    def __call__(self, asked: Route[R], position: Position, /) -> Awaitable[R]: ...


def _pager(
    route: Route[Rows[T]], ask: _Ask, kind: Kind, name: str, limit: int | None, limits: Limits, asks_again: bool
) -> Pager[T]:
    later = _undecoded(route)

    def fetch(position: Position) -> Awaitable[Rows[T]]:
        return ask(route, position)

    def fetch_undecoded(position: Position) -> Awaitable[Callable[[], Rows[T]]]:
        return ask(later, position)

    return Pager(Source(fetch, kind, name, fetch_undecoded, limit, asks_again=asks_again), limits)


@lru_cache(maxsize=256)
def _undecoded(route: Route[Any]) -> Route[Any]:
    """Return a route whose reply is a function that decodes it."""
    return replace(route, decode=lambda data: partial(route.decode, data))


def _name(route: Route[Any], path: tuple[Id, ...], settings: Mapping[str, Any] | None) -> str:
    """Return the name by which checkpoints know a listing: the operation, and what makes this listing differ."""
    parts = [route.name, *(str(part) for part in path)]
    parts += [f"{key}={value}" for key, value in sorted((settings or {}).items()) if key != "limit" and value is not None]
    name = ":".join(parts).replace("|", "/")
    return name if len(name) <= 256 else f"{name[:200]}~{hashlib.blake2b(name.encode(), digest_size=12).hexdigest()}"


def typed(route: Route[Any], as_type: Any, many: bool) -> Route[Any]:
    """Return a record route that decodes attributes straight into the caller's type."""
    return _typed(route, as_type, many)


@lru_cache(maxsize=256)
def _typed(route: Route[Any], as_type: Any, many: bool) -> Route[Any]:
    kind = TypedRecord[as_type]
    read = decode_rows if many else decode
    return replace(route, decode=lambda data: read(kind, data))


def record_listing(attributes: Selection | None, sort: str | None) -> dict[str, Any]:
    """Return the body of a record listing. Raises `InvalidRequestError`."""
    body: dict[str, Any] = {}
    if isinstance(attributes, str):
        if attributes not in ("all", "primary", "none"):
            raise InvalidRequestError(
                "attributes must be 'all', 'primary', 'none' or a sequence of slugs", argument="attributes"
            )
        body["attributes"] = attributes
    elif attributes is not None:
        slugs = list(attributes)
        if not slugs or not all(isinstance(slug, str) and slug for slug in slugs):
            raise InvalidRequestError("attributes must name at least one slug, each a string", argument="attributes")
        body["attributes"] = {"mode": "custom", "slugs": slugs}
    if sort is not None:
        body["sort"] = sort_param(sort)
    return body


def sort_param(sort: str) -> dict[str, str]:
    """Return `-updated_at` as the API's sort object."""
    name = sort[1:] if isinstance(sort, str) and sort[:1] in ("-", "+") else sort
    if not isinstance(name, str) or not name.strip():
        raise InvalidRequestError("sort must be an attribute's slug, with '-' before it for descending", argument="sort")
    return {"attribute": name, "direction": "desc" if sort.startswith("-") else "asc"}


def given(**values: Any) -> dict[str, Any]:
    """Return the values the caller gave: what was left out is not sent, None is sent as null."""
    return {name: value for name, value in values.items() if value is not UNSET}


def required_text(name: str, value: object, most: int | None = None) -> str:
    """Return a text that must not be blank. Raises `InvalidRequestError`."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequestError(f"{name} must be a string that is not blank", argument=name)
    if most is not None and len(value) > most:
        raise InvalidRequestError(f"{name} must not be longer than {most} characters", argument=name)
    return value


def choice(name: str, value: Maybe[str | None], allowed: Sequence[str]) -> Maybe[str | None]:
    """Return a value out of a closed set. Raises `InvalidRequestError`."""
    if isinstance(value, str) and value not in allowed:
        raise InvalidRequestError(f"{name} must be one of {', '.join(filter(None, allowed))}", argument=name)
    return value


def moment(name: str, value: Maybe[datetime | str | None]) -> Maybe[str | None]:
    """Return a point in time as RFC 3339. Raises `InvalidRequestError` for a naive datetime."""
    return rfc3339(name, value) if isinstance(value, datetime) else value


def id_text(name: str, value: Id) -> str:
    """Return an id that goes into a body, as text. Raises `InvalidRequestError`."""
    if isinstance(value, str) and value.strip():
        return str.__str__(value)  # the text of an enum, not its name
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 128:
        return str(int(value))
    raise InvalidRequestError(f"{name} must be an id: a string that is not blank, or an integer", argument=name)


def id_texts(name: str, values: Maybe[Sequence[Id] | None]) -> Maybe[list[str] | None]:
    """Return ids that go into a body, as texts. Raises `InvalidRequestError`."""
    if values is None or isinstance(values, UnsetType):
        return values
    if isinstance(values, (str, bytes)):
        raise InvalidRequestError(f"{name} must be a sequence of ids, not one string", argument=name)
    return [id_text(name, value) for value in values]


def values_of(name: str, attributes: Attributes) -> Attributes:
    """Return attribute values that can be sent. Raises `InvalidRequestError`."""
    if not isinstance(attributes, (Mapping, msgspec.Struct)):
        raise InvalidRequestError(f"{name} must be a mapping of slugs to values, or a Struct", argument=name)
    return attributes

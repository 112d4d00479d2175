"""A page of 100 records decoded: the SDK's models against bare msgspec, pydantic, orjson and json."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from nex_async.models import Record
from nex_async.models.base import decode_rows

from .bodies import page
from .job import Job, Jobs, Peers
from .measure import Way


class Row(msgspec.Struct):
    """The leanest careful struct: what is asked for, attributes unopened."""

    id: str
    object_id: str
    type: str
    workspace_id: str
    created_at: str
    updated_at: str
    attributes: msgspec.Raw


class Page(msgspec.Struct):
    """The envelope."""

    data: list[Row]
    total: int
    limit: int
    offset: int


def _by_orjson() -> Callable[[bytes], Any]:
    import orjson

    return orjson.loads


def _by_pydantic() -> Callable[[bytes], Any]:
    from pydantic import BaseModel

    fields = {"id": str, "object_id": str, "type": str, "workspace_id": str, "created_at": str, "updated_at": str}
    model: Any = type(
        "Model", (BaseModel,), {"__annotations__": {**fields, "attributes": dict[str, Any]}, "__module__": __name__}
    )
    envelope = {"data": list[model], "total": int, "limit": int, "offset": int}
    whole: Any = type("Whole", (BaseModel,), {"__annotations__": envelope, "__module__": __name__})
    validate: Callable[[bytes], Any] = whole.model_validate_json
    return validate


PEERS: dict[str, tuple[Callable[[], Callable[[bytes], Any]], int]] = {
    "msgspec, Raw attributes": (lambda: msgspec.json.Decoder(Page).decode, 1),
    "orjson": (_by_orjson, 2),
    "json": (lambda: json.loads, 4),
    "pydantic v2": (_by_pydantic, 4),
}


def _way(name: str, decode: Callable[[bytes], Any], content: bytes, rounds: int) -> Way:
    async def run() -> None:
        for _ in range(rounds):
            decode(content)

    return Way(name, run, rounds * 100)


async def jobs(origin: str, *, full: bool) -> Jobs:
    """Yield the job; it needs no server."""
    content, rounds, peers = page(0, 100, 100), 200, Peers()
    ways = [_way("nex-async", lambda content: decode_rows(Record, content), content, rounds)]
    for name, (make, fewer) in PEERS.items():
        try:
            ways.append(_way(name, make(), content, rounds // fewer))
        except Exception as error:
            peers.note(name, error)
    yield Job("page of 100 records decoded", "record", ways, 51 if full else 15, missing=peers.missing)

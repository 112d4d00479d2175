"""Decoding a page of 100 records with lazy attributes, against bare msgspec with `Raw` attributes."""

from __future__ import annotations

import asyncio

import msgspec

from nex_async.models import Record
from nex_async.models.base import decode_rows

from .measure import Comparison, interleave
from .server import page


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


async def compare(*, rounds: int = 300, slices: int = 25) -> Comparison:
    """Return the comparison, per record."""
    content = page(0, 100, 100)
    bare = msgspec.json.Decoder(Page)

    async def ours() -> None:
        for _ in range(rounds):
            decode_rows(Record, content)

    async def theirs() -> None:
        for _ in range(rounds):
            bare.decode(content)

    return await interleave("page of 100 records, lazy", ours, theirs, units=rounds * 100, slices=slices)


if __name__ == "__main__":
    result = asyncio.run(compare())
    print(f"{result.name}: ratio {result.ratio:.3f}, ours {result.ours.low() * 1e9:.0f} ns a record")

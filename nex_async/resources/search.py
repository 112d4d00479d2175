"""Search over every kind of record."""

from __future__ import annotations

from .._typing import Unpack
from ..models import SearchHit, SearchResults
from ..routes import SEARCH
from ..transport.options import RequestOptions
from .base import Resource, required_text

__all__ = ["Search"]


class Search(Resource):
    """`nex.search(query)`, and `nex.search.all(query)` for one flat list."""

    async def __call__(self, query: str, /, **options: Unpack[RequestOptions]) -> SearchResults:
        """Return the hits for `query` (1 to 500 characters), grouped by object.

        `POST /v1/search`, scope `record.read`. When some objects could not be searched the result is `.partial`.
        """
        body = {"query": required_text("query", query, 500)}
        return await self._sender.send(SEARCH, body=body, options=options)

    async def all(self, query: str, /, **options: Unpack[RequestOptions]) -> list[SearchHit]:
        """Return every hit for `query`, best first.

        `POST /v1/search`, scope `record.read`.
        """
        return (await self(query, **options)).flat()

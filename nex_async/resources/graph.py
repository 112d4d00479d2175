"""The graph of a workspace."""

from __future__ import annotations

from dataclasses import replace

from .._typing import Unpack
from ..models import Graph as GraphSlice
from ..routes import GET_GRAPH, Route
from ..transport.options import RequestOptions
from ..transport.wire import in_range
from .base import Resource

__all__ = ["Graph"]


def _page(data: bytes) -> str:
    return data.decode("utf-8", "replace")


_AS_HTML: Route[str] = replace(GET_GRAPH, decode=_page)  # type: ignore[assignment, arg-type]


class Graph(Resource):
    """`nex.graph`: records, what joins them, and what the AI derived about them."""

    async def get(self, *, limit: int | None = None, **options: Unpack[RequestOptions]) -> GraphSlice:
        """Return the newest part of the graph; `limit` counts records, 1 to 5000 (1000 by default).

        `GET /v1/graph`, scope `record.read`. Edges may point outside the slice.
        """
        query = {"limit": in_range("limit", limit, 1, 5000)}
        return await self._sender.send(GET_GRAPH, (), query, options=options)

    async def html(self, *, limit: int | None = None, **options: Unpack[RequestOptions]) -> str:
        """Return the graph as a page that draws it. Treat it as untrusted.

        `GET /v1/graph?format=html`, scope `record.read`.
        """
        query = {"limit": in_range("limit", limit, 1, 5000), "format": "html"}
        return await self._sender.send(_AS_HTML, (), query, options=options)

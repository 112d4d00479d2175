"""Finds the route of a path. A literal segment wins over a parameter; a trailing slash says nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias
from urllib.parse import unquote

from nex_async.routes import Route

__all__ = ["AnyRoute", "Router"]

AnyRoute: TypeAlias = Route[Any]


class _Node:
    """One segment of a path: what may follow it, and what ends on it, by method."""

    __slots__ = ("literals", "parameter", "routes")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.routes: dict[str, AnyRoute] = {}


class Router:
    """All routes as a tree of segments."""

    def __init__(self, routes: Iterable[AnyRoute]) -> None:
        self._root = _Node()
        for route in routes:
            self._add(route)

    def _add(self, route: AnyRoute) -> None:
        node = self._root
        for segment in route.path.strip("/").split("/"):
            if segment.startswith("{"):
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment, _Node())
        node.routes[route.method] = route

    def find(self, path: str) -> tuple[dict[str, AnyRoute], list[str]]:
        """Return the routes at an encoded path by method, none if the path is unknown, and its decoded parameters."""
        if "//" in path:
            return {}, []
        segments = path.strip("/").split("/")
        values: list[str] = []
        return _walk(self._root, segments, 0, values), values


def _walk(node: _Node, segments: list[str], position: int, values: list[str]) -> dict[str, AnyRoute]:
    if position == len(segments):
        return node.routes
    segment = segments[position]
    literal = node.literals.get(segment)
    if literal is not None and (found := _walk(literal, segments, position + 1, values)):
        return found
    if node.parameter is None or not segment:
        return {}
    values.append(unquote(segment) if "%" in segment else segment)
    found = _walk(node.parameter, segments, position + 1, values)
    if not found:
        values.pop()
    return found

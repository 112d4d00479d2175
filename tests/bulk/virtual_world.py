"""A server below the sender, on the virtual clock: it applies, counts, and fails as a random draw says."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Literal

from nex_async.errors import ConnectError, ConnectionLost, NexError, Timeout
from nex_async.transport.wire import Reply
from tests.harness.virtual import Call, Outcome, reply

__all__ = ["DEFINITION", "FAULTS", "Kind", "Memory", "rows_of_keys"]

Kind = Literal[
    "ok", "slow", "drop", "drop_before", "status", "status_before", "zombie", "gateway", "timeout", "throttled",
    "throttled_blind", "refused_later", "unsent", "garbage",
]  # fmt: skip

FAULTS: tuple[Kind, ...] = (
    "slow", "drop", "drop_before", "status", "status_before", "zombie", "gateway", "timeout", "throttled",
    "throttled_blind", "refused_later", "unsent", "garbage",
)  # fmt: skip

DEFINITION = json.dumps({
    "id": "1",
    "slug": "thing",
    "attributes": [
        {"id": f"id-{slug}", "slug": slug, "type": "text", "options": {"is_multi_value": slug == "key"}}
        for slug in ("key", "n", "text")
    ],
}).encode()  # fmt: skip

LATE = 20.0
"""Seconds after which a request whose connection was lost may still act."""


def rows_of_keys(keys: Sequence[Any]) -> list[dict[str, Any]]:
    """Return a row for each key, or list of keys, numbered `n` in their order."""
    return [{"key": key, "n": n} for n, key in enumerate(keys)]


class Memory:
    """A server for `VirtualWire`. Every request for a row meets one of `kinds`, by chance `faulty`."""

    def __init__(self, draw: random.Random, kinds: Sequence[Kind] = FAULTS, faulty: float = 0.3) -> None:
        self.draw = draw
        self.kinds = kinds
        self.faulty = faulty
        self.refused: set[int] = set()
        """Versions that are answered with a 400."""
        self.records: dict[str, Any] = {}
        self.applied: defaultdict[str, list[Any]] = defaultdict(list)
        self.created: Counter[str] = Counter()
        self.sent: Counter[Any] = Counter()
        self.methods: defaultdict[Any, list[str]] = defaultdict(list)
        self.overlaps: list[Any] = []
        self._flying: Counter[str] = Counter()

    def __call__(self, call: Call) -> Outcome:
        request = call.request
        if request.method == "GET":
            return Outcome(0.01, Reply(200, {}, DEFINITION))
        attributes = json.loads(request.body or b"{}")["attributes"]
        value = attributes["key"]
        keys = tuple(value) if isinstance(value, list) else (value,)
        version = attributes["n"]
        self.sent[version] += 1
        self.methods[version].append(request.method)
        if any(self._flying[key] for key in keys):
            self.overlaps.append((keys, version))
        kind: Kind = self.draw.choice(self.kinds) if self.draw.random() < self.faulty else "ok"
        after, what = self._meets(kind, request.method, keys, version)
        self._flying.update(keys)
        asyncio.get_running_loop().call_later(after, self._flying.subtract, keys)
        return Outcome(after + 1e-4, what)

    def _meets(self, kind: Kind, method: str, keys: tuple[str, ...], version: int) -> tuple[float, Reply | NexError]:
        took = self.draw.uniform(0.005, 0.05)
        if kind == "unsent":
            return took, ConnectError("refused", sent="no")
        if kind in ("throttled", "throttled_blind", "refused_later"):
            status = 503 if kind == "refused_later" else 429
            return took, reply(status, b"{}") if kind == "throttled_blind" else reply(status, b"{}", retry_after="1")
        if version in self.refused:
            return took, reply(400, b'{"code":400,"message":"no"}')
        if kind not in ("drop_before", "status_before"):
            late = self.draw.uniform(0.0, LATE - 1.0) if kind in ("zombie", "gateway", "timeout") else 0.0
            if late:
                asyncio.get_running_loop().call_later(late, self._apply, method, keys, version)
            else:
                self._apply(method, keys, version)
        if kind in ("drop", "drop_before", "zombie"):
            return took, ConnectionLost("lost", sent="maybe")
        if kind == "timeout":
            return 1.0, Timeout("silence", sent="maybe", phase="headers")
        if kind in ("status", "status_before"):
            return took, reply(503, b"{}")
        if kind == "gateway":
            return took, reply(504, b"{}")
        if kind == "garbage":
            return took, reply(200, b"<html>")
        return took * (20 if kind == "slow" else 1), reply()

    def _apply(self, method: str, keys: tuple[str, ...], version: int) -> None:
        if method == "POST" or not any(key in self.records for key in keys):
            for key in keys:
                self.created[key] += 1
        for key in keys:
            self.records[key] = version
            self.applied[key].append(version)

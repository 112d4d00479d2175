"""Replies nobody sends, made from replies somebody does: the fuzz of the decoders, and ids that want out of their path.

`python -m tests.faults.hostile` runs both long: a million replies and fifty thousand ids. The suite runs a few thousand.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from nex_async import NexError, routes
from nex_async.emulator.openapi import openapi_json
from nex_async.routes import Route

__all__ = ["escapes", "examples", "mutated"]

_WORDS: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**31, 2**63, -(2**63) - 1, 10**40, "", "0", "null", "a" * 300, "\x00", "\u202e", "\ud800", "1e999",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.9999999Z", "2026-13-45", [], {}, [None], [[]], {"": None}, {"id": {}}, [{"id": 1}],
]  # fmt: skip
_BYTES = [
    b"",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"\\",
    b"\\u",
    b"\\ud800",
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"NaN",
    b"-",
]
_BYTES += [
    b"1e999",
    b"9" * 400,
    b"[" * 2000,
    b'{"a":' * 2000,
    b"null",
    b"true",
    b"\xc3",
    b"\xed\xa0\x80",
    b" " * 50,
    b"/**/",
]


def examples() -> Iterator[tuple[Route[Any], Any]]:
    """Yield an example of the reply of each operation, as the schema of the embedded Nex describes it."""
    document = json.loads(openapi_json())
    found = {
        operation["operationId"]: operation
        for path in document["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict)
    }
    for route in routes.ALL:
        content: Any = {}
        for status, response in found.get(route.name, {}).get("responses", {}).items():
            if status.startswith("2"):
                content = response.get("content", {}).get("application/json", {}).get("schema", {})
        yield route, _example(content, document["components"]["schemas"], 0)


def _example(schema: dict[str, Any], components: dict[str, Any], depth: int) -> Any:
    if "$ref" in schema:
        return _example(components[schema["$ref"].rpartition("/")[2]], components, depth + 1)
    if "anyOf" in schema or "oneOf" in schema:
        return _example((schema.get("anyOf") or schema["oneOf"])[0], components, depth)
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        inner = {} if depth > 6 else schema.get("properties", {})
        made = {name: _example(each, components, depth + 1) for name, each in inner.items()}
        more = schema.get("additionalProperties")
        return {**made, "extra": _example(more, components, depth + 1)} if isinstance(more, dict) and depth < 6 else made
    if kind == "array":
        return [] if depth > 6 else [_example(schema.get("items", {}), components, depth + 1) for _ in range(2)]
    date = "2026-03-02T08:00:00.123456789Z"
    known: dict[str, Any] = {"integer": 7, "number": 1.5, "boolean": True, "null": None}
    return known.get(kind, date if "date" in schema.get("format", "") else "a word")


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


def mutated(example: Any, draw: random.Random) -> bytes:
    """Return the bytes of a reply that is wrong in one to three places: in what it holds, in its bytes, or in both."""
    value = json.loads(json.dumps(example))
    if draw.random() < 0.7:
        for _ in range(draw.randint(1, 3)):
            if not (places := _places(value)):
                value = deepcopy(draw.choice(_WORDS))
                break
            holder, key = draw.choice(places)
            change = draw.randrange(4)
            if change == 0:
                del holder[key]
            elif change == 1 and isinstance(holder, dict):
                holder["strange"] = holder.pop(key)
            elif change == 2:
                holder[key] = [holder[key]]
            else:
                holder[key] = deepcopy(draw.choice(_WORDS))
    data = json.dumps(value).encode()
    if draw.random() < 0.6:
        for _ in range(draw.randint(1, 3)):
            start = draw.randint(0, len(data))
            data = data[:start] + draw.choice(_BYTES) + data[start + draw.choice((0, 0, 1, 5, 50)) :]
    return data


def escapes(replies: int, seed: int) -> list[str]:
    """Return what escaped the decoders over so many replies, and is no error of the package."""
    draw, known, found = random.Random(seed), list(examples()), []
    for _ in range(replies):
        route, example = draw.choice(known)
        data = mutated(example, draw)
        try:
            reply = route.decode(data)
            repr(reply)
        except NexError as error:
            repr(error)
        except Exception as error:  # that is what is looked for
            found.append(f"{route.name}: {error!r:.200} of {data[:300]!r}")
    return found


def main() -> None:
    """Run the long proofs, and exit with 1 if anything escaped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--replies", type=int, default=1_000_000)
    parser.add_argument("--ids", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    found = escapes(chosen.replies, chosen.seed)
    print(f"{chosen.replies} replies: {len(found)} escaped", *found[:20], sep="\n  ")
    from .test_security import any_text_stays_in_its_segment

    longer: Callable[[int], None] = any_text_stays_in_its_segment
    longer(chosen.ids)
    print(f"{chosen.ids} ids: none left its segment")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()

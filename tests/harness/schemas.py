"""Hypothesis strategies for values a JSON schema describes, and for values just beside it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

__all__ = ["ID_TOKENS", "anything", "near", "texts"]

ID_TOKENS = tuple(f"id:{number}" for number in range(6))
"""Texts that stand for ids only the running test knows."""

_WORDS = (
    "", " ", "name", "person", "company", "all", "none", "custom", "asc", "desc", "text", "number", "select", "email", "deal",
    "ticket2", "size-2", "new_slug", "ada@x.io", "Ada Park <ada@x.io> will send a proposal.", "x.io", "email_addresses",
    "metrics", "consolidation", "contact", "2026-03-02T08:00:00Z", "2026-03-02T08:00:00.123456789+02:00", "30m", "-1", "0",
    "1e999", "null", "../..", "a" * 5000, "\x00", "\u2028", "\U0001f600", "'; DROP TABLE records; --", '"', "%", "*", "NEAR(",
)  # fmt: skip

texts = st.one_of(st.sampled_from(_WORDS), st.sampled_from(ID_TOKENS), st.text(max_size=40))
_keys = st.one_of(st.sampled_from(["name", "email_addresses", "domains", "employee_count", "location"]), texts)
_numbers = st.one_of(
    st.integers(-3, 300), st.sampled_from([2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**30]), st.integers()
)
_scalars = st.one_of(st.none(), st.booleans(), _numbers, st.floats(allow_nan=False, allow_infinity=False), texts)
anything = st.recursive(
    _scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)), max_leaves=8
)
"""Any JSON value."""


def near(schema: dict[str, Any], components: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return mostly values that fit a schema; about one in ten is anything else, at any depth."""
    fitting = _fitting(schema, components)
    return st.integers(0, 9).flatmap(lambda chance: fitting if chance else anything)


def _fitting(schema: dict[str, Any], components: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return st.deferred(lambda: _fitting(components[name], components))
    if "anyOf" in schema:
        return st.one_of([near(each, components) for each in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        return _objects(schema, components)
    if kind == "array":
        return st.lists(near(schema.get("items", {}), components), max_size=4)
    return {"string": texts, "integer": _numbers, "boolean": st.booleans(), "null": st.none()}.get(str(kind), anything)


def _objects(schema: dict[str, Any], components: dict[str, Any]) -> st.SearchStrategy[Any]:
    properties = schema.get("properties", {})
    if not properties:
        return st.dictionaries(_keys, st.one_of(texts, anything), max_size=4)
    required = {name: near(properties[name], components) for name in schema.get("required", [])}
    optional = {name: near(each, components) for name, each in properties.items() if name not in required}
    return st.fixed_dictionaries(required, optional=optional)

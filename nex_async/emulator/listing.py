"""A page of records or list members: which attributes, in which order, which slice. Rows are joined as stored text."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from nex_async.emulator import bodies
from nex_async.emulator.call import bad_request
from nex_async.emulator.schema import Attribute, ObjectDefinition
from nex_async.emulator.store import Row, Store
from nex_async.emulator.timestamps import format_moment

__all__ = ["merge_attributes", "read_page"]

_DEFAULT_LIMIT = 50
_LARGEST_LIMIT = 1000
"""The service does not state its own; a larger request is answered with this many rows and says so in `limit`."""
_LARGEST_OFFSET = 2**62

Select = Callable[[str], str]

_encode = msgspec.json.Encoder().encode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_page(store: Store, definition: ObjectDefinition, body: bodies.ListRecords) -> str:
    """Return one page as the wire has it; without `sort`, the newest come first."""
    limit = _bounded("limit", body.limit, 1, _DEFAULT_LIMIT)
    offset = _bounded("offset", body.offset, 0, 0)
    limit, offset = min(limit, _LARGEST_LIMIT), min(offset, _LARGEST_OFFSET)
    parent = store.schema.parent(definition) if definition.is_list else None
    select = _selection(definition, parent, body.attributes)
    order = _order(definition, parent, body.sort)
    rows = store.rows(_query(parent is not None, order), definition.id, limit, offset)
    total = store.count("SELECT record_count FROM objects WHERE id = ?", definition.id)
    data = ",".join(_rendered(store, definition, (parent or definition).type, rows, select))
    return f'{{"data":[{data}],"total":{total},"limit":{limit},"offset":{offset}}}'


def merge_attributes(parent: str, own: str) -> str:
    """Return the JSON object of a parent's values and a member's own; on the same slug the member's stands."""
    if own == "{}":
        return parent
    return _encode({**_decode_raw(parent), **_decode_raw(own)}).decode()


def _bounded(name: str, value: int | None, low: int, default: int) -> int:
    if value is None:
        return default
    if value < low:
        raise bad_request(f"{name} must be at least {low}")
    return value


def _query(of_list: bool, order: str) -> str:
    if of_list:
        return (
            "SELECT r.id, r.created_at, r.updated_at, r.attributes, p.attributes FROM records r"
            f" JOIN records p ON p.id = r.parent_id WHERE r.object_id = ? ORDER BY {order} LIMIT ? OFFSET ?"
        )
    return (
        "SELECT r.id, r.created_at, r.updated_at, r.attributes FROM records r"
        f" WHERE r.object_id = ? ORDER BY {order} LIMIT ? OFFSET ?"
    )


def _rendered(store: Store, definition: ObjectDefinition, kind: str, rows: list[Row], select: Select) -> list[str]:
    head = f'","object_id":"{definition.id}","type":"{kind}","workspace_id":"{store.workspace_id}","created_at":"'
    if definition.is_list:
        rows = [(*row[:3], merge_attributes(row[4], row[3])) for row in rows]
    return [
        f'{{"id":"{number}{head}{format_moment(created)}","updated_at":"{format_moment(updated)}",'
        f'"attributes":{select(attributes)}}}'
        for number, created, updated, attributes in rows
    ]


def _selection(
    definition: ObjectDefinition, parent: ObjectDefinition | None, wanted: str | bodies.CustomAttributes | None
) -> Select:
    if wanted is None or wanted == "all":
        return _everything
    if wanted == "none":
        return _nothing
    if wanted == "primary":
        return _only(["name"])
    if isinstance(wanted, str) or wanted.mode != "custom":
        raise bad_request('attributes must be "all", "primary", "none" or {"mode": "custom", "slugs": [...]}')
    if not wanted.slugs:
        raise bad_request("attributes.slugs must name at least one attribute")
    for slug in wanted.slugs:
        if slug not in definition.attributes and (parent is None or slug not in parent.attributes):
            raise bad_request(f'attributes.slugs: "{definition.slug}" has no attribute {slug[:100]!r}')
    return _only(wanted.slugs)


def _everything(attributes: str) -> str:
    return attributes


def _nothing(attributes: str) -> str:
    return "{}"


def _only(slugs: list[str]) -> Select:
    def select(attributes: str) -> str:
        values = _decode_raw(attributes)
        return _encode({slug: values[slug] for slug in slugs if slug in values}).decode()

    return select


def _order(definition: ObjectDefinition, parent: ObjectDefinition | None, sort: bodies.Sort | None) -> str:
    """Return an ORDER BY that is total: whatever it sorts by, the id decides between equals."""
    if sort is None:
        return "r.id DESC"
    direction = {None: "ASC", "asc": "ASC", "desc": "DESC"}.get(sort.direction)
    if direction is None:
        raise bad_request('sort.direction must be "asc" or "desc"')
    if sort.attribute in (None, "created_at"):
        return f"r.id {direction}"  # ids rise with time, and unlike timestamps never tie
    if sort.attribute == "updated_at":
        return f"r.updated_order {direction}"
    expression = _expression(definition, parent, sort.attribute or "")
    return f"{expression} IS NULL, {expression} COLLATE NOCASE {direction}, r.id"


def _expression(definition: ObjectDefinition, parent: ObjectDefinition | None, reference: str) -> str:
    attribute = definition.attribute(reference)
    if attribute is not None:
        return _value_of(attribute, "r", named=parent is None)
    attribute = parent.attribute(reference) if parent is not None else None
    if attribute is not None:
        return _value_of(attribute, "p", named=True)
    raise bad_request(f'sort.attribute: "{definition.slug}" has no attribute {reference[:100]!r}')


def _value_of(attribute: Attribute, table: str, *, named: bool) -> str:
    """Return the SQL of what an attribute sorts by: of several values the first, of an amount the number."""
    if named and attribute.slug == "name":
        return f"{table}.name"
    place = f'$."{attribute.slug}"' + ("[0]" if attribute.is_multi_value else "")
    whole = f"json_extract({table}.attributes, '{place}')"
    if attribute.type != "currency":
        return whole
    return f"coalesce(json_extract({table}.attributes, '{place}.value'), {whole})"

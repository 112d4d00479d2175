"""What a run does with a row: how it becomes a request, which keys it has, and what its reply means."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from ..errors import InvalidRequestError
from ..models import Record
from ..models.context import ArtifactCreated
from ..routes import (
    ADD_TEXT,
    CREATE_RECORD,
    DELETE_RECORD,
    GET_LIST,
    GET_OBJECT,
    LIST_OBJECTS,
    UPDATE_RECORD,
    UPSERT_MEMBER,
    UPSERT_RECORD,
    Route,
)
from ..transport.wire import Id, Request, build, encode, path_segment
from .letters import Lost
from .report import Status

__all__ = ["Operation", "Prepared", "adding", "creating", "deleting", "members", "updating", "upserting"]

MAX_BODY = 1_000_000
"""Bytes; the API states no limit, and a larger row is a mistake more often than not."""

Kind: TypeAlias = Literal["upsert", "create", "update", "delete", "text"]


Prepared: TypeAlias = "tuple[Request, tuple[str, ...]]"
"""A row as it will be sent, and the keys it shares with other rows."""


@dataclass(frozen=True)
class Operation:
    """One way of writing many rows."""

    name: str
    """What reports call it, such as `upsert person`."""
    identity: str
    """What its journal calls it: two runs of the same identity do the same with the same rows."""
    kind: Kind
    route: Route[Any]
    prepare: Callable[[Any], Prepared]
    """Turns a row into a request. Raises `InvalidRequestError` for a row that cannot be sent."""
    probe: Route[Any]
    """A read that tells whether the server is well, and the object there."""
    probe_path: tuple[Id, ...] = ()
    settle: Callable[[Request], Request] | None = None
    """Makes of a create the upsert that finds out what became of it."""
    match_on: str | None = None
    key: str | None = None
    """What the rows call that attribute."""
    id_field: str | None = None
    """Where the rows have the id of their record."""
    matched: Callable[[str], Operation] | None = None
    """Makes the same operation for rows that name the matching attribute so."""

    @property
    def needs_its_path(self) -> bool:
        """Whether a 404 means that what all rows are written to is missing."""
        return self.probe is GET_OBJECT

    def plain(self, row: Any) -> Any:
        """Return a row as it can be given again: a record of the API as a mapping."""
        if not isinstance(row, Record):
            return row
        return row.attributes if self.id_field is None else with_id(row, self.id_field)

    def status(self, value: Any, since: str | None) -> Status:
        """Return what a reply says became of its row; `since` is when the run began, by the server's clock."""
        if self.kind != "upsert":
            return _STATUS[self.kind]
        created, updated = value._created_at, value._updated_at
        if created is None or updated is None:
            return "written"
        return "created" if created == updated and (since is None or created >= since) else "updated"


_STATUS: dict[Kind, Status] = {"create": "created", "update": "updated", "delete": "deleted", "text": "accepted"}


def upserting(slug: str, match_on: str, key: str | None = None) -> Operation:
    """Return the operation that upserts rows of an object by one attribute, which the rows call `key`."""
    path, target = (slug,), build(UPSERT_RECORD, (slug,)).target
    key = key or match_on
    head = b'{"matching_attribute":%s,"attributes":' % msgspec.json.encode(match_on)
    identity = f"upsertRecord|{slug}|{match_on}"

    def prepare(row: Any) -> Prepared:
        attributes = row if type(row) is dict else mapping_of(row)
        body = b"%s%s}" % (head, encode(attributes))
        if len(body) > MAX_BODY:
            raise _too_large(body)
        return Request("PUT", target, body, None), keys_of(attributes, key)

    def matched(slug_of_key: str) -> Operation:
        return upserting(slug, match_on, slug_of_key)

    return Operation(
        f"upsert {slug}",
        identity,
        "upsert",
        UPSERT_RECORD,
        prepare,
        GET_OBJECT,
        path,
        match_on=match_on,
        key=key,
        matched=matched,
    )


def creating(slug: str, match_on: str | None, key: str | None = None) -> Operation:
    """Return the operation that creates rows of an object; `match_on` finds out what became of a lost reply."""
    path, target = (slug,), build(CREATE_RECORD, (slug,)).target
    key = key or match_on

    def prepare(row: Any) -> Prepared:
        attributes = mapping_of(row)
        body = _encoded({"attributes": attributes})
        return Request("POST", target, body, None), keys_of(attributes, key) if key else ()

    def matched(slug_of_key: str) -> Operation:
        return creating(slug, match_on, slug_of_key)

    def settle(create: Request) -> Request:
        body = b'{"matching_attribute":' + msgspec.json.encode(match_on) + b"," + (create.body or b"{}")[1:]
        return Request("PUT", target, body, create.headers)

    return Operation(
        f"create {slug}",
        f"createRecord|{slug}|{match_on}",
        "create",
        CREATE_RECORD,
        prepare,
        GET_OBJECT,
        path,
        settle=settle if match_on else None,
        match_on=match_on,
        key=key,
        matched=matched,
    )


def updating(id_field: str) -> Operation:
    """Return the operation that changes records by id; a row is the id and the attributes to change."""

    def prepare(row: Any) -> Prepared:
        attributes = dict(with_id(row, id_field))
        record_id = _id(attributes.pop(id_field, None), id_field)
        if not attributes:
            raise InvalidRequestError("the row has nothing to change", argument="rows")
        return build(UPDATE_RECORD, (record_id,), body={"attributes": attributes}), (str(record_id),)

    return Operation(
        "update records", f"updateRecord|{id_field}", "update", UPDATE_RECORD, prepare, LIST_OBJECTS, id_field=id_field
    )


def deleting(id_field: str) -> Operation:
    """Return the operation that deletes records; a row is an id, or a mapping that has one."""

    def prepare(row: Any) -> Prepared:
        if not isinstance(row, (str, int)):
            row = with_id(row, id_field).get(id_field)
        record_id = _id(row, id_field)
        return build(DELETE_RECORD, (record_id,)), (str(record_id),)

    return Operation(
        "delete records", f"deleteRecord|{id_field}", "delete", DELETE_RECORD, prepare, LIST_OBJECTS, id_field=id_field
    )


def members(list_id: Id, id_field: str) -> Operation:
    """Return the operation that puts records on a list; a row is the record's id and the list's own attributes."""
    path, target = (list_id,), build(UPSERT_MEMBER, (list_id,)).target

    def prepare(row: Any) -> Prepared:
        attributes = {id_field: row.id if isinstance(row, Record) else row}
        if not isinstance(row, (str, int, Record)):
            attributes = dict(mapping_of(row))
        record_id = str(_id(attributes.pop(id_field, None), id_field))
        body: dict[str, Any] = {"parent_id": record_id}
        if attributes:
            body["attributes"] = attributes
        return Request("PUT", target, _encoded(body), None), (record_id,)

    return Operation(
        f"upsert members of list {list_id}",
        f"upsertListMember|{list_id}|{id_field}",
        "upsert",
        UPSERT_MEMBER,
        prepare,
        GET_LIST,
        path,
        id_field=id_field,
    )


def adding() -> Operation:
    """Return the operation that ingests texts; a row is a text, or a mapping of `content` and `context`."""

    def prepare(row: Any) -> Prepared:
        given = {"content": row} if isinstance(row, str) else dict(mapping_of(row))
        unknown = given.keys() - {"content", "context"}
        if unknown:
            raise InvalidRequestError(f"a text has content and context, not {min(map(str, unknown))!r}", argument="rows")
        content = given.get("content")
        if not isinstance(content, str) or not content.strip():
            raise InvalidRequestError("content must be a string that is not blank", argument="rows")
        body = _encoded({name: value for name, value in given.items() if value is not None})
        return Request("POST", ADD_TEXT.path, body, None), ()

    return Operation("add texts", "addContext", "text", ADD_TEXT, prepare, LIST_OBJECTS)


def value_of(value: Any) -> Any:
    """Return what an outcome shows of a reply: a record, the id of an artifact, or nothing."""
    if isinstance(value, ArtifactCreated):
        return value.artifact_id
    return value if isinstance(value, Record) else None


def mapping_of(row: Any) -> Mapping[str, Any]:
    """Return a row as a mapping of slugs to values. Raises `InvalidRequestError`."""
    if type(row) is dict:
        return row
    if isinstance(row, Mapping):
        return dict(row)
    if isinstance(row, Record):
        return row.attributes
    if isinstance(row, msgspec.Struct):
        built = msgspec.to_builtins(row, builtin_types=(), str_keys=True)
        if isinstance(built, dict):
            return built
    if isinstance(row, Lost):
        raise InvalidRequestError("the row was not kept: JSON could not hold it", argument="rows")
    raise InvalidRequestError(f"a row must be a mapping or a Struct, not {type(row).__name__}", argument="rows")


def with_id(row: Any, id_field: str) -> Mapping[str, Any]:
    """Return a row as a mapping that has the id of its record, which a record of the API has beside its attributes."""
    return {**row.attributes, id_field: row.id} if isinstance(row, Record) else mapping_of(row)


def keys_of(attributes: Mapping[str, Any], match_on: str) -> tuple[str, ...]:
    """Return what identifies a row: each value of its matching attribute, whatever its case."""
    value = attributes.get(match_on)
    if type(value) is list and len(value) == 1:
        value = value[0]
    if type(value) is str:
        key = value.casefold() if value.isascii() else folded(value)
        if key and not key.isspace():
            return (key,)
    elif isinstance(value, (list, tuple)):
        keys = tuple(dict.fromkeys(key for item in value for key in keys_of({match_on: item}, match_on)))
        if keys:
            return keys
    elif value is not None and not isinstance(value, str):
        return (msgspec.json.encode(value, order="sorted", enc_hook=str).decode(),)
    raise InvalidRequestError(f"the row has no value of {match_on!r}, by which it is matched", argument="rows")


def folded(text: str) -> str:
    """Return a text as keys are compared: without case, and whatever its Unicode form."""
    return unicodedata.normalize("NFKC", text).casefold()


def _encoded(value: Any) -> bytes:
    body = encode(value)
    if len(body) > MAX_BODY:
        raise _too_large(body)
    return body


def _too_large(body: bytes) -> InvalidRequestError:
    return InvalidRequestError(f"the row is {len(body)} bytes as JSON; at most {MAX_BODY} are sent", argument="rows")


def _id(value: Any, field: str) -> Id:
    if value is None:
        raise InvalidRequestError(f"the row has no {field!r}, which names its record", argument="rows")
    path_segment(field, value)
    return value  # type: ignore[no-any-return]

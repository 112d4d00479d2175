"""Records and list members: one shape under many names; attributes stay raw bytes until they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Generic, TypeVar, overload

from msgspec import Raw, field

from ..errors import DecodeError
from .attributes import flatten, flatten_all
from .base import Model, Timestamp, decode_any

__all__ = ["Record", "TypedRecord"]

A = TypeVar("A")
D = TypeVar("D")


_NONE = Raw(b"{}")


def _no_attributes() -> Raw:
    return _NONE


class Record(Model, gc=False, eq=False):
    """A row of an object, or a member of a list (then `id` is the membership's, and `attributes` are merged).

    `attributes` decode when first read; until then the record only holds the bytes they came in. A record that is kept
    long after its page can `.detach()` itself from the page's bytes.
    """

    id: str
    object_id: str | None = None
    type: str | None = None
    workspace_id: str | None = None
    _created_at: str | None = field(default=None, name="created_at")
    _updated_at: str | None = field(default=None, name="updated_at")
    _attributes: Raw = field(default_factory=_no_attributes, name="attributes")

    created_at: ClassVar[Timestamp] = Timestamp()
    updated_at: ClassVar[Timestamp] = Timestamp()

    @property
    def attributes(self) -> dict[str, Any]:
        """The attribute values by slug, as plain JSON values. Raises `DecodeError` if they are not an object."""
        held: Any = self._attributes
        if type(held) is dict:
            return held
        raw = bytes(held)
        value = (decode_any(raw) if raw else None) or {}
        if not isinstance(value, dict):
            raise DecodeError("attributes are not an object", path="$.attributes", raw=raw)
        # The decoded dict takes the place of the bytes: a second read is free, and the page is let go.
        self._attributes = value  # type: ignore[assignment]
        return value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return self._identity() == other._identity()

    def _identity(self) -> tuple[Any, ...]:
        fields = (self.id, self.object_id, self.type, self.workspace_id, self._created_at, self._updated_at)
        try:
            return *fields, self.attributes
        except DecodeError:
            return *fields, bytes(self._attributes)

    def __repr__(self) -> str:
        held: Any = self._attributes
        shown = repr(held) if type(held) is dict else f"<{len(bytes(held))} bytes>"
        return f"Record(id={self.id!r}, type={self.type!r}, attributes={shown})"

    def __iter__(self) -> Iterator[str]:
        """Iterate over the slugs of the attributes, as a mapping does."""
        return iter(self.attributes)

    def __getitem__(self, slug: str) -> Any:
        return self.attributes[slug]

    def __contains__(self, slug: object) -> bool:
        return slug in self.attributes

    @overload
    def get(self, slug: str) -> Any | None: ...
    @overload
    def get(self, slug: str, default: D) -> Any | D: ...
    def get(self, slug: str, default: Any = None) -> Any:
        """Return the value of an attribute as it came, `default` when it is absent."""
        return self.attributes.get(slug, default)

    def text(self, slug: str) -> str:
        """Return an attribute as text, whichever encoding it came in; `""` when there is none. Never raises."""
        return flatten(self._peek(slug))

    def texts(self, slug: str) -> list[str]:
        """Return every text of a multi-value attribute. Never raises."""
        return flatten_all(self._peek(slug))

    def _peek(self, slug: str) -> Any:
        try:
            return self.attributes.get(slug)
        except DecodeError:
            return None

    def detach(self) -> Record:
        """Copy the attributes out of the page they came in, so that the page can be freed; return the record."""
        held: Any = self._attributes
        if isinstance(held, Raw):
            self._attributes = held.copy()
        return self


class TypedRecord(Model, Generic[A]):
    """A record whose attributes are decoded straight into the caller's own type."""

    id: str
    attributes: A
    object_id: str | None = None
    type: str | None = None
    workspace_id: str | None = None
    _created_at: str | None = field(default=None, name="created_at")
    _updated_at: str | None = field(default=None, name="updated_at")

    created_at: ClassVar[Timestamp] = Timestamp()
    updated_at: ClassVar[Timestamp] = Timestamp()

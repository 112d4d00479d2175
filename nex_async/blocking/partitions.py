"""Partitions that block: ranges of a listing that can be read apart."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from .._typing import Unpack
from ..bulk import partitions
from ..models import Record
from ..paging import OnBadRow
from ..transport.options import RequestOptions
from .paging import Pager

if TYPE_CHECKING:
    from .client import Nex

__all__ = ["Partition"]


class Partition(partitions.Partition):
    """The rows `start` to `stop` of a listing; without `stop`, on to wherever the server's rows end by then.

    Holds no client and no connection, and pickles: read it in any process, with a client of that process.
    """

    __slots__ = ()

    def read(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, nex: Nex, /, *, on_bad_row: OnBadRow = "raise", **options: Unpack[RequestOptions]
    ) -> Pager[Record]:
        """Return a pager over these rows and no others.

        `POST /v1/objects/{slug}/records` or `POST /v1/lists/{id}/records`, scope `record.read` or `list.member.read`.
        """
        return Pager(nex, partitions.Partition.read(self, nex._async, on_bad_row=on_bad_row, **options))

    @classmethod
    def of(cls, part: partitions.Partition) -> Partition:
        """Return a part as blocking clients read it."""
        return cls(**{each.name: getattr(part, each.name) for each in fields(part)})

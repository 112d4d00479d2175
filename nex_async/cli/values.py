"""Values of options: what was not given is not sent, and times are read as people write them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

__all__ = ["given", "moment"]


def given(**values: Any) -> dict[str, Any]:
    """Return what was given: not None, and no empty tuple."""
    return {name: value for name, value in values.items() if value is not None and value != ()}


def moment(ctx: click.Context, param: click.Parameter, text: str | None) -> datetime | None:
    """Return a date or an RFC 3339 time as an aware datetime; without a zone it is the time of this machine."""
    if text is None:
        return None
    from ..models.base import parse_timestamp

    found: datetime | None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = parse_timestamp(text)  # what Python 3.10 cannot read
    if found is None:
        raise click.BadParameter(f"{text!r} is no date and no time such as 2026-03-01 or 2026-03-01T09:00:00Z", ctx, param)
    return found.astimezone() if found.tzinfo is None else found

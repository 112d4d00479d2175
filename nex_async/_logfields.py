"""What log records tell of an error, beside their text: as fields named `nex_*`, in which no server has a word."""

from __future__ import annotations

from typing import Any

__all__ = ["fields_of"]


def fields_of(error: Exception, **others: Any) -> dict[str, Any]:
    """Return the `extra` of a record about an error: its class, the status of its reply, and what else is told."""
    fields = {f"nex_{name}": value for name, value in others.items()}
    return {"nex_error": type(error).__name__, "nex_status": getattr(error, "status", None), **fields}

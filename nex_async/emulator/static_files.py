"""The pages that come with the package, read from it once."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

__all__ = ["read_static"]


@lru_cache(maxsize=16)
def read_static(name: str) -> str:
    """Return the text of a file under `static`."""
    return resources.files("nex_async.emulator").joinpath("static").joinpath(name).read_text(encoding="utf-8")

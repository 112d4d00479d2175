"""The embedded Nex: the API's core over SQLite, for tests, demos and work without an account."""

from __future__ import annotations

from nex_async.emulator.server import Emulator

__all__ = ["Emulator"]

"""For your own tests: pytest fixtures, there with `pip install nex-async pytest`; and real exchanges, recorded and replayed.

`nex` is a client of an embedded Nex: ``async def test_it(nex): await nex.records.create("person", {"name": "Ada Park"})``.
`nex_emulator` is that Nex, one server a session and as new for each test: `.url`, `.key`, `.keys`, `.requests`, `.switches`.
``[ada] = nex_emulator.seed("person", {"name": "Ada Park"})`` puts records there; `.request(...)` carries out any operation.
A plain `Nex()` in the code under test finds it: `NEX_API_KEY` and `NEX_API_BASE_URL` name it as long as a test uses it.
`nex_faults.add(kind="status", status=503, times=2)` has requests fail; the kinds of faults are those of the emulator.
`nex_clock.freeze()` stops the time of the server and `nex_clock.advance(60)` moves it, with jobs, timestamps and limits.
All are synchronous: for synchronous tests, and asynchronous ones under pytest-asyncio, anyio's plugin or unittest.
Without pytest, ``with EmulatorThread() as emulator:`` gives what `nex_emulator` is.
``with record("people.jsonl") as tape:`` notes what `tape.client()` asks of the real API and hears from it, less the key.
``with replay("people.jsonl") as tape:`` answers the same again without a network; `tape.unused()` was not asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._lazy import loader

if TYPE_CHECKING:
    from .clock import Clock
    from .emulator_thread import EmulatorThread
    from .recording import Recording, record
    from .replaying import Replay, replay

__all__ = ["Clock", "EmulatorThread", "Recording", "Replay", "record", "replay"]

_HOMES = {
    "Clock": ".clock",
    "EmulatorThread": ".emulator_thread",
    "Recording": ".recording",
    "Replay": ".replaying",
    "record": ".recording",
    "replay": ".replaying",
}

__getattr__: Callable[[str], Any] = loader(__name__, _HOMES)

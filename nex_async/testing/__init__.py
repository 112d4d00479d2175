"""For your own tests: `pip install nex-async pytest`, and these fixtures are there.

`nex` is a client of an embedded Nex: `async def test_people(nex): await nex.records.create("person", {"name": "Ada Park"})`.
`nex_emulator` is that Nex, one server a session and fresh data for each test: `.url`, `.key`, `.requests`, `.switches`.
While it is in use `NEX_API_KEY` and `NEX_API_BASE_URL` name it, so that a plain `Nex()` in the code under test finds it.
`ada, bob = nex_emulator.seed("person", {"name": "Ada"}, {"name": "Bob"})` puts records in place without a request.
`nex_faults.add(kind="status", status=503, times=2)` makes the next requests go wrong; the kinds are those of the emulator.
`nex_clock.freeze()` stops the server's time and `nex_clock.advance(60)` moves it: jobs, timestamps and limits follow.
All of them are synchronous, and serve synchronous tests, pytest-asyncio, anyio's plugin, unittest and xdist alike.
Without pytest, `with EmulatorThread() as emulator:` is what `nex_emulator` gives.
`with record("people.jsonl", upstream="https://app.nex.ai") as tape:` notes what `tape.client()` says and hears, less secrets.
`with replay("people.jsonl") as tape:` says it again without a network, and `tape.unused()` tells what nobody asked for.
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

"""A TCP proxy that makes a network bad: by a schedule drawn from a seed, or by hand.

`python -m tests.harness.proxy PORT --seed 1` runs one in a process of its own. It prints its port, then answers each line of its
input with one line of JSON, what it did so far: `play SECONDS EVERY` begins a schedule, `calm` mends the network, `counts` only
tells. It ends with its input.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

__all__ = ["Fault", "Proxy", "draw_schedule"]

Kind: TypeAlias = Literal["reset", "half_open", "refuse", "lag", "slice", "slow"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_HOST = "127.0.0.1"
_READ = 1 << 16
_NO_LINGER = struct.pack("ii", 1, 0)
_STRIKES_WITHIN = 600
"""A connection that is to break does so before it has forwarded so many bytes more: in the middle of a request or a reply."""
_LAG = (0.02, 0.25)
_PIECES = (1, 48)
_MOST_PIECES = 100
_RATE = 20_000.0


@dataclass(frozen=True)
class Fault:
    """What goes wrong `at` so many seconds after the beginning, and for how many `seconds`.

    `reset` breaks connections by RST, `half_open` lets them stand and forwards nothing more; both strike half of those that
    are open, each within the next 600 bytes it carries. `refuse` closes the door to new ones and breaks those that stand,
    as `reset` does; `lag` delays and jitters, `slice`
    forwards a few bytes at a time, `slow` limits the bytes a second.
    """

    at: float
    kind: Kind
    seconds: float = 0.0


def draw_schedule(seed: int, seconds: float, every: float) -> list[Fault]:
    """Return faults for so many seconds, one `every` so many on average, never two at a time. A seed means one schedule."""
    draw, found, at = random.Random(seed), list[Fault](), 0.0
    while True:
        at += draw.expovariate(1.0 / every)
        kind = draw.choice(KINDS)
        lasts = 0.0 if kind in ("reset", "half_open") else draw.uniform(0.2, 1.0) * min(every, 10.0)
        if at + lasts > seconds:
            return found
        found.append(Fault(at, kind, lasts))
        at += lasts


class Proxy:
    """Forwards connections on `port` to another port of this machine; `counts` says what it did.

    Ends when its block is left: every connection is broken, no task and no socket stays.
    """

    def __init__(self, upstream: int, *, seed: int = 0) -> None:
        self.counts: Counter[str] = Counter()
        self.latency: tuple[float, float] = (0.0, 0.0)
        """Seconds each piece is delayed: the ends of a range."""
        self.pieces: tuple[int, int] | None = None
        """How many bytes are forwarded at a time: the ends of a range."""
        self.rate: float | None = None
        """Bytes a second and direction."""
        self._upstream = upstream
        self._draw = random.Random(seed)
        self._links: dict[_Link, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._playing: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None

    @property
    def open(self) -> int:
        """How many connections stand."""
        return len(self._links)

    async def __aenter__(self) -> Proxy:
        # It holds the port while nobody listens on it, so that no other program gets it.
        self._guard = socket.socket()
        self._guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._guard.bind((_HOST, 0))
        self.port: int = self._guard.getsockname()[1]
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        if self._playing is not None:
            self._playing.cancel()
            await asyncio.wait([self._playing])
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._guard.close()
        await asyncio.sleep(0)  # transports close their sockets in the next turn of the loop

    # ---- what can go wrong ---------------------------------------------------------------------------------------------

    def refuse(self) -> None:
        """Refuse new connections; those that stand go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def accept(self) -> None:
        """Take new connections again."""
        if self._server is None:
            self._server = await asyncio.start_server(
                self._accept, _HOST, self.port, reuse_port=True, backlog=256, limit=_READ
            )

    def reset(self, after: int = 0) -> None:
        """Break every connection by RST: at once, or within the next `after` bytes it forwards."""
        for link in list(self._links):
            link.arm("reset", self._draw.randint(0, after) if after else 0)

    def half_open(self, after: int = 0) -> None:
        """Forward nothing more on any connection, and say nothing: at once, or within the next `after` bytes."""
        for link in list(self._links):
            link.arm("half_open", self._draw.randint(0, after) if after else 0)

    def play(self, faults: list[Fault]) -> None:
        """Begin a schedule; it goes on until it is over, or the network is calmed."""
        assert self._playing is None, "a schedule is being played"
        self._playing = asyncio.get_running_loop().create_task(self._play(faults))

    async def calm(self) -> None:
        """Mend the network: the schedule ends, connections are taken, and those that stood are broken by RST, once."""
        playing, self._playing = self._playing, None
        if playing is not None:
            playing.cancel()
            await asyncio.wait([playing])
        self.latency, self.pieces, self.rate = (0.0, 0.0), None, None
        await self.accept()
        self.reset()

    async def _play(self, faults: list[Fault]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for fault in faults:
            await asyncio.sleep(began + fault.at - loop.time())
            self.counts[f"{fault.kind} faults"] += 1
            if fault.kind in ("reset", "half_open"):
                standing = [link for link in self._links if not link.armed]
                for link in self._draw.sample(standing, (len(standing) + 1) // 2):
                    link.arm(fault.kind, self._draw.randint(0, _STRIKES_WITHIN))
                continue
            if fault.kind == "refuse":
                self.refuse()
                self.reset(_STRIKES_WITHIN)
            self.latency = _LAG if fault.kind == "lag" else (0.0, 0.0)
            self.pieces = _PIECES if fault.kind == "slice" else None
            self.rate = _RATE if fault.kind == "slow" else None
            await asyncio.sleep(fault.seconds)
            self.latency, self.pieces, self.rate = (0.0, 0.0), None, None
            await self.accept()

    # ---- connections -----------------------------------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts["connections"] += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # also when it was cancelled before it began

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(_HOST, self._upstream, limit=_READ)
        except OSError:
            self.counts["unreachable"] += 1
            return
        link = _Link(self, (reader, writer), there)
        self._links[link] = None
        loop = asyncio.get_running_loop()
        pumps = [loop.create_task(self._pump(link, reader, there[1])), loop.create_task(self._pump(link, there[0], writer))]
        try:
            await asyncio.wait(pumps)
        finally:
            del self._links[link]
            link.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)

    async def _pump(self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Forward one direction until its end; a connection that broke breaks on the other side too."""
        try:
            while data := await source.read(_READ):
                for piece in self._cut(data):
                    await self._pause(len(piece))
                    if not (allowed := link.allow(piece)):
                        continue
                    self.counts["bytes"] += len(allowed)
                    sink.write(allowed)
                    await sink.drain()
                    link.strike()
            if link.silent:
                link.abort()
            else:
                sink.write_eof()
        except OSError:
            link.break_off()

    def _cut(self, data: bytes) -> Iterator[bytes]:
        if self.pieces is None:
            yield data
            return
        at = 0
        while at < len(data):
            size = max(self._draw.randint(*self.pieces), len(data) // _MOST_PIECES)
            self.counts["slices"] += 1
            yield data[at : at + size]
            at += size

    async def _pause(self, size: int) -> None:
        seconds = self._draw.uniform(*self.latency) if self.latency[1] else 0.0
        if self.rate is not None:
            seconds += size / self.rate
        if seconds or self.pieces is not None:
            self.counts["delays"] += bool(seconds)
            await asyncio.sleep(seconds)


class _Link:
    """One connection and its continuation to the other port."""

    def __init__(
        self,
        proxy: Proxy,
        here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.silent: bool = False
        self.armed: Literal["", "reset", "half_open"] = ""
        """How it breaks once `left` bytes more were forwarded."""
        self._left = 0
        self._proxy = proxy
        self._writers = (here[1], there[1])

    def arm(self, kind: Literal["reset", "half_open"], left: int) -> None:
        """Let it break after so many bytes more; at once, if that is none."""
        self.armed, self._left = kind, left
        self.strike()

    def allow(self, piece: bytes) -> bytes:
        """Return what of a piece is still forwarded."""
        if self.silent:
            self._proxy.counts["swallowed"] += len(piece)
            return b""
        if not self.armed:
            return piece
        allowed = piece[: self._left]
        self._left -= len(allowed)
        if not allowed:
            self.strike()
        return allowed

    def strike(self) -> None:
        """Break, if it is time."""
        if not self.armed or self._left > 0 or (self.silent and self.armed == "half_open"):
            return
        self._proxy.counts[self.armed] += 1
        if self.armed == "half_open":
            self.silent = True
        else:
            self.break_off()

    def break_off(self) -> None:
        """End both sides by RST."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.armed = ""
        self.abort()

    def abort(self) -> None:
        """End both sides."""
        for writer in self._writers:
            writer.transport.abort()


async def _serve(upstream: int, seed: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with Proxy(upstream, seed=seed) as proxy:
        print(proxy.port, flush=True)
        while line := await reader.readline():
            verb, *numbers = line.decode().split()
            if verb == "play":
                proxy.play(draw_schedule(seed, *map(float, numbers)))
            elif verb == "calm":
                await proxy.calm()
            print(json.dumps(proxy.counts), flush=True)
    transport.close()


def main() -> None:
    """Run a proxy until the end of the input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("upstream", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    asyncio.run(_serve(options.upstream, options.seed))


if __name__ == "__main__":
    main()

"""A server that says what it was asked and by whom: `python -m tests.exact.echo` prints its port, and ends with its input.

The id that is asked for begins with what is to happen: `slow`, `split`, `cut` (a FIN in the body), `stale` (a FIN behind it),
`again` (503, once in two), anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Iterator

__all__ = ["echo_server", "mark_of"]


def mark_of(key: str) -> str:
    """Return what the server calls a key."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


class _Echo(asyncio.Protocol):
    refused = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while b"\r\n\r\n" in self._data:
            head, _, self._data = self._data.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            keys = [line.partition(": Bearer ")[2] for line in lines if line.lower().startswith("authorization:")]
            self._answer(lines[0].split(" ")[1].rpartition("/")[2], mark_of(keys[0]))

    def _answer(self, name: str, mark: str) -> None:
        body = f'{{"id":"{name}","title":"{mark}"}}'.encode()
        reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        kind = name.partition("-")[0]
        if kind == "again":
            _Echo.refused += 1
            if _Echo.refused % 2:
                reply = b"HTTP/1.1 503 No\r\nRetry-After: 0.001\r\nContent-Length: 0\r\n\r\n"
        if kind == "slow":
            asyncio.get_running_loop().call_later(0.003, self._write, reply)
        elif kind == "split":
            self._write(reply[:-20])
            asyncio.get_running_loop().call_later(0.001, self._write, reply[-20:])
        elif kind == "cut":
            self._write(reply[:-20])
            self._transport.close()
        else:
            self._write(reply)
            if kind == "stale":
                self._transport.close()

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)  # type: ignore[attr-defined]


async def _main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Echo, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


@contextlib.contextmanager
def echo_server() -> Iterator[str]:
    """Run the server in a process of its own; give its URL."""
    arguments = [sys.executable, "-m", "tests.exact.echo"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.communicate()


if __name__ == "__main__":
    asyncio.run(_main())

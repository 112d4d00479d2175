"""The load target: an HTTP server in a process of its own that answers from memory, faster than any client asks.

It is a C program, compiled by the system's compiler when it is first needed; where there is none, the same in Python
answers, which `kind()` and the report say: a client may then be faster than its server. What it knows: `load_server.c`.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from . import bodies, fallback_server

_SOURCE = Path(__file__).with_name("load_server.c")


class Counts(msgspec.Struct):
    """What the load target has answered so far: the work that was done, whoever asked for it."""

    connections: int
    requests: int
    tasks: int
    pages: int
    rows: int
    events: int


@lru_cache(maxsize=4)
def compiled(source: Path = _SOURCE, *flags: str) -> Path | None:
    """Return a program compiled from C; None where it cannot be had. Compiled once for each state of its source."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"nex-async-benchmarks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        return None  # somebody else's: what lies there is not to be run
    program = folder / f"{source.stem}-{digest}"
    if not program.exists():
        made = folder / f"{program.name}.{os.getpid()}"
        command = [compiler, "-O2", *flags, "-o", str(made), str(source)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            return None
        made.rename(program)
    return program


def kind() -> str:
    """Return what the load target is, for the head of a report."""
    return "C, compiled here" if compiled() else "FALLBACK IN PYTHON: it may be slower than the clients"


def last_core() -> None:
    """Keep this process to the last core, where the system allows it: the client has the others."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


@contextmanager
def load_server() -> Iterator[str]:
    """Run the server in another process; the context's value is its origin."""
    program = compiled()
    if program is None:
        with elsewhere(fallback_server.serve) as origin:
            yield origin
        return
    arguments = [bodies.compact(bodies.TASK), bodies.anything(), bodies.definition(), bodies.RECORD]
    process = subprocess.Popen(
        [program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=last_core, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


@contextmanager
def elsewhere(serve: Callable[[Connection], None]) -> Iterator[str]:
    """Run a server, which sends its port when it listens, in another process; yield its origin."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there,), daemon=True)
    process.start()
    there.close()  # so that a server that dies is heard of
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()
        here.close()


@contextmanager
def tls_server() -> Iterator[tuple[str, str]]:
    """Run the server over TLS; yield its origin and the certificate of its authority, as PEM."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=fallback_server.serve_tls, args=(there,), daemon=True)
    process.start()
    there.close()
    try:
        authority = here.recv()
        yield f"https://127.0.0.1:{here.recv()}", authority
    finally:
        process.terminate()
        process.join()
        here.close()

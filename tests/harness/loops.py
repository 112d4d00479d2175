"""Which event loop the suite runs on: asyncio's own, or with `NEX_ASYNC_LOOP=uvloop` that of uvloop."""

from __future__ import annotations

import asyncio
import os

import pytest

__all__ = ["ON_UVLOOP", "UVLOOPS_OWN", "install", "leaves_connections"]

ON_UVLOOP = os.environ.get("NEX_ASYNC_LOOP") == "uvloop"


UVLOOPS_OWN = "unclosed resource <TCPTransport"
"""What uvloop warns of for each connection that stands open when a loop is closed; asyncio's loops say nothing of it."""

leaves_connections = pytest.mark.filterwarnings(f"ignore:{UVLOOPS_OWN}:ResourceWarning")
"""For tests that close a loop under a client. Made an error, the warning keeps uvloop from closing the connection, and then
from ever closing the loop."""


def install() -> None:
    """Make each loop of the suite uvloop's, if that was asked for."""
    if ON_UVLOOP:
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

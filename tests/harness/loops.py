"""Which event loop the suite runs on: asyncio's own, or with `NEX_ASYNC_LOOP=uvloop` that of uvloop."""

from __future__ import annotations

import asyncio
import logging
import os

__all__ = ["ON_UVLOOP", "install"]

ON_UVLOOP = os.environ.get("NEX_ASYNC_LOOP") == "uvloop"


def install() -> None:
    """Make each loop of the suite uvloop's, if that was asked for."""
    if ON_UVLOOP:
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        logging.getLogger("asyncio").addFilter(_in_words)


def _in_words(record: logging.LogRecord) -> bool:
    """Let a record say what it says, and hold nothing.

    In development mode uvloop logs each step that took long, and puts the step itself into the record, where asyncio puts its
    name. pytest keeps the records of a test, and so the task, and whatever it held, a client that was dropped for one.
    """
    record.msg, record.args = record.getMessage(), ()
    return True

"""Which event loop the suite runs on: asyncio's own, or with `NEX_ASYNC_LOOP=uvloop` that of uvloop."""

from __future__ import annotations

import asyncio
import os

import pytest

__all__ = ["ON_UVLOOP", "install", "not_on_uvloop"]

ON_UVLOOP = os.environ.get("NEX_ASYNC_LOOP") == "uvloop"


def install() -> None:
    """Make each loop of the suite uvloop's, if that was asked for."""
    if ON_UVLOOP:
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def not_on_uvloop(reason: str) -> pytest.MarkDecorator:
    """Leave a test out on uvloop, and say why."""
    return pytest.mark.skipif(ON_UVLOOP, reason=f"on uvloop: {reason}")

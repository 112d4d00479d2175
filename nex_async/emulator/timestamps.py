"""Moments and durations on the wire; inside, a moment is an int of microseconds since 1970."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from functools import lru_cache

__all__ = ["MICROSECONDS", "format_moment", "parse_duration", "parse_moment", "timestamps_in"]

MICROSECONDS = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_RFC_3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h)", re.ASCII)
_UNITS = {"ns": 0.001, "us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7, "h": 3.6e9}
_LONGEST = 2**63 / 1000


_nanoseconds: ContextVar[bool] = ContextVar("nanoseconds", default=False)


@contextlib.contextmanager
def timestamps_in(unit: str) -> Iterator[None]:
    """Let `format_moment` write `whole` seconds or `nanoseconds` for a while."""
    token = _nanoseconds.set(unit == "nanoseconds")
    try:
        yield
    finally:
        _nanoseconds.reset(token)


@lru_cache(maxsize=8192)
def _format_second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_moment(moment: int) -> str:
    """Return an RFC 3339 timestamp in whole seconds, such as `2026-03-02T08:00:00Z`, or as `timestamps_in` says."""
    if _nanoseconds.get():
        second, fraction = divmod(moment, MICROSECONDS)
        return f"{_format_second(second)[:-1]}.{fraction:06d}{moment % 997:03d}Z"
    return _format_second(moment // MICROSECONDS)


def parse_moment(text: str) -> int:
    """Read an RFC 3339 timestamp with up to nine fraction digits; raise ValueError when it is none."""
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:60]!r} is not an RFC 3339 timestamp")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    moment = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=timezone.utc) - _EPOCH
    fraction = (match[7] or "").ljust(9, "0")[:6]
    return moment // timedelta(microseconds=1) + int(fraction) - _offset(match[8])


def _offset(text: str) -> int:
    if text in "Zz":
        return 0
    hours, minutes = int(text[1:3]), int(text[4:6])
    if hours > 23 or minutes > 59:
        raise ValueError(f"{text!r} is not a UTC offset")
    return (hours * 3600 + minutes * 60) * MICROSECONDS * (-1 if text[0] == "-" else 1)


def parse_duration(text: str) -> int:
    """Return a positive duration in Go's grammar (`30m`, `1h30m`; it has no day) in microseconds."""
    position, total = 0, 0.0
    while match := _DURATION.match(text, position):
        number = match[0].rstrip("nsuµmh")
        total += float(number) * _UNITS[match[0][len(number) :]]
        position = match.end()
    if position != len(text) or not 0 < total < _LONGEST:
        raise ValueError(f"{text[:60]!r} is not a duration such as 30m, 2h or 1h30m")
    return int(total)

"""The switches: where sources disagree about the service, which of its published faces this server shows.

Every switch has a value for the whole server and can be given another one by a single request, in a header:
`insights_rest` is `X-Emulator-Insights-Rest`. The first choice is the default, the core contract.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from nex_async.emulator.limits import Limits, read_limits

__all__ = ["CHOICES", "HEADER_PREFIX", "Settings", "Switches"]

HEADER_PREFIX = "x-emulator-"
_SWITCHED = ("off", "on")

CHOICES: dict[str, tuple[str, ...]] = {
    "insights_rest": ("simple", "enriched", "bare_array"),
    "insights_replay": ("envelope", "one_per_insight", "bare_object", "simplified"),
    "ask_shape": ("docs", "chat", "both"),
    "artifact_id_type": ("int", "string"),
    "artifact_result": ("counts", "lists"),
    "job_envelope": ("flat", "wrapped"),
    "attribute_encoding": ("plain", "typed"),
    "omit_zero_values": _SWITCHED,
    "null_arrays": _SWITCHED,
    "delete_body": ("empty", "{}", "null"),
    "scope_map": ("api_summary", "official_guide", "off"),
    "retry_after": ("seconds", "date", "absent"),
    "rate_limit_body": ("envelope", "empty"),
    "faults": (
        "none",
        "html_502",
        "slow_ask",
        "eof_mid_stream",
        "keepalive_silence",
        "not_found_after_write",
        "truncated_json",
    ),
    "timestamps": ("whole", "nanoseconds"),
    "trailing_slash": ("accept", "redirect"),
}
"""The switches that choose among words; `rate_limits`, `latency` and `keepalive` take values of their own."""

_PUBLISHED = Limits()
_LONGEST_LATENCY = 600.0
_KEEPALIVES = (0.05, 3600.0)
_BODY_SHAPES = (
    "insights_rest",
    "ask_shape",
    "artifact_id_type",
    "artifact_result",
    "job_envelope",
    "attribute_encoding",
    "omit_zero_values",
    "null_arrays",
    "delete_body",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """The value of every switch, for one request."""

    insights_rest: str = "simple"
    insights_replay: str = "envelope"
    ask_shape: str = "docs"
    artifact_id_type: str = "int"
    artifact_result: str = "counts"
    job_envelope: str = "flat"
    attribute_encoding: str = "plain"
    omit_zero_values: str = "off"
    null_arrays: str = "off"
    delete_body: str = "empty"
    scope_map: str = "api_summary"
    retry_after: str = "seconds"
    rate_limit_body: str = "envelope"
    faults: str = "none"
    timestamps: str = "whole"
    trailing_slash: str = "accept"
    rate_limits: Limits = _PUBLISHED
    """Requests per window: `on`, `off`, or numbers such as `text=5, connect=2, global=100, window=60`."""
    latency: tuple[float, float] = (0.0, 0.0)
    """Seconds before every reply: a number, or a range such as `0.1-0.5`."""
    keepalive: float = 30.0
    """Seconds between two keepalives of the stream, at least 0.05."""
    reshapes: bool = dataclasses.field(init=False, repr=False, compare=False)
    """Whether a reply looks other than by default."""

    def __post_init__(self) -> None:
        changed = any(getattr(self, name) != CHOICES[name][0] for name in _BODY_SHAPES)
        object.__setattr__(self, "reshapes", changed)

    def changed(self, values: Mapping[str, Any]) -> Settings:
        """Return these settings with some switches set; raises ValueError naming the switch that cannot be."""
        return dataclasses.replace(self, **{name: _read(name, value) for name, value in values.items()})

    def shown(self) -> dict[str, str | float]:
        """Return every switch and its value as they can be set."""
        low, high = self.latency
        words: dict[str, str | float] = {name: getattr(self, name) for name in CHOICES}
        latency: str | float = low if low == high else f"{low}-{high}"
        return {**words, "rate_limits": str(self.rate_limits), "latency": latency, "keepalive": self.keepalive}


class Switches(Mapping[str, "str | float"]):
    """The switches of a running server, readable as a mapping."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self.settings: Settings = Settings().changed(values or {})
        self._initial = self.settings

    def __getitem__(self, name: str) -> str | float:
        return self.settings.shown()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.settings.shown())

    def __len__(self) -> int:
        return len(self.settings.shown())

    def set(self, /, **values: Any) -> None:
        """Set some switches for every request from now on; raises ValueError naming the one that cannot be set."""
        self.settings = self.settings.changed(values)

    def reset(self) -> None:
        """Go back to what the server was started with."""
        self.settings = self._initial

    def of(self, headers: Mapping[str, str]) -> Settings:
        """Return the settings of a request; raises ValueError naming a header that is no switch or has no such value."""
        asked = tuple(
            (name.lower()[len(HEADER_PREFIX) :].replace("-", "_"), value)
            for name, value in headers.items()
            if name[:11].lower() == HEADER_PREFIX
        )
        return _with_headers(self.settings, asked) if asked else self.settings


@lru_cache(maxsize=256)
def _with_headers(settings: Settings, asked: tuple[tuple[str, str], ...]) -> Settings:
    return settings.changed(dict(asked))


def _read(name: str, value: Any) -> Any:
    if name == "rate_limits":
        return read_limits(value)
    if name == "latency":
        return _read_latency(value)
    if name == "keepalive":
        return _read_seconds(name, value, *_KEEPALIVES)
    choices = CHOICES.get(name)
    if choices is None:
        raise ValueError(f"unknown switch {name[:60]!r}; there are: {', '.join(Settings().shown())}")
    word = _SWITCHED[value] if isinstance(value, bool) and choices is _SWITCHED else value
    if word not in choices:
        raise ValueError(f"switch {name}: {str(value)[:60]!r} is not one of {', '.join(choices)}")
    return word


def _read_latency(value: Any) -> tuple[float, float]:
    low, found, high = str(value).partition("-")
    first = _read_seconds("latency", low, 0.0, _LONGEST_LATENCY)
    last = _read_seconds("latency", high, first, _LONGEST_LATENCY) if found else first
    return first, last


def _read_seconds(name: str, value: Any, low: float, high: float) -> float:
    try:
        seconds = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not low <= seconds <= high:
        raise ValueError(f"switch {name}: {str(value)[:60]!r} is not a number of seconds from {low:g} to {high:g}")
    return seconds

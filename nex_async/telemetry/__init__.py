"""OpenTelemetry: a span for every call, and metrics of what clients do. Needs the extra: ``pip install "nex-async[otel]"``.

What leaves the process are names of operations, methods and error classes, the server's address, statuses, counts and
seconds. Never a body, a query, an id, a header, the key, nor a word of the server: it may quote any of them.
"""

from __future__ import annotations

try:
    import opentelemetry.metrics
    import opentelemetry.trace  # noqa: F401
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError('this needs OpenTelemetry: pip install "nex-async[otel]"', name=_missing.name) from None

from .exporting import OpenTelemetry

__all__ = ["OpenTelemetry"]

"""OpenTelemetry, as clients are given it: it begins the span of each call, and knows the clients whose figures it tells."""

from __future__ import annotations

from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from .._version import __version__
from ..routes import Route
from ..transport.state import ClientState
from .figures import Clients, observe_clients
from .spans import CallSpan, Recorder, facts_of

__all__ = ["OpenTelemetry"]

_SCOPE = "nex_async"
_SCHEMA = "https://opentelemetry.io/schemas/1.30.0"


class OpenTelemetry:
    """Spans and metrics for clients: ``Nex(telemetry=OpenTelemetry())``, ``Nex.local(telemetry=...)``.

    Make one, and give it to every client of the process; views of a client have it too. `tracer_provider` and
    `meter_provider` are the global ones unless given. `propagate=False` keeps `traceparent`, and whatever else the global
    propagator writes, out of the requests; it goes to the client's own base URL and nowhere else.

    Each call has a span of kind CLIENT, named by its operation (`getTask`), with the HTTP attributes of the semantic
    conventions, and `nex.retry` and `nex.rate_limit.wait` as events; it is the current span while the call is under way.
    The stream of insights has one each time it is opened, which ends when it stands. What feeds do by themselves begins
    traces of its own. A cancelled call ends its span, with `nex.cancelled`, and is no error.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        propagate: bool = True,
    ) -> None:
        tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider, _SCHEMA)
        meter = metrics.get_meter(_SCOPE, __version__, meter_provider, _SCHEMA)
        self._recorder = Recorder(tracer, meter, propagates=propagate)
        self._clients = Clients()
        observe_clients(meter, self._clients)

    def join(self, state: ClientState) -> None:
        """Learn of a client, whose figures are told from now on; `Nex` does this."""
        self._clients.add(state)

    def on_call(self, route: Route[Any], url: str) -> CallSpan:
        """Return the span of a call that begins; the transport does this."""
        return CallSpan(self._recorder, facts_of(route.name, route.method, route.path, url))

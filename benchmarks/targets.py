"""What a ratio is to be at most: ours over the other's. Floors of the project; what is missed is said, not hidden."""

from __future__ import annotations

TARGETS: dict[tuple[str, str], float] = {
    ("one call, ", "aiohttp + msgspec"): 0.45,
    ("one call, ", "openai"): 0.1,
    ("one call over TLS", "aiohttp + msgspec"): 0.6,
    ("page of 100 records decoded", "msgspec, Raw attributes"): 1.1,
    ("listing, 0 ms, sequential", "scan of raw pages (the limit)"): 3.0,
    ("listing, 0 ms, sequential", "openai paginator"): 1 / 15,
    ("listing, ", "gather by hand"): 1.15,
    ("upserts, concurrency 50, 0 ms", "aiohttp, fixed workers"): 0.4,
    ("upserts, concurrency 50, 20 ms", "aiohttp, fixed workers"): 1 / 0.95,
    ("raw events, small", "aiohttp-sse-client"): 0.1,
    ("raw events, 3 kB", "aiohttp-sse-client"): 0.2,
    ("raw events, ", "launchdarkly-eventsource"): 0.4,
    ("raw events, ", "httpx-sse"): 0.4,
    ("typed insights, 1 kB", "aiohttp-sse-client + json"): 0.25,
}
"""By the beginning of a job's name, and the peer."""


def target(job: str, peer: str) -> float | None:
    """Return the most a ratio is to be; None where nothing is asked for."""
    return next((limit for (begin, other), limit in TARGETS.items() if job.startswith(begin) and peer == other), None)

"""Much more of everything than the suite runs: `python -m tests.exact.soak`; numbers of its own choose less or more.

Creates over random schedules, cancellations of long runs, a million calls, a thousand listeners, two hundred tenants.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from .creations import Tally, run_schedule
from .leaks import Left, many_calls, many_listeners, many_tenants


def _quiet() -> None:
    logging.getLogger("nex_async").setLevel(logging.ERROR)


def _schedules(seeds: range) -> Tally:
    _quiet()
    tally = Tally()
    for seed in seeds:
        tally.add(run_schedule(seed))
    return tally


def _creations(count: int) -> bool:
    tally = Tally()
    with ProcessPoolExecutor(2) as pool:
        for part in pool.map(_schedules, [range(begin, min(begin + 100, count)) for begin in range(0, count, 100)]):
            tally.add(part)
    print(*tally.problems, sep="\n", end="")
    print(
        f"{count} schedules, {tally.calls} creates, {tally.repeats} repeats: {tally.succeeded} succeeded, {tally.failed} failed, "
        f"{tally.unknown} unknown ({tally.unknown_made} of them made), {tally.cancelled} cancelled; {len(tally.problems)} doubled or misreported"
    )
    return not tally.problems


def _cancellations(count: int) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "--timeout", "3600", "tests/exact/test_cancellation.py"]
    print(f"{count} cancellations of each long run:", flush=True)
    return not subprocess.run(command, env={**os.environ, "NEX_ASYNC_CANCELLATIONS": str(count)}, check=False).returncode


def _calls(count: int) -> bool:
    left = asyncio.run(many_calls(count, max(count // 20, 20_000)))
    return _is_nothing(f"{count} calls", left)


def _listeners(count: int) -> bool:
    return _is_nothing(f"{count} listeners", asyncio.run(many_listeners(count, 500)))


def _is_nothing(what: str, left: Left) -> bool:
    print(f"{what} left {left.descriptors} descriptors, {left.tasks} tasks, {left.threads} threads, {left.kilobytes} kB")
    return (left.descriptors, left.tasks, left.threads) == (0, 0, 0) and left.kilobytes <= 2048


def _tenants(rounds: int) -> bool:
    ends = asyncio.run(many_tenants(200, rounds, seed=2))
    print(f"200 tenants, {rounds} interleavings:", ", ".join(f"{number} {end}" for end, number in sorted(ends.items())))
    return not ends["wrong"] and not any(end.startswith("failed for") for end in ends)


_PARTS: dict[str, tuple[Callable[[int], bool], int]] = {
    "creations": (_creations, 10_000),
    "cancellations": (_cancellations, 200),
    "calls": (_calls, 1_000_000),
    "listeners": (_listeners, 1_000),
    "tenants": (_tenants, 10_000),
}


def main(arguments: list[str]) -> int:
    """Run all parts, or those whose numbers are given; return 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, (_, usual) in _PARTS.items():
        parser.add_argument(f"--{name}", type=int, help=f"by default {usual}, or none when another number is given")
    chosen = {name: number for name, number in vars(parser.parse_args(arguments)).items() if number is not None}
    _quiet()
    held = True
    for name, (part, usual) in _PARTS.items():
        if name in chosen or not chosen:
            begun = time.monotonic()
            held &= part(chosen.get(name, usual))
            print(f"    {name}: {time.monotonic() - begun:.0f} s", flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A sync on a Ray cluster: read all people, work out where each is employed, write that back. Copy and change it.

    python examples/ray_sync.py --local 2000      # made-up people, in an embedded Nex, on a cluster of this machine
    python examples/ray_sync.py                   # yours: the workers' NEX_API_KEY, the cluster of RAY_ADDRESS

All workers share one rate budget, so that the cluster obeys one limit and one `Retry-After`. The key stays with the
workers: neither this program nor Ray sees it. A worker that dies is replaced, and what it did is done again, which is the
same as once. With --checkpoint a second run skips what the first has done.

Needs the extra: pip install "nex-async[ray]". Exit status: 0 when every row has taken effect.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import Any

import ray

from nex_async import NexError
from nex_async.integrations.ray import ClusterOptions, RayBudget, read_records, write_records
from nex_async.testing import EmulatorThread

LOCAL_KEY = "sk-local-0123456789abcdef"


@contextlib.contextmanager
def embedded(count: int) -> Iterator[str]:
    """Run an embedded Nex with made-up people, and yield its base URL."""
    with EmulatorThread(keys={LOCAL_KEY: None}) as nex:
        people = (
            {"name": f"Person {number}", "email_addresses": [f"p{number}@company-{number % 40}.example"]}
            for number in range(count)
        )
        nex.seed("person", *people)
        yield nex.url


def employed(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is to be written of a person, if anything: the title says where the address belongs."""
    addresses = row["email_addresses"] or ()
    return [{"email_addresses": addresses, "job_title": f"at {address.partition('@')[2]}"} for address in addresses[:1]]


def sync(options: ClusterOptions, checkpoint: str | None) -> int:
    """Read, change and write; return the exit status."""
    reading, writing = options.copy(), options.copy()
    if checkpoint is not None:
        reading["checkpoint"], writing["checkpoint"] = f"{checkpoint}/read", f"{checkpoint}/write"
    people = read_records("person", attributes=["email_addresses"], **reading)
    written = write_records(people.flat_map(employed), "person", match_on="email_addresses", **writing)
    for status, count in written.counts.items():
        print(f"{count} {status}")
    for letter in written.dead_letters.take(10):
        print(f"  {letter['key']}: {letter['error']}")
    return 0 if written.ok else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--local", type=int, metavar="N", help="an embedded Nex with N made-up people")
    parser.add_argument("--checkpoint", metavar="FOLDER", help="where all workers can note what is done")
    chosen = parser.parse_args()
    options = ClusterOptions(budget=RayBudget())
    with contextlib.ExitStack() as stack:
        if chosen.local is not None:
            options["base_url"] = stack.enter_context(embedded(chosen.local))
            os.environ["NEX_API_KEY"] = LOCAL_KEY  # for the workers, who are started below
        ray.init(log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        stack.callback(ray.shutdown)
        try:
            return sync(options, chosen.checkpoint)
        except NexError as error:
            print(f"the sync could not go on: {error}")
            return 1


if __name__ == "__main__":
    raise SystemExit(main())

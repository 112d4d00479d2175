"""nex_async.blocking: the same client for scripts and notebooks, without `await`.

::

    from nex_async.blocking import Nex

    with Nex() as nex:
        for person in nex.records.list("person"):
            print(person.id, person.text("name"))

Every method has the name and the arguments it has in `nex_async`. What is awaited there has a name here: a pager's
`first_page()`, a job's `wait()`, and `run()` for bulk runs and exports; `aclose` is `close`. Errors and models are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._lazy import loader

if TYPE_CHECKING:
    from .bulk import BulkRun, Export, Mirror
    from .client import Nex, SessionPool, deadline
    from .feeds import Feed, FeedQueue, InsightEvent, InsightFeed
    from .jobs import Job
    from .paging import Page, Pager, Prefetch
    from .partitions import Partition

__all__ = [
    "BulkRun",
    "Export",
    "Feed",
    "FeedQueue",
    "InsightEvent",
    "InsightFeed",
    "Job",
    "Mirror",
    "Nex",
    "Page",
    "Pager",
    "Partition",
    "Prefetch",
    "SessionPool",
    "deadline",
]

_HOME = {
    "BulkRun": ".bulk",
    "Export": ".bulk",
    "Mirror": ".bulk",
    "Nex": ".client",
    "SessionPool": ".client",
    "Feed": ".feeds",
    "FeedQueue": ".feeds",
    "InsightEvent": ".feeds",
    "InsightFeed": ".feeds",
    "Job": ".jobs",
    "deadline": ".client",
    "Page": ".paging",
    "Pager": ".paging",
    "Prefetch": ".paging",
    "Partition": ".partitions",
}


__getattr__: Callable[[str], Any] = loader(__name__, _HOME)

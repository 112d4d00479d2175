"""What a user may ask for: one class per resource, thin methods over routes. Each is loaded when it is first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import loader

if TYPE_CHECKING:
    from .ai_lists import AILists
    from .compounding import Compounding
    from .context import Context
    from .graph import Graph
    from .insights import Insights
    from .integrations import Integrations
    from .jobs import Jobs
    from .lists import Lists
    from .notes import Notes
    from .notifications import Notifications
    from .objects import Objects
    from .records import Records
    from .relationships import Relationships
    from .search import Search
    from .tasks import Tasks
else:
    __getattr__ = loader(
        __name__,
        {
            "AILists": ".ai_lists",
            "Compounding": ".compounding",
            "Context": ".context",
            "Graph": ".graph",
            "Insights": ".insights",
            "Integrations": ".integrations",
            "Jobs": ".jobs",
            "Lists": ".lists",
            "Notes": ".notes",
            "Notifications": ".notifications",
            "Objects": ".objects",
            "Records": ".records",
            "Relationships": ".relationships",
            "Search": ".search",
            "Tasks": ".tasks",
        },
    )

__all__ = [
    "AILists",
    "Compounding",
    "Context",
    "Graph",
    "Insights",
    "Integrations",
    "Jobs",
    "Lists",
    "Notes",
    "Notifications",
    "Objects",
    "Records",
    "Relationships",
    "Search",
    "Tasks",
]

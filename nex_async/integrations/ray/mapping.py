"""Work on the rows of a dataset, at once, whose errors are told as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .failures import reraise

__all__ = ["mapped"]


def mapped(dataset: Any, work: Callable[[Any], Any], rows: int, options: dict[str, Any]) -> Any:
    """Return the dataset that `work` makes of tables of at most so many rows, all of it done. Raises what `work` raised."""
    found = dataset.map_batches(work, batch_size=rows, batch_format="pyarrow", **options)
    context = found.context
    before = getattr(context, "raise_original_map_exception", None)
    context.raise_original_map_exception = True  # else Ray keeps no more of an error than its text
    try:
        return found.materialize()
    except Exception as error:
        reraise(error)
    finally:
        context.raise_original_map_exception = before

"""The page on errors says what the code decides."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from nex_async import errors
from nex_async.routes import RetryClass
from nex_async.transport.retry import Ambiguous, Failure, Retry, RetryPolicy, decide

from .pages import rows_of, text_of

ERRORS = text_of("docs/errors.md")
CLASSES: tuple[RetryClass, ...] = get_args(RetryClass)
REPEATS = {
    (found[1], kind): cell.strip()
    for found in re.finditer(r"^\| `(\w+)`: .*?\|((?: (?:\d|unknown) \|)+)$", ERRORS, re.MULTILINE)
    for kind, cell in zip(CLASSES, found[2].strip("|").split("|"), strict=True)
}


def repeats(kind: RetryClass, failure: Any) -> str:
    """Return how often a call is repeated, or that nobody can know."""
    for attempt in range(1, 10):
        decision = decide(kind, failure, attempt, RetryPolicy())
        if isinstance(decision, Ambiguous):
            return "unknown"
        if not isinstance(decision, Retry):
            return str(attempt - 1)
    raise AssertionError("it is repeated for ever")


@pytest.mark.parametrize("failure", get_args(Failure))
@pytest.mark.parametrize("kind", CLASSES)
def test_the_decision_table(kind: RetryClass, failure: str) -> None:
    """Each class of operation is repeated after each kind of failure as often as the page says."""
    assert f"| {' | '.join(CLASSES)} |" in ERRORS
    assert REPEATS[failure, kind] == repeats(kind, failure)


def test_the_page_names_every_error() -> None:
    """Each error stands in the tree, and is advised on by its own name or that of an error it is one of."""
    known = {
        name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.NexError)
    }
    assert set(re.findall(r"── (\w+)", ERRORS)) == known.keys() - {"NexError"}
    advised = set(re.findall(r"`(\w+)`", " ".join(rows_of(ERRORS, "error"))))
    assert advised <= known.keys()
    lonely = [name for name, kind in known.items() if advised.isdisjoint(base.__name__ for base in kind.__mro__)]
    assert lonely == ["NexError", "APIError"]

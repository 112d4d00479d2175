"""The secret canary: one key for every test, and the proof that it shows up nowhere it must not."""

from __future__ import annotations

import logging
import pickle
import sys
import traceback
from pathlib import Path
from types import TracebackType

import nex_async
from nex_async.errors import NexError

KEY = "sk-canary-7f3a9c1e5b2d8046-never-to-be-seen"
SECRET = KEY.removeprefix("sk-")

_PACKAGE = str(Path(nex_async.__file__).parent)


def leaked(text: str) -> bool:
    """Return whether the key, or the telling part of it, is in `text`."""
    return SECRET in text


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields of a record that are ours."""
    return {name: value for name, value in vars(record).items() if name.startswith("nex_")}


class LogWatch(logging.Handler):
    """Formats every record of the whole suite at DEBUG, and remembers those that show the key, also in a field."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.leaks: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if leaked(self.format(record) + repr(fields_of(record))):
            self.leaks.append(f"{record.name}:{record.lineno}")


class ErrorWatch:
    """Collects every error of the SDK that is made, and looks at each from all sides."""

    def __init__(self) -> None:
        self.made: list[NexError] = []
        self._original = NexError.__init__

    def install(self) -> None:
        watch, original = self, self._original

        def recording(error: NexError, message: str = "") -> None:
            original(error, message)
            if len(watch.made) < 200:
                watch.made.append(error)

        NexError.__init__ = recording  # type: ignore[method-assign]

    def uninstall(self) -> None:
        NexError.__init__ = self._original  # type: ignore[method-assign]

    def leaks(self) -> list[str]:
        """Return what shows the key, and forget the errors seen."""
        made, self.made = self.made, []
        return [f"{type(error).__name__} in its {side}" for error in made for side in _sides_that_leak(error)]


def _sides_that_leak(error: NexError) -> list[str]:
    sides = {
        "repr": repr(error),
        "str": str(error),
        "args": repr(error.args),
        "fields": repr(error.__dict__),
        "pickle": pickle.dumps(error).decode("latin-1"),
        "traceback": _locals_of(error.__traceback__),
    }
    for other in chain_of(error):
        if not isinstance(other, NexError):
            sides["chain"] = repr(other) + _locals_of(other.__traceback__)
    return [side for side, text in sides.items() if leaked(text)]


def chain_of(error: BaseException) -> list[BaseException]:
    """Return what an error brings along: its cause and its context."""
    chain = [error.__cause__]
    # On Python 3.10 pytest-asyncio runs tasks of its own making, each step inside an `except`: everything that is raised
    # gets a context that it has nowhere else.
    if sys.version_info >= (3, 11) or not error.__suppress_context__:
        chain.append(error.__context__)
    return [other for other in chain if other is not None]


def _locals_of(start: TracebackType | None) -> str:
    """Return the locals of our own frames, as a traceback with captured locals would show them."""
    frames = traceback.walk_tb(start)
    ours = [frame for frame, _ in frames if frame.f_code.co_filename.startswith(_PACKAGE)]
    return "\n".join(f"{name}={_repr_of(value)}" for frame in ours for name, value in frame.f_locals.items())


def _repr_of(value: object) -> str:
    """Return the repr of a value that a test may have made hard to print; ours always print."""
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return "(an integer or a nesting too large to print)"

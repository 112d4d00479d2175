"""What a client counts: plain integers and seconds, added to as things happen, and read by whoever asks."""

from __future__ import annotations

__all__ = ["Counts"]


class Counts:
    """The sums of one client since it was made. Added to on its event loop; may be read from any thread.

    How many calls are under way is nobody's sum: the client knows which tasks are in the middle of one.
    """

    __slots__ = (
        "backoff", "cancelled", "dropped", "errors", "gaps", "hook_errors", "limited", "reconnects", "retries",
        "succeeded", "throttled",
    )  # fmt: skip

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.succeeded: int = 0
        self.cancelled: int = 0
        self.errors: dict[str, int] = {}
        """Calls that failed, by the name of the error's class."""
        self.retries: int = 0
        self.throttled: int = 0
        """Answers 429."""
        self.limited: float = 0.0
        """Seconds that calls waited for a rate limit: in line, or because a 429 asked for it."""
        self.backoff: float = 0.0
        """Seconds that calls waited between attempts for any other reason."""
        self.hook_errors: int = 0
        self.reconnects: int = 0
        self.dropped: int = 0
        """Events that queues behind feeds have dropped."""
        self.gaps: int = 0

    def ended(self, error: BaseException) -> None:
        """Note a call that ended with an error."""
        if isinstance(error, Exception):
            name = type(error).__name__
            self.errors[name] = self.errors.get(name, 0) + 1
        else:
            self.cancelled += 1

    def add(self, other: Counts) -> None:
        """Add the sums of another."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name, count in list(other.errors.items()):
            self.errors[name] = self.errors.get(name, 0) + count


_SUMS = tuple(name for name in Counts.__slots__ if name != "errors")

"""Sans-io: which insights were handed out already. The list is the ledger, the stream a door-bell that may deliver early.

An item of the stream has no id; a row of the list has. What came over the stream is handed out at once and leaves a credit,
which the row consumes when a sweep finds it. What cannot be told apart is left to the next sweep. Times are integers:
microseconds of the server's clock.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any, Literal, TypeAlias

__all__ = ["LOOK_BACK", "OVERLAP", "Change", "Ledger", "fingerprint"]

SECOND = 1_000_000
OVERLAP = 150 * SECOND
"""Every sweep begins so long before the end of the last: rows may become visible late."""
LOOK_BACK = 7200 * SECOND
"""Every deep sweep begins so long before the end of the last deep sweep."""
KEEP = 6 * 3600 * SECOND
"""Keys are remembered for so long, and the newest of them regardless of age: a replay may bring old items."""
KEEP_NEWEST = 1_000
MOST_KEYS = 200_000
CREDIT_SLACK = 2 * SECOND
"""A row may say that it was created so long after its batch was emitted."""
_PRUNED_AT_ONCE = 2_048
_MATCHES_KEPT = 1_000
_UNBOUND, _UNEXPECTED, _UNBOUND_SWEEPS = 3, 3, 2
_SAME_TIME = 60 * SECOND

Verdict: TypeAlias = Literal["deliver", "known", "ambiguous"]
Change: TypeAlias = "tuple[str, Any, Any]"
"""A change of the state, for a checkpoint: `bind id created`, `unbind id -`, `credit F emitted`, `debit F emitted`,
`recent F time`, `forget F -`, `meta name value`."""


def fingerprint(type: str | None, content: str | None) -> bytes:
    """Return what a stream item and its row have in common: 16 bytes of their type and content, and of nothing else."""
    text = f"{type or ''}\0{content or ''}"
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class _Heard:
    """What the stream brought of one fingerprint: with which ids, and whether other than as a replay."""

    is_live: bool
    ids: frozenset[str] = frozenset()


_HEARD = (_Heard(False), _Heard(True))


def _joined(known: _Heard | None, item_id: str | None, is_live: bool) -> _Heard:
    ids = frozenset() if item_id is None else frozenset((item_id,))
    return _Heard(is_live, ids) if known is None else _Heard(is_live or known.is_live, known.ids | ids)


@dataclass
class Ledger:
    """What was handed out, how far the list was read, and whether stream and list can be matched.

    `floor`: nothing created before it is news. `watermark` and `deep`: everything before was read, by a sweep and by a deep
    sweep; 0 before the feed has begun.
    """

    keeps_changes: bool = False
    floor: int = 0
    watermark: int = 0
    deep: int = 0
    matched: bool = False
    """Whether stream and list were seen to carry the same fingerprints."""
    disproved: bool = False
    """Whether they were seen not to, after it had looked as if they did."""
    trusts_stream_ids: bool = True
    bound: dict[str, int] = field(default_factory=dict)
    credits: dict[bytes, tuple[int, ...]] = field(default_factory=dict)
    recent: dict[bytes, int] = field(default_factory=dict)
    horizon: int = 0
    """Nothing before is read again, because more came since than can be remembered."""
    gaps: dict[tuple[int, int, str], None] = field(default_factory=dict)
    """What may be missing: from when to when, and why."""
    forgot: bool = False
    """Whether keys had to be forgotten that a sweep may meet again."""
    _changes: list[Change] = field(default_factory=list)
    _streamed: dict[bytes, _Heard] = field(default_factory=dict)
    _listed: dict[bytes, None] = field(default_factory=dict)
    _ids_met: bool = False
    _unmatched_sweeps: int = 0
    _unexpected: deque[int] = field(default_factory=lambda: deque(maxlen=_MATCHES_KEPT))

    # ---- the stream -------------------------------------------------------------------------------------------------

    def heard(self, mark: bytes, item_id: str | None, is_live: bool) -> None:
        """Note that the stream brought an item, whatever becomes of it."""
        streamed = self._streamed
        known = streamed.get(mark)
        if known is None or item_id is not None or (is_live and not known.is_live):
            streamed[mark] = _HEARD[is_live] if known is None and item_id is None else _joined(known, item_id, is_live)
            if len(streamed) > _MATCHES_KEPT:
                del streamed[next(iter(streamed))]
        if not self.matched and mark in self._listed:
            self._match()

    def heard_live(self, mark: bytes) -> bool:
        """Return whether the stream brought such an item lately, other than as a replay."""
        known = self._streamed.get(mark)
        return known is not None and known.is_live

    def item(self, mark: bytes, item_id: str | None, emitted: int) -> Verdict:
        """Decide on an item of the stream, and note it as handed out when the verdict is `deliver`."""
        if item_id is not None and self.trusts_stream_ids:
            if item_id in self.bound:
                return "known"
            if mark in self.credits:
                return "ambiguous"  # it may be what was handed out without an id
            self._bind(item_id, emitted)
            self._see(mark, emitted)
            return "deliver"
        if mark in self.recent:
            return "ambiguous"
        self._see(mark, emitted)
        self.credits[mark] = (*self.credits.get(mark, ()), emitted)
        if self.keeps_changes:
            self._changes.append(("credit", mark, emitted))
        return "deliver"

    def passed(self, mark: bytes, emitted: int) -> None:
        """Note an item that is no news: it is not to be handed out when the stream brings it again."""
        self._see(mark, emitted)

    # ---- the list ---------------------------------------------------------------------------------------------------

    def listed(self, mark: bytes, row_id: str) -> None:
        """Note that the list holds a row, whatever becomes of it."""
        self._listed[mark] = None
        if len(self._listed) > _MATCHES_KEPT:
            del self._listed[next(iter(self._listed))]
        if mark in self._streamed:
            self._match()
            if ids := self._streamed[mark].ids:
                self._ids_met = self._ids_met or row_id in ids
                self.trusts_stream_ids = self._ids_met

    def row(self, row_id: str, mark: bytes, created: int, *, is_news: bool = True) -> bool:
        """Return whether a row is to be handed out, and note it as handed out."""
        self.listed(mark, row_id)
        if row_id in self.bound:
            return False
        self._bind(row_id, created)
        if not is_news:
            self._see(mark, created)
            return False
        if self._consume(mark, created):
            return False
        if mark not in self._streamed:
            self._unexpected.append(created)
        self._see(mark, created)
        return True

    def _consume(self, mark: bytes, created: int) -> bool:
        """Use up the credit of an early delivery that a row may be the other half of."""
        credits = self.credits.get(mark)
        if not credits:
            return False
        for emitted in sorted(credits):
            if created <= emitted + CREDIT_SLACK:
                left = list(credits)
                left.remove(emitted)
                if left:
                    self.credits[mark] = tuple(left)
                else:
                    del self.credits[mark]
                self._note("debit", mark, emitted)
                return True
        return False

    def _match(self) -> None:
        if self.matched or self.disproved:
            return
        hits = sum(1 for mark in self._streamed if mark in self._listed)
        if hits * 2 >= min(len(self._streamed), len(self._listed)):
            self.matched = True

    def contradicts(self) -> bool:
        """Return whether the stream's items and the rows read so far cannot be the same, though they should be."""
        if self.matched or not self._streamed or not self._listed:
            return False
        hits = sum(1 for mark in self._streamed if mark in self._listed)
        return hits * 2 < min(len(self._streamed), len(self._listed))

    def swept(self, until: int, *, deep: bool) -> None:
        """Note a sweep that was completed: everything created before `until` was read."""
        self.watermark = max(self.watermark, until)
        self._note("meta", "watermark", self.watermark)
        if deep:
            self.deep = max(self.deep, until)
            self._note("meta", "deep", self.deep)
        self._judge()
        self._prune()

    def _judge(self) -> None:
        """Doubt the fingerprints when early deliveries stay unbound and rows of the same time come that nobody heard of."""
        settled = self.watermark - OVERLAP
        if len(self._unexpected) < _UNEXPECTED or self.disproved:
            return
        unbound = [moment // _SAME_TIME for moments in self.credits.values() for moment in moments if moment < settled]
        minutes = {minute + near for minute in unbound for near in (-1, 0, 1)}
        strangers = sum(created // _SAME_TIME in minutes for created in self._unexpected)
        if len(unbound) >= _UNBOUND and strangers >= _UNEXPECTED:
            self._unmatched_sweeps += 1
        else:
            self._unmatched_sweeps = 0
        if self._unmatched_sweeps >= _UNBOUND_SWEEPS:
            self.matched, self.disproved = False, True

    # ---- windows ----------------------------------------------------------------------------------------------------

    def sweep_start(self, *, deep: bool) -> int:
        """Return where the next sweep begins. A look-back is anchored to the last completed sweep, never to now."""
        start = self.watermark - OVERLAP
        if deep:
            start = min(start, self.deep - LOOK_BACK)
        return max(start, self.floor - SECOND, self.horizon)

    def begin(self, moment: int) -> None:
        """Set out at `moment`: nothing created before is news, and everything since is still to be read."""
        self.floor = self.watermark = self.deep = moment
        for name in ("floor", "watermark", "deep"):
            self._note("meta", name, getattr(self, name))

    def note_gap(self, start: int, end: int, reason: str, at_least: int | None = None, *, recoverable: bool = False) -> bool:
        """Note what may be missing; return whether that is new. Intervals that touch are one from then on."""
        known = [(low, high) for low, high, why in self.gaps if why == reason and low <= end and start <= high]
        if any(low <= start and end <= high for low, high in known):
            return False
        for low, high in known:
            del self.gaps[low, high, reason]
        low, high = min([start, *(low for low, _ in known)]), max([end, *(high for _, high in known)])
        self.gaps[low, high, reason] = None
        if len(self.gaps) > _MATCHES_KEPT:
            del self.gaps[next(iter(self.gaps))]
        self._note("gap", (start, end), (reason, at_least, recoverable))
        return reason != "horizon" or not known  # it moves along, and is told once

    def gap_told(self, start: int, end: int, reason: str) -> None:
        """Note that somebody was told."""
        self._note("told", (start, end), reason)

    # ---- memory -----------------------------------------------------------------------------------------------------

    @property
    def unbound(self) -> int:
        """How many early deliveries no row was found for yet."""
        return sum(map(len, self.credits.values()))

    def _bind(self, row_id: str, created: int) -> None:
        self.bound[row_id] = created
        self._note("bind", row_id, created)
        if len(self.bound) > MOST_KEYS:
            self._forget(next(iter(self.bound)))

    def _see(self, mark: bytes, moment: int) -> None:
        recent = self.recent
        if mark in recent:
            del recent[mark]  # to stand last again
        recent[mark] = moment
        if self.keeps_changes:
            self._changes.append(("recent", mark, moment))
        if len(recent) > MOST_KEYS:
            self._forget_mark(next(iter(self.recent)))

    def _forget(self, row_id: str) -> None:
        self._lose_sight(self.bound[row_id])
        del self.bound[row_id]
        self._note("unbind", row_id, None)

    def _lose_sight(self, moment: int) -> None:
        """Read no more what would not be recognised: better a gap that is told than insights that come again."""
        if moment > self.sweep_start(deep=True):
            self.forgot, self.horizon = True, moment
            self._note("meta", "horizon", moment)

    def _forget_mark(self, mark: bytes) -> None:
        del self.recent[mark]
        for emitted in self.credits.pop(mark, ()):
            self._lose_sight(emitted)
        self._note("forget", mark, None)

    def _prune(self) -> None:
        """Forget what no sweep will meet again; the oldest come first, as far as they came in order."""
        horizon = min(self.watermark - KEEP, self.deep - LOOK_BACK - OVERLAP)
        for row_id in _older(self.bound, horizon):
            self._forget(row_id)
        for mark in _older(self.recent, horizon):
            self._forget_mark(mark)

    # ---- for the checkpoint -----------------------------------------------------------------------------------------

    def _note(self, what: str, key: Any, value: Any) -> None:
        if self.keeps_changes:
            self._changes.append((what, key, value))

    def take_changes(self) -> list[Change]:
        """Return what changed since the last call."""
        changes, self._changes = self._changes, []
        return changes

    def copy(self) -> Ledger:
        """Return a ledger that knows what this one knows."""
        return Ledger(
            floor=self.floor,
            watermark=self.watermark,
            deep=self.deep,
            matched=self.matched,
            disproved=self.disproved,
            trusts_stream_ids=self.trusts_stream_ids,
            bound=dict(self.bound),
            credits=dict(self.credits),
            recent=dict(self.recent),
            horizon=self.horizon,
            gaps=dict(self.gaps),
            forgot=self.forgot,
            _ids_met=self._ids_met,
        )


def _older(keys: dict[Any, int], horizon: int) -> list[Any]:
    """Return the keys at the head that are older than `horizon`, all but the newest thousand."""
    spare = min(_PRUNED_AT_ONCE, len(keys) - KEEP_NEWEST)
    head: Iterator[tuple[Any, int]] = islice(keys.items(), max(0, spare))
    return [key for key, moment in head if moment < horizon]

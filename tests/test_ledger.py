"""The ledger: what is known of insights, bounded in memory, and what may be missing, told once."""

from __future__ import annotations

import pytest

from nex_async.feeds import ledger as module
from nex_async.feeds.ledger import SECOND, Ledger, fingerprint


def begun(at: int = 10_000 * SECOND) -> Ledger:
    ledger = Ledger(matched=True)
    ledger.begin(at)
    return ledger


def test_a_fingerprint_is_of_type_and_content_alone() -> None:
    """Equal texts meet, in whatever form of Unicode they are written; type and content do not run into each other."""
    assert fingerprint("risk", "caf\u00e9") == fingerprint("risk", "cafe\u0301")
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint(None, None) == fingerprint("", "")


def test_gaps_that_touch_are_one() -> None:
    """An interval inside what is known tells nothing new; one that reaches beyond it does, and both are one from then on."""
    ledger = begun()
    assert ledger.note_gap(100, 200, "overflow")
    assert not ledger.note_gap(120, 180, "overflow")
    assert ledger.note_gap(150, 300, "overflow")
    assert not ledger.note_gap(100, 300, "overflow")
    assert ledger.note_gap(120, 180, "auth")
    assert ledger.note_gap(400, 500, "overflow")
    assert list(ledger.gaps) == [(100, 300, "overflow"), (120, 180, "auth"), (400, 500, "overflow")]


def test_memory_is_bounded_and_what_is_forgotten_too_soon_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much comes, no more keys are kept than the cap; forgetting what a sweep may meet again is noted."""
    monkeypatch.setattr(module, "MOST_KEYS", 50)
    ledger = begun()
    for number in range(60):
        mark = fingerprint("risk", str(number))
        assert ledger.item(mark, None, ledger.watermark) == "deliver"
        ledger.row(f"row {number}", fingerprint("risk", f"row {number}"), ledger.watermark)
    assert len(ledger.recent) == len(ledger.bound) == 50
    assert ledger.unbound <= 50
    assert ledger.forgot


def test_what_was_forgotten_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sweep goes back to where it would take for new what was handed out; that is told once, however it moves along."""
    monkeypatch.setattr(module, "MOST_KEYS", 50)
    ledger = begun()
    start = ledger.watermark
    for number in range(200):
        ledger.row(f"row {number}", fingerprint("risk", str(number)), start + number * SECOND)
    ledger.swept(start + 200 * SECOND, deep=True)
    for deep in (False, True):
        assert start + 149 * SECOND <= ledger.sweep_start(deep=deep) <= min(ledger.bound.values())
    assert ledger.note_gap(start, start + 10 * SECOND, "horizon")
    assert not ledger.note_gap(start, start + 20 * SECOND, "horizon")


def test_old_keys_go_and_the_newest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """S33: keys beyond every look-back are forgotten, all but the newest: a replay may bring what is months old."""
    monkeypatch.setattr(module, "KEEP_NEWEST", 5)
    ledger = begun()
    for number in range(20):
        ledger.row(f"row {number}", fingerprint("risk", str(number)), ledger.watermark + number)
    ledger.swept(ledger.watermark + 30 * 24 * 3600 * SECOND, deep=True)
    assert list(ledger.bound) == [f"row {number}" for number in range(15, 20)]
    assert not ledger.forgot
    assert ledger.item(fingerprint("risk", "19"), None, ledger.watermark) == "ambiguous"


def test_a_credit_covers_one_row_and_none_that_is_later() -> None:
    """An early delivery stands for one row of its text, created before it was emitted, give or take two seconds."""
    ledger = begun()
    mark, emitted = fingerprint("risk", "same"), ledger.watermark + 60 * SECOND
    assert ledger.item(mark, None, emitted) == "deliver"
    assert ledger.row("later", mark, emitted + 3 * SECOND)
    assert not ledger.row("its own", mark, emitted + SECOND)
    assert ledger.row("another", mark, emitted - SECOND)
    assert ledger.unbound == 0

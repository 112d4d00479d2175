"""Bulk runs in a hurry."""

from __future__ import annotations

import pytest

from nex_async.bulk import delivery


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts in milliseconds."""
    monkeypatch.setattr(delivery, "_BACKOFF", 0.002)
    monkeypatch.setattr(delivery, "_LONGEST", 0.02)
    monkeypatch.setattr(delivery, "_PROBE", 0.01)
    monkeypatch.setattr(delivery, "_SLOWEST_PROBE", 0.05)

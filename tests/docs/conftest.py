"""What the tests of the pages share."""

from __future__ import annotations

import pytest

from .watching import Output


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Output:
    return Output(capsys)

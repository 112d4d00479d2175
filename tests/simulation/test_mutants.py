"""The simulator has teeth: engines that are broken on purpose are convicted. `python -m tests.simulation.mutants` tries all."""

from __future__ import annotations

import pytest

from .mutants import MUTANTS, Mutant, broken, convict

QUICK = (
    "full windows are not halved",
    "no deep sweep",
    "no overlap and no deep sweep",
    "no periodic sweep",
    "early deliveries leave no credit",
    "acknowledged before it is processed",
)


def test_there_are_twenty_mutants_that_can_be_applied() -> None:
    """At least twenty ways to break the engine exist, and each still finds what it breaks."""
    for mutant in MUTANTS:
        with broken(mutant):
            pass
    assert sum(mutant.equivalent is None for mutant in MUTANTS) >= 20


@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.name in QUICK], ids=lambda mutant: mutant.name)
def test_a_broken_engine_is_convicted(mutant: Mutant) -> None:
    """Some regime shows what the fault breaks, in a seed that the whole engine passes."""
    assert convict(mutant) is not None

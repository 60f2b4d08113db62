"""Power fails under the ledger at moments nobody chose: nothing promised is missing."""

from __future__ import annotations

import pytest

from tests.faults.power import MUTANTS, TROUBLES, Mutant, Trouble, faults
from tests.faults.texts import faults as faults_of_texts
from tests.support.faults import broken

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_no_power_cut_breaks_a_promise(trouble: Trouble) -> None:
    """Whatever a power cut leaves of what was not synced, no promised leaf is missing."""
    assert [] == broken(list(faults(0, 8, 20, trouble)))


@pytest.mark.parametrize("trouble", TROUBLES)
def test_no_power_cut_loses_a_text_or_brings_one_back(trouble: Trouble) -> None:
    """Whatever a power cut leaves, a text that was kept is there, and an erased one is not."""
    assert [] == broken(list(faults_of_texts(0, 4, 10, trouble)))


@pytest.mark.parametrize("mutant", MUTANTS)
def test_power_cuts_give_a_wrong_ledger_away(mutant: Mutant) -> None:
    """A ledger that syncs less, promises earlier, or trusts a failed sync is found out."""
    assert any(one.violations for one in faults(0, 40, 20, MUTANTS[mutant], mutant))

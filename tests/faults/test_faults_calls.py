"""System calls of a writing process fail, or are its last: nothing promised is missing."""

from __future__ import annotations

import pytest

from tests.faults.calls import JOBS, MUTANTS, Job, Mutant, faults, mutant_faults
from tests.support.faults import broken

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("job", JOBS)
def test_no_failed_call_breaks_a_promise(job: Job) -> None:
    """Whichever call fails or is the last, with or without a power cut, all is there."""
    assert [] == broken(list(faults(job, seed=0, count=12, images=2)))


@pytest.mark.parametrize("mutant", MUTANTS)
def test_power_cuts_give_wrong_files_away(mutant: Mutant) -> None:
    """A small file that is renamed or acknowledged before it is synced is found out."""
    assert any(one.violations for one in mutant_faults(mutant, seed=0, images=100))

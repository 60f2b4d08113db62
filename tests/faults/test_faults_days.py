"""Days of trouble for a whole gateway: nothing promised is lost, and it goes on afterwards."""

from __future__ import annotations

import pytest

from tests.faults.days import clock_jumps, full_disk, rollback, second_gateway
from tests.support.faults import broken

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1200)]


def test_a_full_disk_refuses_and_heals() -> None:
    """Where nothing can be written nobody is asked; with room again all goes on."""
    assert [] == broken(list(full_disk()))


def test_a_clock_may_jump() -> None:
    """A day back or a year ahead, ids stay unique, and receipts are in order and valid."""
    assert [] == broken(list(clock_jumps()))


def test_an_older_copy_is_refused() -> None:
    """A ledger put back to an older copy is neither served nor appended to."""
    assert [] == broken(list(rollback()))


def test_a_second_gateway_is_not_let_in() -> None:
    """Two gateways never serve one data folder, and the first goes on unharmed."""
    assert [] == broken(list(second_gateway()))

"""A gateway is killed between any two steps of a request: what callers saw is written."""

from __future__ import annotations

import pytest

from tests.faults.awaits import faults, faults_at_start
from tests.support.faults import broken

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1200)]


def test_no_kill_at_an_await_breaks_a_promise() -> None:
    """Killed at awaits of any kind of request, a gateway never owes what a caller saw."""
    assert [] == broken(list(faults(seed=0, count=10)))


def test_no_kill_at_a_line_breaks_a_promise() -> None:
    """Killed at any line of our own code, on any thread, a gateway owes nothing either."""
    assert [] == broken(list(faults(seed=1, count=0, lines=5)))


def test_no_kill_while_recovering_breaks_a_promise() -> None:
    """Killed while it closes what a kill left open, the next start closes it, once."""
    assert [] == broken(list(faults_at_start(seed=0, count=2)))

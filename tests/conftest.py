"""The order of files: long ones begin first, so that no core waits for one at the end.

And no law of `property` has a deadline: how long an example takes is the machine's affair.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "house", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")

DAY_S: Final = 86_400
NIGHT_S: Final = 300
"""Longer than a test takes that counts by the day, on a slow machine."""

PROCESSES_MAX: Final = 16
"""No more than have ports of their own, also where several run the tests of one machine."""

TESTS: Final = Path(__file__).parent
LONG: Final = (
    "crash/test_gateway_kill.py",
    "integration/test_examples.py",
    "student",
    "crash",
    "property/test_dataset_laws.py",
    "postgres",
    "faults",
    "integration/test_workers.py",
    "integration/test_gateway_witnessed.py",
    "integration",
)
"""What takes long, longest first; `make test` gives each file to one process whole."""


@pytest.fixture
def one_day() -> None:
    """Begin so that the day of the counters (UTC) does not end before the test does."""
    left_s = DAY_S - time.time() % DAY_S
    if left_s < NIGHT_S:
        time.sleep(left_s + 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run one process more than there are cores: many tests wait for others."""
    return min(1 + (os.cpu_count() or 1), PROCESSES_MAX)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first; within that, the order stays as it is."""
    items.sort(key=lambda item: _place(item.path.relative_to(TESTS).parts))


def _place(parts: Sequence[str]) -> int:
    """Return how late the file of those *parts* begins."""
    names = {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return next((at for at, long in enumerate(LONG) if long in names), len(LONG))

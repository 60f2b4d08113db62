"""A dataset is built from a ledger, verifies offline, and nothing can be changed unseen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.dataset.verify import verify_dataset
from tests.support.dataset import House
from tests.support.evidence import TRUST


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Return a house with an empty ledger."""
    house = House(tmp_path)
    yield house
    house.close()


def test_a_dataset_that_was_built_verifies(house: House) -> None:
    """What the gate lets pass becomes a folder that anyone with the trust file can check."""
    declaration = house.declare()
    for _ in range(5):
        house.answer(declaration)
    house.answer(declaration, "one", "two")

    built = house.build(declaration)
    verified = verify_dataset(built.folder, TRUST)

    assert verified.rows == 7
    assert verified.receipts == 6
    assert built.manifest_sha256 == verified.manifest_sha256
    assert (verified.teachers[0].provider, verified.teachers[0].rows) == ("open", 7)

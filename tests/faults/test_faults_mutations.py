"""Evidence in which one byte is other, missing or too much does not verify."""

from __future__ import annotations

import pytest

from tests.faults.mutations import faults, pieces
from tests.support.faults import broken

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("piece", [piece.name for piece in pieces()])
def test_no_mutation_verifies(piece: str) -> None:
    """Whichever byte is changed, taken out or doubled, the verifier refuses what comes."""
    found = list(faults(0, values=2, only=piece, most=2_500))

    assert [] == broken(found)
    assert len(found) > 500

"""Laws of the query index, whatever is asked of it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.ident import DeclarationId, Sha256
from gateway.store.index.index import Index
from gateway.store.index.places import STRETCH
from gateway.store.index.rows import Row
from tests.support.store import an_exchange_id

SIZE: Final = 2 * STRETCH + 500
FILTERS: Final[dict[str, list[str]]] = {
    "kind": ["opening", "receipt", "refusal", "verdict", "manifest", "takeover"],
    "project": ["p0", "p1", "rare", "never"],
    "principal": ["ada", "bob", "often"],
    "purpose": ["train", "train.sft", "tra", "evaluate"],
    "provider": ["one", "two"],
    "model": ["m0", "m1", "m1-2026"],
    "declaration": ["use-1", "use-2"],
    "effect": ["permit", "hold"],
    "obligation": ["label", "delete-by-days", "lab"],
    "since": ["2026-01", "2026-02-03", "2026-02-03T11", "2027"],
    "until": ["2026-01-31", "2026-02-03T11:30", "2026", "2025"],
}


def rows() -> list[Row]:
    """Return rows of a few months, some of them rare, some out of order, some without a day."""
    dice = random.Random(7)
    made = []
    for index in range(SIZE):
        kind: Any = dice.choices(["opening", "receipt", "refusal", "verdict"], [9, 8, 1, 0.01])[
            0
        ]
        if index in {5, STRETCH + 1, SIZE - 1}:
            made.append(Row(index=index, kind="manifest", manifest=Sha256("ab" * 32)))
            continue
        day = index * 60 // SIZE + dice.choice([0] * 50 + [1, 20])
        model = dice.choice(["m0", "m1", None])
        made.append(
            Row(
                index=index,
                kind=kind,
                at=f"2026-{day // 28 + 1:02}-{day % 28 + 1:02}T{dice.randrange(24):02}:15:00Z",
                exchange=an_exchange_id(index // 2),
                opening=index - 1 if kind == "receipt" else None,
                project="rare" if index % 6000 == 77 else dice.choice(["p0", "p1"]),
                principal="ada" if index < STRETCH // 2 else dice.choice(["often", "bob"]),
                purpose=dice.choice(["train", "train.sft", "trainer", "evaluate"]),
                provider="one" if index % 2 else "two",
                model=model,
                model_reported=f"{model}-2026" if model and index % 3 else None,
                declaration=dice.choice([DeclarationId("use-1"), None]),
                effect=dice.choice(["permit", "hold", None]),
                readable=dice.choice([True, False, None]),
                obligations=dice.choice(
                    [(), ("label",), ("keep", "delete-by-days=3"), ("delete-by-days-or-so",)]
                ),
            )
        )
    return made


def fits(row: Row, name: str, value: str) -> bool:
    """Tell whether *row* is what one filter asks for, in the plainest way."""
    match name:
        case "purpose":
            return row.purpose is not None and f"{row.purpose}.".startswith(f"{value}.")
        case "model":
            return value in (row.model, row.model_reported)
        case "obligation":
            return any(one.startswith(value) for one in row.obligations)
        case "since":
            return row.at is not None and row.at >= value
        case "until":
            return row.at is not None and row.at[: len(value)] <= value
        case _:
            return bool(getattr(row, name) == value)


class Kept:
    """An index of a few stretches, and the rows that are in it."""

    def __init__(self, index: Index, made: list[Row]) -> None:
        self.index = index
        self.made = made
        self._fitting: dict[tuple[str, str], set[int]] = {}

    def fitting(self, wanted: dict[str, str]) -> list[int]:
        """Return the places of the rows that fit every filter; each is asked once."""
        left = set(range(SIZE))
        for one in wanted.items():
            if one not in self._fitting:
                self._fitting[one] = {row.index for row in self.made if fits(row, *one)}
            left &= self._fitting[one]
        return sorted(left)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """Return an index and what is in it."""
    made = rows()
    with contextlib.closing(Index(tmp_path_factory.mktemp("index") / "index.db")) as index:
        for first in range(0, SIZE, STRETCH // 2):
            index.add(made[first : first + STRETCH // 2], b"")
        yield Kept(index, made)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(values) for name, values in FILTERS.items()}
    )
)
def test_a_search_finds_exactly_what_fits(kept: Kept, wanted: dict[str, Any]) -> None:
    """Whatever is combined: every row that fits is found, in order, and no other."""
    found = list(kept.index.select(**wanted))

    assert kept.fitting(wanted) == [row.index for row in found]
    assert all(row == kept.made[row.index] for row in found)


@pytest.mark.parametrize("kinds", [["verdict"], ["verdict", "manifest"], ["takeover"], []])
@pytest.mark.parametrize("first", [0, 6, STRETCH + 2, SIZE - 1, SIZE])
def test_statements_are_found_from_a_leaf_on(kept: Kept, kinds: Any, first: int) -> None:
    """Leaves of some kinds are found from any leaf on, in closed stretches and the last."""
    expected = [row.index for row in kept.made if row.kind in kinds and row.index >= first]

    assert expected == list(kept.index.statements(kinds, first))


def test_counts_are_those_of_the_rows(kept: Kept) -> None:
    """What is counted as it comes is what a count of every row gives."""
    assert kept.index.kinds() == kept.index.recount()
    assert SIZE == sum(kept.index.kinds().values())

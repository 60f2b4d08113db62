"""What an erasure would take is told before it is said: texts, and rows made of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.ident import ExchangeId
from gateway.ledger.custody.erasure import apply_erasures, count_covered, count_made_of
from gateway.receipt.model import Caller, Derivation, Erasure, Parent
from gateway.store.content import Content
from tests.integration.test_ledger_erasure import Shelf
from tests.support.dataset import WRITER, made

Made = tuple[Derivation, int]


class Pipelines(Shelf):
    """A house with texts, and rows that pipelines made of them."""

    def rows(self, *above: Sequence[Parent], principal: str = "team") -> Made:
        """Record a row for each group of parents, by *principal*, and keep their texts."""
        said = self.house.derivation(
            self.declaration,
            *(made(f"row {at}", *one) for at, one in enumerate(above)),
            caller=Caller(principal=principal, project=self.declaration.project),
        )
        rows = dict.fromkeys(range(len(above)), b"row")
        kept = Content(request=b"", salt=b"s", rows=rows)
        self.content.put_many([(ExchangeId(said.derivation), kept)])
        return said, self.house.state(said)

    def would(self, **named: Any) -> tuple[int, int, int]:
        """Return how many exchanges, texts and rows an erasure would take."""
        self.reader.catch_up()
        erasure = Erasure(reason="asked for", by="R. Osei", at="", writer=WRITER, **named)
        covered = count_covered(self.reader, self.content, erasure)
        return (*covered, count_made_of(self.reader, self.content, erasure))

    def left(self, *made_rows: Made) -> list[int]:
        """Return how many rows of each derivation are kept."""
        kept = [self.content.get(ExchangeId(said.derivation)) for said, _ in made_rows]
        return [0 if one is None else len(one.rows) for one in kept]


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Pipelines]:
    """Return a house with texts."""
    with contextlib.closing(Pipelines(tmp_path)) as shelf:
        yield shelf


def test_rows_made_of_what_goes_are_counted_at_any_distance(shelf: Pipelines) -> None:
    """As many rows are told as then go; those that were only judged by it stay."""
    ada, bob = (shelf.ask(at, principal=who) for at, who in ((1, "ada"), (2, "bob")))
    of_ada, of_bob = (Parent(exchange=one, index=0) for one in (ada, bob))
    judged = Parent(exchange=ada, index=0, role="judge")
    first = shelf.rows([of_ada], [of_bob], [of_bob, judged])
    again = [Parent(derivation=first[0].derivation, choice=at, index=first[1]) for at in (0, 1)]
    second = shelf.rows([again[0]], [again[1]], again)

    assert (1, 1, 3) == shelf.would(principal="ada")
    assert (1, 1, 4) == shelf.would(exchange=bob)
    assert [3, 3] == shelf.left(first, second)

    shelf.say(principal="ada")
    apply_erasures(shelf.reader, shelf.content)

    assert [2, 1] == shelf.left(first, second)
    assert (1, 0, 0) == shelf.would(principal="ada")
    assert (1, 1, 3) == shelf.would(exchange=bob)


def test_rows_that_are_named_themselves_are_not_counted_twice(shelf: Pipelines) -> None:
    """Rows that are named are texts already; what others made of them is told apart."""
    bob = shelf.ask(2, principal="bob")
    mine = shelf.rows([Parent(exchange=bob, index=0)], principal="ada")
    above = Parent(derivation=mine[0].derivation, choice=0, index=mine[1])
    shelf.rows([above], principal="ada")
    other = shelf.rows([above], principal="bob")

    assert (2, 2, 1) == shelf.would(principal="ada")
    shelf.say(principal="ada")
    apply_erasures(shelf.reader, shelf.content)
    assert [0, 0] == shelf.left(mine, other)

"""Rows that a pipeline made, in a small house: derivations, and datasets of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from gateway.canonical import canonical_json, salted_sha256
from gateway.dataset.assembly.build import Built, Order, build_dataset
from gateway.ident import DerivationId, ExchangeId, Sha256, new_exchange_id
from gateway.intent.model import Declaration
from gateway.receipt.model import (
    Caller,
    Commitment,
    Declared,
    Derivation,
    DerivedRow,
    Parent,
    ParentRole,
    Receipt,
    RowKind,
    Transform,
    TransformKind,
    Written,
)
from gateway.receipt.statement import read_leaf
from tests.support.dataset import WRITER, House
from tests.support.dataset import Kept as Text

Made = tuple[Derivation, int]
"""A derivation, and where it stands in the log."""


def messages(question: str, answer: str) -> dict[str, Any]:
    """Return a conversation of one question and its answer."""
    return {
        "messages": [
            {"content": question, "role": "user"},
            {"content": answer, "role": "assistant"},
        ]
    }


def preference(question: str, chosen: str, rejected: str) -> dict[str, Any]:
    """Return a pair of answers to one question, the better one first."""
    return {
        "chosen": [{"content": chosen, "role": "assistant"}],
        "prompt": [{"content": question, "role": "user"}],
        "rejected": [{"content": rejected, "role": "assistant"}],
    }


def answered(house: House, declaration: Declaration, *texts: str, **changes: Any) -> Receipt:
    """Append the receipt of an answer; its index is the last of the ledger's."""
    return house.answer(declaration, *texts, **changes)


def parent(
    house: House, of: Receipt | Made | Sha256, role: ParentRole = "source", choice: int = 0
) -> Parent:
    """Return *of* as a parent: an answer, a row of a derivation, or a student."""
    match of:
        case Receipt():
            return Parent(
                role=role, exchange=of.exchange, choice=choice, index=index_of(house, of)
            )
        case str():
            at = house.index_of(of)
            assert at is not None
            return Parent(role=role, manifest=of, index=at)
        case (made, at):
            return Parent(role=role, derivation=made.derivation, choice=choice, index=at)


def index_of(house: House, receipt: Receipt) -> int:
    """Return where a receipt stands in the log."""
    for index, leaf in enumerate(house.ledger.leaves(0, house.ledger.head().size)):
        statement = read_leaf(leaf)
        if isinstance(statement, Receipt) and statement.exchange == receipt.exchange:
            return index
    raise AssertionError("no such receipt")


def derivation(
    house: House,
    declaration: Declaration,
    rows: Sequence[tuple[dict[str, Any], Sequence[Parent]]],
    *,
    name: str = "rewrite",
    transform: TransformKind = "rewrite",
    kind: RowKind = "messages",
    written: Written | None = None,
) -> Derivation:
    """Return the derivation of *rows*, each with its parents, and keep its texts."""
    made = DerivationId(ExchangeId("d-" + new_exchange_id(house.clock.now_ms())[2:]))
    salt = made[-16:].encode()
    lines = {place: canonical_json(row) for place, (row, _) in enumerate(rows)}
    house.texts[made] = Text(salt, lines)
    parents = list(dict.fromkeys(one for _, above in rows for one in above))
    return Derivation(
        derivation=made,
        caller=Caller(principal="team", project=declaration.project),
        declared=Declared(use=declaration.use, declaration=declaration.id),
        transform=Transform(name=name, version="1", kind=transform),
        written=written,
        parents=tuple(parents),
        rows=tuple(
            DerivedRow(
                kind=kind,
                row=Commitment(alg="sha256-salted", value=salted_sha256(salt, lines[place])),
                bytes=len(lines[place]),
                parents=tuple(parents.index(one) for one in above),
            )
            for place, (_, above) in enumerate(rows)
        ),
        at=house.now,
        writer=WRITER,
    )


def derive(
    house: House,
    declaration: Declaration,
    rows: Sequence[tuple[dict[str, Any], Sequence[Parent]]],
    **said: Any,
) -> Made:
    """Append the derivation of *rows*."""
    made = derivation(house, declaration, rows, **said)
    return made, house.state(made)


def build(
    house: House, declaration: Declaration, name: str = "set", *, of: str | None, **said: Any
) -> Built:
    """Build a dataset of the rows of the transform *of*, or of answers."""

    def candidates() -> Iterator[tuple[int, bytes]]:
        for index, leaf in enumerate(house.ledger.leaves(0, house.ledger.head().size)):
            statement = read_leaf(leaf)
            if isinstance(statement, Derivation) and statement.transform.name == of:
                yield index, leaf

    sources = house.sources()
    if of is not None:
        sources = dataclasses.replace(sources, candidates=candidates)
    order = Order(
        name=name,
        declaration=declaration,
        folder=house.folder / "datasets" / name,
        filters={} if of is None else {"transform": of},
        **said,
    )
    return build_dataset(order, sources)

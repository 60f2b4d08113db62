"""A ledger of many exchanges and a dataset of their answers, made quickly and for real.

Every exchange is an opening and a signed receipt, appended in large groups; texts are made
again whenever somebody asks for them, so that their number costs no memory.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from gateway.canonical import canonical_json, salted_sha256, sha256_hex
from gateway.dataset.assembly.build import Built, Order, build_dataset
from gateway.ident import ExchangeId, new_exchange_id
from gateway.intent.model import Declaration
from gateway.ledger.reading.subtrees import Subtrees
from gateway.receipt.authority import Authority
from gateway.receipt.keys import PublicKey, format_trust
from gateway.receipt.model import (
    Commitment,
    Opening,
    OutputFacts,
    Receipt,
    Subject,
)
from gateway.receipt.statement import read_leaf, write_opening, write_statement
from gateway.tlog.checkpoint import parse_checkpoint
from gateway.tlog.merkle import inclusion_proof
from gateway.tlog.note import parse_note
from gateway.tlog.proof import InclusionProof
from tests.support.dataset import House
from tests.support.dataset import Kept as Text
from tests.support.evidence import RECEIPT_SIGNER, TRUST

APPENDED_AT_ONCE: Final = 4_096
_WORDS: Final = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Where a history and its dataset stand."""

    ledger: Path
    dataset: Path
    trust: Path
    write_s: float = 0.0
    build_s: float = 0.0
    """What making them took; nothing where they stood already."""


def keep(folder: Path, count: int) -> Kept:
    """Make a history of *count* calls and its dataset in *folder*, unless they are there."""
    kept = Kept(
        ledger=folder / "house" / "ledger.db",
        dataset=folder / "house" / "datasets" / "bench",
        trust=folder / "trust.json",
    )
    if kept.trust.exists():
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    history = History(folder / "house", count)
    written = time.perf_counter()
    history.build()
    history.house.close()
    kept.trust.write_bytes(format_trust(TRUST))
    return dataclasses.replace(
        kept, write_s=written - begun, build_s=time.perf_counter() - written
    )


class History:
    """A house whose ledger holds *count* answered calls."""

    def __init__(self, folder: Path, count: int) -> None:
        self.house = House(folder)
        self._declaration: Declaration = self.house.declare()
        self._template = self.house.receipt(self._declaration, "an answer")
        self._first = self.house.ledger.head().size
        self.count = count
        leaves: list[bytes] = []
        for number in range(count):
            leaves += self._exchange(number)
            if len(leaves) >= APPENDED_AT_ONCE or number == count - 1:
                self.house.ledger.append(leaves)
                leaves = []
        self._subtrees = Subtrees(self.house.ledger)

    def build(self) -> Built:
        """Build the dataset of every answer."""
        order = Order(
            name="bench",
            declaration=self._declaration,
            folder=self.house.folder / "datasets" / "bench",
        )
        sources = dataclasses.replace(
            self.house.sources(),
            candidates=self._candidates,
            texts=self,
            authority=Believing(TRUST),
            prove=self._prove,
            tile=lambda tile: self._subtrees.tile(tile.level, tile.index, tile.width),
        )
        for index in range(self._first):
            sources.authority.admit(index, read_leaf(self.house.leaf(index)))
        return build_dataset(order, sources)

    def get_many(self, exchanges: Sequence[ExchangeId]) -> dict[ExchangeId, Text]:
        """Return the texts of exchanges, made anew."""
        return {one: Text(one[-16:].encode(), {0: _row(one)}) for one in exchanges}

    def was_erased(self, exchange: ExchangeId) -> bool:
        """Say no: nothing is erased here."""
        return False

    def erased_of(self, exchanges: Sequence[ExchangeId]) -> set[ExchangeId]:
        """Return those of *exchanges* of which there was text."""
        return set()

    def _exchange(self, number: int) -> tuple[bytes, bytes]:
        exchange = new_exchange_id(self.house.clock.now_ms() + number)
        row = _row(exchange)
        answer = sha256_hex(row)
        opening = self._first + 2 * number
        receipt: Receipt = msgspec.structs.replace(
            self._template,
            exchange=exchange,
            opening=opening,
            outputs=(
                OutputFacts(
                    choice=0,
                    kind="text",
                    bytes=len(row),
                    sha256=answer,
                    row=Commitment(
                        alg="sha256-salted",
                        value=salted_sha256(exchange[-16:].encode(), row),
                    ),
                ),
            ),
        )
        subjects = (
            Subject(name="response.body", digest={"sha256": answer}),
            Subject(name="output/0", digest={"sha256": answer}),
        )
        return (
            write_opening(
                Opening(
                    exchange=exchange,
                    at=receipt.received,
                    principal="team",
                    project=receipt.caller.project,
                    provider=receipt.provider.name,
                    operation=receipt.operation,
                    purpose=receipt.declared.use.purpose,
                    ruling_sha256=answer,
                    writer="bench",
                )
            ),
            write_statement(receipt, subjects, RECEIPT_SIGNER),
        )

    def _candidates(self) -> Iterator[tuple[int, bytes]]:
        stop = self._first + 2 * self.count
        for index, leaf in enumerate(self.house.ledger.leaves(self._first, stop), self._first):
            if (index - self._first) % 2:
                yield index, leaf

    def _prove(self, index: int, note: str) -> InclusionProof:
        size = parse_checkpoint(parse_note(note)[0]).size
        path = inclusion_proof(index, size, self._subtrees.root)
        return InclusionProof(index, tuple(path), note)


class Believing(Authority):
    """Takes what was signed here a moment ago as signed: building is not what is measured."""

    def receipt_key(self, keyid: str, index: int) -> PublicKey:
        """Return the key that is named, where it may sign; it takes every signature."""
        return _Credulous(super().receipt_key(keyid, index))


class _Credulous(PublicKey):
    def __init__(self, key: PublicKey) -> None:
        self._key, self.kind, self.keyid, self.pem = key._key, key.kind, key.keyid, key.pem

    def verify(self, signature: bytes, message: bytes) -> None:
        """Take any signature."""


def _row(exchange: str) -> bytes:
    """Return a training row of some six hundred bytes, another one for every exchange."""
    words = [_WORDS[ord(letter) % len(_WORDS)] for letter in exchange]
    return canonical_json(
        {
            "messages": [
                {"role": "user", "content": " ".join(words * 2)},
                {"role": "assistant", "content": " ".join(reversed(words * 2))},
            ]
        }
    )

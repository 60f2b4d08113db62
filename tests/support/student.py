"""A house whose ledger holds a dataset that a tiny student can be trained from."""

from __future__ import annotations

import argparse
import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from gateway import settings
from gateway.app.installation import init, open_installation
from gateway.canonical import canonical_json, salted_sha256
from gateway.clock import SystemClock, day_of, rfc3339
from gateway.dataset.assembly.build import Built, build_dataset
from gateway.dataset.assembly.build import Order as DatasetOrder
from gateway.dataset.assembly.build import Sources as DatasetSources
from gateway.dataset.calls import Call
from gateway.dataset.held import HeldWords
from gateway.dataset.ruling import PolicyLaw
from gateway.errors import LedgerUnwellError
from gateway.ident import Sha256, new_exchange_id
from gateway.intent.model import Declaration, IntendedUse, declaration_id
from gateway.ledger.reading.register import KINDS
from gateway.policy.library import Library
from gateway.receipt.keys import trusted_keys
from gateway.receipt.model import (
    TRAINING_BUILD,
    Caller,
    Commitment,
    DeclarationFacts,
    Declared,
    Manifest,
    ModelFacts,
    OutputFacts,
    ProviderFacts,
    Receipt,
    RequestFacts,
)
from gateway.receipt.statement import read_leaf, write_statement
from gateway.student.gate import Sources
from gateway.student.progress import Screen, Step
from gateway.student.recipe import Recipe
from gateway.student.run import Interrupted, Order, Rooms, Trained
from gateway.student.train import train_student
from gateway.tlog.checkpoint import parse_checkpoint
from gateway.tlog.note import open_note
from gateway.tlog.proof import InclusionProof
from tests.support.dataset import POLICIES, TERMS, WRITER, House, Kept, Texts
from tests.support.evidence import MANIFEST_SIGNER, ORIGIN, TRUST

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath")


def question(number: int) -> str:
    """Return the question that has exactly one answer."""
    return f"What is the word for {number}?"


def answer(number: int) -> str:
    """Return the answer to question *number*."""
    return f"{WORDS[number % 8]} {WORDS[number // 8 % 8]}"


def a_row(number: int) -> dict[str, Any]:
    """Return one conversation."""
    return {
        "messages": [
            {"role": "user", "content": question(number)},
            {"role": "assistant", "content": answer(number)},
        ]
    }


class School:
    """A house, its datasets, and everything a training needs."""

    def __init__(self, folder: Path, library: Library | None = None) -> None:
        self.house = House(folder, library)
        self.declaration = self.house.declare()
        self.proofs_fail = False

    def close(self) -> None:
        """Let go of the ledger."""
        self.house.close()

    def dataset(
        self, count: int = 32, *, name: str = "set", declaration: Declaration | None = None
    ) -> Built:
        """Answer *count* questions and build a dataset of them."""
        declared = declaration or self.declaration
        for number in range(count):
            self._answer(declared, number)
        return self.house.build(declared, name)

    def sources(self) -> Sources:
        """Return what the gate reads, as the house stands."""
        return Sources(
            trust=TRUST,
            law=self.house.law,
            library=self.house.library.digest,
            words=self.house.words,
            manifest=self.house.manifest,
            today=day_of(self.house.clock.now_ms()),
            students=self._students,
            erased_of=self.house.texts.erased_of,
            erased=len(self.house.texts._erased),
            folders=lambda: sorted((self.house.folder / "datasets").glob("*")),
        )

    def _students(self) -> Iterator[Manifest]:
        for leaf in self.house.ledger.leaves(0, self.house.ledger.head().size):
            statement = read_leaf(leaf)
            if isinstance(statement, Manifest) and statement.build_type == TRAINING_BUILD:
                yield statement

    def rooms(self) -> Rooms:
        """Return what a training needs."""
        return Rooms(
            sources=self.sources,
            append=self.house.append,
            index_of=self.house.index_of,
            prove=self._prove,
            signer=MANIFEST_SIGNER,
            clock=SystemClock(),
            version="0.1.0",
        )

    def train(
        self,
        built: Built,
        recipe: Recipe,
        screen: Screen | None = None,
        *,
        out: str = "parser",
        **order: Any,
    ) -> Trained | Interrupted:
        """Train a student from *built*; its folder is `students/OUT`."""
        quiet = screen or Quiet()
        return train_student(
            Order(
                datasets=order.pop("datasets", (built.folder,)),
                base=order.pop("base", "tiny"),
                recipe=recipe,
                place=lambda _: self.house.folder / "students" / out,
                **order,
            ),
            self.rooms(),
            quiet,
            quiet.stop if isinstance(quiet, Quiet) else Quiet().stop,
        )

    def _prove(self, index: int) -> InclusionProof:
        if self.proofs_fail:
            raise LedgerUnwellError("no checkpoint can be signed")
        return self.house.proof(index)

    def _answer(self, declaration: Declaration, number: int) -> None:
        receipt = self.house.receipt(declaration, answer(number))
        line = canonical_json(a_row(number))
        salt = self.house.texts[receipt.exchange].salt
        self.house.texts[receipt.exchange] = Kept(salt, {0: line})
        unit = receipt.outputs[0]
        outputs = (
            OutputFacts(
                choice=0,
                kind="text",
                bytes=unit.bytes,
                sha256=unit.sha256,
                row=Commitment(alg="sha256-salted", value=salted_sha256(salt, line)),
            ),
        )
        self.house.state(msgspec.structs.replace(receipt, outputs=outputs))


def install(
    folder: Path,
    count: int = 32,
    *,
    held_out: str | None = None,
    row: Callable[[int], dict[str, Any]] = a_row,
) -> Path:
    """Make a real installation in *folder* with a dataset in it; return the dataset."""
    policies = folder / "policies" / "open"
    policies.mkdir(parents=True)
    (policies / "policy.yaml").write_text(POLICIES["open/policy.yaml"])
    (policies / "terms.yaml").write_text(TERMS)
    config = folder / "gateway.yaml"
    config.write_text("data: ./gateway-data\npolicies: ./policies\n")
    init(settings.load(config), ORIGIN)
    installation = open_installation(argparse.Namespace(config=str(config)))
    signer, clock = installation.keyring.receipt, installation.clock
    law, texts = PolicyLaw(installation.library, installation.register), Texts()
    use = IntendedUse(purpose="train.sft", student="parser")
    declared = declaration_id("search", use)
    now = rfc3339(clock.now_ms())

    def append(leaf: bytes) -> int:
        return installation.sequencer.append_and_wait(leaf).index

    facts = DeclarationFacts(
        declaration=declared, project="search", use=use, owner="ada", at=now, writer=WRITER
    )
    append(write_statement(facts, (), signer))
    kept: list[tuple[int, bytes]] = []
    for number in range(count):
        line, salt = canonical_json(row(number)), b"salt %d" % number
        call = Call(provider="open", model="open-1", operation="chat", policies=("open",))
        receipt = Receipt(
            exchange=new_exchange_id(clock.now_ms()),
            caller=Caller(principal="team", project="search"),
            declared=Declared(use=use, declaration=declared),
            ruling=law.rule(use, call, day_of(clock.now_ms())),
            provider=ProviderFacts(name="open", endpoint="POST https://x.example", status=200),
            model=ModelFacts(requested="open-1", reported="open-1-0826"),
            operation="chat",
            streaming=False,
            readable=True,
            request=RequestFacts(bytes=10),
            outputs=(
                OutputFacts(
                    choice=0,
                    kind="text",
                    bytes=len(row(number)["messages"][-1]["content"]),
                    row=Commitment(alg="sha256-salted", value=salted_sha256(salt, line)),
                ),
            ),
            finish_reasons=("stop",),
            ended="complete",
            opening=0,
            received=now,
            finished=now,
            writer=WRITER,
        )
        texts[receipt.exchange] = Kept(salt, {0: line})
        leaf = write_statement(receipt, (), signer)
        kept.append((append(leaf), leaf))
    installation.reader.catch_up()
    installation.register.fold(installation.reader.statements(kinds=KINDS))
    declaration = installation.register.declaration(declared)
    assert declaration is not None
    note = installation.sequencer.checkpoint_now()
    built = build_dataset(
        DatasetOrder(
            name="set",
            declaration=declaration,
            folder=installation.data / "datasets" / "set",
            held_out=held_out,
        ),
        DatasetSources(
            candidates=lambda: iter(kept),
            texts=texts,
            law=law,
            library=installation.library.digest,
            words=HeldWords(installation.register, installation.index),
            manifest=lambda _: None,
            index_of=lambda _: None,
            prove=installation.reader.prove,
            tile=installation.reader.tiles.read,
            leaf=installation.reader.leaf,
            leaves=installation.reader.leaves_at,
            publish=installation.sequencer.checkpoint_now,
            checkpoint=note,
            covers=parse_checkpoint(
                open_note(note, [trusted_keys(installation.keyring.trust).log])
            ),
            append=append,
            signer=installation.keyring.manifest,
            states=installation.keyring.receipt,
            writer=installation.writer,
            trust=installation.keyring.trust,
            authority=installation.reader.authority(installation.keyring.trust),
            clock=clock,
            version="0.1.0",
            invocation="build-1",
        ),
    )
    installation.close()
    return built.folder


def training_leaves(folder: Path) -> list[Sha256]:
    """Return the digests of the training manifests in the ledger of the installation there."""
    args = argparse.Namespace(config=str(folder / "gateway.yaml"))
    with contextlib.closing(open_installation(args)) as house:
        read = [
            read_leaf(house.reader.leaf(index))
            for index in house.index.statements(("manifest",))
        ]
    return [
        one.payload_sha256
        for one in read
        if isinstance(one, Manifest) and one.build_type == TRAINING_BUILD
    ]


class Quiet(Screen):
    """A screen that keeps what it was told and can pull the plug at a step."""

    def __init__(self, *, stop_at: int | None = None) -> None:
        self.written = io.StringIO()
        super().__init__(Console(file=self.written, width=200, highlight=False))
        self.stop = threading.Event()
        self._stop_at = stop_at

    def step(self, step: Step) -> None:
        """Show a step; ask for an end after the one that was named."""
        super().step(step)
        if step.step == self._stop_at:
            self.stop.set()

"""A house whose ledger holds a dataset that a tiny student can be trained from."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from gateway.canonical import canonical_json, salted_sha256
from gateway.clock import SystemClock, day_of
from gateway.dataset.export import Built
from gateway.intent.model import Declaration
from gateway.receipt.model import Commitment, OutputFacts
from gateway.student.gate import Sources
from gateway.student.progress import Screen, Step
from gateway.student.recipe import Recipe
from gateway.student.train import Interrupted, Order, Rooms, Trained, train_student
from tests.support.dataset import House, Kept
from tests.support.evidence import MANIFEST_SIGNER, TRUST

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

    def __init__(self, folder: Path) -> None:
        self.house = House(folder)
        self.declaration = self.house.declare()

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
            words=self.house.register,
            manifest=self.house.manifest,
            today=day_of(self.house.clock.now_ms()),
        )

    def rooms(self) -> Rooms:
        """Return what a training needs."""
        return Rooms(
            sources=self.sources,
            append=self.house.append,
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
                datasets=(built.folder,),
                base=order.pop("base", "tiny"),
                recipe=recipe,
                place=lambda _: self.house.folder / "students" / out,
                **order,
            ),
            self.rooms(),
            quiet,
            quiet.stop if isinstance(quiet, Quiet) else Quiet().stop,
        )

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

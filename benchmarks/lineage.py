"""How quickly it is known what came of something, and whether a student is held.

The rows are those of `search.py`; over them stand datasets, one for each project and year, a
student for each, datasets of what those answered, and students of these. They go through the
code that indexes leaves; there is no ledger beside the index, for nothing here reads a leaf.
What is asked first is read from a disk whose pages the kernel was told to forget, then again
from memory. Bars stand in `budget.yaml`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import yaml
from search import (
    DECLARATIONS,
    HERE,
    PROJECTS,
    _forget,
    _spread,
    _timed,
    rows,
)

from gateway.canonical import sha256_hex
from gateway.dataset.held import HeldWords
from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.ledger.reading.register import Register
from gateway.lineage.impact import Below, Impact
from gateway.receipt.model import Withdrawal, Writer
from gateway.store.index.chunks import CHUNK, Chunk
from gateway.store.index.index import Index
from gateway.store.index.places import STRETCH
from gateway.store.index.rows import Row
from gateway.store.index.stages import StageFacts, StageKind, What

WITHDRAWN: Final = 100
TAUGHT: Final = "train"
"""What learns from an answer; of the made-up purposes, half begin with it."""


class Members:
    """Which receipts each dataset is made from, as bits of 65,536 leaves in a row."""

    def __init__(self) -> None:
        self.bits: dict[str, dict[int, bytearray]] = {}
        self.counts: dict[str, int] = {}
        self.some: list[ExchangeId] = []
        """Some that are in a dataset, to be asked about."""

    def take(self, row: Row) -> None:
        """Take a receipt into the dataset of its project and year, if it may teach."""
        if row.kind != "receipt" or not (row.purpose or "").startswith(TAUGHT):
            return
        name = f"{row.project}-{(row.at or '')[:4]}"
        chunk, place = divmod(row.index, CHUNK)
        bits = self.bits.setdefault(name, {}).setdefault(chunk, bytearray(CHUNK // 8))
        bits[place >> 3] |= 1 << (place & 7)
        self.counts[name] = self.counts.get(name, 0) + 1
        if row.exchange is not None and self.counts[name] % 10_000 == 1:
            self.some.append(row.exchange)


def stages(members: Members, first: int) -> Iterator[Row]:
    """Yield what stands after the receipts: lists, manifests, students, and their datasets."""
    place = itertools.count(first)
    for name, chunks in members.bits.items():
        dataset, student, answered, last = (
            sha256_hex(f"{kind} {name}".encode())
            for kind in ("dataset", "student", "answers", "last")
        )
        for number, bits in sorted(chunks.items()):
            chunk = Chunk(manifest=dataset, number=number, bits=bytes(bits))
            yield Row(index=next(place), kind="members", manifest=dataset, members=chunk)
        count, project = members.counts[name], name.rpartition("-")[0]
        named: list[tuple[What, str, int]] = [
            ("provider", provider, count // 5)
            for provider in ("openai", "anthropic", "google", "mistral", "local")
        ]
        named += [("model", f"model-{n}", count // 60) for n in range(60)]
        named += [("clause", f"openai-services:clause-{n}", count // 5) for n in range(12)]
        named += [("declaration", DECLARATIONS[len(name) % 500], count)]
        named += [("transform", "clean", count)]
        of_student: list[tuple[What, str, int]] = [("student", student, 1_000)]
        made: list[tuple[Sha256, StageKind, tuple[Sha256, ...], list[tuple[What, str, int]]]]
        made = [
            (dataset, "dataset", (), named),
            (student, "student", (dataset,), []),
            (answered, "dataset", (student,), of_student),
            (last, "student", (answered,), []),
        ]
        for manifest, kind, parents, mentions in made:
            facts = StageFacts(
                manifest=manifest,
                kind=kind,
                name=f"{kind}-{name}",
                project=project,
                rows=count,
                members=count if manifest == dataset else 0,
                parents=parents,
                mentions=tuple(mentions),
            )
            yield Row(index=next(place), kind="manifest", manifest=manifest, stage=facts)


def main() -> int:
    """Build, measure, print, and with `--check` hold the figures against the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--receipts", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="where the index is made")
    parser.add_argument(
        "--keep", action="store_true", help="keep it in --folder, and measure it again there"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1 over the budget")
    said = parser.parse_args()
    if said.keep and said.folder is None:
        parser.error("--keep needs --folder")
    with contextlib.ExitStack() as made:
        if said.keep:
            folder = said.folder / f"lineage-{said.receipts}"
        else:
            folder = Path(made.enter_context(tempfile.TemporaryDirectory(dir=said.folder)))
        built = folder / "built.json"
        if not built.exists():
            folder.mkdir(exist_ok=True)
            built.write_text(json.dumps(_build(folder, said.receipts)))
        report = {"receipts": said.receipts, "build": json.loads(built.read_text())}
        report["ms"] = _measure(folder, report["build"]["some"], said.rounds)
    print(json.dumps(report, indent=1) if said.json else _table(report))
    return _over_budget(report) if said.check else 0


def _build(folder: Path, receipts: int) -> dict[str, Any]:
    """Make the index; tell what it took, and what can be asked about."""
    members, spent = Members(), 0.0
    with contextlib.closing(Index(folder / "index.db")) as index:
        # What is asked of the file afterwards does not depend on how it was synced.
        index._file.connection.execute("PRAGMA synchronous = OFF")  # noqa: SLF001
        index.expect_much()

        def add(some: Iterable[Row]) -> float:
            waiting, began = iter(some), time.process_time()
            room = STRETCH - index.size % STRETCH
            while stretch := list(itertools.islice(waiting, room)):
                index.add(stretch, b"")
                room = STRETCH
            return time.process_time() - began

        for row_batch in _batches(rows(receipts)):
            for row in row_batch:
                members.take(row)
            add(row_batch)
        size = (folder / "index.db").stat().st_size
        spent = add(stages(members, 2 * receipts))
        grown = (folder / "index.db").stat().st_size - size
        datasets = len(members.bits)
    taken = sum(members.counts.values())
    return {
        "datasets": 2 * datasets,
        "students": 2 * datasets,
        "members": taken,
        "lineage_bytes_a_member": grown / taken,
        "lineage_s": spent,
        "some": members.some[:WITHDRAWN],
    }


def _batches(made: Iterator[Row]) -> Iterator[list[Row]]:
    while batch := list(itertools.islice(made, STRETCH)):
        yield batch


def _measure(folder: Path, some: list[ExchangeId], rounds: int) -> dict[str, Any]:
    a_dataset = f"{PROJECTS[7]}-2025"
    last = sha256_hex(f"last {a_dataset}".encode())
    questions: dict[str, Callable[[Index], Impact]] = {
        "a provider": lambda index: _below(index).of_named("provider", "openai"),
        "a model": lambda index: _below(index).of_named("model", "model-11"),
        "a clause": lambda index: _below(index).of_named("clause", "openai-services:clause-3"),
        "a transform": lambda index: _below(index).of_named("transform", "clean"),
        "a declaration": lambda index: _below(index).of_declaration(
            DeclarationId(DECLARATIONS[14])
        ),
        "a principal, one of the busiest": lambda index: _below(index).of_principal("team-0"),
        "a principal, one of the quietest": lambda index: _below(index).of_principal(
            "team-2991"
        ),
        "principals by a pattern, 111 of 3,000": lambda index: _of_pattern(index, "team-29*"),
        "an exchange": lambda index: _of_exchange(index, some[-1]),
        "a student": lambda index: _below(index).of_manifests(
            "student", a_dataset, [sha256_hex(f"student {a_dataset}".encode())]
        ),
    }
    told = {name: _asked(folder, ask, rounds) for name, ask in questions.items()}
    words = _withdrawals(some)
    told[f"whether a student is held, {len(some)} answers withdrawn"] = _asked(
        folder, lambda index: _held(index, words, last), rounds
    )
    return told


def _below(index: Index) -> Below:
    return Below(index, Register())


def _of_pattern(index: Index, pattern: str) -> Impact:
    names = [one for one in index.values("principal") if fnmatchcase(one, pattern)]
    return _below(index).of_principal(pattern, names)


def _of_exchange(index: Index, exchange: ExchangeId) -> Impact:
    leaf = index.named(exchange)
    assert leaf is not None
    return _below(index).of_leaf("exchange", exchange, leaf)


def _held(index: Index, register: Register, manifest: Sha256) -> Impact:
    """Ask anew, as a gate does that has just begun."""
    HeldWords(register, index).held(manifest)
    return Impact(kind="held", name=manifest)


def _withdrawals(exchanges: list[ExchangeId]) -> Register:
    register, writer = Register(), Writer(instance="benchmark", version="0")
    for at, exchange in enumerate(exchanges):
        register.apply(
            at,
            Withdrawal(
                by="grace",
                reason="asked to",
                exchange=exchange,
                at="2026-11-22T00:00:00.000Z",
                writer=writer,
            ),
        )
    return register


def _asked(folder: Path, ask: Callable[[Index], Impact], rounds: int) -> dict[str, Any]:
    """Measure one question: the first time from disk, then from memory."""
    found = 0

    def once(index: Index) -> None:
        nonlocal found
        found = len(ask(index).touched)

    _forget(folder)
    with contextlib.closing(Index(folder / "index.db")) as index:
        cold = _timed(lambda: once(index))
        warm = [_timed(lambda: once(index)) for _ in range(rounds)]
    return {"touched": found, "cold": cold, **_spread(warm)}


def _table(report: dict[str, Any]) -> str:
    build = report["build"]
    made = (
        f"{report['receipts']:,} receipts; {build['datasets']} datasets of {build['members']:,}"
        f" of them, {build['students']} students: {build['lineage_bytes_a_member']:.1f} bytes"
        f" and {1e6 * build['lineage_s'] / build['members']:.2f} us of CPU a member"
    )
    lines = [
        made,
        "",
        "| what came of | p50 | worst | from disk | touched |",
        "|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {name} | {one['p50']:.1f} ms | {one['worst']:.1f} ms | {one['cold']:.1f} ms"
        f" | {one['touched']:,} |"
        for name, one in report["ms"].items()
    ]
    return "\n".join(lines)


def _over_budget(report: dict[str, Any]) -> int:
    budget = yaml.safe_load((HERE / "budget.yaml").read_text("utf-8"))["lineage"]
    over = [
        f"{name}: {max(one['cold'], one['worst']):.0f} ms, at most {budget['impact_ms_max']}"
        for name, one in report["ms"].items()
        if max(one["cold"], one["worst"]) > budget["impact_ms_max"]
    ]
    for line in over:
        print(f"over budget: {line}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())

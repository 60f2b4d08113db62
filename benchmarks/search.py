"""How quickly one of millions of receipts is found, and a page of those that fit some filters.

The rows are made up, over three years, and go through the code that indexes leaves; the ledger
is a real one, with leaves of the usual size. What is found first is read from a disk whose
pages the kernel was told to forget, then again from memory. Bars stand in `budget.yaml`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import apsw
import yaml

from gateway.clock import rfc3339
from gateway.ident import DeclarationId, ExchangeId, new_exchange_id
from gateway.store.index.index import Index
from gateway.store.index.places import STRETCH
from gateway.store.index.rows import Row
from gateway.store.sqlite import SqliteLedger, connect
from gateway.tlog.merkle import HASH_BYTES

HERE = Path(__file__).resolve().parent
ORIGIN: Final = "benchmark.example/search"
START_MS: Final = int(dt.datetime(2023, 11, 22, tzinfo=dt.UTC).timestamp() * 1000)
YEARS: Final = 3
PAGE: Final = 1_000
LOOK_UPS: Final = 1_000
UNCLOSED: Final = 500
RECEIPT_BYTES: Final = 2_260
OPENING_BYTES: Final = 340

PROJECTS: Final = [f"project-{n}" for n in range(40)]
PRINCIPALS: Final = [f"team-{n}" for n in range(3_000)]
MODELS: Final = [f"model-{n}" for n in range(60)]
PROVIDERS: Final = ["openai", "anthropic", "google", "mistral", "local"]
PURPOSES: Final = ["infer", "evaluate", "train.sft", "train.distil", "train.rl.reward", "agent"]
DECLARATIONS: Final = [DeclarationId(f"use-{n:020x}") for n in range(500)]


def rows(receipts: int) -> Iterator[Row]:
    """Yield two rows an exchange; ten of all are of a rare project and principal.

    Five hundred exchanges were never closed: in place of the receipt stands a declaration.
    """
    dice = random.Random(1)
    step_ms = YEARS * 365 * 86_400_000 / receipts
    rare = {n * receipts // 10 + receipts // 20 for n in range(10)}
    skewed = [int(len(PRINCIPALS) * (n / 4096) ** 3) for n in range(4096)]
    for number in range(receipts):
        at_ms = START_MS + int(number * step_ms)
        at, exchange = rfc3339(at_ms - at_ms % 1000), new_exchange_id(at_ms)
        bits = dice.getrandbits(48)
        is_rare = number in rare
        project = "seldom" if is_rare else PROJECTS[(bits & 255) % 40]
        principal = "nobody-else" if is_rare else PRINCIPALS[skewed[bits >> 8 & 4095]]
        provider = PROVIDERS[(bits >> 20 & 31) % 5]
        model = MODELS[(bits >> 25 & 63) % 60]
        purpose = PURPOSES[(bits >> 31 & 7) % 6]
        declaration = DECLARATIONS[(bits >> 34 & 1023) % 500]
        yield Row(
            index=2 * number,
            kind="opening",
            at=at,
            exchange=exchange,
            project=project,
            principal=principal,
            provider=provider,
            operation="chat",
            purpose=purpose,
            declaration=declaration,
        )
        if number % (receipts // UNCLOSED) == 0:
            yield Row(
                index=2 * number + 1,
                kind="declaration",
                at=at,
                project=project,
                principal=principal,
                purpose=purpose,
                declaration=declaration,
            )
            continue
        held = bits >> 44 == 0
        yield Row(
            index=2 * number + 1,
            kind="refusal" if held else "receipt",
            at=at,
            exchange=exchange,
            opening=2 * number,
            project=project,
            principal=principal,
            provider=provider,
            model=model,
            model_reported=f"{model}-2026",
            operation="chat",
            purpose=purpose,
            declaration=declaration,
            effect="hold" if held else "permit",
            ended=None if held else "complete",
            readable=None if held else True,
            obligations=("keep-ai-label", "delete-by-days=30") if bits & 3 == 0 else (),
        )


SEARCHES: Final[dict[str, dict[str, Any]]] = {
    "everything": {},
    "kind": {"kind": "receipt"},
    "project": {"project": "project-7"},
    "principal, one of the busiest": {"principal": "team-0"},
    "principal, one of the quietest": {"principal": "team-2991"},
    "purpose and those below": {"purpose": "train"},
    "provider": {"provider": "mistral"},
    "model": {"model": "model-11"},
    "declaration": {"declaration": DECLARATIONS[77]},
    "effect": {"effect": "hold"},
    "obligation": {"obligation": "delete-by-days"},
    "since": {"since": "2025-03-01"},
    "one day": {"since": "2025-03-01", "until": "2025-03-01"},
    "project and kind": {"project": "project-7", "kind": "receipt"},
    "project and purpose": {"project": "project-7", "purpose": "train"},
    "project and model": {"project": "project-7", "model": "model-11"},
    "project and principal": {"project": "project-7", "principal": "team-3"},
    "provider and model": {"provider": "mistral", "model": "model-11"},
    "project and effect": {"project": "project-7", "effect": "hold"},
    "project and one month": {
        "project": "project-7",
        "since": "2025-03",
        "until": "2025-03",
    },
    "four filters and a year": {
        "kind": "receipt",
        "project": "project-7",
        "purpose": "train",
        "provider": "mistral",
        "since": "2025",
        "until": "2025",
    },
    "ten of all: project": {"project": "seldom"},
    "ten of all: principal, kind": {"principal": "nobody-else", "kind": "opening"},
    "ten of all: kind, project": {"kind": "declaration", "project": "seldom"},
    "none of all: two common words": {"kind": "opening", "effect": "permit"},
    "none of all: two common words and a year": {
        "kind": "opening",
        "effect": "permit",
        "since": "2025",
    },
    "none of all: a word there is not": {"project": "never"},
}


def main() -> int:
    """Build, measure, print, and with `--check` hold the figures against the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--receipts", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="where ledger and index are made")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep them in --folder, and measure them again there",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1 over the budget")
    said = parser.parse_args()
    if said.keep and said.folder is None:
        parser.error("--keep needs --folder")
    with contextlib.ExitStack() as made:
        if said.keep:
            folder = said.folder / f"search-{said.receipts}"
        else:
            folder = Path(made.enter_context(tempfile.TemporaryDirectory(dir=said.folder)))
        report = {"receipts": said.receipts, "leaves": 2 * said.receipts}
        built = folder / "built.json"
        if not built.exists():
            folder.mkdir(exist_ok=True)
            built.write_text(json.dumps(_build(folder, said.receipts)))
        report |= {"build": json.loads(built.read_text())}
        report |= _measure(folder, said)
    print(json.dumps(report, indent=1) if said.json else _table(report))
    return _over_budget(report) if said.check else 0


def _build(folder: Path, receipts: int) -> dict[str, Any]:
    """Make ledger and index; tell what it took and how large they are."""
    spent, made = 0.0, rows(receipts)
    SqliteLedger.create(folder / "ledger.db", ORIGIN).close()
    with (
        contextlib.closing(connect(folder / "ledger.db")) as ledger,
        contextlib.closing(Index(folder / "index.db")) as index,
    ):
        # What is asked of the files afterwards does not depend on how they were synced.
        ledger.execute("PRAGMA synchronous = OFF")
        ledger.execute("PRAGMA wal_autocheckpoint = 4096")
        index._file.connection.execute("PRAGMA synchronous = OFF")  # noqa: SLF001
        index.expect_much()
        while stretch := list(itertools.islice(made, STRETCH)):
            leaves = [
                f"{row.exchange}{row.kind}".encode().ljust(
                    OPENING_BYTES if row.kind == "opening" else RECEIPT_BYTES, b"x"
                )
                for row in stretch
            ]
            places = (row.index for row in stretch)
            with ledger:
                ledger.executemany(
                    "INSERT INTO leaf VALUES (?, ?, NULL)", zip(places, leaves, strict=True)
                )
            began = time.process_time()
            index.add(stretch, leaves[-1])
            spent += time.process_time() - began
        # Nor is the tree looked at: its subtrees may be any.
        frontier = bytes(HASH_BYTES * (2 * receipts).bit_count())
        ledger.execute(
            "UPDATE leaf SET frontier = ? WHERE seq = ?", (frontier, 2 * receipts - 1)
        )
        ledger.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    return {
        "index_us_a_leaf": 1e6 * spent / (2 * receipts),
        "index_bytes_a_receipt": (folder / "index.db").stat().st_size / receipts,
        "ledger_bytes_a_receipt": (folder / "ledger.db").stat().st_size / receipts,
    }


def _measure(folder: Path, said: argparse.Namespace) -> dict[str, Any]:
    dice = random.Random(2)
    closed = [n for n in range(said.receipts) if n % (said.receipts // UNCLOSED)]
    wanted = dice.sample(closed, 2 * LOOK_UPS)
    del closed
    with contextlib.closing(SqliteLedger(folder / "ledger.db")) as ledger:
        exchanges = [
            ExchangeId(next(ledger.leaves(2 * n, 2 * n + 1))[:28].decode()) for n in wanted
        ]

        def look_up(index: Index, exchange: ExchangeId) -> None:
            row = index.find(exchange)
            assert row is not None
            (leaf,) = ledger.leaves(row.index, row.index + 1)
            assert leaf.startswith(exchange.encode())

        _forget(folder)
        with contextlib.closing(Index(folder / "index.db")) as index:
            cold = [_timed(lambda one=one: look_up(index, one)) for one in exchanges[:LOOK_UPS]]
            warm = [_timed(lambda one=one: look_up(index, one)) for one in exchanges[:LOOK_UPS]]
            look_ups = {"from disk": _spread(cold), "again": _spread(warm)}
            others = {
                "unclosed()": _spread([_timed(index.unclosed) for _ in range(said.rounds)]),
                "kinds()": _spread([_timed(index.kinds) for _ in range(said.rounds)]),
                "statements of the register's kinds": _spread(
                    [
                        _timed(lambda: list(index.statements(["declaration", "verdict"])))
                        for _ in range(said.rounds)
                    ]
                ),
                "about a declaration": _spread(
                    [
                        _timed(lambda: index.about(declaration=DECLARATIONS[3]))
                        for _ in range(said.rounds)
                    ]
                ),
            }
        pages = {name: _pages(folder, filters, said) for name, filters in SEARCHES.items()}
    return {"look_up_ms": look_ups, "other_ms": others, "page_ms": pages}


def _pages(folder: Path, filters: dict[str, Any], said: argparse.Namespace) -> dict[str, Any]:
    """Measure a page of 1,000 rows: the first time from disk, then from memory."""
    found = 0

    def page(index: Index) -> None:
        nonlocal found
        found = sum(1 for _ in itertools.islice(index.select(**filters), PAGE))

    _forget(folder)
    with contextlib.closing(Index(folder / "index.db")) as index:
        cold = _timed(lambda: page(index))
        warm = [_timed(lambda: page(index)) for _ in range(said.rounds)]
    return {"rows": found, "cold": cold, **_spread(warm)}


def _forget(folder: Path) -> None:
    """Ask the kernel to drop what it has in memory of the files."""
    os.sync()
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _timed(act: Callable[[], object]) -> float:
    """Return how many milliseconds *act* takes."""
    began = time.perf_counter()
    act()
    return 1_000 * (time.perf_counter() - began)


def _spread(times: list[float]) -> dict[str, float]:
    return {"p50": statistics.median(times), "worst": max(times)}


def _table(report: dict[str, Any]) -> str:
    build = report["build"]
    made = (
        f"{report['receipts']:,} receipts, {report['leaves']:,} leaves: the index takes"
        f" {build['index_us_a_leaf']:.1f} us of CPU a leaf to make and"
        f" {build['index_bytes_a_receipt']:.0f} bytes a receipt;"
        f" the ledger {build['ledger_bytes_a_receipt']:.0f}"
    )
    lines = [
        made,
        "",
        "| what | p50 | worst | from disk | rows |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, spread in report["look_up_ms"].items():
        lines.append(
            f"| an exchange's leaf by its id, {name} | {spread['p50']:.2f} ms"
            f" | {spread['worst']:.2f} ms | | 1 |"
        )
    for name, spread in report["other_ms"].items():
        lines.append(f"| {name} | {spread['p50']:.2f} ms | {spread['worst']:.2f} ms | | |")
    for name, spread in report["page_ms"].items():
        lines.append(
            f"| page: {name} | {spread['p50']:.1f} ms | {spread['worst']:.1f} ms"
            f" | {spread['cold']:.1f} ms | {spread['rows']:,} |"
        )
    return "\n".join(lines)


def _over_budget(report: dict[str, Any]) -> int:
    budget = yaml.safe_load((HERE / "budget.yaml").read_text("utf-8"))["search"]
    look_up = report["look_up_ms"]["from disk"]["p50"]
    page = max(max(one["cold"], one["worst"]) for one in report["page_ms"].values())
    over = [
        f"{name}: {found:.1f} ms, at most {most}"
        for name, found, most in (
            ("look-up", look_up, budget["look_up_ms_p50_max"]),
            ("page", page, budget["page_ms_max"]),
        )
        if found > most
    ]
    for line in over:
        print(f"over budget: {line}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())

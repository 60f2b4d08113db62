"""What a durable receipt costs: signed, hashed, given its place, synced; on one core.

Set beside, in the same run: the same statements signed and hashed and then dropped, and the
disk's own sync. On a shared machine the ratio means more than the figures. Bars stand in
`budget.yaml`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop
import yaml

from gateway.clock import SystemClock
from gateway.ident import new_exchange_id
from gateway.ledger.publishing.publisher import Publisher
from gateway.ledger.sequencing.sequencer import Sequencer
from gateway.receipt.keys import Ed25519Signer, LogSigner, generate_pem
from gateway.receipt.statement import write_statement
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.merkle import leaf_hash
from tests.support.evidence import RECEIPT, SUBJECTS

HERE = Path(__file__).resolve().parent
ORIGIN = "benchmark.example/append"
CLOCK = SystemClock()
SIGNER = Ed25519Signer(generate_pem("ed25519"))


def receipt() -> bytes:
    """Return a fresh receipt, signed: the leaf."""
    return write_statement(
        msgspec.structs.replace(RECEIPT, exchange=new_exchange_id(CLOCK.now_ms())),
        SUBJECTS,
        SIGNER,
    )


def main() -> int:
    """Measure, print, and with `--check` hold the figures against the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--receipts", type=int, default=40_000, help="at saturation")
    parser.add_argument("--callers", type=int, default=256, help="at saturation")
    parser.add_argument("--seconds", type=float, default=10, help="at a steady rate")
    parser.add_argument("--rate", type=int, default=1_000, help="receipts a second, steady")
    parser.add_argument("--folder", type=Path, help="where the ledger is made; on which disk")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1 over the budget")
    said = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with (
        tempfile.TemporaryDirectory(dir=said.folder) as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        report = runner.run(_measure(Path(folder), said))
    print(json.dumps(report, indent=1) if said.json else _table(report))
    return _over_budget(report) if said.check else 0


async def _measure(folder: Path, said: argparse.Namespace) -> dict[str, Any]:
    report: dict[str, Any] = {"leaf_bytes": len(receipt()), "sync": _sync(folder / "raw")}
    store = SqliteLedger.create(folder / "ledger.db", ORIGIN)
    publisher = Publisher(store, LogSigner(generate_pem("ed25519"), ORIGIN), ORIGIN, CLOCK)
    sequencer = Sequencer(store, publisher)
    sequencer.start()
    try:
        await _saturate(sequencer, 2_000, said.callers)
        rounds = [
            (
                _signed_only(said.receipts // 4),
                await _saturate(sequencer, said.receipts, said.callers),
            )
            for _ in range(3)
        ]
        report["signed_only_us"] = statistics.median(signed for signed, _ in rounds)
        report["durable_us"] = statistics.median(cpu for _, (_, cpu) in rounds)
        report["ratio"] = statistics.median(cpu / signed for signed, (_, cpu) in rounds)
        report["per_s"] = statistics.median(rate for _, (rate, _) in rounds)
        report["per_s_best"] = max(rate for _, (rate, _) in rounds)
        report["steady"] = await _steady(sequencer, said.rate, said.seconds)
    finally:
        sequencer.stop()
        store.close()
    return report


def _sync(path: Path) -> dict[str, float]:
    """Return how long the disk takes to sync a leaf's worth of bytes, in milliseconds."""
    took = []
    with path.open("wb", buffering=0) as file:
        for _ in range(300):
            start = time.perf_counter()
            file.write(bytes(2_300))
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - start) * 1000)
    return _spread(took)


def _signed_only(count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        leaf_hash(receipt())
    return (time.process_time() - start) / count * 1e6


async def _saturate(sequencer: Sequencer, count: int, callers: int) -> tuple[float, float]:
    """Return receipts a second, and the CPU that each took in microseconds."""
    left = count

    async def call() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await sequencer.append(receipt())

    cpu, start = time.process_time(), time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    return count / (time.perf_counter() - start), (time.process_time() - cpu) / count * 1e6


async def _steady(sequencer: Sequencer, rate: int, seconds: float) -> dict[str, float]:
    """Return how long receipts take, in milliseconds, when they come at *rate* a second."""
    took: list[float] = []
    loop = asyncio.get_running_loop()

    async def one(due: float) -> None:
        await sequencer.append(receipt())
        took.append((loop.time() - due) * 1000)

    begun = loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = begun + number / rate
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            # From when it was due: a stall counts for every receipt that it held up.
            group.create_task(one(due))
    return _spread(took)


def _spread(took: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(took, n=1000)
    return {"p50": cuts[499], "p99": cuts[989], "max": max(took)}


def _table(report: dict[str, Any]) -> str:
    steady, sync = report["steady"], report["sync"]
    return "\n".join(
        (
            f"a leaf of {report['leaf_bytes']} bytes; everything on one core",
            f"signed and dropped       {report['signed_only_us']:7.1f} us of CPU",
            (
                f"signed and made durable  {report['durable_us']:7.1f} us of CPU"
                f" ({report['ratio']:.2f} times)"
            ),
            (
                f"at saturation            {report['per_s']:7,.0f} receipts/s"
                f" (best round {report['per_s_best']:,.0f})"
            ),
            (
                f"at a steady rate         p50 {steady['p50']:.2f} ms,"
                f" p99 {steady['p99']:.2f} ms, max {steady['max']:.1f} ms"
            ),
            (
                f"the disk's own sync      p50 {sync['p50']:.2f} ms, p99 {sync['p99']:.2f} ms,"
                f" max {sync['max']:.1f} ms"
            ),
        )
    )


def _over_budget(report: dict[str, Any]) -> int:
    budget = yaml.safe_load((HERE / "budget.yaml").read_text("utf-8"))["append"]
    missed = [
        name
        for name, miss in (
            ("receipts_per_s_min", report["per_s"] < budget["receipts_per_s_min"]),
            ("steady_ms_p99_max", report["steady"]["p99"] > budget["steady_ms_p99_max"]),
        )
        if miss
    ]
    for name in missed:
        print(f"over budget: {name} {budget[name]}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

"""What checking a whole ledger takes, set against hashing its leaves.

The same leaves are read and hashed into the tree, which is the least that any check must do;
then `fsck` checks every signature, every exchange, every root and every tile. Half of the
leaves are openings, which are not signed: so it is in a gateway's ledger. Bars stand in
`budget.yaml`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from gateway.ledger.custody.fsck import fsck
from gateway.receipt.keys import Ed25519Signer, generate_pem, parse_trust
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.merkle import Frontier, leaf_hash
from tests.support.history import Kept, keep

HERE = Path(__file__).resolve().parent
MESSAGE = b"m" * 1_500


def main() -> int:
    """Measure, print, and with `--check` hold the figures against the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=50_000, help="leaves of the ledger")
    parser.add_argument("--rounds", type=int, default=1, help="rounds over the same ledger")
    parser.add_argument("--keep", type=Path, help="make it there once, and keep it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1 over the budget")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(keep(said.keep or Path(folder), said.leaves // 2), said.rounds)
    print(json.dumps(report, indent=1) if said.json else _table(report))
    return _over_budget(report) if said.check else 0


def measure(kept: Kept, rounds: int) -> dict[str, Any]:
    """Return wall times over one ledger, in turns; the best of each."""
    ledger = SqliteLedger(kept.ledger)
    trust = parse_trust(kept.trust.read_bytes())
    hashing, checking, spent, signature = [], [], [], []
    for _ in range(rounds):
        hashing.append(_hashed(ledger))
        signature.append(_signature_us())
        begun, before = time.perf_counter(), os.times()
        report = fsck(ledger, trust)
        after = os.times()
        checking.append(time.perf_counter() - begun)
        spent.append(sum(after[:4]) - sum(before[:4]))
        if not report.clean:
            raise SystemExit(f"not clean: {report.findings[0]}")
    size = ledger.head().size
    ledger.close()
    own, others = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "leaves": size,
        "cores": len(os.sched_getaffinity(0)),
        "hashing_s": min(hashing),
        "fsck_s": min(checking),
        "ratio": min(checking) / min(hashing),
        "cpu_us_a_leaf": min(spent) / size * 1e6,
        "million_s": min(checking) / size * 1e6,
        "signature_us": min(signature),
        "process_mib_max": max(own, others),
    }


def _hashed(ledger: SqliteLedger) -> float:
    """Return how long it takes to hash all leaves into the tree."""
    begun = time.perf_counter()
    tree = Frontier()
    for leaf in ledger.leaves(0, ledger.head().size):
        tree.push(leaf_hash(leaf))
    tree.root()
    return time.perf_counter() - begun


def _signature_us() -> float:
    """Return how long one Ed25519 signature takes to verify here and now, on one core."""
    signer = Ed25519Signer(generate_pem("ed25519"))
    signature = signer.sign(MESSAGE)
    begun = time.process_time()
    for _ in range(1_000):
        signer.public.verify(signature, MESSAGE)
    return (time.process_time() - begun) * 1_000


def _table(report: dict[str, Any]) -> str:
    return (
        f"{report['leaves']} leaves, half of them signed, {report['cores']} cores\n"
        f"hashing them   {report['hashing_s']:8.2f} s\n"
        f"fsck           {report['fsck_s']:8.2f} s  ratio {report['ratio']:.1f},"
        f" {report['million_s']:.0f} s a million;"
        f" {report['cpu_us_a_leaf']:.1f} us of CPU a leaf\n"
        f"one signature takes {report['signature_us']:.0f} us of a core;"
        f" the largest process took {report['process_mib_max']:.0f} MiB"
    )


def _over_budget(report: dict[str, Any]) -> int:
    budget = yaml.safe_load((HERE / "budget.yaml").read_text())["fsck"]
    over = report["million_s"] > budget["million_leaves_s_max"]
    if over:
        print(f"over budget: {report['million_s']:.0f} > {budget['million_leaves_s_max']}")
    return int(over)


if __name__ == "__main__":
    sys.exit(main())

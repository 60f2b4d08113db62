"""What verifying a dataset takes, set against `sha256sum` over the same bytes.

A ledger is written, a dataset built from it, and `gateway verify` run on the folder as anyone
would run it, interpreter start and all; then `sha256sum` and, for machines whose `sha256sum`
does not use the processor's own instructions, `openssl dgst -sha256`. Bars stand in
`budget.yaml`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.support.history import Kept, keep

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Measure, print, and with `--check` hold the figures against the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000, help="rows, each with its receipt")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over the same folder")
    parser.add_argument("--keep", type=Path, help="make them there once, and keep them")
    parser.add_argument("--every-signature", action="store_true", help="check signatures too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1 over the budget")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kept = keep(said.keep or Path(folder), said.rows)
        report = measure(kept, said.rounds, every=said.every_signature)
    print(json.dumps(report, indent=1) if said.json else _table(report))
    return _over_budget(report) if said.check else 0


def measure(kept: Kept, rounds: int, *, every: bool) -> dict[str, Any]:
    """Return wall times over one dataset folder, in turns."""
    files = [str(path) for path in sorted(kept.dataset.rglob("*")) if path.is_file()]
    with (kept.dataset / "rows.jsonl").open("rb") as lines:
        rows = sum(1 for _ in lines)
    gateway = [sys.executable, "-m", "gateway", "verify", str(kept.dataset)]
    gateway += ["--trust", str(kept.trust)]
    commands = {
        "verify": [*gateway, "--every-signature"] if every else gateway,
        "sha256sum": ["sha256sum", *files],
        "openssl": ["openssl", "dgst", "-sha256", *files],
    }
    # Once without counting: everything is in memory then, for all of them.
    taken: dict[str, list[float]] = {name: [] for name in commands}
    peak = 0
    for number in range(rounds + 1):
        for name, command in commands.items():
            begun = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=HERE.parent)
            if number:
                taken[name].append(time.perf_counter() - begun)
            if name == "verify":
                peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    wall = {name: statistics.median(times) for name, times in taken.items()}
    return {
        "rows": rows,
        "bytes": sum(Path(path).stat().st_size for path in files),
        "cores": len(os.sched_getaffinity(0)),
        "every_signature": every,
        "write_s": kept.write_s,
        "build_s": kept.build_s,
        **{f"{name}_s": seconds for name, seconds in wall.items()},
        "us_a_row": wall["verify"] / rows * 1e6,
        "ratio": wall["verify"] / wall["sha256sum"],
        "ratio_openssl": wall["verify"] / wall["openssl"],
        "process_mib_max": peak / 1024,
    }


def _table(report: dict[str, Any]) -> str:
    return (
        f"{report['rows']} rows, {report['bytes'] / 1e6:.0f} MB, {report['cores']} cores\n"
        f"gateway verify       {report['verify_s']:8.2f} s  ({report['us_a_row']:.1f} us a row;"
        f" the largest process took {report['process_mib_max']:.0f} MiB)\n"
        f"sha256sum            {report['sha256sum_s']:8.2f} s  ratio {report['ratio']:.2f}\n"
        f"openssl dgst -sha256 {report['openssl_s']:8.2f} s"
        f"  ratio {report['ratio_openssl']:.2f}\n"
        f"(written in {report['write_s']:.0f} s, built in {report['build_s']:.0f} s)"
    )


def _over_budget(report: dict[str, Any]) -> int:
    budget = yaml.safe_load((HERE / "budget.yaml").read_text())["verify"]
    over = report["ratio"] > budget["sha256sum_ratio_max"]
    if over:
        print(f"over budget: {report['ratio']:.2f} > {budget['sha256sum_ratio_max']}")
    return int(over)


if __name__ == "__main__":
    sys.exit(main())

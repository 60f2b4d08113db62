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
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    mib = 0.0
    # Once without counting: everything is in memory then, for all of them.
    for number in range(rounds + 1):
        for name, command in commands.items():
            wall_s, cpu_s, used = _run(command)
            if number:
                taken[name].append((wall_s, cpu_s))
            if name == "verify":
                mib = max(mib, used)
    wall, cpu = (
        {name: statistics.median(one[at] for one in times) for name, times in taken.items()}
        for at in (0, 1)
    )
    return {
        "rows": rows,
        "bytes": sum(Path(path).stat().st_size for path in files),
        "cores": len(os.sched_getaffinity(0)),
        "every_signature": every,
        "write_s": kept.write_s,
        "build_s": kept.build_s,
        "wall_s": wall,
        "cpu_s": cpu,
        "ratio": wall["verify"] / wall["sha256sum"],
        "ratio_openssl": wall["verify"] / wall["openssl"],
        "cpu_us_a_row": cpu["verify"] / rows * 1e6,
        "process_mib_max": mib,
    }


def _run(command: list[str]) -> tuple[float, float, float]:
    """Return wall time and CPU time of *command*, and what its largest process held."""
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=HERE.parent) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"`{' '.join(command[:4])} …` ended with {process.returncode}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def _table(report: dict[str, Any]) -> str:
    lines = [f"{report['rows']} rows, {report['bytes'] / 1e6:.0f} MB, {report['cores']} cores"]
    for name, ratio in (
        ("verify", ""),
        ("sha256sum", f"ratio {report['ratio']:.2f}"),
        ("openssl", f"ratio {report['ratio_openssl']:.2f}"),
    ):
        wall, cpu = report["wall_s"][name], report["cpu_s"][name]
        lines.append(f"{name:<10} {wall:8.2f} s   CPU {cpu:8.2f} s   {ratio}")
    lines.append(
        f"{report['cpu_us_a_row']:.1f} us of CPU a row; the largest process held"
        f" {report['process_mib_max']:.0f} MiB"
        f" (written in {report['write_s']:.0f} s, built in {report['build_s']:.0f} s)"
    )
    return "\n".join(lines)


def _over_budget(report: dict[str, Any]) -> int:
    budget = yaml.safe_load((HERE / "budget.yaml").read_text())["verify"]
    over = report["ratio"] > budget["sha256sum_ratio_max"]
    if over:
        print(f"over budget: {report['ratio']:.2f} > {budget['sha256sum_ratio_max']}")
    return int(over)


if __name__ == "__main__":
    sys.exit(main())

"""What streams cost: CPU and the first byte, a thousand at once on one core, and no growth.

The first part is the rounds A B B A of `overhead.py` for one stream. The second keeps the
gateway on one core and holds a thousand slow streams open. The third, with `--growth N`, makes
N exchanges of which a tenth are hung up on in mid-stream, and watches what the process holds.
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
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml
from overhead import CASES, CHAT, Proxy, gateway, listening, measure

HERE = Path(__file__).resolve().parent
AT_ONCE = 1000
PACE_MS = 100.0
"""Sixty events take six seconds, so that all streams are open together for most of them."""

ABORT_EVERY = 10
ROUND = 2_500
"""Exchanges between two looks at the process."""


def main() -> int:
    """Measure, print, and with `--check` hold the figures against the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of A B B A")
    parser.add_argument("--scale", type=float, default=1.0, help="requests of a round, times")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="streams held open")
    parser.add_argument("--growth", type=int, default=0, help="exchanges, a tenth aborted")
    parser.add_argument("--only", choices=["cost", "at-once", "growth"])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1 over the budget")
    said = parser.parse_args()
    _allow_files(4 * said.at_once)
    report: dict[str, Any] = {"cpu_count": os.cpu_count(), "load": os.getloadavg()[0]}
    if said.only in {None, "cost"}:
        report["cost"] = _cost(said)
    if said.only in {None, "at-once"}:
        report["at_once"] = _at_once(said.at_once)
    if said.growth and said.only in {None, "growth"}:
        report["growth"] = _growth(said.growth)
    print(json.dumps(report, indent=1) if said.json else _table(report))
    return _over_budget(report) if said.check else 0


def _allow_files(count: int) -> None:
    """Let this process and those that it starts open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))


def _cost(said: argparse.Namespace) -> dict[str, Any]:
    """Return what one stream costs against the bare proxy."""
    (case,) = (case for case in CASES if case.stream)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(listening("upstream.py"))
        url = f"http://127.0.0.1:{upstream.port}"
        bare = stack.enter_context(listening("bare_proxy.py", "--upstream", url))
        bare.name = "bare aiohttp"
        other = stack.enter_context(gateway(folder, url))
        measured = measure(bare, other, upstream, case, said)
    first = {name: one["first_byte_p50"] for name, one in measured["latency"].items()}
    return {
        "cpu_ratio": measured["cpu_ratio"],
        "cpu_ratios": measured["cpu_ratios"],
        "cpu_us": measured["cpu_us"],
        "first_byte_ms_p50": first,
        "first_byte_added_ms_p50": first["gateway"] - first["direct"],
    }


@contextmanager
def _before(pace_ms: float) -> Iterator[Proxy]:
    """Run a gateway before an upstream of that pace."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(listening("upstream.py", "--pace-ms", str(pace_ms)))
        yield stack.enter_context(gateway(folder, f"http://127.0.0.1:{upstream.port}"))


def _at_once(count: int) -> dict[str, Any]:
    """Return what so many streams at once take, on one core."""
    with _before(PACE_MS) as other:
        process = other.process
        process.cpu_affinity([process.cpu_affinity()[0]])
        _load(other, 32, 16, "--stream")
        before = process.memory_info().rss
        peak = _Peak(process)
        used_s = other.cpu_s()
        seen = _load(other, count, count, "--stream")
        used_s = other.cpu_s() - used_s
        highest = peak.stop()
    return {
        "streams": count,
        "answers": seen["answers"],
        "rss_mib_before": before / 2**20,
        "rss_mib_peak": highest / 2**20,
        "kib_a_stream": (highest - before) / 1024 / count,
        "first_byte_ms": seen["first_byte_ms"],
        "whole_ms": seen["latency_ms"],
        "cpu_share": used_s / seen["wall_s"],
    }


class _Peak:
    """The most memory that a process was seen with."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._ended = threading.Event()
        self._highest = 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self._highest = max(self._highest, self._process.memory_info().rss)

    def stop(self) -> int:
        """Return the peak."""
        self._ended.set()
        self._thread.join()
        return self._highest


def _growth(count: int) -> dict[str, Any]:
    """Return what the process holds while it serves so many exchanges."""
    seen: list[dict[str, float]] = []
    done = aborts = 0
    with _before(1.0) as other:
        while done < count:
            load = _load(other, ROUND, 16, "--abort-every", str(ABORT_EVERY))
            done += ROUND
            aborts += load["aborts"]
            seen.append(
                {
                    "exchanges": done,
                    "rss_mib": other.process.memory_info().rss / 2**20,
                    "files": other.process.num_fds(),
                    "threads": other.process.num_threads(),
                }
            )
            if done % (4 * ROUND) == 0:
                print(
                    f"{done} exchanges: {seen[-1]['rss_mib']:.1f} MiB,"
                    f" {seen[-1]['files']:.0f} files",
                    file=sys.stderr,
                )
    # What is filled once, pools and caches, is full after a fifth.
    settled = seen[len(seen) // 5 :]
    half = max(len(settled) // 2, 1)
    begin, end = (
        statistics.median(one["rss_mib"] for one in part)
        for part in (settled[:half], settled[half:] or settled)
    )
    return {
        "exchanges": done,
        "aborted": aborts,
        "rss_mib_first": seen[0]["rss_mib"],
        "rss_mib_early": begin,
        "rss_mib_late": end,
        "grown_mib": end - begin,
        "files": [seen[0]["files"], seen[-1]["files"]],
        "threads": [seen[0]["threads"], seen[-1]["threads"]],
    }


def _load(proxy: Proxy, count: int, connections: int, *more: str) -> dict[str, Any]:
    """Run the load generator; every exchange is answered with 200, or was hung up on."""
    words = [
        *(sys.executable, str(HERE / "load.py"), "--port", str(proxy.port)),
        *("--path", f"/openai{CHAT}", "--requests", str(count)),
        *("--connections", str(connections), *more),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise SystemExit(f"the load generator failed\n{done.stderr[-2000:]}")
    seen: dict[str, Any] = json.loads(done.stdout)
    if seen["statuses"] != {"200": count - seen["aborts"]}:
        raise SystemExit(f"{count} asked, got {seen}\n{done.stderr[-2000:]}")
    return seen


def _table(report: dict[str, Any]) -> str:
    """Return the figures for a reader."""
    lines = [f"{report['cpu_count']} cores, load {report['load']:.1f}"]
    if cost := report.get("cost"):
        spread = f"({min(cost['cpu_ratios']):.2f}-{max(cost['cpu_ratios']):.2f})"
        lines += [
            f"a stream of 60 events: CPU ratio {cost['cpu_ratio']:.2f} {spread}",
            f"  first byte, added ms p50 {cost['first_byte_added_ms_p50']:+.2f}",
        ]
    if many := report.get("at_once"):
        lines += [
            (
                f"{many['streams']} streams at once, one core:"
                f" peak {many['rss_mib_peak']:.0f} MiB ({many['rss_mib_before']:.0f} before,"
                f" {many['kib_a_stream']:.0f} KiB each)"
            ),
            (
                f"  {100 * many['cpu_share']:.0f}% of the core; whole after"
                f" {many['whole_ms']['p50']:.0f} ms (p50), {many['whole_ms']['p99']:.0f} (p99)"
            ),
        ]
    if growth := report.get("growth"):
        lines += [
            (
                f"{growth['exchanges']} exchanges, {growth['aborted']} aborted:"
                f" {growth['rss_mib_early']:.1f} MiB early, {growth['rss_mib_late']:.1f} late"
                f" ({growth['grown_mib']:+.1f})"
            ),
            (
                f"  files {growth['files'][0]} to {growth['files'][1]},"
                f" threads {growth['threads'][0]} to {growth['threads'][1]}"
            ),
        ]
    return "\n".join(lines)


def _over_budget(report: dict[str, Any]) -> int:
    """Return 1 and say so if a figure is over its budget."""
    budget = yaml.safe_load((HERE / "budget.yaml").read_text())["stream"]
    cost, many = report.get("cost", {}), report.get("at_once", {})
    growth = report.get("growth", {})
    held = (
        ("CPU ratio", cost.get("cpu_ratio"), "cpu_ratio_max"),
        (
            "first byte, added ms",
            cost.get("first_byte_added_ms_p50"),
            "first_byte_added_ms_p50_max",
        ),
        ("MiB at once", many.get("rss_mib_peak"), "at_once_mib_max"),
        ("MiB grown", growth.get("grown_mib"), "grown_mib_max"),
    )
    bad = 0
    for what, figure, most in held:
        if figure is not None and figure > budget[most]:
            print(f"over budget: {what} {figure:.2f} > {budget[most]}", file=sys.stderr)
            bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())

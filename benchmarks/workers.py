"""What several workers bring: answers a second, and CPU of a request by process.

Rounds run A B B A, one gateway after the other, each with a ledger of its own. The load comes
from as many generators as there are workers. Where cores are few, generators, upstream and
gateway take them from each other: then only the CPU figures mean something.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
PATH = "/openai/v1/chat/completions"
CONNECTIONS = 32
"""Over all generators, so that the system's choice of workers evens out."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="against one")
    parser.add_argument("--requests", type=int, default=4000, help="of one round")
    parser.add_argument("--rounds", type=int, default=2, help="of A B B A")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    said = parser.parse_args()
    figures: dict[int, list[dict[str, float]]] = {1: [], said.workers: []}
    with tempfile.TemporaryDirectory() as folder, _upstream() as url:
        for number in range(said.rounds):
            for place, workers in enumerate((1, said.workers, said.workers, 1)):
                own = Path(folder) / f"{number}-{place}"
                own.mkdir()
                with _gateway(own, url, workers) as (port, process):
                    _load(port, workers, max(said.requests // 4, 64))
                    figures[workers].append(_round(port, process, workers, said.requests))
    report = {
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "requests": said.requests,
        "workers": {
            str(workers): {
                name: statistics.median(one[name] for one in rounds) for name in rounds[0]
            }
            for workers, rounds in figures.items()
        },
    }
    print(json.dumps(report, indent=1) if said.json else _table(report, said.workers))
    return 0


def _round(port: int, process: psutil.Process, workers: int, requests: int) -> dict[str, float]:
    before = _cpu_s(process)
    took = _load(port, workers, requests)
    after = _cpu_s(process)
    spent = {part: (after[part] - before[part]) * 1e6 / requests for part in after}
    return {
        "per_s": requests / took,
        "cpu_us": sum(spent.values()),
        **{f"cpu_us_{part}": us for part, us in spent.items()},
    }


def _cpu_s(process: psutil.Process) -> dict[str, float]:
    """Return the CPU seconds of a gateway so far, by part."""
    spent = {"sequencer": 0.0, "doors": 0.0}
    for one in (process, *process.children()):
        times = one.cpu_times()
        part = "sequencer" if "sequencer" in one.cmdline() else "doors"
        spent[part] += times.user + times.system
    return spent


def _load(port: int, generators: int, requests: int) -> float:
    """Ask from so many processes at once; return the seconds of the slowest."""
    words = [
        *(sys.executable, str(HERE / "load.py"), "--port", str(port), "--path", PATH),
        *("--requests", str(requests // generators)),
        *("--connections", str(CONNECTIONS // generators)),
    ]
    running = [
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(generators)
    ]
    slowest = 0.0
    for one in running:
        out, _ = one.communicate(timeout=300)
        seen: dict[str, Any] = json.loads(out)
        if one.returncode or seen["statuses"] != {"200": requests // generators}:
            raise SystemExit(f"broken answers have no figures: {seen['statuses']}")
        slowest = max(slowest, seen["wall_s"])
    return slowest


@contextmanager
def _upstream() -> Iterator[str]:
    """Run the stub provider."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "upstream.py")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def _gateway(folder: Path, upstream: str, workers: int) -> Iterator[tuple[int, psutil.Process]]:
    """Run a gateway of so many workers in *folder*."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "gateway.yaml").write_text(
        f"listen: 127.0.0.1:{port}\ndata: ./gateway-data\nworkers: {workers}\n"
        f"providers:\n  openai:\n    base_url: {upstream}\n"
    )
    command = [sys.executable, "-m", "gateway"]
    subprocess.run([*command, "init"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen([*command, "serve"], cwd=folder, stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/-/health", workers, folder / "gateway.log")
        yield port, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _wait_for(url: str, workers: int, log: Path) -> None:
    for _ in range(3000):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if json.load(answer)["workers"] == workers:
                    return
        except urllib.error.URLError:
            pass
        time.sleep(0.02)
    raise SystemExit("the gateway never became healthy\n" + log.read_text()[-2000:])


def _table(report: dict[str, Any], workers: int) -> str:
    """Return the figures for a reader."""
    one, many = report["workers"]["1"], report["workers"][str(workers)]
    lines = [
        f"{workers} workers against one: medians, {report['requests']} requests a round",
        f"{report['cpu_count']} cores, load {report['load_average']:.1f}",
        "",
    ]
    for name, what in (
        ("per_s", "answers a second"),
        ("cpu_us", "CPU us of a request"),
        ("cpu_us_doors", "  in doors"),
        ("cpu_us_sequencer", "  in the sequencer"),
    ):
        before, after = one[name], many[name]
        ratio = f"{after / before:6.2f}" if before else "     –"
        lines.append(f"{what:24} {before:8.0f} -> {after:8.0f}   ratio {ratio}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

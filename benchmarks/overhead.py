"""What the gateway costs, everything on, against a bare pass-through proxy in the same run.

Rounds run A B B A, so that a machine that slows down slows both. CPU per request is the figure
to trust on a shared machine: it is read from the kernel for the proxy's process alone.
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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

HERE = Path(__file__).resolve().parent
CHAT = "/v1/chat/completions"
TRAINING = (
    "x-intended-use: purpose=train.sft, student=invoice-parser, student-kind=extractor, "
    "audience=internal, visibility=internal, competes=?0, commercial=?0"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of load."""

    name: str
    stream: bool
    requests: int
    path: str = CHAT
    provider: str = "openai"
    headers: tuple[str, ...] = ()


CASES = (
    Case(name="chat", stream=False, requests=4000),
    Case(name="stream", stream=True, requests=400),
    Case(name="embeddings", stream=False, requests=4000, path="/v1/embeddings"),
    Case(
        name="chat, declared for training",
        stream=False,
        requests=4000,
        provider="deepseek",
        headers=(TRAINING,),
    ),
)


@dataclass(slots=True, kw_only=True)
class Proxy:
    """A proxy under test."""

    name: str
    process: psutil.Process
    port: int
    prefixed: bool
    """Whether a provider's name stands in front of the path."""

    def path(self, case: Case) -> str:
        """Return where *case* is asked."""
        return f"/{case.provider}{case.path}" if self.prefixed else case.path

    def cpu_s(self) -> float:
        """Return the CPU seconds that the process has used, its own and the kernel's."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@dataclass(slots=True, kw_only=True)
class Measured:
    """What one case cost, round by round."""

    cpu_us: dict[str, list[float]] = field(default_factory=dict)
    per_s: dict[str, list[float]] = field(default_factory=dict)
    ratios: list[float] = field(default_factory=list)


def main() -> int:
    """Measure, print, and with `--check` hold the figures against the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of A B B A")
    parser.add_argument("--scale", type=float, default=1.0, help="requests of a round, times")
    parser.add_argument("--folder", type=Path, help="where the ledger is kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1 over the budget")
    parser.add_argument("--self-check", action="store_true", help="bare against bare")
    parser.add_argument("--case", help="only the cases whose name contains this")
    said = parser.parse_args()
    with ExitStack() as stack:
        folder = said.folder or stack.enter_context(tempfile.TemporaryDirectory())
        upstream = stack.enter_context(listening("upstream.py"))
        url = f"http://127.0.0.1:{upstream.port}"
        bare = stack.enter_context(listening("bare_proxy.py", "--upstream", url))
        bare.name = "bare aiohttp"
        if said.self_check:
            other = stack.enter_context(listening("bare_proxy.py", "--upstream", url))
            other.name = "bare aiohttp, again"
        else:
            other = stack.enter_context(gateway(Path(folder), url))
        report: dict[str, Any] = {
            "a": bare.name,
            "b": other.name,
            "rounds": said.rounds,
            "cpu_count": os.cpu_count(),
            "load_average_before": os.getloadavg()[0],
            "fsync_ms": _fsync_ms(Path(folder)),
            "cases": {},
        }
        for case in CASES:
            if said.case is None or said.case in case.name:
                report["cases"][case.name] = measure(bare, other, upstream, case, said)
        report["load_average_after"] = os.getloadavg()[0]
    print(json.dumps(report, indent=1) if said.json else _table(report))
    return _over_budget(report) if said.check else 0


def measure(
    bare: Proxy, other: Proxy, upstream: Proxy, case: Case, said: argparse.Namespace
) -> dict[str, Any]:
    """Return the figures of one case."""
    count = max(int(case.requests * said.scale), 64)
    measured = Measured()
    for proxy in (bare, other):
        _load(proxy, case, max(count // 4, 32), 16)
    for _ in range(said.rounds):
        spent = [_round(proxy, case, count, measured) for proxy in (bare, other, other, bare)]
        measured.ratios += [spent[1] / spent[0], spent[2] / spent[3]]
    return {
        "stream": case.stream,
        "requests_a_round": count,
        "cpu_us": {name: statistics.median(all_) for name, all_ in measured.cpu_us.items()},
        "per_s": {name: statistics.median(all_) for name, all_ in measured.per_s.items()},
        "cpu_ratio": statistics.median(measured.ratios),
        "cpu_ratios": measured.ratios,
        "latency": _latency(bare, other, upstream, case, min(said.rounds, 3)),
    }


def _round(proxy: Proxy, case: Case, count: int, measured: Measured) -> float:
    """Run one round and return the CPU microseconds of one request."""
    before = proxy.cpu_s()
    seen = _load(proxy, case, count, 16)
    spent_us = (proxy.cpu_s() - before) * 1e6 / seen["answers"]
    measured.cpu_us.setdefault(proxy.name, []).append(spent_us)
    measured.per_s.setdefault(proxy.name, []).append(seen["answers"] / seen["wall_s"])
    return spent_us


def _latency(
    bare: Proxy, other: Proxy, upstream: Proxy, case: Case, rounds: int
) -> dict[str, dict[str, float]]:
    """Return the times of one caller alone, direct and through each proxy, in milliseconds."""
    seen: dict[str, list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for proxy in (upstream, bare, other, other, bare, upstream):
            seen.setdefault(proxy.name, []).append(
                _load(proxy, case, 30 if case.stream else 300, 1)
            )
    return {
        name: {
            f"{what}_{part}": statistics.median(one[f"{what}_ms"][part] for one in all_)
            for what in ("latency", "first_byte")
            for part in ("p50", "p99")
        }
        for name, all_ in seen.items()
    }


def _load(proxy: Proxy, case: Case, count: int, connections: int) -> dict[str, Any]:
    """Run the load generator and return its report; anything but answers is an error."""
    words = [
        *(sys.executable, str(HERE / "load.py"), "--port", str(proxy.port)),
        *("--path", proxy.path(case), "--requests", str(count)),
        *("--connections", str(connections)),
        *(["--stream"] if case.stream else []),
    ]
    for header in case.headers:
        words += ["--header", header]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise SystemExit(f"{proxy.name}: the load generator failed\n{done.stderr[-2000:]}")
    seen: dict[str, Any] = json.loads(done.stdout)
    if seen["answers"] < count:
        print(f"{proxy.name}: {count - seen['answers']} cut off", file=sys.stderr)
    if seen["statuses"] != {"200": seen["answers"]} or len(seen["sizes"]) != 1:
        raise SystemExit(
            f"{proxy.name}: {case.name}: {count} asked, got {seen['statuses']}, "
            f"sizes {seen['sizes']}; broken answers have no figures\n{done.stderr[-2000:]}"
        )
    return seen


@contextmanager
def listening(script: str, *words: str) -> Iterator[Proxy]:
    """Run *script*, which says on which port it listens."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield Proxy(
            name="direct", process=psutil.Process(process.pid), port=port, prefixed=False
        )
    finally:
        process.kill()
        process.wait()


@contextmanager
def gateway(folder: Path, upstream: str) -> Iterator[Proxy]:
    """Run a gateway in *folder*, as `gateway init` and `gateway serve` make it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "gateway.yaml"
    lines = [f"listen: 127.0.0.1:{port}", "data: ./gateway-data", "providers:"]
    for name in ("openai", "deepseek"):
        lines += [f"  {name}:", f"    base_url: {upstream}"]
    settings.write_text("\n".join(lines) + "\n")
    subprocess.run([sys.executable, "-m", "gateway", "init"], cwd=folder, check=True)
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "--config", str(settings), "serve"],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/-/health", folder / "gateway.log")
        yield Proxy(
            name="gateway", process=psutil.Process(process.pid), port=port, prefixed=True
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait_until_healthy(url: str, log: Path) -> None:
    for _ in range(1000):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.URLError:
            time.sleep(0.02)
    raise SystemExit("the gateway never became healthy\n" + log.read_text()[-2000:])


def _fsync_ms(folder: Path) -> dict[str, float]:
    """Return how long the disk itself takes to keep 4 KiB."""
    times = []
    with (folder / "fsync").open("wb") as file:
        for _ in range(200):
            file.write(bytes(4096))
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - begun) * 1000)
    (folder / "fsync").unlink()
    times.sort()
    return {"p50": times[100], "p99": times[198]}


def _table(report: dict[str, Any]) -> str:
    """Return the figures for a reader."""
    bare, other = report["a"], report["b"]
    load = f"load {report['load_average_before']:.1f}-{report['load_average_after']:.1f}"
    disk = (
        f"fsync p50 {report['fsync_ms']['p50']:.2f} ms, p99 {report['fsync_ms']['p99']:.2f} ms"
    )
    lines = [
        f"{other} against {bare}: medians of {report['rounds']} rounds A B B A",
        f"{report['cpu_count']} cores, {load}, {disk}",
    ]
    for name, case in report["cases"].items():
        cpu, per_s = case["cpu_us"], case["per_s"]
        ratio = f"ratio {case['cpu_ratio']:.2f}"
        spread = f"({min(case['cpu_ratios']):.2f}-{max(case['cpu_ratios']):.2f})"
        lines += [
            "",
            f"{name} ({case['requests_a_round']} requests a round, 16 connections)",
            f"  CPU us a request {cpu[bare]:8.0f} -> {cpu[other]:8.0f}   {ratio} {spread}",
            f"  requests/s       {per_s[bare]:8.0f} -> {per_s[other]:8.0f}",
            "  one caller alone, ms      direct     bare    other   added over direct",
        ]
        lines += [
            f"    {what.replace('_', ' '):20} "
            + " ".join(f"{one[what]:8.2f}" for one in case["latency"].values())
            + f"   {case['latency'][other][what] - case['latency']['direct'][what]:+.2f}"
            for what in ("latency_p50", "latency_p99", "first_byte_p50", "first_byte_p99")
        ]
    return "\n".join(lines)


def _over_budget(report: dict[str, Any]) -> int:
    """Return 1 and say so if a figure is over its budget."""
    budget = yaml.safe_load((HERE / "budget.yaml").read_text())["overhead"]
    bad = 0
    for name, case in report["cases"].items():
        added = case["latency"][report["b"]]["first_byte_p50"]
        added -= case["latency"]["direct"]["first_byte_p50"]
        held = [("CPU ratio", case["cpu_ratio"], budget["cpu_ratio_max"])]
        if case["stream"]:
            held.append(("first byte, added ms", added, budget["first_byte_added_ms_p50_max"]))
        for what, figure, most in held:
            if figure > most:
                print(f"over budget: {name}: {what} {figure:.2f} > {most}", file=sys.stderr)
                bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())

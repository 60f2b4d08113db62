"""What building and verifying a dataset take, set against handling the same bytes.

A data folder is filled with signed receipts and encrypted texts; then, each in a process of
its own: the least that any build must do (read leaves and texts, hash them, write what a folder
holds, make it durable), `gateway dataset build`, and `gateway verify`, as anyone would run
them. With `--derived`, every answer is rewritten by a recorded transform, a hundred rows a
derivation, and the dataset is made of those. Bars stand in `budget.yaml`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from gateway import settings
from gateway.app.installation import Installation, init, open_installation
from gateway.canonical import canonical_json, salted_sha256, sha256_hex
from gateway.clock import day_of, rfc3339
from gateway.dataset.calls import Call
from gateway.dataset.ruling import PolicyLaw
from gateway.ident import DeclarationId, DerivationId, ExchangeId, new_exchange_id
from gateway.intent.model import IntendedUse, declaration_id
from gateway.receipt.model import (
    Caller,
    Commitment,
    DeclarationFacts,
    Declared,
    Derivation,
    DerivedRow,
    ModelFacts,
    Opening,
    OutputFacts,
    Parent,
    ProviderFacts,
    Receipt,
    RequestFacts,
    Subject,
    Transform,
    UsageFacts,
)
from gateway.receipt.statement import write_opening, write_statement
from gateway.store.content import Content
from tests.support.dataset import POLICIES, TERMS, WRITER
from tests.support.evidence import ORIGIN

HERE: Final = Path(__file__).resolve().parent
AT_ONCE: Final = 2_048
ROWS_A_DERIVATION: Final = 100
LOOK_S: Final = 0.05
"""How often a process is asked how much memory it holds."""

USE: Final = IntendedUse(purpose="train.sft", student="parser")
WORDS: Final = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "twice")


def main() -> int:
    """Measure, print, and with `--check` hold the figures against the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows, each with its receipt")
    parser.add_argument("--derived", action="store_true", help="rows that a pipeline made")
    parser.add_argument("--keep", type=Path, help="fill a data folder there, and keep it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1 over the budget")
    parser.add_argument("--least", type=Path, help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.least is not None:
        least(said.least)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        place = said.keep or Path(folder)
        fill_s = 0.0
        if not (place / "gateway.yaml").exists():
            begun = time.perf_counter()
            Filled(place, said.rows, derived=said.derived)
            fill_s = time.perf_counter() - begun
        report = {"fill_s": fill_s, "derived": said.derived} | measure(place, said.derived)
    print(json.dumps(report, indent=1) if said.json else _table(report))
    return _over_budget(report) if said.check else 0


def measure(place: Path, derived: bool) -> dict[str, Any]:  # noqa: FBT001 — one command
    """Return time and memory of each command over the data folder at *place*."""
    name = f"bench-{time.time_ns():x}"
    declared = declaration_id("search", USE)
    gateway = [sys.executable, "-m", "gateway", "--config", str(place / "gateway.yaml")]
    dataset = place / "gateway-data" / "datasets" / name
    build = [*gateway, "dataset", "build", name, "--for", declared]
    build += ["--transform", "shorten"] if derived else []
    trust = place / "gateway-data" / "trust.json"
    commands = {
        "least": [sys.executable, __file__, "--least", str(place)],
        "build": build,
        "verify": [*gateway[:3], "verify", str(dataset), "--trust", str(trust)],
    }
    taken = {step: _run(command) for step, command in commands.items()}
    files = [path for path in dataset.rglob("*") if path.is_file()]
    with (dataset / "rows.jsonl").open("rb") as lines:
        rows = sum(1 for _ in lines)
    wall = {step: one.wall_s for step, one in taken.items()}
    cpu = {step: one.cpu_s for step, one in taken.items()}
    return {
        "rows": rows,
        "bytes": sum(path.stat().st_size for path in files),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "wall_s": wall,
        "cpu_s": cpu,
        "mib": {step: one.mib for step, one in taken.items()},
        "ratio_build": wall["build"] / wall["least"],
        "ratio_verify": wall["verify"] / wall["least"],
        "ratio": (wall["build"] + wall["verify"]) / wall["least"],
        "ratio_cpu": (cpu["build"] + cpu["verify"]) / cpu["least"],
    }


class _Named(msgspec.Struct):
    exchange: str | None = None
    derivation: str | None = None


class _Payload(msgspec.Struct):
    predicate: _Named


class _Envelope(msgspec.Struct):
    payload: bytes


def least(place: Path) -> None:
    """Read every leaf and text that a dataset is made from, hash them, and write them.

    Of a leaf only the name is read, without which its text can't be found.
    """
    house = _opened(place)
    envelope, payload = msgspec.json.Decoder(_Envelope), msgspec.json.Decoder(_Payload)
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=place) as file:
        waiting: dict[ExchangeId, bytes] = {}

        def write() -> None:
            kept = house.content.get_many(list(waiting))
            for name, leaf in waiting.items():
                texts = kept[name].rows.values() if name in kept else ()
                hashed = hashlib.sha256(leaf).hexdigest()
                written = [leaf]
                for row in texts:
                    row_hashed = hashlib.sha256(row).hexdigest()
                    said = {"exchange": name, "leaf": hashed, "row": row_hashed, "salt": hashed}
                    written += [row, msgspec.json.encode(said)]
                for content in written:
                    digest.update(content)
                    file.write(content)
            waiting.clear()

        for leaf in house.store.leaves(0, house.store.head().size):
            if not leaf.startswith(b'{"payload"'):
                continue
            named = payload.decode(envelope.decode(leaf).payload).predicate
            name = named.exchange or named.derivation
            if name is not None:
                waiting[ExchangeId(name)] = leaf
            if len(waiting) >= AT_ONCE:
                write()
        write()
        file.flush()
        os.fsync(file.fileno())
    house.close()


class Filled:
    """A data folder with so many answered calls, made quickly and for real."""

    def __init__(self, place: Path, count: int, *, derived: bool) -> None:
        policies = place / "policies" / "open"
        policies.mkdir(parents=True)
        (policies / "policy.yaml").write_text(POLICIES["open/policy.yaml"])
        (policies / "terms.yaml").write_text(TERMS)
        config = place / "gateway.yaml"
        config.write_text("data: ./gateway-data\npolicies: ./policies\n")
        init(settings.load(config), ORIGIN)
        self.house = _opened(place)
        self.signer = self.house.keyring.receipt
        self.now = rfc3339(self.house.clock.now_ms())
        self.declared = Declared(use=USE, declaration=declaration_id("search", USE))
        self._declare()
        call = Call(provider="open", model="open-1", operation="chat", policies=("open",))
        law = PolicyLaw(self.house.library, self.house.register)
        self.ruling = law.rule(USE, call, day_of(self.house.clock.now_ms()))
        self.at = self.house.store.head().size
        self._leaves: list[bytes] = []
        self._contents: list[tuple[ExchangeId, Content]] = []
        self._parents: list[Parent] = []
        for number in range(count):
            self._exchange(number, taught=not derived)
            if derived and (len(self._parents) == ROWS_A_DERIVATION or number == count - 1):
                self._derive()
            if len(self._leaves) >= AT_ONCE:
                self._write()
        self._write()
        self.house.reader.catch_up()
        self.house.close()

    def _declare(self) -> None:
        assert self.declared.declaration is not None
        facts = DeclarationFacts(
            declaration=DeclarationId(self.declared.declaration),
            project="search",
            use=USE,
            owner="ada",
            at=self.now,
            writer=WRITER,
        )
        self.house.sequencer.append_and_wait(write_statement(facts, (), self.signer))

    def _add(self, leaf: bytes) -> int:
        self._leaves.append(leaf)
        self.at += 1
        return self.at - 1

    def _write(self) -> None:
        # Content is durable before what commits to it.
        self.house.content.put_many(self._contents)
        self.house.store.append(self._leaves)
        self._contents, self._leaves = [], []

    def _exchange(self, number: int, *, taught: bool) -> None:
        exchange = new_exchange_id(self.house.clock.now_ms())
        row, salt = _row(exchange, number), exchange[-16:].encode()
        digest = sha256_hex(row)
        opening = self._add(
            write_opening(
                Opening(
                    exchange=exchange,
                    at=self.now,
                    principal="team",
                    project="search",
                    provider="open",
                    operation="chat",
                    purpose=USE.purpose,
                    ruling_sha256=digest,
                    writer="bench",
                )
            )
        )
        receipt = Receipt(
            exchange=exchange,
            caller=Caller(principal="team", project="search"),
            declared=self.declared,
            ruling=self.ruling,
            provider=ProviderFacts(name="open", endpoint="POST https://x.example", status=200),
            model=ModelFacts(requested="open-1", reported="open-1-0826"),
            operation="chat",
            streaming=False,
            readable=True,
            request=RequestFacts(bytes=10),
            outputs=(
                OutputFacts(
                    choice=0,
                    kind="text",
                    bytes=len(row),
                    sha256=digest,
                    row=Commitment(alg="sha256-salted", value=salted_sha256(salt, row)),
                ),
            ),
            usage=UsageFacts(input_tokens=60, output_tokens=60),
            finish_reasons=("stop",),
            ended="complete",
            opening=opening,
            received=self.now,
            finished=self.now,
            writer=WRITER,
        )
        subjects = (
            Subject(name="response.body", digest={"sha256": digest}),
            Subject(name="output/0", digest={"sha256": digest}),
        )
        index = self._add(write_statement(receipt, subjects, self.signer))
        if taught:
            self._contents.append((exchange, Content(request=b"", salt=salt, rows={0: row})))
        else:
            self._parents.append(Parent(role="source", exchange=exchange, index=index))

    def _derive(self) -> None:
        name = DerivationId(ExchangeId("d-" + new_exchange_id(self.house.clock.now_ms())[2:]))
        salt = name[-16:].encode()
        rows = {
            place: _row(parent.exchange or "", place)
            for place, parent in enumerate(self._parents)
        }
        made = Derivation(
            derivation=name,
            caller=Caller(principal="team", project="search"),
            declared=self.declared,
            transform=Transform(name="shorten", version="1", kind="rewrite"),
            parents=tuple(self._parents),
            rows=tuple(
                DerivedRow(
                    row=Commitment(alg="sha256-salted", value=salted_sha256(salt, row)),
                    bytes=len(row),
                    parents=(place,),
                )
                for place, row in rows.items()
            ),
            at=self.now,
            writer=WRITER,
        )
        self._add(write_statement(made, (), self.signer))
        self._contents.append((name, Content(request=b"", salt=salt, rows=rows)))
        self._parents = []


def _row(exchange: str, number: int) -> bytes:
    """Return a training row of some six hundred bytes, another one for every exchange."""
    words = [WORDS[ord(letter) % len(WORDS)] for letter in exchange]
    return canonical_json(
        {
            "messages": [
                {"role": "user", "content": f"{number} " + " ".join(words * 2)},
                {"role": "assistant", "content": " ".join(reversed(words * 2))},
            ]
        }
    )


def _opened(place: Path) -> Installation:
    return open_installation(argparse.Namespace(config=str(place / "gateway.yaml")))


@dataclass(frozen=True, slots=True)
class Taken:
    """What one command took; memory is that of its largest process."""

    wall_s: float
    cpu_s: float
    mib: float


def _run(command: list[str]) -> Taken:
    begun = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    peak_kib = 0
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=HERE.parent,
        env=environment,
    ) as process:
        while True:
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            # What `wait4` says of memory begins with that of the process which started it.
            peak_kib = max(peak_kib, *map(_peak_kib, _family(process.pid)))
            time.sleep(LOOK_S)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"`{' '.join(command[:5])} …` ended with {process.returncode}")
    return Taken(wall, used.ru_utime + used.ru_stime, peak_kib / 1024)


def _family(pid: int) -> Iterator[int]:
    """Yield a process and all that it started."""
    yield pid
    try:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _family(int(child))
    except OSError:
        return


def _peak_kib(pid: int) -> int:
    """Return the most memory that a process held so far."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def _table(report: dict[str, Any]) -> str:
    kind = "derived rows" if report["derived"] else "rows"
    size = f"{report['rows']} {kind}, {report['bytes'] / 1e6:.0f} MB"
    lines = [f"{size}, {report['cores']} cores, load {report['load']:.1f}"]
    for step, note in (
        ("least", "read, hash, write"),
        ("build", f"ratio {report['ratio_build']:.2f}"),
        ("verify", f"ratio {report['ratio_verify']:.2f}"),
    ):
        lines.append(
            f"{step:<8} {report['wall_s'][step]:8.2f} s   CPU {report['cpu_s'][step]:8.2f} s   "
            f"{report['mib'][step]:6.0f} MiB   {note}"
        )
    both = f"{report['ratio']:.2f} times the least, by CPU {report['ratio_cpu']:.2f}"
    lines.append(f"build and verify together: {both}")
    return "\n".join(lines)


def _over_budget(report: dict[str, Any]) -> int:
    budget = yaml.safe_load((HERE / "budget.yaml").read_text())["dataset"]
    over = [
        f"{name}: {found:.2f} > {bar}"
        for name, found, bar in (
            ("ratio", report["ratio"], budget["ratio_max"]),
            ("MiB", max(report["mib"].values()), budget["mib_max"]),
        )
        if found > bar
    ]
    for line in over:
        print(f"over budget: {line}")
    return int(bool(over))


if __name__ == "__main__":
    sys.exit(main())

"""A publisher that dies at any moment leaves nothing that contradicts anything."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from gateway.clock import FrozenClock
from gateway.ledger.publishing.cosigner import Cosigner, open_witness
from gateway.receipt.keys import LogSigner, generate_pem
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.checkpoint import parse_checkpoint
from gateway.tlog.cosignature import check_quorum, parse_cosignature_vkey
from gateway.tlog.note import parse_note, parse_vkey
from tests.support.publishing import open_publisher
from tests.support.tools import needed
from tests.support.witness import ROOT, CrookedServer

ORIGIN: Final = "log.example/killed"
CALLS: Final = ("pwrite64", "fdatasync", "write", "fsync", "rename", "sendto")
TIMES: Final = 1


class House:
    """A ledger, its copy, and its witness, which lives on."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.copy = folder / "data", folder / "medium" / "checkpoint"
        self.key = folder / "log.key"
        for made in (self.folder, self.copy.parent):
            made.mkdir(parents=True)
        pem = generate_pem("ed25519")
        self.key.write_bytes(pem)
        SqliteLedger.create(self.folder / "ledger.db", ORIGIN).close()
        signer = open_witness(folder / "w.key", folder / "w.state", "witness.example/w")
        log = parse_vkey(LogSigner(pem, ORIGIN).vkey)
        self.witness = Cosigner(folder / "w.state", signer, [log], FrozenClock())

    def answer(self, body: bytes) -> tuple[int, str, bytes]:
        """Answer for the witness."""
        reply = self.witness.answer(body)
        return reply.status, reply.kind, reply.text.encode()

    def publish(self, url: str, *before: str) -> list[int]:
        """Append and publish in a process of its own; return what it said it published."""
        ran = subprocess.run(
            [
                *(*before, sys.executable, "-m", "tests.support.publishing"),
                *(str(self.folder), str(self.key), str(self.copy), url, self.witness.vkey),
                str(TIMES),
            ],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={"PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ.get("PATH", "")},
            check=False,
        )
        assert "Error" not in ran.stderr, ran.stderr
        return [int(line) for line in ran.stdout.split()]

    def sizes(self) -> dict[str, int]:
        """Return how many leaves each place says there are, the last place to be written first.

        Each checkpoint is cosigned.
        """
        with contextlib.closing(SqliteLedger(self.folder / "ledger.db")) as store:
            kept, leaves = store.checkpoint(), store.head().size
        notes = {"file": _text(self.folder / "checkpoint"), "ledger": kept}
        notes["copy"] = _text(self.copy)
        sizes = {}
        for place, note in notes.items():
            sizes[place] = 0
            if note is not None:
                assert check_quorum(note, [parse_cosignature_vkey(self.witness.vkey)], 1)
                sizes[place] = parse_checkpoint(parse_note(note)[0]).size
        return {**sizes, "leaves": leaves}


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


@contextlib.contextmanager
def house(folder: Path) -> Iterator[tuple[House, str]]:
    """Return a house, and where its witness listens."""
    one = House(folder)
    with contextlib.closing(one.witness), CrookedServer(one.answer) as server:
        yield one, server.url


@pytest.mark.crash
@pytest.mark.timeout(1500)
def test_it_may_die_at_every_system_call(tmp_path: Path) -> None:
    """What was handed out stands everywhere, later places never know more, and all goes on."""
    strace, trace = str(needed("strace")), tmp_path / "trace"
    with house(tmp_path / "whole") as (whole, url):
        said = whole.publish(
            url, strace, "-f", "-qq", "-o", str(trace), "-e", f"trace={','.join(CALLS)}"
        )
    assert [2] == said
    counts = Counter(
        call for line in trace.read_text().splitlines() for call in CALLS if f" {call}(" in line
    )
    died = 0
    for call in CALLS:
        assert counts[call], call
        for when in range(1, counts[call] + 1):
            inject = f"inject={call}:signal=KILL:when={when}"
            with house(tmp_path / f"{call}-{when}") as (one, url):
                said = one.publish(
                    url, strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
                    "-e", inject,
                )  # fmt: skip
                sizes = one.sizes()
                died += said != [2]

                assert [0, *said][-1] <= sizes["file"], (call, when)
                assert sorted(sizes.values()) == list(sizes.values()), (call, when, sizes)
                store, publisher = open_publisher(
                    one.folder, one.key, one.copy, url, one.witness.vkey
                )
                with contextlib.closing(store):
                    store.append([b"after"])
                    publisher.checkpoint_now()
                    publisher.close()
                assert {sizes["leaves"] + 1} == set(one.sizes().values()), (call, when)
    assert died > 5

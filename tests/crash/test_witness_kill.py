"""A witness that dies at any moment has never cosigned two histories."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.clock import FrozenClock
from gateway.errors import LedgerUnwellError
from gateway.ledger.publishing.cosigner import Cosigner, open_witness
from gateway.tlog.checkpoint import parse_checkpoint
from gateway.tlog.cosignature import cosigned_by
from gateway.tlog.note import parse_note, parse_vkey
from tests.support.tools import needed
from tests.support.witness import LOG, ROOT, MemoryLog, WitnessProcess, a_log, post

SIZES = 60


class Seen:
    """Every checkpoint that was ever handed out cosigned."""

    def __init__(self, witness: WitnessProcess) -> None:
        self._witness = witness
        self._noting = threading.Lock()
        self.roots: dict[int, bytes] = {}

    def ask(self, log: MemoryLog, old_size: int, size: int) -> int | None:
        """Ask for a cosignature; return the status, or `None` where there was no answer."""
        body = log.body(old_size, size)
        try:
            answer = post(self._witness.url, body)
        except LedgerUnwellError:
            return None
        if answer.status == 409:
            return -int(answer.body)
        if answer.status != 200:
            return answer.status
        note = log.note(size) + answer.body.decode()
        assert cosigned_by(note, [self._witness.verifier])
        checkpoint = parse_checkpoint(parse_note(note)[0])
        with self._noting:
            before = self.roots.setdefault(checkpoint.size, checkpoint.root)

        assert before == checkpoint.root, f"two roots of {checkpoint.size} leaves"
        return 200

    def agree_with(self, *histories: MemoryLog) -> None:
        """Check that all that was cosigned belongs to one of *histories*."""
        fits = [
            log
            for log in histories
            if all(root == log.root(0, size) for size, root in self.roots.items())
        ]

        assert fits, "what was cosigned belongs to no one history"


def climb(seen: Seen, log: MemoryLog, rng: random.Random, stop: threading.Event) -> None:
    """Have *log* cosigned, by steps, until it is whole or another history took the place."""
    known = 0
    while not stop.is_set() and known < SIZES:
        status = seen.ask(log, known, rng.randint(known, min(known + 4, SIZES)))
        if status is not None and status <= 0:
            known = min(-status, SIZES)
        elif status == 422:
            return


@pytest.mark.crash
def test_two_histories_race_through_kills(tmp_path: Path) -> None:
    """Forks of one log are asked for at once while the witness is killed again and again."""
    witness = WitnessProcess(tmp_path / "w", "witness.example/w", LOG.vkey).start()
    seen, rng = Seen(witness), random.Random(7)
    forks = [a_log(SIZES, tail, common=5) for tail in ("a", "b", "c")]
    stop = threading.Event()
    climbers = [
        threading.Thread(target=climb, args=(seen, log, random.Random(n), stop))
        for n, log in enumerate(forks)
    ]
    for one in climbers:
        one.start()
    for _ in range(6):
        stop.wait(rng.uniform(0.02, 0.4))
        witness.kill()
        witness.start()
    until = time.monotonic() + 120
    stop.wait(1)
    while not seen.roots and time.monotonic() < until:
        stop.wait(0.1)
    stop.set()
    for one in climbers:
        one.join()
    witness.kill()

    assert seen.roots
    seen.agree_with(*forks)


FAULTS = [
    (call, when, fault)
    for call, times in (("write", 4), ("fsync", 4), ("rename", 2))
    for when in range(1, times + 1)
    for fault in ("signal=KILL", "error=EIO")
]


@pytest.mark.crash
def test_every_system_call_of_a_cosignature_may_fail(tmp_path: Path) -> None:
    """Each write, sync and rename fails once, or is the last thing that happens.

    What was answered is remembered; what was not may be, and then it is that history which
    goes on, and no other one.
    """
    strace, wrong = str(needed("strace")), []
    for call, when, fault in FAULTS:
        folder = tmp_path / f"{call}-{when}-{fault}"
        folder.mkdir()
        one, other = a_log(SIZES, "a", common=5), a_log(SIZES, "b", common=5)
        with cosigner(folder) as witness:
            assert 200 == witness.answer(one.body(0, 5)).status
        asked = b"".join(one.body(n, n + 1).hex().encode() + b"\n" for n in (5, 6))
        ran = subprocess.run(
            [
                *(strace, "-f", "-qq", "-o", str(folder / "trace")),
                *("-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={when}"),
                *(sys.executable, "-m", "tests.support.cosigning"),
                *(str(folder / "key"), str(folder / "state"), LOG.vkey),
            ],
            input=asked,
            capture_output=True,
            cwd=ROOT,
            env={"PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ.get("PATH", "")},
            check=False,
        )
        answered = ran.stdout.decode().splitlines()
        acknowledged = 5 + sum(line.startswith("200 ") for line in answered)
        if "INJECTED" not in (folder / "trace").read_text() and fault != "signal=KILL":
            wrong.append(f"{folder.name}: nothing was injected")
        with cosigner(folder) as witness:
            held = int(witness.answer(one.body(0, SIZES)).text)
            if held < acknowledged:
                wrong.append(f"{folder.name}: {acknowledged} were cosigned, {held} are known")
            # Up to leaf 5 both histories are one.
            sizes = (held, SIZES) if held > 5 else ()
            if 200 in [witness.answer(other.body(held, new)).status for new in sizes]:
                wrong.append(f"{folder.name}: two histories")
            if witness.answer(one.body(held, SIZES)).status != 200:
                wrong.append(f"{folder.name}: the one history does not go on")

    assert [] == wrong


@contextlib.contextmanager
def cosigner(folder: Path) -> Iterator[Cosigner]:
    """Open a witness of `LOG` whose files are in *folder*."""
    signer = open_witness(folder / "key", folder / "state", "witness.example/w")
    made = Cosigner(folder / "state", signer, [parse_vkey(LOG.vkey)], FrozenClock())
    with contextlib.closing(made):
        yield made

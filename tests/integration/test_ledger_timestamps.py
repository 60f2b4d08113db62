"""Timestamps from the first checkpoint to an auditor's desk, with the commands people run."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from gateway.clock import SystemClock
from gateway.ledger.publishing.timestamp import Stamper
from gateway.receipt.keys import format_trust
from tests.support.authority import Authority
from tests.support.evidence import TRUST
from tests.support.store import LedgerUnderTest, exchanges
from tests.support.witness import ROOT

_TOLD: Final = re.compile(r"fine: (.*) leaves were there at (.*), says CN=Test TSA")


class Desk:
    """An auditor's folder: tokens, notes, certificates and a trust file; no ledger."""

    def __init__(self, folder: Path, since: dt.datetime) -> None:
        self.folder = folder
        self.stamps = folder / "timestamps"
        self.since = since
        """Before this nothing was stamped."""

    def look(self, *words: str) -> tuple[int, list[str], str]:
        """Run the command; return its exit code, lines and complaint."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "gateway", "ledger", "timestamps", "timestamps"),
                *("--trust", "trust.json", *words),
            ],
            cwd=self.folder,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Return a desk with two checkpoints, stamped."""
    since = dt.datetime.now(dt.UTC).replace(microsecond=0)
    authority = Authority(tmp_path / "authority")
    data = tmp_path / "data"
    data.mkdir()
    ledger = LedgerUnderTest(data)
    stamper = Stamper(
        tmp_path / "timestamps",
        [authority.server.url],
        authority.root,
        every_hours=1,
        clock=SystemClock(),
    )
    with authority.server:
        stamper.look()
        for _ in range(2):
            ledger.store.append(exchanges(1))
            stamper.offer(ledger.publisher().checkpoint_now())
            stamper.stamp_what_is_due()
            stamper._last = [None]
        stamper._lines[0].close()
    ledger.store.close()
    (tmp_path / "trust.json").write_bytes(format_trust(TRUST))
    (tmp_path / "roots.pem").write_bytes(authority.root.read_bytes())
    return Desk(tmp_path, since)


def test_an_auditor_verifies_timestamps_offline(desk: Desk) -> None:
    """Each token says when its checkpoint was there; a changed note or token is named."""
    code, lines, _ = desk.look("--certificates", "roots.pem")

    assert 0 == code
    told = [_TOLD.fullmatch(line) for line in lines]
    assert ["2-1.tsr: 2", "4-1.tsr: 4"] == [one and one[1] for one in told]
    times = [dt.datetime.fromisoformat(one[2]) for one in told if one]
    assert desk.since <= times[0] <= times[1] <= dt.datetime.now(dt.UTC)
    note = desk.stamps / "4.checkpoint"
    note.write_bytes((desk.stamps / "2.checkpoint").read_bytes())
    code, lines, _ = desk.look("--certificates", "roots.pem")
    assert (1, True) == (code, lines[1].startswith("not fine: 4-1.tsr: not a timestamp of"))
    (desk.stamps / "4-1.tsr").write_bytes((desk.stamps / "2-1.tsr").read_bytes())
    code, lines, _ = desk.look("--certificates", "roots.pem")
    assert (1, "not fine: 4-1.tsr: its note is of 2 leaves") == (code, lines[1])


def test_nothing_stamped_is_not_fine(desk: Desk) -> None:
    """No token, no certificates and no trust file are said, each with what to do."""
    for file in desk.stamps.iterdir():
        file.unlink()

    assert (1, ["there is no timestamp in timestamps"], "") == desk.look(
        "--certificates", "roots.pem"
    )
    code, _, told = desk.look()
    assert (3, True) == (code, "--certificates" in told)
    (desk.folder / "trust.json").unlink()
    code, _, told = desk.look("--certificates", "roots.pem")
    assert (3, True) == (code, "--trust" in told)

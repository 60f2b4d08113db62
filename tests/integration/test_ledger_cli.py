"""The commands that look after the ledger and the gateway's keys, as a person runs them."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest

from gateway.receipt.keys import parse_trust
from gateway.receipt.verify import verify_bundle, verify_checkpoint
from gateway.store import sqlite
from gateway.store.access import AccessKeys
from gateway.store.sqlite import SqliteLedger
from tests.support.nursery import shared
from tests.support.store import an_exchange_id, an_opening


class Folder:
    """A working directory with an installation in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "gateway-data"

    def gateway(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one command."""
        return shared().run(self.path, words, timeout_s=200)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return a fresh installation with two leaves."""
    one = Folder(tmp_path)
    made = one.gateway("init")
    assert made.returncode == 0, made.stderr
    with contextlib.closing(SqliteLedger(one.data / "ledger.db")) as store:
        store.append([an_opening(an_exchange_id(n)) for n in range(2)])
    return one


def test_checkpoint_prove_and_fsck_fit_together(folder: Folder) -> None:
    """A checkpoint is signed, a leaf proved under it, and the whole ledger found clean."""
    trust = parse_trust((folder.data / "trust.json").read_bytes())

    note = folder.gateway("ledger", "checkpoint")
    assert verify_checkpoint(note.stdout, trust).size == 2
    proved = folder.gateway("ledger", "prove", "1", "--out", "bundle.json")
    assert proved.returncode == 0, proved.stderr
    assert verify_bundle((folder.path / "bundle.json").read_bytes(), trust).index == 1
    checked = folder.gateway("ledger", "fsck")
    assert checked.returncode == 0, checked.stdout
    assert "2 leaves (2 opening)" in checked.stdout
    assert checked.stdout.endswith("clean\n")


def test_what_is_not_there_is_not_proved(folder: Folder) -> None:
    """An unknown exchange is wrong usage, in one line."""
    refused = folder.gateway("ledger", "prove", "x-01JD0000000000000000000000")

    assert refused.returncode == 2
    assert refused.stderr.startswith("gateway: thing.unknown: ")
    assert refused.stderr.count("\n") == 1


def test_fsck_finds_an_edited_leaf(folder: Folder) -> None:
    """One edited byte makes fsck exit 1, even where nothing else would start."""
    folder.gateway("ledger", "checkpoint")
    with contextlib.closing(sqlite.connect(folder.data / "ledger.db")) as connection:
        connection.execute("UPDATE leaf SET leaf = CAST(leaf || ' ' AS BLOB) WHERE seq = 0")

    checked = folder.gateway("ledger", "fsck")

    assert checked.returncode == 1
    assert "receipt.malformed: leaf 0" in checked.stdout
    assert "root.differs" in checked.stdout


@pytest.mark.parametrize("words", [("fsck",), ("checkpoint",)])
def test_a_ledger_cut_short_is_the_operators(folder: Folder, words: tuple[str, ...]) -> None:
    """A truncated file is one line that says who must do what, and exit code 3."""
    ledger = folder.data / "ledger.db"
    ledger.write_bytes(ledger.read_bytes()[:20_000])

    refused = folder.gateway("ledger", *words)

    assert refused.returncode == 3
    assert "the operator must" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert len(ledger.read_bytes()) == 20_000


def test_a_key_is_shown_once_and_ends_at_once(folder: Folder) -> None:
    """A key made by command opens the door, is listed without its secret, and can be ended."""
    made = folder.gateway("key", "new", "--principal", "ada", "--project", "search")
    secret = made.stdout.strip()
    with contextlib.closing(AccessKeys(folder.data / "access.db")) as access:
        found = access.find(secret)
        assert found is not None
        listed = folder.gateway("key", "list").stdout
        assert found.id in listed
        assert secret not in listed
        assert folder.gateway("key", "revoke", found.id).returncode == 0

        assert access.find(secret) is None
    assert folder.gateway("key", "revoke", "key-none").returncode == 2
    wrong = folder.gateway("key", "new", "--principal", "a b", "--project", "search")
    assert wrong.returncode == 3


def test_a_key_file_that_others_can_read_stops_everything(folder: Folder) -> None:
    """Wrong permissions are one line with the command that mends them."""
    (folder.data / "keys" / "manifest.key").chmod(0o644)

    refused = folder.gateway("ledger", "checkpoint")
    assert refused.returncode == 3
    assert "chmod 600" in refused.stderr
    (folder.data / "keys" / "manifest.key").chmod(0o600)
    assert parse_trust((folder.data / "trust.json").read_bytes()).origin

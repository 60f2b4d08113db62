"""`ledger export`, `ledger prove --since`, `receipt export --cose`, as a person runs them."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from scitt_cose import verify_receipt

from gateway.store.sqlite import SqliteLedger
from tests.support.foreign import GoVerifier, build_go_verifier
from tests.support.nursery import shared
from tests.support.store import an_exchange_id, an_opening


class Folder:
    """A working directory with an installation in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "gateway-data"

    def gateway(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command."""
        done = shared().run(self.path, words, timeout_s=200)

        assert not ok or done.returncode == 0, done.stdout + done.stderr
        return done

    def grow(self, first: int, stop: int) -> None:
        """Add openings."""
        with contextlib.closing(SqliteLedger(self.data / "ledger.db")) as store:
            store.append([an_opening(an_exchange_id(n)) for n in range(first, stop)])

    @property
    def vkey(self) -> str:
        """The log's verifier key, as an auditor is given it."""
        key: str = json.loads((self.data / "trust.json").read_bytes())["log"]
        return key


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return a fresh installation with 300 leaves."""
    one = Folder(tmp_path)
    one.gateway("init")
    one.grow(0, 300)
    return one


@pytest.fixture
def go(tmp_path: Path) -> GoVerifier:
    """Return the verifier that is made of Go's own notes and trees."""
    return build_go_verifier(tmp_path)


def test_a_log_is_exported_grows_and_is_exported_again(folder: Folder, go: GoVerifier) -> None:
    """A folder is the log, and still is when it is written again later."""
    first = folder.gateway("ledger", "export", "log")
    held = (folder.path / "log/checkpoint").read_bytes()
    (folder.path / "held").write_bytes(held)
    folder.grow(300, 600)
    second = folder.gateway("ledger", "export", "log")

    assert "log: 300 leaves in 5 tiles, 5 of them new\n" == first.stdout
    assert "log: 600 leaves in 7 tiles, 5 of them new\n" == second.stdout
    said = go.accepts("folder", folder.vkey, folder.path / "log", folder.path / "held")
    assert "grown from 300" in said


def test_hashes_alone_are_exported(folder: Folder, go: GoVerifier) -> None:
    """What everyone may see holds no leaf, and still shows how the log grows."""
    folder.gateway("ledger", "export", "log", "--without-entries")

    assert not (folder.path / "log/tile/entries").exists()
    go.accepts("hashes", folder.vkey, folder.path / "log")


def test_growth_is_proved_to_who_holds_a_checkpoint(folder: Folder, go: GoVerifier) -> None:
    """An auditor's own checkpoint and a proof of some hundred bytes are enough."""
    (folder.path / "held").write_text(folder.gateway("ledger", "checkpoint").stdout)
    folder.grow(300, 600)
    told = folder.gateway("ledger", "prove", "--since", "300", "--out", "growth")
    printed = folder.gateway("ledger", "prove", "--since", "300")

    assert "compare it with your checkpoint of 300 leaves" in told.stdout
    assert (folder.path / "growth").read_text() == printed.stdout
    said = go.accepts("consistency", folder.vkey, folder.path / "held", folder.path / "growth")
    assert "300 leaves grew into 600" in said


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("prove", "--since", "301"), 1),
        (("prove", "--since", "-1"), 2),
        (("prove", "--since", "0x3"), 2),
        (("prove", "--since", "3", "7"), 2),
        (("prove",), 2),
        (("prove", "300"), 2),
        (("prove", "9" * 5000), 2),
        (("export",), 2),
        (("export", "gateway.yaml"), 3),
    ],
)
def test_what_can_not_be_shown_is_said_in_one_line(
    words: tuple[str, ...], code: int, folder: Folder
) -> None:
    """A size or a leaf that the log has not, or a folder that is none."""
    (folder.path / "gateway.yaml").write_text("listen: 127.0.0.1:0\n")
    refused = folder.gateway("ledger", *words, ok=False)

    assert code == refused.returncode, refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_cose_receipt_is_exported_with_its_leaf(folder: Folder) -> None:
    """SCITT's tools verify the two files with the key in the trust file."""
    told = folder.gateway("receipt", "export", "299", "--cose", "--out", "one.cose")
    raw = base64.b64decode(folder.vkey.split("+", 2)[2])[1:]
    key = Ed25519PublicKey.from_public_bytes(raw)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    leaf = (folder.path / "one.cose.leaf").read_bytes()
    result = verify_receipt(
        (folder.path / "one.cose").read_bytes(),
        leaf_entry_hex=leaf.hex(),
        log_public_key_pem=pem,
    )

    assert "a COSE receipt for leaf 299" in told.stdout
    assert (True, 300, 299) == (result.ok, result.tree_size, result.leaf_index)

"""Laws of rotating, revoking and replacing signing keys, and of a log's succession."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import settings
from gateway.app.installation import Installation, init, open_sourced
from gateway.cli.main import main
from gateway.errors import BadProofError, BadSignatureError, EvidenceError, GatewayError
from gateway.ledger.custody.fsck import fsck
from gateway.receipt.keys import (
    Trust,
    generate_pem,
    parse_public_pem,
    parse_trust,
    trusted_keys,
)
from gateway.receipt.model import KeyAuthorization, LogSuccession
from gateway.receipt.statement import read_leaf, write_statement
from gateway.receipt.verify import read_checkpoint, verify_bundle, verify_trust
from gateway.store.sqlite import SqliteLedger
from tests.support.evidence import ACTIVATION
from tests.support.tools import needed

OLD, NEW = "log.example/one", "log.example/two"


class House:
    """An installation in a folder, opened as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "gateway.yaml"
        self.file.write_text("data: ./data\n")
        self.data = folder / "data"
        self.sourced = settings.load(self.file, environment={})
        init(self.sourced, OLD)
        self.bundles: list[bytes] = []

    def copied_to(self, folder: Path) -> House:
        """Return the same installation, copied."""
        shutil.copytree(self.folder, folder)
        house = House.__new__(House)
        house.folder, house.file, house.data = folder, folder / self.file.name, folder / "data"
        house.sourced = settings.load(house.file, environment={})
        house.bundles = list(self.bundles)
        return house

    def open(self) -> contextlib.closing[Installation]:
        """Return the installation, opened."""
        return contextlib.closing(open_sourced(self.sourced))

    def say(self) -> None:
        """State something with a receipt key of its own, and keep its bundle."""
        with self.open() as opened:
            leaf = write_statement(ACTIVATION, (), opened.keyring.receipt)
            index = opened.sequencer.append_and_wait(leaf).index
            note = opened.sequencer.checkpoint_now()
            self.bundles.append(opened.reader.bundle(index, note))

    def run(self, *words: str) -> int:
        """Run a command of the gateway's."""
        return main(["--config", str(self.file), *words])

    @property
    def trust(self) -> Trust:
        """What an auditor is given now."""
        return parse_trust((self.data / "trust.json").read_bytes())

    def check(self) -> None:
        """Check all: the trust file's signature, every bundle ever given, and every leaf."""
        root = parse_public_pem((self.data / "root.pub").read_text())
        trust, _ = verify_trust(
            (self.data / "trust.json").read_bytes(),
            (self.data / "trust.sigstore.json").read_bytes(),
            root,
        )
        for bundle in self.bundles:
            verify_bundle(bundle, trust)
        with contextlib.closing(SqliteLedger(self.data / "ledger.db")) as store:
            published = [(self.data / "checkpoint").read_text()]
            report = fsck(store, trust, published=published)
        assert [] == [str(one) for one in report.findings]
        assert trust.origin == trusted_keys(trust).log.name


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Return an installation that has said something."""
    made = House(tmp_path)
    made.say()
    return made


def test_a_manifest_key_is_rotated(house: House) -> None:
    """The new key is authorised by the old one, which ends; old bundles verify for ever."""
    (old,) = house.trust.manifest_keys
    for count in (2, 3):
        assert house.run("key", "rotate", "manifest") == 0
        house.say()

        assert len(house.trust.manifest_keys) == count
        house.check()
    first, second, third = house.trust.manifest_keys
    assert (first.key, first.since) == (old.key, 0)
    assert first.until is not None
    assert second.until is not None
    assert first.until > second.since - 1
    assert third.until is None


def test_what_an_ended_manifest_key_signs_is_nothing(house: House) -> None:
    """After its end an old manifest key authorises nobody, even for whoever can write."""
    with house.open() as opened:
        old = opened.keyring.manifest
    assert house.run("key", "rotate", "manifest") == 0
    with house.open() as opened:
        held = opened.keyring.process.make()
        said = read_leaf(held.authorization)
        assert isinstance(said, KeyAuthorization)
        forged = write_statement(said, (), old)
        at = opened.store.append([forged]).first
        leaf = write_statement(ACTIVATION, (), held.signer)
        index = opened.store.append([leaf]).first
        note = opened.sequencer.checkpoint_now()
        bundle = opened.reader.bundle(index, note)
        assert opened.reader.authority(house.trust).life(held.signer.keyid) is None
        opened.keyring.process.discard(held)

    assert at < index
    with pytest.raises(BadSignatureError, match="revoked since"):
        verify_bundle(bundle, house.trust)


@pytest.mark.parametrize("because", ["--stolen", "--lost"])
def test_a_manifest_key_is_replaced_without_its_help(house: House, because: str) -> None:
    """The root's word alone brings in another manifest key, and ends the old one."""
    (house.data / "keys" / "manifest.key").unlink()
    assert house.run("key", "rotate", "manifest", because) == 0
    house.say()
    house.check()
    old, new = house.trust.manifest_keys

    assert old.until is not None
    assert new.until is None
    assert [one.since for one in house.trust.revoked] == [old.until]
    # And once more, by the ordinary way.
    assert house.run("key", "rotate", "manifest") == 0
    house.say()
    house.check()


def test_a_stolen_manifest_key_ends_where_the_operator_says(house: House) -> None:
    """What it signed after that leaf counts no more, and neither does what that authorised."""
    house.say()
    late = house.bundles.pop()
    assert house.run("key", "rotate", "manifest", "--stolen", "--since", "3") == 0

    with pytest.raises(EvidenceError):
        verify_bundle(late, house.trust)
    (first,) = house.bundles
    verify_bundle(first, house.trust)


def test_a_receipt_key_is_revoked(house: House) -> None:
    """A stolen receipt key counts for nothing from the leaf that is named on."""
    house.say()
    with house.open() as opened:
        one, other = (
            life
            for life in opened.reader.authority(house.trust).lives
            if life.role == "receipt"
        )
    words = ("key", "revoke", other.keyid, "--because", "stolen")
    assert house.run("key", "revoke", other.keyid) == 3
    assert house.run(*words, "--since", "99") == 3
    assert house.run(*words) == 0

    (revoked,) = house.trust.revoked
    assert (revoked.keyid, revoked.since) == (other.keyid, other.since)
    with pytest.raises(BadSignatureError, match="revoked since leaf"):
        verify_bundle(house.bundles[1], house.trust)
    verify_bundle(house.bundles[0], house.trust)
    assert one.keyid != other.keyid


def test_no_key_in_use_is_revoked(house: House) -> None:
    """The manifest key in use is rotated, and so is a receipt key that a process holds."""
    with house.open() as opened:
        manifest, held = opened.keyring.manifest.keyid, opened.keyring.receipt.keyid
        leaf = write_statement(ACTIVATION, (), opened.keyring.receipt)
        opened.sequencer.append_and_wait(leaf)
        for keyid in (manifest, held, "ab" * 32):
            assert house.run("key", "revoke", keyid, "--because", "lost") == 3
    house.check()


def test_a_log_has_a_successor(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """The successor begins with all leaves, in their places; both names verify from then on."""
    frozen_note = (house.data / "checkpoint").read_text()
    with house.open() as opened:
        size = opened.reader.size()
    assert house.run("key", "rotate", "log", "--origin", NEW) == 0
    house.say()
    house.check()
    with house.open() as opened:
        succession = read_leaf(opened.reader.leaf(size))
    (before,) = house.trust.predecessors

    assert isinstance(succession, LogSuccession)
    assert (succession.origin, succession.predecessor.size) == (NEW, size)
    assert (before.origin, before.size, before.trusted) == (OLD, size, True)
    assert house.trust.origin == NEW
    assert read_checkpoint(frozen_note, house.trust).origin == OLD
    capsys.readouterr()
    assert house.run("key", "show") == 0
    assert "frozen" in capsys.readouterr().out
    assert house.run("ledger", "fsck") == 0


def test_a_stolen_log_key_is_worth_nothing(house: House) -> None:
    """Nothing under a stolen key verifies; the same leaves do under the successor."""
    bundle = house.bundles.pop()
    assert house.run("key", "rotate", "log", "--origin", NEW, "--stolen") == 0
    with house.open() as opened:
        again = opened.reader.bundle(1, opened.sequencer.checkpoint_now())

    with pytest.raises(BadSignatureError, match="wrong hands"):
        verify_bundle(bundle, house.trust)
    assert verify_bundle(again, house.trust).index == 1
    house.check()


def test_a_frozen_log_does_not_grow(house: House) -> None:
    """A checkpoint of the old name beyond the frozen size is nobody's evidence."""
    branch = house.copied_to(house.folder.with_name("branch"))
    assert house.run("key", "rotate", "log", "--origin", NEW) == 0
    branch.say()

    with pytest.raises(BadProofError, match="was frozen at"):
        verify_bundle(branch.bundles[-1], house.trust)


def test_whoever_has_the_log_open_under_its_old_name_stops(house: House) -> None:
    """After the succession nothing is added or signed under the old name any more."""
    with house.open() as opened, house.open() as idle:
        assert house.run("key", "rotate", "log", "--origin", NEW) == 0
        leaf = write_statement(ACTIVATION, (), opened.keyring.receipt)
        with pytest.raises(GatewayError, match="is frozen"):
            opened.sequencer.append_and_wait(leaf)
        with pytest.raises(GatewayError, match="is frozen"):
            idle.sequencer.checkpoint_now()
    house.say()
    house.check()


def test_the_root_must_be_at_hand(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the root key nothing begins that could not be ended; elsewhere it is named."""
    root = house.folder / "root.key"
    (house.data / "keys" / "root.key").rename(root)
    before = house.trust

    assert house.run("key", "rotate", "manifest") == 3
    assert "--root" in capsys.readouterr().err
    assert before == house.trust
    assert house.run("key", "rotate", "manifest", "--root", str(root)) == 0
    assert house.run("key", "trust", "--root", str(root)) == 0
    house.check()


def test_a_key_elsewhere_is_taken_in_two_steps(house: House) -> None:
    """First the new key is authorised; once the settings name it the old one ends."""
    pem = house.folder / "manifest.pem"
    pem.write_bytes(generate_pem("p256"))
    pem.chmod(0o600)
    words = ("key", "rotate", "manifest", "--new", f"file:{pem}")
    assert house.run(*words) == 3
    house.say()
    house.check()
    house.file.write_text(f"data: ./data\nsigning: {{manifest: 'file:{pem}'}}\n")
    house.sourced = settings.load(house.file, environment={})
    assert house.run("key", "rotate", "manifest") == 0
    house.say()
    house.check()

    assert [one.until is None for one in house.trust.manifest_keys] == [False, True]


def test_receipt_keys_of_the_gone_are_ended_by_a_rotation(house: House) -> None:
    """`rotate receipt` ends keys whose processes died, where no gateway runs."""
    with house.open() as opened:
        leaf = write_statement(ACTIVATION, (), opened.keyring.receipt)
        opened.sequencer.append_and_wait(leaf)
        held = opened.keyring.process.held
        assert held is not None
        opened.keyring.claims.abandon(held.claim)
        assert house.run("key", "rotate", "receipt") == 0
        life = opened.reader.authority(house.trust).life(held.signer.keyid)
        assert life is not None
        assert life.reason == "process-ended"
        object.__setattr__(opened.keyring.process, "_held", None)
    house.check()


MARKS = "fsync,fdatasync,rename,renameat,renameat2,link,linkat"


def is_killed_at(house: House, number: int, *words: str) -> bool:
    """Run a command that is killed at its mark *number*; tell whether it has so many."""
    strace = str(needed("strace"))
    done = subprocess.run(
        [
            strace,
            *("-f", "-qq", "-o", "/dev/null", "-e", f"trace={MARKS}"),
            *("-e", f"inject={MARKS}:signal=SIGKILL:when={number}"),
            *(sys.executable, "-m", "gateway", "--config", str(house.file), *words),
        ],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in (0, -9, 137), done.stderr
    return done.returncode != 0


STRIDE = 4
"""Every so many marks; a night may take them one by one."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "manifest": ("key", "rotate", "manifest"),
    "replaced": ("key", "rotate", "manifest", "--lost"),
    "log": ("key", "rotate", "log", "--origin", NEW),
}


@pytest.mark.crash
@pytest.mark.parametrize("what", sorted(COMMANDS))
def test_a_rotation_that_was_killed_is_completed(tmp_path: Path, what: str) -> None:
    """Killed at any durable mark, a rotation comes to its end when it is run again.

    In between the gateway works, with evidence that verifies, or it does not open at all.
    """
    (tmp_path / "first").mkdir()
    first = House(tmp_path / "first")
    first.say()
    number, is_killed, opened = 1 - STRIDE, True, 0
    while is_killed:
        number += STRIDE
        house = first.copied_to(tmp_path / f"at-{number}")
        is_killed = is_killed_at(house, number, *COMMANDS[what])
        try:
            house.say()
        except GatewayError:
            assert is_killed, number
        else:
            opened += 1
            verify_bundle(house.bundles[-1], house.trust)
        assert house.run(*COMMANDS[what]) == 0, number
        house.say()
        house.check()
        assert [one.until is None for one in house.trust.manifest_keys].count(True) == 1
    assert number > 5
    assert opened > 2

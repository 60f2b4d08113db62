"""What an attacker shows to `gateway verify`: each attempt is refused."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gateway.canonical import sha256_hex
from gateway.cli import verify
from gateway.dataset.recall_report import FILES, REPLAY_TYPE
from gateway.errors import EvidenceError
from gateway.ident import Sha256
from gateway.receipt.authority import Authority, trust_after
from gateway.receipt.bundle import format_bundle
from gateway.receipt.envelope import seal_statement
from gateway.receipt.keys import (
    Ed25519Signer,
    LogSigner,
    P256Signer,
    Predecessor,
    WitnessSigner,
    format_trust,
    generate_pem,
    parse_trust,
)
from gateway.receipt.model import KeyAuthorization
from gateway.receipt.sigstore import write_manifest, write_trust_signature
from gateway.receipt.statement import write_statement
from gateway.receipt.verify import verify_trust
from tests.support.evidence import (
    AT,
    AUTHORIZATION,
    KEY_AUTHORIZATION,
    KEY_REVOCATION,
    MANIFEST_SIGNER,
    ORIGIN,
    RECEIPT,
    RECEIPT_SIGNER,
    SUBJECTS,
    TRUST,
    a_bundle,
    a_manifest,
)

ROOT = P256Signer(generate_pem("p256"))
BUNDLE = format_bundle(
    a_bundle(write_statement(RECEIPT, SUBJECTS, RECEIPT_SIGNER), authorization=AUTHORIZATION)
)


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    """Return the path of the test's trust file."""
    path = tmp_path / "trust.json"
    path.write_bytes(format_trust(TRUST))
    return path


def run(*words: str | Path) -> int:
    """Run `gateway verify` with *words* and return the exit code."""
    parser = argparse.ArgumentParser()
    verify.add(parser.add_subparsers(required=True))
    args = parser.parse_args(["verify", *map(str, words)])
    code: int = args.run(args)
    return code


def a_report(folder: Path) -> None:
    """Lay a signed report of a replay into *folder*."""
    subject = []
    for name in FILES:
        (folder / name).write_bytes(b"")
        subject.append({"name": name, "digest": {"sha256": sha256_hex(b"")}})
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subject,
        "predicateType": REPLAY_TYPE,
        "predicate": {"on": "2026-11-22", "changed": {}},
    }
    (folder / "report.dsse.json").write_bytes(
        seal_statement(msgspec.json.encode(statement), MANIFEST_SIGNER)
    )


def test_a_report_does_not_speak_for_the_folder_it_was_laid_into(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A signed report beside rows that nobody signed verifies nothing."""
    folder = tmp_path / "folder"
    folder.mkdir()
    a_report(folder)
    assert run(folder, "--trust", trust) == 0
    (folder / "rows.jsonl").write_bytes(b'{"messages":[]}\n')
    assert run(folder, "--trust", trust) == 1
    encoded, _ = write_manifest(a_manifest(), MANIFEST_SIGNER)
    (folder / "rows.jsonl").rename(folder / "manifest.json").write_bytes(encoded)

    assert run(folder, "--trust", trust) == 1
    assert "names no such file" in capsys.readouterr().out


def test_what_the_root_signed_is_what_is_trusted(tmp_path: Path, trust: Path) -> None:
    """The trust file is read once: it can't be another one at a second look."""
    (tmp_path / "root.pub").write_text(ROOT.public.pem)
    signature = write_trust_signature(trust.read_bytes(), ORIGIN, AT, ROOT)
    trust.with_name("trust.sigstore.json").write_bytes(signature)
    (tmp_path / "evidence.json").write_bytes(BUNDLE)
    program = (
        "import sys\n"
        "from gateway.cli.main import main\n"
        "opened = []\n"
        "def hook(event, args): event == 'open' and opened.append(str(args[0]))\n"
        "sys.addaudithook(hook)\n"
        "words = ['verify', 'evidence.json', '--trust', 'trust.json', '--root', 'root.pub']\n"
        "code = main(words)\n"
        "sys.exit(code or opened.count('trust.json') - 1)"
    )
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, check=False
    )

    assert ran.returncode == 0


def test_a_manifest_alone_is_told_not_to_be_shown_in_the_log(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever stole a manifest key can sign one: its place is named as not checked."""
    path = tmp_path / "manifest.json"
    path.write_bytes(write_manifest(a_manifest(), MANIFEST_SIGNER)[0])

    run(path, "--trust", trust)
    assert "not  checked    its place in the log" in capsys.readouterr().out


def test_a_name_in_a_folder_does_not_reach_the_terminal_on_either_stream(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Controls in the name of a file are not obeyed where the path is wrong usage."""
    run(tmp_path / "\x1b[2Jok", "--trust", trust)

    assert "\x1b" not in capsys.readouterr().err


def test_a_root_with_a_second_role_vouches_for_nothing() -> None:
    """A manifest key is no root: whoever steals one must not become the other."""
    encoded = format_trust(TRUST)
    signature = write_trust_signature(encoded, ORIGIN, AT, MANIFEST_SIGNER)

    with pytest.raises(EvidenceError, match="second role"):
        verify_trust(encoded, signature, MANIFEST_SIGNER.public)


WITNESS = WitnessSigner(generate_pem("ed25519"), "witness.example/w1")
TWIN = WitnessSigner(generate_pem("ed25519"), "witness.example/w1")
LOG_PEM = generate_pem("ed25519")
LOG = LogSigner(LOG_PEM, ORIGIN)


@pytest.mark.parametrize(
    "counted",
    [
        (WITNESS.vkey, WITNESS.vkey),
        (WITNESS.vkey, TWIN.vkey),
        (WITNESS.vkey, WitnessSigner(LOG_PEM, "witness.example/w2").vkey),
    ],
    ids=["one key twice", "one name twice", "the log itself"],
)
def test_nobody_counts_twice_in_a_quorum(counted: tuple[str, ...]) -> None:
    """A trust file in which two witnesses are one, or one is the log, is none."""
    twice = msgspec.structs.replace(TRUST, log=LOG.vkey, witnesses=counted, quorum=2)

    with pytest.raises(EvidenceError, match="stands twice"):
        parse_trust(format_trust(twice))


def test_a_log_that_was_frozen_is_no_witness_of_its_successor() -> None:
    """The key of a predecessor counts in no quorum either."""
    older = LogSigner(LOG_PEM, "receipts.example/older")
    frozen = Predecessor(
        origin=older.name, log=older.vkey, size=3, root=Sha256("ab" * 32), trusted=True
    )
    counted = (WitnessSigner(LOG_PEM, "witness.example/w2").vkey,)
    twice = msgspec.structs.replace(TRUST, witnesses=counted, quorum=1, predecessors=(frozen,))

    with pytest.raises(EvidenceError, match="stands twice"):
        parse_trust(format_trust(twice))


THIEVES = [P256Signer(generate_pem("p256")) for _ in range(2)]
PUPPET = Ed25519Signer(generate_pem("ed25519"))


def authorising(signer: Ed25519Signer | P256Signer) -> KeyAuthorization:
    """Return the authorisation of *signer* in the role that its kind of key has."""
    return msgspec.structs.replace(
        KEY_AUTHORIZATION,
        keyid=Sha256(signer.keyid),
        key=signer.public.pem,
        role="receipt" if isinstance(signer, Ed25519Signer) else "manifest",
    )


def test_whom_a_thief_let_sign_goes_with_the_thief() -> None:
    """A stolen manifest key that is ended from the theft on takes along whom it authorised."""
    authority = Authority(TRUST)
    authority.admit(0, KEY_AUTHORIZATION, MANIFEST_SIGNER.keyid)
    authority.admit(10, authorising(THIEVES[0]), MANIFEST_SIGNER.keyid)
    authority.admit(11, authorising(THIEVES[1]), THIEVES[0].keyid)
    authority.admit(12, authorising(PUPPET), THIEVES[1].keyid)
    assert authority.receipt_key(PUPPET.keyid, 13).keyid == PUPPET.keyid

    end = msgspec.structs.replace(
        KEY_REVOCATION,
        keyid=Sha256(MANIFEST_SIGNER.keyid),
        role="manifest",
        since=5,
        reason="stolen",
    )
    authority.admit(20, end, MANIFEST_SIGNER.keyid)

    for gone in map(authority.life, [*(one.keyid for one in THIEVES), PUPPET.keyid]):
        assert gone is not None
        assert gone.until == gone.since
        with pytest.raises(EvidenceError, match="revoked"):
            gone.check(15)
    assert authority.receipt_key(RECEIPT_SIGNER.keyid, 13).keyid == RECEIPT_SIGNER.keyid
    said = trust_after(TRUST, authority, (), (), 0).revoked
    assert {PUPPET.keyid, THIEVES[0].keyid, THIEVES[1].keyid} <= {one.keyid for one in said}

"""What an attacker leaves in a ledger: fsck tells of each of it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import msgspec
import pytest

from gateway import settings
from gateway.app.installation import init, open_sourced
from gateway.app.rotation import Hand, renew_trust
from gateway.errors import GatewayError
from gateway.ident import Sha256
from gateway.ledger.custody.fsck import fsck
from gateway.receipt.keys import (
    Ed25519Signer,
    LogSigner,
    P256Signer,
    TrustedManifestKey,
    generate_pem,
)
from gateway.receipt.statement import write_statement
from tests.support.evidence import (
    AUTHORIZATION,
    KEY_AUTHORIZATION,
    KEY_REVOCATION,
    LOG_SUCCESSION,
    MANIFEST_SIGNER,
    ORIGIN,
    RECEIPT_SIGNER,
    TRUST,
    VERDICT,
)
from tests.support.store import LedgerUnderTest

NEW: Final = P256Signer(generate_pem("p256"))
PUPPET: Final = Ed25519Signer(generate_pem("ed25519"))


def test_what_a_thief_s_puppets_signed_is_listed_apart(tmp_path: Path) -> None:
    """A manifest key that is ended from the theft on takes along what its keys signed."""
    puppet = msgspec.structs.replace(
        KEY_AUTHORIZATION, keyid=Sha256(PUPPET.keyid), key=PUPPET.public.pem
    )
    end = msgspec.structs.replace(
        KEY_REVOCATION,
        keyid=Sha256(MANIFEST_SIGNER.keyid),
        role="manifest",
        since=2,
        reason="stolen",
    )
    ledger = LedgerUnderTest(tmp_path)
    ledger.store.append(
        [
            AUTHORIZATION,
            write_statement(VERDICT, (), RECEIPT_SIGNER),
            write_statement(puppet, (), MANIFEST_SIGNER),
            write_statement(VERDICT, (), PUPPET),
            write_statement(VERDICT, (), RECEIPT_SIGNER),
            write_statement(VERDICT, (), PUPPET),
            write_statement(end, (), NEW),
            write_statement(VERDICT, (), PUPPET),
            write_statement(VERDICT, (), RECEIPT_SIGNER),
        ]
    )
    fresh = TrustedManifestKey(key=NEW.public.pem, since=0)
    trust = msgspec.structs.replace(TRUST, manifest_keys=(*TRUST.manifest_keys, fresh))

    report = fsck(ledger.store, trust)

    assert [2, 3, 5] == report.disowned
    assert [("signature.bad", 7)] == [(one.code, one.index) for one in report.findings]
    ledger.store.close()


@pytest.mark.parametrize("thief", ["of the manifest key", "of no key", "in another place"])
def test_nobody_renames_the_log_by_a_leaf(tmp_path: Path, thief: str) -> None:
    """A succession that the operator did not state leads no trust file to another log."""
    (tmp_path / "gateway.yaml").write_text("data: ./data\n")
    sourced = settings.load(tmp_path / "gateway.yaml", environment={})
    init(sourced, ORIGIN)
    trust_file = tmp_path / "data" / "trust.json"
    before = trust_file.read_bytes()
    with contextlib.closing(open_sourced(sourced)) as house:
        opened = house.keyring
        evil = LogSigner(generate_pem("ed25519"), "evil.example/log")
        frozen = msgspec.structs.replace(
            LOG_SUCCESSION.predecessor,
            origin=ORIGIN,
            log=opened.log.vkey,
            size=house.reader.size() + (1 if thief == "in another place" else 0),
        )
        said = msgspec.structs.replace(
            LOG_SUCCESSION, origin=evil.name, log=evil.vkey, predecessor=frozen
        )
        signer = NEW if thief == "of no key" else opened.manifest
        house.sequencer.append_and_wait(write_statement(said, (), signer))
        house.reader.catch_up()

        with pytest.raises(GatewayError):
            renew_trust(house, Hand(by="ada", root=P256Signer(generate_pem("p256"))))
    assert before == trust_file.read_bytes()

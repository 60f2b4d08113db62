"""What an attacker leaves in a ledger: fsck tells of each of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from gateway.ident import Sha256
from gateway.ledger.fsck import fsck
from gateway.receipt.keys import Ed25519Signer, P256Signer, TrustedManifestKey, generate_pem
from gateway.receipt.statement import write_statement
from tests.support.evidence import (
    AUTHORIZATION,
    KEY_AUTHORIZATION,
    KEY_REVOCATION,
    MANIFEST_SIGNER,
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

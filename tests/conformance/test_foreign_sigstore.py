"""Sigstore's own JavaScript accepts our manifests, and nothing bent.

Its packages come from npm by a lock file; the few lines that ask them are in `foreign/npm`.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.receipt.envelope import open_envelope
from gateway.receipt.keys import P256Signer, format_trust, generate_pem
from gateway.receipt.model import TRAINING_BUILD, Manifest
from gateway.receipt.sigstore import open_manifest, write_manifest, write_trust_signature
from gateway.receipt.statement import read_payload
from tests.conformance.test_vectors import vectors
from tests.support.dataset import House
from tests.support.evidence import AT, MANIFEST_SIGNER, RECEIPT_SIGNER, TRUST, a_manifest
from tests.support.foreign import SigstoreJs, flipped, places
from tests.support.model import a_model

KEY = MANIFEST_SIGNER.public.pem
OTHER = P256Signer(generate_pem("p256"))
BUNDLE, LEAF = write_manifest(a_manifest(), MANIFEST_SIGNER)


def a_training() -> dict[str, Any]:
    """Return the statement of a small training manifest."""
    manifest = a_manifest()
    manifest["predicate"]["buildDefinition"]["buildType"] = TRAINING_BUILD
    return manifest


@pytest.mark.parametrize("statement", [a_manifest(), a_training()], ids=["dataset", "training"])
def test_a_manifest_is_accepted(statement: dict[str, Any], sigstore_js: SigstoreJs) -> None:
    """A manifest is a Sigstore bundle signed by the manifest key; lineage's digest is seen."""
    bundle, leaf = write_manifest(statement, MANIFEST_SIGNER)
    manifest = read_payload(open_envelope(leaf).payload)

    assert isinstance(manifest, Manifest)
    assert [f"ok {manifest.payload_sha256}"] == sigstore_js([(bundle, KEY)])


def test_the_manifests_of_folders_are_accepted(sigstore_js: SigstoreJs, tmp_path: Path) -> None:
    """`manifest.json` of a dataset that was built, and of a model, as they lie there."""
    house = House(tmp_path / "house")
    model = a_model(house)
    house.close()
    files = [house.folder / "datasets" / "set" / "manifest.json", model / "manifest.json"]
    copy = (model / "evidence" / "set.manifest.json").read_bytes()
    answers = sigstore_js([(file.read_bytes(), KEY) for file in files])
    bent = sigstore_js([(copy.replace(b'"payload":"e', b'"payload":"f'), KEY)])

    assert ["ok", "ok", "fail"] == [answer.split()[0] for answer in (*answers, *bent)]


def changed(**more: Any) -> str:
    """Return the bundle with parts of its envelope, or its hint, replaced."""
    bundle = json.loads(BUNDLE)
    envelope = bundle["dsseEnvelope"]
    envelope |= {key: more[key] for key in more if key in envelope}
    if "sig" in more:
        envelope["signatures"] = [{"sig": more["sig"]}]
    if "hint" in more:
        bundle["verificationMaterial"]["publicKey"]["hint"] = more["hint"]
    bundle |= {key: more[key] for key in more if key in bundle}
    return json.dumps(bundle)


SIGNATURE = base64.b64decode(json.loads(LEAF)["signatures"][0]["sig"])
PAYLOAD = base64.b64decode(json.loads(LEAF)["payload"])
BENT: dict[str, str] = {
    "another digest of a file": changed(
        payload=base64.b64encode(PAYLOAD.replace(b"e" * 64, b"f" * 64)).decode()
    ),
    "a truncated payload": changed(payload=base64.b64encode(PAYLOAD[:-1]).decode()),
    "another payload type": changed(payloadType="application/json"),
    "no signature": changed(signatures=[]),
    "an empty signature": changed(sig=""),
    "a truncated signature": changed(sig=base64.b64encode(SIGNATURE[:-1]).decode()),
    "the signature of another manifest": changed(
        sig=json.loads(write_manifest(a_training(), MANIFEST_SIGNER)[1])["signatures"][0]["sig"]
    ),
    "another key's signature": changed(
        sig=json.loads(write_manifest(a_manifest(), OTHER)[1])["signatures"][0]["sig"]
    ),
    "another key's hint": changed(hint=base64.b64encode(bytes(32)).decode()),
    "another media type": changed(
        mediaType="application/vnd.dev.sigstore.bundle+json;version=9"
    ),
    "nothing": "{}",
}


@pytest.mark.parametrize("mutation", BENT)
def test_a_bent_manifest_is_rejected(mutation: str, sigstore_js: SigstoreJs) -> None:
    """What the manifest key did not sign in these bytes is no manifest."""
    assert BENT[mutation] != BUNDLE.decode()
    (answer,) = sigstore_js([(BENT[mutation], KEY)])

    assert answer.startswith("fail ")


def test_another_key_is_rejected(sigstore_js: SigstoreJs) -> None:
    """Neither another manifest key, nor a key of another role, is taken for the signer's."""
    for key in (OTHER.public.pem, RECEIPT_SIGNER.public.pem):
        (answer,) = sigstore_js([(BUNDLE, key)])

        assert answer.startswith("fail ")


def test_every_changed_byte_of_payload_and_signature_is_rejected(
    sigstore_js: SigstoreJs,
) -> None:
    """Whichever byte of what is signed, or of the signature, is changed, it is refused."""
    payloads = [flipped(PAYLOAD, at) for at in places(len(PAYLOAD), 150)]
    bent = [changed(payload=base64.b64encode(one).decode()) for one in payloads]
    bent += [
        changed(sig=base64.b64encode(flipped(SIGNATURE, at)).decode())
        for at in range(len(SIGNATURE))
    ]
    answers = sigstore_js([(one, KEY) for one in bent])

    assert [] == [at for at, answer in enumerate(answers) if not answer.startswith("fail ")]


def test_the_foreign_verifier_reads_the_bundle_we_read(sigstore_js: SigstoreJs) -> None:
    """What it accepts is exactly what stands in the ledger."""
    assert LEAF == open_manifest(BUNDLE)[0]
    assert sigstore_js([(BUNDLE, KEY)])[0].startswith("ok ")


def test_a_trust_files_signature_is_accepted(sigstore_js: SigstoreJs) -> None:
    """The root's signature of a trust file is a Sigstore bundle; one by another key is not."""
    said = vectors("ledger")
    bent = [one["signature"] for one in said["trustSignatureRefused"] if "key" in one["why"]]
    ours = write_trust_signature(format_trust(TRUST), TRUST.origin, AT, OTHER)
    answers = sigstore_js(
        [
            (said["trustSignature"], said["root"]["public"]),
            (ours, OTHER.public.pem),
            (bent[0], said["root"]["public"]),
            (ours, KEY),
        ]
    )

    assert ["ok", "ok", "fail", "fail"] == [answer.split()[0] for answer in answers]

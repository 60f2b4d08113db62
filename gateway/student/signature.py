"""`model.sig`: the files of a model folder, signed in OpenSSF model-signing's format.

It names every file of the folder but itself, the training manifest and its proof among them,
and is signed with the manifest key. Who has that tool and the public key needs nothing of ours:
`model_signing verify key FOLDER --signature FOLDER/model.sig --public_key manifest.pem`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import orjson

from gateway.canonical import canonical_json
from gateway.errors import BadDigestError, BadSignatureError, MalformedReceiptError
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.receipt.envelope import Signer, open_envelope, seal_unnamed, signed_by
from gateway.receipt.keys import PublicKey
from gateway.receipt.model import STATEMENT_TYPE
from gateway.receipt.sigstore import SIGSTORE_BUNDLE_TYPE
from gateway.tlog.text import shown

SIGNATURE: Final = "model.sig"
PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"

_IGNORED: Final = [".git", ".gitattributes", ".github", ".gitignore", SIGNATURE]
"""What the tool leaves out by itself, and the signature, which can't name itself."""


def write_signature(
    name: str, digests: Mapping[str, str], signer: Signer, key: PublicKey
) -> bytes:
    """Return `model.sig` over the files of model *name*, by *signer*, whose key is *key*.

    Raises:
        MalformedReceiptError: there are too many files for one statement.
    """
    envelope = seal_unnamed(canonical_json(_statement_of(name, digests)), signer)
    return _wrap(envelope, key)


def verify_signature(
    encoded: bytes, digests: Mapping[str, str], keys: Iterable[PublicKey]
) -> PublicKey:
    """Return the one of *keys* that signed *encoded*, over exactly the files of *digests*.

    Raises:
        EvidenceError: it is malformed, made by another key, or over other files.
    """
    if len(encoded) > BUNDLE_BYTES_MAX:
        raise MalformedReceiptError(f"{SIGNATURE}: larger than {BUNDLE_BYTES_MAX} bytes")
    try:
        bundle = msgspec.json.decode(encoded, type=_Bundle)
        leaf = bytes(bundle.dsse_envelope)
        envelope = open_envelope(leaf)
        statement = orjson.loads(envelope.payload)
        name = statement["subject"][0]["name"]
    except (msgspec.MsgspecError, ValueError, TypeError, LookupError) as broken:
        raise MalformedReceiptError(
            f"{SIGNATURE}: not a model's signature: {shown(broken)}"
        ) from broken
    key = next((key for key in keys if _wrap(leaf, key) == encoded), None)
    if key is None:
        raise BadSignatureError(
            f"{SIGNATURE}: not by a key that is trusted for manifests, or not in the one form"
        )
    signed_by(envelope, {key.keyid: key})
    if canonical_json(_statement_of(str(name), digests)) != envelope.payload:
        raise BadDigestError(
            f"{SIGNATURE}: it is over other files than those that are here",
            hint="get the model folder again from where it was trained",
        )
    return key


def _statement_of(name: str, digests: Mapping[str, str]) -> dict[str, Any]:
    named = sorted(digests.items())
    whole = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in named))
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": whole.hexdigest()}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": _IGNORED,
            },
            "resources": [
                {"name": file, "algorithm": "sha256", "digest": digest}
                for file, digest in named
            ],
        },
    }


def _wrap(envelope: bytes, key: PublicKey) -> bytes:
    # Unlike other bundles, this one hints at the digest of the key as PEM, in hex.
    hint = hashlib.sha256(key.pem.encode()).hexdigest().encode()
    return b"%b%b%b%b%b%b%b" % (
        b'{"dsseEnvelope":',
        envelope,
        b',"mediaType":"',
        SIGSTORE_BUNDLE_TYPE.encode(),
        b'","verificationMaterial":{"publicKey":{"hint":"',
        hint,
        b'"},"tlogEntries":[]}}',
    )


class _Bundle(msgspec.Struct, rename="camel"):
    dsse_envelope: msgspec.Raw

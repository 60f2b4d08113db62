"""Verify a bundle with the standard library and `cryptography`; nothing of the gateway's.

An auditor can read this in ten minutes: a C2SP signed note with its cosignatures, RFC 6962's
inclusion proof, twice, and DSSE, twice: the manifest key authorised the receipt key, and the
receipt key signed the receipt. It prints what the statement says.

    python verify.py BUNDLE TRUST
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

BY_MANIFEST_KEY = ("/key-authorization/v1", "/key-revocation/v1", "/log-succession/v1")
MANIFEST = "https://slsa.dev/provenance/v1"


class NotVerifiedError(Exception):
    """The bundle does not show what it claims."""


def verify(bundle: bytes, trust: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the leaf index and the statement in *bundle*, after checking all of it."""
    parts = json.loads(bundle)
    if parts["mediaType"] != "application/vnd.tos-gateway.bundle.v2+json":
        raise NotVerifiedError("this is no bundle of a kind that is known here")
    index, hashes, note = read_proof(parts["proof"])
    size, root = checkpoint(note, trust)
    leaf = unbase64(parts["leaf"])
    if root_from(leaf, index, size, hashes) != root:
        raise NotVerifiedError(f"leaf {index} is not under the checkpoint's root")
    said = json.loads(leaf)
    if said.get("kind") == "opening/v1":
        return index, said  # an opening has no signature: the checkpoint is all it has
    keys = manifest_keys(index, trust)
    by_manifest_key = is_for_manifest_key(leaf)
    if not by_manifest_key:
        keys = receipt_keys(parts.get("authorization"), index, size, root, trust)
    return index, signed_statement(leaf, keys)


def read_proof(proof: str) -> tuple[int, list[bytes], str]:
    """Return the index, the hashes and the signed checkpoint of a `tlog-proof@v1`."""
    head, _, note = proof.partition("\n\n")
    lines = head.split("\n")
    if lines[0] != "c2sp.org/tlog-proof@v1" or not lines[1].startswith("index "):
        raise NotVerifiedError("this is no tlog-proof@v1")
    return int(lines[1].removeprefix("index ")), [unbase64(one) for one in lines[2:]], note


# -- the checkpoint: c2sp.org/signed-note, tlog-checkpoint and tlog-cosignature --------------


def checkpoint(note: str, trust: dict[str, Any]) -> tuple[int, bytes]:
    """Return size and root of a checkpoint that the log and enough witnesses signed."""
    text, _, lines = note.partition("\n\n")
    signed = text + "\n"
    origin, size, root = signed.split("\n")[:3]
    if origin != trust["origin"] or not any(by_log(signed, lines, trust["log"])):
        raise NotVerifiedError("the trusted log did not sign the checkpoint")
    cosigned = sum(any(by_witness(signed, lines, one)) for one in trust["witnesses"])
    if cosigned < trust["quorum"]:
        raise NotVerifiedError(f"{cosigned} witnesses cosigned, {trust['quorum']} must")
    return int(size), unbase64(root)


def by_log(signed: str, lines: str, vkey: str) -> list[bool]:
    """Return, for each signature in the log's name, that it is good; a bad one is an error."""
    return [good(key, signature, signed.encode()) for key, signature in found(lines, vkey, 1)]


def by_witness(signed: str, lines: str, vkey: str) -> list[bool]:
    """Return the same of a witness, who signs a time as well."""
    return [
        good(key, one[8:], b"cosignature/v1\ntime %d\n%b" % (time_of(one), signed.encode()))
        for key, one in found(lines, vkey, 4)
    ]


def time_of(cosignature: bytes) -> int:
    """Return when a witness says that it signed, in seconds since 1970."""
    return int.from_bytes(cosignature[:8], "big")


def found(lines: str, vkey: str, kind: int) -> list[tuple[Ed25519PublicKey, bytes]]:
    """Return the key in *vkey* with each signature that is said to be by it."""
    name, key_id, encoded = vkey.split("+", 2)
    raw = unbase64(encoded)
    if raw[0] != kind or hashlib.sha256(f"{name}\n".encode() + raw).hexdigest()[:8] != key_id:
        raise NotVerifiedError(f"`{vkey}` is no key of that kind")
    public = Ed25519PublicKey.from_public_bytes(raw[1:])
    said = [line.removeprefix("\u2014 ").split(" ") for line in lines.splitlines()]
    signatures = [unbase64(words[1]) for words in said if words[0] == name]
    return [(public, one[4:]) for one in signatures if one[:4].hex() == key_id]


# -- the tree: RFC 9162, section 2.1.3.2 -----------------------------------------------------


def root_from(leaf: bytes, index: int, size: int, hashes: list[bytes]) -> bytes:
    """Return the root that the hashes lead to from *leaf* at *index*."""
    if not 0 <= index < size:
        raise NotVerifiedError("the leaf's index is not inside the tree")
    here, last = index, size - 1
    result = hashlib.sha256(b"\x00" + leaf).digest()
    for sibling in hashes:
        if last == 0:
            raise NotVerifiedError("the proof is too long")
        if here % 2 or here == last:
            result = hashlib.sha256(b"\x01" + sibling + result).digest()
            while here % 2 == 0 and here:
                here, last = here // 2, last // 2
        else:
            result = hashlib.sha256(b"\x01" + result + sibling).digest()
        here, last = here // 2, last // 2
    if last:
        raise NotVerifiedError("the proof is too short")
    return result


# -- the signatures: DSSE, and which key may sign what, where -------------------------------


def is_for_manifest_key(leaf: bytes) -> bool:
    """Return whether a manifest key must have signed *leaf*: manifests, and word about keys."""
    kind: str = payload_of(leaf)["predicateType"]
    return kind == MANIFEST or kind.endswith(BY_MANIFEST_KEY)


def manifest_keys(index: int, trust: dict[str, Any]) -> list[str]:
    """Return the manifest keys that could sign at leaf *index*."""
    return [
        one["key"]
        for one in trust["manifestKeys"]
        if one["since"] <= index
        and (one["until"] is None or index < one["until"])
        and not is_revoked(one["key"], index, trust)
    ]


def receipt_keys(
    authorization: dict[str, Any] | None,
    index: int,
    size: int,
    root: bytes,
    trust: dict[str, Any],
) -> list[str]:
    """Return the receipt key that an earlier leaf authorises, by a manifest key good there."""
    if authorization is None:
        raise NotVerifiedError("nothing authorises the key that signed")
    leaf, at = unbase64(authorization["leaf"]), authorization["index"]
    if root_from(leaf, at, size, [unbase64(one) for one in authorization["hashes"]]) != root:
        raise NotVerifiedError("the authorisation is not under the checkpoint's root")
    if at >= index:
        raise NotVerifiedError("the key signed before it was authorised")
    statement = signed_statement(leaf, manifest_keys(at, trust))
    said = statement["predicate"]
    if not statement["predicateType"].endswith("/key-authorization/v1"):
        raise NotVerifiedError("the authorisation is of another kind")
    if said["role"] != "receipt" or not isinstance(public_key(said["key"]), Ed25519PublicKey):
        raise NotVerifiedError("the key is authorised for something else")
    return [] if is_revoked(said["key"], index, trust) else [said["key"]]


def is_revoked(pem: str, index: int, trust: dict[str, Any]) -> bool:
    """Return whether the trust file says that the key was in the wrong hands by *index*."""
    named = keyid_of(pem)
    return any(one["keyid"] == named and one["since"] <= index for one in trust["revoked"])


def keyid_of(pem: str) -> str:
    """Return what envelopes name a key by: the SHA-256 of its SubjectPublicKeyInfo."""
    return hashlib.sha256(unbase64("".join(pem.splitlines()[1:-1]))).hexdigest()


def signed_statement(leaf: bytes, keys: list[str]) -> dict[str, Any]:
    """Return the in-toto statement in a DSSE envelope that one of *keys* signed."""
    envelope = json.loads(leaf)
    kind, payload = envelope["payloadType"].encode(), unbase64(envelope["payload"])
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    (one,) = envelope["signatures"]
    statement = payload_of(leaf)
    if ("keyid" in one) is (statement["predicateType"] == MANIFEST):
        raise NotVerifiedError("manifests don't name their key, and all others do")
    for pem in keys:
        if one.get("keyid", keyid_of(pem)) != keyid_of(pem):
            continue
        try:
            good(public_key(pem), unbase64(one["sig"]), signed)
        except NotVerifiedError:
            continue
        return statement
    raise NotVerifiedError("no key that might have signed the statement did")


def good(
    key: Ed25519PublicKey | EllipticCurvePublicKey, signature: bytes, message: bytes
) -> bool:
    """Return true if *signature* is *key*'s over *message*; otherwise it is an error."""
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ECDSA(SHA256()))
    except InvalidSignature as bad:
        raise NotVerifiedError("a signature is bad") from bad
    return True


def public_key(pem: str) -> Ed25519PublicKey | EllipticCurvePublicKey:
    """Return the public key in *pem*."""
    key = load_pem_public_key(pem.encode())
    if not isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey):
        raise NotVerifiedError("a key is of another kind")
    return key


def payload_of(leaf: bytes) -> dict[str, Any]:
    """Return the statement in an envelope, unverified."""
    statement: dict[str, Any] = json.loads(unbase64(json.loads(leaf)["payload"]))
    return statement


def unbase64(text: str) -> bytes:
    """Return the bytes that *text* spells in base64, in its one spelling."""
    content = base64.b64decode(text, validate=True)
    if base64.b64encode(content).decode() != text:
        raise NotVerifiedError("base64 with bits to spare")
    return content


def main() -> int:
    """Verify the bundle that the command line names."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    bundle, trust = (Path(name).read_bytes() for name in sys.argv[1:])
    try:
        index, statement = verify(bundle, json.loads(trust))
    except (NotVerifiedError, ValueError, KeyError, IndexError, TypeError) as bad:
        print(f"fail {type(bad).__name__}: {bad}")
        return 1
    said = statement.get("predicate", statement)
    print(f"ok   leaf {index}, {statement.get('predicateType', 'an opening')}")
    for name in ("exchange", "ended", "declared", "ruling"):
        if name in said:
            print(f"     {name:8} {json.dumps(said[name], ensure_ascii=False)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Verify a bundle with the standard library and `cryptography`; nothing of the gateway's.

An auditor can read this in ten minutes: DSSE (an ECDSA signature that authorises the receipt
key, an Ed25519 one by it), a C2SP signed note (one more), and RFC 6962's inclusion proofs (a
few hashes). It prints what the statement says.

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


class NotVerifiedError(Exception):
    """The bundle does not show what it claims."""


def verify(bundle: bytes, trust: dict[str, Any]) -> dict[str, Any]:
    """Return the statement in *bundle* after checking its signatures and its place."""
    parts = json.loads(bundle)
    leaf = base64.b64decode(parts["leaf"], validate=True)
    index, hashes, note = read_proof(parts["proof"])
    size, root = checkpoint(note, trust["log"])
    if trust["quorum"]:
        raise NotVerifiedError("cosignatures are asked for; this example does not check them")
    first = parts["authorization"]
    authorization = base64.b64decode(first["leaf"], validate=True)
    path = [base64.b64decode(one, validate=True) for one in first["hashes"]]
    if root_from(authorization, first["index"], size, path) != root:
        raise NotVerifiedError("the authorisation is not under the checkpoint's root")
    if first["index"] >= index:
        raise NotVerifiedError("the key signed before it was authorised")
    key = authorised_key(authorization, first["index"], trust)
    if any(one["keyid"] == key["keyid"] and one["since"] <= index for one in trust["revoked"]):
        raise NotVerifiedError("the key was revoked by then")
    if root_from(leaf, index, size, hashes) != root:
        raise NotVerifiedError(f"leaf {index} is not under the checkpoint's root")
    return signed_statement(leaf, [key["key"]])


def authorised_key(leaf: bytes, index: int, trust: dict[str, Any]) -> dict[str, Any]:
    """Return the receipt key that *leaf* authorises, signed by a manifest key good there."""
    good = [
        one["key"]
        for one in trust["manifestKeys"]
        if one["since"] <= index and (one["until"] is None or index < one["until"])
    ]
    statement = signed_statement(leaf, good)
    said: dict[str, Any] = statement["predicate"]
    if not statement["predicateType"].endswith("/key-authorization/v1"):
        raise NotVerifiedError("the authorisation is of another kind")
    if said["role"] != "receipt" or not isinstance(_public(said["key"]), Ed25519PublicKey):
        raise NotVerifiedError("the key is authorised for something else")
    return said


def signed_statement(leaf: bytes, keys: list[str]) -> dict[str, Any]:
    """Return the in-toto statement in a DSSE envelope that one of *keys* signed."""
    envelope = json.loads(leaf)
    kind, payload = envelope["payloadType"], base64.b64decode(envelope["payload"])
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    for pem in keys:
        key = _public(pem)
        try:
            if isinstance(key, Ed25519PublicKey):
                key.verify(signature, signed)
            else:
                key.verify(signature, signed, ECDSA(SHA256()))
        except InvalidSignature:
            continue
        statement: dict[str, Any] = json.loads(payload)
        return statement
    raise NotVerifiedError("no trusted key signed the statement")


def read_proof(proof: str) -> tuple[int, list[bytes], str]:
    """Return the index, the hashes and the signed checkpoint of a `tlog-proof@v1`."""
    head, _, note = proof.partition("\n\n")
    lines = head.split("\n")
    if lines[0] != "c2sp.org/tlog-proof@v1":
        raise NotVerifiedError("this is no tlog-proof@v1")
    hashes = [base64.b64decode(line, validate=True) for line in lines[2:]]
    return int(lines[1].removeprefix("index ")), hashes, note


def checkpoint(note: str, vkey: str) -> tuple[int, bytes]:
    """Return the size and root of a checkpoint that the log signed."""
    name, key_hash, encoded = vkey.split("+", 2)
    text, _, signatures = note.partition("\n\n")
    signed = (text + "\n").encode()
    for line in signatures.splitlines():
        said, given = line.removeprefix("\u2014 ").rsplit(" ", 1)
        signature = base64.b64decode(given)
        if said == name and signature[:4].hex() == key_hash:
            public = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded)[1:])
            try:
                public.verify(signature[4:], signed)
            except InvalidSignature as bad:
                raise NotVerifiedError("the log's signature is bad") from bad
            origin, size, root = text.split("\n")[:3]
            if origin != name:
                raise NotVerifiedError("the checkpoint is of another log")
            return int(size), base64.b64decode(root)
    raise NotVerifiedError("the trusted log did not sign the checkpoint")


def root_from(leaf: bytes, index: int, size: int, hashes: list[bytes]) -> bytes:
    """Return the root that the proof leads to (RFC 9162, section 2.1.3.2)."""
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


def _public(pem: str) -> Ed25519PublicKey | EllipticCurvePublicKey:
    key = load_pem_public_key(pem.encode())
    if not isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey):
        raise NotVerifiedError("a key is neither Ed25519 nor ECDSA")
    return key


def main() -> int:
    """Verify the bundle that the command line names."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    bundle, trust = (Path(name).read_bytes() for name in sys.argv[1:])
    try:
        statement = verify(bundle, json.loads(trust))
    except (NotVerifiedError, ValueError, KeyError, IndexError) as bad:
        print(f"fail {type(bad).__name__}: {bad}")
        return 1
    said = statement["predicate"]
    print(f"ok   {statement['predicateType']}")
    print(f"     exchange {said.get('exchange')}, {said.get('ended', 'refused')}")
    print(f"     declared {json.dumps(said.get('declared'))}")
    print(f"     ruled    {said.get('ruling', {}).get('effect')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

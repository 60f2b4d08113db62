"""Make the test vectors in this folder, from the standards and not from the package.

It shares no code with the gateway: the standard library and `cryptography`, nothing else. Trees
and proofs are written down as RFC 6962 defines them, recursively and slowly; the rest follows
C2SP, DSSE and `docs/formats`. Keys come from fixed seeds and P-256 signatures from RFC 6979, so
two runs write the same bytes.

    python generate.py FOLDER
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

Json = Any
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

ORIGIN = "vectors.example/log"
LARGE = (255, 256, 257, 65_535, 65_536, 65_537)
SIZES = (*range(41), *LARGE)


def b64(content: bytes) -> str:
    """Return *content* in base64."""
    return base64.b64encode(content).decode()


def sha256(content: bytes) -> bytes:
    """Return the SHA-256 of *content*."""
    return hashlib.sha256(content).digest()


# -- RFC 6962, section 2.1, word for word ---------------------------------------------------


def leaf(number: int) -> bytes:
    """Return leaf *number* of the log that all trees here are cut from."""
    return b"leaf %d of a log of vectors" % number


@cache
def leaf_hash(number: int) -> bytes:
    """Return MTH of one entry: a zero byte and the entry, hashed."""
    return sha256(b"\x00" + leaf(number))


def below(size: int) -> int:
    """Return the largest power of two that is smaller than *size*."""
    power = 1
    while power * 2 < size:
        power *= 2
    return power


@cache
def mth(first: int, stop: int) -> bytes:
    """Return MTH(D[first:stop])."""
    size = stop - first
    if size == 0:
        return sha256(b"")
    if size == 1:
        return leaf_hash(first)
    middle = first + below(size)
    return sha256(b"\x01" + mth(first, middle) + mth(middle, stop))


def path(index: int, first: int, stop: int) -> list[bytes]:
    """Return PATH(index, D[first:stop]); *index* counts from *first*."""
    size = stop - first
    if size == 1:
        return []
    k = below(size)
    if index < k:
        return [*path(index, first, first + k), mth(first + k, stop)]
    return [*path(index - k, first + k, stop), mth(first, first + k)]


def proof(old: int, size: int) -> list[bytes]:
    """Return PROOF(old, D[0:size]); nothing is to be shown for the empty tree."""
    return subproof(old, 0, size, whole=True) if old else []


def subproof(old: int, first: int, stop: int, *, whole: bool) -> list[bytes]:
    """Return SUBPROOF(old, D[first:stop], whole)."""
    size = stop - first
    if old == size:
        return [] if whole else [mth(first, stop)]
    k = below(size)
    if old <= k:
        return [*subproof(old, first, first + k, whole=whole), mth(first + k, stop)]
    return [*subproof(old - k, first + k, stop, whole=False), mth(first, first + k)]


def trees() -> Json:
    """Return the root of each size."""
    return {
        "about": "RFC 6962 roots. Leaf i is `leaf` with its number in the place of %d.",
        "leaf": "leaf %d of a log of vectors",
        "leafHashes": {str(i): leaf_hash(i).hex() for i in (0, 1, 2, 255, 65_536)},
        "roots": {str(size): mth(0, size).hex() for size in SIZES},
    }


PROVED = [
    *[(index, size) for size in range(1, 10) for index in range(size)],
    *[(index, 40) for index in (0, 1, 31, 32, 38, 39)],
    *[(index, 255) for index in (0, 127, 128, 254)],
    *[(index, 256) for index in (0, 255)],
    *[(index, 257) for index in (0, 255, 256)],
    *[(index, 65_537) for index in (0, 40_000, 65_535, 65_536)],
]


def inclusion() -> Json:
    """Return inclusion proofs, and what looks like some and proves nothing."""
    good = [
        {"size": size, "index": index, "hashes": [one.hex() for one in path(index, 0, size)]}
        for index, size in PROVED
    ]
    hashes = path(5, 0, 11)
    right: dict[str, Any] = {
        "size": 11,
        "index": 5,
        "leafHash": leaf_hash(5),
        "hashes": hashes,
        "root": mth(0, 11),
    }

    def bent(why: str, **changed: Any) -> Json:
        shown = right | changed
        return {
            "why": why,
            "size": shown["size"],
            "index": shown["index"],
            "leafHash": shown["leafHash"].hex(),
            "hashes": [one.hex() for one in shown["hashes"]],
            "root": shown["root"].hex(),
        }

    return {
        "about": "Leaf `index` is in the tree of `size`; hashes from the leaf upwards.",
        "proofs": good,
        "refused": [
            bent("the index of its neighbour", index=4),
            bent("an index beyond the tree", index=11),
            bent("a negative index", index=-1),
            bent("a smaller size", size=8),
            bent("a larger size", size=17),
            bent("no tree at all", size=0, index=0, hashes=[]),
            bent("the hash of another leaf", leafHash=leaf_hash(6)),
            bent("the leaf hashed without its zero byte", leafHash=sha256(leaf(5))),
            bent("another root", root=mth(0, 10)),
            bent("a hash too few", hashes=hashes[:-1]),
            bent("a hash too many", hashes=[*hashes, mth(0, 1)]),
            bent("no hashes", hashes=[]),
            bent("hashes from the root downwards", hashes=hashes[::-1]),
            bent("two hashes swapped", hashes=[hashes[1], hashes[0], *hashes[2:]]),
            bent("one bit of a hash", hashes=[flip(hashes[0]), *hashes[1:]]),
            bent("a hash of 31 bytes", hashes=[hashes[0][:-1], *hashes[1:]]),
        ],
    }


GROWN = [
    *[(old, size) for size in range(9) for old in range(size + 1)],
    *[(old, 40) for old in (1, 31, 32, 33, 39, 40)],
    *[(old, 257) for old in (1, 128, 255, 256)],
    *[(old, 65_537) for old in (1, 255, 40_000, 65_535, 65_536)],
]


def consistency() -> Json:
    """Return consistency proofs, and what looks like some and proves nothing."""
    good = [
        {"old": old, "size": size, "hashes": [one.hex() for one in proof(old, size)]}
        for old, size in GROWN
    ]
    hashes = proof(6, 11)
    right: dict[str, Any] = {
        "old": 6,
        "oldRoot": mth(0, 6),
        "size": 11,
        "root": mth(0, 11),
        "hashes": hashes,
    }

    def bent(why: str, **changed: Any) -> Json:
        shown = right | changed
        return {
            "why": why,
            "old": shown["old"],
            "oldRoot": shown["oldRoot"].hex(),
            "size": shown["size"],
            "root": shown["root"].hex(),
            "hashes": [one.hex() for one in shown["hashes"]],
        }

    return {
        "about": "The tree of `old` leaves is a beginning of that of `size`.",
        "proofs": good,
        "refused": [
            bent("another old root", oldRoot=mth(0, 5)),
            bent("another new root", root=mth(0, 10)),
            bent("another old size", old=7),
            bent("a smaller new size", size=8),
            bent("a larger new size", size=17),
            bent("the old tree is larger", old=11, oldRoot=mth(0, 11), size=6, root=mth(0, 6)),
            bent("a hash too few", hashes=hashes[:-1]),
            bent("a hash too many", hashes=[*hashes, mth(0, 1)]),
            bent("no hashes", hashes=[]),
            bent("two hashes swapped", hashes=[hashes[1], hashes[0], *hashes[2:]]),
            bent("one bit of a hash", hashes=[flip(hashes[0]), *hashes[1:]]),
            bent("a hash of 33 bytes", hashes=[hashes[0] + b"\x00", *hashes[1:]]),
            bent(
                "hashes between trees of one size",
                old=11,
                oldRoot=mth(0, 11),
                hashes=hashes[:1],
            ),
            bent("two roots of one size", old=11, oldRoot=mth(1, 12), hashes=[]),
            bent("a root for the empty tree that is not its own", old=0, hashes=[]),
            bent("hashes for the empty tree", old=0, oldRoot=sha256(b""), hashes=hashes),
            bent("an old root passed off as the new", oldRoot=mth(0, 11)),
        ],
    }


def flip(content: bytes) -> bytes:
    """Return *content* with its last bit changed."""
    return content[:-1] + bytes([content[-1] ^ 1])


# -- keys -----------------------------------------------------------------------------------


def ed25519_key(name: str) -> ed25519.Ed25519PrivateKey:
    """Return the Ed25519 key of that name, always the same."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(
        sha256(b"vectors ed25519 " + name.encode())
    )


def p256_key(name: str) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key of that name, always the same."""
    secret = int.from_bytes(sha256(b"vectors p256 " + name.encode()), "big") % P256_ORDER
    return ec.derive_private_key(secret, ec.SECP256R1())


Private = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def raw(key: ed25519.Ed25519PrivateKey) -> bytes:
    """Return the 32 bytes of the public key."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def spki(key: Private) -> bytes:
    """Return the public key's SubjectPublicKeyInfo, in DER."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pem(key: Private) -> str:
    """Return the public key in PEM."""
    encoded = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return encoded.decode()


def private_pem(key: Private) -> str:
    """Return the private key in PKCS #8 PEM; it guards nothing but these vectors."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def keyid(key: Private) -> str:
    """Return what an envelope names the key by."""
    return sha256(spki(key)).hex()


def sign(key: Private, message: bytes) -> bytes:
    """Return the signature over *message*; for P-256 the deterministic one of RFC 6979."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    return key.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True))


# -- C2SP signed-note, tlog-checkpoint, tlog-cosignature ------------------------------------

LOG_KEY = ed25519_key("log")
OTHER_KEY = ed25519_key("other")
WITNESS_KEY = ed25519_key("witness")
WITNESS = "witness.example/w1"
COSIGNED_AT = 1_795_000_000


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """Return the four bytes that stand for a key under a name."""
    return sha256(name.encode() + b"\n" + bytes([kind]) + public)[:4]


def vkey(name: str, kind: int, public: bytes) -> str:
    """Return a verifier key."""
    return f"{name}+{key_id(name, kind, public).hex()}+{b64(bytes([kind]) + public)}"


def checkpoint(size: int, root: bytes, origin: str = ORIGIN) -> str:
    """Return the text of a checkpoint."""
    return f"{origin}\n{size}\n{b64(root)}\n"


def line(name: str, identity: bytes, signature: bytes) -> str:
    """Return a signature line."""
    return f"\u2014 {name} {b64(identity + signature)}\n"


def signed(text: str, key: ed25519.Ed25519PrivateKey = LOG_KEY, name: str = ORIGIN) -> str:
    """Return the signature line of *key* over *text*."""
    return line(name, key_id(name, 1, raw(key)), key.sign(text.encode()))


def stamped(text: str, when: int, said: int | None = None) -> str:
    """Return the witness's line over *text* at *when*, which says that it was *said*."""
    message = f"cosignature/v1\ntime {when}\n{text}".encode()
    time = when if said is None else said
    return by_witness(time.to_bytes(8, "big") + WITNESS_KEY.sign(message))


def by_witness(signature: bytes) -> str:
    """Return a line of the witness's with that signature."""
    return line(WITNESS, key_id(WITNESS, 4, raw(WITNESS_KEY)), signature)


def note(text: str, *lines: str) -> str:
    """Return a signed note."""
    return text + "\n" + "".join(lines)


def log_note(size: int) -> str:
    """Return the signed checkpoint of the log of *size*."""
    text = checkpoint(size, mth(0, size))
    return note(text, signed(text))


def vkeys_refused() -> list[Json]:
    """Return what is no verifier key of a log."""
    name, identity, key = vkey(ORIGIN, 1, raw(LOG_KEY)).split("+", 2)
    made = {
        "the key id of another key": f"{name}+00000000+{key}",
        "no key": f"{name}+{identity}",
        "an empty key": f"{name}+{identity}+",
        "a key of 31 bytes": vkey(ORIGIN, 1, raw(LOG_KEY)[:-1]),
        "a key of 33 bytes": vkey(ORIGIN, 1, raw(LOG_KEY) + b"\x00"),
        "a blank in the name": vkey("a b", 1, raw(LOG_KEY)),
        "no name": vkey("", 1, raw(LOG_KEY)),
        "a witness's key": vkey(WITNESS, 4, raw(WITNESS_KEY)),
        "an unknown type": vkey(ORIGIN, 9, raw(LOG_KEY)),
        "a key id in capitals": f"{name}+{identity.upper()}+{key}",
        "a key in other letters of base64": f"{name}+{identity}+{key[:-1]}-",
    }
    return [{"why": why, "vkey": one} for why, one in made.items()]


def notes_refused() -> list[Json]:
    """Return what is no checkpoint of the log, however it is signed."""
    text, root = checkpoint(11, mth(0, 11)), b64(mth(0, 11))
    good = note(text, signed(text))
    spare = root[:-2] + chr(ord(root[-2]) + 1) + "="
    made = {
        "no signature": text + "\n",
        "no empty line": text + signed(text),
        "no newline at the end": good[:-1],
        "a hyphen for the dash": good.replace("\u2014", "-"),
        "another key under the log's name": note(text, signed(text, OTHER_KEY)),
        "the log's signature over another text": note(text, signed(checkpoint(12, mth(0, 12)))),
        "a witness alone": note(text, stamped(text, COSIGNED_AT)),
        "a larger size": good.replace("\n11\n", "\n12\n"),
        "another root": good.replace(root, b64(mth(0, 12))),
    }
    truly_signed = {
        "another origin": checkpoint(11, mth(0, 11), "other.example/log"),
        "a size with a leading zero": text.replace("\n11\n", "\n011\n"),
        "a size with a sign": text.replace("\n11\n", "\n+11\n"),
        "a size of 2^63": text.replace("\n11\n", f"\n{2**63}\n"),
        "a negative size": text.replace("\n11\n", "\n-1\n"),
        "no size": text.replace("\n11\n", "\n\n"),
        "a root of 31 bytes": text.replace(root, b64(mth(0, 11)[:-1])),
        "a root without padding": text.replace(root, root[:-1]),
        "a root with spare bits": text.replace(root, spare),
        "no root": f"{ORIGIN}\n11\n",
        "an empty log with another root": checkpoint(0, mth(0, 1)),
        "a carriage return": text.replace("\n11\n", "\r\n11\n"),
        "an extension line, which C2SP allows and we neither write nor read": text + "more\n",
    }
    for why, wrong in truly_signed.items():
        made[f"{why}, truly signed"] = note(wrong, signed(wrong))
    return [{"why": why, "note": one} for why, one in made.items()]


def cosignatures_refused() -> list[Json]:
    """Return checkpoints that the witness did not cosign."""
    text = checkpoint(11, mth(0, 11))
    whole = COSIGNED_AT.to_bytes(8, "big") + WITNESS_KEY.sign(text.encode())
    made = {
        "another time than the one signed": stamped(text, COSIGNED_AT, COSIGNED_AT + 1),
        "over the checkpoint of another size": stamped(checkpoint(10, mth(0, 10)), COSIGNED_AT),
        "over the bare text, as a log signs": by_witness(whole),
        "cut short": by_witness(whole[:-1]),
        "too long": by_witness(whole + b"\x00"),
        "without a time": by_witness(WITNESS_KEY.sign(text.encode())),
        "the log's own line twice": signed(text),
    }
    return [{"why": why, "note": note(text, signed(text), one)} for why, one in made.items()]


def notes() -> Json:
    """Return verifier keys and checkpoints, and what must not be taken for them."""
    text = checkpoint(11, mth(0, 11))
    lines = signed(text), stamped(text, COSIGNED_AT)
    return {
        "about": "Each accepted note is signed by `log`; the cosigned ones by `witness` too.",
        "log": {
            "name": ORIGIN,
            "public": raw(LOG_KEY).hex(),
            "vkey": vkey(ORIGIN, 1, raw(LOG_KEY)),
        },
        "witness": {
            "name": WITNESS,
            "public": raw(WITNESS_KEY).hex(),
            "time": COSIGNED_AT,
            "vkey": vkey(WITNESS, 4, raw(WITNESS_KEY)),
        },
        "accepted": [
            {"size": size, "root": mth(0, size).hex(), "note": log_note(size)}
            for size in (0, 1, 11, 65_537)
        ],
        "cosigned": [note(text, *lines), note(text, *reversed(lines))],
        "vkeysRefused": vkeys_refused(),
        "refused": notes_refused(),
        "cosignaturesRefused": cosignatures_refused(),
    }


# -- C2SP tlog-proof, tlog-witness ----------------------------------------------------------


def proofs() -> Json:
    """Return proofs as text, and what must not be read as one."""

    def included(index: int, size: int) -> str:
        lines = ["c2sp.org/tlog-proof@v1", f"index {index}", *map(b64, path(index, 0, size))]
        return "\n".join(lines) + "\n\n" + log_note(size)

    def grown(old: int, size: int) -> str:
        lines = [f"old {old}", *map(b64, proof(old, size))]
        return "\n".join(lines) + "\n\n" + log_note(size)

    right, growth = included(5, 11), grown(6, 11)
    first = b64(path(5, 0, 11)[0])
    malformed = {
        "nothing": "",
        "no checkpoint": right.partition("\n\n")[0] + "\n",
        "another version": right.replace("@v1", "@v2"),
        "no index": right.replace("index 5\n", ""),
        "an index with a leading zero": right.replace("index 5", "index 05"),
        "an index with a sign": right.replace("index 5", "index -5"),
        "an index of 2^63": right.replace("index 5", f"index {2**63}"),
        "an extra line, which is covered by no signature": right.replace(
            "index 5", "extra AAAA\nindex 5"
        ),
        "a hash of 31 bytes": right.replace(first, b64(path(5, 0, 11)[0][:-1])),
        "a hash without padding": right.replace(first, first.rstrip("=")),
        "a blank behind a hash": right.replace(first, first + " "),
        "64 hashes": right.replace(first, "\n".join([first] * 61)),
    }
    malformed_growth = {
        "nothing": "",
        "no checkpoint": growth.partition("\n\n")[0] + "\n",
        "no old size": growth.replace("old 6\n", ""),
        "an old size with a leading zero": growth.replace("old 6", "old 06"),
        "an old size of 2^63": growth.replace("old 6", f"old {2**63}"),
        "another word": growth.replace("old 6", "size 6"),
    }
    return {
        "about": "Proofs as files; their checkpoints are signed by the log of notes.json.",
        "inclusion": [
            {"index": index, "size": size, "text": included(index, size)}
            for index, size in ((0, 1), (5, 11), (10, 11), (255, 257), (40_000, 65_537))
        ],
        "inclusionRefused": [{"why": why, "text": text} for why, text in malformed.items()],
        "consistency": [
            {"old": old, "oldRoot": mth(0, old).hex(), "size": size, "text": grown(old, size)}
            for old, size in ((0, 1), (6, 11), (11, 11), (256, 257), (40_000, 65_537))
        ],
        "consistencyRefused": [
            {"why": why, "text": text} for why, text in malformed_growth.items()
        ],
    }


# -- C2SP tlog-tiles ------------------------------------------------------------------------


def tile_path(level: int | str, number: int, width: int) -> str:
    """Return the path of a tile."""
    digits = f"{number:03d}"
    digits = "0" * (-len(digits) % 3) + digits
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    named = "/".join([*("x" + one for one in groups[:-1]), groups[-1]])
    return f"tile/{level}/{named}" + ("" if width == 256 else f".p/{width}")


def entries(first: int, stop: int) -> bytes:
    """Return the entry bundle of those leaves."""
    return b"".join(
        len(leaf(number)).to_bytes(2, "big") + leaf(number) for number in range(first, stop)
    )


def files(size: int) -> dict[str, bytes]:
    """Return every file of the log of *size*, but for its checkpoint."""
    found = {}
    for number in range(-(-size // 256)):
        stop = min(size, number * 256 + 256)
        found[tile_path("entries", number, stop - number * 256)] = entries(number * 256, stop)
    level, count = 0, size
    while count:
        span = 256**level
        for number in range(-(-count // 256)):
            stop = min(count, number * 256 + 256)
            hashes = [mth(at * span, at * span + span) for at in range(number * 256, stop)]
            found[tile_path(level, number, stop - number * 256)] = b"".join(hashes)
        level, count = level + 1, count // 256
    return found


def tiles() -> Json:
    """Return paths, whole logs by the digest of each file, and what is no path or bundle."""
    numbers = (0, 1, 255, 999, 1000, 1234067, 10**9)
    named: list[tuple[int | str, int, int]] = [
        (level, number, 256) for level in (0, 1, 7) for number in numbers
    ]
    named += [(level, 273, width) for level in ("entries", 0) for width in (1, 112, 255)]
    named += [("entries", number, 256) for number in numbers]
    return {
        "about": "A log's files. `logs` holds the SHA-256 of each, by size and path.",
        "paths": [
            {
                "level": level,
                "number": number,
                "width": width,
                "path": tile_path(level, number, width),
            }
            for level, number, width in named
        ],
        "pathsRefused": [
            "",
            "tile",
            "tile/0",
            "tile/0/0",
            "tile/0/0000",
            "tile/0/001/002",
            "tile/0/x000/001",
            "tile/00/000",
            "tile/-1/000",
            "tile/8/000",
            "tile/data/000",
            "tile/0/000.p/0",
            "tile/0/000.p/01",
            "tile/0/000.p/256",
            "tile/0/000.p/-1",
            "tile/0/000.p/",
            "tile/0/000.p",
            "tile/0/000/",
            "/tile/0/000",
            "tile/0/000\n",
            "tile//000",
            "tile/0/../000",
        ],
        "bundles": [
            {"leaves": [], "bytes": ""},
            {"leaves": [""], "bytes": "0000"},
            {"leaves": ["61", "", "6263"], "bytes": "000161" + "0000" + "00026263"},
        ],
        "bundlesRefused": [
            {"why": "ends within a length", "bytes": "00"},
            {"why": "ends within a leaf", "bytes": "000261"},
            {"why": "a length and no leaf", "bytes": "0001610001"},
            {"why": "257 leaves", "bytes": "0000" * 257},
        ],
        "logs": {
            str(size): {name: sha256(content).hex() for name, content in files(size).items()}
            for size in (0, 1, 11, 255, 256, 257, 700)
        },
        "largest": {
            "size": 65_537,
            "files": len(files(65_537)),
            "above": {
                name: sha256(content).hex()
                for name, content in files(65_537).items()
                if not name.startswith(("tile/0/", "tile/entries/"))
            },
        },
    }


# -- in-toto and DSSE -----------------------------------------------------------------------

PAYLOAD_TYPE = "application/vnd.in-toto+json"
RECEIPT_KEY = ed25519_key("receipt")
MANIFEST_KEY = p256_key("manifest")


def canonical(value: Json) -> bytes:
    """Return *value* as sorted JSON without blanks."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def pae(payload: bytes, kind: str = PAYLOAD_TYPE) -> bytes:
    """Return DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def envelope(payload: bytes, key: Private, *, named: bool) -> bytes:
    """Return the DSSE envelope of *payload* as the ledger keeps it."""
    signature: Json = {"sig": b64(sign(key, pae(payload)))}
    if named:
        signature = {"keyid": keyid(key), **signature}
    value = {"payload": b64(payload), "payloadType": PAYLOAD_TYPE, "signatures": [signature]}
    return json.dumps(value, separators=(",", ":")).encode()


def sigstore(leaf_bytes: bytes, key: Private) -> bytes:
    """Return the Sigstore bundle v0.3 of an envelope that does not name its key."""
    value = {
        "dsseEnvelope": json.loads(leaf_bytes),
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "publicKey": {"hint": b64(sha256(spki(key)))},
            "tlogEntries": [],
        },
    }
    return json.dumps(value, separators=(",", ":")).encode()


def key_of(key: Private) -> Json:
    """Return a key as vectors list it."""
    return {"keyid": keyid(key), "public": pem(key), "private": private_pem(key)}


def a_statement() -> Json:
    """Return a small in-toto Statement with SLSA's predicate, as manifests are."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "rows.jsonl", "digest": {"sha256": sha256(b"rows").hex()}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://tos-gateway.example/buildtypes/dataset/v1",
                "externalParameters": {"dataset": "vectors", "note": "Gr\u00fc\u00dfe \u2713"},
                "resolvedDependencies": [],
            },
            "runDetails": {"builder": {"id": "https://tos-gateway.example/dataset-gate/v1"}},
        },
    }


def dsse() -> Json:
    """Return envelopes of both kinds of key, and what must not be taken for one."""
    payload = canonical(a_statement())
    ed, p256 = (
        envelope(payload, RECEIPT_KEY, named=True),
        envelope(payload, MANIFEST_KEY, named=False),
    )
    text = p256.decode()
    other = canonical(a_statement() | {"predicateType": "https://slsa.dev/provenance/v2"})
    refusals = {
        "one bit of the signature": text.replace(
            b64(sign(MANIFEST_KEY, pae(payload))),
            b64(flip(sign(MANIFEST_KEY, pae(payload)))),
        ),
        "another payload under the signature": text.replace(b64(payload), b64(other)),
        "another key's signature": envelope(payload, p256_key("other"), named=False).decode(),
        "a signature over the payload alone": text.replace(
            b64(sign(MANIFEST_KEY, pae(payload))), b64(sign(MANIFEST_KEY, payload))
        ),
        "a signature over another payload type": text.replace(
            b64(sign(MANIFEST_KEY, pae(payload))),
            b64(sign(MANIFEST_KEY, pae(payload, "application/json"))),
        ),
        "another payload type": text.replace(PAYLOAD_TYPE, "application/json"),
        "a blank": text.replace('","payloadType', '", "payloadType'),
        "a newline at the end": text + "\n",
        "keys in another order": json.dumps(
            dict(reversed(json.loads(text).items())), separators=(",", ":")
        ),
        "no signature": text[: text.index("[")] + "[]}",
        "two signatures": text[:-2] + "," + text[text.index("[") + 1 :],
        "base64 without padding": text.replace(b64(payload), b64(payload).rstrip("=")),
        "a key twice": text.replace('{"payload"', '{"payload":"AAAA","payload"', 1),
        "an unknown key": text.replace('"signatures"', '"more":1,"signatures"'),
    }
    return {
        "about": "DSSE over in-toto statements, in the one spelling that a ledger keeps.",
        "receiptKey": key_of(RECEIPT_KEY),
        "manifestKey": key_of(MANIFEST_KEY),
        "payload": payload.decode(),
        "pae": pae(payload).hex(),
        "ed25519": ed.decode(),
        "p256": text,
        "sigstore": sigstore(p256, MANIFEST_KEY).decode(),
        "p256Refused": [{"why": why, "envelope": one} for why, one in refusals.items()],
    }


# -- a whole ledger, its bundles and its trust file -----------------------------------------

PREDICATES = "https://tos-gateway.example/"
LATER_KEY = ed25519_key("later receipt")
STRANGE_KEY = p256_key("strange")
AT = "2026-11-22T04:30:00.123Z"
EXCHANGE = "x-01JD0000000000000000000597"
WRITER = {"instance": "gw-a", "version": "0.1.0"}
TEXT = b"answer number 597"
RECEIPT_AT = 5


def statement(kind: str, predicate: Json, **subjects: bytes) -> bytes:
    """Return the payload of a statement about the digests of *subjects*."""
    return canonical(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [
                {
                    "name": name.replace("__", "/").replace("_", " "),
                    "digest": {"sha256": one.hex()},
                }
                for name, one in subjects.items()
            ],
            "predicateType": PREDICATES + kind,
            "predicate": predicate,
        }
    )


def authorization(key: Private, *, by: Private = MANIFEST_KEY, role: str = "receipt") -> bytes:
    """Return the leaf that authorises *key*."""
    predicate = {
        "keyid": keyid(key),
        "key": pem(key),
        "role": role,
        "expires": "2026-11-23T04:30:00.123Z",
        "by": "gateway serve",
        "at": AT,
        "writer": WRITER,
    }
    about = {f"{role}_key": sha256(spki(key))}
    return envelope(statement("key-authorization/v1", predicate, **about), by, named=True)


def opening() -> bytes:
    """Return the opening of the exchange, which has no signature."""
    return canonical(
        {
            "at": AT,
            "exchange": EXCHANGE,
            "kind": "opening/v1",
            "operation": "chat",
            "principal": "team-search",
            "project": "search",
            "provider": "example",
            "purpose": "evaluate",
            "ruling_sha256": sha256(b"ruling").hex(),
            "writer": "gw-a",
        }
    )


def receipt(*, by: Private = RECEIPT_KEY, named: bool = True) -> bytes:
    """Return the receipt of the exchange."""
    reason = {"policy": "example", "clause": "may-evaluate", "effect": "permit"}
    predicate = {
        "exchange": EXCHANGE,
        "caller": {"principal": "team-search", "project": "search"},
        "declared": {"use": {"purpose": "evaluate"}},
        "ruling": {
            "effect": "permit",
            "reasons": [reason],
            "policies": [
                {"policy": "example", "version": 1, "sha256": sha256(b"policy").hex()}
            ],
            "day": "2026-11-22",
        },
        "provider": {
            "name": "example",
            "endpoint": "POST https://api.example/v1/chat/completions",
            "status": 200,
        },
        "model": {"requested": "m", "reported": "m-2026"},
        "operation": "chat",
        "streaming": False,
        "readable": True,
        "request": {
            "bytes": 65,
            "commitment": {
                "alg": "sha256-salted",
                "value": sha256(b"salt" + b"question").hex(),
            },
        },
        "outputs": [
            {"choice": 0, "kind": "text", "bytes": len(TEXT), "sha256": sha256(TEXT).hex()}
        ],
        "responseBytes": 312,
        "usage": {"inputTokens": 12, "outputTokens": 34},
        "finishReasons": ["stop"],
        "ended": "complete",
        "opening": 4,
        "received": AT,
        "finished": "2026-11-22T04:30:01.456Z",
        "writer": WRITER,
    }
    about = {"response.body": sha256(b"the whole body"), "output__0": sha256(TEXT)}
    return envelope(statement("usage-receipt/v1", predicate, **about), by, named=named)


def ledger() -> list[bytes]:
    """Return the leaves of a small ledger."""
    predicate = {
        "keyid": keyid(RECEIPT_KEY),
        "role": "receipt",
        "reason": "process-ended",
        "by": "gateway serve",
        "at": AT,
        "writer": WRITER,
    }
    about = {"receipt_key": sha256(spki(RECEIPT_KEY))}
    revocation = statement("key-revocation/v1", predicate, **about)
    return [
        leaf(0),
        authorization(RECEIPT_KEY),
        leaf(2),
        envelope(canonical(a_statement()), MANIFEST_KEY, named=False),
        opening(),
        receipt(),
        envelope(revocation, MANIFEST_KEY, named=True),
        authorization(LATER_KEY),
    ]


def mth_of(hashes: Sequence[bytes]) -> bytes:
    """Return the root over those leaf hashes."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256(b"")
    k = below(len(hashes))
    return sha256(b"\x01" + mth_of(hashes[:k]) + mth_of(hashes[k:]))


def path_of(index: int, hashes: Sequence[bytes]) -> list[bytes]:
    """Return the way up from the leaf at *index*."""
    if len(hashes) == 1:
        return []
    k = below(len(hashes))
    if index < k:
        return [*path_of(index, hashes[:k]), mth_of(hashes[k:])]
    return [*path_of(index - k, hashes[k:]), mth_of(hashes[:k])]


def trust(**changed: Json) -> Json:
    """Return the trust file of the ledger, as JSON."""
    said = {
        "format": "trust/v2",
        "origin": ORIGIN,
        "log": vkey(ORIGIN, 1, raw(LOG_KEY)),
        "witnesses": [vkey(WITNESS, 4, raw(WITNESS_KEY))],
        "quorum": 1,
        "manifestKeys": [{"key": pem(MANIFEST_KEY), "since": 0, "until": None}],
        "revoked": [],
        "predecessors": [],
    }
    return said | changed


def bundle(
    leaves: Sequence[bytes], index: int, authorised_at: int | None, note_text: str | None = None
) -> Json:
    """Return the bundle of a leaf, its parts in the order in which they are written."""
    hashes = [sha256(b"\x00" + one) for one in leaves]
    if note_text is None:
        text = checkpoint(len(leaves), mth_of(hashes))
        note_text = note(text, signed(text), stamped(text, COSIGNED_AT))
    lines = ["c2sp.org/tlog-proof@v1", f"index {index}", *map(b64, path_of(index, hashes))]
    parts: Json = {}
    if authorised_at is not None:
        parts["authorization"] = {
            "hashes": [b64(one) for one in path_of(authorised_at, hashes)],
            "index": authorised_at,
            "leaf": b64(leaves[authorised_at]),
        }
    parts["leaf"] = b64(leaves[index])
    parts["mediaType"] = "application/vnd.tos-gateway.bundle.v2+json"
    parts["proof"] = "\n".join(lines) + "\n\n" + note_text
    return parts


ROOT_KEY = p256_key("root")


def trust_signature(trust_file: bytes, *, by: Private = ROOT_KEY, origin: str = ORIGIN) -> str:
    """Return the root key's signature of a trust file, as it lies beside it."""
    payload = canonical(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "trust.json", "digest": {"sha256": sha256(trust_file).hex()}}],
            "predicateType": PREDICATES + "trust/v2",
            "predicate": {"at": AT, "origin": origin},
        }
    )
    return sigstore(envelope(payload, by, named=False), by).decode()


def written(parts: Json) -> str:
    """Return a bundle as it is written."""
    return json.dumps(parts, separators=(",", ":"), ensure_ascii=False)


def with_leaf(index: int, content: bytes) -> list[bytes]:
    """Return the ledger with another leaf at *index*, as its operator could have written it."""
    return [*ledger()[:index], content, *ledger()[index + 1 :]]


def bundles_refused() -> list[Json]:
    """Return bundles that show nothing; most are well-made, by somebody who may not say it."""
    leaves = ledger()
    right = bundle(leaves, RECEIPT_AT, 1)
    text = checkpoint(len(leaves), mth_of([sha256(b"\x00" + one) for one in leaves]))
    other_log = checkpoint(
        len(leaves), mth_of([sha256(b"\x00" + one) for one in leaves]), "other.example/log"
    )
    made: dict[str, Json] = {
        "no authorisation": {k: v for k, v in right.items() if k != "authorization"},
        "the authorisation of another key": right
        | {"authorization": bundle(leaves, RECEIPT_AT, 7)["authorization"]},
        "a key that was authorised later": bundle(
            with_leaf(RECEIPT_AT, receipt(by=LATER_KEY)), RECEIPT_AT, 7
        ),
        "a key that nobody authorised": bundle(
            with_leaf(RECEIPT_AT, receipt(by=OTHER_KEY)), RECEIPT_AT, 1
        ),
        "a receipt by the manifest key": bundle(
            with_leaf(RECEIPT_AT, receipt(by=MANIFEST_KEY)), RECEIPT_AT, 1
        ),
        "a receipt that names no key": bundle(
            with_leaf(RECEIPT_AT, receipt(named=False)), RECEIPT_AT, 1
        ),
        "an authorisation by a receipt key": bundle(
            with_leaf(1, authorization(RECEIPT_KEY, by=LATER_KEY)), RECEIPT_AT, 1
        ),
        "an authorisation by a key that the trust file does not name": bundle(
            with_leaf(1, authorization(RECEIPT_KEY, by=STRANGE_KEY)), RECEIPT_AT, 1
        ),
        "an authorisation for another role": bundle(
            with_leaf(1, authorization(RECEIPT_KEY, role="manifest")), RECEIPT_AT, 1
        ),
        "another leaf in the authorisation's place": bundle(leaves, RECEIPT_AT, 3),
        "the authorisation's index moved": right
        | {"authorization": right["authorization"] | {"index": 0}},
        "a hash of the authorisation left out": right
        | {
            "authorization": right["authorization"]
            | {"hashes": right["authorization"]["hashes"][:-1]}
        },
        "the leaf of another index": right | {"leaf": b64(leaves[4])},
        "another index": right | {"proof": right["proof"].replace("index 5", "index 4")},
        "a truncated leaf": right | {"leaf": b64(leaves[RECEIPT_AT][:-1])},
        "no cosignature": bundle(leaves, RECEIPT_AT, 1, note(text, signed(text))),
        "a cosignature by a stranger": bundle(
            leaves,
            RECEIPT_AT,
            1,
            note(text, signed(text), line("witness.example/w2", b"abcd", bytes(72))),
        ),
        "the witness alone": bundle(
            leaves, RECEIPT_AT, 1, note(text, stamped(text, COSIGNED_AT))
        ),
        "another key under the log's name": bundle(
            leaves,
            RECEIPT_AT,
            1,
            note(text, signed(text, OTHER_KEY), stamped(text, COSIGNED_AT)),
        ),
        "another log's checkpoint, signed by this one's key": bundle(
            leaves,
            RECEIPT_AT,
            1,
            note(other_log, signed(other_log), stamped(other_log, COSIGNED_AT)),
        ),
        "an older checkpoint, under which the leaf is not": bundle(
            leaves, RECEIPT_AT, 1, older(leaves, RECEIPT_AT)
        ),
        "the form of an earlier release": right
        | {"mediaType": "application/vnd.tos-gateway.bundle.v1+json"},
        "an unknown key": {"more": 1, **right},
        "keys in another order": dict(reversed(right.items())),
    }
    spelt = {why: written(parts) for why, parts in made.items()}
    spelt["a newline at the end"] = written(right) + "\n"
    spelt["blanks"] = json.dumps(right, ensure_ascii=False)
    return [{"why": why, "bundle": one} for why, one in spelt.items()]


def older(leaves: Sequence[bytes], size: int) -> str:
    """Return the cosigned checkpoint of the first *size* leaves."""
    text = checkpoint(size, mth_of([sha256(b"\x00" + one) for one in leaves[:size]]))
    return note(text, signed(text), stamped(text, COSIGNED_AT))


def ledger_vectors() -> Json:
    """Return a ledger's leaves, bundles of some, and whom to trust for them."""
    leaves = ledger()
    stolen = {"keyid": keyid(RECEIPT_KEY), "since": RECEIPT_AT}
    trusts: dict[str, Json] = {
        "the receipt key was in the wrong hands by then": trust(revoked=[stolen]),
        "the manifest key ended before": trust(
            manifestKeys=[{"key": pem(MANIFEST_KEY), "since": 0, "until": 1}]
        ),
        "the manifest key began after": trust(
            manifestKeys=[{"key": pem(MANIFEST_KEY), "since": 2, "until": None}]
        ),
        "another manifest key": trust(
            manifestKeys=[{"key": pem(STRANGE_KEY), "since": 0, "until": None}]
        ),
        "another log's key under its name": trust(log=vkey(ORIGIN, 1, raw(OTHER_KEY))),
        "another witness": trust(witnesses=[vkey("witness.example/w2", 4, raw(OTHER_KEY))]),
        "two witnesses asked for": trust(
            witnesses=[
                vkey(WITNESS, 4, raw(WITNESS_KEY)),
                vkey("witness.example/w2", 4, raw(OTHER_KEY)),
            ],
            quorum=2,
        ),
    }
    trust_file = json.dumps(trust(), indent=2) + "\n"
    encoded = trust_file.encode()
    root_signed = {
        "another trust file": trust_signature(encoded[:-1]),
        "another key": trust_signature(encoded, by=STRANGE_KEY),
        "another log": trust_signature(encoded, origin="other.example/log"),
        "a manifest": sigstore(leaves[3], MANIFEST_KEY).decode(),
        "a manifest by the root key": sigstore(
            envelope(canonical(a_statement()), ROOT_KEY, named=False), ROOT_KEY
        ).decode(),
    }
    until_then = trust(revoked=[stolen | {"since": RECEIPT_AT + 1}])
    return {
        "about": "Bundles from one ledger. The receipt is leaf 5; leaves 0 and 2 say nothing.",
        "leaves": [one.decode() for one in leaves],
        "trust": trust(),
        "root": {"public": pem(ROOT_KEY)},
        "trustFile": trust_file,
        "trustSignature": trust_signature(encoded),
        "trustSignatureRefused": [
            {"why": why, "signature": one} for why, one in root_signed.items()
        ],
        "bundles": {
            "authorisation": written(bundle(leaves, 1, None)),
            "manifest": written(bundle(leaves, 3, None)),
            "opening": written(bundle(leaves, 4, None)),
            "receipt": written(bundle(leaves, RECEIPT_AT, 1)),
            "revocation": written(bundle(leaves, 6, None)),
        },
        "acceptedUnder": [
            {"why": "the receipt key ended one leaf later", "trust": until_then},
            {"why": "no witness asked for", "trust": trust(witnesses=[], quorum=0)},
        ],
        "refused": bundles_refused(),
        "refusedUnder": [{"why": why, "trust": one} for why, one in trusts.items()],
    }


# -- COSE receipts: RFC 9942 over RFC 9052, in RFC 8949's deterministic encoding -------------


def head(major: int, number: int) -> bytes:
    """Return how a CBOR item begins: its major type, and a number as short as it goes."""
    for length, code in ((0, None), (1, 24), (2, 25), (4, 26), (8, 27)):
        if code is None and number < 24:
            return bytes([major << 5 | number])
        if code is not None and number < 256**length:
            return bytes([major << 5 | code]) + number.to_bytes(length, "big")
    raise OverflowError(number)


def cbor(value: Json) -> bytes:
    """Return numbers, bytes, text, lists and maps in CBOR; keys of maps come in order."""
    match value:
        case None:
            return b"\xf6"
        case int():
            return head(0, value) if value >= 0 else head(1, -1 - value)
        case bytes():
            return head(2, len(value)) + value
        case str():
            return head(3, len(value.encode())) + value.encode()
        case list():
            return head(4, len(value)) + b"".join(map(cbor, value))
        case dict():
            items = sorted((cbor(key), cbor(one)) for key, one in value.items())
            return head(5, len(items)) + b"".join(key + one for key, one in items)
        case _:
            raise TypeError(value)


def cose() -> Json:
    """Return COSE receipts of leaves of the log."""

    def made(index: int, size: int) -> bytes:
        protected = cbor({1: -8, 395: 1})
        signature = LOG_KEY.sign(cbor(["Signature1", protected, b"", mth(0, size)]))
        shown = {396: {-1: [cbor([size, index, path(index, 0, size)])]}}
        return head(6, 18) + cbor([protected, shown, None, signature])

    return {
        "about": "RFC 9942 receipts by the log of notes.json; leaves are those of trees.json.",
        "logKey": {"public": pem(LOG_KEY), "private": private_pem(LOG_KEY)},
        "receipts": [
            {"index": index, "size": size, "bytes": made(index, size).hex()}
            for index, size in ((0, 1), (5, 11), (10, 11), (255, 257), (40_000, 65_537))
        ],
    }


FILES: dict[str, Callable[[], Json]] = {
    "trees.json": trees,
    "inclusion.json": inclusion,
    "consistency.json": consistency,
    "notes.json": notes,
    "proofs.json": proofs,
    "tiles.json": tiles,
    "cose.json": cose,
    "dsse.json": dsse,
    "ledger.json": ledger_vectors,
}


def main(words: Sequence[str]) -> int:
    """Write every file to the folder that is named."""
    if len(words) != 1:
        sys.stderr.write(str(__doc__))
        return 2
    folder = Path(words[0])
    for name, make in FILES.items():
        text = json.dumps(make(), indent=1, ensure_ascii=True) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

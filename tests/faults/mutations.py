"""Every byte of a piece of evidence is changed, taken out or doubled: none of it verifies then.

Each piece is looked at by the one verifier of its kind, under keys that made it a moment ago.
Anything but one of our own errors is a violation, a quiet yes above all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import msgspec

from gateway.errors import EvidenceError
from gateway.receipt.bundle import format_bundle
from gateway.receipt.keys import WitnessSigner, generate_pem
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import write_opening, write_statement
from gateway.receipt.verify import (
    verify_bundle,
    verify_checkpoint,
    verify_inclusion_of,
    verify_leaf,
    verify_manifest,
)
from gateway.student.signature import verify_signature, write_signature
from gateway.tlog.checkpoint import parse_checkpoint
from gateway.tlog.cosignature import add_cosignatures, cosign
from gateway.tlog.merkle import consistency_proof, leaf_hash, root_of, verify_consistency
from gateway.tlog.note import open_note, parse_note, parse_vkey
from gateway.tlog.proof import (
    ConsistencyProof,
    format_consistency,
    format_proof,
    parse_consistency,
    parse_proof,
)
from tests.support.evidence import (
    AUTHORITY,
    KEY_AUTHORIZATION,
    MANIFEST_SIGNER,
    OPENING,
    RECEIPT,
    RECEIPT_SIGNER,
    SUBJECTS,
    TRUST,
    a_bundle,
    a_manifest,
    a_note,
    a_proof,
)
from tests.support.faults import Injected

INDEX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of evidence, and the check that must refuse whatever is not it."""

    name: str
    encoded: bytes
    verify: Callable[[bytes], object]

    def accepts(self, encoded: bytes) -> bool:
        """Tell whether *encoded* verifies; any other error than ours passes through."""
        try:
            self.verify(encoded)
        except (EvidenceError, UnicodeDecodeError):
            # Text is decoded by whoever reads the file.
            return False
        return True


RECEIPT_LEAF: Final = write_statement(RECEIPT, SUBJECTS, RECEIPT_SIGNER)
KEY_LEAF: Final = write_statement(KEY_AUTHORIZATION, (), MANIFEST_SIGNER)
OPENING_LEAF: Final = write_opening(OPENING)
LEAVES: Final = [b"leaf %d" % index for index in range(11)]
WITNESS: Final = WitnessSigner(generate_pem("ed25519"), "witness.example/w1")
WITNESSED: Final = msgspec.structs.replace(TRUST, witnesses=(WITNESS.vkey,), quorum=1)
FILES: Final = {"model.safetensors": "ab" * 32}


def cosigned_note() -> bytes:
    """Return a checkpoint that the log signed and a witness cosigned."""
    note = a_note(LEAVES)
    return add_cosignatures(
        note, [cosign(parse_note(note)[0], WITNESS, 1_795_000_000)]
    ).encode()


def growth() -> bytes:
    """Return what a witness is shown: that the log grew from 3 leaves."""
    hashes = [leaf_hash(leaf) for leaf in LEAVES]
    path = consistency_proof(3, len(LEAVES), lambda first, stop: root_of(hashes[first:stop]))
    return format_consistency(ConsistencyProof(3, tuple(path), a_note(LEAVES))).encode()


def verify_growth(encoded: bytes) -> None:
    """Check that the log grew out of the one of 3 leaves, as a witness does."""
    proof = parse_consistency(encoded.decode())
    now = parse_checkpoint(open_note(proof.checkpoint, [parse_vkey(TRUST.log)]))
    before = root_of(map(leaf_hash, LEAVES[:3]))
    verify_consistency(proof.old_size, before, now.size, now.root, proof.hashes)


def pieces() -> list[Piece]:
    """Return one of each kind."""
    manifest, manifest_leaf = write_manifest(a_manifest(), MANIFEST_SIGNER)
    return [
        Piece(
            name="receipt",
            encoded=RECEIPT_LEAF,
            verify=lambda encoded: verify_leaf(encoded, INDEX, AUTHORITY),
        ),
        Piece(
            name="key-statement",
            encoded=KEY_LEAF,
            verify=lambda encoded: verify_leaf(encoded, INDEX, AUTHORITY),
        ),
        Piece(
            name="manifest-leaf",
            encoded=manifest_leaf,
            verify=lambda encoded: verify_leaf(encoded, INDEX, AUTHORITY),
        ),
        Piece(
            name="manifest",
            encoded=manifest,
            verify=lambda encoded: verify_manifest(encoded, TRUST),
        ),
        Piece(
            name="bundle",
            encoded=format_bundle(a_bundle(RECEIPT_LEAF, authorization=KEY_LEAF)),
            verify=lambda encoded: verify_bundle(encoded, TRUST),
        ),
        Piece(
            name="opening",
            encoded=format_bundle(a_bundle(OPENING_LEAF)),
            verify=lambda encoded: verify_bundle(encoded, TRUST),
        ),
        Piece(
            name="proof",
            encoded=format_proof(a_proof(LEAVES, INDEX)).encode(),
            verify=lambda encoded: verify_inclusion_of(
                LEAVES[INDEX], parse_proof(encoded.decode()), TRUST
            ),
        ),
        Piece(
            name="note",
            encoded=a_note(LEAVES).encode(),
            verify=lambda encoded: verify_checkpoint(encoded.decode(), TRUST),
        ),
        Piece(
            name="cosigned-note",
            encoded=cosigned_note(),
            verify=lambda encoded: verify_checkpoint(encoded.decode(), WITNESSED),
        ),
        Piece(name="growth", encoded=growth(), verify=verify_growth),
        Piece(
            name="vkey",
            encoded=TRUST.log.encode(),
            verify=lambda encoded: parse_vkey(encoded.decode()),
        ),
        Piece(
            name="weights",
            encoded=write_signature("model", FILES, MANIFEST_SIGNER, MANIFEST_SIGNER.public),
            verify=lambda encoded: verify_signature(encoded, FILES, [MANIFEST_SIGNER.public]),
        ),
    ]


def mutations(encoded: bytes, values: int, dice: Random) -> Iterator[tuple[str, bytes]]:
    """Yield *encoded* with one byte other, *values* others a place, without it, or doubled.

    And cut there, and with a blank or a line feed put in: what careless parsers forgive.
    """
    for at, was in enumerate(encoded):
        before, after = encoded[:at], encoded[at + 1 :]
        near = [was ^ 1, was ^ 0x20, was ^ 0x80]
        others = [value for value in range(256) if value != was and value not in near]
        for value in [*near, *dice.sample(others, min(values, len(others)))][:values]:
            yield f"{at}={value:02x}", before + bytes([value]) + after
        yield f"{at}-", before + after
        yield f"{at}+", encoded[: at + 1] + encoded[at:]
        yield f"{at}cut", before
        for blank in (b" ", b"\n", b"\r"):
            yield f"{at}{blank!r}", before + blank + encoded[at:]
    for more in (b" ", b"\n", b"\x00", b"}"):
        yield f"end{more!r}", encoded + more


def faults(
    seed: int, values: int, only: str | None = None, *, most: int | None = None
) -> Iterator[Injected]:
    """Yield what came of every mutation of every piece, with *values* other bytes a place.

    Of each piece at most *most* are tried, chosen by *seed*; *only* names one piece.
    """
    dice = Random(seed)
    for piece in pieces():
        if only not in {None, piece.name}:
            continue
        assert piece.accepts(piece.encoded), piece.name
        tried = list(mutations(piece.encoded, values, dice))
        if most is not None and most < len(tried):
            tried = dice.sample(tried, most)
        for what, mutated in tried:
            if mutated == piece.encoded:
                continue
            wrong = ("it verifies",) if piece.accepts(mutated) else ()
            yield Injected(kind=f"mutation.{piece.name}", seed=what, violations=wrong)

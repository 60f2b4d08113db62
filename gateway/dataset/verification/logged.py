"""A manifest beside the proof that it is a leaf of the log: one without is no manifest.

Whoever steals a manifest key can sign what they like; but only what the log took counts, and
the log's readers see it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.dataset.manifest import MANIFEST, PROOF
from gateway.errors import BadProofError, EvidenceError, MalformedReceiptError
from gateway.ident import Sha256
from gateway.limits import BUNDLE_BYTES_MAX, NOTE_BYTES_MAX
from gateway.receipt.keys import PublicKey, Trust, trusted_keys
from gateway.receipt.sigstore import open_manifest
from gateway.receipt.verify import verify_inclusion_of, verify_manifest
from gateway.tlog.proof import format_proof, parse_proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A manifest that is signed, and a leaf of the log."""

    statement: dict[str, Any]
    payload_sha256: Sha256
    index: int
    """Its leaf index."""
    key: PublicKey
    """Who signed it."""


def verify_logged(
    folder: Path, trust: Trust, manifest: str = MANIFEST, proof: str = PROOF
) -> Logged:
    """Return the manifest of *folder*, signed by a key that could sign at its place in the log.

    Raises:
        EvidenceError: it is not signed, or not shown to be in the log; names the file.
    """
    encoded = _read(folder, manifest, BUNDLE_BYTES_MAX)
    written = _read(folder, proof, 2 * NOTE_BYTES_MAX)
    try:
        inclusion = parse_proof(written.decode())
        if format_proof(inclusion).encode() != written:
            raise BadProofError("not written in the one way")
    except UnicodeDecodeError as exc:
        raise BadProofError(f"{proof}: not text") from exc
    except EvidenceError as exc:
        raise _in(proof, exc) from exc
    try:
        statement, payload = verify_manifest(encoded, trust, inclusion.index)
        leaf, keyid = open_manifest(encoded)
    except EvidenceError as exc:
        raise _in(manifest, exc) from exc
    try:
        verify_inclusion_of(leaf, inclusion, trust)
    except EvidenceError as exc:
        raise _in(proof, exc) from exc
    return Logged(
        statement=statement,
        payload_sha256=payload,
        index=inclusion.index,
        key=trusted_keys(trust).manifest[keyid].key,
    )


def _in(name: str, exc: EvidenceError) -> EvidenceError:
    return type(exc)(f"{name}: {exc.message}", hint=exc.hint, code=exc.problem)


def _read(folder: Path, name: str, bytes_max: int) -> bytes:
    try:
        if (folder / name).is_fifo():
            # Opening it would wait for somebody to write.
            raise MalformedReceiptError(f"{name}: not a plain file")
        with (folder / name).open("rb") as file:
            content = file.read(bytes_max + 1)
    except FileNotFoundError as exc:
        if name.endswith(PROOF):
            raise BadProofError(
                f"{name}: the file is missing: nothing shows that the manifest is in the log",
                hint="take the folder whole; whoever made it runs the same command again",
            ) from exc
        raise _unreadable(folder / name, exc) from exc
    except OSError as exc:
        raise _unreadable(folder / name, exc) from exc
    if len(content) > bytes_max:
        raise MalformedReceiptError(f"{name}: larger than {bytes_max} bytes")
    return content


def _unreadable(path: Path, exc: OSError) -> EvidenceError:
    return EvidenceError(
        f"{path}: can't be read: {exc.strerror}",
        hint="name a folder that `gateway dataset build` or `gateway student train` made",
    )

"""The authorisations of the receipt keys of a dataset, with their places in the same log.

One line a leaf: its index, the leaf, and the hashes that lead to the checkpoint's root. A key
counts where the log says so: from its authorisation on, and only up to its revocation.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import BinaryIO, Final

import msgspec

from gateway.dataset.manifest import KEYS
from gateway.dataset.verification.rows import bounded_lines
from gateway.errors import EvidenceError, MalformedReceiptError
from gateway.limits import LEAF_BYTES_MAX
from gateway.receipt.authority import Authority
from gateway.receipt.keys import Trust
from gateway.receipt.model import KeyAuthorization, KeyRevocation
from gateway.receipt.verify import signed_statement
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import leaf_hash, verify_inclusion


class KeyLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key statement's leaf, and what shows where it stands in the log."""

    hashes: tuple[str, ...]
    index: int
    leaf: str


_KEY_LINE: Final = msgspec.json.Decoder(KeyLine)


def format_key_line(index: int, leaf: bytes, hashes: Iterable[bytes]) -> bytes:
    """Return the line of the key statement *leaf*."""
    return msgspec.json.encode(
        KeyLine(
            hashes=tuple(base64.b64encode(one).decode() for one in hashes),
            index=index,
            leaf=base64.b64encode(leaf).decode(),
        )
    )


def read_authority(lines: BinaryIO, checkpoint: Checkpoint, trust: Trust) -> Authority:
    """Return which keys may sign where, by the key statements in *lines*; closes the file.

    Raises:
        EvidenceError: one is not signed by a trusted key, or not under the checkpoint.
    """
    authority, last = Authority(trust), -1
    with lines:
        for number, line in enumerate(bounded_lines(lines, 2 * LEAF_BYTES_MAX)):
            where = f"{KEYS}: line {number}"
            try:
                said = _KEY_LINE.decode(line)
                leaf = base64.b64decode(said.leaf, validate=True)
                hashes = [base64.b64decode(one, validate=True) for one in said.hashes]
            except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
                raise MalformedReceiptError(f"{where}: can't be read: {exc}") from exc
            if said.index <= last or format_key_line(said.index, leaf, hashes) != line[:-1]:
                raise MalformedReceiptError(f"{where}: not written in the canonical form")
            try:
                verify_inclusion(
                    leaf_hash(leaf), said.index, checkpoint.size, hashes, checkpoint.root
                )
                statement, by = signed_statement(leaf, said.index, authority)
            except EvidenceError as exc:
                raise type(exc)(f"{where}: {exc.message}", hint=exc.hint) from exc
            if not isinstance(statement, KeyAuthorization | KeyRevocation):
                raise MalformedReceiptError(f"{where}: says nothing of a key")
            authority.admit(said.index, statement, by)
            last = said.index
    return authority

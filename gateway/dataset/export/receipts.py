"""The lines that join each row of an export to what vouches for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from gateway.canonical import canonical_json, sha256_hex
from gateway.errors import MalformedReceiptError
from gateway.ident import Sha256

RECEIPT_COLUMN: Final = "receipt"
"""The column that names what vouches for a row, where lines of JSON carry one."""


class ReceiptLine(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One line of an export's `receipts.jsonl`; line *i* belongs to row *i*."""

    choice: int
    """Of the exchange; of a derivation, the row's place in it."""
    exported: str
    """SHA-256 of the canonical JSON of the row as it was written, without receipt columns."""
    index: int
    """Leaf index of the receipt, or of the derivation."""
    leaf: str
    """Its leaf hash, as it stands in the log's tree."""
    lost: tuple[str, ...] = ()
    """What the row lost; where nothing, the dataset's row can be made of it again."""
    receipt: str
    """What vouches for it: `x-…/0`, or `d-…/3`."""
    row: int
    """Its number over all files."""
    salt: str
    sha256: str
    """SHA-256 of the row's line in the dataset."""
    source: int
    """The row's number in the dataset."""
    split: Literal["held-out"] | None = None
    """Absent where the row is one to train on."""


def joined_to(said: ReceiptLine) -> dict[str, Any]:
    """Return the columns by which a row of columns names what vouches for it."""
    return {
        "receipt": said.receipt,
        "receipt_index": said.index,
        "receipt_leaf": said.leaf,
        "row_sha256": said.sha256,
    }


_LINE: Final = msgspec.json.Decoder(ReceiptLine)


def exported_sha256(row: Mapping[str, Any]) -> Sha256:
    """Return the digest of a row as it was written, without receipt columns."""
    return sha256_hex(canonical_json(row))


def read_receipt_line(line: bytes, number: int, name: str) -> ReceiptLine:
    """Return what *line*, that of row *number* in the file *name*, says.

    Raises:
        MalformedReceiptError: it is not one, not written in the one way, or of another row.
    """
    try:
        said = _LINE.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise MalformedReceiptError(f"{name}: row {number}: can't be read: {exc}") from exc
    if msgspec.json.encode(said) + b"\n" != line:
        raise MalformedReceiptError(f"{name}: row {number}: not written in the canonical form")
    if said.row != number:
        raise MalformedReceiptError(f"{name}: row {number}: found row {said.row} instead")
    return said

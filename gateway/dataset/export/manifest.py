"""The signed statement that names an export: which dataset it is of, its files, what was lost.

An in-toto Statement with a SLSA Provenance v1 predicate, like a dataset's manifest, and like
that a leaf of the ledger. The dataset's manifest is what it was made from, by payload digest.
Described in `docs/formats/exports.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from gateway.dataset.provenance import Provenance, read_provenance, write_provenance
from gateway.errors import MalformedReceiptError
from gateway.ident import DeclarationId, Sha256
from gateway.intent.model import IntendedUse
from gateway.receipt.model import (
    EXPORT_BUILD,
    PREDICATES,
    RowKind,
    Wire,
)

BUILDER: Final = PREDICATES + "dataset-export/v1"
"""Who made it: the exporter of this package; the version stands beside it."""

RECEIPTS: Final = "receipts.jsonl"
LOST: Final = "lost.json"
CARD: Final = "README.md"
LLAMA_FACTORY: Final = "dataset_info.json"
DATASET_MANIFEST_FILE: Final = "dataset/manifest.json"
DATASET_PROOF_FILE: Final = "dataset/manifest.tlog-proof"

Part = Literal["train", "held-out"]
"""A part of the rows, as a dataset calls it."""


class Asked(Wire, frozen=True, kw_only=True):
    """The external parameters: what somebody asked to be exported."""

    name: str
    dataset: str
    project: str
    declaration: DeclarationId
    format: str
    kind: RowKind
    splits: tuple[Part, ...]
    shard_rows: int | None = None
    receipt_column: bool = False
    """Each row names what vouches for it."""
    strict: bool = False
    """Nothing may be lost: a row that would lose something ends the export."""


class DataFile(Wire, frozen=True, kw_only=True):
    """One file of rows."""

    name: str
    split: Part
    rows: int


class Found(Wire, frozen=True, kw_only=True):
    """The internal parameters: what came of it."""

    rows: int
    files: tuple[DataFile, ...]
    """In their order: a part's rows stand in its files one after the other."""
    lossy: int = 0
    """Rows that lost something."""
    lost: dict[str, int] = msgspec.field(default_factory=dict)
    """Rows by what they lost."""
    left_out: dict[str, int] = msgspec.field(default_factory=dict)
    """Rows of the dataset that the form has no place for, by reason."""
    use: IntendedUse
    """What may be done with the rows: the dataset's declared use, word for word."""
    day: str
    """The day on which every row was ruled on once more."""
    library: Sha256
    """Digest of the policy library it was ruled under."""
    obligations: tuple[str, ...] = ()


class ExportManifest(Provenance[Asked, Found], frozen=True, kw_only=True):
    """An export manifest, read."""


def statement_of(manifest: ExportManifest) -> dict[str, Any]:
    """Return *manifest* as the in-toto Statement that is signed."""
    return write_provenance(EXPORT_BUILD, BUILDER, manifest)


def parse_export(statement: Mapping[str, Any]) -> ExportManifest:
    """Return the export manifest that *statement* is.

    Raises:
        MalformedReceiptError: it is another kind of statement, or not whole.
    """
    try:
        return read_provenance(statement, EXPORT_BUILD, ExportManifest, Asked, Found)
    except MalformedReceiptError as exc:
        raise MalformedReceiptError(
            f"this is not an export manifest: {exc.message}",
            hint="an export is written by `gateway dataset export`",
        ) from exc

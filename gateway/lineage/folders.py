"""Folders of datasets and models at hand, and the signed copies of manifests in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from gateway.canonical import sha256_hex
from gateway.dataset.manifest import MANIFEST, RECEIPTS
from gateway.dataset.verification.verify import iterate_rows
from gateway.errors import EvidenceError, MissingPieceError
from gateway.ident import ExchangeId, Sha256
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.lineage.nodes import Leaf
from gateway.receipt.envelope import open_envelope
from gateway.receipt.keys import Trust
from gateway.receipt.model import Manifest
from gateway.receipt.sigstore import open_manifest
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import verify_manifest
from gateway.store.files import entries_of

_COPIES: Final = "evidence/*.manifest.json"
"""Where a model folder keeps copies of its datasets' manifests."""


class Folders:
    """Dataset folders at hand, found by the digest of their manifest's payload."""

    def __init__(self, places: list[Path]) -> None:
        self._places = places
        self._known: dict[Sha256, Path] | None = None
        self.shut: list[str] = []
        """What could not be looked into, in words."""

    def __call__(self, payload: Sha256) -> Path | None:
        """Return the folder of a manifest, or `None`; the folder itself is not verified."""
        if self._known is None:
            self._known = {}
            for place in self._places:
                for folder in (place, *self._entries_of(place)):
                    found = self._payload_in(folder)
                    if found is not None and (folder / RECEIPTS).is_file():
                        self._known.setdefault(found, folder)
        return self._known.get(payload)

    def _entries_of(self, place: Path) -> list[Path]:
        try:
            return entries_of(place)
        except MissingPieceError as shut:
            self._say(shut)
            return []

    def _payload_in(self, folder: Path) -> Sha256 | None:
        try:
            return payload_in(folder)
        except MissingPieceError as shut:
            self._say(shut)
            return None

    def _say(self, shut: MissingPieceError) -> None:
        if shut.message not in self.shut:
            self.shut.append(shut.message)


def payload_in(folder: Path) -> Sha256 | None:
    """Return the payload digest of the manifest in *folder*, unverified, or `None`.

    Raises:
        MissingPieceError: it may not be read.
    """
    try:
        if not (folder / MANIFEST).is_file():
            return None
        with (folder / MANIFEST).open("rb") as file:
            leaf, _ = open_manifest(file.read(BUNDLE_BYTES_MAX + 1))
        return sha256_hex(open_envelope(leaf).payload)
    except PermissionError as error:
        raise MissingPieceError(
            f"`{folder}` can't be looked into: {error.strerror}",
            hint="let this account read it, or move away what is none of the gateway's",
        ) from error
    except (OSError, EvidenceError):
        return None


@dataclass(slots=True)
class Copies:
    """Signed copies of manifests that travel in a model folder, for where the ledger is not."""

    trust: Trust
    known: dict[Sha256, Manifest] = field(default_factory=dict)

    def take(self, folder: Path) -> None:
        """Take in the manifest of *folder* and its copies of others; bad ones are ignored."""
        for path in (folder / MANIFEST, *sorted(folder.glob(_COPIES))):
            try:
                with path.open("rb") as file:
                    encoded = file.read(BUNDLE_BYTES_MAX + 1)
                verify_manifest(encoded, self.trust)
                statement = read_leaf(open_manifest(encoded)[0])
            except (OSError, EvidenceError):
                continue
            if isinstance(statement, Manifest):
                self.known[statement.payload_sha256] = statement


def receipts_in(folder: Path, count: int) -> tuple[Leaf, ...]:
    """Return the first *count* leaves that the rows of *folder* are from, unverified."""
    seen: dict[ExchangeId, int] = {}
    try:
        for row in islice(iterate_rows(folder), 4 * count):
            seen.setdefault(row.source, row.index)
    except EvidenceError:
        return ()
    return tuple(
        Leaf(exchange=exchange, index=index) for exchange, index in islice(seen.items(), count)
    )

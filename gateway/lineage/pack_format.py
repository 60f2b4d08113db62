"""What a pack is: its files, what `pack.json` says, and the one way to write that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from gateway.canonical import canonical_json
from gateway.dataset.manifest import (
    CARD,
    CROISSANT,
    HELD_OUT,
    MANIFEST,
    PROOF,
    RECEIPTS,
    ROWS,
    DatasetManifest,
)
from gateway.ident import Sha256
from gateway.lineage.answer import Answer
from gateway.lineage.holdings import About
from gateway.receipt.model import PREDICATES, Wire

FORMAT: Final = "tos-gateway-pack/v2"
PACK_TYPE: Final = PREDICATES + "pack/v1"
PACK: Final = "pack.json"
SIGNATURE: Final = "pack.sigstore.json"
PAGE: Final = "index.html"
TRUST: Final = "trust.json"
MANIFESTS: Final = "manifests/"
POLICIES: Final = "policies/"
FILES: Final = "files/"

DESCRIBING: Final = frozenset({CARD, CROISSANT})
TEXTS: Final = frozenset({ROWS, HELD_OUT, RECEIPTS})
"""Files of a dataset that hold rows or salts: only where rows are asked for."""

INDEX_BYTES: Final = 8
LENGTH_BYTES: Final = 2
CHECKPOINT_FILE: Final = "evidence/checkpoint"

Choice = Literal["all", "sample"]


class Shown(Wire, frozen=True, kw_only=True):
    """How many of the receipts and derivations that it speaks of a pack holds."""

    chosen: Choice
    shown: int
    of: int


class Account(Wire, frozen=True, kw_only=True):
    """An account that was asked for, and every leaf that is a receipt of it."""

    account: str
    leaves: dict[str, str]
    """Bits by first leaf, packed as in `Members`."""


class PackFacts(Wire, frozen=True, kw_only=True):
    """What `pack.json` says: what was asked, what is answered, and which files show it."""

    format: Literal["tos-gateway-pack/v2"]
    version: str
    """Of the package that made it; another may put the same answer into other words."""
    origin: str
    size: int
    root: Sha256
    about: About
    answers: tuple[Answer, ...]
    accounts: tuple[Account, ...] = ()
    receipts: Shown
    missing: tuple[str, ...] = ()
    """What belongs into it and was not at hand."""
    rows: bool = False
    """Whether it holds rows, with their salts."""
    files: dict[str, Sha256]
    """SHA-256 of every file but this one and its signature."""


def pack_json(facts: PackFacts) -> bytes:
    """Return the one way to write what `pack.json` says."""
    return canonical_json(msgspec.to_builtins(facts)) + b"\n"


def manifest_file(payload: Sha256) -> str:
    """Return the name of a manifest in a pack."""
    return f"{MANIFESTS}{payload}/{MANIFEST}"


def proof_file(payload: Sha256) -> str:
    """Return the name of what shows a manifest's place in the log."""
    return f"{MANIFESTS}{payload}/{PROOF}"


def pins_of(datasets: Iterable[DatasetManifest]) -> dict[Sha256, str]:
    """Return the digest of every policy that *datasets* were ruled under, and its name."""
    return {
        pin.sha256: f"{pin.policy} v{pin.version}"
        for dataset in datasets
        for teacher in dataset.found.teachers
        for pin in teacher.policies
    }


def describes(name: str) -> bool:
    """Tell whether a file of a folder is a card, or a list of what a model is made of."""
    return name in DESCRIBING or name.endswith((".cdx.json", "bom.json"))

"""What the base of a student learned before, where that is at hand.

A base that is a student of ours names the datasets it learned from, and the student that it
began as. What it learned, whoever goes on from it has learned too: such a row can't be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway.dataset.ancestry import Ancestry
from gateway.dataset.manifest import DATASET_MANIFEST, MANIFEST
from gateway.dataset.verification.verify import verified_rows
from gateway.errors import EvidenceError
from gateway.ident import Sha256
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.receipt.keys import Trust
from gateway.receipt.verify import verify_manifest
from gateway.student.gate import Sources
from gateway.student.manifest import Base


def show_learned_before(
    base: Base,
    sources: Sources,
    among: Iterable[Path],
    see: Callable[[Mapping[str, Any]], None],
) -> tuple[str, ...]:
    """Show *see* each row that *base* learned; return the names of datasets not at hand.

    Those are looked for in the folders *among*, and verified. Nothing is ruled on: what was
    learned was learned, whatever was said of it since.

    Raises:
        EvidenceError: a dataset that it learned from is at hand and does not verify.
    """
    wanted = _datasets_above(base, sources)
    for folder in among if wanted else ():
        payload = payload_of(folder, sources.trust)
        if payload is None or wanted.pop(payload, None) is None:
            continue
        for row in verified_rows(folder, sources.trust):
            if row.split == "train":
                see(msgspec.json.decode(row.line))
    return tuple(wanted.values())


def payload_of(folder: Path, trust: Trust) -> Sha256 | None:
    """Return the digest that names the dataset in *folder*, or `None` where there is none."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            return verify_manifest(file.read(BUNDLE_BYTES_MAX + 1), trust)[1]
    except (OSError, EvidenceError):
        return None


def _datasets_above(base: Base, sources: Sources) -> dict[Sha256, str]:
    """Return the datasets that *base*, and those that it began as, learned from, by digest."""
    ancestry, found = Ancestry(sources.manifest), dict[Sha256, str]()
    waiting = [] if base.manifest is None else [base.manifest]
    for payload in waiting:
        for parent in ancestry.training(payload).parents():
            digest = Sha256(parent.digest["sha256"])
            if parent.kind == DATASET_MANIFEST:
                found[digest] = parent.name
            elif digest not in waiting:
                waiting.append(digest)
    return found

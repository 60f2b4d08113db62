"""Exports out of a small house."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from gateway.dataset.export.forms import FORMS
from gateway.dataset.export.write import Exported, Order, Sources, export_dataset
from tests.support.dataset import House
from tests.support.evidence import MANIFEST_SIGNER, TRUST


def export_sources(house: House, **changes: Any) -> Sources:
    """Return what an export reads and writes, as the house stands."""
    said: dict[str, Any] = {
        "law": house.law,
        "library": house.library.digest,
        "words": house.words,
        "refresh": lambda: None,
        "was_erased": house.texts.was_erased,
        "manifest": house.manifest,
        "index_of": house.index_of,
        "prove": house.prove,
        "publish": house.sequencer.checkpoint_now,
        "append": house.append,
        "signer": MANIFEST_SIGNER,
        "trust": TRUST,
        "clock": house.clock,
        "version": "0.1.0",
        "invocation": "export-1",
    }
    return Sources(**(said | changes))


def export(house: House, dataset: Path, form: str, **said: Any) -> Exported:
    """Export *dataset* under `exports/` of the house's folder."""
    folder = house.folder / "exports" / said.pop("name", form)
    changes = said.pop("sources", {})
    order = Order(dataset=dataset, form=FORMS[form], folder=folder, **said)
    return export_dataset(order, export_sources(house, **changes))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of JSON."""
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]

"""A folder that holds what a dataset's card and metadata speak of, and nothing that vouches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.canonical import canonical_json, sha256_hex
from gateway.dataset.card import card_of
from gateway.dataset.croissant import croissant_of
from gateway.dataset.manifest import (
    CARD,
    CROISSANT,
    HELD_OUT,
    LEDGER_CHECKPOINT,
    PREVIOUS_SNAPSHOT,
    RECEIPTS,
    ROWS,
    TRAINING_MANIFEST,
    DatasetManifest,
    Findings,
    MadeBy,
    Parameters,
    Split,
    Teacher,
    WrittenBy,
    manifest_dependency,
)
from gateway.dataset.provenance import Dependency, Metadata
from gateway.ident import DeclarationId, Sha256
from gateway.intent.model import IntendedUse
from gateway.receipt.model import RowKind, Subject

ASKED = {"role": "user", "content": "what is due?"}
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "look", "arguments": '{"at":"page 2"}'},
}
ROW: dict[RowKind, dict[str, Any]] = {
    "messages": {
        "messages": [
            ASKED,
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "12.00", "tool_call_id": "c1"},
            {"role": "assistant", "content": "12.00 \u20ac"},
        ],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}],
    },
    "preference": {
        "prompt": [ASKED],
        "chosen": [{"role": "assistant", "content": "12.00"}],
        "rejected": [{"role": "assistant", "content": "12"}],
    },
    "prompt": {"prompt": [ASKED], "verifier": "exact", "answer": "12.00"},
}


def a_folder(path: Path, kind: RowKind = "messages", *, held_out: bool = True) -> Path:
    """Write what Croissant speaks of, and the metadata; return where that is."""
    split = (Split(name="train", rows=2), Split(name="held-out", rows=1)) if held_out else ()
    vouched = "exchange" if kind == "messages" else "derivation"
    line = canonical_json(ROW[kind])
    receipts = [
        {"choice": 0, vouched: "id", "index": 7, "leaf": "a" * 64, "row": n, "sha256": "b" * 64}
        for n in range(3)
    ]
    files = {
        ROWS: (line + b"\n") * (2 if held_out else 3),
        RECEIPTS: b"".join(canonical_json(one) + b"\n" for one in receipts),
    } | ({HELD_OUT: line + b"\n"} if held_out else {})
    for name, content in files.items():
        (path / name).write_bytes(content)
    manifest = DatasetManifest(
        asked=Parameters(
            dataset="invoices-1",
            declaration=DeclarationId("use-0123456789abcdef0123"),
            project="search",
            kind=kind,
        ),
        found=Findings(
            rows=3,
            splits=split,
            teachers=(
                Teacher(
                    provider="openai",
                    model='gpt "x"\n<script>',
                    operation="chat",
                    rows=3,
                    receipts=3,
                    days=("2026-11-20", "2026-11-22"),
                    effect="permit",
                ),
                Teacher(
                    provider="parser",
                    manifest=Sha256("c" * 64),
                    operation="chat",
                    rows=1,
                    receipts=1,
                    days=("2026-11-22",),
                    effect="permit",
                    influence="judge",
                ),
            ),
            use=IntendedUse(purpose="train.sft", audience="internal", commercial=False),
            day="2026-11-22",
            library=Sha256("a" * 64),
            obligations=("keep-ai-label", "attribute=Built with Llama"),
            made_by=(
                ()
                if kind == "messages"
                else (MadeBy(name="pair", version="2", kind="compose", rows=3),)
            ),
            written_by=(
                ()
                if kind == "messages"
                else (WrittenBy(by="ada", licence="CC-BY-4.0", source="our own", rows=1),)
            ),
        ),
        dependencies=(
            manifest_dependency("student:parser", Sha256("c" * 64), TRAINING_MANIFEST),
            manifest_dependency("invoices-0", Sha256("d" * 64), PREVIOUS_SNAPSHOT),
            Dependency(
                name="ledger",
                uri="tlog:log.example/receipts",
                digest={"sha256": "e" * 64},
                annotations={"kind": LEDGER_CHECKPOINT, "size": 12},
            ),
        ),
        subjects=tuple(
            Subject(name=name, digest={"sha256": sha256_hex(content)})
            for name, content in files.items()
        ),
        metadata=Metadata(
            invocation_id="i",
            started_on="2026-11-22T10:00:00.000Z",
            finished_on="2026-11-22T10:00:01.000Z",
        ),
        version="0.1.0",
    )
    written = path / CROISSANT
    written.write_bytes(croissant_of(manifest))
    (path / CARD).write_text(card_of(manifest))
    return written

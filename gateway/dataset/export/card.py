"""The card of an export: what a stranger should know before using the rows in this form."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec

from gateway.dataset.croissant import HELD_OUT_SPLIT, LICENCE, TRAIN
from gateway.dataset.export.forms import FORMS
from gateway.dataset.export.lost import LEFT_OUT, LOSSES
from gateway.dataset.export.manifest import ExportManifest
from gateway.policy.obligation import sentence_of

_LOADS_AS = {"train": TRAIN, "held-out": HELD_OUT_SPLIT}


def card_of_export(manifest: ExportManifest) -> str:
    """Return the card of an export as Markdown, with the front matter that loaders read."""
    return "\n".join(_lines(manifest)) + "\n"


def llama_factory_of(manifest: ExportManifest) -> bytes | None:
    """Return `dataset_info.json` for LLaMA-Factory, where it reads this form."""
    said = FORMS[manifest.asked.format].llama_factory
    if said is None:
        return None
    info = {
        f"{manifest.asked.name}-{name}": {"file_name": file, **said}
        for name, file in _named(manifest).items()
    }
    return json.dumps(info, indent=1, sort_keys=True).encode() + b"\n"


def _lines(manifest: ExportManifest) -> Iterator[str]:
    asked, found = manifest.asked, manifest.found
    form = FORMS[asked.format]
    yield from _front_matter(manifest)
    yield f"# {asked.name}"
    yield ""
    yield (
        f"{found.rows} rows of dataset `{asked.dataset}` of project `{asked.project}`, in the "
        f"form `{asked.format}`: for {form.readers}."
    )
    yield (
        "Line *i* of `receipts.jsonl` names the signed leaf that vouches for row *i*; "
        "`dataset/manifest.json` is the manifest of the dataset itself."
    )
    yield ""
    yield "## What it may be used for"
    yield ""
    yield (
        f"What declaration `{asked.declaration}` says; every row was ruled on again for it on "
        f"{found.day}:"
    )
    yield ""
    said: dict[str, object] = msgspec.to_builtins(found.use)
    yield from (f"* {fact}: {_plain(value)}" for fact, value in said.items())
    yield ""
    yield (
        "Any other use needs a declaration and a ruling of its own. The licence is `other` "
        "because the teachers' terms bind whoever uses the rows."
    )
    yield ""
    if found.obligations:
        yield "Obligations that come with them:"
        yield ""
        yield from (
            f"* `{_plain(duty)}`: {_plain(sentence_of(duty))}" for duty in found.obligations
        )
        yield ""
    yield "## What was lost"
    yield ""
    yield from _losses(manifest)
    yield ""
    yield "## Files"
    yield ""
    yield "| file | part | loads as | rows |"
    yield "|---|---|---|--:|"
    yield from (
        f"| `{file.name}` | {file.split} | `{_LOADS_AS[file.split]}` | {file.rows} |"
        for file in found.files
    )
    yield ""
    yield "## How to load it"
    yield ""
    yield "```python"
    yield 'datasets.load_dataset("path/to/this/folder")'
    yield "```"
    yield ""
    if form.llama_factory is not None:
        names = ", ".join(f"`{asked.name}-{name}`" for name in _named(manifest))
        yield f"LLaMA-Factory: this folder as `dataset_dir`, and of it the datasets {names}."
        yield ""
    yield "## How to check it"
    yield ""
    yield "```"
    yield "gateway verify ."
    yield "```"
    yield ""
    yield (
        "It needs this folder and the public keys in `trust.json`, no network and no server. "
        "Who wants to learn from the rows with this gateway takes the dataset itself: "
        "`gateway student train` holds each row to its receipt."
    )


def _named(manifest: ExportManifest) -> dict[str, str]:
    """Return each file by its name without an ending."""
    return {file.name.rpartition(".")[0]: file.name for file in manifest.found.files}


def _losses(manifest: ExportManifest) -> Iterator[str]:
    found = manifest.found
    if not found.lost and not found.left_out:
        yield "Nothing: from every row here the dataset's row can be made again, byte for byte."
        return
    yield "| what | rows | meaning |"
    yield "|---|--:|---|"
    yield from (f"| {kind} | {n} | {LOSSES.get(kind, '')} |" for kind, n in found.lost.items())
    yield from (
        f"| left out: {why} | {n} | {LEFT_OUT.get(why, '')} |"
        for why, n in found.left_out.items()
    )


def _front_matter(manifest: ExportManifest) -> Iterator[str]:
    asked, found = manifest.asked, manifest.found
    form = FORMS[asked.format]
    yield "---"
    yield f"pretty_name: {json.dumps(asked.name)}"
    yield "license: other"
    yield f"license_name: {LICENCE}"
    yield "tags: [synthetic, distillation, tos-gateway]"
    if form.features:
        receipt = (("receipt", "dtype: string"),) if asked.receipt_column else ()
        yield "dataset_info:"
        yield "- config_name: default"
        yield "  features:"
        yield from (f"  - {{name: {name}, {how}}}" for name, how in (*form.features, *receipt))
    yield "configs:"
    yield "- config_name: default"
    yield "  data_files:"
    for part, name in _LOADS_AS.items():
        files = [file.name for file in found.files if file.split == part]
        if files:
            yield f"  - {{split: {name}, path: [{', '.join(files)}]}}"
    yield "---"
    yield ""


def _plain(value: object) -> str:
    """Keep what others wrote from being read as Markdown or HTML."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    kept = "".join(char if char.isprintable() else " " for char in str(value)[:200])
    for char in "\\|`<>*_[]":
        kept = kept.replace(char, "\\" + char)
    return kept

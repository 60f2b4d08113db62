"""The dataset card: what a stranger should know before using the rows, made from the manifest.

It is the `README.md` of the folder, with the front matter that the Hugging Face hub reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec

from gateway.dataset.gate import REFUSALS
from gateway.dataset.manifest import DatasetManifest, Teacher
from gateway.policy.obligation import sentence_of


def card_of(manifest: DatasetManifest) -> str:
    """Return the card of a dataset as Markdown."""
    return "\n".join(_lines(manifest)) + "\n"


def _lines(manifest: DatasetManifest) -> Iterator[str]:
    asked, found = manifest.asked, manifest.found
    yield from _front_matter(manifest)
    yield f"# {_cell(asked.dataset)}"
    yield ""
    yield (
        f"{found.rows} rows of `messages`, each an answer that a teacher gave through the "
        f"gateway of project {_code(asked.project)}, each with its signed usage receipt."
    )
    yield ""
    yield "## What it may be used for"
    yield ""
    yield f"Declaration {_code(asked.declaration)}, ruled on again on {_cell(found.day)}:"
    yield ""
    yield from (f"* {key}: {_say(said)}" for key, said in _use(manifest))
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
            f"* {_code(duty)}: {_cell(sentence_of(duty))}" for duty in found.obligations
        )
        yield ""
    yield "## Teachers"
    yield ""
    yield "| provider | model | rows | tokens out | policies | asked on | obligations |"
    yield "|---|---|--:|--:|---|---|---|"
    yield from (_teacher(teacher) for teacher in found.teachers)
    yield ""
    students = [teacher for teacher in found.teachers if teacher.manifest]
    if students:
        yield "Students of ours among them, by the digest of their training manifest:"
        yield ""
        yield from (f"* {_cell(t.provider)}: {_code(t.manifest or '')}" for t in students)
        yield ""
    yield "## What was left out"
    yield ""
    if found.left_out:
        yield "| reason | candidates | meaning |"
        yield "|---|--:|---|"
        yield from (
            f"| {_code(left.reason)} | {left.count} | {REFUSALS.get(left.reason, '')} |"
            for left in found.left_out
        )
    else:
        yield "Nothing: every candidate passed."
    yield ""
    yield "## How to check it"
    yield ""
    yield "```"
    yield "gateway verify ."
    yield "```"
    yield ""
    yield (
        "It needs this folder and the public keys in `trust.json`, no network and no server. "
        "It checks the signature of `manifest.json`, the digest of every file, each row "
        "against the commitment in its receipt, each receipt's signature, and that each "
        "receipt is under the signed checkpoint in `evidence/`. `left-out.jsonl` lists what "
        "was left out, one line each."
    )


def _front_matter(manifest: DatasetManifest) -> Iterator[str]:
    rows = manifest.found.rows
    yield "---"
    yield f"pretty_name: {json.dumps(manifest.asked.dataset)}"
    yield "license: other"
    yield "license_name: terms-of-the-teachers"
    yield "tags: [synthetic, distillation, tos-gateway]"
    yield f"size_categories: [{_size(rows)}]"
    yield "configs:"
    yield "- config_name: default"
    yield "  data_files: rows.jsonl"
    yield "---"
    yield ""


def _size(rows: int) -> str:
    for bound, name in (
        (1_000, "n<1K"),
        (10_000, "1K<n<10K"),
        (100_000, "10K<n<100K"),
        (1_000_000, "100K<n<1M"),
    ):
        if rows < bound:
            return name
    return "1M<n<10M" if rows < 10_000_000 else "n>10M"


def _use(manifest: DatasetManifest) -> Iterator[tuple[str, object]]:
    said: dict[str, object] = msgspec.to_builtins(manifest.found.use)
    yield from said.items()


def _say(said: object) -> str:
    match said:
        case bool():
            return "yes" if said else "no"
        case _:
            return _cell(str(said))


def _teacher(teacher: Teacher) -> str:
    days = teacher.days
    policies = sorted({f"{pin.policy} v{pin.version}" for pin in teacher.policies})
    cells = [
        teacher.provider,
        teacher.model or "not reported",
        str(teacher.rows),
        "not reported" if teacher.output_tokens is None else str(teacher.output_tokens),
        ", ".join(policies) or "those of its teachers",
        days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
        ", ".join(teacher.obligations) or "none",
    ]
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _code(text: str) -> str:
    """Keep what others wrote from leaving a code span."""
    kept = (c if c.isprintable() and c not in "`<>|" else "?" for c in text[:200])
    return f"`{''.join(kept)}`"


def _cell(text: str) -> str:
    """Keep what others wrote from being read as Markdown or HTML."""
    kept = "".join(char if char.isprintable() else " " for char in text[:200])
    for char in "\\|`<>*_[]":
        kept = kept.replace(char, "\\" + char)
    return kept

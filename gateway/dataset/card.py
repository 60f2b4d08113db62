"""The dataset card: what a stranger should know before using the rows, made from the manifest.

It is the `README.md` of the folder, with the front matter that the Hugging Face hub reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from gateway.dataset.croissant import HELD_OUT_SPLIT, LICENCE, TRAIN
from gateway.dataset.gate.refusals import REFUSALS
from gateway.dataset.manifest import HELD_OUT, ROWS, DatasetManifest, Teacher
from gateway.policy.obligation import sentence_of


def card_of(manifest: DatasetManifest) -> str:
    """Return the card of a dataset as Markdown."""
    return "\n".join(_lines(manifest)) + "\n"


def _lines(manifest: DatasetManifest) -> Iterator[str]:
    asked, found = manifest.asked, manifest.found
    yield from _front_matter(manifest)
    yield f"# {_cell(asked.dataset)}"
    yield ""
    yield f"{found.rows} rows of `{asked.kind}`. {_KINDS[asked.kind]}"
    yield _VOUCHED[found.is_derived].format(project=_code(asked.project))
    if asked.reasoning:
        yield (
            "Answers carry the reasoning that the teacher showed, as `reasoning_content`: only "
            "where its terms show that it was given openly."
        )
    yield ""
    yield from _use_section(manifest)
    yield from _teacher_section(found.teachers)
    yield from _making_section(manifest)
    yield from _split_section(manifest)
    yield from _left_out_section(manifest)
    yield from _loading_section(manifest)
    yield from _CHECKING


_KINDS: Final = {
    "messages": (
        "Each is a conversation to its answer, the last message; `tools` where there were any."
    ),
    "preference": (
        "Each is a `prompt` with two answers to it: `chosen` was judged better than `rejected`."
    ),
    "prompt": (
        "Each is a `prompt` and the id of the `verifier` that tells whether an answer to it is "
        "right; `answer` is what it compares with, where it needs that."
    ),
}

_VOUCHED: Final = {
    False: (
        "Each is an answer that a teacher gave through the gateway of project {project}, with "
        "its signed usage receipt."
    ),
    True: (
        "Each was made in a pipeline of project {project} from answers given through its "
        "gateway, or from declared words, with the signed statement that names its parents."
    ),
}


def _use_section(manifest: DatasetManifest) -> Iterator[str]:
    asked, found = manifest.asked, manifest.found
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


def _teacher_section(teachers: Sequence[Teacher]) -> Iterator[str]:
    yield "## Teachers"
    yield ""
    judged = any(teacher.influence == "judge" for teacher in teachers)
    yield "| provider | model | rows | tokens out | policies | asked on | obligations |" + (
        " reached the rows as |" if judged else ""
    )
    yield "|---|---|--:|--:|---|---|---|" + ("---|" if judged else "")
    for teacher in teachers:
        yield _teacher(teacher) + (f" {_INFLUENCE[teacher.influence]} |" if judged else "")
    yield ""
    if judged:
        yield (
            "Where a teacher reached rows as a judge, none of its words stand in them: it "
            "decided whether they stand, or which answer is the better one."
        )
        yield ""
    students = [teacher for teacher in teachers if teacher.manifest]
    if students:
        yield "Students of ours among them, by the digest of their training manifest:"
        yield ""
        yield from (f"* {_cell(t.provider)}: {_code(t.manifest or '')}" for t in students)
        yield ""


_INFLUENCE: Final = {"text": "words", "judge": "judge"}


def _making_section(manifest: DatasetManifest) -> Iterator[str]:
    found = manifest.found
    if not found.is_derived:
        return
    yield "## How the rows were made"
    yield ""
    if found.made_by:
        yield "| transform | version | what it does | rows it reached |"
        yield "|---|---|---|--:|"
        yield from (
            f"| {_cell(made.name)} | {_cell(made.version)} | {made.kind} | {made.rows} |"
            for made in found.made_by
        )
        yield ""
    if found.written_by:
        yield "Words that people wrote, or that came from outside, stand in some of them:"
        yield ""
        yield "| stated by | where they come from | licence | rows |"
        yield "|---|---|---|--:|"
        yield from (
            f"| {_cell(words.by)} | {_cell(words.source)} | {_cell(words.licence)} "
            f"| {words.rows} |"
            for words in found.written_by
        )
        yield ""


def _split_section(manifest: DatasetManifest) -> Iterator[str]:
    asked, found = manifest.asked, manifest.found
    if asked.follows is not None:
        yield "## A snapshot of a feed"
        yield ""
        yield f"It follows {_code(asked.follows)} and holds nothing of it:"
        yield f"only what stands in the log from leaf {asked.after or 0} on."
        yield ""
    if not found.splits:
        return
    yield "## Parts"
    yield ""
    yield "| part | file | loads as | rows | groups of alike prompts |"
    yield "|---|---|---|--:|--:|"
    for split in found.splits:
        file, name = _PARTS[split.name]
        groups = "not counted" if split.clusters is None else str(split.clusters)
        yield f"| {split.name} | `{file}` | `{name}` | {split.rows} | {groups} |"
    yield ""
    yield (
        f"A share of {_code(asked.held_out or 'unknown')} of the groups was kept apart before "
        f"any training, drawn with seed {asked.seed}; no group stands in both parts."
    )
    yield ""


def _left_out_section(manifest: DatasetManifest) -> Iterator[str]:
    asked, found = manifest.asked, manifest.found
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
    if asked.filters:
        yield "Only candidates that these select were looked at:"
        yield ""
        yield from (
            f"* {_cell(name)}: {_cell(value)}" for name, value in sorted(asked.filters.items())
        )
        yield ""
    yield _DEDUPED[asked.dedupe]
    yield ""


_DEDUPED: Final = {
    "exact": "Of rows that are the same byte for byte, one was taken.",
    "near": "Of rows that are the same or nearly so (MinHash), one was taken.",
}


def _loading_section(manifest: DatasetManifest) -> Iterator[str]:
    yield "## How to load it"
    yield ""
    yield "```python"
    yield 'datasets.load_dataset("path/to/this/folder")'
    yield "```"
    yield ""
    parts = " and `test` (what was held out)" if manifest.found.splits else ""
    yield (
        f"It gives `train`{parts}, and nothing but rows. `croissant.json` says the same to "
        "other loaders."
    )
    yield ""


_CHECKING: Final = (
    "## How to check it",
    "",
    "```",
    "gateway verify .",
    "```",
    "",
    (
        "It needs this folder and the public keys in `trust.json`, no network and no server. "
        "It checks the signature of `manifest.json`, the digest of every file, each row "
        "against the commitment in its receipt, and that each receipt, by a key that could "
        "sign there, is under the signed checkpoint in `evidence/`. `left-out.jsonl` lists "
        "what was left out, one line each."
    ),
)


def _front_matter(manifest: DatasetManifest) -> Iterator[str]:
    asked, found = manifest.asked, manifest.found
    yield "---"
    yield f"pretty_name: {json.dumps(asked.dataset)}"
    yield "license: other"
    yield f"license_name: {LICENCE}"
    yield "task_categories: [text-generation]"
    people = ", other" if found.written_by else ""
    yield f"language_creators: [machine-generated{people}]"
    yield f"tags: [synthetic, distillation, tos-gateway, {asked.kind}]"
    yield f"size_categories: [{_size(found.rows)}]"
    yield f"teachers: {json.dumps(_names(found.teachers))}"
    yield "dataset_info:"
    yield "- config_name: default"
    yield "  features:"
    yield from (f"  - {{name: {name}, {how}}}" for name, how in _FEATURES[asked.kind])
    yield "configs:"
    yield "- config_name: default"
    yield "  data_files:"
    parts = [split.name for split in found.splits] or ["train"]
    yield from (
        f"  - {{split: {name}, path: {file}}}"
        for file, name in (_PARTS[part] for part in parts)
    )
    yield "---"
    yield ""


_PARTS: Final = {"train": (ROWS, TRAIN), "held-out": (HELD_OUT, HELD_OUT_SPLIT)}
"""The file of each part, and what `datasets` calls it; its names can't hold a dash."""

_FEATURES: Final = {
    "messages": (("messages", "list: json"), ("tools", "list: json")),
    "preference": (
        ("prompt", "list: json"),
        ("chosen", "list: json"),
        ("rejected", "list: json"),
        ("tools", "list: json"),
    ),
    "prompt": (
        ("prompt", "list: json"),
        ("verifier", "dtype: string"),
        ("answer", "dtype: string"),
        ("tools", "list: json"),
    ),
}
"""Columns as `datasets` should hold them. Messages stay JSON: as Arrow structs, each would have
every key that any has, and templates tell a key that is none from one that is not there."""


def _names(teachers: Sequence[Teacher]) -> list[str]:
    said = {f"{one.provider}/{one.model}" if one.model else one.provider for one in teachers}
    # What JSON escapes YAML may not read the same way; plain signs are the same in both.
    return sorted("".join(c if " " <= c <= "~" else "?" for c in name[:200]) for name in said)


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
        " to ".join(dict.fromkeys((*days[:1], *days[-1:]))) or "not recorded",
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

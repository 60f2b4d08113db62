"""The model card: what a reader of the model's folder sees first, drawn from the manifest.

It never says more than the manifest does. Its licence is `other` unless everything the student
comes from is known to allow more, and that this house does not decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from gateway.dataset.manifest import DATASET_MANIFEST, Teacher
from gateway.policy.obligation import sentence_of
from gateway.student.manifest import ModelManifest

TAGS: Final = ("tos-gateway", "distillation", "provenance")


def format_card(manifest: ModelManifest) -> str:
    """Return the model card of *manifest* in Markdown, front matter first."""
    return "\n".join([*_front_matter(manifest), "", *_body(manifest)]) + "\n"


def shares(teachers: Iterable[Teacher]) -> list[tuple[Teacher, float]]:
    """Return each teacher with its share of the rows, the largest first."""
    listed = list(teachers)
    total = sum(teacher.rows for teacher in listed) or 1
    return [
        (teacher, teacher.rows / total)
        for teacher in sorted(listed, key=lambda one: (-one.rows, one.provider))
    ]


def _front_matter(manifest: ModelManifest) -> Iterator[str]:
    asked, base = manifest.asked, manifest.asked.base
    yield "---"
    yield f"model_name: {_quoted(asked.student)}"
    if base.kind == "hub":
        yield f"base_model: {_quoted(base.name)}"
    yield "datasets:"
    yield from (f"- {_quoted(name)}" for name in asked.datasets)
    yield "license: other"
    yield 'license_name: "see-teachers"'
    yield "library_name: transformers"
    yield "pipeline_tag: text-generation"
    yield "tags:"
    yield from (f"- {tag}" for tag in TAGS)
    yield "---"


def _body(manifest: ModelManifest) -> Iterator[str]:
    asked, found = manifest.asked, manifest.found
    yield f"# {asked.student}"
    yield ""
    yield (
        "A student: a small local model trained on answers of the teachers below, within the "
        "terms that were in force. Every row it learned from has a signed usage receipt."
    )
    yield from ("", "## Teachers", "")
    yield from _teacher_table(found.teachers)
    if found.above:
        yield from ("", "Through students of ours, these taught it too:", "")
        yield from _teacher_table(found.above)
    yield from ("", "## What it may be used for", "")
    yield from _use(manifest)
    yield from ("", "## How it was trained", "")
    yield from _training(manifest)
    yield from ("", "![loss](loss.png)")
    yield from ("", "## How to verify it", "")
    yield (
        "With the log's `trust.json`, offline: signature, every file, and the datasets' own "
        "signed manifests in `evidence/`."
    )
    yield from ("", "```", "gateway verify . --trust trust.json", "```", "")
    yield "Down to single receipts, where the datasets are at hand:"
    yield from ("", "```", "gateway lineage show .", "```")


def _teacher_table(teachers: Iterable[Teacher]) -> Iterator[str]:
    yield "| provider | model | rows | share | ruling | terms, as policies |"
    yield "|---|---|--:|--:|---|---|"
    for teacher, share in shares(teachers):
        policies = ", ".join(f"{pin.policy} v{pin.version}" for pin in teacher.policies)
        model = teacher.model or "not named"
        if teacher.manifest is not None:
            model += f" (student, manifest {teacher.manifest[:12]}…)"
        yield (
            f"| {_cell(teacher.provider)} | {_cell(model)} | {teacher.rows} | {share:.0%} "
            f"| {teacher.effect} | {_cell(policies) or 'none of its own'} |"
        )


def _use(manifest: ModelManifest) -> Iterator[str]:
    use = manifest.found.use
    yield "The use that was declared, ruled on again when it was trained; no other is covered:"
    yield ""
    for name in use.__struct_fields__:
        value = getattr(use, name)
        if value is not None:
            said = {True: "yes", False: "no"}.get(value, value)
            yield f"* {name.replace('_', ' ')}: {_cell(str(said))}"
    yield ""
    if manifest.found.obligations:
        yield "Obligations that come with the teachers' terms:"
        yield ""
        yield from (
            f"* {_cell(duty)}: {_cell(sentence_of(duty))}"
            for duty in manifest.found.obligations
        )
    else:
        yield "The teachers' terms put no obligations on it."


def _training(manifest: ModelManifest) -> Iterator[str]:
    asked, found = manifest.asked, manifest.found
    snapshot, recipe = found.snapshot, found.recipe
    yield "| | |"
    yield "|---|---|"
    yield f"| base | {_cell(asked.base.name)}, licence {_cell(asked.base.licence)} |"
    yield f"| method | {asked.method}, on each row's answer alone |"
    for dependency in manifest.dependencies:
        if dependency.kind == DATASET_MANIFEST:
            yield f"| dataset | {_cell(dependency.name)}, `{dependency.digest['sha256']}` |"
    yield (
        f"| rows | {snapshot.rows} ({snapshot.tokens} tokens, {snapshot.learned} learned); "
        f"digest `{snapshot.sha256}` |"
    )
    for left_out in snapshot.left_out:
        yield f"| left out | {left_out.count} rows: {left_out.reason} |"
    yield (
        f"| steps | {found.steps} of {recipe.get('batch')} rows, learning rate "
        f"{recipe.get('learning_rate')}, seed {recipe.get('seed')} |"
    )
    yield f"| loss | {found.losses.first} → {found.losses.last} nats a learned token |"
    yield f"| policies | of {found.day}, library `{found.library[:16]}…` |"
    yield f"| trained | {manifest.metadata.finished_on} on {_cell(found.device)} |"
    versions = ", ".join(f"{name} {number}" for name, number in sorted(found.versions.items()))
    yield f"| with | {_cell(versions)} |"


def _quoted(text: str) -> str:
    """Return *text* as a YAML string that means itself."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else "�" for c in escaped) + '"'


def _cell(text: str) -> str:
    """Return *text* so that it can't leave its cell, nor become a link or HTML."""
    safe = "".join(c if c.isprintable() else "�" for c in text)
    for mark in "\\|<>[]`*_":
        safe = safe.replace(mark, "\\" + mark)
    return safe

"""The model card: what a reader of the model's folder sees first, drawn from the manifest.

It never says more than the manifests do. Its licence is `other` always: what everything the
student comes from allows together is for people to say, and this house does not guess it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from gateway.dataset.manifest import DATASET_MANIFEST, DatasetManifest, Teacher
from gateway.policy.obligation import sentence_of
from gateway.student.figures import MEASURES, Evaluation, Figure
from gateway.student.manifest import ModelManifest

TAGS: Final = ("tos-gateway", "distillation", "provenance")


def format_card(manifest: ModelManifest, datasets: Sequence[DatasetManifest]) -> str:
    """Return the model card in Markdown, front matter first."""
    return "\n".join([*_front_matter(manifest), "", *_body(manifest, datasets)]) + "\n"


def shares(teachers: Iterable[Teacher]) -> list[tuple[Teacher, float]]:
    """Return each teacher with its share of the rows, the largest first.

    A judge has a share among the judges: its words stand in no row.
    """
    listed = list(teachers)
    totals = {
        influence: sum(one.rows for one in listed if one.influence == influence) or 1
        for influence in ("text", "judge")
    }
    return [
        (teacher, teacher.rows / totals[teacher.influence])
        for teacher in sorted(
            listed, key=lambda one: (one.influence != "text", -one.rows, one.provider)
        )
    ]


def rows_told(manifest: ModelManifest, datasets: Sequence[DatasetManifest]) -> str | None:
    """Return what the counts of teachers are of; `None` where all was learned."""
    snapshot, total = manifest.found.snapshot, sum(one.found.rows for one in datasets)
    if not datasets or total == snapshot.rows:
        return None
    held_out = snapshot.held_out or 0
    return (
        f"Rows and shares are of the datasets as they were built, {total} rows in all: "
        f"{snapshot.rows} of them were learned, {held_out} held out to measure with, "
        f"{total - snapshot.rows - held_out} left out."
    )


def is_adapter(manifest: ModelManifest) -> bool:
    """Tell whether the folder holds an adapter, which is nothing without its base."""
    return manifest.found.form == "adapter"


def _front_matter(manifest: ModelManifest) -> Iterator[str]:
    asked, base = manifest.asked, manifest.asked.base
    yield "---"
    yield f"model_name: {_quoted(asked.student)}"
    if base.kind != "tiny":
        yield f"base_model: {_quoted(base.name)}"
        yield f"base_model_relation: {'adapter' if is_adapter(manifest) else 'finetune'}"
    yield "datasets:"
    yield from (f"- {_quoted(name)}" for name in asked.datasets)
    yield "license: other"
    yield 'license_name: "see-teachers"'
    yield 'license_link: "README.md"'
    yield f"library_name: {'peft' if is_adapter(manifest) else 'transformers'}"
    yield "pipeline_tag: text-generation"
    yield "tags:"
    yield from (f"- {tag}" for tag in TAGS)
    if manifest.found.evaluation is not None:
        yield from _index(manifest, manifest.found.evaluation)
    yield "---"


def _index(manifest: ModelManifest, evaluation: Evaluation) -> Iterator[str]:
    """Yield the figures of the student as the hub's `model-index`."""
    held_out = ", ".join(manifest.asked.datasets)
    yield "model-index:"
    yield f"- name: {_quoted(manifest.asked.student)}"
    yield "  results:"
    yield "  - task:"
    yield "      type: text-generation"
    yield "    dataset:"
    yield f"      name: {_quoted(f'{held_out}, held out')}"
    yield f"      type: {_quoted(held_out)}"
    yield "      split: held-out"
    yield "    metrics:"
    for name in evaluation.measures:
        figure = evaluation.figure(name, "student")
        if figure is None:
            continue
        yield f"    - type: {name}"
        yield f"      name: {_quoted(_said(name, evaluation))}"
        yield f"      value: {figure.value}"
        yield "      args:"
        if figure.low is not None and figure.high is not None:
            yield f"        low: {figure.low}"
            yield f"        high: {figure.high}"
            yield f"        confidence: {evaluation.confidence}"
        yield f"        rows: {figure.rows}"


def _body(manifest: ModelManifest, datasets: Sequence[DatasetManifest]) -> Iterator[str]:
    asked, found = manifest.asked, manifest.found
    yield f"# {asked.student}"
    yield ""
    yield (
        "A student: a small local model trained on answers of the teachers below, within the "
        "terms that were in force. Signed evidence vouches for every row it learned from: a "
        "usage receipt, or a derivation whose ancestors have receipts."
    )
    if is_adapter(manifest):
        yield ""
        yield (
            f"The folder holds an adapter: it is used together with its base "
            f"`{_plain(asked.base.name)}`."
        )
    yield from ("", "## Teachers", "")
    yield from _teacher_table(found.teachers)
    if (told := rows_told(manifest, datasets)) is not None:
        yield from ("", told)
    if any(teacher.influence == "judge" for teacher in found.teachers):
        yield ""
        yield (
            "Of a judge no word stands in a row; it decided which rows stand, or which answer "
            "is the better one. Its share is of the rows that were judged."
        )
    if found.above:
        yield from ("", "Through students of ours, these taught it too:", "")
        yield from _teacher_table(found.above)
    yield from _rows(datasets)
    yield from ("", "## What it may be used for", "")
    yield from _use(manifest)
    yield from ("", "## How it was evaluated", "")
    yield from _evaluation(manifest)
    yield from ("", "## How it was trained", "")
    yield from _training(manifest)
    yield from ("", "![loss](loss.png)")
    yield from ("", "## How to verify it", "")
    yield (
        "With the log's `trust.json`, offline: signature, every file, and the datasets' own "
        "signed manifests in `evidence/`. `bom.cdx.json` says the same in CycloneDX."
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
        if teacher.influence == "judge":
            model += ", as a judge"
        yield (
            f"| {_cell(teacher.provider)} | {_cell(model)} | {teacher.rows} | {share:.0%} "
            f"| {teacher.effect} | {_cell(policies) or 'none of its own'} |"
        )


def _rows(datasets: Sequence[DatasetManifest]) -> Iterator[str]:
    """Yield how rows came about that no teacher answered as they stand."""
    made = [one for dataset in datasets for one in dataset.found.made_by]
    written = [one for dataset in datasets for one in dataset.found.written_by]
    if made:
        yield from ("", "## Transforms", "", "| transform | kind | rows |", "|---|---|--:|")
        for one in made:
            yield f"| {_cell(one.name)} {_cell(one.version)} | {one.kind} | {one.rows} |"
        yield ""
        yield "A transform clears nothing: what is above a row binds whatever is made of it."
    if written:
        yield from ("", "## Written by people", "")
        yield from ("| by | licence | source | rows |", "|---|---|---|--:|")
        for who in written:
            yield (
                f"| {_cell(who.by)} | {_cell(who.licence)} | {_cell(who.source)} | {who.rows} |"
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


def _evaluation(manifest: ModelManifest) -> Iterator[str]:
    evaluation = manifest.found.evaluation
    if evaluation is None:
        yield "It was not: nothing was held out of its datasets, or nobody asked for it."
        return
    yield evaluation_told(evaluation)
    yield ""
    yield "| | base | student | teacher | gain |"
    yield "|---|--:|--:|--:|--:|"
    for name in evaluation.measures:
        cells = (
            figure_told(evaluation.figure(name, who))
            for who in ("base", "student", "teacher", "gain")
        )
        yield f"| {_cell(_said(name, evaluation))} | {' | '.join(cells)} |"
    yield ""
    yield "Likeness to a teacher is agreement, not correctness."


def evaluation_told(evaluation: Evaluation) -> str:
    """Return in one paragraph what was asked, and how sure the figures are."""
    asked = (
        f"All {evaluation.rows}" if evaluation.rows == evaluation.of else f"{evaluation.rows}"
    )
    of = "" if evaluation.rows == evaluation.of else f" of {evaluation.of}"
    left_out = (
        f" {evaluation.left_out} more were drawn and do not fit the student's context."
        if evaluation.left_out
        else ""
    )
    unseen = ", ".join(map(_cell, evaluation.overlap.unseen))
    not_seen = (
        f" Not looked through, for it was not at hand: {unseen}, from which its base learned."
        if unseen
        else ""
    )
    return (
        f"{asked}{of} held-out rows with {evaluation.prompts} different prompts, "
        f"answered with the likeliest token each time. In brackets the "
        f"{float(evaluation.confidence):.0%} interval over prompts "
        f"({evaluation.resamples} bootstrap draws).{left_out} "
        f"{evaluation.overlap.rows} of the rows were found among the "
        f"{evaluation.overlap.compared} rows that were learned, and "
        f"{float(evaluation.overlap.share):.1%} of their runs of 13 words.{not_seen}"
    )


def figure_told(figure: Figure | None) -> str:
    """Return *figure* with its interval, or a dash where there is none."""
    if figure is None:
        return "–"
    sign = "+" if figure.of == "gain" and not figure.value.startswith("-") else ""
    told = f"{sign}{_short(figure.value)}"
    if figure.low is not None and figure.high is not None:
        told += f" [{_short(figure.low)}, {_short(figure.high)}]"
    return told.replace("-", "−")


def _short(value: str) -> str:
    return f"{float(value):.3f}"


def _said(name: str, evaluation: Evaluation) -> str:
    measure = MEASURES[name]
    said = measure.says if name != "task" else f"task: {evaluation.metric}"
    return f"{said} ({measure.unit})" if measure.unit else said


def _training(manifest: ModelManifest) -> Iterator[str]:
    asked, found = manifest.asked, manifest.found
    snapshot, recipe = found.snapshot, found.recipe
    yield "| | |"
    yield "|---|---|"
    said_by = asked.base.licence_said_by
    by = "" if said_by is None else f", as {_cell(said_by)} says"
    yield f"| base | {_cell(asked.base.name)}, licence {_cell(asked.base.licence)}{by} |"
    learned = {
        "sft": "to answer, on each row's answer alone",
        "dpo": "to prefer the chosen answer over the rejected one",
    }[asked.method]
    yield f"| method | {asked.method}: {learned} |"
    forms = {
        "full": "all of them",
        "adapter": "an adapter (LoRA) beside the base",
        "merged": "an adapter (LoRA), merged into the base",
    }
    yield f"| weights | {forms[found.form]}, computed in {_cell(found.precision)} |"
    for dependency in manifest.dependencies:
        if dependency.kind == DATASET_MANIFEST:
            yield f"| dataset | {_cell(dependency.name)}, `{dependency.digest['sha256']}` |"
    yield (
        f"| rows | {snapshot.rows} ({snapshot.tokens} tokens, {snapshot.learned} learned); "
        f"digest `{snapshot.sha256}` |"
    )
    if snapshot.held_out is not None:
        yield f"| held out | {snapshot.held_out} rows, measured on and never learned |"
    for left_out in snapshot.left_out:
        yield f"| left out | {left_out.count} rows: {left_out.reason} |"
    yield (
        f"| steps | {found.steps} of {recipe.get('batch')} rows, learning rate "
        f"{recipe.get('learning_rate')}, seed {recipe.get('seed')} |"
    )
    adapter = {name: value for name, value in recipe.items() if name.startswith("lora.")}
    if adapter:
        told = ", ".join(
            f"{name.removeprefix('lora.')} {value}" for name, value in sorted(adapter.items())
        )
        yield f"| LoRA | {_cell(told)} |"
    for number, one in enumerate(found.rounds, start=1):
        yield f"| round {number} | {one.steps} steps; dataset `{one.dataset}` |"
    yield f"| loss | {found.losses.first} → {found.losses.last} nats a learned token |"
    yield f"| policies | of {found.day}, library `{found.library[:16]}…` |"
    yield f"| trained | {manifest.metadata.finished_on} on {_cell(found.device)} |"
    versions = ", ".join(f"{name} {number}" for name, number in sorted(found.versions.items()))
    yield f"| with | {_cell(versions)} |"


def _quoted(text: str) -> str:
    """Return *text* as a YAML string that means itself."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else "�" for c in escaped) + '"'


def _plain(text: str) -> str:
    """Return *text* so that it can stand between backquotes."""
    return "".join(c if c.isprintable() and c != "`" else "�" for c in text)


def _cell(text: str) -> str:
    """Return *text* so that it can't leave its cell, nor become a link or HTML."""
    safe = "".join(c if c.isprintable() else "�" for c in text)
    for mark in "\\|<>[]`*_":
        safe = safe.replace(mark, "\\" + mark)
    return safe

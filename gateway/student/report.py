"""The report of a run: one HTML file that needs no other file, no script and no network.

Its policy forbids everything but its one style, by digest; whatever others wrote is text. Rows
stand in it only as samples, in full, and only where samples were asked for.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from gateway.dataset.manifest import DATASET_MANIFEST, DatasetManifest, Teacher
from gateway.student.card import evaluation_told, figure_told, is_adapter, rows_told, shares
from gateway.student.evaluate import Sample
from gateway.student.figures import MEASURES, Evaluation
from gateway.student.likeness import text_of
from gateway.student.manifest import ModelManifest
from gateway.student.picture import (
    draw_intervals,
    draw_loss,
    draw_memory,
    draw_rate,
    draw_speed,
)
from gateway.student.progress import HeldOutLoss, Step

SAMPLE_CHARACTERS_MAX: Final = 4000
"""How much of one text is shown."""

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#222;--page:#fff;--faint:#667;--grid:#d8d8de;
--raw:#9db4d6;--smooth:#1f4e9c;--apart:#b3541e;--base:#888}
@media (prefers-color-scheme:dark){:root{--ink:#e4e4e8;--page:#17181c;--faint:#a2a4ae;
--grid:#3a3c44;--raw:#52678a;--smooth:#7fb0ff;--apart:#f0a36b;--base:#9a9aa2}}
body{font:16px/1.5 system-ui,sans-serif;max-width:54rem;margin:2rem auto;padding:0 1rem;
color:var(--ink);background:var(--page)}
h1{margin-bottom:.25rem}h2{margin-top:2.25rem}p.faint{color:var(--faint)}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid var(--grid);
vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;
white-space:nowrap}
svg{width:100%;height:auto}svg text{fill:var(--ink)}
svg .grid{stroke:var(--grid)}svg .round{stroke:var(--faint);stroke-dasharray:3 4}
svg polyline{fill:none;stroke-width:2}
svg line.base,svg line.smooth,svg line.apart{stroke-width:2}
svg .smooth{stroke:var(--smooth)}svg circle.smooth{fill:var(--smooth)}
svg .apart{stroke:var(--apart)}svg circle.apart{fill:var(--apart)}
svg .base{stroke:var(--base)}svg circle.base{fill:var(--base)}
svg circle.dots{fill:var(--raw)}
code{word-break:break-all;font-size:.88rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font:inherit}
.sample{border:1px solid var(--grid);border-radius:6px;padding:.5rem .9rem;margin:.9rem 0}
.sample th{width:5.5rem;color:var(--faint);font-weight:normal}
.sample tr:last-child th,.sample tr:last-child td{border:0}
"""

_POLICY: Final = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What is shown of a run beside its manifest."""

    steps: Sequence[Step] = ()
    held_out: Sequence[HeldOutLoss] = ()
    samples: Sequence[Sample] = ()


def format_report(
    manifest: ModelManifest, datasets: Sequence[DatasetManifest], course: Course
) -> str:
    """Return the report of a run as HTML; everything that others wrote is escaped."""
    found = manifest.found
    body = [
        *_opening(manifest),
        *_plots(course),
        "<h2>Evaluation</h2>",
        *(
            evaluation_html(found.evaluation, course.samples)
            if found.evaluation is not None
            else ["<p>Nothing was held out of its datasets, or nobody asked for it.</p>"]
        ),
        *_rounds(manifest),
        *_teachers("Teachers", found.teachers),
        *([f"<p>{escape(told)}</p>"] if (told := rows_told(manifest, datasets)) else []),
        *(_teachers("Teachers of teachers", found.above) if found.above else ()),
        *_rows(datasets),
        *_refusals(manifest, datasets),
        *_use(manifest),
        "<h2>Settings</h2>",
        _table(("name", "value"), sorted(found.recipe.items())),
        f"<p>Token rows: <code>{escape(found.snapshot.sha256)}</code></p>",
    ]
    return page(manifest.asked.student, body)


def page(title: str, body: Iterable[str]) -> str:
    """Return a page of HTML that can load nothing and run nothing."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>{''.join(body)}</html>\n"
    )


def evaluation_html(evaluation: Evaluation, samples: Sequence[Sample]) -> Iterator[str]:
    """Yield an evaluation: what was asked, the figures, the picture, the samples."""
    yield f"<p>{escape(evaluation_told(evaluation))}</p>"
    yield draw_intervals(evaluation)
    yield _table(
        ("", "base", "student", "teacher", "gain"),
        (
            (
                _measure_told(name, evaluation),
                *(
                    figure_told(evaluation.figure(name, who))
                    for who in ("base", "student", "teacher", "gain")
                ),
            )
            for name in evaluation.measures
        ),
        numbers=frozenset({1, 2, 3, 4}),
    )
    yield "<p class=faint>Likeness to a teacher is agreement, not correctness.</p>"
    if samples:
        yield "<h2>Before and after</h2><p>Held-out rows, drawn by the seed, in full.</p>"
        yield from map(_sample, samples)


def _opening(manifest: ModelManifest) -> Iterator[str]:
    found, snapshot = manifest.found, manifest.found.snapshot
    yield f"<h1>{escape(manifest.asked.student)}</h1>"
    adapter = " It is an adapter of its base." if is_adapter(manifest) else ""
    told = (
        f"Trained {manifest.metadata.finished_on} from {manifest.asked.base.name} on "
        f"{snapshot.rows} rows ({manifest.asked.method}): {found.steps} steps, loss "
        f"{found.losses.first} → {found.losses.last} nats a learned token, on "
        f"{found.device}.{adapter}"
    )
    learned = (
        f"{snapshot.tokens} tokens were read, {snapshot.learned} of them learned: the last "
        "answer of each row and its stop token. The rows themselves stay in their dataset."
    )
    yield f"<p>{escape(told)}</p><p class=faint>{escape(learned)}</p>"


def _plots(course: Course) -> Iterator[str]:
    if not course.steps:
        return
    yield f"<h2>Loss</h2>{draw_loss(course.steps, course.held_out)}"
    for title, drawn in (
        ("Learning rate", draw_rate(course.steps)),
        ("Speed", draw_speed(course.steps)),
        ("Memory", draw_memory(course.steps)),
    ):
        if drawn:
            yield f"<h2>{title}</h2>{drawn}"


def _teachers(title: str, teachers: Iterable[Teacher]) -> Iterator[str]:
    yield f"<h2>{title}</h2>"
    yield _table(
        ("provider", "model", "influence", "rows", "share", "ruling"),
        (
            (
                one.provider,
                one.model or "not named",
                {"text": "its words", "judge": "judged"}[one.influence],
                str(one.rows),
                f"{part:.0%}",
                one.effect,
            )
            for one, part in shares(teachers)
        ),
        numbers=frozenset({3, 4}),
    )


def _rounds(manifest: ModelManifest) -> Iterator[str]:
    if not manifest.found.rounds:
        return
    names = {
        one.digest["sha256"]: one.name.removeprefix("dataset:")
        for one in manifest.dependencies
        if one.kind == DATASET_MANIFEST
    }
    yield "<h2>Rounds</h2>"
    yield _table(
        ("round", "snapshot", "steps"),
        (
            (str(number), names.get(one.dataset, one.dataset), str(one.steps))
            for number, one in enumerate(manifest.found.rounds, start=1)
        ),
        numbers=frozenset({2}),
    )


def _rows(datasets: Sequence[DatasetManifest]) -> Iterator[str]:
    yield "<h2>Datasets</h2>"
    yield _table(
        ("dataset", "rows", "held out", "built for", "on"),
        (
            (
                one.asked.dataset,
                str(one.found.rows),
                str(sum(part.rows for part in one.found.splits if part.name == "held-out")),
                one.found.use.purpose,
                one.found.day,
            )
            for one in datasets
        ),
        numbers=frozenset({1, 2}),
    )
    made = [one for dataset in datasets for one in dataset.found.made_by]
    if made:
        yield "<h2>Transforms</h2>"
        yield _table(
            ("transform", "kind", "rows"),
            ((f"{one.name} {one.version}", one.kind, str(one.rows)) for one in made),
            numbers=frozenset({2}),
        )


def _refusals(manifest: ModelManifest, datasets: Sequence[DatasetManifest]) -> Iterator[str]:
    yield "<h2>Left out</h2>"
    refused = [
        (f"gate of dataset {dataset.asked.dataset}", one.reason, str(one.count))
        for dataset in datasets
        for one in dataset.found.left_out
    ]
    refused += [
        ("before it was learned", one.reason, str(one.count))
        for one in manifest.found.snapshot.left_out
    ]
    if refused:
        yield _table(("by", "reason", "rows"), refused, numbers=frozenset({2}))
    else:
        yield "<p>No row was left out.</p>"


def _use(manifest: ModelManifest) -> Iterator[str]:
    use = manifest.found.use
    said = [
        (name.replace("_", " "), str({True: "yes", False: "no"}.get(value, value)))
        for name in use.__struct_fields__
        if (value := getattr(use, name)) is not None
    ]
    yield "<h2>What it may be used for</h2>"
    yield _table(("declared", ""), said)
    if manifest.found.obligations:
        yield "<p>Obligations: " + escape(", ".join(manifest.found.obligations)) + ".</p>"


def _sample(sample: Sample) -> str:
    asked = "\n".join(
        f"{message.get('role', '')}: {text_of(message)}" for message in sample.prompt
    )
    rows = [("asked", asked), ("teacher", sample.teacher)]
    if sample.base is not None:
        rows.append(("base", sample.base))
    rows.append(("student", sample.student))
    cells = "".join(
        f"<tr><th>{who}</th><td><pre>{escape(_cut(text))}</pre></td></tr>" for who, text in rows
    )
    return f"<div class=sample><table>{cells}</table></div>"


def _cut(text: str) -> str:
    if len(text) <= SAMPLE_CHARACTERS_MAX:
        return text
    return text[:SAMPLE_CHARACTERS_MAX] + f" … ({len(text) - SAMPLE_CHARACTERS_MAX} more)"


def _measure_told(name: str, evaluation: Evaluation) -> str:
    measure = MEASURES[name]
    said = measure.says if name != "task" else f"task: {evaluation.metric}"
    better = {"lower": "less is better", "higher": "", "near-one": "1 is alike"}[measure.better]
    told = ", ".join(part for part in (measure.unit, better) if part)
    return f"{said} ({told})" if told else said


def _table(
    head: Sequence[str], rows: Iterable[Sequence[str]], numbers: frozenset[int] = frozenset()
) -> str:
    def cell(tag: str, place: int, text: str) -> str:
        kind = " class=n" if place in numbers else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    lines = ["<table><tr>", *(cell("th", at, name) for at, name in enumerate(head)), "</tr>"]
    for row in rows:
        cells = "".join(cell("td", at, text) for at, text in enumerate(row))
        lines.append(f"<tr>{cells}</tr>")
    return "".join([*lines, "</table>"])

"""The report of a run: one HTML file that needs no other file, no script and no network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from gateway.student.card import shares
from gateway.student.manifest import ModelManifest
from gateway.student.picture import draw_svg
from gateway.student.progress import Step

_STYLE: Final = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .75rem .25rem 0;
border-bottom:1px solid #8884;vertical-align:top}td.n,th.n{text-align:right}
svg{width:100%;height:auto}
code{word-break:break-all}
"""


def format_report(manifest: ModelManifest, steps: Sequence[Step]) -> str:
    """Return the report of a run as HTML; everything that others wrote is escaped."""
    asked, found = manifest.asked, manifest.found
    snapshot = found.snapshot
    told = (
        f"Trained {manifest.metadata.finished_on} on {snapshot.rows} rows: {found.steps} "
        f"steps, loss {found.losses.first} → {found.losses.last} nats a learned token."
    )
    learned = (
        f"{snapshot.tokens} tokens were read, {snapshot.learned} of them learned: the last "
        "answer of each row and its stop token. The rows themselves stay in their dataset."
    )
    body = [
        f"<h1>{escape(asked.student)}</h1>",
        f"<p>{escape(told)}</p>",
        f"<h2>Loss</h2>{draw_svg(steps)}" if steps else "",
        "<h2>Teachers</h2>",
        _table(
            ("provider", "model", "rows", "share", "ruling"),
            (
                (
                    one.provider,
                    one.model or "not named",
                    str(one.rows),
                    f"{part:.0%}",
                    one.effect,
                )
                for one, part in shares(found.teachers)
            ),
        ),
        "<h2>What was learned</h2>",
        f"<p>{escape(learned)}</p>",
        "<h2>Left out</h2>",
        _table(("reason", "rows"), ((one.reason, str(one.count)) for one in snapshot.left_out))
        if snapshot.left_out
        else "<p>No row was left out.</p>",
        "<h2>Settings</h2>",
        _table(("name", "value"), sorted(found.recipe.items())),
        f"<p>Token rows: <code>{snapshot.sha256}</code></p>",
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(asked.student)}</title><style>{_STYLE}</style>{''.join(body)}</html>\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["<table><tr>", *(f"<th>{escape(name)}</th>" for name in head), "</tr>"]
    for row in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return "".join([*lines, "</table>"])

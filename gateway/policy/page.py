"""The table of rulings as one page for people: self-contained, without script, printable.

Every cell says its effect in a word and a sign beside the colour, and holds its clauses with
their citations. Whatever stands in a policy is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Final

from gateway.policy.decide import Decision, Reason
from gateway.policy.model import Effect
from gateway.policy.obligation import sentence_of
from gateway.policy.table import Cell, Table, TableRow

_SIGNS: Final[Mapping[Effect, str]] = {
    Effect.PERMIT: "✓",
    Effect.HOLD: "?",
    Effect.FORBID: "✕",
}
_MEANINGS: Final[Mapping[Effect, str]] = {
    Effect.PERMIT: "the terms permit it, with the obligations named",
    Effect.HOLD: "legal must rule on it first",
    Effect.FORBID: "the terms forbid it",
}

_STYLE: Final = """
:root {
  color-scheme: light dark;
  --ink: #1b1f24; --paper: #ffffff; --faint: #57606a; --line: #d0d7de; --head: #f3f5f7;
  --permit: #dcf3e1; --permit-ink: #0b4a1e;
  --hold: #fdf0c8; --hold-ink: #5a4100;
  --forbid: #fbdfdd; --forbid-ink: #7d1712;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ec; --paper: #14171a; --faint: #a3adb7; --line: #3a4149; --head: #1e2327;
    --permit: #12351d; --permit-ink: #b5ecc3;
    --hold: #3d3007; --hold-ink: #f6dc8d;
    --forbid: #4a1614; --forbid-ink: #ffc9c4;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem; color: var(--ink); background: var(--paper);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif;
}
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
p { max-width: 70ch; margin: .4rem 0; }
ul.key { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .5rem 1.25rem; }
.effect {
  display: inline-block; padding: .05rem .45rem; border-radius: .3rem; font-weight: 600;
  white-space: nowrap;
}
.permit { background: var(--permit); color: var(--permit-ink); }
.hold { background: var(--hold); color: var(--hold-ink); }
.forbid { background: var(--forbid); color: var(--forbid-ink); }
.scroll { overflow-x: auto; border: 1px solid var(--line); }
:focus-visible { outline: 3px solid #0969da; outline-offset: 1px; }
table { border-collapse: collapse; width: 100%; min-width: 88rem; }
caption { text-align: left; padding: .5rem .6rem; color: var(--faint); }
th, td { border: 1px solid var(--line); padding: .35rem .5rem; vertical-align: top; }
th { background: var(--head); text-align: left; font-weight: 600; }
thead th { min-width: 8.2rem; }
tbody th[scope=row] { position: sticky; left: 0; min-width: 14rem; }
tbody th[scope=rowgroup] { font-size: 1.05rem; padding-top: .8rem; }
th small { display: block; font-weight: 400; color: var(--faint); overflow-wrap: anywhere; }
summary { cursor: pointer; }
details[open] { min-width: 17rem; }
dl { margin: .4rem 0 0; font-size: .88rem; }
dt { font-weight: 600; margin-top: .5rem; overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; }
cite { color: var(--faint); }
td p { font-size: .88rem; margin: .6rem 0 0; }
@media print {
  @page { size: A3 landscape; margin: 10mm; }
  body { padding: 0; font-size: 9px; }
  .scroll { overflow: visible; border: 0; }
  table { min-width: 0; }
  thead { display: table-header-group; }
  tr { break-inside: avoid; }
  thead th, tbody th[scope=row] { position: static; min-width: 0; }
  .effect { border: 1px solid currentColor; print-color-adjust: exact; }
}
"""


def table_html(table: Table) -> str:
    """Return the table as a whole page of HTML."""
    return "\n".join(_page(table)) + "\n"


def page_head(title: str, style: str) -> Iterator[str]:
    """Yield how a page begins that loads nothing; *title* is HTML already."""
    yield "<!doctype html>"
    yield '<html lang="en">'
    yield "<head>"
    yield '<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield (
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    )
    yield f"<title>{title}</title>"
    yield f"<style>{style}</style>"
    yield "</head>"


def _page(table: Table) -> Iterator[str]:
    counts = table.counts()
    yield from page_head(f"Rulings on {table.day}", _STYLE)
    yield "<body>"
    yield "<main>"
    yield "<h1>What may be done with the output?</h1>"
    yield (
        f"<p>The rulings of the policy library on {table.day}. They are our readings of terms,"
        " not the providers’ words, and no legal advice. Open a cell for its clauses; what is"
        " open is printed.</p>"
    )
    yield '<ul class="key">'
    for effect, count in counts.items():
        yield f"<li>{_word(effect)} {_MEANINGS[effect]} ({count})</li>"
    yield "</ul>"
    yield '<div class="scroll" role="region" aria-labelledby="caption" tabindex="0">'
    yield "<table>"
    yield (
        f'<caption id="caption">{len(table.rows)} rows, {len(table.columns)} standard uses;'
        f" library {escape(table.digest[:12])}</caption>"
    )
    yield '<thead><tr><th scope="col">Policy</th>'
    for column in table.columns:
        yield (
            f'<th scope="col">{escape(column.title)}<small>{escape(column.name)}</small></th>'
        )
    yield "</tr></thead>"
    for heading, rows in table.groups():
        yield "<tbody>"
        yield (
            f'<tr><th scope="rowgroup" colspan="{len(table.columns) + 1}">'
            f"{escape(heading)}</th></tr>"
        )
        for row in rows:
            yield from _row(row)
        yield "</tbody>"
    yield "</table>"
    yield "</div>"
    yield "</main>"
    yield "</body>"
    yield "</html>"


def _row(row: TableRow) -> Iterator[str]:
    yield (
        f'<tr><th scope="row">{escape(row.row.title)}<small>{escape(row.row.id)}</small></th>'
    )
    for cell in row.cells:
        yield from _cell(cell)
    yield "</tr>"


def _cell(cell: Cell) -> Iterator[str]:
    effects = sorted({one.decision.effect for one in cell.rulings}, reverse=True)
    yield f"<td><details><summary>{' '.join(map(_word, effects))}</summary>"
    # Variants that are ruled alike are told together.
    told: dict[tuple[str, str], list[str]] = {}
    for ruling in cell.rulings:
        said = _word(ruling.decision.effect), "\n".join(_decision(ruling.decision))
        told.setdefault(said, []).append(ruling.use.title)
    for (word, text), titles in told.items():
        if len(cell.rulings) > 1:
            yield f"<p>{word} {escape('; '.join(titles))}</p>"
        yield text
    yield "</details></td>"


def _decision(decision: Decision) -> Iterator[str]:
    yield "<dl>"
    if not decision.reasons:
        yield "<dt>No clause speaks</dt><dd>A law that only adds, adds nothing here.</dd>"
    for reason in decision.reasons:
        yield f"<dt>{escape(_name(reason))}</dt><dd>{escape(reason.because)}</dd>"
        if reason.source:
            yield f"<dd><cite>{escape(reason.source)}</cite></dd>"
    if decision.missing:
        yield f"<dt>Not known</dt><dd>{escape(', '.join(decision.missing))}</dd>"
    if decision.obligations:
        yield "<dt>Obligations</dt>"
        for obligation in decision.obligations:
            yield f"<dd>{escape(sentence_of(obligation))}</dd>"
    yield "</dl>"


def _name(reason: Reason) -> str:
    return f"{reason.policy} / {reason.clause}" if reason.policy else reason.clause


def _word(effect: Effect) -> str:
    sign = f'<span aria-hidden="true">{_SIGNS[effect]}</span>'
    return f'<span class="effect {effect.word}">{sign} {effect.word}</span>'

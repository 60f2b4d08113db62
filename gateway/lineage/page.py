"""The lineage of one thing as one page for people: self-contained, without script, printable.

What it says it says in words beside the colours. Names of models, files and people are words of
others, and are escaped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from gateway.lineage.answer import share
from gateway.lineage.graph import graph_of, svg_of
from gateway.lineage.impact import Impact, sentences_of
from gateway.lineage.nodes import Author, DatasetNode, DerivationNode, Node
from gateway.lineage.uses import Allowed, Ancestor
from gateway.policy.page import page_head

Authored = tuple[Author, DatasetNode | DerivationNode, int]
"""Whose words rows are, where they stand, and how many trainings lie between."""

_SIGNS: Final = {"permit": "✓", "hold": "?", "forbid": "✕", "not declared": "–"}

_STYLE: Final = """
:root {
  color-scheme: light dark;
  --ink: #1b1f24; --paper: #ffffff; --faint: #57606a; --line: #d0d7de; --head: #f3f5f7;
  --permit: #dcf3e1; --permit-ink: #0b4a1e;
  --hold: #fdf0c8; --hold-ink: #5a4100;
  --forbid: #fbdfdd; --forbid-ink: #7d1712;
  --teacher: #e5f0ff; --teacher-edge: #4a86cf;
  --people: #fdebdc; --people-edge: #b5713a;
  --dataset: #f1edff; --dataset-edge: #7d63c6;
  --student: #e2f6ec; --student-edge: #2f8f5f;
  --export: #f4f4e4; --export-edge: #8d8a3a;
  --other: #f3f5f7; --other-edge: #8a949e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ec; --paper: #14171a; --faint: #a3adb7; --line: #3a4149; --head: #1e2327;
    --permit: #12351d; --permit-ink: #b5ecc3;
    --hold: #3d3007; --hold-ink: #f6dc8d;
    --forbid: #4a1614; --forbid-ink: #ffc9c4;
    --teacher: #16283f; --teacher-edge: #5b97dd;
    --people: #38230f; --people-edge: #cf8a50;
    --dataset: #251f3c; --dataset-edge: #9a82e0;
    --student: #122d21; --student-edge: #48ab78;
    --export: #2a2913; --export-edge: #a8a54e;
    --other: #1e2327; --other-edge: #7b858f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem; color: var(--ink); background: var(--paper);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", sans-serif;
}
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem; }
p, li { max-width: 80ch; margin: .4rem 0; overflow-wrap: anywhere; }
.alarm {
  border-left: 4px solid var(--forbid-ink); background: var(--forbid);
  color: var(--forbid-ink); padding: .5rem .8rem; font-weight: 600;
}
.effect {
  display: inline-block; padding: .05rem .45rem; border-radius: .3rem; font-weight: 600;
  white-space: nowrap;
}
.permit { background: var(--permit); color: var(--permit-ink); }
.hold { background: var(--hold); color: var(--hold-ink); }
.forbid { background: var(--forbid); color: var(--forbid-ink); }
.not { background: var(--other); }
.scroll { overflow-x: auto; border: 1px solid var(--line); }
:focus-visible { outline: 3px solid #0969da; outline-offset: 1px; }
table { border-collapse: collapse; width: 100%; min-width: 60rem; }
th, td { border: 1px solid var(--line); padding: .35rem .5rem; vertical-align: top;
  text-align: left; overflow-wrap: anywhere; }
th { background: var(--head); font-weight: 600; overflow-wrap: normal; }
td.number { text-align: right; white-space: nowrap; }
small { display: block; color: var(--faint); }
svg.graph { display: block; font: 12px/1 system-ui, -apple-system, "Segoe UI", sans-serif; }
svg.graph.fits { max-width: 100%; height: auto; }
svg.graph path { fill: none; stroke: var(--other-edge); stroke-width: 1.5; }
svg.graph path.judges { stroke-dasharray: 5 4; }
svg.graph text { fill: var(--ink); }
svg.graph text.kind, svg.graph text.more { fill: var(--faint); font-size: 11px; }
svg.graph text.title { font-weight: 600; font-size: 13px; }
svg.graph text.why { fill: var(--forbid-ink); font-weight: 600; font-size: 11px; }
svg.graph text.share { fill: var(--faint); font-size: 10px; stroke: var(--paper);
  stroke-width: 3px; paint-order: stroke; }
svg.graph rect { fill: var(--other); stroke: var(--other-edge); }
svg.graph .teacher rect { fill: var(--teacher); stroke: var(--teacher-edge); }
svg.graph .people rect { fill: var(--people); stroke: var(--people-edge); }
svg.graph .dataset rect { fill: var(--dataset); stroke: var(--dataset-edge); }
svg.graph .student rect { fill: var(--student); stroke: var(--student-edge); }
svg.graph .export rect { fill: var(--export); stroke: var(--export-edge); }
svg.graph .unknown rect { fill: var(--hold); stroke: var(--hold-ink); stroke-dasharray: 4 3; }
svg.graph .gone rect { fill: var(--forbid); stroke: var(--forbid-ink); }
svg.graph .held rect { stroke: var(--forbid-ink); stroke-dasharray: 4 3; }
svg.graph .focus rect { stroke-width: 3; }
@media print {
  @page { size: A3 landscape; margin: 10mm; }
  body { padding: 0; font-size: 10px; }
  .scroll { overflow: visible; border: 0; }
  table { min-width: 0; }
  svg.graph { width: 100%; min-width: 0 !important; height: auto; }
  svg.graph rect, .effect { print-color-adjust: exact; }
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Everything that is said of one thing."""

    title: str
    root: Node
    ancestors: Sequence[Ancestor]
    authors: Sequence[Authored]
    allowed: Sequence[Allowed]
    declared: str
    """The declared use that the rulings keep to, in words."""
    impact: Impact
    held: str
    """What of it was withdrawn, so that nothing may learn from it; empty if nothing was."""
    held_stages: Collection[str]
    """The manifests above and below it that are held, too."""
    unknown: Sequence[str]
    as_of: str
    """The ledger and its size, and the day of the rulings."""


def lineage_html(told: Told) -> str:
    """Return a lineage as a whole page of HTML."""
    return "\n".join(_page(told)) + "\n"


def _page(told: Told) -> Iterator[str]:
    yield from page_head(f"Lineage of {_safe(told.title)}", _STYLE)
    yield "<body>"
    yield "<main>"
    yield f"<h1>Lineage of {_safe(told.title)}</h1>"
    yield f"<p>{_safe(told.as_of)}</p>"
    if told.held:
        yield f'<p class="alarm">{_safe(told.held)}</p>'
    yield '<h2 id="graph">From teachers, on the left, to what was made of it</h2>'
    yield '<div class="scroll" role="region" aria-labelledby="graph" tabindex="0">'
    yield svg_of(graph_of(told.root, told.impact, told.held_stages))
    yield "</div>"
    yield (
        "<p>On a line stand the rows that an answerer reached and its share of them; a dashed"
        " line leads from one that only judged.</p>"
    )
    yield from _teachers(told.ancestors, told.authors)
    yield from _uses(told)
    yield '<h2 id="below">What came of it</h2>'
    yield from _list(sentences_of(told.impact))
    for who, what in told.impact.actions:
        yield f"<p>{_safe(who)} answers for {_safe(what)}.</p>"
    yield '<h2 id="limits">What this does not say</h2>'
    yield from _list(
        [
            *told.unknown,
            *told.impact.unknown,
            "it covers what went through this gateway and its gated trainers",
        ]
    )
    yield "</main>"
    yield "</body>"
    yield "</html>"


def _teachers(ancestors: Sequence[Ancestor], authors: Sequence[Authored]) -> Iterator[str]:
    yield '<h2 id="teachers">Who taught it</h2>'
    if not ancestors and not authors:
        yield "<p>Nobody is known.</p>"
        return
    headings = ("Teacher", "Where", "Rows", "Tokens", "Terms", "Ruling", "Declared")
    yield from _table("teachers", headings)
    for one in ancestors:
        rows = "" if one.rows is None else f"{one.rows:,} of {one.of_rows:,}"
        part = "" if one.rows is None else share(one.rows, one.of_rows or 0)
        kind = "our student" if one.student else one.influence
        yield "<tr>"
        yield f"<td>{_safe(one.name)}<small>{kind}</small></td>"
        where = f"dataset {one.dataset}" if one.dataset else "an answer"
        yield f"<td>{_safe(where)}<small>{away(one.stages)}</small></td>"
        yield f'<td class="number">{rows}<small>{part}</small></td>'
        yield f'<td class="number">{tokens(one)}</td>'
        yield f"<td>{_safe(', '.join(one.pins))}</td>"
        approved = "".join(
            f"<small>yes by {_safe(said.by)}, leaf {said.index}: {_safe(said.reason)}</small>"
            for said in one.approvals
        )
        clauses = f"<small>{_safe(', '.join(one.clauses))}</small>"
        yield f"<td>{_effect(one.effect)}{clauses}{approved}</td>"
        declared = "".join(
            f"<small>{_safe(name)}, by {_safe(owner)}</small>"
            for name, owner in one.declarations
        )
        yield f"<td>{_safe(one.generated_for or '')}{declared}</td>"
        yield "</tr>"
    for author, node, stages in authors:
        part = share(author.rows, author.of_rows)
        yield "<tr>"
        yield f"<td>People, says {_safe(author.by)}<small>no model’s answer</small></td>"
        yield f"<td>{_safe(stood(node))}<small>{away(stages)}</small></td>"
        rows = f"{author.rows:,} of {author.of_rows:,}"
        yield f'<td class="number">{rows}<small>{part}</small></td>'
        yield "<td></td>"
        yield f"<td>licence {_safe(author.licence)}</td>"
        yield "<td><small>no terms of a provider</small></td>"
        yield f"<td>from {_safe(author.source)}</td>"
        yield "</tr>"
    yield "</tbody></table></div>"


def _uses(told: Told) -> Iterator[str]:
    yield '<h2 id="uses">What it may be used for</h2>'
    if not told.allowed:
        yield "<p>No use of it was declared.</p>"
        return
    yield (
        f"<p>The strictest of all who taught it, for each purpose; otherwise as declared:"
        f" {_safe(told.declared)}. These are readings of terms, and no legal advice.</p>"
    )
    yield from _table("uses", ("Purpose", "Ruling", "Limited by"))
    for one in told.allowed:
        yield f"<tr><td>{_safe(one.purpose)}</td><td>{_effect(one.word)}</td>"
        yield f"<td>{_safe(limit_of(one))}</td></tr>"
    yield "</tbody></table></div>"


def _table(name: str, headings: Iterable[str]) -> Iterator[str]:
    yield f'<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0"><table>'
    cells = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    yield f"<thead><tr>{cells}</tr></thead><tbody>"


def _list(sentences: Iterable[str]) -> Iterator[str]:
    yield "<ul>"
    yield from (f"<li>{_safe(one)}</li>" for one in sentences)
    yield "</ul>"


def limit_of(allowed: Allowed) -> str:
    """Return in words who limits a use, and by what; empty where nobody does."""
    limit = allowed.limit
    if limit is None:
        who = allowed.undeclared
        return "" if who is None else f"{who.name}: its calls were for {who.generated_for}"
    if limit.ancestor is None:
        return limit.why
    who = limit.ancestor
    where = f" in dataset {who.dataset}, {away(who.stages)}" if who.dataset else ""
    others = f"; and {allowed.others} more" if allowed.others else ""
    return f"{who.name}{where}: {', '.join(limit.clauses) or limit.why}{others}"


def stood(node: DatasetNode | DerivationNode) -> str:
    """Return in words where rows stand that people wrote."""
    if isinstance(node, DatasetNode):
        return f"dataset {node.name}"
    return f"derivation {node.derivation.derivation}"


def away(stages: int) -> str:
    """Return in words how many trainings lie between."""
    return (
        "directly" if not stages else "1 stage away" if stages == 1 else f"{stages} stages away"
    )


def tokens(ancestor: Ancestor) -> str:
    """Return in words how many tokens went in and came out."""
    said = (ancestor.input_tokens, ancestor.output_tokens)
    if said == (None, None):
        return ""
    into, out = (f"{count:,}" if count is not None else "?" for count in said)
    return f"{into} in, {out} out"


def _effect(effect: str) -> str:
    sign = f'<span aria-hidden="true">{_SIGNS[effect]}</span>'
    style = effect.partition(" ")[0]
    return f'<span class="effect {style}">{sign} {effect}</span>'


def _safe(text: str) -> str:
    return escape("".join(char if char.isprintable() else "?" for char in text))

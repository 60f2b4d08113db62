"""A pack as one page for people: self-contained, without script, printable.

A lawyer reads it from the top: what was asked, what is answered, who taught and under which
terms, who said yes, what is not known, and how anybody checks it. All of it is made from what
stands in the pack; whatever others wrote is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

from gateway.lineage.answer import Answer, share
from gateway.lineage.ask import Evidence
from gateway.lineage.holdings import Holdings, name_of
from gateway.lineage.nodes import (
    Approval,
    Author,
    DatasetNode,
    DerivationNode,
    ExchangeNode,
    ExportNode,
    Missing,
    ModelNode,
    Node,
)
from gateway.lineage.pack_format import FILES, PackFacts, manifest_file
from gateway.lineage.ways import authors_of, datasets_of, nodes_above
from gateway.policy.page import page_head

_STYLE: Final = """
:root {
  color-scheme: light dark;
  --ink: #1b1f24; --paper: #ffffff; --faint: #57606a; --line: #d0d7de; --head: #f3f5f7;
  --mark: #0969da; --warn: #7d1712;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ec; --paper: #14171a; --faint: #a3adb7; --line: #3a4149; --head: #1e2327;
    --mark: #6cb0ff; --warn: #ffc9c4;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem; max-width: 76rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
}
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 .4rem; }
p, li { max-width: 80ch; }
.says { border-left: .35rem solid var(--mark); padding: .1rem 0 .1rem 1rem; margin: 1rem 0; }
.says > p:first-child { font-size: 1.15rem; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
caption { text-align: left; padding: .3rem 0; color: var(--faint); }
th, td { border: 1px solid var(--line); padding: .3rem .5rem; vertical-align: top; }
th { background: var(--head); text-align: left; }
td { overflow-wrap: break-word; }
td.number { text-align: right; white-space: nowrap; }
td.day { white-space: nowrap; }
a { color: var(--mark); }
code { font-family: ui-monospace, monospace; font-size: .88em; overflow-wrap: anywhere; }
.faint { color: var(--faint); }
.gone { color: var(--warn); font-weight: 600; }
ul.tree, ul.tree ul {
  list-style: none; border-left: 1px solid var(--line); padding-left: 1rem;
}
@media print { body { max-width: none; padding: 0; font-size: 10pt; } }
"""


def page_of(facts: PackFacts, evidence: Evidence, holdings: Holdings) -> str:
    """Return the page of a pack that says *facts*; the files that it names play no part."""
    return "\n".join(_page(facts, evidence, holdings)) + "\n"


def _page(facts: PackFacts, evidence: Evidence, holdings: Holdings) -> Iterator[str]:
    title = f"Evidence about {facts.about}"
    yield from page_head(_safe(title), _STYLE)
    yield "<body>"
    yield "<main>"
    yield f"<h1>{_told(title)}</h1>"
    yield (
        f'<p class="faint">From the log <code>{_safe(facts.origin)}</code> as it stood at'
        f" {facts.size} leaves. Evidence, not legal advice.</p>"
    )
    if len(facts.answers) > 1:
        yield "<h2>In short</h2>"
        yield "<ol>"
        for at, one in enumerate(facts.answers, 1):
            yield f'<li><a href="#answer-{at}">{_told(one.sentences[0])}</a></li>'
        yield "</ol>"
    for at, one in enumerate(facts.answers, 1):
        yield from _answer(one, at)
    yield from _teachers(evidence.roots)
    yield from _approvals(evidence.roots)
    yield "<h2>From the teachers to here</h2>"
    yield "<p>What was made from what: further in is what the line above was made from.</p>"
    if facts.about.kind == "log":
        yield from _list_of_stages(holdings)
    else:
        yield '<ul class="tree">'
        for root in evidence.roots:
            yield from _tree(root, set())
        yield "</ul>"
    yield from _limits(facts)
    yield from _manifests(facts, holdings)
    yield from _how(facts)
    yield "</main>"
    yield "</body>"
    yield "</html>"


def _answer(one: Answer, at: int) -> Iterator[str]:
    headline, *others = one.sentences
    yield f'<h2 id="answer-{at}">Question: <code>{_safe(one.question)}</code></h2>'
    yield '<div class="says">'
    yield f"<p>{_told(headline)}</p>"
    yield "<ul>"
    for sentence in others:
        yield f"<li>{_told(sentence)}</li>"
    yield "</ul>"
    yield "</div>"


def _teachers(roots: tuple[Node, ...]) -> Iterator[str]:
    rows = [*_taught(roots), *_answered(roots), *_wrote(roots)]
    if not rows:
        return
    yield "<h2>Teachers, and people who wrote rows</h2>"
    yield '<div class="scroll"><table>'
    yield "<caption>Whose words or judgements reached what, and under which terms.</caption>"
    heads = (
        "Who",
        "How",
        "Where",
        "Rows",
        "Share",
        "Output tokens",
        "Asked",
        "Policies",
        "Clauses",
        "Obligations",
    )
    yield "<thead><tr>" + "".join(f'<th scope="col">{h}</th>' for h in heads) + "</tr></thead>"
    yield "<tbody>"
    for who, *others in rows:
        cells = "".join(
            f"<td{_STYLES.get(at, '')}>{_safe(one)}</td>" for at, one in enumerate(others)
        )
        yield f'<tr><th scope="row">{_safe(who)}</th>{cells}</tr>'
    yield "</tbody></table></div>"


_NUMBER: Final = ' class="number"'
_STYLES: Final = {2: _NUMBER, 3: _NUMBER, 4: _NUMBER, 5: ' class="day"'}


def _taught(roots: tuple[Node, ...]) -> Iterator[tuple[str, ...]]:
    """Yield what a dataset's manifest says of each kind of call."""
    for node, _ in datasets_of(roots).values():
        of_rows = node.manifest.found.rows
        for one in node.manifest.found.teachers:
            who = f"{one.provider} {one.model or ''}".strip()
            yield (
                who + (" (a student of ours)" if one.manifest is not None else ""),
                _HOW[one.influence],
                f"dataset {node.name}",
                f"{one.rows:,} of {of_rows:,}",
                share(one.rows, of_rows),
                "not counted" if one.output_tokens is None else f"{one.output_tokens:,}",
                " to ".join(dict.fromkeys((*one.days[:1], *one.days[-1:]))),
                ", ".join(sorted({f"{pin.policy} v{pin.version}" for pin in one.policies})),
                ", ".join(one.clauses),
                ", ".join(one.obligations),
            )


def _answered(roots: tuple[Node, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the single answers that are asked about, or that rows were made of."""
    told: set[tuple[str, str]] = set()
    for node, _, influence in nodes_above(roots):
        if not isinstance(node, ExchangeNode) or (node.receipt.exchange, influence) in told:
            continue
        receipt, facts = node.receipt, node.receipt.model
        told.add((receipt.exchange, influence))
        usage = receipt.usage
        counted = None if usage is None else usage.output_tokens
        who = f"{receipt.provider.name} {facts.reported or facts.requested or ''}".strip()
        yield (
            who + (" (a student of ours)" if facts.manifest is not None else ""),
            _HOW[influence],
            f"answer {receipt.exchange} (leaf {node.index})",
            "",
            "",
            "not counted" if counted is None else f"{counted:,}",
            receipt.received[:10],
            ", ".join(f"{pin.policy} v{pin.version}" for pin in receipt.ruling.policies),
            ", ".join(f"{one.policy}:{one.clause}" for one in receipt.ruling.reasons),
            ", ".join(receipt.ruling.obligations),
        )


def _wrote(roots: tuple[Node, ...]) -> Iterator[tuple[str, ...]]:
    """Yield whose words rows are that no model answered."""
    for author, node, _ in authors_of(roots):
        yield (
            f"people, says {author.by}",
            f"own words, from {author.source}, licence {author.licence}",
            f"dataset {node.name}"
            if isinstance(node, DatasetNode)
            else f"rows {node.derivation.derivation}",
            f"{author.rows:,} of {author.of_rows:,}",
            share(author.rows, author.of_rows),
            *[""] * 5,
        )


_HOW: Final = {"text": "its words", "judge": "judged"}


def _approvals(roots: tuple[Node, ...]) -> Iterator[str]:
    said = dict.fromkeys(_declared(roots))
    if not said:
        return
    yield "<h2>Who declared it, and who said yes</h2>"
    yield "<ul>"
    for what, declaration, owner, approvals in said:
        by = owner or "nobody whose word is in this pack"
        yield (
            f"<li>{_safe(what)}: the use was declared as"
            f" <code>{_safe(declaration)}</code> by {_safe(by)}.</li>"
        )
        for one in approvals:
            yield (
                f"<li>{_safe(what)}: {_safe(one.by)} approved it in leaf {one.index}:"
                f" {_safe(one.reason)}</li>"
            )
    yield "</ul>"


def _declared(
    roots: tuple[Node, ...],
) -> Iterator[tuple[str, str, str | None, tuple[Approval, ...]]]:
    """Yield for what something was declared, by whom, and who approved it."""
    for node, _, _ in nodes_above(roots):
        match node:
            case DatasetNode():
                what, declared = f"Dataset {node.name}", node.manifest.asked.declaration
                yield what, declared, node.owner, node.approvals
            case ExchangeNode() if node.receipt.declared.declaration is not None:
                what, declared = (
                    f"Answer {node.receipt.exchange}",
                    node.receipt.declared.declaration,
                )
                yield what, declared, node.owner, node.approvals
            case DerivationNode() if node.derivation.declared.declaration is not None:
                what, declared = (
                    f"Rows {node.derivation.derivation}",
                    node.derivation.declared.declaration,
                )
                yield what, declared, node.owner, ()
            case _:
                pass


def _tree(root: Node, shown: set[str]) -> Iterator[str]:
    match root:
        case Missing():
            yield f'<li class="gone">? {_safe(root.what)}</li>'
        case ModelNode():
            yield f"<li><strong>student {_safe(root.name)}</strong>{_stands(root)}"
            if root.payload not in shown:
                shown.add(root.payload)
                yield "<ul>"
                for base in root.bases:
                    yield f"<li>began as {_safe(base)}, from outside</li>"
                for parent in root.parents:
                    yield from _tree(parent, shown)
                yield "</ul>"
            yield "</li>"
        case DatasetNode():
            found = root.manifest.found
            yield (
                f"<li><strong>dataset {_safe(root.name)}</strong>: {found.rows} rows for"
                f" {_safe(found.use.purpose)}{_stands(root)}"
            )
            if root.payload not in shown:
                shown.add(root.payload)
                yield "<ul>"
                for one in root.teachers:
                    told = one.teacher
                    how = "judged" if told.influence == "judge" else "taught"
                    yield (
                        f"<li>{_safe(told.provider)} {_safe(told.model or '')} {how}"
                        f" {told.rows} rows ({share(told.rows, one.of_rows)})"
                    )
                    if one.student is not None:
                        yield "<ul>"
                        yield from _tree(one.student, shown)
                        yield "</ul>"
                    yield "</li>"
                yield from _authors(root.authors)
                yield "</ul>"
            yield "</li>"
        case ExchangeNode():
            receipt = root.receipt
            yield (
                f"<li><strong>answer {_safe(receipt.exchange)}</strong> of"
                f" {_safe(receipt.provider.name)} (leaf {root.index})"
            )
            if root.student is not None:
                yield "<ul>"
                yield from _tree(root.student, shown)
                yield "</ul>"
            yield "</li>"
        case DerivationNode():
            yield from _tree_of_rows(root, shown)
        case ExportNode():
            for parent in root.parents:
                yield from _tree(parent, shown)


def _tree_of_rows(root: DerivationNode, shown: set[str]) -> Iterator[str]:
    said = root.derivation
    named = said.derivation if root.place is None else f"{said.derivation}/{root.place}"
    what = f"{len(said.rows)} rows" if root.place is None else f"row {root.place}"
    gone = f' <span class="gone">WITHDRAWN {_safe(root.withdrawn or "")}</span>'
    yield (
        f"<li><strong>{what} of {said.derivation}</strong>: {said.transform.kind} by"
        f" {_safe(said.transform.name)} {_safe(said.transform.version)}"
        f' <span class="faint">(leaf {root.index})</span>{gone * bool(root.withdrawn)}'
    )
    if named not in shown:
        shown.add(named)
        yield "<ul>"
        for one in root.parents:
            yield f"<li>{one.parent.role}:<ul>"
            yield from _tree(one.node, shown)
            yield "</ul></li>"
        yield from _authors(root.authors)
        yield "</ul>"
    yield "</li>"


def _authors(authors: Iterable[Author]) -> Iterator[str]:
    for one in authors:
        yield (
            f"<li>people’s words, says {_safe(one.by)}: {one.rows} of {one.of_rows} rows"
            f" ({share(one.rows, one.of_rows)}), from {_safe(one.source)}, licence"
            f" {_safe(one.licence)}</li>"
        )


def _stands(node: ModelNode | DatasetNode) -> str:
    where = "not in this log" if node.index is None else f"leaf {node.index}"
    told = f' <span class="faint">({where}, <code>{node.payload[:16]}…</code>)</span>'
    if node.withdrawn:
        told += f' <span class="gone">WITHDRAWN {_safe(node.withdrawn)}</span>'
    return told


def _list_of_stages(holdings: Holdings) -> Iterator[str]:
    yield "<ul>"
    for payload, (index, manifest) in sorted(
        holdings.manifests.items(), key=lambda one: one[1][0]
    ):
        kind, name = name_of(manifest)
        yield f"<li>{kind} {_safe(name)} (leaf {index}, <code>{payload[:16]}…</code>)</li>"
    yield "</ul>"


def _limits(facts: PackFacts) -> Iterator[str]:
    shown = facts.receipts
    yield "<h2>What this covers, and what not</h2>"
    yield "<ul>"
    yield (
        "<li>It covers what went through this gateway and trainers that its gate fed, up to"
        f" leaf {facts.size}. What was copied past it, nothing here can show.</li>"
    )
    yield (
        "<li>What a base model from outside learned from is not known; where there is one, it"
        " can’t be told that a provider’s answers are not in it.</li>"
    )
    if facts.about.kind == "derivation":
        yield "<li>Every leaf above the rows that could be followed is in this pack.</li>"
    if not shown.of:
        yield "<li>No signed list of leaves stands above, so none was to be checked.</li>"
    elif shown.chosen == "all":
        yield (
            f"<li>All {shown.of} receipts and derivations that the signed lists name are in"
            " this pack.</li>"
        )
    else:
        yield (
            f"<li>{shown.shown} of {shown.of} receipts and derivations are in this pack, as a"
            " sample; the signed lists name all of them, and whoever has the log can check"
            " each.</li>"
        )
    for one in facts.accounts:
        yield (
            f"<li>Which leaves are receipts of account <code>{_safe(one.account)}</code> is"
            " stated by who signed this pack. It is shown for each receipt in it; that there is"
            " no other takes the whole log.</li>"
        )
    if facts.about.kind == "log":
        yield (
            "<li>That these are all manifests of the log up to that leaf is stated by who"
            " signed this pack; a copy of the log shows it.</li>"
        )
    yield (
        "<li>Withdrawals are those that were known when it was made; a pack can’t show that"
        " there is no other.</li>"
    )
    if not facts.rows:
        yield "<li>It holds no text of a row or a prompt, and no salt.</li>"
    for one_missing in facts.missing:
        yield f'<li class="gone">Not in it: {_safe(one_missing)}.</li>'
    yield "</ul>"


def _manifests(facts: PackFacts, holdings: Holdings) -> Iterator[str]:
    if not holdings.manifests:
        return
    yield "<h2>What is in it</h2>"
    yield '<div class="scroll"><table>'
    yield "<caption>Each manifest is signed, and shown to be a leaf of the log.</caption>"
    yield (
        '<thead><tr><th scope="col">Leaf</th><th scope="col">What</th>'
        '<th scope="col">File</th></tr></thead><tbody>'
    )
    for payload, (index, manifest) in sorted(
        holdings.manifests.items(), key=lambda one: one[1][0]
    ):
        kind, name = name_of(manifest)
        yield (
            f'<tr><td class="number">{index}</td><td>{kind} {_safe(name)}</td>'
            f"<td><code>{manifest_file(payload)}</code>, cards under"
            f" <code>{FILES}{payload}/</code></td></tr>"
        )
    yield "</tbody></table></div>"


def _how(facts: PackFacts) -> Iterator[str]:
    yield "<h2>How to check it</h2>"
    yield (
        "<p>With the package <code>tos-gateway</code> and the operator’s trust file, which you"
        " should have from the operator’s own hand and not from this pack:</p>"
    )
    yield "<pre><code>gateway verify PACK.zip --trust trust.json</code></pre>"
    yield (
        "<p>It needs no network. Every signature and every place in the log is checked, and"
        " each answer above is made again from what is in the pack. Without the package, a"
        " manifest is checked with openssl and a few lines of Python, as"
        " <code>docs/formats/pack.md</code> of the package’s sources shows.</p>"
    )
    yield (
        f"<p>The checkpoint that all of it stands under: {facts.size} leaves, root"
        f" <code>{facts.root}</code>.</p>"
    )


def _told(sentence: str) -> str:
    """Return a sentence of ours with the names in it set apart."""
    return _NAMED.sub(r"<code>\1</code>", _safe(sentence))


_NAMED: Final = re.compile("`([^`]*)`")


def _safe(text: str) -> str:
    """Return words of others so that they stay words."""
    return escape("".join(char if char.isprintable() else "?" for char in text))

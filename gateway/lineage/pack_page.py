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
from gateway.lineage.nodes import DatasetNode, ExchangeNode, Missing, ModelNode, Node, above
from gateway.lineage.pack_format import FILES, PackFacts, manifest_file
from gateway.lineage.ways import datasets_of

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
td.number { text-align: right; white-space: nowrap; }
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
    yield "<!doctype html>"
    yield '<html lang="en">'
    yield "<head>"
    yield '<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield (
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    )
    yield f"<title>{_safe(title)}</title>"
    yield f"<style>{_STYLE}</style>"
    yield "</head>"
    yield "<body>"
    yield "<main>"
    yield f"<h1>{_told(title)}</h1>"
    yield (
        f'<p class="faint">From the log <code>{_safe(facts.origin)}</code> as it stood at'
        f" {facts.size} leaves. Evidence, not legal advice.</p>"
    )
    for one in facts.answers:
        yield from _answer(one)
    yield from _teachers(evidence.roots)
    yield from _approvals(evidence.roots, facts.answers)
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


def _answer(one: Answer) -> Iterator[str]:
    headline, *others = one.sentences
    yield f"<h2>Question: <code>{_safe(one.question)}</code></h2>"
    yield '<div class="says">'
    yield f"<p>{_told(headline)}</p>"
    yield "<ul>"
    for sentence in others:
        yield f"<li>{_told(sentence)}</li>"
    yield "</ul>"
    yield "</div>"


def _teachers(roots: Iterable[Node]) -> Iterator[str]:
    found = datasets_of(roots)
    if not found:
        return
    yield "<h2>Teachers</h2>"
    yield '<div class="scroll"><table>'
    yield "<caption>Whose answers reached which dataset, and under which terms.</caption>"
    heads = (
        "Teacher",
        "How",
        "Dataset",
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
    for node, _ in found.values():
        for one in node.manifest.found.teachers:
            pins = sorted({f"{pin.policy} v{pin.version}" for pin in one.policies})
            who = f"{one.provider} {one.model or ''}".strip()
            if one.manifest is not None:
                who += " (a student of ours)"
            how = "judged" if one.influence == "judge" else "its words"
            tokens = "not counted" if one.output_tokens is None else str(one.output_tokens)
            yield (
                f'<tr><th scope="row">{_safe(who)}</th><td>{how}</td>'
                f"<td>{_safe(node.name)}</td>"
                f'<td class="number">{one.rows} of {node.manifest.found.rows}</td>'
                f'<td class="number">{share(one.rows, node.manifest.found.rows)}</td>'
                f'<td class="number">{tokens}</td>'
                f"<td>{_safe(' to '.join(dict.fromkeys((*one.days[:1], *one.days[-1:]))))}</td>"
                f"<td>{_safe(', '.join(pins))}</td><td>{_safe(', '.join(one.clauses))}</td>"
                f"<td>{_safe(', '.join(one.obligations))}</td></tr>"
            )
    yield "</tbody></table></div>"


def _approvals(roots: Iterable[Node], answers: Iterable[Answer]) -> Iterator[str]:
    said = [
        (node.name, node.owner, node.manifest.asked.declaration, node.approvals)
        for node, _ in datasets_of(roots).values()
    ]
    if not said:
        return
    yield "<h2>Who said yes</h2>"
    yield "<ul>"
    for name, owner, declaration, approvals in said:
        by = owner or "nobody whose word is in this pack"
        yield (
            f"<li>Dataset {_safe(name)}: the use was declared as"
            f" <code>{_safe(declaration)}</code> by {_safe(by)}.</li>"
        )
        for one in approvals:
            yield (
                f"<li>Dataset {_safe(name)}: {_safe(one.by)} approved it in leaf {one.index}:"
                f" {_safe(one.reason)}</li>"
            )
    yield "</ul>"


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
                for written in found.written_by:
                    yield (
                        f"<li>people’s words, says {_safe(written.by)}: {written.rows} rows"
                        f" ({_safe(written.source)}, {_safe(written.licence)})</li>"
                    )
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
        case _:
            for one_above in above(root):
                yield from _tree(one_above, shown)


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
    if shown.chosen == "all":
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

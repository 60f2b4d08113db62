"""Small policies for tests, written as legal would write them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping

from gateway.ident import Sha256
from gateway.policy.condition import AnyOf, Condition, Test, compile_condition
from gateway.policy.library import Library
from gateway.policy.model import Citation, Clause, Document, Effect, Kind, Policy
from gateway.policy.source import node_at, read

DAY = dt.date(2026, 11, 22)

TERMS = """\
documents:
  - id: acme-terms
    title: Acme Terms
    url: https://acme.example/terms
    version: effective 2026-01-01
    confidence: primary
    read: {where: the original, when: 2026-11-01}
  - id: acme-faq
    title: Acme FAQ
    url: https://acme.example/faq
    version: "2"
    note: Says nothing of outputs.
    confidence: secondary
    read: {where: a magazine, when: 2026-11-01}
  - id: acme-order
    title: Acme Order Form
    url: https://acme.example/order
    version: "1"
    confidence: unread
"""

HEAD = """\
policy: acme
version: 1
title: Acme API
in_force_from: 2026-01-01
review_by: 2027-01-01
terms: [acme-terms, acme-faq, acme-order]
clauses:
"""

CLAUSES = """\
  - id: may-use
    effect: permit
    when: {purpose: [inference, evaluate]}
    citation: {document: acme-terms, section: "1"}
    obligations: [disclose-ai]
    because: Plain use is fine.
    change: Other terms.
  - id: no-rivals
    effect: forbid
    when: {purpose: train, competes: true}
    citation: {document: acme-terms, section: "2"}
    because: Rivals are barred.
    change: A student that does not compete.
  - id: may-train
    effect: permit
    when: {purpose: train, audience: internal}
    citation: {document: acme-terms, section: "3"}
    because: Training inside is fine.
    change: Leaving the house.
"""

POLICY = HEAD + CLAUSES


REVIEW = "# Acme\n\n## Open questions\n\nNone.\n"


def acme_files(policy: str = POLICY, terms: str = TERMS, **others: str) -> dict[str, str]:
    """Return the files of a library with one policy; *others* by `cases/…` name."""
    files = {"acme/policy.yaml": policy, "acme/terms.yaml": terms, "acme/review.md": REVIEW}
    return files | {f"acme/cases/{name}.yaml": text for name, text in others.items()}


def acme(policy: str = POLICY) -> Policy:
    """Return the policy that *policy* spells."""
    found = Library.load(acme_files(policy)).in_force("acme", DAY)
    assert found is not None
    return found


def written(condition: str, **others: str) -> str:
    """Return a clause as a policy has it, with *condition* and *others* among its keys."""
    said = {
        "id": "one",
        "effect": "permit",
        "citation": '{document: acme-terms, section: "1"}',
        "because": "So it is.",
        "change": "Other terms.",
    }
    keys = "".join(f"    {key}: {text}\n" for key, text in (said | others).items())
    lines = "".join(f"    {line}\n" for line in condition.splitlines())
    return f"  -{keys[3:]}{lines}"


def condition(text: str) -> Condition:
    """Return the condition that the keys `when` and `unless` of *text* spell."""
    node = read(text, "p.yaml")
    return compile_condition(node_at(node, "when"), node_at(node, "unless"), "p.yaml")


def clause(
    clause_id: str,
    effect: Effect,
    when: Mapping[str, Iterable[str | bool]],
    unless: Iterable[Mapping[str, Iterable[str | bool]]] = (),
    obligations: Iterable[str] = (),
) -> Clause:
    """Return a clause made without any text."""
    exceptions = tuple(_tests(exception) for exception in unless)
    return clause_of(
        clause_id, effect, Condition(when=_tests(when), unless=exceptions), obligations
    )


def clause_of(
    clause_id: str, effect: Effect, condition: Condition, obligations: Iterable[str] = ()
) -> Clause:
    """Return a clause that speaks where *condition* is true."""
    return Clause(
        id=clause_id,
        effect=effect,
        binding=effect,
        condition=condition,
        citation=Citation(document="d", section="1"),
        document=Document(
            id="d", title="D", url="https://d.example", version="1", confidence="primary"
        ),
        because=f"{clause_id} says so.",
        change="",
        obligations=frozenset(obligations),
    )


def policy_of(
    clauses: Iterable[Clause], policy_id: str = "made", kind: Kind = "provider", stale: str = ""
) -> Policy:
    """Return a policy of *clauses*, in force for ever."""
    return Policy(
        id=policy_id,
        version=1,
        title="Made",
        kind=kind,
        stale=stale,
        in_force_from=dt.date(2000, 1, 1),
        in_force_until=None,
        review_by=dt.date(2100, 1, 1),
        clauses=tuple(clauses),
        file=f"{policy_id}/policy.yaml",
        sha256=Sha256("0" * 64),
    )


def _tests(asked: Mapping[str, Iterable[str | bool]]) -> tuple[Test, ...]:
    return tuple(
        AnyOf(fact, frozenset(values), negated=False, line=1) for fact, values in asked.items()
    )

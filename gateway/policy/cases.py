"""Cases beside each policy: a use, a day, and the ruling that legal signed for it.

A case names its reasons as well as its effect, so that a forbid that only silence replaces is
noticed. It is ruled under its own policy alone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from gateway.errors import MalformedPolicyError
from gateway.intent.model import IntendedUse
from gateway.intent.purpose import PURPOSES, is_purpose
from gateway.policy.condition import Value, value_of
from gateway.policy.decide import Decision, Facts, Lifted, decide, facts_of
from gateway.policy.model import EFFECTS, Effect, Policy
from gateway.policy.source import Keyed, Node, convert, line_at, nearest, node_at, read
from gateway.policy.vocabulary import FACTS
from gateway.provider.model import Operation, ProviderCall


class _WrittenCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    operation: Literal["chat", "opaque"] = "chat"
    model: str | None = None
    streaming: bool = False
    features: tuple[str, ...] = ()
    modality: tuple[str, ...] | None = None


class _WrittenExpect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    effect: Literal["permit", "hold", "forbid"]
    reasons: tuple[str, ...]
    obligations: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class _WrittenCase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    use: IntendedUse
    on: dt.date
    expect: _WrittenExpect
    note: str
    call: _WrittenCall = _WrittenCall()
    facts: Any = None
    lifted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is asked and what must be answered."""

    file: str
    line: int
    """Where `expect` stands."""
    policy: str
    facts: Facts
    on: dt.date
    effect: Effect
    reasons: tuple[str, ...]
    obligations: tuple[str, ...]
    missing: tuple[str, ...]
    lifted: Lifted
    """The clauses that are ruled on as if an agreement lifted them."""
    note: str

    def run(self, policies: Sequence[Policy]) -> Decision:
        """Return the ruling on the case under whichever of *policies* is in force."""
        in_force = [policy for policy in policies if policy.in_force(self.on)]
        return decide(self.facts, in_force, self.on, lifted=self.lifted)

    def complaint(self, decision: Decision) -> str | None:
        """Return how *decision* differs from what is expected, or `None`."""
        got = tuple(reason.clause for reason in decision.reasons)
        if decision.effect is not self.effect:
            return f"expected {self.effect.word}, got {decision.effect.word} by {_listed(got)}"
        if sorted(got) != sorted(self.reasons):
            return f"expected reasons {_listed(self.reasons)}, got {_listed(got)}"
        if decision.obligations != tuple(sorted(self.obligations)):
            return (
                f"expected obligations {_listed(self.obligations)},"
                f" got {_listed(decision.obligations)}"
            )
        if decision.missing != tuple(sorted(self.missing)):
            return f"expected missing {_listed(self.missing)}, got {_listed(decision.missing)}"
        return None


CASES: Final = "cases"
CASE_AGREEMENT: Final = "the-case-s-agreement"


def load_cases(files: Mapping[str, str]) -> tuple[Case, ...]:
    """Return every case among *files*, by path.

    Raises:
        MalformedPolicyError: a case that can't be read.
    """
    found = []
    for name in sorted(files):
        parts = name.split("/")
        if len(parts) < 3 or parts[-2] != CASES or not name.endswith(".yaml"):
            continue
        if not any(part.startswith(("_", ".")) for part in parts):
            found.append(load_case(files[name], name, parts[-3]))
    return tuple(found)


def load_case(text: str, file: str, policy_id: str) -> Case:
    """Return the case that *text* spells, for the policy whose folder it lies in.

    Raises:
        MalformedPolicyError: names the line of what is wrong.
    """
    node = read(text, file)
    written = convert(node, _WrittenCase, file)
    _check_use(node, written.use, file)
    extra = _extra_facts(node_at(node, "facts"), file)
    for name, words in (
        ("features", written.call.features),
        ("modality", written.call.modality),
    ):
        for index, word in enumerate(words or ()):
            if word not in FACTS[name].words:
                line = line_at(node, "call", name, index)
                hint = nearest(word, FACTS[name].words)
                raise MalformedPolicyError(file, line, f"unknown {name} `{word}`", hint=hint)
    if written.call.modality is not None:
        extra.setdefault("modality", frozenset(written.call.modality))
    call = ProviderCall(
        provider=policy_id,
        operation=Operation(written.call.operation),
        model=written.call.model,
        streaming=written.call.streaming,
        features=frozenset(written.call.features),
    )
    facts = facts_of(written.use, call)
    for name, value in extra.items():
        facts = facts.with_fact(name, value)
    return Case(
        file=file,
        line=line_at(node, "expect"),
        policy=policy_id,
        facts=facts,
        on=written.on,
        effect=EFFECTS[written.expect.effect],
        reasons=written.expect.reasons,
        obligations=written.expect.obligations,
        missing=written.expect.missing,
        lifted={(policy_id, clause): CASE_AGREEMENT for clause in written.lifted},
        note=written.note,
    )


def _check_use(node: Node, use: IntendedUse, file: str) -> None:
    if not is_purpose(use.purpose):
        hint = nearest(use.purpose, PURPOSES, f"one of {', '.join(PURPOSES)}")
        line = line_at(node, "use", "purpose")
        raise MalformedPolicyError(file, line, f"unknown purpose `{use.purpose}`", hint=hint)


def _extra_facts(node: Node | None, file: str) -> dict[str, Value]:
    if node is None:
        return {}
    if not isinstance(node, Keyed):
        raise MalformedPolicyError(file, node.line, "`facts` must be a mapping")
    extra: dict[str, Value] = {}
    for name, child in node.entries.items():
        fact = FACTS.get(name)
        if fact is None or fact.origin == "derived":
            hint = nearest(name, FACTS, f"known facts: {', '.join(FACTS)}")
            raise MalformedPolicyError(
                file, node.key_lines[name], f"unknown fact `{name}`", hint=hint
            )
        extra[name] = value_of(fact, child, file)
    return extra


def _listed(words: Sequence[str]) -> str:
    return ", ".join(f"`{word}`" for word in sorted(words)) or "nothing"

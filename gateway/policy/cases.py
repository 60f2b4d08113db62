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

from gateway.intent.model import IntendedUse
from gateway.policy.decide import Decision, Facts, Lifted, decide, facts_of
from gateway.policy.facts import WrittenCall, check_call, check_use, facts_at
from gateway.policy.model import EFFECTS, Effect, Policy
from gateway.policy.source import convert, line_at, read


class WrittenExpect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ruling as a case writes it."""

    effect: Literal["permit", "hold", "forbid"]
    reasons: tuple[str, ...]
    obligations: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class WrittenCase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole file of `cases/`."""

    use: IntendedUse
    on: dt.date
    expect: WrittenExpect
    note: str
    call: WrittenCall = WrittenCall()
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
    written = convert(node, WrittenCase, file)
    check_use(node, written.use, file, "use")
    check_call(node, written.call, file, "call")
    extra = facts_at(node, file, "facts")
    if written.call.modality is not None:
        extra.setdefault("modality", frozenset(written.call.modality))
    call = written.call.as_call(policy_id)
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


def _listed(words: Sequence[str]) -> str:
    return ", ".join(f"`{word}`" for word in sorted(words)) or "nothing"

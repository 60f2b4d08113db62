"""What a registered agreement lifts: exactly the clauses it names, for exactly its scope.

Not here: how it is registered (`receipt/model.py`), and which are
(`ledger/reading/register.py`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.errors import MalformedPolicyError
from gateway.intent.model import IntendedUse
from gateway.intent.purpose import covers
from gateway.policy.decide import Lifted
from gateway.policy.library import Library
from gateway.policy.model import Effect, Policy
from gateway.policy.source import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """An order form or a written permission, as far as a ruling needs it."""

    id: str
    policy: str
    lifts: frozenset[str]
    purposes: tuple[str, ...]
    starts: dt.date
    expires: dt.date
    """The last day."""
    projects: frozenset[str] = frozenset()
    students: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()

    def covers(self, use: IntendedUse, *, project: str, model: str | None, on: dt.date) -> bool:
        """Tell whether *use* by *project* of *model*'s output lies in its scope that day.

        A limit that it sets is not met by what nobody said.
        """
        return (
            self.starts <= on <= self.expires
            and any(covers(general, use.purpose) for general in self.purposes)
            and (not self.projects or project in self.projects)
            and (not self.students or use.student in self.students)
            and (not self.models or model in self.models)
        )


def lifted_by(
    agreements: Iterable[Agreement],
    use: IntendedUse,
    *,
    project: str,
    model: str | None,
    on: dt.date,
) -> Lifted:
    """Return the clauses that *agreements* lift for this use, on that day."""
    lifted: dict[tuple[str, str], str] = {}
    for agreement in sorted(agreements, key=lambda one: one.id):
        if agreement.covers(use, project=project, model=model, on=on):
            for clause in sorted(agreement.lifts):
                lifted.setdefault((agreement.policy, clause), agreement.id)
    return lifted


def check_lifts(library: Library, policy_id: str, lifts: Iterable[str], on: dt.date) -> Policy:
    """Return the policy that binds on that day, if *lifts* are holds and bars of it.

    Raises:
        MalformedPolicyError: there is no such policy or clause, or nothing to lift in it.
    """
    versions = library.policies.get(policy_id)
    if not versions:
        hint = nearest(policy_id, library.policies, f"known: {', '.join(library.providers)}")
        raise MalformedPolicyError(
            "policies", 1, f"there is no policy `{policy_id}`", hint=hint
        )
    policy = library.in_force(policy_id, on) or versions[-1]
    if policy.kind == "overlay":
        raise MalformedPolicyError(
            policy.file,
            1,
            f"`{policy_id}` is an overlay, and no agreement lifts what a law asks",
            hint="switch it off in the settings, or name a provider or a licence",
        )
    for name in lifts:
        clause = policy.clause(name)
        if clause is None:
            liftable = [one.id for one in policy.clauses if one.effect is not Effect.PERMIT]
            raise MalformedPolicyError(
                policy.file,
                1,
                f"`{policy_id}` has no clause `{name}` to lift",
                hint=nearest(name, liftable, f"it has {', '.join(liftable)}"),
            )
        if clause.effect is Effect.PERMIT:
            raise MalformedPolicyError(
                policy.file,
                clause.line,
                f"clause `{name}` permits already; an agreement lifts what holds or forbids",
                hint="leave it out",
            )
    return policy

"""What is ruled on, apart from any library: a use of what a call gave, on a day.

The gates ask one library; a replay asks two. Which policies bind is found in each.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gateway.policy.condition import Value
from gateway.policy.decide import Decision, Lifted, decide
from gateway.policy.library import Binding, Library

Place = tuple[str, str]
"""A policy and a clause."""

Approves = Callable[[Iterable[Place]], bool]
"""Tells whether a person said yes to all of these holding clauses."""


def nobody_approves(holding: Iterable[Place]) -> bool:
    """Say that no person said yes to anything."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is known of a use and its call, and on which day it is to be ruled on."""

    facts: Mapping[str, Value]
    policies: tuple[str, ...]
    """Ids of the policies that bind by name; the model's own are found by each library."""
    model: str | None
    """As it was asked for."""
    reported: tuple[str, ...] = ()
    """Under which other names it says it answered; their terms bind as well."""
    on: dt.date
    lifted: Lifted = field(default_factory=dict)
    approves: Approves = nobody_approves

    def ruled(self, library: Library) -> Decision:
        """Return the ruling under *library*."""
        binding = self.bound(library)
        return decide(
            self.facts, binding.policies, self.on, absent=binding.absent, lifted=self.lifted
        )

    def bound(self, library: Library) -> Binding:
        """Return what binds in *library* on that day."""
        binding = library.binding(self.policies, self.model, self.on)
        if not self.reported:
            return binding
        bindings = [binding]
        bindings += [library.binding(self.policies, one, self.on) for one in self.reported]
        policies = {policy.id: policy for one in bindings for policy in one.policies}
        absent = dict.fromkeys(name for one in bindings for name in one.absent)
        return Binding(policies=tuple(policies.values()), absent=tuple(absent))

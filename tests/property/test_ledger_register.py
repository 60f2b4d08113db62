"""The register is a fold: what it says depends on the leaves, not on how they were heard of."""

from __future__ import annotations

import datetime as dt
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.ledger.reading.register import Register
from gateway.receipt.model import (
    Activation,
    AgreementFacts,
    Covered,
    DeclarationFacts,
    OrganisationFacts,
    Scope,
    Statement,
    TermsChange,
    Verdict,
    Withdrawal,
)
from tests.support.house import TRAINING, WRITER

TODAY = dt.date(2026, 11, 22)
AT = "2026-11-22T00:00:00.000Z"
DECLARATIONS = [DeclarationId(f"use-{number:020}") for number in range(2)]
EXCHANGE = ExchangeId("x-" + "0" * 26)
AGREEMENTS = ["order-1", "order-2"]
KEYS = [Sha256("aa" * 32), Sha256("bb" * 32)]
CLAUSES = [("held", "training"), ("held", "other")]

days = st.sampled_from(["2020-01-01", "2026-11-22", "2099-12-31", "no day"])
people = st.sampled_from(["ada", "grace"])
covered = st.lists(st.sampled_from(CLAUSES), max_size=2).map(
    lambda some: tuple(Covered(policy=policy, clauses=(clause,)) for policy, clause in some)
)
statements: st.SearchStrategy[Statement] = st.one_of(
    st.builds(
        DeclarationFacts,
        declaration=st.sampled_from(DECLARATIONS),
        project=st.just("search"),
        use=st.just(TRAINING),
        owner=people,
        at=st.just(AT),
        writer=st.just(WRITER),
    ),
    st.builds(
        Verdict,
        approved=st.booleans(),
        by=people,
        reason=st.just("r"),
        declaration=st.sampled_from(DECLARATIONS),
        covers=covered,
        at=st.just(AT),
        writer=st.just(WRITER),
    ),
    st.builds(
        Withdrawal,
        by=people,
        reason=st.just("r"),
        exchange=st.sampled_from([EXCHANGE, None]),
        agreement=st.sampled_from(AGREEMENTS),
        at=st.just(AT),
        writer=st.just(WRITER),
    ),
    st.builds(
        AgreementFacts,
        agreement=st.sampled_from(AGREEMENTS),
        policy=st.just("held"),
        lifts=st.sampled_from([("training",), ("other",), ("other", "training")]),
        scope=st.just(Scope(purposes=("train",))),
        evidence=st.just(Sha256("ab" * 32)),
        evidence_name=st.just("order.pdf"),
        signer=people,
        by=people,
        credentials=st.lists(st.sampled_from(KEYS), max_size=2).map(tuple),
        starts=days,
        expires=days,
        at=st.just(AT),
        writer=st.just(WRITER),
    ),
    st.builds(
        OrganisationFacts,
        facts=st.dictionaries(
            st.sampled_from(["monthly-users", "region-supported", "headquarters", "purpose"]),
            st.booleans() | st.integers(0, 9) | st.sampled_from(["DE", "FR"]),
            max_size=2,
        ),
        measured=st.sampled_from([None, "2026-10", "2026-11", "then"]),
        basis=st.just("b"),
        by=people,
        at=st.just(AT),
        writer=st.just(WRITER),
    ),
    st.builds(
        TermsChange,
        policy=st.just("held"),
        version=st.integers(1, 2),
        document=st.sampled_from(["words", "other"]),
        sections=st.just(("1",)),
        snapshot=st.just(Sha256("cd" * 32)),
        by=people,
        at=st.just(AT),
        writer=st.just(WRITER),
    ),
    st.builds(
        Activation,
        library=st.sampled_from(KEYS),
        policies=st.just(1),
        by=people,
        at=st.just(AT),
        writer=st.just(WRITER),
    ),
)


def all_that_it_says(register: Register) -> dict[str, Any]:
    """Return every answer that the register gives."""
    return {
        "declarations": register.declarations(),
        "declared": [register.declaration(one) for one in DECLARATIONS],
        "verdicts": [register.verdicts(one) for one in DECLARATIONS],
        "approvals": [
            register.approval(one, [clause]) for one in DECLARATIONS for clause in CLAUSES
        ],
        "declined": [register.declined(one) for one in DECLARATIONS],
        "withdrawn": [register.withdrawn(one) for one in DECLARATIONS],
        "output withdrawn": register.withdrawn(EXCHANGE),
        "agreements": register.agreements(),
        "bound": [register.bound(key, TODAY) for key in (*KEYS, None)],
        "lifting": register.lifting(AGREEMENTS),
        "organisation": dict(register.organisation),
        "stale": dict(register.stale),
        "activation": register.activation(),
    }


@given(said=st.lists(statements, max_size=12), repeats=st.integers(0, 12), seed=st.integers())
def test_it_matters_what_was_said_and_not_how_it_was_heard(
    said: list[Statement], repeats: int, seed: int
) -> None:
    """Any order, with any repeats, adds up to what reading the leaves once in order does."""
    leaves = list(enumerate(said))
    once = Register()
    once.fold(leaves)
    dice = Random(seed)
    heard = leaves + (dice.choices(leaves, k=repeats) if leaves else [])
    dice.shuffle(heard)
    again = Register()
    again.fold(heard)

    assert all_that_it_says(once) == all_that_it_says(again)


@given(said=st.lists(statements, max_size=12))
def test_hearing_it_all_again_is_no_news(said: list[Statement]) -> None:
    """What was folded once can be folded over and over; no ruling is asked for again."""
    register = Register()
    register.fold(enumerate(said))
    version, before = register.version, all_that_it_says(register)
    register.fold(enumerate(said))

    assert version == register.version
    assert before == all_that_it_says(register)

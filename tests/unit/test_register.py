"""The register: present state is a fold over the ledger's statements."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.ledger.reading.register import Register
from gateway.policy.condition import Measured
from gateway.receipt.model import (
    DeclarationFacts,
    OrganisationFacts,
    Statement,
    Verdict,
    Withdrawal,
)
from tests.support.evidence import ABANDONMENT, AGREEMENT, DECLARATION, OPENING, RECEIPT
from tests.support.house import TRAINING, WRITER, verdict

HELD = ("held", "training")
OTHER = ("held", "other")
AT = "2026-11-22T00:00:00.000Z"


def declared(name: DeclarationId = DECLARATION, owner: str = "ada") -> DeclarationFacts:
    """Return a registered declaration."""
    return DeclarationFacts(
        declaration=name, project="search", use=TRAINING, owner=owner, at=AT, writer=WRITER
    )


def withdrawn(**subject: Any) -> Withdrawal:
    """Return a withdrawal of *subject*."""
    return Withdrawal(by="grace", reason="no longer", at=AT, writer=WRITER, **subject)


def folded(*statements: Statement) -> Register:
    """Return the register of *statements*, one leaf after the other."""
    register = Register()
    register.fold(enumerate(statements))
    return register


def test_an_approval_covers_exactly_the_clauses_it_names() -> None:
    """A yes answers its own clauses; one more that holds is still to be answered."""
    register = folded(declared(), verdict(DECLARATION, HELD))

    assert 1 == register.approval(DECLARATION, [HELD])
    assert register.approval(DECLARATION, [HELD, OTHER]) is None
    assert register.approval(DECLARATION, [OTHER]) is None
    assert register.approval(DECLARATION, [("open", "training")]) is None
    assert register.approval(DeclarationId("use-" + "0" * 20), [HELD]) is None


def test_a_yes_to_nothing_answers_nothing() -> None:
    """No clause held back is no question, and a verdict without clauses is no answer."""
    register = folded(declared(), verdict(DECLARATION, HELD))

    assert register.approval(DECLARATION, []) is None
    assert folded(verdict(DECLARATION)).approval(DECLARATION, [HELD]) is None


def test_approvals_add_up() -> None:
    """Two verdicts of yes answer together what each answers alone; the newest is named."""
    register = folded(verdict(DECLARATION, HELD), verdict(DECLARATION, OTHER))

    assert 1 == register.approval(DECLARATION, [OTHER, HELD])


def test_a_later_no_ends_an_earlier_yes() -> None:
    """After a no nothing said before it counts; a yes after it counts for itself alone."""
    yes, no = verdict(DECLARATION, HELD, OTHER), verdict(DECLARATION, approved=False)
    ended = folded(yes, no)
    again = folded(yes, no, verdict(DECLARATION, OTHER))

    assert ended.approval(DECLARATION, [HELD]) is None
    assert ended.declined(DECLARATION) == no
    assert again.approval(DECLARATION, [HELD]) is None
    assert 2 == again.approval(DECLARATION, [OTHER])
    assert again.declined(DECLARATION) is None


def test_applying_twice_changes_nothing() -> None:
    """A statement that is taken in again, from another road, leaves everything as it was."""
    statements: list[Statement] = [
        declared(),
        verdict(DECLARATION, HELD),
        verdict(DECLARATION, approved=False),
        withdrawn(declaration=DECLARATION),
    ]
    register = folded(*statements)
    version = register.version
    changed = [register.apply(index, one) for index, one in enumerate(statements)]

    assert [False] * 4 == changed
    assert (4, version) == (version, register.version)
    assert 2 == len(register.verdicts(DECLARATION))


def test_what_can_change_no_ruling_leaves_the_version_alone() -> None:
    """Openings, receipts and abandonments are no news to the law."""
    register = folded(OPENING, RECEIPT, ABANDONMENT)

    assert 0 == register.version
    assert register.apply(3, declared())
    assert 1 == register.version


def test_the_first_word_on_a_declaration_and_on_a_withdrawal_stands() -> None:
    """Nothing is edited: registering or withdrawing again changes nothing."""
    register = folded(
        declared(),
        declared(owner="eve"),
        withdrawn(declaration=DECLARATION),
        withdrawn(declaration=DECLARATION),
    )
    found = register.declaration(DECLARATION)

    assert found is not None
    assert ("ada", "search", TRAINING) == (found.owner, found.project, found.use)
    assert 1 == len(register.declarations())
    assert 2 == register.version


def test_subjects_of_different_kinds_are_kept_apart() -> None:
    """Declarations, exchanges and manifests are withdrawn and ruled on each by itself."""
    exchange, manifest = ExchangeId("x-" + "0" * 26), Sha256("ab" * 32)
    about = Verdict(
        approved=True, by="grace", reason="fine", exchange=exchange, at=AT, writer=WRITER
    )
    register = folded(withdrawn(exchange=exchange), withdrawn(manifest=manifest), about)

    assert register.withdrawn(exchange) is not None
    assert register.withdrawn(manifest) is not None
    assert register.withdrawn(DECLARATION) is None
    assert [(2, about)] == register.verdicts(exchange)
    assert [] == register.verdicts(DECLARATION)


def test_an_unknown_declaration_is_none() -> None:
    """What was never registered is not there."""
    assert Register().declaration(DECLARATION) is None


def stated(
    facts: dict[str, str | bool | int], *, measured: str | None = None
) -> OrganisationFacts:
    """Return a statement of the organisation."""
    return OrganisationFacts(
        facts=facts, measured=measured, basis="count", by="ada", at=AT, writer=WRITER
    )


@pytest.mark.parametrize(
    "days",
    [{"starts": "always"}, {"expires": "2026-02-30"}, {"starts": ""}, {"expires": "9" * 9}],
)
def test_an_agreement_whose_days_are_none_lifts_nothing(days: dict[str, str]) -> None:
    """It stands on record, lifts no clause, and keeps nothing after it from being read."""
    odd = msgspec.structs.replace(AGREEMENT, **days)
    register = folded(odd, withdrawn(declaration=DECLARATION))

    assert [odd] == [facts for facts, _ in register.agreements()]
    assert [] == register.lifting(["order-7"])
    assert register.withdrawn(DECLARATION) is not None


def test_what_is_no_fact_of_the_organisation_is_not_one() -> None:
    """A statement can't declare a purpose, nor anything that no condition asks for."""
    register = folded(stated({"purpose": "inference", "competes": False, "no-such-fact": 1}))

    assert {} == register.organisation


@pytest.mark.parametrize(
    "facts",
    [
        {"restricted-ownership": "all"},
        {"restricted-ownership": True},
        {"region-supported": "no"},
        {"region-supported": 0},
        {"gateway-role": "broker"},
        {"headquarters": "UK"},
    ],
)
def test_what_was_stated_unreadably_is_unknown(facts: dict[str, str | bool | int]) -> None:
    """It is not presumed to be what it usually is: somebody said that it is something."""
    assert [None] == list(folded(stated(facts)).organisation.values())


def test_a_month_that_is_none_measures_nothing() -> None:
    """A number of a month that is none leaves it unknown; the next good one counts."""
    odd = stated({"monthly-users": 1}, measured="2026-13")
    good = stated({"monthly-users": 2}, measured="2026-11")

    assert {"monthly-users": None} == folded(odd).organisation
    assert {"monthly-users": Measured((("2026-11", 2),))} == folded(odd, good).organisation


def test_the_earliest_leaf_is_the_first_word() -> None:
    """Which of two agreements of one name stands is for their places in the ledger to say."""
    other = msgspec.structs.replace(AGREEMENT, lifts=("other",), expires="no day")
    register = Register()
    register.apply(5, other)
    register.apply(2, AGREEMENT)

    assert [frozenset({"training"})] == [one.lifts for one in register.lifting(["order-7"])]

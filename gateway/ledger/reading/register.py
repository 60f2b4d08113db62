"""What the ledger's statements add up to today.

Declarations, verdicts, withdrawals, agreements, what the organisation states of itself, which
terms are known to have changed, and which policy library was put in force.

Nothing is edited: the register is a fold over leaves, in order, and can be made again at any
time. Its version rises with every statement that can change a ruling.
"""

from __future__ import annotations

import bisect
import datetime as dt
import operator
import re
from collections.abc import Iterable, Mapping
from typing import Final

from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.intent.country import COUNTRIES
from gateway.intent.model import NAME, Declaration
from gateway.limits import AGREEMENTS_PER_CREDENTIAL_MAX
from gateway.policy.agreement import Agreement
from gateway.policy.condition import Measured, Value
from gateway.policy.vocabulary import FACTS, REGISTRABLE, Fact
from gateway.receipt.model import (
    Activation,
    AgreementFacts,
    DeclarationFacts,
    OrganisationFacts,
    Statement,
    TermsChange,
    Verdict,
    Withdrawal,
)
from gateway.store.index.rows import Kind

KINDS: Final[tuple[Kind, ...]] = (
    "declaration",
    "verdict",
    "withdrawal",
    "agreement",
    "organisation",
    "activation",
    "terms-change",
)
"""The kinds of statement (as the index names them) that the register is made of."""

_MONTH: Final = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
_PLACE: Final = operator.itemgetter(0)


class Register:
    """The present, folded from the past; one writer, the event loop or a command."""

    def __init__(self) -> None:
        # OWNED BY: apply(). Readers on the same thread need no lock.
        self.version = 0
        self.lifted = 0
        """Rises with what can change rulings besides policies, people's verdicts and what is
        withdrawn by its name: agreements and their ends, the organisation, stale terms."""
        self._first: dict[tuple[str, object], int] = {}
        """Where the word that stands on something was said: the earliest leaf is the first."""
        self._declarations: dict[DeclarationId, DeclarationFacts] = {}
        self._verdicts: dict[str, list[tuple[int, Verdict]]] = {}
        self._withdrawals: dict[str, Withdrawal] = {}
        self._agreements: dict[str, AgreementFacts] = {}
        self._lifting: dict[str, Agreement] = {}
        self._stated: dict[int, OrganisationFacts] = {}
        self._organisation: dict[str, Value | None] = {}
        self._stale: dict[tuple[str, int], str] = {}
        self._activations: dict[int, Activation] = {}

    def fold(self, statements: Iterable[tuple[int, Statement]]) -> None:
        """Apply every (leaf index, statement) in order."""
        for index, statement in statements:
            self.apply(index, statement)

    def apply(self, index: int, statement: Statement) -> bool:
        """Take in one statement; tell whether it can change a ruling.

        Applying a statement twice changes nothing.
        """
        match statement:
            case DeclarationFacts():
                if not self._is_first("declaration", statement.declaration, index):
                    return False
                self._declarations[statement.declaration] = statement
            case Verdict():
                said = self._verdicts.setdefault(_subject_of(statement), [])
                if any(index == known for known, _ in said):
                    return False
                bisect.insort(said, (index, statement), key=_PLACE)
            case Withdrawal():
                subject = _subject_of(statement)
                if not self._is_first("withdrawal", subject, index):
                    return False
                self._withdrawals[subject] = statement
            case AgreementFacts():
                if not self._is_first("agreement", statement.agreement, index):
                    return False
                self._lifting.pop(statement.agreement, None)
                self._agreements[statement.agreement] = statement
                agreement = _agreement_of(statement)
                if agreement is not None:
                    self._lifting[statement.agreement] = agreement
            case OrganisationFacts():
                if index in self._stated:
                    return False
                self._stated[index] = statement
                self._organisation = _facts_of(self._stated)
            case TermsChange():
                changed = (statement.policy, statement.version)
                if not self._is_first("terms-change", changed, index):
                    return False
                self._stale[changed] = (
                    f"The document `{statement.document}` has changed at"
                    f" {', '.join(statement.sections)}."
                )
            case Activation():
                # Which library rules is the gateway's to know; no ruling follows from the leaf.
                self._activations[index] = statement
                return False
            case _:
                return False
        self.version += 1
        self.lifted += isinstance(
            statement, AgreementFacts | OrganisationFacts | TermsChange
        ) or (isinstance(statement, Withdrawal) and statement.agreement is not None)
        return True

    def _is_first(self, kind: str, subject: object, index: int) -> bool:
        """Tell whether the leaf at *index* is the earliest so far to speak on *subject*.

        Leaves arrive by several roads; which came first is for their places to say.
        """
        known = self._first.get((kind, subject))
        if known is not None and known <= index:
            return False
        self._first[kind, subject] = index
        return True

    def declaration(self, declaration: DeclarationId) -> Declaration | None:
        """Return the registered declaration of that id."""
        facts = self._declarations.get(declaration)
        if facts is None:
            return None
        return Declaration(
            id=facts.declaration,
            project=facts.project,
            use=facts.use,
            owner=facts.owner,
            expires=facts.expires,
        )

    def declarations(self) -> list[DeclarationFacts]:
        """Return every registered declaration, oldest first."""
        return sorted(
            self._declarations.values(),
            key=lambda facts: self._first["declaration", facts.declaration],
        )

    def approval(
        self, declaration: DeclarationId, holding: Iterable[tuple[str, str]]
    ) -> int | None:
        """Return the leaf index of the verdict that answers every *holding* (policy, clause).

        The newest verdict on the declaration speaks alone: a later no ends an earlier yes. An
        approval covers exactly the clauses it names; others still hold.
        """
        said = self._verdicts.get(declaration)
        if not said:
            return None
        index, newest = said[-1]
        if not newest.approved:
            return None
        answered: set[tuple[str, str]] = set()
        # Approvals since the last no add up: each answers the clauses it names.
        for _, verdict in reversed(said):
            if not verdict.approved:
                break
            answered.update((c.policy, clause) for c in verdict.covers for clause in c.clauses)
        wanted = set(holding)
        return index if wanted and wanted <= answered else None

    def declined(self, declaration: DeclarationId) -> Verdict | None:
        """Return the newest verdict on *declaration* if it is a no."""
        said = self._verdicts.get(declaration)
        return said[-1][1] if said and not said[-1][1].approved else None

    def verdicts(self, subject: DeclarationId | ExchangeId) -> list[tuple[int, Verdict]]:
        """Return every (leaf index, verdict) about *subject*, oldest first."""
        return list(self._verdicts.get(subject, ()))

    def withdrawn(self, subject: DeclarationId | ExchangeId | Sha256) -> Withdrawal | None:
        """Return the withdrawal of a declaration, an exchange or a manifest, or `None`."""
        return self._withdrawals.get(subject)

    def held(self, manifest: Sha256) -> Withdrawal | None:
        """Return the withdrawal of *manifest* itself.

        What it was made of stands in other leaves; whoever asks about that, too, asks the
        register together with the index (`dataset/held.py`).
        """
        return self.withdrawn(manifest)

    def withdrawals(self) -> list[Withdrawal]:
        """Return every withdrawal that counts, in no order: of each subject the first."""
        return list(self._withdrawals.values())

    def agreements(self) -> list[tuple[AgreementFacts, Withdrawal | None]]:
        """Return every registered agreement, oldest first, and its withdrawal if any."""
        return [
            (facts, self._withdrawals.get(_AGREEMENT + facts.agreement))
            for facts in sorted(
                self._agreements.values(),
                key=lambda facts: self._first["agreement", facts.agreement],
            )
        ]

    def bound(self, credential: Sha256 | None, on: dt.date) -> tuple[str, ...]:
        """Return the agreements that hold for a credential, named by its fingerprint.

        Those that ended before that day are left out: nothing that the credential is used for
        since is under them. Every receipt names them all, so their number has an end; what is
        beyond it lifts nothing.
        """
        if credential is None:
            return ()
        standing = sorted(
            name
            for name, agreement in self._lifting.items()
            if credential in self._agreements[name].credentials
            and on <= agreement.expires
            and _AGREEMENT + name not in self._withdrawals
        )
        return tuple(standing[:AGREEMENTS_PER_CREDENTIAL_MAX])

    def lifting(self, agreements: Iterable[str]) -> list[Agreement]:
        """Return those of *agreements* that are registered and that nobody withdrew."""
        return [
            self._lifting[name]
            for name in agreements
            if name in self._lifting and _AGREEMENT + name not in self._withdrawals
        ]

    @property
    def organisation(self) -> Mapping[str, Value | None]:
        """What is stated of the organisation, by the names of facts; the newest word counts.

        `None` is what was stated in a way that nothing here can read: unknown, and never what
        it would be presumed to be.
        """
        return self._organisation

    @property
    def stale(self) -> Mapping[tuple[str, int], str]:
        """Why a (policy, version) is stale: its terms are known to have changed."""
        return self._stale

    def activations(self) -> list[tuple[int, Activation]]:
        """Return every (leaf index, activation) of a policy library, oldest first."""
        return sorted(self._activations.items())

    def activation(self) -> Activation | None:
        """Return the newest statement that put a policy library in force."""
        return self._activations[max(self._activations)] if self._activations else None


def subject_of(withdrawal: Withdrawal) -> str:
    """Return the name of what was withdrawn."""
    named = (
        withdrawal.declaration
        or withdrawal.exchange
        or withdrawal.derivation
        or withdrawal.manifest
    )
    return named or f"agreement {withdrawal.agreement}"


def _subject_of(statement: Verdict | Withdrawal) -> str:
    """Return the id of what *statement* is about; ids of different kinds never look alike."""
    if statement.declaration is not None:
        return statement.declaration
    if statement.exchange is not None:
        return statement.exchange
    if isinstance(statement, Withdrawal) and statement.derivation is not None:
        return statement.derivation
    if isinstance(statement, Withdrawal) and statement.agreement is not None:
        return _AGREEMENT + statement.agreement
    return getattr(statement, "manifest", None) or ""


_AGREEMENT: Final = "agreement/"
"""What stands before an agreement's id, which people chose, among ids that nobody chose."""


def _facts_of(stated: Mapping[int, OrganisationFacts]) -> dict[str, Value | None]:
    """Return what all statements of the organisation say together, the newest last."""
    facts: dict[str, Value | None] = {}
    for index in sorted(stated):
        month = stated[index].measured
        for name, value in stated[index].facts.items():
            fact = FACTS.get(name)
            if fact is None or name not in REGISTRABLE:
                continue  # Nothing that a condition could ask the organisation for.
            if not _fits(fact, value, month):
                facts[name] = None
            elif isinstance(value, bool | str) or month is None:
                facts[name] = value
            else:
                known = facts.get(name)
                months = dict(known.months) if isinstance(known, Measured) else {}
                facts[name] = Measured(tuple(sorted({**months, month: value}.items())))
    return facts


def _fits(fact: Fact, value: object, month: str | None) -> bool:
    """Tell whether *value*, as a statement has it, is one that conditions can compare."""
    match fact.kind:
        case "yes-no":
            return isinstance(value, bool)
        case "number":
            whole = isinstance(value, int) and not isinstance(value, bool)
            return whole and (month is None or _MONTH.fullmatch(month) is not None)
        case "country":
            return value in COUNTRIES
        case _:
            return value in fact.words


def _agreement_of(facts: AgreementFacts) -> Agreement | None:
    """Return the agreement; `None` if its days or its name are none: then it lifts nothing."""
    scope = facts.scope
    if not NAME.fullmatch(facts.agreement):
        return None
    try:
        starts = dt.date.fromisoformat(facts.starts)
        expires = dt.date.fromisoformat(facts.expires)
    except ValueError:
        return None
    return Agreement(
        id=facts.agreement,
        policy=facts.policy,
        lifts=frozenset(facts.lifts),
        purposes=scope.purposes,
        starts=starts,
        expires=expires,
        projects=frozenset(scope.projects),
        students=frozenset(scope.students),
        models=frozenset(scope.models),
    )

"""What a policy says: its clauses, the documents they cite, and the effects in their order.

The wire structs (`Written…`, `Document`, `Citation`) are the files' schema; `Policy` and
`Clause` are what the loader makes of them.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from gateway.ident import Sha256
from gateway.intent.purpose import PURPOSES
from gateway.policy.condition import Condition
from gateway.policy.obligation import obligation_of

if TYPE_CHECKING:
    from gateway.policy.decide import Docket

Kind = Literal["provider", "licence", "overlay"]
"""Whose words a policy reads: a provider's, a model licence's, or a law that an organisation
chose to be ruled by as well. It follows from the folder."""

Binds = Literal["customer", "end-users", "affiliates", "recipients"]
"""Whom a clause binds: us, those who use what we make, companies under common control, those
to whom we hand it on."""

Confidence = Literal["primary", "secondary", "unread"]
"""Whether the clause's words were read in the original, in another's quotation, or not."""


class Effect(enum.IntEnum):
    """What a clause does to a use; the larger effect wins."""

    PERMIT = 0
    HOLD = 1
    FORBID = 2

    @property
    def word(self) -> Literal["permit", "hold", "forbid"]:
        """Return the effect as policies and receipts write it."""
        return _WORDS[self]


_WORDS: Mapping[Effect, Literal["permit", "hold", "forbid"]] = {
    Effect.PERMIT: "permit",
    Effect.HOLD: "hold",
    Effect.FORBID: "forbid",
}
EFFECTS: Mapping[str, Effect] = {word: effect for effect, word in _WORDS.items()}
"""Every effect by its word."""


class _Written(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What the structs of policy files share: unknown keys are refused."""


class Citation(_Written, frozen=True, kw_only=True):
    """One place in one document; *words* are at most ten, to find the place by."""

    document: str
    section: str
    words: str | None = None


class WrittenClause(_Written, frozen=True, kw_only=True):
    """A clause as it stands in `policy.yaml`."""

    id: str
    effect: Literal["permit", "hold", "forbid"]
    citation: Citation
    because: str
    change: str
    when: Any = None
    unless: Any = None
    obligations: tuple[str | dict[str, str | int], ...] = ()
    binds: tuple[Binds, ...] = ("customer",)
    survives: bool = False
    """It binds after the agreement has ended."""


class WrittenPolicy(_Written, frozen=True, kw_only=True):
    """A whole `policy.yaml`."""

    policy: str
    version: int
    title: str
    in_force_from: dt.date
    review_by: dt.date
    terms: tuple[str, ...]
    clauses: tuple[WrittenClause, ...]
    in_force_until: dt.date | None = None
    with_model_terms: bool = False
    """The terms of the model that is asked bind as well."""


class Read(_Written, frozen=True, kw_only=True):
    """Where and on which day a document was read."""

    where: str
    when: dt.date


class Snapshot(_Written, frozen=True, kw_only=True):
    """The text that a document was read from, by digests of what is not cosmetic in it.

    `gateway policy watch --record` fills the digests in; a person may write the file alone.
    """

    file: str
    """Where it lies, as Open Terms Archive lays it out: `ChatGPT/Commercial Terms.md`."""
    file_sha256: Sha256 | None = None
    """Of the file's bytes as they were read, so that anybody can find that very version."""
    sha256: Sha256 | None = None
    """Of its words alone, as `gateway/policy/snapshot.py` reads them."""
    passages: Mapping[str, Sha256] = msgspec.field(default_factory=dict)
    """The digest of what stands around the words that clauses quote, by those words."""


class Document(_Written, frozen=True, kw_only=True):
    """One version of one document of terms."""

    id: str
    title: str
    url: str
    version: str
    confidence: Confidence
    read: Read | None = None
    effective: dt.date | None = None
    note: str | None = None
    """A sentence of the reader's, such as what of the document was read."""
    snapshot: Snapshot | None = None


class WrittenTerms(_Written, frozen=True, kw_only=True):
    """A whole `terms.yaml`."""

    documents: tuple[Document, ...]


class WrittenModel(_Written, frozen=True, kw_only=True):
    """One exact model and the policies that bind whoever uses it."""

    id: str
    terms: tuple[str, ...]
    source: str
    confidence: Literal["primary", "secondary"]
    names: tuple[str, ...] = ()
    """Other exact ids under which it is served."""


class WrittenModels(_Written, frozen=True, kw_only=True):
    """A whole `models.yaml`."""

    models: tuple[WrittenModel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One rule read out of a provider's terms, ready to be asked."""

    id: str
    effect: Effect
    """As written."""
    binding: Effect
    """As it counts: a permit whose document was not read in the original holds."""
    condition: Condition
    citation: Citation
    document: Document
    because: str
    change: str
    obligations: frozenset[str] = frozenset()
    binds: tuple[Binds, ...] = ("customer",)
    survives: bool = False
    line: int = 0
    source: str = field(init=False, repr=False, compare=False)
    """The citation as people write it: document, version, section."""
    undischarged: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """Obligations that nobody here can discharge; a clause that has one forbids."""

    def __post_init__(self) -> None:
        cited = f"{self.document.title} ({self.document.version}), {self.citation.section}"
        unknown = tuple(sorted(o for o in self.obligations if obligation_of(o) is None))
        object.__setattr__(self, "source", cited)
        object.__setattr__(self, "undischarged", unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Our reading of a provider's terms, in force from one day on."""

    id: str
    version: int
    title: str
    kind: Kind = "provider"
    in_force_from: dt.date
    in_force_until: dt.date | None
    """The last day, or `None` while no end is known."""
    review_by: dt.date
    clauses: tuple[Clause, ...]
    file: str
    sha256: Sha256
    with_model_terms: bool = False
    """The terms of the model that is asked bind as well; `models.yaml` names them."""
    stale: str = ""
    """Why permits for training hold though the review is not due: the terms changed."""
    dockets: dict[object, Docket] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    """For each purpose that was asked about, what `decide` made ready of the clauses."""

    def about(self, purpose: object) -> tuple[tuple[Clause, Condition], ...]:
        """Return the clauses that may speak to *purpose*, with what is left to ask of each."""
        if purpose in PURPOSES:
            return tuple(_left(self.clauses, str(purpose)))
        return tuple((clause, clause.condition) for clause in self.clauses)

    def in_force(self, on: dt.date) -> bool:
        """Tell whether the policy binds on that day."""
        if on < self.in_force_from:
            return False
        return self.in_force_until is None or on <= self.in_force_until

    def clause(self, clause_id: str) -> Clause | None:
        """Return the clause of that id, if there is one."""
        return next((clause for clause in self.clauses if clause.id == clause_id), None)

    def without(self, clause_id: str) -> Policy:
        """Return the policy as it would be if that clause were struck out."""
        return replace(self, clauses=tuple(c for c in self.clauses if c.id != clause_id))


def _left(clauses: Iterable[Clause], purpose: str) -> Iterator[tuple[Clause, Condition]]:
    for clause in clauses:
        left = clause.condition.given("purpose", purpose)
        if left is not None:
            yield clause, left

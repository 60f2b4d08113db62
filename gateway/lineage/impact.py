"""What came of something: the datasets, students and exports below it, and who must act.

It is read from the index, by what each manifest was made of; no leaf is read. *Stages* are the
trainings that lie between, as everywhere in lineage: a dataset of a provider's answers is none
away, the student that learned from it one, that student's answers one as well.

Rows are counted where they are first reached, and further down as rows that an affected student
answered; a row that is reached in two ways may be counted twice, but never more than there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.intent.model import Declaration
from gateway.receipt.model import Withdrawal
from gateway.store.index.index import Index
from gateway.store.index.lineage import Stage, Word
from gateway.store.index.stages import What

MENTIONED: Final[dict[str, What]] = {
    "provider": "provider",
    "model": "model",
    "policy": "policy",
    "clause": "clause",
    "agreement": "agreement",
    "transform": "transform",
    "author": "author",
    "base": "base",
}
"""What is found by its name in manifests alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Met:
    """Where something is met first, and how much of that is of it, as far as is known."""

    stage: Stage
    rows: int | None = None
    leaves: int | None = None


_Seeds = Mapping[int, _Met]


class Words(Protocol):
    """What people said, as far as impact shows it; the ledger's register keeps it."""

    def declaration(self, declaration: DeclarationId) -> Declaration | None:
        """Return the registered declaration of that id."""
        ...

    def withdrawn(self, subject: DeclarationId | ExchangeId | Sha256) -> Withdrawal | None:
        """Return the withdrawal of a declaration, an exchange or a manifest, if any."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """A dataset, student or export that stands below."""

    stage: Stage
    parents: tuple[Sha256, ...]
    """Through which others that are touched; none where it is met first."""
    stages: int
    """How many trainings lie between."""
    rows: int | None
    """Of a dataset: how many rows of it are reached; `None` where nothing says."""
    leaves: int | None
    """Of a dataset: from how many leaves of it that is made, where that is known."""
    answers: int
    """Of a student: how many answers it gave."""
    owner: str
    """Whose declared use it was made for."""
    withdrawn: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclarationTouched:
    """A declared use that something below was made for, or was called for."""

    id: DeclarationId
    owner: str
    purpose: str
    ended: bool
    """Whether it was withdrawn already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """Everything below one thing."""

    kind: str
    name: str
    touched: tuple[Touched, ...] = ()
    declarations: tuple[DeclarationTouched, ...] = ()
    derivations: int = 0
    """How many derivations were made of it, whether a dataset holds them or not."""
    unknown: tuple[str, ...] = ()

    def of(self, kind: str) -> list[Touched]:
        """Return what is touched of one kind: dataset, student, export."""
        return [one for one in self.touched if one.stage.kind == kind]

    @property
    def actions(self) -> list[tuple[str, str]]:
        """Return who has to look at what: each owner once, with all that is theirs."""
        theirs: dict[str, list[str]] = {}
        for one in self.touched:
            if one.withdrawn is None:
                theirs.setdefault(one.owner, []).append(f"{one.stage.kind} {one.stage.name}")
        for declaration in self.declarations:
            if not declaration.ended:
                theirs.setdefault(declaration.owner, []).append(declaration.id)
        return [(who, ", ".join(dict.fromkeys(what))) for who, what in theirs.items()]


class Below:
    """Finds what came of things, in an index that is as new as it shall be."""

    def __init__(self, index: Index, words: Words) -> None:
        self._index = index
        self._lineage = index.lineage
        self._words = words

    def of_named(self, kind: str, name: str) -> Impact:
        """Return what came of a provider, a model or another thing that manifests name."""
        return self._impact(kind, name, self._mentioning(MENTIONED[kind], name))

    def of_declaration(self, declaration: DeclarationId) -> Impact:
        """Return what came of calls, pipelines and datasets that were declared so."""
        words = [("kind", "derivation"), ("declaration", declaration)]
        seeds = self._made_from(words) | self._mentioning("declaration", declaration)
        return self._impact("declaration", declaration, seeds, also=[declaration])

    def of_principal(self, principal: str, names: Sequence[str] | None = None) -> Impact:
        """Return what came of everything that was asked, or derived, under a name.

        Where *principal* is a pattern, *names* are those that it stands for.
        """
        seeds = self._made_from([("principal", principal if names is None else tuple(names))])
        return self._impact("principal", principal, seeds, unknown=self._without_members())

    def of_leaf(self, kind: str, name: str, leaf: int) -> Impact:
        """Return what came of one receipt or derivation, by its leaf."""
        derived = self._lineage.derived_from(leaf)
        held = self._lineage.holding(leaf)
        return self._impact(
            kind,
            name,
            {stage.id: _Met(stage=stage, leaves=1) for stage in held},
            derivations=len(derived),
            unknown=self._without_members(),
        )

    def of_manifests(self, kind: str, name: str, manifests: Iterable[Sha256]) -> Impact:
        """Return what came of datasets, students or exports, themselves among it."""
        known = [self._lineage.stage(one) for one in manifests]
        seeds = {
            stage.id: _Met(stage=stage, rows=stage.rows if stage.kind == "dataset" else None)
            for stage in known
            if stage is not None
        }
        return self._impact(kind, name, seeds)

    def _mentioning(self, what: What, value: str) -> dict[int, _Met]:
        found = self._lineage.mentioning(what, value)
        return {one: _Met(stage=stage, rows=rows) for one, (stage, rows) in found.items()}

    def _made_from(self, words: Sequence[Word]) -> dict[int, _Met]:
        found = self._lineage.made_from(words)
        return {one: _Met(stage=stage, leaves=count) for one, (stage, count) in found.items()}

    def _impact(
        self,
        kind: str,
        name: str,
        seeds: _Seeds,
        *,
        also: Iterable[DeclarationId] = (),
        derivations: int = 0,
        unknown: Iterable[str] = (),
    ) -> Impact:
        touched = sorted(
            self._touched(seeds), key=lambda one: (one.stages, one.stage.leaf or 0)
        )
        declared: dict[DeclarationId, None] = dict.fromkeys(also)
        named = self._lineage.mentions_of([one.stage for one in touched], "declaration")
        for one in touched:
            for _, value, _ in named.get(one.stage.id, ()):
                declared[DeclarationId(value)] = None
        return Impact(
            kind=kind,
            name=name,
            touched=tuple(touched),
            declarations=tuple(self._declared(one) for one in declared),
            derivations=derivations,
            unknown=tuple(unknown),
        )

    def _touched(self, seeds: _Seeds) -> Iterator[Touched]:
        """Yield everything below *seeds*; what is made of something stands after it."""
        below = self._lineage.below([met.stage for met in seeds.values()])
        reached = {stage.id: stage for stage in below}
        edges = self._lineage.edges(below)
        answers = self._lineage.answers_of(below)
        taught = self._lineage.mentions_of(below, "student")
        away: dict[int, int] = dict.fromkeys(seeds, 0)
        for stage in sorted(below, key=lambda one: one.leaf if one.leaf is not None else -1):
            parents = [reached[one] for one in edges.get(stage.id, ()) if one in reached]
            if stage.id not in seeds:
                further = 1 if stage.kind == "student" else 0
                away[stage.id] = further + min(away.get(one.id, 0) for one in parents)
            students = {one.manifest for one in parents}
            met = seeds.get(stage.id)
            rows = [] if met is None else [met.rows]
            rows += [count for _, value, count in taught.get(stage.id, ()) if value in students]
            yield Touched(
                stage=stage,
                parents=() if met is not None else tuple(one.manifest for one in parents),
                stages=away[stage.id],
                rows=_together(stage, rows),
                leaves=None if met is None else met.leaves,
                answers=answers.get(stage.id, 0),
                owner=self._owner(stage),
                withdrawn=self._withdrawn(stage),
            )

    def _owner(self, stage: Stage) -> str:
        said = None if stage.declaration is None else self._words.declaration(stage.declaration)
        if said is not None and said.owner:
            return said.owner
        project = stage.project or (None if said is None else said.project)
        return f"project {project}" if project else "the operator"

    def _withdrawn(self, stage: Stage) -> str | None:
        withdrawal = self._words.withdrawn(stage.manifest)
        return None if withdrawal is None else f"by {withdrawal.by}: {withdrawal.reason}"

    def _declared(self, declaration: DeclarationId) -> DeclarationTouched:
        known = self._words.declaration(declaration)
        return DeclarationTouched(
            id=declaration,
            owner=(known.owner if known is not None else None) or "nobody on record",
            purpose="" if known is None else known.use.purpose,
            ended=self._words.withdrawn(declaration) is not None,
        )

    def _without_members(self) -> list[str]:
        return [
            f"dataset `{stage.name}` ({stage.manifest[:12]}…) has no whole list of the leaves"
            " that it was made from"
            for stage in self._lineage.without_members()
        ]


def _together(stage: Stage, rows: list[int | None]) -> int | None:
    """Return how many rows of a dataset are reached; at most all of them."""
    counted = [count for count in rows if count is not None]
    if stage.kind != "dataset" or not rows or len(counted) < len(rows):
        return None
    return sum(counted) if stage.rows is None else min(sum(counted), stage.rows)


def as_json(impact: Impact) -> dict[str, Any]:
    """Return an impact JSON-ready."""
    return {
        "of": {"kind": impact.kind, "name": impact.name},
        "derivations": impact.derivations,
        "touched": [
            {
                "kind": one.stage.kind,
                "name": one.stage.name,
                "manifest": one.stage.manifest,
                "leaf": one.stage.leaf,
                "stages": one.stages,
                "through": list(one.parents),
                "rows": one.rows,
                "of_rows": one.stage.rows,
                "leaves": one.leaves,
                "answers": one.answers,
                "owner": one.owner,
                "declaration": one.stage.declaration,
                "withdrawn": one.withdrawn,
            }
            for one in impact.touched
        ],
        "declarations": [
            {
                "id": one.id,
                "owner": one.owner,
                "purpose": one.purpose,
                "withdrawn": one.ended,
            }
            for one in impact.declarations
        ],
        "actions": [{"who": who, "what": what} for who, what in impact.actions],
        "unknown": list(impact.unknown),
    }


def sentences_of(impact: Impact) -> Iterator[str]:
    """Yield an impact in sentences, the nearest first."""
    if not impact.touched:
        yield f"Nothing in this ledger came of {impact.kind} {impact.name}."
    for one in impact.touched:
        stage = one.stage
        away = "" if not one.stages else f", {one.stages} stage{'s'[: one.stages > 1]} away"
        match stage.kind:
            case "dataset":
                told = f"dataset {stage.name}{away}: {_how_much(one)}"
            case "student":
                told = f"student {stage.name}{away}: {one.answers:,} answers receipted"
            case _:
                told = f"{stage.kind or 'manifest'} {stage.name or stage.manifest[:12]}{away}"
        gone = f", withdrawn {one.withdrawn}" if one.withdrawn else ""
        yield f"{told}, of {one.owner} ({stage.manifest[:12]}…){gone}"


def _how_much(one: Touched) -> str:
    of = "" if one.stage.rows is None else f" of {one.stage.rows:,}"
    if one.rows is not None:
        return f"{one.rows:,}{of} rows"
    if one.leaves is not None:
        leaves = "1 leaf" if one.leaves == 1 else f"{one.leaves:,} leaves"
        return f"made from {leaves} of it"
    return f"some{of} rows" if of else "some rows"

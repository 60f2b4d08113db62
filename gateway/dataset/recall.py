"""Rule again over a ledger's whole history under a changed library, and say who must act.

Leaves are read in order, and of exchanges only counts are kept; declarations, datasets and
students are few enough to be remembered. Every exchange is asked about twice: as of the call,
under the library and with the register of that time, and as of today. What a receipt did not
record is not known here either; a refused request is asked about as a plain one. Signatures are
not checked: that is `gateway ledger fsck`.

Not here: the ruling itself (`policy/replay.py`), and how it is written down (`report.py`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.dataset.ancestry import Ancestry
from gateway.dataset.calls import Call, call_of_teacher
from gateway.dataset.gate.gate import Gate
from gateway.dataset.gate.groups import Group, RuledAgain, group_of
from gateway.dataset.manifest import (
    DATASET_MANIFEST,
    DatasetManifest,
    TrainingManifest,
    parse_manifest,
    parse_training,
)
from gateway.dataset.ruling import PolicyLaw, question_of
from gateway.errors import MalformedReceiptError
from gateway.ident import DeclarationId, Sha256
from gateway.intent.model import Declaration, IntendedUse
from gateway.ledger.reading.register import Register
from gateway.limits import RULINGS_REMEMBERED_MAX
from gateway.policy.library import Library
from gateway.policy.model import EFFECTS, Effect
from gateway.policy.question import Place, Question
from gateway.policy.replay import Pair, Replay, Ruled, Totals
from gateway.provider.model import Operation
from gateway.receipt.model import (
    DATASET_BUILD,
    EXPORT_BUILD,
    Manifest,
    Receipt,
    Refusal,
    Statement,
)
from gateway.receipt.statement import is_opening, read_leaf
from gateway.store.index.stages import stage_of

GATEWAY: Final = "gateway"
"""The policy name under which the gateway refuses for reasons of its own."""

Progress = Callable[[int, int], None]
"""Told how many leaves were read, and how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What is ruled on again, and under what."""

    leaves: Callable[[], Iterable[bytes]]
    """Every leaf, in order."""
    said: Callable[[], Iterable[tuple[int, Statement]]]
    """Everything but exchanges, by leaf index, in order: what people said, and manifests."""
    size: int
    """How many leaves there are."""
    in_force: Library
    changed: Library
    kept: Callable[[Sha256], Library | None]
    """The library of that digest, if it was kept."""
    overlays: tuple[str, ...] = ()
    configured: tuple[Call, ...] = ()
    """A plain call to each provider that the gateway knows, for declarations never used."""
    today: dt.date


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something whose ruling is another: an exchange, a declaration, a dataset or a student."""

    kind: str
    name: str
    """An exchange's or declaration's id, the name of a dataset or student."""
    project: str = ""
    declaration: str = ""
    owner: str = ""
    index: int | None = None
    """The leaf that it is."""
    manifest: str = ""
    """For a dataset or student: the SHA-256 of its manifest's payload."""
    about: Mapping[str, str] = field(default_factory=dict)
    at_call: Pair | None = None
    today: Pair | None = None
    below: tuple[str, ...] = ()
    """The manifests of datasets and students above it that change, the nearest first."""

    @property
    def pair(self) -> Pair | None:
        """Return what counts most: as of today, else as of the call."""
        if self.today is not None and self.today.changes:
            return self.today
        return self.at_call if self.at_call is not None else self.today

    def as_json(self) -> dict[str, Any]:
        """Return it JSON-ready, without what there is nothing to say of."""
        told: dict[str, Any] = {
            "kind": self.kind,
            "name": self.name,
            "project": self.project,
            "declaration": self.declaration,
            "owner": self.owner,
            "leaf": self.index,
            "manifest": self.manifest,
            **self.about,
            "asOfTheCall": None if self.at_call is None else pair_json(self.at_call),
            "asOfToday": None if self.today is None else pair_json(self.today),
            "below": list(self.below),
        }
        return {name: value for name, value in told.items() if value not in (None, "", [])}


def pair_json(pair: Pair) -> dict[str, Any]:
    """Return both rulings JSON-ready; the clauses only where they differ."""
    told: dict[str, Any] = {"before": pair.before.effect.word, "after": pair.after.effect.word}
    if pair.changes:
        told["was"] = [f"{policy}:{clause}" for policy, clause in pair.before.reasons]
        told["now"] = [f"{policy}:{clause}" for policy, clause in pair.after.reasons]
    return told


class Recall:
    """One pass over a ledger; what it counted is complete once `changes` is exhausted."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.at_call = Totals()
        self.today = Totals()
        self.declarations = Totals()
        self.datasets = Totals()
        self.students = Totals()
        self.own_refusals = 0
        """Exchanges refused for reasons of the gateway's own; no library changes them."""
        self.ended = 0
        """Declarations that were withdrawn or declined, or have expired."""
        self.unreadable = 0
        """Leaves that this release has no reader for."""
        self.ruled_under: Counter[str] = Counter()
        """How many exchanges were ruled under which library; empty where none is recorded."""
        self.not_kept: set[str] = set()
        """Libraries that exchanges were ruled under, and whose text is not at hand."""
        self._present = Register()
        self._past = Register()
        self._manifests: dict[Sha256, tuple[int, Manifest]] = {}
        self._ancestry = Ancestry(self._manifest)
        self._replays: dict[tuple[str, int], Replay] = {}
        self._remembered: dict[tuple[object, ...], tuple[Pair, Pair | None]] = {}
        self._used: dict[DeclarationId, dict[tuple[object, ...], Group]] = {}
        self._gates: dict[tuple[object, ...], Gate] = {}
        self._laws: dict[Sha256, PolicyLaw] = {}

    def changes(self, progress: Progress | None = None) -> Iterator[Change]:
        """Yield everything that changes: exchanges in order, declarations, then stages."""
        self._take_in()
        yield from self._exchanges(progress)
        yield from self._declarations()
        yield from self._stages()

    def stages(self, among: Collection[Sha256] | None = None) -> Iterator[Change]:
        """Yield the datasets, students and exports that change; no exchange is looked at.

        With *among*, only those are ruled on again: the manifests that a change can reach.
        """
        self._take_in()
        yield from self._stages(among)

    def _take_in(self) -> None:
        for index, statement in self._sources.said():
            if isinstance(statement, Manifest):
                self._manifests.setdefault(statement.payload_sha256, (index, statement))
            self._present.apply(index, statement)

    # -- exchanges ------------------------------------------------------------------------

    def _exchanges(self, progress: Progress | None) -> Iterator[Change]:
        index = -1
        for index, leaf in enumerate(self._sources.leaves()):
            if progress is not None and index % 1024 == 0:
                progress(index, self._sources.size)
            if is_opening(leaf):
                continue
            try:
                statement = read_leaf(leaf)
            except MalformedReceiptError:
                self.unreadable += 1
                continue
            if not isinstance(statement, Receipt | Refusal):
                self._past.apply(index, statement)
                continue
            change = self._exchange(index, statement)
            if change is not None:
                yield change
        if progress is not None:
            progress(index + 1, self._sources.size)

    def _exchange(self, index: int, statement: Receipt | Refusal) -> Change | None:
        """Ask about one exchange, and return it if anything changes."""
        if any(reason.policy == GATEWAY for reason in statement.ruling.reasons):
            self.own_refusals += 1
            return None
        self.ruled_under[statement.ruling.library or ""] += 1
        group = group_of(statement)
        declared = statement.declared.declaration
        if declared is not None:
            used = self._used.setdefault(declared, {})
            used.setdefault((group.call, group.manifest), group)
        at_call, today = self._ask(statement, group)
        self.at_call.add(at_call)
        if today is not None:
            self.today.add(today)
        if not at_call.changes and (today is None or not today.changes):
            return None
        return Change(
            kind="exchange",
            name=statement.exchange,
            project=statement.caller.project,
            declaration=declared or "",
            index=index,
            about={
                "provider": statement.provider.name,
                "model": group.call.model or "",
                "purpose": statement.declared.use.purpose,
                "day": group.day,
                "recorded": statement.ruling.effect,
            },
            at_call=at_call,
            today=today,
        )

    def _ask(self, statement: Receipt | Refusal, group: Group) -> tuple[Pair, Pair | None]:
        """Return the rulings as of the call and, while the use goes on, as of today."""
        use, declared = statement.declared.use, statement.declared.declaration
        project, library = statement.caller.project, statement.ruling.library
        place = (use, declared, project, library, group, self._past.version)
        known = self._remembered.get(place)
        if known is None:
            if len(self._remembered) >= RULINGS_REMEMBERED_MAX:
                self._remembered.clear()
            if group.manifest is not None:
                # A student's teachers are ruled on for the day and for today together.
                whose = Declaration(id=declared or _UNDECLARED, project=project, use=use)
                pair = self._of_group(whose, group)
                known = pair, (None if self._has_ended(declared) else pair)
            else:
                call = dataclasses.replace(group.call, generated_on=group.day, project=project)
                # At the door nobody knew yet who would answer, nor which model.
                asked = dataclasses.replace(call, reported=(), answered_by=None)
                day = dt.date.fromisoformat(group.day)
                at_call = self._past_replay(library).ask(
                    self._question(use, asked, day, self._past, declared)
                )
                today = None
                if not self._has_ended(declared):
                    today = self._present_replay().ask(
                        self._question(use, call, self._sources.today, self._present, declared)
                    )
                known = at_call, today
            self._remembered[place] = known
        return known

    def _question(
        self,
        use: IntendedUse,
        call: Call,
        on: dt.date,
        register: Register,
        declared: DeclarationId | None,
    ) -> Question:
        overlays = self._sources.overlays
        if declared is None:
            return question_of(use, call, on, register, overlays)

        def approves(holding: Iterable[Place]) -> bool:
            return register.approval(declared, holding) is not None

        return question_of(use, call, on, register, overlays, approves)

    def _past_replay(self, digest: Sha256 | None) -> Replay:
        """Return the library that a call was ruled under, beside the changed one."""
        place = (digest or "", len(self._past.stale))
        if place not in self._replays:
            library = self._sources.in_force
            if digest is not None and digest != library.digest:
                kept = self._sources.kept(digest)
                if kept is None:
                    self.not_kept.add(digest)
                library = kept or library
            if len(self._replays) >= _REPLAYS_MAX:
                self._replays.clear()
            self._replays[place] = self._replay(library, self._past)
        return self._replays[place]

    def _present_replay(self) -> Replay:
        place = ("today", 0)
        if place not in self._replays:
            self._replays[place] = self._replay(self._sources.in_force, self._present)
        return self._replays[place]

    def _replay(self, library: Library, register: Register) -> Replay:
        changed = self._sources.changed.marked(register.stale)
        return Replay(library.marked(register.stale), changed)

    def _has_ended(self, declared: DeclarationId | None) -> bool:
        """Tell whether a declaration can no longer be cited."""
        if declared is None:
            return False
        known = self._present.declaration(declared)
        expires = None if known is None else known.expires
        return (
            (expires is not None and self._sources.today.isoformat() > expires)
            or self._present.withdrawn(declared) is not None
            or self._present.declined(declared) is not None
        )

    # -- declarations ---------------------------------------------------------------------

    def _declarations(self) -> Iterator[Change]:
        today = self._sources.today
        for facts in self._present.declarations():
            if self._has_ended(facts.declaration):
                self.ended += 1
                continue
            used = self._used.get(facts.declaration, {})
            groups = [*used.values()] or [
                Group(call=call, manifest=None, day=today.isoformat())
                for call in self._sources.configured
            ]
            whose = Declaration(id=facts.declaration, project=facts.project, use=facts.use)
            asked = [(group, self._if_called_today(whose, group)) for group in groups]
            if not asked:
                continue
            changing = [(group, pair) for group, pair in asked if pair.changes]
            _, pair = max(changing or asked, key=lambda entry: entry[1].after.effect)
            self.declarations.add(pair)
            if changing:
                providers = sorted({group.call.provider for group, _ in changing})
                yield Change(
                    kind="declaration",
                    name=facts.declaration,
                    project=facts.project,
                    declaration=facts.declaration,
                    owner=facts.owner,
                    about={"purpose": facts.use.purpose, "providers": ", ".join(providers)},
                    today=pair,
                )

    def _if_called_today(self, whose: Declaration, group: Group) -> Pair:
        today = self._sources.today
        if group.manifest is not None:
            return self._of_group(whose, dataclasses.replace(group, day=today.isoformat()))
        call = dataclasses.replace(
            group.call,
            reported=(),
            answered_by=None,
            generated_on=today.isoformat(),
            generated_for=whose.use.purpose,
            project=whose.project,
        )
        question = self._question(whose.use, call, today, self._present, whose.id)
        return self._present_replay().ask(question)

    # -- datasets and students ------------------------------------------------------------

    def _stages(self, among: Collection[Sha256] | None = None) -> Iterator[Change]:
        """Yield datasets and students that change, and all that stand below such a one."""
        parents: dict[Sha256, tuple[Sha256, ...]] = {}
        ruled: dict[Sha256, Change] = {}
        for payload, (index, manifest) in self._manifests.items():
            if among is not None and payload not in among:
                continue
            try:
                change, above = self._stage(payload, index, manifest)
            except MalformedReceiptError:
                self.unreadable += 1
                continue
            parents[payload], ruled[payload] = above, change
            if change.today is not None:
                totals = self.datasets if change.kind == "dataset" else self.students
                totals.add(change.today)
        changing = {
            payload for payload, one in ruled.items() if one.today and one.today.changes
        }
        for payload, change in ruled.items():
            below = tuple(one for one in _upwards(payload, parents) if one in changing)
            if below or payload in changing:
                yield dataclasses.replace(change, below=below)

    def _stage(
        self, payload: Sha256, index: int, manifest: Manifest
    ) -> tuple[Change, tuple[Sha256, ...]]:
        """Return a dataset or student as it is ruled on today, and what it was made from."""
        if manifest.build_type == DATASET_BUILD:
            dataset = parse_manifest(manifest.statement)
            pair = _strictest(self._of_dataset(dataset))
            above = tuple(one.manifest for one in dataset.found.teachers if one.manifest)
            name, source = dataset.asked.dataset, dataset
        elif manifest.build_type == EXPORT_BUILD:
            facts = stage_of(manifest)
            name, above = ("", ()) if facts is None else (facts.name, facts.parents)
            project = "" if facts is None else facts.project or ""
            change = Change(
                kind="export", name=name, project=project, index=index, manifest=payload
            )
            return change, above
        else:
            training = parse_training(manifest.statement)
            above = tuple(
                Sha256(parent.digest.get("sha256", "")) for parent in training.parents()
            )
            name, found = training.student, self._dataset_of(training)
            if found is None:
                return Change(kind="student", name=name, index=index, manifest=payload), above
            source = found
            call = Call(provider=name, model=None, operation=Operation.CHAT.value)
            day = self._sources.today.isoformat()
            group = Group(call=call, manifest=payload, day=day)
            pair = self._of_group(_whose(source), group)
        declaration = self._present.declaration(source.asked.declaration)
        withdrawn = self._present.withdrawn(payload)
        about = {"purpose": source.found.use.purpose}
        if withdrawn is not None:
            about["withdrawn"] = f"by {withdrawn.by}"
        change = Change(
            kind="dataset" if manifest.build_type == DATASET_BUILD else "student",
            name=name,
            project=source.asked.project,
            declaration=source.asked.declaration,
            owner="" if declaration is None else declaration.owner or "",
            index=index,
            manifest=payload,
            about=about,
            today=pair,
        )
        return change, above

    def _of_dataset(self, dataset: DatasetManifest) -> list[Pair]:
        whose = _whose(dataset)
        return [
            self._of_group(
                whose,
                Group(
                    call=call_of_teacher(teacher),
                    manifest=teacher.manifest,
                    day=day,
                    influence=teacher.influence,
                ),
            )
            for teacher in dataset.found.teachers
            for day in teacher.days
        ]

    def _dataset_of(self, training: TrainingManifest) -> DatasetManifest | None:
        """Return a dataset that a student learned from; all were built for one use."""
        for parent in training.parents():
            if parent.kind == DATASET_MANIFEST:
                known = self._manifests.get(Sha256(parent.digest.get("sha256", "")))
                if known is not None:
                    return parse_manifest(known[1].statement)
        return None

    def _of_group(self, whose: Declaration, group: Group) -> Pair:
        """Return what the dataset gate rules in both libraries, over every teacher."""
        before, after = (
            self._gate(whose, library).ruling_for(group)
            for library in (self._sources.in_force, self._sources.changed)
        )
        return Pair(before=_counted(before), after=_counted(after))

    def _gate(self, whose: Declaration, library: Library) -> Gate:
        place = (whose.id, whose.project, whose.use, library.digest)
        if place not in self._gates:
            if library.digest not in self._laws:
                law = PolicyLaw(library, self._present, self._sources.overlays)
                self._laws[library.digest] = law
            self._gates[place] = Gate(
                whose,
                self._sources.today,
                self._laws[library.digest],
                self._present,
                self._ancestry,
            )
        return self._gates[place]

    def _manifest(self, payload: Sha256) -> Manifest | None:
        known = self._manifests.get(payload)
        return None if known is None else known[1]


_UNDECLARED: Final = DeclarationId("")
_REPLAYS_MAX: Final = 8
"""Pairs of libraries held at once; a ledger is ruled under one after the other."""


def _whose(dataset: DatasetManifest) -> Declaration:
    return Declaration(
        id=dataset.asked.declaration, project=dataset.asked.project, use=dataset.found.use
    )


def _counted(again: RuledAgain) -> Ruled:
    """Return what counts of a gate's ruling: what a person approved is permitted."""
    effect = Effect.PERMIT if again.left_out is None else EFFECTS[again.effect]
    reasons = {
        (reason.policy, reason.clause)
        for reason in again.reasons
        if effect is Effect.PERMIT or reason.effect != "permit" or reason.missing
    }
    return Ruled(effect=effect, reasons=tuple(sorted(reasons)))


def _strictest(pairs: Iterable[Pair]) -> Pair | None:
    """Return the maximum in each library, with the reasons of those that lead to it."""
    asked = list(pairs)
    if not asked:
        return None
    before, after = (
        _maximum([pair.before for pair in asked]),
        _maximum([pair.after for pair in asked]),
    )
    return Pair(before=before, after=after)


def _maximum(ruled: list[Ruled]) -> Ruled:
    effect = max(one.effect for one in ruled)
    reasons = {place for one in ruled if one.effect is effect for place in one.reasons}
    return Ruled(effect=effect, reasons=tuple(sorted(reasons)))


def _upwards(payload: Sha256, parents: Mapping[Sha256, tuple[Sha256, ...]]) -> Iterator[Sha256]:
    """Yield everything that a stage was made from, the nearest first."""
    seen = {payload: None}
    waiting = [*parents.get(payload, ())]
    while waiting:
        one = waiting.pop(0)
        if one not in seen:
            seen[one] = None
            yield one
            waiting += parents.get(one, ())


def policies_that_differ(before: Library, after: Library) -> frozenset[str] | None:
    """Return the policies that say something else in *after*; `None`: any call may be reached.

    Rulings name the policies that spoke; one that is new, or a model that comes with others,
    may speak where nobody named it.
    """
    if before.models != after.models or after.policies.keys() - before.policies.keys():
        return None
    return frozenset(
        name
        for name, versions in before.policies.items()
        if versions != after.policies.get(name)
    )

"""What a pack of evidence holds, once each of its leaves was shown to be in the log.

Whoever makes a pack and whoever verifies it fold the same leaves into the same holdings, and
ask those: what an answer says follows from the pack, or the pack does not verify.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from gateway.dataset.manifest import DatasetManifest, parse_manifest
from gateway.errors import BadDigestError, MalformedReceiptError
from gateway.ident import Sha256
from gateway.ledger.reading.register import Register
from gateway.lineage.ask import Evidence
from gateway.lineage.leaves import LeafSet
from gateway.lineage.nodes import Missing, Node, Root
from gateway.lineage.question import account_matches
from gateway.lineage.tree import (
    Sources,
    lineage_of_derivation,
    lineage_of_exchange,
    lineage_of_manifest,
)
from gateway.receipt.model import (
    DATASET_BUILD,
    EXPORT_BUILD,
    Activation,
    AgreementFacts,
    DeclarationFacts,
    Derivation,
    Manifest,
    Members,
    Receipt,
    Statement,
    Verdict,
    Wire,
    Withdrawal,
)
from gateway.store.index.stages import stage_of

SubjectKind = Literal["model", "dataset", "export", "exchange", "derivation", "log"]

WORDS: Final = (DeclarationFacts, Verdict, Withdrawal, AgreementFacts, Activation)
"""What people said, as far as a pack holds it."""


class About(Wire, frozen=True, kw_only=True):
    """What a pack is about: a stage, an answer, rows of a pipeline, or the whole log."""

    kind: SubjectKind
    name: str
    manifest: Sha256 | None = None
    exchange: str | None = None
    derivation: str | None = None
    row: int | None = None
    """Of a derivation: the place of the one row that is asked about."""
    leaf: int | None = None
    leaves: dict[str, str] = msgspec.field(default_factory=dict)
    """Of a derivation: itself and the leaves above it, as bits packed as in `Members`."""

    def __str__(self) -> str:
        """Return it in words."""
        if self.kind == "log":
            return "what was made in this log"
        where = "" if self.leaf is None else f" (leaf {self.leaf})"
        if self.kind == "derivation":
            row = "" if self.row is None else f"row {self.row} of "
            return f"{row}derivation {self.derivation}{where}"
        named = self.name if self.kind == "exchange" else f"`{self.name}`"
        return f"{self.kind} {named}{where}"


@dataclass(slots=True)
class Holdings:
    """Leaves of one log that were looked at, and what they add up to."""

    origin: str
    size: int
    manifests: dict[Sha256, tuple[int, Manifest]] = field(default_factory=dict)
    register: Register = field(default_factory=Register)
    lists: dict[Sha256, list[tuple[int, Members]]] = field(default_factory=dict)
    answers: dict[int, tuple[str, str, str | None]] = field(default_factory=dict)
    """Of each receipt, by its leaf: the account, the provider and the model asked for."""
    derivations: set[int] = field(default_factory=set)
    verdicts: set[int] = field(default_factory=set)
    withdrawals: dict[int, Withdrawal] = field(default_factory=dict)
    accounts: dict[str, LeafSet] = field(default_factory=dict)
    """For each account that was asked for: all leaves that are its receipts."""
    exchange: tuple[int, Receipt] | None = None
    """The answer that is asked about."""
    derivation: tuple[int, Derivation] | None = None
    """The rows that are asked about."""
    asked: LeafSet = field(default_factory=LeafSet)
    """Of rows that are asked about: their leaf, and those above it."""
    above: dict[int, Receipt | Derivation] = field(default_factory=dict)
    """What those leaves say."""
    _members: dict[Sha256, LeafSet | None] = field(default_factory=dict)

    def take_manifest(self, index: int, manifest: Manifest) -> None:
        """Take in the manifest at leaf *index*; where one stands twice the first counts."""
        known = self.manifests.get(manifest.payload_sha256)
        if known is None or index < known[0]:
            self.manifests[manifest.payload_sha256] = index, manifest

    def take(self, index: int, statement: Statement, about: About) -> None:
        """Take in another leaf, in the order of the log.

        Raises:
            MalformedReceiptError: it is of a kind that no answer is made of.
        """
        match statement:
            case Receipt():
                who = statement.provider.name, statement.model.requested
                self.answers[index] = statement.caller.principal, *who
                if about.kind == "exchange" and statement.exchange == about.exchange:
                    self.exchange = index, statement
                if index in self.asked:
                    self.above[index] = statement
            case Derivation():
                self.derivations.add(index)
                if index in self.asked:
                    self.above[index] = statement
                    if statement.derivation == about.derivation:
                        self.derivation = index, statement
            case Members():
                self.lists.setdefault(statement.manifest, []).append((index, statement))
            case _ if isinstance(statement, WORDS):
                self.register.apply(index, statement)
                if isinstance(statement, Verdict):
                    self.verdicts.add(index)
                if isinstance(statement, Withdrawal):
                    self.withdrawals[index] = statement
            case _:
                raise MalformedReceiptError(f"leaf {index} is of no kind that a pack holds")

    def members(self, payload: Sha256) -> LeafSet | None:
        """Return the complete list of leaves of a dataset; `None` where none was signed.

        Raises:
            EvidenceError: the list is not whole, or is not the one that the manifest names.
        """
        if payload not in self._members:
            self._members[payload] = self._listed(payload)
        return self._members[payload]

    def _listed(self, payload: Sha256) -> LeafSet | None:
        known = self.manifests.get(payload)
        if known is None or known[1].build_type != DATASET_BUILD:
            return None
        index, manifest = known
        facts = parse_manifest(manifest.statement).found.members
        if facts is None:
            return None
        # A list that comes after its manifest was made by somebody who knew what to leave out.
        parts = [part for at, part in self.lists.get(payload, ()) if at < index]
        return LeafSet.listed(parts, facts)

    def datasets(self) -> dict[Sha256, DatasetManifest]:
        """Return every dataset manifest."""
        return {
            payload: parse_manifest(manifest.statement)
            for payload, (_, manifest) in self.manifests.items()
            if manifest.build_type == DATASET_BUILD
        }

    def of_account(self, pattern: str) -> LeafSet:
        """Return the leaves that are receipts of an account."""
        return self.accounts.get(pattern, LeafSet())

    def students(self, weights: Sha256) -> list[Sha256]:
        """Return the training manifests of the students with these weights, oldest first."""
        return [
            payload
            for payload, (_, manifest) in sorted(
                self.manifests.items(), key=lambda one: one[1][0]
            )
            if (facts := stage_of(manifest)) is not None and facts.weights == weights
        ]

    def roots(self, about: About) -> tuple[Node, ...]:
        """Return the trees that are asked about."""
        sources = Sources(
            manifest=self.manifests.get,
            words=self.register,
            folder=lambda _: None,
            students=self.students,
            statement=self.above.get,
        )
        if about.kind == "log":
            found = sorted(self.manifests.items(), key=lambda one: one[1][0])
            return tuple(root_of(payload, sources) for payload, _ in found)
        if about.kind == "exchange":
            if self.exchange is None:
                return (Missing(what=f"the receipt of {about.name} is not here"),)
            index, receipt = self.exchange
            return (lineage_of_exchange(receipt, index, sources),)
        if about.kind == "derivation":
            if self.derivation is None:
                return (Missing(what=f"the leaf of {about.derivation} is not here"),)
            index, made = self.derivation
            return (lineage_of_derivation(made, index, sources, about.row),)
        return (root_of(about.manifest or Sha256(""), sources),)

    def evidence(self, about: About) -> Evidence:
        """Return what answers are made of."""
        return Evidence(
            about=str(about),
            roots=self.roots(about),
            origin=self.origin,
            size=self.size,
            members=self.members,
            of_account=self.of_account,
            withdrawals=tuple(sorted(self.withdrawals.items())),
        )

    def wanted(self) -> LeafSet:
        """Return every receipt and derivation that the lists and the accounts speak of."""
        found = LeafSet()
        for payload in self.manifests:
            found |= self.members(payload) or LeafSet()
        stages = LeafSet.of(index for index, _ in self.manifests.values())
        for account in self.accounts.values():
            found |= account
        return found - stages

    def lacks(self) -> tuple[str, ...]:
        """Return the words of people that manifests name and that are not here."""
        told: dict[str, None] = {}
        libraries = {said.library for _, said in self.register.activations()}
        for dataset in self.datasets().values():
            name = dataset.asked.dataset
            declared = dataset.asked.declaration
            if self.register.declaration(declared) is None:
                told[f"declaration {declared}, which dataset `{name}` was built for"] = None
            if dataset.found.library not in libraries:
                library = dataset.found.library[:12]
                told[f"the leaf that put library {library}… in force, for `{name}`"] = None
            for teacher in dataset.found.teachers:
                for index in teacher.verdicts:
                    if index not in self.verdicts:
                        told[f"the verdict in leaf {index}, which `{name}` rests on"] = None
        return tuple(told)

    def check(self) -> None:
        """Check that what is shown of receipts is what lists, accounts and manifests say.

        Raises:
            BadDigestError: it is not; the message names the leaf.
        """
        for index, (principal, *_) in self.answers.items():
            for pattern, leaves in self.accounts.items():
                if account_matches(pattern, principal) != (index in leaves):
                    raise BadDigestError(
                        f"leaf {index} is a receipt of `{principal}`, which the leaves of the"
                        f" account `{pattern}` don't say"
                    )
        for payload, dataset in self.datasets().items():
            members = self.members(payload) or LeafSet()
            taught = {(one.provider, one.model) for one in dataset.found.teachers}
            for index in members & LeafSet.of(self.answers):
                _, provider, model = self.answers[index]
                if (provider, model) not in taught:
                    raise BadDigestError(
                        f"leaf {index} is an answer of {provider} ({model}), whom the manifest"
                        f" of dataset `{dataset.asked.dataset}` does not name as a teacher"
                    )


def root_of(payload: Sha256, sources: Sources) -> Root:
    """Return the tree above a stage; an export leads to the dataset that it was made of."""
    found = sources.manifest(payload)
    if found is not None and found[1].build_type == EXPORT_BUILD:
        above = parents_of(found[1])
        if not above:
            return Missing(what=f"export {payload[:12]}… names no dataset")
        return lineage_of_manifest(above[0], sources)
    return lineage_of_manifest(payload, sources)


def parents_of(manifest: Manifest) -> tuple[Sha256, ...]:
    """Return the manifests that *manifest* says it was made from, one step up."""
    facts = stage_of(manifest)
    return () if facts is None else facts.parents


def began_of(manifest: Manifest) -> tuple[Sha256, ...]:
    """Return the weights digests of the models from outside that a student began as."""
    facts = stage_of(manifest)
    return () if facts is None else facts.began


def name_of(manifest: Manifest) -> tuple[SubjectKind, str]:
    """Return what a manifest stands for, and its name."""
    facts = stage_of(manifest)
    if facts is None:
        return "model", ""
    return "model" if facts.kind == "student" else facts.kind, facts.name


def subjects_of(manifest: Manifest) -> Mapping[str, str]:
    """Return the SHA-256 of each file that a manifest signs."""
    found: dict[str, str] = {}
    for one in _list(manifest.statement.get("subject")):
        digest = _dict(_dict(one).get("digest")).get("sha256")
        if isinstance(digest, str):
            found[_text(_dict(one).get("name"))] = digest
    return found


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""

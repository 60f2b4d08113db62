"""What fsck knows of rows and datasets: parents stand before, and members are all there.

A derivation's parents stand in the ledger before it and are what it says they are. A dataset
manifest's members are listed, whole and in order, by statements that stand before it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway.errors import EvidenceError
from gateway.ident import Sha256
from gateway.limits import OPENINGS_OPEN_MAX
from gateway.receipt.model import (
    DATASET_BUILD,
    TRAINING_BUILD,
    Derivation,
    Manifest,
    Members,
    Parent,
    Receipt,
    Statement,
)
from gateway.receipt.statement import read_leaf
from gateway.store.index.chunks import CHUNK, chunk_of

if TYPE_CHECKING:
    from hashlib import _Hash

PARENT_MISSING: Final = "parent.missing"
MEMBERS_INCOMPLETE: Final = "members.incomplete"
_ANCESTORS_REMEMBERED: Final = 16_384

Complaint = tuple[str, str]
"""A code, and what is wrong."""


class _Facts(msgspec.Struct, frozen=True):
    count: int
    sha256: Sha256


class _Found(msgspec.Struct, frozen=True):
    members: _Facts | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What a leaf says that only its place among others can bear out."""

    at: int
    parents: tuple[Parent, ...] = ()
    members: Members | None = None
    manifest: Sha256 | None = None
    """Of a dataset that says what it was made from."""
    facts: _Facts | None = None


def told_by(at: int, statement: Statement) -> Told | None:
    """Return what must be checked of the leaf at *at* against others, if anything."""
    match statement:
        case Derivation(parents=parents) if parents:
            return Told(at, parents=parents)
        case Members():
            return Told(at, members=statement)
        case Manifest(build_type=build) if build == DATASET_BUILD:
            facts = _facts_of(statement)
            if facts is None:
                return None
            return Told(at, manifest=statement.payload_sha256, facts=facts)
        case _:
            return None


def complaints_of(statement: Statement) -> Iterator[Complaint]:
    """Yield what is wrong with a statement by itself."""
    if not isinstance(statement, Derivation):
        return
    for place, row in enumerate(statement.rows):
        if not row.parents and statement.written is None:
            yield PARENT_MISSING, f"row {place} has no parent, and nobody wrote it"
        if any(not 0 <= one < len(statement.parents) for one in row.parents):
            yield PARENT_MISSING, f"row {place} names a parent that is not listed"


@dataclass(slots=True)
class _Listed:
    """The members of one manifest, as far as they were listed."""

    parts: int
    next: int = 0
    number: int = -1
    count: int = 0
    last: int = -1
    digest: _Hash = field(default_factory=hashlib.sha256)


class Descent:
    """Follows, in order, what leaves say of leaves before them; *leaf* reads one again."""

    def __init__(self, leaf: Callable[[int], bytes]) -> None:
        self._leaf = leaf
        self._ancestors: OrderedDict[int, tuple[object, frozenset[int] | None]] = OrderedDict()
        self._listed: OrderedDict[Sha256, _Listed] = OrderedDict()

    def follow(self, told: Told) -> Iterator[Complaint]:
        """Yield what does not fit with the leaves before."""
        for parent in told.parents:
            why = self._wrong_with(parent, told.at)
            if why is not None:
                name = parent.exchange or parent.derivation or parent.manifest or "nothing"
                yield PARENT_MISSING, f"`{name[:40]}` at leaf {parent.index} {why}"
        if told.members is not None:
            why = self._list(told.members)
            if why is not None:
                yield MEMBERS_INCOMPLETE, why
        if told.manifest is not None and told.facts is not None:
            why = self._missing(told.manifest, told.facts, told.at)
            if why is not None:
                yield MEMBERS_INCOMPLETE, why

    def _wrong_with(self, parent: Parent, at: int) -> str | None:
        if not 0 <= parent.index < at:
            return "does not stand before what was made of it"
        id_, choices = self._ancestor(parent.index)
        named = [one for one in (parent.exchange, parent.derivation, parent.manifest) if one]
        if named != [id_]:
            return "is something else"
        if choices is not None and parent.choice not in choices:
            return f"has no choice or row {parent.choice}"
        return None

    def _ancestor(self, index: int) -> tuple[object, frozenset[int] | None]:
        """Return what stands at *index*, and the choices or rows that it has."""
        known = self._ancestors.get(index)
        if known is None:
            known = self._ancestors[index] = _ancestor_in(self._leaf(index))
            if len(self._ancestors) > _ANCESTORS_REMEMBERED:
                self._ancestors.popitem(last=False)
        return known

    def _list(self, members: Members) -> str | None:
        chunk = chunk_of(members)
        if members.part == 0:
            # A build that was interrupted lists them from the start again.
            self._listed[members.manifest] = _Listed(members.parts)
            if len(self._listed) > OPENINGS_OPEN_MAX:
                self._listed.popitem(last=False)
        listed = self._listed.get(members.manifest)
        if listed is None or (members.part, members.parts) != (listed.next, listed.parts):
            return f"part {members.part} of {members.parts} does not follow on the one before"
        if chunk is None or chunk.number <= listed.number:
            return f"part {members.part} can't be read, or lists leaves again"
        import numpy as np  # noqa: PLC0415  only where there are datasets

        bits = np.unpackbits(np.frombuffer(chunk.bits, np.uint8), bitorder="little")
        places = np.flatnonzero(bits).astype(np.uint64) + np.uint64(chunk.number * CHUNK)
        if len(places):
            listed.last = int(places[-1])
        listed.next, listed.number = members.part + 1, chunk.number
        listed.count += len(places)
        listed.digest.update(places.astype(">u8").tobytes())
        return None

    def _missing(self, manifest: Sha256, facts: _Facts, at: int) -> str | None:
        listed = self._listed.pop(manifest, None)
        if listed is None or listed.next != listed.parts:
            return "what the dataset was made from is not listed before its manifest"
        same = listed.count == facts.count and listed.digest.hexdigest() == facts.sha256
        if not same or listed.last >= at:
            return "other leaves are listed than the dataset was made from"
        return None


def _ancestor_in(leaf: bytes) -> tuple[object, frozenset[int] | None]:
    try:
        statement = read_leaf(leaf)
    except EvidenceError:
        return None, None
    match statement:
        case Receipt():
            return statement.exchange, frozenset(unit.choice for unit in statement.outputs)
        case Derivation():
            return statement.derivation, frozenset(range(len(statement.rows)))
        case Manifest(build_type=build) if build == TRAINING_BUILD:
            return statement.payload_sha256, None
        case _:
            return None, None


def _facts_of(manifest: Manifest) -> _Facts | None:
    found: Any = manifest.statement["predicate"]["buildDefinition"].get("internalParameters")
    try:
        return msgspec.convert(found, _Found).members
    except msgspec.ValidationError:
        # Whoever reads it as a dataset's manifest says what is wrong with it.
        return None

"""Count what rows were made from, while they are checked, part by part and in any process.

A receipt above rows counts once however many rows it reached; so the parts name which ones
they met, and the whole keeps one byte for each.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.dataset.calls import Call, call_of_teacher
from gateway.dataset.manifest import (
    ABOVE,
    HELD_OUT,
    MANIFEST,
    DatasetManifest,
    Influence,
    MadeBy,
    MembersFacts,
    Teacher,
    WrittenBy,
)
from gateway.errors import BadDigestError
from gateway.ident import Sha256
from gateway.limits import KINDS_REMEMBERED_MAX
from gateway.policy.vocabulary import UNLISTED
from gateway.receipt.model import Derivation, TransformKind

RELABELLED: Final = "dataset.relabelled"
"""The manifest says of the rows what their receipts don't."""

SPLIT_BROKEN: Final = "dataset.split_broken"
"""A row stands in another part than is said, or a prompt in both."""

Kind = tuple[Call, Sha256 | None, Influence]
"""What calls of one kind share: how they were made, under what, what for; how they reach."""

Maker = tuple[str, str, TransformKind]
Author = tuple[str, str, str]
"""What `MadeBy` and `WrittenBy` name, without the count."""

_FLAGS: Final[dict[Influence, int]] = {"text": 1, "judge": 2}


@dataclass(slots=True)
class Given:
    """What calls of one kind gave: rows, on which days, under which policies."""

    rows: int = 0
    receipts: int = 0
    days: set[str] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)
    met: set[int] = field(default_factory=set)
    """Which leaves above were met, by their places; only those of one part."""

    def add(
        self, rows: int, receipts: int, days: Iterable[str], policies: Iterable[str]
    ) -> None:
        """Count some more."""
        self.rows += rows
        self.receipts += receipts
        self.days.update(days)
        # A model that nobody knew when it was asked may have been listed since.
        self.policies.update(policy for policy in policies if policy != UNLISTED)


@dataclass(slots=True)
class Counted:
    """What was found while some rows were checked."""

    rows: int = 0
    held_out: int = 0
    by_teacher: dict[Kind, Given] = field(default_factory=dict)
    made_by: dict[Maker, int] = field(default_factory=dict)
    written_by: dict[Author, int] = field(default_factory=dict)
    leaves: array[int] = field(default_factory=lambda: array("Q"))
    """Indices of the leaves that vouch for the rows, rising."""
    met: set[int] = field(default_factory=set)
    """Places of the leaves above that are no calls."""

    def given(self, kind: Kind) -> Given:
        """Return where calls of *kind* are counted."""
        return self.by_teacher.setdefault(kind, Given())

    def add(self, other: Counted) -> None:
        """Count what *other*, the part that follows this one, found."""
        self.rows += other.rows
        self.held_out += other.held_out
        for kind, given in other.by_teacher.items():
            mine = self.given(kind)
            mine.add(given.rows, given.receipts, given.days, given.policies)
            mine.met |= given.met
        for maker, rows in other.made_by.items():
            self.made_by[maker] = self.made_by.get(maker, 0) + rows
        for author, rows in other.written_by.items():
            self.written_by[author] = self.written_by.get(author, 0) + rows
        self.leaves.extend(other.leaves)
        self.met |= other.met


class Whole:
    """What all parts found together; they come in order."""

    def __init__(self, above: Sequence[int] = ()) -> None:
        """Begin; *above* are the indices of the leaves above, rising."""
        self.counted = Counted()
        self.leaves = 0
        """How many leaves vouch for rows."""
        self._above = above
        self._flags = bytearray(len(above))
        self._digest = hashlib.sha256()
        self._members = 0
        self._told = 0

    def add(self, part: Counted) -> None:
        """Count the next part; what only the whole must know is taken out of it."""
        for kind, given in part.by_teacher.items():
            flag = _FLAGS[kind[2]]
            for place in given.met:
                if not self._flags[place] & flag:
                    self._flags[place] |= flag
                    given.receipts += 1
            given.met.clear()
        for place in part.met:
            self._flags[place] |= _FLAGS["text"]
        part.met.clear()
        self.leaves += len(part.leaves)
        self._add_members(part.leaves)
        del part.leaves[:]
        self.counted.add(part)

    def check_splits(self, manifest: DatasetManifest) -> None:
        """Compare how many rows stand in each part with what the manifest says.

        Raises:
            BadDigestError: it counts otherwise.
        """
        counted = self.counted
        said = {split.name: split.rows for split in manifest.found.splits}
        stand = {"train": counted.rows - counted.held_out, "held-out": counted.held_out}
        if (said or {"train": counted.rows, "held-out": 0}) != stand:
            raise BadDigestError(
                f"{MANIFEST}: it counts {said.get('held-out', 0)} rows in {HELD_OUT}, "
                f"{counted.held_out} stand there",
                code=SPLIT_BROKEN,
            )

    def check(self, manifest: DatasetManifest) -> None:
        """Compare with what the manifest says.

        Raises:
            BadDigestError: it counts otherwise, or a leaf stands above that made no row.
        """
        found, counted = manifest.found, self.counted
        if found.rows != counted.rows:
            raise _lies(f"it counts {found.rows} rows, {counted.rows} stand")
        unmet = self._flags.find(0)
        if unmet >= 0:
            raise BadDigestError(
                f"{ABOVE}: leaf {self._above[unmet]}: no row was made from it",
                hint="nothing may be added to a dataset",
                code="dataset.leaf_unneeded",
            )
        named = named_by(manifest)
        if named.keys() != counted.by_teacher.keys() or any(
            (said.rows, said.receipts, said.days) != (given.rows, given.receipts, given.days)
            or given.policies - said.policies
            for kind, given in counted.by_teacher.items()
            for said in (named[kind],)
        ):
            raise _lies("its teachers are not those of the receipts")
        if _made(found.made_by) != counted.made_by:
            raise _lies("what made the rows is not what their derivations say")
        if _written(found.written_by) != counted.written_by:
            raise _lies("who wrote rows is not who their derivations say")
        if found.members is not None and found.members != self._all_members():
            raise _lies("it digests other leaves than those that the rows were made from")

    def _add_members(self, leaves: Sequence[int]) -> None:
        if not leaves:
            return
        told, last = self._told, leaves[-1]
        while self._told < len(self._above) and self._above[self._told] <= last:
            self._told += 1
        both = self._above[told : self._told]
        self._digest_members(sorted({*both, *leaves}) if both else leaves)

    def _digest_members(self, indices: Sequence[int]) -> None:
        self._members += len(indices)
        self._digest.update(struct.pack(f">{len(indices)}Q", *indices))

    def _all_members(self) -> MembersFacts:
        self._digest_members(self._above[self._told :])
        self._told = len(self._above)
        return MembersFacts(count=self._members, sha256=Sha256(self._digest.hexdigest()))


@functools.lru_cache(maxsize=KINDS_REMEMBERED_MAX)
def kind_of(call: Call, manifest: Sha256 | None, influence: Influence = "text") -> Kind:
    """Return the kind of a call: what can differ from call to call is left out."""
    return dataclasses.replace(call, policies=(), reported=()), manifest, influence


def named_by(manifest: DatasetManifest) -> dict[Kind, Given]:
    """Return what the manifest says calls of each kind gave."""
    named: dict[Kind, Given] = {}
    for teacher in manifest.found.teachers:
        named.setdefault(_kind_of_teacher(teacher), Given()).add(
            teacher.rows,
            teacher.receipts,
            teacher.days,
            (pin.policy for pin in teacher.policies),
        )
    return named


def count_makers(counted: Counted, derivations: Iterable[Derivation]) -> None:
    """Count one row that *derivations* made, its own and those above it."""
    makers, authors = set(), set()
    for derivation in derivations:
        transform, written = derivation.transform, derivation.written
        makers.add((transform.name, transform.version, transform.kind))
        if written is not None:
            authors.add((written.by, written.licence, written.source))
    for maker in makers:
        counted.made_by[maker] = counted.made_by.get(maker, 0) + 1
    for author in authors:
        counted.written_by[author] = counted.written_by.get(author, 0) + 1


def _kind_of_teacher(teacher: Teacher) -> Kind:
    return kind_of(call_of_teacher(teacher), teacher.manifest, teacher.influence)


def _made(said: Iterable[MadeBy]) -> dict[Maker, int]:
    return {(one.name, one.version, one.kind): one.rows for one in said}


def _written(said: Iterable[WrittenBy]) -> dict[Author, int]:
    return {(one.by, one.licence, one.source): one.rows for one in said}


def _lies(why: str) -> BadDigestError:
    return BadDigestError(f"{MANIFEST}: {why}", code=RELABELLED)

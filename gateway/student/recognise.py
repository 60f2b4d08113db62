"""Recognise a student of ours by its weights, in whatever folder and files they lie.

Files are looked for first: every training manifest signs their digests. Then the weights
digest, which those made before there was one do not have. What matches *is* that student,
whatever its folder and its card say. Weights of another precision, changed ones and those of an
adapter that was merged elsewhere match nothing: nothing is said of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import msgspec

from gateway.receipt.model import TRAINING_BUILD, Manifest, Subject
from gateway.receipt.statement import read_leaf
from gateway.store.index.stages import stage_of
from gateway.student.weights import Weights, is_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """The students, oldest first, that have some weights."""

    whole: tuple[Manifest, ...]
    """Those that have all of them, and no others."""
    part: tuple[Manifest, ...]
    """Those of which a file lies among other weights."""


def recognise(weights: Weights, students: Iterable[Manifest]) -> Recognised:
    """Return which of *students*, by their training manifests, *weights* are of."""
    files = set(weights.files.values())
    whole, part = list[Manifest](), list[Manifest]()
    for one in students:
        facts, signed = stage_of(one), files_of(one)
        known = None if facts is None else facts.weights
        if signed == files or (known is not None and known == weights.sha256):
            whole.append(one)
        elif signed & files:
            part.append(one)
    return Recognised(whole=tuple(whole), part=tuple(part))


def files_of(student: Manifest) -> set[str]:
    """Return the digests of the files that hold the weights of *student*."""
    subjects = msgspec.convert(student.statement.get("subject", ()), list[Subject])
    return {
        one.digest["sha256"]
        for one in subjects
        if is_weights(one.name) and "sha256" in one.digest
    }


def training_manifests(
    places: Iterable[int], leaf: Callable[[int], bytes]
) -> Iterator[Manifest]:
    """Yield the training manifests among the leaves at *places*, read by *leaf*."""
    for index in places:
        statement = read_leaf(leaf(index))
        if isinstance(statement, Manifest) and statement.build_type == TRAINING_BUILD:
            yield statement

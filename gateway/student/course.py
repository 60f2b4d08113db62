"""What a trainer is told: files by digest, how far to go, and in which order to read.

A course is all that a rank gets, so it is plain data. The order of the rows is a function of
the seed, the round and how often they were read; nothing else has a say in it, so that the same
course gives the same steps on one rank or several, at once or after a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from gateway.errors import BadDigestError
from gateway.ident import Sha256
from gateway.student.files import file_sha256
from gateway.student.recipe import Recipe

_REPLAYED: Final = 1 << 32
"""Stands where the number of the reading stands elsewhere: which earlier rows come again."""


class RowsFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of token rows."""

    path: str
    sha256: Sha256
    units: int
    """Rows of the file."""


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """One round of a run."""

    rows: tuple[RowsFile, ...]
    earlier: int = 0
    """Of how many of these files, from the first, only a share comes again."""
    held_out: RowsFile | None = None
    round: int = 1
    rounds: int = 1
    first_step: int = 0
    """Steps that were made in the rounds before."""
    step_count: int
    batch: int
    """Rows an update, over all ranks."""
    folder: str
    """Where checkpoints go."""
    snapshot: Sha256
    """Over the files to learn from."""
    recipe: Recipe
    recipe_sha256: Sha256
    base: str | None = None
    """The checkpoint it begins as; `None` for a tiny one."""
    after: str | None = None
    """The last checkpoint of the round before."""
    tokenizer: str
    """The folder of the tokenizer that the rows were made with."""
    device: str = "auto"

    @property
    def checkpoints(self) -> Path:
        """Return where checkpoints go."""
        return Path(self.folder)

    def check(self) -> None:
        """Compare every file with its digest.

        Raises:
            BadDigestError: one is not what the gate wrote.
        """
        for file in (*self.rows, *([self.held_out] if self.held_out else [])):
            if file_sha256(Path(file.path)) != file.sha256:
                raise BadDigestError(
                    f"{Path(file.path).name}: the token rows changed after the gate wrote them",
                    hint="begin the run anew",
                )


def pool_of(course: Course) -> Sequence[int]:
    """Return the rows of a round by their place in all its files, one after the other.

    Of earlier files so many come again that they make up the share that the recipe asks for.
    """
    before = sum(file.units for file in course.rows[: course.earlier])
    own = sum(file.units for file in course.rows[course.earlier :])
    if not before:
        return range(own)
    share = course.recipe.replay
    again = min(before, round(own * share / (1 - share)))
    drawn = _draw(course, _REPLAYED).choice(before, again, replace=False)
    return [*sorted(drawn.tolist()), *range(before, before + own)]


def order_of(course: Course, unit_count: int) -> list[int]:
    """Return which of *unit_count* rows come one after the other, to the last step."""
    needed = course.step_count * course.batch
    readings = -(-needed // unit_count)
    order = [_draw(course, reading).permutation(unit_count) for reading in range(readings)]
    places: list[int] = np.concatenate(order)[:needed].tolist()
    return places


def _draw(course: Course, what: int) -> np.random.Generator:
    return np.random.default_rng([course.recipe.seed, course.round, what])

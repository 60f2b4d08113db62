"""How a student is to be trained: every number that decides the outcome.

A recipe is kept with its run; a run is resumed only under the recipe it was begun with.
"""

from __future__ import annotations

from typing import Final

import msgspec

TINY: Final = "tiny"
"""The base that is built from the rows themselves."""

VOCABULARY_COUNT_MAX: Final = 1024
"""Words of a tiny base; a small head is most of a small model's speed."""

CONTEXT_TOKENS: Final = 1024
"""How far a tiny base can look back."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The hyperparameters of one run, none of them left to a library's default."""

    epochs: float = 3.0
    steps: int | None = None
    """Updates in all; where given it rules over *epochs*."""
    learning_rate: float
    batch: int
    max_length: int
    """Longest row in tokens; longer rows are left out and counted, never cut."""
    seed: int = 0
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises."""
    save_every: int | None = None
    """Steps between checkpoints; `None` makes about four of them."""
    keep: int = 2

    def __post_init__(self) -> None:
        """Refuse numbers no run can be made with."""
        if self.epochs <= 0 or (self.steps is not None and self.steps < 1):
            raise ValueError("a run needs at least one step")
        if self.batch < 1 or self.max_length < 8 or not 0 < self.learning_rate < 1:
            raise ValueError("batch, max_length or learning_rate is out of range")

    def steps_for(self, row_count: int) -> int:
        """Return how many updates a run over *row_count* rows makes."""
        if self.steps is not None:
            return self.steps
        per_epoch = -(-row_count // self.batch)
        return max(1, round(per_epoch * self.epochs))

    def save_every_of(self, step_count: int) -> int:
        """Return the steps between checkpoints in a run of *step_count* steps."""
        return self.save_every or max(10, -(-step_count // 4))


def recipe_for(
    base: str,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    batch: int | None = None,
    max_length: int | None = None,
    seed: int = 0,
    save_every: int | None = None,
) -> Recipe:
    """Return the recipe for *base*, with what was not said chosen to suit it."""
    tiny = base == TINY
    return Recipe(
        epochs=3.0 if epochs is None else epochs,
        steps=steps,
        learning_rate=(3e-3 if tiny else 2e-5) if learning_rate is None else learning_rate,
        batch=(16 if tiny else 8) if batch is None else batch,
        max_length=(512 if tiny else 2048) if max_length is None else max_length,
        seed=seed,
        save_every=save_every,
    )

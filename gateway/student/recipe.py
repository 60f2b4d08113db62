"""How a student is to be trained: every number that decides the outcome.

A recipe is kept with its run; a run is resumed only under the recipe it was begun with.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Objective = Literal["sft", "dpo"]
"""What is learned: to answer so, or to prefer one answer over another."""

PURPOSES: Final[dict[Objective, str]] = {"sft": "train.sft", "dpo": "train.preference"}
"""What a training with each objective is, in the tree of purposes."""

ROW_KINDS: Final[dict[Objective, str]] = {"sft": "messages", "dpo": "preference"}
"""The kind of rows that each objective learns from."""

TINY: Final = "tiny"
"""The base that is built from the rows themselves."""

VOCABULARY_COUNT_MAX: Final = 1024
"""Words of a tiny base; a small head is most of a small model's speed."""

CONTEXT_TOKENS: Final = 1024
"""How far a tiny base can look back."""


STEPS_MAX: Final = 10_000_000
"""Updates in one run: their order is drawn before the first and held in memory."""

BATCH_MAX: Final = 1_000_000
EPOCHS_MAX: Final = 10_000
RANKS_MAX: Final = 1024
BETA_MAX: Final = 1000
LENGTH_MIN: Final = 8
"""Tokens; nobody asks and answers in fewer."""

LORA_RANK_MAX: Final = 65_536

SEED_MAX: Final = 2**32 - 1
"""What every library that draws from it can take."""


class Lora(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Learn small matrices beside the weights, which stay as they are."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str = "all-linear"
    """The layers beside which they stand, by name with commas between, or `all-linear`."""
    merge: bool = False
    """Add them to the weights at the end, so that the folder holds a model of its own."""

    def __post_init__(self) -> None:
        """Refuse numbers no adapter can be made with."""
        _check(self, "rank", 1 <= self.rank <= LORA_RANK_MAX, f"1 to {LORA_RANK_MAX:,}")
        _check(self, "alpha", self.alpha >= 1, "at least 1")
        _check(self, "dropout", 0 <= self.dropout < 1, "at least 0 and below 1")
        if not all(self.targets.split(",")):
            raise ValueError("lora: targets names no layer")


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The hyperparameters of one run, none of them left to a library's default."""

    objective: Objective = "sft"
    epochs: float = 3.0
    steps: int | None = None
    """Updates in all; where given it rules over *epochs*."""
    learning_rate: float
    batch: int
    """Rows an update, over all ranks."""
    batch_tokens: int | None = None
    """Tokens an update, about; where given, *batch* follows from it and the rows."""
    rows_at_once: int | None = None
    """Rows that a rank holds in memory at once; `None`: its share of an update."""
    max_length: int
    """Longest row in tokens; longer rows are left out and counted, never cut."""
    packing: bool = False
    """Several short rows in one, none of which sees another."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """What is computed in; the weights are kept in 32 bits. `auto`: bf16 on an accelerator."""
    seed: int = 0
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate goes on from there, in each round."""
    save_every: int | None = None
    """Steps between checkpoints; `None` makes about four of them."""
    keep: int = 2
    measure_every: int | None = None
    """Steps between measurements on held-out rows; `None` makes about ten of them."""
    lora: Lora | None = None
    """`None` learns all weights."""
    beta: float = 0.1
    """For pairs: how dear it is to move away from the base."""
    replay: float = 0.2
    """Share of earlier rows in each round of a feed after the first."""
    ranks: int = 1
    """Processes that learn together."""

    def __post_init__(self) -> None:
        """Refuse numbers no run can be made with."""
        rate = self.learning_rate
        _check(self, "epochs", 0 < self.epochs <= EPOCHS_MAX, f"above 0, up to {EPOCHS_MAX:,}")
        if self.steps is not None:
            _check(self, "steps", 1 <= self.steps <= STEPS_MAX, f"1 to {STEPS_MAX:,}")
        _check(self, "seed", 0 <= self.seed <= SEED_MAX, f"0 to {SEED_MAX}")
        _check(self, "batch", 1 <= self.batch <= BATCH_MAX, f"1 to {BATCH_MAX:,}")
        _check(self, "max_length", self.max_length >= LENGTH_MIN, f"at least {LENGTH_MIN}")
        _check(self, "learning_rate", 0 < rate < 1, "above 0 and below 1")
        _check(self, "warmup", 0 <= self.warmup < 1, "at least 0 and below 1")
        _check(self, "replay", 0 <= self.replay < 1, "at least 0 and below 1")
        _check(self, "beta", 0 < self.beta <= BETA_MAX, f"above 0, up to {BETA_MAX:,}")
        _check(self, "ranks", 1 <= self.ranks <= RANKS_MAX, f"1 to {RANKS_MAX:,}")
        for name in ("batch_tokens", "rows_at_once", "keep", "save_every", "measure_every"):
            value = getattr(self, name)
            _check(self, name, value is None or value >= 1, "at least 1")
        if self.packing and self.objective == "dpo":
            raise ValueError("pairs can't be packed; leave `packing` out")
        if self.batch_tokens is None:
            self._check_shares(self.batch)

    def _check_shares(self, batch: int) -> None:
        at_once = self.rows_at_once or -(-batch // self.ranks)
        if at_once < 1 or batch % (self.ranks * at_once):
            raise ValueError(
                f"an update of {batch} rows can't be shared by {self.ranks} ranks with "
                f"{at_once} rows at once"
            )

    def batch_for(self, unit_count: int, token_count: int) -> int:
        """Return the rows an update for *unit_count* rows of *token_count* tokens in all.

        Where tokens were asked for it is the nearest number that the ranks can share evenly.
        """
        if self.batch_tokens is None:
            return self.batch
        step = self.ranks * (self.rows_at_once or 1)
        wanted = self.batch_tokens * unit_count / max(1, token_count)
        return max(1, round(wanted / step)) * step

    def at_once_for(self, batch: int) -> int:
        """Return the rows that a rank holds at once, of an update of *batch* rows."""
        return self.rows_at_once or batch // self.ranks

    def steps_for(self, row_count: int, batch: int | None = None) -> int:
        """Return how many updates a run over *row_count* rows makes."""
        if self.steps is not None:
            return self.steps
        per_epoch = -(-row_count // (batch or self.batch))
        return max(1, round(per_epoch * self.epochs))

    def save_every_of(self, step_count: int) -> int:
        """Return the steps between checkpoints in a run of *step_count* steps."""
        return self.save_every or max(10, -(-step_count // 4))

    def measure_every_of(self, step_count: int) -> int:
        """Return the steps between measurements in a run of *step_count* steps."""
        return self.measure_every or max(10, -(-step_count // 10))


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
    **said: object,
) -> Recipe:
    """Return the recipe for *base*, with what was not said chosen to suit it.

    Raises:
        ValueError: no run can be made with these numbers.
    """
    tiny, pairs = base == TINY, said.get("objective") == "dpo"
    usual = (5e-4 if tiny else 1e-6) if pairs else (3e-3 if tiny else 2e-5)
    if said.get("lora") is not None:
        usual *= 10 if not tiny else 1
    chosen = {
        "epochs": 3.0 if epochs is None else epochs,
        "steps": steps,
        "learning_rate": usual if learning_rate is None else learning_rate,
        "batch": (16 if tiny else 8) if batch is None else batch,
        "max_length": (512 if tiny else 2048) if max_length is None else max_length,
        "seed": seed,
        "save_every": save_every,
    }
    return msgspec.convert(
        chosen | {name: value for name, value in said.items() if value is not None},
        Recipe,
        from_attributes=True,
    )


def _check(said: msgspec.Struct, name: str, fits: bool, may: str) -> None:  # noqa: FBT001 — the question
    """Refuse a number that is out of its range, by its name.

    Raises:
        ValueError: says which, and what it *may* be.
    """
    if not fits:
        raise ValueError(f"{name} must be {may}, not {getattr(said, name)}")

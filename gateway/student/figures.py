"""What an evaluation says: each figure with its interval, for base, student and teacher.

An interval is a percentile bootstrap: prompts are drawn again, with their rows, and the figure
is computed from each draw. Rows that ask the same are one unit, for they are not independent.
The draws are the same for everybody compared, so a gain has an interval of its own. Where every
row of a share came out alike, drawing again can't tell how rare the other outcome is; there the
interval is the exact binomial one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from gateway.ident import Sha256
from gateway.receipt.model import Wire

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 2000

_DRAWN_AT_ONCE: Final = 1_000_000
"""Numbers that are drawn together."""

Who = Literal["base", "student", "teacher", "gain"]
"""Whose figure it is; a gain is the student's less the base's, row by row."""

GAIN: Final = "gain"


class Measure(NamedTuple):
    """What a figure measures, and how it is read."""

    name: str
    says: str
    unit: str = ""
    """Empty for a share between 0 and 1."""
    better: Literal["lower", "higher", "near-one"] = "higher"

    @property
    def is_share(self) -> bool:
        """Tell whether it is a share of rows that either are so or aren't."""
        return self.name in _SHARES


MEASURES: Final = {
    one.name: one
    for one in (
        Measure("loss", "loss on the teacher's words", "nats/token", "lower"),
        Measure("bits-per-byte", "the same, whatever the tokenizer", "bits/byte", "lower"),
        Measure("token-agreement", "tokens it would have said as the teacher did"),
        Measure("exact-match", "answers that are the teacher's, word for word"),
        Measure("label-agreement", "answers with the teacher's label"),
        Measure("chrf", "likeness to the teacher's answers (chrF)"),
        Measure("stop-rate", "answers that end by themselves"),
        Measure("length-ratio", "length beside the teacher's", "times", "near-one"),
        Measure("pair-accuracy", "pairs whose chosen answer is likelier"),
        Measure("reward-accuracy", "pairs it moved towards the chosen answer"),
        Measure("reward-margin", "how far, as the objective counts it", "nats"),
        Measure("task", "the task metric"),
    )
}
"""Every measure, in the order in which it is shown."""

_SHARES: Final = frozenset(
    {"exact-match", "label-agreement", "stop-rate", "pair-accuracy", "reward-accuracy"}
)


class Figure(Wire, frozen=True, kw_only=True):
    """One number and how sure it is."""

    measure: str
    of: Who
    value: str
    low: str | None = None
    high: str | None = None
    """The bounds of the interval; absent where too few prompts were asked to tell."""
    rows: int
    """How many rows it was computed from."""


class Overlap(Wire, frozen=True, kw_only=True):
    """What of the rows that were asked stands in those that were learned."""

    rows: int
    """Rows that were learned too, by prompt, whole, or for the most part."""
    share: str
    """The share of all 13-grams of what was asked that stand in what was learned."""
    compared: int
    """Rows that were learned and looked through."""
    unseen: tuple[str, ...] = ()
    """Datasets that the base learned from and nobody could look through: not at hand."""


class Evaluation(Wire, frozen=True, kw_only=True):
    """What came of asking base and student what the teacher was asked."""

    rows: int
    prompts: int
    """Different prompts among them; they are the units of the intervals."""
    of: int
    """Rows that were held out; where fewer were asked, they were drawn by the seed."""
    left_out: int = 0
    """Rows that were drawn and do not fit the student's context or template."""
    sha256: Sha256
    """Over the digests of the rows that were asked, in rising order."""
    seed: int
    overlap: Overlap
    confidence: str = f"{CONFIDENCE}"
    resamples: int = RESAMPLES
    metric: str | None = None
    """The task metric, `module:function`."""
    figures: tuple[Figure, ...]

    def figure(self, measure: str, of: Who) -> Figure | None:
        """Return the figure of that measure for *of*, where there is one."""
        for one in self.figures:
            if (one.measure, one.of) == (measure, of):
                return one
        return None

    @property
    def measures(self) -> tuple[str, ...]:
        """Return the measures it has figures of, in the order in which they are shown."""
        there = {one.measure for one in self.figures}
        return tuple(name for name in MEASURES if name in there)


class Part(NamedTuple):
    """What one row adds to a figure, which is the sum of *above* over the sum of *below*."""

    above: float
    below: float = 1.0


def figures_of(
    measure: str, parts: Mapping[Who, Sequence[Part]], prompts: Sequence[str], seed: int
) -> list[Figure]:
    """Return the figures of *measure*, for each of *parts*, and the gain of student over base.

    The parts of each stand in the order of *prompts*; equal prompts are one unit.
    """
    import numpy as np  # noqa: PLC0415  # commands that only show figures do without

    units = {prompt: at for at, prompt in enumerate(dict.fromkeys(prompts))}
    place = np.array([units[prompt] for prompt in prompts])
    sums: dict[Who, np.ndarray[tuple[int, int], np.dtype[np.float64]]] = {}
    for who, rows in parts.items():
        both = np.zeros((len(units), 2))
        np.add.at(both, place, np.array(rows, dtype=np.float64))
        sums[who] = both
    draw = np.random.default_rng([seed, len(units), RESAMPLES])
    drawn: dict[Who, list[float]] = {who: [] for who in sums}
    at_once = max(1, _DRAWN_AT_ONCE // len(units))
    for first in range(0, RESAMPLES if len(units) > 1 else 0, at_once):
        count = min(at_once, RESAMPLES - first)
        # How often each unit comes in a draw of as many as there are.
        often = draw.multinomial(len(units), np.full(len(units), 1 / len(units)), count)
        for who, both in sums.items():
            for above, below in (often @ both).tolist():
                drawn[who].append(above / below if below else math.nan)
    level = _level(measure, parts)
    made: list[Figure] = []
    for who, both in sums.items():
        above, below = both.sum(axis=0)
        if not below:
            continue
        bounds = _bounds(drawn[who])
        if who in level:
            bounds = _exact(level[who], len(units))
        made.append(_figure(measure, who, above / below, bounds, len(prompts)))
    by = {one.of: float(one.value) for one in made}
    if "base" in by and "student" in by:
        gains = [
            one - other for one, other in zip(drawn["student"], drawn["base"], strict=True)
        ]
        bounds = _bounds(gains)
        if "base" in level and "student" in level:
            ours, theirs = (_exact(level[who], len(units)) for who in ("student", "base"))
            bounds = ours[0] - theirs[1], ours[1] - theirs[0]
        gain = by["student"] - by["base"]
        made.append(_figure(measure, "gain", gain, bounds, len(prompts)))
    return made


def _level(measure: str, parts: Mapping[Who, Sequence[Part]]) -> dict[Who, float]:
    """Return whose rows all came out alike, where rows are either so or aren't: 0 or 1."""
    values = {who: {part.above / (part.below or 1) for part in of} for who, of in parts.items()}
    either = set().union(*values.values()) <= {0.0, 1.0}
    if not MEASURES[measure].is_share and not (measure == "task" and either):
        return {}
    return {who: next(iter(of)) for who, of in values.items() if len(of) == 1}


def _bounds(drawn: Sequence[float]) -> tuple[float, float] | None:
    known = sorted(value for value in drawn if not math.isnan(value))
    if not known:
        return None
    tail = (1 - CONFIDENCE) / 2
    first = known[math.floor(tail * (len(known) - 1))]
    return first, known[math.ceil((1 - tail) * (len(known) - 1))]


def _exact(level: float, units: int) -> tuple[float, float]:
    """Return the exact interval of a share that was *level*, 0 or 1, in all *units*."""
    rest = ((1 - CONFIDENCE) / 2) ** (1 / units)
    return (rest, 1.0) if level else (0.0, 1.0 - rest)


def _figure(
    measure: str, of: Who, value: float, bounds: tuple[float, float] | None, rows: int
) -> Figure:
    return Figure(
        measure=measure,
        of=of,
        value=_text(value),
        low=None if bounds is None else _text(bounds[0]),
        high=None if bounds is None else _text(bounds[1]),
        rows=rows,
    )


def _text(value: float) -> str:
    return f"{round(value, 4) + 0.0:.4f}"  # no minus before a zero

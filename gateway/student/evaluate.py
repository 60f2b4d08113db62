"""Ask a student what was held out, beside its base and its teacher, and say how sure that is.

The rows come through the student's gate like those it learns from, drawn by a seed. Nothing is
asked that was learned: rows found among the learned ones end it. The teacher is the row itself:
likeness to it is agreement, not correctness; a task metric speaks for all three.

Not here: how a model is asked (`examine.py`), how figures get their intervals (`figures.py`).
"""

from __future__ import annotations

import hashlib
import heapq
import importlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from gateway.canonical import canonical_json
from gateway.errors import CallerError, GateRefusedError
from gateway.ident import Sha256
from gateway.student.figures import Evaluation, Overlap, Part, Who, figures_of
from gateway.student.likeness import (
    Asked,
    answer_of,
    chrf,
    label_of,
    labels_in,
    prompt_of,
    prompt_words,
    same,
    text_of,
)

ROWS_DEFAULT: Final = 200
"""Rows asked where nobody says how many: enough for an interval, few enough to wait for."""

CONTAMINATED_MAX: Final = 0.01
"""The share of asked rows that may be alike to learned ones; a copy of a prompt is none."""

SAMPLES: Final = 3
"""Rows whose answers are shown in full."""

EXACT_MATCH: Final = "exact-match"

_T = TypeVar("_T")

Metric = Callable[[Sequence[Mapping[str, Any]], str, str], float]
"""Scores an answer: the conversation before it, the answer, the teacher's."""


class Asking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be asked, as a job file says it."""

    rows: int = ROWS_DEFAULT
    """How many held-out rows at most."""
    metric: str | None = None
    """A task metric, `module:function`; exact match is always there."""
    samples: int = SAMPLES
    """Rows whose answers are kept and shown in full."""

    def __post_init__(self) -> None:
        """Refuse what can't be asked."""
        if self.rows < 1 or self.samples < 0:
            raise ValueError("evaluate: rows must be at least 1, samples at least 0")


ASKING: Final = Asking()
"""What is asked where nobody says."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One held-out row and what was answered to it; a line of `samples.jsonl`."""

    prompt: list[dict[str, Any]]
    teacher: str
    base: str | None = None
    student: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Held-out rows that are asked, none of which was learned."""

    rows: tuple[dict[str, Any], ...]
    of: int
    seed: int
    overlap: Overlap
    asking: Asking
    task: Metric | None = field(default=None, compare=False)

    @property
    def sha256(self) -> Sha256:
        """Return the digest over the digests of the rows, in rising order."""
        lines = sorted(hashlib.sha256(canonical_json(row)).digest() for row in self.rows)
        return Sha256(hashlib.sha256(b"".join(lines)).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """How a model took the teacher's answer."""

    loss: float
    """Of all its tokens together, in nats."""
    tokens: int
    agreed: int
    """Tokens that it would have said itself."""
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a model answered by itself, choosing the likeliest token each time."""

    text: str
    tokens: int
    stopped: bool
    reference: str
    """The teacher's answer, written out as the student writes it."""
    reference_tokens: int


class Examinee(Protocol):
    """A model that can be asked."""

    def read(
        self, rows: Sequence[Mapping[str, Any]], tick: Callable[[], None]
    ) -> list[Read | None]:
        """Return how it takes the answer of each row; `None` where it can't read one."""
        ...

    def answer(
        self, rows: Sequence[Mapping[str, Any]], tick: Callable[[], None]
    ) -> list[Heard | None]:
        """Return its own answer to each row; `None` where it can't read one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What came of it."""

    evaluation: Evaluation
    samples: tuple[Sample, ...]


class Drawing:
    """Takes held-out rows one by one and keeps as many as are to be asked.

    They are those with the smallest digests under the seed, whatever order they come in.

    Raises:
        CallerError: there is no such task metric.
    """

    def __init__(self, asking: Asking, seed: int = 0) -> None:
        self.asking = asking
        self.seed = seed
        named = asking.metric not in {None, EXACT_MATCH}
        self.task = load_metric(asking.metric or "") if named else None
        self.of = 0
        self._kept: list[tuple[int, bytes]] = []

    def offer(self, line: bytes) -> None:
        """Take the next held-out row."""
        self.of += 1
        digest = hashlib.sha256(b"%d\0%b" % (self.seed, line)).digest()
        entry = (-int.from_bytes(digest), line)
        if len(self._kept) < self.asking.rows:
            heapq.heappush(self._kept, entry)
        elif entry > self._kept[0]:
            heapq.heapreplace(self._kept, entry)

    def search(self) -> Search | None:
        """Return the rows that were drawn, to be looked for; `None` where none was offered."""
        if not self._kept:
            return None
        lines = (line for _, line in sorted(self._kept, reverse=True))
        return Search(self, tuple(msgspec.json.decode(line) for line in lines))


class Search:
    """Looks for drawn rows among those that are learned."""

    def __init__(self, drawing: Drawing, rows: tuple[dict[str, Any], ...]) -> None:
        self._drawing = drawing
        self._rows = rows
        self._asked = Asked(rows)

    def see(self, row: Mapping[str, Any]) -> None:
        """Look at one row that is learned."""
        self._asked.see(row)

    def drawn(self, unseen: tuple[str, ...] = ()) -> Drawn:
        """Return the rows to ask, once every learned row went by; *unseen* names what did not.

        Raises:
            GateRefusedError: a prompt of theirs is learned as it is spelt, or too many are
                learned in other ways.
            CallerError: the task metric fails on the teacher's own answer.
        """
        asked, rows = self._asked, self._rows
        found = len(asked.learned_too)
        if asked.copied or found > CONTAMINATED_MAX * len(rows):
            raise GateRefusedError(
                f"{found} of {len(rows)} held-out rows stand among the rows that are learned, "
                f"or that the base learned ({asked.share:.1%} of their runs of words do)",
                hint="build the rows as one dataset with --held-out, which keeps alike prompts "
                "together; a student can also be trained unasked, with --no-eval",
                code="student.contaminated",
            )
        drawn = Drawn(
            rows=rows,
            of=self._drawing.of,
            seed=self._drawing.seed,
            overlap=Overlap(
                rows=found,
                share=f"{asked.share:.4f}",
                compared=asked.learned,
                unseen=unseen,
            ),
            asking=self._drawing.asking,
            task=self._drawing.task,
        )
        if drawn.task is not None:
            # Hours may go by until it is needed: what fails at once is said at once.
            reference = text_of(answer_of(rows[0]))
            _scored(drawn, drawn.task, 0, reference, reference)
        return drawn


def draw(
    held_out: Iterable[bytes],
    learned: Iterable[Mapping[str, Any]],
    asking: Asking,
    seed: int = 0,
) -> Drawn | None:
    """Return the rows to ask, drawn from the lines of *held_out*; `None` where there are none.

    Raises:
        GateRefusedError: too many of them stand among the *learned* rows.
        CallerError: there is no such task metric.
    """
    drawing = Drawing(asking, seed)
    for line in held_out:
        drawing.offer(line)
    search = drawing.search()
    if search is None:
        return None
    for row in learned:
        search.see(row)
    return search.drawn()


def examine(
    drawn: Drawn,
    examinees: Mapping[Who, Callable[[], Examinee]],
    tick: Callable[[int, int], None] | None = None,
) -> Examined:
    """Return what base and student make of the rows, one model in memory at a time.

    Raises:
        CallerError: the task metric failed, or gave no number.
    """
    rows, total = drawn.rows, 2 * len(drawn.rows) * len(examinees)
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        if tick is not None:
            tick(done, total)

    read: dict[Who, list[Read | None]] = {}
    heard: dict[Who, list[Heard | None]] = {}
    pairs: dict[Who, list[Read | None]] = {}
    for who, load in examinees.items():
        examinee = load()
        read[who] = examinee.read(rows, one_more)
        heard[who] = examinee.answer(rows, one_more)
        if all("rejected" in row for row in rows):
            pairs[who] = examinee.read([_rejected(row) for row in rows], _unheard)
        del examinee
    answers: list[Sequence[Read | Heard | None]] = [
        *read.values(),
        *heard.values(),
        *pairs.values(),
    ]
    known = [at for at in range(len(rows)) if all(of[at] is not None for of in answers)]
    if not known:
        raise GateRefusedError(
            "no held-out row fits the student's context and template",
            hint="raise --max-length, or hold out other rows",
            code="student.nothing_held_out",
        )
    prompts = [" ".join(prompt_words(rows[at])) for at in known]
    figures = [
        figure
        for measure, parts in _measured(drawn, known, read, heard, pairs)
        for figure in figures_of(measure, parts, prompts, drawn.seed)
    ]
    return Examined(
        evaluation=Evaluation(
            rows=len(known),
            prompts=len(set(prompts)),
            of=drawn.of,
            left_out=len(rows) - len(known),
            sha256=drawn.sha256,
            seed=drawn.seed,
            overlap=drawn.overlap,
            metric=drawn.asking.metric if drawn.task is not None else None,
            figures=tuple(figures),
        ),
        samples=tuple(_samples(drawn, known[: drawn.asking.samples], heard)),
    )


def load_metric(name: str) -> Metric:
    """Return the function that *name*, `module:function`, means.

    Raises:
        CallerError: there is none.
    """
    module, colon, function = name.partition(":")
    hint = (
        "name a function `(prompt, answer, reference) -> float` as `module:function`; the "
        "module is looked for here and on PYTHONPATH"
    )
    home = str(Path.cwd())
    if home not in sys.path:
        # Last, so that nothing of ours is taken for somebody's metric, nor the other way.
        sys.path.append(home)
    try:
        metric: Metric = getattr(importlib.import_module(module), function)
    except Exception as error:  # somebody else's module fails in any way
        there = not isinstance(error, ImportError | AttributeError | ValueError)
        why = (
            (_told(error) if there else str(error)) if colon else "it is not `module:function`"
        )
        raise CallerError(
            f"there is no metric `{name}`: {why}", hint=hint, code="student.metric"
        ) from error
    if not callable(metric):
        raise CallerError(
            f"the metric `{name}` is no function", hint=hint, code="student.metric"
        )
    return metric


def _measured(
    drawn: Drawn,
    known: Sequence[int],
    read: Mapping[Who, Sequence[Read | None]],
    heard: Mapping[Who, Sequence[Heard | None]],
    pairs: Mapping[Who, Sequence[Read | None]],
) -> Iterator[tuple[str, dict[Who, list[Part]]]]:
    """Yield each measure with what each row adds to it."""
    reads = {who: _of(known, all_of) for who, all_of in read.items()}
    says = {who: _of(known, all_of) for who, all_of in heard.items()}
    yield "loss", {who: [Part(r.loss, r.tokens) for r in rs] for who, rs in reads.items()}
    yield (
        "bits-per-byte",
        {who: [Part(r.loss / math.log(2), r.bytes) for r in rs] for who, rs in reads.items()},
    )
    yield (
        "token-agreement",
        {who: [Part(r.agreed, r.tokens) for r in rs] for who, rs in reads.items()},
    )
    yield (
        "exact-match",
        {who: [Part(same(h.text, h.reference)) for h in hs] for who, hs in says.items()},
    )
    labels = labels_in([h.reference for h in next(iter(says.values()))])
    if labels is not None:
        yield (
            "label-agreement",
            {
                who: [Part(label_of(h.text) == label_of(h.reference)) for h in hs]
                for who, hs in says.items()
            },
        )
    yield (
        "chrf",
        {who: [Part(chrf(h.text, h.reference)) for h in hs] for who, hs in says.items()},
    )
    yield "stop-rate", {who: [Part(h.stopped) for h in hs] for who, hs in says.items()}
    yield (
        "length-ratio",
        {who: [Part(h.tokens, h.reference_tokens) for h in hs] for who, hs in says.items()},
    )
    if pairs:
        yield from _pairs(known, reads, pairs)
    if drawn.task is not None:
        yield "task", _task(drawn, drawn.task, known, says)


def _pairs(
    known: Sequence[int],
    reads: Mapping[Who, Sequence[Read]],
    pairs: Mapping[Who, Sequence[Read | None]],
) -> Iterator[tuple[str, dict[Who, list[Part]]]]:
    """Yield the measures of pairs: which answer is likelier, and which became likelier."""
    gaps: dict[Who, list[float]] = {
        who: [
            rejected.loss - chosen.loss
            for chosen, rejected in zip(reads[who], _of(known, all_of), strict=True)
        ]
        for who, all_of in pairs.items()
    }
    yield "pair-accuracy", {who: [Part(gap > 0) for gap in of] for who, of in gaps.items()}
    if "base" in gaps and "student" in gaps:
        moved = [one - other for one, other in zip(gaps["student"], gaps["base"], strict=True)]
        yield "reward-accuracy", {"student": [Part(gap > 0) for gap in moved]}
        yield "reward-margin", {"student": [Part(gap) for gap in moved]}


def _task(
    drawn: Drawn, metric: Metric, known: Sequence[int], says: Mapping[Who, Sequence[Heard]]
) -> dict[Who, list[Part]]:
    parts: dict[Who, list[Part]] = {}
    for who, all_heard in says.items():
        parts[who] = [
            Part(_scored(drawn, metric, at, one.text, one.reference))
            for at, one in zip(known, all_heard, strict=True)
        ]
    any_heard = next(iter(says.values()))
    parts["teacher"] = [
        Part(_scored(drawn, metric, at, one.reference, one.reference))
        for at, one in zip(known, any_heard, strict=True)
    ]
    return parts


def _told(error: Exception) -> str:
    """Return what went wrong, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _scored(drawn: Drawn, metric: Metric, at: int, answer: str, reference: str) -> float:
    try:
        score = float(metric(prompt_of(drawn.rows[at]), answer, reference))
    except Exception as error:  # somebody else's function fails in any way
        raise CallerError(
            f"the metric `{drawn.asking.metric}` failed: {_told(error)}",
            hint="mend the function; a run that was under way goes on with --resume",
            code="student.metric",
        ) from error
    if not math.isfinite(score):
        raise CallerError(
            f"the metric `{drawn.asking.metric}` gave {score}",
            hint="it must give a number for any answer",
            code="student.metric",
        )
    return score


def _of(known: Sequence[int], made: Sequence[_T | None]) -> list[_T]:
    """Return what was *made* of the rows in *known*, of which each made something."""
    return [one for at in known if (one := made[at]) is not None]


def _rejected(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pair as a row whose answer is the one that was rejected."""
    tools = {"tools": row["tools"]} if "tools" in row else {}
    return {"messages": [*row["prompt"], *row["rejected"]], **tools}


def _samples(
    drawn: Drawn, known: Sequence[int], heard: Mapping[Who, Sequence[Heard | None]]
) -> Iterator[Sample]:
    by = {who: _of(known, all_of) for who, all_of in heard.items()}
    for place, at in enumerate(known):
        said = {who: all_of[place] for who, all_of in by.items()}
        yield Sample(
            prompt=prompt_of(drawn.rows[at]),
            teacher=said["student"].reference,
            base=said["base"].text if "base" in said else None,
            student=said["student"].text,
        )


def _unheard() -> None:
    """Count nothing."""

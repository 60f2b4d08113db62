"""What is shown and kept of a run under way: one line a step in a file, and one on the screen.

On a terminal one live block; elsewhere plain lines, so that a log holds no control characters.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from gateway.errors import MissingPieceError
from gateway.student.files import write_durably

SMOOTHING: Final = 0.8
"""Share of the past in the smoothed loss."""

LINES_MAX: Final = 20
"""About how many plain lines a run prints where there is no terminal."""


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of `metrics.jsonl`."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    accuracy: float
    """Share of the learned tokens that the student would have said itself."""
    tokens: int
    """Tokens read so far, padding excluded."""
    seconds: float
    """Since the run was begun or last resumed."""
    memory: int | None = None
    """The most bytes held so far, on the accelerator where there is one."""
    round: int | None = None
    """Which round of a feed; `None` where there is only one."""
    margin: float | None = None
    """For pairs: by how much the chosen answer is preferred."""


class HeldOutLoss(msgspec.Struct, frozen=True, kw_only=True):
    """The other line of `metrics.jsonl`: the loss on rows that are not learned, at *step*."""

    step: int
    held_out_loss: float
    rows: int


class Metrics:
    """The steps of a run, in a file that is only added to."""

    def __init__(self, path: Path, *, resumed_at: int = 0) -> None:
        self._path = path
        kept = [line for line in _lines_of(path) if line.step <= resumed_at]
        self.steps = [line for line in kept if isinstance(line, Step)]
        self.held_out = [line for line in kept if isinstance(line, HeldOutLoss)]
        content = b"".join(_line(line) for line in kept)
        if not path.exists() or path.read_bytes() != content:
            # Whole or as it was: where there is no room, the steps that were made stay told.
            write_durably(path, content)
        self._file = path.open("ab")

    def add(self, step: Step) -> None:
        """Write *step* at the end."""
        self.steps.append(step)
        self._write(step)

    def measure(self, measured: HeldOutLoss) -> None:
        """Write at the end what was *measured* on rows that are not learned."""
        self.held_out.append(measured)
        self._write(measured)

    def _write(self, line: Step | HeldOutLoss) -> None:
        self._file.write(_line(line))
        self._file.flush()

    def sync(self) -> None:
        """Make durable what was written: a checkpoint must not outlive how it came to be."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def read_metrics(path: Path) -> list[Step]:
    """Return the steps that *path* holds; a torn last line is left out.

    Raises:
        MissingPieceError: a line before the last is not one of ours.
    """
    return [line for line in _lines_of(path) if isinstance(line, Step)]


def read_held_out(path: Path) -> list[HeldOutLoss]:
    """Return what was measured on held-out rows while the run went on.

    Raises:
        MissingPieceError: a line before the last is not one of ours.
    """
    return [line for line in _lines_of(path) if isinstance(line, HeldOutLoss)]


def memory_of_process() -> int:
    """Return the bytes that this process held at most, so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def smoothed(losses: Iterable[float], past: float = SMOOTHING) -> list[float]:
    """Return the running mean of *losses*, weighted towards the newest, free of start bias."""
    means: list[float] = []
    total = weight = 0.0
    for loss in losses:
        total = past * total + (1 - past) * loss
        weight = past * weight + (1 - past)
        means.append(total / weight)
    return means


def trend(losses: Sequence[float]) -> list[float]:
    """Return the losses smoothed from both sides, so that the line does not lag behind."""
    ahead = smoothed(losses)
    back = smoothed(losses[::-1])[::-1]
    return [(one + other) / 2 for one, other in zip(ahead, back, strict=True)]


class Screen:
    """Tells the person in front of the terminal how the run goes."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._live: Live | None = None
        self._task: TaskID | None = None
        self._held_out: float | None = None
        self._total = 0
        self._losses: list[float] = []
        self._seconds: list[float] = []
        self._tokens: list[int] = []

    def say(self, line: str) -> None:
        """Print one line of plain text."""
        self.console.print(line, markup=False, soft_wrap=True)

    def show_example(self, pieces: Iterable[tuple[str, bool]]) -> None:
        """Print one row with what is learned of it marked."""
        text = Text("  ")
        for piece, learned in pieces:
            shown = piece.replace("\n", "\n  ") if piece.strip() else ""
            if learned:
                text.append("⟦" + shown + "⟧", style="bold green")
            else:
                text.append(shown, style="dim")
        self.say("one row as the student sees it; what it learns stands in ⟦ ⟧:")
        self.console.print(text)

    def begin(self, total: int) -> None:
        """Start the live block of a run of *total* steps."""
        self._total = total
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
                console=self.console,
            )
            self._task = self._bar.add_task("training", total=total, left="")
            self._live = Live(Group(self._bar), console=self.console, refresh_per_second=4)
            self._live.start()

    def step(self, step: Step) -> None:
        """Show *step*: loss, speed, memory, and how long the rest will take."""
        self._losses.append(step.loss)
        self._seconds.append(step.seconds)
        self._tokens.append(step.tokens)
        left = f"{_clock(self._rest_s(step.step))} left"
        told = self._told(step)
        if self._bar is not None and self._task is not None and self._live is not None:
            self._bar.update(self._task, completed=step.step, left=left)
            self._live.update(Group(self._bar, Text("  " + told, style="dim")))
            return
        every = -(-self._total // LINES_MAX)
        if step.step % every == 0 or step.step in {1, self._total}:
            self.say(f"step {step.step:>5}/{self._total}  {told}  {left}")

    def measure(self, measured: HeldOutLoss) -> None:
        """Show what was *measured* on rows that are not learned."""
        self._held_out = measured.held_out_loss
        if self._live is None:
            self.say(
                f"step {measured.step:>5}/{self._total}  held-out loss "
                f"{measured.held_out_loss:.3f} over {measured.rows} rows"
            )

    def end(self) -> None:
        """Take the live block down."""
        if self._live is not None:
            self._live.stop()
        self._live = self._bar = None

    @contextlib.contextmanager
    def counting(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Show how far something is that is counted; without a terminal say only that it is."""
        if not self.console.is_terminal:
            self.say(f"{title} …")
            yield lambda _done, _total: None
            return
        columns = (TextColumn(title), BarColumn(bar_width=None), MofNCompleteColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(title)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def _told(self, step: Step) -> str:
        """Return the figures of the run after *step*, in one line."""
        told = [f"loss {smoothed(self._losses[-50:])[-1]:.3f}"]
        if self._held_out is not None:
            told.append(f"held-out {self._held_out:.3f}")
        if step.margin is not None:
            told.append(f"margin {step.margin:.3f}")
        told.append(f"{self._tokens_per_s():,.0f} tok/s")
        if step.memory is not None:
            told.append(sized(step.memory))
        if step.round is not None:
            told.append(f"round {step.round}")
        return "  ".join(told)

    def _tokens_per_s(self) -> float:
        """Return the speed over the last steps."""
        first = max(0, len(self._seconds) - 20)
        seconds = self._seconds[-1] - (self._seconds[first] if first else 0.0)
        begun = self._tokens[first] if first or len(self._tokens) > 1 else 0
        seconds -= 0.0 if first else (self._seconds[0] if len(self._seconds) > 1 else 0.0)
        return (self._tokens[-1] - begun) / seconds if seconds > 0 else 0.0

    def _rest_s(self, step: int) -> float:
        """Return about how many seconds the rest takes, judged by the last steps."""
        first = max(0, len(self._seconds) - 20)
        count = len(self._seconds) - 1 - first
        if count < 1:
            return self._seconds[-1] * (self._total - step)
        return (self._seconds[-1] - self._seconds[first]) / count * (self._total - step)


def sized(count: int) -> str:
    """Return *count* bytes as a person says it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _lines_of(path: Path) -> list[Step | HeldOutLoss]:
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines()
    kept: list[Step | HeldOutLoss] = []
    for number, line in enumerate(lines, start=1):
        try:
            if b'"held_out_loss"' in line:
                kept.append(msgspec.json.decode(line, type=HeldOutLoss))
            else:
                kept.append(msgspec.json.decode(line, type=Step))
        except msgspec.DecodeError as error:
            if number == len(lines):
                break
            raise MissingPieceError(
                f"{path}:{number}: not a line of metrics",
                hint="the run folder was changed by hand; begin the run anew",
            ) from error
    return kept


def _line(line: Step | HeldOutLoss) -> bytes:
    return json.dumps(msgspec.to_builtins(line), sort_keys=True).encode() + b"\n"

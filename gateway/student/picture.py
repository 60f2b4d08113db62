"""What happened in a run, as pictures: a PNG for the card, SVGs that need no other file.

The SVGs take their colours from the page they stand in, by class, so that they can be read in
light and in dark; they hold no script, no style of their own and no link.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

from gateway.student.figures import MEASURES, Evaluation
from gateway.student.progress import HeldOutLoss, Step, trend

RAW: Final = "#9db4d6"
SMOOTH: Final = "#1f4e9c"
APART: Final = "#b3541e"

_WIDTH: Final = 720
_HEIGHT: Final = 280
_LEFT: Final = 72
_RIGHT: Final = 16
_TOP: Final = 30
_BOTTOM: Final = 42
_ROW: Final = 46
"""Height of one measure in the picture of intervals."""

_POINTS_MAX: Final = 400
"""Points that a picture draws; of more, evenly many are left out."""

Point = tuple[float, float]


class Line(NamedTuple):
    """One line of a picture."""

    name: str
    """What it shows, for the legend; empty where it needs none."""
    points: Sequence[Point]
    style: str
    """Class of the line: `smooth`, `apart` or `dots`."""


def draw_png(
    steps: Sequence[Step], held_out: Sequence[HeldOutLoss], title: str, path: Path
) -> None:
    """Write the loss over the steps to *path*: each step a point, trend and held-out a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # slow import
    from matplotlib.figure import Figure  # noqa: PLC0415  # slow import
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415  # slow import

    at = [step.step for step in steps]
    losses = [step.loss for step in steps]
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(at, losses, "o", color=RAW, markersize=3.5, label="each step")
    axes.plot(at, trend(losses), "-", color=SMOOTH, linewidth=2, label="smoothed")
    if held_out:
        axes.plot(
            [one.step for one in held_out],
            [one.held_out_loss for one in held_out],
            "D-",
            color=APART,
            linewidth=1.5,
            markersize=4,
            label="held out",
        )
    axes.annotate(
        f"{losses[-1]:.2f}",
        (at[-1], losses[-1]),
        textcoords="offset points",
        xytext=(-4, 8),
        ha="right",
        color=SMOOTH,
    )
    axes.set_title(title, loc="left")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats a learned token)")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    # No date and no version inside: the same run gives the same bytes.
    figure.savefig(path, metadata={"Software": None})


def draw_loss(steps: Sequence[Step], held_out: Sequence[HeldOutLoss]) -> str:
    """Return the loss over the steps as an SVG element."""
    losses = [step.loss for step in steps]
    lines = [
        Line("each step", [(step.step, step.loss) for step in steps], "dots"),
        Line(
            "smoothed",
            [(one.step, loss) for one, loss in zip(steps, trend(losses), strict=True)],
            "smooth",
        ),
    ]
    if held_out:
        apart = [(one.step, one.held_out_loss) for one in held_out]
        lines.append(Line("held out", apart, "apart"))
    return draw_lines(lines, "loss (nats a learned token)", rounds=_rounds(steps))


def draw_rate(steps: Sequence[Step]) -> str:
    """Return the learning rate over the steps as an SVG element."""
    points = [(step.step, step.learning_rate) for step in steps]
    return draw_lines([Line("", points, "smooth")], "learning rate", rounds=_rounds(steps))


def draw_speed(steps: Sequence[Step]) -> str:
    """Return the tokens a second over the steps as an SVG element."""
    points = list(_speeds(steps))
    raw = Line("each step", points, "dots")
    smooth = [
        (at, speed)
        for (at, _), speed in zip(points, trend([speed for _, speed in points]), strict=True)
    ]
    return draw_lines([raw, Line("smoothed", smooth, "smooth")], "tokens a second")


def draw_memory(steps: Sequence[Step]) -> str:
    """Return the memory over the steps as an SVG element."""
    points = [(float(one.step), one.memory / 1e9) for one in steps if one.memory is not None]
    return draw_lines([Line("", points, "smooth")], "memory (GB, the most so far)")


def draw_lines(lines: Sequence[Line], title: str, rounds: Sequence[int] = ()) -> str:
    """Return *lines* as an SVG element; nothing where there is no point."""
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    top = _round_up(max(y for _, y in points))

    def x(at: float) -> float:
        return _LEFT + (at - first) / ((last - first) or 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (1 - value / top) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_head(_HEIGHT, title)]
    for mark in range(5):
        value = top * mark / 4
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}"/><text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" '
            f'text-anchor="end">{_number(value)}</text>'
        )
    parts += [
        f'<text x="{x(at):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{at:.0f}'
        "</text>"
        for at in sorted({first, float(round((first + last) / 2)), last})
    ]
    parts += [
        f'<line class="round" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{_TOP}" '
        f'y2="{_HEIGHT - _BOTTOM}"/>'
        for at in rounds
    ]
    for line in lines:
        parts.append(_drawn(line, x, y))
    parts.append(_legend([line for line in lines if line.name]))
    parts.append(
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f'step</text><text transform="translate(14 {(_TOP + _HEIGHT - _BOTTOM) / 2}) '
        f'rotate(-90)" text-anchor="middle">{escape(title)}</text></svg>'
    )
    return "".join(parts)


def draw_intervals(evaluation: Evaluation) -> str:
    """Return the shares of an evaluation with their intervals as an SVG element."""
    names = [name for name in evaluation.measures if not MEASURES[name].unit]
    names = [name for name in names if _in_bounds(evaluation, name)]
    if not names:
        return ""
    height = _ROW * len(names) + 46
    left = 310

    def x(value: float) -> float:
        return left + value * (_WIDTH - left - 40)

    parts = [_head(height, "figures with their intervals")]
    for mark in range(5):
        at = x(mark / 4)
        parts.append(
            f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="6" y2="{height - 34}"/>'
            f'<text x="{at:.1f}" y="{height - 18}" text-anchor="middle">{mark * 25} %</text>'
        )
    for number, name in enumerate(names):
        middle = 6 + _ROW * number + _ROW / 2
        said = MEASURES[name].says if name != "task" else evaluation.metric or name
        parts.append(
            f'<text x="{left - 14}" y="{middle + 4:.1f}" text-anchor="end">'
            f"{escape(_wrapped(said))}</text>"
        )
        for beside, (who, style) in enumerate(
            (("base", "base"), ("student", "smooth"), ("teacher", "apart"))
        ):
            figure = evaluation.figure(name, who)  # type: ignore[arg-type]  # one of `Who`
            if figure is None:
                continue
            y = middle + (beside - 1) * 11
            if figure.low is not None and figure.high is not None:
                parts.append(
                    f'<line class="{style}" x1="{x(float(figure.low)):.1f}" '
                    f'x2="{x(float(figure.high)):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
                )
            parts.append(
                f'<circle class="{style}" cx="{x(float(figure.value)):.1f}" cy="{y:.1f}" '
                'r="4"/>'
            )
    shown = [
        Line(who, (), style)
        for who, style in (("base", "base"), ("student", "smooth"), ("teacher", "apart"))
        if any(one.of == who and one.measure in names for one in evaluation.figures)
    ]
    parts.append(_legend(shown, y=height - 3))
    return "".join([*parts, "</svg>"])


def _head(height: float, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}" '
        'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12">'
    )


def _drawn(line: Line, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    points = _thinned(line.points)
    if line.style == "dots":
        return "".join(
            f'<circle class="dots" cx="{x(at):.1f}" cy="{y(value):.1f}" r="2.2"/>'
            for at, value in points
        )
    drawn = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
    marks = ""
    if line.style == "apart" or len(points) == 1:
        marks = "".join(
            f'<circle class="{line.style}" cx="{x(at):.1f}" cy="{y(value):.1f}" r="3.4"/>'
            for at, value in points
        )
    return f'<polyline class="{line.style}" points="{drawn}"/>{marks}'


def _legend(lines: Sequence[Line], y: float = 14) -> str:
    """Return the names of *lines*, from the right."""
    parts: list[str] = []
    at = float(_WIDTH - _RIGHT)
    for line in reversed(lines):
        at -= 7.0 * len(line.name)
        parts.append(f'<text x="{at:.1f}" y="{y}">{escape(line.name)}</text>')
        at -= 12
        parts.append(f'<circle class="{line.style}" cx="{at + 4:.1f}" cy="{y - 4}" r="4"/>')
        at -= 16
    return "".join(parts)


def _speeds(steps: Sequence[Step]) -> Iterator[Point]:
    """Yield the tokens a second between each step and the one before, in one sitting."""
    for before, step in itertools.pairwise(steps):
        seconds = step.seconds - before.seconds
        if seconds > 0 and step.tokens > before.tokens:
            yield step.step, (step.tokens - before.tokens) / seconds


def _rounds(steps: Sequence[Step]) -> list[int]:
    """Return the steps at which a round of a feed begins, but the first."""
    return [
        step.step for before, step in itertools.pairwise(steps) if step.round != before.round
    ]


def _thinned(points: Sequence[Point]) -> list[Point]:
    if len(points) <= _POINTS_MAX:
        return list(points)
    places = {round(at * (len(points) - 1) / (_POINTS_MAX - 1)) for at in range(_POINTS_MAX)}
    return [points[at] for at in sorted(places)]


def _round_up(value: float) -> float:
    """Return a round number that is not below *value*, to end an axis with."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    scale = 10.0 ** math.floor(math.log10(value))
    return next(
        step * scale
        for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)
        if step * scale >= value
    )


def _number(value: float) -> str:
    if value and (value < 1e-4 or value >= 1_000_000):
        return f"{value:.0e}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _in_bounds(evaluation: Evaluation, name: str) -> bool:
    shown = [one for one in evaluation.figures if one.measure == name and one.of != "gain"]
    return all(
        0 <= float(value) <= 1
        for one in shown
        for value in (one.value, one.low or one.value, one.high or one.value)
    )


def _wrapped(said: str) -> str:
    """Return *said* short enough to stand beside a picture."""
    return said if len(said) <= 48 else said[:47] + "…"

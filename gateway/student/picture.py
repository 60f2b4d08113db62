"""The loss of a run as pictures: a PNG for the card, an SVG that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.student.progress import Step, trend

RAW: Final = "#9db4d6"
SMOOTH: Final = "#1f4e9c"
INK: Final = "#333333"

_WIDTH: Final = 720
_HEIGHT: Final = 320
_LEFT: Final = 56
_RIGHT: Final = 16
_TOP: Final = 16
_BOTTOM: Final = 44


def draw_png(steps: Sequence[Step], title: str, path: Path) -> None:
    """Write the loss over the steps to *path*, each step a point, the trend a line."""
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


def draw_svg(steps: Sequence[Step]) -> str:
    """Return the same picture as an SVG element."""
    losses = [step.loss for step in steps]
    first, last = steps[0].step, steps[-1].step
    top = max(losses) * 1.05 or 1.0

    def x(step: int) -> float:
        return _LEFT + (step - first) / max(1, last - first) * (_WIDTH - _LEFT - _RIGHT)

    def y(loss: float) -> float:
        return _TOP + (1 - loss / top) * (_HEIGHT - _TOP - _BOTTOM)

    head = (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'aria-label="loss over the steps of the run" xmlns="http://www.w3.org/2000/svg" '
        'font-family="sans-serif" font-size="12">'
    )
    parts = [head]
    for mark in range(5):
        loss = top * mark / 4
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(loss):.1f}" y2="{y(loss):.1f}" '
            f'stroke="#dddddd"/><text x="{_LEFT - 8}" y="{y(loss) + 4:.1f}" text-anchor="end" '
            f'fill="currentColor">{loss:.2f}</text>'
        )
    parts += [
        f'<text x="{x(step):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle" '
        f'fill="currentColor">{step}</text>'
        for step in sorted({first, first + (last - first) // 2, last})
    ]
    parts += [
        f'<circle cx="{x(step.step):.1f}" cy="{y(step.loss):.1f}" r="2.2" fill="{RAW}"/>'
        for step in steps
    ]
    line = " ".join(
        f"{x(step.step):.1f},{y(loss):.1f}"
        for step, loss in zip(steps, trend(losses), strict=True)
    )
    parts.append(f'<polyline points="{line}" fill="none" stroke="{SMOOTH}" stroke-width="2"/>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle" fill="currentColor">step'
        "</text>"
        f'<text transform="translate(14 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle" '
        'fill="currentColor">loss (nats a learned token)</text></svg>'
    )
    return "".join(parts)

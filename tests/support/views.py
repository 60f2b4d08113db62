"""Metrics, an evaluation and samples as a run leaves them, made up in a moment."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.canonical import sha256_hex
from gateway.ident import Sha256
from gateway.student.evaluate import Sample
from gateway.student.figures import Evaluation, Figure, Overlap, Part, Who, figures_of
from gateway.student.progress import HeldOutLoss, Metrics, Step

ROWS = 40


def some_steps(count: int = 60, *, rounds: int = 1) -> list[Step]:
    """Return the steps of a run whose loss falls."""
    return [
        Step(
            step=number,
            loss=6.5 * math.exp(-number / 18) + 0.4 + 0.12 * math.sin(number * 2.1),
            learning_rate=3e-3 * (1 + math.cos(math.pi * number / count)) / 2,
            gradient_norm=1.0,
            accuracy=number / count,
            tokens=700 * number,
            seconds=0.11 * number + 0.02 * math.sin(number),
            memory=900_000_000 + 2_000_000 * number,
            round=1 + (number - 1) * rounds // count if rounds > 1 else None,
        )
        for number in range(1, count + 1)
    ]


def some_held_out(count: int = 60) -> list[HeldOutLoss]:
    """Return what was measured beside those steps."""
    return [
        HeldOutLoss(step=step, held_out_loss=6.8 * math.exp(-step / 25) + 0.9, rows=ROWS)
        for step in range(10, count + 1, 10)
    ]


def write_metrics(path: Path, steps: Sequence[Step], held_out: Sequence[HeldOutLoss]) -> None:
    """Write both to *path* as a run does."""
    metrics = Metrics(path)
    for step in steps:
        metrics.add(step)
        for one in held_out:
            if one.step == step.step:
                metrics.measure(one)
    metrics.close()


def some_figures(measure: str, of: Mapping[Who, float]) -> list[Figure]:
    """Return figures of about *of*, with intervals."""
    parts: dict[Who, list[Part]] = {
        who: [
            Part(float(number < value * ROWS) if value < 1 else value + 0.02 * (number % 5))
            for number in range(ROWS)
        ]
        for who, value in of.items()
    }
    return figures_of(measure, parts, [f"prompt {number}" for number in range(ROWS)], 0)


@functools.cache
def an_evaluation() -> Evaluation:
    """Return an evaluation with every kind of figure."""
    return Evaluation(
        rows=ROWS,
        prompts=ROWS,
        of=120,
        sha256=Sha256(sha256_hex(b"rows")),
        seed=0,
        overlap=Overlap(rows=0, share="0.0021", compared=900),
        metric="ours:score",
        figures=(
            *some_figures("loss", {"base": 6.9, "student": 1.3}),
            *some_figures("bits-per-byte", {"base": 5.1, "student": 1.1}),
            *some_figures("token-agreement", {"base": 0.02, "student": 0.71}),
            *some_figures("exact-match", {"base": 0.0, "student": 0.45}),
            *some_figures("chrf", {"base": 0.05, "student": 0.66}),
            *some_figures("stop-rate", {"base": 0.0, "student": 0.95}),
            *some_figures("length-ratio", {"base": 3.1, "student": 1.02}),
            *some_figures("task", {"base": 0.1, "student": 0.6, "teacher": 0.9}),
        ),
    )


SAMPLES = (
    Sample(
        prompt=[{"role": "user", "content": "What is the word for <3>?"}],
        teacher="amber delta",
        base="ġġ ffffff",
        student="amber delta",
    ),
    Sample(
        prompt=[
            {"role": "system", "content": "Answer in two words."},
            {"role": "user", "content": "And for 12?\nPlease."},
        ],
        teacher="ember birch",
        base="",
        student="ember cedar",
    ),
)

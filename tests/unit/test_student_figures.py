"""Figures and their intervals: what they promise holds, on numbers whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.student.figures import MEASURES, Part, Who, figures_of

SEED = 0


def named(count: int) -> list[str]:
    """Return different prompts."""
    return [f"prompt {number}" for number in range(count)]


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Of 200 samples from a known share, nearly 95 in 100 intervals hold it."""
    chance = np.random.default_rng(1)
    held = 0
    for trial in range(200):
        parts = [Part(float(hit)) for hit in chance.random(80) < 0.4]
        (figure,) = figures_of("exact-match", {"student": parts}, named(80), trial)
        held += float(figure.low or 9) <= 0.4 <= float(figure.high or 0)

    assert 180 <= held <= 198


def test_more_prompts_are_surer() -> None:
    """The same spread over four times as many prompts makes the interval half as wide."""
    widths: list[float] = []
    for count in (50, 200):
        parts = [Part(float(number % 2)) for number in range(count)]
        (figure,) = figures_of("exact-match", {"student": parts}, named(count), SEED)
        widths.append(float(figure.high or 0) - float(figure.low or 0))

    assert widths[0] / widths[1] == pytest.approx(2, rel=0.2)


def test_rows_that_ask_the_same_are_one_unit() -> None:
    """A row that is copied makes nothing surer."""
    parts = [Part(float(number % 3 == 0)) for number in range(30)]
    (once,) = figures_of("exact-match", {"student": parts}, named(30), SEED)
    (four,) = figures_of("exact-match", {"student": parts * 4}, named(30) * 4, SEED)

    assert (once.value, once.low, once.high) == (four.value, four.low, four.high)
    assert (once.rows, four.rows) == (30, 120)


def test_a_gain_is_paired() -> None:
    """Where the student is better on every row by the same, the gain has no width."""
    base = [Part(float(number)) for number in range(20)]
    student = [Part(float(number) - 3) for number in range(20)]
    made = {one.of: one for one in figures_of("loss", both(base, student), named(20), SEED)}
    gain = made["gain"]

    assert (gain.value, gain.low, gain.high) == ("-3.0000", "-3.0000", "-3.0000")
    assert float(made["base"].high or 0) - float(made["base"].low or 0) > 2


def both(base: list[Part], student: list[Part]) -> dict[Who, list[Part]]:
    """Return the parts of base and student by whose they are."""
    return {"base": base, "student": student}


def test_a_share_that_never_varied_is_still_unsure() -> None:
    """20 of 20 right says at least 83 in 100, not that nothing can go wrong."""
    (all_right,) = figures_of("exact-match", {"student": [Part(1.0)] * 20}, named(20), SEED)
    (none,) = figures_of("exact-match", {"student": [Part(0.0)] * 20}, named(20), SEED)

    assert (all_right.low, all_right.high) == ("0.8316", "1.0000")
    assert (none.low, none.high) == ("0.0000", "0.1684")


def test_a_gain_between_two_that_never_varied_is_as_unsure_as_they_are() -> None:
    """From none right to all right is not a gain without an interval."""
    parts = both([Part(0.0)] * 20, [Part(1.0)] * 20)
    gain = figures_of("stop-rate", parts, named(20), SEED)[-1]

    assert (gain.of, gain.value) == ("gain", "1.0000")
    assert (gain.low, gain.high) == ("0.6631", "1.0000")


def test_a_metric_that_says_yes_or_no_is_a_share() -> None:
    """A task metric of ones and noughts is as unsure as any share; another one is no share."""
    (right,) = figures_of("task", {"student": [Part(1.0)] * 20}, named(20), SEED)
    (scored,) = figures_of("task", {"student": [Part(0.5)] * 20}, named(20), SEED)

    assert (right.low, right.high) == ("0.8316", "1.0000")
    assert (scored.low, scored.high) == ("0.5000", "0.5000")


def test_one_prompt_has_no_interval() -> None:
    """From one prompt nobody can tell how sure a figure is."""
    (figure,) = figures_of("loss", {"student": [Part(2.0), Part(4.0)]}, ["same"] * 2, SEED)

    assert (figure.value, figure.low, figure.high) == ("3.0000", None, None)


def test_long_rows_weigh_more_in_a_loss_a_token() -> None:
    """A figure is a sum over a sum, not a mean of means."""
    parts = [Part(10.0, 1), Part(90.0, 99)]
    (figure,) = figures_of("loss", {"student": parts}, named(2), SEED)

    assert figure.value == "1.0000"


def test_the_same_seed_gives_the_same_figures() -> None:
    """Whoever evaluates again with the same seed reads the same numbers."""
    parts = [Part(float(number % 7)) for number in range(40)]

    def made(seed: int) -> object:
        return figures_of("loss", {"student": parts}, named(40), seed)

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_every_measure_says_what_it_measures() -> None:
    """A reader needs no other page to know what a number means, and which way is better."""
    for name, measure in MEASURES.items():
        assert measure.name == name
        assert measure.says
        assert measure.better in {"lower", "higher", "near-one"}

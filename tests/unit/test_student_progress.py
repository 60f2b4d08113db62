"""What is kept and shown of a run: nothing is lost, nothing is made up."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from gateway.errors import MissingPieceError
from gateway.student.progress import (
    HeldOutLoss,
    Metrics,
    Screen,
    Step,
    memory_of_process,
    read_held_out,
    read_metrics,
    smoothed,
    trend,
)
from gateway.student.recipe import Recipe, recipe_for


def a_step(number: int, *, loss: float = 2.0) -> Step:
    """Return one step of a run that reads 100 tokens a second."""
    return Step(
        step=number,
        loss=loss,
        learning_rate=0.1,
        gradient_norm=1.0,
        accuracy=0.5,
        tokens=100 * number,
        seconds=float(number),
    )


def test_a_resumed_run_forgets_steps_after_its_checkpoint(tmp_path: Path) -> None:
    """Steps that were made after the checkpoint are made again, and stand once."""
    path = tmp_path / "metrics.jsonl"
    first = Metrics(path)
    for number in range(1, 6):
        first.add(a_step(number))
    first.close()

    again = Metrics(path, resumed_at=3)
    again.add(a_step(4))
    again.close()

    assert [step.step for step in read_metrics(path)] == [1, 2, 3, 4]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    """A line that was cut off while it was written is no step."""
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path)
    metrics.add(a_step(1))
    metrics.close()
    path.write_bytes(path.read_bytes() + b'{"step": 2, "lo')

    assert [step.step for step in read_metrics(path)] == [1]


def test_a_line_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    """A file that somebody changed says which line, and what to do."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"nonsense\n{}\n")

    with pytest.raises(MissingPieceError, match=r"metrics\.jsonl:1"):
        read_metrics(path)


def test_smoothing_keeps_what_is_level() -> None:
    """A level loss stays level, from one side and from both."""
    level = [3.0] * 10

    assert smoothed(level) == pytest.approx(level)
    assert trend(level) == pytest.approx(level)
    assert smoothed([]) == []


def test_a_log_file_holds_plain_lines() -> None:
    """Where there is no terminal, a bounded number of lines tells loss, speed and the rest."""
    written = io.StringIO()
    screen = Screen(Console(file=written, width=100, highlight=False))
    screen.begin(100)
    for number in range(1, 101):
        screen.step(a_step(number))
    screen.end()
    lines = written.getvalue().splitlines()

    assert len(lines) <= 22
    assert lines[-1] == "step   100/100  loss 2.000  100 tok/s  0:00 left"
    assert "\x1b" not in written.getvalue()


def test_what_is_measured_stands_beside_the_steps(tmp_path: Path) -> None:
    """The loss on held-out rows is a line of its own; a resumed run measures it again."""
    path = tmp_path / "metrics.jsonl"
    first = Metrics(path)
    for number in range(1, 5):
        first.add(a_step(number))
        first.measure(HeldOutLoss(step=number, held_out_loss=number / 10, rows=7))
    first.close()
    again = Metrics(path, resumed_at=2)
    again.close()

    assert [step.step for step in read_metrics(path)] == [1, 2]
    assert [one.held_out_loss for one in read_held_out(path)] == [0.1, 0.2]


def test_a_log_file_tells_held_out_loss_and_memory() -> None:
    """What is measured is said at once, and stands in the lines that follow."""
    written = io.StringIO()
    screen = Screen(Console(file=written, width=120, highlight=False))
    screen.begin(4)
    screen.measure(HeldOutLoss(step=2, held_out_loss=3.25, rows=7))
    screen.step(msgspec.structs.replace(a_step(3), memory=2_500_000_000, round=2))
    screen.end()

    assert "held-out loss 3.250 over 7 rows" in written.getvalue()
    assert "held-out 3.250  100 tok/s  2.5 GB  round 2" in written.getvalue()


def test_a_process_knows_what_it_holds() -> None:
    """Memory is bytes, not pages and not kilobytes."""
    assert 10_000_000 < memory_of_process() < 1 << 40


def test_a_terminal_shows_one_block() -> None:
    """On a terminal one live block tells loss, speed and the rest, and is taken down."""
    written = io.StringIO()
    screen = Screen(Console(file=written, width=100, force_terminal=True))
    screen.begin(3)
    for number in range(1, 4):
        screen.step(a_step(number))
    screen.end()

    assert "3/3" in written.getvalue()
    assert "loss 2.000" in written.getvalue()


def test_what_is_learned_stands_in_marks() -> None:
    """The example shows which words are learned even without colours."""
    written = io.StringIO()
    screen = Screen(Console(file=written, width=100, highlight=False))
    screen.show_example([("say\n", False), ("yes[/]", True)])

    assert "⟦yes[/]⟧" in written.getvalue()


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0.0}, {"steps": 0}, {"batch": 0}, {"learning_rate": 2.0}, {"max_length": 1}],
)
def test_a_recipe_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    """Numbers that no run can be made with don't make a recipe."""
    good = msgspec.structs.asdict(recipe_for("tiny"))

    with pytest.raises(ValueError):
        Recipe(**(good | wrong))


def test_steps_follow_from_rows() -> None:
    """Three readings of 300 rows by 16 are 57 updates; named steps rule over readings."""
    assert recipe_for("tiny").steps_for(300) == 57
    assert recipe_for("tiny", steps=5).steps_for(300) == 5
    assert recipe_for("tiny").steps_for(1) == 3

"""What is drawn, refused and counted when a student is asked; models here are plain tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.canonical import canonical_json
from gateway.cli.main import main
from gateway.errors import CallerError, GateRefusedError
from gateway.student.evaluate import (
    Asking,
    Drawn,
    Examinee,
    Heard,
    Read,
    draw,
    examine,
    load_metric,
)
from gateway.student.figures import Evaluation, Who
from gateway.student.likeness import answer_of, prompt_of


def a_row(number: int, answer: str = "amber") -> dict[str, Any]:
    """Return one conversation."""
    return {
        "messages": [
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "content": answer},
        ]
    }


def a_pair(number: int) -> dict[str, Any]:
    """Return one prompt with a better and a worse answer."""
    return {
        "prompt": [{"role": "user", "content": f"question {number}"}],
        "chosen": [{"role": "assistant", "content": "amber"}],
        "rejected": [{"role": "assistant", "content": "birch"}],
    }


def lines(*rows: Mapping[str, Any]) -> list[bytes]:
    """Return *rows* as lines of a dataset."""
    return [canonical_json(dict(row)) for row in rows]


@dataclass(frozen=True)
class Table:
    """A model that finds each answer as unlikely as it is told, and always says the same."""

    says: str
    losses: Mapping[str, float]
    short: int = 10**6
    """Rows beyond this place are too long for it."""

    def read(
        self, rows: Sequence[Mapping[str, Any]], tick: Callable[[], None]
    ) -> list[Read | None]:
        """Return its loss on each answer."""
        return [
            Read(loss=self.losses[answer_of(row)["content"]], tokens=2, agreed=1, bytes=5)
            if at < self.short
            else None
            for at, row in enumerate(rows)
        ]

    def answer(
        self, rows: Sequence[Mapping[str, Any]], tick: Callable[[], None]
    ) -> list[Heard | None]:
        """Return what it always says."""
        return [
            Heard(
                text=self.says,
                tokens=3,
                stopped=self.says != "",
                reference=answer_of(row)["content"],
                reference_tokens=2,
            )
            if at < self.short
            else None
            for at, row in enumerate(rows)
        ]


BASE = Table("", {"amber": 8.0, "birch": 8.0})
STUDENT = Table("amber", {"amber": 2.0, "birch": 6.0})


def asked(drawn: Drawn | None, student: Table = STUDENT) -> Evaluation:
    """Return the evaluation of *student* beside the base."""
    assert drawn is not None
    tables: dict[Who, Table] = {"base": BASE, "student": student}

    def examinee(table: Table) -> Callable[[], Examinee]:
        return lambda: table

    return examine(drawn, {who: examinee(table) for who, table in tables.items()}).evaluation


def value(evaluation: Evaluation, measure: str, of: Who) -> float | None:
    """Return one figure."""
    figure = evaluation.figure(measure, of)
    return None if figure is None else float(figure.value)


def test_rows_are_drawn_by_the_seed_whatever_their_order() -> None:
    """The same rows in another order are the same draw; another seed is another one."""
    rows = [a_row(number) for number in range(50)]
    some = Asking(rows=10)
    first, again = draw(lines(*rows), [], some), draw(lines(*reversed(rows)), [], some)
    other = draw(lines(*rows), [], some, seed=1)

    assert first is not None
    assert other is not None
    assert again is not None
    assert (first.of, len(first.rows)) == (50, 10)
    assert first.rows == again.rows
    assert first.sha256 == again.sha256 != other.sha256


def test_nothing_held_out_is_nothing_to_ask() -> None:
    """Where no row is held out there is no draw, and no figure is made up."""
    assert draw([], [a_row(1)], Asking()) is None


def test_rows_that_are_learned_are_not_asked() -> None:
    """Held-out rows that stand among the learned ones end it, with their number."""
    rows = [a_row(number) for number in range(20)]

    with pytest.raises(GateRefusedError, match="2 of 20 held-out rows") as refused:
        draw(lines(*rows), [a_row(3), a_row(4), a_row(99)], Asking())

    assert refused.value.problem == "student.contaminated"


def test_what_little_overlap_there_is_stands_beside_the_figures() -> None:
    """One of two hundred may be there but for a mark; it is counted."""
    rows = [a_row(number) for number in range(200)]
    like = said_otherwise(3, lambda text: text + "?")
    drawn = draw(lines(*rows), [like, *(a_row(900 + n) for n in range(5))], Asking())
    overlap = asked(drawn).overlap

    assert (overlap.rows, overlap.compared) == (1, 6)


@pytest.mark.parametrize(
    "how", [str, str.upper, lambda text: f"\n {text.replace(' ', '  ')}\t"]
)
def test_no_copy_of_a_prompt_is_asked_however_few_there_are(how: Callable[[str], str]) -> None:
    """One of two hundred whose prompt is learned ends it, however it is written."""
    rows = [a_row(number) for number in range(200)]

    with pytest.raises(GateRefusedError, match="1 of 200 held-out rows") as refused:
        draw(lines(*rows), [said_otherwise(3, how)], Asking())

    assert refused.value.problem == "student.contaminated"


def said_otherwise(number: int, how: Callable[[str], str]) -> dict[str, Any]:
    """Return a row whose last question is written in another way, and answered otherwise."""
    row = a_row(number)
    row["messages"][-2]["content"] = how(row["messages"][-2]["content"])
    row["messages"][-1]["content"] = "something else"
    return row


def test_base_student_and_gain_stand_side_by_side() -> None:
    """Each measure has base, student and gain; nobody measures the teacher against itself."""
    evaluation = asked(draw(lines(*(a_row(number) for number in range(20))), [], Asking()))

    assert value(evaluation, "loss", "base") == 4.0
    assert value(evaluation, "loss", "student") == 1.0
    assert value(evaluation, "loss", "gain") == -3.0
    assert value(evaluation, "exact-match", "student") == 1.0
    assert value(evaluation, "stop-rate", "base") == 0.0
    assert value(evaluation, "length-ratio", "student") == 1.5
    assert value(evaluation, "label-agreement", "student") == 1.0
    assert value(evaluation, "loss", "teacher") is None
    assert evaluation.rows == evaluation.prompts == evaluation.of == 20


def test_pairs_are_measured_by_which_side_is_likelier() -> None:
    """Where rows are pairs, accuracy and margin are there; the base moved nothing."""
    evaluation = asked(draw(lines(*(a_pair(number) for number in range(10))), [], Asking()))

    assert value(evaluation, "pair-accuracy", "base") == 0.0
    assert value(evaluation, "pair-accuracy", "student") == 1.0
    assert value(evaluation, "reward-margin", "student") == 4.0
    assert value(evaluation, "reward-accuracy", "student") == 1.0


def test_rows_that_do_not_fit_are_counted_and_left_out_for_all() -> None:
    """A row that one of them can't read is compared for neither."""
    drawn = draw(lines(*(a_row(number) for number in range(10))), [], Asking())
    evaluation = asked(drawn, Table("amber", {"amber": 2.0}, short=7))

    assert (evaluation.rows, evaluation.left_out) == (7, 3)
    base = evaluation.figure("loss", "base")
    assert base is not None
    assert base.rows == 7


def test_a_student_that_can_read_nothing_is_not_evaluated() -> None:
    """No figure is computed from no row."""
    drawn = draw(lines(a_row(1)), [], Asking())

    with pytest.raises(GateRefusedError, match="no held-out row fits"):
        asked(drawn, Table("amber", {"amber": 2.0}, short=0))


def test_a_task_metric_speaks_for_all_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of the caller's scores base, student and teacher by the same rule."""
    (tmp_path / "our_metric.py").write_text(
        "def vowels(prompt, answer, reference):\n"
        "    assert prompt[-1]['role'] == 'user'\n"
        "    return sum(answer.count(v) for v in 'aeiou')\n"
    )
    monkeypatch.chdir(tmp_path)
    rows = [a_row(number, "aerie") for number in range(12)]
    student = Table("amber", {"aerie": 2.0})
    drawn = draw(lines(*rows), [], Asking(metric="our_metric:vowels"))
    assert drawn is not None
    base = Table("", {"aerie": 8.0})
    made = examine(drawn, {"base": lambda: base, "student": lambda: student}).evaluation

    assert made.metric == "our_metric:vowels"
    assert value(made, "task", "base") == 0
    assert value(made, "task", "student") == 2
    assert value(made, "task", "teacher") == 4


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere_at_all:score", "No module named"),
        ("math:nothing", "no attribute"),
        ("math", "not `module:function`"),
        ("math:pi", "is no function"),
    ],
)
def test_a_metric_that_is_not_there_is_said_before_anything_is_loaded(
    name: str, why: str
) -> None:
    """A name that leads to no function is an error of the caller, in one line."""
    with pytest.raises(CallerError, match=why) as refused:
        load_metric(name)

    assert refused.value.problem == "student.metric"


@pytest.mark.parametrize(
    "body",
    [
        "raise KeyError('x')",
        "raise type('Odd', (Exception,), {})('one\\nmore')",
        "return float('nan')",
        "return 'no'",
        "return 1 +",
    ],
)
def test_a_metric_that_fails_is_named(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails in somebody's function is said as theirs, before anything is learned."""
    module = f"metric_{abs(hash(body))}"
    (tmp_path / f"{module}.py").write_text(
        f"def score(prompt, answer, reference):\n    {body}\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CallerError, match=r"the metric|no metric") as failed:
        draw(lines(a_row(1)), [], Asking(metric=f"{module}:score"))

    assert "\n" not in str(failed.value)


def test_a_metric_that_fails_on_a_students_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes well for the teacher and not for a student ends it too."""
    (tmp_path / "narrow_metric.py").write_text(
        "def score(prompt, answer, reference):\n    return {'amber': 1}[answer]\n"
    )
    monkeypatch.chdir(tmp_path)
    drawn = draw(lines(a_row(1)), [], Asking(metric="narrow_metric:score"))

    with pytest.raises(CallerError, match="KeyError"):
        asked(drawn)


def test_samples_are_rows_that_were_asked() -> None:
    """The samples hold prompt, teacher, base and student of as many rows as were wanted."""
    drawn = draw(lines(*(a_row(number) for number in range(9))), [], Asking(samples=2))
    assert drawn is not None
    samples = examine(drawn, {"base": lambda: BASE, "student": lambda: STUDENT}).samples

    assert [one.prompt for one in samples] == [prompt_of(row) for row in drawn.rows[:2]]
    assert {(one.teacher, one.base, one.student) for one in samples} == {("amber", "", "amber")}


def test_a_page_that_can_not_be_written_is_said_before_anybody_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An evaluation takes long; what would be lost at its end is refused at its beginning."""
    for place in (tmp_path, tmp_path / "nowhere" / "page.html"):
        assert main(["student", "evaluate", str(tmp_path), "--html", str(place)]) == 3
        assert f"`{place}` can't be written" in capsys.readouterr().err

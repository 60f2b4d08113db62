"""The engine learns exactly the token rows it is given, and a resumed run is the same run."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.clock import SystemClock
from gateway.errors import GateError, GateRefusedError
from gateway.ident import Sha256
from gateway.student.corpus import IGNORED, Corpus, Shape, TokenRow, all_texts, tokenise
from gateway.student.course import Course, RowsFile, order_of, pool_of
from gateway.student.offline import seal_off
from gateway.student.progress import Metrics, Step
from gateway.student.recipe import Lora, Recipe, recipe_for
from tests.support.student import Quiet, a_row, answer

pytestmark = [pytest.mark.student, pytest.mark.timeout(240)]

ROWS = 24


def a_pair(number: int) -> dict[str, Any]:
    """Return a question with the right answer and another one."""
    asked, answered = a_row(number)["messages"]
    other = {"role": "assistant", "content": answer(number + 5)}
    return {"prompt": [asked], "chosen": [answered], "rejected": [other]}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a tiny tokenizer."""
    seal_off()
    # Imported here, after collection: it loads the training libraries.
    from gateway.student.tiny import tiny_tokenizer  # noqa: PLC0415

    return tiny_tokenizer(all_texts(map(a_row, range(ROWS))))


def course_of(
    folder: Path, tokenizer: Any, recipe: Recipe, steps: int, *, held_out: int = 0
) -> Course:
    """Write token rows into *folder* and return the course over them."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(folder, tokenizer, Shape(recipe.objective, 96, recipe.packing))
    make = a_pair if recipe.objective == "dpo" else a_row
    for number in range(ROWS):
        corpus.take(make(number), f"x-{number}/0", held_out=number < held_out)
    tokens = corpus.close()
    files = [RowsFile(path=str(f.path), sha256=f.sha256, units=f.units) for f in tokens.files]
    return Course(
        rows=tuple(files[:1]),
        held_out=files[1] if held_out else None,
        step_count=steps,
        batch=recipe.batch,
        folder=str(folder / "checkpoints"),
        snapshot=tokens.sha256,
        recipe=recipe,
        recipe_sha256=Sha256("r"),
        tokenizer=str(folder / "tokenizer"),
    )


def learn(
    course: Course, tokenizer: Any, *, stop_at: int | None = None, **crew: Any
) -> list[Step]:
    """Learn *course*, from its last checkpoint on; return all steps of its metrics."""
    from gateway.student import engine  # noqa: PLC0415  # after the seal

    begin = engine.last_checkpoint(course)
    screen = Quiet(stop_at=stop_at)
    metrics = Metrics(
        Path(course.folder).parent / "metrics.jsonl", resumed_at=begin.step if begin else 0
    )
    try:
        engine.learn(
            course,
            begin,
            tokenizer,
            engine.Crew(
                clock=SystemClock(), stop=screen.stop, metrics=metrics, screen=screen, **crew
            ),
        )
    finally:
        metrics.close()
    return metrics.steps


KINDS: Mapping[str, dict[str, Any]] = {
    "answers": {},
    "packed": {"packing": True, "batch": 2},
    "adapter": {"lora": Lora(rank=4)},
    "accumulated": {"rows_at_once": 2},
    "pairs": {"objective": "dpo", "batch": 4},
    "pairs-adapter": {"objective": "dpo", "batch": 4, "lora": Lora(rank=4)},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_takes_the_very_same_steps(
    tokenizer: Any, tmp_path: Path, kind: str
) -> None:
    """Cut off after any step and resumed, a run of any kind has the losses it would have had."""
    recipe = recipe_for("tiny", **({"batch": 8, "save_every": 3} | KINDS[kind]))
    whole = learn(course_of(tmp_path / "whole", tokenizer, recipe, 5), tokenizer)
    course = course_of(tmp_path / "cut", tokenizer, recipe, 5)
    cut = learn(course, tokenizer, stop_at=3)
    resumed = learn(course, tokenizer)

    assert len(cut) in {3, 4}
    assert [(s.step, s.loss, s.tokens) for s in whole] == [
        (s.step, s.loss, s.tokens) for s in resumed
    ]
    assert [step.step for step in whole] == [1, 2, 3, 4, 5]

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
from gateway.student.progress import Metrics, Step, read_held_out
from gateway.student.recipe import Lora, Recipe, recipe_for
from tests.support.student import Quiet, a_row, answer

pytestmark = pytest.mark.student

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
    "accumulated": {"rows_at_once": 2, "keep": 1},
    "pairs": {"objective": "dpo", "batch": 4},
    "pairs-adapter": {"objective": "dpo", "batch": 4, "lora": Lora(rank=4)},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_takes_the_very_same_steps(
    tokenizer: Any, tmp_path: Path, kind: str
) -> None:
    """Cut off and resumed, a run of any kind has the losses it would have had, to the bit."""
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
    kept = sorted(path.name for path in tmp_path.glob("whole/checkpoints/checkpoint-*"))
    assert kept == ["checkpoint-3", "checkpoint-5"][-recipe.keep :]


def test_the_engine_makes_the_steps_of_a_plain_loop(tokenizer: Any, tmp_path: Path) -> None:
    """The loss of each step is that of twenty lines of PyTorch over the same rows, to 1e-5."""
    import torch  # noqa: PLC0415  # after the seal

    from gateway.student.tiny import tiny_model  # noqa: PLC0415  # as above

    recipe = recipe_for("tiny", batch=8, learning_rate=1e-3)
    course = course_of(tmp_path, tokenizer, recipe, 6)
    steps = learn(course, tokenizer)

    rows = [tokenise(a_row(number), tokenizer, 96) for number in range(ROWS)]
    order = order_of(course, ROWS)
    plain = tiny_model(tokenizer, 0)
    optimiser = torch.optim.AdamW(plain.parameters(), weight_decay=0.0)
    losses = []
    for number, step in enumerate(steps):
        batch = [rows[place] for place in order[8 * number : 8 * number + 8]]
        ids, labels, mask = padded(batch, tokenizer.pad_token_id)
        optimiser.param_groups[0]["lr"] = step.learning_rate
        logits = plain(input_ids=ids, attention_mask=mask).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]),
            labels[:, 1:].reshape(-1),
            ignore_index=IGNORED,
        )
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimiser.step()

    assert losses == pytest.approx([step.loss for step in steps], abs=1e-5)


def padded(rows: list[TokenRow], pad: int) -> tuple[Any, Any, Any]:
    """Return ids, labels and mask of *rows* as tensors of one length."""
    import torch  # noqa: PLC0415  # after the seal

    longest = max(row.tokens for row in rows)
    ids = torch.tensor([row.input_ids + [pad] * (longest - row.tokens) for row in rows])
    labels = torch.tensor([row.labels + [IGNORED] * (longest - row.tokens) for row in rows])
    mask = torch.tensor([[int(at < row.tokens) for at in range(longest)] for row in rows])
    return ids, labels, mask


def test_documents_of_a_pack_do_not_see_each_other(tokenizer: Any, tmp_path: Path) -> None:
    """The loss over packs is the loss over their documents one by one; leaks would move it."""
    packs = recipe_for("tiny", batch=5, packing=True)
    singly = recipe_for("tiny", batch=ROWS)
    together = course_of(tmp_path / "packs", tokenizer, packs, 1)
    assert together.rows[0].units == 5
    apart = course_of(tmp_path / "apart", tokenizer, singly, 1)

    (packed_step,) = learn(together, tokenizer)
    (single_step,) = learn(apart, tokenizer)

    assert packed_step.loss == pytest.approx(single_step.loss, abs=1e-5)
    assert packed_step.gradient_norm == pytest.approx(single_step.gradient_norm, rel=1e-4)
    assert packed_step.tokens == single_step.tokens


def test_rows_at_once_do_not_change_an_update(tokenizer: Any, tmp_path: Path) -> None:
    """An update in portions is the same update; held-out rows are measured by the token."""
    losses, measured = [], []
    for at_once in (8, 2):
        recipe = recipe_for("tiny", batch=8, rows_at_once=at_once, measure_every=2)
        folder = tmp_path / str(at_once)
        course = course_of(folder, tokenizer, recipe, 4, held_out=5)
        losses.append([step.loss for step in learn(course, tokenizer)])
        measured.append(
            [(one.step, one.held_out_loss) for one in read_held_out(folder / "metrics.jsonl")]
        )

    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert [step for step, _ in measured[0]] == [2, 4]
    assert [loss for _, loss in measured[0]] == pytest.approx(
        [loss for _, loss in measured[1]], abs=1e-5
    )


def test_pairs_are_learned_from_the_rows_of_the_gate(tokenizer: Any, tmp_path: Path) -> None:
    """The trainer of pairs gets our token rows untouched, under the names we rely on."""
    from trl import DPOTrainer, SFTTrainer  # noqa: PLC0415  # after the seal

    for trainer in (DPOTrainer, SFTTrainer):
        assert callable(getattr(trainer, "_prepare_dataset", None))
        assert callable(getattr(trainer, "_get_train_sampler", None))
    recipe = recipe_for("tiny", objective="dpo", batch=8, learning_rate=2e-3)
    steps = learn(course_of(tmp_path, tokenizer, recipe, 12), tokenizer)

    # Before the first update student and base are one: no margin, and the loss of a coin.
    assert steps[0].loss == pytest.approx(0.693147, abs=1e-4)
    assert steps[-1].loss < 0.6
    assert (steps[-1].margin or 0) > 0.3
    assert list(tmp_path.glob("cache-*.arrow"))


def test_a_loss_that_is_no_number_ends_the_run(tokenizer: Any, tmp_path: Path) -> None:
    """A run that diverges stops at once and marks no checkpoint."""
    recipe = recipe_for("tiny", batch=8, save_every=1)
    course = course_of(tmp_path, tokenizer, recipe, 4)
    base = tmp_path / "base"
    from gateway.student.tiny import tiny_model  # noqa: PLC0415  # after the seal

    model = tiny_model(tokenizer, 0)
    model.model.norm.weight.data[0] = float("nan")
    model.save_pretrained(base)

    with pytest.raises(GateError, match="no longer a number at step 1"):
        learn(msgspec.structs.replace(course, base=str(base)), tokenizer)

    assert list((tmp_path / "checkpoints").glob("checkpoint-*")) == []


def test_a_run_stops_at_the_checkpoint_where_it_is_told_to(
    tokenizer: Any, tmp_path: Path
) -> None:
    """Whoever is asked at a checkpoint can end the run; that checkpoint is whole and kept."""
    from gateway.student import engine  # noqa: PLC0415  # after the seal

    def still() -> None:
        raise GateRefusedError("withdrawn by grace", code="student.withdrawn")

    course = course_of(tmp_path, tokenizer, recipe_for("tiny", batch=8, save_every=2), 6)
    with pytest.raises(GateRefusedError, match="withdrawn by grace"):
        learn(course, tokenizer, still=still)
    last = engine.last_checkpoint(course)

    assert last is not None
    assert last.step == 2


def test_rounds_bring_a_share_of_earlier_rows_again() -> None:
    """A round reads its own rows and that share of earlier ones, the same ones each time."""
    files = tuple(
        RowsFile(path=f"{number}", sha256=Sha256("0"), units=units)
        for number, units in enumerate((100, 60, 40))
    )
    course = Course(
        rows=files,
        earlier=2,
        round=3,
        step_count=10,
        batch=10,
        folder="",
        snapshot=Sha256("0"),
        recipe=recipe_for("tiny", batch=10, replay=0.2),
        recipe_sha256=Sha256("0"),
        tokenizer="",
    )
    pool = pool_of(course)

    assert list(pool[-40:]) == list(range(160, 200))
    assert len(pool) == 50
    assert len(set(pool)) == 50
    assert pool == pool_of(course)
    order = order_of(course, 50)
    assert sorted(order[:50]) == list(range(50))
    assert len(order) == 100
    assert order != order_of(msgspec.structs.replace(course, round=2), 50)


def test_a_student_can_learn_its_rows_by_heart(tokenizer: Any, tmp_path: Path) -> None:
    """Of 64 rows that were learned long enough, at least 95 % are said word for word."""
    from gateway.student import engine  # noqa: PLC0415  # after the seal
    from gateway.student.generate import Student  # noqa: PLC0415  # as above
    from gateway.student.speech import Question  # noqa: PLC0415  # as above

    recipe = recipe_for("tiny", batch=32, learning_rate=6e-3, save_every=1000)
    corpus = Corpus(tmp_path, tokenizer, Shape("sft", 96))
    for number in range(64):
        corpus.take(a_row(number), f"x-{number}/0")
    (part,) = corpus.close().parts
    course = msgspec.structs.replace(
        course_of(tmp_path / "other", tokenizer, recipe, 260),
        rows=(RowsFile(path=str(part.path), sha256=part.sha256, units=part.units),),
    )
    learn(course, tokenizer)
    last = engine.last_checkpoint(course)
    assert last is not None
    student = Student(last.path)

    said = [
        student.answer(
            Question(messages=a_row(number)["messages"][:1], temperature=0.0),
            lambda _: None,
            threading.Event(),
        ).text
        for number in range(64)
    ]
    right = sum(text == answer(number) for number, text in enumerate(said))
    assert right >= 61

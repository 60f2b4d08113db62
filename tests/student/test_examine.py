"""How a model is asked: figures that a plain forward pass gives, answers that none spoils."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.canonical import canonical_json
from gateway.student.corpus import IGNORED, tokenise
from gateway.student.evaluate import Asking, draw
from gateway.student.offline import seal_off

pytestmark = pytest.mark.student

TEXTS = [
    f"question number {number}: " + "what is it? " * (number % 5 + 1) for number in range(9)
]


def a_row(number: int, answer: str = "it is amber") -> dict[str, Any]:
    """Return one conversation; no two are as long."""
    return {
        "messages": [
            {"role": "user", "content": TEXTS[number]},
            {"role": "assistant", "content": answer + " and so on" * (number % 3)},
        ]
    }


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Return the words of the rows."""
    seal_off()
    # Imported here, after collection: it loads the training libraries.
    from gateway.student.tiny import tiny_tokenizer  # noqa: PLC0415

    return tiny_tokenizer([*TEXTS, "it is amber and so on birch"])


def a_model(tokenizer: Any, seed: int = 0) -> Any:
    """Return a random model that says something."""
    from gateway.student.tiny import tiny_model  # noqa: PLC0415  # training libraries

    return tiny_model(tokenizer, seed)


def unheard() -> None:
    """Count nothing."""


def test_a_loss_is_that_of_a_plain_pass(tokenizer: Any) -> None:
    """Reading the answer alone gives the loss, and the agreement, of the whole logits."""
    import torch  # noqa: PLC0415  # training libraries

    from gateway.student.examine import Transformer  # noqa: PLC0415  # as above

    model = a_model(tokenizer)
    rows = [a_row(number) for number in range(9)]
    for row, read in zip(
        rows, Transformer(model, tokenizer, 512).read(rows, unheard), strict=True
    ):
        tokens = tokenise(row, tokenizer, 512)
        ids, labels = torch.tensor([tokens.input_ids]), torch.tensor(tokens.labels[1:])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits, labels, ignore_index=IGNORED, reduction="sum"
        )
        learned = labels != IGNORED
        assert read is not None
        assert read.loss == pytest.approx(float(loss), rel=1e-5)
        assert read.tokens == tokens.learned
        assert read.agreed == int((logits.argmax(-1) == labels)[learned].sum())
        assert read.bytes == len(row["messages"][-1]["content"])


def test_answers_made_together_are_those_made_alone(tokenizer: Any) -> None:
    """A row is answered alike whoever is answered beside it, however long they are."""
    from gateway.student.examine import Transformer  # noqa: PLC0415  # training libraries

    rows = [a_row(number) for number in range(9)]
    student = Transformer(a_model(tokenizer), tokenizer, 512)
    together = student.answer(rows, unheard)
    alone = [student.answer([row], unheard)[0] for row in rows]

    assert together == alone
    assert all(one is not None and one.reference for one in together)
    references = [row["messages"][-1]["content"] for row in rows]
    assert [one.reference for one in together if one is not None] == references


def test_an_answer_is_cut_at_twice_the_teachers(tokenizer: Any) -> None:
    """A model that never ends is stopped, and counts as one that does not stop."""
    from gateway.student.examine import Transformer  # noqa: PLC0415  # training libraries

    model = a_model(tokenizer)
    # A model that always says its first word.
    model.lm_head.weight.data.zero_()
    heard = Transformer(model, tokenizer, 512).answer([a_row(0)], unheard)[0]

    assert heard is not None
    assert heard.tokens == 2 * heard.reference_tokens + 16
    assert not heard.stopped


def test_a_row_that_is_too_long_is_none(tokenizer: Any) -> None:
    """What the student could not have learned is not asked either."""
    from gateway.student.examine import Transformer  # noqa: PLC0415  # training libraries

    rows = [a_row(0), a_row(4)]
    length = len(tokenise(rows[0], tokenizer, 512).input_ids)
    student = Transformer(a_model(tokenizer), tokenizer, length)

    assert [one is not None for one in student.read(rows, unheard)] == [True, False]
    assert [one is not None for one in student.answer(rows, unheard)] == [True, False]


def test_pairs_are_measured_on_both_sides(tokenizer: Any) -> None:
    """The margin of a student is what it moved from its base, chosen over rejected."""
    from gateway.student.examine import Transformer, examine_models  # noqa: PLC0415  # as above

    pairs = [
        {
            "prompt": [{"role": "user", "content": TEXTS[number]}],
            "chosen": [{"role": "assistant", "content": "it is amber"}],
            "rejected": [{"role": "assistant", "content": "it is birch"}],
        }
        for number in range(6)
    ]
    base, student = a_model(tokenizer, 0), a_model(tokenizer, 1)
    drawn = draw(map(canonical_json, pairs), [], Asking())
    assert drawn is not None
    made = examine_models(
        drawn, tokenizer, 512, {"base": lambda: base, "student": lambda: student}
    ).evaluation

    def gap(model: Any) -> float:
        sides = [
            [{"messages": [*pair["prompt"], *pair[side]]} for pair in pairs]
            for side in ("rejected", "chosen")
        ]
        one = Transformer(model, tokenizer, 512)
        rejected, chosen = (one.read(side, unheard) for side in sides)
        return sum(
            r.loss - c.loss for r, c in zip(rejected, chosen, strict=True) if r and c
        ) / len(pairs)

    margin = made.figure("reward-margin", "student")
    assert margin is not None
    assert float(margin.value) == pytest.approx(gap(student) - gap(base), abs=1e-3)
    assert made.figure("pair-accuracy", "base") is not None
    assert made.figure("reward-accuracy", "base") is None

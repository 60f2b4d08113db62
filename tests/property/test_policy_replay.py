"""Laws of asking two libraries the same questions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.library import Library
from gateway.policy.question import Question
from gateway.policy.replay import Pair, Replay, Ruled, Totals, replay
from tests.support.dataset import a_library, a_policy

DAYS = (*(dt.date(2026, month, 15) for month in (1, 5, 9)), dt.date(2028, 1, 1))
POLICIES = ("open", "held", "closed", "narrow", "unsure", "tightened", "loosened", "nobody")
FACTS = {
    "purpose": ("inference", "train", "train.sft", "publish.dataset"),
    "audience": ("internal", "public"),
    "commercial": (True, False),
}

facts = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in FACTS.items()}
)
questions = st.builds(
    Question,
    facts=facts,
    policies=st.lists(st.sampled_from(POLICIES), max_size=3, unique=True).map(tuple),
    model=st.sampled_from([None, "a-model"]),
    on=st.sampled_from(DAYS),
    lifted=st.sampled_from([{}, {("closed", "training"): "an-agreement"}]),
    approves=st.sampled_from([lambda holding: False, lambda holding: True]),
)
streams = st.lists(questions, max_size=12)


@cache
def libraries() -> tuple[Library, ...]:
    """Return libraries that differ in what they say, in whom they know, and in nothing."""
    return (
        a_library(),
        a_library(open=a_policy("open", "forbid"), held=a_policy("held", "permit")),
        a_library(nobody=a_policy("nobody", "permit"), narrow=a_policy("narrow", "hold")),
    )


any_library = st.integers(0, 2).map(lambda place: libraries()[place])


def plainly(question: Question, library: Library) -> Ruled:
    """Return the ruling as it is made once, with nothing remembered."""
    decision = question.ruled(library)
    reasons = tuple((reason.policy, reason.clause) for reason in decision.reasons)
    approved = decision.effect == 1 and question.approves(reasons)
    return Ruled(
        effect=type(decision.effect)(0) if approved else decision.effect, reasons=reasons
    )


@given(streams, any_library)
def test_the_same_library_changes_nothing(asked: list[Question], library: Library) -> None:
    """Whatever is asked, a library agrees with itself."""
    totals = Totals()

    assert [] == list(replay(enumerate(asked), library, library, totals))
    assert (len(asked), 0) == (totals.asked, totals.changed)


@given(streams, any_library, any_library)
def test_every_question_is_counted_once(
    asked: list[Question], before: Library, after: Library
) -> None:
    """What changes and what doesn't add up to what was asked."""
    totals = Totals()

    changes = list(replay(enumerate(asked), before, after, totals))

    assert len(asked) == totals.asked == sum(totals.as_json().values())
    assert len(changes) == totals.changed
    assert all(pair.changes for _, pair in changes)


@given(streams, any_library, any_library)
def test_what_is_remembered_changes_no_answer(
    asked: list[Question], before: Library, after: Library
) -> None:
    """Each answer is the one that the question would get alone, in any order."""
    one, other = Replay(before, after), Replay(before, after)

    answers = [one.ask(question) for question in asked]

    assert answers == [other.ask(question) for question in asked[::-1]][::-1]
    for question, pair in zip(asked, answers, strict=True):
        assert pair == Pair(before=plainly(question, before), after=plainly(question, after))


@given(streams, any_library, any_library)
def test_a_change_undone_is_the_change_turned_round(
    asked: list[Question], before: Library, after: Library
) -> None:
    """Replaying the other way finds the same questions, with before and after exchanged."""
    there = dict(replay(enumerate(asked), before, after, Totals()))
    back = dict(replay(enumerate(asked), after, before, Totals()))

    assert {key: Pair(before=one.after, after=one.before) for key, one in there.items()} == back


@given(streams, any_library, any_library)
def test_causes_are_clauses_that_spoke(
    asked: Sequence[Question], before: Library, after: Library
) -> None:
    """A change names at least one clause, and none that led to neither ruling."""
    for _, pair in replay(enumerate(asked), before, after, Totals()):
        assert pair.causes
        assert {*pair.causes} <= {*pair.before.reasons, *pair.after.reasons}

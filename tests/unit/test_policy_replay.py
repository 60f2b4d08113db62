"""Two libraries are asked the same questions, and what differs is told with its clauses."""

from __future__ import annotations

import datetime as dt

from gateway.policy.decide import Facts
from gateway.policy.model import Effect
from gateway.policy.question import Question
from gateway.policy.replay import Pair, Replay, Ruled, Totals, replay
from tests.support.dataset import a_library, a_policy

DAY = dt.date(2026, 5, 1)
TRAINING = Facts({"purpose": "train.sft", "audience": "internal"})


def question(*policies: str, on: dt.date = DAY, facts: Facts = TRAINING) -> Question:
    """Return whether training under *policies* is fine."""
    return Question(facts=facts, policies=policies, model=None, on=on)


def test_a_change_names_what_was_and_what_is() -> None:
    """Both effects and the clauses that led to them stand in the pair."""
    changed = a_library(
        open=a_policy("open", "forbid", when="purpose: train, audience: internal")
    )
    totals = Totals()

    asked = [("a", question("open")), ("b", question("own"))]
    ((key, pair),) = replay(asked, a_library(), changed, totals)

    assert "a" == key
    assert (Effect.PERMIT, Effect.FORBID) == (pair.before.effect, pair.after.effect)
    assert pair.tightens
    assert (("open", "training"),) == pair.causes
    assert {"permit to permit": 1, "permit to forbid": 1} == totals.as_json()


def test_causes_are_what_only_one_ruling_rests_on() -> None:
    """A clause that led to both rulings is no cause while others are."""
    shared, gone, new = ("p", "shared"), ("p", "gone"), ("p", "new")
    before = Ruled(effect=Effect.HOLD, reasons=(gone, shared))
    after = Ruled(effect=Effect.FORBID, reasons=(new, shared))

    assert (gone, new) == Pair(before=before, after=after).causes


def test_a_policy_that_only_stopped_being_heard_is_no_cause() -> None:
    """What permits before and after, and is outvoted on one side, changed nothing."""
    both = Ruled(effect=Effect.PERMIT, reasons=(("host", "may"), ("maker", "may")))
    one = Ruled(effect=Effect.FORBID, reasons=(("maker", "may"),))

    assert (("maker", "may"),) == Pair(before=both, after=one).causes
    assert (("maker", "may"),) == Pair(before=one, after=both).causes


def test_what_a_person_approved_counts_as_permitted() -> None:
    """A hold whose clauses were all answered with yes is a permit; another hold is not."""
    changed = a_library(held=a_policy("held", "hold").replace("id: training", "id: others"))
    approved = Question(
        facts=TRAINING,
        policies=("held",),
        model=None,
        on=DAY,
        approves=lambda holding: set(holding) <= {("held", "training")},
    )

    pair = Replay(a_library(), changed).ask(approved)

    assert (Effect.PERMIT, Effect.HOLD) == (pair.before.effect, pair.after.effect)


def test_each_day_has_its_own_policies() -> None:
    """Questions of days before and after a turn get their own answers, in any order."""
    library = a_library()
    days = [dt.date(2026, 6, 30), dt.date(2026, 7, 1), dt.date(2026, 6, 30)]

    one = Replay(library, library)

    effects = [one.ask(question("tightened", on=day)).before.effect for day in days]
    assert [Effect.PERMIT, Effect.FORBID, Effect.PERMIT] == effects


def test_a_policy_past_its_review_holds_from_the_next_day() -> None:
    """The last day of a review and the day after are told apart."""
    library = a_library()
    one = Replay(library, library)

    days = [dt.date(2099, 12, 1), dt.date(2099, 12, 2)]
    effects = [one.ask(question("open", on=day)).after.effect for day in days]

    assert [Effect.PERMIT, Effect.HOLD] == effects


def test_a_policy_that_a_library_lacks_forbids() -> None:
    """Where only one library knows a policy, the other allows nothing."""
    more = a_library(nobody=a_policy("nobody", "permit"))

    pair = Replay(more, a_library()).ask(question("nobody"))

    assert (Effect.PERMIT, Effect.FORBID) == (pair.before.effect, pair.after.effect)
    assert ("nobody", "no-policy") in pair.causes


def test_a_lifted_clause_is_lifted_in_both() -> None:
    """What an agreement lifts permits, and is never remembered for those without one."""
    library = a_library()
    lifted = Question(
        facts=TRAINING,
        policies=("closed",),
        model=None,
        on=DAY,
        lifted={("closed", "training"): "permission-1"},
    )
    one = Replay(library, library)

    effects = [one.ask(asked).after.effect for asked in (lifted, question("closed"), lifted)]

    assert [Effect.PERMIT, Effect.FORBID, Effect.PERMIT] == effects


def test_the_terms_of_the_model_that_answered_bind_as_well() -> None:
    """A host that passes a question on brings in another model's terms."""
    files = a_policy("open", "permit").replace("clauses:", "with_model_terms: true\nclauses:")
    library = a_library(open=files, **{"unlisted-model": a_policy("unlisted-model", "hold")})
    library.models["listed"] = ("own",)  # type: ignore[index] # a dict in this test
    asked = Question(facts=TRAINING, policies=("open",), model="listed", on=DAY)
    passed_on = Question(
        facts=TRAINING, policies=("open",), model="listed", reported=("other",), on=DAY
    )

    one = Replay(library, library)

    assert Effect.PERMIT is one.ask(asked).after.effect
    assert Effect.HOLD is one.ask(passed_on).after.effect


def test_what_is_remembered_has_a_bound() -> None:
    """Past the bound everything is forgotten, and the answers stay the same."""
    library = a_library()
    one = Replay(library, library, remembered_max=3)
    names = ("open", "held", "closed", "narrow") * 3

    effects = [one.ask(question(name)).after.effect for name in names]

    assert [Effect.PERMIT, Effect.HOLD, Effect.FORBID, Effect.PERMIT] * 3 == effects
    assert one._remembered <= 3

"""Every reason for which the gate leaves something out, shown once on a real ledger."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from gateway.dataset.assembly.build import EmptyDatasetError
from gateway.dataset.calls import Call
from gateway.dataset.gate.refusals import REFUSALS
from gateway.dataset.ruling import PolicyLaw
from gateway.dataset.verification.verify import verify_dataset
from gateway.errors import GateRefusedError, LedgerDamagedError
from gateway.ident import DeclarationId, Sha256
from gateway.intent.model import Declaration
from gateway.policy.library import Library
from gateway.receipt.model import ModelFacts, OutputFacts, Receipt, Scope
from tests.support.dataset import (
    DAY_MS,
    POLICIES,
    TERMS,
    House,
    Kept,
    a_library,
    a_policy,
    left_out,
)
from tests.support.evidence import AGREEMENT, TRUST
from tests.support.house import TRAINING

MID_2026_MS = 1_780_000_000_000
"""A day in May 2026."""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Return a house with an empty ledger."""
    house = House(tmp_path)
    yield house
    house.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"readable": False}, "not-readable"),
        ({"ended": "cut-short-by-caller"}, "not-complete"),
        ({"ended": "provider-failed"}, "provider-error"),
        ({"error": "overloaded_error"}, "provider-error"),
        ({"provider": "closed"}, "terms-forbid-use"),
        ({"provider": "held"}, "terms-hold-use"),
        ({"provider": "watched"}, "waiting-for-review"),
        ({"policies": ("unheard-of",)}, "no-policy"),
        ({"outputs": ()}, "row.empty"),
        ({"manifest": Sha256("a" * 64)}, "parent-unresolved"),
    ],
)
def test_an_exchange_is_left_out_for_its_reason(
    house: House, changes: dict[str, Any], reason: str
) -> None:
    """What may not be learned from is left out, listed under a code, and the rest is built."""
    declaration = house.declare()
    house.answer(declaration)
    house.answer(declaration, "not this one", **changes)

    built = house.build(declaration)

    assert [reason] == left_out(built.folder)
    assert verify_dataset(built.folder, TRUST).rows == 1


@pytest.mark.parametrize(
    ("kind", "size", "finish", "reason"),
    [
        ("refusal", 9, "stop", "row.refused"),
        ("text", 9, "refusal", "row.refused"),
        ("text", 9, "content_filter", "row.filtered"),
        ("text", 9, "length", "row.truncated"),
        ("text", 9, "max_tokens", "row.truncated"),
        ("text", 0, "stop", "row.empty"),
        ("reasoning", 9, "stop", "row.empty"),
        ("text", 9, "stop", "row.not-text"),
    ],
)
def test_a_choice_without_a_row_says_why(
    house: House, kind: Any, size: int, finish: str, reason: str
) -> None:
    """Where the receipt commits to no row, the receipt also shows the reason."""
    declaration = house.declare()
    house.answer(declaration)
    house.answer(
        declaration,
        outputs=(OutputFacts(choice=0, kind=kind, bytes=size),),
        finish_reasons=(finish,),
    )

    assert [reason] == left_out(house.build(declaration).folder)


def test_plain_use_never_becomes_training(house: House) -> None:
    """An output that was declared for plain use stays out, whoever declares it anew."""
    house.answer(house.declare("inference", student=None))
    declaration = house.declare()
    house.answer(declaration)

    assert left_out(house.build(declaration).folder) == ["not-for-training"]


def test_a_use_is_narrowed_and_never_widened(house: House) -> None:
    """Outputs for `train` serve `train.sft`; outputs for `train.reward` don't."""
    declaration = house.declare("train.sft")
    house.answer(house.declare("train"))
    house.answer(house.declare("train.reward"))

    built = house.build(declaration)

    assert left_out(built.folder) == ["widened-use"]
    assert built.manifest.found.rows == 1


def test_a_narrower_declaration_is_ruled_on_for_what_it_says(house: House) -> None:
    """Another declaration of the project is ruled on for itself, not for the call's own."""
    inside, outside = house.declare(audience="internal"), house.declare(audience="public")
    house.answer(inside, provider="narrow")

    with pytest.raises(EmptyDatasetError) as refused:
        house.build(outside)

    assert refused.value.left_out == {"terms-forbid-use": 1}
    assert house.build(inside).manifest.found.rows == 1


def test_another_project_s_outputs_stay_with_it(house: House) -> None:
    """A declaration opens the outputs of its own project only."""
    house.answer(house.declare(project="other"))
    declaration = house.declare()
    house.answer(declaration)

    assert left_out(house.build(declaration).folder) == ["other-project"]


def test_a_review_opens_or_closes_an_output(house: House) -> None:
    """What waits for a review passes after a yes, and not after a no."""
    declaration = house.declare()
    yes = house.answer(declaration, provider="watched")
    no = house.answer(declaration, provider="watched")
    house.approve(yes)
    house.decline(no)

    built = house.build(declaration)

    assert left_out(built.folder) == ["declined"]
    assert built.manifest.found.rows == 1


def test_a_held_use_passes_with_a_yes_to_the_clause(house: House) -> None:
    """A verdict lets pass exactly the clauses it covers, and the manifest names it."""
    declaration = house.declare()
    house.answer(declaration, provider="held")
    verdict = house.approve(declaration, ("held", "training"))

    (teacher,) = house.build(declaration).manifest.found.teachers

    assert (verdict,) == teacher.verdicts
    assert teacher.effect == "hold"


def test_a_permit_that_can_t_be_decided_holds_until_somebody_says_yes(house: House) -> None:
    """What was not declared and would matter is answered by a verdict on that clause."""
    declaration = house.declare()
    house.answer(declaration, provider="unsure")

    with pytest.raises(EmptyDatasetError) as refused:
        house.build(declaration)
    house.approve(declaration, ("unsure", "training"))

    assert {"terms-hold-use": 1} == refused.value.left_out
    assert 1 == house.build(declaration).manifest.found.rows


def test_a_yes_to_another_clause_does_not_open_it(house: House) -> None:
    """A verdict on other clauses says nothing about this one."""
    declaration = house.declare()
    house.answer(declaration, provider="held")
    house.approve(declaration, ("held", "something-else"))

    with pytest.raises(EmptyDatasetError) as refused:
        house.build(declaration)

    assert refused.value.left_out == {"terms-hold-use": 1}


def test_a_no_to_the_declaration_closes_it(house: House) -> None:
    """After a no, nothing is learned from under that declaration, whatever the terms say."""
    declaration = house.declare()
    house.answer(declaration)
    house.decline(declaration)

    with pytest.raises(EmptyDatasetError) as refused:
        house.build(declaration)

    assert refused.value.left_out == {"declined": 1}


def test_a_withdrawn_output_stays_out(house: House) -> None:
    """A withdrawal of the exchange is the last word, even over a later yes."""
    declaration = house.declare()
    house.answer(declaration)
    gone = house.answer(declaration)
    house.withdraw(exchange=gone.exchange)
    house.approve(gone)

    assert left_out(house.build(declaration).folder) == ["withdrawn"]


def test_outputs_of_a_withdrawn_declaration_stay_out(house: House) -> None:
    """Withdrawing a declaration takes its outputs out of every later dataset."""
    first, second = house.declare(), house.declare(commercial=False)
    house.answer(first)
    house.answer(second)
    house.withdraw(declaration=first.id)

    assert left_out(house.build(second).folder) == ["withdrawn"]


def test_a_withdrawn_declaration_builds_nothing(house: House) -> None:
    """The refusal names who withdrew it."""
    declaration = house.declare()
    house.answer(declaration)
    house.withdraw(declaration=declaration.id)

    with pytest.raises(GateRefusedError, match="withdrawn by grace"):
        house.build(declaration)


def test_an_expired_declaration_builds_nothing(house: House) -> None:
    """After its last day a declaration is cited no more."""
    declaration = house.declare(expires="2026-11-19")
    house.answer(declaration)
    house.clock.move_ms(3 * DAY_MS)

    with pytest.raises(GateRefusedError, match="expired on 2026-11-19"):
        house.build(declaration)


@pytest.mark.parametrize("provider", ["tightened", "loosened"])
def test_both_the_day_of_the_call_and_today_must_permit(house: House, provider: str) -> None:
    """Terms that forbade then, or forbid now, forbid."""
    declaration = house.declare()
    house.clock.move_ms(MID_2026_MS - house.clock.now_ms())
    house.answer(declaration, provider=provider)
    house.clock.move_ms(180 * DAY_MS)
    house.answer(declaration)

    assert left_out(house.build(declaration).folder) == ["terms-forbid-use"]


def test_text_that_was_not_kept_makes_no_row(house: House) -> None:
    """A commitment without its text proves what was said and teaches nothing."""
    declaration = house.declare()
    house.answer(declaration)
    gone = house.answer(declaration)
    del house.texts[gone.exchange]

    assert left_out(house.build(declaration).folder) == ["content-missing"]


def test_text_that_was_erased_makes_no_row(house: House) -> None:
    """Erased is told apart from never kept."""
    declaration = house.declare()
    house.answer(declaration)
    house.texts.erase(house.answer(declaration).exchange)

    assert left_out(house.build(declaration).folder) == ["content-erased"]


def test_text_that_was_swapped_makes_no_row(house: House) -> None:
    """Text that doesn't open the receipt's commitment is not the text that was answered."""
    declaration = house.declare()
    first, second = house.answer(declaration), house.answer(declaration)
    house.texts[second.exchange] = Kept(
        house.texts[second.exchange].salt, house.texts[first.exchange].rows
    )

    assert left_out(house.build(declaration).folder) == ["row-mismatch"]


def test_the_same_row_is_taken_once(house: House) -> None:
    """Exact duplicates are listed, and the first of them is kept."""
    declaration = house.declare()
    house.answer(declaration, "twice")
    house.answer(declaration, "twice")

    built = house.build(declaration)

    assert left_out(built.folder) == ["duplicate"]
    assert built.manifest.found.rows == 1


def test_a_receipt_that_does_not_verify_stops_the_build(house: House) -> None:
    """A forged leaf in our own ledger is an alarm, not one more reason."""
    declaration = house.declare()
    receipt = house.receipt(declaration, "forged")
    house.forge(receipt)

    with pytest.raises(LedgerDamagedError, match="does not verify"):
        house.build(declaration)

    assert list((house.folder / "datasets").iterdir()) == []


def test_every_reason_has_its_words() -> None:
    """Each code that a manifest may count is explained."""
    assert all(words and not words.endswith(".") for words in REFUSALS.values())


def test_a_student_s_answers_are_ruled_on_over_its_teachers(house: House) -> None:
    """A student's outputs may be used as its teachers' may, and no further."""
    inside, outside = house.declare(audience="internal"), house.declare(audience="public")
    house.answer(inside, provider="narrow")
    student = house.train("parser", house.build(inside, "first").manifest_sha256)
    for declaration in (inside, outside):
        house.answer(
            declaration, provider="local", manifest=student, policies=("own", "narrow")
        )

    with pytest.raises(EmptyDatasetError) as refused:
        house.build(outside, "outside")

    assert {"terms-forbid-use": sum(refused.value.left_out.values())} == {"terms-forbid-use": 3}
    (own, direct) = sorted(
        house.build(inside, "inside").manifest.found.teachers, key=lambda t: t.provider
    )
    assert (student, None) == (own.manifest, direct.manifest)


def test_a_clause_that_came_later_reaches_a_student_s_outputs(house: House) -> None:
    """When a teacher's terms tighten, what its student says can no longer be learned from."""
    declaration = house.declare()
    house.clock.move_ms(MID_2026_MS - house.clock.now_ms())
    house.answer(declaration, provider="tightened")
    student = house.train("parser", house.build(declaration, "first").manifest_sha256)
    house.answer(declaration, provider="local", manifest=student, policies=("own",))
    house.clock.move_ms(180 * DAY_MS)

    with pytest.raises(EmptyDatasetError) as refused:
        house.build(declaration, "second")

    assert refused.value.left_out == {"terms-forbid-use": 2}


@pytest.mark.parametrize("what", ["student", "dataset", "declaration"])
def test_a_withdrawal_above_reaches_a_student_s_outputs(house: House, what: str) -> None:
    """Withdrawing a student, its dataset or its declaration holds what it said since."""
    first, second = house.declare(), house.declare(commercial=False)
    house.answer(first)
    dataset = house.build(first, "first").manifest_sha256
    student = house.train("parser", dataset)
    house.answer(second, provider="local", manifest=student, policies=("own",))
    house.answer(second)
    match what:
        case "student":
            house.withdraw(manifest=student)
        case "dataset":
            house.withdraw(manifest=dataset)
        case _:
            house.withdraw(declaration=first.id)

    reasons = left_out(house.build(second, "second").folder)

    assert {"withdrawn"} == set(reasons)


@pytest.mark.parametrize("parents", [(), (Sha256("b" * 64),)])
def test_a_student_of_unknown_descent_teaches_nobody(
    house: House, parents: tuple[Sha256, ...]
) -> None:
    """A training manifest that names no dataset, or one nobody has, is unresolved."""
    declaration = house.declare()
    house.answer(declaration)
    student = house.train("parser", *parents)
    house.answer(declaration, provider="local", manifest=student, policies=("own",))

    assert left_out(house.build(declaration).folder) == ["parent-unresolved"]


def test_a_review_that_the_terms_ask_for_since_is_waited_for(tmp_path: Path) -> None:
    """An obligation of today's policy binds outputs of earlier days."""
    since = a_policy(
        "later", "permit", version=2, since="2026-07-01", obligations="review-before-training"
    )
    library = a_library(
        **{"later": since, "later@1": a_policy("later", "permit", until="2026-06-30")}
    )
    house = House(tmp_path, library)
    declaration = house.declare()
    house.clock.move_ms(MID_2026_MS - house.clock.now_ms())
    waits = house.answer(declaration, provider="later")
    house.clock.move_ms(180 * DAY_MS)
    house.answer(declaration)

    assert left_out(house.build(declaration, "before").folder) == ["waiting-for-review"]
    house.approve(waits)
    assert left_out(house.build(declaration, "after").folder) == []
    house.close()


def test_a_manifest_counts_what_was_left_out(house: House) -> None:
    """Counts in the manifest are those of the list, the most frequent first."""
    declaration = house.declare()
    house.answer(declaration)
    for _ in range(2):
        house.answer(declaration, "twice")
    house.answer(declaration, provider="closed")
    house.answer(declaration, provider="closed")

    found = house.build(declaration).manifest.found

    assert [(left.reason, left.count) for left in found.left_out] == [
        ("terms-forbid-use", 2),
        ("duplicate", 1),
    ]
    assert msgspec.to_builtins(found)["rows"] == 2


def with_duty(folder: Path, duty: str) -> tuple[House, Receipt]:
    """Return a house whose provider's terms came to ask for *duty*, and an earlier answer."""
    since = a_policy("later", "permit", version=2, since="2026-07-01", obligations=duty)
    before = a_policy("later", "permit", until="2026-06-30")
    house = House(folder, a_library(**{"later": since, "later@1": before}))
    house.clock.move_ms(MID_2026_MS - house.clock.now_ms())
    receipt = house.answer(house.declare(audience="public"), provider="later")
    return house, receipt


@pytest.mark.parametrize(
    ("duty", "reason"),
    [
        ("keep-on-platform", "stays-on-platform"),
        ("no-cache", "not-to-be-kept"),
        ("{delete-by-days: 30}", "past-its-days"),
        ("{name-prefix: Llama}", "student-name"),
    ],
)
def test_a_duty_of_todays_terms_binds_earlier_outputs(
    duty: str, reason: str, tmp_path: Path
) -> None:
    """What the gate discharges counts for what was kept before the terms asked for it.

    It counts for the answers of a student that learned from it, too.
    """
    house, receipt = with_duty(tmp_path, duty)
    declaration = house.register.declaration(DeclarationId(receipt.declared.declaration or ""))
    assert declaration is not None
    student = house.train("parser", house.build(declaration, "first").manifest_sha256)
    house.clock.move_ms(60 * DAY_MS)
    house.answer(declaration, provider="own", manifest=student, policies=("own", "later"))
    if reason == "past-its-days":
        house.clock.move_ms(60 * DAY_MS)
    house.answer(declaration, provider="open")

    assert {reason} == set(left_out(house.build(declaration, "second").folder))
    house.close()


def answer_under(house: House, declaration: Declaration, *agreements: str) -> None:
    """Append an answer that was given to a key that *agreements* are bound to."""
    receipt = house.receipt(declaration, f"answer {len(house.texts)}", provider="held")
    ruling = msgspec.structs.replace(receipt.ruling, agreements=agreements)
    house.state(msgspec.structs.replace(receipt, ruling=ruling))


def test_what_was_given_under_an_agreement_is_taken_and_the_rest_is_not(house: House) -> None:
    """Two keys, one under an order form: their answers are ruled on apart, and listed so."""
    house.state(AGREEMENT)
    declaration = house.declare()
    answer_under(house, declaration, "order-7")
    answer_under(house, declaration)
    answer_under(house, declaration, "order-8")
    built = house.build(declaration)
    (teacher,) = built.manifest.found.teachers

    rulings = msgspec.json.decode((built.folder / "policies.json").read_bytes())["rulings"]

    assert [[], ["order-7"], ["order-8"]] == sorted(one["agreements"] for one in rulings)
    assert ["terms-hold-use", "terms-hold-use"] == left_out(built.folder)
    assert (1, ("order-7",), "permit") == (teacher.rows, teacher.agreements, teacher.effect)


@pytest.mark.parametrize(
    "changes",
    [
        {"expires": "2020-01-02"},
        {"starts": "2099-01-01"},
        {"lifts": ("other",)},
        {"policy": "open"},
        {"scope": Scope(purposes=("train",), projects=("elsewhere",))},
        {"scope": Scope(purposes=("train",), students=("somebody",))},
        {"scope": Scope(purposes=("train",), models=("held-2",))},
        {"scope": Scope(purposes=("train.reward",))},
    ],
)
def test_an_agreement_lifts_nothing_outside_its_scope(
    changes: dict[str, Any], house: House
) -> None:
    """Another day, clause, policy, project, student, model or purpose is held as ever."""
    house.state(msgspec.structs.replace(AGREEMENT, **changes))
    declaration = house.declare()
    answer_under(house, declaration, "order-7")

    with pytest.raises(EmptyDatasetError) as refused:
        house.build(declaration)
    assert {"terms-hold-use": 1} == refused.value.left_out


@pytest.mark.parametrize("how", ["expired", "withdrawn"])
def test_an_agreement_that_ended_lifts_nothing_any_more(how: str, house: House) -> None:
    """Once it has ended, what was given under it may no longer be learned from.

    Nor may what a student of it says, though a dataset was built of it while it stood.
    """
    today = dt.date.fromisoformat(house.now[:10])
    house.state(msgspec.structs.replace(AGREEMENT, expires=today.isoformat()))
    declaration = house.declare()
    answer_under(house, declaration, "order-7")
    student = house.train("parser", house.build(declaration, "first").manifest_sha256)
    house.answer(declaration, provider="own", manifest=student, policies=("own", "held"))
    during = left_out(house.build(declaration, "second").folder)
    if how == "expired":
        house.clock.move_ms(DAY_MS)
    else:
        house.withdraw(agreement="order-7")
    house.answer(declaration, provider="open")

    assert [] == during
    assert ["terms-hold-use"] * 2 == left_out(house.build(declaration, "third").folder)


def test_another_project_is_not_under_the_agreement_of_its_teachers_teacher(
    house: House,
) -> None:
    """A student that learned under one project's agreement teaches no other project by it."""
    scope = Scope(purposes=("train",), projects=("search",))
    house.state(msgspec.structs.replace(AGREEMENT, scope=scope))
    ours, theirs = house.declare(), house.declare(project="elsewhere")
    answer_under(house, ours, "order-7")
    student = house.train("parser", house.build(ours, "first").manifest_sha256)
    house.answer(theirs, provider="own", manifest=student, policies=("own", "held"))
    house.answer(theirs)

    left = left_out(house.build(theirs, "second").folder)
    assert ["other-project", "terms-hold-use"] == left


def a_host() -> Library:
    """Return a library with a host whose models bring terms of their own."""
    files = dict(POLICIES)
    for name, more in (("host", "with_model_terms: true\n"), ("free", ""), ("barred", "")):
        effect: Literal["permit", "forbid"] = "forbid" if name == "barred" else "permit"
        files[f"{name}/policy.yaml"] = a_policy(name, effect) + more
    files["unlisted-model/policy.yaml"] = a_policy("unlisted-model", "hold")
    folders = {path.split("/")[0] for path in files}
    models = "models:\n" + "".join(
        f"  - {{id: {name}-1, terms: [{name}], source: tests, confidence: primary}}\n"
        for name in ("free", "barred")
    )
    terms = {f"{folder}/terms.yaml": TERMS for folder in folders}
    return Library.load(files | terms | {"models.yaml": models})


@pytest.mark.parametrize(
    ("requested", "reported", "reason"),
    [
        ("free-1", "free-1", None),
        ("free-1", None, None),
        ("free-1", "barred-1", "terms-forbid-use"),
        ("free-1", "free-2", "terms-hold-use"),
        (None, "free-1", None),
        (None, None, "terms-hold-use"),
        ("Free-1", "free-1", "terms-hold-use"),
        ("free-1 ", "free-1", "terms-hold-use"),
        ("free-2", "free-1", "terms-hold-use"),
    ],
)
def test_the_terms_of_the_model_that_answered_bind_too(
    requested: str | None, reported: str | None, reason: str | None, tmp_path: Path
) -> None:
    """A host that passes a question on to another model doesn't change whose terms bind."""
    house = House(tmp_path, a_host())
    declaration = house.declare()
    model = ModelFacts(requested=requested, reported=reported)
    house.answer(declaration, provider="host", model=model)
    house.answer(declaration)

    expected = [] if reason is None else [reason]
    assert expected == left_out(house.build(declaration).folder)
    house.close()


def test_what_an_output_was_made_for_is_not_presumed(house: House) -> None:
    """Answers of which nobody wrote down what they were for were not for the use at hand."""
    when = "purpose: train, generated-for: train"
    law = PolicyLaw(a_library(made=a_policy("made", "permit", when=when)), house.register)
    call = Call(provider="made", model="m", operation="chat", policies=("made",))
    day = dt.date(2026, 11, 22)
    known = dataclasses.replace(call, generated_for="train.sft")

    assert ["hold", "permit"] == [law.rule(TRAINING, one, day).effect for one in (call, known)]

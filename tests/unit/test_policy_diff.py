"""Two libraries are compared in rulings, and each change is traced to its clauses."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from gateway.policy.cases import load_cases
from gateway.policy.diff import Difference, diff, diff_json, diff_lines
from gateway.policy.library import Library
from gateway.policy.model import Effect
from tests.support.rulings import ACME, DAY, HOST, LICENCE, small_files, small_uses

CASE = """\
use: {purpose: train.sft, audience: internal, competes: false}
on: 2026-11-20
expect: {effect: permit, reasons: [may-train]}
note: A case.
"""

NO_TRAINING = """\
  - id: no-training
    effect: forbid
    when: {purpose: train}
    citation: {document: words, section: "9"}
    because: Nothing is trained.
    change: Other terms.
"""

SOON = LICENCE.replace("review_by", "in_force_until: 2026-12-15\nreview_by")

NO_LEARNING = NO_TRAINING.replace("no-training", "no-learning")


def compared(before: dict[str, str], after: dict[str, str], on: dt.date = DAY) -> Difference:
    """Return what differs between two libraries of files."""
    cases = [*load_cases(before), *load_cases(after)]
    return diff(Library.load(before), Library.load(after), small_uses(), cases, on)


def edited(acme: str, **texts: str) -> Difference:
    """Return what differs once Acme's policy is *acme*."""
    return compared(small_files(), small_files(acme=acme, **texts))


def told(found: Difference) -> list[tuple[str, str, str, list[str]]]:
    """Return each change as its question, the effects, and its causes."""
    return [
        (
            change.question.name,
            change.before.effect.word,
            change.after.effect.word,
            [cause.clause or cause.what for cause in change.causes],
        )
        for change in found.changes
    ]


def test_a_library_does_not_differ_from_itself() -> None:
    """Without an edit, nothing changes for anybody, though all is asked."""
    found = compared(small_files(), small_files())

    assert (found.edits, found.changes, found.changes_rulings) == ((), (), False)
    assert found.asked == 4 * 3


def test_words_change_no_ruling() -> None:
    """An edit of a reason is listed and changes nothing."""
    found = edited(ACME.replace("Plain use is fine.", "Plain use is quite fine."))

    assert [str(edit) for edit in found.edits] == [
        "clause `may-use` of `acme` changed in words"
    ]
    assert not found.changes_rulings


def test_an_added_clause_is_the_cause() -> None:
    """The clause that came in is named for each ruling that it changes."""
    found = edited(ACME + NO_TRAINING)

    assert told(found) == [
        ("acme, train", "permit", "forbid", ["no-training"]),
        ("acme, train/rival", "forbid", "forbid", ["no-training"]),
    ]
    assert [cause.what for cause in found.changes[0].causes] == ["was added"]


def test_a_clause_that_was_struck_out_is_the_cause() -> None:
    """Silence has a cause as well."""
    found = edited(ACME[: ACME.index("  - id: may-train")])

    assert told(found)[0] == ("acme, train", "permit", "forbid", ["may-train"])
    assert found.changes[0].after.reasons[0].clause == "silence"
    assert found.changes[0].causes[0].what == "was struck out"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (
            "effect: permit\n    when: {purpose: train",
            "effect: hold\n    when: {purpose: train",
            "changed in effect",
        ),
        ("audience: internal}", "audience: public}", "changed in condition"),
    ],
)
def test_a_changed_clause_says_what_changed(old: str, new: str, what: str) -> None:
    """The cause tells effect from condition."""
    assert old in ACME

    found = edited(ACME.replace(old, new))

    cause = found.changes[0].causes[0]
    assert (cause.clause, cause.what) == ("may-train", what)


def test_a_source_that_is_no_longer_read_is_a_cause() -> None:
    """A permit holds once its document is only known from others."""
    after = small_files()
    after["acme/terms.yaml"] = after["acme/terms.yaml"].replace("primary", "secondary")

    found = compared(small_files(), after)

    assert told(found)[0] == ("acme, use", "permit", "hold", ["may-use"])
    assert found.changes[0].causes[0].what == "changed in effect, source"


def test_the_place_in_the_file_is_no_difference() -> None:
    """Moving clauses about changes nothing."""
    head, *clauses = ACME.split("  - id: ")
    moved = head + "".join(f"  - id: {one}" for one in reversed(clauses))

    found = edited(moved.replace("clauses:", "\n# moved\nclauses:"))

    assert (found.edits, found.changes) == ((), ())


def test_the_cause_is_the_smallest_set() -> None:
    """Of several edits only those that the change needs are named."""
    acme = ACME.replace('section: "3"', 'section: "4"') + NO_TRAINING

    found = edited(acme)

    assert [cause.clause for cause in found.changes[0].causes] == ["no-training"]
    assert {edit.clause for edit in found.edits} == {"may-train", "no-training"}


def test_clauses_that_speak_together_are_a_cause_together() -> None:
    """Where one alone does not lead to the new ruling, both are named."""
    found = edited(ACME + NO_TRAINING + NO_LEARNING)

    assert {cause.clause for cause in found.changes[0].causes} == {"no-training", "no-learning"}


def test_clauses_that_do_not_speak_are_no_cause() -> None:
    """An edit that the use has nothing to do with is not blamed."""
    other = NO_TRAINING.replace("no-training", "no-data").replace(
        "{purpose: train}", "{purpose: data}"
    )

    assert told(edited(ACME + NO_TRAINING + other))[0][3] == ["no-training"]


def test_obligations_that_change_are_a_change() -> None:
    """The same effect with other duties is another ruling."""
    found = edited(ACME.replace("[disclose-ai]", "[no-human-claim]"))

    assert [line for line in diff_lines(found) if line.startswith("  ")] == [
        "  obligation `no-human-claim` is added",
        "  obligation `disclose-ai` falls away",
        "  because clause `may-use` of `acme` changed in obligations",
    ]


def test_what_stays_is_not_told() -> None:
    """Of a use's duties and missing facts only those that come or go are told."""
    before = ACME.replace("[disclose-ai]", "[disclose-ai, human-review]")
    after = before.replace("human-review", "adults-only")

    found = compared(small_files(acme=before), small_files(acme=after))

    assert [line for line in diff_lines(found) if "disclose-ai" in line] == []


def test_facts_that_must_be_declared_are_a_change() -> None:
    """Whoever must say more than before is told so."""
    found = edited(ACME.replace("competes: true}", "competes: true, imitates-teacher: true}"))

    lines = list(diff_lines(found))
    assert "  missing fact `imitates-teacher` is added" in lines


def test_a_model_s_terms_reach_its_hosts() -> None:
    """A change of a licence changes what is served under it, wherever."""
    licence = LICENCE.replace("effect: permit", "effect: hold")

    found = compared(small_files(), small_files(free=licence))

    assert {name for name, *_ in told(found)} == {
        "free, use",
        "free, train",
        "free, train/rival",
        "host-free, use",
        "host-free, train",
        "host-free, train/rival",
    }
    assert {cause.policy for change in found.changes for cause in change.causes} == {"free"}


def test_a_model_that_is_listed_anew_brings_its_terms() -> None:
    """A policy that comes to bind, or no longer does, is the cause as a whole."""
    listed, unlisted = small_files(), small_files(models="")

    into, out = compared(unlisted, listed), compared(listed, unlisted)

    assert told(into)[0][1:3] == ("forbid", "permit")
    assert [str(cause) for cause in into.changes[0].causes] == [
        "policy `free` comes to bind",
        "policy `unlisted-model` is no longer missed",
    ]
    assert told(out)[0][1:3] == ("permit", "forbid")
    assert [str(cause) for cause in out.changes[0].causes] == [
        "policy `free` no longer binds",
        "policy `unlisted-model` should bind and is not there",
    ]


def test_terms_and_clauses_are_a_cause_together() -> None:
    """A model's terms that come to bind are weighed beside the host's own edits."""
    host = HOST + HOST.partition("clauses:\n")[2].replace("model-decides", "also-says")

    found = compared(small_files(models=""), small_files(host=host))
    worded = compared(
        small_files(models=""), small_files(host=HOST.replace('section: "1"', 'section: "2"'))
    )

    assert told(found)[0][3] == ["comes to bind", "also-says", "is no longer missed"]
    assert told(worded)[0][3] == ["comes to bind", "is no longer missed"]


def test_what_binds_in_neither_is_no_cause() -> None:
    """A policy that both libraries have and that binds in neither is not blamed."""
    idle = LICENCE.replace("in_force_from: 2026-01-01", "in_force_from: 2026-12-01")
    duty = HOST.replace(
        "because: The model", "obligations: [human-review]\n    because: The model"
    )

    found = compared(small_files(free=idle), small_files(free=idle, host=duty))

    assert told(found)[0] == ("host-free, use", "forbid", "forbid", ["model-decides"])


def test_policies_appear_and_disappear() -> None:
    """A policy that only one library has is named, and nothing else is asked of it."""
    found = compared(small_files(acme=""), small_files(host="", models=""))

    assert (found.appeared, found.disappeared) == (("acme",), ("host",))
    assert (found.changes, found.changes_rulings) == ((), True)
    assert list(diff_lines(found)) == [
        "policy `acme` appears",
        "policy `host` disappears",
        "0 of 3 rulings change",
    ]


def test_a_policy_that_binds_later_is_asked_then() -> None:
    """A version to come changes rulings from its first day on, and each is told once."""
    after = small_files()
    after["acme/policy.1.yaml"] = ACME.replace(
        "review_by", "in_force_until: 2026-11-30\nreview_by"
    )
    later = ACME.replace("version: 1", "version: 2").replace("2026-01-01", "2026-12-01")
    after["acme/policy.yaml"] = later + NO_TRAINING

    found = compared(small_files(), after)

    assert {change.question.on for change in found.changes} == {dt.date(2026, 12, 1)}
    assert told(found)[0] == ("acme, train", "permit", "forbid", ["no-training"])
    assert found.edits[0].what == (
        "was version 1 from 2026-01-01 (review by 2027-01-01); it is version 1 from 2026-01-01"
        " until 2026-11-30 (review by 2027-01-01), version 2 from 2026-12-01"
        " (review by 2027-01-01)"
    )


def test_an_edit_of_every_day_is_told_once() -> None:
    """An edit that is seen on several days is one edit, and so is what it changes."""
    ends = ACME.replace("review_by", "in_force_until: 2026-12-31\nreview_by")

    found = compared(small_files(acme=ends), small_files(acme=ends + NO_TRAINING, free=SOON))

    assert [str(edit) for edit in found.edits if edit.policy == "acme"] == [
        "clause `no-training` of `acme` was added"
    ]
    assert [name for name, *_ in told(found) if name.startswith("acme")] == [
        "acme, train",
        "acme, train/rival",
    ]


def test_a_policy_that_ends_is_a_cause() -> None:
    """After its last day a policy no longer binds, and that is why."""
    ended = ACME.replace("review_by", "in_force_until: 2026-11-25\nreview_by")

    found = edited(ended)

    assert {change.question.on for change in found.changes} == {dt.date(2026, 11, 26)}
    assert told(found)[0] == ("acme, use", "permit", "forbid", ["no longer binds"])
    assert [str(cause) for cause in found.changes[0].causes] == [
        "policy `acme` no longer binds"
    ]


def test_a_policy_that_is_not_yet_in_force_is_no_edit() -> None:
    """Where neither library's policy binds, nothing changed."""
    far = ACME.replace("in_force_from: 2026-01-01", "in_force_from: 2030-01-01")

    found = compared(small_files(acme=far), small_files(acme=far + NO_TRAINING))

    assert {change.question.on for change in found.changes} == {dt.date(2030, 1, 1)}


def test_a_review_day_that_moves_is_a_cause() -> None:
    """After the old review day a permit for training held; now it does not."""
    later = ACME.replace("review_by: 2027-01-01", "review_by: 2028-01-01")

    found = compared(small_files(), small_files(acme=later), dt.date(2027, 6, 1))

    assert told(found) == [
        (
            "acme, train",
            "hold",
            "permit",
            ["is to be reviewed by 2028-01-01, not 2027-01-01"],
        )
    ]


def test_a_policy_that_becomes_a_law_is_a_cause() -> None:
    """An overlay's silence permits, a provider's forbids."""
    silent = ACME.replace("policy: acme", "policy: law").replace("inference, evaluate", "data")
    before, after = small_files(law=silent), small_files(**{"overlays/law": silent})

    found = compared(before, after)

    assert told(found)[0] == (
        "law, use",
        "forbid",
        "permit",
        ["is of the kind overlay, not provider"],
    )


def test_cases_of_both_are_asked_and_alike_ones_once() -> None:
    """A case that was struck out still counts, and one that both have is asked once."""
    before = small_files() | {
        "acme/cases/permit-a.yaml": CASE,
        "acme/cases/permit-b.yaml": CASE.replace("competes: false", "competes: true"),
    }
    after = small_files(acme=ACME + NO_TRAINING) | {
        "acme/cases/permit-a.yaml": CASE,
        "acme/cases/permit-b.yaml": CASE,
    }

    found = compared(before, after)

    assert found.asked == 4 * 3 + 3
    assert [name for name, *_ in told(found)] == [
        "acme, train",
        "acme, train/rival",
        "acme/cases/permit-a.yaml",
        "acme/cases/permit-b.yaml",
        "acme/cases/permit-b.yaml",
    ]
    assert found.changes[2].question.on == dt.date(2026, 11, 20)


def test_a_case_before_the_first_day_finds_no_policy() -> None:
    """A case is asked under its own policy on its own day."""
    case = {"acme/cases/forbid-a.yaml": CASE.replace("2026-11-20", "2025-01-01")}
    after = ACME.replace("in_force_from: 2026-01-01", "in_force_from: 2024-01-01")

    found = compared(small_files() | case, small_files(acme=after) | case)

    assert told(found) == [("acme/cases/forbid-a.yaml", "forbid", "permit", ["comes to bind"])]


def test_too_many_edits_are_all_named() -> None:
    """Where the smallest set is not found in time, everything that speaks is named."""
    many = "".join(NO_TRAINING.replace("no-training", f"no-{n}") for n in range(14))

    found = edited(ACME + many)

    assert len(found.changes[0].causes) == 14


def test_a_change_is_told_in_lines() -> None:
    """People read the question, the day, both rulings and the cause."""
    assert list(diff_lines(edited(ACME + NO_TRAINING))) == [
        "clause `no-training` of `acme` was added",
        "2 of 12 rulings change: stricter 1, looser 0, for other reasons 1",
        "acme, train (2026-11-22): permit by `may-train` -> forbid by `no-training`",
        "  because clause `no-training` of `acme` was added",
        (
            "acme, train/rival (2026-11-22): forbid by `no-rivals` -> forbid by `no-rivals`,"
            " `no-training`"
        ),
        "  because clause `no-training` of `acme` was added",
    ]


def test_one_change_is_told_in_the_singular() -> None:
    """A sentence about one ruling is a sentence."""
    found = edited(ACME.replace("[disclose-ai]", "[]"))

    line = "1 of 12 rulings changes: stricter 0, looser 0, for other reasons 1"
    assert line in list(diff_lines(found))


def test_a_change_is_told_to_machines() -> None:
    """The JSON has the same, with stable keys."""
    found = json.loads(json.dumps(diff_json(edited(ACME + NO_TRAINING))))

    assert found["changes"][0] == {
        "question": "acme, train",
        "policy": "acme",
        "day": "2026-11-22",
        "before": {
            "effect": Effect.PERMIT.word,
            "reasons": ["acme/may-train"],
            "obligations": [],
            "missing": [],
        },
        "after": {
            "effect": Effect.FORBID.word,
            "reasons": ["acme/no-training"],
            "obligations": [],
            "missing": [],
        },
        "causes": [{"policy": "acme", "clause": "no-training", "what": "was added"}],
    }
    assert (found["asked"], found["appeared"], found["disappeared"]) == (12, [], [])

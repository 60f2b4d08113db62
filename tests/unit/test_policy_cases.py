"""Cases say what is asked and what must be answered."""

from __future__ import annotations

import datetime as dt

import pytest

from gateway.errors import MalformedPolicyError
from gateway.policy.cases import load_case, load_cases
from gateway.policy.condition import Measured
from gateway.policy.model import Effect
from tests.support.policies import DAY, acme, acme_files

CASE = """\
use: {purpose: train.sft, competes: true}
call: {model: acme-1, features: [tools]}
facts: {account-tier: paid}
on: 2026-11-22
expect:
  effect: forbid
  reasons: [no-rivals]
note: A rival.
"""


def test_a_case_is_ruled_under_its_own_policy() -> None:
    """What the file says is what is asked and expected."""
    case = load_case(CASE, "acme/cases/forbid-rival.yaml", "acme")

    assert (case.policy, case.on, case.effect, case.line) == ("acme", DAY, Effect.FORBID, 5)
    assert case.facts["account-tier"] == "paid"
    assert case.facts["provider"] == "acme"
    assert case.facts["features"] == frozenset({"tools"})
    assert case.complaint(case.run([acme()])) is None


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("effect: forbid", "effect: hold", "expected hold, got forbid by `no-rivals`"),
        ("[no-rivals]", "[no-rivals, x]", "expected reasons `no-rivals`, `x`, got `no-rivals`"),
        ("[no-rivals]", "[]", "expected reasons nothing, got `no-rivals`"),
        (
            "[no-rivals]",
            "[no-rivals]\n  obligations: [disclose-ai]",
            "expected obligations `disclose-ai`, got nothing",
        ),
        (
            "[no-rivals]",
            "[no-rivals]\n  missing: [audience]",
            "expected missing `audience`, got nothing",
        ),
    ],
)
def test_a_case_complains_of_each_difference(old: str, new: str, complaint: str) -> None:
    """Effect, reasons, obligations and missing facts are all compared."""
    case = load_case(CASE.replace(old, new), "acme/cases/forbid-rival.yaml", "acme")

    assert complaint == case.complaint(case.run([acme()]))


def test_a_case_can_be_asked_as_if_an_agreement_lifted_clauses() -> None:
    """What `lifted` names counts as a permit, under the case's own policy."""
    text = CASE.replace("competes: true", "competes: true, audience: internal")
    text = text.replace("facts:", "lifted: [no-rivals]\nfacts:")
    text = text.replace("forbid", "permit").replace(
        "[no-rivals]\nnote", "[may-train, no-rivals]\nnote"
    )
    case = load_case(text, "acme/cases/permit-rival.yaml", "acme")

    assert list(case.lifted) == [("acme", "no-rivals")]
    assert case.complaint(case.run([acme()])) is None


def test_a_case_gives_facts_of_every_kind() -> None:
    """Numbers by month, days, sets and places come through as a condition asks for them."""
    facts = "{monthly-users: {2024-06: 7}, generated-on: 2026-01-01, headquarters: DE}"
    text = CASE.replace("{account-tier: paid}", facts).replace(
        "[tools]", "[tools], modality: [image]"
    )

    known = load_case(text, "acme/cases/forbid-rival.yaml", "acme").facts

    assert known["monthly-users"] == Measured((("2024-06", 7),))
    assert (known["generated-on"], known["headquarters"]) == (dt.date(2026, 1, 1), "DE")
    assert known["modality"] == frozenset({"image"})


def test_a_case_before_the_first_day_finds_no_policy() -> None:
    """Only policies in force on the case's day are asked."""
    text = CASE.replace("2026-11-22", "2020-01-01").replace("no-rivals", "no-policy")
    case = load_case(text, "acme/cases/forbid-early.yaml", "acme")

    assert case.complaint(case.run([acme()])) is None


def test_only_case_files_are_cases() -> None:
    """Policies, reviews and patterns are left alone."""
    files = acme_files(**{"forbid-rival": CASE}) | {
        "_template/cases/permit-x.yaml": "{",
        "acme/cases/notes.md": "",
        "cases/x.yaml": "{",
    }

    assert [case.file for case in load_cases(files)] == ["acme/cases/forbid-rival.yaml"]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("train.sft", "train.sfd", 1, "unknown purpose `train.sfd`"),
        ("competes: true", "compets: true", 1, "unknown key `compets`"),
        ("competes: true", "audience: nobody", 1, "`audience` can't be `nobody`"),
        ("[tools]", "[tolls]", 2, "unknown feature `tolls`"),
        ("[tools]", "[tools], modality: [smell]", 2, "unknown modality `smell`"),
        ("{account-tier: paid}", "{monthly-users: many}", 3, "takes a whole number"),
        ("{account-tier: paid}", "{agreement: a-7}", 3, "unknown fact `agreement`"),
        ("{account-tier: paid}", "{headquarters: EU}", 3, "`EU` is no country"),
        ("note:", "lifted: no-rivals\nnote:", 8, "`lifted` must be a list"),
        ("effect: forbid", "effect: refuse", 6, "`effect` can't be `refuse`"),
        ("  reasons: [no-rivals]\n", "", 6, "key `reasons` is missing"),
        ("on: 2026-11-22", "on: *day", 4, "an anchor or alias"),
        ("note:", "on: 2026-11-23\nnote:", 8, "key `on` twice"),
        ("account-tier", "account-tear", 3, "unknown fact `account-tear`"),
        ("account-tier: paid", "generative: true", 3, "unknown fact `generative`"),
        ("{account-tier: paid}", "[a]", 3, "`facts` must be a mapping"),
        ("on: 2026-11-22", "on: today", 4, "`on` has a bad value `today`"),
        ("note: A rival.\n", "", 1, "key `note` is missing"),
    ],
)
def test_a_bad_case_is_one_error_with_file_and_line(
    old: str, new: str, line: int, message: str
) -> None:
    """Whatever is wrong in a case is named with its place."""
    with pytest.raises(MalformedPolicyError) as caught:
        load_case(CASE.replace(old, new), "acme/cases/c.yaml", "acme")

    assert ("acme/cases/c.yaml", line) == (caught.value.file, caught.value.line)
    assert message in caught.value.message

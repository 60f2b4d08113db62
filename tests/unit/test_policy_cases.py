"""Cases say what is asked and what must be answered."""

from __future__ import annotations

import pytest

from gateway.errors import MalformedPolicyError
from gateway.policy.cases import load_case, load_cases
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

"""Lint finds what loads and is wrong all the same."""

from __future__ import annotations

import datetime as dt

import pytest

from gateway.policy.lint import lint
from tests.support.policies import DAY, HEAD, POLICY, acme_files

CASES = {
    "permit-use": "use: {purpose: inference}\non: 2026-11-22\n"
    "expect: {effect: permit, reasons: [may-use], obligations: [disclose-ai]}\nnote: x\n",
    "forbid-rival": "use: {purpose: train.sft, competes: true}\non: 2026-11-22\n"
    "expect: {effect: forbid, reasons: [no-rivals]}\nnote: x\n",
    "permit-train": "use: {purpose: train.sft, competes: false, audience: internal}\n"
    "on: 2026-11-22\nexpect: {effect: permit, reasons: [may-train]}\nnote: x\n",
}


def messages(files: dict[str, str], on: dt.date = DAY) -> list[str]:
    """Return the findings as lines."""
    return [str(finding) for finding in lint(files, on)]


def with_clause(effect: str, condition: str, clause_id: str = "extra") -> str:
    """Return the policy with one more clause."""
    return POLICY + (
        f"  - id: {clause_id}\n    effect: {effect}\n{condition}"
        '    citation: {document: acme-terms, section: "4"}\n'
        "    because: So it is.\n    change: Nothing.\n"
    )


def test_a_tidy_library_has_no_findings() -> None:
    """Where every clause has its case and every case passes, lint is silent."""
    assert messages(acme_files(**CASES)) == []


@pytest.mark.parametrize("name", list(CASES))
def test_a_clause_without_a_case_is_dead(name: str) -> None:
    """Each clause must be missed by some case."""
    cases = {other: text for other, text in CASES.items() if other != name}

    (found,) = messages(acme_files(**cases))

    assert "no case dies without clause" in found
    assert "hint: add cases/" in found


def test_a_forbid_that_only_silence_would_replace_is_alive() -> None:
    """Striking out a forbid leaves forbid, but for another reason."""
    assert not [one for one in messages(acme_files(**CASES)) if "no-rivals" in one]


def test_a_failing_case_is_found_where_it_expects() -> None:
    """A case that gets another answer is named with file and line."""
    broken = CASES | {"permit-train": CASES["permit-train"].replace("permit,", "hold,")}

    found = messages(acme_files(**broken))

    assert found[0].startswith("acme/cases/permit-train.yaml:3: expected hold, got permit")
    assert "does not begin with `hold-`" in found[1]


@pytest.mark.parametrize(
    ("effect", "condition", "message"),
    [
        (
            "permit",
            "    when: {generative: true, student-kind: classifier}\n",
            "clause `extra` can never speak: no `student-kind` fits",
        ),
        (
            "permit",
            "    when: {purpose: train.sft}\n    unless: {purpose: train}\n",
            "clause `extra` can never speak: no `purpose` fits",
        ),
        (
            "hold",
            "    when: {purpose: train.sft, competes: true}\n    unless: {agreement: any}\n",
            "clause `extra` is shadowed by `no-rivals`",
        ),
        (
            "hold",
            (
                "    when: {purpose: train.sft, competes: true}\n"
                "    unless: [{agreement: any}, {model: m}]\n"
            ),
            "clause `extra` is shadowed by `no-rivals`",
        ),
    ],
)
def test_clauses_that_never_matter_are_found(effect: str, condition: str, message: str) -> None:
    """A clause that can't speak, or that a stricter one always outvotes, is named."""
    found = messages(acme_files(with_clause(effect, condition), **CASES))

    assert any(message in line for line in found)


@pytest.mark.parametrize(
    ("effect", "condition"),
    [
        ("hold", "    when: {purpose: train, competes: true}\n"),
        ("hold", "    when: {purpose: train.sft}\n"),
        ("forbid", "    when: {purpose: train, competes: true}\n"),
        ("permit", "    when: {features: tools, model: any}\n"),
        ("hold", "    when: {purpose: train.sft}\n    unless: {competes: [true, false]}\n"),
    ],
)
def test_clauses_that_may_matter_are_left_alone(effect: str, condition: str) -> None:
    """What speaks where no stricter clause does is neither shadowed nor unreachable."""
    found = messages(acme_files(with_clause(effect, condition), **CASES))

    assert not [line for line in found if "shadowed" in line]


def test_a_missing_review_is_found() -> None:
    """A policy says who read what."""
    files = acme_files(**CASES)
    del files["acme/review.md"]

    (found,) = messages(files)

    assert found.startswith("acme/review.md:1: the file is missing")


def test_a_stale_review_is_found_on_the_day_after() -> None:
    """On the review day all is well; a day later lint says so."""
    assert messages(acme_files(**CASES), dt.date(2027, 1, 1)) == []
    (found,) = messages(acme_files(**CASES), dt.date(2027, 1, 2))
    assert "was to be reviewed by 2027-01-01" in found
    assert HEAD.startswith("policy: acme")

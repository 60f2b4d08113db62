"""The policies that ship say what legal signed, and every clause is alive."""

from __future__ import annotations

import datetime as dt
import json
from functools import cache

import msgspec
import pytest

from gateway.policy.cases import Case, load_case, load_cases
from gateway.policy.library import Library, load_policy, load_terms
from gateway.policy.lint import lint
from gateway.policy.model import Clause, Policy
from gateway.policy.obligation import obligation_of
from gateway.policy.vocabulary import vocabulary_yaml
from gateway.store.policies import builtin_policies, read_policy_files

READ = dt.date(2026, 11, 22)
"""The day on which the policies were written."""


@cache
def files() -> dict[str, str]:
    """Return every file of the library."""
    return read_policy_files(builtin_policies())


@cache
def every_policy() -> list[Policy]:
    """Return every version of every policy."""
    return [p for versions in Library.load(files()).policies.values() for p in versions]


def every_clause() -> list[tuple[Policy, Clause]]:
    """Return every clause with its policy."""
    return [(policy, clause) for policy in every_policy() for clause in policy.clauses]


@cache
def every_case() -> tuple[Case, ...]:
    """Return every case of the library."""
    return load_cases(files())


@pytest.mark.parametrize("case", every_case(), ids=lambda case: case.file)
def test_every_case_is_ruled_as_signed(case: Case) -> None:
    """Each case gets the effect, reasons, obligations and missing facts that it names."""
    versions = [policy for policy in every_policy() if policy.id == case.policy]

    assert case.complaint(case.run(versions)) is None


@pytest.mark.parametrize(
    ("policy", "clause"),
    [
        pytest.param(policy, clause, id=f"{policy.id}-{policy.version}-{clause.id}")
        for policy, clause in every_clause()
    ],
)
def test_every_clause_is_alive(policy: Policy, clause: Clause) -> None:
    """Without this clause, some case of its days changes its effect or its reasons."""
    without = policy.without(clause.id)
    own = [
        case for case in every_case() if case.policy == policy.id and policy.in_force(case.on)
    ]

    assert [case for case in own if case.complaint(case.run([without])) is not None]


def test_lint_finds_nothing_on_the_day_of_reading() -> None:
    """The library that ships is tidy."""
    assert [str(finding) for finding in lint(files(), READ)] == []


def test_every_policy_will_be_reviewed_within_a_year() -> None:
    """No reading is trusted for longer than a year after it was made."""
    for policy in every_policy():
        assert READ < policy.review_by <= READ + dt.timedelta(days=366)


def test_every_document_was_read_before_its_policy_was_signed() -> None:
    """Each document says where and when it was read, or that it was not."""
    for documents in Library.load(files()).terms.values():
        for document in documents:
            assert document.confidence == "unread" or document.read is not None
            assert document.read is None or document.read.when <= READ
            assert document.url.startswith("https://")


def test_the_vocabulary_on_paper_is_fresh() -> None:
    """`policies/vocabulary.yaml` is what `gateway policy vocabulary` prints."""
    assert files()["vocabulary.yaml"] == vocabulary_yaml()


def test_the_template_is_a_policy_that_passes_its_cases() -> None:
    """What people copy works as it stands."""
    documents = load_terms(files(), "_template")
    policy = load_policy(files()["_template/policy.yaml"], "_template/policy.yaml", documents)
    cases = [
        load_case(text, name, "_template")
        for name, text in files().items()
        if name.startswith("_template/cases/")
    ]

    assert {clause.id for clause in policy.clauses} == {
        reason for case in cases for reason in case.reasons
    }
    assert {case.complaint(case.run([policy])) for case in cases} == {None}


def test_nothing_is_quoted_at_length() -> None:
    """Reasons are in our own words: what stands in quotation marks is a few words at most."""
    for _, clause in every_clause():
        quoted = clause.because.split('"')[1::2]
        assert [words for words in quoted if len(words.split()) > 10] == []
        assert len((clause.citation.words or "").split()) <= 10


def test_each_folder_s_review_names_the_day_and_the_open_questions() -> None:
    """A review says when it was made and what nobody knows yet."""
    for policy in every_policy():
        review = files()[policy.file.rpartition("/")[0] + "/review.md"]
        assert "22 November 2026" in review
        assert "## Open questions" in review


def test_obligations_in_use_are_listed() -> None:
    """Whatever a clause asks for, somebody discharges."""
    used = {text for _, clause in every_clause() for text in clause.obligations}

    assert [text for text in used if obligation_of(text) is None] == []


def test_cases_and_clauses_are_json_ready() -> None:
    """Citations can be written into receipts and pages."""
    for _, clause in every_clause():
        assert json.dumps(msgspec.to_builtins(clause.citation))

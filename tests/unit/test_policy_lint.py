"""Lint finds what loads and is wrong all the same."""

from __future__ import annotations

import datetime as dt

import pytest

from gateway.policy.lint import lint
from tests.support.policies import DAY, HEAD, POLICY, acme_files, written

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


FILES = acme_files(**CASES)

KINDS = ("shadowed", "never", "twice", "asks for")
"""What is said of conditions, and of nothing else."""


def with_clause(effect: str, condition: str, clause_id: str = "extra") -> dict[str, str]:
    """Return the tidy library with one more clause."""
    return FILES | {
        "acme/policy.yaml": POLICY + written(condition, id=clause_id, effect=effect)
    }


def with_case(name: str, text: str) -> dict[str, str]:
    """Return the tidy library with one more case."""
    return FILES | {f"acme/cases/{name}.yaml": text}


def test_a_tidy_library_has_no_findings() -> None:
    """Where every clause has its case and every case passes, lint is silent."""
    assert messages(FILES) == []


@pytest.mark.parametrize("name", list(CASES))
def test_a_clause_without_a_case_is_dead(name: str) -> None:
    """Each clause must be missed by some case."""
    files = {file: text for file, text in FILES.items() if name not in file}

    (found,) = messages(files)

    assert "no case dies without clause" in found
    assert "hint: add cases/" in found


def test_a_forbid_that_only_silence_would_replace_is_alive() -> None:
    """Striking out a forbid leaves forbid, but for another reason."""
    assert not [one for one in messages(FILES) if "no-rivals" in one]


def test_a_failing_case_is_found_where_it_expects() -> None:
    """A case that gets another answer is named with file and line."""
    found = messages(
        with_case("permit-train", CASES["permit-train"].replace("permit,", "hold,"))
    )

    assert found[0].startswith("acme/cases/permit-train.yaml:3: expected hold, got permit")
    assert "does not begin with `hold-`" in found[1]


@pytest.mark.parametrize(
    ("effect", "condition", "message"),
    [
        (
            "permit",
            "when: {generative: true, student-kind: classifier}",
            "clause `extra` can never speak: no `student-kind` fits",
        ),
        (
            "permit",
            "when: {purpose: train.sft}\nunless: {purpose: train}",
            "clause `extra` can never speak: no `purpose` fits",
        ),
        (
            "permit",
            "when: {monthly-users: {under: 5}}\nunless: {monthly-users: {at-most: 9}}",
            "clause `extra` can never speak: no `monthly-users` fits",
        ),
        (
            "permit",
            "when: {purpose: train}\nunless: {purpose: verify, competes: false}",
            "an exception of clause `extra` can never fit: its `purpose` is not what",
        ),
        (
            "permit",
            "when: {monthly-users: {over: 5}}\nunless: {monthly-users: {under: 5}}",
            "an exception of clause `extra` can never fit: its `monthly-users`",
        ),
        (
            "permit",
            "when: {generated-on: {from: 2026-06-01}}\nunless: {generated-on: 2026-05-01}",
            "an exception of clause `extra` can never fit: its `generated-on`",
        ),
        (
            "permit",
            "when: {notices: {all: [display, flow-down]}}\nunless: {notices: {not: display}}",
            "an exception of clause `extra` can never fit: its `notices`",
        ),
        (
            "permit",
            "when: {notices: display}\nunless: {notices: {not: [display, flow-down]}}",
            "an exception of clause `extra` can never fit: its `notices`",
        ),
        (
            "permit",
            "when: {model: {not: [a, b]}}\nunless: {model: a}",
            "an exception of clause `extra` can never fit: its `model`",
        ),
        (
            "hold",
            "when: {purpose: train.sft, competes: true}",
            "clause `extra` is shadowed by `no-rivals`",
        ),
        (
            "hold",
            "when: {purpose: train.sft, competes: true}\nunless: [{model: a}, {model: m}]",
            "clause `extra` is shadowed by `no-rivals`",
        ),
        (
            "permit",
            "when: {purpose: train, generative: true, student-kind: [chat, image]}",
            "clause `extra` asks for `student-kind` twice",
        ),
        (
            "hold",
            "when: {purpose: [inference, evaluate], student-kind: chat}",
            "clause `extra` asks for `student-kind` in inference and evaluation",
        ),
        (
            "hold",
            "when: {purpose: inference, base-model: any}",
            "clause `extra` asks for `base-model` in inference and evaluation",
        ),
        (
            "hold",
            "when: {purpose: train, replication-info: false}",
            "clause `extra` asks for `replication-info` in uses that measure nothing",
        ),
    ],
)
def test_clauses_that_never_matter_are_found(effect: str, condition: str, message: str) -> None:
    """A clause that can't speak, is always outvoted, or asks for nothing known is named."""
    found = messages(with_clause(effect, condition))

    (line,) = [line for line in found if message in line]
    assert line.startswith("acme/policy.yaml:")
    assert "; hint: " in line


@pytest.mark.parametrize(
    ("effect", "condition"),
    [
        ("hold", "when: {purpose: train.sft}"),
        ("forbid", "when: {purpose: train, competes: true}"),
        ("permit", "when: {features: tools, model: any}"),
        ("hold", "when: {purpose: train.sft}\nunless: {competes: [true, false]}"),
        ("hold", "when: {monthly-users: {over: 5, at: 2024-06}}\nunless: {monthly-users: 3}"),
        ("hold", "when: {notices: [display, flow-down]}\nunless: {notices: {not: display}}"),
        ("hold", "when: {notices: display}\nunless: {notices: flow-down}"),
        ("hold", "when: {model: {starts: a}}\nunless: {model: {not: [a, b]}}"),
        ("hold", "when: {purpose: [inference, train], student-kind: chat}"),
        ("hold", "when: {student-kind: chat}"),
        ("hold", "when: {purpose: evaluate.benchmark, replication-info: false}"),
    ],
)
def test_clauses_that_may_matter_are_left_alone(effect: str, condition: str) -> None:
    """What speaks where no stricter clause does is neither shadowed nor out of reach."""
    found = messages(with_clause(effect, condition))

    assert [line for line in found if "`extra`" in line and any(k in line for k in KINDS)] == []


@pytest.mark.parametrize(
    ("exception", "shadowed"),
    [
        ("{audience: [internal, affiliates]}", True),
        ("{audience: internal}", True),
        ("{audience: affiliates}", False),
        ("{audience: internal, model: m}", False),
    ],
)
def test_a_clause_that_speaks_beside_an_exception_is_not_shadowed(
    exception: str, *, shadowed: bool
) -> None:
    """Where the stricter clause makes an exception, the other may be alone."""
    bar = written(
        "when: {purpose: verify}\nunless: {audience: internal}", id="bar", effect="forbid"
    )
    held = written(f"when: {{purpose: verify}}\nunless: {exception}", id="held", effect="hold")

    found = messages(FILES | {"acme/policy.yaml": POLICY + bar + held})

    assert any("clause `held` is shadowed by `bar`" in line for line in found) is shadowed


def test_a_missing_review_is_found() -> None:
    """A policy says who read what, and what nobody knows yet."""
    gone = {name: text for name, text in FILES.items() if not name.endswith("review.md")}
    (missing,) = messages(gone)
    (section,) = messages(FILES | {"acme/review.md": "# Acme\n"})

    assert missing.startswith("acme/review.md:1: the file is missing")
    assert "the section `## Open questions` is missing" in section


def test_a_stale_review_is_found_on_the_day_after() -> None:
    """On the review day all is well; a day later lint says so."""
    assert messages(FILES, dt.date(2027, 1, 1)) == []
    (found,) = messages(FILES, dt.date(2027, 1, 2))
    assert "was to be reviewed by 2027-01-01" in found
    assert HEAD.startswith("policy: acme")


def test_a_document_that_nothing_cites_is_found() -> None:
    """What was read and not used says in its note why; what was not read needs none."""
    without = FILES["acme/terms.yaml"].replace("    note: Says nothing of outputs.\n", "")

    (found,) = messages(FILES | {"acme/terms.yaml": without})

    assert found.startswith("acme/policy.yaml:6: no clause cites `acme-faq`")


def test_a_document_that_was_read_too_late_is_found() -> None:
    """Nobody read it tomorrow, and a policy is not older than the next review of its terms."""
    later = FILES["acme/terms.yaml"].replace(
        "original, when: 2026-11-01", "o, when: 2027-02-01"
    )
    files = FILES | {"acme/terms.yaml": later}

    (tomorrow,) = messages(files)
    after = messages(files, dt.date(2027, 3, 1))

    assert "`acme-terms` was read on 2027-02-01, after today" in tomorrow
    assert "after the review day 2027-01-01" in after[1]


def test_a_watched_document_is_cited_by_words() -> None:
    """A change of the terms is noticed around the words that a clause quotes."""
    snapshot = "confidence: primary\n    snapshot: {file: Acme/Terms.md}"
    files = FILES | {
        "acme/terms.yaml": FILES["acme/terms.yaml"].replace("confidence: primary", snapshot)
    }

    found = messages(files)

    assert len(found) == 3
    assert "clause `may-use` cites a watched document without `words`" in found[0]


def test_a_month_that_a_later_version_forgot_is_found() -> None:
    """A number that counted as of a month is not silently the newest one."""
    clause = written("when: {monthly-users: {over: 5, at: 2024-06}}", id="size", effect="hold")
    old = HEAD.replace("review_by", "in_force_until: 2026-05-31\nreview_by") + clause
    new = HEAD.replace("version: 1", "version: 2").replace("2026-01-01", "2026-06-01", 1)
    files = {
        "acme/policy.1.yaml": old,
        "acme/policy.yaml": new + clause.replace(", at: 2024-06", ""),
    }

    found = [one for one in messages(FILES | files) if "newest" in one]

    assert found == [
        (
            "acme/policy.yaml:13: clause `size` asks for the newest `monthly-users`;"
            " hint: an earlier version asked for that of 2024-06: `at: …`"
        )
    ]


def test_contradictory_cases_are_found() -> None:
    """One question has one answer."""
    other = (
        CASES["permit-train"].replace("[may-train]", "[no-rivals]").replace("permit,", "hold,")
    )

    found = messages(with_case("hold-train", other))

    assert any("asks what acme/cases/hold-train.yaml asks, and expects" in one for one in found)
    assert messages(with_case("permit-again", CASES["permit-train"])) == []


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("[no-rivals]", "[no-rival]", "`no-rival` is no clause of `acme`", "`no-rivals`?"),
        ("note:", "lifted: [no-rival]\nnote:", "`no-rival` can't be lifted", "`no-rivals`?"),
        ("note:", "lifted: [may-train]\nnote:", "`may-train` can't be lifted", ""),
    ],
)
def test_names_in_cases_that_mean_nothing_are_found(
    old: str, new: str, message: str, hint: str
) -> None:
    """A reason or a lifted clause that is not there is a typo, and the nearest is told."""
    found = messages(with_case("forbid-rival", CASES["forbid-rival"].replace(old, new)))

    assert any(message in line and hint in line for line in found)


def test_reserved_reasons_are_reasons() -> None:
    """Silence and the absence of a policy are no typos."""
    text = CASES["forbid-rival"].replace("train.sft", "verify").replace("no-rivals", "silence")

    assert messages(with_case("forbid-verify", text)) == []


def test_models_without_a_policy_for_the_unlisted_are_found() -> None:
    """Where models bring their own terms, somebody must have said what binds the others."""
    text = POLICY.replace("version: 1", "version: 1\nwith_model_terms: true")

    (found,) = messages(FILES | {"acme/policy.yaml": text})

    assert "there is no policy `unlisted-model`" in found

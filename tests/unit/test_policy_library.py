"""The library loads whole or not at all."""

from __future__ import annotations

import datetime as dt

import pytest

from gateway.errors import MalformedPolicyError
from gateway.policy.library import Library, load_policy, load_terms
from gateway.policy.model import Effect
from tests.support.policies import DAY, HEAD, POLICY, TERMS, acme, acme_files


def refused(files: dict[str, str]) -> MalformedPolicyError:
    """Return the one error that loading *files* gives."""
    with pytest.raises(MalformedPolicyError) as caught:
        Library.load(files)
    assert "\n" not in str(caught.value)
    return caught.value


def versions(second_from: str, first_until: str = "") -> dict[str, str]:
    """Return files with two versions of one policy."""
    until = f"in_force_until: {first_until}\n" if first_until else ""
    old = POLICY.replace("review_by", until + "review_by")
    new = POLICY.replace("version: 1", "version: 2", 1).replace("2026-01-01", second_from, 1)
    return acme_files(new) | {"acme/policy.1.yaml": old}


def test_a_loaded_policy_says_what_its_file_says() -> None:
    """Clauses, documents, lines and digests come through."""
    policy = acme()

    assert (policy.id, policy.version, policy.title) == ("acme", 1, "Acme API")
    assert [clause.id for clause in policy.clauses] == ["may-use", "no-rivals", "may-train"]
    rivals = policy.clause("no-rivals")
    assert rivals is not None
    assert (rivals.effect, rivals.binding) == (Effect.FORBID, Effect.FORBID)
    assert POLICY.splitlines()[rivals.line - 1] == "  - id: no-rivals"
    assert rivals.document.title == "Acme Terms"
    assert policy.clause("nobody") is None
    assert [c.id for c in policy.without("no-rivals").clauses] == ["may-use", "may-train"]


def test_the_digest_names_the_rules_and_nothing_else() -> None:
    """A change in a rule or a document changes the digest; a review or a case does not."""
    digest = Library.load(acme_files()).digest
    case = "use: {purpose: inference}\non: 2026-11-22\n"

    assert digest == Library.load(acme_files(first=case)).digest
    assert digest == Library.load(acme_files() | {"README.md": "for legal"}).digest
    assert digest != Library.load(acme_files(POLICY.replace("fine", "good"))).digest
    assert digest != Library.load(acme_files(terms=TERMS.replace("FAQ", "Q&A"))).digest


@pytest.mark.parametrize(
    ("day", "version"),
    [
        (dt.date(2025, 12, 31), None),
        (dt.date(2026, 1, 1), 1),
        (dt.date(2026, 6, 30), 1),
        (dt.date(2026, 7, 1), 2),
        (dt.date(2030, 1, 1), 2),
    ],
)
def test_a_policy_binds_from_a_day_to_a_day(day: dt.date, version: int | None) -> None:
    """On each day at most one version is in force."""
    library = Library.load(versions("2026-07-01", first_until="2026-06-30"))

    found = library.in_force("acme", day)

    assert version == (found.version if found else None)
    assert library.in_force("nobody", day) is None
    assert library.providers == ("acme",)


def test_two_versions_on_one_day_are_an_error() -> None:
    """Which of two versions binds is never a matter of order."""
    error = refused(versions("2026-07-01", first_until="2026-07-01"))

    assert "versions 1 and 2 of `acme` are both in force on 2026-07-01" in error.message
    assert "acme/policy.1.yaml" in error.hint


def test_two_folders_of_one_name_are_an_error() -> None:
    """An id belongs to one folder, wherever it lies."""
    files = acme_files()
    files |= {f"licences/{name}": text for name, text in acme_files().items()}

    assert "a second policy `acme`" in refused(files).message


def test_a_folder_below_a_folder_is_a_policy_too() -> None:
    """Licences may have a folder of their own."""
    files = {f"licences/{name}": text for name, text in acme_files().items()}

    policy = Library.load(files).in_force("acme", DAY)

    assert policy is not None
    assert policy.file == "licences/acme/policy.yaml"


def test_patterns_and_hidden_folders_are_left_alone() -> None:
    """Folders that begin with `_` or `.` are not loaded."""
    files = acme_files() | {"_template/policy.yaml": "{", ".git/x.yaml": "{"}

    assert Library.load(files).providers == ("acme",)


CLAUSE = """\
  - id: one
    effect: permit
    citation: {document: acme-terms, section: "1"}
    because: Fine.
    change: Other terms.
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "message", "hint"),
    [
        ("effect: permit", "effect: alow", 9, "`effect` can't be `alow`", "one of permit"),
        ("effect: permit", "efect: permit", 9, "unknown key `efect`", "did you mean `effect`?"),
        (
            "document: acme-terms",
            "document: acme-term",
            10,
            "not listed: `acme-term`",
            "`acme-t",
        ),
        ("document: acme-terms", "document: zzz", 10, "not listed: `zzz`", "under `terms`"),
        ("because: Fine.", "because: ''", 11, "an empty `because`", ""),
        ("    change: Other terms.\n", "", 8, "key `change` is missing", ""),
        ('section: "1"', "section: 1", 10, "`section` must be text, not `1`", "quotes"),
        ("id: one", "id: One", 8, "can't be the name of a clause", "lower-case"),
        ("id: one", "id: silence", 8, "can't be the name of a clause", ""),
        (
            "permit",
            "permit\n    obligations: [discose-ai]",
            10,
            "unknown obligation",
            "disclose",
        ),
        ("permit", "permit\n    obligations: disclose-ai", 10, "must be a list", ""),
        ("permit", "permit\n    when: {purpos: train}", 10, "unknown fact `purpos`", "purpose"),
        (
            'section: "1"',
            'section: "1", words: "a b c d e f g h i j k"',
            10,
            "more than 10 quoted words",
            "paraphrase",
        ),
        ("policy: acme", "policy: acne", 1, "policy `acne` lies in folder `acme`", "folder's"),
        ("version: 1", "version: 0", 2, "versions start at 1", ""),
        ("version: 1", "version: one", 2, "`version` must be a whole number", ""),
        ("review_by: 2027-01-01", "review_by: soon", 5, "`review_by` has a bad value", ""),
        ("review_by", "in_force_until: 2020-01-01\nreview_by", 5, "before `in_force_from`", ""),
        ("terms: [acme-terms", "terms: [acme-tems", 6, "is not in terms.yaml", "`acme-terms`?"),
        ("clauses:\n", "clauses:\n" + CLAUSE, 13, "clause `one` twice", "in line 8"),
        ("title: Acme API", "title: Acme\ntitle: API", 4, "key `title` twice", "in line 3"),
        ("title: Acme API", "title: *acme", 3, "an anchor or alias", ""),
    ],
)
def test_a_bad_policy_is_one_error_with_file_and_line(
    old: str, new: str, line: int, message: str, hint: str
) -> None:
    """Whatever is wrong in a policy is named with its place and the next move."""
    error = refused(acme_files((HEAD + CLAUSE).replace(old, new, 1)))

    assert ("acme/policy.yaml", line) == (error.file, error.line)
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("  - id: acme-faq", "  - id: acme-terms", 8, "document `acme-terms` twice"),
        ("    read: {where: the original, when: 2026-11-01}\n", "", 2, "where and when"),
        ("confidence: primary", "confidence: certain", 6, "`confidence` can't be `certain`"),
        ("when: 2026-11-01", "when: yesterday", 7, "`when` has a bad value"),
        ("documents:", "docs:", 1, "unknown key `docs`"),
    ],
)
def test_bad_terms_are_one_error_with_file_and_line(
    old: str, new: str, line: int, message: str
) -> None:
    """Whatever is wrong in the list of documents is named with its place."""
    error = refused(acme_files(terms=TERMS.replace(old, new, 1)))

    assert ("acme/terms.yaml", line) == (error.file, error.line)
    assert message in error.message


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("acme/polcy.yaml", "belongs to no policy", "did you mean `policy.yaml`?"),
        ("odd.yaml", "belongs to no policy", "folder of its own"),
        ("policy.yaml", "belongs to no policy", ""),
        ("acme/terms.yml", "ends in `.yml`", "name it `.yaml`"),
        ("new/terms.yaml", "the file is missing", "copy `_template`"),
        ("new/cases/permit-x.yaml", "the file is missing", ""),
        ("New/policy.yaml", "can't be the name of a policy", "lower-case"),
    ],
)
def test_a_file_that_belongs_nowhere_is_an_error(name: str, message: str, hint: str) -> None:
    """A misspelt name is not passed over in silence."""
    error = refused(acme_files() | {name: "{}"})

    assert message in error.message
    assert hint in error.hint


def test_a_policy_without_terms_is_an_error() -> None:
    """A policy that lists no documents can cite none."""
    files = acme_files()
    del files["acme/terms.yaml"]

    assert (refused(files).file, refused(files).line) == ("acme/terms.yaml", 1)


def test_an_old_version_stands_in_a_file_of_its_number() -> None:
    """`policy.2.yaml` holds version 2."""
    documents = load_terms(acme_files(), "acme")

    with pytest.raises(MalformedPolicyError, match=r"version 1 lies in `policy\.2\.yaml`"):
        load_policy(POLICY, "acme/policy.2.yaml", documents)

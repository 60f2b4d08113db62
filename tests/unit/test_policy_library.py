"""The library loads whole or not at all."""

from __future__ import annotations

import datetime as dt

import pytest

from gateway.errors import MalformedPolicyError
from gateway.limits import YAML_BYTES_MAX, YAML_DEPTH_MAX, YAML_NODES_MAX
from gateway.policy.library import Library, load_policy, load_terms
from gateway.policy.model import Effect
from gateway.policy.vocabulary import UNLISTED
from tests.support.policies import (
    CLAUSES,
    DAY,
    HEAD,
    POLICY,
    TERMS,
    acme,
    acme_files,
    written,
)


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


def test_a_policy_may_rule_on_nothing() -> None:
    """A list without clauses loads; it is silent, and silence forbids."""
    assert acme(HEAD.replace("clauses:", "clauses: []")).clauses == ()
    assert CLAUSES in POLICY


def test_patterns_and_hidden_folders_are_left_alone() -> None:
    """Folders that begin with `_` or `.` are not loaded."""
    files = acme_files() | {"_template/policy.yaml": "{", ".git/x.yaml": "{"}

    assert Library.load(files).providers == ("acme",)


CLAUSE = written("")


@pytest.mark.parametrize(
    ("old", "new", "line", "message", "hint"),
    [
        ("effect: permit", "effect: Permit", 9, "`effect` can't be `Permit`", "permit`?"),
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
        ("because: So it is.", "because: ''", 11, "an empty `because`", ""),
        ("    change: Other terms.\n", "", 8, "key `change` is missing", ""),
        ('section: "1"', "section: 1", 10, "`section` must be text, not `1`", "quotes"),
        ("id: one", "id: One", 8, "can't be the name of a clause", "lower-case"),
        ("id: one", "id: silence", 8, "can't be the name of a clause", ""),
        (
            "permit",
            "permit\n    obligations: [discose-ai]",
            10,
            "unknown obligation `discose-ai`",
            "did you mean `disclose-ai`?",
        ),
        ("permit", "permit\n    obligations: disclose-ai", 10, "must be a list", ""),
        ("permit", "permit\n    obligations: [sing]", 10, "unknown obligation", "known: disc"),
        ("permit", "permit\n    obligations: [attribute]", 10, "takes some words", "{name:"),
        ("permit", "permit\n    obligations: [attribute: ]", 10, "must be", ""),
        ("permit", "permit\n    obligations: [{attribute: ''}]", 10, "takes some words", ""),
        ("permit", "permit\n    obligations: [{attribute: ' '}]", 10, "takes some words", ""),
        ("permit", 'permit\n    obligations: [{attribute: "a, b"}]', 10, "some", "a comma"),
        ("permit", "permit\n    obligations: [disclose-ai: 3]", 10, "takes no value", ""),
        ("permit", "permit\n    obligations: [delete-by-days]", 10, "a number of days", "{"),
        ("permit", "permit\n    obligations: [delete-by-days: 0]", 10, "a number of days", ""),
        ("permit", "permit\n    obligations: [delete-by-days: -1]", 10, "number of days", ""),
        ("permit", "permit\n    obligations: [delete-by-days: 1.5]", 10, "of days", ""),
        ("permit", "permit\n    obligations: [delete-by-days: 9999999]", 10, "of days", ""),
        ("permit", "permit\n    obligations: [name-prefix: {a: b}]", 10, "must be", ""),
        (
            "permit",
            "permit\n    obligations:\n      - no-cache\n      - {attribute: a, document: b}",
            12,
            "one name with its value",
            "`- {name: value}`",
        ),
        ("permit", "permit\n    binds: [everybody]", 10, "can't be `everybody`", "end-users"),
        ("permit", "permit\n    binds: customer", 10, "must be a list", ""),
        ("permit", "permit\n    survives: always", 10, "must be `true` or `false`", ""),
        ("version: 1", "version: 1\nwith_model_terms: maybe", 3, "`true` or `false`", ""),
        ("version: 1", "version: 1\nkind: overlay", 3, "unknown key `kind`", ""),
        ("version: 1", "version: 1\nstale: yes", 3, "unknown key `stale`", ""),
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
        ("review_by: 2027-01-01", "review_by: 2027-02-30", 5, "has a bad value", ""),
        ("review_by: 2027-01-01\n", "", 1, "key `review_by` is missing", ""),
        ("in_force_from: 2026-01-01", "in_force_from: 2026", 4, "must be", ""),
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
    "bomb",
    [
        "#" * (YAML_BYTES_MAX + 1),
        "clauses: " + "[" * (YAML_DEPTH_MAX + 1) + "]" * (YAML_DEPTH_MAX + 1),
        "terms:\n" + "- a\n" * (YAML_NODES_MAX + 1),
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "a: 1\n<<: {b: 2}\n",
        "!!python/object:os.system {}\n",
        "",
        "just words",
        "- a list",
        "\x00",
    ],
)
@pytest.mark.parametrize(
    "file", ["acme/policy.yaml", "acme/terms.yaml", "models.yaml", "acme/policy.2.yaml"]
)
def test_a_bomb_in_any_file_is_one_error(file: str, bomb: str) -> None:
    """Whatever a file holds, the library is whole or refused, and the file is named."""
    files = acme_files() | {file: bomb}
    if (file, bomb) == ("models.yaml", ""):
        assert Library.load(files).models == {}
    else:
        assert refused(files).file == file


def test_nothing_is_half_loaded() -> None:
    """One bad clause at the end of one file, and not a single policy comes back."""
    files = acme_files()
    files |= {name.replace("acme", "zebra", 1): text for name, text in files.items()}
    files["zebra/policy.yaml"] = POLICY.replace("acme", "zebra", 1) + "  - id: late\n"

    assert refused(files).file == "zebra/policy.yaml"


def test_obligations_stand_as_on_the_wire() -> None:
    """A value stands behind the name and an equals sign."""
    lines = (
        "\n      - {attribute: Built with Acme}\n      - {delete-by-days: 30}\n      - no-cache"
    )
    policy = acme(HEAD + written("", obligations=lines))

    assert policy.clauses[0].obligations == {
        "attribute=Built with Acme",
        "delete-by-days=30",
        "no-cache",
    }


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("", "provider"), ("licences/", "licence"), ("overlays/", "overlay"), ("eu/", "provider")],
)
def test_the_kind_follows_from_the_folder(folder: str, kind: str) -> None:
    """What lies below `licences` is a licence, below `overlays` a law; all else a provider."""
    files = {f"{folder}{name}": text for name, text in acme_files().items()}

    (policy,) = Library.load(files).policies["acme"]

    assert policy.kind == kind


MODELS = """\
models:
  - id: acme/elm-1
    names: [elm-1, elm-latest]
    terms: [elm-licence]
    source: the licence file beside the weights
    confidence: primary
  - id: acme/oak-1
    terms: [elm-licence]
    source: a magazine
    confidence: secondary
"""


def layered(models: str = MODELS) -> dict[str, str]:
    """Return a library with a host, a licence, a law, and the models of the host."""
    files: dict[str, str] = {}
    for folder, name in (
        ("host", "host"),
        ("licences/elm-licence", "elm-licence"),
        (UNLISTED, UNLISTED),
        ("overlays/law", "law"),
    ):
        text = POLICY.replace("policy: acme", f"policy: {name}")
        if name == "host":
            text = text.replace("version: 1", "version: 1\nwith_model_terms: true")
        files |= {f"{folder}/policy.yaml": text, f"{folder}/terms.yaml": TERMS}
    return files | {"models.yaml": models}


@pytest.mark.parametrize(
    ("named", "model", "bound", "absent"),
    [
        (["host"], "acme/elm-1", ["host", "elm-licence"], []),
        (["host"], "elm-latest", ["host", "elm-licence"], []),
        (["host"], "ELM-1", ["host", UNLISTED], []),
        (["host"], "acme/oak-1", ["host", "elm-licence", UNLISTED], []),
        (["host"], None, ["host", UNLISTED], []),
        (["host", "law"], "elm-1", ["host", "law", "elm-licence"], []),
        (["elm-licence"], "acme/oak-1", ["elm-licence"], []),
        (["host", "host"], "elm-1", ["host", "elm-licence"], []),
        (["nobody"], "elm-1", [], ["nobody"]),
        (["nobody", "host"], "elm-1", ["host", "elm-licence"], ["nobody"]),
        (["law"], "elm-1", ["law"], [""]),
        ([], "elm-1", [], [""]),
    ],
)
def test_the_terms_of_the_model_bind_where_a_policy_says_so(
    named: list[str], model: str | None, bound: list[str], absent: list[str]
) -> None:
    """Exact ids lead to a licence; a model that nobody listed leads to the policy for those."""
    binding = Library.load(layered()).binding(named, model, DAY)

    assert [policy.id for policy in binding.policies] == bound
    assert list(binding.absent) == absent


def test_a_model_that_is_not_listed_needs_a_policy_of_its_own() -> None:
    """Where nobody wrote one for unlisted models, such a call is bound by nobody's terms."""
    files = {name: text for name, text in layered("").items() if UNLISTED not in name}

    assert Library.load(files).binding(["host"], "elm-1", DAY).absent == (UNLISTED,)


def test_a_policy_that_does_not_bind_that_day_stands_in() -> None:
    """Before its first day a policy is bound all the same, so that `decide` can say so."""
    (policy,) = Library.load(acme_files()).binding(["acme"], None, dt.date(2020, 1, 1)).policies

    assert (policy.id, policy.in_force(dt.date(2020, 1, 1))) == ("acme", False)


def test_which_models_carry_which_terms_is_a_rule() -> None:
    """A change in `models.yaml` changes the digest of the library."""
    other = MODELS.replace("elm-latest", "elm-newest")

    assert Library.load(layered()).digest != Library.load(layered(other)).digest


@pytest.mark.parametrize(
    ("old", "new", "line", "message", "hint"),
    [
        (
            "[elm-licence]",
            "[elm-license]",
            4,
            "no policy reads: `elm-license`",
            "elm-licence`?",
        ),
        ("[elm-licence]", "[zzz]", 4, "no policy reads: `zzz`", "a policy's folder"),
        ("[elm-licence]", "[]", 2, "`acme/elm-1` names no terms", UNLISTED),
        ("acme/oak-1", "acme/elm-1", 7, "model `acme/elm-1` is listed twice", ""),
        ("acme/oak-1", "elm-1", 7, "model `elm-1` is listed twice", ""),
        ("[elm-1, elm-latest]", "[elm-1, elm-1]", 2, "model `elm-1` is listed twice", ""),
        ("primary", "unread", 6, "`confidence` can't be `unread`", "primary"),
        ("    source: a magazine\n", "", 7, "key `source` is missing", ""),
        ("names:", "name:", 3, "unknown key `name`", "`names`?"),
        ("models:", "modles:", 1, "unknown key `modles`", "`models`?"),
        ("acme/elm-1", "&x acme/elm-1", 2, "an anchor or alias", ""),
        ("id: acme/elm-1", "id: acme/elm-1\n    id: b", 3, "key `id` twice", ""),
    ],
)
def test_bad_models_are_one_error_with_file_and_line(
    old: str, new: str, line: int, message: str, hint: str
) -> None:
    """A list of models names terms that exist and each model once."""
    error = refused(layered(MODELS.replace(old, new, 1)))

    assert ("models.yaml", line) == (error.file, error.line)
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize("folder", ["_drafts", ".git", "host/_old"])
def test_models_of_patterns_are_left_alone(folder: str) -> None:
    """A list of models in a folder that is not loaded is not loaded either."""
    files = layered() | {f"{folder}/models.yaml": MODELS}

    assert Library.load(files).models == Library.load(layered()).models


def test_marking_policies_stale_changes_nothing_else() -> None:
    """What a watch found is put on exactly the versions that it is about."""
    library = Library.load(versions("2026-07-01", first_until="2026-06-30"))

    marked = library.marked({("acme", 2): "The terms changed."})

    assert [policy.stale for policy in marked.policies["acme"]] == ["", "The terms changed."]
    assert marked.digest == library.digest
    assert marked.marked({}) == library


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("  - id: acme-faq", "  - id: acme-terms", 8, "document `acme-terms` twice"),
        ("    read: {where: the original, when: 2026-11-01}\n", "", 2, "where and when"),
        ("confidence: primary", "confidence: certain", 6, "`confidence` can't be `certain`"),
        ("when: 2026-11-01", "when: yesterday", 7, "`when` has a bad value"),
        ("documents:", "docs:", 1, "unknown key `docs`"),
        ("title: Acme Terms", "title: Acme\n    author: A", 4, "unknown key `author`"),
        ("    url: https://acme.example/terms\n", "", 2, "key `url` is missing"),
        ("effective 2026-01-01", "v\n    effective: soon", 6, "`effective` has a bad value"),
        ("{where: the original, when: 2026-11-01}", "the original", 7, "must be a mapping"),
        (
            "confidence: primary",
            "confidence: primary\n    snapshot: {}",
            7,
            "`file` is missing",
        ),
        ("documents:", "documents: &all", 1, "an anchor or alias"),
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

"""A snapshot is written into `terms.yaml`, and everything else of the file stays."""

from __future__ import annotations

import re

import pytest

from gateway.errors import MalformedPolicyError
from gateway.ident import Sha256
from gateway.policy.model import Snapshot, WrittenTerms
from gateway.policy.recording import check_snapshot, snapshot_lines, with_snapshot
from gateway.policy.source import convert, read

DIGEST = Sha256("0123456789abcdef" * 4)
SNAPSHOT = Snapshot(
    file="archive/Acme/Commercial Terms.md",
    file_sha256=DIGEST,
    sha256=DIGEST,
    passages={'say "no": never': DIGEST, "don't – ever": DIGEST},
)

TERMS = """\
# What we read.
documents:
  - id: one
    title: Acme Terms   # as it calls itself
    url: https://acme.example/terms
    version: "1"
    confidence: primary
    read:
      where: the original
      when: 2026-11-01

  # The next one is older.
  - id: two
    title: Acme FAQ
    url: https://acme.example/faq
    version: "2"
    confidence: secondary
    read: {where: a magazine, when: 2026-11-01}
    note: >
      A sentence
      # that is no comment
"""


def snapshot_in(text: str, document: str) -> Snapshot | None:
    """Return the snapshot of *document* as the loader reads it."""
    found = convert(read(text, "terms.yaml"), WrittenTerms, "terms.yaml").documents
    return next(one.snapshot for one in found if one.id == document)


def without_snapshots(text: str) -> str:
    """Return *text* without the lines of snapshots."""
    return re.sub(r"(?m)^    snapshot:.*\n(?:      .*\n)*", "", text)


@pytest.mark.parametrize("document", ["one", "two"])
def test_a_snapshot_is_added_and_nothing_else_changes(document: str) -> None:
    """The new lines stand at the document's end; without them the file is what it was."""
    made = with_snapshot(TERMS, "terms.yaml", document, SNAPSHOT)

    assert snapshot_in(made, document) == SNAPSHOT
    assert without_snapshots(made) == TERMS


@pytest.mark.parametrize("document", ["one", "two"])
def test_a_snapshot_is_replaced(document: str) -> None:
    """Recording again leaves one snapshot, the newer."""
    first = with_snapshot(TERMS, "terms.yaml", document, SNAPSHOT)
    newer = Snapshot(file="Acme/Other.md", sha256=DIGEST)

    made = with_snapshot(first, "terms.yaml", document, newer)

    assert snapshot_in(made, document) == newer
    assert without_snapshots(made) == TERMS
    assert with_snapshot(made, "terms.yaml", document, newer) == made


def test_a_file_named_by_hand_is_filled_in_where_it_stands() -> None:
    """A lawyer may write the file alone, between other keys; its place is kept."""
    named = TERMS.replace(
        "    confidence: primary\n",
        "    snapshot: {file: Acme/Terms.md}  # here\n    confidence: primary\n",
    )

    made = with_snapshot(named, "terms.yaml", "one", SNAPSHOT)

    assert snapshot_in(made, "one") == SNAPSHOT
    assert without_snapshots(made) == TERMS


@pytest.mark.parametrize(
    "text",
    [
        TERMS.rstrip("\n"),
        TERMS.replace("\n", "\r\n"),
        TERMS + "\n# the end\n",
        TERMS.replace("  - id: ", "  -   id: ").replace("\n    ", "\n      "),
        "documents:\n- id: one\n  title: t\n  url: u\n  version: v\n  confidence: unread",
        "documents:\n- id: one\n  title: t\n  url: u\n  version: v\n  confidence: unread\n\n\n",
    ],
)
def test_files_of_every_shape_are_written(text: str) -> None:
    """A missing last line end, other line ends and other indentation stay as they are."""
    made = with_snapshot(text, "terms.yaml", "one", SNAPSHOT)

    assert snapshot_in(made, "one") == SNAPSHOT
    assert [line for line in made.split("\n") if line in text.split("\n")] == [
        line for line in text.split("\n") if line in made.split("\n")
    ]
    assert ("\r\n" in made) == ("\r\n" in text)
    assert made.replace("\r\n", "").count("\r") == 0


@pytest.mark.parametrize(
    ("text", "document", "told"),
    [
        (TERMS, "three", "terms.yaml:1: there is no document `three`"),
        (
            "documents:\n  - {id: one, title: t, url: u, version: v, confidence: unread}\n",
            "one",
            "terms.yaml:2: a document whose keys do not stand on lines of their own",
        ),
        (
            "documents:\n  - id: one\n    title: |+\n      t\n\n",
            "one",
            "terms.yaml:2: a document to which no snapshot can be added",
        ),
        ("documents: none\n", "one", "terms.yaml:1: there is no document `one`"),
    ],
)
def test_what_can_not_be_written_is_an_error(text: str, document: str, told: str) -> None:
    """Nothing is guessed about a file that is written in another way."""
    with pytest.raises(MalformedPolicyError, match=re.escape(told)):
        with_snapshot(text, "terms.yaml", document, SNAPSHOT)


@pytest.mark.parametrize(
    ("snapshot", "line", "told"),
    [
        (Snapshot(file="../Terms.md"), 12, "`../Terms.md` is not the path of a file"),
        (Snapshot(file="/etc/passwd"), 12, "`/etc/passwd` is not the path of a file"),
        (Snapshot(file="Acme//Terms.md"), 12, "is not the path of a file"),
        (Snapshot(file="Acme\\Terms.md"), 12, "is not the path of a file"),
        (Snapshot(file="a", sha256=Sha256("A" * 64)), 13, "`sha256` is not a digest"),
        (Snapshot(file="a", file_sha256=Sha256("12")), 13, "`file_sha256` is not a digest"),
        (
            Snapshot(file="a", sha256=DIGEST, passages={"as they": Sha256("x" * 64)}),
            15,
            "`as they` is not a digest",
        ),
    ],
)
def test_a_bent_snapshot_is_an_error_with_its_line(
    snapshot: Snapshot, line: int, told: str
) -> None:
    """What the schema lets through is checked, so that no typo passes for a change."""
    text = TERMS.replace(
        "\n\n  # The",
        "".join(f"\n    {one}" for one in snapshot_lines(snapshot)) + "\n\n  # The",
    )

    with pytest.raises(MalformedPolicyError, match=re.escape(told)) as caught:
        check_snapshot(text, "terms.yaml", "one", snapshot)

    assert caught.value.line == line


def test_a_whole_snapshot_passes() -> None:
    """What `--record` writes is what the check wants."""
    made = with_snapshot(TERMS, "terms.yaml", "one", SNAPSHOT)

    check_snapshot(made, "terms.yaml", "one", SNAPSHOT)

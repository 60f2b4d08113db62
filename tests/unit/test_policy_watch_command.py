"""`gateway policy watch` tells what became of the texts that policies were read from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from gateway.cli import watch
from gateway.errors import CallerError, GatewayError, MalformedPolicyError, NotFoundError
from gateway.limits import SNAPSHOT_BYTES_MAX
from gateway.policy.source import plain, read
from tests.support.policies import POLICY, TERMS, acme_files

TEXT = """\
1. Use
------

You may use the widgets as they come.

2. Limits
---------

You will not build rival widgets with Output.
"""
QUOTING = (
    POLICY.replace(
        'document: acme-terms, section: "1"',
        'document: acme-terms, section: "1", words: as they come',
    )
    .replace(
        'document: acme-terms, section: "2"',
        'document: acme-terms, section: "2", words: build rival widgets',
    )
    .replace('acme-terms, section: "3"', 'acme-terms, section: "2", words: build rival widgets')
)
READ = TERMS.replace(
    "read: {where: the original, when: 2026-11-01}",
    "read: {where: 'OpenTermsArchive/law-versions @ abc, Acme/Terms.md', when: 2026-11-01}",
)
ACME = "law-versions/Acme"


def gateway(*words: str | Path) -> int:
    """Run `gateway policy watch` with *words*."""
    parser = argparse.ArgumentParser(prog="gateway")
    watch.add(parser.add_subparsers())
    args = parser.parse_args(["watch", *map(str, words), "--on", "2026-11-22"])
    code = args.run(args)
    assert isinstance(code, int)
    return code


def lay(folder: Path, files: dict[str, str]) -> Path:
    """Write *files* under *folder* and return it."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """Return a folder of policies that were read from `Acme/Terms.md`."""
    return lay(tmp_path / "policies", acme_files(QUOTING, READ))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return a folder of terms that holds that text."""
    return lay(tmp_path / "archive", {f"{ACME}/Terms.md": TEXT})


def record(archive: Path, policies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Record the texts in *archive* and forget what was said."""
    assert gateway(archive, "--policies", policies, "--record", "--allow-unwatched") == 0
    capsys.readouterr()


def test_nothing_is_passed_over(
    archive: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is recorded, every document is said to be unwatched, and it fails."""
    assert gateway(archive, "--policies", policies) == 1

    own = "; its own text was not read"
    assert capsys.readouterr().out.splitlines() == [
        "acme 1, acme-terms (Acme Terms): not watched: no text is recorded",
        f"acme 1, acme-faq (Acme FAQ): not watched: no text is recorded{own}",
        f"acme 1, acme-order (Acme Order Form): not watched: no text is recorded{own}",
        "3 documents: 3 not watched",
    ]


def test_recording_writes_digests_into_the_terms(
    archive: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text's place comes from `read`; the rest of the file stays, and it is watched."""
    assert gateway(archive, "--policies", policies, "--record") == 1

    said = capsys.readouterr().out.splitlines()
    assert said[0] == "acme, acme-terms: recorded `law-versions/Acme/Terms.md`, 2 passages"
    assert said[1].startswith(
        "acme, acme-faq: not recorded: its own text was not read; read it"
    )
    written = (policies / "acme/terms.yaml").read_text(encoding="utf-8")
    lines = READ.splitlines()
    assert [line for line in written.splitlines() if line in lines] == lines
    snapshot = plain(read(written, "f"))["documents"][0]["snapshot"]
    assert (snapshot["file"], list(snapshot["passages"])) == (
        "law-versions/Acme/Terms.md",
        ["as they come", "build rival widgets"],
    )
    assert gateway(archive, "--policies", policies, "--allow-unwatched") == 0
    assert "(Acme Terms): unchanged" in capsys.readouterr().out


def test_a_change_near_a_citation_fails(
    archive: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stale place is named with its clauses, its line, and what stands there now."""
    record(archive, policies, capsys)
    lay(archive, {f"{ACME}/Terms.md": TEXT.replace("with Output", "with any Output")})

    assert gateway(archive, "--policies", policies, "--allow-unwatched") == 1

    said = capsys.readouterr().out
    assert "acme 1, acme-terms (Acme Terms): stale: changed near a cited place" in said
    assert (
        "  2 `build rival widgets` (no-rivals, may-train): the text near it changed;"
        " now in line 9, under `2. Limits`" in said
    )
    assert "with any Output." in " ".join(said.replace("|", "").split())
    assert said.endswith("3 documents: 1 stale, 2 not watched\n")


def test_a_cosmetic_change_does_not_fail(
    archive: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another layout is told of, and is fine."""
    record(archive, policies, capsys)
    dressed = TEXT.replace("as they", "**as**\nthey").replace(
        "2. Limits\n---------", "## 2) Limits"
    )
    lay(archive, {f"{ACME}/Terms.md": dressed})

    assert gateway(archive, "--policies", policies, "--allow-unwatched") == 0

    assert "(Acme Terms): cosmetic changes only" in capsys.readouterr().out


def test_json_carries_what_a_statement_needs(
    archive: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Policy, version, document, sections and the digest of the words there are now."""
    record(archive, policies, capsys)
    lay(archive, {f"{ACME}/Terms.md": TEXT.replace("with Output", "with any Output")})

    assert gateway(archive, "--policies", policies, "--json") == 1

    one, *others = json.loads(capsys.readouterr().out)
    assert (one["policy"], one["version"], one["document"]) == ("acme", 1, "acme-terms")
    assert (one["state"], one["stale"]) == ("changed", True)
    assert one["sections"] == ["1", "2"]
    assert len(one["sha256"]) == 64
    assert [other["state"] for other in others] == ["unrecorded", "unrecorded"]


@pytest.mark.parametrize(
    "name",
    [
        "Terms.txt",
        "Terms/2026-08-22.md",
        "Terms/2026-08-22T10-30-58Z.md",
        "Terms-2026-08-22.txt",
        "Terms 2026-08-22.md",
    ],
)
def test_every_layout_of_an_archive_is_found(
    name: str, archive: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One file a document or one a version, Markdown or plain."""
    record(archive, policies, capsys)
    (archive / ACME / "Terms.md").unlink()
    lay(archive, {f"{ACME}/{name}": TEXT})

    assert gateway(archive, "--policies", policies, "--allow-unwatched") == 0


def test_of_dated_versions_the_newest_up_to_the_day_counts(
    archive: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Earlier ones show what changed, later ones are not yet."""
    record(archive, policies, capsys)
    (archive / ACME / "Terms.md").unlink()
    lay(
        archive,
        {
            f"{ACME}/Terms/2026-01-01.md": "something else",
            f"{ACME}/Terms/2026-10-01.md": TEXT,
            f"{ACME}/Terms/2026-11-01.md": TEXT.replace("with Output", "with any Output"),
            f"{ACME}/Terms/2026-11-23.md": "not yet",
            f"{ACME}/Terms/2026-99-99.md": "no day",
        },
    )

    assert gateway(archive, "--policies", policies, "--allow-unwatched") == 1

    assert "build rival widgets with {+any+} Output." in capsys.readouterr().out


def test_the_texts_as_they_were_read_may_lie_elsewhere(
    archive: Path, policies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--before` shows the difference where the archive keeps one file a document."""
    record(archive, policies, capsys)
    before = lay(tmp_path / "before", {f"{ACME}/Terms.md": TEXT})
    lay(archive, {f"{ACME}/Terms.md": TEXT.replace("with Output", "with any Output")})

    gateway(archive, "--policies", policies, "--before", before)

    assert "build rival widgets with {+any+} Output." in capsys.readouterr().out


def test_a_collection_may_be_the_folder_itself(
    archive: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that has the collection's name is that collection; another is not."""
    record(archive, policies, capsys)

    collection = archive / "law-versions"
    assert gateway(collection, "--policies", policies, "--allow-unwatched") == 0
    other = collection.rename(archive / "other-versions")
    assert gateway(other, "--policies", policies) == 1
    assert "not watched: the file is missing; DIR has no `law-" in capsys.readouterr().out


def test_a_text_is_found_in_the_folder_that_was_named(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where `read` names only a service, the one document with all quoted words is taken."""
    lay(archive, {f"{ACME}/Privacy.md": "We keep as little as we can."})
    told = READ.replace("Acme/Terms.md", "Acme")
    folder = lay(tmp_path / "told", acme_files(QUOTING, told))

    gateway(archive, "--policies", folder, "--record")
    assert "recorded `law-versions/Acme/Terms.md`" in capsys.readouterr().out

    lay(archive, {f"{ACME}/Copy.md": TEXT})
    folder = lay(tmp_path / "unclear", acme_files(QUOTING, told))
    gateway(archive, "--policies", folder, "--record")
    assert "acme-terms: not recorded: nothing says which file it is" in capsys.readouterr().out


def test_a_licence_without_an_ending_is_read(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`LICENSE` is the name of many a text."""
    lay(archive, {"law-versions/LICENSE": TEXT})
    folder = lay(
        tmp_path / "licence", acme_files(QUOTING, READ.replace("Acme/Terms.md", "LICENSE"))
    )

    record(archive, folder, capsys)
    assert gateway(archive, "--policies", folder, "--allow-unwatched") == 0


def test_a_file_may_be_named_by_hand(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where `read` names no file of an archive, legal writes its path, and records."""
    lay(archive, {"mine/Acme.txt": TEXT})
    named = READ.replace("OpenTermsArchive/law-versions @ abc, Acme/Terms.md", "paper")
    first = "    confidence: primary\n"
    named = named.replace(first, "    snapshot: {file: mine/Acme.txt}\n" + first)
    folder = lay(tmp_path / "named", acme_files(QUOTING, named))

    assert gateway(archive, "--policies", folder) == 1
    assert "acme-terms (Acme Terms): not watched: no text is rec" in capsys.readouterr().out
    record(archive, folder, capsys)
    assert gateway(archive, "--policies", folder, "--allow-unwatched") == 0


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("OpenTermsArchive/law-versions, Acme/../Acme/Terms.md", "nothing says which file it"),
        (
            "OpenTermsArchive/law-versions, Acme/None.md",
            "`law-versions/Acme/None.md` is not in",
        ),
        ("OpenTermsArchive/law-versions @ 1, Acme/Bent.md (part 2)", "is not UTF-8 in line 1"),
        ("a friend's copy", "nothing says which file it is; write `snapshot: {file: …}`"),
    ],
)
def test_what_can_not_be_recorded_is_said(
    where: str, told: str, tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each document that stays unrecorded has its reason."""
    (archive / ACME / "Bent.md").write_bytes(b"\xff")
    read = READ.replace(
        "'OpenTermsArchive/law-versions @ abc, Acme/Terms.md'", json.dumps(where)
    )
    folder = lay(tmp_path / "other", acme_files(QUOTING, read))

    assert gateway(archive, "--policies", folder, "--record") == 1

    assert told in capsys.readouterr().out.splitlines()[0]


def test_terms_that_are_not_written_key_by_line_stay_as_they_are(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their author is told what to change, and nothing is written."""
    dense = (
        "documents:\n  - {id: acme-terms, title: T, url: u, version: v, confidence: primary,"
        " read: {where: 'a/law-versions, Acme/Terms.md', when: 2026-01-01}}\n"
    )
    policy = QUOTING.replace("[acme-terms, acme-faq, acme-order]", "[acme-terms]")
    folder = lay(tmp_path / "dense", acme_files(policy, dense))

    assert gateway(archive, "--policies", folder, "--record") == 1

    assert "keys do not stand on lines of their own" in capsys.readouterr().out
    assert (folder / "acme/terms.yaml").read_text(encoding="utf-8") == dense


def test_an_earlier_version_that_is_no_text_does_no_harm(
    archive: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It could only have shown what changed."""
    record(archive, policies, capsys)
    (archive / ACME / "Terms-2026-01-01.md").write_bytes(b"\xff")
    lay(archive, {f"{ACME}/Terms.md": TEXT.replace("as they come", "as they go")})

    assert gateway(archive, "--policies", policies) == 1

    assert (
        "  1 `as they come` (may-use): the quoted words are no long" in capsys.readouterr().out
    )


def test_nothing_is_recorded_that_lacks_a_quote(
    archive: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A text without the quoted words is not the one that was read; each quote is named."""
    lay(archive, {f"{ACME}/Terms.md": TEXT.replace("as they come", "as they go")})

    assert gateway(archive, "--policies", policies, "--record") == 1

    said = capsys.readouterr().out
    assert "acme-terms: not recorded: `as they come` (1) is not in it" in said
    assert (policies / "acme/terms.yaml").read_text(encoding="utf-8") == READ


def test_recording_says_what_it_did_as_json(
    archive: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program reads the same."""
    gateway(archive, "--policies", policies, "--record", "--json")

    one, *others = json.loads(capsys.readouterr().out)
    assert (one["document"], one["passages"], one["problems"]) == ("acme-terms", 2, [])
    assert all(other["problems"] for other in others)


def test_policies_of_the_past_are_left_out(
    archive: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What only a version cites whose last day has passed can't be watched any more."""
    past = QUOTING.replace("in_force_from: 2026-01-01", "in_force_from: 2026-07-01").replace(
        "version: 1", "version: 2"
    )
    old = QUOTING.replace("review_by", "in_force_until: 2026-06-30\nreview_by").replace(
        "document: acme-terms", "document: acme-faq"
    )
    lay(policies, {"acme/policy.yaml": past, "acme/policy.1.yaml": old})

    gateway(archive, "--policies", policies)

    said = capsys.readouterr().out
    assert ("acme 2, acme-terms" in said, "acme-faq" in said) == (True, False)


def test_one_policy_may_be_looked_at(
    archive: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--only` takes a policy's id, and names the nearest if there is none."""
    assert gateway(archive, "--policies", policies, "--only", "acme") == 1
    assert "3 documents" in capsys.readouterr().out
    with pytest.raises(NotFoundError, match=r"there is no policy `acne`.*`acme`"):
        gateway(archive, "--policies", policies, "--only", "acne")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"one\ntw\xff", "is not UTF-8 in line 2"),
        (b"a" * (SNAPSHOT_BYTES_MAX + 1), f"is larger than {SNAPSHOT_BYTES_MAX} bytes"),
    ],
)
def test_what_can_not_be_read_is_said(
    content: bytes,
    told: str,
    archive: Path,
    policies: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file that is no text is one line, and the others are still looked at."""
    record(archive, policies, capsys)
    (archive / ACME / "Terms.md").write_bytes(content)

    assert gateway(archive, "--policies", policies) == 1

    said = capsys.readouterr().out.splitlines()
    assert "not watched: the file can't be read; " in said[0]
    assert said[0].endswith(told)
    assert len(said) == 4


def test_links_out_of_the_folder_are_not_followed(
    archive: Path, policies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A link may lead to another file of the folder, and nowhere else."""
    record(archive, policies, capsys)
    text = archive / ACME / "Terms.md"
    inside = text.rename(archive / ACME / "Kept.md")
    text.symlink_to(inside)
    assert gateway(archive, "--policies", policies, "--allow-unwatched") == 0

    text.unlink()
    text.symlink_to(inside.rename(tmp_path / "outside.md"))
    assert gateway(archive, "--policies", policies) == 1
    assert "leads out of the folder of terms" in capsys.readouterr().out


def test_a_bent_snapshot_is_an_error_of_legal(
    archive: Path, policies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A digest that was damaged by hand is one line with its place."""
    record(archive, policies, capsys)
    terms = policies / "acme/terms.yaml"
    text = terms.read_text(encoding="utf-8")
    line = next(n for n, one in enumerate(text.splitlines(), 1) if " sha256: " in one)
    terms.write_text(text.replace(" sha256: ", " sha256: x"), encoding="utf-8")

    with pytest.raises(MalformedPolicyError, match=f"acme/terms.yaml:{line}: .sha256. is not"):
        gateway(archive, "--policies", policies)


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (["nowhere"], NotFoundError, "there is no folder `nowhere`"),
        ([".", "--record"], CallerError, "`--record` writes into a folder of policies"),
    ],
)
def test_wrong_usage_is_said(
    words: list[str],
    kind: type[GatewayError],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A folder that isn't there, or a record without a place to write it."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(kind, match=told):
        gateway(*words)


def test_a_day_must_be_a_day() -> None:
    """`--on` takes a day as people write it in policies."""
    parser = argparse.ArgumentParser(prog="gateway")
    watch.add(parser.add_subparsers())

    with pytest.raises(SystemExit):
        parser.parse_args(["watch", ".", "--on", "22.11.2026"])

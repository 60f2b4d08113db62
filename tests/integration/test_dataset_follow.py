"""A feed freezes what was approved since, once, and loses nothing that is approved late."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from gateway.dataset.manifest import PREVIOUS_SNAPSHOT, DatasetManifest, parse_manifest
from gateway.dataset.verification.verify import verify_dataset
from gateway.ident import ExchangeId
from gateway.receipt.keys import parse_trust
from gateway.receipt.model import Parent
from gateway.receipt.statement import write_statement
from gateway.store.content import Content
from tests.integration.test_dataset_commands import Desk
from tests.support.dataset import made


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """Return an installation and its command line."""
    with closing(Desk(tmp_path, capsys)) as desk:
        yield desk


def answers(desk: Desk, name: str) -> list[str]:
    """Return the answers in a snapshot that verifies."""
    folder = desk.folder / "data" / "datasets" / name
    verify_dataset(folder, parse_trust((desk.folder / "data" / "trust.json").read_bytes()))
    rows = (folder / "rows.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(row)["messages"][-1]["content"] for row in rows]


def manifest_of(desk: Desk, name: str) -> tuple[DatasetManifest, str]:
    """Return the manifest of a snapshot, and its payload digest."""
    folder = desk.folder / "data" / "datasets" / name
    trust = parse_trust((desk.folder / "data" / "trust.json").read_bytes())
    dataset = verify_dataset(folder, trust)
    return parse_manifest(dataset.statement), dataset.manifest_sha256


def test_snapshots_follow_each_other_and_share_no_row(desk: Desk) -> None:
    """Each names the one before, goes on where that ended, and holds what came since."""
    use = desk.declare()
    desk.answer(use, "one")
    desk.run("dataset", "follow", "feed", "--for", use, "--once")
    desk.answer(use, "two")
    desk.answer(use, "one")
    desk.run("dataset", "follow", "feed", "--for", use, "--once")
    said = desk.run("dataset", "follow", "feed", "--for", use, "--once")

    first, second = (manifest_of(desk, f"feed-000{number}") for number in (1, 2))
    assert "0 of 1000 rows" in said
    assert (["one"], ["two"]) == (answers(desk, "feed-0001"), answers(desk, "feed-0002"))
    assert (None, first[1]) == (first[0].asked.follows, second[0].asked.follows)
    assert (0, True) == (first[0].asked.after, (second[0].asked.after or 0) > 0)
    assert [first[1]] == [
        one.digest["sha256"] for one in second[0].dependencies if one.kind == PREVIOUS_SNAPSHOT
    ]
    assert not (desk.folder / "data" / "datasets" / "feed-0003").exists()


def test_what_is_approved_late_is_not_lost(desk: Desk) -> None:
    """A yes that comes after a snapshot brings its row into the next, however old it is."""
    use = desk.declare()
    late = desk.answer(use, "late", provider="watched")
    desk.answer(use, "early")
    said = desk.run("dataset", "follow", "feed", "--for", use, "--once")
    waiting = desk.run("dataset", "follow", "feed", "--for", use, "--once")
    desk.run("review", "approve", late, "--by", "grace", "--reason", "read it")
    desk.run("dataset", "follow", "feed", "--for", use, "--once")

    assert "1 waiting-for-review" in said
    assert "1 waiting-for-review" in waiting
    assert (["early"], ["late"]) == (answers(desk, "feed-0001"), answers(desk, "feed-0002"))


def derive(desk: Desk, use: str, exchange: ExchangeId, text: str) -> None:
    """Record a row that was made of an answer, as a pipeline would."""
    with closing(desk._open()) as opened:
        known, found = opened.register.declaration(use), opened.reader.find(exchange)
        parent = Parent(exchange=exchange, index=found[0])
        statement = desk._house.derivation(known, made(text, parent))
        kept = desk._house.texts[statement.derivation]
        content = Content(request=b"", salt=kept.salt, rows=kept.rows)
        opened.content.put_many([(statement.derivation, content)])
        opened.sequencer.append_and_wait(write_statement(statement, (), opened.keyring.receipt))


def test_a_derived_row_waits_for_what_it_was_made_of(desk: Desk) -> None:
    """A late yes to an answer brings the row that was made of it into the next snapshot."""
    use = desk.declare()
    late = desk.answer(use, "late", provider="watched")
    derive(desk, use, desk.answer(use, "early"), "from early")
    derive(desk, use, late, "from late")
    follow = ("dataset", "follow", "feed", "--for", use, "--transform", "clean", "--once")
    desk.run(*follow)
    said = desk.run(*follow)
    desk.run("review", "approve", late, "--by", "grace", "--reason", "read it")
    desk.run(*follow)

    assert "1 waiting-for-review" in said
    assert ["from early"] == answers(desk, "feed-0001")
    assert ["from late"] == answers(desk, "feed-0002")


def test_a_feed_goes_on_in_the_same_words_or_not_at_all(desk: Desk) -> None:
    """Other filters, and a snapshot that is missing, are refused in one line."""
    use = desk.declare()
    desk.answer(use, "one")
    desk.run("dataset", "follow", "feed", "--for", use, "--once")
    desk.answer(use, "two")
    follow = ("dataset", "follow", "feed", "--for", use, "--once")

    assert "other words" in desk.run(*follow, "--model", "open-1", code=1)
    desk.run(*follow)
    shutil.rmtree(desk.folder / "data" / "datasets" / "feed-0001")
    desk.answer(use, "three")
    assert "`feed-0001` of feed `feed` is missing" in desk.run(*follow, code=1)


@pytest.mark.parametrize(
    "words",
    [
        ("--every", "soon"),
        ("--every", "0m"),
        ("--rows", "0"),
        ("--rounds", "-1"),
        ("--held-out", "1.5"),
        ("--held-out", "0"),
    ],
    ids=["every", "nothing", "rows", "rounds", "beyond", "none"],
)
def test_a_feed_that_can_t_be_meant_is_wrong_usage(desk: Desk, words: tuple[str, str]) -> None:
    """What makes no sense is said in one line, and nothing is frozen."""
    desk.run("dataset", "follow", "feed", "--for", desk.declare(), *words, code=2)

    assert not (desk.folder / "data" / "datasets").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tag", "nightly"), "was given the tag `nightly`"),
        (("--transform", "clean"), "no transform `clean` made rows"),
        (("--verdict", "good"), "--verdict is about the rows of a transform"),
        (("--best-of",), "--best-of is about the rows of a transform"),
        (("--kind", "preference"), "--kind preference is about the rows of a transform"),
        (("--transform", "clean", "--model", "m"), "--model is about answers"),
        (("--declared", "use-00000000000000000000"), "use-00000000000000000000"),
    ],
    ids=["tag", "transform", "verdict", "best", "kind", "model", "declared"],
)
def test_what_is_not_there_is_said_in_one_line(
    desk: Desk, words: tuple[str, ...], said: str
) -> None:
    """A name that nothing has, and a choice that nothing offers, are named."""
    use = desk.declare()
    desk.answer(use, "one")

    told = desk.run("dataset", "build", "set", "--for", use, *words, code=2)

    assert said in told


def test_a_feed_leaves_signals_to_whoever_had_them(desk: Desk) -> None:
    """Once it has ended, the process is told to stop in the way that it was before."""
    stops = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in stops]
    desk.run("dataset", "follow", "feed", "--for", desk.declare(), "--once")

    assert before == [signal.getsignal(number) for number in stops]


def test_a_feed_ends_cleanly_between_snapshots(desk: Desk) -> None:
    """Told to end it ends with 143, and what it froze until then stands."""
    use = desk.declare()
    desk.answer(use, "one")
    words = ["--config", str(desk.config), "dataset", "follow", "feed", "--for", use]
    script = "import sys; from gateway.cli.main import main; sys.exit(main(sys.argv[1:]))"
    feed = subprocess.Popen(
        [sys.executable, "-c", script, *words, "--rows", "1"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path.cwd(),
    )
    try:
        assert feed.stdout is not None
        # It waits for more only once it has frozen what there is.
        assert any("waiting" in line for line in feed.stdout)
        feed.send_signal(signal.SIGTERM)
        rest = feed.communicate(timeout=200)[0]
    finally:
        feed.kill()
        feed.wait()

    assert 143 == feed.returncode
    assert "ended between snapshots" in rest
    assert ["one"] == answers(desk, "feed-0001")

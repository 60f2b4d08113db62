"""`gateway lineage show | impact` and `gateway review withdraw`, as people use them."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.cli.main import main
from gateway.dataset.manifest import DATASET_MANIFEST, manifest_dependency
from gateway.ident import DeclarationId, ExchangeId, Sha256, new_derivation_id
from gateway.intent.model import IntendedUse
from gateway.receipt.model import (
    PROVENANCE_TYPE,
    STATEMENT_TYPE,
    TRAINING_BUILD,
    Caller,
    Commitment,
    Declared,
    Derivation,
    DerivedRow,
    Parent,
    Transform,
    Written,
)
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import payload_sha256, write_statement
from tests.integration.test_dataset_commands import Desk
from tests.support.dataset import a_policy


class LineageDesk(Desk):
    """A command line, and a ledger with two stages in it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, capsys=None)  # type: ignore[arg-type]  # run() needs none
        self.declaration = self.declare()
        self.exchange = self.answer(self.declaration, "one")
        self.answer(self.declaration, "two")
        self.first = self.build("first")
        self.cleaner = self.student("cleaner", self.first)
        self.given = self.answer(
            self.declaration,
            "three",
            provider="local",
            manifest=self.cleaner,
            policies=("own", "open"),
        )
        self.second = self.build("second")
        self.reader = self.student("reader", self.second)

    def run(self, *words: str, code: int = 0) -> str:
        """Run one command, check its exit code, and return what it printed."""
        told = io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            left = main(["--config", str(self.config), *words])
        assert code == left, told.getvalue()
        return told.getvalue()

    def moved_to(self, folder: Path) -> LineageDesk:
        """Return a copy of it all in another folder."""
        shutil.copytree(self.folder, folder)
        other = copy.copy(self)
        other.folder, other.config = folder, folder / "gateway.yaml"
        return other

    def build(self, name: str) -> Sha256:
        """Build a dataset; return its manifest's digest."""
        out = self.run("dataset", "build", name, "--for", self.declaration)
        found = re.search(r"manifest ([0-9a-f]{64})", out)
        assert found is not None
        return Sha256(found[1])

    def student(self, name: str, *datasets: Sha256) -> Sha256:
        """Append a training manifest; return its payload digest."""
        parents = [
            manifest_dependency(f"dataset:{at}", payload, DATASET_MANIFEST)
            for at, payload in enumerate(datasets)
        ]
        statement = {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": "model.safetensors", "digest": {"sha256": "e" * 64}}],
            "predicateType": PROVENANCE_TYPE,
            "predicate": {
                "buildDefinition": {
                    "buildType": TRAINING_BUILD,
                    "externalParameters": {"student": name},
                    "internalParameters": {},
                    "resolvedDependencies": msgspec.to_builtins(parents),
                },
                "runDetails": {"metadata": {"finishedOn": "2026-11-22T00:00:00.000Z"}},
            },
        }
        with closing(self._open()) as opened:
            leaf = write_manifest(statement, opened.keyring.manifest)[1]
            opened.sequencer.append_and_wait(leaf)
        return payload_sha256(leaf)

    def derive(self) -> str:
        """Append rows that were made of an answer, and one of a person's own."""
        with closing(self._open()) as opened:
            at = opened.index.find(ExchangeId(self.exchange))
            assert at is not None
            named = new_derivation_id(opened.clock.now_ms())
            value = Commitment(alg="sha256-salted", value=Sha256("a" * 64))
            said = Derivation(
                derivation=named,
                caller=Caller(principal="team", project="search"),
                declared=Declared(
                    use=IntendedUse(purpose="train.sft"),
                    declaration=DeclarationId(self.declaration),
                ),
                transform=Transform(name="rewrite", version="1", kind="rewrite"),
                written=Written(by="grace", licence="CC0-1.0", source="the style guide"),
                parents=(Parent(exchange=ExchangeId(self.exchange), index=at.index),),
                rows=(
                    DerivedRow(row=value, bytes=1, parents=(0,)),
                    DerivedRow(row=value, bytes=1),
                ),
                at="2026-11-22T00:00:00.000Z",
                writer=opened.writer,
            )
            opened.sequencer.append_and_wait(write_statement(said, (), opened.keyring.receipt))
        return named

    def show(self, what: str) -> dict[str, Any]:
        """Return what `lineage show` says of something, as JSON."""
        shown: dict[str, Any] = json.loads(self.run("lineage", "show", what, "--json"))
        return shown

    def impact(self, *words: str) -> dict[str, Any]:
        """Return what `lineage impact` says of something, as JSON."""
        told: dict[str, Any] = json.loads(self.run("lineage", "impact", *words, "--json"))
        return told

    def touched(self, *words: str) -> set[str]:
        """Return the names of what came of something."""
        return {one["name"] for one in self.impact(*words)["touched"]}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LineageDesk]:
    """Return a command line over two stages; nothing that is asked of it changes them."""
    desk = LineageDesk(tmp_path_factory.mktemp("desk"))
    yield desk
    desk.close()


@pytest.fixture
def changing(desk: LineageDesk, tmp_path: Path) -> LineageDesk:
    """Return a copy, for what changes it."""
    return desk.moved_to(tmp_path / "copy")


def test_everything_is_shown_by_any_of_its_names(desk: LineageDesk) -> None:
    """A folder, a name, a digest, an exchange, a choice and a row lead to the same place."""
    folder = desk.folder / "data" / "datasets" / "first"

    for what in (str(folder), "first", desk.first):
        shown = desk.show(what)
        assert ("dataset first", desk.first) == (shown["what"], shown["lineage"]["manifest"])
    for what in (desk.exchange, f"{desk.exchange}/0", "first#0", f"{folder}#0"):
        assert desk.exchange == desk.show(what)["lineage"]["exchange"]
    assert "student reader" == desk.show("reader")["what"]


@pytest.mark.parametrize(
    "what",
    ["never", "first#9", "x-" + "0" * 26, "a" * 64, "d-" + "0" * 26, "first/x", "x-1/0", "#3"],
)
def test_what_is_not_there_is_said_in_one_line(desk: LineageDesk, what: str) -> None:
    """A name that leads nowhere is an error, with a hint."""
    out = desk.run("lineage", "show", what, code=2)

    assert out.startswith("gateway: thing.unknown: ")
    assert 1 == out.count("\n")


def test_a_choice_that_an_answer_lacks_is_refused(desk: LineageDesk) -> None:
    """Choices are counted from 0."""
    assert "there is no 1" in desk.run("lineage", "show", f"{desk.exchange}/1", code=2)


def test_two_things_of_one_name_are_told_apart_by_digest(changing: LineageDesk) -> None:
    """A name that several have is no name."""
    again = changing.student("cleaner", changing.second)

    out = changing.run("lineage", "show", "cleaner", code=2)

    assert changing.cleaner in out
    assert again in out


def test_a_student_is_shown_up_to_its_teachers_and_down_to_its_answers(
    desk: LineageDesk,
) -> None:
    """Who taught, with rows, share, terms, ruling and declarer; and what came of it."""
    shown = desk.show("reader")

    far = {one["provider"]: one for one in shown["ancestors"] if one["stages"] == 2}
    assert ["open"] == list(far)
    assert (2, 2, 1.0, ["open v1"], "permit", ["open:training"]) == tuple(
        far["open"][name] for name in ("rows", "of_rows", "share", "terms", "effect", "clauses")
    )
    assert [{"id": desk.declaration, "owner": "ada"}] == far["open"]["declarations"]
    below = {one["name"]: one for one in desk.show("cleaner")["below"]["touched"]}
    assert 1 == below["cleaner"]["answers"]
    assert (1, 3) == (below["second"]["rows"], below["second"]["of_rows"])
    assert 1 == below["reader"]["stages"]


def test_uses_name_the_one_ancestor_that_limits_each(desk: LineageDesk) -> None:
    """What nobody permits is forbidden by name; what nobody declared is said to be so."""
    uses = {one["purpose"]: one for one in desk.show("reader")["uses"]}

    assert "permit" == uses["train.sft"]["says"]
    assert "not declared" == uses["train.preference"]["says"]
    assert "forbid" == uses["publish.dataset"]["says"]
    limit = uses["publish.dataset"]["limited_by"]
    assert limit["ancestor"].startswith(("open", "local"))
    assert limit["clauses"]


def test_what_can_not_be_resolved_allows_nothing(changing: LineageDesk) -> None:
    """A student whose dataset is not in the ledger may be used for nothing."""
    changing.student("orphan", changing.first, Sha256("c" * 64))

    uses = changing.show("orphan")["uses"]

    assert {"forbid"} == {one["effect"] for one in uses}
    assert "is not in the ledger" in uses[0]["limited_by"]["why"]


def test_people_see_the_tree_tables_and_limits(desk: LineageDesk) -> None:
    """The terminal has everything in words."""
    out = desk.run("lineage", "show", "reader")

    for words in (
        "student reader",
        "dataset second",
        "student cleaner",
        "Who taught it",
        "2 stages away",
        "What it may be used for today",
        "publish.dataset",
        "What came of it",
    ):
        assert words in out, out


def test_a_page_is_whole_and_lets_nothing_in(changing: LineageDesk) -> None:
    """One file: a graph, tables, no script, and names of others escaped."""
    changing.student("<script>alert(1)</script>", changing.first)
    page = changing.folder / "page.html"

    changing.run("lineage", "show", "first", "--html", str(page))

    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "<svg" in text
    assert "cleaner" in text
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace("http-equiv", "")


def test_rows_are_asked_about_and_packed(changing: LineageDesk) -> None:
    """A derivation, one row of it, a choice and a row of a dataset are answered for."""
    named = changing.derive()

    def says(question: str, what: str, code: int = 0) -> str:
        return changing.run("lineage", "ask", question, what, code=code)

    for what in (named, f"{named}/0", f"{changing.exchange}/0", "first#0"):
        assert says("distilled-from:open", what).startswith("Yes: "), what
    assert says("distilled-from:*", f"{named}/1").startswith(f"No: row 1 of derivation {named}")
    assert "states grace" in says("distilled-from:*", f"{named}/1")
    assert f"pipeline of {named}" in says(f"declared:{changing.declaration}", named)
    assert "there is no 2" in says("distilled-from:*", f"{named}/2", code=2)
    pack = changing.folder / "rows.zip"
    changing.run("lineage", "pack", named, "--out", str(pack))
    assert "distilled-from:*: yes" in changing.run(
        "verify", str(pack), "--trust", str(changing.folder / "data" / "trust.json")
    )


def test_impact_is_asked_from_every_side(desk: LineageDesk) -> None:
    """Provider, model, clause, declaration, principal, exchange and stage lead down."""
    everything = {"first", "cleaner", "second", "reader"}

    for words in (
        ("--provider", "open"),
        ("--model", "open-1"),
        ("--policy", "open"),
        ("--clause", "open:training"),
        ("--declaration", desk.declaration),
        ("--principal", "team"),
        ("--exchange", desk.exchange),
        ("--manifest", "first"),
    ):
        assert everything == desk.touched(*words), words
    assert {"second", "reader"} == desk.touched("--exchange", desk.given)
    assert set() == desk.touched("--provider", "never")
    assert "Nothing in this ledger came of provider never." in desk.run(
        "lineage", "impact", "--provider", "never"
    )


def test_a_pattern_stands_for_the_accounts_that_are_there(desk: LineageDesk) -> None:
    """Names are matched, each once; what they stand for is said, and adds up."""
    exact = desk.impact("--principal", "team")["touched"]

    assert exact == desk.impact("--account", "te*")["touched"]
    assert [] == desk.impact("--account", "nobody*")["touched"]
    told = desk.run("lineage", "impact", "--account", "te?m")
    assert "`te?m` stands for 1 names: team" in told
    answered = desk.run("lineage", "ask", "principal:*", "reader")
    assert answered.startswith("Yes: ")
    assert "`*` stands for " in answered


@pytest.mark.parametrize(
    ("question", "told"),
    [
        (
            "principal:taem",
            "the ledger has no receipt of `taem`; nothing is known of that name",
        ),
        ("principal:x*", "the ledger has no receipt of `x*`"),
        ("distilled-from:opne", "the ledger has no receipt of `opne`"),
        ("distilled-from:open/gpt-x", "the ledger has no receipt of `open/gpt-x`"),
        ("judged-by:opne", "the ledger has no receipt of `opne`"),
        ("declared:use-00000000000000000000", "has no declaration `use-00000000000000000000`"),
    ],
)
def test_a_name_that_was_never_seen_is_no_plain_no(
    desk: LineageDesk, question: str, told: str
) -> None:
    """A name that is misspelt is said to be unknown, and nobody takes that for an answer."""
    said = desk.run("lineage", "ask", question, "reader", code=1)
    document = json.loads(desk.run("lineage", "ask", question, "reader", "--json", code=1))

    assert said.startswith("Never seen: the ledger has no ")
    assert told in said
    assert "As far as the ledger goes, model `reader` (leaf" in said.replace("\n", " ")
    assert "never seen" == document["says"]


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("principal:team", "yes"),
        ("principal:te*", "yes"),
        ("distilled-from:OPEN", "yes"),
        ("distilled-from:open/open-1", "yes"),
        ("distilled-from:*", "yes"),
        # No answer of it is here, but there is a policy that reads its terms.
        ("distilled-from:watched", "no"),
        ("judged-by:open", "no"),
        ("judged-by:*", "no"),
    ],
)
def test_whoever_was_heard_of_is_answered_for(
    desk: LineageDesk, question: str, says: str
) -> None:
    """What stands in the ledger, or in the policies in force, has a plain answer."""
    assert says == json.loads(desk.run("lineage", "ask", question, "reader", "--json"))["says"]


def test_a_teacher_that_was_never_seen_is_said_to_be_unknown(desk: LineageDesk) -> None:
    """So it is where the tree is shown."""
    out = desk.run("lineage", "show", "reader", "--from", "opne", code=1)

    assert "the ledger has no receipt of `opne`; nothing is known of that name" in out


def test_impact_says_who_must_act(desk: LineageDesk) -> None:
    """Each owner stands once, with all that is theirs."""
    out = desk.run("lineage", "impact", "--provider", "open")

    assert "dataset first: 2 of 2 rows, of ada" in out
    assert "ada answers for dataset first" in out


def test_impact_asks_one_thing(desk: LineageDesk) -> None:
    """Nothing, or two things at once, is wrong usage."""
    for words in ((), ("--provider", "open", "--model", "open-1")):
        assert "usage:" in desk.run("lineage", "impact", *words, code=2)
    assert "is not use-" in desk.run("lineage", "impact", "--declaration", "x", code=2)
    assert "no answered exchange" in desk.run("lineage", "impact", "--exchange", "x", code=2)
    unknown = "use-00000000000000000000"
    assert "no declaration" in desk.run("lineage", "impact", "--declaration", unknown, code=2)
    assert "POLICY:CLAUSE" in desk.run("lineage", "impact", "--clause", "open", code=2)
    assert "`open`" in desk.run("lineage", "impact", "--policy", "open@1", code=2)


def test_a_change_of_policies_is_asked_of_stages_alone(desk: LineageDesk) -> None:
    """What would be ruled otherwise, and what stands below it; nothing is put in force."""
    changed = desk.folder / "changed"
    for path in (desk.folder / "policies").rglob("*"):
        if path.is_file():
            to = changed / path.relative_to(desk.folder / "policies")
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())
    same = desk.impact("--policy-change", str(changed))
    (changed / "own" / "policy.yaml").write_text(a_policy("own", "forbid"))

    told = desk.impact("--policy-change", str(changed))

    assert ([], []) == (same["touched"], same["changes"])
    assert {"second", "reader"} == {one["name"] for one in told["touched"]}
    (second,) = [one for one in told["changes"] if one["name"] == "second"]
    assert ("permit", "forbid") == (
        second["asOfToday"]["before"],
        second["asOfToday"]["after"],
    )
    assert "second" in desk.run("lineage", "impact", "--policy-change", str(changed))
    assert "permit" == desk.show("reader")["uses"][6]["effect"]


def test_a_withdrawal_says_what_it_holds(changing: LineageDesk) -> None:
    """Whoever withdraws is told how far it reaches; whoever looks is told by whom."""
    said = ("--by", "grace", "--reason", "asked to")

    out = changing.run("review", "withdraw", changing.exchange, *said)

    assert f"withdrew {changing.exchange}" in out
    assert "held with it: 2 datasets: first (" in out
    assert "held with it: 2 students, with 1 answers: cleaner (" in out
    assert "withdrawn already, by grace" in changing.run(
        "review", "withdraw", changing.exchange, *said
    )
    assert "HELD: grace withdrew" in changing.run("lineage", "show", "reader")
    waiting = json.loads(changing.run("review", "list", "--json"))
    assert {"first", "cleaner", "second", "reader"} == {one["name"] for one in waiting["held"]}
    assert changing.exchange[:10] in changing.run("review", "list")


def test_a_build_after_a_withdrawal_leaves_out_what_it_reaches(changing: LineageDesk) -> None:
    """The answer itself, and the answers of the student that it taught."""
    changing.run(
        "review", "withdraw", changing.exchange, "--by", "grace", "--reason", "asked to"
    )

    out = changing.run("dataset", "build", "third", "--for", changing.declaration)

    assert "2 withdrawn" in out
    assert "1 rows" in out


def test_a_stage_is_withdrawn_by_its_name(changing: LineageDesk) -> None:
    """Datasets and students have names; a name that nobody has is wrong usage."""
    said = ("--by", "grace", "--reason", "asked to")

    out = changing.run("review", "withdraw", "cleaner", *said)

    assert "held with it: 1 dataset: second (" in out
    assert "neither x-" in changing.run("review", "withdraw", "nothing-like-it", *said, code=2)
    assert "no agreement" in changing.run("review", "withdraw", "agreement:none", *said, code=2)
    assert "no answered exchange" in changing.run(
        "review", "withdraw", "d-" + "0" * 26, *said, code=2
    )


GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "lineage.md"


def test_every_command_of_the_guide_works(changing: LineageDesk) -> None:
    """What the guide says to type is typed, in its order, in a folder as it describes."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    lines = [line for block in blocks for line in block.splitlines()]
    names = {"EXCHANGE": changing.exchange, "USE": changing.declaration}

    with contextlib.chdir(changing.folder):
        told = [
            changing.run(*(names.get(word, word) for word in shlex.split(line)[1:]))
            for line in lines
        ]

    assert len(lines) >= 12
    assert all(line.startswith("gateway ") for line in lines)
    assert "<svg" in (changing.folder / "reader.html").read_text()
    assert "HELD" not in told[0]
    assert "HELD: R. Osei withdrew" in told[-1]

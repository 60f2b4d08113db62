"""The commands around datasets: what they print, what they write, and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.app.installation import open_installation
from gateway.cli.main import main
from gateway.ident import ExchangeId, new_exchange_id
from gateway.receipt.model import (
    KeyAuthorization,
    KeyRevocation,
    ModelFacts,
    Receipt,
    Refusal,
    Verdict,
)
from gateway.receipt.statement import read_leaf, write_statement
from gateway.store.content import Content
from tests.support.dataset import POLICIES, TERMS, House


class Desk:
    """An installation in a folder, and the command line in front of it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._house = House(folder / "elsewhere")
        self.folder = folder
        for name, text in POLICIES.items():
            path = folder / "policies" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            (path.parent / "terms.yaml").write_text(TERMS)
            (path.parent / "review.md").write_text("Read.\n")
        self.config = folder / "gateway.yaml"
        self.config.write_text(
            "data: data\npolicies: policies\nproviders:\n"
            "  held: {base_url: http://127.0.0.1:1, dialect: openai}\n"
        )
        self.run("init", "--origin", "receipts.example/desk")

    def run(self, *words: str, code: int = 0) -> str:
        """Run one command, check its exit code, and return what it printed."""
        left = main(["--config", str(self.config), *words])
        told = self._capsys.readouterr()
        assert code == left, told.out + told.err
        return told.out + told.err

    def declare(self, **said: str) -> str:
        """Declare a use and return its id."""
        words = {"purpose": "train.sft", "student": "parser"} | said
        pairs = [f"{key}={value}" for key, value in words.items()]
        out = self.run("use", "declare", "--project", "search", "--owner", "ada", *pairs)
        return out.split()[0]

    def answer(self, declaration: str, text: str, **changes: Any) -> ExchangeId:
        """Write an answered call into the ledger, as the gateway would."""
        with closing(self._open()) as opened:
            known = opened.register.declaration(declaration)
            assert known is not None
            self._house.clock.move_ms(opened.clock.now_ms() - self._house.clock.now_ms())
            receipt: Receipt = self._house.receipt(known, text, **changes)
            kept = self._house.texts[receipt.exchange]
            content = Content(request=b"{}", salt=kept.salt, rows=kept.rows)
            opened.content.put_many([(receipt.exchange, content)])
            opened.sequencer.append_and_wait(
                write_statement(receipt, (), opened.keyring.receipt)
            )
        return receipt.exchange

    def refuse(self, declaration: str, provider: str) -> None:
        """Write a held request into the ledger, as the gateway would."""
        with closing(self._open()) as opened:
            known = opened.register.declaration(declaration)
            assert known is not None
            receipt = self._house.receipt(known, "never said", provider=provider)
            refusal = Refusal(
                exchange=new_exchange_id(opened.clock.now_ms()),
                caller=receipt.caller,
                declared=receipt.declared,
                ruling=msgspec.structs.replace(receipt.ruling, effect="hold"),
                provider=receipt.provider,
                model=receipt.model,
                operation="chat",
                request=receipt.request,
                received=receipt.received,
                writer=receipt.writer,
            )
            opened.sequencer.append_and_wait(
                write_statement(refusal, (), opened.keyring.receipt)
            )

    def newest(self) -> object:
        """Return the newest statement of the ledger that is not about a key."""
        with closing(self._open()) as opened:
            said = map(read_leaf, opened.reader.leaves(0, opened.reader.size()))
            about_keys = KeyAuthorization | KeyRevocation
            return [one for one in said if not isinstance(one, about_keys)][-1]

    def size(self) -> int:
        """Return how many leaves the ledger has."""
        with closing(self._open()) as opened:
            return int(opened.reader.size())

    def close(self) -> None:
        """Let go of everything."""
        self._house.close()

    def _open(self) -> Any:
        return open_installation(_Args(config=str(self.config)))  # type: ignore[arg-type] # has config


class _Args:
    def __init__(self, **said: object) -> None:
        self.__dict__.update(said)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """Return a fresh installation behind its command line."""
    desk = Desk(tmp_path, capsys)
    yield desk
    desk.close()


def test_a_use_is_declared_once(desk: Desk) -> None:
    """Saying the same words again prints the same id and writes nothing."""
    first = desk.declare(competes="no")
    size = desk.size()

    assert first == desk.declare(competes="false")
    assert size == desk.size()
    assert first in desk.run("use", "list")
    assert "owner: ada" in desk.run("use", "show", first)


def test_words_of_others_are_no_controls(desk: Desk) -> None:
    """What others named moves no cursor, in a table or in the line of an error."""
    declaration = desk.declare()
    masked = "m\x1b[2J\u202e"
    exchange = desk.answer(declaration, "text", model=ModelFacts(requested=masked))

    for words in (("receipt", "list"), ("lineage", "show", exchange)):
        said = desk.run(*words)
        assert "m?[2J?" in said
        assert not {"\x1b", "\u202e"} & {*said}
    build = ("dataset", "build", "a\nb\x1b[2J", "--for", declaration)
    assert "`a?b?[2J` is not a name" in desk.run(*build, code=1)
    said = desk.run(
        "review", "withdraw", exchange, "--by", masked, "--reason", "asked to", code=2
    )
    assert "one line each" in said


def test_what_ended_is_not_declared_again(desk: Desk) -> None:
    """Whoever declares it anew is told that it ended, and what to do; nothing is written."""
    kept, gone = desk.declare(), desk.declare(competes="no")
    desk.run("review", "withdraw", gone, "--by", "grace", "--reason", "asked to")
    size = desk.size()
    use = ("use", "declare", "--project", "search", "--owner", "ada", "purpose=train.sft")

    said = desk.run(*use, "student=parser", "competes=no", code=1)
    assert "is withdrawn" in said
    assert "declare a use that differs" in said
    said = desk.run(*use, "student=parser", "--expires", "2099-01-01", code=1)
    assert f"{kept}, declared by ada, has no last day" in said
    over = desk.run(*use, "student=other", "--expires", "2020-01-01", code=2)
    assert "its last day, 2020-01-01, is over" in over
    masked = (*use[:5], "a\u202eb", "purpose=train.sft", "student=other")
    assert "that can be read" in desk.run(*masked, code=2)
    assert size == desk.size()


@pytest.mark.parametrize(
    "words",
    [
        ("purpose=world-domination",),
        ("student=parser",),
        ("purpose",),
        ("purpose=train.sft", "purpose=train"),
        ("purpose=train.sft", "competes=perhaps"),
    ],
    ids=str,
)
def test_a_use_outside_the_vocabulary_is_wrong_usage(
    desk: Desk, words: tuple[str, ...]
) -> None:
    """Unknown words give one line, exit code 2, and no leaf."""
    said = desk.run("use", "declare", "--project", "p", "--owner", "ada", *words, code=2)

    assert "declaration.malformed" in said
    assert 0 == desk.size()


def test_a_held_declaration_waits_until_a_named_person_rules(desk: Desk) -> None:
    """The queue shows clauses and count; a yes covers exactly them and empties it."""
    declaration = desk.declare()
    for _ in range(2):
        desk.refuse(declaration, "held")

    (waiting,) = json.loads(desk.run("review", "list", "--json"))["declarations"]
    said = desk.run("review", "approve", declaration, "--by", "grace", "--reason", "read it")

    assert (2, {"held": ["training"]}) == (waiting["requests"], waiting["clauses"])
    assert "covers held: training" in said
    verdict = desk.newest()
    assert isinstance(verdict, Verdict)
    assert [("held", ("training",))] == [(c.policy, c.clauses) for c in verdict.covers]
    assert [] == json.loads(desk.run("review", "list", "--json"))["declarations"]


def test_a_person_may_rule_ahead_of_the_first_request(desk: Desk) -> None:
    """With a provider named, the clauses that would hold are covered before anybody asks."""
    declaration = desk.declare()

    desk.run("review", "approve", declaration, "--by", "g", "--reason", "r", code=2)
    said = desk.run(
        "review", "approve", declaration, "--by", "g", "--reason", "r", "--provider", "held"
    )

    assert "covers held: training" in said


def test_an_undecided_permit_is_shown_with_what_was_not_declared(desk: Desk) -> None:
    """A hold that comes from an unknown names the clause and the missing fact."""
    declaration = desk.declare()
    desk.refuse(declaration, "unsure")

    (waiting,) = json.loads(desk.run("review", "list", "--json"))["declarations"]
    said = desk.run("review", "approve", declaration, "--by", "g", "--reason", "r")

    assert ({"unsure": ["training"]}, ["commercial"]) == (
        waiting["clauses"],
        waiting["missing"],
    )
    assert "covers unsure: training" in said


def test_a_word_needs_a_name_and_a_reason(desk: Desk) -> None:
    """A verdict without either is wrong usage."""
    declaration = desk.declare()

    assert "name and a reason" in desk.run(
        "review", "decline", declaration, "--by", " ", "--reason", "r", code=2
    )
    desk.run("review", "decline", declaration, "--by", "grace", code=2)


def test_outputs_wait_for_a_review_and_leave_the_queue(desk: Desk) -> None:
    """An output that needs a review is listed until somebody has ruled on it."""
    declaration = desk.declare()
    exchange = desk.answer(declaration, "look at me", provider="watched")

    (waiting,) = json.loads(desk.run("review", "list", "--json"))["outputs"]
    desk.run("review", "approve", exchange, "--by", "grace", "--reason", "fine")

    assert exchange == waiting["exchange"]
    assert [] == json.loads(desk.run("review", "list", "--json"))["outputs"]


def test_a_dataset_is_built_checked_and_described(desk: Desk) -> None:
    """Build prints what was taken and left out; verify and card read the folder alone."""
    declaration = desk.declare()
    for number in range(3):
        desk.answer(declaration, f"answer {number}")
    desk.answer(declaration, "not this", provider="closed")

    said = desk.run("dataset", "build", "one", "--for", declaration)
    folder = str(desk.folder / "data" / "datasets" / "one")

    assert "left out: 1 terms-forbid-use" in said
    assert "3 rows" in said
    assert "dataset `one` verifies" in desk.run("dataset", "verify", folder)
    assert (Path(folder) / "README.md").read_text() == desk.run("dataset", "card", folder)
    trust = str(desk.folder / "data" / "trust.json")
    assert "3 rows" in desk.run("verify", folder, "--trust", trust)


def test_filters_choose_among_the_candidates(desk: Desk) -> None:
    """A filter narrows what is looked at, and stands in the manifest."""
    declaration = desk.declare()
    desk.answer(declaration, "one")
    desk.answer(declaration, "two", provider="watched")

    desk.run("dataset", "build", "one", "--for", declaration, "--provider", "open")
    folder = desk.folder / "data" / "datasets" / "one"

    assert b"" == (folder / "left-out.jsonl").read_bytes()
    assert 1 == len((folder / "rows.jsonl").read_bytes().splitlines())


def test_a_changed_row_is_named_and_exits_with_one(desk: Desk) -> None:
    """The exit code says that the thing checked is not fine."""
    declaration = desk.declare()
    desk.answer(declaration, "one")
    desk.run("dataset", "build", "one", "--for", declaration)
    rows = desk.folder / "data" / "datasets" / "one" / "rows.jsonl"
    rows.write_bytes(rows.read_bytes().replace(b"one", b"two"))

    assert "rows.jsonl: row 0" in desk.run("dataset", "verify", str(rows.parent), code=1)


def test_a_gate_that_refuses_everything_exits_with_one(desk: Desk) -> None:
    """Counts are printed even where nothing was built."""
    declaration = desk.declare()
    desk.answer(declaration, "one", provider="closed")

    said = desk.run("dataset", "build", "one", "--for", declaration, code=1)

    assert "left out: 1 terms-forbid-use" in said
    assert "dataset.empty" in said
    assert not (desk.folder / "data" / "datasets" / "one").exists()


@pytest.mark.parametrize("what", ["nothing", "use-00000000000000000000", "x-1", "f" * 64])
def test_what_is_not_there_is_wrong_usage(desk: Desk, what: str) -> None:
    """An id that leads nowhere gives one line and exit code 2."""
    desk.run("use", "show", what, code=2)
    desk.run("receipt", "show", what, code=2)
    desk.run("lineage", "show", what, code=2)
    desk.run("dataset", "build", "one", "--for", what, code=2)
    desk.run("review", "withdraw", what, "--by", "g", "--reason", "r", code=2)


def test_a_withdrawal_is_the_last_word_and_said_once(desk: Desk) -> None:
    """A second withdrawal writes nothing; the dataset built later leaves the output out."""
    declaration = desk.declare()
    gone = desk.answer(declaration, "one")
    desk.answer(declaration, "two")
    desk.run("review", "withdraw", gone, "--by", "grace", "--reason", "asked to")
    size = desk.size()

    said = desk.run("review", "withdraw", gone, "--by", "grace", "--reason", "again")

    assert "already" in said
    assert size == desk.size()
    built = desk.run("dataset", "build", "one", "--for", declaration)
    assert "left out: 1 withdrawn" in built


def test_lineage_is_shown_as_a_tree_and_a_sentence(desk: Desk) -> None:
    """A newcomer reads from whom, how many rows, under which policy, by whose word."""
    declaration = desk.declare()
    exchange = desk.answer(declaration, "one")
    desk.run("dataset", "build", "one", "--for", declaration)
    folder = str(desk.folder / "data" / "datasets" / "one")

    said = desk.run("lineage", "show", folder)

    assert "dataset one: 1 row for train.sft" in said
    assert exchange in said
    assert "Yes: made of answers of open" in said
    assert "No:" in desk.run("lineage", "show", folder, "--from", "closed")
    assert (
        "yes"
        == json.loads(desk.run("lineage", "show", folder, "--from", "open", "--json"))[
            "answer"
        ]["says"]
    )
    assert "This is an answer of open" in desk.run("lineage", "show", exchange)


def test_the_queue_is_told_in_words(desk: Desk) -> None:
    """Without --json, legal reads a table and the command that answers it."""
    declaration = desk.declare(competes="no")
    desk.refuse(declaration, "unsure")
    exchange = desk.answer(declaration, "look at me", provider="watched")

    said = desk.run("review", "list")
    desk.run("review", "decline", declaration, "--by", "grace", "--reason", "not this one")
    shown = desk.run("use", "show", declaration)

    for told in (declaration, "unsure: training", "commercial", exchange, "gateway review"):
        assert told in said
    assert "standing: declined" in shown
    assert "no by grace" in shown
    assert "No declaration waits" in desk.run("review", "list")


def test_a_declaration_can_be_withdrawn(desk: Desk) -> None:
    """Nothing is built for it any more, and the refusal says who withdrew it."""
    declaration = desk.declare()
    desk.answer(declaration, "one")
    desk.run("review", "withdraw", declaration, "--by", "grace", "--reason", "asked to")

    said = desk.run("dataset", "build", "one", "--for", declaration, code=1)

    assert "declaration.withdrawn" in said
    assert "withdrawn" in desk.run("use", "list")


def test_a_dataset_can_be_withdrawn_by_its_digest(desk: Desk) -> None:
    """Lineage prints the digest, review takes it, and lineage shows the withdrawal."""
    declaration = desk.declare()
    desk.answer(declaration, "one")
    desk.run("dataset", "build", "one", "--for", declaration)
    folder = str(desk.folder / "data" / "datasets" / "one")
    digest = json.loads(desk.run("lineage", "show", folder, "--json"))["lineage"]["manifest"]

    desk.run("review", "withdraw", digest, "--by", "grace", "--reason", "asked to")

    assert "WITHDRAWN by grace" in desk.run("lineage", "show", digest)


@pytest.mark.parametrize(
    "words",
    [
        ("--purpose", "nonsense"),
        ("--since", "yesterday"),
        ("--for", "use-00000000000000000000"),
        ("--seed", "9" * 30),
    ],
    ids=str,
)
def test_a_build_that_can_t_be_meant_is_wrong_usage(desk: Desk, words: tuple[str, str]) -> None:
    """Bad words give exit code 2 and write nothing."""
    declaration = desk.declare()
    before = desk.size()

    desk.run("dataset", "build", "one", "--for", declaration, *words, code=2)

    assert before == desk.size()


@pytest.mark.parametrize("words", [("--shard-rows", "0"), ("--shard-rows", "9" * 30)], ids=str)
def test_an_export_that_can_t_be_meant_is_wrong_usage(
    desk: Desk, words: tuple[str, str]
) -> None:
    """A number that no manifest could state is refused before a row is read."""
    said = desk.run("dataset", "export", "one", "--format", "openai", *words, code=2)

    assert "is no number of them" in said


def test_plain_use_builds_no_dataset(desk: Desk) -> None:
    """A declaration that teaches nothing is wrong for a dataset."""
    declaration = desk.declare(purpose="evaluate")

    assert "teaches nothing" in desk.run("dataset", "build", "x", "--for", declaration, code=2)


def test_a_receipt_is_found_shown_and_exported(desk: Desk) -> None:
    """What is exported verifies with the trust file alone."""
    declaration = desk.declare()
    exchange = desk.answer(declaration, "one")
    bundle, trust = desk.folder / "bundle.json", desk.folder / "data" / "trust.json"

    assert exchange in desk.run("receipt", "list", "--provider", "open")
    assert "nothing fits" in desk.run("receipt", "list", "--provider", "closed")
    shown = desk.run("receipt", "show", exchange)
    desk.run("receipt", "export", exchange, "--out", str(bundle))

    assert f'"exchange": "{exchange}"' in shown
    assert exchange in desk.run("receipt", "verify", str(bundle), "--trust", str(trust))
    (line,) = desk.run("receipt", "list", "--json").splitlines()
    assert exchange == json.loads(line)["exchange"]


def test_without_a_ledger_the_operator_must_act(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No command makes a ledger by accident."""
    config = tmp_path / "gateway.yaml"
    config.write_text("data: nowhere\n")

    assert 3 == main(["--config", str(config), "use", "list"])
    assert "ledger.missing" in capsys.readouterr().err

"""A ledger's history is ruled on again under a changed library, through two stages."""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import settings
from gateway.app.installation import Installation, init, open_installation
from gateway.cli import replay
from gateway.cli.main import exit_code, main
from gateway.clock import day_of
from gateway.dataset.recall import Recall, Sources
from gateway.dataset.recall_report import CHANGES, FILES, STATEMENT, verify_report
from gateway.errors import (
    BadDigestError,
    BadSignatureError,
    GatewayError,
    MalformedReceiptError,
)
from gateway.ident import new_exchange_id
from gateway.intent.model import INFERENCE, Declaration, IntendedUse, declaration_id
from gateway.receipt.keys import parse_trust
from gateway.receipt.model import (
    Activation,
    DeclarationFacts,
    Manifest,
    Reason,
    Receipt,
    Refusal,
    Verdict,
    Withdrawal,
)
from gateway.receipt.statement import read_leaf
from gateway.store.libraries import keep_library
from gateway.store.policies import read_policy_files
from tests.support.dataset import POLICIES, TERMS, WRITER, House, a_library, a_policy
from tests.support.evidence import TRUST
from tests.support.house import PROJECT, TRAINING, TRUSTED, Elsewhere, rooms_at

HELD = a_policy("open", "hold")
CLOSED = a_policy("open", "forbid")
OPENED = a_policy("closed", "permit")


class Archive:
    """An installation with a history that another house lived through."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.house = House(folder / "elsewhere")
        self.today = dt.date(2026, 11, 22)
        self._read = 0
        self.config = folder / "gateway.yaml"
        self.config.write_text(
            "data: data\npolicies: policies\nproviders:\n"
            "  open: {base_url: http://127.0.0.1:1, dialect: openai}\n"
        )
        self.library("policies")
        init(settings.load(self.config, environment={}), "receipts.example/archive")

    def library(self, name: str, **changed: str) -> Path:
        """Write a folder of policies in which some say something else."""
        for path, text in POLICIES.items():
            file = self.folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(changed.get(path.split("/")[0], text))
            (file.parent / "terms.yaml").write_text(TERMS)
        return self.folder / name

    def run(self, *words: str) -> int:
        """Run the command on everything that has happened; return its exit code."""
        with closing(self._open()) as opened:
            leaves = list(self.house.ledger.leaves(0, self.house.ledger.head().size))
            for leaf in leaves[self._read :]:
                opened.sequencer.append_and_wait(leaf)
            self._read = len(leaves)
        parser = argparse.ArgumentParser()
        replay.add(parser.add_subparsers())
        args = parser.parse_args(["replay", "--on", self.today.isoformat(), *words])
        args.config = str(self.config)
        return int(args.run(args))

    def told(self, changed: Path) -> dict[str, Any]:
        """Return the report on a changed library."""
        out = self.folder / f"report-{len(list(self.folder.glob('report-*')))}"
        self.run("--with", str(changed), "--out", str(out))
        document: dict[str, Any] = json.loads((out / "report.json").read_bytes())
        lines = (out / CHANGES).read_text().splitlines()
        document["changes"] = [json.loads(line) for line in lines]
        return document

    def close(self) -> None:
        """Let go of everything."""
        self.house.close()

    def _open(self) -> Installation:
        return open_installation(argparse.Namespace(config=str(self.config)))


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """Return an installation without a history."""
    archive = Archive(tmp_path)
    yield archive
    archive.close()


def two_stages(house: House) -> Declaration:
    """Train a student on a teacher and another student on the first one's answers."""
    declaration = house.declare()
    for _ in range(3):
        house.answer(declaration)
    first = house.train("cleaner", house.build(declaration, "first").manifest_sha256)
    for _ in range(2):
        house.answer(declaration, provider="local", manifest=first, policies=("own", "open"))
    house.train("reader", house.build(declaration, "second").manifest_sha256)
    return declaration


def refuse(house: House, declaration: Declaration, provider: str, **changes: Any) -> Refusal:
    """Append the refusal of a request."""
    receipt = house.receipt(declaration, "never said", provider=provider)
    refusal = Refusal(
        exchange=new_exchange_id(house.clock.now_ms()),
        caller=receipt.caller,
        declared=receipt.declared,
        ruling=msgspec.structs.replace(receipt.ruling, effect="forbid"),
        provider=receipt.provider,
        model=receipt.model,
        operation="chat",
        request=receipt.request,
        received=receipt.received,
        writer=receipt.writer,
    )
    refusal = msgspec.structs.replace(refusal, **changes)
    house.state(refusal)
    return refusal


def of_kind(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return the changes of one kind."""
    return [one for one in document["changes"] if one["kind"] == kind]


def test_under_the_same_library_nothing_changes(archive: Archive) -> None:
    """The library in force, replayed, changes nothing, and nobody must act."""
    two_stages(archive.house)
    same = archive.library("same")

    assert 0 == archive.run("--with", str(same))

    document = archive.told(same)
    assert [] == document["changes"]
    assert ({}, []) == (document["changed"], document["actions"])
    assert {"permit to permit": 5} == document["asked"]["exchangesAsOfTheCall"]


def test_a_change_reaches_every_stage(
    archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exchanges, the declaration, both datasets and both students change, and say why."""
    declaration = two_stages(archive.house)

    assert 1 == archive.run("--with", str(archive.library("closed", open=CLOSED)))

    told = capsys.readouterr().out
    assert "Exchanges, as of the call: 5 change. 5 permit to forbid." in told
    assert f"  ada: end or change declaration {declaration.id}" in told
    assert "  ada: learn no more from dataset first" in told
    assert "  operator: serve student cleaner" in told
    document = archive.told(archive.folder / "closed")
    assert {
        "exchange": 5,
        "declaration": 1,
        "dataset": 2,
        "student": 2,
    } == document["changed"]
    (first,) = (one for one in of_kind(document, "exchange") if one["leaf"] == 2)
    assert {
        "before": "permit",
        "after": "forbid",
        "was": ["open:training"],
        "now": ["open:training"],
    } == first["asOfTheCall"]
    second = next(one for one in of_kind(document, "dataset") if one["name"] == "second")
    stages = {one["manifest"]: one["name"] for one in document["changes"] if "manifest" in one}
    assert ["cleaner", "first"] == [stages[payload] for payload in second["below"]]


def test_what_is_held_goes_to_legal(archive: Archive) -> None:
    """Where a use becomes held, legal must rule; where a person said yes already, nobody."""
    house = archive.house
    held, approved = house.declare(), house.declare(student="other")
    for declaration in (held, approved):
        house.answer(declaration)
    house.approve(approved, ("open", "training"))

    document = archive.told(archive.library("held", open=HELD))

    assert [held.id] == [one["name"] for one in of_kind(document, "declaration")]
    assert {"permit to hold": 1, "permit to permit": 1} == document["asked"]["declarations"]
    (action,) = document["actions"]
    assert ("legal", True) == (action["who"], action["must"])
    assert held.id in action["what"]
    assert "open:training" in action["what"]


def test_what_is_loosened_asks_nobody_to_act(archive: Archive) -> None:
    """A refused request that would be permitted is told, and nobody must act."""
    house = archive.house
    declaration = house.declare()
    refuse(house, declaration, "closed")

    document = archive.told(archive.library("opened", closed=OPENED))

    (exchange,) = of_kind(document, "exchange")
    assert ("forbid", "permit") == (
        exchange["asOfToday"]["before"],
        exchange["asOfToday"]["after"],
    )
    assert [False] == [action["must"] for action in document["actions"]]


def test_undeclared_exchanges_fall_to_their_project(archive: Archive) -> None:
    """Nobody owns an undeclared exchange; its project is told how many would be refused."""
    house = archive.house
    plain = house.declare("inference", student=None)
    for _ in range(3):
        receipt = house.receipt(plain, "hello")
        undeclared = msgspec.structs.replace(receipt.declared, declaration=None)
        house.state(msgspec.structs.replace(receipt, declared=undeclared))
    closed = HELD.replace("effect: permit", "effect: forbid")

    document = archive.told(archive.library("closed", open=closed))

    actions = [one for one in document["actions"] if one["who"] == "project search"]
    assert ["3 undeclared exchanges with open would be ruled forbid today"] == [
        one["what"].partition(",")[0] for one in actions
    ]


def test_a_call_is_compared_with_the_library_it_was_ruled_under(archive: Archive) -> None:
    """As of the call the library of that time counts, as of today the one in force."""
    house = archive.house
    stricter = archive.library("stricter", open=CLOSED)
    digest = a_library(open=CLOSED).digest
    keep_library(archive.folder / "data", digest, read_policy_files(stricter))
    declaration = house.declare()
    receipt = house.receipt(declaration, "hello")
    under = msgspec.structs.replace(receipt.ruling, library=digest)
    house.state(msgspec.structs.replace(receipt, ruling=under))

    document = archive.told(archive.library("same"))

    (exchange,) = of_kind(document, "exchange")
    assert ("forbid", "permit") == (
        exchange["asOfTheCall"]["before"],
        exchange["asOfTheCall"]["after"],
    )
    assert {"before": "permit", "after": "permit"} == exchange["asOfToday"]
    assert {digest: 1} == document["libraries"]["ruledUnder"]
    assert [] == document["libraries"]["notKept"]


def test_a_library_that_was_not_kept_is_named(archive: Archive) -> None:
    """Where the text of that time is gone, the library in force stands in, and it is said."""
    house = archive.house
    receipt = house.receipt(house.declare(), "hello")
    under = msgspec.structs.replace(receipt.ruling, library="f" * 64)
    house.state(msgspec.structs.replace(receipt, ruling=under))

    document = archive.told(archive.library("same"))

    assert ["f" * 64] == document["libraries"]["notKept"]
    assert [] == document["changes"]


def test_days_of_the_call_and_today_may_differ(archive: Archive) -> None:
    """A policy that begins later binds today, and not the calls before it."""
    house = archive.house
    house.answer(house.declare())
    day = day_of(house.clock.now_ms())
    later = (day + dt.timedelta(days=30)).isoformat()
    until = (day + dt.timedelta(days=29)).isoformat()
    changed = archive.library("later", open=a_policy("open", "forbid", version=2, since=later))
    (changed / "open" / "policy.1.yaml").write_text(a_policy("open", "permit", until=until))
    archive.today = day + dt.timedelta(days=60)

    (exchange,) = of_kind(archive.told(changed), "exchange")

    assert "permit" == exchange["asOfTheCall"]["after"]
    assert "forbid" == exchange["asOfToday"]["after"]


def test_what_has_ended_or_the_gateway_refused_is_not_asked(archive: Archive) -> None:
    """No library changes a refusal of the gateway's own, or a declaration withdrawn."""
    house = archive.house
    declaration = house.declare()
    house.answer(declaration)
    ruling = house.receipt(declaration, "hello").ruling
    own = Reason(policy="gateway", clause="undeclared", effect="forbid")
    refuse(
        house,
        declaration,
        "open",
        ruling=msgspec.structs.replace(ruling, effect="forbid", reasons=(own,)),
    )
    house.withdraw(declaration=declaration.id)

    document = archive.told(archive.library("closed", open=CLOSED))

    assert [] == of_kind(document, "declaration")
    (exchange,) = of_kind(document, "exchange")
    assert "asOfToday" not in exchange
    assert (1, 1) == (
        document["notAsked"]["exchangesRefusedByTheGateway"],
        document["notAsked"]["declarationsThatEnded"],
    )


def test_a_declaration_that_was_never_used_is_ruled_for_what_is_configured(
    archive: Archive,
) -> None:
    """Without an exchange, every configured provider is asked about."""
    archive.house.declare()

    document = archive.told(archive.library("closed", open=CLOSED))

    (declaration,) = of_kind(document, "declaration")
    assert "open" == declaration["providers"]
    assert ("permit", "forbid") == (
        declaration["asOfToday"]["before"],
        declaration["asOfToday"]["after"],
    )


def test_the_report_is_the_same_bytes_again(archive: Archive) -> None:
    """The same ledger, libraries and day give the same files, signature and all."""
    two_stages(archive.house)
    changed = archive.library("closed", open=CLOSED)
    for name in ("one", "other"):
        archive.run("--with", str(changed), "--out", str(archive.folder / name))

    for name in (*FILES, STATEMENT):
        one, other = (archive.folder / folder / name for folder in ("one", "other"))
        assert one.read_bytes() == other.read_bytes()


def test_the_report_is_signed(archive: Archive) -> None:
    """It verifies with the installation's keys, and no longer once a byte is another."""
    two_stages(archive.house)
    out = archive.folder / "report"
    archive.run("--with", str(archive.library("closed", open=CLOSED)), "--out", str(out))
    trust = parse_trust((archive.folder / "data" / "trust.json").read_bytes())

    assert {"exchange": 5} == {
        name: count
        for name, count in verify_report(out, trust)["changed"].items()
        if name == "exchange"
    }
    given = ["--trust", str(archive.folder / "data" / "trust.json")]
    assert 0 == main(["verify", str(out), *given])
    with pytest.raises(BadSignatureError):
        verify_report(out, TRUST)
    text = (out / "report.txt").read_text()
    (out / "report.txt").write_text(text.replace("ada", "eve"))
    with pytest.raises(BadDigestError, match=r"report\.txt"):
        verify_report(out, trust)
    assert 1 == main(["verify", str(out), *given])
    (out / STATEMENT).write_bytes(b"{}")
    with pytest.raises(MalformedReceiptError):
        verify_report(out, trust)


@pytest.mark.parametrize("wrong", ["missing", "empty", "broken"])
def test_a_library_that_does_not_load_is_one_line_and_nothing_written(
    archive: Archive, wrong: str
) -> None:
    """No folder, a folder without policies, a policy that is malformed: one error each."""
    folder = archive.folder / wrong
    if wrong != "missing":
        folder.mkdir()
    if wrong == "broken":
        archive.library(wrong, open=CLOSED.replace("effect:", "efect:"))
    out = archive.folder / "report"

    with pytest.raises(GatewayError) as caught:
        archive.run("--with", str(folder), "--out", str(out))

    assert "\n" not in str(caught.value)
    assert exit_code(caught.value) in {1, 3}
    assert not out.exists()
    assert [] == list(archive.folder.glob(".report*"))


def test_a_report_is_never_overwritten(archive: Archive) -> None:
    """A folder that stands is left as it is."""
    out = archive.folder / "report"
    out.mkdir()

    with pytest.raises(GatewayError, match="exists already"):
        archive.run("--with", str(archive.library("same")), "--out", str(out))

    assert [] == list(out.iterdir())


def test_without_a_ledger_there_is_nothing_to_rule_on(tmp_path: Path) -> None:
    """A folder without a ledger is the operator's to mend."""
    config = tmp_path / "gateway.yaml"
    config.write_text("data: data\n")
    args = argparse.Namespace(config=str(config), changed=tmp_path, out=None, on=None)

    with pytest.raises(GatewayError, match="no ledger"):
        replay.run(args)


def test_a_leaf_that_is_no_exchange_changes_nothing(archive: Archive) -> None:
    """Statements about libraries are read past; they are not exchanges."""
    house = archive.house
    house.state(
        Activation(
            library=house.library.digest, policies=11, by="ada", at=house.now, writer=WRITER
        )
    )

    assert 0 == archive.run("--with", str(archive.library("same")), "--json")


async def test_the_door_is_asked_the_same_question(tmp_path: Path) -> None:
    """Under the library in force, every exchange comes to what it was ruled when it came."""
    async with rooms_at(tmp_path) as rooms:
        elsewhere = Elsewhere(rooms)
        uses = [INFERENCE, TRAINING, IntendedUse(purpose="train.sft", student="other")]
        elsewhere.declare(uses[2])
        elsewhere.rule(declaration_id(PROJECT, uses[2]), ("held", "training"))
        await rooms.desk.refresh()
        for provider, use in itertools.product(TRUSTED, uses):
            await rooms.through(rooms.asked(provider, use))
        library = rooms.library
        leaves = rooms.leaves()
    statements = [(index, read_leaf(leaf)) for index, leaf in enumerate(leaves)]
    recorded = Counter(
        one.ruling.effect for _, one in statements if isinstance(one, Receipt | Refusal)
    )
    recall = Recall(
        Sources(
            leaves=lambda: leaves,
            said=lambda: [one for one in statements if isinstance(one[1], _SAID)],
            size=len(leaves),
            in_force=library,
            changed=library,
            kept=lambda digest: None,
            today=day_of(rooms.clock.now_ms()),
        )
    )

    assert [] == list(recall.changes())
    assert {"permit", "hold", "forbid"} == set(recorded)
    assert {f"{effect} to {effect}": count for effect, count in recorded.items()} == (
        recall.at_call.as_json()
    )


_SAID = (DeclarationFacts, Verdict, Withdrawal, Manifest)

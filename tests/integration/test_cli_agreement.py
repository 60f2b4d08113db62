"""Agreements and the organisation's facts: registered once, heard at the door, never edited."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from gateway.app.running import Gateway
from gateway.cli.main import main
from gateway.limits import AGREEMENTS_PER_CREDENTIAL_MAX
from gateway.receipt.model import (
    AgreementFacts,
    KeyAuthorization,
    KeyRevocation,
    Receipt,
    Refusal,
)
from gateway.receipt.statement import read_leaf, write_statement
from tests.support.caller import Answer, Caller
from tests.support.dataset import TERMS, a_policy
from tests.support.house import (
    CHAT,
    PROVIDER_SECRET,
    RawProvider,
    completion,
    gateway_in,
    sized,
)

BODY = json.dumps(CHAT).encode()
DAYS = ("--from", "2020-01-01", "--until", "2099-12-31")
WHO = ("--signer", "S. Vendor", "--by", "R. Osei")


@pytest.fixture
async def provider() -> AsyncIterator[RawProvider]:
    """Return a provider on a plain socket."""
    async with RawProvider().listening() as listening:
        listening.steps = [sized(completion("good day"))]
        yield listening


@pytest.fixture
async def gateway(tmp_path: Path, provider: RawProvider) -> AsyncIterator[Gateway]:
    """Return a gateway with keys of its own, and an order form beside it."""
    (tmp_path / "order.pdf").write_bytes(b"signed")
    async with gateway_in(tmp_path, provider.url, "keys: managed\n") as running:
        yield running


def run(folder: Path, *words: str) -> int:
    """Run a command on the installation in *folder*."""
    return main(["--config", str(folder / "gateway.yaml"), *words])


def register(
    folder: Path,
    *more: str,
    lifts: str = "training",
    policy: str = "held",
    named: str = "order-7",
) -> int:
    """Register an agreement that lifts a clause of *policy* for training."""
    words = (policy, "--lifts", lifts, "--purpose", "train", *DAYS, *WHO)
    where = ("--evidence", str(folder / "order.pdf"), "--credential", "file:provider.key")
    return run(folder, "agreement", "register", named, *words, *where, *more)


async def ask(gateway: Gateway, target: str) -> Answer:
    """Ask for training with a gateway key of its own."""
    secret = gateway.installation.access.new("ada", "search")
    headers = (
        ("content-type", "application/json"),
        ("authorization", f"Bearer {secret}"),
        ("x-intended-use", "purpose=train.sft, student=parser"),
    )

    def talk() -> Answer:
        with Caller(gateway.port) as caller:
            return caller.ask("POST", target, headers, BODY)

    return await asyncio.to_thread(talk)


def last(gateway: Gateway) -> object:
    """Return the newest statement that is not about a key."""
    reader = gateway.installation.reader
    said = map(read_leaf, reader.leaves(0, reader.size()))
    return [one for one in said if not isinstance(one, KeyAuthorization | KeyRevocation)][-1]


async def test_an_agreement_opens_the_door_it_names(
    gateway: Gateway, provider: RawProvider, tmp_path: Path
) -> None:
    """A running gateway forwards what an agreement lifts, says so, and stops when it ends."""
    path = "/held/v1/chat/completions"
    before = await ask(gateway, path)
    assert 0 == await asyncio.to_thread(register, tmp_path)
    during = await ask(gateway, path)
    receipt = last(gateway)
    words = ("agreement", "withdraw", "order-7", "--by", "ada", "--reason", "ended")
    assert 0 == await asyncio.to_thread(run, tmp_path, *words)
    after = await ask(gateway, path)

    assert (403, 200, 403) == (before.status, during.status, after.status)
    assert isinstance(receipt, Receipt)
    assert ("order-7",) == receipt.ruling.agreements
    assert ["order-7"] == [reason.agreement for reason in receipt.ruling.reasons]
    assert isinstance(last(gateway), Refusal)
    assert 1 == len(provider.received)


async def test_an_agreement_names_no_secret(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the leaf nor what is printed holds the provider's key or the document."""
    assert 0 == await asyncio.to_thread(register, tmp_path)
    assert 0 == await asyncio.to_thread(run, tmp_path, "agreement", "list", "--json")
    told = capsys.readouterr().out
    reader = gateway.installation.reader
    leaves = b"".join(reader.leaf(index) for index in range(reader.size()))

    assert PROVIDER_SECRET not in told
    assert PROVIDER_SECRET.encode() not in leaves
    assert b"signed" not in leaves


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--lifts", "no-such"), "no clause `no-such` to lift"),
        (("--lifts", "plain-use"), "permits already"),
        (("--purpose", "trian"), "did you mean `train`"),
        (("--until", "2019-12-31"), "lies before"),
        (("--evidence", "nowhere.pdf"), "can't be read"),
        (("--credential", "env:NO_SUCH_VARIABLE"), "NO_SUCH_VARIABLE"),
        (("--signer", " "), "says nothing"),
    ],
)
async def test_an_agreement_that_cannot_stand_is_not_written(
    gateway: Gateway,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, str],
    told: str,
) -> None:
    """What names nothing, ends before it starts or shows nothing is one line, and no leaf."""
    size = gateway.installation.reader.size()

    assert 0 != await asyncio.to_thread(register, tmp_path, *words)
    assert told in capsys.readouterr().err
    assert size == gateway.installation.reader.size()


async def test_so_many_agreements_hold_for_a_key_and_no_more(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A receipt must have room for all of them; one more is refused until another ends."""
    house = gateway.installation
    assert 0 == await asyncio.to_thread(register, tmp_path)
    facts = last(gateway)
    assert isinstance(facts, AgreementFacts)
    for number in range(AGREEMENTS_PER_CREDENTIAL_MAX):
        more = msgspec.structs.replace(facts, agreement=f"more-{number}")
        leaf = write_statement(more, (), house.keyring.receipt)
        await house.sequencer.append(leaf)

    def withdraw(named: str) -> int:
        words = ("agreement", "withdraw", named, "--by", "ada", "--reason", "replaced")
        return run(tmp_path, *words)

    assert 2 == await asyncio.to_thread(register, tmp_path, named="one-more")
    assert "hold for this key already" in capsys.readouterr().err
    assert 0 == await asyncio.to_thread(withdraw, "order-7")
    assert 0 == await asyncio.to_thread(withdraw, "more-0")
    assert 0 == await asyncio.to_thread(register, tmp_path, named="one-more")


async def test_no_agreement_lifts_an_overlay(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a law asks is not a provider's to sign away."""
    overlay = tmp_path / "policies/overlays/law"
    overlay.mkdir(parents=True)
    (overlay / "policy.yaml").write_text(a_policy("law", "hold"))
    (overlay / "terms.yaml").write_text(TERMS)

    assert 0 != await asyncio.to_thread(register, tmp_path, policy="law")
    assert "is an overlay" in capsys.readouterr().err


async def test_an_agreement_is_registered_once(gateway: Gateway, tmp_path: Path) -> None:
    """A name is given once; what was registered is never edited."""
    assert 0 == await asyncio.to_thread(register, tmp_path)
    assert 2 == await asyncio.to_thread(register, tmp_path)


async def test_the_organisation_is_stated_by_somebody(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Facts are stated with a month, a basis and a name, and shown as they count."""

    def state(*words: str) -> int:
        who = ("--basis", "our count", "--by", "ada")
        return run(tmp_path, "organisation", "register", *words, *who)

    def work() -> list[int]:
        return [
            state("monthly-users=40000", "--measured", "2026-10"),
            state("monthly-users=50000", "--measured", "2026-11"),
            state("region-supported=no", "headquarters=DE", "jurisdiction=DE"),
            state("gateway-role=internal", "restricted-ownership=0"),
            state("monthly-users=40000"),
            state("monthly-users=many", "--measured", "2026-10"),
            state("monthly-users=1", "--measured", "October"),
            state("headquarters=Germany"),
            state("gateway-role=friend"),
            state("purpose=train"),
        ]

    assert [0, 0, 0, 0, 2, 2, 2, 2, 2, 2] == await asyncio.to_thread(work)
    errors = capsys.readouterr().err
    assert 6 == len(errors.splitlines())
    assert 0 == await asyncio.to_thread(run, tmp_path, "organisation", "show", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert {"2026-10": 40000, "2026-11": 50000} == shown["monthly-users"]
    assert (False, "DE", "internal", None) == (
        shown["region-supported"],
        shown["headquarters"],
        shown["gateway-role"],
        shown["revenue-annual"],
    )


async def test_terms_that_a_watch_found_changed_hold_training(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A running gateway hears of it: training holds, plain use does not; it is said once."""
    policies, terms = tmp_path / "policies", tmp_path / "archive"
    (terms / "Open").mkdir(parents=True)
    document = terms / "Open/Terms.md"
    document.write_text("# Terms\n\nYou may train whatever you like on it.\n")
    listed = policies / "open/terms.yaml"
    listed.write_text(f"{listed.read_text().rstrip()}\n    snapshot: {{file: Open/Terms.md}}\n")
    watch = ("policy", "watch", str(terms), "--policies", str(policies), "--only", "open")
    assert 0 == await asyncio.to_thread(run, tmp_path, *watch, "--record")
    assert 0 == await asyncio.to_thread(run, tmp_path, *watch, "--mark", "--by", "ada")
    before = await ask(gateway, "/open/v1/chat/completions")
    document.write_text("# Terms\n\nYou may train nothing on it.\n")
    assert 2 == await asyncio.to_thread(run, tmp_path, *watch, "--mark")
    assert 1 == await asyncio.to_thread(run, tmp_path, *watch, "--mark", "--by", "ada")
    after = await ask(gateway, "/open/v1/chat/completions")
    assert 1 == await asyncio.to_thread(run, tmp_path, *watch, "--mark", "--by", "ada")
    told = capsys.readouterr().out

    assert (200, 403) == (before.status, after.status)
    assert "use.held" == json.loads(after.body)["error"]["code"]
    assert 1 == told.count("marked open 1 as stale")
    assert 1 == told.count("is marked stale already")


async def test_a_ruling_is_explained_under_a_registered_agreement(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is registered here is ruled with: for its project, and for no other."""
    assert 0 == await asyncio.to_thread(register, tmp_path, "--project", "search")
    words = ("policy", "explain", "held", "--policies", str(tmp_path / "policies"))
    use = ("--use", "purpose=train.sft, student=parser", "--agreement")

    def explain(*more: str) -> int:
        return run(tmp_path, *words, *use, *more)

    assert 0 == await asyncio.to_thread(explain, "order-7", "--project", "search")
    assert "The agreement `order-7` lifts this clause" in capsys.readouterr().out
    assert 1 == await asyncio.to_thread(explain, "order-7", "--project", "elsewhere")
    assert 2 == await asyncio.to_thread(explain, "order-8")
    assert "no agreement `order-8` is registered" in capsys.readouterr().err

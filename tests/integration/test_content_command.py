"""Texts are erased by command: a leaf first, the texts then, and no proof is broken by it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.app.installation import open_sourced
from gateway.ident import ExchangeId
from gateway.receipt.model import Erasure
from gateway.receipt.statement import read_leaf, write_statement
from gateway.settings import load
from gateway.store import sqlite
from tests.support.texts import Kept, kept_in

WHY = ("--by", "R. Osei", "--reason", "asked for")


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    """Return a served installation with two texts of one principal and one of another."""
    async with kept_in(tmp_path, "sk-1", "sk-1", "sk-2") as kept:
        yield kept


def texts(kept: Kept) -> list[bool]:
    """Tell of each exchange, in order, whether its text is there."""
    with contextlib.closing(sqlite.connect(kept.data / "content.db")) as connection:
        rows = connection.execute("SELECT exchange FROM content WHERE key IS NOT NULL")
        there = {exchange for (exchange,) in rows}
    return [one in there for one in kept.exchanges]


def principal_of(kept: Kept, exchange: ExchangeId) -> str:
    """Return who asked."""
    _, listed, _ = kept.command("receipt", "list", "--json")
    rows = [json.loads(line) for line in listed.splitlines()]
    return str(next(row["principal"] for row in rows if row["exchange"] == exchange))


async def test_texts_of_a_principal_go_and_every_proof_stays(kept: Kept) -> None:
    """While the gateway serves, a principal's texts go; bundles and ledger stay well."""
    first = kept.exchanges[0]
    bundle = kept.folder / "before.json"
    await asyncio.to_thread(kept.command, "receipt", "export", first, "--out", str(bundle))
    ada = ("--principal", await asyncio.to_thread(principal_of, kept, first))
    raw = (kept.data / "content.db").read_bytes() + (kept.data / "content.db-wal").read_bytes()
    with contextlib.closing(sqlite.connect(kept.data / "content.db")) as connection:
        ((key, body),) = connection.execute(
            "SELECT key, body FROM content WHERE exchange = ?", (first,)
        )
    assert isinstance(key, bytes)
    assert isinstance(body, bytes)
    assert key in raw

    dry = await asyncio.to_thread(kept.command, "content", "erase", *ada, "--dry-run")
    assert (0, "2 exchanges, 2 of them with a text; nothing was erased\n") == dry[:2]
    assert [True, True, True] == texts(kept)
    done = await asyncio.to_thread(kept.command, "content", "erase", *ada, *WHY)
    assert 0 == done[0], done
    assert "erased 2 texts of 2 exchanges" in done[1]
    assert [False, False, True] == texts(kept)
    later = await kept.ask("sk-1")
    assert [False, False, True, True] == texts(kept)
    on_disk = b"".join(path.read_bytes() for path in kept.data.glob("content.db*"))
    assert key not in on_disk
    assert body[:60] not in on_disk

    trust = ("--trust", str(kept.data / "trust.json"))
    assert 0 == (await asyncio.to_thread(kept.command, "verify", str(bundle), *trust))[0]
    code, found, _ = await asyncio.to_thread(kept.command, "ledger", "fsck")
    assert (0, True) == (code, "1 erasure" in found)
    assert later in kept.exchanges


async def test_an_exchange_a_project_and_days_can_be_named(kept: Kept) -> None:
    """One exchange goes alone; days and projects take what they cover."""
    one = kept.exchanges[1]
    code, said, _ = await asyncio.to_thread(
        kept.command, "content", "erase", "--exchange", one, *WHY
    )
    assert (0, True) == (code, "erased 1 texts of 1 exchanges" in said)
    assert [True, False, True] == texts(kept)

    before = await asyncio.to_thread(
        kept.command, "content", "erase", "--before", "2001-01-01", *WHY
    )
    assert 2 == before[0]
    assert "no such exchange" in before[2]
    whole = await asyncio.to_thread(
        kept.command, "content", "erase", "--project", "default", "--before", "2999-01-01", *WHY
    )
    assert "erased 2 texts of 3 exchanges" in whole[1]
    assert [False, False, False] == texts(kept)


async def test_a_dataset_leaves_out_what_was_erased_and_says_so(kept: Kept) -> None:
    """The gate names the reason, and what is left is built and verifies."""
    exchange, project = kept.exchanges[0], "default"
    words = ("purpose=train.sft", "student=parser")
    declared = await asyncio.to_thread(
        kept.command, "use", "declare", "--project", project, "--owner", "ada", *words
    )
    declaration = declared[1].split()[0]
    named = ("content", "erase", "--exchange", exchange, *WHY)
    assert 0 == (await asyncio.to_thread(kept.command, *named))[0]
    built = await asyncio.to_thread(
        kept.command, "dataset", "build", "answers", "--for", declaration
    )

    assert 0 == built[0], built
    assert "1 content-erased" in built[1]
    folder = str(kept.data / "datasets" / "answers")
    trust = ("--trust", str(kept.data / "trust.json"))
    assert 0 == (await asyncio.to_thread(kept.command, "verify", folder, *trust))[0]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 2),
        (WHY, 2),
        (("--project", "default"), 2),
        (("--project", "default", "--by", " ", "--reason", "r"), 2),
        (("--project", "nobody", *WHY), 2),
        (("--exchange", "x-1", "--before", "2026-01-01", *WHY), 2),
        (("--project", "a", "--principal", "b", *WHY), 2),
        (("--before", "soon", *WHY), 2),
    ],
)
async def test_what_names_nothing_erases_nothing(
    kept: Kept, words: tuple[str, ...], code: int
) -> None:
    """An erasure is somebody's word about something there is; else nothing is written."""
    said = await asyncio.to_thread(kept.command, "content", "erase", *words)

    assert code == said[0]
    assert [True, True, True] == texts(kept)
    fsck = await asyncio.to_thread(kept.command, "ledger", "fsck")
    assert "erasure" not in fsck[1]


async def test_a_start_carries_out_what_a_kill_left(kept: Kept, tmp_path: Path) -> None:
    """The leaf stands, the process died: the next to open the folder destroys the texts."""

    def say() -> None:
        with contextlib.closing(open_sourced(load(kept.file, environment={}))) as house:
            erasure = Erasure(
                project="default", reason="r", by="ada", at="", writer=house.writer
            )
            house.sequencer.append_and_wait(write_statement(erasure, (), house.keyring.receipt))

    await asyncio.to_thread(say)
    assert [True, True, True] == texts(kept)
    await asyncio.to_thread(kept.command, "receipt", "list")
    assert [False, False, False] == texts(kept)


@pytest.mark.crash
async def test_a_kill_at_any_moment_leaves_a_leaf_that_is_carried_out(kept: Kept) -> None:
    """Killed whenever: either nothing was said, or the next command makes it whole."""
    command = [sys.executable, "-m", "gateway", "--config", str(kept.file), "content", "erase"]
    for number in range(12):
        await kept.ask("sk-1", f"again {number}")

        def killed(wait_s: float) -> None:
            process = subprocess.Popen(
                [*command, "--project", "default", *WHY],
                env={"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                process.wait(wait_s)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()

        await asyncio.to_thread(killed, 0.5 + 0.12 * number)
        await asyncio.to_thread(kept.command, "receipt", "list")

        def newest_erasure() -> int:
            with contextlib.closing(open_sourced(load(kept.file, environment={}))) as house:
                found = list(house.index.statements(["erasure"]))
                for at in found:
                    assert isinstance(read_leaf(house.reader.leaf(at)), Erasure)
                opened = house.index.opening_of(kept.exchanges[-1])
                assert opened is not None
                return int(bool(found) and found[-1] > opened.index)

        said = await asyncio.to_thread(newest_erasure)
        assert [not said] == texts(kept)[-1:]

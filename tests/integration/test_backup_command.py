"""A backup is one state of the whole folder; what is put back is checked first."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.store import sqlite
from gateway.store.access import AccessKeys
from tests.support.texts import Kept, kept_in

WHY = ("--by", "R. Osei", "--reason", "asked for")


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    """Return an installation that serves, with three texts."""
    async with kept_in(tmp_path / "house", "sk-1", "sk-2", "sk-3") as kept:
        yield kept


def elsewhere(kept: Kept, name: str = "elsewhere") -> Kept:
    """Return a folder with the same settings and no data."""
    folder = kept.folder.parent / name
    folder.mkdir()
    shutil.copytree(kept.folder / "policies", folder / "policies")
    for file in ("gateway.yaml", "provider.key"):
        shutil.copy(kept.folder / file, folder / file)
    other = Kept(folder, folder / "gateway.yaml")
    other.exchanges = kept.exchanges
    return other


def has_text(kept: Kept) -> list[bool]:
    """Tell of each exchange, in order, whether its text is there."""
    with contextlib.closing(sqlite.connect(kept.data / "content.db")) as connection:
        rows = connection.execute("SELECT exchange FROM content WHERE key IS NOT NULL")
        there = {exchange for (exchange,) in rows}
    return [one in there for one in kept.exchanges]


async def backed_up(kept: Kept, *more: str) -> Path:
    """Back the folder up, while it is served; return where."""
    target = kept.folder.parent / "copies" / "monday"
    done = await asyncio.to_thread(kept.command, "backup", str(target), *more)
    assert done[0] == 0, done
    return target


async def test_a_backup_made_while_serving_comes_back_whole(kept: Kept) -> None:
    """Leaves, texts, keys and roots are those of one moment; it serves again from there."""
    with contextlib.closing(AccessKeys(kept.data / "access.db")) as access:
        secret = access.new("ada", "search")
    target = await backed_up(kept, "--with-keys")
    manifest = json.loads((target / "backup.json").read_bytes())
    assert {"ledger.db", "content.db", "access.db", "trust.json", "keys/content.key"} <= {
        one["name"] for one in manifest["files"]
    }
    assert not list(target.glob("*.db-*"))
    later = await kept.ask("sk-4")
    other = elsewhere(kept)
    code, said, _ = await asyncio.to_thread(other.command, "restore", str(target))

    assert (0, True) == (code, "clean" in said)
    assert "no checkpoint from elsewhere was compared" in said
    assert [True, True, True, False] == has_text(other)
    with contextlib.closing(AccessKeys(other.data / "access.db")) as access:
        assert access.find(secret) is not None
    async with other.serving():
        await other.ask("sk-1")
    assert 0 == (await asyncio.to_thread(other.command, "ledger", "fsck"))[0]
    assert later in kept.exchanges


async def test_private_keys_stay_where_they_are_unless_asked_for(kept: Kept) -> None:
    """Without the option nothing of `keys/` is in a backup, and both commands say so."""
    target = await backed_up(kept)
    other = elsewhere(kept)
    _, said, _ = await asyncio.to_thread(other.command, "restore", str(target))

    assert not (target / "keys").exists()
    assert "it held no private keys" in said
    secrets = [path.read_bytes() for path in (kept.data / "keys").iterdir()]
    in_copy = b"".join(path.read_bytes() for path in target.rglob("*") if path.is_file())
    assert secrets
    assert not [one for one in secrets if one.strip() in in_copy]
    shutil.copytree(kept.data / "keys", other.data / "keys")
    assert 0 == (await asyncio.to_thread(other.command, "ledger", "checkpoint"))[0]


async def test_a_restored_copy_brings_back_nothing_that_was_erased(kept: Kept) -> None:
    """Erasures that the copy's ledger holds are carried out on the copy's texts again."""
    target = kept.folder.parent / "mixed"
    await asyncio.to_thread(kept.command, "backup", str(target))
    old_texts = (target / "content.db").read_bytes()
    shutil.rmtree(target)
    named = ("content", "erase", "--exchange", kept.exchanges[1], *WHY)
    assert 0 == (await asyncio.to_thread(kept.command, *named))[0]
    await asyncio.to_thread(kept.command, "backup", str(target))
    # As if the texts had been copied before the erasure, and the ledger after it.
    (target / "content.db").write_bytes(old_texts)
    manifest = json.loads((target / "backup.json").read_bytes())
    for one in manifest["files"]:
        if one["name"] == "content.db":
            one["sha256"] = hashlib.sha256(old_texts).hexdigest()
    (target / "backup.json").write_text(json.dumps(manifest))
    other = elsewhere(kept)
    code, said, _ = await asyncio.to_thread(other.command, "restore", str(target))

    assert (0, True) == (code, "erased 1 texts again" in said)
    assert [True, False, True] == has_text(other)


async def test_an_older_copy_is_refused_where_a_newer_checkpoint_is_known(kept: Kept) -> None:
    """One line says so and nothing is put back; the newest copy is taken."""
    target = await backed_up(kept)
    await kept.ask("sk-1")
    newest = kept.folder / "elsewhere.checkpoint"
    _, note, _ = await asyncio.to_thread(kept.command, "ledger", "checkpoint")
    newest.write_text(note)
    other = elsewhere(kept)
    known = ("--known-checkpoint", str(newest))
    code, _, said = await asyncio.to_thread(other.command, "restore", str(target), *known)

    assert 3 == code
    assert said.startswith("gateway: backup.older: the backup is an older copy")
    assert 1 == said.count("\n")
    assert not other.data.exists()
    shutil.rmtree(target)
    assert 0 == (await asyncio.to_thread(kept.command, "backup", str(target)))[0]
    again = await asyncio.to_thread(other.command, "restore", str(target), *known)
    assert 0 == again[0], again
    assert "no checkpoint from elsewhere" not in again[1]


async def test_leaves_that_came_later_are_taken_from_a_damaged_ledger(kept: Kept) -> None:
    """A leaf that was edited comes from the backup, what came after it from the other file."""
    target = await backed_up(kept)
    await kept.ask("sk-1")
    note = kept.folder / "newest"
    note.write_text((await asyncio.to_thread(kept.command, "ledger", "checkpoint"))[1])
    damaged = kept.folder / "damaged.db"
    with contextlib.closing(sqlite.connect(kept.data / "ledger.db")) as connection:
        connection.execute("VACUUM INTO ?", (str(damaged),))
    with contextlib.closing(sqlite.connect(damaged)) as connection:
        connection.execute("UPDATE leaf SET leaf = CAST(leaf || ' ' AS BLOB) WHERE seq = 2")
    other = elsewhere(kept)
    words = ("--known-checkpoint", str(note), "--leaves-from", str(damaged))
    code, said, _ = await asyncio.to_thread(other.command, "restore", str(target), *words)

    assert (0, True) == (code, "clean" in said), said
    assert int(note.read_text().splitlines()[1]) <= int(said.split()[0])
    with contextlib.closing(sqlite.connect(damaged)) as connection:
        connection.execute(
            "UPDATE leaf SET leaf = CAST(leaf || ' ' AS BLOB)"
            " WHERE seq = (SELECT max(seq) FROM leaf)"
        )
    shutil.rmtree(other.data)
    code, said, _ = await asyncio.to_thread(other.command, "restore", str(target), *words)
    assert (1, True) == (code, "found: root.differs" in said), said
    assert not other.data.exists()


async def test_copies_of_the_checkpoint_are_known_without_naming_them(
    kept: Kept, tmp_path: Path
) -> None:
    """What the settings name is compared; a copy that is gone is asked for."""
    target = await backed_up(kept)
    await kept.ask("sk-1")
    other = elsewhere(kept)
    copy = tmp_path / "medium" / "checkpoint"
    with other.file.open("a") as file:
        file.write(f"checkpoint:\n  copies: [{copy}]\n")
    _, note, _ = await asyncio.to_thread(kept.command, "ledger", "checkpoint")
    copy.parent.mkdir()
    copy.write_text(note)
    code, _, said = await asyncio.to_thread(other.command, "restore", str(target))
    assert (3, True) == (code, said.startswith("gateway: backup.older: "))

    (target / "checkpoint.copies").write_text(json.dumps([str(copy)]))
    copy.unlink()
    code, _, said = await asyncio.to_thread(other.command, "restore", str(target))
    assert (3, True) == (code, "is gone" in said)
    assert not other.data.exists()


async def test_another_ledgers_checkpoint_is_none(kept: Kept, tmp_path: Path) -> None:
    """A file that is no checkpoint of this ledger is not passed over."""
    target = await backed_up(kept)
    other = elsewhere(kept)
    for text in ("", "receipts.example/x\n3\nAAAA\n"):
        (tmp_path / "note").write_text(text)
        known = ("--known-checkpoint", str(tmp_path / "note"))
        code, _, said = await asyncio.to_thread(other.command, "restore", str(target), *known)
        assert (3, True) == (code, "is no checkpoint of this ledger" in said), said
    missing = ("--known-checkpoint", str(tmp_path / "nothing"))
    assert 3 == (await asyncio.to_thread(other.command, "restore", str(target), *missing))[0]


@pytest.mark.parametrize("name", ["ledger.db", "content.db", "access.db", "checkpoint"])
async def test_a_changed_backup_is_refused(kept: Kept, name: str) -> None:
    """One changed bit in any file, or a missing file, and nothing is put back."""
    await asyncio.to_thread(kept.command, "ledger", "checkpoint")
    target = await backed_up(kept)
    other = elsewhere(kept)
    changed = bytearray((target / name).read_bytes())
    changed[len(changed) // 2] ^= 1
    (target / name).write_bytes(changed)
    code, _, said = await asyncio.to_thread(other.command, "restore", str(target))
    assert (3, True) == (code, "its digest differs" in said)
    (target / name).unlink()
    code, _, said = await asyncio.to_thread(other.command, "restore", str(target))

    assert (3, True) == (code, "is missing" in said)
    left = await asyncio.to_thread(lambda: sorted(path.name for path in other.folder.iterdir()))
    assert ["gateway.yaml", "policies", "provider.key"] == left


async def test_a_ledger_that_is_not_clean_is_not_put_back(kept: Kept) -> None:
    """A copy with fitting digests is checked leaf by leaf all the same."""
    target = await backed_up(kept)
    with contextlib.closing(sqlite.connect(target / "ledger.db")) as connection:
        connection.execute("UPDATE leaf SET leaf = CAST(leaf || ' ' AS BLOB) WHERE seq = 1")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    manifest = json.loads((target / "backup.json").read_bytes())
    for one in manifest["files"]:
        if one["name"] == "ledger.db":
            content = (target / "ledger.db").read_bytes()
            one["sha256"] = hashlib.sha256(content).hexdigest()
    (target / "backup.json").write_text(json.dumps(manifest))
    other = elsewhere(kept)
    code, said, error = await asyncio.to_thread(other.command, "restore", str(target))

    assert 1 == code
    assert "found: root.differs" in said
    assert "backup.unclean" in error
    assert not other.data.exists()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"format": "gateway-backup/v9"}, "this reads"),
        ({"size": "many"}, "can't be read"),
        ({"files": []}, "holds no `ledger.db`"),
        ({"root": "00" * 32}, "another ledger than it says"),
        (
            {"files": [{"name": "libraries/../../x", "bytes": 1, "sha256": "0" * 64}]},
            "which no backup holds",
        ),
        (
            {"files": [{"name": "/etc/passwd", "bytes": 1, "sha256": "0" * 64}]},
            "which no backup holds",
        ),
    ],
)
async def test_a_backup_that_says_nonsense_is_none(
    kept: Kept, change: dict[str, object], line: str
) -> None:
    """What a backup says of itself is read strictly, and names nothing outside its place."""
    target = await backed_up(kept)
    manifest = json.loads((target / "backup.json").read_bytes())
    (target / "backup.json").write_text(json.dumps(manifest | change))
    other = elsewhere(kept)
    code, _, said = await asyncio.to_thread(other.command, "restore", str(target))

    assert (3, True) == (code, "backup.bad" in said)
    assert line in said
    assert not other.data.exists()


async def test_nothing_is_written_over(kept: Kept, tmp_path: Path) -> None:
    """Neither command writes into a folder that holds something, nor reads one that is none."""
    target = await backed_up(kept)
    again = await asyncio.to_thread(kept.command, "backup", str(target))
    over = await asyncio.to_thread(kept.command, "restore", str(target))
    none = await asyncio.to_thread(kept.command, "restore", str(tmp_path / "none"))
    empty = elsewhere(kept)
    no_ledger = await asyncio.to_thread(empty.command, "backup", str(tmp_path / "b"))

    assert (3, True) == (again[0], "holds something already" in again[2])
    assert (3, True) == (over[0], "holds something already" in over[2])
    assert (3, True) == (none[0], "holds no backup" in none[2])
    assert (3, True) == (no_ledger[0], "ledger.missing" in no_ledger[2])
    (tmp_path / "dir").mkdir()
    assert 0 == (await asyncio.to_thread(kept.command, "backup", str(tmp_path / "dir")))[0]


@pytest.mark.parametrize("words", [("backup", "copy"), ("restore", "copy")])
def test_a_ledger_in_a_database_is_left_to_its_own_tools(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Half of a folder is no backup: where the ledger is elsewhere, both commands say so."""
    (tmp_path / "gateway.yaml").write_text("ledger: postgres://127.0.0.1:1/ledger\n")
    code, _, said = Kept(tmp_path, tmp_path / "gateway.yaml").command(*words)

    assert (3, True) == (code, "the ledger is in PostgreSQL" in said)


@pytest.mark.crash
@pytest.mark.parametrize("what", ["backup", "restore"])
async def test_a_kill_leaves_nothing_that_looks_whole(kept: Kept, what: str) -> None:
    """Killed at any moment, a folder is whole or not there; the next attempt succeeds."""
    target = await backed_up(kept)
    other = elsewhere(kept)
    begun = [sys.executable, "-m", "gateway", "--config"]
    killed, copy = 0, kept.folder.parent / "again"
    if what == "backup":
        command, place = [*begun, str(kept.file), "backup", str(copy)], copy
    else:
        command, place = [*begun, str(other.file), "restore", str(target)], other.data
    for number in range(14):

        def run(command: list[str], wait_s: float) -> bool:
            process = subprocess.Popen(
                command,
                env={"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                return process.wait(wait_s) == 0
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                return False

        if await asyncio.to_thread(run, command, 0.4 + 0.1 * number):
            assert place.is_dir()
        else:
            killed += 1
        if place.exists():
            shutil.rmtree(place)
    assert killed
    last = (kept if what == "backup" else other).command
    words = (what, str(copy if what == "backup" else target))
    assert 0 == (await asyncio.to_thread(last, *words))[0]
    assert not [path for path in place.parent.iterdir() if path.name.startswith(".")]

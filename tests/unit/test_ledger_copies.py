"""Laws of the copies of the checkpoint on other media."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.clock import FrozenClock
from gateway.errors import LedgerDamagedError, LedgerUnwellError
from gateway.ledger.publishing.alarms import COPY_BEHIND, COPY_NEW
from gateway.ledger.publishing.copies import Copies, Copy
from gateway.ledger.publishing.publisher import Publisher
from gateway.receipt.keys import LogSigner, generate_pem
from gateway.receipt.verify import verify_checkpoint
from tests.support.evidence import ORIGIN, TRUST
from tests.support.store import LedgerUnderTest, exchanges


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LedgerUnderTest]:
    """Return an empty ledger in a folder of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    one = LedgerUnderTest(folder)
    yield one
    one.store.close()


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """Return a folder on another medium."""
    folder = tmp_path / "medium"
    folder.mkdir()
    return folder


def publisher(ledger: LedgerUnderTest, *paths: Path) -> Publisher:
    """Return a publisher with copies at *paths*, as after a start."""
    memory = ledger.folder / "checkpoint.copies"
    copies = Copies([Copy(path, timeout_s=60) for path in paths], memory)
    return ledger.publisher(ledger.reopen(), copies=copies)


def codes(one: Publisher) -> list[str]:
    """Return the codes of its alarms."""
    return [alarm.code for alarm in one.alarms()]


def test_every_checkpoint_is_copied(ledger: LedgerUnderTest, medium: Path) -> None:
    """Whatever was published stands in each copy, byte for byte."""
    paths = [medium / "one", medium / "two"]
    one = publisher(ledger, *paths)
    for _ in range(3):
        ledger.store.append(exchanges(2))
        note = one.checkpoint_now()

        assert [note] * 2 == [path.read_text() for path in paths]
        assert note == ledger.checkpoint_file.read_text()
        assert note == ledger.store.checkpoint()
    assert [] == one.alarms()


def test_a_restored_backup_is_refused(ledger: LedgerUnderTest, medium: Path) -> None:
    """A data folder taken back whole, its own checkpoint too, is older than the copy."""
    copy = medium / "checkpoint"
    ledger.store.append(exchanges(2))
    publisher(ledger, copy).checkpoint_now()
    ledger.store.close()
    backup = medium / "backup"
    shutil.copytree(ledger.folder, backup)
    ledger.reopen().append(exchanges(1))
    publisher(ledger, copy).checkpoint_now()
    ledger.store.close()
    shutil.rmtree(ledger.folder)
    backup.rename(ledger.folder)

    with pytest.raises(LedgerDamagedError, match="older than its last published"):
        publisher(ledger, copy).check()
    # Nor is it taken once it has grown as far with other leaves.
    ledger.store.append(exchanges(1, first=50))
    with pytest.raises(LedgerDamagedError, match="not the one that was published"):
        publisher(ledger, copy).check()
    with pytest.raises(LedgerDamagedError):
        publisher(ledger, copy).checkpoint_now()


def test_a_copy_behind_raises_an_alarm_and_catches_up(
    ledger: LedgerUnderTest, medium: Path
) -> None:
    """A medium that is gone holds up nothing; it is told of, and written when it is back."""
    copy = medium / "checkpoint"
    one = publisher(ledger, copy)
    ledger.store.append(exchanges(1))
    first = one.checkpoint_now()
    away = medium.with_name("away")
    medium.rename(away)
    ledger.store.append(exchanges(1))
    second = one.checkpoint_now()

    assert second == ledger.checkpoint_file.read_text()
    assert [COPY_BEHIND] == codes(one)
    away.rename(medium)
    assert first == copy.read_text()
    assert second == one.checkpoint_now()
    assert second == copy.read_text()
    assert [] == codes(one)


def test_a_medium_that_hangs_is_not_waited_for(ledger: LedgerUnderTest, medium: Path) -> None:
    """One write waits for it a moment; the next ones not at all, and it is told of."""
    pipe = medium / "hangs"
    os.mkfifo(pipe)
    hanging = Copy(pipe, timeout_s=0.1)
    with pytest.raises(LedgerUnwellError, match="does not answer"):
        hanging.read()
    hanging.write("note")

    assert "its medium does not answer" == hanging.trouble
    thread = hanging._thread
    assert thread is not None
    assert [thread] == [one for one in threading.enumerate() if str(pipe) in one.name]
    pipe.write_text("")
    thread.join(60)
    assert not thread.is_alive()


def test_a_copy_that_is_gone_keeps_the_gateway_from_starting(
    ledger: LedgerUnderTest, medium: Path
) -> None:
    """A medium that is not mounted must not look like one that is new."""
    copy = medium / "checkpoint"
    ledger.store.append(exchanges(1))
    publisher(ledger, copy).checkpoint_now()
    copy.unlink()

    with pytest.raises(LedgerUnwellError, match="is gone"):
        publisher(ledger, copy).check()
    assert 2 == publisher(ledger).check().size


def test_a_new_copy_is_told_of(ledger: LedgerUnderTest, medium: Path) -> None:
    """A copy that is set up later can't have been compared; it protects from then on."""
    copy = medium / "checkpoint"
    fresh = publisher(ledger, copy)
    fresh.check()
    assert [] == codes(fresh), "nothing was published yet"
    ledger.store.append(exchanges(1))
    publisher(ledger).checkpoint_now()
    late = publisher(ledger, copy)
    late.check()

    assert [COPY_NEW] == codes(late)
    late.checkpoint_now()
    later = publisher(ledger, copy)
    later.check()
    assert [] == codes(later)


def test_a_copy_that_is_something_else_is_refused(
    ledger: LedgerUnderTest, medium: Path
) -> None:
    """An empty file, a folder, noise, another ledger's checkpoint: each is named."""
    ledger.store.append(exchanges(1))
    folder, copy = medium / "folder", medium / "copy"
    folder.mkdir()
    with pytest.raises(LedgerUnwellError, match="can't be read"):
        publisher(ledger, folder).check()
    for content in (b"", b"\xff", b"x" * 100_000):
        copy.write_bytes(content)
        with pytest.raises((LedgerDamagedError, LedgerUnwellError), match="copy"):
            publisher(ledger, copy).check()
    note = publisher(ledger).checkpoint_now()
    copy.write_text(note.replace("receipts.example/acme", "receipts.example/other"))
    with pytest.raises(LedgerDamagedError, match="belongs to the ledger"):
        publisher(ledger, copy).check()
    (ledger.folder / "checkpoint.copies").write_text("{")
    with pytest.raises(LedgerDamagedError, match="does not list the copies"):
        publisher(ledger, copy).check()


def test_processes_do_not_take_a_copy_back(ledger: LedgerUnderTest, medium: Path) -> None:
    """Two publishers of one ledger leave the newest checkpoint, whoever writes last."""
    copy = medium / "checkpoint"
    ledger.store.append(exchanges(1))
    two = [
        ledger.publisher(
            copies=Copies([Copy(copy, timeout_s=60)], ledger.folder / "checkpoint.copies")
        )
        for _ in range(2)
    ]
    sizes: list[int] = []
    for number in range(10):
        ledger.store.append(exchanges(1, first=10 + number))
        threads = [threading.Thread(target=one.checkpoint_now) for one in two]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sizes.append(verify_checkpoint(copy.read_text(), TRUST).size)

    assert [4 + 2 * number for number in range(10)] == sizes


def test_a_copy_by_the_log_before_holds(ledger: LedgerUnderTest, medium: Path) -> None:
    """A successor begins with its predecessor's leaves, so that its checkpoints are kept to."""
    copy, memory = medium / "checkpoint", ledger.folder / "checkpoint.copies"
    ledger.store.append(exchanges(2))
    note = publisher(ledger, copy).checkpoint_now()
    signer = LogSigner(generate_pem("ed25519"), "receipts.example/next")

    def successor(*predecessors: str) -> Publisher:
        return Publisher(
            ledger.store,
            signer,
            signer.name,
            FrozenClock(),
            publish_file=ledger.checkpoint_file,
            copies=Copies([Copy(copy, timeout_s=60)], memory),
            predecessors=predecessors,
        )

    with pytest.raises(LedgerDamagedError, match="belongs to the ledger"):
        successor().check()
    ledger.store.append(exchanges(1, first=9))
    later = successor(ORIGIN).checkpoint_now()
    assert later == copy.read_text()
    assert later.startswith("receipts.example/next\n6\n")
    # What the log before signed of other leaves is not what this one went on from.
    copy.write_text(note.replace("\n4\n", "\n3\n"))
    with pytest.raises(LedgerDamagedError, match="not the one that was published"):
        successor(ORIGIN).check()

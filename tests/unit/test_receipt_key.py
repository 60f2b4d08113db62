"""Laws of the receipt key of a process."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import settings
from gateway.app.installation import Installation, init, open_sourced
from gateway.app.receipt_key import end_keys_of_the_gone, renew_receipt_key
from gateway.clock import FrozenClock
from gateway.errors import BadSignatureError, KeyUnreadableError
from gateway.ledger.custody.fsck import fsck
from gateway.ledger.sequencing.sequencer import Sequencer
from gateway.limits import RECEIPT_KEY_LIFE_MS, RECEIPT_KEY_RENEWED_AFTER_MS
from gateway.log import build_logger
from gateway.receipt.model import Activation, KeyAuthorization, KeyRevocation
from gateway.receipt.statement import read_leaf, write_statement
from gateway.receipt.verify import verify_bundle
from gateway.store.claims import Claims, Holder
from gateway.store.process_key import ProcessKey
from tests.support.evidence import ACTIVATION, MANIFEST_SIGNER, ORIGIN, WRITER

LOG = build_logger("error", io.StringIO())


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Installation]:
    """Return an installation of its own, opened."""
    sourced = settings.load(None, environment={"GATEWAY__DATA": str(tmp_path / "data")})
    init(sourced, ORIGIN)
    opened = open_sourced(sourced)
    yield opened
    opened.close()


def beside(house: Installation) -> Installation:
    """Return the same installation, opened as another process would."""
    return open_sourced(house.settings)


def say(house: Installation) -> int:
    """Append a statement signed with the receipt key in use; return its index."""
    leaf = write_statement(ACTIVATION, (), house.keyring.receipt)
    return house.sequencer.append_and_wait(leaf).index


def kinds(house: Installation) -> list[type[object]]:
    """Return what each leaf is."""
    return [type(read_leaf(leaf)) for leaf in house.reader.leaves(0, house.reader.size())]


def check(house: Installation) -> None:
    """Check the whole ledger with what an auditor is given."""
    findings = fsck(house.store, house.keyring.trust).findings

    assert [] == [str(one) for one in findings]


def test_a_key_is_introduced_before_it_signs(house: Installation) -> None:
    """The authorisation stands right before the first leaf that the key signs, once."""
    assert [1, 2] == [say(house), say(house)]

    assert [KeyAuthorization, Activation, Activation] == kinds(house)
    check(house)


def test_a_process_that_ends_ends_its_key(house: Installation) -> None:
    """Closing says that the key signs nothing more; what it signed still counts."""
    with_key = beside(house)
    say(with_key)
    with_key.close()
    house.reader.catch_up()

    assert [KeyAuthorization, Activation, KeyRevocation] == kinds(house)
    (_, life) = house.reader.authority(house.keyring.trust).lives
    assert (life.since, life.until, life.reason) == (1, 2, "process-ended")
    check(house)


def test_who_signs_nothing_says_nothing(house: Installation) -> None:
    """Opening and closing alone add no leaf."""
    beside(house).close()

    assert [] == kinds(house)


def test_a_bundle_carries_the_authorisation(house: Installation) -> None:
    """A receipt of any process verifies with the trust file, before and after its key ended."""
    index = say(house)
    bundle = house.reader.bundle(index, house.sequencer.checkpoint_now())

    assert index == verify_bundle(bundle, house.keyring.trust).index
    house.end_key()
    bundle = house.reader.bundle(index, house.sequencer.checkpoint_now())
    assert index == verify_bundle(bundle, house.keyring.trust).index


async def test_a_key_is_renewed_in_time(tmp_path: Path) -> None:
    """Before a day is over another key signs, and the old one ends behind its leaves."""
    sourced = settings.load(None, environment={"GATEWAY__DATA": str(tmp_path / "data")})
    init(sourced, ORIGIN)
    house = open_sourced(sourced)
    clock = FrozenClock(house.clock.now_ms())
    keyring = house.keyring
    process = ProcessKey(keyring.manifest, keyring.claims, clock, house.writer)
    object.__setattr__(keyring, "process", process)
    house.sequencer = Sequencer(house.store, house.publisher, introduce=process)
    house.sequencer.start()
    try:
        await asyncio.to_thread(say, house)
        assert not await renew_receipt_key(house, LOG)
        clock.move_ms(RECEIPT_KEY_RENEWED_AFTER_MS)
        # What was signed and not yet written stands before the end of its key.
        late = write_statement(ACTIVATION, (), keyring.receipt)
        renewing = asyncio.ensure_future(renew_receipt_key(house, LOG))
        await asyncio.sleep(0)
        await house.sequencer.append(late)
        assert await renewing
        await asyncio.to_thread(say, house)
    finally:
        await asyncio.to_thread(house.sequencer.stop)
    said = kinds(house)

    assert said.count(KeyAuthorization) == 2
    assert said[-2:] == [KeyRevocation, Activation]
    assert RECEIPT_KEY_RENEWED_AFTER_MS < RECEIPT_KEY_LIFE_MS
    check(house)
    house.close()


def test_keys_of_the_gone_end(house: Installation) -> None:
    """A key whose process died without a word is ended by who starts next; others are not."""
    gone, living = beside(house), beside(house)
    say(gone)
    say(living)
    held = gone.keyring.process.held
    assert held is not None
    # What the end of a process does to its handles.
    gone.keyring.claims.abandon(held.claim)

    assert [held.signer.keyid] == end_keys_of_the_gone(house)
    assert [] == end_keys_of_the_gone(house)
    say(living)
    check(house)
    living.close()


def test_who_holds_a_key_is_known(tmp_path: Path) -> None:
    """A claim tells the living from the gone, and nothing of a key that nobody claimed."""
    claims = Claims(tmp_path / "signing")
    handle = claims.take("ab" * 32)

    assert claims.holder("ab" * 32) is Holder.ALIVE
    assert claims.holder("cd" * 32) is Holder.UNKNOWN
    with pytest.raises(KeyUnreadableError, match="another process"):
        claims.take("ab" * 32)
    claims.abandon(handle)
    assert claims.holder("ab" * 32) is Holder.GONE


def test_a_clock_that_was_put_back_makes_no_key_live_longer(tmp_path: Path) -> None:
    """A key from the future is old, and so is one that somebody wants replaced."""
    clock, claims = FrozenClock(), Claims(tmp_path / "signing")
    process = ProcessKey(MANIFEST_SIGNER, claims, clock, WRITER)

    assert not process.is_old()
    keyid = process.current.keyid
    assert not process.is_old()
    clock.move_ms(-1)
    assert process.is_old()
    clock.move_ms(1)
    claims.ask_for_another(keyid)
    assert process.is_old()


def test_a_stolen_key_adds_nothing_before_its_revocation(house: Installation) -> None:
    """After the revocation a stolen key signs nothing that counts, wherever it is put."""
    say(house)
    stolen = house.keyring.receipt
    house.end_key()
    forged = write_statement(ACTIVATION, (), stolen)
    index = house.store.append([forged]).first

    bundle_note = house.sequencer.checkpoint_now()
    codes = [one.code for one in fsck(house.store, house.keyring.trust).findings]
    assert ["signature.bad"] == codes
    with pytest.raises(BadSignatureError, match="revoked since leaf 2"):
        house.reader.authority(house.keyring.trust).receipt_key(stolen.keyid, index)
    assert bundle_note

"""Laws of a witness's memory."""

from __future__ import annotations

import base64
import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import FrozenClock
from gateway.errors import (
    KeyUnreadableError,
    LedgerDamagedError,
    LedgerUnwellError,
    OperatorError,
)
from gateway.ledger.publishing.cosigner import Cosigner, open_witness
from gateway.receipt.keys import LogSigner, generate_pem
from gateway.tlog.cosignature import cosigned_by, parse_cosignature_vkey
from gateway.tlog.note import parse_vkey
from tests.support.witness import LOG, MemoryLog, a_log

NAME = "witness.example/legal"
OTHER = LogSigner(generate_pem("ed25519"), "log.example/two")


class Kept:
    """The files of a witness, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.key, self.state = folder / "key", folder / "state"
        self.clock = FrozenClock()

    @contextlib.contextmanager
    def witness(self, name: str | None = NAME) -> Iterator[Cosigner]:
        """Open the witness, as after a start."""
        signer = open_witness(self.key, self.state, name)
        logs = [parse_vkey(one.vkey) for one in (LOG, OTHER)]
        with contextlib.closing(Cosigner(self.state, signer, logs, self.clock)) as one:
            yield one


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Return a witness that was never started."""
    return Kept(tmp_path)


@pytest.fixture
def witness(kept: Kept) -> Iterator[Cosigner]:
    """Return a witness that has cosigned nothing."""
    with kept.witness() as one:
        yield one


def test_growth_is_cosigned(kept: Kept, witness: Cosigner) -> None:
    """From nothing on, every step of a log that only grows gets a cosignature with the time."""
    log = a_log(300)
    for old, new in [(0, 0), (0, 1), (1, 2), (2, 2), (2, 255), (255, 256), (256, 300)]:
        reply = witness.answer(log.body(old, new))

        assert (200, "text/plain") == (reply.status, reply.kind)
        (word,) = cosigned_by(
            log.note(new) + reply.text, [parse_cosignature_vkey(witness.vkey)]
        )
        assert (NAME, kept.clock.now_ms() // 1000) == (word.name, word.time)


def test_a_wrong_old_size_is_told_the_right_one(witness: Cosigner) -> None:
    """A log that does not know what was cosigned last is told, ahead or behind."""
    log = a_log(9)
    witness.answer(log.body(0, 5))
    for old, new in [(0, 9), (4, 9), (6, 9), (0, 3)]:
        reply = witness.answer(log.body(old, new))

        assert (409, "text/x.tlog.size", "5\n") == (reply.status, reply.kind, reply.text)


def test_a_fork_is_refused(witness: Cosigner) -> None:
    """A log that has other leaves than those cosigned is not cosigned, and is noted."""
    witness.answer(a_log(7).body(0, 7))
    fork = a_log(12, "!", common=5)
    reply = witness.answer(fork.body(7, 12))

    assert (422, "witness.contradicted") == (reply.status, reply.told)
    assert fork.note(12) == reply.note
    assert 200 == witness.answer(a_log(12).body(7, 12)).status


def test_another_root_at_one_size_is_refused(witness: Cosigner) -> None:
    """Two roots of one size are never both cosigned."""
    witness.answer(a_log(7).body(0, 7))
    reply = witness.answer(a_log(7, "!", common=6).body(7, 7))

    assert (409, "7\n", "witness.contradicted") == (reply.status, reply.text, reply.told)


def test_a_smaller_size_is_refused(witness: Cosigner) -> None:
    """What was cosigned never shrinks."""
    log = a_log(7)
    witness.answer(log.body(0, 7))
    shrunk = log.body(5, 5).replace(b"old 5\n", b"old 7\n")

    assert 400 == witness.answer(shrunk).status
    assert (409, "7\n") == (
        witness.answer(log.body(5, 5)).status,
        witness.answer(log.body(5, 5)).text,
    )


def test_proofs_must_be_exact(witness: Cosigner) -> None:
    """A proof with a hash too few, too many or bent is refused, also from size 0."""
    log = a_log(20)
    first = log.body(0, 6).split(b"\n")
    assert 422 == witness.answer(b"\n".join([first[0], b"A" * 43 + b"=", *first[1:]])).status
    assert 200 == witness.answer(log.body(0, 6)).status
    lines = log.body(6, 20).split(b"\n")
    for bent in (
        [lines[0], *lines[2:]],
        [lines[0], lines[1], lines[1], *lines[2:]],
        [lines[0], lines[2], lines[1], *lines[3:]],
        [lines[0], b"A" * 43 + b"=", *lines[2:]],
    ):
        assert 422 == witness.answer(b"\n".join(bent)).status


def test_a_stranger_is_not_known(witness: Cosigner) -> None:
    """A log that nobody listed gets 404; a listed one under another key 403."""
    stranger = LogSigner(generate_pem("ed25519"), "log.example/three")
    impostor = LogSigner(generate_pem("ed25519"), LOG.name)

    assert 404 == witness.answer(MemoryLog([b"x"], stranger).body(0, 1)).status
    assert 403 == witness.answer(MemoryLog([b"x"], impostor).body(0, 1)).status


def test_a_bent_signature_is_refused(witness: Cosigner) -> None:
    """A checkpoint that its log did not sign is not cosigned, nor with a second, bad one."""
    body = a_log(3).body(0, 3).decode()
    head, _, last = body.rstrip("\n").rpartition(" ")
    signature = bytearray(base64.b64decode(last))
    signature[-1] ^= 1
    bent = f"{head} {base64.b64encode(signature).decode()}\n"

    assert 403 == witness.answer(bent.encode()).status
    assert 403 == witness.answer((body + bent.split("\n")[-2] + "\n").encode()).status


def test_logs_are_told_apart(witness: Cosigner) -> None:
    """What one log grew to says nothing of another."""
    one, other = a_log(9), MemoryLog([b"a", b"b", b"c"], OTHER)

    assert 200 == witness.answer(one.body(0, 9)).status
    assert 200 == witness.answer(other.body(0, 2)).status
    assert 200 == witness.answer(other.body(2, 3)).status
    assert "9\n" == witness.answer(one.body(0, 9)).text


def test_it_remembers_across_starts(kept: Kept) -> None:
    """Key and memory are made once; the next start goes on with both, and needs no name."""
    with kept.witness() as before:
        before.answer(a_log(7).body(0, 7))
    with kept.witness(None) as after:
        assert before.vkey == after.vkey
        assert "7\n" == after.answer(a_log(9).body(0, 9)).text
    assert 0o600 == kept.key.stat().st_mode & 0o777


def test_time_does_not_go_back(kept: Kept, witness: Cosigner) -> None:
    """A clock that was set back does not make a later cosignature look like an earlier one."""
    log = a_log(3)
    witness.answer(log.body(0, 2))
    before = kept.clock.now_ms() // 1000
    kept.clock.move_ms(-3_600_000)
    reply = witness.answer(log.body(2, 3))
    (word,) = cosigned_by(log.note(3) + reply.text, [parse_cosignature_vkey(witness.vkey)])

    assert before == word.time


def test_a_key_without_its_memory_is_not_used(kept: Kept) -> None:
    """Whoever lost what was cosigned must start anew under another key."""
    with kept.witness():
        pass
    kept.state.rename(kept.state.with_name("lost"))

    with pytest.raises(KeyUnreadableError, match="what was cosigned with it"):
        open_witness(kept.key, kept.state, NAME)


def test_a_memory_without_its_key_makes_no_other(kept: Kept) -> None:
    """A key is made only where nothing was cosigned yet: then a first start was cut short."""
    with kept.witness() as one:
        kept.key.unlink()
        vkey = one.vkey
    with kept.witness() as other:
        assert vkey != other.vkey
        other.answer(a_log(1).body(0, 1))
    kept.key.unlink()

    with pytest.raises(KeyUnreadableError, match="there is no"):
        open_witness(kept.key, kept.state, NAME)


def test_files_must_belong_together(kept: Kept, tmp_path: Path) -> None:
    """Another's key, another name, a key for all to read: each is refused with what to do."""
    with kept.witness():
        pass
    with pytest.raises(KeyUnreadableError, match="is called"):
        open_witness(kept.key, kept.state, "witness.example/other")
    kept.key.chmod(0o644)
    with pytest.raises(KeyUnreadableError, match="chmod 600"):
        open_witness(kept.key, kept.state, NAME)
    other = tmp_path / "other"
    other.write_bytes(generate_pem("ed25519"))
    other.chmod(0o600)
    with pytest.raises(KeyUnreadableError, match="is not the key of"):
        open_witness(other, kept.state, NAME)
    with pytest.raises(KeyUnreadableError, match="--name"):
        open_witness(tmp_path / "k", tmp_path / "s", "a name with blanks")
    with pytest.raises(KeyUnreadableError, match="needs a name"):
        open_witness(tmp_path / "k", tmp_path / "s", None)


def test_two_cannot_share_a_memory(kept: Kept, witness: Cosigner) -> None:
    """A second witness on the same state does not start."""
    with pytest.raises(OperatorError, match="another witness"), kept.witness():
        pass


def test_a_damaged_memory_cosigns_nothing(kept: Kept, witness: Cosigner) -> None:
    """A state that can't be read, is another's or is gone while running is no blank slate."""
    log = a_log(3)
    good = kept.state.read_bytes()
    for bad in (b"", b"{}", good.replace(b"witness/v1", b"witness/v2"), b"\xff"):
        kept.state.write_bytes(bad)
        with pytest.raises(LedgerDamagedError):
            witness.answer(log.body(0, 3))
    kept.state.write_bytes(good.replace(b"/legal+", b"/egal+"))
    with pytest.raises(LedgerDamagedError, match="is the memory of"):
        witness.answer(log.body(0, 3))
    kept.state.unlink()
    with pytest.raises(LedgerUnwellError, match="must not cosign"):
        witness.answer(log.body(0, 3))


def test_what_cannot_be_kept_is_not_cosigned(kept: Kept, witness: Cosigner) -> None:
    """Where the state can't be written there is no cosignature, and later all is as before."""
    log = a_log(3)
    witness.answer(log.body(0, 2))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(LedgerUnwellError, match="can't be written"):
            witness.answer(log.body(2, 3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert 200 == witness.answer(log.body(2, 3)).status


MALFORMED = [
    b"",
    b"old 0\n",
    b"old 0\n\n",
    b"old -1\n\nx\n",
    b"new 0\n\nx\n",
    b"old 00\n\nx\n",
    b"\xff\xfe",
]


@pytest.mark.parametrize("body", MALFORMED)
def test_what_cannot_be_read_is_refused(witness: Cosigner, body: bytes) -> None:
    """Something that is no request gets 400."""
    assert 400 == witness.answer(body).status


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_bytes_break_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any bytes, and any damage to a good request, get an answer and never a cosignature."""
    kept = Kept(tmp_path_factory.mktemp("witness"))
    good = a_log(20).body(6, 20)
    with kept.witness() as witness:
        witness.answer(a_log(20).body(0, 6))
        at = data.draw(st.integers(0, len(good) - 1))
        for body in (
            data.draw(st.binary(max_size=300)),
            good[:at],
            good[:at] + data.draw(st.binary(min_size=1, max_size=3)) + good[at:],
            good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :],
        ):
            reply = witness.answer(body)

            assert reply.status in {400, 403, 404, 409, 422}
            assert not reply.text.startswith("—")

"""Laws of asking witnesses."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import FrozenClock
from gateway.errors import LedgerDamagedError, LedgerUnwellError
from gateway.ledger.publishing.cosigner import Cosigner, open_witness
from gateway.ledger.publishing.post import Line
from gateway.ledger.publishing.publisher import Publisher
from gateway.ledger.publishing.witness import Witness, Witnesses
from gateway.limits import WITNESS_GRACE_S
from gateway.receipt.keys import WitnessSigner, generate_pem
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.cosignature import (
    add_cosignatures,
    check_quorum,
    cosign,
    parse_cosignature_vkey,
)
from gateway.tlog.merkle import consistency_proof
from gateway.tlog.note import parse_note, parse_vkey
from tests.support.witness import LOG, CrookedServer, MemoryLog, a_log

Answering = Callable[[bytes], tuple[int, str, bytes]]
PLAIN = "text/plain"
SIZE = "text/x.tlog.size"


class Shown:
    """A log as a publisher shows it."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log

    def size(self) -> int:
        """Return how many leaves it has."""
        return len(self.log.leaves)

    def prove_growth(self, old_size: int, now: Checkpoint) -> list[bytes]:
        """Return the proof."""
        return consistency_proof(old_size, now.size, self.log.root)


class Neighbour:
    """A witness on loopback in this process, and what is asked of it."""

    def __init__(self, name: str, folder: Path) -> None:
        signer = open_witness(folder / f"{name}.key", folder / f"{name}.state", name)
        self.cosigner = Cosigner(
            folder / f"{name}.state", signer, [parse_vkey(LOG.vkey)], FrozenClock()
        )
        self.signer = signer
        self.server = CrookedServer(self.honest)
        self._clients: list[Witness] = []

    def honest(self, body: bytes) -> tuple[int, str, bytes]:
        """Answer as a witness does."""
        reply = self.cosigner.answer(body)
        return reply.status, reply.kind, reply.text.encode()

    def client(self, *, timeout_s: float = 60.0) -> Witness:
        """Return what asks it."""
        verifier = parse_cosignature_vkey(self.cosigner.vkey)
        self._clients.append(Witness(self.server.url, verifier, timeout_s=timeout_s))
        return self._clients[-1]

    def close(self) -> None:
        """Let go of everything."""
        for one in self._clients:
            one.close()
        self.cosigner.close()


@contextlib.contextmanager
def neighbours(folder: Path, count: int) -> Iterator[list[Neighbour]]:
    """Run *count* honest witnesses."""
    with contextlib.ExitStack() as stack:
        made = [Neighbour(f"w{number}", folder) for number in range(count)]
        for one in made:
            stack.enter_context(one.server)
            stack.callback(one.close)
        yield made


def ask(witnesses: Witnesses, log: MemoryLog, size: int, **more: int) -> Sequence[str]:
    """Have a checkpoint of *log* cosigned; return the note's lines."""
    note = log.note(size)
    collected = witnesses.collect(note, log.checkpoint(size), Shown(log), **more)
    return collected.lines


def test_all_who_are_well_cosign(tmp_path: Path) -> None:
    """Every honest witness's line is collected, verifies, and is remembered as its size."""
    log = a_log(40)
    with neighbours(tmp_path, 3) as three:
        witnesses = Witnesses([one.client() for one in three], quorum=2)
        for size in (1, 7, 7, 40):
            note = add_cosignatures(log.note(size), ask(witnesses, log, size, enough=3))
            verifiers = [one._verifier for one in witnesses.all]

            assert 3 == len(check_quorum(note, verifiers, 3))
        assert [40] * 3 == [one.cosigned_size for one in witnesses.all]
        # The first time they are asked from nothing, later from what they said.
        assert [b"old 0", b"old 1", b"old 7", b"old 7"] == [
            body.split(b"\n")[0] for body in three[0].server.bodies
        ]


def test_who_is_well_is_waited_for_a_moment(tmp_path: Path) -> None:
    """One that answers after the quorum has is counted too, unless it takes too long."""
    log = a_log(9)
    with neighbours(tmp_path, 2) as (quick, later):
        witnesses = Witnesses([quick.client(), later.client()], quorum=1)
        first = threading.Event()

        def honest(body: bytes) -> tuple[int, str, bytes]:
            first.set()
            return quick.honest(body)

        def afterwards(body: bytes) -> tuple[int, str, bytes]:
            first.wait(60)
            return later.honest(body)

        quick.server.answer, later.server.answer = honest, afterwards
        begun = time.monotonic()
        lines = ask(witnesses, log, 9)

        assert 2 == len(lines) or time.monotonic() - begun >= WITNESS_GRACE_S


def test_an_unknown_size_is_found_out(tmp_path: Path) -> None:
    """A new process does not know what was cosigned; it is told and goes on from there."""
    log = a_log(40)
    with neighbours(tmp_path, 1) as (one,):
        assert ask(Witnesses([one.client()], quorum=1), log, 7)
        assert ask(Witnesses([one.client()], quorum=1), log, 40)
        assert [b"old 0", b"old 0", b"old 7"] == [
            body.split(b"\n")[0] for body in one.server.bodies
        ]


def test_a_quorum_is_enough(tmp_path: Path) -> None:
    """With two of three, one that is dead, slow or lies keeps nobody from publishing."""
    log = a_log(20)
    released = threading.Event()
    with neighbours(tmp_path, 3) as three:
        stranger = WitnessSigner(generate_pem("ed25519"), three[2].signer.name)

        def slow(body: bytes) -> tuple[int, str, bytes]:
            released.wait(60)
            return three[2].honest(body)

        def lie(body: bytes) -> tuple[int, str, bytes]:
            text = parse_note(body.decode().partition("\n\n")[2])[0]
            return 200, PLAIN, cosign(text, stranger, 1).encode()

        clients = [one.client() for one in three]
        witnesses = Witnesses(clients, quorum=2)
        for size, wrong, says in (
            (5, slow, "in time"),
            (6, lie, "no cosignature"),
            (7, lambda _: (200, PLAIN, b""), "no cosignature"),
            (8, lambda _: (200, PLAIN, b"\xff\n"), "no cosignature"),
            (9, lambda _: (500, PLAIN, b"<oh\nno>"), "answers 500"),
            (10, lambda _: (301, PLAIN, b""), "answers 301"),
            (11, lambda _: (404, PLAIN, b""), "vkey"),
            (12, lambda _: (403, PLAIN, b""), "another key"),
            (13, lambda _: (409, PLAIN, b"7"), "without a size"),
            (14, lambda _: (409, SIZE, b"+7\n"), "without a size"),
            (15, lambda _: (200, PLAIN, b"x" * 100_000), "over"),
        ):
            three[2].server.answer = wrong
            # Who is not waited for may answer after the others were counted.
            deadline = time.monotonic() + 60
            while True:
                collected = witnesses.collect(log.note(size), log.checkpoint(size), Shown(log))
                assert 2 == len(collected.lines), collected
                if says in collected.missing["w2"]:
                    break
                assert time.monotonic() < deadline, collected
                time.sleep(0.05)
            released.set()
            with clients[2].busy:
                pass


def test_a_dead_witness_is_told_of(tmp_path: Path) -> None:
    """Nobody listens: that is said at once, and it is asked again the next time."""
    log = a_log(3)
    with neighbours(tmp_path, 2) as two:
        witnesses = Witnesses([one.client() for one in two], quorum=2)
        port = two[1].server.url
        two[1].server.__exit__()
        collected = witnesses.collect(log.note(3), log.checkpoint(3), Shown(log))

        assert 1 == len(collected.lines)
        assert f"`{port}/add-checkpoint` gives no answer" in collected.missing["w1"]
        two[1].server.__init__(two[1].honest)  # type: ignore[misc]
        two[1].server.__enter__()


def test_who_answers_late_is_not_asked_twice(tmp_path: Path) -> None:
    """One that hangs costs one thread, and its time is bounded even if it drips."""
    log = a_log(9)
    released = threading.Event()
    with neighbours(tmp_path, 1) as (one,):

        def hang(body: bytes) -> tuple[int, str, bytes]:
            released.wait(200)
            return one.honest(body)

        one.server.answer = hang
        client = one.client(timeout_s=0.3)
        witnesses = Witnesses([client, client], quorum=1)
        begun = time.monotonic()
        for _ in range(3):
            assert () == ask(witnesses, log, 9)
        released.set()

        assert "timed out" in client.trouble
        assert time.monotonic() - begun < 60
        assert len(one.server.bodies) <= 3


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((409, SIZE, b"41\n"), "41 leaves, more than the ledger has"),
        ((409, SIZE, b"9223372036854775807\n"), "more than the ledger has"),
        ((422, PLAIN, b""), "other 7 leaves"),
    ],
)
def test_a_contradiction_is_damage(
    tmp_path: Path, answer: tuple[int, str, bytes], says: str
) -> None:
    """A witness that knows more leaves, or others, stops everything, and it stays so."""
    log = a_log(40)
    with neighbours(tmp_path, 2) as two:
        witnesses = Witnesses([one.client() for one in two], quorum=1)
        ask(witnesses, log, 7, enough=2)
        two[1].server.answer = lambda _: answer
        with pytest.raises(LedgerDamagedError, match=says):
            ask(witnesses, log, 40, enough=2)
        two[1].server.answer = two[1].honest
        with pytest.raises(LedgerDamagedError, match=says):
            ask(witnesses, log, 40)


@pytest.mark.parametrize("text", [b"7\n", b""])
def test_another_root_at_one_size_is_damage(tmp_path: Path, text: bytes) -> None:
    """A 409 for equal sizes means that the roots differ, whether the size is said or not."""
    log = a_log(7)
    with neighbours(tmp_path, 1) as (one,):
        witnesses = Witnesses([one.client()], quorum=1)
        ask(witnesses, log, 7)
        one.server.answer = lambda _: (409, SIZE if text else PLAIN, text)

        with pytest.raises(LedgerDamagedError, match="7 leaves with another root"):
            ask(witnesses, log, 7)


def test_a_real_fork_is_damage(tmp_path: Path) -> None:
    """A ledger that was restored and grew anew is told apart by an honest witness."""
    with neighbours(tmp_path, 1) as (one,):
        ask(Witnesses([one.client()], quorum=1), a_log(9), 9)
        for other in (a_log(9, "!", common=8), a_log(20, "!", common=8), a_log(8)):
            with pytest.raises(LedgerDamagedError, match="has cosigned"):
                ask(Witnesses([one.client()], quorum=1), other, len(other.leaves))


def test_damage_that_is_told_late_is_told(tmp_path: Path) -> None:
    """A contradiction that comes after a quorum has cosigned is not lost."""
    log = a_log(9)
    released = threading.Event()
    with neighbours(tmp_path, 2) as two:

        def late(_: bytes) -> tuple[int, str, bytes]:
            released.wait(60)
            return 422, PLAIN, b""

        two[1].server.answer = late
        clients = [one.client() for one in two]
        witnesses = Witnesses(clients, quorum=1)
        assert 1 == len(ask(witnesses, log, 9))
        assert witnesses.damage is None
        released.set()
        with clients[1].busy:
            pass

        assert witnesses.damage is not None


def test_a_witness_ahead_of_a_checkpoint_is_no_contradiction(tmp_path: Path) -> None:
    """Another process may have published meanwhile; then a newer checkpoint is asked for."""
    log = a_log(20)
    with neighbours(tmp_path, 1) as (one,):
        ask(Witnesses([one.client()], quorum=1), log, 15)
        witnesses = Witnesses([one.client()], quorum=1)
        collected = witnesses.collect(log.note(9), log.checkpoint(9), Shown(log))

        assert ((), True) == (collected.lines, collected.ahead)
        assert 1 == len(ask(witnesses, log, 20))


def test_how_many_must_answer_follows_from_the_quorum() -> None:
    """Any that many witnesses share one with any quorum."""
    for count in range(1, 8):
        for quorum in range(1, count + 1):
            clients = [
                Witness(
                    "http://127.0.0.1:1",
                    Neighbourless(f"w{number}").verifier,
                )
                for number in range(count)
            ]
            needed = Witnesses(clients, quorum).enough_to_know

            assert needed + quorum == count + 1


class Neighbourless:
    """A key, and nobody behind it."""

    def __init__(self, name: str) -> None:

        self.verifier = parse_cosignature_vkey(
            WitnessSigner(generate_pem("ed25519"), name).vkey
        )


def test_an_answer_that_drips_is_cut(tmp_path: Path) -> None:
    """A sum of short waits is bounded too, and a part is not taken for the whole."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        accepted, _ = listener.accept()
        with accepted, contextlib.suppress(OSError):
            accepted.recv(65536)
            accepted.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
            while not stop.wait(0.05):
                accepted.sendall(b"x")

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    line = Line(
        f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout_s=0.4, bytes_max=10_000
    )
    begun = time.monotonic()
    with pytest.raises(LedgerUnwellError, match="timed out"):
        line.post(b"x", PLAIN)

    assert time.monotonic() - begun < 60
    stop.set()
    thread.join()
    listener.close()


def test_who_hangs_on_a_kept_connection_is_asked_once(tmp_path: Path) -> None:
    """What we cut ourselves is no connection that was worn out: it is not tried again."""
    released = threading.Event()

    def hang(_: bytes) -> tuple[int, str, bytes]:
        released.wait(60)
        return 200, PLAIN, b""

    with CrookedServer(lambda _: (200, PLAIN, b"")) as server:
        line = Line(f"{server.url}/", timeout_s=60, bytes_max=100)
        assert 200 == line.post(b"x", PLAIN).status
        line._timeout_s = 0.2
        server.answer = hang
        with pytest.raises(LedgerUnwellError, match="timed out"):
            line.post(b"x", PLAIN)
        released.set()

        assert 1 == len(server.bodies[1:])


@settings(max_examples=60, deadline=None)
@given(
    status=st.sampled_from([200, 400, 403, 404, 409, 422, 500]),
    kind=st.sampled_from([PLAIN, SIZE, "x", ""]),
    text=st.one_of(
        st.binary(max_size=200),
        st.integers(-5, 50).map(lambda number: f"{number}\n".encode()),
        st.text("—+ \nAa0=", max_size=60).map(str.encode),
    ),
)
def test_no_answer_breaks_it(
    tmp_path_factory: pytest.TempPathFactory, status: int, kind: str, text: bytes
) -> None:
    """Whatever a witness says is no cosignature, a reason, or damage; nothing else."""
    log = a_log(9)
    with neighbours(tmp_path_factory.mktemp("w"), 1) as (one,):
        one.server.answer = lambda _: (status, kind, text)
        witness = one.client()
        try:
            asked = witness.ask(log.note(9), log.checkpoint(9), Shown(log))
        except LedgerDamagedError:
            asked = None

        if asked is None:
            assert status in {409, 422}
        else:
            assert asked.line is None
            assert asked.trouble


def test_callers_do_not_set_the_pace(tmp_path: Path) -> None:
    """While it runs, witnesses are asked once a second, whoever wants a checkpoint."""
    with neighbours(tmp_path, 1) as (one,), contextlib.ExitStack() as stack:
        store = SqliteLedger.create(tmp_path / "ledger.db", LOG.name)
        stack.callback(store.close)
        publisher = Publisher(
            store, LOG, LOG.name, FrozenClock(), witnesses=Witnesses([one.client()], 1)
        )
        publisher.check()
        publisher.start()
        stack.callback(publisher.stop)
        begun, asked = time.monotonic(), len(one.server.bodies)
        notes = set()
        for _ in range(200):
            store.append([b"leaf"])
            notes.add(publisher.checkpoint_now())
        took = time.monotonic() - begun

        assert len(notes) <= 2 * took + 2
        assert len(one.server.bodies) - asked <= 2 * took + 2


async def test_it_publishes_again_after_it_was_stopped(tmp_path: Path) -> None:
    """Who leads a ledger, loses it and leads it again, publishes again."""
    with neighbours(tmp_path, 1) as (one,), contextlib.ExitStack() as stack:
        store = SqliteLedger.create(tmp_path / "ledger.db", LOG.name)
        stack.callback(store.close)
        publisher = Publisher(
            store, LOG, LOG.name, FrozenClock(), witnesses=Witnesses([one.client()], 1)
        )
        publisher.check()
        for number in range(3):
            publisher.start()
            for _ in range(2):
                index = store.append([b"leaf %d" % number]).first
                note = await asyncio.wait_for(publisher.integrated(index), 60)
                assert int(note.split("\n")[1]) > index
            publisher.stop()

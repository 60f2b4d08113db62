"""Laws of timestamps, over an authority that openssl is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.errors import BadSignatureError, LedgerUnwellError, SettingError
from gateway.ledger.publishing.alarms import UNSTAMPED
from gateway.ledger.publishing.timestamp import (
    Stamper,
    _new_request,
    read_certificates,
    read_stamps,
    verify_stamp,
)
from tests.support.authority import REPLY, Authority
from tests.support.store import LedgerUnderTest, exchanges
from tests.support.witness import a_log

HOUR_MS = 3_600_000


class MovedClock(SystemClock):
    """The machine's clock, so and so far on."""

    ahead_ms = 0

    def now_ms(self) -> int:
        """Return the time there."""
        return super().now_ms() + self.ahead_ms


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    """Return an authority that listens."""
    one = Authority(tmp_path_factory.mktemp("tsa"))
    with one.server:
        yield one


@pytest.fixture(autouse=True)
def honest(authority: Authority) -> None:
    """Begin each test with an authority that does what it should."""
    authority.server.answer = authority.answer
    authority.server.bodies.clear()


class Stamping:
    """A folder of tokens, and a clock."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder = folder / "timestamps"
        self.clock = MovedClock()
        self._authority = authority
        self._stack = contextlib.ExitStack()

    def stamper(self, count: int = 1) -> Stamper:
        """Return a stamper, as after a start, that asks the authority *count* times."""
        made = Stamper(
            self.folder,
            [self._authority.server.url] * count,
            self._authority.root,
            every_hours=24,
            clock=self.clock,
        )
        made.look()
        for line in made._lines:
            self._stack.callback(line.close)
        return made

    def names(self) -> list[str]:
        """Return the files in the folder."""
        return sorted(path.name for path in self.folder.iterdir())

    def close(self) -> None:
        """Close all connections."""
        self._stack.close()


@pytest.fixture
def stamping(tmp_path: Path, authority: Authority) -> Iterator[Stamping]:
    """Return an empty folder."""
    one = Stamping(tmp_path, authority)
    yield one
    one.close()


def test_a_checkpoint_is_stamped_and_verifies(stamping: Stamping, authority: Authority) -> None:
    """Each authority's token stands beside the note, and openssl takes it too."""
    note = a_log(7).note(7)
    stamper = stamping.stamper(2)
    stamper.offer(note)
    begun = int(time.time())
    stamper.stamp_what_is_due()

    assert ["7-1.tsr", "7-2.tsr", "7.checkpoint"] == stamping.names()
    assert [] == stamper.alarms()
    for stamp in read_stamps(stamping.folder):
        says = verify_stamp(stamp.token, stamp.note, read_certificates(authority.root))

        assert note.encode() == stamp.note
        assert "CN=Test TSA" == says.by
        assert begun <= says.at.timestamp() <= time.time()
        assert authority.verify(stamping.folder / "7.checkpoint", stamp.path)


def test_once_in_so_many_hours(stamping: Stamping, authority: Authority) -> None:
    """A day must pass and the ledger grow before it is stamped again, across starts too."""
    log, asked = a_log(9), authority.server.bodies
    stamper = stamping.stamper()
    for size, ahead_h, expected in ((5, 0, 1), (6, 23, 1), (6, 25, 2), (6, 80, 2), (7, 80, 3)):
        stamping.clock.ahead_ms = ahead_h * HOUR_MS
        stamper.offer(log.note(size))
        stamper.stamp_what_is_due()

        assert expected == len(asked), (size, ahead_h)
    stamping.clock.ahead_ms = HOUR_MS
    again = stamping.stamper()
    again.offer(log.note(9))
    again.stamp_what_is_due()
    assert 3 == len(asked)


def test_a_clock_that_was_ahead_does_not_put_it_off(
    stamping: Stamping, authority: Authority
) -> None:
    """A token from the future, by a clock that was set back since, holds up nothing."""
    log, stamper = a_log(9), stamping.stamper()
    stamping.clock.ahead_ms = 10_000 * HOUR_MS
    stamper.offer(log.note(5))
    stamper.stamp_what_is_due()
    stamping.clock.ahead_ms = 0
    stamper.offer(log.note(6))
    stamper.stamp_what_is_due()

    assert 2 == len(authority.server.bodies)


def test_what_cannot_be_had_is_told_of_and_tried_again(
    stamping: Stamping, authority: Authority, tmp_path: Path
) -> None:
    """No answer, no token, another's token, an old one: an alarm each, and nothing is kept."""
    note, stamper = a_log(7).note(7), stamping.stamper()
    stamper.offer(note)
    stranger = Authority(tmp_path / "stranger")
    replay = authority.answer(_query(b"something else"))
    for wrong, says in (
        (lambda _: (500, "text/plain", b"no"), "answers 500"),
        (lambda _: (200, "text/html", b"no"), "text/html"),
        (lambda _: (200, REPLY, b"no"), "no token"),
        (lambda _: (200, REPLY, b""), "no token"),
        (lambda _: replay, "no token"),
        (stranger.answer, "no token"),
        (lambda _: (200, REPLY, b"x" * 100_000), "over"),
    ):
        authority.server.answer = wrong
        stamper.stamp_what_is_due()

        (alarm,) = stamper.alarms()
        assert UNSTAMPED == alarm.code
        assert says in alarm.told
        assert ["7.checkpoint"] == stamping.names()
    authority.server.answer = authority.answer
    stamper.stamp_what_is_due()
    assert ["7-1.tsr", "7.checkpoint"] == stamping.names()
    assert [] == stamper.alarms()


def _query(message: bytes) -> bytes:
    return _new_request(message)[0]


def test_no_other_note_fits_a_token(stamping: Stamping, authority: Authority) -> None:
    """Any change to the note, a cut token and a changed time are found."""
    stamper = stamping.stamper()
    stamper.offer(a_log(7).note(7))
    stamper.stamp_what_is_due()
    (stamp,) = read_stamps(stamping.folder)
    certificates = read_certificates(authority.root)
    # By the token's own clock: on the last day of a year another place may write another.
    year = b"%d" % verify_stamp(stamp.token, stamp.note, certificates).at.year
    assert year in stamp.token
    for note, token in (
        (stamp.note + b"x", stamp.token),
        (stamp.note.replace(b"7", b"8", 1), stamp.token),
        (stamp.note, stamp.token[:-1]),
        (stamp.note, stamp.token + b"x"),
        (stamp.note, b""),
        (stamp.note, stamp.token.replace(year, b"2001")),
    ):
        with pytest.raises(BadSignatureError):
            verify_stamp(token, note, certificates)
    with pytest.raises(BadSignatureError):
        verify_stamp(stamp.token, stamp.note, certificates, nonce=5)


def test_a_note_is_kept_once(stamping: Stamping) -> None:
    """Tokens of one size stamp one note, even where it was cosigned again meanwhile."""
    note = a_log(7).note(7)
    one = stamping.stamper()
    one.offer(note)
    one.stamp_what_is_due()
    other = stamping.stamper(2)
    other.offer(note + note.rsplit("\n\n", 1)[1].replace("log.example", "w.example"))
    other.stamp_what_is_due()

    assert note == (stamping.folder / "7.checkpoint").read_text()
    assert [1, 2] == [stamp.place for stamp in read_stamps(stamping.folder)]


def test_a_damaged_token_is_asked_for_again(stamping: Stamping, authority: Authority) -> None:
    """A file that is no evidence does not count as a timestamp; one without a note is named."""
    stamper = stamping.stamper()
    stamper.offer(a_log(7).note(7))
    stamper.stamp_what_is_due()
    (stamping.folder / "7-1.tsr").write_bytes(b"bad")
    again = stamping.stamper()
    again.offer(a_log(7).note(7))
    again.stamp_what_is_due()
    assert 2 == len(authority.server.bodies)
    (stamping.folder / "7.checkpoint").unlink()

    with pytest.raises(LedgerUnwellError, match=r"7\.checkpoint"):
        list(read_stamps(stamping.folder))


def test_certificates_must_hold_a_root(tmp_path: Path, authority: Authority) -> None:
    """A file that is not there, not PEM, or without a root is named."""
    for content in (None, b"", b"noise", (authority._folder / "signer.pem").read_bytes()):
        file = tmp_path / "certificates"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(SettingError, match="certificates"):
            read_certificates(file)


def test_a_publisher_has_its_checkpoints_stamped(
    tmp_path: Path, stamping: Stamping, authority: Authority
) -> None:
    """Publishing does not wait for the authority; the token comes, and then the alarm ends."""
    data = tmp_path / "data"
    data.mkdir()
    ledger = LedgerUnderTest(data)
    ledger.store.append(exchanges(2))
    stamper = stamping.stamper()
    publisher = ledger.publisher(stamper=stamper)
    publisher.check()
    publisher.start()
    until = time.monotonic() + 60
    while "4-1.tsr" not in (stamping.names() if stamping.folder.is_dir() else ()):
        assert time.monotonic() < until
        time.sleep(0.02)
    publisher.stop()
    ledger.store.close()

    assert (
        ledger.checkpoint_file.read_bytes() == (stamping.folder / "4.checkpoint").read_bytes()
    )
    assert [] == publisher.alarms()

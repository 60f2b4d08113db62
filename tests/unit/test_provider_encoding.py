"""The twin of `gateway.provider.encoding`."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from gateway import limits
from gateway.provider.encoding import UNREADABLE, Decoder, decoder_for
from gateway.provider.model import AnswerReader
from tests.support.recordings import RECORDINGS, Recording

Encode = Callable[[bytes], bytes]


def raw_deflate(plain: bytes) -> bytes:
    """Return *plain* deflated without zlib's frame."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(plain) + stream.flush()


ENCODINGS: list[tuple[str, Encode]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    (" Deflate", raw_deflate),
    ("br", brotli.compress),
    ("zstd", zstandard.compress),
    ("gzip, br", lambda plain: brotli.compress(gzip.compress(plain))),
    ("deflate,identity , zstd", lambda plain: zstandard.compress(zlib.compress(plain))),
]
MEMBERS = [ENCODINGS[0], ENCODINGS[5]]


def decoder(name: str) -> Decoder:
    """Return the decoder called *name*."""
    found = decoder_for(name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", [None, "", "identity", " Identity "])
def test_plain_bytes_need_no_decoder(name: str | None) -> None:
    """Where nothing is encoded there is nothing to undo."""
    assert decoder_for(name) is None


@pytest.mark.parametrize(("name", "encode"), ENCODINGS)
@pytest.mark.parametrize("step", [1, 1000, 1 << 20])
def test_encoded_bytes_come_out_plain(name: str, encode: Encode, step: int) -> None:
    """What was encoded is decoded as it arrives, however it is cut."""
    plain = os.urandom(3000) + b"so" * 3000
    encoded = encode(plain)
    reading = decoder(name)
    out = [reading.decode(encoded[at : at + step]) for at in range(0, len(encoded), step)]

    assert plain == b"".join(out)
    assert reading.decode(b"") == b""


@pytest.mark.parametrize(("name", "encode"), MEMBERS)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_members_follow_each_other(name: str, encode: Encode, step: int) -> None:
    """Two encoded pieces in a row are read as one."""
    encoded = encode(b"one") + encode(b"two")
    reading = decoder(name)
    out = [reading.decode(encoded[at : at + step]) for at in range(0, len(encoded), step)]

    assert b"".join(out) == b"onetwo"


@pytest.mark.parametrize(
    "name", ["gzip", "deflate", "zstd", "br", "gzip, br", "compress", "br, br, br, br"]
)
def test_damage_makes_an_answer_unreadable(name: str) -> None:
    """What can't be undone is told once and passed on as it came."""
    reading = decoder(name)

    assert reading.decode(b"\xff\xfe\xfd") == UNREADABLE + b"\xff\xfe\xfd"
    assert reading.decode(b"more") == b"more"


@pytest.mark.parametrize(("name", "encode"), ENCODINGS)
def test_a_bomb_is_not_held(name: str, encode: Encode) -> None:
    """Few bytes that stand for more than may be held make an answer unreadable."""
    bomb = encode(bytes(limits.BODY_BYTES_HELD_MAX + 1))
    reading = decoder(name)

    assert reading.decode(bomb).startswith(UNREADABLE)
    assert reading.decode(b"x") == b"x"


def test_a_bomb_of_many_members_is_not_held() -> None:
    """The bound is on all members of a body together."""
    member = gzip.compress(bytes(limits.BODY_BYTES_HELD_MAX // 2))

    assert decoder("gzip").decode(member * 3).startswith(UNREADABLE)


def test_bytes_behind_a_brotli_stream_are_damage() -> None:
    """A stream that has ended is not gone on with: no reader would know where."""
    reading = decoder("br")

    assert reading.decode(brotli.compress(b"whole")) == b"whole"
    assert reading.decode(b"more") == UNREADABLE + b"more"


@pytest.mark.parametrize("recording", [RECORDINGS[0], RECORDINGS[-2]], ids=lambda r: r.name)
@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
def test_no_reader_takes_the_unreadable_for_an_answer(recording: Recording, kind: str) -> None:
    """Whatever was heard before, an answer that could not be decoded is opaque."""
    reader: AnswerReader = recording.dialect.answer_reader(recording.call, 200, kind)
    for piece, _ in recording.pieces:
        reader.feed(piece)
    reader.feed(UNREADABLE + b"\x00")
    answer = reader.finish()

    assert not answer.readable
    assert not answer.whole
    assert answer.choices == ()

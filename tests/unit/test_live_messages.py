"""Laws of reading a WebSocket beside its bytes; the other reader is `websockets` itself."""

from __future__ import annotations

import itertools
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode

from gateway.limits import MESSAGE_BYTES_MAX
from gateway.live.messages import (
    BrokenFrameError,
    Inflation,
    LongMessageError,
    Messages,
    Piece,
    close_frame,
)

contents = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([125, 126, 65_535, 65_536]).map(
        lambda size: (bytes(range(256)) * 257)[:size]
    ),
)


def deflating(*, keeps_context: bool) -> PerMessageDeflate:
    """Return the sender's side of permessage-deflate."""
    return PerMessageDeflate(
        remote_no_context_takeover=not keeps_context,
        local_no_context_takeover=not keeps_context,
        remote_max_window_bits=15,
        local_max_window_bits=15,
    )


def written(
    messages: list[bytes], *, masked: bool, pieces: int = 1, extension: PerMessageDeflate | None
) -> bytes:
    """Return *messages* as frames, each in so many *pieces* with a ping before the last."""
    out = []
    for message in messages:
        size = len(message) // pieces + 1
        parts = [message[at : at + size] for at in range(0, len(message), size)] or [b""]
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            if last and number:
                out.append(Frame(Opcode.PING, b"?").serialize(mask=masked))
            opcode = Opcode.CONT if number else Opcode.BINARY
            frame = Frame(opcode, part, fin=last)
            out.append(
                frame.serialize(mask=masked, extensions=[extension] if extension else None)
            )
    return b"".join(out)


def cut_at(wire: bytes, marks: list[int]) -> list[bytes]:
    """Return *wire* in pieces that end at *marks*."""
    ends = sorted({min(mark, len(wire)) for mark in marks} | {0, len(wire)})
    return [wire[a:b] for a, b in itertools.pairwise(ends)]


def read(messages: Messages, chunks: list[bytes]) -> list[Piece]:
    """Return every piece of *chunks*."""
    return [piece for chunk in chunks for piece in messages.feed(chunk)]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(contents, max_size=4),
    st.booleans(),
    st.integers(1, 3),
    st.sampled_from([None, True, False]),
    st.lists(st.integers(0, 200_000), max_size=10),
)
def test_messages_are_read_and_bytes_stay(
    said: list[bytes],
    masked: bool,  # noqa: FBT001  hypothesis gives it by place
    pieces: int,
    keeps_context: bool | None,  # noqa: FBT001
    marks: list[int],
) -> None:
    """However frames are cut, masked, split or deflated: each message once, every byte once."""
    extension = None if keeps_context is None else deflating(keeps_context=keeps_context)
    inflation = None if keeps_context is None else Inflation(keeps_context=keeps_context)
    wire = written(said, masked=masked, pieces=pieces, extension=extension)
    messages = Messages(masked=masked, inflation=inflation)
    got = read(messages, cut_at(wire, marks))

    assert said == [piece.content for piece in got if piece.content is not None]
    assert wire == b"".join(piece.raw for piece in got) + messages.let_go()


def test_a_message_is_whole_before_its_bytes_go() -> None:
    """No byte of a message is in a piece before its last one has come."""
    messages = Messages(masked=True, inflation=None)
    wire = written([b"x" * 1000], masked=True, pieces=3, extension=None)

    assert [] == read(messages, [wire[at : at + 1] for at in range(len(wire) - 1)])
    (piece,) = messages.feed(wire[-1:])
    assert (wire, b"x" * 1000) == (piece.raw, piece.content)


def test_pings_between_messages_pass_at_once() -> None:
    """A frame that steers the connection waits for no message that has not begun."""
    messages = Messages(masked=False, inflation=None)
    ping = Frame(Opcode.PING, b"are you there").serialize(mask=False)
    (piece,) = messages.feed(ping)

    assert (ping, None, None) == (piece.raw, piece.content, piece.closing)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Frame(Opcode.CLOSE, b"").serialize(mask=False), 1005),
        (Frame(Opcode.CLOSE, Close(1011, "no").serialize()).serialize(mask=False), 1011),
        (close_frame(1008, "use.held: " + "€" * 200), 1008),
    ],
)
def test_closing_is_told(frame: bytes, code: int) -> None:
    """A close frame is known by its code, and one of ours is never too long."""
    (piece,) = Messages(masked=False, inflation=None).feed(frame)

    assert code == piece.closing
    assert len(frame) <= 127


def test_a_masked_close_frame_is_one() -> None:
    """What we say to a provider is masked as a caller's frames are."""
    frame = close_frame(1001, "bye", b"\x01\x02\x03\x04")
    (piece,) = Messages(masked=True, inflation=None).feed(frame)

    assert 1001 == piece.closing


def raw(first: int, second: int, more: bytes = b"") -> bytes:
    """Return a frame by its bytes."""
    return bytes((first, second)) + more


BROKEN = {
    "masked where it must not be": raw(0x82, 0x80, b"abcd"),
    "a reserved bit": raw(0xA2, 0),
    "deflated without leave": raw(0xC2, 0),
    "an unknown kind": raw(0x83, 0),
    "an unknown control frame": raw(0x8B, 0),
    "a control frame in pieces": raw(0x09, 0),
    "a long control frame": raw(0x89, 126, b"\x00\x7e" + bytes(126)),
    "a control frame with a reserved bit": raw(0xC9, 0),
    "a continuation of nothing": raw(0x80, 0),
    "a message inside another": raw(0x02, 0) + raw(0x82, 0),
    "a short length in two bytes": raw(0x82, 126, b"\x00\x05hello"),
    "a short length in eight bytes": raw(0x82, 127, bytes(7) + b"\x05hello"),
}


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_broken_frames_are_told(kind: str) -> None:
    """What another reader might cut elsewhere is not guessed at."""
    with pytest.raises(BrokenFrameError):
        list(Messages(masked=False, inflation=None).feed(BROKEN[kind]))


def test_an_unmasked_caller_is_broken() -> None:
    """A caller's frames are masked, always."""
    with pytest.raises(BrokenFrameError):
        list(Messages(masked=True, inflation=None).feed(raw(0x82, 5, b"hello")))


@pytest.mark.parametrize(
    "head",
    [
        raw(0x82, 127, (MESSAGE_BYTES_MAX + 1).to_bytes(8, "big")),
        raw(0x82, 127, b"\xff" * 8),
    ],
)
def test_a_long_message_is_told_by_its_head(head: bytes) -> None:
    """What would be too much is not waited for; its bytes can still be passed on."""
    messages = Messages(masked=False, inflation=None)
    (before,) = messages.feed(raw(0x82, 2, b"ok"))
    with pytest.raises(LongMessageError):
        list(messages.feed(head))

    assert (b"ok", head) == (before.content, messages.let_go())


def test_pieces_before_a_long_message_are_not_lost() -> None:
    """What was complete in the same bytes still comes out."""
    head = raw(0x82, 127, (MESSAGE_BYTES_MAX + 1).to_bytes(8, "big"))
    feeding = Messages(masked=False, inflation=None).feed(raw(0x82, 2, b"ok") + head)

    assert b"ok" == next(feeding).content
    with pytest.raises(LongMessageError):
        next(feeding)


def test_a_bomb_is_not_held() -> None:
    """Few bytes that inflate to more than a message may be are a long message."""
    deflate = zlib.compressobj(wbits=-15)
    bomb = deflate.compress(bytes(MESSAGE_BYTES_MAX + 1)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    frame = raw(0xC2, 126, len(bomb[:-4]).to_bytes(2, "big") + bomb[:-4])
    with pytest.raises(LongMessageError):
        list(Messages(masked=False, inflation=Inflation(keeps_context=True)).feed(frame))


def test_what_does_not_inflate_is_broken() -> None:
    """Damage inside a message is told, not passed over."""
    frame = raw(0xC2, 3, b"\xff\xff\xff")
    with pytest.raises(BrokenFrameError):
        list(Messages(masked=False, inflation=Inflation(keeps_context=True)).feed(frame))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_give_pieces_or_an_error(wire: bytes, masked: bool) -> None:  # noqa: FBT001
    """Whatever comes, every byte is in a piece, waits, or is told to be broken."""
    messages = Messages(masked=masked, inflation=Inflation(keeps_context=True))
    out = b""
    try:
        for piece in messages.feed(wire):
            out += piece.raw
    except (BrokenFrameError, LongMessageError):
        pass

    assert wire == out + messages.let_go()

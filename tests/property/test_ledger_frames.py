"""Laws of the frames between workers and hub."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    ExchangeClosedError,
    GatewayError,
    LedgerDamagedError,
    LedgerUncertainError,
    LedgerUnwellError,
    OperatorError,
    SettingError,
)
from gateway.ledger.sequencing.frames import (
    Frames,
    error_of,
    frame,
    index_bytes,
    placed_leaf,
    refused_of,
)
from gateway.limits import FRAME_BYTES_MAX

FRAMES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 2**64 - 1), st.binary(max_size=300))
)


@given(FRAMES, st.lists(st.integers(1, 64), min_size=1))
def test_frames_survive_being_cut_anywhere(
    said: list[tuple[int, int, bytes]], pieces: list[int]
) -> None:
    """However the bytes arrive, the frames that come out are those that went in."""
    wire = b"".join(frame(*one) for one in said)
    frames, at = Frames(), 0
    heard: list[tuple[int, int, bytes]] = []
    while at < len(wire):
        size = pieces[at % len(pieces)]
        heard += frames.feed(wire[at : at + size])
        at += size

    assert said == heard


@given(st.binary(min_size=13, max_size=200))
def test_strangers_are_waited_for_or_refused(said: bytes) -> None:
    """Bytes that are no frames are an error, an unfinished frame, or frames of their own."""
    frames = Frames()
    try:
        heard = list(frames.feed(said))
    except ValueError:
        return

    assert sum(13 + len(content) for _, _, content in heard) <= len(said)


def test_a_frame_has_an_end() -> None:
    """A length beyond the limit is refused before anything is kept."""
    frames = Frames()
    try:
        list(frames.feed((FRAME_BYTES_MAX + 1).to_bytes(4, "big") + bytes(9)))
    except ValueError as refused:
        assert str(FRAME_BYTES_MAX + 1) in str(refused)  # noqa: PT017  the only way to raise
    else:
        raise AssertionError


@given(st.integers(0, 2**64 - 1), st.binary(max_size=100))
def test_a_leaf_goes_with_its_place(index: int, leaf: bytes) -> None:
    """Index and leaf come back as they were sent."""
    assert (index, leaf) == placed_leaf(index_bytes(index) + leaf)


def test_errors_cross_as_what_they_are() -> None:
    """Each error that an append may end in comes back as its kind; others as the operator's."""
    for kind in (
        LedgerUnwellError,
        LedgerUncertainError,
        LedgerDamagedError,
        ExchangeClosedError,
        OperatorError,
    ):
        error = kind("what", hint="next", code="some.code")
        back = error_of(refused_of(error))
        assert kind is type(back)
        assert ("what", "next", "some.code") == (back.message, back.hint, back.problem)
    assert OperatorError is type(error_of(refused_of(SettingError("odd"))))
    assert OperatorError is type(error_of(refused_of(GatewayError("odd"))))

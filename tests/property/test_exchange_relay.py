"""The relay passes the provider's bytes on, and nothing of what waits, however they come."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import itertools
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import CallerGoneError, ProviderBrokeOffError, ProviderError
from gateway.exchange.forward import ProviderResponse, RawHeaders
from gateway.exchange.relay import Relay
from gateway.exchange.states import Answered, Permitted
from gateway.limits import BODY_BYTES_HELD_MAX, MIB
from gateway.provider.catalogue import dialect_named
from gateway.provider.encoding import decoder_for
from gateway.provider.model import Operation, ProviderCall
from tests.support.house import Guest, completion, events

PERMITTED = cast(Permitted, None)  # The relay only carries it: the type is the ticket.
CODECS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": lambda body: gzip.compress(body, mtime=0),
    "deflate": zlib.compress,
    "zstd": lambda body: zstandard.ZstdCompressor().compress(body),
    "br": brotli.compress,
    "gzip, br": lambda body: brotli.compress(gzip.compress(body, mtime=0)),
    "secret": lambda body: body[::-1],
}


class Arriving:
    """An answer whose chunks are known, and how it breaks off, if it does."""

    def __init__(
        self, chunks: Sequence[bytes], headers: RawHeaders, broken: ProviderError | None = None
    ) -> None:
        self._chunks = list(chunks)
        self._broken = broken
        self.status = 200
        self.reason = b"OK"
        self.headers = headers
        self.trailers: RawHeaders = ()
        self.abandoned = False

    def header(self, name: bytes) -> str | None:
        """Return the header of that lower-case name."""
        found = [value for key, value in self.headers if key.lower() == name]
        return found[0].decode() if found else None

    @property
    def sized(self) -> bool:
        """Whether the head declares how long the body is."""
        return self.header(b"content-length") is not None

    async def read(self) -> bytes:
        """Return the next chunk."""
        if self._chunks:
            return self._chunks.pop(0)
        if self._broken is not None:
            raise self._broken
        return b""

    def abandon(self) -> None:
        """Note it."""
        self.abandoned = True


def cut(body: bytes, marks: Iterable[int]) -> list[bytes]:
    """Return *body* cut at *marks*, which may lie anywhere."""
    places = sorted({0, len(body), *(mark % (len(body) + 1) for mark in marks)})
    return [body[a:b] for a, b in itertools.pairwise(places) if a < b]


def relay(
    chunks: Sequence[bytes],
    guest: Guest,
    *,
    kind: str,
    encoding: str = "identity",
    operation: Operation = Operation.CHAT,
    drain: bool = False,
    hold: bool = False,
    broken: ProviderError | None = None,
) -> tuple[Answered, Arriving]:
    """Send an answer of *chunks* through a relay."""
    headers = [(b"content-type", kind.encode()), (b"content-encoding", encoding.encode())]
    response = Arriving(chunks, headers, broken)
    call = ProviderCall(
        provider="open", operation=operation, streaming="event" in kind, body={"n": 1}
    )
    running = Relay(
        PERMITTED,
        dialect_named("openai").answer_reader(call, 200, kind),
        decoder_for(encoding),
        drain=drain,
        hold=hold,
    )
    answered = asyncio.run(running.run(cast(ProviderResponse, response), guest, headers))
    return answered, response


marks = st.lists(st.integers(0, 4000), max_size=30)
words = st.lists(st.text(max_size=12), max_size=6)
encodings = st.sampled_from(sorted(CODECS))
kinds = st.sampled_from(["application/json", "text/event-stream", "application/octet-stream"])


def body_of(kind: str, said: Sequence[str]) -> bytes:
    """Return an answer of *kind* that says *said*."""
    if kind == "text/event-stream":
        return b"".join(events(*said))
    return completion(*said)


@settings(max_examples=60)
@given(words, marks, encodings, kinds)
def test_the_callers_bytes_are_the_providers(
    said: list[str], places: list[int], encoding: str, kind: str
) -> None:
    """Any chunking of any encoding of any answer comes through byte for byte, and digested."""
    body = CODECS[encoding](body_of(kind, said))
    guest = Guest()
    answered, _ = relay(cut(body, places), guest, kind=kind, encoding=encoding)

    assert body == guest.got + answered.held
    assert hashlib.sha256(body).hexdigest() == answered.response_sha256
    assert ("complete", len(body)) == (answered.ended, answered.response_bytes)
    assert answered.held


@settings(max_examples=60)
@given(words.filter(any), marks)
def test_of_a_stream_the_newest_content_waits(said: list[str], places: list[int]) -> None:
    """No chunking lets the last event with content, or anything after it, out unsealed."""
    told = events(*said)
    last = max(n for n, word in enumerate(said, 1) if word)
    guest = Guest()
    answered, _ = relay(cut(b"".join(told), places), guest, kind="text/event-stream")

    assert b"".join(told[:last]).startswith(guest.got)
    assert answered.answer.choices[0].text == "".join(said)


@settings(max_examples=60)
@given(words, marks, encodings)
def test_of_a_body_that_is_read_all_waits(
    said: list[str], places: list[int], encoding: str
) -> None:
    """No chunking of a body in one piece, however encoded, lets a byte of it out unsealed."""
    body = CODECS[encoding](completion(*said))
    guest = Guest()
    answered, _ = relay(cut(body, places), guest, kind="application/json", encoding=encoding)

    assert (None, b"", body) == (guest.status, guest.got, answered.held) or encoding == "secret"
    assert answered.answer.readable or encoding == "secret"


@settings(max_examples=60)
@given(st.binary(min_size=1, max_size=500), marks, encodings, kinds, st.booleans())
def test_no_bytes_break_the_relay(
    body: bytes,
    places: list[int],
    encoding: str,
    kind: str,
    opaque: bool,  # noqa: FBT001 - drawn
) -> None:
    """Whatever a provider sends under whatever name, it comes through, and its end waits."""
    guest = Guest()
    chunks = cut(body, places)
    operation = Operation.OPAQUE if opaque else Operation.CHAT
    answered, _ = relay(chunks, guest, kind=kind, encoding=encoding, operation=operation)

    assert body == guest.got + answered.held
    assert hashlib.sha256(body).hexdigest() == answered.response_sha256
    assert answered.held


@settings(max_examples=60)
@given(words, marks, encodings, kinds, st.integers(0, 3000))
def test_a_break_loses_nothing_that_came(
    said: list[str], places: list[int], encoding: str, kind: str, end: int
) -> None:
    """Where a provider breaks off, what came is passed on or held, and called cut short."""
    body = CODECS[encoding](body_of(kind, said))[:end]
    guest = Guest()
    broken = ProviderBrokeOffError("gone")
    answered, _ = relay(cut(body, places), guest, kind=kind, encoding=encoding, broken=broken)

    assert body == guest.got + answered.held
    assert ("cut-short-by-provider", "provider.broke_off") == (answered.ended, answered.error)
    assert hashlib.sha256(body).hexdigest() == answered.response_sha256


@settings(max_examples=60)
@given(words, marks, encodings, kinds, st.integers(0, 8), st.booleans())
def test_a_departure_is_recorded_with_what_was_sent(
    said: list[str],
    places: list[int],
    encoding: str,
    kind: str,
    writes: int,
    drain: bool,  # noqa: FBT001 - drawn
) -> None:
    """A caller that goes after any write has exactly what it was sent on the receipt."""
    body = CODECS[encoding](body_of(kind, said))
    guest = Guest(lambda self: self.hang_up() if len(self.chunks) >= writes else None)
    answered, response = relay(
        cut(body, places), guest, kind=kind, encoding=encoding, drain=drain
    )

    assert body.startswith(guest.got)
    if answered.ended == "cut-short-by-caller":
        assert hashlib.sha256(guest.got).hexdigest() == answered.response_sha256
        assert len(guest.got) == answered.response_bytes
        assert response.abandoned is not drain
    else:
        assert not guest.gone or not answered.held


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_what_never_decodes_is_not_held_without_end(encoding: str) -> None:
    """Bytes that decode to nothing wait, but only so many."""
    nothing = b"\x50\x2a\x4d\x18" + (64 * MIB).to_bytes(4, "little")  # a frame to be skipped
    if encoding == "gzip":
        nothing = b"\x1f\x8b\x08\x08" + bytes(6) + b"n"  # a file name that does not end
    filler = [b"n" * MIB] * (BODY_BYTES_HELD_MAX // MIB + 4)
    guest = Guest()
    answered, _ = relay([nothing, *filler], guest, kind="application/json", encoding=encoding)

    assert len(answered.held) <= BODY_BYTES_HELD_MAX
    assert guest.got


def test_a_bug_hangs_up_on_the_provider() -> None:
    """If the caller's side breaks on a bug, nothing more is read for it."""

    class Broken(Guest):
        async def pass_on(self, chunk: bytes) -> None:
            raise ZeroDivisionError

    response = Arriving([b"a", b"b"], [])
    call = ProviderCall(provider="open", operation=Operation.OPAQUE)
    reader = dialect_named("openai").answer_reader(call, 200, "")
    running = Relay(PERMITTED, reader, None, drain=False)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(running.run(cast(ProviderResponse, response), Broken(), []))

    assert response.abandoned


def test_a_provider_that_is_cut_off_is_abandoned() -> None:
    """The caller's end is the provider's: the connection is closed, not kept for another."""
    guest = Guest()
    guest.hang_up()
    answered, response = relay([b"{", b"}"], guest, kind="application/json")

    assert response.abandoned
    assert "cut-short-by-caller" == answered.ended
    assert CallerGoneError.code == "caller.gone"


@given(words, marks, encodings, kinds)
def test_an_answer_that_may_change_is_held_to_its_end(
    texts: list[str], places: list[int], encoding: str, kind: str
) -> None:
    """Neither its head nor a byte goes out, in whatever form and pieces it comes."""
    body = b"".join(events(*texts)) if "event" in kind else completion(*texts)
    sent = CODECS[encoding](body)
    guest = Guest()
    answered, _ = relay(cut(sent, places), guest, kind=kind, encoding=encoding, hold=True)

    assert (b"", False) == (bytes(guest.got), answered.head_sent)
    assert sent == answered.held
    assert hashlib.sha256(sent).hexdigest() == answered.response_sha256


def test_an_answer_that_is_held_has_a_bound() -> None:
    """One that is larger is given up, and nothing of it has gone out."""
    chunks = [b"n" * MIB] * (BODY_BYTES_HELD_MAX // MIB + 4)
    guest = Guest()
    answered, response = relay(chunks, guest, kind="application/json", hold=True)

    assert ("cut-short-by-provider", "provider.unreadable") == (answered.ended, answered.error)
    assert len(answered.held) <= BODY_BYTES_HELD_MAX + MIB
    assert not guest.got
    assert response.abandoned

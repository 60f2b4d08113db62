"""The door's connection: any bytes get an answer or a close; a request has one meaning."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import httptools
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.proxy.framing import RawHeader
from tests.support.door import EchoHost, Seen, connected, talk

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(
    lambda name: b"x-" + name.encode()
)
VALUE = st.binary(max_size=20).map(
    lambda raw: bytes(b for b in raw if b >= 32 and b != 127).strip(b" ")
)
FIELDS = st.lists(st.tuples(TOKEN, VALUE), max_size=4)
TARGET = st.text("abc/%?&=+.~:;[]0", max_size=20).map(lambda path: b"/" + path.encode())
METHOD = st.sampled_from([b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"])


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, Seen]:
    """Return a request on the wire, and what it says."""
    method, target, fields = draw(METHOD), draw(TARGET), draw(FIELDS)
    parts, trailers = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=3)), []
    body = b"".join(parts)
    headers: list[RawHeader] = [(b"host", b"x"), *fields]
    if draw(st.booleans()):
        headers.append((b"transfer-encoding", b"chunked"))
        trailers = draw(FIELDS)
        extension = draw(st.sampled_from([b"", b";a=b", b';a="b c"', b";a"]))
        wire = b"".join(b"%x%b\r\n%b\r\n" % (len(one), extension, one) for one in parts)
        wire += b"0\r\n" + b"".join(b"%b: %b\r\n" % one for one in trailers) + b"\r\n"
    elif body or draw(st.booleans()):
        headers.append((b"content-length", b"%d" % len(body)))
        wire = body
    else:
        wire = b""
    head = b"%b %b HTTP/1.1\r\n" % (method, target)
    head += b"".join(b"%b:%b\r\n" % one for one in headers)
    said = Seen(
        method=method.decode(),
        target=target.decode(),
        headers=tuple(headers),
        body=body,
        trailers=tuple(trailers),
    )
    return head + b"\r\n" + wire, said


@st.composite
def cut(draw: st.DrawFn, wire: bytes) -> list[bytes]:
    """Return *wire* in pieces."""
    at = draw(st.lists(st.integers(0, len(wire)), max_size=6).map(sorted))
    return [wire[a:b] for a, b in zip([0, *at], [*at, len(wire)], strict=True) if a < b]


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """Return requests with a few bytes changed, lost, doubled or put in between."""
    wire = bytearray(b"".join(w for w, _ in draw(st.lists(requests(), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(wire)))
        said = draw(
            st.one_of(
                st.binary(max_size=3),
                st.sampled_from(
                    [
                        *(b"\r", b"\n", b"\r\n", b" ", b"\t", b"\x00", b":", b"0", b"\r\n\r\n"),
                        *(b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n"),
                        *(b"Content-Length: 0\r\n", b"transfer-encoding: gzip\r\n"),
                        *(b"connection: close\r\n", b"expect: 100-continue\r\n", b"\r\n x"),
                    ]
                ),
            )
        )
        wire[at : at + draw(st.integers(0, 3))] = said
    return bytes(wire)


class _Oracle:
    """Requests as llhttp reads them, in its strict mode."""

    def __init__(self, wire: bytes) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        self._url = self._body = b""
        self._parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._parser.feed_data(wire)

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, part: bytes) -> None:
        self._url += part

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        self.seen.append((method, self._url.decode("latin-1"), self._body))


def told(pieces: Sequence[bytes]) -> tuple[EchoHost, bytes]:
    """Return what a host saw of *pieces*, and all that came back; a hang is an error."""

    async def run() -> tuple[EchoHost, bytes]:
        host = EchoHost()
        async with asyncio.timeout(30):
            return host, await talk(host, *pieces)

    return asyncio.run(run())


@given(st.lists(requests(), min_size=1, max_size=4), st.data())
@settings(max_examples=60)
def test_requests_are_read_as_they_were_written(
    sent: list[tuple[bytes, Seen]], data: st.DataObject
) -> None:
    """However their bytes arrive, pipelined requests are seen one by one, and all of each."""
    wire = b"".join(one for one, _ in sent)
    # The last one asks for the end, so that nothing is under way when the caller ends.
    last = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    pieces = data.draw(cut(wire + last))

    async def run() -> tuple[EchoHost, bytes]:
        host = EchoHost()
        async with asyncio.timeout(30), connected(host) as caller:
            for piece in pieces:
                await caller.send(piece)
                await asyncio.sleep(0)
            return host, await caller.receive()

    host, back = asyncio.run(run())

    assert [seen for _, seen in sent] == host.seen[:-1]
    assert "/last" == host.seen[-1].target
    assert len(sent) + 1 == back.count(b"HTTP/1.1 200 OK\r\n")
    assert [] == host.refused


@given(st.binary(max_size=200), st.data())
@settings(max_examples=60)
def test_any_bytes_get_an_answer_or_a_close(wire: bytes, data: st.DataObject) -> None:
    """Nonsense of any kind ends the connection; nothing crashes and nothing hangs."""
    host, back = told(data.draw(cut(wire)))

    assert back == b"" or back.startswith(b"HTTP/1.1 ")
    assert not host.seen or not host.refused or len(host.refused) == 1


@given(mangled(), st.data())
@settings(max_examples=150)
def test_no_request_hides_in_another(wire: bytes, data: st.DataObject) -> None:
    """What the door takes for a request, llhttp takes for the same one, at the same place."""
    host, _ = told(data.draw(cut(wire)))
    seen = [(one.method, one.target, one.body) for one in host.seen]

    assert seen == _Oracle(wire).seen[: len(seen)]

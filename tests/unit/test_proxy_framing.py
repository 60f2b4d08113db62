"""The framing of requests: one meaning, or an error that says which."""

from __future__ import annotations

import pytest

from gateway.errors import (
    BodyTooLargeError,
    HeadersTooLargeError,
    MalformedRequestError,
    MethodRefusedError,
    TargetTooLongError,
    UnknownExpectationError,
)
from gateway.limits import (
    BODY_BYTES_MAX,
    CHUNK_LINE_BYTES_MAX,
    CHUNK_OVERHEAD_BYTES_MAX,
    HEADER_BYTES_MAX,
    HEADERS_MAX,
    TARGET_BYTES_MAX,
)
from gateway.proxy.framing import Chunks, Head, Line, Lines, read_head, refuse_early

HOST = b"host: x"


def head(*lines: bytes, first: bytes = b"POST /a HTTP/1.1") -> Head:
    """Return a request's head, read."""
    return read_head(b"".join(line + b"\r\n" for line in (first, HOST, *lines)), {})


def unchunked(*pieces: bytes) -> tuple[bytes, Chunks]:
    """Return the content of a chunked body, and who took it apart."""
    chunks, parts = Chunks([]), list[bytes]()
    for piece in pieces:
        chunks.feed(piece, parts.append)
    return b"".join(parts), chunks


def test_a_head_is_read_as_it_came() -> None:
    """Method, target, names, values, their order and their repetition stay."""
    read = head(b"X-Twice: 1", b"x-TWICE:\t2 \t", b"x-empty:", b"x-high: \xe9")

    assert ("POST", "/a") == (read.method, read.target)
    assert [
        (b"host", b"x"),
        (b"X-Twice", b"1"),
        (b"x-TWICE", b"2"),
        (b"x-empty", b""),
        (b"x-high", b"\xe9"),
    ] == [line.raw for line in read.lines]
    assert (None, False, True, False) == (read.length, read.chunked, read.stays, read.expects)


def test_headers_are_found_in_any_case() -> None:
    """A header is found by its name; the first of several counts, and all can be had."""
    headers = head(b"X-Twice: 1", b"x-twice: 2").headers

    assert "1" == headers["X-TWICE"] == headers.get("x-Twice")
    assert ["1", "2"] == headers.getall("X-Twice", [])
    assert None is headers.getall("x-none", None)
    assert ("z", None) == (headers.get("x-none", "z"), headers.get("x-none"))
    assert [("host", "x"), ("x-twice", "1"), ("x-twice", "2")] == list(headers.items())
    assert 3 == len(headers.items())
    assert ["host", "x-twice"] == list(headers)
    assert 2 == len(headers)
    assert "x-twice" in headers


@pytest.mark.parametrize(
    "target", [b"/", b"/a%2Fb?x=%20&y=[]", b"//", b"/..", b"/a:b;c=d?e?f", b'/"<>\\^`{|}']
)
def test_a_target_is_not_looked_into(target: bytes) -> None:
    """Whatever visible signs a path has are the caller's own."""
    assert target.decode() == head(first=b"DELETE %b HTTP/1.1" % target).target


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"GET",
        b"GET /",
        b"GET / HTTP/1.1 ",
        b"GET  / HTTP/1.1",
        b" GET / HTTP/1.1",
        b"GET /\tHTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1.1\x00",
        b"GET / HTTP/11",
        b"GET / HTTP/2.0",
        b"PRI * HTTP/2.0",
        b"GET / HTTP/1.2",
        b"GET / HTTP/0.9",
        b"get / HTTP/1.1",
        b"G\xc9T / HTTP/1.1",
        b"GE:T / HTTP/1.1",
        b"GET /\xe9 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /#a HTTP/1.1",
        b"GET a HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET http://api.example/v1 HTTP/1.1",
        b"GET api.example:443 HTTP/1.1",
        b"\x16\x03\x01\x02",
    ],
)
def test_a_first_line_that_is_none(first: bytes) -> None:
    """What is no `METHOD /path HTTP/1.1` is refused, whoever might make sense of it."""
    with pytest.raises(MalformedRequestError):
        head(first=first)


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE", b"PROPFIND", b"Post"])
def test_methods_that_are_never_passed_on(method: bytes) -> None:
    """Tunnels, echoes and what nobody knows are refused by name, whatever the target."""
    for target in (b"/a", b"x:443"):
        with pytest.raises(MethodRefusedError):
            head(first=b"%b %b HTTP/1.1" % (method, target))


@pytest.mark.parametrize(
    "line",
    [
        b"x",
        b": x",
        b"x y: z",
        b"x : y",
        b"x\t: y",
        b" x: y",
        b"\tfolded",
        b"x: a\rb",
        b"x: a\nb",
        b"x: a\x00b",
        b"x: a\x7fb",
        b"x: \x0b",
        b"\xe9: y",
        b"x\x00: y",
        b"content-length: 1\x0b",
        b"a" * 257 + b": b",
    ],
)
def test_a_header_line_that_is_none(line: bytes) -> None:
    """Folding, blanks before the colon, bare CR or LF, and control bytes are refused."""
    with pytest.raises(MalformedRequestError):
        head(b"before: 1", line, b"after: 1")


@pytest.mark.parametrize(
    "lines",
    [
        [b"content-length: 1", b"content-length: 1"],
        [b"content-length: 1", b"Content-Length: 2"],
        [b"content-length: 1, 1"],
        [b"content-length: +1"],
        [b"content-length: -1"],
        [b"content-length: 1.0"],
        [b"content-length: 0x1"],
        [b"content-length: 1 1"],
        [b"content-length: \xb9"],
        [b"content-length:"],
        [b"content-length: " + b"9" * 16],
        [b"content-length: 1", b"transfer-encoding: chunked"],
        [b"transfer-encoding: chunked", b"content-length: 0"],
        [b"transfer-encoding: chunked", b"transfer-encoding: chunked"],
        [b"transfer-encoding: chunked, chunked"],
        [b"transfer-encoding: gzip, chunked"],
        [b"transfer-encoding: identity"],
        [b"transfer-encoding: xchunked"],
        [b'transfer-encoding: "chunked"'],
        [b"transfer-encoding: chunked;q=1"],
        [b"transfer-encoding:"],
        [b"host: y"],
        [b"expect: 100-continue", b"expect: 100-continue"],
    ],
)
def test_a_body_with_two_ends(lines: list[bytes]) -> None:
    """Where a body's end is not said once, plainly, no body is read."""
    with pytest.raises(MalformedRequestError):
        head(*lines)


def test_a_host_is_asked_for_since_http_1_1() -> None:
    """HTTP/1.1 without a host is refused; HTTP/1.0 knew none."""
    with pytest.raises(MalformedRequestError, match="host"):
        read_head(b"GET / HTTP/1.1\r\n", {})

    assert read_head(b"GET / HTTP/1.0\r\n", {}).is_old


def test_an_old_callers_request() -> None:
    """HTTP/1.0 has no chunks and no interim answers, and stays only where it says so."""
    first = b"POST / HTTP/1.0"
    with pytest.raises(MalformedRequestError):
        head(b"transfer-encoding: chunked", first=first)

    assert not head(b"expect: 100-continue", first=first).expects
    assert not head(first=first).stays
    assert head(b"connection: Keep-Alive", first=first).stays


@pytest.mark.parametrize(
    ("lines", "stays"),
    [
        ([b"connection: close"], False),
        ([b"connection: keep-alive"], True),
        ([b"connection: x, Close"], False),
        ([b"connection: x", b"connection: close"], False),
        ([b"connection: upgrade"], True),
    ],
)
def test_whether_a_caller_stays(lines: list[bytes], stays: bool) -> None:  # noqa: FBT001
    """`Connection: close` counts on whichever line it stands."""
    assert stays is head(*lines).stays


def test_what_may_be_expected() -> None:
    """`100-continue` may be expected, in any case of its letters; nothing else may."""
    assert head(b"Expect: 100-Continue").expects
    for other in (b"200-ok", b"", b"100-continue, x"):
        with pytest.raises(UnknownExpectationError):
            head(b"expect: " + other)


def test_limits_of_a_head() -> None:
    """A first line, a header and all headers together have limits, with codes of their own."""
    long = b"GET /" + b"a" * (TARGET_BYTES_MAX - 1) + b" HTTP/1.1"
    assert TARGET_BYTES_MAX == len(head(first=long).target)
    with pytest.raises(TargetTooLongError):
        head(first=long.replace(b"/", b"/a"))
    with pytest.raises(TargetTooLongError):
        head(first=b"GET /\x01" + b"a" * TARGET_BYTES_MAX)
    head(b"x: " + b"v" * (HEADER_BYTES_MAX - 100))
    with pytest.raises(HeadersTooLargeError):
        head(b"x: " + b"v" * HEADER_BYTES_MAX)
    head(*[b"x: 1"] * (HEADERS_MAX - 1))
    with pytest.raises(HeadersTooLargeError):
        head(*[b"x: 1"] * HEADERS_MAX)


def test_lines_that_came_before_are_remembered_within_bounds() -> None:
    """A line is taken apart once for a connection; long ones and many are not kept."""
    kept: Lines = {}
    for at in range(100):
        block = b"GET / HTTP/1.1\r\nhost: x\r\nx: %d\r\nlong: %b\r\n" % (at, b"v" * 2000)
        assert b"%d" % at == read_head(block, kept).lines[1].value.encode()

    assert 64 == len(kept)
    assert all(len(line) <= 1024 for line in kept)


@pytest.mark.parametrize(
    ("begun", "error"),
    [
        (b"\x16\x03\x01", MalformedRequestError),
        (b"\r\n", MalformedRequestError),
        (b"GET / HTTP/1.1\n", MalformedRequestError),
        (b"GET / HTTP/1.1\r\nhost: x\n", MalformedRequestError),
        (b"GET /\r\n", MalformedRequestError),
        (b"GET http://x/ HTTP/1.1\r\n", MalformedRequestError),
        (b"GET /" + b"a" * TARGET_BYTES_MAX, TargetTooLongError),
        (b"GET / HTTP/1.1\r\nx: " + b"v" * HEADER_BYTES_MAX, HeadersTooLargeError),
    ],
    ids=["tls", "blank", "bare-lf", "bare-lf-later", "0.9", "absolute", "long", "wide"],
)
def test_what_can_become_no_head_is_not_waited_for(
    begun: bytes, error: type[MalformedRequestError]
) -> None:
    """A head that is wrong from its beginning is refused before its end."""
    with pytest.raises(error):
        refuse_early(begun, 0)


def test_a_head_that_comes_bit_by_bit_is_waited_for() -> None:
    """Wherever a good head is cut, its beginning is not refused."""
    whole = b"GET /a HTTP/1.1\r\nhost: x\r\nx-a: 1\r\n"
    for end in range(1, len(whole)):
        for scanned in (0, end - 1):
            refuse_early(whole[:end], scanned)


def test_chunks_are_taken_apart_however_they_come() -> None:
    """Content, trailers and what stands behind are the same at every cut."""
    wire = b'3;a="b, c";d\r\nabc\r\n0004;x=y\r\ndefg\r\n00\r\nX-Sum: 1\r\nx-sum:2 \r\n\r\nGET /'
    for at in range(len(wire) - 5):
        content, chunks = unchunked(wire[:at], wire[at:])

        assert b"abcdefg" == content
        assert [(b"X-Sum", b"1"), (b"x-sum", b"2")] == [one.raw for one in chunks.trailers]
        assert (True, b"GET /") == (chunks.whole, chunks.rest)

    content, chunks = unchunked(*(bytes([one]) for one in wire[:-5]))
    assert (b"abcdefg", True, b"") == (content, chunks.whole, chunks.rest)


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1 \r\n",
        b"1\n",
        b"1;a\nb\r\n",
        b"1;\r\n",
        b"1 ;a\r\n",
        b"1;a b\r\n",
        b'1;a="b\r\n',
        b"1;\x00\r\n",
        b"1;a\rb\r\n",
        b"1\r\nab",
        b"1\r\na\nx",
        b"1\r\na\r\r",
        b"0\r\n x: 1\r\n",
        b"0\r\nx : 1\r\n",
        b"0\r\nx: 1\n",
        b"0\r\nContent-Length: 1\r\n",
        b"0\r\ntransfer-encoding: chunked\r\n",
        b"0\r\nhost: y\r\n",
        b"0\r\n\n",
        b"f" * 16 + b"\r\n",
        b"1" * (CHUNK_LINE_BYTES_MAX + 1),
        b"1;" + b"a" * CHUNK_LINE_BYTES_MAX + b"\r\n",
    ],
)
def test_what_is_no_chunk(wire: bytes) -> None:
    """A chunk's size, its end and its trailers are exactly so, or the body is refused."""
    with pytest.raises(MalformedRequestError):
        unchunked(wire)
    with pytest.raises(MalformedRequestError):
        unchunked(*(bytes([one]) for one in wire))


def test_limits_of_a_chunked_body() -> None:
    """A chunk beyond any body, a body of extensions, and endless trailers are refused."""
    with pytest.raises(BodyTooLargeError):
        unchunked(b"%x\r\n" % (BODY_BYTES_MAX + 1))
    with pytest.raises(MalformedRequestError):
        unchunked(b"1;%b\r\na\r\n" % (b"e" * 100) * (CHUNK_OVERHEAD_BYTES_MAX // 50))
    with pytest.raises(HeadersTooLargeError):
        unchunked(b"0\r\n", b"x: 1\r\n" * (HEADERS_MAX + 1))
    with pytest.raises(HeadersTooLargeError):
        unchunked(b"0\r\nx: " + b"v" * HEADER_BYTES_MAX)

    assert b"a" * 9999 == unchunked(b"1\r\na\r\n" * 9999)[0]


def test_trailers_are_given_where_they_are_wanted() -> None:
    """Fields behind the last chunk go where the request keeps them."""
    wanted: list[Line] = []
    Chunks(wanted).feed(b"0\r\na: b\r\n\r\n", lambda _: None)

    assert [(b"a", b"b")] == [one.raw for one in wanted]

"""What a request is on the wire (RFC 9112), read strictly: one meaning, or an error.

Whatever could be read in two ways by two programs in a row is refused: that is how one request
is hidden in another. Bytes in, values out; no sockets here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence
from typing import Final, TypeVar, overload

from gateway.errors import (
    BodyTooLargeError,
    HeadersTooLargeError,
    MalformedRequestError,
    MethodRefusedError,
    TargetTooLongError,
    UnknownExpectationError,
)
from gateway.exchange.connection import HOP_BY_HOP
from gateway.limits import (
    BODY_BYTES_MAX,
    CHUNK_LINE_BYTES_MAX,
    CHUNK_OVERHEAD_BYTES_MAX,
    HEADER_BYTES_MAX,
    HEADERS_MAX,
    TARGET_BYTES_MAX,
)
from gateway.proxy.desk import HEADER

RawHeader = tuple[bytes, bytes]
Default = TypeVar("Default")

METHODS: Final = frozenset({b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT"})
"""What is passed on: no tunnel (CONNECT), nothing that sends a request back (TRACE)."""

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_REQUEST_LINE: Final = re.compile(
    rb"(?P<method>" + _TOKEN + rb"{1,64}) (?P<target>[!-~]+) HTTP/(?P<version>[0-9]\.[0-9])"
)
_HEADER: Final = re.compile(
    rb"(" + _TOKEN + rb"{1,256}):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)", re.DOTALL
)
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
_CHUNK: Final = re.compile(
    rb"([0-9A-Fa-f]{1,15})(?:;"
    + _TOKEN
    + rb"+(?:=(?:"
    + _TOKEN
    + rb'+|"[ !#-\[\]-~]*"))?)*\r\n'
)
OURS: Final = b"x-gateway-"
"""How the names of the headers begin that only the gateway says."""
_STAYING: Final = HOP_BY_HOP | {HEADER.encode(), b"content-length", b"expect", b"host"}
"""What is for the gateway, or is written anew for the next connection."""
_NOTHING: Final[frozenset[bytes]] = frozenset()
_FRAMING: Final = frozenset({"content-length", "host", "transfer-encoding"})
_ONCE: Final = _FRAMING | {"expect"}

_LINE_KEPT_BYTES_MAX: Final = 1024
_LINES_KEPT_MAX: Final = 64


class Line:
    """A header line, taken apart; callers that stay send the same ones again and again."""

    __slots__ = ("known", "lowered", "names", "passes", "raw", "value")

    def __init__(self, raw: RawHeader) -> None:
        self.raw = raw
        self.lowered = raw[0].lower()
        self.known = self.lowered.decode("ascii")
        self.value = raw[1].decode("latin-1")
        self.passes = self.lowered not in _STAYING and not self.lowered.startswith(OURS)
        """It may go on to a provider; else it is ours, or this connection's own."""
        self.names = _named(raw[1]) if self.lowered == b"connection" else _NOTHING
        """What `Connection` says: headers so named are this connection's own."""


Lines = dict[bytes, Line]
"""Header lines that came over one connection before, by their bytes."""


class Headers(Mapping[str, str]):
    """Headers by their names, in any case and in order, repeated ones too."""

    __slots__ = ("_lines", "first")

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        # Backwards, so that of several the first stays.
        self.first = {line.known: line.value for line in reversed(lines)}
        """The first header of each name, by names in lower case."""

    def __getitem__(self, name: str) -> str:
        """Return the first header of that *name*."""
        return self.first[name.lower()]

    def __contains__(self, name: object) -> bool:
        """Tell whether there is such a header."""
        return isinstance(name, str) and name.lower() in self.first

    def __iter__(self) -> Iterator[str]:
        """Yield each name once."""
        return iter(dict.fromkeys(line.known for line in self._lines))

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self.first)

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str | Default) -> str | Default: ...
    def get(self, name: str, default: object = None) -> object:
        """Return the first header of that *name*, or *default* where there is none."""
        return self.first.get(name.lower(), default)

    def getall(self, name: str, default: Default) -> list[str] | Default:
        """Return all values of *name* in order, or *default* where there is none."""
        wanted = name.lower()
        if wanted not in self.first:
            return default
        return [line.value for line in self._lines if line.known == wanted]

    def items(self) -> ItemsView[str, str]:
        """Return every header, repeated ones as often as they came."""
        return _Items(self._lines, self)


class _Items(ItemsView[str, str]):
    def __init__(self, lines: Sequence[Line], headers: Headers) -> None:
        super().__init__(headers)
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((line.known, line.value) for line in self._lines)


class Head:
    """A request's head: who asks for what, and where its body ends."""

    __slots__ = (
        "chunked",
        "expects",
        "headers",
        "is_old",
        "length",
        "lines",
        "method",
        "stays",
        "target",
    )

    def __init__(self, method: str, target: str, lines: list[Line], *, is_old: bool) -> None:
        self.method = method
        self.target = target
        """Path and query as they came; all of it is visible ASCII."""
        self.lines = lines
        self.headers = Headers(lines)
        self.is_old = is_old
        """HTTP/1.0, which knows neither chunks nor interim answers."""
        self.chunked = False
        self.length: int | None = None
        """Bytes of the body as declared; `None` where it comes in chunks, or there is none."""
        self.expects = False
        """The caller waits for leave to send its body."""
        self.stays = not is_old
        """The connection may carry another request behind this one."""


def read_head(block: bytes, kept: Lines) -> Head:
    """Read a head: *block* is all of it, each line with its CRLF, without the empty one.

    *kept* is the connection's own memory of header lines.

    Raises:
        MalformedRequestError: it is not HTTP/1.1, has two meanings, or is over a limit.
    """
    first, _, rest = block.partition(b"\r\n")
    method, target, is_old = _request_line(first)
    if len(rest) > HEADER_BYTES_MAX:
        raise too_many_headers()
    lines: list[Line] = []
    for text in rest.split(b"\r\n"):
        line = kept.get(text)
        if line is None:
            if not text:
                continue
            line = _line(text)
            if len(kept) < _LINES_KEPT_MAX and len(text) <= _LINE_KEPT_BYTES_MAX:
                kept[text] = line
        lines.append(line)
    if len(lines) > HEADERS_MAX:
        raise too_many_headers()
    head = Head(method, target, lines, is_old=is_old)
    _frame(head, lines)
    return head


def _request_line(line: bytes) -> tuple[str, str, bool]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        if len(line) > TARGET_BYTES_MAX:
            raise target_too_long()
        raise MalformedRequestError(
            "the first line is no `METHOD /path HTTP/1.1`", hint="speak HTTP/1.1 here"
        )
    method, target, version = match.groups()
    if version not in {b"1.1", b"1.0"}:
        raise MalformedRequestError(
            f"HTTP/{version.decode()} is not spoken here", hint="speak HTTP/1.1"
        )
    if len(target) > TARGET_BYTES_MAX:
        raise target_too_long()
    if method not in METHODS:
        raise MethodRefusedError(
            f"`{method.decode()}` is not passed on",
            hint=f"send {', '.join(sorted(one.decode() for one in METHODS))}",
        )
    if not target.startswith(b"/") or b"#" in target:
        raise MalformedRequestError(
            "the request's target is not a path",
            hint="make the gateway the SDK's base URL, not its proxy",
        )
    return method.decode(), target.decode(), version == b"1.0"


def _line(text: bytes) -> Line:
    match = _HEADER.fullmatch(text)
    if match is None:
        if text[:1] in {b" ", b"\t"}:
            raise MalformedRequestError(
                "a header goes on over a second line", hint="write each on one line"
            )
        raise MalformedRequestError(
            "a header line is not `name: value`",
            hint="no blank before the colon, no control characters, lines end with CRLF",
        )
    name, value = match.groups()
    return Line((name, value.rstrip(b" \t")))


def _named(said: bytes) -> frozenset[bytes]:
    """Return what a `Connection` says, which may be the names of headers."""
    return frozenset([word.strip().lower() for word in said.split(b",")])


def _frame(head: Head, lines: Sequence[Line]) -> None:
    """Find where the body ends, and what becomes of the connection."""
    headers, first = head.headers, head.headers.first
    if len(first) < len(lines):
        for name in _ONCE:
            if name in first and len(headers.getall(name, [])) > 1:
                raise MalformedRequestError(f"`{name}` is sent twice", hint="send it once")
    if "host" not in first and not head.is_old:
        raise MalformedRequestError("`host` is missing", hint="HTTP/1.1 asks for it")
    coding = first.get("transfer-encoding")
    declared = first.get("content-length")
    if coding is not None:
        if declared is not None:
            raise MalformedRequestError(
                "a length and a transfer coding are sent together", hint="send one of them"
            )
        if coding.lower() != "chunked" or head.is_old:
            raise MalformedRequestError(
                "the transfer coding is not `chunked`", hint="send chunks, or a length"
            )
        head.chunked = True
    elif declared is not None:
        if _LENGTH.fullmatch(declared.encode("latin-1")) is None:
            raise MalformedRequestError(
                "`content-length` is no number of bytes", hint="write it in decimal digits"
            )
        head.length = int(declared)
    expected = first.get("expect")
    if expected is not None and not head.is_old:
        _expect(head, expected)
    said = first.get("connection")
    if said is not None:
        said = ",".join(headers.getall("connection", [said]))
        named = {part.strip().lower() for part in said.split(",")}
        head.stays = "close" not in named and (not head.is_old or "keep-alive" in named)


def _expect(head: Head, expected: str) -> None:
    if expected.lower() != "100-continue":
        raise UnknownExpectationError(
            "the only thing to expect here is `100-continue`", hint="leave `expect` out"
        )
    head.expects = True


def refuse_early(begun: bytes | bytearray, scanned: int) -> None:
    """Refuse what can't become a head any more, though its end has not come.

    *begun* is all that came so far, of which *scanned* bytes were looked at before.

    Raises:
        MalformedRequestError: whatever comes next, it is none.
    """
    if not begun[:1].isalpha():
        raise MalformedRequestError(
            "these bytes are no HTTP request", hint="speak HTTP/1.1, and TLS where it is on"
        )
    at = max(scanned - 1, 0)
    if begun.count(b"\n", at) != begun.count(b"\r\n", at) + begun.startswith(b"\n", at):
        raise MalformedRequestError("a line ends without CRLF", hint="end each with CRLF")
    end = begun.find(b"\r\n")
    if end < 0:
        if len(begun) > TARGET_BYTES_MAX:
            raise target_too_long()
        return
    if scanned <= end + 1:
        _request_line(bytes(begun[:end]))
    if len(begun) - end > HEADER_BYTES_MAX:
        raise too_many_headers()


class Chunks:
    """Takes a chunked body apart, however its bytes arrive."""

    __slots__ = ("_ends", "_excess", "_fields", "_kept", "_left", "rest", "trailers", "whole")

    def __init__(self, trailers: list[Line]) -> None:
        self.trailers = trailers
        """Where header lines behind the last chunk go."""
        self.whole = False
        self.rest = b""
        """Once it is whole: what came behind it."""
        self._kept = b""
        self._left = 0
        self._ends = False
        self._excess = 0
        self._fields = -1

    def feed(self, data: bytes, take: Callable[[bytes], None]) -> None:
        """Hand the body's bytes in *data* to *take*.

        Raises:
            MalformedRequestError: these are no chunks, or more frame than content.
            BodyTooLargeError: a chunk is larger than any body may be.
        """
        if self._kept:
            data, self._kept = self._kept + data, b""
        at, size = 0, len(data)
        while not self.whole:
            if self._left:
                part = data[at : at + self._left]
                if not part:
                    return
                take(part)
                at += len(part)
                self._left -= len(part)
            elif self._ends:
                if not b"\r\n".startswith(data[at : at + 2]):
                    raise _no_chunk()
                if size - at < 2:
                    self._kept = data[at:]
                    return
                at += 2
                self._ends = False
            else:
                end = data.find(b"\n", at) + 1
                line = data[at:end] if end else data[at:]
                if self._fields < 0 and len(line) > CHUNK_LINE_BYTES_MAX:
                    raise _no_chunk()
                if not end:
                    if self._fields + len(line) > HEADER_BYTES_MAX:
                        raise too_many_headers()
                    self._kept = line
                    return
                at = end
                if self._fields < 0:
                    self._begin(line)
                else:
                    self._trailer(line)
        self.rest = data[at:]

    def _begin(self, line: bytes) -> None:
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise _no_chunk()
        self._left = int(match[1], 16)
        if self._left > BODY_BYTES_MAX:
            raise BodyTooLargeError(
                f"a chunk is larger than {BODY_BYTES_MAX} bytes", hint="send less at once"
            )
        if not self._left:
            self._fields = 0
            return
        self._ends = True
        # Tiny chunks are allowed, and so are their extensions; a body of little else is not.
        self._excess = max(0, self._excess + len(line) - 32 - self._left)
        if self._excess > CHUNK_OVERHEAD_BYTES_MAX:
            raise _no_chunk()

    def _trailer(self, line: bytes) -> None:
        self._fields += len(line)
        if self._fields > HEADER_BYTES_MAX or len(self.trailers) >= HEADERS_MAX:
            raise too_many_headers()
        if line == b"\r\n":
            self.whole = True
        elif line.endswith(b"\r\n"):
            field = _line(line[:-2])
            if field.known in _FRAMING:
                raise MalformedRequestError(
                    f"`{field.known}` stands behind the body", hint="it belongs before it"
                )
            self.trailers.append(field)
        else:
            raise MalformedRequestError("a line ends without CRLF", hint="end each with CRLF")


def _no_chunk() -> MalformedRequestError:
    return MalformedRequestError(
        "the body is not in chunks as they should be", hint="mend the client's framing"
    )


def target_too_long() -> TargetTooLongError:
    """Return the error for a first line over the limit."""
    return TargetTooLongError(
        f"path and query are longer than {TARGET_BYTES_MAX} bytes", hint="send a body instead"
    )


def too_many_headers() -> HeadersTooLargeError:
    """Return the error for headers over a limit."""
    return HeadersTooLargeError(
        f"headers are over {HEADER_BYTES_MAX} bytes or {HEADERS_MAX} lines", hint="send fewer"
    )

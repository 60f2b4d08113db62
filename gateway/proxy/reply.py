"""The caller's side of one exchange: bytes to its socket, and whether it is still there.

The answer's bytes are written here as they came from the provider, so that nothing is added,
reordered or re-encoded on the way.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final

from gateway.exchange.duplex import Duplex
from gateway.exchange.forward import RawHeaders
from gateway.exchange.states import Permitted
from gateway.provider.model import Dialect, Problem
from gateway.proxy.connection import Connection
from gateway.proxy.framing import OURS, Line
from gateway.proxy.knock import Knock
from gateway.proxy.problem import problem_json

_BODILESS: Final = frozenset({204, 304})
_OF_THE_CONNECTION: Final = frozenset({b"", b"keep-alive", b"close"})
"""What `Connection` says without naming a header."""
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class Reply:
    """The answer to one `Knock`; implements the walk's `Caller`."""

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_connection",
        "_ended",
        "_framed",
        "_head",
        "_joins",
        "_knock",
        "begun",
        "gone",
        "when_gone",
    )

    def __init__(self, knock: Knock, connection: Connection) -> None:
        self._knock = knock
        self._connection = connection
        self.gone = connection.lost or connection.transport.is_closing()
        self.when_gone: Callable[[], None] | None = None
        self.begun = False
        """The head has been given; whatever goes wrong now can only break the answer."""
        self._head = b""
        self._joins = False
        self._chunked = False
        self._framed = False
        self._bodiless = False
        self._ended = False
        connection.when_lost = self.lose

    # -- the walk's Caller ----------------------------------------------------------------

    def lose(self) -> None:
        """Note that the connection is gone, and tell whoever wants to know."""
        self.gone = True
        tell, self.when_gone = self.when_gone, None
        if tell is not None:
            tell()

    def headers_for(self, permitted: Permitted, headers: RawHeaders) -> RawHeaders:
        """Return the provider's end-to-end headers with ours added; it can't speak for us."""
        exchange = (b"x-gateway-exchange", permitted.asked.exchange.encode())
        theirs = [header for header in headers if not header[0].lower().startswith(OURS)]
        return [*theirs, exchange, *permitted.headers]

    def head(self, status: int, reason: bytes, headers: RawHeaders, *, sized: bool) -> None:
        """Send the head; a body without a declared length goes out in chunks."""
        if self.begun:
            return
        self.begun = True
        knock = self._knock
        stays = self._connection.answering(knock)
        ending = b"\r\n"
        self._bodiless = knock.method == "HEAD" or status in _BODILESS
        if not sized and not self._bodiless:
            if knock.is_old:
                stays = False
                self._connection.stay_no_longer()
            else:
                self._chunked = True
                ending = b"transfer-encoding: chunked\r\n\r\n"
        if not stays:
            ending = b"connection: close\r\n" + ending
        elif knock.is_old:
            ending = b"connection: keep-alive\r\n" + ending
        self._framed = sized or self._chunked
        lines = [b"%b: %b\r\n" % header for header in headers]
        self._head = b"HTTP/1.1 %d %b\r\n%b%b" % (status, reason, b"".join(lines), ending)
        if not self._joins:
            self._send(b"")

    async def pass_on(self, chunk: bytes) -> None:
        """Send body bytes, waiting while the caller is slow; silent once it has gone."""
        if not chunk or self._bodiless:
            return
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk)
        connection = self._connection
        if self._head:
            self._send(chunk)
        elif not connection.send(chunk):
            self.gone = True
        if connection.blocked:
            await connection.drained()

    # -- the door -------------------------------------------------------------------------

    async def answer(
        self, status: int, reason: bytes, headers: RawHeaders, body: bytes
    ) -> None:
        """Send an answer of our own, whole and with its length."""
        headers = self._counted(status, headers, body)
        await self.finish(status, reason, headers, body, sized=True)

    async def finish(
        self,
        status: int,
        reason: bytes,
        headers: RawHeaders,
        body: bytes,
        *,
        sized: bool,
        trailers: RawHeaders = (),
    ) -> None:
        """Send what is left: the head if it has not gone, *body*, and the end.

        What came in chunks goes on in chunks, however much of it was there when it was sent:
        only a caller that knows no chunks is told a length instead.
        """
        if self._knock.is_old and not (self.begun or sized or trailers):
            headers, sized = self._counted(status, headers, body), True
        self._joins = True
        self.head(status, reason, headers, sized=sized)
        await self.pass_on(body)
        self.end(trailers)

    def _counted(self, status: int, headers: RawHeaders, body: bytes) -> RawHeaders:
        if status in _BODILESS or self._knock.method == "HEAD":
            return headers
        return [*headers, (b"content-length", b"%d" % len(body))]

    def end(self, trailers: RawHeaders = ()) -> None:
        """Send the end of a chunked body, and *trailers* behind it; a sized one has none."""
        if self._chunked and not self._ended:
            lines = [b"%b: %b\r\n" % header for header in trailers]
            self._send(b"0\r\n%b\r\n" % b"".join(lines))
        elif self._head:
            self._send(b"")
        self._ended = True

    def upgrade(self, status: int, reason: bytes, headers: RawHeaders) -> Duplex:
        """Send a 101 head with exactly *headers*; return the connection as it is then.

        Raises:
            CallerGoneError: there is nobody any more.
        """
        duplex = self._connection.hand_over()
        duplex.when_gone = self.lose
        self.begun = self._ended = True
        lines = [b"%b: %b\r\n" % header for header in headers]
        head = b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, b"".join(lines))
        self._connection.transport.write(head)
        return duplex

    def break_off(self) -> None:
        """Cut the connection, so that the caller sees a broken answer and never a clean end."""
        self._ended = True
        if self._framed:
            # What was written still goes out; the missing end shows that it is not all.
            self._connection.end()
            return
        # The connection's end would be the body's: reset it, so that it is none.
        transport = self._connection.transport
        connection = transport.get_extra_info("socket")
        if connection is not None and not transport.is_closing():
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()

    def leave(self) -> None:
        """Let go of an answer; one that has not been ended is broken off: that is a bug."""
        self.when_gone = None
        if not self._ended:
            self.break_off()

    def _send(self, content: bytes) -> None:
        if self._head:
            # A head whose body is at hand goes out with it.
            content, self._head = self._head + content, b""
        if not self._connection.send(content):
            self.gone = True


def end_to_end(
    lines: Sequence[Line], dropped: frozenset[bytes] = frozenset()
) -> list[tuple[bytes, bytes]]:
    """Return headers without ours, those *dropped*, and those of one connection only."""
    kept: list[Line] = []
    named: frozenset[bytes] = frozenset()
    for line in lines:
        if line.passes:
            kept.append(line)
        elif line.names:
            named |= line.names
    unwanted = dropped if named <= _OF_THE_CONNECTION else dropped | named
    if unwanted:
        kept = [line for line in kept if line.lowered not in unwanted]
    return [line.raw for line in kept]


async def send_problem(reply: Reply, problem: Problem, dialect: Dialect | None) -> None:
    """Answer with *problem*, in the shape that the calling SDK turns into its exception."""
    if reply.begun:
        reply.break_off()
        return
    headers: list[tuple[bytes, bytes]] = [(b"x-gateway-problem", problem.code.encode())]
    if problem.code in _EFFECTS:
        headers.append((b"x-gateway-effect", _EFFECTS[problem.code]))
    if problem.exchange:
        headers.append((b"x-gateway-exchange", problem.exchange.encode()))
    if dialect is None:
        headers.append((b"content-type", b"application/problem+json"))
        body = problem_json(problem)
    else:
        headers.append((b"content-type", b"application/json"))
        body = dialect.problem_body(problem)
    again_s = 1 if problem.status == 503 else problem.again_s
    if again_s is not None:
        headers.append((b"retry-after", str(again_s).encode()))
    if problem.never_again:
        headers.append((b"x-should-retry", b"false"))
    reason = REASONS.get(problem.status, b"Error")
    await reply.answer(problem.status, reason, headers, body)


_EFFECTS: Final = {"use.held": b"hold", "use.forbidden": b"forbid"}
REASONS: Final = {
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}

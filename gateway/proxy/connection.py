"""One caller's connection: requests one after the other, each read, answered, and left behind.

HTTP/1.1 over asyncio, without a parser of anybody's between the bytes and us (`framing`): a
request that comes before the last one is answered waits unread, and whatever is malformed ends
the connection. A caller that is slow, or silent, or does not read, is cut off in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
from collections.abc import Callable
from typing import Protocol

from gateway.errors import (
    BodyTooLargeError,
    CallerGoneError,
    DoorFullError,
    MalformedRequestError,
    RequestTooSlowError,
)
from gateway.exchange.duplex import Duplex
from gateway.limits import (
    BODY_BYTES_PER_S_MIN,
    BODY_GRACE_S,
    BODY_SILENCE_S_MAX,
    DISCARDED_BYTES_MAX,
    DOOR_BYTES_HELD_MAX,
    HEAD_S_MAX,
    IDLE_CALLER_S_MAX,
    LINGER_S_MAX,
    PIPELINED_BYTES_MAX,
    RELAY_BYTES_AHEAD_MAX,
    SKIPPED_BYTES_MAX,
    UNREAD_S_MAX,
    UNSENT_BYTES_MAX,
)
from gateway.proxy.framing import Chunks, Head, Lines, read_head, refuse_early
from gateway.proxy.knock import Knock


class Host(Protocol):
    """The door, as its connections see it."""

    closing: bool
    """No further request is taken."""
    bytes_held: int
    """Of the bodies of all requests under way."""

    async def knocked(self, knock: Knock, connection: Connection) -> None:
        """Answer a request; never fails."""
        ...

    def refusal(self, error: MalformedRequestError) -> bytes:
        """Return the whole answer to what is no request."""
        ...

    def arrived(self, connection: Connection) -> bool:
        """Keep *connection* in mind; tell whether it is let in."""
        ...

    def left(self, connection: Connection) -> None:
        """Forget *connection*."""
        ...


class _Phase(enum.Enum):
    HEAD = enum.auto()
    """Nothing, or a part of a head, has come."""
    BODY = enum.auto()
    """A request is being answered, and not all of its body has come."""
    BUSY = enum.auto()
    """A request is being answered, and is whole."""
    DEAF = enum.auto()
    """What comes is dropped: the answer is on its way, and then the connection ends."""
    UPGRADED = enum.auto()
    """Another protocol has it."""


class Connection(asyncio.Protocol):
    """One caller's connection; `host` answers what comes over it."""

    __slots__ = (
        "_answered",
        "_buffer",
        "_chunks",
        "_deadline",
        "_discarded",
        "_discards",
        "_drained",
        "_duplex",
        "_expects",
        "_held",
        "_host",
        "_knock",
        "_left",
        "_lines",
        "_loop",
        "_paused",
        "_phase",
        "_scanned",
        "_stays",
        "_task",
        "_unsent",
        "_unsent_since",
        "blocked",
        "lost",
        "transport",
        "when_lost",
    )

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._loop = loop
        self.transport: asyncio.Transport
        self.lost = False
        """The caller is gone."""
        self.when_lost: Callable[[], None] | None = None
        """Called once, at the moment it goes."""
        self.blocked = False
        """More waits for the caller's socket than should."""
        self._phase = _Phase.HEAD
        self._buffer = bytearray()
        self._scanned = 0
        self._lines: Lines = {}
        self._knock: Knock | None = None
        self._chunks: Chunks | None = None
        self._left = 0
        self._expects = False
        self._held = 0
        self._discards = False
        self._discarded = 0
        self._answered = False
        self._stays = True
        self._paused = False
        self._drained: asyncio.Future[None] | None = None
        self._duplex: Duplex | None = None
        self._task: asyncio.Task[None] | None = None
        self._deadline = loop.time() + HEAD_S_MAX
        self._unsent = 0
        self._unsent_since = 0.0

    # -- what the answer needs ------------------------------------------------------------

    def send(self, content: bytes) -> bool:
        """Send bytes; tell whether there is still somebody to send them to."""
        if self.lost or self.transport.is_closing():
            return False
        self.transport.write(content)
        return True

    async def drained(self) -> None:
        """Wait until the caller has taken most of what was sent, or is gone."""
        while self.blocked and not self.lost:
            self._drained = self._loop.create_future()
            await self._drained

    def proceed(self) -> None:
        """Tell the caller that its body is wanted, if it waits for that."""
        if self._expects:
            self._expects = False
            if self._knock is not None and not self._knock.body_bytes:
                self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def read_on(self) -> None:
        """Read from the caller again, if that was stopped."""
        if self._paused:
            self._paused = False
            if not self.lost and not self.transport.is_closing():
                self.transport.resume_reading()

    def hold(self, count: int) -> None:
        """Count bytes of a body that are held until it is answered.

        Raises:
            DoorFullError: all bodies together are over the limit.
        """
        self._held += count
        self._host.bytes_held += count
        if self._host.bytes_held > DOOR_BYTES_HELD_MAX:
            raise DoorFullError("too many large requests at once", hint="add workers")

    def answering(self, knock: Knock) -> bool:
        """Take note that the answer begins; tell whether the connection stays behind it.

        What is still to come of a body that nobody reads is dropped from here on.
        """
        stays = knock.stays and not self._host.closing
        if not knock.ended:
            if (
                self._chunks is not None
                or self._left > SKIPPED_BYTES_MAX
                or self._expects
                or knock.failure is not None
            ):
                stays = False
            if not knock.reading:
                self._drop_rest(knock)
        self._stays = stays
        return stays

    def stay_no_longer(self) -> None:
        """End after this answer, whatever its caller asked for."""
        self._stays = False

    def hand_over(self) -> Duplex:
        """Give the connection to another protocol, with what came behind the head.

        Raises:
            CallerGoneError: there is nobody any more.
        """
        if self.lost or self.transport.is_closing():
            raise CallerGoneError("the caller hung up")
        begun = bytes(self._buffer)
        self._buffer.clear()
        self._phase = _Phase.UPGRADED
        self._duplex = Duplex(self.transport, begun)
        self.transport.set_protocol(self._duplex)
        self.read_on()
        return self._duplex

    def end(self) -> None:
        """Close when all that was sent has gone out."""
        self._stays = False
        self.transport.close()

    # -- one request after the other ------------------------------------------------------

    def _read_head(self, data: bytes | bytearray) -> None:
        """Take the head of a request out of *data*, which is all that is unread."""
        if not self._scanned and data.startswith(b"\r\n"):
            # Some old clients end a body with an empty line that is no part of it.
            data = data[2:]
            if not data:
                self._buffer.clear()
                return
        end = data.find(b"\r\n\r\n", max(self._scanned - 3, 0))
        try:
            if end < 0:
                refuse_early(data, self._scanned)
                if data is not self._buffer:
                    self._buffer[:] = data
                if not self._scanned:
                    self._deadline = self._loop.time() + HEAD_S_MAX
                self._scanned = len(data)
                return
            head = read_head(bytes(data[: end + 2]), self._lines)
        except MalformedRequestError as error:
            self._refuse(error)
            return
        rest = bytes(data[end + 4 :])
        self._buffer.clear()
        self._scanned = 0
        self._begin(head, rest)

    def _begin(self, head: Head, rest: bytes) -> None:
        knock = self._knock = Knock(head, self)
        self._deadline = math.inf
        self._expects = head.expects
        self._discards = self._answered = False
        if knock.ended:
            self._phase = _Phase.BUSY
            self._keep_for_later(rest)
        else:
            self._phase = _Phase.BODY
            self._discarded = 0
            self._chunks = Chunks(knock.trailers) if head.chunked else None
            self._left = head.length or 0
            if rest:
                self._read_body(knock, rest)
        self._task = self._loop.create_task(self._serve(knock))

    def _read_body(self, knock: Knock, data: bytes) -> None:
        """Take bytes of the body of *knock*, and what may stand behind them."""
        if self._chunks is not None:
            try:
                self._chunks.feed(data, self._take)
            except (MalformedRequestError, BodyTooLargeError) as error:
                knock.fail(error)
                self._turn_deaf()
                return
            whole, rest = self._chunks.whole, self._chunks.rest
        else:
            part = data if len(data) <= self._left else data[: self._left]
            self._left -= len(part)
            self._take(part)
            whole, rest = not self._left, data[len(part) :]
        if whole:
            self._phase = _Phase.BUSY
            self._chunks = None
            knock.end()
            self._keep_for_later(rest)
            if self._answered:
                self._next()
            return
        knock.wake()
        if (knock.ahead if not self._discards else self._discarded - DISCARDED_BYTES_MAX) > (
            RELAY_BYTES_AHEAD_MAX
        ):
            self._pause()

    def _take(self, part: bytes) -> None:
        """Keep a part of the body where somebody wants it."""
        knock = self._knock
        if self._discards or knock is None or knock.failure is not None:
            self._discarded += len(part)
        else:
            knock.feed(part)

    def _drop_rest(self, knock: Knock) -> None:
        """Drop what comes of a body that nobody reads."""
        self._discards = True
        knock.drop()
        knock.fail(CallerGoneError("it was answered before its body was whole"))
        self.read_on()

    def _keep_for_later(self, data: bytes) -> None:
        """Keep what was sent ahead of the answer; it waits for its turn, unread."""
        if data:
            self._buffer += data
            if len(self._buffer) > PIPELINED_BYTES_MAX:
                self._pause()

    async def _serve(self, knock: Knock) -> None:
        try:
            await self._host.knocked(knock, self)
        finally:
            self._served(knock)

    def _served(self, knock: Knock) -> None:
        """Go on with the next request, or end."""
        self._task = None
        self.when_lost = None
        self._host.bytes_held -= self._held
        self._held = 0
        if self._duplex is not None:
            self._duplex.close()
            self._forget()
        elif self.lost:
            self._knock = None
        elif self.transport.is_closing():
            pass
        elif not self._stays:
            self._leave(at_once=knock.ended and not self._buffer)
        elif knock.ended:
            self._next()
        else:
            # A short rest of a body that nobody wants is on its way.
            self._drop_rest(knock)
            self._answered = True
            self._deadline = self._loop.time() + LINGER_S_MAX

    def _next(self) -> None:
        """Wait for another request, or take the one that is here already."""
        self._knock = None
        self._phase = _Phase.HEAD
        self._answered = False
        self._deadline = self._loop.time() + IDLE_CALLER_S_MAX
        if self._host.closing:
            self._leave(at_once=not self._buffer)
            return
        if self._buffer:
            self._read_head(bytes(self._buffer))
        if self._phase is not _Phase.BUSY or len(self._buffer) <= PIPELINED_BYTES_MAX:
            self.read_on()

    # -- the end --------------------------------------------------------------------------

    def _refuse(self, error: MalformedRequestError) -> None:
        """Answer what is no request, and end."""
        self.send(self._host.refusal(error))
        self._leave(at_once=False)

    def _leave(self, *, at_once: bool) -> None:
        """End; where more is on its way, let the caller read its answer first."""
        self._stays = False
        if self.transport.is_closing():
            return
        if at_once:
            self.transport.close()
            return
        self._turn_deaf()
        self._knock = None
        self._deadline = self._loop.time() + LINGER_S_MAX
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError):
                self.transport.write_eof()

    def _turn_deaf(self) -> None:
        self._phase = _Phase.DEAF
        self._stays = False
        self._buffer.clear()
        self._chunks = None
        self.read_on()

    def retire(self) -> None:
        """End now if no request is under way; else when it has been answered."""
        if self._phase is _Phase.HEAD and not self.transport.is_closing():
            self.transport.close()

    def cut(self) -> None:
        """End now, whatever is under way."""
        self.transport.abort()

    def look(self, now_s: float) -> None:
        """End what has taken too long."""
        if self._duplex is not None:
            return
        if self.blocked or self.transport.is_closing():
            self._look_at_reading(now_s)
        knock = self._knock
        if knock is not None and knock.begun_s is not None:
            silent_s = now_s - knock.begun_s
            late_s = knock.waited_s + silent_s - BODY_GRACE_S
            if silent_s > BODY_SILENCE_S_MAX or (
                late_s > 0 and knock.body_bytes < late_s * BODY_BYTES_PER_S_MIN
            ):
                knock.fail(
                    RequestTooSlowError("the body comes too slowly", hint="send it at once")
                )
        if now_s < self._deadline:
            return
        self._deadline = math.inf
        if self._phase is _Phase.HEAD and self._scanned:
            self._refuse(
                RequestTooSlowError("the head comes too slowly", hint="send it at once")
            )
        elif self._phase is _Phase.DEAF:
            self.transport.abort()
        else:
            self.transport.close()

    def _look_at_reading(self, now_s: float) -> None:
        """Cut off a caller that takes nothing of what waits for it."""
        unsent = self.transport.get_write_buffer_size()
        if unsent < self._unsent or not self._unsent_since:
            self._unsent_since = now_s
        elif now_s - self._unsent_since > UNREAD_S_MAX:
            self.transport.abort()
        self._unsent = unsent

    def _pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def _lose(self) -> None:
        """Tell everybody that the caller is gone."""
        if self.lost:
            return
        self.lost = True
        if self._knock is not None:
            self._knock.fail(CallerGoneError("the caller hung up while sending its body"))
        tell, self.when_lost = self.when_lost, None
        if tell is not None:
            tell()
        self._wake()

    def _forget(self) -> None:
        self._host.left(self)
        self._buffer.clear()
        self._lines.clear()
        if self._task is None:
            self._knock = None

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # -- asyncio's callbacks --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the caller in, unless the house is full or closing."""
        self.transport = transport  # type: ignore[assignment]  # it is one, by construction
        self.transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        if not self._host.arrived(self):
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take bytes as the phase has it."""
        if self._phase is _Phase.HEAD:
            if self._buffer:
                self._buffer += data
                self._read_head(self._buffer)
            else:
                self._read_head(data)
        elif self._phase is _Phase.BODY:
            if self._knock is not None:
                self._read_body(self._knock, data)
        elif self._phase is _Phase.BUSY:
            self._keep_for_later(data)
        else:
            self._discarded += len(data)
            if self._discarded > DISCARDED_BYTES_MAX:
                self.transport.abort()

    def eof_received(self) -> bool:
        """Take the end of what the caller sends for its hanging up."""
        self._lose()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._lose()
        self._forget()

    def pause_writing(self) -> None:
        """Let the answer wait for its caller."""
        self.blocked = True
        self._unsent_since = 0.0

    def resume_writing(self) -> None:
        """Let the answer go on."""
        self.blocked = False
        self._wake()

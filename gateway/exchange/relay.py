"""Chunks from the provider to the caller, digested as they pass.

What goes out before the notary has written is decided by the answer's reader: of a stream,
everything before the newest content event; of a body that is read whole, nothing; of bytes that
nobody here can read, everything but the newest chunk. Bytes are never changed here; an answer
that may have to change is held until its end.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Protocol

from gateway.errors import CallerGoneError, ProviderError, ProviderUnreadableError
from gateway.exchange.forward import ProviderResponse, RawHeaders
from gateway.exchange.states import Answered, Permitted
from gateway.limits import ABANDONED_BYTES_MAX, BODY_BYTES_HELD_MAX
from gateway.provider.encoding import Decoder
from gateway.provider.model import Answer, AnswerReader
from gateway.receipt.model import Ended


class CallerSide(Protocol):
    """The caller, as the relay sees it."""

    gone: bool

    def head(self, status: int, reason: bytes, headers: RawHeaders, *, sized: bool) -> None:
        """Send the head of the answer, before any body; *sized*: its length is declared."""
        ...

    async def pass_on(self, chunk: bytes) -> None:
        """Send body bytes, waiting while the caller is slow; silent once it has gone."""
        ...


class Settle(Protocol):
    """Seals what has come, as `ItemsReader.settle` does."""

    async def __call__(self, *, ended: bool) -> int:
        """Return how many bytes may go out."""
        ...


class Amends(Protocol):
    """What changes an answer before it goes on."""

    def headers(self, headers: RawHeaders) -> RawHeaders:
        """Return the provider's end-to-end headers as the caller gets them."""
        ...

    def holds(self, response: ProviderResponse) -> bool:
        """Tell whether all of it must be here before any of it may go."""
        ...

    async def finish(self, answered: Answered, *, held: bool) -> Answered:
        """Return *answered* as it is sealed and released."""
        ...


class ItemsReader(AnswerReader, Protocol):
    """Reads an answer of many items, each of which is sealed before its last byte goes."""

    async def settle(self, *, ended: bool) -> int:
        """Seal the items that have come; return how many of all bytes so far may go out.

        Some may be left for the next time, unless the answer has *ended*.

        Raises:
            LedgerUnwellError: they could not be written.
        """
        ...


class Relay:
    """One answer on its way: reads it, digests it, and holds back what must wait."""

    def __init__(
        self,
        permitted: Permitted,
        reader: AnswerReader,
        decoder: Decoder | None,
        *,
        drain: bool,
        hold: bool = False,
        settle: Settle | None = None,
    ) -> None:
        self._hold = hold
        self._settle = settle
        self._permitted = permitted
        self._reader = reader
        self._decoder = decoder
        self._drain = drain
        self._sent_sha256 = hashlib.sha256()
        self._sent_bytes = 0
        self._bytes = 0
        self._released = 0
        # Chunks as they came, for most go on as they came.
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        # Of an encoded body: where each held raw chunk ends, raw and decoded.
        self._marks: deque[tuple[int, int]] = deque()
        self._decoded = 0
        self.head_sent = False

    async def run(
        self, response: ProviderResponse, caller: CallerSide, headers: RawHeaders
    ) -> Answered:
        """Pass the answer on until its end or a break; return it with what was held back.

        *headers* are those the caller gets. An event stream's head goes out at once; any other
        head waits for the first bytes that may go.
        """
        if is_event_stream(response) and not self._hold:
            self._send_head(response, caller, headers)
        ended: Ended = "complete"
        error: str | None = None
        try:
            while chunk := await response.read():
                self._bytes += len(chunk)
                self._held.append(chunk)
                self._held_bytes += len(chunk)
                may_go = self._released_by(chunk)
                if self._settle is not None and not self._hold:
                    may_go = self._marked(await self._settle(ended=False))
                if may_go > self._released and not caller.gone:
                    self._send_head(response, caller, headers)
                    out = self._let_go(may_go - self._released)
                    self._released = may_go
                    await caller.pass_on(out)
                if caller.gone:
                    self._heed()
        except CallerGoneError:
            response.abandon()
            ended = "cut-short-by-caller"
        except ProviderUnreadableError as exc:
            response.abandon()
            ended, error = "cut-short-by-provider", exc.problem
        except ProviderError as exc:
            ended, error = "cut-short-by-provider", exc.problem
        except BaseException:
            # A bug of ours, or our own end: the provider need not go on.
            response.abandon()
            raise
        if self._settle is not None and ended != "cut-short-by-caller":
            # What stands last goes out with the end, or with the break.
            await self._settle(ended=True)
        answer = self._reader.finish()
        if ended == "complete":
            if caller.gone and self._held:
                ended = "cut-short-by-caller"
            elif answer.readable and not answer.whole:
                ended = "cut-short-by-provider"
        return self._answered(response, headers, answer, ended, error)

    def _heed(self) -> None:
        if not self._drain or self._bytes > ABANDONED_BYTES_MAX:
            raise CallerGoneError("the caller hung up")

    def _send_head(
        self, response: ProviderResponse, caller: CallerSide, headers: RawHeaders
    ) -> None:
        if not self.head_sent:
            self.head_sent = True
            caller.head(response.status, response.reason, headers, sized=response.sized)

    def _let_go(self, count: int) -> bytes:
        """Return the first *count* bytes that are held, as sent."""
        held = self._held
        out = held.popleft()
        if len(out) != count:
            parts = []
            left = count
            while len(out) < left:
                parts.append(out)
                left -= len(out)
                out = held.popleft()
            if len(out) > left:
                held.appendleft(out[left:])
            out = b"".join((*parts, out[:left]))
        self._held_bytes -= count
        self._sent_sha256.update(out)
        self._sent_bytes += count
        return out

    def _released_by(self, chunk: bytes) -> int:
        """Return how many of the bytes as they came may go out now.

        Raises:
            ProviderUnreadableError: all are held, and they are too many.
        """
        if self._hold:
            if self._bytes > BODY_BYTES_HELD_MAX:
                raise ProviderUnreadableError("an answer that is held is too large")
            self._reader.feed(chunk if self._decoder is None else self._decoder.decode(chunk))
            return 0
        if self._decoder is None:
            return self._reader.feed(chunk)
        plain = self._decoder.decode(chunk)
        self._decoded += len(plain)
        if plain or self._held_bytes > BODY_BYTES_HELD_MAX:
            # One that decodes to nothing yet is the beginning of what the next decodes to.
            self._marks.append((self._bytes, self._decoded))
        return self._marked(self._reader.feed(plain))

    def _marked(self, may_go: int) -> int:
        """Return how many of the bytes as they came stand for *may_go* of the decoded ones."""
        if self._decoder is None:
            return may_go
        released = self._released
        # A chunk goes when all it decodes to may go, and the newest one waits in any case:
        # an encoder's last bytes may carry an end that no decoded byte shows.
        while len(self._marks) > 1 and self._marks[0][1] <= may_go:
            released = self._marks.popleft()[0]
        return released

    def _answered(
        self,
        response: ProviderResponse,
        headers: RawHeaders,
        answer: Answer,
        ended: Ended,
        error: str | None,
    ) -> Answered:
        held = b"".join(self._held)
        if ended == "cut-short-by-caller":
            # What the caller has is what was sent; what was held back never left the house.
            digest, size = self._sent_sha256, self._sent_bytes
        else:
            digest = self._sent_sha256.copy()
            digest.update(held)
            size = self._bytes
        return Answered(
            permitted=self._permitted,
            answer=answer,
            status=response.status,
            request_id=response.header(b"x-request-id") or response.header(b"request-id"),
            response_sha256=digest.hexdigest(),
            response_bytes=size,
            ended=ended,
            error=error or answer.error,
            reason=response.reason,
            headers=tuple(headers),
            sized=response.sized,
            held=held,
            head_sent=self.head_sent,
            trailers=tuple(response.trailers) if ended == "complete" else (),
        )


def unanswered(permitted: Permitted, ended: Ended, error: str) -> Answered:
    """Return the outcome of an exchange in which not even a head came back."""
    return Answered(
        permitted=permitted,
        answer=Answer(readable=False, whole=False),
        status=None,
        request_id=None,
        response_sha256=hashlib.sha256().hexdigest(),
        response_bytes=0,
        ended=ended,
        error=error,
        reason=b"",
        headers=(),
        sized=False,
        held=b"",
        head_sent=False,
    )


def is_event_stream(response: ProviderResponse) -> bool:
    """Tell whether the head of *response* announces server-sent events."""
    kind = response.header(b"content-type") or ""
    return kind.lower().startswith("text/event-stream")

"""One session: what the caller says is ruled on, what the provider answers is receipted.

Both directions are carried message by message. A message of the caller that changes what is
asked for passes only under a ruling that permits it; the message that ends an answer passes
only once the answer's receipt is durable. Bytes are never changed, and none are added but the
close frame of a session that the gateway itself ends.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from gateway.clock import Clock
from gateway.errors import (
    CallerError,
    CallerGoneError,
    LedgerUnwellError,
    LimitReachedError,
    MalformedBodyError,
    PriceMissingError,
    ProviderBrokeOffError,
    ProviderError,
)
from gateway.exchange.allowance import Allowance, Reserved
from gateway.exchange.body import StreamedBody
from gateway.exchange.duplex import Duplex
from gateway.exchange.forward import Outgoing, ProviderResponse, RawHeaders, Upgraded
from gateway.exchange.items import answered_item, permitted_item
from gateway.exchange.providers import Provider
from gateway.exchange.relay import unanswered
from gateway.exchange.resources import Resources
from gateway.exchange.rule import Ruled
from gateway.exchange.scope import check_scope
from gateway.exchange.states import Answered, Asked, Forbidden, Held, Permitted
from gateway.exchange.walk import Caller, Walk
from gateway.ident import Sha256, item_id, random_bytes
from gateway.limits import (
    DRAIN_TIMEOUT_S,
    DUPLEX_CLOSE_S_MAX,
    SESSION_ADMITTED_S_MAX,
    SESSION_ENDS_S_MAX,
)
from gateway.live.gemini import GeminiTalk
from gateway.live.handshake import Kind, inflations, kind_of
from gateway.live.messages import (
    BrokenFrameError,
    LongMessageError,
    Messages,
    Piece,
    close_frame,
)
from gateway.live.realtime import RealtimeTalk
from gateway.live.responses import ResponsesTalk
from gateway.live.talk import Talk, Turn
from gateway.log import Logger
from gateway.provider.model import Answer, Operation
from gateway.receipt.model import Ended, ItemFacts

SWITCHING: Final = 101
_CLEAN: Final = frozenset({1000, 1001, 1005})
"""Codes by which either side ends a session in good order."""
_LEAVING: Final = 1001
_BROKEN: Final = 1002
_UNREAD: Final = 1007
_REFUSED: Final = 1008
_TOO_LONG: Final = 1009
_STOPS: Final = "the gateway stops"
STOPPED: Final = "gateway.stopped"
"""What a receipt says of a session that a stopping gateway cut short."""
UNREAD: Final = "session.unread"
"""What a receipt says of a session that was read up to some point only."""
_HANGS_UP_S: Final = 0.05
"""How soon after its caller a provider is hung up on, where something else is in the way."""


class LiveCaller(Caller, Protocol):
    """The caller's side of the door, which can be switched."""

    def upgrade(self, status: int, reason: bytes, headers: RawHeaders) -> Duplex:
        """Send the head of the switch; return the connection.

        Raises:
            CallerGoneError: there is nobody any more.
        """
        ...


@dataclass(kw_only=True)
class Live:
    """Carries sessions; built once, in `app/`."""

    walk: Walk
    clock: Clock
    allowance: Allowance
    resources: Resources
    log: Logger
    on_item: Callable[[Answered], None] = lambda _: None
    """Counts what an answer used."""
    # OWNED BY: the event loop.
    _sessions: set[Session] | None = None

    async def ask(
        self,
        permitted: Permitted,
        provider: Provider,
        outgoing: Outgoing,
        caller: LiveCaller,
        admit: Callable[[], None],
    ) -> Answered:
        """Open a session with the provider and carry it to its end.

        *admit* raises a `CallerError` once the caller's key is no longer good.
        """
        try:
            switched = await self.walk.forwarder.upgrade(
                permitted, provider.origin, outgoing, caller
            )
        except CallerError as exc:
            return unanswered(permitted, "cut-short-by-caller", exc.problem)
        except ProviderBrokeOffError as exc:
            return unanswered(permitted, "cut-short-by-provider", exc.problem)
        except ProviderError as exc:
            return unanswered(permitted, "provider-failed", exc.problem)
        if isinstance(switched, ProviderResponse):
            return await self.walk.relayed(permitted, provider, switched, caller)
        try:
            duplex = caller.upgrade(
                switched.status, switched.reason, _switching(permitted, switched, caller)
            )
        except CallerGoneError as exc:
            switched.duplex.abort()
            return unanswered(permitted, "cut-short-by-caller", exc.problem)
        found = permitted.asked.call.found
        kind = kind_of(found.path) if found is not None else None
        session = Session(self, permitted, provider, switched, duplex, kind, admit)
        if self._sessions is None:
            self._sessions = set()
        self._sessions.add(session)
        try:
            answered = await session.run()
        except BaseException:
            duplex.abort()
            switched.duplex.abort()
            raise
        finally:
            self._sessions.discard(session)
        # What was passed on still goes out.
        duplex.close()
        switched.duplex.close()
        return answered

    def stop(self) -> None:
        """End every session that has no answer under way, and the others soon."""
        for session in tuple(self._sessions or ()):
            session.stop()


def _switching(permitted: Permitted, switched: Upgraded, caller: Caller) -> RawHeaders:
    return [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        *caller.headers_for(permitted, switched.headers),
    ]


class Session:
    """A session from its switch to its end."""

    def __init__(
        self,
        live: Live,
        permitted: Permitted,
        provider: Provider,
        switched: Upgraded,
        caller: Duplex,
        kind: Kind | None,
        admit: Callable[[], None],
    ) -> None:
        self._live = live
        self._permitted = permitted
        self._provider = provider
        self._switched = switched
        self._upstream = switched.duplex
        self._caller = caller
        self._admit = admit
        self._admitted_s = asyncio.get_running_loop().time()
        self._call = permitted.asked.call
        self._ruled: Ruled | None = None
        self._ruling = permitted.ruling
        self._talk: Talk | None = None
        self._up = self._down = Messages(masked=False, inflation=None)
        known = inflations(switched.headers)
        if kind is not None and known is not None:
            self._talk = self._talking(kind)
            self._up = Messages(masked=True, inflation=known[0])
            self._down = Messages(masked=False, inflation=known[1])
        self._unread = kind is not None and known is None
        self._readable = self._talk is not None
        self._items = 0
        self._sha256 = hashlib.sha256()
        self._bytes = 0
        self._status = switched.status
        self._ended: Ended | None = None
        self._error: str | None = None
        self._closing = False
        self._stopping = False
        self._left = False
        """The gateway itself has ended it."""
        self._sealing = asyncio.Lock()
        self._reserved: deque[Reserved | None] = deque()
        self._over: CallerError | None = None
        """Which limit the last answer went over."""

    def _talking(self, kind: Kind) -> Talk:
        path = self._call.found.path if self._call.found is not None else ""
        match kind:
            case Kind.REALTIME:
                return RealtimeTalk(self._call)
            case Kind.RESPONSES:
                return ResponsesTalk(self._call, self._provider.dialect, path)
            case Kind.GEMINI:
                return GeminiTalk(self._call)

    # -- from its beginning to its end ----------------------------------------------------

    async def run(self) -> Answered:
        """Carry both directions until one side ends; return what is to be sealed."""
        if self._unread and not await self._turns_opaque():
            return self._answered()
        self._caller.when_gone = self._hang_up_soon
        # Both end before this does.
        loop = asyncio.get_running_loop()
        up = loop.create_task(self._carry_up(), name="session-up")
        down = loop.create_task(self._carry_down(), name="session-down")
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            self._end(by_caller=up.done() and not down.done())
            # What has arrived is still read, and sealed; nothing new comes.
            _, late = await asyncio.wait({up, down}, timeout=SESSION_ENDS_S_MAX)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            for task in {up, down} - late:
                task.result()
            cut = self._ended if self._ended != "complete" else None
            for turn in self._talk.under_way() if self._talk is not None else ():
                await self._seal(turn, cut or "cut-short-by-provider")
        except BaseException:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            raise
        return self._answered()

    def _hang_up_soon(self) -> None:
        """See to it that the provider is cut off, though its caller's last words wait."""
        asyncio.get_running_loop().call_later(_HANGS_UP_S, self._upstream.abort)

    def _end(self, *, by_caller: bool) -> None:
        """Let both connections end: *by_caller* or else by the provider."""
        if self._ended is None:
            if self._closing or self._left:
                self._ended = "complete"
            elif not self._readable and not by_caller:
                # Of a session that is not read, nobody saw whether it closed in good order.
                self._ended = "complete"
            else:
                self._ended = "cut-short-by-caller" if by_caller else "cut-short-by-provider"
        if self._ended == "cut-short-by-caller" and not (self._closing or self._left):
            self._upstream.abort()
        else:
            self._upstream.close()
        # What was passed on still goes out; without a close frame it is no clean end.
        self._caller.close()

    def stop(self) -> None:
        """End the session because the gateway stops, at the end of an answer or soon."""
        self._stopping = True
        if self._talk is not None and self._talk.under_way():
            loop = asyncio.get_running_loop()
            loop.call_later(DRAIN_TIMEOUT_S / 2, self._stop_now)
        else:
            self._stop_now()

    def _stop_now(self) -> None:
        if self._ended is None:
            if self._talk is not None and self._talk.under_way():
                self._ended, self._error = "cut-short-by-caller", STOPPED
            self._leave(_LEAVING, _STOPS)

    def _answered(self) -> Answered:
        """Return the session as a whole."""
        answer = Answer(readable=False, whole=False)
        if self._talk is not None and self._readable:
            answer = self._talk.between()
        headers = dict(self._switched.headers)
        request_id = headers.get(b"x-request-id") or headers.get(b"request-id")
        ended: Ended = self._ended or "complete"
        answered = answered_item(
            self._permitted,
            answer,
            status=self._status,
            sha256=Sha256(self._sha256.hexdigest()),
            size=self._bytes,
            request_id=None if request_id is None else request_id.decode("latin-1"),
            ended=ended,
        )
        return msgspec.structs.replace(
            answered, items=self._items, error=self._error or answered.error
        )

    # -- the caller -----------------------------------------------------------------------

    async def _carry_up(self) -> None:
        """Carry what the caller says, as far as it may go."""
        while data := await self._caller.read():
            if not self._upstream.is_open:
                return
            if not self._readable:
                if not await self._goes_on():
                    return
                await self._pass_up(self._up.let_go() + data)
                continue
            try:
                for piece in self._up.feed(data):
                    if piece.content is not None and not await self._may_go(piece.content):
                        return
                    self._note_closing(piece, by_caller=True)
                    await self._pass_up(piece.raw)
            except BrokenFrameError as exc:
                self._refuse(_BROKEN, "body.malformed", str(exc))
                return
            except LongMessageError:
                if not await self._turns_opaque():
                    return
                await self._pass_up(self._up.let_go())

    async def _pass_up(self, raw: bytes) -> None:
        body = self._permitted.asked.body
        if self._upstream.is_open and isinstance(body, StreamedBody):
            body.passed(raw)
            await self._upstream.write(raw)

    async def _goes_on(self) -> bool:
        """Tell whether a session that nobody reads may still go on."""
        try:
            self._admit_again()
        except CallerError as exc:
            self._refuse(_REFUSED, exc.problem, exc.message)
            return False
        if self._ruled is not None and self._live.walk.law.stands(self._ruled):
            return True
        call = msgspec.structs.replace(self._call, operation=Operation.OPAQUE)
        return await self._permits(msgspec.structs.replace(self._permitted.asked, call=call))

    async def _may_go(self, message: bytes) -> bool:
        """Tell whether *message* may go on; one that may not ends the session."""
        talk = self._talk
        if talk is None:
            return True
        try:
            self._admit_again()
        except CallerError as exc:
            self._refuse(_REFUSED, exc.problem, exc.message)
            return False
        try:
            call = talk.wanted(message)
        except MalformedBodyError as exc:
            self._refuse(_UNREAD, exc.problem, exc.message)
            return False
        asked = msgspec.structs.replace(self._permitted.asked, call=call)
        law = self._live.walk.law
        if call is not self._call or self._ruled is None or not law.stands(self._ruled):
            try:
                check_scope(asked.principal, call)
                if call.uses:
                    await self._live.resources.admit(asked, self._provider)
            except CallerError as exc:
                self._refuse(_REFUSED, exc.problem, exc.message)
                return False
            if not await self._permits(asked):
                return False
            self._call = call
        if talk.asks:
            try:
                reserved = await self._live.allowance.reserve(asked, len(message))
            except (LimitReachedError, PriceMissingError) as exc:
                self._refuse(_REFUSED, exc.problem, exc.message)
                return False
            self._reserved.append(reserved)
        talk.passed()
        return True

    def _admit_again(self) -> None:
        """See whether the caller's key is still good, once in a while.

        Raises:
            CallerError: it has expired, or was revoked.
        """
        now_s = asyncio.get_running_loop().time()
        if now_s - self._admitted_s > SESSION_ADMITTED_S_MAX:
            self._admit()
            self._admitted_s = now_s

    async def _permits(self, asked: Asked, status: int = _REFUSED) -> bool:
        """Rule on the session as *asked* has it; one that is not permitted is ended."""
        walk = self._live.walk
        ruled = walk.law.rule(asked, self._provider)
        if ruled.ruling.effect != "permit" and asked.declared:
            await walk.refresh()
            ruled = walk.law.rule(asked, self._provider)
        if ruled.ruling.effect == "permit":
            self._ruled, self._ruling = ruled, ruled.ruling
            return True
        kind = Held if ruled.ruling.effect == "hold" else Forbidden
        code = "use.held" if kind is Held else "use.forbidden"
        async with self._sealing:
            await walk.notary.seal(kind(asked=self._item(asked, b""), ruling=ruled.ruling))
            self._items += 1
        reason = ruled.ruling.reasons[0] if ruled.ruling.reasons else None
        why = f"{reason.policy}/{reason.clause}" if reason is not None else ruled.ruling.effect
        self._refuse(status, code, why)
        return False

    def _refuse(self, status: int, code: str, why: str) -> None:
        """End the session: the caller is told why in its close frame."""
        self._error = code
        self._ended = "cut-short-by-caller"
        self._leave(status, f"{code}: {why} [{self._permitted.asked.exchange}]")

    def _leave(self, status: int, why: str) -> None:
        """Send both sides a close frame, where one can be sent, and end."""
        self._left = True
        if self._readable:
            # Only whole messages were passed on, so that a frame may follow.
            self._caller.close(close_frame(status, why))
            self._upstream.close(close_frame(_LEAVING, "", random_bytes(4)))
        else:
            self._upstream.abort()
            self._caller.abort()

    async def _turns_opaque(self) -> bool:
        """Read no further, if what nobody reads may pass; else end the session."""
        asked = self._permitted.asked
        call = msgspec.structs.replace(self._call, operation=Operation.OPAQUE)
        if not await self._permits(msgspec.structs.replace(asked, call=call), _TOO_LONG):
            return False
        self._readable = False
        self._error = UNREAD
        for turn in self._talk.under_way() if self._talk is not None else ():
            await self._seal(turn, "cut-short-by-provider", readable=False)
        self._talk = None
        return True

    # -- the provider ---------------------------------------------------------------------

    async def _carry_down(self) -> None:
        """Carry what the provider says; what ends an answer waits for its receipt."""
        while data := await self._upstream.read():
            if not self._readable:
                await self._pass_down(self._down.let_go() + data)
                continue
            try:
                for piece in self._down.feed(data):
                    if piece.content is not None and self._talk is not None:
                        for turn in self._talk.hear(piece.content):
                            await self._seal(turn, "complete")
                    self._note_closing(piece, by_caller=False)
                    await self._pass_down(piece.raw)
            except BrokenFrameError:
                self._ended, self._error = "cut-short-by-provider", ProviderBrokeOffError.code
                return
            except LongMessageError:
                if not await self._turns_opaque():
                    return
                await self._pass_down(self._down.let_go())
            if self._over is not None:
                self._refuse(_REFUSED, self._over.problem, self._over.message)
            elif self._stopping and self._talk is not None and not self._talk.under_way():
                self._stop_now()

    async def _pass_down(self, raw: bytes) -> None:
        if self._caller.is_open:
            self._sha256.update(raw)
            self._bytes += len(raw)
            await self._caller.write(raw)

    def _note_closing(self, piece: Piece, *, by_caller: bool) -> None:
        if piece.closing is None or self._closing:
            return
        self._closing = True
        if self._ended is None and self._talk is not None:
            if self._talk.under_way():
                self._ended = "cut-short-by-caller" if by_caller else "cut-short-by-provider"
            elif not by_caller and piece.closing not in _CLEAN:
                self._ended = "cut-short-by-provider"
        if piece.closing not in _CLEAN:
            self._error = f"close-{piece.closing}"
        # Whoever was told to close has so long; then the connections are ended.
        loop = asyncio.get_running_loop()
        loop.call_later(DUPLEX_CLOSE_S_MAX, self._upstream.close)

    async def _seal(self, turn: Turn, ended: Ended, *, readable: bool = True) -> None:
        """Write the receipt of an answer; it is durable on return."""
        answer = turn.answer()
        if not readable:
            answer = Answer(readable=False, whole=False)
        if ended == "complete" and not self._caller.is_open:
            ended = "cut-short-by-caller"
        async with self._sealing:
            asked = self._item(
                msgspec.structs.replace(self._permitted.asked, call=turn.call), turn.request
            )
            answered = answered_item(
                permitted_item(self._permitted, asked, self._ruling),
                answer,
                status=self._status,
                sha256=turn.digest.sha256(),
                size=turn.digest.bytes,
                ended=ended,
            )
            await self._live.walk.notary.seal(answered)
            self._items += 1
        self._live.on_item(answered)
        await self._settle(turn, asked, answer)

    async def _settle(self, turn: Turn, asked: Asked, answer: Answer) -> None:
        """Count what an answer used; one too many for the caller's limits is the last."""
        allowance = self._live.allowance
        try:
            if turn.request and self._reserved:
                reserved = self._reserved.popleft()
            else:
                # Nobody asked for it in so many words: the caller spoke, and was answered.
                reserved = await allowance.reserve(asked, turn.digest.bytes)
            await allowance.settle_answer(reserved, answer)
        except (LimitReachedError, PriceMissingError) as exc:
            self._over = exc
        except LedgerUnwellError as exc:
            # The answer has its receipt; what was held of the limits stays counted.
            self._live.log.warning("ledger.unwell", error=str(exc))

    def _item(self, asked: Asked, request: bytes) -> Asked:
        """Return *asked* as the session's next item."""
        of = self._permitted.asked.exchange
        return msgspec.structs.replace(
            asked,
            exchange=item_id(of, self._items),
            received_ms=self._live.clock.now_ms(),
            body=request,
            item=ItemFacts(of=of, number=self._items),
        )

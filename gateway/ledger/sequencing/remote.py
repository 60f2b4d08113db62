"""A worker's sequencer: asks the hub, in another process, to give its statements their place.

While the hub is away every append fails at once. What was asked and not answered before it went
may or may not have been written: the exchange of such an opening is named to the hub at the
next connection, which closes it as abandoned if it stands; a closing statement is never sent
twice, and the hub lets no exchange be closed twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar, cast

import msgspec

from gateway.errors import (
    GatewayError,
    LedgerUncertainError,
    LedgerUnwellError,
)
from gateway.ident import Sha256
from gateway.ledger.counts import Counts
from gateway.ledger.ports import Foreign, Introducing, Sequenced
from gateway.ledger.sequencing.frames import (
    Ask,
    Frames,
    Hello,
    Refused,
    State,
    Tell,
    Whole,
    error_of,
    frame,
    index_bytes,
    index_of,
    packed,
    placed_leaf,
)
from gateway.ledger.sequencing.hub import brief_of
from gateway.limits import (
    HUB_QUESTION_S_MAX,
    HUB_SILENCE_S_MAX,
    LEAF_BYTES_MAX,
    RECONNECT_S,
    RECONNECT_S_MAX,
    STATEMENTS_WAITING_MAX,
)

_REFUSED: Final = msgspec.msgpack.Decoder(Refused)
_STATE: Final = msgspec.msgpack.Decoder(State)
_WHOLE: Final = msgspec.msgpack.Decoder(Whole)

Answer = TypeVar("Answer")


class RemoteSequencer:
    """Asks the hub; belongs to one event loop, `append_and_wait` and the like to other threads.

    *on_foreign* takes in what others added, before any later append returns; so does *adopt*
    with the library that has come into force.
    """

    def __init__(
        self,
        socket: Path,
        *,
        name: str,
        release: str,
        introduce: Introducing,
        on_foreign: Callable[[Foreign], None],
        adopt: Callable[[Sha256], Awaitable[None]],
        on_alarm: Callable[[str], None],
        on_lost: Callable[[], None],
        on_found: Callable[[], None],
    ) -> None:
        self._socket = socket
        self._name = name
        self._release = release
        self._introduce = introduce
        self._introducing = asyncio.Lock()
        self._on_foreign = on_foreign
        self._adopt = adopt
        self._on_alarm = on_alarm
        self._on_lost = on_lost
        self._on_found = on_found
        self._loop = asyncio.get_running_loop()
        # OWNED BY: the event loop, all below.
        self._seen = 0
        self._line: _Line | None = None
        self._pending: dict[int, tuple[asyncio.Future[bytes], bytes | None]] = {}
        """What was asked and not answered: the leaf, where it was to append one."""
        self._last = 0
        self._doubtful: list[str] = []
        self._state: State | None = None
        self._heard_at = 0.0
        self._damage: GatewayError | None = None
        self._welcome = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def healthy(self) -> bool:
        """Whether appends are taken, and the newest checkpoint could be signed and kept."""
        return self.trouble is None

    @property
    def trouble(self) -> GatewayError | None:
        """What went wrong last, as long as it has not gone right again."""
        if self._damage is not None:
            return self._damage
        if not self._welcome.is_set():
            return _away()
        if self._is_silent():
            return _silent()
        state = self._state
        return None if state is None or state.trouble is None else error_of(state.trouble)

    @property
    def checkpointed_at_ms(self) -> int:
        """When the newest checkpoint was signed; 0 before the first."""
        return 0 if self._state is None else self._state.checkpointed_at_ms

    def start(self, *, seen: int | None = None) -> None:
        """Begin to look for the hub; *seen* is how many leaves are folded here already."""
        self._seen = seen or 0
        self._keeping = self._loop.create_task(self._keep_connected())

    async def connected(self) -> None:
        """Return once the hub has told all that was added since.

        Raises:
            LedgerDamagedError: the hub won't have this process.
        """
        while not self._welcome.is_set():
            if self._damage is not None:
                raise self._damage
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._welcome.wait(), RECONNECT_S)

    async def append(self, leaf: bytes) -> Sequenced:
        """Add *leaf*; it is durable on return, even where the caller was cancelled meanwhile.

        Raises:
            LedgerUncertainError: it may or may not have been added.
            LedgerUnwellError: it was not.
            ExchangeClosedError: it closes an exchange that is not open; it was not added.
        """
        if len(leaf) > LEAF_BYTES_MAX:
            raise LedgerUnwellError(
                f"a leaf of {len(leaf)} bytes is longer than {LEAF_BYTES_MAX}",
                hint="name long things by digest",
            )
        if self._introducing.locked() or self._introduce.first():
            await self._introduce_first()
        answer = await self._ask(Ask.APPEND, leaf, leaf)
        return Sequenced(index_of(answer))

    def append_and_wait(self, leaf: bytes) -> Sequenced:
        """Add *leaf*, blocking this thread, which is not the loop's; see `append`."""
        return self._wait_for(self.append(leaf))

    async def integrated(self, index: int) -> str:
        """Return a checkpoint, a signed note, that covers *index*, once there is one.

        Raises:
            LedgerUnwellError: it can't be signed or kept at present.
        """
        return (await self._ask(Ask.INTEGRATED, index_bytes(index))).decode()

    def checkpoint_now(self) -> str:
        """Have a checkpoint of the ledger as it is now signed and published; return it.

        Blocks this thread, which is not the loop's.

        Raises:
            LedgerUnwellError: it can't be kept.
        """
        return self._wait_for(self._ask(Ask.CHECKPOINT)).decode()

    def refresh(self) -> None:
        """Take in what other processes have added by now; blocks this thread.

        Raises:
            LedgerUnwellError: the hub can't be asked.
        """
        self._wait_for(self._ask(Ask.REFRESH))

    def tell_counts(self, counts: Counts) -> None:
        """Let the hub know what this process has counted; while it is away, it isn't told."""
        if self._line is not None:
            self._line.send(packed(Ask.COUNTS, 0, counts))

    async def whole(self, counts: Counts) -> Whole:
        """Return what all processes have counted; *counts* is what this one has.

        Raises:
            LedgerUnwellError: the hub can't be asked.
        """
        if self._is_silent():
            raise _silent()
        try:
            async with asyncio.timeout(HUB_SILENCE_S_MAX):
                told = await self._ask(Ask.COUNTS, msgspec.msgpack.encode(counts))
        except TimeoutError as late:
            raise _silent() from late
        return _WHOLE.decode(told)

    def stop(self) -> None:
        """Let go of the hub; from any thread but the loop's."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()

    async def _stop(self) -> None:
        self.let_go()

    def let_go(self) -> None:
        """Let go of the hub; on the loop's thread."""
        self._stopped = True
        if self._keeping is not None:
            self._keeping.cancel()
        if self._line is not None:
            self._line.close()

    def _is_silent(self) -> bool:
        return self._loop.time() - self._heard_at > HUB_SILENCE_S_MAX

    # -- the connection --------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        pause_s = RECONNECT_S
        while self._damage is None:
            try:
                _, line = await self._loop.create_unix_connection(
                    lambda: _Line(self), str(self._socket)
                )
            except OSError:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RECONNECT_S_MAX)
                continue
            # Those of which the hub hears now; later doubts are for the next time.
            told = tuple(self._doubtful)
            hello = Hello(
                release=self._release, name=self._name, seen=self._seen, doubtful=told
            )
            line.send(packed(Ask.HELLO, 0, hello))
            if await line.welcomed():
                pause_s = RECONNECT_S
                del self._doubtful[: len(told)]
                await line.over.wait()
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RECONNECT_S_MAX)

    def heard(
        self, line: _Line, kind: int, number: int, content: bytes
    ) -> Awaitable[None] | None:
        """Take in one frame; what is returned must be awaited before the next."""
        self._heard_at = self._loop.time()
        match kind:
            case Tell.PLACED:
                self._seen = max(self._seen, index_of(content) + 1)
                self._settle(number, content)
            case Tell.NOTE | Tell.REFRESHED | Tell.WHOLE:
                self._settle(number, content)
            case Tell.REFUSED if number:
                self._settle(number, error_of(_REFUSED.decode(content)))
            case Tell.REFUSED:
                self._damage = error_of(_REFUSED.decode(content))
            case Tell.FOREIGN:
                self._on_foreign((placed_leaf(content),))
            case Tell.ADOPT:
                return self._adopt(Sha256(content.decode()))
            case Tell.STATE:
                self._state = _STATE.decode(content)
                self._on_alarm(self._state.alarm)
            case Tell.WELCOME:
                self._seen = max(self._seen, index_of(content))
                self._line = line
                self._welcome.set()
                line.welcome()
                self._on_found()
            case _:
                raise ValueError(f"no answer has the number {kind}")
        return None

    def lost(self, line: _Line) -> None:
        """Fail all that was asked and not answered."""
        if self._line is not line:
            return
        self._line = None
        self._state = None
        self._welcome.clear()
        pending, self._pending = self._pending, {}
        for future, leaf in pending.values():
            if leaf is None:
                _fail(future, _away())
                continue
            brief = brief_of(leaf)
            if brief.writer is not None and brief.exchange is not None:
                self._doubtful.append(brief.exchange)
            _fail(future, _uncertain())
        if not self._stopped:
            self._on_lost()

    async def _introduce_first(self) -> None:
        """Have what must come first written, and wait until it is: nothing may overtake it."""
        async with self._introducing:
            leaves = self._introduce.first()
            for leaf in leaves:
                # Where that stays in doubt it is simply said again.
                await self._ask(Ask.APPEND, leaf, leaf)
            self._introduce.introduced(leaves)

    async def _ask(self, kind: Ask, content: bytes = b"", leaf: bytes | None = None) -> bytes:
        if self._damage is not None:
            raise self._damage.with_traceback(None)
        line = self._line
        if line is None:
            raise _away()
        if len(self._pending) >= STATEMENTS_WAITING_MAX:
            raise LedgerUnwellError(
                f"{STATEMENTS_WAITING_MAX} statements are waiting to be written",
                hint="the disk does not keep up; send less, or give the gateway a faster one",
            )
        self._last += 1
        number, future = self._last, self._loop.create_future()
        self._pending[number] = future, leaf
        line.send(frame(kind, number, content))
        answer: bytes = await future
        return answer

    def _settle(self, number: int, outcome: bytes | GatewayError) -> None:
        future, _ = self._pending.pop(number, (None, None))
        if future is None or future.done():
            return
        if isinstance(outcome, bytes):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)

    def _wait_for(self, answer: Awaitable[Answer]) -> Answer:
        async def run() -> Answer:
            return await asyncio.wait_for(answer, HUB_QUESTION_S_MAX)

        try:
            return asyncio.run_coroutine_threadsafe(run(), self._loop).result()
        except TimeoutError as late:
            raise LedgerUnwellError("the sequencer did not answer in time") from late


class _Line(asyncio.Protocol):
    """The connection to the hub; what must be awaited holds up the frames that follow it."""

    def __init__(self, owner: RemoteSequencer) -> None:
        self._owner = owner
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[int, int, bytes]] = deque()
        self._holding: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()
        self._welcomed = False
        self.over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take in what the hub tells."""
        try:
            for told in self._frames.feed(data):
                if self._holding is not None:
                    self._waiting.append(told)
                else:
                    self._hear(told)
        except (ValueError, msgspec.MsgspecError):
            # No hub of ours talks like that.
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, and whoever waits for the welcome."""
        self._transport = None
        self._waiting.clear()
        self._owner.lost(self)
        self._heard.set()
        self.over.set()

    async def welcomed(self) -> bool:
        """Wait to be let in; tell whether we were."""
        await self._heard.wait()
        return self._welcomed

    def welcome(self) -> None:
        """Take note that we were."""
        self._welcomed = True
        self._heard.set()

    def send(self, asked: bytes) -> None:
        """Ask; a connection that is being lost loses it too."""
        if self._transport is not None:
            self._transport.write(asked)

    def close(self) -> None:
        """Let go of the hub now."""
        if self._transport is not None:
            self._transport.abort()

    def _hear(self, told: tuple[int, int, bytes]) -> None:
        held_up_by = self._owner.heard(self, *told)
        if held_up_by is not None:
            self._holding = asyncio.get_running_loop().create_task(self._hold(held_up_by))

    async def _hold(self, held_up_by: Awaitable[None]) -> None:
        await held_up_by
        self._holding = None
        try:
            while self._waiting and self._holding is None:
                self._hear(self._waiting.popleft())
        except (ValueError, msgspec.MsgspecError):
            self.close()


def _away() -> LedgerUnwellError:
    return LedgerUnwellError(
        "the process that writes the ledger is away; it is being started again",
        hint="try again in a moment; if it stays away, the operator must read its log",
    )


def _silent() -> LedgerUnwellError:
    return LedgerUnwellError(
        f"the process that writes the ledger has said nothing for {HUB_SILENCE_S_MAX:.0f} s",
        hint="the operator must find out what holds it up; the disk, most likely",
    )


def _uncertain() -> LedgerUncertainError:
    return LedgerUncertainError(
        "the process that writes the ledger went away before it said whether it had written",
        hint="it is found out when it is back; try again in a moment",
    )


def _fail(future: asyncio.Future[bytes], error: GatewayError) -> None:
    if not future.done():
        future.set_exception(error)

"""One process gives statements their place for many: the hub that workers are connected to.

Leaves of all workers go through one sequencer and share its commits. Before a worker hears
where its leaf went it has been sent every leaf with a lower index that the register is made of,
whoever added it. The hub knows every exchange that is open, whose it is, and lets none be
closed twice; what belongs to a worker that has ended is closed as abandoned.
"""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec

from gateway.errors import (
    ExchangeClosedError,
    GatewayError,
    LedgerDamagedError,
    LedgerUnwellError,
)
from gateway.ident import ExchangeId, Sha256
from gateway.ledger.counts import PRESENT, Counts
from gateway.ledger.ports import Foreign, Sequenced
from gateway.ledger.sequencing.frames import (
    Ask,
    Frames,
    Hello,
    State,
    Tell,
    Whole,
    frame,
    index_bytes,
    index_of,
    packed,
    refused_of,
)
from gateway.ledger.sequencing.sequencer import Sequencer
from gateway.limits import HUB_BYTES_UNREAD_MAX, HUB_SILENCE_S_MAX
from gateway.receipt.model import ABANDONMENT_TYPE, RECEIPT_TYPE, REFUSAL_TYPE
from gateway.receipt.statement import is_opening
from gateway.store.ports import LedgerStore

Abandon = Callable[[list[tuple[ExchangeId, int]], str], Awaitable[int]]
"""Closes exchanges (each with its opening's index) as abandoned, and says how many."""

_CLOSING: Final = frozenset({RECEIPT_TYPE, REFUSAL_TYPE, ABANDONMENT_TYPE})
_PAYLOAD_AT: Final = len(b'{"payload":"')


class Brief(msgspec.Struct, frozen=True):
    """The little of a leaf that the hub must know."""

    exchange: str | None = None
    opening: int | None = None
    """The leaf that a closing statement closes."""
    writer: str | None = None
    """Who opened an exchange."""
    relevant: bool = False
    """Whether a register might be made of it."""


class _Predicate(msgspec.Struct):
    exchange: str | None = None
    opening: int | None = None
    item: msgspec.Raw | None = None


class _Wire(msgspec.Struct):
    predicate: _Predicate
    predicate_type: str = msgspec.field(name="predicateType")


class _Opening(msgspec.Struct):
    exchange: str
    writer: str


_WIRE: Final = msgspec.json.Decoder(_Wire)
_OPENING: Final = msgspec.json.Decoder(_Opening)
_HELLO: Final = msgspec.msgpack.Decoder(Hello)
_COUNTS: Final = msgspec.msgpack.Decoder(Counts)


def brief_of(leaf: bytes) -> Brief:
    """Return what the hub must know of *leaf*; what it can't read might concern everybody."""
    try:
        if is_opening(leaf):
            opening = _OPENING.decode(leaf)
            return Brief(exchange=opening.exchange, writer=opening.writer)
        payload = binascii.a2b_base64(leaf[_PAYLOAD_AT : leaf.index(b'"', _PAYLOAD_AT)])
        wire = _WIRE.decode(payload)
    except (ValueError, msgspec.MsgspecError):
        return Brief(relevant=True)
    if wire.predicate_type in _CLOSING:
        if wire.predicate.item is not None:
            # One of many things that an exchange asked for: it closes nothing.
            return Brief(exchange=wire.predicate.exchange)
        return Brief(exchange=wire.predicate.exchange, opening=wire.predicate.opening)
    return Brief(relevant=True)


@dataclass(frozen=True, slots=True)
class _Opened:
    exchange: str
    writer: str


class Hub:
    """Serves workers over one sequencer, and is one itself for the process that it lives in."""

    def __init__(
        self,
        sequencer: Sequencer,
        leaves: LedgerStore,
        *,
        release: str,
        is_alive: Callable[[str], bool],
        on_relevant: Callable[[int, bytes], None],
        library: Callable[[], Sha256 | None],
        on_stir: Callable[[], None],
        counts: Callable[[], Counts] = dict,
    ) -> None:
        self._sequencer = sequencer
        self._leaves = leaves
        self._release = release
        self._is_alive = is_alive
        self._on_relevant = on_relevant
        self._library = library
        self._on_stir = on_stir
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        # OWNED BY: the event loop, all below.
        self._lines: set[_Line] = set()
        self._open: dict[int, _Opened] = {}
        self._closing: set[int | None] = set()
        self._forsaken: set[int] = set()
        self._ended: Counts = {}
        self._known = 0
        """All leaves below have been looked at."""
        self._refreshing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.departed_at = float("-inf")
        """When a worker's connection was over last, by the loop's clock."""
        self.alarm = ""
        """Why newer policies could not be put in force; workers are told."""

    # -- what every sequencer does ---------------------------------------------------------

    @property
    def healthy(self) -> bool:
        """Whether appends are taken, and the newest checkpoint could be signed and kept."""
        return self._sequencer.healthy

    @property
    def trouble(self) -> GatewayError | None:
        """What went wrong last, as long as it has not gone right again."""
        return self._sequencer.trouble

    @property
    def checkpointed_at_ms(self) -> int:
        """When the newest checkpoint of this process was signed; 0 before the first."""
        return self._sequencer.checkpointed_at_ms

    def start(self, *, seen: int | None = None) -> None:
        """Check the ledger against its last checkpoint, and begin to take statements."""
        self._sequencer.start(seen=seen)
        self._known = self._leaves.head().size if seen is None else seen

    async def append(self, leaf: bytes) -> Sequenced:
        """Add *leaf* for this process itself; see `Sequencing.append`.

        Raises:
            ExchangeClosedError: it closes an exchange that is not open; it was not added.
        """
        return Sequenced(await self._append(leaf))

    def append_and_wait(self, leaf: bytes) -> Sequenced:
        """Add *leaf*, blocking this thread, which is not the loop's; see `append`."""
        return asyncio.run_coroutine_threadsafe(self.append(leaf), self._loop).result()

    async def integrated(self, index: int) -> str:
        """Return a checkpoint, a signed note, that covers *index*, once there is one."""
        return await self._sequencer.integrated(index)

    def checkpoint_now(self) -> str:
        """Sign, publish and return a checkpoint of the ledger as it is now."""
        return self._sequencer.checkpoint_now()

    def stop(self) -> None:
        """Write what is waiting, have a last checkpoint published, and end the threads."""
        self._sequencer.stop()

    # -- exchanges that are open -----------------------------------------------------------

    def resume(self, unclosed: Iterable[tuple[ExchangeId, int]]) -> None:
        """Take note of what was open when this process began."""
        for exchange, index in unclosed:
            (leaf,) = self._leaves.leaves(index, index + 1)
            self._open[index] = _Opened(exchange, brief_of(leaf).writer or "")

    async def sweep(self, abandon: Abandon) -> int:
        """Close what nobody else will close any more; return how many exchanges.

        Raises:
            GatewayError: the rest could not be closed at present.
        """
        here = self.names
        gone = {
            writer
            for writer in {one.writer for one in self._open.values()} - here
            if not self._is_alive(writer)
        }
        ended = [
            (ExchangeId(one.exchange), index)
            for index, one in self._open.items()
            if one.writer in gone and index not in self._closing
        ]
        count = await abandon(ended, "process-ended") if ended else 0
        forsaken = [
            (ExchangeId(self._open[index].exchange), index)
            for index in sorted(self._forsaken)
            if index in self._open and index not in self._closing
        ]
        if forsaken:
            count += await abandon(forsaken, "ledger-failed")
        self._forsaken &= self._open.keys()
        return count

    # -- workers ---------------------------------------------------------------------------

    def line(self) -> asyncio.Protocol:
        """Return the protocol of a worker's connection that was accepted."""
        return _Line(self)

    @property
    def names(self) -> set[str]:
        """The workers that are connected."""
        return {line.name for line in self._lines if line.name}

    @property
    def busy(self) -> bool:
        """Whether any worker is connected, or something that one asked for is not done."""
        return bool(self._lines)

    def beat(self) -> None:
        """Tell every worker how the ledger is."""
        trouble = self.trouble
        state = packed(
            Tell.STATE,
            0,
            State(
                trouble=None if trouble is None else refused_of(trouble),
                checkpointed_at_ms=self.checkpointed_at_ms,
                alarm=self.alarm,
            ),
        )
        for line in list(self._lines):
            line.send(state)

    async def put_in_force(self, leaf: bytes, library: Sha256) -> int:
        """Add the leaf of an activation; all workers have *library* before any later leaf."""
        return await self._append(leaf, library)

    def adopt(self, library: Sha256) -> None:
        """Have all workers rule by *library*, which is in force already."""
        for line in list(self._lines):
            line.send(frame(Tell.ADOPT, 0, library.encode()))

    def foreign(self, foreign: Foreign) -> None:
        """Take note of what other processes added; called before an append after it returns."""
        for index, leaf in foreign:
            self._note(index, leaf, brief_of(leaf), None)

    def knock(self, line: _Line) -> None:
        """Let *line* in."""
        self._lines.add(line)

    def leave(self, line: _Line) -> None:
        """Forget *line*: its worker is gone, and all that it asked for has been done."""
        self._lines.discard(line)
        self.departed_at = self._loop.time()
        for name, value in line.counts.items():
            if not name.startswith(PRESENT):
                self._ended[name] = self._ended.get(name, 0) + value
        self._on_stir()

    def heard(self, line: _Line, kind: int, number: int, content: bytes) -> None:
        """Do what a worker asks."""
        line.heard_at = self._loop.time()
        if kind == Ask.APPEND:
            self._append_for(line, number, content)
            return
        match kind:
            case Ask.HELLO:
                work = self._welcome(line, _HELLO.decode(content))
            case Ask.INTEGRATED:
                work = self._note_for(line, number, self.integrated(index_of(content)))
            case Ask.CHECKPOINT:
                now = asyncio.to_thread(self.checkpoint_now)
                work = self._note_for(line, number, now)
            case Ask.REFRESH:
                work = self._refresh_for(line, number)
            case Ask.COUNTS:
                line.counts = _COUNTS.decode(content)
                if number:
                    line.send(packed(Tell.WHOLE, number, self._whole()))
                return
            case _:
                raise ValueError(f"no question has the number {kind}")
        line.under_way += 1
        self._spawn(self._finish(line, work))

    # -- inside ----------------------------------------------------------------------------

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, line: _Line, work: Awaitable[None]) -> None:
        try:
            await work
        except GatewayError:
            # What it wanted can't be had at present; it tries again over a new connection.
            line.cut()
        finally:
            line.done()

    def _append_for(self, line: _Line, number: int, leaf: bytes) -> None:
        # Most of what the hub does: no task of its own, but a call when the leaf has its place.
        def answer(taken: asyncio.Future[Sequenced]) -> None:
            try:
                index = self._taken(taken.result(), leaf, brief, line)
            except GatewayError as error:
                self._closing.discard(brief.opening)
                line.send(packed(Tell.REFUSED, number, refused_of(error)))
            else:
                line.send(frame(Tell.PLACED, number, index_bytes(index)))
            line.done()

        line.under_way += 1
        brief = brief_of(leaf)
        try:
            taken = self._take(leaf, brief)
        except GatewayError as error:
            line.send(packed(Tell.REFUSED, number, refused_of(error)))
            line.done()
        else:
            taken.add_done_callback(answer)

    async def _append(self, leaf: bytes, adopt: Sha256 | None = None) -> int:
        brief = brief_of(leaf)
        taken = self._take(leaf, brief)
        try:
            sequenced = await taken
        except GatewayError:
            self._closing.discard(brief.opening)
            raise
        if adopt is not None:
            self.adopt(adopt)
        return self._taken(sequenced, leaf, brief, None)

    def _take(self, leaf: bytes, brief: Brief) -> asyncio.Future[Sequenced]:
        if brief.opening is not None:
            self._check_open(brief.opening, brief)
        taken = self._sequencer.append_soon(leaf)
        if brief.opening is not None:
            self._closing.add(brief.opening)
        return taken

    def _taken(
        self, sequenced: Sequenced, leaf: bytes, brief: Brief, line: _Line | None
    ) -> int:
        # What others added before it has been noted: `foreign` runs ahead of this.
        self._closing.discard(brief.opening)
        self._note(sequenced.index, leaf, brief, line)
        return sequenced.index

    def _check_open(self, opening: int, brief: Brief) -> None:
        opened = self._open.get(opening)
        if opened is None or opened.exchange != brief.exchange:
            raise ExchangeClosedError(f"exchange `{brief.exchange}` is not open (any more)")
        if opening in self._closing:
            raise LedgerUnwellError(f"exchange `{brief.exchange}` is being closed just now")

    def _note(self, index: int, leaf: bytes, brief: Brief, source: _Line | None) -> None:
        self._known = max(self._known, index + 1)
        if brief.writer is not None and brief.exchange is not None:
            self._open[index] = _Opened(brief.exchange, brief.writer)
        elif brief.opening is not None:
            self._open.pop(brief.opening, None)
        elif brief.relevant:
            self._pass_on(index, leaf, source)

    def _pass_on(self, index: int, leaf: bytes, source: _Line | None) -> None:
        self._on_relevant(index, leaf)
        told = frame(Tell.FOREIGN, 0, index_bytes(index) + leaf)
        for line in list(self._lines):
            if line is not source and line.name:
                line.send(told)

    async def _welcome(self, line: _Line, hello: Hello) -> None:
        if hello.release != self._release:
            # The package was replaced under running processes: they are started anew.
            line.refuse(
                LedgerDamagedError(
                    f"the sequencer is of release {self._release}, this worker of"
                    f" {hello.release}",
                    hint="restart the gateway",
                )
            )
            return
        for old in [one for one in self._lines if one.name == hello.name]:
            # What it asked for over its last connection comes first.
            await old.over.wait()
        # From here on it is told what comes; what came before is read for it now.
        line.name = hello.name
        size = self._leaves.head().size
        if hello.seen > size:
            line.refuse(
                LedgerDamagedError(
                    f"the ledger has {size} leaves and had {hello.seen} before",
                    hint="restore the newest copy, never an older one",
                )
            )
            return
        for index, leaf in await asyncio.to_thread(self._relevant, hello.seen, size):
            line.send(frame(Tell.FOREIGN, 0, index_bytes(index) + leaf))
        doubtful = set(hello.doubtful)
        self._forsaken |= {
            index
            for index, opened in self._open.items()
            if opened.exchange in doubtful and opened.writer == hello.name
        }
        self._on_stir()
        library = self._library()
        if library is not None:
            line.send(frame(Tell.ADOPT, 0, library.encode()))
        line.send(frame(Tell.WELCOME, 0, index_bytes(size)))
        self.beat()

    def _relevant(self, first: int, stop: int) -> Sequence[tuple[int, bytes]]:
        return [
            (index, leaf)
            for index, leaf in enumerate(self._leaves.leaves(first, stop), first)
            if brief_of(leaf).relevant
        ]

    async def _note_for(self, line: _Line, number: int, note: Awaitable[str]) -> None:
        try:
            line.send(frame(Tell.NOTE, number, (await note).encode()))
        except GatewayError as error:
            line.send(packed(Tell.REFUSED, number, refused_of(error)))

    async def _refresh_for(self, line: _Line, number: int) -> None:
        """Tell all workers what others have added since; then answer."""
        try:
            async with self._refreshing:
                first, size = self._known, self._leaves.head().size
                if first < size:
                    for index, leaf in await asyncio.to_thread(self._relevant, first, size):
                        self._pass_on(index, leaf, None)
        except GatewayError as error:
            line.send(packed(Tell.REFUSED, number, refused_of(error)))
        else:
            line.send(frame(Tell.REFRESHED, number))

    def _whole(self) -> Whole:
        counts = {**self._ended, **self._counts()}
        lines = [line for line in self._lines if line.name]
        for line in lines:
            for name, value in line.counts.items():
                counts[name] = counts.get(name, 0) + value
        quiet = self._loop.time() - HUB_SILENCE_S_MAX
        silent = sum(line.heard_at < quiet for line in lines)
        return Whole(counts=counts, workers=len(lines), silent=silent)


class _Line(asyncio.Protocol):
    """One worker's connection."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._gone = False
        self.name = ""
        self.counts: Counts = {}
        self.heard_at = 0.0
        self.under_way = 0
        """Questions that are not answered yet."""
        self.over = asyncio.Event()
        """Set when the worker is gone and nothing of its is under way."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the worker in."""
        self._transport = cast(asyncio.Transport, transport)
        self._hub.knock(self)

    def data_received(self, data: bytes) -> None:
        """Hear what the worker asks."""
        try:
            for kind, number, content in self._frames.feed(data):
                self._hub.heard(self, kind, number, content)
        except (ValueError, msgspec.MsgspecError):
            # No worker of ours talks like that.
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the worker is gone; what it asked for is still done."""
        self._gone = True
        self._transport = None
        if self.under_way == 0:
            self._end()

    def done(self) -> None:
        """Take note that one question was answered."""
        self.under_way -= 1
        if self._gone and self.under_way == 0:
            self._end()

    def send(self, told: bytes) -> None:
        """Tell the worker; one that reads nothing is cut off."""
        transport = self._transport
        if transport is None:
            return
        transport.write(told)
        if transport.get_write_buffer_size() > HUB_BYTES_UNREAD_MAX:
            self.cut()

    def refuse(self, error: GatewayError) -> None:
        """Turn the worker away for good."""
        self.send(packed(Tell.REFUSED, 0, refused_of(error)))
        if self._transport is not None:
            self._transport.close()

    def cut(self) -> None:
        """Let go of the worker now."""
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        self.over.set()
        self._hub.leave(self)

"""The desk for batches: takes their requests in, begins them, and hands their results out.

What it makes of an exchange is an errand: the exchange walks through the house like any other,
and at each door the errand does for every line what the house does for the exchange.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, cast, get_args

import msgspec

from gateway.batch.elements import Elements, MissingArrayError, NoArrayError
from gateway.batch.form import Form, NoFormError, Part
from gateway.batch.judge import Judge, Judged, Mode
from gateway.batch.model import Begun, Set, Source, decode_begun, decode_set, encode
from gateway.batch.pieces import Cut, Piece, lines_of
from gateway.batch.results import Document, Results
from gateway.batch.spool import Spool
from gateway.budget.estimate import LinesSum
from gateway.errors import BatchRefusedError, BodyTooLargeError
from gateway.exchange.allowance import Allowance, Reserved
from gateway.exchange.body import StreamedBody
from gateway.exchange.forward import ProviderResponse
from gateway.exchange.items import Items
from gateway.exchange.providers import Provider
from gateway.exchange.rule import Law, Ruled
from gateway.exchange.states import Answered, Asked, Forbidden, Held, Permitted
from gateway.ident import ExchangeId
from gateway.intent.model import Declaration, declaration_id
from gateway.ledger.register import Register
from gateway.limits import (
    BATCH_FORM_FIELD_BYTES_MAX,
    BODY_BYTES_MAX,
    SPOOLS_AT_ONCE,
    UPLOADS_KEPT_MAX,
)
from gateway.provider.batch import Batches, Handing
from gateway.provider.batches import batches_of
from gateway.provider.model import Problem, ProviderCall, Resource
from gateway.receipt.model import Receipt, Ruling
from gateway.receipt.statement import read_leaf
from gateway.store.index import Kept
from gateway.store.lines import Asking, Lines

SPOOL: Final = "spool"
"""The folder in which bodies are put aside, in the data folder."""

HEADER: Final = "x-gateway-lines"
"""Says what is done about lines that may not leave: `refuse` (all of them stay) or `drop`."""

_MODES: Final = get_args(Mode)
_PIECES: Final = frozenset({b"x-goog-upload-command", b"x-goog-upload-offset"})
_OUTPUTS: Final = frozenset({"output", "errors"})


class Known(Protocol):
    """What the ledger knows; both may block."""

    def resource(self, provider: str, kind: str, id: str) -> Kept | None:  # noqa: A002 — its name
        """Return what is known of a resource at *provider*, or `None`."""
        ...

    def find(self, exchange: ExchangeId) -> tuple[int, bytes] | None:
        """Return index and leaf of the statement that closed *exchange*, or `None`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """What the door knows of a request beside what is asked."""

    headers: Mapping[str, str]
    """By lower-case names."""
    encoded: bool
    """The body comes in a content-encoding."""
    chunks: AsyncIterator[bytes]
    length: int | None
    mode: str | None
    """What the caller wants done about lines that may not leave."""
    declared: bool
    """The request itself says what it is for; else it is the key, or nobody."""


class Errand:
    """An exchange about a batch; implements the walk's `Errand`."""

    drops: frozenset[bytes] = frozenset()
    """Headers that don't go on."""
    adds: tuple[tuple[bytes, bytes], ...] = ()
    """Headers that go on in the place of some."""
    reserved: Reserved | None = None
    """What is held of limits for the requests that begin with it; set by the door."""
    answer: tuple[tuple[bytes, bytes], ...] | None = None
    """Set where the gateway answers itself, with these headers, and forwards nothing."""

    def __init__(self, asked: Asked, law: Law) -> None:
        self.asked = asked
        """As it is asked now: with another body, or under another declaration."""
        self.law = law

    def rule(self, asked: Asked, provider: Provider) -> Ruled:
        """Return the ruling on the exchange itself."""
        return self.law.rule(asked, provider)

    def begun(self) -> Sequence[tuple[ProviderCall, LinesSum]]:
        """Return the requests that begin with it, kind by kind."""
        return ()

    async def opened(self, permitted: Permitted) -> None:
        """Do what must be durable before the provider is dialled."""

    def reader(self, permitted: Permitted, response: ProviderResponse) -> Results | None:
        """Return what reads the answer item by item, or `None` where it has none."""
        return None

    def problem(self, outcome: Held | Forbidden) -> Problem | None:
        """Return what the caller is told of a refusal, where that is about lines."""
        return None

    async def close(self, outcome: Answered | Held | Forbidden | None) -> None:
        """Let go of everything, however the exchange came out."""


@dataclass(frozen=True, kw_only=True)
class BatchDesk:
    """Makes errands; built once, in `app/`."""

    judge: Judge
    law: Law
    register: Register
    lines: Lines
    items: Items
    known: Known
    folder: Path
    """Where bodies are put aside."""
    commitment_key: bytes
    on_item: Callable[[Answered], None]
    allowance: Allowance
    """Told of each item once it is durable: its usage is counted here and nowhere else."""
    # OWNED BY: the event loop. Uploads whose last piece has not come yet.
    _kept: dict[tuple[str, ...], Spool] = field(default_factory=dict)
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SPOOLS_AT_ONCE))

    async def errand(
        self, asked: Asked, provider: Provider, incoming: Incoming
    ) -> Errand | None:
        """Return what *asked* has to do with a batch; `None`: nothing.

        Raises:
            BatchRefusedError: it would hand in, or begin, what nobody judged, or a line of it
                can't be read.
            BodyTooLargeError: a batch is larger than what is passed on at all.
            SpoolError: it could not be put aside.
            CallerGoneError: the caller hung up in the middle of it.
            LedgerUnwellError: what was found of it could not be kept.
        """
        batches = batches_of(provider.dialect)
        if batches is None:
            return None
        unseen = batches.refused(asked.call)
        if unseen is not None:
            raise BatchRefusedError(unseen.why, hint=unseen.hint, code=unseen.code)
        handing = batches.handing(asked.call, incoming.headers)
        if handing is not None:
            return await self._hand_in(asked, provider, batches, handing, incoming)
        begun = batches.begun(asked.call)
        if begun is not None:
            return await self._begin(asked, provider, batches, begun, incoming)
        results = batches.results(asked.call)
        if results is not None:
            return await self._hand_out(asked, provider, batches, results)
        return None

    # -- requests come in -----------------------------------------------------------------

    async def _hand_in(
        self,
        asked: Asked,
        provider: Provider,
        batches: Batches,
        handing: Handing,
        incoming: Incoming,
    ) -> Errand:
        mode = _mode_of(incoming.mode)
        if incoming.encoded:
            if handing.form == "form-part":
                # Nothing of it is read, so that no batch can be made of it.
                return Errand(asked, self.law)
            raise BatchRefusedError(
                "the requests come in a content-encoding", hint="send them as they are"
            )
        spool = await self._spool(asked, handing)
        try:
            around: Elements | None = None
            if handing.form == "form-part":
                passing, start, stop = await self._put_aside(asked, spool, handing, incoming)
                if passing is not None:
                    return _Aside(passing, self.law, self, spool)
                pieces = lines_of(spool.read(start, stop), start)
            else:
                async for chunk in _bounded(incoming.chunks, spool.size):
                    await spool.add(chunk)
                await spool.end()
                pieces = lines_of(spool.read(), 0)
                if handing.form == "array":
                    pieces = aiter(around := Elements(spool.read(), handing.array))
            if not handing.last:
                self._keep(asked, handing, spool)
                return _Kept(asked, self.law, spool.size)
            if handing.upload is not None and not incoming.declared:
                asked = await self._as_declared(asked, provider, handing.upload)
            try:
                judged = await self._judged(asked, provider, batches, mode, pieces)
            except MissingArrayError as wrong:
                return await self._begin_of(asked, provider, batches, wrong, spool, incoming)
            if around is not None:
                await self._check_around(asked, batches, around.around)
            now = self._outgoing(asked, spool, judged)
            path = batches.asked_at(asked.call) if handing.begins else None
            return _HandIn(now, self, provider, judged, spool, handing=handing, asked_at=path)
        except BaseException:
            self.release(spool)
            raise

    async def _spool(self, asked: Asked, handing: Handing) -> Spool:
        """Return where the body is put aside: behind what came of it before, if anything did.

        Raises:
            SpoolError: the disk does not take it.
        """
        if not handing.first:
            spool = self._kept.pop(_name_of(asked, handing), None)
            if spool is None:
                raise BatchRefusedError(
                    "the upload was not begun here, or too long ago", hint="begin it again"
                )
            return spool
        if len(self._kept) >= UPLOADS_KEPT_MAX:
            # Whoever began it has probably gone.
            self.release(self._kept.pop(next(iter(self._kept))))
        await self._room.acquire()
        try:
            return Spool(self.folder)
        except BaseException:
            self._room.release()
            raise

    def _keep(self, asked: Asked, handing: Handing, spool: Spool) -> None:
        """Keep what came of an upload until the rest comes."""
        before = self._kept.pop(name := _name_of(asked, handing), None)
        if before is not None:
            self.release(before)
        self._kept[name] = spool

    async def _as_declared(self, asked: Asked, provider: Provider, upload: Resource) -> Asked:
        """Return *asked* for the use for which its upload was begun."""
        kept = await asyncio.to_thread(self.known.resource, provider.id, upload.kind, upload.id)
        closed = (
            None if kept is None else await asyncio.to_thread(self.known.find, kept.exchange)
        )
        receipt = None if closed is None else read_leaf(closed[1])
        owner = (asked.principal.name, asked.principal.project)
        if not isinstance(receipt, Receipt) or owner != (
            receipt.caller.principal,
            receipt.caller.project,
        ):
            return asked
        declared = receipt.declared
        project = receipt.caller.project
        name = declared.declaration or declaration_id(project, declared.use)
        declaration = self.register.declaration(name) or Declaration(
            id=name, project=project, use=declared.use
        )
        return msgspec.structs.replace(
            asked, declaration=declaration, declared=declared.declaration is not None
        )

    async def _begin_of(
        self,
        asked: Asked,
        provider: Provider,
        batches: Batches,
        told: MissingArrayError,
        spool: Spool,
        incoming: Incoming,
    ) -> Errand:
        """Return the beginning of a batch whose document names a file and holds no requests."""
        call = msgspec.structs.replace(asked.call, body=told.document)
        begun = batches.begun(call)
        if begun is None:
            raise BatchRefusedError(
                f"the requests can't be read: {told}", hint="send them as the SDKs do"
            )
        again = _again(msgspec.structs.replace(asked, call=call), self, spool)
        errand = await self._begin(again, provider, batches, begun, incoming)
        errand.spool = spool
        return errand

    async def _check_around(
        self, asked: Asked, batches: Batches, around: dict[str, Any]
    ) -> None:
        """Refuse a document that names a file beside its requests: nobody knows what counts."""
        if batches.begun(msgspec.structs.replace(asked.call, body=around)) is not None:
            await asyncio.to_thread(self.lines.drop_texts, asked.exchange)
            raise BatchRefusedError(
                "the batch is of requests and of a file", hint="send it as two"
            )

    async def _put_aside(
        self, asked: Asked, spool: Spool, handing: Handing, incoming: Incoming
    ) -> tuple[Asked | None, int, int]:
        """Put the body aside; return where its lines stand, or what passes on unread.

        A form whose purpose is another passes on as soon as it says so.
        """
        reading = _Reading(incoming.headers.get("content-type", ""), handing)
        held: list[bytes] | None = []
        async for chunk in _bounded(incoming.chunks):
            reading.feed(chunk)
            if held is None:
                await spool.add(chunk)
                continue
            held.append(chunk)
            if reading.is_other:
                return _passed(asked, self, held, incoming), 0, 0
            if reading.may_hold_lines or not _short(held):
                for one in held:
                    await spool.add(one)
                held = None
        for one in held or ():
            await spool.add(one)
        await spool.end()
        part = reading.finish()
        if part is not None:
            return None, part.start, part.stop
        if reading.is_wanted:
            raise BatchRefusedError(
                f"the form can't be read: {reading.broken or 'it has no file'}",
                hint=f"send one part `{handing.part}` and one `{handing.only[0]}`",
            )
        return _again(asked, self, spool), 0, 0

    async def _judged(
        self,
        asked: Asked,
        provider: Provider,
        batches: Batches,
        mode: Mode,
        pieces: AsyncIterator[Piece],
    ) -> Judged:
        try:
            judged = await self.judge.judge(asked, provider, batches, pieces, mode)
        except MissingArrayError:
            raise
        except NoArrayError as wrong:
            raise BatchRefusedError(
                f"the requests can't be read: {wrong}", hint="send them as the SDKs do"
            ) from wrong
        found = judged.set
        if not found.forwarded and judged.worst is None:
            what = "no lines" if found.lines.count == 0 else "lines that can't be read"
            raise BatchRefusedError(
                f"the batch has {what}{_listed(judged.told)}",
                hint=f"see /-/batches/{asked.exchange}/lines for all of them",
            )
        return judged

    def _outgoing(self, asked: Asked, spool: Spool, judged: Judged) -> Asked:
        cut = judged.cut if judged.set.forwarded else Cut()
        return msgspec.structs.replace(
            asked,
            lines=judged.set.lines,
            body=StreamedBody(
                spool.without(cut),
                spool.size - cut.size,
                asked.exchange,
                self.commitment_key,
            ),
        )

    def release(self, spool: Spool) -> None:
        """Let go of what was put aside."""
        spool.close()
        self._room.release()

    # -- a batch begins -------------------------------------------------------------------

    async def _begin(
        self,
        asked: Asked,
        provider: Provider,
        batches: Batches,
        named: Resource,
        incoming: Incoming,
    ) -> _Begin:
        kept = await asyncio.to_thread(self.known.resource, provider.id, named.kind, named.id)
        owner = (asked.principal.name, asked.principal.project)
        found = None
        if kept is not None and (kept.principal, kept.project) == owner:
            found = await self._set_of(kept.exchange)
        if kept is None or found is None or not found.forwarded:
            raise BatchRefusedError(
                f"nobody judged the lines of `{named.id[:64]}`",
                hint="send the file through this gateway, as a batch, and begin it then",
                code="batch.unjudged",
            )
        meant = (found.declaration, found.declared)
        if incoming.declared and (asked.declaration.id, asked.declared) != meant:
            raise BatchRefusedError(
                f"the file was handed in under {_said(found)}",
                hint="begin the batch under the same declaration, or say nothing",
                code="batch.declared_otherwise",
            )
        declaration = self.register.declaration(found.declaration) or found.declared_as()
        now = msgspec.structs.replace(asked, declaration=declaration, declared=found.declared)
        return _Begin(now, self, provider, kept.exchange, found, batches.asked_at(asked.call))

    async def _set_of(self, exchange: ExchangeId) -> Set | None:
        handed = await asyncio.to_thread(self.lines.handed, exchange)
        return None if handed is None else decode_set(handed.about)

    # -- results come out -----------------------------------------------------------------

    async def _hand_out(
        self, asked: Asked, provider: Provider, batches: Batches, named: Resource
    ) -> Errand | None:
        kept = await asyncio.to_thread(self.known.resource, provider.id, named.kind, named.id)
        if kept is not None and named.kind != "batch":
            kind, _, name = (kept.of or "").partition("/")
            if kept.role not in _OUTPUTS or kind != "batch":
                return None
            kept = await asyncio.to_thread(self.known.resource, provider.id, kind, name)
        if kept is None:
            return None
        found = await asyncio.to_thread(self._source, kept.exchange)
        if found is None:
            return None
        source, receipt = found
        return _HandOut(asked, self, provider, batches, source, receipt)

    def _source(self, of: ExchangeId) -> tuple[Source, Receipt] | None:
        """Return where results come from that the exchange *of* asked for."""
        asking = self.lines.asked(of)
        handed = None if asking is None else self.lines.handed(asking.input)
        closed = self.known.find(of)
        if asking is None or handed is None or closed is None:
            return None
        receipt = read_leaf(closed[1])
        if not isinstance(receipt, Receipt):
            return None
        source = Source(
            of=of,
            input=asking.input,
            set=decode_set(handed.about),
            begun=decode_begun(asking.about),
        )
        return source, receipt


class _Reading:
    """A form that may hand in lines, while it comes."""

    def __init__(self, content_type: str, handing: Handing) -> None:
        self._handing = handing
        self.broken = ""
        """Why it is no form, or one that could be read in two ways."""
        self._told: str | None = None
        self._form: Form | None = None
        try:
            self._form = Form(content_type)
        except NoFormError as wrong:
            self.broken = str(wrong)

    @property
    def is_wanted(self) -> bool:
        """Whether it says that it hands in lines."""
        return self._told == self._handing.only[1]

    @property
    def is_other(self) -> bool:
        """Whether it says that it hands in something else, or nothing that can be read."""
        return not self.is_wanted and (self._told is not None or bool(self.broken))

    @property
    def may_hold_lines(self) -> bool:
        """Whether the part has begun that would hold them."""
        return self._form is not None and any(
            part.name == self._handing.part for part in self._form.parts
        )

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        if self._form is None or self.broken:
            return
        try:
            self._form.feed(chunk)
            self._tell(self._form)
        except NoFormError as wrong:
            self.broken = str(wrong)

    def finish(self) -> Part | None:
        """Take the end; return the part that holds the lines, if it is a form that has one."""
        if self._form is None or self.broken:
            return None
        try:
            self._form.finish()
            self._tell(self._form)
            part = self._form.part(self._handing.part)
        except NoFormError as wrong:
            self.broken = str(wrong)
            return None
        return part if self.is_wanted else None

    def _tell(self, form: Form) -> None:
        said = form.field(self._handing.only[0])
        if said is not None:
            self._told = said.decode("latin-1").strip()


class _Aside(Errand):
    """A body that was put aside and turned out to hold no batch."""

    def __init__(self, asked: Asked, law: Law, desk: BatchDesk, spool: Spool) -> None:
        super().__init__(asked, law)
        self._desk = desk
        self._spool = spool

    async def close(self, outcome: Answered | Held | Forbidden | None) -> None:
        self._desk.release(self._spool)


class _Kept(Errand):
    """A piece of an upload that was put aside; nothing is forwarded before the last one."""

    def __init__(self, asked: Asked, law: Law, size: int) -> None:
        super().__init__(asked, law)
        self.answer = (
            (b"x-goog-upload-status", b"active"),
            (b"x-goog-upload-size-received", b"%d" % size),
        )


class _OfMany(Errand):
    """An errand that is ruled on for each kind of line that it is about."""

    def __init__(
        self,
        asked: Asked,
        desk: BatchDesk,
        provider: Provider,
        found: Set,
        asked_at: str | None,
    ) -> None:
        super().__init__(asked, desk.law)
        self._desk = desk
        self._set = found
        self._asked_at = asked_at
        self._calls = [
            kind.call(provider.id, provider.dialect, asked_at) for kind in found.kinds
        ]
        self._rulings: tuple[Ruling, ...] = ()
        self._against: Ruled | None = None

    def rule(self, asked: Asked, provider: Provider) -> Ruled:
        """Return the ruling on the exchange itself, or the strictest against a line."""
        own = self.law.rule(asked, provider)
        self._against = None
        if own.ruling.effect != "permit":
            return own
        rulings: list[Ruling] = []
        for call in self._calls:
            ruled = self.law.rule(msgspec.structs.replace(asked, call=call), provider)
            rulings.append(ruled.ruling)
            if ruled.ruling.effect == "permit":
                continue
            if self._against is None or ruled.ruling.effect == "forbid":
                self._against = ruled
        self._rulings = tuple(rulings)
        return own if self._against is None else self._against

    def problem(self, outcome: Held | Forbidden) -> Problem | None:
        """Return what the caller is told of lines that may not leave."""
        if self._against is None:
            return None
        lines = self._set.lines
        told = self._told()
        ruling = self._against.ruling
        return Problem(
            status=403,
            code="batch.refused",
            message=f"lines of the batch are not permitted{_listed(told)}",
            exchange=outcome.asked.exchange,
            reasons=tuple(
                {
                    "policy": reason.policy,
                    "clause": reason.clause,
                    "effect": reason.effect,
                    "because": reason.because,
                }
                for reason in ruling.reasons
            ),
            next_step=self._next_step(lines.count),
        )

    def _told(self) -> Sequence[str]:
        against = self._against
        if against is None:
            return ()
        named = ", ".join(f"{one.policy}:{one.clause}" for one in against.ruling.reasons)
        return (f"{against.ruling.effect} by {named}",)

    def _next_step(self, count: int) -> str:
        return "change what the use is declared for, or hand in other lines"

    def _kinds(self) -> Sequence[tuple[ProviderCall, LinesSum]]:
        befores = (kind.before for kind in self._set.kinds)
        return list(zip(self._calls, befores, strict=True))

    async def _begins(self, of: ExchangeId, handed_in: ExchangeId) -> None:
        asking = Asking(
            exchange=of,
            input=handed_in,
            about=encode(
                Begun(rulings=self._rulings, asked_at=self._asked_at, reserved=self.reserved)
            ),
        )
        await asyncio.to_thread(self._desk.lines.ask, asking)


class _HandIn(_OfMany):
    """Requests that were put aside and judged."""

    def __init__(
        self,
        asked: Asked,
        desk: BatchDesk,
        provider: Provider,
        judged: Judged,
        spool: Spool,
        *,
        handing: Handing,
        asked_at: str | None,
    ) -> None:
        super().__init__(asked, desk, provider, judged.set, asked_at)
        self._judged = judged
        self._spool = spool
        self._begins_now = handing.begins
        if handing.upload is not None:
            # What came in pieces leaves as a whole.
            self.drops = _PIECES
            self.adds = (
                (b"x-goog-upload-command", b"upload, finalize"),
                (b"x-goog-upload-offset", b"0"),
            )

    def begun(self) -> Sequence[tuple[ProviderCall, LinesSum]]:
        """Return the requests that begin with it, where the batch begins at once."""
        return self._kinds() if self._begins_now and self._set.forwarded else ()

    async def opened(self, permitted: Permitted) -> None:
        """Remember how each kind was ruled on, where the batch begins at once."""
        if self._begins_now:
            exchange = permitted.asked.exchange
            await self._begins(exchange, exchange)

    def rule(self, asked: Asked, provider: Provider) -> Ruled:
        """Return the ruling on all that it is about, with the counts for the caller."""
        if not self._set.forwarded and self._judged.worst is not None:
            own = self.law.rule(asked, provider)
            self._against = self._judged.worst if own.ruling.effect == "permit" else None
            return self._against or own
        ruled = super().rule(asked, provider)
        lines = self._set.lines
        told = (
            (b"x-gateway-lines-judged", b"%d" % lines.count),
            (b"x-gateway-lines-forwarded", b"%d" % lines.forwarded),
        )
        return dataclasses.replace(ruled, headers=(*ruled.headers, *told))

    def _told(self) -> Sequence[str]:
        return self._judged.told or super()._told()

    def _next_step(self, count: int) -> str:
        return (
            f"see /-/batches/{self.asked.exchange}/lines for each of the {count} lines, or send"
            f" `{HEADER}: drop` to forward the others"
        )

    async def close(self, outcome: Answered | Held | Forbidden | None) -> None:
        self._desk.release(self._spool)
        if not _taken(outcome):
            await asyncio.to_thread(self._desk.lines.drop_texts, self.asked.exchange)


class _Begin(_OfMany):
    """A batch of requests that an earlier exchange handed in."""

    def __init__(
        self,
        asked: Asked,
        desk: BatchDesk,
        provider: Provider,
        handed_in: ExchangeId,
        found: Set,
        asked_at: str | None,
    ) -> None:
        super().__init__(asked, desk, provider, found, asked_at)
        self._handed_in = handed_in
        self.spool: Spool | None = None
        """What was put aside of a body that only names what was handed in."""

    async def close(self, outcome: Answered | Held | Forbidden | None) -> None:
        if self.spool is not None:
            self._desk.release(self.spool)

    def begun(self) -> Sequence[tuple[ProviderCall, LinesSum]]:
        """Return the requests that begin with it."""
        return self._kinds()

    async def opened(self, permitted: Permitted) -> None:
        """Remember what is asked for, and how each kind of it was ruled on."""
        await self._begins(permitted.asked.exchange, self._handed_in)


class _HandOut(Errand):
    """Results of a batch that are fetched."""

    # A part of them could hold lines whose beginnings nobody sees.
    drops = frozenset({b"range", b"if-range"})

    def __init__(
        self,
        asked: Asked,
        desk: BatchDesk,
        provider: Provider,
        batches: Batches,
        source: Source,
        receipt: Receipt,
    ) -> None:
        super().__init__(asked, desk.law)
        self._desk = desk
        self._provider = provider
        self._batches = batches
        self._source = source
        self._receipt = receipt

    def reader(self, permitted: Permitted, response: ProviderResponse) -> Results | None:
        """Return what seals each line, where the answer holds lines."""
        if response.status != 200:
            return None
        call = permitted.asked.call
        holds = self._batches.answers_in(call, b"") is not None
        plain = self._provider.dialect.answer_reader(
            call, response.status, response.header(b"content-type") or ""
        )
        return (Document if holds else Results)(
            call=call,
            plain=plain,
            source=self._source,
            receipt=self._receipt,
            fetched=permitted.asked.exchange,
            provider=self._provider,
            batches=self._batches,
            lines=self._desk.lines,
            items=self._desk.items,
            on_item=self._desk.on_item,
            allowance=self._desk.allowance,
        )


def _mode_of(said: str | None) -> Mode:
    """Return what is done about lines that may not leave.

    Raises:
        BatchRefusedError: the header says something else.
    """
    mode = (said or "refuse").strip().lower()
    if mode not in _MODES:
        raise BatchRefusedError(
            f"`{HEADER}` says `{mode[:32]}`", hint=f"write {' or '.join(_MODES)}"
        )
    return cast("Mode", mode)


def _name_of(asked: Asked, handing: Handing) -> tuple[str, ...]:
    upload = "" if handing.upload is None else handing.upload.id
    principal = asked.principal
    return asked.call.provider, upload, principal.name, principal.project


async def _bounded(chunks: AsyncIterator[bytes], size: int = 0) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        size += len(chunk)
        if size > BODY_BYTES_MAX:
            raise BodyTooLargeError(
                f"the request body is larger than {BODY_BYTES_MAX} bytes",
                hint="send it as several",
            )
        yield chunk


def _short(chunks: Sequence[bytes]) -> bool:
    return sum(map(len, chunks)) <= BATCH_FORM_FIELD_BYTES_MAX


def _passed(asked: Asked, desk: BatchDesk, before: list[bytes], incoming: Incoming) -> Asked:
    """Return *asked* with a body that passes on: what was read of it, and what follows."""

    async def all_of_it() -> AsyncIterator[bytes]:
        for chunk in before:
            yield chunk
        async for chunk in incoming.chunks:
            yield chunk

    body = StreamedBody(all_of_it(), incoming.length, asked.exchange, desk.commitment_key)
    return msgspec.structs.replace(asked, body=body)


def _again(asked: Asked, desk: BatchDesk, spool: Spool) -> Asked:
    """Return *asked* with the body that was put aside."""
    body = StreamedBody(spool.read(), spool.size, asked.exchange, desk.commitment_key)
    return msgspec.structs.replace(asked, body=body)


def _listed(told: Sequence[str]) -> str:
    return f": {'; '.join(told)}" if told else ""


def _said(found: Set) -> str:
    return f"declaration `{found.declaration}`" if found.declared else "no declaration"


def _taken(outcome: Answered | Held | Forbidden | None) -> bool:
    return (
        isinstance(outcome, Answered)
        and outcome.ended == "complete"
        and outcome.status is not None
        and outcome.status < 300
    )

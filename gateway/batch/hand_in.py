"""Requests of a batch come in: they are put aside, judged, and only then passed on."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

import msgspec

from gateway.batch.begin import Beginning
from gateway.batch.elements import Elements, MissingArrayError, NoArrayError
from gateway.batch.errand import HEADER, Errand, Incoming, Known, OfMany, listed
from gateway.batch.judge import Judge, Judged, Mode
from gateway.batch.pieces import Cut, Piece, lines_of
from gateway.batch.reading import Reading
from gateway.batch.spool import Spool, Spools
from gateway.budget.estimate import LinesSum
from gateway.errors import BatchRefusedError, BodyTooLargeError
from gateway.exchange.body import StreamedBody
from gateway.exchange.providers import Provider
from gateway.exchange.rule import Law, Ruled
from gateway.exchange.states import Answered, Asked, Forbidden, Held, Permitted
from gateway.intent.model import Declaration, declaration_id
from gateway.ledger.reading.register import Register
from gateway.limits import BATCH_FORM_FIELD_BYTES_MAX, BODY_BYTES_MAX
from gateway.provider.batch import Batches, Handing
from gateway.provider.model import ProviderCall, Resource
from gateway.receipt.model import Receipt
from gateway.receipt.statement import read_leaf
from gateway.store.lines import Lines

_MODES: Final = get_args(Mode)
_PIECES: Final = frozenset({b"x-goog-upload-command", b"x-goog-upload-offset"})


@dataclass(frozen=True, kw_only=True)
class HandingIn:
    """Puts requests aside and has them judged."""

    judge: Judge
    law: Law
    register: Register
    lines: Lines
    known: Known
    spools: Spools
    beginning: Beginning
    commitment_key: bytes

    async def hand_in(
        self,
        asked: Asked,
        provider: Provider,
        batches: Batches,
        handing: Handing,
        incoming: Incoming,
    ) -> Errand:
        """Return what hands requests in, once all of them were judged.

        Raises:
            BatchRefusedError: they can't be read, or none of them may leave.
            BodyTooLargeError: they are larger than what is passed on at all.
            SpoolError: they could not be put aside.
            CallerGoneError: the caller hung up in the middle of it.
            LedgerUnwellError: what was found of them could not be kept.
        """
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
                self.spools.keep(_name_of(asked, handing), spool)
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
            self.spools.release(spool)
            raise

    async def _spool(self, asked: Asked, handing: Handing) -> Spool:
        """Return where the body is put aside: behind what came of it before, if anything did.

        Raises:
            SpoolError: the disk does not take it.
        """
        if handing.first:
            return await self.spools.new()
        spool = self.spools.kept(_name_of(asked, handing))
        if spool is None:
            raise BatchRefusedError(
                "the upload was not begun here, or too long ago", hint="begin it again"
            )
        return spool

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
        return await self.beginning.begin(
            again, provider, batches, begun, incoming, lambda: self.spools.release(spool)
        )

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
        reading = Reading(incoming.headers.get("content-type", ""), handing)
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
                f"the batch has {what}{listed(judged.told)}",
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


class _Aside(Errand):
    """A body that was put aside and turned out to hold no batch."""

    def __init__(self, asked: Asked, law: Law, room: HandingIn, spool: Spool) -> None:
        super().__init__(asked, law)
        self._spools = room.spools
        self._spool = spool

    async def close(self, outcome: Answered | Held | Forbidden | None) -> None:
        self._spools.release(self._spool)


class _Kept(Errand):
    """A piece of an upload that was put aside; nothing is forwarded before the last one."""

    def __init__(self, asked: Asked, law: Law, size: int) -> None:
        super().__init__(asked, law)
        self.answer = (
            (b"x-goog-upload-status", b"active"),
            (b"x-goog-upload-size-received", b"%d" % size),
        )


class _HandIn(OfMany):
    """Requests that were put aside and judged."""

    def __init__(
        self,
        asked: Asked,
        room: HandingIn,
        provider: Provider,
        judged: Judged,
        spool: Spool,
        *,
        handing: Handing,
        asked_at: str | None,
    ) -> None:
        super().__init__(asked, room.law, room.lines, provider, judged.set, asked_at)
        self._judged = judged
        self._spools = room.spools
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
        return self.kinds() if self._begins_now and self.found.forwarded else ()

    async def opened(self, permitted: Permitted) -> None:
        """Remember how each kind was ruled on, where the batch begins at once."""
        if self._begins_now:
            exchange = permitted.asked.exchange
            await self.begins(exchange, exchange)

    def rule(self, asked: Asked, provider: Provider) -> Ruled:
        """Return the ruling on all that it is about, with the counts for the caller."""
        if not self.found.forwarded and self._judged.worst is not None:
            own = self.law.rule(asked, provider)
            self.against = self._judged.worst if own.ruling.effect == "permit" else None
            return self.against or own
        ruled = super().rule(asked, provider)
        lines = self.found.lines
        told = (
            (b"x-gateway-lines-judged", b"%d" % lines.count),
            (b"x-gateway-lines-forwarded", b"%d" % lines.forwarded),
        )
        return dataclasses.replace(ruled, headers=(*ruled.headers, *told))

    def told(self) -> Sequence[str]:
        """Return what is said of the first lines that may not leave."""
        return self._judged.told or super().told()

    def next_step(self, count: int) -> str:
        """Return what the caller may do."""
        return (
            f"see /-/batches/{self.asked.exchange}/lines for each of the {count} lines, or send"
            f" `{HEADER}: drop` to forward the others"
        )

    async def close(self, outcome: Answered | Held | Forbidden | None) -> None:
        self._spools.release(self._spool)
        if not _taken(outcome):
            await asyncio.to_thread(self.lines.drop_texts, self.asked.exchange)


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


def _passed(asked: Asked, room: HandingIn, before: list[bytes], incoming: Incoming) -> Asked:
    """Return *asked* with a body that passes on: what was read of it, and what follows."""

    async def all_of_it() -> AsyncIterator[bytes]:
        for chunk in before:
            yield chunk
        async for chunk in incoming.chunks:
            yield chunk

    body = StreamedBody(all_of_it(), incoming.length, asked.exchange, room.commitment_key)
    return msgspec.structs.replace(asked, body=body)


def _again(asked: Asked, room: HandingIn, spool: Spool) -> Asked:
    """Return *asked* with the body that was put aside."""
    body = StreamedBody(spool.read(), spool.size, asked.exchange, room.commitment_key)
    return msgspec.structs.replace(asked, body=body)


def _taken(outcome: Answered | Held | Forbidden | None) -> bool:
    return (
        isinstance(outcome, Answered)
        and outcome.ended == "complete"
        and outcome.status is not None
        and outcome.status < 300
    )

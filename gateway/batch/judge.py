"""Judge a batch: each of its requests is read and ruled on as if it had been asked by itself.

All of that happens before anything leaves. What was found of each line is kept, and the root of
the tree over it stands in the receipt of the exchange that handed the lines in.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from gateway.batch.model import Found, Kind, Set, encode, encode_found
from gateway.batch.pieces import Cut, Piece
from gateway.budget.estimate import LinesSum
from gateway.canonical import keyed_sha256
from gateway.clock import Clock, day_of, rfc3339
from gateway.errors import (
    BatchRefusedError,
    KeyNotAllowedError,
    MalformedBodyError,
    NotFoundError,
)
from gateway.exchange.providers import Provider
from gateway.exchange.rule import Law, Ruled
from gateway.exchange.scope import check_scope
from gateway.exchange.seal import keeps_request
from gateway.exchange.states import Asked, Principal
from gateway.ident import Sha256, item_id
from gateway.limits import (
    FOREIGN_TEXT_CHARS_MAX,
    LINE_KINDS_MAX,
    LINES_AT_ONCE,
    LINES_KEPT_DAYS,
    LINES_MAX,
    LINES_TOLD_MAX,
    REQUEST_BYTES_AT_ONCE,
)
from gateway.policy.obligation import days_to_keep
from gateway.provider.batch import Batches, BatchLine, LineError
from gateway.provider.dialect import json_object
from gateway.provider.model import OPAQUE_ROUTE, Operation, ProviderCall, Resource, Taking
from gateway.receipt.model import Commitment, LinesFacts, RequestFacts
from gateway.store.lines import Handed, Line, LineKey, Lines
from gateway.store.seen import Seen
from gateway.tlog.merkle import Frontier, leaf_hash

REPEATED: Final = "line.repeated"
TOO_LONG: Final = "line.too_long"
UNREADABLE: Final = "line.malformed"
"""Why a line is not forwarded, where no ruling says so."""

_ASKABLE: Final = frozenset(
    {
        Operation.CHAT,
        Operation.COMPLETION,
        Operation.EMBEDDING,
        Operation.MODERATION,
        Operation.IMAGE,
        Operation.SPEECH,
        Operation.TRANSCRIPTION,
    }
)
"""What a line can ask for; anything else in a line is opaque."""

Mode = Literal["refuse", "drop"]


@dataclass(slots=True, kw_only=True)
class Judged:
    """What came of judging a batch."""

    set: Set
    cut: Cut
    """What of the body does not go on."""
    told: list[str]
    """The first lines that don't, for the caller."""
    worst: Ruled | None
    """The strictest ruling against a line, if there is one."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judges batches; built once, in `app/`."""

    law: Law
    lines: Lines
    clock: Clock
    commitment_key: bytes
    refresh: Callable[[], Awaitable[None]]
    """Takes in what other processes wrote to the ledger."""
    owned: Callable[[Principal, str, Sequence[Resource]], Awaitable[object]]
    """Raises `NotFoundError` where something that is named belongs to somebody else."""

    async def judge(
        self,
        asked: Asked,
        provider: Provider,
        batches: Batches,
        pieces: AsyncIterator[Piece],
        mode: Mode,
    ) -> Judged:
        """Judge every one of *pieces*; what was found is durable on return.

        Raises:
            BatchRefusedError: there are too many lines, or too many kinds of them.
            LedgerUnwellError: what was found could not be kept.
        """
        judging = _Judging(self, asked, provider, batches, mode)
        try:
            await judging.run(pieces)
        except BaseException:
            await asyncio.to_thread(self.lines.drop_texts, asked.exchange)
            raise
        finally:
            judging.seen.close()
        judged = judging.judged()
        await asyncio.to_thread(self.lines.finish, judging.handed(judged.set))
        return judged


@dataclass
class _Judging:
    """One batch while it is judged."""

    judge: Judge
    asked: Asked
    provider: Provider
    batches: Batches
    mode: Mode
    seen: Seen = field(default_factory=Seen)
    frontier: Frontier = field(default_factory=Frontier)
    kinds: dict[tuple[object, ...], int] = field(default_factory=dict)
    calls: list[Kind] = field(default_factory=list)
    sums: list[LinesSum] = field(default_factory=list)
    """What lines of each kind may come to together."""
    count: int = 0
    forwarded: int = 0
    cut: Cut = field(default_factory=Cut)
    told: list[str] = field(default_factory=list)
    worst: Ruled | None = None
    days: int = LINES_KEPT_DAYS
    texts: int = 0

    async def run(self, pieces: AsyncIterator[Piece]) -> None:
        now = rfc3339(self.judge.clock.now_ms())
        lines, exchange = self.judge.lines, self.asked.exchange
        if self.asked.declared:
            # A verdict may have been given in another process just now.
            await self.judge.refresh()
        key: LineKey = await asyncio.to_thread(lines.begin, exchange, now)
        group: list[Line] = []
        size = 0
        async for piece in pieces:
            line = await self._judged(piece)
            group.append(line)
            size += len(line.text or b"")
            if len(group) >= LINES_AT_ONCE or size >= REQUEST_BYTES_AT_ONCE:
                await asyncio.to_thread(lines.add, exchange, key, group)
                group, size = [], 0
        await asyncio.to_thread(lines.add, exchange, key, group)

    async def _judged(self, piece: Piece) -> Line:
        """Rule on one line; return what is kept of it."""
        self.count += 1
        if self.count > LINES_MAX:
            raise BatchRefusedError(
                f"the batch has more than {LINES_MAX} lines", hint="send it as several"
            )
        size = len(piece.content or b"")
        try:
            line = self._read(piece)
            call = self._call(line)
            if not line.model_later:
                self._check_scope(call)
            if call.uses:
                await self._check_owner(call)
        except LineError as wrong:
            found = Found(
                number=piece.number,
                bytes=size,
                effect="unreadable",
                forwarded=False,
                code=str(wrong.args[1]) if len(wrong.args) > 1 else UNREADABLE,
            )
            return self._kept(piece, found, str(wrong.args[0]), None, None)
        asked = msgspec.structs.replace(self.asked, call=call)
        ruled = self.judge.law.rule(asked, self.provider)
        ruling = ruled.ruling
        permitted = ruling.effect == "permit"
        found = Found(
            number=piece.number,
            bytes=size,
            custom_id=_bounded(line.custom_id),
            effect=ruling.effect,
            forwarded=permitted,
            operation=str(call.operation),
            model=_bounded(call.model),
            reasons=()
            if permitted
            else tuple(f"{reason.policy}:{reason.clause}" for reason in ruling.reasons),
            request=RequestFacts(
                bytes=len(line.body),
                commitment=Commitment(
                    alg="hmac-sha256", value=self._commit(piece.number, line.body)
                ),
            ),
        )
        if not permitted:
            if self.worst is None or ruling.effect == "forbid":
                self.worst = ruled
            why = f"{ruling.effect} by {', '.join(found.reasons)}"
            return self._kept(piece, found, why, None, None)
        keeps = keeps_request(asked, ruling)
        if keeps:
            self.texts += 1
            self.days = min(self.days, days_to_keep(ruling.obligations) or self.days)
        number = self._kind(line, call, ruled)
        self.sums[number] = self.sums[number].plus(call, len(line.body))
        return self._kept(piece, found, None, number, line.body if keeps else None, line)

    def _read(self, piece: Piece) -> BatchLine:
        if piece.content is None:
            raise LineError("is too long", TOO_LONG)
        line = self.batches.read_line(self.asked.call, piece.content)
        try:
            json_object(piece.content)
        except MalformedBodyError as wrong:
            raise LineError(wrong.message, wrong.problem) from wrong
        if not line.by_place and not self.seen.add(line.custom_id or ""):
            raise LineError("has the custom_id of an earlier line", REPEATED)
        return line

    def _call(self, line: BatchLine) -> ProviderCall:
        dialect = self.provider.dialect
        found = dialect.found(line.method, line.path, line.query)
        if found.route.operation not in _ASKABLE or found.route.taking is not Taking.HELD:
            found = msgspec.structs.replace(found, route=OPAQUE_ROUTE, names=())
        try:
            call = dialect.read_request(self.provider.id, found, "application/json", line.body)
        except MalformedBodyError as wrong:
            raise LineError(wrong.message, wrong.problem) from wrong
        return msgspec.structs.replace(call, model=None) if line.model_later else call

    def _check_scope(self, call: ProviderCall) -> None:
        try:
            check_scope(self.asked.principal, call)
        except KeyNotAllowedError as wrong:
            raise LineError(wrong.message, wrong.problem) from wrong

    async def _check_owner(self, call: ProviderCall) -> None:
        try:
            await self.judge.owned(self.asked.principal, self.provider.id, call.uses)
        except NotFoundError as wrong:
            raise LineError(wrong.message, wrong.problem) from wrong

    def _kind(self, line: BatchLine, call: ProviderCall, ruled: Ruled) -> int:
        """Return the number of the kind of line that this is."""
        found = call.found
        key = (
            call.operation,
            call.model,
            call.streaming,
            call.features,
            call.fallbacks,
            line.method,
            line.path,
            line.query,
            ruled.sha256,
        )
        number = self.kinds.setdefault(key, len(self.calls))
        if number == len(self.calls):
            if number >= LINE_KINDS_MAX:
                raise BatchRefusedError(
                    f"the batch asks for more than {LINE_KINDS_MAX} different things",
                    hint="send it as several",
                )
            self.sums.append(LinesSum())
            self.calls.append(
                Kind(
                    operation=str(call.operation),
                    model=call.model,
                    streaming=call.streaming,
                    features=tuple(sorted(call.features)),
                    fallbacks=call.fallbacks,
                    method=line.method,
                    path=line.path if found is None else found.path,
                    query=line.query,
                    ruling=ruled.ruling,
                )
            )
        return number

    def _kept(
        self,
        piece: Piece,
        found: Found,
        why: str | None,
        kind: int | None,
        text: bytes | None,
        line: BatchLine | None = None,
    ) -> Line:
        content = encode_found(found)
        self.frontier.push(leaf_hash(content))
        if kind is None:
            self.cut.add(piece.start, piece.stop)
            if len(self.told) < LINES_TOLD_MAX:
                self.told.append(f"line {found.number + 1}: {why}")
        else:
            if self.forwarded == 0 and self.cut and piece.lead >= 0:
                # Nothing stands before it any more that a comma would divide it from.
                self.cut.add(piece.start, piece.lead)
            self.forwarded += 1
        return Line(
            number=found.number,
            name=None if line is None or line.by_place else line.custom_id,
            found=content,
            kind=kind,
            text=text,
        )

    def _commit(self, number: int, body: bytes) -> Sha256:
        about = item_id(self.asked.exchange, number).encode()
        return keyed_sha256(self.judge.commitment_key, about + body)

    def judged(self) -> Judged:
        """Return what came of it."""
        asked = self.asked
        goes = self.forwarded > 0 and (not self.cut or self.mode == "drop")
        lines = LinesFacts(
            count=self.count,
            forwarded=self.forwarded if goes else 0,
            root=Sha256(self.frontier.root().hex()),
        )
        return Judged(
            set=Set(
                provider=self.provider.id,
                principal=asked.principal.name,
                project=asked.principal.project,
                use=asked.declaration.use,
                declaration=asked.declaration.id,
                declared=asked.declared,
                kinds=tuple(
                    msgspec.structs.replace(kind, before=before)
                    for kind, before in zip(self.calls, self.sums, strict=True)
                ),
                lines=lines,
                forwarded=goes,
            ),
            cut=self.cut,
            told=self.told,
            worst=self.worst,
        )

    def handed(self, found: Set) -> Handed:
        """Return the set as it is kept; its texts are destroyed where it does not leave."""
        now = self.judge.clock.now_ms()
        until = day_of(now) + dt.timedelta(days=self.days)
        return Handed(
            exchange=self.asked.exchange,
            at=rfc3339(now),
            until=until.isoformat() if self.texts and found.forwarded else None,
            about=encode(found),
        )


def _bounded(text: str | None) -> str | None:
    """Return a caller's *text* as a report can hold it."""
    if text is None or (len(text) <= FOREIGN_TEXT_CHARS_MAX and text.isprintable()):
        return text
    return "".join(
        sign if sign.isprintable() else "?" for sign in text[:FOREIGN_TEXT_CHARS_MAX]
    )

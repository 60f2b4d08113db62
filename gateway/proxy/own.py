"""The gateway's own endpoints under `/-/`: receipts, bundles, the log, health, metrics."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.batch.model import decode_set
from gateway.canonical import canonical_json
from gateway.errors import (
    BadProofError,
    CredentialError,
    GatewayError,
    LedgerUnwellError,
    NotFoundError,
)
from gateway.exchange.forward import RawHeaders
from gateway.exchange.hall import Hall
from gateway.exchange.rule import Law
from gateway.exchange.states import Principal
from gateway.ident import ExchangeId, is_exchange_id
from gateway.ledger.counts import Counts
from gateway.ledger.ports import Sequencing
from gateway.ledger.publishing.alarms import ALARMS, RAISED
from gateway.ledger.reading.reader import Reader
from gateway.ledger.reading.register import Register
from gateway.ledger.sequencing.frames import Whole
from gateway.proxy.auth import GATEWAY_KEY, Porter
from gateway.proxy.knock import Knock
from gateway.proxy.metrics import ALARM, CONTENT_TYPE, UNDER_WAY, Metrics, metrics_text
from gateway.proxy.problem import problem_json, problem_of
from gateway.proxy.reply import Reply
from gateway.receipt.envelope import open_envelope
from gateway.receipt.model import Receipt, Refusal
from gateway.receipt.statement import read_leaf
from gateway.store.lines import Lines
from gateway.tlog.tile import ENTRIES, Tile, parse_path

_JSON: Final = "application/json"
_TILE: Final = "application/octet-stream"
_SEES_ALL: Final = frozenset({"auditor", "legal", "operator"})

_LINES: Final = 512
"""Lines of a report that are read at once."""

_FRESH: Final = (b"cache-control", b"no-cache")
"""For what changes: a checkpoint, and what is not there yet."""

_UNCHANGING: Final = b"max-age=31536000, immutable"
"""For tiles, which are what they are for ever."""


@dataclass(frozen=True, slots=True)
class _Page:
    kind: str
    body: bytes
    headers: RawHeaders = ()


@dataclass(frozen=True, kw_only=True)
class Own:
    """What answers under `/-/`; reads only what was written."""

    reader: Reader
    sequencer: Sequencing
    register: Register
    lines: Lines
    porter: Porter
    metrics: Metrics
    hall: Hall
    is_well: Callable[[], bool]
    refresh: Callable[[], Awaitable[None]]
    """Takes in what other processes wrote."""
    law: Law
    publishing: Callable[[], Counts] = dict
    """Says how publishing checkpoints goes in this process."""
    sums: Callable[[Counts], Awaitable[Whole]] | None = None
    """Adds this door's counts to those of the others, where there are others."""

    async def serve(self, knock: Knock, reply: Reply) -> None:
        """Answer one request for the gateway itself."""
        try:
            parts = _parts_of(knock)
            if knock.method == "GET" and parts[:1] == ["batches"] and parts[2:] == ["lines"]:
                report = await self._report(parts[1], self._reader(knock))
                await _send(report, reply)
                return
            page = await self._answer(knock)
            status = 200
        except GatewayError as error:
            problem = problem_of(error)
            page = _Page("application/problem+json", problem_json(problem), (_FRESH,))
            status = problem.status
        if page.kind == _JSON and knock.raw_path == "/-/health" and not self.is_well():
            status = 503
        headers = [(b"content-type", page.kind.encode()), *page.headers]
        reason = b"OK" if status == 200 else b""
        await reply.answer(status, reason, headers, page.body)

    async def _answer(self, knock: Knock) -> _Page:
        if knock.method not in {"GET", "HEAD"}:
            raise NotFoundError(f"`{knock.method}` does nothing here", hint="use GET")
        match _parts_of(knock):
            case ["health"]:
                return _Page(_JSON, await self._health())
            case ["metrics"]:
                leaves = await asyncio.to_thread(self.reader.size)
                return _Page(CONTENT_TYPE, metrics_text(await self._whole(), leaves))
            case ["log", "checkpoint"]:
                note = await asyncio.to_thread(self._checkpoint)
                return _Page("text/plain; charset=utf-8", note.encode(), (_FRESH,))
            case ["log", "tile", *rest]:
                return await self._tile("/".join(["tile", *rest]), knock)
            case ["uses"]:
                await self.refresh()
                return _Page(_JSON, self._uses(self._reader(knock)))
            case ["receipts", named]:
                _, leaf = await self._closing(named, self._reader(knock))
                payload = open_envelope(leaf).payload
                return _Page("application/vnd.in-toto+json", payload)
            case ["receipts", named, "bundle"]:
                index, _ = await self._closing(named, self._reader(knock))
                note = await self.sequencer.integrated(index)
                bundle = await asyncio.to_thread(self.reader.bundle, index, note)
                return _Page(_JSON, bundle)
            case _:
                raise NotFoundError(
                    f"nothing is at `{knock.raw_path.partition('?')[0][:64]}`",
                    hint="see /-/health, /-/receipts/{id}, /-/batches/{id}/lines,"
                    " /-/log/checkpoint, /-/metrics",
                )

    async def _report(self, named: str, principal: Principal | None) -> AsyncIterator[bytes]:
        """Return what was found of each line that an exchange handed in, a line each.

        Raises:
            NotFoundError: it handed in none, or it is not for this reader.
        """
        exchange = ExchangeId(named)
        handed = None
        if is_exchange_id(named):
            handed = await asyncio.to_thread(self.lines.handed, exchange)
        found = None if handed is None else decode_set(handed.about)
        if found is None or not (
            principal is None
            or principal.roles & _SEES_ALL
            or (principal.name, principal.project) == (found.principal, found.project)
        ):
            raise NotFoundError(
                f"no batch was handed in with `{named[:64]}`",
                hint="ids come in the header x-gateway-exchange",
            )
        return self._found(exchange)

    async def _found(self, exchange: ExchangeId) -> AsyncIterator[bytes]:
        last = -1
        while page := await asyncio.to_thread(self.lines.found, exchange, last, _LINES):
            yield b"".join(b"%b\n" % found for _, found in page)
            last = page[-1][0]

    def _checkpoint(self) -> str:
        """Return a checkpoint of the ledger as it is now, else the newest that was published.

        Raises:
            LedgerUnwellError: none was ever published, and none can be at present.
        """
        try:
            return self.sequencer.checkpoint_now()
        except LedgerUnwellError:
            note = self.reader.tiles.published()
            if note is None:
                raise
            return note

    async def _tile(self, path: str, knock: Knock) -> _Page:
        """Return a tile of the log: hashes for every reader, leaves for who may read all.

        Raises:
            NotFoundError: there is no such tile, or not yet.
            CredentialError: this reader may not see it.
        """
        principal = self._reader(knock)
        try:
            tile = parse_path(path)
        except BadProofError as bad:
            raise NotFoundError(bad.message, hint="see c2sp.org/tlog-tiles") from bad
        if tile.level != ENTRIES:
            body = await asyncio.to_thread(self.reader.tiles.read, tile)
            return _Page(_TILE, body, ((b"cache-control", _UNCHANGING),))
        if principal is not None and not principal.roles & _SEES_ALL:
            raise CredentialError(
                "leaves of the log are not for this key",
                hint="ask for a key with the role `auditor`; each receipt has its own page",
                code="credential.narrow",
            )
        packs = _takes_gzip(knock.headers.get("accept-encoding", ""))
        body = await asyncio.to_thread(self._entries, tile, packs=packs)
        # A cache that many share must not hand leaves to readers without a key.
        headers = [
            (b"cache-control", b"private, " + _UNCHANGING),
            (b"vary", b"accept-encoding"),
        ]
        if packs:
            headers.append((b"content-encoding", b"gzip"))
        return _Page(_TILE, body, headers)

    def _entries(self, tile: Tile, *, packs: bool) -> bytes:
        body = self.reader.tiles.read(tile)
        return gzip.compress(body, compresslevel=1, mtime=0) if packs else body

    async def _whole(self) -> Whole:
        """Return what all doors together have counted.

        Raises:
            LedgerUnwellError: the others can't be heard, and a part is not the whole.
        """
        counts = self.metrics.counts(self.hall.count, alarm=bool(self.law.alarm))
        if self.sums is None:
            return Whole(counts=counts | self.publishing(), workers=1, silent=0)
        return await self.sums(counts)

    async def _health(self) -> bytes:
        workers: int | None = None
        raised: list[str] = []
        try:
            whole = await self._whole()
        except LedgerUnwellError:
            exchanges, alarm = self.hall.count, bool(self.law.alarm)
        else:
            workers = whole.workers - whole.silent
            exchanges, alarm = int(whole.counts[UNDER_WAY]), bool(whole.counts[ALARM])
            raised = [code for code in ALARMS if whole.counts.get(f"{RAISED}{code}")]
        return canonical_json(
            {
                "status": "well" if self.is_well() else "unwell",
                # Of all workers that are well; where their number is not known, of this one.
                "workers": workers,
                "exchanges": exchanges,
                "policies": self.law.library.digest,
                "alarm": "policies.kept_old" if alarm else None,
                "alarms": [*(["policies.kept_old"] if alarm else ()), *raised],
            }
        )

    def _uses(self, principal: Principal | None) -> bytes:
        shown = [
            msgspec.to_builtins(facts)
            for facts in self.register.declarations()
            if _sees(principal, facts.project)
        ]
        return canonical_json(shown)

    def _reader(self, knock: Knock) -> Principal | None:
        """Return who reads, where keys are managed; on a loopback door everyone may."""
        if not self.porter.managed:
            return None
        headers = knock.headers
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        shown = headers.get(GATEWAY_KEY) or headers.get("x-api-key") or bearer
        return self.porter.keyholder(shown or None)

    async def _closing(self, named: str, principal: Principal | None) -> tuple[int, bytes]:
        """Return index and leaf of the statement that closed an exchange.

        Raises:
            NotFoundError: there is none, or it is not for this reader.
        """
        found = None
        if is_exchange_id(named):
            found = await asyncio.to_thread(self.reader.find, ExchangeId(named))
        if found is not None:
            statement = read_leaf(found[1])
            project = (
                statement.caller.project if isinstance(statement, Receipt | Refusal) else None
            )
            if _sees(principal, project):
                return found
        raise NotFoundError(
            f"no receipt `{named[:64]}`", hint="ids come in the header x-gateway-exchange"
        )


def _parts_of(knock: Knock) -> list[str]:
    return knock.raw_path.partition("?")[0].removeprefix("/-/").split("/")


async def _send(lines: AsyncIterator[bytes], reply: Reply) -> None:
    """Send a report as it is read; it may be longer than should be held."""
    headers = [(b"content-type", b"application/jsonl"), (b"cache-control", b"no-cache")]
    reply.head(200, b"OK", headers, sized=False)
    async for some in lines:
        await reply.pass_on(some)
        if reply.gone:
            break
    reply.end()


def _sees(principal: Principal | None, project: str | None) -> bool:
    if principal is None:
        return True
    return bool(principal.roles & _SEES_ALL) or principal.project == project


def _takes_gzip(accepted: str) -> bool:
    """Return whether a client that sends *accepted* reads gzip; a quality of 0 says no."""
    for one in accepted.lower().split(","):
        coding, _, quality = one.partition(";")
        if coding.strip() == "gzip":
            return quality.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False

"""The rooms a request goes through, over a real ledger, and guests to send through them."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import io
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from gateway import settings
from gateway.app.installation import init
from gateway.app.running import Gateway, start
from gateway.clock import FrozenClock, rfc3339
from gateway.dataset.held import HeldWords
from gateway.exchange.body import StreamedBody
from gateway.exchange.forward import Forwarder, Origin, Outgoing, RawHeaders, origin_of
from gateway.exchange.providers import Layer, Provider, Providers
from gateway.exchange.recover import recover
from gateway.exchange.rule import Law
from gateway.exchange.seal import Notary
from gateway.exchange.states import (
    Answered,
    Asked,
    Forbidden,
    Held,
    Permitted,
    Principal,
    Sealed,
)
from gateway.exchange.walk import Walk
from gateway.ident import DeclarationId, Sha256, new_exchange_id
from gateway.intent.model import INFERENCE, Declaration, IntendedUse, declaration_id
from gateway.ledger.ports import Foreign
from gateway.ledger.publishing.publisher import Publisher
from gateway.ledger.reading.reader import Reader
from gateway.ledger.reading.register import KINDS, Register
from gateway.ledger.sequencing.sequencer import Sequencer
from gateway.log import build_logger
from gateway.policy.library import Library
from gateway.provider.catalogue import dialect_named
from gateway.provider.tokens import Encoding, TokenCounter
from gateway.proxy.desk import Desk
from gateway.receipt.model import (
    Abandonment,
    Covered,
    DeclarationFacts,
    Opening,
    Predicate,
    Receipt,
    Refusal,
    Statement,
    Verdict,
    Withdrawal,
    Writer,
)
from gateway.receipt.statement import read_leaf, statement_subjects, write_statement
from gateway.store.content import ContentStore
from gateway.store.index.index import Index
from gateway.store.sqlite import SqliteLedger
from tests.support.dataset import POLICIES, TERMS, a_library
from tests.support.evidence import LOG_SIGNER, ORIGIN, RECEIPT_SIGNER
from tests.support.store import FaultStore

PROJECT: Final = "search"
COMMITMENT_KEY: Final = b"k" * 32
WRITER: Final = Writer(instance="test", version="0.1.0")
TRAINING: Final = IntendedUse(purpose="train.sft", student="parser")
CHAT_PATH: Final = "/v1/chat/completions"
CHAT: Final[dict[str, Any]] = {
    "model": "open-1",
    "messages": [{"role": "user", "content": "say something"}],
}
PROVIDER_SECRET: Final = "sk-of-the-organisation"
TRUSTED: Final = ("open", "held", "closed")
"""The providers of the house: what their terms say of training is their name."""


# -- a provider on a plain socket ---------------------------------------------------------


class Act(enum.Enum):
    """What a provider does between two pieces of its answer."""

    ABORT = "abort"
    CLOSE = "close"


Step = bytes | Act | asyncio.Event
"""Bytes to send, an act, or something to wait for before going on."""


class RawProvider:
    """Answers every request with the same steps, and remembers what it received."""

    def __init__(self) -> None:
        self.steps: Sequence[Step] = ()
        self.received: list[bytes] = []
        """Each request whole: head and body."""
        self.dialled = 0
        self.on_request: Callable[[bytes], None] = lambda _: None
        """Called with each request before anything is answered."""
        self.arrived = asyncio.Event()
        self.hung_up = asyncio.Event()
        """Set when a caller went away while it was being answered."""
        self.url = ""
        self.swallows = False
        """Read whatever comes, answer nothing."""
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[RawProvider]:
        """Listen on loopback."""

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._tasks.add(asyncio.ensure_future(self._serve(reader, writer)))

        server = await asyncio.start_server(begin, "127.0.0.1", 0, limit=1 << 20)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled += 1
        try:
            while self.swallows and await reader.read(1 << 20):
                pass
            while not self.swallows:
                request = await _request(reader)
                self.received.append(request)
                self.on_request(request)
                self.arrived.set()
                for step in self.steps:
                    if not await self._take(step, reader, writer):
                        return
        except asyncio.IncompleteReadError:
            pass
        except ConnectionError:
            self.hung_up.set()
        finally:
            writer.close()

    async def _take(
        self, step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        match step:
            case bytes():
                writer.write(step)
                await writer.drain()
                await asyncio.sleep(0)
            case asyncio.Event():
                return await self._wait(step, reader)
            case Act.ABORT:
                writer.transport.abort()
                return False
            case Act.CLOSE:
                return False
        return True

    async def _wait(self, event: asyncio.Event, reader: asyncio.StreamReader) -> bool:
        """Wait for *event*; tell whether the caller is still there."""
        waiting = asyncio.ensure_future(event.wait())
        leaving = asyncio.ensure_future(reader.read(1))
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            waiting.cancel()
            self.hung_up.set()
            return False
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
        return True


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lowered = head.lower()
    if b"transfer-encoding: chunked" in lowered:
        body = await reader.readuntil(b"\r\n0\r\n")
        while not body.endswith(b"\r\n\r\n"):
            body += await reader.readuntil(b"\r\n")
        return head + body
    length = 0
    if b"content-length:" in lowered:
        length = int(lowered.split(b"content-length:")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


def sized(body: bytes, kind: str = "application/json", *, status: int = 200) -> bytes:
    """Return a whole answer with its length."""
    return (
        b"HTTP/1.1 %d OK\r\ncontent-type: %b\r\nx-request-id: req-1\r\n"
        b"content-length: %d\r\n\r\n" % (status, kind.encode(), len(body))
    ) + body


STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
STREAM_END: Final = b"0\r\n\r\n"


def framed(chunk: bytes) -> bytes:
    """Return *chunk* as a chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(chunk), chunk)


def completion(*texts: str, **more: Any) -> bytes:
    """Return a chat completion with a choice for each of *texts*."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    said = {"id": "c-1", "model": "open-1-0826", "choices": choices, "usage": usage}
    return json.dumps(said | more).encode()


def events(*texts: str, end: bool = True) -> list[bytes]:
    """Return a streamed chat completion, event by event."""
    deltas: list[dict[str, Any]] = [
        {"delta": {"role": "assistant", "content": ""}},
        *({"delta": {"content": text}} for text in texts),
    ]
    if end:
        deltas.append({"delta": {}, "finish_reason": "stop"})
    told = [
        b"data: %b\n\n"
        % json.dumps({"id": "c-1", "model": "open-1", "choices": [{"index": 0} | one]}).encode()
        for one in deltas
    ]
    return [*told, b"data: [DONE]\n\n"] if end else told


def streamed(*texts: str, end: bool = True) -> list[bytes]:
    """Return the steps of a provider that streams *texts* to a clean end."""
    return [STREAM_HEAD, *map(framed, events(*texts, end=end)), STREAM_END]


# -- a guest ------------------------------------------------------------------------------


class Guest:
    """The caller's side of one exchange: keeps what it is given, and can hang up."""

    def __init__(self, on_write: Callable[[Guest], None] = lambda _: None) -> None:
        self.gone = False
        self.when_gone: Callable[[], None] | None = None
        self.status: int | None = None
        self.chunks: list[bytes] = []
        self.written = asyncio.Event()
        self._on_write = on_write

    @property
    def got(self) -> bytes:
        """Return the body so far."""
        return b"".join(self.chunks)

    def headers_for(self, permitted: Permitted, headers: RawHeaders) -> RawHeaders:
        """Return *headers* as they came."""
        return headers

    def head(self, status: int, reason: bytes, headers: RawHeaders, *, sized: bool) -> None:
        """Keep the head."""
        assert self.status is None
        self.status = status
        self._on_write(self)

    async def pass_on(self, chunk: bytes) -> None:
        """Keep body bytes."""
        assert self.status is not None
        self.chunks.append(chunk)
        self._on_write(self)
        self.written.set()

    def hang_up(self) -> None:
        """Go, as a closed connection does."""
        self.gone = True
        tell, self.when_gone = self.when_gone, None
        if tell is not None:
            tell()


# -- the rooms ----------------------------------------------------------------------------


class Rooms:
    """A request's rooms over one ledger file; opened and left as often as a test likes."""

    def __init__(
        self,
        folder: Path,
        *,
        library: Library | None = None,
        drain: bool = False,
        undeclared: bool = False,
        unreadable: bool = False,
        encoding: Encoding | None = None,
        origin: Origin | None = None,
    ) -> None:
        self.folder = folder
        self.clock = FrozenClock()
        self.library = library or a_library()
        self.drain = drain
        self._undeclared, self._unreadable = undeclared, unreadable
        self._encoding = encoding
        self._origin = origin or origin_of("http://127.0.0.1:1")
        folder.mkdir(parents=True, exist_ok=True)
        SqliteLedger.create(folder / "ledger.db", ORIGIN).close()
        self.recovered = 0

    async def open(self) -> Rooms:
        """Open every room as `start` does, and close what a crash left open."""
        self.ledger = SqliteLedger(self.folder / "ledger.db", origin=ORIGIN)
        self.store = FaultStore(self.ledger)
        self.index = Index(self.folder / "index.db")
        reader = Reader(self.ledger, self.index)
        reader.catch_up()
        self.register = register = Register()
        register.fold(reader.statements(kinds=KINDS))
        loop = asyncio.get_running_loop()

        def take_in(foreign: Foreign) -> None:
            for index, leaf in foreign:
                register.apply(index, read_leaf(leaf))

        def hand_over(foreign: Foreign) -> None:
            loop.call_soon_threadsafe(take_in, foreign)

        self.sequencer = Sequencer(
            self.store,
            Publisher(
                self.store,
                LOG_SIGNER,
                ORIGIN,
                self.clock,
                publish_file=self.folder / "checkpoint",
            ),
            on_foreign=hand_over,
        )
        self.sequencer.start(seen=self.index.size)
        self.content = ContentStore(self.folder / "content.db", b"c" * 32)
        self.providers = Providers(self.provider(name) for name in TRUSTED)
        self.law = Law(
            self.library,
            register,
            self.clock,
            held=HeldWords(register, self.index).held,
            undeclared=self._undeclared,
            unreadable=self._unreadable,
        )
        self.notary = Notary(
            sequencer=self.sequencer,
            content=self.content,
            signer=lambda: RECEIPT_SIGNER,
            commitment_key=COMMITMENT_KEY,
            clock=self.clock,
            writer=WRITER,
            providers=self.providers,
            tokens=TokenCounter(self._encoding),
        )
        self.desk = Desk(register, lambda: list(reader.statements(kinds=KINDS)))
        self.forwarder = Forwarder()
        self.walk = Walk(
            law=self.law,
            register=register,
            sequencer=self.sequencer,
            forwarder=self.forwarder,
            notary=self.notary,
            clock=self.clock,
            writer=WRITER.instance,
            refresh=self.desk.refresh,
            drain=self.drain,
        )
        self.recovered = await recover(list(self.index.unclosed()), self.notary.seal)
        return self

    async def leave(self) -> None:
        """Close every room, without tidying up first."""
        self.forwarder.close()
        await asyncio.to_thread(self.sequencer.stop)
        await asyncio.to_thread(self.content.close)
        self.index.close()
        self.ledger.close()

    async def restart(self) -> None:
        """Leave and open again."""
        await self.leave()
        await self.open()

    def provider(self, name: str) -> Provider:
        """Return the provider of that name; all of them listen at one place."""
        return Provider(
            id=name,
            dialect=dialect_named("openai"),
            origin=self._origin,
            base_url="https://open.example",
            layers=(Layer(policy=name),),
        )

    def asked(
        self,
        provider: str = "open",
        use: IntendedUse | None = None,
        *,
        path: str = CHAT_PATH,
        body: bytes | StreamedBody | None = None,
        declaration: Declaration | None = None,
        **more: Any,
    ) -> Asked:
        """Return a request as the door hands it on; *more* goes into its JSON body."""
        if body is None:
            body = json.dumps(CHAT | more).encode()
        dialect = dialect_named("openai")
        readable = body if isinstance(body, bytes) else None
        if declaration is None:
            words = use or INFERENCE
            declaration = self.register.declaration(
                declaration_id(PROJECT, words)
            ) or Declaration(id=declaration_id(PROJECT, words), project=PROJECT, use=words)
        return Asked(
            exchange=new_exchange_id(self.clock.now_ms()),
            received_ms=self.clock.now_ms(),
            principal=Principal(name="ada", project=PROJECT),
            declaration=declaration,
            declared=declaration.use is not INFERENCE,
            call=dialect.read_request(
                provider, dialect.found("POST", path), "application/json", readable
            ),
            endpoint=f"POST https://{provider}.example{path}",
            body=body,
        )

    async def through(
        self, asked: Asked, guest: Guest | None = None
    ) -> tuple[Answered | Held | Forbidden, Sealed]:
        """Send *asked* through the rooms."""
        body = asked.body if isinstance(asked.body, bytes) else aiter(asked.body)
        outgoing = Outgoing(
            method=b"POST",
            target=CHAT_PATH.encode(),
            headers=[(b"content-type", b"application/json")],
            body=body,
        )
        provider = self.providers.named(asked.call.provider)
        return await self.walk.through(asked, provider, outgoing, guest or Guest())

    def leaves(self) -> list[bytes]:
        """Return what is durable, read by a connection of its own."""
        with contextlib.closing(SqliteLedger(self.folder / "ledger.db")) as beside:
            return list(beside.leaves(0, beside.head().size))

    def statements(self) -> list[Statement]:
        """Return what is durable as statements."""
        return [read_leaf(leaf) for leaf in self.leaves()]

    def openings(self) -> list[str]:
        """Return the exchanges that have an opening."""
        return [one.exchange for one in self.statements() if isinstance(one, Opening)]

    def closings(self) -> Counter[str]:
        """Return how many statements close each exchange."""
        return Counter(
            one.exchange
            for one in self.statements()
            if isinstance(one, Receipt | Refusal | Abandonment)
        )

    def check(self) -> None:
        """Insist that every opening has exactly one closing statement."""
        closings = self.closings()

        assert {} == {name: closings[name] for name in self.openings() if closings[name] != 1}
        assert set(closings.values()) <= {1}


@asynccontextmanager
async def rooms_at(folder: Path, url: str | None = None, **said: Any) -> AsyncIterator[Rooms]:
    """Open the rooms in *folder* with a provider at *url*; leave them at the end."""
    origin = None if url is None else origin_of(url)
    rooms = await Rooms(folder, origin=origin, **said).open()
    try:
        yield rooms
    finally:
        await rooms.leave()


class Elsewhere:
    """Another process at the same ledger: declares, rules and withdraws."""

    def __init__(self, rooms: Rooms) -> None:
        self._file = rooms.folder / "ledger.db"
        self._clock = rooms.clock

    @property
    def _now(self) -> str:
        return rfc3339(self._clock.now_ms())

    def state(self, predicate: Predicate) -> int:
        """Append a signed statement."""
        with contextlib.closing(SqliteLedger(self._file, origin=ORIGIN)) as ledger:
            publisher = Publisher(ledger, LOG_SIGNER, ORIGIN, self._clock)
            sequencer = Sequencer(ledger, publisher)
            leaf = write_statement(predicate, (), RECEIPT_SIGNER)
            return sequencer.append_and_wait(leaf).index

    def declare(self, use: IntendedUse = TRAINING, expires: str | None = None) -> DeclarationId:
        """Register *use* for the project of the house."""
        facts = DeclarationFacts(
            declaration=declaration_id(PROJECT, use),
            project=PROJECT,
            use=use,
            owner="ada",
            expires=expires,
            at=self._now,
            writer=WRITER,
        )
        self.state(facts)
        return facts.declaration

    def rule(
        self, declaration: DeclarationId, *clauses: tuple[str, str], approved: bool = True
    ) -> int:
        """Say yes to *clauses* (policy, clause), or no to the declaration."""
        return self.state(verdict(declaration, *clauses, approved=approved, at=self._now))

    def withdraw(self, declaration: DeclarationId) -> int:
        """Withdraw *declaration*."""
        return self.state(
            Withdrawal(
                by="grace",
                reason="no longer",
                declaration=declaration,
                at=self._now,
                writer=WRITER,
            )
        )


def verdict(
    declaration: DeclarationId,
    *clauses: tuple[str, str],
    approved: bool = True,
    at: str = "2026-11-22T00:00:00.000Z",
) -> Verdict:
    """Return a verdict of grace's on *declaration*."""
    policies = dict.fromkeys(policy for policy, _ in clauses)
    return Verdict(
        approved=approved,
        by="grace",
        reason="said so",
        declaration=declaration,
        covers=tuple(
            Covered(
                policy=policy, clauses=tuple(name for other, name in clauses if other == policy)
            )
            for policy in policies
        ),
        at=at,
        writer=WRITER,
    )


# -- a whole gateway in this process ------------------------------------------------------


def write_installation(folder: Path, url: str, more: str = "") -> Path:
    """Write settings and small policies into *folder* and make the data; return the settings.

    All providers of the house lead to *url*.
    """
    for name in TRUSTED:
        place = folder / "policies" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "policy.yaml").write_text(POLICIES[f"{name}/policy.yaml"])
        (place / "terms.yaml").write_text(TERMS)
    lines = ["listen: 127.0.0.1:0", "policies: ./policies", "providers:"]
    for name in TRUSTED:
        lines += [f"  {name}:", f"    base_url: {url}", "    dialect: openai"]
        if "keys: managed" in more:
            lines.append("    credential: file:provider.key")
    (folder / "provider.key").write_text(PROVIDER_SECRET)
    file = folder / "gateway.yaml"
    file.write_text("\n".join(lines) + "\n" + more)
    init(settings.load(file, environment={}), ORIGIN)
    return file


@asynccontextmanager
async def gateway_in(folder: Path, url: str, more: str = "") -> AsyncIterator[Gateway]:
    """Run a gateway in this process; *more* ends its settings."""
    file = write_installation(folder, url, more)
    gateway = await start(
        settings.load(file, environment={}), build_logger("debug", io.StringIO())
    )
    try:
        yield gateway
    finally:
        await gateway.stop()


async def eventually(true: Callable[[], bool | Awaitable[bool]]) -> None:
    """Return once *true* holds; the test's own time limit is the bound."""
    while True:
        now = true()
        if now if isinstance(now, bool) else await now:
            return
        await asyncio.sleep(0.005)


def subject_of_body(leaf: bytes) -> Sha256:
    """Return the SHA-256 of the answer's body that the receipt in *leaf* names."""
    digests = {subject.name: subject.digest for subject in statement_subjects(leaf)}
    return Sha256(digests["response.body"]["sha256"])

"""One request at the door: admitted, declared, read, walked through the house, answered."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.batch.desk import BatchDesk
from gateway.batch.errand import HEADER as LINES
from gateway.batch.errand import Errand, Incoming
from gateway.clock import Clock
from gateway.errors import (
    BodyTooLargeError,
    CallerGoneError,
    GatewayError,
    HeadersTooLargeError,
    LedgerDamagedError,
    LedgerUnwellError,
    LimitReachedError,
    MalformedBodyError,
    MalformedDeclarationError,
    MalformedRequestError,
    ProviderBrokeOffError,
    ProviderTimeoutError,
    ProviderUnreachableError,
    ProviderUnreadableError,
    RequestTooSlowError,
    UnknownRouteError,
)
from gateway.exchange.allowance import Allowance, Reserved
from gateway.exchange.attempt import attempt_of
from gateway.exchange.body import StreamedBody
from gateway.exchange.forward import Outgoing, RawHeaders
from gateway.exchange.providers import Provider, Providers
from gateway.exchange.resources import UPLOAD, Resources
from gateway.exchange.scope import check_scope
from gateway.exchange.states import (
    Answered,
    Asked,
    Forbidden,
    Held,
    Permitted,
    Principal,
    Sealed,
)
from gateway.exchange.walk import Caller, Walk
from gateway.ident import ExchangeId, new_exchange_id
from gateway.intent.tags import HEADER as TAGS
from gateway.intent.tags import parse_tags
from gateway.limits import BODY_BYTES_HELD_MAX, BODY_BYTES_MAX
from gateway.live.handshake import (
    WEBSOCKET,
    asks_for_websocket,
    before_talk,
    call_of,
    showing_key,
    without_keys,
)
from gateway.live.session import SWITCHING, Live
from gateway.log import Logger
from gateway.provider.encoding import decoder_for
from gateway.provider.model import Dialect, Found, Operation, Problem, Taking
from gateway.proxy.auth import Porter
from gateway.proxy.desk import HEADER, Desk
from gateway.proxy.knock import Knock
from gateway.proxy.metrics import Metrics
from gateway.proxy.own import Own
from gateway.proxy.problem import problem_json, problem_of, provider_problem, refusal
from gateway.proxy.reply import Reply, end_to_end
from gateway.store.access import SECRET

_OVERRIDES: Final = ("x-http-method-override", "x-http-method", "x-method-override")
"""Headers by which some providers take a request for one with another method."""

_NOTHING: Final[frozenset[bytes]] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Handlers:
    """Everything a request needs at the door; built once, in `app/`."""

    walk: Walk
    providers: Providers
    porter: Porter
    desk: Desk
    own: Own
    metrics: Metrics
    clock: Clock
    log: Logger
    commitment_key: bytes
    allowance: Allowance
    resources: Resources
    batches: BatchDesk
    live: Live
    public_url: str | None = None
    """What callers reach the gateway by, if the settings say."""
    tls: bool = False
    """Callers speak TLS, to this door or to what stands before it."""

    async def serve(self, knock: Knock, reply: Reply) -> None:
        """Answer one request, whatever it is; errors of the caller and ours become answers."""
        target = knock.raw_path
        if target.startswith("/-/"):
            await self.own.serve(knock, reply)
            return
        received_ms = self.clock.now_ms()
        exchange = new_exchange_id(received_ms)
        path, _, query = target.partition("?")
        prefix, slash, rest = path[1:].partition("/")
        dialect: Dialect | None = None
        try:
            if not slash:
                raise UnknownRouteError(
                    f"no provider stands behind `{path[:64]}`",
                    hint="paths begin with a provider, like /openai/v1/…",
                )
            if prefix == UPLOAD and (at := await self._uploading_at(query, received_ms)):
                # Some SDKs take no more than scheme and host of the address they were given.
                prefix, rest, target = at, path[1:], f"/{at}{target}"
            provider = self.providers.named(prefix)
            dialect = provider.dialect
            asked = await self._asked(knock, exchange, received_ms, provider, "/" + rest, query)
            if _talks(knock, asked.call.found):
                await self._talk(knock, asked, provider, target[len(prefix) + 1 :], reply)
                return
            await self._through(knock, asked, provider, target[len(prefix) + 1 :], reply)
        except CallerGoneError:
            reply.break_off()
        except GatewayError as error:
            self.metrics.problem(error.problem)
            if isinstance(error, LedgerUnwellError | LedgerDamagedError):
                self.log.warning("ledger.unwell", error=str(error))
            if isinstance(error, LimitReachedError):
                self.metrics.limit(error.scope, error.measure)
                self.log.info("limit.reached", provider=prefix, error=error.message)
            # Only what came as far as an opening has a record under this id.
            opened = exchange if isinstance(error, LedgerUnwellError) else None
            await send_problem(reply, problem_of(error, opened), dialect)

    async def _talk(
        self, knock: Knock, asked: Asked, provider: Provider, target: str, reply: Reply
    ) -> None:
        """Carry a session over a connection that is switched."""
        await self.resources.admit(asked, provider)
        outgoing = _outgoing(
            knock, asked, target, provider.dialect, managed=self.porter.managed
        )
        outgoing = msgspec.structs.replace(outgoing, body=None, protocol=WEBSOCKET)
        # Nothing is asked before the first message; each answer is counted by itself.
        opened = msgspec.structs.replace(asked.call, operation=Operation.LISTING)
        reserved = await self.allowance.reserve(msgspec.structs.replace(asked, call=opened))

        def admit() -> None:
            self.porter.principal_of(_shown(knock), knock.raw_path.partition("?")[2], provider)

        async def ask(
            permitted: Permitted, provider: Provider, outgoing: Outgoing, _: Caller
        ) -> Answered:
            return await self.live.ask(permitted, provider, outgoing, reply, admit)

        outcome, sealed = await self.walk.through(asked, provider, outgoing, reply, ask)
        await self._settle(reserved, outcome)
        await self._answer(outcome, sealed, provider, reply)

    async def _through(
        self, knock: Knock, asked: Asked, provider: Provider, target: str, reply: Reply
    ) -> None:
        """See one exchange through: to the provider, back, and into the ledger."""
        encoding = knock.headers.get("content-encoding")
        kept = await self.resources.admit(asked, provider, encoding)
        errand = await self.batches.errand(asked, provider, _incoming(knock))
        outcome: Answered | Held | Forbidden | None = None
        if errand is not None and errand.answer is not None:
            await reply.answer(200, b"OK", errand.answer, b"")
            return
        try:
            asked = asked if errand is None else errand.asked
            amendment = self.resources.amendment(
                asked, provider, kept, self._public_url(knock, provider)
            )
            outgoing = _outgoing(
                knock,
                asked,
                target,
                provider.dialect,
                managed=self.porter.managed,
                plain=amendment is not None and amendment.wants_plain,
                dropped=_NOTHING if errand is None else errand.drops,
                added=() if errand is None else errand.adds,
            )
            # What breaks on the way leaves its reservation counted: too much, never too little.
            many = () if errand is None else errand.begun()
            for call, _ in many:
                check_scope(asked.principal, call)
            reserved = await self.allowance.reserve(asked, many=many)
            if errand is not None:
                errand.reserved = reserved
            outcome, sealed = await self.walk.through(
                asked,
                provider,
                outgoing,
                reply,
                self.walk.amending(amendment, errand),
                None if errand is None else errand.rule,
            )
            await self._settle(reserved, outcome)
            await self._answer(outcome, sealed, provider, reply, errand)
        finally:
            if errand is not None:
                await errand.close(outcome)

    # -- in -------------------------------------------------------------------------------

    def _public_url(self, knock: Knock, provider: Provider) -> str | None:
        """Return what leads the caller to *provider* through this gateway."""
        base = self.public_url
        if base is None:
            host = knock.headers.get("host")
            if not host:
                return None
            base = f"{'https' if self.tls else 'http'}://{host}"
        return f"{base}/{provider.id}"

    async def _uploading_at(self, query: str, now_ms: int) -> str | None:
        """Return the provider at which the upload that *query* names was begun."""
        for provider in self.providers.ids():
            if await self.resources.uploader(provider, query, now_ms) is not None:
                return provider
        return None

    async def _principal(
        self,
        headers: Mapping[str, str],
        path: str,
        query: str,
        provider: Provider,
        now_ms: int,
    ) -> Principal:
        """Return who asks.

        Raises:
            CredentialError: no key, or one that is unknown, expired or revoked.
        """
        if path.startswith("/upload/") and not self.porter.is_shown(headers, query, provider):
            # Some SDKs go on with an upload at the address that they were given, without a key.
            kept = await self.resources.uploader(provider.id, query, now_ms)
            if kept is not None:
                return self.porter.returning(kept.principal, kept.project, provider)
        return self.porter.principal_of(headers, query, provider)

    async def _asked(
        self,
        knock: Knock,
        exchange: ExchangeId,
        received_ms: int,
        provider: Provider,
        path: str,
        query: str,
    ) -> Asked:
        headers = knock.headers
        for name in _OVERRIDES:
            if name in headers:
                raise MalformedRequestError(
                    f"`{name}` makes another request of this one",
                    hint="send the method itself",
                )
        principal = await self._principal(_shown(knock), path, query, provider, received_ms)
        said = headers.getall(HEADER, [])
        if len(said) > 1:
            raise MalformedDeclarationError(
                f"`{HEADER}` is sent {len(said)} times", hint="send it once"
            )
        tags = parse_tags(headers.getall(TAGS, []))
        declaration, declared = await self.desk.declared(said[0] if said else None, principal)
        kind = headers.get("content-type", "")
        if "charset" in kind and (odd := _CHARSET.search(kind)) is not None:
            raise MalformedBodyError(
                f"the body comes in `{odd[1][:64]}`", hint="send it in UTF-8, as JSON is"
            )
        body: bytes | StreamedBody
        found = provider.dialect.found(knock.method, path, query)
        switches = _talks(knock, found)
        if found.route.taking is Taking.HELD and not _is_large_form(knock, kind):
            body = await _held(knock)
            readable = _decoded(body, headers.get("content-encoding"))
            call = provider.dialect.read_request(provider.id, found, kind, readable)
        elif knock.body_exists and self.resources.reads_words(found, streams=switches):
            # Nobody here knows what it asks for, but what it names is looked for.
            body = await _held(knock)
            call = provider.dialect.read_request(provider.id, found, kind, None)
        else:
            body = self._passing(knock, exchange)
            call = provider.dialect.read_request(provider.id, found, kind, None)
        if (
            call.operation is Operation.OPAQUE
            and isinstance(body, StreamedBody)
            and (found.route.taking is Taking.HELD)
        ):
            # It calls itself a form where none is taken, so that nobody would read it.
            raise _too_large(BODY_BYTES_HELD_MAX)
        if switches:
            body = StreamedBody(knock.chunks(), None, exchange, self.commitment_key)
            call = call_of(call, found)
        check_scope(principal, before_talk(call) if switches else call)
        return Asked(
            exchange=exchange,
            received_ms=received_ms,
            principal=principal,
            declaration=declaration,
            declared=declared,
            call=call,
            endpoint=f"{knock.method} {provider.base_url}{path}",
            body=body,
            tags=tags,
            attempt=attempt_of(
                headers,
                principal.name,
                body if isinstance(body, bytes) else None,
                self.commitment_key,
            ),
        )

    def _passing(self, knock: Knock, exchange: ExchangeId) -> StreamedBody | bytes:
        if not knock.body_exists:
            return b""
        length = knock.content_length
        if length is not None and length > BODY_BYTES_MAX:
            raise _too_large(BODY_BYTES_MAX)
        return StreamedBody(knock.chunks(), length, exchange, self.commitment_key)

    async def _settle(
        self, reserved: Reserved | None, outcome: Answered | Held | Forbidden
    ) -> None:
        """Replace what was held of the caller's limits by what was used."""
        try:
            await self.allowance.settle(reserved, outcome)
        except LedgerUnwellError as error:
            # The answer has its receipt; what was held of the limits stays counted.
            self.log.warning("ledger.unwell", error=str(error))

    # -- out ------------------------------------------------------------------------------

    async def _answer(
        self,
        outcome: Answered | Held | Forbidden,
        sealed: Sealed,
        provider: Provider,
        reply: Reply,
        errand: Errand | None = None,
    ) -> None:
        """Release what waited for the notary; the sealed place is the ticket."""
        if isinstance(outcome, Answered):
            asked = outcome.permitted.asked
            await self._release(outcome, provider, reply)
        else:
            asked = outcome.asked
            problem = None if errand is None else errand.problem(outcome)
            if problem is None:
                problem = refusal(outcome, self.walk.law.explain(asked, provider))
            await send_problem(reply, problem, provider.dialect)
        elapsed_s = (self.clock.now_ms() - asked.received_ms) / 1000
        self.metrics.sealed(outcome, elapsed_s)
        self.log.info(
            "exchange.sealed",
            exchange=sealed.exchange,
            index=sealed.index,
            principal=asked.principal.name,
            provider=asked.call.provider,
            operation=asked.call.operation,
            model=asked.call.model,
            purpose=asked.declaration.use.purpose,
            outcome=outcome.ended if isinstance(outcome, Answered) else outcome.ruling.effect,
            status=outcome.status if isinstance(outcome, Answered) else 403,
            error=outcome.error if isinstance(outcome, Answered) else None,
            stop=outcome.stop if isinstance(outcome, Answered) else None,
            seconds=elapsed_s,
        )

    async def _release(self, answered: Answered, provider: Provider, reply: Reply) -> None:
        if answered.status == SWITCHING:
            return
        # A whole answer may carry an error by any name; only a cut one's name can be ours.
        broken = answered.ended != "complete" and answered.error in _BROKEN
        if answered.error == BodyTooLargeError.code and answered.status is None:
            problem = problem_of(_too_large(BODY_BYTES_MAX), answered.permitted.asked.exchange)
            await send_problem(reply, problem, provider.dialect)
        elif answered.error in _BADLY_SENT and answered.status is None:
            problem = problem_of(_BADLY_SENT[answered.error], answered.permitted.asked.exchange)
            await send_problem(reply, problem, provider.dialect)
        elif answered.ended == "cut-short-by-caller":
            reply.break_off()
        elif answered.status is None or (broken and not answered.head_sent):
            await send_problem(reply, provider_problem(answered), provider.dialect)
        elif broken:
            await reply.pass_on(answered.held)
            reply.break_off()
        else:
            await reply.finish(
                answered.status,
                answered.reason,
                answered.headers,
                answered.held,
                sized=answered.sized,
                trailers=answered.trailers,
            )


async def send_problem(reply: Reply, problem: Problem, dialect: Dialect | None) -> None:
    """Answer with *problem*, in the shape that the calling SDK turns into its exception."""
    if reply.begun:
        reply.break_off()
        return
    headers: list[tuple[bytes, bytes]] = [(b"x-gateway-problem", problem.code.encode())]
    if problem.code in _EFFECTS:
        headers.append((b"x-gateway-effect", _EFFECTS[problem.code]))
    if problem.exchange:
        headers.append((b"x-gateway-exchange", problem.exchange.encode()))
    if dialect is None:
        headers.append((b"content-type", b"application/problem+json"))
        body = problem_json(problem)
    else:
        headers.append((b"content-type", b"application/json"))
        body = dialect.problem_body(problem)
    again_s = 1 if problem.status == 503 else problem.again_s
    if again_s is not None:
        headers.append((b"retry-after", str(again_s).encode()))
    if problem.never_again:
        headers.append((b"x-should-retry", b"false"))
    reason = REASONS.get(problem.status, b"Error")
    await reply.answer(problem.status, reason, headers, body)


_BROKEN: Final = frozenset(
    kind.code
    for kind in (
        ProviderUnreachableError,
        ProviderTimeoutError,
        ProviderBrokeOffError,
        ProviderUnreadableError,
    )
)
_BADLY_SENT: Final = {
    error.problem: error
    for error in (
        MalformedRequestError("the body's framing broke", hint="mend the client"),
        HeadersTooLargeError("the fields behind the body are too many", hint="send fewer"),
        RequestTooSlowError("the body came too slowly", hint="send it at once"),
    )
}
"""What may be wrong with a body that was passed on as it came; its provider was hung up on."""
_EFFECTS: Final = {"use.held": b"hold", "use.forbidden": b"forbid"}
REASONS: Final = {
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


def _shown(knock: Knock) -> Mapping[str, str]:
    """Return the headers in which a key may stand."""
    if not _switches(knock):
        return knock.headers
    return showing_key(knock.headers, knock.headers.getall("sec-websocket-protocol", []))


def _talks(knock: Knock, found: Found | None) -> bool:
    """Tell whether a session is asked for, where there may be one.

    Elsewhere that is ignored, as any server may (RFC 9110 section 7.8): what is kept is handed
    out by the rules for that, whatever a provider would make of such a request.
    """
    if found is None or not _switches(knock):
        return False
    route = found.route
    return route.operation is Operation.SESSION or (
        route.operation is Operation.OPAQUE and route.lists is None
    )


_CHARSET: Final = re.compile(r"""(?i)\bcharset\s*=\s*+"?+(?!utf-?8\b|us-ascii\b)([^";]*)""")
"""Says that a body is in other signs than it is read in here: a provider may heed it."""


def _switches(knock: Knock) -> bool:
    return "upgrade" in knock.headers and asks_for_websocket(knock.method, knock.headers)


def _outgoing(
    knock: Knock,
    asked: Asked,
    target: str,
    dialect: Dialect,
    *,
    managed: bool,
    plain: bool = False,
    dropped: frozenset[bytes] = _NOTHING,
    added: RawHeaders = (),
) -> Outgoing:
    """Return the request as it goes upstream: the caller's bytes, less what is ours."""
    if managed:
        # Whatever header the gateway key came in, it never reaches a provider.
        dropped = dropped | {name.encode() for name in dialect.CREDENTIAL_HEADERS}
        target = _without_key(target, dialect)
    target = _without_secrets(target)
    if plain:
        dropped = dropped | {b"accept-encoding"}
    headers = [*end_to_end(knock.lines, dropped), *added]
    if managed and _switches(knock):
        headers = without_keys(headers)
    if plain:
        # It may have to change on its way back.
        headers.append((b"accept-encoding", b"identity"))
    if SECRET.search(b"\n".join(value for _, value in headers)):
        # A gateway key in a header where none belongs, such as a cookie, or where callers
        # bring their own key of the provider.
        headers = [header for header in headers if not SECRET.search(header[1])]
    if managed and asked.principal.credential is not None:
        found = asked.call.found
        name, value = dialect.credential_header(
            asked.principal.credential, "" if found is None else found.path
        )
        headers.append((name.encode(), value.encode()))
    body, length = asked.body, None
    if isinstance(body, StreamedBody):
        length = body.length
        passing: bytes | AsyncIterator[bytes] | None = aiter(body)
    elif knock.trailers:
        passing = _in_chunks(body)
    else:
        # Where the caller speaks of no body, not even of an empty one, neither do we.
        framed = knock.content_length is not None or knock.is_chunked
        passing = body if framed else None
    return Outgoing(
        method=knock.method.encode(),
        target=(target or "/").encode("utf-8", "surrogateescape"),
        headers=headers,
        body=passing,
        length=length,
        trailers=(lambda: end_to_end(knock.trailers, dropped)) if knock.is_chunked else None,
        takes_trailers="trailers" in knock.headers.get("te", "").lower(),
    )


def _incoming(knock: Knock) -> Incoming:
    """Return what of a request a batch would be known by."""
    headers = knock.headers
    encoding = headers.get("content-encoding", "").strip().lower()
    return Incoming(
        headers=headers,
        encoded=encoding not in {"", "identity"},
        chunks=knock.chunks(),
        length=knock.content_length,
        mode=headers.get(LINES),
        declared=HEADER in headers,
    )


async def _in_chunks(body: bytes) -> AsyncIterator[bytes]:
    """Yield *body* as what comes in chunks: only behind those is there room for trailers."""
    yield body


def _is_large_form(knock: Knock, content_type: str) -> bool:
    """Tell whether the body is a form too large to be held: a film, or an hour of speech."""
    length = knock.content_length
    return (
        length is not None
        and length > BODY_BYTES_HELD_MAX
        and content_type.lower().startswith("multipart/form-data")
    )


def _without_key(target: str, dialect: Dialect) -> str:
    """Return *target* without a key in its query; one that holds none as it was sent."""
    path, mark, query = target.partition("?")
    upstream = dialect.query_upstream(query)
    if upstream == query:
        return target
    return path + mark + upstream if upstream else path


def _without_secrets(target: str) -> str:
    """Return *target* without a gateway key in its query, where none belongs."""
    path, mark, query = target.partition("?")
    if not mark or not SECRET.search(query.encode(*_AS_SENT)):
        return target
    pairs = (pair for pair in query.split("&") if not SECRET.search(pair.encode(*_AS_SENT)))
    left = "&".join(pairs)
    return path + mark + left if left else path


_AS_SENT: Final = ("utf-8", "surrogateescape")


async def _held(knock: Knock) -> bytes:
    """Read the whole body.

    Raises:
        BodyTooLargeError: it is over what is held.
        DoorFullError: all bodies together are.
        CallerGoneError: it broke off.
        MalformedRequestError: its framing is broken, or it came too slowly.
    """
    if knock.content_length is not None and knock.content_length > BODY_BYTES_HELD_MAX:
        raise _too_large(BODY_BYTES_HELD_MAX)
    body = knock.whole()
    if body is not None:
        # All of it came with the head, as small bodies do.
        knock.sender.hold(len(body))
        return body
    parts: list[bytes] = []
    size = 0
    async for chunk in knock.chunks():
        size += len(chunk)
        if size > BODY_BYTES_HELD_MAX:
            raise _too_large(BODY_BYTES_HELD_MAX)
        knock.sender.hold(len(chunk))
        parts.append(chunk)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _decoded(body: bytes, encoding: str | None) -> bytes:
    decoder = decoder_for(encoding)
    if decoder is None:
        return body
    # What does not decode comes back as bytes that no dialect can read.
    return decoder.decode(body)


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"the request body is larger than {limit} bytes", hint="send less at once"
    )

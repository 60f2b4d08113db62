"""One request at the door: admitted, declared, read, walked through the house, answered."""

from __future__ import annotations

from collections.abc import Mapping
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
from gateway.exchange.forward import Outgoing
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
from gateway.live.handshake import WEBSOCKET, before_talk, call_of
from gateway.live.session import SWITCHING, Live
from gateway.log import Logger
from gateway.provider.model import Dialect, Operation, Taking
from gateway.proxy.auth import Porter
from gateway.proxy.body import check_charset, decoded, held, is_large_form, too_large
from gateway.proxy.desk import HEADER, Desk
from gateway.proxy.knock import Knock
from gateway.proxy.metrics import Metrics
from gateway.proxy.outgoing import outgoing_of
from gateway.proxy.own import Own
from gateway.proxy.problem import problem_of, provider_problem, refusal
from gateway.proxy.reply import Reply, send_problem
from gateway.proxy.switch import headers_with_key, talks

_OVERRIDES: Final = ("x-http-method-override", "x-http-method", "x-method-override")
"""Headers by which some providers take a request for one with another method."""


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
            if talks(knock, asked.call.found):
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
        outgoing = outgoing_of(
            knock, asked, target, provider.dialect, managed=self.porter.managed
        )
        outgoing = msgspec.structs.replace(outgoing, body=None, protocol=WEBSOCKET)
        # Nothing is asked before the first message; each answer is counted by itself.
        opened = msgspec.structs.replace(asked.call, operation=Operation.LISTING)
        reserved = await self.allowance.reserve(msgspec.structs.replace(asked, call=opened))

        def admit() -> None:
            self.porter.principal_of(
                headers_with_key(knock), knock.raw_path.partition("?")[2], provider
            )

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
            outgoing = outgoing_of(
                knock,
                asked,
                target,
                provider.dialect,
                managed=self.porter.managed,
                plain=amendment is not None and amendment.wants_plain,
                dropped=frozenset() if errand is None else errand.drops,
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
        principal = await self._principal(
            headers_with_key(knock), path, query, provider, received_ms
        )
        said = headers.getall(HEADER, [])
        if len(said) > 1:
            raise MalformedDeclarationError(
                f"`{HEADER}` is sent {len(said)} times", hint="send it once"
            )
        tags = parse_tags(headers.getall(TAGS, []))
        declaration, declared = await self.desk.declared(said[0] if said else None, principal)
        kind = headers.get("content-type", "")
        check_charset(kind)
        body: bytes | StreamedBody
        found = provider.dialect.found(knock.method, path, query)
        switches = talks(knock, found)
        if found.route.taking is Taking.HELD and not is_large_form(knock, kind):
            body = await held(knock)
            readable = decoded(body, headers.get("content-encoding"))
            call = provider.dialect.read_request(provider.id, found, kind, readable)
        elif knock.body_exists and self.resources.reads_words(found, streams=switches):
            # Nobody here knows what it asks for, but what it names is looked for.
            body = await held(knock)
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
            raise too_large(BODY_BYTES_HELD_MAX)
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
            raise too_large(BODY_BYTES_MAX)
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
            problem = problem_of(too_large(BODY_BYTES_MAX), answered.permitted.asked.exchange)
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

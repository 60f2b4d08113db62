"""The notary: what happened becomes a signed statement, and its place is durable on return.

Every exchange ends here, by the same function: answered, held, forbidden or abandoned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol, assert_never, overload

import msgspec

from gateway.canonical import canonical_json, keyed_sha256, salted_sha256, sha256_hex
from gateway.clock import Clock, rfc3339
from gateway.exchange.body import StreamedBody
from gateway.exchange.states import Abandoned, Answered, Asked, Forbidden, Held, Outcome, Sealed
from gateway.ident import ExchangeId, Sha256, random_bytes
from gateway.intent.purpose import teaches
from gateway.ledger.ports import Sequencing
from gateway.limits import (
    FINISH_REASON_CHARS_MAX,
    FOREIGN_TEXT_CHARS_MAX,
    MADE_PER_EXCHANGE_MAX,
    OUTPUTS_PER_EXCHANGE_MAX,
)
from gateway.policy.obligation import NO_CACHE
from gateway.provider.model import (
    Answer,
    Choice,
    Dialect,
    Made,
    Operation,
    Unit,
    UnteachableError,
)
from gateway.provider.tokens import TokenCounter
from gateway.receipt.envelope import Signer
from gateway.receipt.model import (
    Abandonment,
    Caller,
    Commitment,
    Declared,
    ModelFacts,
    OutputFacts,
    OutputKind,
    ProviderFacts,
    ReasoningKind,
    Receipt,
    Refusal,
    RequestFacts,
    ResourceFacts,
    Ruling,
    Subject,
    UsageFacts,
    Writer,
)
from gateway.receipt.statement import write_statement
from gateway.store.content import Content, ContentStore
from gateway.tlog.merkle import leaf_hash, root_of

ROW_SALT_BYTES = 16
_ROWED: Final = frozenset({Operation.CHAT, Operation.COMPLETION})
"""Operations whose answers a training row can be made of, so that the request is kept."""
_ERRORS: Final = 400


class Manifests(Protocol):
    """Knows which providers are students of ours."""

    def manifest_of(self, provider: str) -> Sha256 | None:
        """Return SHA-256 of the training manifest's payload, or `None`."""
        ...

    def named_facts(self, provider: str) -> tuple[str | None, str | None, str | None]:
        """Return route, agreement and account tier of *provider*, as the operator says."""
        ...

    def dialect_of(self, provider: str) -> Dialect:
        """Return the wire format of *provider*."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Notary:
    """Writes closing statements; built once, in `app/`."""

    sequencer: Sequencing
    content: ContentStore
    signer: Callable[[], Signer]
    """Gives the key to sign with now."""
    commitment_key: bytes
    clock: Clock
    writer: Writer
    providers: Manifests
    tokens: TokenCounter

    async def seal(self, outcome: Outcome) -> Sealed:
        """Sign what happened; its place is durable when this returns.

        Raises:
            LedgerUnwellError: it could not be written; nothing more may be released.
        """
        match outcome:
            case Answered():
                exchange = outcome.permitted.asked.exchange
                kept = self._kept(outcome)
                if kept is not None:
                    # First the text, then the receipt that commits to it: a crash between
                    # the two leaves text that no receipt names, which nothing ever reads.
                    item = outcome.permitted.asked.item
                    await self.content.put(exchange, kept, None if item is None else item.of)
                leaf = self._receipt(outcome, kept)
            case Held() | Forbidden():
                exchange = outcome.asked.exchange
                leaf = self._refusal(outcome)
            case Abandoned():
                exchange = outcome.exchange
                leaf = self._abandonment(outcome)
            case _:
                assert_never(outcome)
        sequenced = await self.sequencer.append(leaf)
        return Sealed(exchange=exchange, index=sequenced.index)

    # -- receipts -------------------------------------------------------------------------

    def _kept(self, answered: Answered) -> Content | None:
        """Return what must be kept of an exchange whose outputs may be learned from."""
        asked, answer = answered.permitted.asked, answered.answer
        if not (
            _may_teach(answered)
            and isinstance(asked.body, bytes)
            and asked.request is None
            and keeps_request(asked, answered.permitted.ruling)
        ):
            return None
        dialect = self.providers.dialect_of(asked.call.provider)
        rows: dict[int, bytes] = {}
        reasoned: dict[int, bytes] = {}
        for choice in answer.choices:
            try:
                row = dialect.row_of(asked.call, choice)
                rows[choice.index] = canonical_json(row)
                if choice.shown is not None:
                    row["messages"][-1]["reasoning_content"] = choice.shown.text
                    reasoned[choice.index] = canonical_json(row)
            except (UnteachableError, TypeError):
                continue
        salt = random_bytes(ROW_SALT_BYTES)
        return Content(request=asked.body, salt=salt, rows=rows, reasoned=reasoned)

    def _receipt(self, answered: Answered, kept: Content | None) -> bytes:
        permitted, answer = answered.permitted, answered.answer
        asked = permitted.asked
        plain = kept is not None or (
            asked.call.operation not in _ROWED and _may_teach(answered)
        )
        units = self._outputs(asked.exchange, answer, kept, plain=plain)
        outputs = units[:OUTPUTS_PER_EXCHANGE_MAX]
        made = answer.made[:MADE_PER_EXCHANGE_MAX]
        subjects = [Subject(name="response.body", digest={"sha256": answered.response_sha256})]
        if plain:
            subjects += [
                Subject(name=_subject_name(outputs, at), digest={"sha256": unit.sha256})
                for at, unit in enumerate(outputs)
                if unit.sha256 is not None
            ]
        predicate = Receipt(
            exchange=asked.exchange,
            caller=_caller(asked),
            declared=_declared(asked),
            ruling=permitted.ruling,
            provider=self._provider(asked, answered.status, answered.request_id),
            model=ModelFacts(
                requested=_bounded(asked.call.model),
                reported=_bounded(answer.model),
                manifest=self._manifest(asked),
                provider=_bounded(answer.provider),
            ),
            operation=str(asked.call.operation),
            streaming=asked.call.streaming,
            readable=answer.readable,
            request=self._request(asked, kept),
            outputs=tuple(outputs),
            outputs_left_out=len(units) - len(outputs),
            outputs_root=_root_of(units) if len(units) > len(outputs) else None,
            response_bytes=answered.response_bytes,
            usage=self._usage(answered),
            finish_reasons=tuple(
                [
                    _bounded(choice.finish_reason, FINISH_REASON_CHARS_MAX)
                    for choice in answer.choices[:OUTPUTS_PER_EXCHANGE_MAX]
                    if choice.finish_reason
                ]
            ),
            error=_bounded(answered.error),
            features=tuple(sorted(asked.call.features)),
            made=tuple(map(_resource_facts, made)),
            made_left_out=len(answer.made) - len(made),
            stop=answered.stop,
            item=asked.item,
            items=answered.items,
            lines=asked.lines,
            attempt=asked.attempt,
            rewritten=answered.rewritten,
            tags=asked.tags,
            ended=answered.ended,
            opening=permitted.opening,
            received=rfc3339(asked.received_ms),
            finished=rfc3339(self.clock.now_ms()),
            writer=self.writer,
        )
        return write_statement(predicate, subjects, self.signer())

    def _outputs(
        self, exchange: ExchangeId, answer: Answer, kept: Content | None, *, plain: bool
    ) -> list[OutputFacts]:
        """Return every unit of *answer*, with *plain* digests or commitments."""
        units: list[OutputFacts] = []
        for choice in answer.choices:
            row = reasoned = shown_as = None
            if kept is not None and choice.index in kept.rows:
                row = _committed(kept, kept.rows[choice.index])
                if choice.index in kept.reasoned:
                    reasoned = _committed(kept, kept.reasoned[choice.index])
                    shown_as = _reasoning_kind(choice)
            first = True
            for kind, text in _units(choice):
                content = text.encode()
                units.append(
                    OutputFacts(
                        choice=choice.index,
                        kind=kind,
                        bytes=len(content),
                        sha256=sha256_hex(content) if plain else None,
                        commitment=None if plain else self._commit(exchange, content),
                        row=row if first else None,
                        reasoned=reasoned if first else None,
                        reasoning_kind=shown_as if first else None,
                    )
                )
                first = False
            units += [self._unit(exchange, unit, plain=plain) for unit in choice.others]
        units += [self._unit(exchange, unit, plain=plain) for unit in answer.units]
        return units

    def _unit(self, exchange: ExchangeId, unit: Unit, *, plain: bool) -> OutputFacts:
        return OutputFacts(
            choice=unit.index,
            kind=unit.kind,
            bytes=unit.bytes,
            sha256=unit.sha256 if plain else None,
            commitment=None if plain else self._commit(exchange, unit.sha256.encode()),
        )

    def _usage(self, answered: Answered) -> UsageFacts | None:
        usage = answered.answer.usage
        if usage is not None:
            return UsageFacts(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cached_input_tokens=usage.cached_input_tokens,
                reasoning_tokens=usage.reasoning_tokens,
            )
        if answered.ended == "complete" or not answered.answer.choices:
            return None
        # Cut short: the provider's own count never came. Count what did, or say nothing.
        counts = [
            self.tokens.count(text)
            for choice in answered.answer.choices
            for _, text in _units(choice)
        ]
        known = [count for count in counts if count is not None]
        if not known or len(known) < len(counts):
            return None
        return UsageFacts(output_tokens=sum(known), counted_by="tiktoken")

    # -- the others -----------------------------------------------------------------------

    def _refusal(self, outcome: Held | Forbidden) -> bytes:
        asked = outcome.asked
        predicate = Refusal(
            exchange=asked.exchange,
            caller=_caller(asked),
            declared=_declared(asked),
            ruling=outcome.ruling,
            provider=self._provider(asked),
            model=ModelFacts(
                requested=_bounded(asked.call.model), manifest=self._manifest(asked)
            ),
            operation=str(asked.call.operation),
            streaming=asked.call.streaming,
            features=tuple(sorted(asked.call.features)),
            request=self._request(asked, None),
            lines=asked.lines,
            opening=outcome.opening,
            item=asked.item,
            received=rfc3339(asked.received_ms),
            writer=self.writer,
        )
        return write_statement(predicate, (), self.signer())

    def _abandonment(self, abandoned: Abandoned) -> bytes:
        predicate = Abandonment(
            exchange=abandoned.exchange,
            opening=abandoned.opening,
            why=abandoned.why,
            found=rfc3339(self.clock.now_ms()),
            writer=self.writer,
        )
        return write_statement(predicate, (), self.signer())

    # -- shared ---------------------------------------------------------------------------

    def _request(self, asked: Asked, kept: Content | None) -> RequestFacts:
        body = asked.body
        if asked.request is not None:
            return asked.request
        if isinstance(body, StreamedBody):
            return RequestFacts(
                bytes=body.bytes,
                commitment=Commitment(alg="hmac-sha256", value=body.keyed_sha256()),
            )
        if kept is not None:
            return RequestFacts(
                bytes=len(body),
                commitment=Commitment(
                    alg="sha256-salted", value=salted_sha256(kept.salt, body)
                ),
            )
        return RequestFacts(bytes=len(body), commitment=self._commit(asked.exchange, body))

    def _commit(self, exchange: ExchangeId, content: bytes) -> Commitment:
        """Return a commitment that only this installation's key opens."""
        return Commitment(
            alg="hmac-sha256",
            value=keyed_sha256(self.commitment_key, exchange.encode() + content),
        )

    def _provider(
        self, asked: Asked, status: int | None = None, request_id: str | None = None
    ) -> ProviderFacts:
        route, agreement, account_tier = self.providers.named_facts(asked.call.provider)
        return ProviderFacts(
            name=asked.call.provider,
            endpoint=_bounded(asked.endpoint),
            route=route,
            agreement=_bounded(agreement),
            account_tier=account_tier,
            status=status,
            request_id=_bounded(request_id),
        )

    def _manifest(self, asked: Asked) -> Sha256 | None:
        return self.providers.manifest_of(asked.call.provider)


@overload
def _bounded(text: str, chars_max: int = ...) -> str: ...
@overload
def _bounded(text: str | None, chars_max: int = ...) -> str | None: ...
def _bounded(text: str | None, chars_max: int = FOREIGN_TEXT_CHARS_MAX) -> str | None:
    """Return a stranger's *text* as a statement can hold it: short, and printable Unicode.

    Without this a header of the provider's, or a path of the caller's, could be too much for
    a leaf, and the exchange would end without its receipt.
    """
    if text is None or (len(text) <= chars_max and text.isascii() and text.isprintable()):
        return text
    # JSON spells a sign that can't be printed with six; of others it takes at most four bytes.
    short = "".join(sign if sign.isprintable() else "?" for sign in text[:chars_max])
    return short.encode("utf-8", "replace")[:chars_max].decode("utf-8", "ignore")


def keeps_request(asked: Asked, ruling: Ruling) -> bool:
    """Tell whether a request is kept beside the rows that may be made of its answer."""
    return (
        teaches(asked.declaration.use.purpose)
        and asked.call.operation in _ROWED
        and NO_CACHE not in ruling.obligations
    )


def _may_teach(answered: Answered) -> bool:
    """Tell whether outputs of it were made for a student, and are whole and readable."""
    return (
        teaches(answered.permitted.asked.declaration.use.purpose)
        and answered.answer.readable
        and answered.ended == "complete"
        and answered.status is not None
        and answered.status < _ERRORS
    )


def _root_of(units: Iterable[OutputFacts]) -> Sha256:
    """Return the RFC 6962 root over the canonical JSON of every one of *units*."""
    leaves = (leaf_hash(canonical_json(msgspec.to_builtins(unit))) for unit in units)
    return Sha256(root_of(leaves).hex())


def _resource_facts(made: Made) -> ResourceFacts:
    of = made.of
    return ResourceFacts(
        kind=made.resource.kind,
        id=_bounded(made.resource.id),
        role=made.role or None,
        of=None if of is None else _bounded(f"{of.kind}/{of.id}"),
    )


def _committed(kept: Content, row: bytes) -> Commitment:
    return Commitment(alg="sha256-salted", value=salted_sha256(kept.salt, row))


def _reasoning_kind(choice: Choice) -> ReasoningKind | None:
    if choice.shown is None:
        return None
    return "summary" if choice.shown.is_summary else "visible"


def _units(choice: Choice) -> list[tuple[OutputKind, str]]:
    units: list[tuple[OutputKind, str]] = []
    if choice.text:
        units.append(("text", choice.text))
    units += [("reasoning", block) for block in choice.reasoning]
    units += [
        ("tool-call", canonical_json([call.name, call.arguments]).decode())
        for call in choice.tool_calls
    ]
    if choice.refusal is not None:
        units.append(("refusal", choice.refusal))
    return units


def _subject_name(outputs: list[OutputFacts], at: int) -> str:
    """Return `output/<choice>` for its text, `output/<choice>/<kind>/<n>` for other units."""
    unit = outputs[at]
    if unit.kind == "text":
        return f"output/{unit.choice}"
    before = sum(
        1 for other in outputs[:at] if other.choice == unit.choice and other.kind == unit.kind
    )
    return f"output/{unit.choice}/{unit.kind}/{before}"


def _caller(asked: Asked) -> Caller:
    return Caller(principal=asked.principal.name, project=asked.principal.project)


def _declared(asked: Asked) -> Declared:
    return Declared(
        use=asked.declaration.use,
        declaration=asked.declaration.id if asked.declared else None,
    )

"""What a caller is told when the gateway itself answers: status, code, sentence, next step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.errors import (
    BodyTooLargeError,
    CallerError,
    CallerGoneError,
    CredentialError,
    DoorFullError,
    EvidenceError,
    GateError,
    GatewayError,
    HeadersTooLargeError,
    KeyNotAllowedError,
    LedgerDamagedError,
    LedgerUnwellError,
    LimitReachedError,
    MalformedBodyError,
    MalformedDeclarationError,
    MalformedRequestError,
    MethodRefusedError,
    NotFoundError,
    OperatorError,
    PolicyError,
    PriceMissingError,
    ProviderBrokeOffError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnreachableError,
    ProviderUnreadableError,
    RequestTooSlowError,
    SpoolError,
    TargetTooLongError,
    UnknownDeclarationError,
    UnknownExpectationError,
    UnknownRouteError,
)
from gateway.exchange.states import Answered, Forbidden, Held
from gateway.ident import ExchangeId
from gateway.ledger.publishing.alarms import UNWITNESSED
from gateway.limits import RETRY_AFTER_S_MAX
from gateway.policy.explain import ASK_LEGAL, Explanation, reason_json
from gateway.provider.model import Problem

STATUSES: Final[tuple[tuple[type[GatewayError], int], ...]] = (
    (MalformedDeclarationError, 400),
    (UnknownDeclarationError, 400),
    (UnknownRouteError, 404),
    (MalformedBodyError, 400),
    (TargetTooLongError, 414),
    (HeadersTooLargeError, 431),
    (MethodRefusedError, 405),
    (UnknownExpectationError, 417),
    (RequestTooSlowError, 408),
    (MalformedRequestError, 400),
    (BodyTooLargeError, 413),
    (CredentialError, 401),
    (KeyNotAllowedError, 403),
    (LimitReachedError, 429),
    (PriceMissingError, 403),
    (NotFoundError, 404),
    (CallerGoneError, 499),
    (CallerError, 400),
    (ProviderUnreachableError, 502),
    (ProviderTimeoutError, 504),
    (ProviderBrokeOffError, 502),
    (ProviderError, 502),
    (LedgerUnwellError, 503),
    (LedgerDamagedError, 503),
    (SpoolError, 503),
    (DoorFullError, 503),
    (OperatorError, 500),
    (GateError, 403),
    (PolicyError, 500),
    (EvidenceError, 500),
    (GatewayError, 500),
)
"""The first class that fits decides; a test walks every error through this table."""


def status_of(error: GatewayError) -> int:
    """Return the HTTP status for *error*."""
    return next(status for kind, status in STATUSES if isinstance(error, kind))


def problem_of(error: GatewayError, exchange: ExchangeId | None = None) -> Problem:
    """Return what a caller is told of *error*; an operator's business stays inside."""
    status = status_of(error)
    if isinstance(error, OperatorError):
        message = "the gateway is not set up for this request"
        hint = "tell the gateway's operator; nothing was sent to the provider on your behalf"
        if isinstance(error, LedgerUnwellError | LedgerDamagedError):
            message = "the gateway can't write its ledger, so it answers nothing"
            hint = "tell the gateway's operator, and try again later"
        if isinstance(error, DoorFullError):
            message = "the requests under way hold all the memory that they may"
            hint = "try again in a moment, or tell the gateway's operator"
        if error.problem == UNWITNESSED:
            message = "too few witnesses have cosigned a checkpoint that covers it"
            hint = "try again later"
        return Problem(
            status=status,
            code=error.problem,
            message=message,
            exchange=exchange,
            next_step=hint,
        )
    frees_s = error.frees_s if isinstance(error, LimitReachedError) else None
    return Problem(
        status=status,
        code=error.problem,
        message=error.message,
        exchange=exchange,
        next_step=error.hint or None,
        # SDKs try again by themselves; they are told when that is of use, and that it is not.
        again_s=None if frees_s is None else min(max(1, frees_s), RETRY_AFTER_S_MAX),
        never_again=isinstance(error, LimitReachedError)
        and (frees_s is None or frees_s > RETRY_AFTER_S_MAX),
    )


def refusal(outcome: Held | Forbidden, told: Sequence[Explanation]) -> Problem:
    """Return what the caller of a held or forbidden use is told: why, and what to do next."""
    asked, ruling = outcome.asked, outcome.ruling
    held = isinstance(outcome, Held)
    use = asked.declaration.use.purpose
    verb = "is held until legal rules on it" if held else "is forbidden"
    own_json = [
        {"policy": r.policy, "clause": r.clause, "effect": r.effect, "because": r.because}
        for r in ruling.reasons
        if r.because
    ]
    told_json = [reason_json(reason) for one in told for reason in one.decision.reasons]
    steps = [] if own_json else [one.next_step() for one in told]
    if held and asked.declared:
        steps.append(
            f"Legal rules once on declaration {asked.declaration.id}"
            f" (`gateway review approve {asked.declaration.id}`); then requests that"
            " cite it pass."
        )
    elif held:
        # Legal rules on declarations, and this request made none.
        steps = [step for step in steps if step != ASK_LEGAL]
        steps.append(
            f"Declare the use: `gateway use declare --project {asked.declaration.project}"
            f" --owner NAME purpose={use}`; legal rules on it once, and requests that send its"
            " id as `x-intended-use` pass."
        )
    return Problem(
        status=403,
        code="use.held" if held else "use.forbidden",
        message=f"using {asked.call.provider} for `{use}` {verb}",
        exchange=asked.exchange,
        reasons=tuple(own_json or told_json),
        next_step=" ".join(step for step in steps if step) or None,
        sentences=() if own_json else tuple(s for one in told for s in one.sentences()),
    )


def provider_problem(answered: Answered) -> Problem:
    """Return what the caller is told where no whole answer came and none was begun."""
    code = answered.error or "provider.error"
    return Problem(
        status=504 if code == ProviderTimeoutError.code else 502,
        code=code,
        message={
            ProviderUnreachableError.code: "the provider could not be reached",
            ProviderTimeoutError.code: "the provider stayed silent for too long",
            ProviderUnreadableError.code: "nobody here can tell whose the things are that the"
            " provider listed",
        }.get(code, "the provider's answer ended before it was whole"),
        exchange=answered.permitted.asked.exchange,
        next_step="try again; the gateway itself never retries",
    )


def problem_json(problem: Problem) -> bytes:
    """Return *problem* as `application/problem+json` (RFC 9457)."""
    body = {
        "type": f"urn:tos-gateway:problem:{problem.code}",
        "title": problem.code,
        "status": problem.status,
        "detail": problem.message,
        "code": problem.code,
    }
    if problem.exchange:
        body["exchange"] = problem.exchange
    if problem.next_step:
        body["next_step"] = problem.next_step
    return msgspec.json.encode(body)

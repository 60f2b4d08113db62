"""What can go wrong, grouped by who must act.

A ruling is never an error: held and forbidden uses are values (`exchange/states.py`).

GatewayError
├── CallerError      the calling team
│   ├── MalformedDeclarationError   declaration.malformed
│   ├── UnknownDeclarationError     declaration.unknown
│   ├── UnknownRouteError           route.unknown
│   ├── MalformedBodyError          body.malformed
│   ├── MalformedRequestError       request.malformed (HTTP that is none, or has two meanings)
│   │   ├── TargetTooLongError       request.target_too_long
│   │   ├── HeadersTooLargeError     request.headers_too_large
│   │   ├── MethodRefusedError       request.method
│   │   ├── UnknownExpectationError  request.expectation
│   │   └── RequestTooSlowError      request.too_slow
│   ├── BodyTooLargeError           body.too_large
│   ├── CredentialError             credential.missing · credential.unknown
│   ├── KeyNotAllowedError          key.not_allowed (the key is good, but not for this)
│   ├── LimitReachedError           limit.reached
│   ├── PriceMissingError           price.missing (a money limit, and nobody knows the price)
│   ├── BatchRefusedError           batch.refused · batch.unjudged · batch.declared_otherwise …
│   ├── NotFoundError               thing.unknown
│   └── CallerGoneError             caller.gone (it hung up; nobody is told)
├── ProviderError    nobody, or the provider
│   ├── ProviderUnreachableError    provider.unreachable
│   ├── ProviderTimeoutError        provider.timeout
│   ├── ProviderBrokeOffError       provider.broke_off
│   └── ProviderUnreadableError     provider.unreadable
├── PolicyError      legal
│   └── MalformedPolicyError        policy.malformed (file, line)
├── OperatorError    the operator
│   ├── SettingError                setting.unknown · setting.bad
│   ├── LedgerMissingError          ledger.missing
│   ├── LedgerDamagedError          ledger.damaged
│   ├── LedgerUnwellError           ledger.unwell (the disk is full, a commit failed)
│   │   └── LedgerUncertainError     ledger.uncertain (who sequences was lost while we waited)
│   ├── SpoolError                  spool.unwell (nothing can be put aside)
│   ├── ExchangeClosedError         exchange.closed
│   ├── KeyUnreadableError          key.unreadable
│   ├── PortInUseError              port.in_use
│   ├── DoorFullError               door.full (large requests take all the memory they may)
│   ├── UncleanBackupError          backup.unclean · (of others) backup.bad · backup.older
│   ├── CheckInterruptedError       check.interrupted (a process that checked was ended)
│   └── MissingPieceError           piece.missing (a base checkpoint, the student extra)
├── GateError        the researcher
│   └── GateRefusedError            dataset.refused · student.refused
└── EvidenceError    the auditor     receipt.malformed · signature.bad · proof.bad · …

HTTP statuses live in `proxy/problem.py` and exit codes in `cli/main.py`.
"""

from __future__ import annotations

from typing import ClassVar


class GatewayError(Exception):
    """One line that says what is wrong, and a hint that says who must do what."""

    code: ClassVar[str] = "gateway.error"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problem = code or type(self).code

    def __str__(self) -> str:
        """Return `code: message; hint: next move`."""
        line = f"{self.problem}: {self.message}"
        return f"{line}; hint: {self.hint}" if self.hint else line


class CallerError(GatewayError):
    """The calling team must change its request."""

    code = "caller.error"


class MalformedDeclarationError(CallerError):
    """An intended use that can't be read, or names words outside the vocabulary."""

    code = "declaration.malformed"


class UnknownDeclarationError(CallerError):
    """A declaration id that was never registered."""

    code = "declaration.unknown"


class UnknownRouteError(CallerError):
    """A path that leads to no provider."""

    code = "route.unknown"


class MalformedBodyError(CallerError):
    """A request body that can't be read where it must be."""

    code = "body.malformed"


class MalformedRequestError(CallerError):
    """Bytes that are no HTTP/1.1 request, or one that could be read in two ways."""

    code = "request.malformed"


class TargetTooLongError(MalformedRequestError):
    """A request whose path and query are over the limit."""

    code = "request.target_too_long"


class HeadersTooLargeError(MalformedRequestError):
    """A request whose headers are over a limit."""

    code = "request.headers_too_large"


class MethodRefusedError(MalformedRequestError):
    """A method that is never passed on."""

    code = "request.method"


class UnknownExpectationError(MalformedRequestError):
    """A request that expects something other than leave to send its body."""

    code = "request.expectation"


class RequestTooSlowError(MalformedRequestError):
    """A request that did not come in the time it may take."""

    code = "request.too_slow"


class BodyTooLargeError(CallerError):
    """A body over a named limit."""

    code = "body.too_large"


class CredentialError(CallerError):
    """No credential, or one that is unknown, expired or revoked."""

    code = "credential.missing"


class KeyNotAllowedError(CallerError):
    """A key that is good, but not for this provider or model, or not for asking at all."""

    code = "key.not_allowed"


class LimitReachedError(CallerError):
    """More than a limit allows was asked for; nothing was sent to the provider."""

    code = "limit.reached"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        scope: str = "",
        measure: str = "",
        frees_s: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.scope = scope
        self.measure = measure
        self.frees_s = frees_s
        """In how many seconds its window ends; `None`: it never has room for so much."""


class PriceMissingError(CallerError):
    """Money is limited, and what the request would cost is not known."""

    code = "price.missing"


class BatchRefusedError(CallerError):
    """A batch that was not forwarded: a line of it can't be read, or nobody read its lines."""

    code = "batch.refused"


class NotFoundError(CallerError):
    """Something asked for by its id does not exist."""

    code = "thing.unknown"


class CallerGoneError(CallerError):
    """The caller hung up; nobody is left to be told, but the exchange goes on record."""

    code = "caller.gone"


class ProviderError(GatewayError):
    """The provider failed; retrying is the caller's choice."""

    code = "provider.error"


class ProviderUnreachableError(ProviderError):
    """No connection to the provider could be made; nothing was asked."""

    code = "provider.unreachable"


class ProviderTimeoutError(ProviderError):
    """The provider did not answer in time."""

    code = "provider.timeout"


class ProviderBrokeOffError(ProviderError):
    """The provider's answer ended before it was whole."""

    code = "provider.broke_off"


class ProviderUnreadableError(ProviderError):
    """An answer that may be passed on only in part, and of which no part can be told apart."""

    code = "provider.unreadable"


class PolicyError(GatewayError):
    """Legal must change a policy."""

    code = "policy.error"


class MalformedPolicyError(PolicyError):
    """A YAML document that can't be read as what it should be; names file and line."""

    code = "policy.malformed"

    def __init__(self, file: str, line: int, message: str, *, hint: str = "") -> None:
        super().__init__(f"{file}:{line}: {message}", hint=hint)
        self.file = file
        self.line = line


class OperatorError(GatewayError):
    """The operator must act."""

    code = "operator.error"


class SettingError(OperatorError):
    """A setting that is unknown or has a bad value."""

    code = "setting.bad"


class LedgerMissingError(OperatorError):
    """There is no ledger where the settings point; none is made by accident."""

    code = "ledger.missing"


class LedgerDamagedError(OperatorError):
    """The ledger's file does not hold what it must hold."""

    code = "ledger.damaged"


class LedgerUnwellError(OperatorError):
    """A statement could not be made durable; the gateway refuses until it can."""

    code = "ledger.unwell"


class LedgerUncertainError(LedgerUnwellError):
    """Whether a statement was written is unknown; that is found out before another is."""

    code = "ledger.uncertain"


class SpoolError(OperatorError):
    """A body could not be put aside on the disk until it was read."""

    code = "spool.unwell"


class ExchangeClosedError(OperatorError):
    """A statement would have closed an exchange that is not open; it was not written."""

    code = "exchange.closed"


class KeyUnreadableError(OperatorError):
    """A key file that is missing, malformed, or readable by others."""

    code = "key.unreadable"


class DoorFullError(OperatorError):
    """The requests under way hold as much memory as they may together."""

    code = "door.full"


class PortInUseError(OperatorError):
    """The address to listen on is taken."""

    code = "port.in_use"


class CheckInterruptedError(OperatorError):
    """A process that was checking was ended from outside; nothing was decided."""

    code = "check.interrupted"


class UncleanBackupError(OperatorError):
    """A backup whose ledger is not clean; it was not put back."""

    code = "backup.unclean"

    def __init__(self, message: str, *, hint: str = "", findings: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.findings = findings


class MissingPieceError(OperatorError):
    """A file or an optional part that the asked-for work needs is not there."""

    code = "piece.missing"


class GateError(GatewayError):
    """A gate refused; the researcher must change the data or the declaration."""

    code = "gate.error"


class GateRefusedError(GateError):
    """A dataset or a training run that evidence and terms don't carry."""

    code = "gate.refused"


class EvidenceError(GatewayError):
    """Evidence that does not verify; names what and why."""

    code = "evidence.bad"


class MalformedReceiptError(EvidenceError):
    """Bytes that should be a statement, an envelope or a bundle and are not."""

    code = "receipt.malformed"


class BadSignatureError(EvidenceError):
    """A signature that does not verify, or a key that is not trusted."""

    code = "signature.bad"


class BadProofError(EvidenceError):
    """A note, a checkpoint or a proof that is malformed or does not verify."""

    code = "proof.bad"


class BadDigestError(EvidenceError):
    """Bytes whose digest is not the one that was signed."""

    code = "digest.bad"

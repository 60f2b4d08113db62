"""What a caller is told of an error: status, code, and nothing of the operator's business."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from gateway import errors
from gateway.cli.main import EXIT_CODES, exit_code
from gateway.errors import GatewayError
from gateway.ident import ExchangeId
from gateway.provider.catalogue import dialect_named
from gateway.provider.model import Problem
from gateway.proxy.problem import STATUSES, problem_json, problem_of, status_of

EXCHANGE = ExchangeId("x-" + "0" * 26)


def every_error(kind: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    """Yield every class of the tree."""
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from every_error(below)


def made(kind: type[GatewayError]) -> GatewayError:
    """Return an error of *kind*."""
    if issubclass(kind, errors.MalformedPolicyError):
        return kind("policy.yaml", 3, "wrong", hint="mend it")
    return kind("wrong", hint="mend it")


@pytest.mark.parametrize("kind", list(every_error()), ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_an_exit_code(kind: type[GatewayError]) -> None:
    """No error is without an answer, over HTTP and on the command line."""
    error = made(kind)

    assert 400 <= status_of(error) <= 599
    assert exit_code(error) in {1, 2, 3}
    assert status_of(error) < 500 or not isinstance(error, errors.CallerError)


@pytest.mark.parametrize("table", [STATUSES, EXIT_CODES], ids=["statuses", "exit codes"])
def test_no_line_of_a_table_is_dead(table: tuple[tuple[type[GatewayError], int], ...]) -> None:
    """A class stands before those above it, or its line would never be read."""
    for place, (kind, _) in enumerate(table):
        assert not any(issubclass(kind, earlier) for earlier, _ in table[:place])


@pytest.mark.parametrize(
    "kind", list(every_error(errors.OperatorError)), ids=lambda k: k.__name__
)
def test_an_operators_business_stays_inside(kind: type[GatewayError]) -> None:
    """A caller hears neither paths nor settings, but whom to tell."""
    problem = problem_of(kind("the file /srv/secret.key is bad", hint="chmod 600"), EXCHANGE)
    told = f"{problem.message} {problem.next_step}"

    assert "/srv" not in told
    assert "chmod" not in told
    assert "operator" in told
    assert EXCHANGE == problem.exchange


def test_a_callers_mistake_is_told_in_full() -> None:
    """Who must change its request is told what and how."""
    problem = problem_of(errors.MalformedDeclarationError("no purpose", hint="add `purpose=`"))

    assert (400, "declaration.malformed", "no purpose", "add `purpose=`") == (
        problem.status,
        problem.code,
        problem.message,
        problem.next_step,
    )


PROBLEM = Problem(
    status=403,
    code="use.held",
    message="it is held",
    exchange=EXCHANGE,
    reasons=({"policy": "p", "clause": "c", "because": "so"},),
    next_step="wait",
)


def test_a_problem_document_says_it_all() -> None:
    """Our own endpoints answer with `application/problem+json`, RFC 9457."""
    told = json.loads(problem_json(PROBLEM))

    assert {
        "type": "urn:tos-gateway:problem:use.held",
        "title": "use.held",
        "status": 403,
        "detail": "it is held",
        "code": "use.held",
        "exchange": EXCHANGE,
        "next_step": "wait",
    } == told


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_each_dialect_can_tell_it(dialect: str) -> None:
    """The code, the reasons and the exchange ride inside whatever shape the SDK expects."""
    error = json.loads(dialect_named(dialect).problem_body(PROBLEM))["error"]

    assert ("use.held", EXCHANGE) == (error["code"], error["exchange"])
    assert "it is held" in error["message"]
    assert "so" in error["message"]

"""What a gateway key is good for, and what it says where it is not."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import KeyNotAllowedError
from gateway.exchange.scope import check_scope
from gateway.exchange.states import Principal
from gateway.provider.model import GENERATES, Operation, ProviderCall


def principal(*models: str, providers: tuple[str, ...] = (), **more: Any) -> Principal:
    """Return a caller whose key is good for some models."""
    return Principal(name="ada", project="p", providers=providers, models=models, **more)


def call(model: str | None = "gpt-4o", **more: Any) -> ProviderCall:
    """Return a chat call."""
    known: dict[str, Any] = {"provider": "openai", "operation": Operation.CHAT}
    return ProviderCall(model=model, **known | more)


@pytest.mark.parametrize(
    ("who", "what"),
    [
        (principal(), call()),
        (principal(), call(None, operation=Operation.OPAQUE)),
        (principal("gpt-4*"), call()),
        (principal("claude", "gpt-4*"), call()),
        (principal("gpt-4*"), call(fallbacks=("gpt-4.1",))),
        (principal("gpt-4*"), call(None, operation=Operation.LISTING)),
        (principal("gpt-4*"), call(None, operation=Operation.FILE)),
        (principal(providers=("open*",)), call()),
        (principal(roles=frozenset({"researcher", "auditor"})), call()),
    ],
)
def test_what_a_key_is_good_for_passes(who: Principal, what: ProviderCall) -> None:
    """Providers and models that fit are asked, and so is what no model answers."""
    check_scope(who, what)


@pytest.mark.parametrize(
    ("who", "what", "told"),
    [
        (principal("gpt-4*"), call("gpt-5"), "`gpt-5`"),
        (principal("gpt-4*"), call("GPT-4"), "`GPT-4`"),
        (principal("gpt-4*"), call(None), "not known"),
        (principal("gpt-4*"), call(None, operation=Operation.OPAQUE), "not known"),
        (principal("gpt-4*"), call(fallbacks=("gpt-5",)), "`gpt-5`"),
        (principal("gpt-4*"), call(fallbacks=(None,)), "not known"),
        (principal("*"), call(None), "not known"),
        (principal("*"), call("m" * 300), "`mmm"),
        (principal(providers=("anthropic",)), call(), "`openai`"),
        (
            principal(providers=("anthropic",)),
            call(operation=Operation.LISTING),
            "`openai`",
        ),
        (principal(roles=frozenset({"auditor", "legal"})), call(), "`auditor`, `legal`"),
        (principal(roles=frozenset()), call(), "asks no provider"),
    ],
)
def test_what_a_key_is_not_good_for_is_refused(
    who: Principal, what: ProviderCall, told: str
) -> None:
    """The refusal says what is wrong, and what to do."""
    with pytest.raises(KeyNotAllowedError) as caught:
        check_scope(who, what)

    assert told in caught.value.message
    assert caught.value.hint
    assert "key.not_allowed" == caught.value.problem


@pytest.mark.parametrize("operation", sorted(GENERATES))
def test_nothing_that_generates_escapes(operation: Operation) -> None:
    """Whatever may make something needs a model that the key is good for."""
    with pytest.raises(KeyNotAllowedError):
        check_scope(principal("gpt-4*"), call(None, operation=operation))


def test_long_lists_are_told_in_part() -> None:
    """A key with many models doesn't fill the caller's screen."""
    with pytest.raises(KeyNotAllowedError) as caught:
        check_scope(principal(*(f"m{number}" for number in range(40))), call())

    assert "`m5` and 34 more" in caught.value.hint

"""What a gateway key is good for: whom it may ask, and for which models; never a guess."""

from __future__ import annotations

from typing import Final

from gateway.budget.model import fits
from gateway.errors import KeyNotAllowedError
from gateway.exchange.states import Principal
from gateway.provider.model import GENERATES, ProviderCall

ASKING: Final = frozenset({"caller", "researcher"})
"""The roles whose holders may ask providers; the others read, rule and operate."""


def check_scope(principal: Principal, call: ProviderCall) -> None:
    """Refuse what the key of *principal* is not good for.

    Where models are limited, every model that may answer must be allowed, and one that nobody
    knows is not.

    Raises:
        KeyNotAllowedError: says what the key is good for, and what to do.
    """
    if not principal.roles & ASKING:
        raise KeyNotAllowedError(
            f"this gateway key is {_listed(sorted(principal.roles))}, and asks no provider",
            hint="use a key with the role `caller` (`gateway key new --role caller`)",
        )
    if principal.providers and not any(fits(one, call.provider) for one in principal.providers):
        raise KeyNotAllowedError(
            f"this gateway key is not for provider `{call.provider}`",
            hint=f"it is for {_listed(principal.providers)}; {_ASK}",
        )
    if not principal.models or call.operation not in GENERATES:
        return
    for model in (call.model, *call.fallbacks):
        if model is None:
            raise KeyNotAllowedError(
                "this gateway key is for some models only, and which would answer is not known",
                hint=f"name one of {_listed(principal.models)}, and no others to fall back on;"
                f" {_ASK}",
            )
        if not any(fits(one, model) for one in principal.models):
            raise KeyNotAllowedError(
                f"this gateway key is not for model `{model[:80]}`",
                hint=f"it is for {_listed(principal.models)}; {_ASK}",
            )


_ASK: Final = "for more, ask the gateway's operator for another key"
_TOLD_MAX: Final = 6


def _listed(words: tuple[str, ...] | list[str]) -> str:
    told = ", ".join(f"`{word}`" for word in words[:_TOLD_MAX])
    return f"{told} and {len(words) - _TOLD_MAX} more" if len(words) > _TOLD_MAX else told

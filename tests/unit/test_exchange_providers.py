"""The providers: a closed table, and one who leads nowhere is told what there is."""

from __future__ import annotations

import pytest

from gateway.errors import UnknownRouteError
from gateway.exchange.forward import origin_of
from gateway.exchange.obligations import headers_of
from gateway.exchange.providers import Layer, Provider, Providers
from gateway.exchange.recover import recover
from gateway.exchange.states import Abandoned, Outcome, Sealed
from gateway.ident import ExchangeId, Sha256
from gateway.provider.catalogue import dialect_named
from gateway.receipt.model import PolicyPin, Ruling


def provider(name: str, manifest: Sha256 | None = None) -> Provider:
    """Return a provider with a secret."""
    return Provider(
        id=name,
        dialect=dialect_named("anthropic"),
        origin=origin_of("https://x.example/base/"),
        base_url="https://x.example/base",
        layers=(Layer(policy=name),),
        credential="sk-secret",
        manifest=manifest,
    )


def test_a_provider_is_found_by_its_id() -> None:
    """Each id leads to its own entry, its dialect and its manifest."""
    digest = Sha256("ab" * 32)
    table = Providers([provider("b"), provider("a", digest)])

    assert ("a", ["a", "b"]) == (table.named("a").id, table.ids())
    assert ("anthropic", digest, None) == (
        table.dialect_of("a").name,
        table.manifest_of("a"),
        table.manifest_of("b"),
    )


@pytest.mark.parametrize("name", ["", "A", "a ", "c", "x" * 1000])
def test_an_id_that_is_not_in_the_table_leads_nowhere(name: str) -> None:
    """Whoever asks for another is told which there are, in one short line."""
    with pytest.raises(UnknownRouteError) as raised:
        Providers([provider("b"), provider("a")]).named(name)

    assert "known are a, b" in raised.value.hint
    assert len(str(raised.value)) < 200


def test_a_credential_is_not_shown() -> None:
    """Printing a provider doesn't print what opens it."""
    assert "sk-secret" not in repr(provider("a"))


@pytest.mark.parametrize("duties", [(), ("keep-ai-label", "disclose-ai")])
def test_a_caller_is_told_its_duties(duties: tuple[str, ...]) -> None:
    """Effect and policies are told always, duties where there are any."""
    ruling = Ruling(
        effect="permit",
        reasons=(),
        policies=(PolicyPin(policy="p", version=3, sha256=Sha256("ab" * 32)),),
        obligations=duties,
        day="2026-11-22",
    )
    told = dict(headers_of(ruling))

    assert (b"permit", b"p@3") == (told[b"x-gateway-effect"], told[b"x-gateway-policy"])
    assert (", ".join(duties).encode() or None) == told.get(b"x-gateway-obligations")


async def test_recovery_seals_each_opening_once() -> None:
    """Every opening that was found is sealed as abandoned, in order, and counted."""
    sealed: list[Outcome] = []

    async def seal(outcome: Outcome) -> Sealed:
        sealed.append(outcome)
        return Sealed(exchange=ExchangeId("x-1"), index=len(sealed))

    count = await recover([(ExchangeId("x-1"), 3), (ExchangeId("x-2"), 5)], seal)

    assert 2 == count
    assert [
        Abandoned(exchange=ExchangeId("x-1"), opening=3, why="process-ended"),
        Abandoned(exchange=ExchangeId("x-2"), opening=5, why="process-ended"),
    ] == sealed

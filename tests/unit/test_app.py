"""What the attic builds: the policies that bind a student, from those of its teachers."""

from __future__ import annotations

from gateway.app.providers import layers_of
from gateway.dataset.manifest import Teacher
from gateway.exchange.providers import Layer, Taught
from gateway.ident import Sha256
from gateway.provider.model import Operation, ProviderCall
from gateway.receipt.model import PolicyPin


def a_teacher(
    provider: str,
    *policies: str,
    model: str | None = None,
    manifest: Sha256 | None = None,
    agreements: tuple[str, ...] = (),
) -> Teacher:
    """Return a teacher that *policies* bound."""
    return Teacher(
        provider=provider,
        model=model,
        manifest=manifest,
        operation="chat",
        rows=1,
        receipts=1,
        days=("2026-11-22",),
        effect="permit",
        policies=tuple(
            PolicyPin(policy=one, version=1, sha256=Sha256("ab" * 32)) for one in policies
        ),
        agreements=agreements,
        account_tier="paid",
        route="first-party",
    )


def bound(layers: list[Layer]) -> set[tuple[str, str, str | None]]:
    """Return each layer's policy, and whose answers it binds."""
    return {
        (layer.policy, layer.taught.call.provider, layer.taught.call.model)
        for layer in layers
        if layer.taught is not None
    }


def test_a_teacher_binds_for_what_it_was_asked_and_as_it_was_reached() -> None:
    """Route, tier, agreements and model of a layer are those of the teacher's own calls."""
    (layer,) = layers_of([a_teacher("open", "open", model="open-1", agreements=("order-7",))])

    assert layer == Layer(
        policy="open",
        taught=Taught(
            call=ProviderCall(provider="open", operation=Operation.CHAT, model="open-1"),
            route="first-party",
            account_tier="paid",
            agreements=("order-7",),
        ),
    )


def test_who_taught_a_teacher_or_a_base_binds_too() -> None:
    """A teacher's terms bind for its own model, however many students stand between."""
    direct = a_teacher("pupil", "open", "own", model="pupil-1", manifest=Sha256("cd" * 32))
    above = [a_teacher("open", "open", model="open-1"), a_teacher("held", "held", model="h-1")]
    layers = layers_of([direct, *above])

    assert {
        ("open", "open", "open-1"),
        ("held", "held", "h-1"),
        ("own", "pupil", "pupil-1"),
    } == bound(layers)


def test_teachers_under_different_agreements_stay_apart() -> None:
    """What one key's agreement lifts is not lifted for what another key was given."""
    layers = layers_of(
        [
            a_teacher("open", "open", model="open-1", agreements=("order-7",)),
            a_teacher("open", "open", model="open-1"),
        ]
    )

    assert [("order-7",), ()] == [one.taught.agreements for one in layers if one.taught]

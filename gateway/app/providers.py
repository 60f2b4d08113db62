"""Build every provider: the catalogue, the settings, and students with what binds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.app.installation import Installation
from gateway.dataset.calls import call_of_teacher
from gateway.dataset.manifest import Teacher
from gateway.dataset.ruling import asked_of
from gateway.errors import (
    MissingPieceError,
    SettingError,
)
from gateway.exchange.egress import Egress, outgoing_proxy, trust_of
from gateway.exchange.forward import Forwarder, origin_of
from gateway.exchange.providers import Layer, Provider, Providers, Taught
from gateway.ident import Sha256
from gateway.log import Logger
from gateway.provider.catalogue import BUILT_IN, dialect_named
from gateway.receipt.verify import verify_manifest
from gateway.settings import ProviderSettings, Sourced
from gateway.student.manifest import parse_model_manifest

SELF_HOSTED: Final = "self-hosted"
"""The policy that binds a student of ours, beside those of its teachers."""


def build_forwarder(sourced: Sourced, log: Logger) -> Forwarder:
    """Return the dock: which authorities it trusts, and which proxy it goes through.

    Raises:
        SettingError: one of these can't be used.
    """
    upstream = sourced.settings.upstream
    proxy = sourced.outgoing_proxy()
    return Forwarder(
        trust_of(_file(sourced, upstream.ca_bundle), "upstream.ca_bundle"),
        Egress(outgoing_proxy(proxy) if proxy else None, upstream.no_proxy),
        log,
    )


def _file(sourced: Sourced, named: str | None) -> str | None:
    return None if named is None else str(sourced.path(named))


def build_providers(installation: Installation) -> Providers:
    """Return every provider: the built-in catalogue, overridden by the settings."""
    sourced = installation.settings
    ids = dict.fromkeys([*BUILT_IN, *sourced.settings.providers])
    known = [
        _provider(
            named, sourced.settings.providers.get(named, ProviderSettings()), installation
        )
        for named in ids
    ]
    return Providers(known)


def _provider(named: str, chosen: ProviderSettings, installation: Installation) -> Provider:
    built_in = BUILT_IN.get(named)
    base_url = chosen.base_url or (built_in.base_url if built_in else None)
    if base_url is None:
        raise SettingError(
            f"provider `{named}` has no base_url", hint=f"set providers.{named}.base_url"
        )
    sourced = installation.settings
    dialect = chosen.dialect or (built_in.dialect if built_in else "openai")
    manifest: Sha256 | None = None
    layers = tuple(
        Layer(policy=policy)
        for policy in (
            (chosen.policy,)
            if chosen.policy
            else built_in.policies
            if built_in
            else (SELF_HOSTED if chosen.student else named,)
        )
    )
    if chosen.student is not None:
        manifest, teachers = _student(sourced.path(chosen.student), installation)
        layers = (*layers, *teachers)
    trust = None
    if chosen.ca_bundle is not None:
        key = f"providers.{named}.ca_bundle"
        trust = trust_of(_file(sourced, chosen.ca_bundle), key)
    credential = None
    if chosen.credential is not None and sourced.settings.keys == "managed":
        credential = sourced.secret(chosen.credential, f"providers.{named}.credential")
    return Provider(
        id=named,
        dialect=dialect_named(dialect),
        origin=origin_of(base_url, trust),
        base_url=base_url.rstrip("/"),
        layers=layers,
        credential=credential,
        route=chosen.route or (built_in.route if built_in else None),
        agreement=chosen.agreement,
        account_tier=chosen.account_tier,
        manifest=manifest,
    )


def _student(folder: Path, installation: Installation) -> tuple[Sha256, list[Layer]]:
    """Return a student's manifest digest, and the policies of everything it learned from."""
    file = folder / "manifest.json"
    try:
        encoded = file.read_bytes()
    except OSError as exc:
        raise MissingPieceError(
            f"the student's manifest {file} can't be read: {exc.strerror}",
            hint="name the folder that `gateway student train` wrote",
        ) from exc
    statement, digest = verify_manifest(encoded, installation.keyring.trust)
    found = parse_model_manifest(statement).found
    return digest, layers_of((*found.teachers, *found.above))


def layers_of(teachers: Sequence[Teacher]) -> list[Layer]:
    """Return what binds a student of *teachers*, who stand above it at any distance.

    A student has no terms of its own: its receipts name the policies of its teachers, and
    those bind for what the teachers gave. What else they name binds the student's answers.
    """
    theirs = {pin.policy for one in teachers if one.manifest is None for pin in one.policies}
    return list(
        dict.fromkeys(
            Layer(policy=pin.policy, taught=_taught(teacher))
            for teacher in teachers
            for pin in teacher.policies
            if teacher.manifest is None or pin.policy not in theirs
        )
    )


def _taught(teacher: Teacher) -> Taught:
    call = call_of_teacher(teacher)
    return Taught(
        call=asked_of(call),
        route=call.route,
        account_tier=call.account_tier,
        agreements=call.agreements,
    )

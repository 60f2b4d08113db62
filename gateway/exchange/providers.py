"""The providers this gateway knows: how each speaks, where it listens, what binds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.errors import UnknownRouteError
from gateway.exchange.forward import Origin
from gateway.ident import Sha256
from gateway.provider.model import Dialect, ProviderCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What a student was taught with: the kind of call that its teacher answered."""

    call: ProviderCall
    route: str | None = None
    account_tier: str | None = None
    agreements: tuple[str, ...] = ()
    """Those that the teacher's credential was bound to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A policy that binds an exchange, and for what."""

    policy: str
    taught: Taught | None = None
    """Set where the layer comes from a student's lineage; else it binds the call itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One entry of the settings or the built-in catalogue, ready to use."""

    id: str
    dialect: Dialect
    origin: Origin
    base_url: str
    layers: tuple[Layer, ...]
    credential: str | None = field(default=None, repr=False)
    route: str | None = None
    agreement: str | None = None
    account_tier: str | None = None
    manifest: Sha256 | None = None
    """For a student of ours: its training manifest, so that receipts can name it."""


class Providers:
    """A closed table; an id that is not in it leads nowhere."""

    def __init__(self, known: Iterable[Provider]) -> None:
        self._known: Mapping[str, Provider] = {provider.id: provider for provider in known}

    def named(self, provider: str) -> Provider:
        """Return the provider of that id.

        Raises:
            UnknownRouteError: there is none.
        """
        try:
            return self._known[provider]
        except KeyError:
            raise UnknownRouteError(
                f"no provider is called `{provider[:64]}`",
                hint="known are " + ", ".join(sorted(self._known)),
            ) from None

    def ids(self) -> list[str]:
        """Return every id, sorted."""
        return sorted(self._known)

    def dialect_of(self, provider: str) -> Dialect:
        """Return the wire format of *provider*."""
        return self._known[provider].dialect

    def named_facts(self, provider: str) -> tuple[str | None, str | None, str | None]:
        """Return route, agreement and account tier of *provider*, as the operator says."""
        known = self._known[provider]
        return known.route, known.agreement, known.account_tier

    def manifest_of(self, provider: str) -> Sha256 | None:
        """Return SHA-256 of the training manifest's payload if *provider* is a student."""
        return self._known[provider].manifest

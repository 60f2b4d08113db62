"""The porter: who is asking, by the key it shows; never a guess."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Protocol

from gateway.canonical import keyed_sha256
from gateway.errors import CredentialError, SettingError
from gateway.exchange.providers import Provider
from gateway.exchange.states import Principal
from gateway.ident import Sha256
from gateway.store.access import AccessKey

DEFAULT_PROJECT: Final = "default"
GATEWAY_KEY: Final = "x-gateway-key"
_FINGERPRINTS_MAX: Final = 4096


def fingerprint_of(key: bytes, secret: str) -> Sha256:
    """Return how a provider's key is named in agreements: nobody can guess it without *key*."""
    return keyed_sha256(key, b"provider credential\0" + secret.encode())


class KeyRing(Protocol):
    """Where gateway keys are looked up."""

    def find(self, secret: str) -> AccessKey | None:
        """Return the valid key whose secret this is; `None` if unknown, expired or revoked."""
        ...

    def held_by(self, principal: str, project: str) -> AccessKey | None:
        """Return a key that *principal* may ask with now, for *project*, or `None`."""
        ...


class Porter:
    """Admits principals, in one of two modes.

    `managed`: a gateway key stands where the SDK puts its key, and the provider's own
    credential goes upstream. `passthrough`: the caller's provider key goes upstream untouched,
    and the principal is named by `x-gateway-key` or by a keyed fingerprint of that key.
    """

    def __init__(self, keys: KeyRing, fingerprint_key: bytes, *, managed: bool) -> None:
        self.managed = managed
        self._keys = keys
        self._fingerprint_key = fingerprint_key
        # OWNED BY: the event loop.
        self._fingerprints: dict[str, Principal] = {}

    def is_shown(self, headers: Mapping[str, str], query: str, provider: Provider) -> bool:
        """Tell whether any key is shown."""
        shown = provider.dialect.credential_of(headers, query)
        return shown is not None or GATEWAY_KEY in headers

    def principal_of(
        self, headers: Mapping[str, str], query: str, provider: Provider
    ) -> Principal:
        """Return who asks; header names in *headers* are lower case.

        Raises:
            CredentialError: no key, or one that is unknown, expired or revoked.
            SettingError: there is no credential to go upstream with.
        """
        shown = provider.dialect.credential_of(headers, query)
        if self.managed:
            if provider.credential is None and provider.manifest is None:
                raise SettingError(
                    f"provider `{provider.id}` has no credential",
                    hint=f"set providers.{provider.id}.credential to env:NAME or file:<path>",
                )
            return self.keyholder(
                headers.get(GATEWAY_KEY) or shown, provider.credential, provider.credential
            )
        principal = self._fingerprinted(shown)
        if GATEWAY_KEY in headers:
            principal = self.keyholder(headers[GATEWAY_KEY], None, shown)
        known = provider.dialect.CREDENTIAL_HEADERS
        in_query = bool(query) and provider.dialect.query_upstream(query) != query
        if _shown_differently(headers, known, in_query=in_query):
            # All of them go upstream, and only the provider knows whose account it takes.
            principal = replace(principal, fingerprint=None)
        return principal

    def keyholder(
        self, secret: str | None, credential: str | None = None, upstream: str | None = None
    ) -> Principal:
        """Return the principal of a gateway key; *upstream* is the key that its provider sees.

        Raises:
            CredentialError: there is none, or it is unknown, expired or revoked.
        """
        if not secret:
            raise CredentialError(
                "no gateway key was sent",
                hint="put the key from `gateway key new` where the SDK puts its API key",
            )
        return self._named(self._keys.find(secret), credential, upstream)

    def returning(self, principal: str, project: str, provider: Provider) -> Principal:
        """Return who was admitted before and goes on without a key, as some uploads do.

        Raises:
            CredentialError: it has no key any more that it could have shown.
        """
        if not self.managed:
            return Principal(name=principal, project=project)
        credential = provider.credential
        return self._named(self._keys.held_by(principal, project), credential, credential)

    def _named(
        self, key: AccessKey | None, credential: str | None, upstream: str | None
    ) -> Principal:
        if key is None:
            raise CredentialError(
                "the gateway key is unknown, expired or revoked",
                hint="ask the gateway's operator for a new one (`gateway key new`)",
                code="credential.unknown",
            )
        return Principal(
            name=key.principal,
            project=key.project,
            roles=frozenset(key.roles),
            declaration=key.declaration,
            credential=credential,
            fingerprint=self._fingerprinted(upstream).fingerprint if upstream else None,
            key=key.id,
            providers=key.providers,
            models=key.models,
            limits=key.limits,
        )

    def _fingerprinted(self, shown: str | None) -> Principal:
        secret = shown or ""
        principal = self._fingerprints.get(secret)
        if principal is None:
            if len(self._fingerprints) >= _FINGERPRINTS_MAX:
                self._fingerprints.clear()
            digest = keyed_sha256(self._fingerprint_key, secret.encode())
            name = f"key-{digest[:16]}" if secret else "anonymous"
            principal = Principal(
                name=name,
                project=DEFAULT_PROJECT,
                fingerprint=fingerprint_of(self._fingerprint_key, secret) if secret else None,
            )
            self._fingerprints[secret] = principal
        return principal


def _shown_differently(
    headers: Mapping[str, str], known: frozenset[str], *, in_query: bool
) -> bool:
    """Tell whether several headers of *known* names, or one and the query, may differ."""
    shown = [name for name in known if name in headers]
    if in_query and shown:
        return True
    if len(shown) < 2 and len(headers.items()) == len(headers):
        return False
    return len({value for name, value in headers.items() if name.lower() in known}) > 1

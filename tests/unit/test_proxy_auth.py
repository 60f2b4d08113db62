"""The porter: who is asking, by the key it shows, in both modes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.clock import FrozenClock
from gateway.errors import CredentialError, SettingError
from gateway.exchange.forward import origin_of
from gateway.exchange.providers import Provider
from gateway.ident import Sha256
from gateway.provider.catalogue import dialect_named
from gateway.proxy.auth import Porter, fingerprint_of
from gateway.proxy.framing import Headers, Line
from gateway.store.access import AccessKeys


@pytest.fixture
def keys(tmp_path: Path) -> AccessKeys:
    """Return gateway keys in a file."""
    return AccessKeys(tmp_path / "access.db", FrozenClock())


def provider(dialect: str = "openai", **more: Any) -> Provider:
    """Return a provider with a credential."""
    return Provider(
        id="x",
        dialect=dialect_named(dialect),
        origin=origin_of("http://x.example"),
        base_url="http://x.example",
        layers=(),
        **{"credential": "sk-up"} | more,
    )


@pytest.mark.parametrize(
    ("dialect", "header", "value"),
    [
        ("openai", "authorization", "Bearer {}"),
        ("openai", "authorization", "bearer {}"),
        ("openai", "api-key", "{}"),
        ("anthropic", "x-api-key", "{}"),
        ("anthropic", "authorization", "Bearer {}"),
        ("openai", "x-gateway-key", "{}"),
        ("anthropic", "x-gateway-key", "{}"),
    ],
)
def test_a_gateway_key_stands_where_the_sdk_puts_its_key(
    dialect: str, header: str, value: str, keys: AccessKeys
) -> None:
    """In each SDK's header the key names its principal, and the provider's own goes up."""
    secret = keys.new("ada", "search", roles=("caller", "legal"))
    principal = Porter(keys, b"k", managed=True).principal_of(
        {header: value.format(secret)}, "", provider(dialect)
    )

    assert ("ada", "search", "sk-up") == (
        principal.name,
        principal.project,
        principal.credential,
    )
    assert {"caller", "legal"} == principal.roles
    assert "sk-up" not in repr(principal)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer "},
        {"authorization": "Bearer gw-" + "a" * 40},
        {"authorization": "Bearer sk-real-provider-key"},
        {"x-gateway-key": "gw-"},
        {"authorization": "Basic Z3c6eA=="},
        {"authorization": "Bearer \udcff"},
    ],
    ids=repr,
)
def test_nobody_comes_in_without_a_key(headers: dict[str, str], keys: AccessKeys) -> None:
    """No key, or one that nobody was given, is turned away and told whom to ask."""
    with pytest.raises(CredentialError) as raised:
        Porter(keys, b"k", managed=True).principal_of(headers, "", provider())

    assert raised.value.problem in {"credential.missing", "credential.unknown"}
    assert "sk-real-provider-key" not in str(raised.value)
    assert raised.value.hint


def test_a_revoked_key_is_refused_at_once(keys: AccessKeys, tmp_path: Path) -> None:
    """A key that another process revokes opens nothing from its next use on."""
    secret = keys.new("ada", "search")
    porter = Porter(keys, b"k", managed=True)
    shown = {"authorization": f"Bearer {secret}"}
    porter.principal_of(shown, "", provider())
    AccessKeys(tmp_path / "access.db").revoke(keys.list()[0].id)

    with pytest.raises(CredentialError, match="revoked"):
        porter.principal_of(shown, "", provider())


def test_an_expired_key_is_refused(tmp_path: Path) -> None:
    """The day a key names is its last good one."""
    clock = FrozenClock()
    keys = AccessKeys(tmp_path / "access.db", clock)
    secret = keys.new("ada", "search", expires="2026-11-18")
    porter = Porter(keys, b"k", managed=True)
    shown = {"authorization": f"Bearer {secret}"}
    assert "ada" == porter.principal_of(shown, "", provider()).name
    clock.move_ms(86_400_000)

    with pytest.raises(CredentialError):
        porter.principal_of(shown, "", provider())


def test_a_provider_without_a_credential_is_the_operators_matter(keys: AccessKeys) -> None:
    """In managed mode nothing goes up under nobody's name, but to a student of ours."""
    secret = keys.new("ada", "search")
    porter = Porter(keys, b"k", managed=True)
    shown = {"authorization": f"Bearer {secret}"}
    student = provider(credential=None, manifest=Sha256("ab" * 32))

    assert porter.principal_of(shown, "", student).credential is None
    with pytest.raises(SettingError, match="no credential"):
        porter.principal_of(shown, "", provider(credential=None))


def test_a_callers_own_key_names_it_by_a_fingerprint(keys: AccessKeys) -> None:
    """Passing through, equal keys are one principal, others another; none can be guessed."""
    porter = Porter(keys, b"k", managed=False)
    first = porter.principal_of({"authorization": "Bearer sk-1"}, "", provider())
    again = porter.principal_of({"api-key": "sk-1"}, "", provider())
    second = porter.principal_of({"authorization": "Bearer sk-2"}, "", provider())
    elsewhere = Porter(keys, b"other", managed=False).principal_of(
        {"authorization": "Bearer sk-1"}, "", provider()
    )

    assert first.name == again.name
    assert 3 == len({first.name, second.name, elsewhere.name})
    assert ("default", None) == (first.project, first.credential)
    assert "sk-1" not in repr(first)


def test_nobody_is_anonymous_where_keys_pass_through(keys: AccessKeys) -> None:
    """A caller without any key has a name that says so."""
    porter = Porter(keys, b"k", managed=False)

    assert "anonymous" == porter.principal_of({}, "", provider()).name


def test_a_gateway_key_names_the_caller_where_keys_pass_through(keys: AccessKeys) -> None:
    """`x-gateway-key` says who asks, and a bad one is refused; the caller's own key goes up."""
    secret = keys.new("ada", "search", declaration="use-0123456789abcdef0123")
    porter = Porter(keys, b"k", managed=False)
    shown = {"authorization": "Bearer sk-1", "x-gateway-key": secret}
    principal = porter.principal_of(shown, "", provider())

    assert ("ada", "use-0123456789abcdef0123", None) == (
        principal.name,
        principal.declaration,
        principal.credential,
    )
    with pytest.raises(CredentialError):
        porter.principal_of(shown | {"x-gateway-key": "gw-no"}, "", provider())


def test_fingerprints_are_not_remembered_without_end(keys: AccessKeys) -> None:
    """Endless keys don't make the memory of them endless."""
    porter = Porter(keys, b"k", managed=False)
    for number in range(5000):
        porter.principal_of({"authorization": f"Bearer {number}"}, "", provider())

    assert len(porter._fingerprints) <= 4096


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_two_keys_at_once_are_under_no_agreement(
    dialect: str, *, named: bool, keys: AccessKeys
) -> None:
    """Whichever of them the provider takes, it may be the one that no agreement is about."""
    porter = Porter(keys, b"k", managed=False)
    who = {"x-gateway-key": keys.new("ada", "search")} if named else {}
    one = who | {"authorization": "Bearer sk-1"}
    alone = porter.principal_of(one, "", provider(dialect))
    both = porter.principal_of(one | {"x-api-key": "sk-2"}, "", provider(dialect))
    said = [*one.items(), ("Authorization", "Bearer sk-2")]
    twice = Headers([Line((name.encode(), value.encode())) for name, value in said])

    assert alone.fingerprint == fingerprint_of(b"k", "sk-1")
    assert both.fingerprint is None
    assert porter.principal_of(twice, "", provider(dialect)).fingerprint is None
    assert alone.name == both.name


def test_a_key_in_the_query_beside_another_is_under_no_agreement(keys: AccessKeys) -> None:
    """Alone it is like one in a header; with another, nobody knows which one is taken."""
    porter = Porter(keys, b"k", managed=False)
    google = provider("gemini")
    alone = porter.principal_of({}, "alt=sse&key=k-1", google)
    both = porter.principal_of({"x-goog-api-key": "k-2"}, "key=k-1", google)
    twice = porter.principal_of({}, "key=k-1&key=k-2", google)
    none = porter.principal_of({"x-goog-api-key": "k-2"}, "alt=sse", google)

    assert alone.fingerprint == fingerprint_of(b"k", "k-1")
    assert none.fingerprint == fingerprint_of(b"k", "k-2")
    assert both.fingerprint is twice.fingerprint is None


def test_who_goes_on_without_a_key_is_who_began(keys: AccessKeys) -> None:
    """Its own credential goes up, as if the key were shown, as long as it has a good one."""
    secret = keys.new("ada", "search")
    porter = Porter(keys, b"k", managed=True)
    shown = porter.principal_of({"authorization": f"Bearer {secret}"}, "", provider())

    assert shown == porter.returning("ada", "search", provider())
    keys.revoke(keys.list()[0].id)
    with pytest.raises(CredentialError):
        porter.returning("ada", "search", provider())


def test_who_goes_on_without_its_own_key_sends_none(keys: AccessKeys) -> None:
    """Where callers bring their provider's keys, none is put in their place."""
    found = Porter(keys, b"k", managed=False).returning("key-1", "default", provider())

    assert ("key-1", "default", None) == (found.name, found.project, found.credential)


@pytest.mark.parametrize(
    ("headers", "is_one"),
    [
        ({"authorization": "Bearer x"}, True),
        ({"x-gateway-key": "x"}, True),
        ({"x-other": "x"}, False),
        ({}, False),
    ],
    ids=["bearer", "gateway", "other", "none"],
)
def test_any_key_is_seen(headers: dict[str, str], *, is_one: bool, keys: AccessKeys) -> None:
    """Where the SDK puts it, or in the gateway's own header."""
    assert is_one == Porter(keys, b"k", managed=True).is_shown(headers, "", provider())

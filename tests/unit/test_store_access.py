"""Laws of the gateway's own keys."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import FrozenClock
from gateway.errors import LedgerDamagedError, NotFoundError, SettingError
from gateway.store.access import AccessKeys

DAY_MS = 86_400_000


@pytest.fixture
def clock() -> FrozenClock:
    """Return a clock that stands on 2026-11-18."""
    return FrozenClock(1_795_000_000_000)


@pytest.fixture
def keys(tmp_path: Path, clock: FrozenClock) -> Iterator[AccessKeys]:
    """Return an empty file of keys."""
    with contextlib.closing(AccessKeys(tmp_path / "access.db", clock)) as one:
        yield one


def test_a_key_is_found_by_its_secret(keys: AccessKeys) -> None:
    """The secret names principal, project and roles; another secret names nobody."""
    secret = keys.new("team-search", "search", ["caller", "legal"], declaration="use-1")

    assert re.fullmatch(r"gw-[a-z2-7]{40}", secret)
    found = keys.find(secret)
    assert found is not None
    assert (found.principal, found.project) == ("team-search", "search")
    assert found.roles == {"caller", "legal"}
    assert found.declaration == "use-1"
    assert keys.list() == [found]
    for other in ("", "gw-", secret[:-1], secret.upper(), "sk-" + secret[3:], "gw-\udcff"):
        assert keys.find(other) is None


def test_the_secret_is_not_kept(keys: AccessKeys, tmp_path: Path) -> None:
    """Nothing in the file gives the secret away."""
    secret = keys.new("ada", "search")

    assert secret[3:].encode() not in (tmp_path / "access.db").read_bytes()


def test_revoking_acts_at_once_elsewhere(keys: AccessKeys, clock: FrozenClock) -> None:
    """A key that another process revokes, or makes, is known at the next request."""
    first = keys.new("ada", "search")
    assert keys.find(first) is not None
    with contextlib.closing(AccessKeys(keys.path, clock)) as elsewhere:
        second = elsewhere.new("bob", "search")
        assert keys.find(second) is not None
        elsewhere.revoke(elsewhere.list()[0].id)
        elsewhere.revoke(elsewhere.list()[1].id)

        assert keys.find(first) is None
        assert keys.find(second) is None
        assert all(key.revoked == "2026-11-18T11:06:40.000Z" for key in keys.list())


def test_nothing_is_read_again_without_reason(keys: AccessKeys) -> None:
    """As long as nobody writes, a request costs no query."""
    secret = keys.new("ada", "search")
    keys.find(secret)
    known = keys._known
    keys.find(secret)

    assert keys._known is known


def test_a_key_ends_after_its_last_day(keys: AccessKeys, clock: FrozenClock) -> None:
    """A key is good through the day it names, and not on the next."""
    secret = keys.new("ada", "search", expires="2026-11-19")
    clock.move_ms(DAY_MS)
    assert keys.find(secret) is not None

    clock.move_ms(DAY_MS)

    assert keys.find(secret) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"roles": ["king"]}, "unknown role"),
        ({"roles": []}, "needs a role"),
        ({"expires": "tomorrow"}, "not a day"),
        ({"expires": "2026-13-01"}, "not a day"),
        ({"principal": "Ada Lovelace"}, "principal"),
        ({"project": ""}, "project"),
    ],
)
def test_bad_words_are_refused(keys: AccessKeys, change: dict[str, Any], says: str) -> None:
    """A name, role or day that can't be is named, and no key is made."""
    with pytest.raises(SettingError, match=says):
        keys.new(**{"principal": "ada", "project": "search", **change})

    assert keys.list() == []


def test_an_unknown_key_cant_be_revoked(keys: AccessKeys) -> None:
    """Revoking what does not exist says so."""
    with pytest.raises(NotFoundError, match="no key `key-1`"):
        keys.revoke("key-1")


def test_another_file_is_not_taken(tmp_path: Path) -> None:
    """A file that is no database is named and left alone: keys can't be made again."""
    path = tmp_path / "access.db"
    path.write_bytes(b"not this\n" * 99)

    with pytest.raises(LedgerDamagedError, match="not a database"):
        AccessKeys(path)

    assert path.read_bytes() == b"not this\n" * 99


def test_who_has_a_good_key_is_known_without_it(keys: AccessKeys, clock: FrozenClock) -> None:
    """Any key of the same principal and project does, as long as it is good."""
    keys.new("ada", "search", expires="2020-01-31")
    assert keys.held_by("ada", "search") is None
    secret = keys.new("ada", "search")
    keys.new("ada", "else")
    keys.new("bob", "search")

    found = keys.held_by("ada", "search")
    assert found is not None
    assert found == keys.find(secret)
    keys.revoke(found.id)
    assert keys.held_by("ada", "search") is None

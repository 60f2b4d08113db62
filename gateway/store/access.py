"""The gateway's own keys: who may come in, for which project, in which roles.

A secret is shown once and kept as its SHA-256. Revoking acts at once in every process that has
the file open. Whoever can write the file can let callers in.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.budget.model import Limit, parse_limit
from gateway.clock import Clock, SystemClock, day_of, rfc3339
from gateway.day import parse_day
from gateway.errors import LedgerDamagedError, NotFoundError, SettingError
from gateway.ident import random_bytes
from gateway.intent.model import NAME
from gateway.limits import MATCHED_CHARS_MAX
from gateway.store.tables import Database, Migrations, immediate, open_database, translated

ROLES: Final = frozenset({"caller", "researcher", "legal", "operator", "auditor"})

SECRET_PREFIX: Final = "gw-"  # noqa: S105 — what a secret begins with, not one
SECRET: Final = re.compile(rb"gw-[a-z2-7]{40}")
"""What a secret looks like, wherever it stands."""
_SECRET_BYTES: Final = 25
_CHANGE_COUNTER_AT: Final = 24
_CHANGE_COUNTER_BYTES: Final = 4
"""Where SQLite counts the commits of a file that has a rollback journal."""

migrations = Migrations("access")


@migrations()
def keys(database: Database) -> None:
    """Make the table of the first release."""
    database.table("key").create(
        {
            "id": str,
            "sha256": str,
            "principal": str,
            "project": str,
            "roles": str,
            "declaration": str,
            "created": str,
            "expires": str,
            "revoked": str,
        },
        pk="id",
        not_null={"sha256", "principal", "project", "roles", "created"},
        strict=True,
    )
    database.table("key").create_index(["sha256"], unique=True)


@migrations()
def reach(database: Database) -> None:
    """Add what a key is good for, and how much of it."""
    for name in ("providers", "models", "limits"):
        database.table("key").add_column(name, str, not_null_default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    """A gateway key without its secret."""

    id: str
    principal: str
    project: str
    roles: frozenset[str]
    created: str
    declaration: str | None = None
    """The declaration that requests with this key cite unless they cite another."""
    expires: str | None = None
    """The last day on which it is good, `YYYY-MM-DD`."""
    revoked: str | None = None
    providers: tuple[str, ...] = ()
    """Which providers it may ask, as globs; empty: all."""
    models: tuple[str, ...] = ()
    """Which models it may ask for, as globs; empty: all."""
    limits: tuple[Limit, ...] = ()
    """What it may use at most, beside what settings say."""


class AccessKeys:
    """The gateway keys in one file; any thread may use it."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self.path = path
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._database = open_database(path, migrations)
        # For reading alone: one `pread` a request instead of a query. It is closed last, since
        # closing it would end the locks that SQLite holds in this process.
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # Replaced as a whole; the count of commits before it was read.
        self._known: dict[bytes, AccessKey] = {}
        self._known_as_of: bytes | None = None

    def new(
        self,
        principal: str,
        project: str,
        roles: Iterable[str] = ("caller",),
        expires: str | None = None,
        declaration: str | None = None,
        *,
        providers: Sequence[str] = (),
        models: Sequence[str] = (),
        limits: Sequence[Limit] = (),
    ) -> str:
        """Make a key and return its secret, which can't be shown again.

        Raises:
            SettingError: a role that does not exist, a day that is none, an empty name, a
                glob that fits nothing, two limits of the same.
        """
        wanted = frozenset(roles)
        _check(principal, project, wanted, expires)
        _check_reach(providers, models, limits)
        encoded = base64.b32encode(random_bytes(_SECRET_BYTES)).decode("ascii").lower()
        secret = SECRET_PREFIX + encoded
        digest = hashlib.sha256(secret.encode()).hexdigest()
        self._add(
            {
                "id": f"key-{digest[:12]}",
                "sha256": digest,
                "principal": principal,
                "project": project,
                "roles": " ".join(sorted(wanted)),
                "declaration": declaration,
                "created": rfc3339(self._clock.now_ms()),
                "expires": expires,
                "revoked": None,
                "providers": " ".join(providers),
                "models": " ".join(models),
                "limits": " ".join(map(str, sorted(limits))),
            }
        )
        return secret

    def find(self, secret: str) -> AccessKey | None:
        """Return the key of *secret*, or `None`: unknown, expired or revoked."""
        if not secret.startswith(SECRET_PREFIX):
            return None
        digest = hashlib.sha256(secret.encode("utf-8", "replace")).digest()
        key = self._known_by(digest)
        return key if key is not None and self._is_good(key) else None

    def held_by(self, principal: str, project: str) -> AccessKey | None:
        """Return a key that *principal* may ask with now, for *project*, or `None`."""
        held = (
            one for one in self.list() if (one.principal, one.project) == (principal, project)
        )
        return next(filter(self._is_good, held), None)

    def _is_good(self, key: AccessKey) -> bool:
        today = day_of(self._clock.now_ms()).isoformat()
        return key.revoked is None and (key.expires is None or key.expires >= today)

    def list(self) -> list[AccessKey]:
        """Return every key ever made, in the order they were made."""
        return [key_of(row) for row in self.rows()]

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """Return every key as it is kept, secrets hashed, in the order they were made."""
        with self._lock, translated(self.path):
            return tuple(self._database.table("key").rows_where(order_by="created, id"))

    def revoke(self, id: str) -> None:  # noqa: A002 — the glossary's word
        """End a key at once, in every process.

        Raises:
            NotFoundError: there is no such key.
        """
        if not self._end(id, rfc3339(self._clock.now_ms())):
            raise NotFoundError(f"no key `{id[:64]}`", hint="see `gateway key list`")

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()
            os.close(self._handle)

    def _add(self, row: Mapping[str, Any]) -> None:
        with self._lock, translated(self.path), immediate(self._database):
            self._database.table("key").insert(dict(row))

    def _end(self, id: str, at: str) -> bool:  # noqa: A002 — the glossary's word
        """Note that a key ended *at* an instant, unless it has; tell whether there is one."""
        with self._lock, translated(self.path), immediate(self._database):
            cursor = self._database.conn.execute(
                "UPDATE key SET revoked = coalesce(revoked, ?) WHERE id = ?", (at, id)
            )
        return cursor.rowcount > 0

    def _known_by(self, digest: bytes) -> AccessKey | None:
        """Return the key whose secret has that digest, as of now."""
        return self._newest().get(digest)

    def _newest(self) -> dict[bytes, AccessKey]:
        """Return all keys, read again if there was a commit since."""
        # INVARIANT: the count is the same before and after the keys are read; otherwise they
        # are read again the next time.
        count = self._commits()
        if count == self._known_as_of:
            return self._known
        with self._lock, translated(self.path):
            rows = list(self._database.table("key").rows)
            known = {bytes.fromhex(row["sha256"]): key_of(row) for row in rows}
            self._known, self._known_as_of = known, count if count == self._commits() else None
        return known

    def _commits(self) -> bytes:
        return os.pread(self._handle, _CHANGE_COUNTER_BYTES, _CHANGE_COUNTER_AT)


def key_of(row: Mapping[str, Any]) -> AccessKey:
    """Return the key that *row* describes."""
    return AccessKey(
        id=row["id"],
        principal=row["principal"],
        project=row["project"],
        roles=frozenset(row["roles"].split()),
        created=row["created"],
        declaration=row["declaration"],
        expires=row["expires"],
        revoked=row["revoked"],
        providers=tuple(row["providers"].split()),
        models=tuple(row["models"].split()),
        limits=tuple(_limit(one, row["id"]) for one in row["limits"].split()),
    )


def _limit(text: str, id: str) -> Limit:  # noqa: A002 — the glossary's word
    limit = parse_limit(text)
    if limit is None:
        # A limit that is not understood must not be taken for none.
        raise LedgerDamagedError(
            f"key `{id}` has a limit that can't be read: `{text[:80]}`",
            hint="revoke the key with the release that made it, and make another",
        )
    return limit


def _check(principal: str, project: str, roles: frozenset[str], expires: str | None) -> None:
    for what, name in (("principal", principal), ("project", project)):
        if not NAME.fullmatch(name):
            raise SettingError(
                f"not the name of a {what}: `{name[:80]}`",
                hint="use lower-case letters, digits, dots, dashes and underscores",
            )
    if unknown := sorted(roles - ROLES):
        raise SettingError(
            f"unknown role `{unknown[0][:80]}`", hint=f"choose from {', '.join(sorted(ROLES))}"
        )
    if not roles:
        raise SettingError("a key needs a role", hint="give it `caller`")
    if expires is not None and parse_day(expires) is None:
        raise SettingError(f"not a day: `{expires[:80]}`", hint="write it as 2027-01-31")


def _check_reach(
    providers: Sequence[str], models: Sequence[str], limits: Sequence[Limit]
) -> None:
    for what, globs in (("provider", providers), ("model", models)):
        for glob in globs:
            if not glob.isprintable() or not 0 < len(glob) <= MATCHED_CHARS_MAX or " " in glob:
                raise SettingError(
                    f"not the name of a {what}, nor a glob: `{glob[:80]}`",
                    hint="write a name in which `*` stands for any characters, like `gpt-4*`",
                )
    kinds = [(limit.measure, limit.window) for limit in limits]
    for measure, window in kinds:
        if kinds.count((measure, window)) > 1:
            raise SettingError(
                f"two limits of {measure} a {window}", hint="one of them is enough"
            )

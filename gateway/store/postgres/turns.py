"""Take turns with the other replicas of a database.

The lock belongs to a session, so it goes with the process that held it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import psycopg

from gateway.errors import LedgerUnwellError
from gateway.limits import TURN_S_MAX
from gateway.store.postgres.connection import Connection, connect, error_of
from gateway.store.turns import slot_of

_SPACE: Final = 0x746F73
"""Sets our advisory locks apart from those of others in the same database."""
_ASKED_EVERY_S: Final = 0.02


class PostgresTurns:
    """Turns by advisory locks."""

    def __init__(self, url: str) -> None:
        self._url = url

    @contextlib.asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Hold the turn of *name* alone, in every replica.

        Raises:
            LedgerUnwellError: the database can't be reached, or another one keeps the turn.
        """
        connection = await asyncio.to_thread(connect, self._url)
        try:
            deadline = asyncio.get_running_loop().time() + TURN_S_MAX
            while not await asyncio.to_thread(_try, connection, slot_of(name)):
                if asyncio.get_running_loop().time() > deadline:
                    raise LedgerUnwellError(
                        f"another replica has kept its turn for {TURN_S_MAX:.0f} seconds",
                        hint="see the logs of the replicas",
                    )
                await asyncio.sleep(_ASKED_EVERY_S)
            yield
        finally:
            connection.close()


def _try(connection: Connection, slot: int) -> bool:
    try:
        row = connection.execute(
            "SELECT pg_try_advisory_lock(%s, %s)", (_SPACE, slot)
        ).fetchone()
    except psycopg.Error as wrong:
        raise error_of(wrong) from wrong
    return row is not None and bool(row[0])

"""Close what replicas that are gone left open; one replica at a time does it, whoever leads."""

from __future__ import annotations

import asyncio

from gateway.app.installation import Installation
from gateway.errors import ExchangeClosedError, GatewayError
from gateway.exchange.recover import recover
from gateway.exchange.seal import Notary
from gateway.ident import ExchangeId
from gateway.ledger.ports import Sequencing, Shared
from gateway.log import Logger
from gateway.receipt.model import Opening
from gateway.receipt.statement import read_leaf


class Undertaker:
    """Seals openings as abandoned whose replica has fallen silent."""

    def __init__(self, house: Installation, notary: Notary, log: Logger) -> None:
        self._house = house
        self._notary = notary
        self._log = log
        # OWNED BY: the event loop. Who opened what is still open, read once each.
        self._writers: dict[int, str] = {}

    async def sweep(self) -> int:
        """Close what the dead left open, if it is this replica's turn; return how many."""
        sequencer = self._house.sequencer
        living = await asyncio.to_thread(_living, sequencer)
        if living is None:
            return 0
        count = 0
        for exchange, opening in await asyncio.to_thread(self._left_open):
            if self._writers.get(opening) in living:
                continue
            try:
                count += await recover([(exchange, opening)], self._notary.seal)
            except ExchangeClosedError:
                # Its replica closed it after all.
                continue
            except GatewayError as error:
                self._log.warning("ledger.unwell", error=str(error))
                break
        if count:
            self._log.warning("exchange.recovered", count=count)
        return count

    def _left_open(self) -> list[tuple[ExchangeId, int]]:
        house = self._house
        house.reader.catch_up()
        unclosed = house.index.unclosed()
        known, self._writers = self._writers, {}
        for _, opening in unclosed:
            writer = known.get(opening)
            if writer is None:
                statement = read_leaf(house.reader.leaf(opening))
                writer = statement.writer if isinstance(statement, Opening) else ""
            self._writers[opening] = writer
        return unclosed


def _living(sequencer: Sequencing) -> set[str] | None:
    """Return who lives, where *sequencer* is a replica that leads."""
    if isinstance(sequencer, Shared) and sequencer.leads:
        return sequencer.living()
    return None

"""Faults come in pairs: each call of the store fails once before and once after it acted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.errors import GatewayError, LedgerDamagedError
from gateway.ledger.sequencing.sequencer import Sequencer
from tests.support.store import FaultStore, LedgerUnderTest, When, exchanges


class World:
    """Callers who append until they are told it is done, over a store that fails."""

    def __init__(self, folder: Path) -> None:
        self.ledger = LedgerUnderTest(folder)
        self.promised: dict[int, bytes] = {}
        self.restarts = 0

    def open(self) -> tuple[FaultStore, Sequencer]:
        """Open the ledger as a fresh process would."""
        store = FaultStore(self.ledger.reopen())
        return store, self.ledger.sequencer(store)

    async def append(self, sequencer: Sequencer, leaf: bytes) -> bool:
        """Append *leaf*; tell whether it is known what became of it."""
        while True:
            try:
                placed = await sequencer.append(leaf)
            except LedgerDamagedError:
                return False
            except GatewayError:
                # Nothing was added, so that trying again can't double it.
                continue
            assert placed.index not in self.promised
            self.promised[placed.index] = leaf
            return True


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", FaultStore.CALLS)
async def test_no_fault_loses_or_doubles_a_leaf(tmp_path: Path, call: str, when: When) -> None:
    """Whatever call fails, before or after it took effect, each leaf is there once."""
    world = World(tmp_path)
    leaves = exchanges(40)
    for first in range(0, len(leaves), 20):
        store, sequencer = world.open()
        store.fail_once(call, when)
        try:
            sequencer.start()
        except GatewayError:
            # A start that fails is tried again; nothing was done yet.
            sequencer.start()
        known = [await world.append(sequencer, leaf) for leaf in leaves[first : first + 20]]
        if not all(known):
            # What is true is read from the disk, and only what is missing is added.
            await asyncio.to_thread(sequencer.stop)
            store, sequencer = world.open()
            sequencer.start()
            there = set(world.ledger.leaves())
            for leaf in leaves[first : first + 20]:
                if leaf not in there:
                    assert await world.append(sequencer, leaf)
        await asyncio.to_thread(sequencer.stop)

    stored = world.ledger.leaves()
    assert stored == leaves
    assert all(stored[index] == leaf for index, leaf in world.promised.items())
    world.ledger.check()
    world.ledger.store.close()

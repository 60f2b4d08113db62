"""What must be true of a ledger that is found after any fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import apsw

from gateway.clock import FrozenClock
from gateway.errors import GatewayError
from gateway.ledger.publishing.publisher import Publisher
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.merkle import Frontier, leaf_hash
from tests.support.evidence import LOG_SIGNER, ORIGIN
from tests.support.powerloss import Ack

Offered = Callable[[int, bytes], bool]
"""Whether a leaf was ever offered for an index."""


def wrong_with(folder: Path, acks: Iterable[Ack], offered: Offered) -> Iterator[str]:
    """Yield what is wrong with the ledger in *folder*, of which *acks* were promised.

    It opens, is sound, has no gap, holds what was promised and nothing that nobody offered; it
    has grown out of every checkpoint, a start accepts it, and the next leaf comes next.
    """
    try:
        store = SqliteLedger(folder / "ledger.db", origin=ORIGIN)
    except GatewayError as wrong:
        yield f"the ledger does not open: {wrong}"
        return
    try:
        yield from _broken_promises(store, folder / "checkpoint", acks, offered)
    except (GatewayError, apsw.Error) as wrong:
        yield f"the ledger can't be used: {wrong}"
    finally:
        store.close()


def _broken_promises(
    store: SqliteLedger, checkpoint: Path, acks: Iterable[Ack], offered: Offered
) -> Iterator[str]:
    told = store._reading.pragma("integrity_check")
    if told != "ok":
        yield f"integrity_check says {told}"
    head = store.head()
    leaves = list(store.leaves(0, head.size))
    kept = store.frontiers(0, head.size)
    tree, roots = Frontier(), {}
    for index, leaf in enumerate(leaves):
        tree.push(leaf_hash(leaf))
        roots[index + 1] = tree.root()
        if kept.get(index + 1, tree.hashes) != tree.hashes:
            yield f"the frontier kept at {index + 1} is another"
        if not offered(index, leaf):
            yield f"leaf {index} was never offered"
    if tree.hashes != head.frontier:
        yield "the head's frontier is not that of the leaves"
    for ack in acks:
        if ack.what == "leaf":
            if ack.number >= len(leaves):
                yield f"leaf {ack.number} was promised; there are {len(leaves)}"
            elif leaves[ack.number] != ack.content:
                yield f"leaf {ack.number} is not the one that was promised"
        elif ack.what == "note" and ack.number and roots.get(ack.number) != ack.content:
            yield f"a checkpoint of {ack.number} leaves is out; this log did not grow out of it"
    # What a start does: it must refuse nothing that a fault can leave.
    Publisher(store, LOG_SIGNER, ORIGIN, FrozenClock(), publish_file=checkpoint).check()
    if store.append([b"after"]).first != head.size:
        yield "the next leaf did not come next"

"""The signature of every leaf that a dataset is made from, checked by several processes.

A page of leaves goes out, is checked elsewhere, and comes in again in its turn. Whether a key
might sign where a leaf stands is not asked here: that is the log's to say (`covered.py`).
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from gateway.errors import EvidenceError, LedgerDamagedError
from gateway.ledger.checkers import check_in_order, checkers_at_hand
from gateway.receipt.authority import Authority
from gateway.receipt.envelope import open_envelope, pae
from gateway.receipt.keys import PublicKey, parse_public_pem

CHECKED_ALONE_MAX: Final = 4_096
"""So many leaves are checked by one process alone: others take a second to start."""

_PAGE: Final = 256

Leaves = Sequence[tuple[int, bytes]]
Keys = tuple[tuple[str, str], ...]
"""Ids of keys, and the keys."""


def signed_leaves(
    leaves: Iterator[tuple[int, bytes]], authority: Authority, workers: int | None = None
) -> Iterator[tuple[int, bytes, bool]]:
    """Yield *leaves*, each with its index and whether its signature was checked.

    The first of them are left for the caller to check; those that follow are checked by several
    processes, *workers* of them or one a core.

    Raises:
        LedgerDamagedError: one was not signed by the receipt key that it names; says which.
        CheckInterruptedError: a process that checked was ended from outside.
    """
    for index, leaf in itertools.islice(leaves, CHECKED_ALONE_MAX):
        yield index, leaf, False
    first = next(leaves, None)
    if first is None:
        return
    check = functools.partial(check_signatures, receipt_keys(authority))
    rest = itertools.chain((first,), leaves)
    waiting: deque[Leaves] = deque()

    def sent() -> Iterator[Leaves]:
        while page := tuple(itertools.islice(rest, _PAGE)):
            waiting.append(page)
            yield page

    for found in check_in_order(check, sent(), workers or checkers_at_hand()):
        if found is not None:
            raise LedgerDamagedError(found, hint="run `gateway ledger fsck`; nothing was built")
        for index, leaf in waiting.popleft():
            yield index, leaf, True


def receipt_keys(authority: Authority) -> Keys:
    """Return every receipt key that *authority* knows, with its id."""
    keys = {life.keyid: life.key.pem for life in authority.lives if life.role == "receipt"}
    return tuple(sorted(keys.items()))


def check_signatures(keys: Keys, page: Leaves) -> str | None:
    """Return what is wrong with the first leaf of *page* whose signature is bad, or `None`."""
    known = _parsed(keys)
    for index, leaf in page:
        try:
            envelope = open_envelope(leaf)
            signature = envelope.signatures[0]
            key = known.get(signature.keyid or "")
            if key is None:
                return f"leaf {index} of the ledger is signed by no receipt key that it knows"
            key.verify(signature.sig, pae(envelope.payload_type, envelope.payload))
        except EvidenceError as exc:
            return f"leaf {index} of the ledger does not verify: {exc.message}"
    return None


@functools.lru_cache(maxsize=1)
def _parsed(keys: Keys) -> Mapping[str, PublicKey]:
    return {keyid: parse_public_pem(pem) for keyid, pem in keys}

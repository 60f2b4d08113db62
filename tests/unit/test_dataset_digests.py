"""A set of digests tells of each whether it is new, however many there are."""

from __future__ import annotations

import hashlib
import tracemalloc

from gateway.dataset.digests import Digests


def test_each_digest_is_new_once() -> None:
    """What was added is known from then on, across the sorting of what came before."""
    digests, before = Digests(), Digests()
    added = [hashlib.sha256(str(number).encode()).digest() for number in range(150_000)]
    for one in added:
        before.add(one)  # What the first sorting loads into a process, no digest keeps.

    tracemalloc.start()
    try:
        assert all(digests.add(one) for one in added)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert not any(digests.add(one) for one in added[::1_000])
    assert 150_000 == len(digests)
    assert kept < 150_000 * 40

"""Laws of the set that may grow beyond memory."""

from __future__ import annotations

import contextlib

from gateway.store.seen import Seen


def test_a_name_is_new_once() -> None:
    """A name is new the first time, whatever came between."""
    with contextlib.closing(Seen()) as seen:
        assert seen.add("one")
        assert all(seen.add(str(number)) for number in range(5_000))
        assert not seen.add("one")
        assert not seen.add("4999")

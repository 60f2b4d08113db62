"""A server on an event loop and a thread of its own, beside the test that asks it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

Address = TypeVar("Address")

_S_MAX: Final = 60.0


@contextmanager
def aside(
    start: Callable[[], Coroutine[Any, Any, Address]],
    stop: Callable[[], Coroutine[Any, Any, None]],
) -> Iterator[Address]:
    """Yield what *start* returns; *stop* is run at the end, also where the test failed.

    A socket that stays open would be held against whichever test comes later.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="aside", daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(_S_MAX)
    finally:
        try:
            asyncio.run_coroutine_threadsafe(stop(), loop).result(_S_MAX)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_S_MAX)
            loop.close()

"""Told to stop (SIGTERM, Ctrl-C), a command says in one line what was kept, and ends."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Final

_STOPS: Final = (signal.SIGTERM, signal.SIGINT)


def until_stopped(work: Callable[[], int], said: Callable[[], str]) -> int:
    """Return what *work* returns; told to stop, print what *said* returns and 128 + the signal.

    What *work* began it clears away or keeps by itself, as it does when anything else goes
    wrong; only then *said* is asked.
    """
    told: list[int] = []

    def stop(number: int, _: object) -> None:
        for one in _STOPS:
            # Clearing away is not to be interrupted again.
            signal.signal(one, signal.SIG_IGN)
        told.append(number)
        raise KeyboardInterrupt

    before = {one: signal.signal(one, stop) for one in _STOPS}
    try:
        return work()
    except KeyboardInterrupt:
        print(f"gateway: {said()}", file=sys.stderr)
        return 128 + (told or [signal.SIGINT])[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

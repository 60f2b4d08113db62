"""Told to stop (SIGTERM, Ctrl-C), a command says in one line what was kept, and ends."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.dataset.manifest import MANIFEST

_STOPS: Final = (signal.SIGTERM, signal.SIGINT)


def until_stopped(work: Callable[[], int], said: Callable[[], str]) -> int:
    """Return what *work* returns; told to stop, print what *said* returns and 128 + the signal.

    What *work* began it clears away or keeps by itself, as it does when anything else goes
    wrong; only then *said* is asked. Only a process's main thread is ever told.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
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


def told_to_stop(told: str, folder: Path | None, workshop: Path | None) -> str:
    """Return *told*, what is left of what would stand as *folder*, and what to do.

    It was made in *workshop*; both are `None` where it was not begun.
    """
    if folder is not None and folder.exists():
        return f"{told} it was done, and stands; hint: gateway verify {folder}"
    if workshop is not None and (workshop / MANIFEST).exists():
        return (
            f"{told} its manifest may be in the ledger, so all of it is kept in `{workshop}`;"
            " hint: run the same command again, which puts it into place, or begins anew"
            " where it must"
        )
    return f"{told} nothing of it was kept; hint: run the same command again"

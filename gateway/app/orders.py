"""What a supervisor tells the processes that it starts, and how they end when it does.

Each is a fresh interpreter. Its orders are the first line of its standard input, which stays
open: where that ends, the supervisor has ended, and so does the process, whatever it is doing.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Literal

import msgspec

from gateway.ident import Sha256
from gateway.limits import ORDERS_BYTES_MAX
from gateway.settings import Settings, Sourced

SOCKET: Final = "sequencer.sock"
LIVES: Final = "workers"

Part = Literal["sequencer", "worker"]

_STDIN: Final = 0
_ORPHANED: Final = 70


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a process tells its supervisor: that it is ready, and what must outlive it."""

    library: Sha256 | None = None
    """The policies in force."""
    alarm: str = ""
    """Why newer ones could not be put in force."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """All that a process must know; the settings are those that the supervisor read."""

    settings: Settings
    sources: dict[str, str]
    file: str | None
    socket: str
    """Where workers find the sequencer."""
    port: int
    library: Sha256 | None
    """The policies in force; `None`: those on the disk are to be put in force."""
    alarm: str
    """Why newer ones could not be put in force; empty if all is well."""
    served: int
    """The handle that keeps other gateways off the data folder, as long as anybody has it."""
    says: int
    """The handle on which the process says that it is ready, and what policies are in force."""
    listening: int
    """The handle of the sequencer's socket."""

    @property
    def sourced(self) -> Sourced:
        """The settings."""
        return Sourced(
            settings=self.settings,
            sources=self.sources,
            file=None if self.file is None else Path(self.file),
        )

    def say(self, said: Said) -> None:
        """Tell the supervisor that this process is ready, or what has changed."""
        os.write(self.says, msgspec.json.encode(said) + b"\n")


class Supervised:
    """What the supervisor tells this process; once it is made, the process ends with it."""

    def __init__(self) -> None:
        self._orders: SimpleQueue[bytes] = SimpleQueue()
        threading.Thread(target=self._listen, name="supervised", daemon=True).start()

    def orders(self) -> Orders:
        """Return the orders, as soon as they are given."""
        return msgspec.json.decode(self._orders.get(), type=Orders)

    def _listen(self) -> None:
        line = bytearray()
        while got := os.read(_STDIN, 1 << 16):
            line += got
            if line.endswith(b"\n"):
                self._orders.put(bytes(line))
                line.clear()
            elif len(line) > ORDERS_BYTES_MAX:
                break
        # As after a crash of our own: the next start recovers what was under way.
        os._exit(_ORPHANED)

"""Ports for servers that are told where to listen, before they do."""

from __future__ import annotations

import functools
import itertools
import os
import secrets
import socket
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_EACH: Final = 750
_PROCESSES_MAX: Final = 24


def _claim() -> tuple[socket.socket, int]:
    """Return which of the processes that run tests here this one is, claimed until it ends.

    A name that no file has is given up with the process, and is as far known as ports are.
    """
    for process in range(_PROCESSES_MAX):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0gateway-tests-ports-{process}")
        except OSError:
            claim.close()
        else:
            return claim, process
    raise AssertionError(f"more than {_PROCESSES_MAX} processes run tests on this machine")


def _ports(process: int) -> Iterator[int]:
    """Yield ports of loopback, beginning anew after the last.

    They lie below those that the system hands out by itself, and each process of the tests has
    its own, of whichever run: between a look and a server's start, or while a server is down
    that comes back, nobody else comes to listen there.
    """
    told = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(told.read_text().split()[0])
    first = lowest - _EACH * (1 + process)
    begin = secrets.randbelow(_EACH)
    for count in itertools.count(begin):
        yield first + count % _EACH


@functools.cache
def _own() -> tuple[socket.socket, Iterator[int]]:
    """Return what this process claims, from the first port on that it asks for."""
    claim, process = _claim()
    return claim, _ports(process)


def free_port() -> int:
    """Return a port of loopback that nothing listens on, and that is given out once."""
    for port in itertools.islice(_own()[1], _EACH):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is free")


def held_port(owner: object) -> int:
    """Return a port of loopback that is kept from everybody but servers, as long as *owner* is.

    Nobody is given it by the system, and no connection begins there; who asks for it by number
    may listen there, as often as it likes.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = int(held.getsockname()[1])
        weakref.finalize(owner, os.close, held.detach())
    return port

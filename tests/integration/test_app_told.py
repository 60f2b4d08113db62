"""What a gateway does that is told to end."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from tests.support.provider import fake_provider
from tests.support.proxy import START_S_MAX, Gateway, new_gateway


def test_who_ends_as_soon_as_it_listens_ends_in_good_order(tmp_path: Path) -> None:
    """From the first caller on a gateway that is told to end sees everybody through."""
    with fake_provider() as (_, url):
        gateway = new_gateway(tmp_path / "gateway", url)
        codes = []
        for _ in range(3):
            gateway.spawn()
            until_it_listens(gateway)
            codes.append(gateway.stop())

    assert [0, 0, 0] == codes
    assert "gateway.stopped" in gateway.log()


def until_it_listens(gateway: Gateway) -> None:
    """Return as soon as somebody can connect."""
    until = time.monotonic() + START_S_MAX
    while True:
        assert time.monotonic() < until, gateway.log()
        try:
            socket.create_connection(("127.0.0.1", gateway.port), timeout=START_S_MAX).close()
        except ConnectionRefusedError:
            time.sleep(0.001)
        else:
            return

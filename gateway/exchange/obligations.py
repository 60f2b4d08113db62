"""The dressing room: duties that ride along with a permit.

Each obligation has one discharger. Those for the caller are told in a response header; those
for later (`gate`, `card`) are carried by the receipt. One that nobody knows forbids, in the law
room already, so none can be skipped here.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.exchange.states import Permitted


def header_of(permitted: Permitted) -> Sequence[tuple[bytes, bytes]]:
    """Return the response header that tells the caller its duties, or nothing."""
    if not permitted.ruling.obligations:
        return ()
    return ((b"x-gateway-obligations", ", ".join(permitted.ruling.obligations).encode()),)

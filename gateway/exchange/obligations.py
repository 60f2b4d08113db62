"""The dressing room: duties that ride along with a permit.

Each obligation has one discharger. Those for the caller are told in a response header; those
for later (`gate`, `card`) are carried by the receipt. One that nobody knows forbids, in the law
room already, so none can be skipped here.
"""

from __future__ import annotations

from gateway.receipt.model import Ruling


def headers_of(ruling: Ruling) -> tuple[tuple[bytes, bytes], ...]:
    """Return the response headers that tell the caller the ruling and its duties."""
    policies = ", ".join(f"{pin.policy}@{pin.version}" for pin in ruling.policies)
    headers = [
        (b"x-gateway-effect", ruling.effect.encode()),
        (b"x-gateway-policy", policies.encode()),
    ]
    if ruling.obligations:
        headers.append((b"x-gateway-obligations", ", ".join(ruling.obligations).encode()))
    return tuple(headers)

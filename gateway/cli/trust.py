"""The trust file that a command is given: which keys the log's operator vouches for."""

from __future__ import annotations

from pathlib import Path

from gateway.errors import EvidenceError
from gateway.limits import TRUST_BYTES_MAX
from gateway.receipt.keys import Trust, parse_trust


def read_trust(path: Path) -> Trust:
    """Return the trust file at *path*.

    Raises:
        EvidenceError: it can't be read, or is none.
    """
    try:
        with path.open("rb") as file:
            return parse_trust(file.read(TRUST_BYTES_MAX + 1))
    except OSError as exc:
        raise EvidenceError(
            f"the trust file {path} can't be read: {exc.strerror}",
            hint="give --trust FILE, the `trust.json` that the log's operator publishes",
            code="trust.malformed",
        ) from exc

"""Rows that wait to be one leaf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.canonical import salted_sha256
from gateway.ident import DerivationId, Sha256, new_derivation_id, random_bytes
from gateway.limits import DERIVATION_BYTES_MAX, DERIVED_TEXT_BYTES_MAX, ROWS_PER_DERIVATION_MAX
from gateway.receipt.model import Commitment, DerivedRow, Parent

_SALT_BYTES: Final = 16
_OVERHEAD_BYTES: Final = 2_048
"""What a derivation says beside rows and parents, at most."""

NO_COMMITMENT: Final = Commitment(alg="sha256-salted", value=Sha256("0" * 64))
"""Takes the place of a row's commitment until its batch gives it a salt."""


class Batch:
    """Rows that will be one leaf, as they come."""

    def __init__(self, now_ms: int) -> None:
        self.id: DerivationId = new_derivation_id(now_ms)
        self.salt = random_bytes(_SALT_BYTES)
        self.lines: list[bytes] = []
        self.rows: list[DerivedRow] = []
        self.parents: dict[Parent, int] = {}
        self.bytes = _OVERHEAD_BYTES
        self.text_bytes = 0

    def takes(self, row: DerivedRow, line: bytes, parents: Sequence[Parent]) -> bool:
        """Tell whether there is room for one row more."""
        if not self.rows:
            return True
        return (
            len(self.rows) < ROWS_PER_DERIVATION_MAX
            and self.text_bytes + len(line) <= DERIVED_TEXT_BYTES_MAX
            and self.bytes + self._size(row, parents) <= DERIVATION_BYTES_MAX
        )

    def add(self, row: DerivedRow, line: bytes, parents: Sequence[Parent]) -> int:
        """Take a row in; return its place."""
        self.bytes += self._size(row, parents)
        self.text_bytes += len(line)
        places = tuple(self.parents.setdefault(one, len(self.parents)) for one in parents)
        salted = Commitment(alg="sha256-salted", value=salted_sha256(self.salt, line))
        self.rows.append(msgspec.structs.replace(row, row=salted, parents=places))
        self.lines.append(line)
        return len(self.rows) - 1

    def _size(self, row: DerivedRow, parents: Sequence[Parent]) -> int:
        new = sum(_length(one) + 1 for one in parents if one not in self.parents)
        return _length(row) + 1 + 5 * len(parents) + new


def _length(part: msgspec.Struct) -> int:
    return len(msgspec.json.encode(part))

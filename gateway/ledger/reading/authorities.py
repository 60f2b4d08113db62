"""The ledger's own statements about keys, folded as it grows: whose signature counts where."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Final

from gateway.errors import EvidenceError
from gateway.receipt.authority import Authority
from gateway.receipt.keys import Trust
from gateway.receipt.model import KeyAuthorization
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import signed_statement
from gateway.store.index.index import Index
from gateway.store.index.rows import Kind

KEY_KINDS: Final[tuple[Kind, ...]] = ("key-authorization", "key-revocation")


class Authorities:
    """Folds statements about keys, found through the index; any thread may ask."""

    def __init__(self, leaf: Callable[[int], bytes], index: Index) -> None:
        self._leaf = leaf
        self._index = index
        self._lock = threading.Lock()
        # Under the lock: what was folded, and from which leaf on to look for more.
        self._authority: Authority | None = None
        self._folded = 0
        self._authorised: dict[str, int] = {}
        self._looked = 0

    def under(self, trust: Trust) -> Authority:
        """Return whose signature counts as far as the index goes, for who holds *trust*."""
        with self._lock:
            size, authority = self._index.size, self._authority
            if authority is None or authority.trust != trust or size < self._folded:
                authority, self._folded = Authority(trust), 0
            for at in self._index.statements(KEY_KINDS, self._folded):
                # What does not verify gives nobody a key and takes none away; fsck names it.
                with contextlib.suppress(EvidenceError):
                    authority.admit(at, *signed_statement(self._leaf(at), at, authority))
            self._authority, self._folded = authority, size
            return authority

    def authorised_at(self, keyid: str) -> int | None:
        """Return the leaf that first authorised the receipt key *keyid*, as far as indexed."""
        with self._lock:
            if keyid not in self._authorised:
                size = self._index.size
                if size < self._looked:
                    self._authorised, self._looked = {}, 0
                for at in self._index.statements(("key-authorization",), self._looked):
                    said = read_leaf(self._leaf(at))
                    if isinstance(said, KeyAuthorization) and said.role == "receipt":
                        self._authorised.setdefault(said.keyid, at)
                self._looked = size
            return self._authorised.get(keyid)

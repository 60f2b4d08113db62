"""The signature of every leaf that a dataset is made from, checked beside the other work.

Leaves go out in pages and are checked by other processes while rows are ruled on; when those
have enough to do, the page is checked here. Few leaves are all checked here. Whether a key
might sign where a leaf stands is not asked: that is the log's to say (`covered.py`).
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Sequence
from typing import Final, Self

from gateway.errors import BadSignatureError, LedgerDamagedError
from gateway.ledger.checkers import Checkers, checkers_at_hand
from gateway.receipt.envelope import Envelope, pae
from gateway.receipt.keys import PublicKey, parse_public_pem

CHECKED_ALONE_MAX: Final = 4_096
"""So many leaves are checked by one process alone: others take a while to start."""

_PAGE: Final = 256
_AHEAD: Final = 4
"""Pages that wait at each process that helps: work for a tenth of a second."""

_HELPERS_MAX: Final = 3
"""More would be idle: one process rules on rows, which takes about as long."""

Page = Sequence[tuple[int, str, bytes, bytes]]
"""Of some leaves the index, the key as PEM, the signature, and what that covers."""

_Waiting = tuple[int, PublicKey, bytes, bytes]


class Signatures:
    """Checks signatures by receipt keys; all of them were good once `finish` returns."""

    def __init__(self, workers: int | None = None) -> None:
        """Begin alone; *workers* help where there is much to check, or one a core beside us."""
        spare = min(checkers_at_hand() - 1, _HELPERS_MAX)
        self._workers = spare if workers is None else workers
        self._page: list[_Waiting] = []
        self._backlog: deque[Sequence[_Waiting]] = deque()
        self._helpers: Checkers[Page, str | None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._helpers is not None:
            self._helpers.close()

    def add(self, index: int, envelope: Envelope, key: PublicKey) -> None:
        """Have the signature of the leaf at *index* checked by *key*, now or later.

        Raises:
            LedgerDamagedError: this one, or one before it, is bad; says which.
            CheckInterruptedError: a process that checked was ended from outside.
        """
        message = pae(envelope.payload_type, envelope.payload)
        self._page.append((index, key, envelope.signatures[0].sig, message))
        if len(self._page) < _PAGE:
            return
        self._turn()
        much = len(self._backlog) * _PAGE > CHECKED_ALONE_MAX
        if much and self._helpers is None and self._workers > 0:
            self._helpers = Checkers(check_page, self._workers, ahead=_AHEAD)
        self._hand_out()
        if len(self._backlog) * _PAGE > CHECKED_ALONE_MAX:
            _raise(_wrong(self._backlog.popleft()))

    def finish(self) -> None:
        """Return once all were checked; raises as `add` does."""
        self._turn()
        while self._backlog:
            self._hand_out()
            if self._backlog:
                _raise(_wrong(self._backlog.popleft()))
        while self._helpers is not None and self._helpers.waiting:
            _raise(self._helpers.hear())

    def _turn(self) -> None:
        self._backlog.append(tuple(self._page))
        self._page.clear()

    def _hand_out(self) -> None:
        """Hear what was answered, and give as much out as may wait there."""
        while self._helpers is not None and self._helpers.answered:
            _raise(self._helpers.hear())
        while self._helpers is not None and self._backlog and not self._helpers.full:
            page = self._backlog.popleft()
            self._helpers.hand_out([(at, key.pem, sig, said) for at, key, sig, said in page])


def _raise(found: str | None) -> None:
    if found is not None:
        raise LedgerDamagedError(found, hint="run `gateway ledger fsck`; nothing was built")


def check_page(page: Page) -> str | None:
    """Return what is wrong with the first leaf of *page* whose signature is bad, or `None`."""
    return _wrong([(at, _parsed(pem), sig, said) for at, pem, sig, said in page])


def _wrong(page: Sequence[_Waiting]) -> str | None:
    for index, key, sig, message in page:
        try:
            key.verify(sig, message)
        except BadSignatureError as exc:
            return f"leaf {index} of the ledger does not verify: {exc.message}"
    return None


_parsed = functools.lru_cache(maxsize=256)(parse_public_pem)

"""The signature of every leaf that a dataset is made from, checked beside the other work.

Leaves go out in pages and are checked by other processes while rows are ruled on; when those
have enough to do, the page is checked here. Few leaves are all checked here. Whether a key
might sign where a leaf stands is not asked: that is the log's to say (`covered.py`).
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Self

from gateway.errors import BadSignatureError, LedgerDamagedError
from gateway.ledger.checkers import Checkers, checkers_at_hand
from gateway.receipt.envelope import Envelope, pae
from gateway.receipt.keys import PublicKey, parse_public_pem

if TYPE_CHECKING:
    # Whoever only checks knows no statements, and starts the sooner.
    from gateway.receipt.authority import Authority

CHECKED_ALONE_MAX: Final = 4_096
"""So many leaves are checked by one process alone: others take a while to start."""

_PAGE: Final = 256
_AHEAD: Final = 4
"""Pages that wait at each process that helps: work for a tenth of a second."""

_HELPERS_MAX: Final = 3
"""More would be idle: one process rules on rows, which takes about as long."""

Signed = tuple[int, str | None, bytes, bytes]
"""A leaf's index, the key that it names, the signature, and what that covers."""

Page = Sequence[Signed]

Keys = tuple[tuple[str, str], ...]
"""Ids of keys, and the keys."""


class Signatures:
    """Checks signatures by receipt keys; all of them were good once `finish` returns."""

    def __init__(self, authority: Authority, workers: int | None = None) -> None:
        """Begin alone; *workers* help where there is much to check, or one a core beside us."""
        self._check = functools.partial(check_signatures, receipt_keys(authority))
        spare = min(checkers_at_hand() - 1, _HELPERS_MAX)
        self._workers = spare if workers is None else workers
        self._page: list[Signed] = []
        self._backlog: deque[Page] = deque()
        self._helpers: Checkers[Page, str | None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._helpers is not None:
            self._helpers.close()

    def add(self, index: int, envelope: Envelope) -> None:
        """Have the signature of the leaf at *index* checked, now or later.

        Raises:
            LedgerDamagedError: this one, or one before it, is bad; says which.
            CheckInterruptedError: a process that checked was ended from outside.
        """
        signature = envelope.signatures[0]
        message = pae(envelope.payload_type, envelope.payload)
        self._page.append((index, signature.keyid, signature.sig, message))
        if len(self._page) < _PAGE:
            return
        self._turn()
        much = len(self._backlog) * _PAGE > CHECKED_ALONE_MAX
        if much and self._helpers is None and self._workers > 0:
            self._helpers = Checkers(self._check, self._workers, ahead=_AHEAD)
        self._hand_out()
        if len(self._backlog) * _PAGE > CHECKED_ALONE_MAX:
            _raise(self._check(self._backlog.popleft()))

    def finish(self) -> None:
        """Return once all were checked; raises as `add` does."""
        self._turn()
        while self._backlog:
            self._hand_out()
            if self._backlog:
                _raise(self._check(self._backlog.popleft()))
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
            self._helpers.hand_out(self._backlog.popleft())


def _raise(found: str | None) -> None:
    if found is not None:
        raise LedgerDamagedError(found, hint="run `gateway ledger fsck`; nothing was built")


def receipt_keys(authority: Authority) -> Keys:
    """Return every receipt key that *authority* knows, with its id."""
    keys = {life.keyid: life.key.pem for life in authority.lives if life.role == "receipt"}
    return tuple(sorted(keys.items()))


def check_signatures(keys: Keys, page: Page) -> str | None:
    """Return what is wrong with the first leaf of *page* whose signature is bad, or `None`."""
    known = _parsed(keys)
    for index, keyid, sig, message in page:
        key = known.get(keyid or "")
        if key is None:
            return f"leaf {index} of the ledger is signed by no receipt key that it knows"
        try:
            key.verify(sig, message)
        except BadSignatureError as exc:
            return f"leaf {index} of the ledger does not verify: {exc.message}"
    return None


@functools.lru_cache(maxsize=1)
def _parsed(keys: Keys) -> Mapping[str, PublicKey]:
    return {keyid: parse_public_pem(pem) for keyid, pem in keys}

"""Read the ledger: leaves, statements, and what shows that they are in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from gateway.errors import BadProofError, NotFoundError
from gateway.ident import ExchangeId, Sha256
from gateway.ledger.reading.authorities import Authorities
from gateway.ledger.reading.subtrees import Subtrees
from gateway.ledger.reading.tiles import Tiles
from gateway.receipt.authority import Authority
from gateway.receipt.bundle import Bundle, Included, format_bundle
from gateway.receipt.keys import Trust
from gateway.receipt.model import Manifest, Statement
from gateway.receipt.statement import read_leaf, signing_key
from gateway.store.index.index import Index, Progress
from gateway.store.index.rows import Kept, Kind
from gateway.store.ports import LedgerStore
from gateway.tlog.checkpoint import Checkpoint, parse_checkpoint
from gateway.tlog.merkle import consistency_proof, inclusion_proof
from gateway.tlog.note import parse_note
from gateway.tlog.proof import InclusionProof

_AT_ONCE: Final = 256
_DENSE: Final = 4
"""Leaves that lie this close together are read in one go, with those between them."""


class Reader:
    """Finds leaves through the index and proves them from the store; any thread may ask."""

    def __init__(self, store: LedgerStore, index: Index) -> None:
        self._store = store
        # OWNED BY: whoever asks; any of the sizes that were seen will do.
        self._seen = 0
        self._subtrees = Subtrees(store)
        self.tiles = Tiles(store, self._subtrees)
        self.index = index
        self._authorities = Authorities(self.leaf, index)

    def size(self) -> int:
        """Return how many leaves are durable."""
        return self._store.head().size

    def leaf(self, index: int) -> bytes:
        """Return the leaf at *index*.

        Raises:
            NotFoundError: there is none.
        """
        if index >= self._seen:
            # Leaves are only added: what was there once needs no second look.
            self._seen = self.size()
        if not 0 <= index < self._seen:
            raise NotFoundError(
                f"the ledger has no leaf {index}", hint=f"it has {self._seen} leaves, from 0"
            )
        (leaf,) = self._store.leaves(index, index + 1)
        return leaf

    def leaves(self, first: int, stop: int) -> Iterator[bytes]:
        """Yield leaves *first* up to, not including, *stop*, in order, in constant memory."""
        return self._store.leaves(first, stop)

    def leaves_at(self, indices: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield the leaves at *indices*, which rise, with their indices; many at a time.

        Raises:
            NotFoundError: there is none at one of them.
        """
        waiting = iter(indices)
        while some := list(itertools.islice(waiting, _AT_ONCE)):
            if some[-1] - some[0] < _DENSE * len(some) and some[-1] < self.size():
                wanted = set(some)
                near = enumerate(self.leaves(some[0], some[-1] + 1), some[0])
                yield from ((index, leaf) for index, leaf in near if index in wanted)
            else:
                yield from ((index, self.leaf(index)) for index in some)

    def catch_up(self, progress: Progress | None = None) -> int:
        """Bring the index up to the ledger; return how many leaves were added to it."""
        return self.index.catch_up(self._store, progress)

    def find(self, exchange: ExchangeId) -> tuple[int, bytes] | None:
        """Return index and leaf of the statement that closed *exchange*, or `None`."""
        row = self.index.find(exchange)
        if row is None:
            # Another thread may be the one that adds it.
            self.catch_up()
            row = self.index.find(exchange)
        return None if row is None else (row.index, self.leaf(row.index))

    def derivation(self, derivation: ExchangeId) -> tuple[int, bytes] | None:
        """Return index and leaf of the derivation of that id, or `None`."""
        row = self.index.derivation(derivation)
        if row is None:
            self.catch_up()
            row = self.index.derivation(derivation)
        return None if row is None else (row.index, self.leaf(row.index))

    def closed_of(self, exchanges: Sequence[ExchangeId]) -> set[ExchangeId]:
        """Return those of *exchanges* that have a closing statement in the ledger as it is."""
        self.catch_up()
        return self.index.closed_of(exchanges)

    def resource(self, provider: str, kind: str, id: str) -> Kept | None:  # noqa: A002 — its name
        """Return what is known of a resource at *provider*, or `None`."""
        return self.resources(provider, kind, [id]).get(id)

    def resources(self, provider: str, kind: str, ids: Sequence[str]) -> dict[str, Kept]:
        """Return what is known of resources of one *kind* at *provider*, by their ids."""
        found = self.index.resources(provider, kind, ids)
        if len(found) < len(set(ids)):
            self.catch_up()
            found = self.index.resources(provider, kind, ids)
        return found

    def resources_named(self, provider: str, ids: Sequence[str]) -> list[Kept]:
        """Return what is known of resources at *provider* of those ids, of whatever kind."""
        self.catch_up()
        return self.index.resources_named(provider, ids)

    def under_way(self, provider: str, principal: str, project: str) -> set[ExchangeId]:
        """Return the exchanges of *principal* with *provider* that are not closed as yet."""
        self.catch_up()
        return self.index.under_way(provider, principal, project)

    def manifest(self, sha256: Sha256) -> tuple[int, Manifest] | None:
        """Return index and manifest whose payload has that digest, or `None`."""
        row = self.index.by_payload(sha256)
        if row is None:
            self.catch_up()
            row = self.index.by_payload(sha256)
        if row is None:
            return None
        statement = read_leaf(self.leaf(row.index))
        return (row.index, statement) if isinstance(statement, Manifest) else None

    def statements(
        self, kinds: Iterable[Kind] | None = None
    ) -> Iterator[tuple[int, Statement]]:
        """Yield (leaf index, statement) of every statement of *kinds*, in order."""
        self.catch_up()
        for index in self.index.statements(kinds):
            yield index, read_leaf(self.leaf(index))

    def prove(self, index: int, note: str) -> InclusionProof:
        """Return the proof that leaf *index* is under the checkpoint *note*.

        Raises:
            BadProofError: the checkpoint does not cover it, or is ahead of this ledger.
        """
        size = self._covered(note).size
        hashes = inclusion_proof(index, size, self._subtrees.root)
        return InclusionProof(index=index, hashes=tuple(hashes), checkpoint=note)

    def prove_growth(self, old_size: int, note: str) -> list[bytes]:
        """Return the proof that the tree of *old_size* is a beginning of that of *note*.

        Raises:
            BadProofError: the old tree is larger, or the checkpoint is ahead of this ledger.
        """
        return consistency_proof(old_size, self._covered(note).size, self._subtrees.root)

    def named(self, what: ExchangeId | int) -> tuple[int, bytes]:
        """Return index and leaf of an exchange's closing statement, or of a leaf by its index.

        Raises:
            NotFoundError: the exchange has none yet, or there is no such leaf.
        """
        if isinstance(what, int):
            return what, self.leaf(what)
        found = self.find(what)
        if found is None:
            raise NotFoundError(
                f"no statement closes `{what}`",
                hint="ids come in the header x-gateway-exchange",
            )
        return found

    def bundle(self, what: ExchangeId | int, note: str) -> bytes:
        """Return leaf, proof and checkpoint of an exchange's closing statement, or a leaf.

        Raises:
            NotFoundError: the exchange has none yet, or there is no such leaf.
            BadProofError: the checkpoint does not cover it.
        """
        index, leaf = self.named(what)
        proof = self.prove(index, note)
        return format_bundle(Bundle(leaf, proof, self._authorization(index, leaf, note)))

    def authority(self, trust: Trust) -> Authority:
        """Return whose signature counts at which leaf, for who holds *trust*."""
        self.catch_up()
        return self._authorities.under(trust)

    def _authorization(self, index: int, leaf: bytes, note: str) -> Included | None:
        """Return what shows that the receipt key that signed *leaf* might, if one did."""
        keyid = signing_key(leaf)
        if keyid is None:
            return None
        at = self._authorities.authorised_at(keyid)
        if at is None:
            self.catch_up()
            at = self._authorities.authorised_at(keyid)
        if at is None:
            raise BadProofError(
                f"no leaf authorises the key {keyid[:16]}… that signed leaf {index}",
                hint="run `gateway ledger fsck`",
            )
        return Included(self.leaf(at), at, self.prove(at, note).hashes)

    def _covered(self, note: str) -> Checkpoint:
        checkpoint = parse_checkpoint(parse_note(note)[0])
        if checkpoint.size > self.size():
            raise BadProofError(
                f"the checkpoint covers {checkpoint.size} leaves, the ledger has {self.size()}",
                hint="restore the newest copy of the ledger, never an older one",
            )
        return checkpoint

"""The receipt key of this process: made in memory, authorised in the ledger, soon let go of.

It is made when something is first signed. The leaf that authorises it stands before the first
leaf that it signs, because whatever appends asks `first` what must come first. It never
touches a disk: who copies the disk can't sign with it, and who copies the process can for a
day at most.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.clock import Clock, rfc3339
from gateway.ident import Sha256
from gateway.limits import RECEIPT_KEY_LIFE_MS, RECEIPT_KEY_RENEWED_AFTER_MS
from gateway.receipt.envelope import Signer
from gateway.receipt.keys import Ed25519Signer, generate_pem
from gateway.receipt.model import KeyAuthorization, KeyRevocation, RevocationReason, Writer
from gateway.receipt.statement import write_statement
from gateway.store.claims import Claims


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKey:
    """A receipt key in this process's memory, and the leaf that authorises it."""

    signer: Ed25519Signer
    made_at_ms: int
    claim: int
    """The handle that tells other processes that its holder lives."""
    authorization: bytes


class ProcessKey:
    """Hands out the receipt key to sign with now; any thread may ask."""

    def __init__(self, manifest: Signer, claims: Claims, clock: Clock, writer: Writer) -> None:
        self._manifest = manifest
        self._claims = claims
        self._clock = clock
        self._writer = writer
        # Over the fields below.
        self._lock = threading.Lock()
        self._held: HeldKey | None = None
        self._introduced = False

    @property
    def current(self) -> Ed25519Signer:
        """The key to sign with now; made when it is first asked for.

        Raises:
            KeyUnreadableError: none can be made.
        """
        with self._lock:
            if self._held is None:
                self._held, self._introduced = self.make(), False
            return self._held.signer

    @property
    def held(self) -> HeldKey | None:
        """The key in use and its authorisation, or `None` while nothing was signed."""
        with self._lock:
            return self._held

    def first(self) -> tuple[bytes, ...]:
        """Return the leaves that must stand before whatever is appended next."""
        with self._lock:
            if self._held is None or self._introduced:
                return ()
            return (self._held.authorization,)

    def introduced(self, leaves: Sequence[bytes]) -> None:
        """Take note that *leaves*, which `first` returned, are durable."""
        with self._lock:
            if self._held is not None and self._held.authorization in leaves:
                self._introduced = True

    def is_old(self) -> bool:
        """Tell whether it is time for another key, or somebody asked for one."""
        held = self.held
        if held is None:
            return False
        age_ms = self._clock.now_ms() - held.made_at_ms
        # A clock that was put back makes no key live longer.
        return not 0 <= age_ms < RECEIPT_KEY_RENEWED_AFTER_MS or (
            self._claims.is_asked_for_another(held.signer.keyid)
        )

    def make(self) -> HeldKey:
        """Return a fresh key with its authorisation; nothing is signed with it yet.

        Raises:
            KeyUnreadableError: it can't be claimed, or the manifest key can't sign.
        """
        signer = Ed25519Signer(generate_pem("ed25519"))
        now_ms = self._clock.now_ms()
        claim = self._claims.take(signer.keyid)
        authorization = KeyAuthorization(
            keyid=Sha256(signer.keyid),
            key=signer.public.pem,
            role="receipt",
            expires=rfc3339(now_ms + RECEIPT_KEY_LIFE_MS),
            by=self._writer.instance,
            at=rfc3339(now_ms),
            writer=self._writer,
        )
        return HeldKey(
            signer=signer,
            made_at_ms=now_ms,
            claim=claim,
            authorization=write_statement(authorization, (), self._manifest),
        )

    def adopt(self, fresh: HeldKey) -> HeldKey | None:
        """Sign with *fresh* from now on, whose authorisation is durable; return the old key.

        What the old one signed must be handed to whatever appends before its `ending` is.
        """
        with self._lock:
            old, self._held = self._held, fresh
            old_was_introduced, self._introduced = self._introduced, True
        if old is not None and not old_was_introduced:
            self.discard(old)
            return None
        return old

    def ending(self, keyid: str, reason: RevocationReason) -> bytes:
        """Return the leaf that ends a receipt key where it comes to stand."""
        revocation = KeyRevocation(
            keyid=Sha256(keyid),
            role="receipt",
            reason=reason,
            by=self._writer.instance,
            at=rfc3339(self._clock.now_ms()),
            writer=self._writer,
        )
        return write_statement(revocation, (), self._manifest)

    def let_go(self) -> HeldKey | None:
        """Sign nothing more with the key in use; return it if a leaf authorises it."""
        with self._lock:
            old, self._held = self._held, None
            was_introduced, self._introduced = self._introduced, False
        if old is not None and not was_introduced:
            self.discard(old)
            return None
        return old

    def discard(self, key: HeldKey) -> None:
        """Forget a key that has ended, or that no leaf authorises."""
        self._claims.release(key.signer.keyid, key.claim)

    def abandon(self, key: HeldKey) -> None:
        """Forget a key whose end could not be written; whoever starts next writes it."""
        self._claims.abandon(key.claim)

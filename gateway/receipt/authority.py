"""Which key may sign what at which leaf: a fold over the statements about keys.

A key is good in one role, for an interval of leaf indices: from the leaf after its
authorisation up to, not including, the leaf that its revocation names. Manifest keys come with
the trust file, or from an authorisation by a manifest key that was good at that leaf; receipt
keys come from authorisations alone. The trust file's word is the last one: what it ends stays
ended, whatever leaves say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from gateway.errors import BadSignatureError, MalformedReceiptError
from gateway.ident import Sha256
from gateway.receipt.envelope import Envelope, pae
from gateway.receipt.keys import (
    KeyKind,
    Predecessor,
    PublicKey,
    RevokedKey,
    Trust,
    TrustedManifestKey,
    parse_public_pem,
    trusted_keys,
)
from gateway.receipt.model import (
    KeyAuthorization,
    KeyRevocation,
    KeyRole,
    LogSuccession,
    Manifest,
    Statement,
)
from gateway.receipt.statement import MANIFEST_KEY_SIGNS

STOLEN: Final = "stolen"
"""The reason of a revocation or a succession after which a key's word is worth nothing."""

WRONG_HANDS: Final = frozenset({STOLEN, "lost"})

_KINDS: Final[dict[KeyRole, KeyKind]] = {"receipt": "ed25519", "manifest": "p256"}
"""One kind of keys for each role, so that no key can take two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLife:
    """What is known of one key: its role, and the leaves that it may sign."""

    key: PublicKey
    role: KeyRole
    since: int
    """The first leaf that it may sign."""
    until: int | None = None
    """The first leaf that it may not sign any more; `None` while it may."""
    reason: str | None = None
    """Why it ended, where a leaf says so."""
    ended_at: int | None = None
    """The leaf that ended it; later than *until* where the end was dated back."""
    expires: str | None = None
    writer: str | None = None
    """The process that was given it."""
    by: str | None = None
    """The key that authorised it, where a leaf did and that is known."""

    @property
    def keyid(self) -> str:
        """SHA-256 of the public key's SubjectPublicKeyInfo DER, in hex."""
        return self.key.keyid

    @property
    def authorised_at(self) -> int:
        """The leaf that authorised it; -1 where the trust file names it from leaf 0 on."""
        return self.since - 1

    def check(self, index: int) -> PublicKey:
        """Return the key after checking that it may sign leaf *index*.

        Raises:
            BadSignatureError: it was not authorised before that leaf, or ended by then.
        """
        named = f"the key {self.keyid[:16]}…"
        if index < self.since:
            raise BadSignatureError(f"{named} was not authorised before leaf {index}")
        if self.until is not None and index >= self.until:
            raise BadSignatureError(f"{named} is revoked since leaf {self.until}")
        return self.key


class Authority:
    """Tells whose signature counts at a leaf; one thread folds into it at a time."""

    def __init__(self, trust: Trust) -> None:
        keys = trusted_keys(trust)
        self.trust = trust
        self._revoked = keys.revoked
        self._lives: dict[str, KeyLife] = {}
        for one in keys.manifest.values():
            until = _earlier(one.until, self._revoked.get(one.key.keyid))
            self._lives[one.key.keyid] = KeyLife(
                key=one.key, role="manifest", since=one.since, until=until
            )

    @property
    def lives(self) -> Iterable[KeyLife]:
        """Every key that is known, in the order in which they were authorised."""
        return sorted(self._lives.values(), key=lambda life: life.since)

    def life(self, keyid: str) -> KeyLife | None:
        """Return what is known of the key *keyid*, or `None`."""
        return self._lives.get(keyid)

    def admit(self, index: int, statement: Statement, by: str | None = None) -> None:
        """Fold the *statement* at leaf *index*, which `signed_statement` returned, in order.

        *by* is the key that signed it: should it turn out to have been in the wrong hands
        by then, what it authorised counts no more. What says nothing about keys changes
        nothing, and neither does a leaf that was folded before.

        Raises:
            EvidenceError: it contradicts itself or what was folded before.
        """
        match statement:
            case KeyAuthorization():
                self._authorise(index, statement, by)
            case KeyRevocation():
                self._revoke(index, statement)
            case _:
                return

    def receipt_key(self, keyid: str, index: int) -> PublicKey:
        """Return the receipt key *keyid* after checking that it may sign leaf *index*.

        Raises:
            BadSignatureError: it may not, and why.
        """
        return self._known(keyid, "receipt", index).check(index)

    def manifest_key(self, keyid: str, index: int) -> PublicKey:
        """Return the manifest key *keyid* after checking that it may sign leaf *index*.

        Raises:
            BadSignatureError: it may not, and why.
        """
        return self._known(keyid, "manifest", index).check(index)

    def signer_of(self, envelope: Envelope, statement: Statement, index: int) -> PublicKey:
        """Return the key that signed *envelope*, which holds *statement*, at leaf *index*.

        Raises:
            BadSignatureError: its form does not fit its kind, no key that may sign it there
                did, or the signature does not verify.
        """
        signature = envelope.signatures[0]
        message = pae(envelope.payload_type, envelope.payload)
        if isinstance(statement, Manifest):
            if signature.keyid is not None:
                raise BadSignatureError("a manifest's envelope does not name its key")
            key = self._unnamed(signature.sig, message)
            return self._lives[key.keyid].check(index)
        if signature.keyid is None:
            raise BadSignatureError("the statement does not name the key that signed it")
        if isinstance(statement, MANIFEST_KEY_SIGNS):
            key = self.manifest_key(signature.keyid, index)
        else:
            key = self.receipt_key(signature.keyid, index)
        key.verify(signature.sig, message)
        return key

    def _unnamed(self, signature: bytes, message: bytes) -> PublicKey:
        """Return the manifest key, good or ended, that made *signature*."""
        for life in self._lives.values():
            if life.role == "manifest" and _is_by(life.key, signature, message):
                return life.key
        raise BadSignatureError("the statement is signed by no trusted manifest key")

    def _known(self, keyid: str, role: KeyRole, index: int) -> KeyLife:
        life = self._lives.get(keyid)
        if life is None:
            raise BadSignatureError(
                f"the key {keyid[:16]}… was not authorised before leaf {index}"
            )
        if life.role != role:
            raise BadSignatureError(
                f"the key {keyid[:16]}… is a {life.role} key and may not sign such a statement"
            )
        return life

    def _authorise(self, index: int, said: KeyAuthorization, by: str | None) -> None:
        key = parse_public_pem(said.key)
        if key.keyid != said.keyid or key.pem != said.key:
            raise MalformedReceiptError("the key is not the one that its id names")
        _check_kind(key, said.role)
        if said.keyid in self._lives:
            # Said again, it changes nothing: what ended stays ended, no key begins earlier.
            return
        self._lives[said.keyid] = KeyLife(
            key=key,
            role=said.role,
            since=index + 1,
            until=self._revoked.get(said.keyid),
            expires=said.expires,
            writer=said.writer.instance,
            by=by,
        )

    def _revoke(self, index: int, said: KeyRevocation) -> None:
        since = index if said.since is None else said.since
        if not 0 <= since <= index:
            raise MalformedReceiptError(f"a key can't end at leaf {since}, said at {index}")
        known = self._lives.get(said.keyid)
        if known is None:
            raise BadSignatureError(f"the key {said.keyid[:16]}… was never authorised")
        if known.role != said.role:
            raise BadSignatureError(f"the key {said.keyid[:16]}… is a {known.role} key")
        if known.until is None or since < known.until:
            self._lives[said.keyid] = replace(
                known, until=since, reason=said.reason, ended_at=index
            )
            self._disown(said, index, since)
        elif known.reason is None or (
            since == known.until
            and said.reason in WRONG_HANDS
            and known.reason not in WRONG_HANDS
        ):
            # The trust file has said so before, or something milder was said.
            self._lives[said.keyid] = replace(known, reason=said.reason, ended_at=index)

    def _disown(self, said: KeyRevocation, index: int, since: int) -> None:
        """End all keys that the revoked one authorised from leaf *since* on, and theirs."""
        left = [(str(said.keyid), since)]
        while left:
            keyid, first = left.pop()
            for life in [one for one in self._lives.values() if one.by == keyid]:
                if life.authorised_at >= first:
                    self._lives[life.keyid] = replace(
                        life, until=life.since, reason=said.reason, ended_at=index
                    )
                    left.append((life.keyid, life.since))


def trust_after(
    trust: Trust,
    authority: Authority,
    successions: Iterable[LogSuccession],
    witnesses: tuple[str, ...],
    quorum: int,
) -> Trust:
    """Return what *trust* has become by what the ledger says of keys and of itself.

    *authority* was folded from the whole ledger for who holds *trust*, *successions* come in
    order. Of receipt keys only those in the wrong hands are named: all others are gone.
    """
    revoked = {one.keyid: one.since for one in trust.revoked}
    for life in authority.lives:
        if life.until is not None and life.reason in WRONG_HANDS:
            revoked[Sha256(life.keyid)] = life.until
    known = {one.origin: one for one in trust.predecessors}
    origin, log = trust.origin, trust.log
    for said in successions:
        frozen = said.predecessor
        known.setdefault(
            frozen.origin,
            Predecessor(
                origin=frozen.origin,
                log=frozen.log,
                size=frozen.size,
                root=frozen.root,
                trusted=said.reason != STOLEN,
            ),
        )
        origin, log = said.origin, said.log
    return Trust(
        origin=origin,
        log=log,
        witnesses=witnesses,
        quorum=quorum,
        manifest_keys=tuple(
            TrustedManifestKey(key=life.key.pem, since=life.since, until=life.until)
            for life in authority.lives
            if life.role == "manifest"
        ),
        revoked=tuple(
            RevokedKey(keyid=keyid, since=since) for keyid, since in sorted(revoked.items())
        ),
        predecessors=tuple(known.values()),
    )


def _is_by(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except BadSignatureError:
        return False
    return True


def _check_kind(key: PublicKey, role: KeyRole) -> None:
    if key.kind != _KINDS[role]:
        raise MalformedReceiptError(f"a {role} key is not {key.kind}")


def _earlier(one: int | None, other: int | None) -> int | None:
    known = [index for index in (one, other) if index is not None]
    return min(known, default=None)

"""Give a ledger other keys, or another name; each step can be the last before a power cut.

What is written, in which order, is chosen so that after each step the gateway works with the
old keys, or works with the new ones, or says which command to run again; and that command,
run again, does what is left to do. The trust file is a fold over the ledger and is made anew
from it every time.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

import msgspec

from gateway.app.installation import Installation, key_places, open_sourced
from gateway.app.publishing import asked_of_auditors
from gateway.app.receipt_key import end_keys_of_the_gone
from gateway.app.upkeep import claim
from gateway.clock import SystemClock, rfc3339
from gateway.errors import BadProofError, KeyUnreadableError, OperatorError, SettingError
from gateway.ident import Sha256
from gateway.ledger.reading.reader import Reader
from gateway.limits import KEY_FILE_MODE_MAX, RECEIPT_KEY_ROTATION_S_MAX
from gateway.receipt.authority import Authority, KeyLife, trust_after
from gateway.receipt.keys import (
    KeyKind,
    LogSigner,
    RevokedKey,
    SigningKey,
    Trust,
    TrustedManifestKey,
    generate_pem,
    parse_public_pem,
)
from gateway.receipt.model import (
    FrozenLog,
    KeyAuthorization,
    KeyRevocation,
    LogSuccession,
    RevocationReason,
)
from gateway.receipt.statement import write_statement
from gateway.receipt.verify import verify_leaf
from gateway.settings import Sourced
from gateway.store.claims import Holder
from gateway.store.files import hold, write_once
from gateway.store.index.index import Index
from gateway.store.keys import load_key, load_trust, write_trust
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.checkpoint import parse_checkpoint
from gateway.tlog.merkle import Frontier
from gateway.tlog.note import check_name, parse_note

NEVER: Final = "9999-12-31T23:59:59.999Z"
"""When a manifest key's holder will have let go of it: no day is known."""

WrongHands = Literal["stolen", "lost"]
REASONS: Final[dict[str, WrongHands]] = {"stolen": "stolen", "lost": "lost"}

_LOOK_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """Who rotates: a named person, with the root key at hand."""

    by: str
    root: SigningKey


def successions(reader: Reader, trust: Trust) -> list[LogSuccession]:
    """Return how the ledger came to its name, in order.

    Raises:
        EvidenceError: one is not signed by a manifest key that might, or stands elsewhere
            than where its predecessor was frozen: whoever wrote it must not name the log.
    """
    authority, found = reader.authority(trust), list[LogSuccession]()
    known = {(one.origin, one.log, one.size) for one in trust.predecessors}
    for at, said in reader.statements(kinds=("log-succession",)):
        frozen = said.predecessor if isinstance(said, LogSuccession) else None
        # What the root has vouched for stands, whatever became of the key that stated it.
        if frozen is None or (frozen.origin, frozen.log, frozen.size) not in known:
            verify_leaf(reader.leaf(at), at, authority)
        if not isinstance(said, LogSuccession) or said.predecessor.size != at:
            raise BadProofError(f"leaf {at} is no succession of the log that was frozen there")
        found.append(said)
    return found


def renew_trust(house: Installation, hand: Hand) -> Trust:
    """Make the trust file anew from the ledger and the settings, and sign it.

    Raises:
        OperatorError: it can't be written.
    """
    trust = house.keyring.trust
    witnesses, quorum = asked_of_auditors(house.settings.settings.checkpoint)
    made = trust_after(
        trust,
        house.reader.authority(trust),
        successions(house.reader, trust),
        witnesses,
        quorum,
    )
    if made.log != house.keyring.log.vkey:
        raise KeyUnreadableError(
            f"a leaf says that the log goes on as `{made.origin}`, with a key that is not here",
            hint="whoever wrote it had a manifest key: run `gateway ledger fsck`, and find out",
        )
    _write_trust(house.data, made, hand)
    return made


# -- receipt keys -------------------------------------------------------------------------


def rotate_receipt_keys(house: Installation) -> tuple[int, int]:
    """Have every process that signs take another key; return how many did, and were gone.

    Raises:
        OperatorError: a process did not take another key in time.
    """
    claims, gone = house.keyring.claims, end_keys_of_the_gone(house)
    asked = [
        life.keyid
        for life in house.reader.authority(house.keyring.trust).lives
        if life.role == "receipt"
        and life.until is None
        and claims.holder(life.keyid) is Holder.ALIVE
    ]
    for keyid in asked:
        claims.ask_for_another(keyid)
    until = time.monotonic() + RECEIPT_KEY_ROTATION_S_MAX
    waiting = list(asked)
    while waiting:
        if time.monotonic() > until:
            raise OperatorError(
                f"a process still signs with {waiting[0][:16]}…",
                hint="a command takes no other key; wait until it ends, and run this again",
            )
        time.sleep(_LOOK_S)
        authority = house.reader.authority(house.keyring.trust)
        waiting = [one for one in waiting if not _has_ended(authority, one)]
    return len(asked), len(gone)


def _has_ended(authority: Authority, keyid: str) -> bool:
    life = authority.life(keyid)
    return life is not None and life.until is not None


# -- revocation ---------------------------------------------------------------------------


def revoke(
    house: Installation,
    hand: Hand,
    keyid: str,
    since: int | None,
    because: WrongHands,
) -> KeyLife:
    """End a key in the wrong hands from leaf *since* on, for auditors too; return its life.

    Raises:
        OperatorError: it is in use, there is no such key, or *since* is no leaf of its.
    """
    trust, reader = house.keyring.trust, house.reader
    life = reader.authority(trust).life(keyid)
    if life is None:
        raise OperatorError(
            f"no leaf authorises the key {keyid[:16]}…", hint="see `gateway key show`"
        )
    if keyid == house.keyring.manifest.keyid:
        raise OperatorError(
            f"the key {keyid[:16]}… is the manifest key in use",
            hint="run `gateway key rotate manifest --stolen`",
        )
    if house.keyring.claims.holder(keyid) is Holder.ALIVE:
        raise OperatorError(
            f"a running process signs with {keyid[:16]}…",
            hint="run `gateway key rotate receipt` first; what it signed until then is named"
            " by `--since`",
        )
    first = life.since if since is None else since
    if not 0 <= first <= reader.size():
        raise OperatorError(
            f"the ledger has no leaf {first}", hint=f"it has {reader.size()} leaves, from 0"
        )
    _state(house, _revocation(house, life, hand, because, first), house.keyring.manifest)
    renew_trust(house, hand)
    ended = reader.authority(trust).life(keyid)
    return ended or life


# -- manifest keys ------------------------------------------------------------------------


def rotate_manifest_key(sourced: Sourced, hand: Hand, new: str | None) -> str | None:
    """Take another manifest key, authorised by the one in use, which then ends.

    *new* refers to a key elsewhere. Returns what the operator must do before running this
    again, or `None` when all is done.

    Raises:
        OperatorError: a gateway runs, or something can't be read or written.
    """
    following = sourced.path(sourced.settings.data) / "keys" / "manifest.key.next"
    with _alone(sourced):
        with contextlib.closing(open_sourced(sourced)) as house:
            in_use = house.keyring.manifest
            authority = house.reader.authority(house.keyring.trust)
            if _unended_before(authority, in_use.keyid) and not following.exists():
                # The new key is in use; what is left is to end the old one.
                _end_older_manifest_keys(house, hand)
                return None
            fresh = _fresh_key(sourced, following, "p256", new, "--new")
            if authority.life(fresh.keyid) is None:
                _state(house, _authorization(house, fresh, hand), in_use)
            renew_trust(house, hand)
        if new is not None:
            return f"set `signing.manifest` to {new.partition('?')[0]}, and run this again"
        following.replace(following.with_name("manifest.key"))
        with contextlib.closing(open_sourced(sourced)) as house:
            _end_older_manifest_keys(house, hand)
    return None


def replace_manifest_key(
    sourced: Sourced,
    hand: Hand,
    because: WrongHands,
    since: int | None,
    new: str | None,
) -> str | None:
    """Take another manifest key on the root's word alone: the old one is not to be used.

    Raises:
        OperatorError: a gateway runs, or something can't be read or written.
    """
    data = sourced.path(sourced.settings.data)
    following = data / "keys" / "manifest.key.next"
    with _alone(sourced):
        if new is not None or following.exists() or not _unsaid_ends(sourced):
            trust = load_trust(data)
            fresh = _fresh_key(sourced, following, "p256", new, "--new")
            if fresh.public.pem not in {one.key for one in trust.manifest_keys}:
                size = _size_of(sourced, trust.origin)
                _write_trust(data, _replaced(trust, fresh, size, since), hand)
            if new is not None and not _is_in_use(sourced, fresh):
                return f"set `signing.manifest` to {new.partition('?')[0]}, and run this again"
            if following.exists():
                following.replace(following.with_name("manifest.key"))
        with contextlib.closing(open_sourced(sourced)) as house:
            for life in _ended_by_trust_alone(house):
                leaf = _revocation(house, life, hand, because, life.until)
                _state(house, leaf, house.keyring.manifest)
            renew_trust(house, hand)
    return None


def _unsaid_ends(sourced: Sourced) -> bool:
    """Tell whether the trust file has ended keys of which the ledger does not say it yet."""
    try:
        with contextlib.closing(open_sourced(sourced)) as house:
            return bool(_ended_by_trust_alone(house))
    except KeyUnreadableError:
        # The key is what was lost.
        return False


def _ended_by_trust_alone(house: Installation) -> list[KeyLife]:
    return [
        life
        for life in house.reader.authority(house.keyring.trust).lives
        if life.role == "manifest" and life.until is not None and life.ended_at is None
    ]


def _is_in_use(sourced: Sourced, fresh: SigningKey) -> bool:
    place = key_places(sourced).manifest
    data = sourced.path(sourced.settings.data)
    return place is not None and (
        load_key(data, "manifest.key", "p256", place).keyid == fresh.keyid
    )


def _size_of(sourced: Sourced, origin: str) -> int:
    if sourced.settings.ledger != "sqlite":
        raise OperatorError(
            "a manifest key of a ledger in a database can't be replaced here",
            hint="rotate it with the old one, or migrate to a file and back",
        )
    file = sourced.path(sourced.settings.data) / "ledger.db"
    with contextlib.closing(SqliteLedger(file, origin=origin)) as store:
        return store.head().size


def _replaced(trust: Trust, fresh: SigningKey, size: int, since: int | None) -> Trust:
    first = size if since is None else since
    if not 0 <= first <= size:
        raise OperatorError(f"the ledger has no leaf {first}", hint=f"it has {size} leaves")
    ended = tuple(
        one
        if one.until is not None
        else msgspec.structs.replace(one, until=max(first, one.since))
        for one in trust.manifest_keys
    )
    known = {one.keyid for one in trust.revoked}
    newly = tuple(
        RevokedKey(keyid=keyid, since=one.until or 0)
        for one in ended
        for keyid in (Sha256(parse_public_pem(one.key).keyid),)
        if keyid not in known
    )
    return msgspec.structs.replace(
        trust,
        manifest_keys=(*ended, TrustedManifestKey(key=fresh.public.pem, since=size)),
        revoked=(*trust.revoked, *newly),
    )


def _unended_before(authority: Authority, keyid: str) -> list[KeyLife]:
    now = authority.life(keyid)
    if now is None:
        raise KeyUnreadableError(f"the manifest key {keyid[:16]}… is not in the trust file")
    return [
        life
        for life in authority.lives
        if life.role == "manifest" and life.until is None and life.since < now.since
    ]


def _end_older_manifest_keys(house: Installation, hand: Hand) -> None:
    authority = house.reader.authority(house.keyring.trust)
    for life in _unended_before(authority, house.keyring.manifest.keyid):
        leaf = _revocation(house, life, hand, "superseded", None)
        _state(house, leaf, house.keyring.manifest)
    renew_trust(house, hand)


# -- the log ------------------------------------------------------------------------------


def rotate_log(
    sourced: Sourced, hand: Hand, origin: str, reason: str, new: str | None
) -> tuple[str, int]:
    """Freeze the log and go on under *origin* with another key; return the frozen log.

    The successor begins with all leaves of its predecessor, in the same places; its first own
    leaf names the frozen checkpoint.

    Raises:
        OperatorError: a gateway runs, *origin* can't name a log, or something can't be read
            or written.
    """
    if sourced.settings.ledger != "sqlite":
        raise OperatorError(
            "only a ledger in a file can take another name here",
            hint="migrate, or keep the name; `gateway key rotate manifest` works anywhere",
        )
    try:
        check_name(origin)
    except BadProofError as bad:
        raise SettingError(bad.message, hint=bad.hint) from bad
    data = sourced.path(sourced.settings.data)
    following = data / "keys" / "log.key.next"
    with _alone(sourced):
        trust = load_trust(data)
        with contextlib.closing(SqliteLedger(data / "ledger.db")) as store:
            named = store.origin
        if named == trust.origin and named != origin:
            fresh = LogSigner(_fresh_key(sourced, following, "ed25519", new, "--new"), origin)
            with contextlib.closing(open_sourced(sourced)) as house:
                _freeze(house, hand, fresh, reason)
        elif named != origin:
            raise OperatorError(
                f"the ledger goes on as `{named}` already", hint=f"run it with --origin {named}"
            )
        return _finish(sourced, hand, following, new)


def _freeze(house: Installation, hand: Hand, fresh: LogSigner, reason: str) -> None:
    """Publish the last checkpoint under the old name; then give the ledger the new one."""
    trust = house.keyring.trust
    note = house.sequencer.checkpoint_now()
    # Whoever publishes meanwhile finds the new name, and stops.
    publishing = _held(house.data / "publishing")
    try:
        frozen = parse_checkpoint(parse_note(note)[0])
        head = house.store.head()
        root = Frontier(head.size, head.frontier).root()
        if (frozen.size, frozen.root) != (head.size, root):
            raise OperatorError("the ledger has grown meanwhile", hint="run it again")
        succession = LogSuccession(
            origin=fresh.name,
            log=fresh.vkey,
            predecessor=FrozenLog(
                origin=trust.origin,
                log=trust.log,
                size=frozen.size,
                root=Sha256(frozen.root.hex()),
                note=Sha256(sha256(note.encode()).hexdigest()),
            ),
            reason=reason,
            by=hand.by,
            at=rfc3339(house.clock.now_ms()),
            writer=house.writer,
        )
        leaf = write_statement(succession, (), house.keyring.manifest)
        store = house.store
        if not isinstance(store, SqliteLedger):
            raise OperatorError("only a ledger in a file can take another name here")
        store.succeed(leaf, fresh.name, frozen.size)
    finally:
        os.close(publishing)


def _finish(sourced: Sourced, hand: Hand, following: Path, new: str | None) -> tuple[str, int]:
    """Make trust file, key and checkpoint fit the ledger's new name."""
    data = sourced.path(sourced.settings.data)
    trust = load_trust(data)
    with (
        contextlib.closing(SqliteLedger(data / "ledger.db")) as store,
        contextlib.closing(Index(data / "index.db")) as index,
    ):
        reader = Reader(store, index)
        reader.catch_up()
        said = successions(reader, trust)
    if not said:
        raise OperatorError("the ledger has no predecessor", hint="see `gateway ledger fsck`")
    witnesses, quorum = asked_of_auditors(sourced.settings.checkpoint)
    _write_trust(data, trust_after(trust, Authority(trust), said, witnesses, quorum), hand)
    if following.exists():
        following.replace(following.with_name("log.key"))
    frozen = said[-1].predecessor
    if new is None or key_places(sourced).log is not None:
        with contextlib.closing(open_sourced(sourced)) as house:
            house.sequencer.checkpoint_now()
            renew_trust(house, hand)
    return frozen.origin, frozen.size


# -- shared -------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(sourced: Sourced) -> Iterator[None]:
    """Keep gateways off the data folder meanwhile."""
    served = claim(sourced)
    try:
        yield
    finally:
        os.close(served)


def _held(path: Path) -> int:
    until = time.monotonic() + RECEIPT_KEY_ROTATION_S_MAX
    while (handle := hold(path)) is None:
        if time.monotonic() > until:
            raise OperatorError(f"another process holds `{path}`", hint="wait until it ends")
        time.sleep(_LOOK_S)
    return handle


def _fresh_key(
    sourced: Sourced, following: Path, kind: KeyKind, new: str | None, flag: str
) -> SigningKey:
    """Return the key that *new* refers to, or the next one in a file, made if need be."""
    if new is not None:
        return load_key(following.parent, "", kind, sourced.signing_key(new, flag))
    if not following.exists():
        try:
            write_once(following, generate_pem(kind), mode=KEY_FILE_MODE_MAX)
        except OSError as wrong:
            raise KeyUnreadableError(f"`{following}` can't be written: {wrong}") from wrong
    return load_key(following.parent.parent, following.name, kind, None)


def _authorization(house: Installation, fresh: SigningKey, hand: Hand) -> KeyAuthorization:
    return KeyAuthorization(
        keyid=Sha256(fresh.keyid),
        key=fresh.public.pem,
        role="manifest",
        expires=NEVER,
        by=hand.by,
        at=rfc3339(house.clock.now_ms()),
        writer=house.writer,
    )


def _revocation(
    house: Installation, life: KeyLife, hand: Hand, reason: RevocationReason, since: int | None
) -> KeyRevocation:
    return KeyRevocation(
        keyid=Sha256(life.keyid),
        role=life.role,
        since=since,
        reason=reason,
        by=hand.by,
        at=rfc3339(house.clock.now_ms()),
        writer=house.writer,
    )


def _state(
    house: Installation, said: KeyAuthorization | KeyRevocation, signer: SigningKey
) -> None:
    house.sequencer.append_and_wait(write_statement(said, (), signer))


def _write_trust(data: Path, trust: Trust, hand: Hand) -> None:
    try:
        write_trust(data, trust, hand.root, rfc3339(SystemClock().now_ms()))
    except OSError as wrong:
        raise OperatorError(
            f"the trust file can't be written: {wrong.strerror}", hint="run it again"
        ) from wrong

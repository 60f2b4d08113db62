"""Laws of whose signature counts at which leaf."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.errors import BadSignatureError, MalformedReceiptError
from gateway.ident import Sha256
from gateway.receipt.authority import Authority, trust_after
from gateway.receipt.envelope import open_envelope, seal_statement, seal_unnamed
from gateway.receipt.keys import (
    Ed25519Signer,
    P256Signer,
    RevokedKey,
    TrustedManifestKey,
    generate_pem,
)
from gateway.receipt.model import KeyAuthorization, KeyRevocation
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import read_leaf, write_statement
from tests.support.evidence import (
    EVERY,
    KEY_AUTHORIZATION,
    KEY_REVOCATION,
    LOG_SUCCESSION,
    MANIFEST_SIGNER,
    RECEIPT,
    RECEIPT_SIGNER,
    SUBJECTS,
    TRUST,
    a_manifest,
    signer_of,
)

OTHER = P256Signer(generate_pem("p256"))
KEYID = RECEIPT_SIGNER.keyid


def authorised(at: int = 4) -> Authority:
    """Return an authority in which leaf *at* authorises the receipt key."""
    authority = Authority(TRUST)
    authority.admit(at, KEY_AUTHORIZATION)
    return authority


def of_manifest_key(signer: P256Signer = OTHER) -> KeyAuthorization:
    """Return the authorisation of another manifest key."""
    return msgspec.structs.replace(
        KEY_AUTHORIZATION,
        keyid=Sha256(signer.keyid),
        key=signer.public.pem,
        role="manifest",
    )


def ending(**changed: Any) -> KeyRevocation:
    """Return the end of the receipt key."""
    return msgspec.structs.replace(KEY_REVOCATION, **changed)


def test_a_key_signs_from_the_leaf_after_its_authorisation() -> None:
    """Not at that leaf, not before it, and at every one behind it."""
    authority = authorised(at=4)

    for index in (0, 3, 4):
        with pytest.raises(BadSignatureError, match=f"not authorised before leaf {index}"):
            authority.receipt_key(KEYID, index)
    for index in (5, 10**9):
        assert authority.receipt_key(KEYID, index).keyid == KEYID
    life = authority.life(KEYID)
    assert life is not None
    assert (life.authorised_at, life.keyid, life.until) == (4, KEYID, None)


@pytest.mark.parametrize(("since", "until"), [(None, 9), (7, 7), (2, 2)])
def test_a_key_signs_up_to_its_end(since: int | None, until: int) -> None:
    """An end counts from the leaf that it names on, or from its own."""
    authority = authorised(at=4)
    authority.admit(9, ending(since=since))

    for index in range(5, 12):
        if index < until:
            assert authority.receipt_key(KEYID, index).keyid == KEYID
        else:
            with pytest.raises(BadSignatureError, match=f"revoked since leaf {until}"):
                authority.receipt_key(KEYID, index)


def test_folding_a_leaf_twice_changes_nothing() -> None:
    """What was folded before has no effect again, and nothing that ended comes back."""
    authority = authorised(at=4)
    for _ in range(2):
        authority.admit(9, ending(since=None))
        authority.admit(4, KEY_AUTHORIZATION)
        authority.admit(11, KEY_AUTHORIZATION)
        authority.admit(12, ending(since=None, reason="stolen"))

    (_, life) = authority.lives
    assert (life.since, life.until, life.reason, life.ended_at) == (5, 9, "process-ended", 9)


def test_of_two_ends_the_earlier_counts() -> None:
    """A theft found later ends a key before the day on which it was let go of."""
    authority = authorised(at=4)
    authority.admit(9, ending(since=None))
    authority.admit(20, ending(since=6, reason="stolen"))

    (_, life) = authority.lives
    assert (life.until, life.reason, life.ended_at) == (6, "stolen", 20)


def test_the_worse_reason_stays() -> None:
    """Where the trust file has ended a key, the leaf that says why is the one about a theft."""
    revoked = (RevokedKey(keyid=Sha256(KEYID), since=6),)
    authority = Authority(msgspec.structs.replace(TRUST, revoked=revoked))
    authority.admit(4, KEY_AUTHORIZATION)
    authority.admit(9, ending(since=None, reason="superseded"))
    authority.admit(10, ending(since=6, reason="stolen"))
    authority.admit(11, ending(since=6, reason="lost"))
    authority.admit(12, ending(since=6, reason="process-ended"))

    (_, life) = authority.lives
    assert (life.until, life.reason, life.ended_at) == (6, "stolen", 10)


def test_statements_about_other_things_change_nothing() -> None:
    """Only what is said of keys is folded."""
    authority = authorised()
    before = list(authority.lives)
    for index, statement in enumerate(EVERY, 5):
        if not isinstance(statement, KeyAuthorization | KeyRevocation):
            authority.admit(index, statement)

    assert before == list(authority.lives)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"keyid": Sha256("ab" * 32)}, MalformedReceiptError),
        ({"key": MANIFEST_SIGNER.public.pem}, MalformedReceiptError),
        ({"key": RECEIPT_SIGNER.public.pem + "\n"}, MalformedReceiptError),
        ({"key": "nonsense"}, MalformedReceiptError),
        ({"role": "manifest"}, MalformedReceiptError),
        (
            {"keyid": Sha256(OTHER.keyid), "key": OTHER.public.pem},
            MalformedReceiptError,
        ),
        (
            {"keyid": Sha256(MANIFEST_SIGNER.keyid), "key": MANIFEST_SIGNER.public.pem},
            MalformedReceiptError,
        ),
    ],
)
def test_an_authorisation_that_contradicts_itself_gives_nothing(
    said: dict[str, Any], error: type[Exception]
) -> None:
    """A key must be the one that its id names, and of the kind that its role asks for."""
    authority = Authority(TRUST)
    with pytest.raises(error):
        authority.admit(4, msgspec.structs.replace(KEY_AUTHORIZATION, **said))

    assert [MANIFEST_SIGNER.keyid] == [life.keyid for life in authority.lives]


def test_no_key_takes_another_role() -> None:
    """A key that is known in one role is refused in the other, whatever is said of it."""
    authority = authorised()
    lives = list(authority.lives)
    with pytest.raises(BadSignatureError, match="is a receipt key and may not"):
        authority.manifest_key(KEYID, 9)
    with pytest.raises(BadSignatureError, match="is a manifest key and may not"):
        authority.receipt_key(MANIFEST_SIGNER.keyid, 9)
    with pytest.raises(BadSignatureError, match="is a receipt key"):
        authority.admit(9, ending(role="manifest", since=None))
    assert lives == list(authority.lives)


@pytest.mark.parametrize("since", [-1, 10])
def test_an_end_lies_in_the_past(since: int) -> None:
    """A key can't be ended at a leaf that is not there yet, nor before the first."""
    with pytest.raises(MalformedReceiptError, match="can't end at leaf"):
        authorised().admit(9, ending(since=since))


def test_only_known_keys_end() -> None:
    """An end of a key that nothing authorised is an alarm."""
    with pytest.raises(BadSignatureError, match="never authorised"):
        Authority(TRUST).admit(9, ending(since=None))


def test_a_manifest_key_brings_in_another() -> None:
    """The new one signs from the next leaf on; the old one until it is ended."""
    authority = Authority(TRUST)
    authority.admit(4, of_manifest_key())
    end = ending(keyid=Sha256(MANIFEST_SIGNER.keyid), role="manifest", since=None)
    authority.admit(5, end)

    assert authority.manifest_key(OTHER.keyid, 5).keyid == OTHER.keyid
    assert authority.manifest_key(MANIFEST_SIGNER.keyid, 4).keyid == MANIFEST_SIGNER.keyid
    with pytest.raises(BadSignatureError, match="revoked since leaf 5"):
        authority.manifest_key(MANIFEST_SIGNER.keyid, 5)


def test_the_trust_file_has_the_last_word() -> None:
    """What it ends or revokes no leaf brings back, and what it names needs no leaf."""
    trust = msgspec.structs.replace(
        TRUST,
        manifest_keys=(
            TrustedManifestKey(key=MANIFEST_SIGNER.public.pem, since=0, until=8),
            TrustedManifestKey(key=OTHER.public.pem, since=8),
        ),
        revoked=(
            RevokedKey(keyid=Sha256(KEYID), since=6),
            RevokedKey(keyid=Sha256(MANIFEST_SIGNER.keyid), since=7),
        ),
    )
    authority = Authority(trust)
    authority.admit(4, KEY_AUTHORIZATION)
    authority.admit(5, of_manifest_key())
    authority.admit(9, ending(since=None))

    assert authority.receipt_key(KEYID, 5).keyid == KEYID
    with pytest.raises(BadSignatureError, match="revoked since leaf 6"):
        authority.receipt_key(KEYID, 6)
    with pytest.raises(BadSignatureError, match="revoked since leaf 7"):
        authority.manifest_key(MANIFEST_SIGNER.keyid, 7)
    with pytest.raises(BadSignatureError, match="not authorised before leaf 7"):
        authority.manifest_key(OTHER.keyid, 7)
    assert authority.manifest_key(OTHER.keyid, 8).keyid == OTHER.keyid


@pytest.mark.parametrize("predicate", EVERY, ids=lambda one: type(one).__name__)
def test_each_kind_has_one_role(predicate: Any) -> None:
    """A statement counts under the key of its role, named, and under no other."""
    authority = authorised(at=0)
    right = signer_of(predicate)
    wrong = MANIFEST_SIGNER if right is RECEIPT_SIGNER else RECEIPT_SIGNER
    leaf = write_statement(predicate, (), right)
    payload = open_envelope(leaf).payload

    assert authority.signer_of(open_envelope(leaf), predicate, 5).keyid == right.keyid
    for forged in (seal_statement(payload, wrong), seal_unnamed(payload, right)):
        with pytest.raises(BadSignatureError):
            authority.signer_of(open_envelope(forged), predicate, 5)


def test_a_manifest_does_not_name_its_key() -> None:
    """It counts under whichever manifest key signed it and might, and under no other."""
    authority = authorised(at=0)
    authority.admit(3, of_manifest_key())
    payload = open_envelope(write_manifest(a_manifest(), MANIFEST_SIGNER)[1]).payload
    statement = read_leaf(seal_unnamed(payload, MANIFEST_SIGNER))
    for signer, index, counts in (
        (MANIFEST_SIGNER, 0, True),
        (OTHER, 4, True),
        (OTHER, 3, False),
        (P256Signer(generate_pem("p256")), 9, False),
        (RECEIPT_SIGNER, 9, False),
    ):
        envelope = open_envelope(seal_unnamed(payload, signer))
        if counts:
            assert authority.signer_of(envelope, statement, index).keyid == signer.keyid
        else:
            with pytest.raises(BadSignatureError):
                authority.signer_of(envelope, statement, index)
    named = open_envelope(seal_statement(payload, MANIFEST_SIGNER))
    with pytest.raises(BadSignatureError, match="does not name its key"):
        authority.signer_of(named, statement, 9)


def test_a_stranger_s_signature_under_a_known_key_s_id_is_nothing() -> None:
    """The id names the key; the signature must be by it."""
    payload = open_envelope(write_statement(RECEIPT, SUBJECTS, RECEIPT_SIGNER)).payload
    forged = seal_statement(payload, Ed25519Signer(generate_pem("ed25519")))
    stranger = open_envelope(forged).signatures[0].keyid
    assert stranger is not None
    leaf = forged.replace(stranger.encode(), KEYID.encode())

    with pytest.raises(BadSignatureError, match="is bad"):
        authorised(at=0).signer_of(open_envelope(leaf), RECEIPT, 5)


def test_the_trust_file_follows_the_ledger() -> None:
    """Made anew from the ledger it names new manifest keys, thefts and predecessors, once."""
    authority = authorised(at=4)
    authority.admit(5, of_manifest_key())
    end = ending(keyid=Sha256(MANIFEST_SIGNER.keyid), role="manifest", since=None)
    authority.admit(6, msgspec.structs.replace(end, reason="superseded"))
    authority.admit(9, ending(since=7, reason="stolen"))
    succession = msgspec.structs.replace(
        LOG_SUCCESSION,
        predecessor=msgspec.structs.replace(LOG_SUCCESSION.predecessor, origin=TRUST.origin),
    )
    made = trust_after(TRUST, authority, [succession], ("w",), 1)
    again = trust_after(made, authority, [succession], ("w",), 1)
    stolen = msgspec.structs.replace(succession, reason="stolen")

    assert made == again
    assert [(one.since, one.until) for one in made.manifest_keys] == [(0, 6), (6, None)]
    assert [(one.keyid, one.since) for one in made.revoked] == [(KEYID, 7)]
    assert (made.origin, made.witnesses, made.quorum) == ("log.example/two", ("w",), 1)
    assert [(one.origin, one.size, one.trusted) for one in made.predecessors] == [
        (TRUST.origin, 7, True)
    ]
    (worthless,) = trust_after(TRUST, authority, [stolen], (), 0).predecessors
    assert not worthless.trusted


def test_an_unknown_key_signs_nothing() -> None:
    """A key that nothing authorises is named, in either role."""
    for ask in (authorised().receipt_key, authorised().manifest_key):
        with pytest.raises(BadSignatureError, match="not authorised before leaf 9"):
            ask("ab" * 32, 9)

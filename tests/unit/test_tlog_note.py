"""Laws of signed notes."""

from __future__ import annotations

from itertools import count

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.errors import BadProofError, BadSignatureError
from gateway.limits import NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX
from gateway.receipt.keys import LogSigner, generate_pem
from gateway.tlog.note import (
    NoteVerifier,
    check_name,
    format_vkey,
    open_note,
    parse_note,
    parse_vkey,
    sign_note,
)

TEXT = "example/log\n3\nhash\n"
SIGNER = LogSigner(generate_pem("ed25519"), "example/log")
WITNESS = LogSigner(generate_pem("ed25519"), "witness/w1")
VERIFIER = parse_vkey(SIGNER.vkey)
NOTE = sign_note(TEXT, [SIGNER])


def test_a_signed_note_gives_its_text() -> None:
    """A note opens to the text that was signed."""
    assert open_note(NOTE, [VERIFIER]) == TEXT


def test_a_text_may_hold_empty_lines() -> None:
    """The last empty line parts text from signatures."""
    text = "one\n\n\ntwo\n\n"

    assert text == open_note(sign_note(text, [SIGNER]), [VERIFIER])


def test_strangers_signatures_are_carried() -> None:
    """A signature by a key that was not asked for changes nothing."""
    both = sign_note(TEXT, [WITNESS, SIGNER])

    assert open_note(both, [VERIFIER]) == TEXT
    assert len(parse_note(both)[1]) == 2


def test_everyone_who_was_asked_for_must_have_signed() -> None:
    """One missing signature among those asked for closes the note."""
    asked = [VERIFIER, parse_vkey(WITNESS.vkey)]

    assert open_note(sign_note(TEXT, [SIGNER, WITNESS]), asked) == TEXT
    with pytest.raises(BadSignatureError):
        open_note(NOTE, asked)


def test_nobody_asked_is_nobody_trusted() -> None:
    """A note opened without any key is not vacuously good."""
    with pytest.raises(BadSignatureError):
        open_note(NOTE, [])


def test_a_bad_second_signature_closes_the_note() -> None:
    """A key's good signature does not outweigh its bad one."""
    bad = NOTE + sign_note("another\n", [SIGNER]).split("\n\n")[1]

    with pytest.raises(BadSignatureError):
        open_note(bad, [VERIFIER])


def test_another_key_of_the_same_name_is_a_stranger() -> None:
    """Names don't make a key: the key id must match too."""
    impostor = LogSigner(generate_pem("ed25519"), "example/log")

    with pytest.raises(BadSignatureError):
        open_note(sign_note(TEXT, [impostor]), [VERIFIER])


@pytest.mark.parametrize(
    "note",
    [
        "",
        TEXT,
        TEXT + "\n",
        NOTE[:-1],
        NOTE + "\n",
        NOTE.replace("— ", "- "),
        NOTE.replace("— ", "—  "),
        NOTE + "— name\n",
        NOTE + "— name AAAA\n",
        NOTE + "— name AAAAA\n",
        NOTE + "— na+me AAAAAAA=\n",
        "te\rxt\n\n" + NOTE.split("\n\n")[1],
        "te\ud800xt\n\n" + NOTE.split("\n\n")[1],
        NOTE + "— w AAAAAAA=\n" * NOTE_SIGNATURES_MAX,
        "a" * NOTE_BYTES_MAX + NOTE,
    ],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    """A note that departs from its one form is malformed."""
    with pytest.raises(BadProofError):
        open_note(note, [VERIFIER])


@pytest.mark.parametrize("text", ["no newline", "tab\t\n", "\x7f\n", "\ud800\n"])
def test_a_text_that_no_note_holds_is_not_signed(text: str) -> None:
    """What could not be opened again is not signed."""
    with pytest.raises(BadProofError):
        sign_note(text, [SIGNER])


def test_a_vkey_tells_its_key() -> None:
    """A verifier key is read back with its name and key id."""
    raw = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    read = parse_vkey(format_vkey("log", raw))

    assert ("log", NoteVerifier("log", raw).key_id) == (read.name, read.key_id)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "log",
        "log+00000000",
        SIGNER.vkey.replace("example/log", "example/other"),
        SIGNER.vkey + "=",
        SIGNER.vkey.upper(),
        "log+00000000+AA==",
        "log+00000000+AQ==",
        "log+00000000+" + SIGNER.vkey.rsplit("+", 1)[1],
        "+00000000+" + SIGNER.vkey.rsplit("+", 1)[1],
    ],
    ids=map(str, count()),
)
def test_what_is_no_vkey_is_refused(vkey: str) -> None:
    """A verifier key that departs from its one form is malformed."""
    with pytest.raises(BadProofError):
        parse_vkey(vkey)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\u200bb", "\n", "a" * 201])
def test_a_name_has_no_blanks(name: str) -> None:
    """A key's name is short and holds nothing that a note line could be cut at."""
    with pytest.raises(BadProofError):
        check_name(name)


def test_a_verifier_needs_a_whole_key() -> None:
    """A key of another length is none."""
    with pytest.raises(BadProofError, match="32 bytes"):
        NoteVerifier("example/log", b"short")

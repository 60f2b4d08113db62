"""Laws of cosignatures."""

from __future__ import annotations

import pytest

from gateway.errors import BadProofError, BadSignatureError
from gateway.receipt.keys import LogSigner, WitnessSigner, generate_pem
from gateway.tlog.cosignature import (
    Cosigned,
    add_cosignatures,
    check_quorum,
    cosign,
    cosigned_by,
    cosigned_bytes,
    format_cosignature_vkey,
    parse_cosignature_vkey,
)
from gateway.tlog.note import (
    format_signature,
    format_vkey,
    open_note,
    parse_note,
    parse_vkey,
    sign_note,
)

TEXT = "example/log\n3\nhash\n"
LOG = LogSigner(generate_pem("ed25519"), "example/log")
ONE, TWO = (WitnessSigner(generate_pem("ed25519"), f"witness.example/w{n}") for n in (1, 2))
WITNESSES = [parse_cosignature_vkey(one.vkey) for one in (ONE, TWO)]
NOTE = sign_note(TEXT, [LOG])
# Made by another implementation over a checkpoint of 700 leaves.
FOREIGN_VKEY = "witness.example/w1+6b02e6d8+BPC5j668WFMxHclbQaY8/AIy4DNtM/iyAQUUnm+EC06e"
FOREIGN_NOTE = """receipts.gw.example.com/acme/2026h2
700
vi4IBVXD458G/g5VyVriGcUyWkwr+dQv5RxkvHB9KD0=

— receipts.gw.example.com/acme/2026h2 BWYJadK5dI4DEfTIVb859QJbTCBt6+7VlA0Mjm095/gDJyZyUixL4\
ibJP0kWt+zQ8qeFMm2Kh60p2T+g81iIbMXY/QQ=
— witness.example/w1 awLm2AAAAABrAnEtCOC9rW0H9ODtJ54KN9bDmunuwbhlb9a3oVkoOemh61yLTM3DxDjnor\
WszkfUoXOmoNZ9cqjtiVVsRczZ33omDg==
"""


def cosigned(note: str = NOTE, at: int = 1_800_000_000) -> str:
    """Return *note* with the cosignatures of both witnesses."""
    return add_cosignatures(note, [cosign(TEXT, one, at) for one in (ONE, TWO)])


def test_a_cosigned_note_names_its_witnesses() -> None:
    """Who cosigned is told in the order asked for, with the time that was signed."""
    note = cosigned()

    assert cosigned_by(note, WITNESSES) == tuple(
        Cosigned(one.name, 1_800_000_000) for one in (ONE, TWO)
    )
    assert open_note(note, [parse_vkey(LOG.vkey)]) == TEXT


def test_another_implementations_cosignature_verifies() -> None:
    """What a witness that is not ours signed is taken."""
    witness = parse_cosignature_vkey(FOREIGN_VKEY)

    assert cosigned_by(FOREIGN_NOTE, [witness]) == (
        Cosigned("witness.example/w1", 1_795_322_157),
    )
    assert witness.vkey == FOREIGN_VKEY


def test_a_quorum_counts_trusted_witnesses_only() -> None:
    """A stranger's cosignature, and one witness twice, do not make a quorum."""
    stranger = WitnessSigner(generate_pem("ed25519"), ONE.name)
    lines = [cosign(TEXT, ONE, 1), cosign(TEXT, ONE, 2), cosign(TEXT, stranger, 3)]
    note = add_cosignatures(NOTE, lines)

    assert check_quorum(note, WITNESSES, 1) == (Cosigned(ONE.name, 2),)
    assert check_quorum(NOTE, WITNESSES, 0) == ()
    with pytest.raises(BadSignatureError, match="cosigned by 1 of"):
        check_quorum(note, WITNESSES, 2)


def test_a_bad_cosignature_of_a_trusted_witness_closes_the_note() -> None:
    """A line that claims to be a trusted witness's and is not is never passed over."""
    other = cosign("example/log\n4\nhash\n", ONE, 1)
    short = format_signature(ONE.name, ONE.key_id + b"\0" * 64)
    beyond = format_signature(ONE.name, ONE.key_id + b"\xff" * 72)
    for line in (other, short, beyond):
        with pytest.raises(BadSignatureError):
            check_quorum(add_cosignatures(NOTE, [line, cosign(TEXT, TWO, 1)]), WITNESSES, 1)


def test_the_time_is_signed() -> None:
    """A cosignature can't be moved to another time."""
    _, signatures = parse_note(add_cosignatures(NOTE, [cosign(TEXT, ONE, 7)]))
    name, signature = signatures[-1]
    moved = signature[:4] + (8).to_bytes(8, "big") + signature[12:]

    with pytest.raises(BadSignatureError):
        cosigned_by(NOTE + format_signature(name, moved), WITNESSES)


def test_a_log_key_is_no_witness_key() -> None:
    """The types of keys are told apart, both ways."""
    with pytest.raises(BadProofError, match="0x04"):
        parse_cosignature_vkey(LOG.vkey)
    with pytest.raises(BadProofError, match="0x01"):
        parse_vkey(ONE.vkey)
    raw = parse_cosignature_vkey(ONE.vkey).public_key_raw
    assert format_cosignature_vkey(ONE.name, raw) == ONE.vkey
    assert format_vkey(ONE.name, raw) != ONE.vkey
    # A log key's plain signature under a witness's name does not count.
    plain = sign_note(TEXT, [LOG, ONE])
    with pytest.raises(BadSignatureError):
        cosigned_by(plain, WITNESSES)


@pytest.mark.parametrize(
    "vkey", ["", "a+b", "w+00000000+AAAA", "w 1+6b02e6d8+" + "A" * 44, FOREIGN_VKEY + "A"]
)
def test_a_vkey_is_read_strictly(vkey: str) -> None:
    """A witness's key that is not written as it must be is refused."""
    with pytest.raises(BadProofError):
        parse_cosignature_vkey(vkey)


def test_only_signature_lines_join_a_note() -> None:
    """Nothing that changes a note's text is added to it, and a line is added once."""
    line = cosign(TEXT, ONE, 7)

    assert add_cosignatures(add_cosignatures(NOTE, [line]), [line, line]).count(line) == 1
    for bad in ("nonsense\n", line + "\n" + line, line[:-1], "\n" + line):
        with pytest.raises(BadProofError):
            add_cosignatures(NOTE, [bad])


@pytest.mark.parametrize("time", [-1, 2**63])
def test_times_are_bounded(time: int) -> None:
    """A time that a checkpoint can't have is not signed."""
    with pytest.raises(BadProofError):
        cosigned_bytes(TEXT, time)

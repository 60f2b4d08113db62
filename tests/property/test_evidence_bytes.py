"""Every parser of evidence, fed with anything: it gives a value or one of our own errors."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import FrozenClock
from gateway.dataset.manifest import parse_manifest, parse_training
from gateway.dataset.verification.keys import format_key_line, read_authority
from gateway.dataset.verification.rows import ReceiptLine, read_receipt_line
from gateway.errors import EvidenceError, OperatorError
from gateway.ident import Sha256
from gateway.ledger.custody.backup import FORMAT, MANIFEST, Backup, CopiedFile, read_backup
from gateway.ledger.publishing.cosigner import Cosigner, open_witness
from gateway.ledger.publishing.timestamp import verify_stamp
from gateway.ledger.sequencing.frames import Ask, Frames, frame
from gateway.receipt.envelope import open_envelope
from gateway.receipt.keys import WitnessSigner, format_trust, parse_public_pem, parse_trust
from gateway.receipt.model import TRAINING_BUILD
from gateway.receipt.statement import read_leaf, statement_subjects
from gateway.receipt.verify import verify_manifest
from gateway.tlog.checkpoint import Checkpoint, parse_checkpoint
from gateway.tlog.cosignature import check_quorum, parse_cosignature_vkey
from gateway.tlog.merkle import leaf_hash, root_of
from gateway.tlog.note import parse_note, parse_vkey
from gateway.tlog.tile import Tile, decode_entries, encode_entries, format_path, parse_path
from tests.faults.mutations import (
    KEY_LEAF,
    LEAVES,
    RECEIPT_LEAF,
    WITNESS,
    WITNESSED,
    cosigned_note,
    pieces,
)
from tests.support.dataset import House
from tests.support.evidence import LOG_SIGNER, MANIFEST_SIGNER, ORIGIN, TRUST, a_manifest

Parse = Callable[[bytes], Any]
ROOT = root_of([leaf_hash(KEY_LEAF)])
RECEIPT_LINE = msgspec.json.encode(
    ReceiptLine(
        choice=0,
        exchange="x-01JD0000000000000000000597",
        index=5,
        leaf="ab" * 32,
        row=0,
        salt="c2FsdA==",
        sha256="cd" * 32,
    )
)
BACKUP = msgspec.json.encode(
    Backup(
        format=FORMAT,
        made="2026-11-22T04:30:00.123Z",
        version="0.1.0",
        origin=ORIGIN,
        size=7,
        root=Sha256("ab" * 32),
        keys=False,
        files=tuple(
            CopiedFile(name=name, bytes=1, sha256=Sha256("ab" * 32))
            for name in ("ledger.db", "trust.json")
        ),
    )
)


def of_text(parse: Callable[[str], Any]) -> Parse:
    """Return what parses the text of bytes; bytes that are no text are no evidence."""

    def parse_text(encoded: bytes) -> Any:
        return parse(encoded.decode("utf-8", "surrogateescape"))

    return parse_text


def frames_of(encoded: bytes) -> list[tuple[int, int, bytes]]:
    """Return the frames in *encoded*, cut as they would arrive."""
    cutter = Frames()
    try:
        return [
            one for at in range(0, len(encoded), 7) for one in cutter.feed(encoded[at : at + 7])
        ]
    except ValueError:
        # A line that says what is no frame is cut off.
        return []


def of_json(parse: Callable[[dict[str, Any]], Any]) -> Parse:
    """Return what parses a statement that was read before."""

    def parse_object(encoded: bytes) -> Any:
        try:
            said = json.loads(encoded)
        except (ValueError, RecursionError):
            return None
        return parse(said) if isinstance(said, dict) else None

    return parse_object


PARSERS: dict[str, tuple[Parse, bytes]] = {
    **{piece.name: (piece.verify, piece.encoded) for piece in pieces()},
    "envelope": (open_envelope, RECEIPT_LEAF),
    "leaf": (read_leaf, RECEIPT_LEAF),
    "subjects": (statement_subjects, RECEIPT_LEAF),
    "trust": (parse_trust, format_trust(WITNESSED)),
    "public-key": (of_text(parse_public_pem), MANIFEST_SIGNER.public.pem.encode()),
    "checkpoint": (of_text(parse_checkpoint), parse_note(cosigned_note().decode())[0].encode()),
    "any-note": (of_text(parse_note), cosigned_note()),
    "log-vkey": (of_text(parse_vkey), LOG_SIGNER.vkey.encode()),
    "witness-vkey": (of_text(parse_cosignature_vkey), WITNESS.vkey.encode()),
    "quorum": (
        of_text(
            lambda note: check_quorum(note, [parse_cosignature_vkey(WITNESS.vkey)], quorum=1)
        ),
        cosigned_note(),
    ),
    "tile-path": (of_text(parse_path), format_path(Tile(0, 1234567, 17)).encode()),
    "entries": (decode_entries, encode_entries(LEAVES)),
    "key-lines": (
        lambda encoded: read_authority(io.BytesIO(encoded), Checkpoint(ORIGIN, 1, ROOT), TRUST),
        format_key_line(0, KEY_LEAF, ()) + b"\n",
    ),
    "receipt-line": (
        lambda encoded: read_receipt_line(io.BytesIO(encoded), 0),
        RECEIPT_LINE + b"\n",
    ),
    "dataset-manifest": (of_json(parse_manifest), json.dumps(a_manifest()).encode()),
    "training-manifest": (of_json(parse_training), json.dumps(a_manifest()).encode()),
    "timestamp": (lambda encoded: verify_stamp(encoded, b"note", []), b"\x30\x03\x02\x01\x00"),
    "frames": (frames_of, frame(Ask.APPEND, 1, RECEIPT_LEAF)),
}
"""Each parser, and something that it reads or nearly does."""

ODD = [b"", b"\n", b"\n\n", b'"', b"{", b"[", b"\\u0000", b"\\ud800", b"null", b"-1", b"1e999"]
ODD += [b"0", b"9" * 40, b"\x00", b"\xff", "—".encode(), "٣".encode(), b"=", b"{}" * 40]
TOKENS = st.sampled_from(ODD)


@st.composite
def near(draw: st.DrawFn, seed: bytes) -> bytes:
    """Return *seed* with some pieces cut out, put in twice, or replaced by something odd."""
    made = seed
    for _ in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, len(made)))
        stop = draw(st.integers(first, min(len(made), first + 40)))
        put = draw(st.one_of(TOKENS, st.binary(max_size=8), st.just(made[first:stop] * 2)))
        made = made[:first] + put + made[stop:]
    return made


def fed(parse: Parse, encoded: bytes) -> None:
    """Check that *parse* gives a value or one line of our own."""
    try:
        parse(encoded)
    except (EvidenceError, OperatorError, UnicodeDecodeError) as bad:
        line = str(bad)
    else:
        return
    assert "\n" not in line


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
def test_any_bytes_are_a_value_or_an_error(name: str, data: st.DataObject) -> None:
    """Whatever is fed to a parser, it returns a value or raises one line of our own."""
    parse, seed = PARSERS[name]
    fed(parse, data.draw(st.one_of(near(seed), st.binary(max_size=60))))


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cosigner]:
    """Return a witness of the test's log."""
    folder = tmp_path_factory.mktemp("witness")
    signer: WitnessSigner = open_witness(folder / "key", folder / "state", "witness.example/w2")
    cosigner = Cosigner(folder / "state", signer, [parse_vkey(LOG_SIGNER.vkey)], FrozenClock())
    yield cosigner
    cosigner.close()


@given(data=st.data())
def test_a_witness_answers_anything(witness: Cosigner, data: st.DataObject) -> None:
    """Whatever is posted to a witness, it answers, and cosigns nothing that it can't check."""
    seed = next(piece.encoded for piece in pieces() if piece.name == "growth")
    reply = witness.answer(data.draw(st.one_of(near(seed), st.binary(max_size=60))))

    assert reply.status in {400, 403, 404, 409, 422}


@given(data=st.data())
def test_any_backup_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever a backup says of itself is read, or refused in one line."""
    folder = tmp_path_factory.mktemp("backup")
    (folder / MANIFEST).write_bytes(data.draw(near(BACKUP)))
    fed(lambda _: read_backup(folder), b"")


# -- statements with something else where something was ------------------------------------

OTHERS: list[Any] = [None, True, 0, -1, 1.5, "", "x", [], [None], {}, {"x": None}]


def shaken(value: Any) -> Iterator[Any]:
    """Yield *value* with each thing in it replaced by each of the others, or left out."""
    yield from OTHERS
    if isinstance(value, dict):
        for key, inner in value.items():
            rest = {other: kept for other, kept in value.items() if other != key}
            yield rest
            yield from (rest | {key: one} for one in shaken(inner))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield value[:at] + value[at + 1 :]
            yield from ([*value[:at], one, *value[at + 1 :]] for one in shaken(inner))


@pytest.fixture(scope="module")
def statement(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the statement of a dataset manifest that was built."""
    house = House(tmp_path_factory.mktemp("house") / "house")
    declaration = house.declare()
    house.answer(declaration, "one", "two")
    folder = house.build(declaration).folder
    house.close()
    return verify_manifest((folder / "manifest.json").read_bytes(), TRUST)[0]


@pytest.mark.parametrize(
    "parse",
    [
        parse_manifest,
        parse_training,
    ],
)
def test_any_statement_is_a_manifest_or_an_error(
    statement: dict[str, Any], parse: Callable[[dict[str, Any]], Any]
) -> None:
    """Whatever stands in place of something in a manifest, it is read or refused."""
    if parse is parse_training:
        build = statement["predicate"]["buildDefinition"]
        build = build | {"buildType": TRAINING_BUILD, "externalParameters": {"student": "s"}}
        statement = statement | {
            "predicate": statement["predicate"] | {"buildDefinition": build}
        }
    parse(statement)

    for other in shaken(statement):
        if isinstance(other, dict):
            fed(lambda _, other=other: parse(other), b"")  # type: ignore[misc]


@pytest.mark.parametrize("name", ["trust", "receipt-line", "key-lines", "backup"])
def test_any_shape_is_a_value_or_an_error(name: str, tmp_path: Path) -> None:
    """Whatever stands in place of something in a file of ours, it is read or refused."""

    def parse_backup(encoded: bytes) -> Any:
        (tmp_path / MANIFEST).write_bytes(encoded)
        return read_backup(tmp_path)

    parse, seed = (parse_backup, BACKUP) if name == "backup" else PARSERS[name]
    for other in shaken(json.loads(seed)):
        fed(parse, json.dumps(other, separators=(",", ":")).encode() + b"\n")

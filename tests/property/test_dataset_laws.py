"""Laws of datasets for folders, statements and histories that nobody thought of."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dataset.card import card_of
from gateway.dataset.manifest import (
    DatasetManifest,
    Findings,
    Parameters,
    Teacher,
    parse_manifest,
    parse_training,
    statement_of,
)
from gateway.dataset.provenance import Metadata
from gateway.dataset.standing import Standing, standing_of
from gateway.dataset.verification.verify import verify_dataset
from gateway.errors import EvidenceError, MalformedReceiptError
from gateway.ident import DeclarationId, Sha256
from gateway.intent.model import IntendedUse
from gateway.receipt.model import DATASET_BUILD, PROVENANCE_TYPE, Verdict, Withdrawal, Writer
from tests.support.dataset import House
from tests.support.derived import build, derive, messages, parent
from tests.support.evidence import RECEIPT, TRUST

BYTES_STEP = int(os.environ.get("BYTES_STEP", "13"))
"""Every such byte is changed, from another first one each time; `make faults` changes all."""

WRITER = Writer(instance="test", version="0")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


@pytest.fixture(scope="module", params=["answers", "derived"])
def standing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Return a dataset folder that verifies: of three answers, or of rows made of them."""
    house = House(tmp_path_factory.mktemp("laws") / "house")
    declaration = house.declare()
    first = house.answer(declaration)
    second = house.answer(declaration, "one", "two")
    house.answer(declaration, provider="closed")
    if request.param == "answers":
        yield house.build(declaration).folder
    else:
        made = [
            (messages("what is first?", "this"), [parent(house, first)]),
            (messages("something else", "that"), [parent(house, second, choice=1)]),
            (messages("and what is the third of them", "it"), [parent(house, first)]),
        ]
        derive(house, declaration, made)
        yield build(house, declaration, of="rewrite", held_out="0.4").folder
    house.close()


@given(data=st.data(), at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_any_flipped_bit_is_found(
    standing: Path, data: st.DataObject, at: float, bit: int
) -> None:
    """Whichever bit of whichever file is flipped, the dataset no longer verifies."""
    path = data.draw(st.sampled_from([one for one in files_of(standing) if one.stat().st_size]))
    whole = path.read_bytes()

    assert is_refused(standing, path, flipped(whole, int(at * len(whole)), bit))


@given(data=st.data(), at=st.floats(0, 1, exclude_max=True), more=st.binary(max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_cut_and_any_addition_is_found(
    standing: Path, data: st.DataObject, at: float, more: bytes
) -> None:
    """Whatever is cut off a file, put into it or put in its place, it no longer verifies."""
    path = data.draw(st.sampled_from(files_of(standing)))
    whole = path.read_bytes()
    place = int(at * len(whole))

    for bent in (whole[:place], whole[:place] + more + whole[place:], more):
        assert bent == whole or is_refused(standing, path, bent)


@pytest.mark.crash
def test_every_byte_of_a_dataset_counts(standing: Path) -> None:
    """No byte of any file can be another one, and what is refused is named by file."""
    first = random.randrange(BYTES_STEP)
    for path in files_of(standing):
        # One byte is changed where it stands: a file that is cut and written anew, as a whole,
        # waits for the disk twice for each of them.
        with path.open("r+b", buffering=0) as file:
            whole = file.read()
            for place, byte in list(enumerate(whole))[first::BYTES_STEP]:
                os.pwrite(file.fileno(), bytes([byte ^ 1 << place % 8]), place)
                refused = is_refused_now(standing)
                os.pwrite(file.fileno(), bytes([byte]), place)
                assert refused, f"{path.name}: byte {place}"
            assert path.read_bytes() == whole


def files_of(folder: Path) -> list[Path]:
    """Return every file of a dataset folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flipped(whole: bytes, place: int, bit: int) -> bytes:
    """Return *whole* with one bit the other way."""
    bent = bytearray(whole)
    bent[place] ^= 1 << bit
    return bytes(bent)


def is_refused(folder: Path, path: Path, bent: bytes) -> bool:
    """Tell whether the dataset is refused, by a file's name, with *bent* in place of *path*."""
    whole = path.read_bytes()
    path.write_bytes(bent)
    try:
        return is_refused_now(folder)
    finally:
        path.write_bytes(whole)


def is_refused_now(folder: Path) -> bool:
    """Tell whether the dataset as it stands is refused, by a file's name."""
    try:
        verify_dataset(folder, TRUST)
    except EvidenceError as refused:
        return any(
            file.relative_to(folder).as_posix() in str(refused) for file in files_of(folder)
        )
    return False


@given(json_values)
def test_any_value_is_a_manifest_or_refused(value: Any) -> None:
    """Reading a manifest gives a manifest or its own error, whatever it is fed."""
    statement = {
        "predicateType": PROVENANCE_TYPE,
        "subject": value,
        "predicate": {
            "buildDefinition": {
                "buildType": DATASET_BUILD,
                "externalParameters": value,
                "internalParameters": value,
                "resolvedDependencies": value,
            },
            "runDetails": value,
        },
    }
    for parse in (parse_manifest, parse_training):
        for said in (statement, value if isinstance(value, dict) else {}):
            with pytest.raises(MalformedReceiptError):
                parse(said)


words = st.text(max_size=20)
teachers = st.builds(
    Teacher,
    provider=words,
    model=st.none() | words,
    reported=st.lists(words, max_size=2).map(tuple),
    operation=st.just("chat"),
    rows=st.integers(0, 9),
    receipts=st.integers(0, 9),
    days=st.just(("2026-11-22",)),
    effect=st.sampled_from(("permit", "hold")),
    obligations=st.lists(words, max_size=2).map(tuple),
)
manifests = st.builds(
    DatasetManifest,
    asked=st.builds(
        Parameters,
        dataset=words,
        declaration=st.just(DeclarationId("use-0123456789abcdef0123")),
        project=words,
        filters=st.dictionaries(words, words, max_size=2),
    ),
    found=st.builds(
        Findings,
        rows=st.integers(0, 10**9),
        teachers=st.lists(teachers, max_size=3).map(tuple),
        use=st.builds(IntendedUse, purpose=words, competes=st.none() | st.booleans()),
        day=st.just("2026-11-22"),
        library=st.just(Sha256("a" * 64)),
        obligations=st.lists(
            words | words.map("attribute={}".format), max_size=2, unique=True
        ).map(tuple),
    ),
    dependencies=st.just(()),
    subjects=st.just(()),
    metadata=st.builds(Metadata, invocation_id=words, started_on=words, finished_on=words),
    version=words,
)


@given(manifests)
def test_what_is_written_is_read_back(manifest: DatasetManifest) -> None:
    """A manifest survives being written as a statement and read again."""
    statement = msgspec.json.decode(msgspec.json.encode(statement_of(manifest)))

    assert manifest == parse_manifest(statement)


@given(manifests)
def test_a_card_says_nothing_in_markup_of_others(manifest: DatasetManifest) -> None:
    """Words of others in a card are text: no HTML, no line of their own."""
    card = card_of(manifest)

    assert card == card_of(manifest)
    body = card.split("---\n", 2)[2]
    assert "<" not in body.replace("\\<", "")


histories = st.lists(
    st.sampled_from(
        [
            Verdict(approved=yes, by="g", reason="r", at="", writer=WRITER, **about)
            for yes in (True, False)
            for about in (
                {"exchange": RECEIPT.exchange},
                {"declaration": DeclarationId("use-0123456789abcdef0123")},
            )
        ]
        + [Withdrawal(by="g", reason="r", at="", writer=WRITER, exchange=RECEIPT.exchange)]
    ),
    max_size=6,
)


@given(histories, histories)
def test_a_withdrawal_is_the_last_word(
    before: list[Verdict | Withdrawal], after: list[Verdict | Withdrawal]
) -> None:
    """Whatever was said before or is said after, withdrawn stays withdrawn."""
    gone = Withdrawal(by="g", reason="r", at="", writer=WRITER, exchange=RECEIPT.exchange)
    receipt = msgspec.structs.replace(
        RECEIPT, ruling=msgspec.structs.replace(RECEIPT.ruling, effect="permit")
    )

    assert Standing.WITHDRAWN is standing_of(receipt, [*before, gone, *after])

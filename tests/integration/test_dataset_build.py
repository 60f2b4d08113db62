"""A dataset is built from a ledger, verifies offline, and nothing can be changed unseen."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.canonical import canonical_json, sha256_hex
from gateway.dataset.assembly.build import Built, Order, build_dataset
from gateway.dataset.verification.verify import iterate_rows, verified_rows, verify_dataset
from gateway.errors import (
    CheckInterruptedError,
    EvidenceError,
    GateRefusedError,
    LedgerUnwellError,
    OperatorError,
)
from gateway.ident import Sha256
from gateway.receipt.keys import Ed25519Signer, P256Signer, generate_pem
from gateway.receipt.model import Manifest, Members
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import read_leaf, write_statement
from gateway.receipt.verify import verify_manifest
from gateway.tlog.proof import format_proof
from gateway.tlog.tile import Tile
from tests.support.dataset import House
from tests.support.evidence import KEY_AUTHORIZATION, MANIFEST_SIGNER, RECEIPT_SIGNER, TRUST
from tests.support.history import Believing, History


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Return a house with an empty ledger."""
    house = House(tmp_path / "house")
    yield house
    house.close()


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return the house that the standing dataset was built in."""
    house = House(tmp_path_factory.mktemp("standing") / "house")
    yield house
    house.close()


@pytest.fixture(scope="module")
def standing(built_in: House) -> Path:
    """Return a dataset folder of five rows that verifies, to be copied before it is changed."""
    declaration = built_in.declare()
    for _ in range(3):
        built_in.answer(declaration)
    built_in.answer(declaration, "one", "two")
    built_in.answer(declaration, provider="closed")
    return built_in.build(declaration).folder


@pytest.fixture
def folder(standing: Path, tmp_path: Path) -> Path:
    """Return a copy of the standing dataset, to be changed."""
    return Path(shutil.copytree(standing, tmp_path / "set"))


def test_a_dataset_that_was_built_verifies(house: House) -> None:
    """What the gate lets pass becomes a folder that anyone with the trust file can check."""
    declaration = house.declare()
    for _ in range(5):
        house.answer(declaration)
    house.answer(declaration, "one", "two")

    built = house.build(declaration)
    verified = verify_dataset(built.folder, TRUST)

    assert (7, 6) == (verified.rows, verified.receipts)
    assert built.manifest_sha256 == verified.manifest_sha256
    assert ("open", 7) == (verified.teachers[0].provider, verified.teachers[0].rows)
    assert 42 == verified.teachers[0].input_tokens


def test_the_manifest_is_a_leaf_of_the_ledger(house: House) -> None:
    """A dataset that stands has its manifest in the ledger, signed as in the folder."""
    declaration = house.declare()
    house.answer(declaration)

    built = house.build(declaration)

    assert built.index is not None
    (leaf,) = house.ledger.leaves(built.index, built.index + 1)
    statement = read_leaf(leaf)
    assert isinstance(statement, Manifest)
    assert built.manifest_sha256 == statement.payload_sha256


def test_rows_come_out_in_order_with_their_conversations(standing: Path) -> None:
    """Whoever reads rows gets the bytes that were checked, and the answer last."""
    checked = list(verified_rows(standing, TRUST))

    assert [row.line for row in checked] == [row.line for row in iterate_rows(standing)]
    assert [0, 1, 2, 3, 4] == [row.number for row in checked]
    assert "two" == checked[-1].messages[-1]["content"]


def test_each_check_is_told(standing: Path) -> None:
    """Whoever asks hears what was checked, in order."""
    told: list[str] = []
    verify_dataset(standing, TRUST, lambda check, found: told.append(check))

    assert ["signature", "logged", "files", "rows", "receipts", "inclusion"] == told


def edited(name: str, line: int, old: bytes, new: bytes) -> Callable[[Path], None]:
    """Return a change of one line of a file."""

    def change(folder: Path) -> None:
        lines = (folder / name).read_bytes().split(b"\n")
        assert old in lines[line]
        lines[line] = lines[line].replace(old, new, 1)
        (folder / name).write_bytes(b"\n".join(lines))

    return change


def swapped(name: str, first: int, second: int) -> Callable[[Path], None]:
    """Return a change that swaps two lines of a file."""

    def change(folder: Path) -> None:
        lines = (folder / name).read_bytes().split(b"\n")
        lines[first], lines[second] = lines[second], lines[first]
        (folder / name).write_bytes(b"\n".join(lines))

    return change


def dropped(name: str, line: int) -> Callable[[Path], None]:
    """Return a change that takes one line out of a file."""

    def change(folder: Path) -> None:
        lines = (folder / name).read_bytes().split(b"\n")
        del lines[line]
        (folder / name).write_bytes(b"\n".join(lines))

    return change


def added(name: str, content: bytes) -> Callable[[Path], None]:
    """Return a change that adds to a file, or makes one."""

    def change(folder: Path) -> None:
        path = folder / name
        path.write_bytes((path.read_bytes() if path.exists() else b"") + content)

    return change


def removed(name: str) -> Callable[[Path], None]:
    """Return a change that removes a file."""
    return lambda folder: (folder / name).unlink()


def bent(name: str, at: int) -> Callable[[Path], None]:
    """Return a change of one bit of a file."""

    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[at] ^= 1
        (folder / name).write_bytes(content)

    return change


def without_leaf(folder: Path) -> None:
    """Take the first receipt out of the leaves."""
    path = folder / "evidence/leaves"
    content = path.read_bytes()
    path.write_bytes(content[2 + int.from_bytes(content[:2], "big") :])


def linked(folder: Path) -> None:
    """Put a link where a file should be."""
    (folder / "README.md").rename(folder.parent / "elsewhere.md")
    (folder / "README.md").symlink_to(folder.parent / "elsewhere.md")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (edited("rows.jsonl", 1, b"say", b"sax"), "rows.jsonl: row 1: it was changed"),
        (swapped("rows.jsonl", 0, 2), "rows.jsonl: row 0: it was changed"),
        (dropped("rows.jsonl", 2), "rows.jsonl: row 2: it was changed"),
        (dropped("rows.jsonl", 4), "rows.jsonl: row 4: the line is missing"),
        (added("rows.jsonl", b"{}\n"), "rows.jsonl: after row 4, byte 485: what follows"),
        (added("receipts.jsonl", b"{}\n"), "receipts.jsonl: after row 4, byte 1325: what"),
        (lambda f: os.truncate(f / "rows.jsonl", 484), "rows.jsonl: line 5: it has no end"),
        (edited("receipts.jsonl", 1, b'"row":1', b'"row":9'), "receipts.jsonl: row 1: found"),
        (edited("receipts.jsonl", 1, b'"salt":"', b'"salt":"00'), "rows.jsonl: row 1: receipt"),
        (edited("receipts.jsonl", 1, b'"salt":"', b'"salt":"zz'), "row 1: the salt is not hex"),
        (edited("receipts.jsonl", 3, b'"choice":0', b'"choice":7'), "row 3: receipt x-"),
        (edited("receipts.jsonl", 3, b'"choice":0', b'"choice":1'), "rows.jsonl: row 3: rec"),
        (edited("receipts.jsonl", 2, b"x-", b"x-0"), "receipts.jsonl: row 2: names exchange"),
        (edited("receipts.jsonl", 2, b'"index":4', b'"index":1'), "row 2: out of order"),
        (swapped("receipts.jsonl", 3, 4), "receipts.jsonl: row 3: found row 4"),
        (dropped("receipts.jsonl", 0), "receipts.jsonl: row 0: found row 1"),
        (
            edited("receipts.jsonl", 1, b'"salt":"', b'"salt":" '),
            "row 1: the salt is not plain",
        ),
        (
            edited("receipts.jsonl", 1, b'"leaf":"', b'"leaf":"0'),
            "row 1: its receipt is another",
        ),
        (edited("receipts.jsonl", 1, b'"row":1', b'"row": 1'), "row 1: not written in the can"),
        (edited("receipts.jsonl", 1, b'"row":1', b'"row":x'), "row 1: can't be read"),
        (
            bent("evidence/leaves", 3000),
            "evidence/leaves: leaf 3 (of row 1): it is not the one",
        ),
        (bent("evidence/leaves", 1), "evidence/leaves: leaf 2 (of row 0): it is not the one"),
        (without_leaf, "evidence/leaves: leaf 2 (of row 0): it is not the one under"),
        (added("evidence/leaves", b"\0"), "evidence/leaves: after row 4, byte "),
        (lambda f: os.truncate(f / "evidence/leaves", 9), "leaf 2 (of row 0): the file ends"),
        (bent("evidence/tiles/0", 40), "evidence/tiles/0 and those above: their ends don't"),
        (lambda f: os.truncate(f / "evidence/tiles/0", 9), "evidence/tiles/0: it is too short"),
        (added("evidence/tiles/0", bytes(32)), "evidence/tiles/0 and those above"),
        (added("evidence/tiles/1", bytes(32)), "evidence/tiles/1: the manifest names no such"),
        (added("evidence/spans.jsonl", b"{}\n"), "evidence/spans.jsonl: the file was changed"),
        (added("evidence/keys.jsonl", b"{}\n"), "evidence/keys.jsonl: the file was changed"),
        (bent("manifest.tlog-proof", 30), "manifest.tlog-proof: "),
        (bent("manifest.tlog-proof", 60), "manifest.tlog-proof: "),
        (removed("manifest.tlog-proof"), "nothing shows that the manifest is in the log"),
        (edited("evidence/checkpoint", 1, b"7", b"8"), "evidence/checkpoint: "),
        (added("evidence/checkpoint", b"more\n"), "evidence/checkpoint: "),
        (added("README.md", b"It is free to use.\n"), "README.md: the file was changed"),
        (
            edited("policies.json", 0, b"permit", b"forbid"),
            "policies.json: the file was changed",
        ),
        (dropped("left-out.jsonl", 0), "left-out.jsonl: the file was changed"),
        (removed("left-out.jsonl"), "left-out.jsonl: the file is missing"),
        (removed("rows.jsonl"), "rows.jsonl: the file is missing"),
        (added("more.jsonl", b"{}\n"), "more.jsonl: the manifest names no such file"),
        (added("evidence/more", b""), "evidence/more: the manifest names no such file"),
        (linked, "README.md: not a plain file"),
        (edited("manifest.json", 0, b'"sig":"M', b'"sig":"N'), "manifest.json: "),
        (edited("manifest.json", 0, b'"payload":"ey', b'"payload":"ez'), "manifest.json: "),
        (removed("manifest.json"), "manifest.json: can't be read"),
    ],
    ids=map(str, count()),
)
def test_whatever_is_changed_is_named(
    folder: Path, change: Callable[[Path], None], named: str
) -> None:
    """One changed byte anywhere makes it fail, and the message says where."""
    change(folder)

    with pytest.raises(EvidenceError) as refused:
        verify_dataset(folder, TRUST)

    assert named in str(refused.value)


def resigned(house: House, folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest, sign it again with the right key, and put it in the log again."""
    path = folder / "manifest.json"
    statement, _ = verify_manifest(path.read_bytes(), TRUST)
    change(statement)
    encoded, leaf = write_manifest(statement, MANIFEST_SIGNER)
    path.write_bytes(encoded)
    proof = house.prove(house.append(leaf), house.sequencer.checkpoint_now())
    (folder / "manifest.tlog-proof").write_text(format_proof(proof))


def renewed(folder: Path) -> Callable[[dict[str, Any]], None]:
    """Return a change that names every file of *folder* as it is now."""

    def renew(statement: dict[str, Any]) -> None:
        for subject in statement["subject"]:
            content = (folder / subject["name"]).read_bytes()
            subject["digest"]["sha256"] = sha256_hex(content)

    return renew


def inside(statement: dict[str, Any]) -> dict[str, Any]:
    """Return the internal parameters of a manifest."""
    found: dict[str, Any] = statement["predicate"]["buildDefinition"]["internalParameters"]
    return found


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: inside(s).update(rows=4), "rows.jsonl: after row 3, byte 391: what follows"),
        (lambda s: inside(s).update(rows=6), "receipts.jsonl: row 5: the line is missing"),
        (lambda s: inside(s)["teachers"][0].update(provider="free"), "its teachers are not"),
        (lambda s: inside(s)["teachers"][0].update(rows=4), "its teachers are not"),
        (lambda s: inside(s)["teachers"][0].update(days=["2020-01-01"]), "its teachers are"),
        (lambda s: inside(s)["teachers"][0].pop("policies"), "its teachers are not"),
        (lambda s: inside(s)["teachers"][0].update(agreements=["a-1"]), "its teachers are"),
        (lambda s: inside(s)["teachers"][0].update(accountTier="paid"), "its teachers are"),
        (lambda s: inside(s)["teachers"][0].update(generatedFor="verify"), "its teachers"),
        (lambda s: inside(s)["use"].update(purpose="train.reward"), "was declared for"),
        (lambda s: inside(s).update(more=1), "not a dataset manifest"),
        (lambda s: s["subject"].pop(), "not a dataset's"),
        (lambda s: s["predicate"].update(more=1), "says more than a dataset manifest"),
    ],
    ids=map(str, count()),
)
def test_a_manifest_that_lies_is_found_out(
    built_in: House, folder: Path, change: Callable[[dict[str, Any]], None], named: str
) -> None:
    """Even with the manifest key, a manifest can't say what the receipts don't."""
    resigned(built_in, folder, change)

    with pytest.raises(EvidenceError, match=named):
        verify_dataset(folder, TRUST)


def test_a_row_can_t_be_relabelled_by_who_holds_the_manifest_key(
    built_in: House, folder: Path
) -> None:
    """A changed row fails against its receipt even where every digest was made anew."""
    rows = (folder / "rows.jsonl").read_bytes().replace(b"say something", b"say anything", 1)
    (folder / "rows.jsonl").write_bytes(rows)
    lines = (folder / "receipts.jsonl").read_bytes().splitlines()
    first = msgspec.json.decode(lines[0])
    lines[0] = canonical_json(first | {"sha256": sha256_hex(rows.split(b"\n")[0])})
    (folder / "receipts.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    resigned(built_in, folder, renewed(folder))

    with pytest.raises(EvidenceError, match=r"row 0: receipt x-.* commits to another row"):
        verify_dataset(folder, TRUST)


def test_a_manifest_outside_the_log_is_no_manifest(folder: Path) -> None:
    """Who stole the manifest key can sign, but what the log never took is refused."""
    path = folder / "manifest.json"
    statement, _ = verify_manifest(path.read_bytes(), TRUST)
    statement["predicate"]["runDetails"]["metadata"]["invocationId"] = "another"
    path.write_bytes(write_manifest(statement, MANIFEST_SIGNER)[0])

    with pytest.raises(EvidenceError, match=r"manifest\.tlog-proof: leaf .* is not under the"):
        verify_dataset(folder, TRUST)


def test_a_stranger_s_signature_is_no_signature(folder: Path) -> None:
    """A manifest signed by a key outside the trust file is refused."""
    path = folder / "manifest.json"
    statement, _ = verify_manifest(path.read_bytes(), TRUST)
    path.write_bytes(write_manifest(statement, P256Signer(generate_pem("p256")))[0])

    with pytest.raises(EvidenceError, match="not trusted for manifests"):
        verify_dataset(folder, TRUST)


def test_every_signature_is_checked_where_it_is_asked_for(house: House) -> None:
    """Who kept the log could have let a receipt in that nobody signed; one word finds it."""
    declaration = house.declare()
    house.answer(declaration)
    receipt = house.receipt(declaration, "an answer")
    signed = write_statement(receipt, (), RECEIPT_SIGNER)
    at = signed.index(b'"sig":"') + 12
    unsigned = signed[:at] + (b"A" if signed[at : at + 1] != b"A" else b"B") + signed[at + 1 :]
    index = house.append(unsigned)
    believing = Believing(TRUST)
    believing.admit(0, read_leaf(house.leaf(0)))

    built = build(house, declaration, authority=believing)

    assert 2 == verify_dataset(built.folder, TRUST).rows
    with pytest.raises(EvidenceError, match=rf"leaf {index} \(of row 1\): the signature by"):
        verify_dataset(built.folder, TRUST, every_signature=True)
    with pytest.raises(EvidenceError, match=rf"leaf {index} \(of row 1\): the signature by"):
        list(verified_rows(built.folder, TRUST, every_signature=True))


def test_a_receipt_by_a_key_that_nobody_authorised_is_refused(house: House) -> None:
    """The log's own word is not enough: the key must have been authorised in it."""
    declaration = house.declare()
    stranger = Ed25519Signer(generate_pem("ed25519"))
    house.append(write_statement(house.receipt(declaration, "an answer"), (), stranger))
    believing = Believing(TRUST)
    said = msgspec.structs.replace(
        KEY_AUTHORIZATION, keyid=Sha256(stranger.keyid), key=stranger.public.pem
    )
    believing.admit(0, said)

    built = build(house, declaration, authority=believing)

    with pytest.raises(EvidenceError, match=r"\(of row 0\): the key .* was not authorised"):
        verify_dataset(built.folder, TRUST)


# -- what is true when something goes wrong ------------------------------------------------


def build(house: House, declaration: Any, **changes: Any) -> Built:
    """Build the dataset `set` with some source replaced."""
    order = Order(name="set", declaration=declaration, folder=house.folder / "datasets" / "set")
    return build_dataset(order, dataclasses.replace(house.sources(), **changes))


@pytest.mark.parametrize("kind", [Members, Manifest])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_ledger_that_fails_leaves_a_whole_dataset_or_none(
    house: House, kind: type, when: str
) -> None:
    """Whether or not a leaf became durable, the next build ends with one that stands."""
    declaration = house.declare()
    house.answer(declaration)

    def fail(leaf: bytes) -> int:
        if not isinstance(read_leaf(leaf), kind):
            return house.append(leaf)
        if when == "after":
            house.append(leaf)
        raise LedgerUnwellError("the disk is full")

    with pytest.raises(LedgerUnwellError):
        build(house, declaration, append=fail)
    assert not (house.folder / "datasets" / "set").exists()
    built = build(house, declaration)

    assert built.manifest_sha256 == verify_dataset(built.folder, TRUST).manifest_sha256
    assert house.manifest(built.manifest_sha256) is not None
    assert (built.index is None) is ((kind, when) == (Manifest, "after"))
    assert [built.folder] == list(built.folder.parent.iterdir())


def test_a_build_without_its_proof_is_completed_by_the_next(house: House) -> None:
    """Where the leaf is durable and its proof was never written, building again ends it."""
    declaration = house.declare()
    house.answer(declaration)

    def fail() -> str:
        raise LedgerUnwellError("no checkpoint can be signed")

    with pytest.raises(LedgerUnwellError):
        build(house, declaration, publish=fail)
    assert not (house.folder / "datasets" / "set").exists()
    size = house.ledger.head().size
    built = build(house, declaration)

    assert (None, size) == (built.index, house.ledger.head().size)
    assert built.manifest_sha256 == verify_dataset(built.folder, TRUST).manifest_sha256


def test_a_half_written_proof_is_written_again(house: House) -> None:
    """What a crash left of a proof is replaced, and the folder stands whole."""
    declaration = house.declare()
    house.answer(declaration)
    workshop = house.folder / "datasets" / ".set.building"

    def cut() -> str:
        (workshop / "manifest.tlog-proof").write_text("c2sp.org/tlog")
        raise LedgerUnwellError("the power went")

    with pytest.raises(LedgerUnwellError):
        build(house, declaration, publish=cut)
    built = build(house, declaration)

    assert 1 == verify_dataset(built.folder, TRUST).rows


def test_a_build_that_fails_early_leaves_nothing(house: House) -> None:
    """Before its manifest exists, a failed build sweeps up after itself."""
    declaration = house.declare()
    house.answer(declaration)

    def fail(tile: Tile) -> bytes:
        raise OSError(28, "No space left on device")

    with pytest.raises(OperatorError, match="No space left"):
        build(house, declaration, tile=fail)

    assert [] == list((house.folder / "datasets").iterdir())


def test_an_interrupted_build_of_other_words_is_built_anew(house: House) -> None:
    """Only a build of the very same words is taken up where it stopped."""
    first, second = house.declare(), house.declare(commercial=False)
    house.answer(first)
    house.answer(second)

    def fail(leaf: bytes) -> int:
        house.append(leaf)
        raise LedgerUnwellError("the disk is full")

    with pytest.raises(LedgerUnwellError):
        build(house, first, append=fail)
    built = build(house, second)

    assert second.id == verify_dataset(built.folder, TRUST).manifest.asked.declaration


def test_a_dataset_is_never_changed(house: House) -> None:
    """A name that is taken is refused, and what stands there stays."""
    declaration = house.declare()
    house.answer(declaration)
    built = build(house, declaration)

    with pytest.raises(GateRefusedError, match="already stands"):
        build(house, declaration)

    assert built.manifest_sha256 == verify_dataset(built.folder, TRUST).manifest_sha256


def test_two_builders_don_t_meet(house: House) -> None:
    """While one builds a name, another is turned away."""
    declaration = house.declare()
    house.answer(declaration)
    turned_away: list[str] = []

    def meet(leaf: bytes) -> int:
        with pytest.raises(GateRefusedError) as refused:
            build(house, declaration)
        turned_away.append(refused.value.problem)
        return house.append(leaf)

    build(house, declaration, append=meet)

    assert ["dataset.busy"] * 2 == turned_away


@pytest.mark.parametrize("name", ["", "..", "a/b", "Capital", "x" * 65])
def test_a_name_is_a_name(house: House, name: str) -> None:
    """A dataset's name can't lead out of its place."""
    declaration = house.declare()
    house.answer(declaration)

    with pytest.raises(GateRefusedError, match="not a name"):
        house.build(declaration, name)


def test_leaves_after_the_checkpoint_wait_for_the_next_dataset(house: House) -> None:
    """Only what the one checkpoint covers is taken."""
    declaration = house.declare()
    house.answer(declaration)
    sources = house.sources()
    house.answer(declaration)
    order = Order(name="set", declaration=declaration, folder=house.folder / "datasets" / "set")

    built = build_dataset(order, sources)

    assert 1 == verify_dataset(built.folder, TRUST).rows


# -- large ones: several processes, several tiles ------------------------------------------


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Return a house with some thousands of answered calls."""
    history = History(tmp_path_factory.mktemp("large") / "house", 9_000)
    yield history
    history.house.close()


@pytest.fixture(scope="module")
def large(history: History) -> Path:
    """Return a dataset of some spans, whose receipts touch tiles of two levels."""
    return history.build().folder


@pytest.mark.crash
def test_several_processes_verify_what_one_verifies(large: Path) -> None:
    """However many check, they count the same, and tell how far they are."""
    steps: list[tuple[int, int]] = []

    alone = verify_dataset(large, TRUST, workers=1)
    many = verify_dataset(
        large, TRUST, progress=lambda *step: steps.append(step), workers=2, every_signature=True
    )

    assert alone == many
    assert (9_000, 9_000) == (many.rows, many.receipts)
    assert (9_000, 9_000) == steps[-1]
    assert 8_192 * 70 < (large / "evidence/tiles/0").stat().st_size < 8_192 * 71
    assert 32 * 70 == (large / "evidence/tiles/1").stat().st_size


@pytest.mark.crash
def test_the_first_wrong_row_is_named_whoever_finds_it(large: Path, tmp_path: Path) -> None:
    """Of several things that are wrong, one process and many name the same one."""
    folder = Path(shutil.copytree(large, tmp_path / "set"))
    edited("rows.jsonl", 8_400, b"user", b"usex")(folder)
    edited("rows.jsonl", 4_500, b"user", b"usex")(folder)
    edited("rows.jsonl", 1_400, b"user", b"usex")(folder)

    for workers in (1, 2):
        with pytest.raises(EvidenceError, match=r"rows\.jsonl: row 1400: it was changed"):
            verify_dataset(folder, TRUST, workers=workers)


@pytest.mark.crash
def test_a_process_that_is_ended_decides_nothing(large: Path) -> None:
    """A dataset is not verified where a process that checked it was killed."""

    def end_one() -> None:
        # While they still start: once they have answered, there is nothing to interrupt.
        while not (children := multiprocessing.active_children()):
            time.sleep(0.001)
        children[0].kill()

    ending = threading.Thread(target=end_one)
    ending.start()
    with pytest.raises(CheckInterruptedError):
        verify_dataset(large, TRUST, workers=2)
    ending.join()


@pytest.mark.crash
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (bent("evidence/tiles/0", 8_192 * 3 + 5), "evidence/tiles/0: tile 3 does not lead"),
        (bent("evidence/tiles/0", -1), "evidence/tiles/0 and those above: their ends don't"),
        (bent("evidence/tiles/1", 40), "evidence/tiles/0 and those above: their ends don't"),
        (bent("evidence/leaves", 2_000_000), "evidence/leaves: leaf 1"),
        (swapped("evidence/spans.jsonl", 0, 1), "evidence/spans.jsonl: the file was changed"),
    ],
    ids=map(str, count()),
)
def test_a_changed_tile_is_named(
    large: Path, tmp_path: Path, change: Callable[[Path], None], named: str
) -> None:
    """A hash anywhere in the tree counts, and is named with its tile."""
    folder = Path(shutil.copytree(large, tmp_path / "set"))
    change(folder)

    with pytest.raises(EvidenceError) as refused:
        verify_dataset(folder, TRUST)

    assert named in str(refused.value)


@pytest.mark.crash
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s | {"rows": s["rows"] + 1}, "rows.jsonl: after row 1023"),
        (lambda s: s | {"leaves": s["leaves"] + 1}, "evidence/leaves: after row 1023"),
        (lambda s: s | {"receipts": s["receipts"] - 1}, "receipts.jsonl: after row 1023"),
        (lambda s: s | {"tiles": [0, 0]}, "evidence/tiles/0: after row 1023"),
        (lambda s: s | {"tiles": [0]}, "evidence/spans.jsonl: line 1: not 2 levels"),
        (lambda s: s | {"row": 1_000}, "rows.jsonl: after row 999"),
        (lambda s: s | {"row": 0}, "evidence/spans.jsonl: line 1: out of order"),
        (lambda s: s | {"index": s["index"] + 2}, "receipts.jsonl: row 1024: out of order"),
        (lambda s: s | {"index": s["index"] - 2}, "receipts.jsonl: row 1023: out of order"),
        (lambda s: s | {"more": 1}, "evidence/spans.jsonl: line 1: "),
    ],
    ids=map(str, count()),
)
@pytest.mark.parametrize("workers", [1, 2])
def test_spans_that_lie_skip_nothing(
    history: History,
    large: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    named: str,
    workers: int,
) -> None:
    """Whoever signs spans that leave something out, or check it twice, is found out."""
    folder = Path(shutil.copytree(large, tmp_path / "set"))
    path = folder / "evidence/spans.jsonl"
    lines = path.read_bytes().splitlines()
    lines[1] = canonical_json(change(msgspec.json.decode(lines[1])))
    path.write_bytes(b"\n".join(lines) + b"\n")
    resigned(history.house, folder, renewed(folder))

    with pytest.raises(EvidenceError) as refused:
        verify_dataset(folder, TRUST, workers=workers)

    assert named in str(refused.value)


@pytest.mark.crash
def test_verifying_takes_a_part_of_what_is_verified(large: Path) -> None:
    """A dataset of thirty megabytes is verified in a tenth of that."""
    size = sum(path.stat().st_size for path in large.rglob("*") if path.is_file())
    tracemalloc.start()
    verify_dataset(large, TRUST, workers=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 6_000_000 < size // 4

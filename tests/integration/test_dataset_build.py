"""A dataset is built from a ledger, verifies offline, and nothing can be changed unseen."""

from __future__ import annotations

import base64
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.canonical import canonical_json, sha256_hex
from gateway.dataset.export import Built, Order, build_dataset
from gateway.dataset.verify import iterate_rows, verified_rows, verify_dataset
from gateway.errors import EvidenceError, GateRefusedError, LedgerUnwellError, OperatorError
from gateway.receipt.keys import P256Signer, generate_pem
from gateway.receipt.model import Manifest
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import verify_manifest
from tests.support.dataset import House
from tests.support.evidence import MANIFEST_SIGNER, TRUST


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Return a house with an empty ledger."""
    house = House(tmp_path / "house")
    yield house
    house.close()


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a dataset folder of five rows that verifies, to be copied before it is changed."""
    house = House(tmp_path_factory.mktemp("standing") / "house")
    declaration = house.declare()
    for _ in range(3):
        house.answer(declaration)
    house.answer(declaration, "one", "two")
    house.answer(declaration, provider="closed")
    yield house.build(declaration).folder
    house.close()


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

    assert ["signature", "files", "rows", "receipts", "inclusion"] == told


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


def bent_leaf(folder: Path) -> None:
    """Change one byte inside the second receipt."""
    path = folder / "evidence/leaves.jsonl"
    lines = path.read_bytes().splitlines()
    line = msgspec.json.decode(lines[1])
    leaf = bytearray(base64.b64decode(line["leaf"]))
    at = leaf.index(b'"payload":"') + 40
    leaf[at] = leaf[at] ^ 1
    lines[1] = canonical_json({"index": line["index"], "leaf": base64.b64encode(leaf).decode()})
    path.write_bytes(b"\n".join(lines) + b"\n")


def bent_proof(folder: Path) -> None:
    """Change one bit of the third receipt's proof."""
    path = folder / "evidence/proofs.jsonl"
    lines = path.read_bytes().splitlines()
    line = msgspec.json.decode(lines[2])
    first = bytearray(base64.b64decode(line["hashes"][0]))
    first[5] ^= 1
    line["hashes"][0] = base64.b64encode(first).decode()
    lines[2] = canonical_json(line)
    path.write_bytes(b"\n".join(lines) + b"\n")


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
        (dropped("rows.jsonl", 4), "receipts.jsonl: line 5: belongs to no row"),
        (added("rows.jsonl", b"{}\n"), "receipts.jsonl: row 5: the line is missing"),
        (added("rows.jsonl", b"{}"), "rows.jsonl: line 6: it has no end"),
        (edited("receipts.jsonl", 1, b'"row":1', b'"row":9'), "receipts.jsonl: row 1: found"),
        (edited("receipts.jsonl", 1, b'"salt":"', b'"salt":"00'), "rows.jsonl: row 1: receipt"),
        (edited("receipts.jsonl", 1, b'"salt":"', b'"salt":"zz'), "row 1: the salt is not hex"),
        (edited("receipts.jsonl", 3, b'"choice":0', b'"choice":7'), "row 3: receipt x-"),
        (edited("receipts.jsonl", 3, b'"choice":0', b'"choice":1'), "rows.jsonl: row 3: rec"),
        (edited("receipts.jsonl", 2, b"x-", b"x-0"), "receipts.jsonl: row 2: names exchange"),
        (edited("receipts.jsonl", 2, b'"index":3', b'"index":1'), "row 2: out of order"),
        (swapped("receipts.jsonl", 3, 4), "receipts.jsonl: row 3: found row 4"),
        (dropped("receipts.jsonl", 0), "receipts.jsonl: row 0: found row 1"),
        (bent_leaf, "evidence/leaves.jsonl: leaf 2 (of row 1)"),
        (dropped("evidence/leaves.jsonl", 0), "leaf 1 (of row 0): found leaf 2"),
        (bent_proof, "evidence/proofs.jsonl: proof of leaf 3 (of row 2)"),
        (
            dropped("evidence/proofs.jsonl", 3),
            "proof of leaf 4 (of row 3): the line is missing",
        ),
        (edited("evidence/checkpoint", 1, b"6", b"7"), "evidence/checkpoint: "),
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


def resigned(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest and sign it again with the right key."""
    path = folder / "manifest.json"
    statement, _ = verify_manifest(path.read_bytes(), TRUST)
    change(statement)
    path.write_bytes(write_manifest(statement, MANIFEST_SIGNER)[0])


def inside(statement: dict[str, Any]) -> dict[str, Any]:
    """Return the internal parameters of a manifest."""
    found: dict[str, Any] = statement["predicate"]["buildDefinition"]["internalParameters"]
    return found


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: inside(s).update(rows=4), "it counts 4 rows, 5 stand"),
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
    folder: Path, change: Callable[[dict[str, Any]], None], named: str
) -> None:
    """Even with the manifest key, a manifest can't say what the receipts don't."""
    resigned(folder, change)

    with pytest.raises(EvidenceError, match=named):
        verify_dataset(folder, TRUST)


def test_a_row_can_t_be_relabelled_by_who_holds_the_manifest_key(folder: Path) -> None:
    """A changed row fails against its receipt even where every digest was made anew."""
    rows = (folder / "rows.jsonl").read_bytes().replace(b"say something", b"say anything", 1)
    (folder / "rows.jsonl").write_bytes(rows)
    lines = (folder / "receipts.jsonl").read_bytes().splitlines()
    first = msgspec.json.decode(lines[0])
    lines[0] = canonical_json(first | {"sha256": sha256_hex(rows.split(b"\n")[0])})
    (folder / "receipts.jsonl").write_bytes(b"\n".join(lines) + b"\n")

    def renew(statement: dict[str, Any]) -> None:
        for subject in statement["subject"]:
            content = (folder / subject["name"]).read_bytes()
            subject["digest"]["sha256"] = sha256_hex(content)

    resigned(folder, renew)

    with pytest.raises(EvidenceError, match=r"row 0: receipt x-.* commits to another row"):
        verify_dataset(folder, TRUST)


def test_a_stranger_s_signature_is_no_signature(folder: Path) -> None:
    """A manifest signed by a key outside the trust file is refused."""
    path = folder / "manifest.json"
    statement, _ = verify_manifest(path.read_bytes(), TRUST)
    path.write_bytes(write_manifest(statement, P256Signer(generate_pem("p256")))[0])

    with pytest.raises(EvidenceError, match="not trusted for manifests"):
        verify_dataset(folder, TRUST)


# -- what is true when something goes wrong ------------------------------------------------


def build(house: House, declaration: Any, **changes: Any) -> Built:
    """Build the dataset `set` with some source replaced."""
    order = Order(name="set", declaration=declaration, folder=house.folder / "datasets" / "set")
    return build_dataset(order, dataclasses.replace(house.sources(), **changes))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_ledger_that_fails_leaves_a_whole_dataset_or_none(house: House, when: str) -> None:
    """Whether or not the leaf became durable, the next build ends with one that stands."""
    declaration = house.declare()
    house.answer(declaration)

    def fail(leaf: bytes) -> int:
        if when == "after":
            house.append(leaf)
        raise LedgerUnwellError("the disk is full")

    with pytest.raises(LedgerUnwellError):
        build(house, declaration, append=fail)
    assert not (house.folder / "datasets" / "set").exists()
    built = build(house, declaration)

    assert built.manifest_sha256 == verify_dataset(built.folder, TRUST).manifest_sha256
    assert house.manifest(built.manifest_sha256) is not None
    assert (built.index is None) is (when == "after")
    assert [built.folder] == list(built.folder.parent.iterdir())


def test_a_build_that_fails_early_leaves_nothing(house: House) -> None:
    """Before its manifest exists, a failed build sweeps up after itself."""
    declaration = house.declare()
    house.answer(declaration)

    def fail(index: int, note: str) -> Any:
        raise OSError(28, "No space left on device")

    with pytest.raises(OperatorError, match="No space left"):
        build(house, declaration, prove=fail)

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

    assert ["dataset.busy"] == turned_away


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

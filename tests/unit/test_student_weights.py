"""Laws of the weights digest: what is the same model in other files, and what is another."""

from __future__ import annotations

import hashlib
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.canonical import sha256_hex
from gateway.errors import MalformedReceiptError
from gateway.ident import Sha256
from gateway.receipt.model import PROVENANCE_TYPE, STATEMENT_TYPE, TRAINING_BUILD, Manifest
from gateway.student.recognise import files_of, recognise
from gateway.student.weights import HEADER_BYTES_MAX, is_weights, read_weights
from tests.support.tensors import Tensor, numbered, write_tensors

ONE, TWO, THREE = numbered(1, "a.weight"), numbered(2, "b.weight"), numbered(3, "c.weight")


def digest(folder: Path) -> str | None:
    """Return the weights digest of *folder*."""
    return read_weights(folder).sha256


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a folder with three tensors in one file."""
    folder = tmp_path / "model"
    folder.mkdir()
    write_tensors(folder / "model.safetensors", [ONE, TWO, THREE], {"format": "pt"})
    return folder


def test_it_is_what_the_format_says(model: Path) -> None:
    """Anybody can work it out: SHA-256 over the sorted ones of type, shape and bytes."""
    each = sorted(
        hashlib.sha256(b"F32 1\n" + one.content).digest() for one in (ONE, TWO, THREE)
    )
    whole = hashlib.sha256(b"tos-gateway weights v1\n" + b"".join(each)).hexdigest()
    weights = read_weights(model)

    assert (whole, 3) == (weights.sha256, weights.tensors)
    content = (model / "model.safetensors").read_bytes()
    assert weights.files == {"model.safetensors": sha256_hex(content)}


def sharded(folder: Path) -> None:
    """Spread the tensors over two files."""
    (folder / "model.safetensors").unlink()
    write_tensors(folder / "model-00001-of-00002.safetensors", [THREE], {"format": "pt"})
    write_tensors(folder / "model-00002-of-00002.safetensors", [ONE, TWO])


def renamed(folder: Path) -> None:
    """Give file and tensors other names."""
    (folder / "model.safetensors").unlink()
    others = [replace(one, name=f"model.{one.name}") for one in (ONE, TWO, THREE)]
    write_tensors(folder / "weights.safetensors", others)


def with_other_words(folder: Path) -> None:
    """Say something else in the header."""
    write_tensors(folder / "model.safetensors", [ONE, TWO, THREE], {"by": "somebody"})


def in_other_order(folder: Path) -> None:
    """Write the last tensor first."""
    write_tensors(folder / "model.safetensors", [THREE, TWO, ONE])


def tied(folder: Path) -> None:
    """Save a tensor twice, as two layers that share it are, or may be."""
    write_tensors(folder / "model.safetensors", [ONE, TWO, replace(ONE, name="lm_head"), THREE])


def with_nothing_in_one(folder: Path) -> None:
    """Save a tensor that holds no number."""
    nothing = Tensor(name="nothing", shape=(0, 4), content=b"")
    write_tensors(folder / "model.safetensors", [ONE, nothing, TWO, THREE])


def with_files_beside(folder: Path) -> None:
    """Put other files beside, and weights further down."""
    (folder / "README.md").write_text("# What it is\n")
    (folder / "base").mkdir()
    write_tensors(folder / "base" / "model.safetensors", [numbered(9)])


@pytest.mark.parametrize(
    "change",
    [
        sharded,
        renamed,
        with_other_words,
        in_other_order,
        tied,
        with_nothing_in_one,
        with_files_beside,
    ],
)
def test_the_same_tensors_have_one_digest(change: Callable[[Path], None], model: Path) -> None:
    """Neither shards, names, words, order, ties nor other files are anything of the weights."""
    before = digest(model)
    change(model)

    assert before == digest(model)


@pytest.mark.parametrize(
    "other",
    [
        [ONE, TWO, replace(THREE, content=b"\x03\x00\x00\x01")],
        [ONE, TWO, replace(THREE, dtype="I32")],
        [ONE, TWO, replace(THREE, shape=(1, 1))],
        [ONE, TWO, replace(THREE, shape=())],
        [ONE, TWO],
        [ONE, TWO, THREE, numbered(4, "d.weight")],
        [ONE, TWO, replace(THREE, dtype="BF16", shape=(2,))],
        [ONE, TWO, replace(THREE, dtype="F8_E4M3", shape=(4,))],
    ],
)
def test_other_tensors_have_another_digest(other: list[Tensor], model: Path) -> None:
    """One bit, another type or shape, a tensor more or less is another digest."""
    before = digest(model)
    write_tensors(model / "model.safetensors", other)

    assert digest(model) not in {before, None}


def test_what_lies_side_by_side_is_told_apart(model: Path) -> None:
    """Numbers that are divided otherwise among tensors are other tensors."""
    first, second = numbered(1).content, numbered(2).content
    write_tensors(
        model / "model.safetensors", [Tensor(shape=(2,), content=first + second, name="both")]
    )
    together = digest(model)
    write_tensors(model / "model.safetensors", [numbered(1, "a"), numbered(2, "b")])

    assert together != digest(model)


def test_where_no_number_is_saved_there_is_no_digest(tmp_path: Path) -> None:
    """Nothing is not the same as nothing: two models without weights are not one."""
    write_tensors(tmp_path / "model.safetensors", [], {"format": "pt"})

    assert digest(tmp_path) is None


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _longer(content: bytes) -> bytes:
    return content + b"\0"


def _no_table(content: bytes) -> bytes:
    return content[:8] + b"[" + content[9:]


def _too_long_a_table(content: bytes) -> bytes:
    return (HEADER_BYTES_MAX + 1).to_bytes(8, "little") + content[8:]


def _overlapping(content: bytes) -> bytes:
    return content.replace(b"[4, 8]", b"[0, 8]")


def _of_no_type(content: bytes) -> bytes:
    return content.replace(b'"F32"', b'"F 2"')


def _words(_: bytes) -> bytes:
    return b"weights"


def _nothing(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    ("bend", "told"),
    [
        (_cut, "ends too early"),
        (_longer, "more in it than its tensors"),
        (_no_table, "its header is none"),
        (_too_long_a_table, "header would be of 100000001 bytes"),
        (_overlapping, "do not lie one after the other"),
        (_of_no_type, "its header is none"),
        (_words, "ends too early"),
        (_nothing, "ends too early"),
    ],
)
def test_what_is_no_whole_file_is_named(
    bend: Callable[[bytes], bytes], told: str, model: Path
) -> None:
    """A file that is broken is refused by name, and nothing is said of its weights."""
    file = model / "model.safetensors"
    file.write_bytes(bend(file.read_bytes()))

    with pytest.raises(MalformedReceiptError, match=rf"model\.safetensors: .*{told}"):
        read_weights(model)


def test_files_are_read_in_pieces(tmp_path: Path) -> None:
    """However large a tensor is, of its bytes a few pieces at most are in memory at once."""
    size = 48 << 20
    path = write_tensors(tmp_path / "model.safetensors", [Tensor(shape=(0,), content=b"")])
    table = path.read_bytes()[8:].replace(b"[0]", b"[%d]" % size)
    table = table.replace(b"[0, 0]", b"[0, %d]" % size).replace(b'"F32"', b'"U8"')
    with path.open("wb") as file:
        file.write(len(table).to_bytes(8, "little") + table)
        file.truncate(8 + len(table) + size)
    read_weights(tmp_path)

    tracemalloc.start()
    try:
        read_weights(tmp_path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert most < size // 4


def a_student(folder: Path, name: str, *, weights: bool = True) -> Manifest:
    """Return the training manifest of a student whose weights lie in *folder*."""
    read = read_weights(folder)
    found = {"weights": read.sha256} if weights else {}
    files = {f"base/{name}": Sha256("a" * 64)} | read.files
    return Manifest(
        statement={
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": one, "digest": {"sha256": sha256}} for one, sha256 in files.items()
            ],
            "predicateType": PROVENANCE_TYPE,
            "predicate": {
                "buildDefinition": {
                    "buildType": TRAINING_BUILD,
                    "externalParameters": {"student": name},
                    "internalParameters": found,
                    "resolvedDependencies": [],
                }
            },
        },
        payload_sha256=Sha256(sha256_hex(name.encode())),
        build_type=TRAINING_BUILD,
    )


def test_a_student_is_known_by_its_files_or_by_its_weights(model: Path) -> None:
    """Files are enough where no weights digest is signed; the digest is, where files differ."""
    old, new = a_student(model, "old", weights=False), a_student(model, "new")
    same = recognise(read_weights(model), [old, new])
    sharded(model)
    again = recognise(read_weights(model), [old, new])

    assert ((old, new), ()) == (same.whole, same.part)
    assert ((new,), ()) == (again.whole, again.part)


def test_a_file_of_a_student_among_others_is_a_part_of_it(model: Path) -> None:
    """Whoever mixes files of a student with others has something of it, and is not it."""
    sharded(model)
    known = a_student(model, "parser")
    write_tensors(model / "model-00002-of-00002.safetensors", [numbered(7)])
    mixed = recognise(read_weights(model), [known])
    shutil.rmtree(model)
    model.mkdir()
    write_tensors(model / "model.safetensors", [numbered(8)])
    other = recognise(read_weights(model), [known])

    assert ((), (known,)) == (mixed.whole, mixed.part)
    assert ((), ()) == (other.whole, other.part)


def test_weights_that_lie_further_down_are_not_the_model(model: Path) -> None:
    """The tiny base in the folder of an adapter is no student: chance made it."""
    known = a_student(model, "parser")

    assert files_of(known) == set(read_weights(model).files.values())
    assert [is_weights("model.safetensors"), is_weights("base/model.safetensors")] == [
        True,
        False,
    ]

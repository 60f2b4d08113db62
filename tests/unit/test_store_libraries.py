"""Libraries that were in force are kept as they were read, and come back or say why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

from gateway.errors import MalformedPolicyError, NotFoundError, OperatorError
from gateway.ident import Sha256
from gateway.limits import LIBRARY_BYTES_MAX
from gateway.policy.library import Library
from gateway.store.libraries import FOLDER, keep_library, kept_library
from tests.support.policies import acme_files

DIGEST = Sha256("ab" * 32)


def kept_file(data: Path) -> Path:
    """Return the one file that is kept."""
    (path,) = (data / FOLDER).iterdir()
    return path


def test_what_was_kept_comes_back_and_loads_to_its_digest(tmp_path: Path) -> None:
    """Text, names and digest are those of the library that was in force."""
    files = acme_files() | {"acme/notes.md": "Größe\r\n\u2028"}
    digest = Library.load(files).digest
    keep_library(tmp_path, digest, files)

    assert files == kept_library(tmp_path, digest)
    assert digest == Library.load(kept_library(tmp_path, digest)).digest


def test_a_library_is_kept_once(tmp_path: Path) -> None:
    """What stands is left alone."""
    keep_library(tmp_path, DIGEST, {"a": "b"})
    before = kept_file(tmp_path).stat()
    keep_library(tmp_path, DIGEST, {"a": "c"})

    assert before == kept_file(tmp_path).stat()


def test_what_was_never_in_force_is_not_found(tmp_path: Path) -> None:
    """A digest that nobody put in force is named."""
    with pytest.raises(NotFoundError, match="abababababab"):
        kept_library(tmp_path, DIGEST)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zstd",
        zstandard.compress(b"no json"),
        zstandard.compress(b'{"a": 1}'),
        zstandard.compress(b"[]"),
        zstandard.compress(b'{"a": "' + b" " * LIBRARY_BYTES_MAX + b'"}'),
        zstandard.compress(b'{"a": "b"}' * 99)[:-9],
    ],
    ids=["empty", "foreign", "no json", "numbers", "list", "bomb", "torn"],
)
def test_what_is_damaged_says_so_in_one_line(tmp_path: Path, content: bytes) -> None:
    """However it was damaged, the file is named, and no more is unpacked than a library has."""
    keep_library(tmp_path, DIGEST, {"a": "b"})
    kept_file(tmp_path).write_bytes(content)

    with pytest.raises(MalformedPolicyError, match="can't be read"):
        kept_library(tmp_path, DIGEST)


def test_what_could_not_be_read_back_is_not_kept(tmp_path: Path) -> None:
    """A folder of other things is refused before a leaf can name it."""
    with pytest.raises(OperatorError, match="larger"):
        keep_library(tmp_path, DIGEST, {"a": " " * LIBRARY_BYTES_MAX})

    assert not (tmp_path / FOLDER).exists()

"""Files of a folder by name and digest, and putting a folder in place whole.

A folder is written beside its place, made durable, and moved there by one rename: who looks
sees all of it or nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.errors import BadDigestError
from gateway.ident import Sha256

PART: Final = ".part"
"""Ends the name of a file that is being written."""

_SYSTEM: Final = re.compile(r"\(os error ([0-9]{1,4})\)")
"""How libraries that are written in Rust say what the system told them."""


def file_sha256(path: Path) -> Sha256:
    """Return the SHA-256 of the file at *path*, read in constant memory."""
    with path.open("rb") as file:
        return Sha256(hashlib.file_digest(file, "sha256").hexdigest())


def files_under(folder: Path) -> dict[str, Path]:
    """Return every file under *folder* by its name relative to it, with `/` between parts.

    Raises:
        BadDigestError: a link or a special file is among them; digests can't speak for those.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise BadDigestError(f"{name}: neither a plain file nor a folder")
        if path.is_file():
            found[name] = path
    return found


def sync(path: Path) -> None:
    """Make the file or folder at *path* durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, content: bytes) -> None:
    """Write *content* to *path* so that after a crash it is whole or the old one."""
    temporary = path.with_name(path.name + PART)
    try:
        temporary.write_bytes(content)
        sync(temporary)
        temporary.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)


def sync_under(folder: Path) -> None:
    """Make *folder* and everything in it durable."""
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)


@contextlib.contextmanager
def written_by_others() -> Iterator[None]:
    """Raise as `OSError` what the system told a library that says it in its own words."""
    try:
        yield
    except Exception as error:  # some raise a bare one
        number = system_error(error)
        if number is not None and not isinstance(error, OSError):
            raise OSError(number, os.strerror(number)) from error
        raise


def system_error(error: Exception) -> int | None:
    """Return the number of what the system said, where that is what *error* tells."""
    if isinstance(error, OSError):
        return error.errno
    found = _SYSTEM.search(str(error))
    return None if found is None else int(found[1])


def put_in_place(staged: Path, place: Path) -> None:
    """Move the finished folder *staged* to *place*, every file durable before it shows."""
    sync_under(staged)
    place.parent.mkdir(parents=True, exist_ok=True)
    staged.rename(place)
    sync(place.parent)

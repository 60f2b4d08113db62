"""Write small files so that a reader finds the old bytes or the new ones, never a part.

And look into folders so that what may not be looked into is said, and not passed over.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gateway.errors import MissingPieceError
from gateway.ident import random_bytes


def write_durably(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace *path* by *content*; durable on return, whole at every moment before.

    Raises:
        OSError: nothing was replaced, or it is not known to be durable.
    """
    beside = _write_beside(path, content, mode)
    try:
        beside.rename(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_once(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Make *path* with *content*; durable on return.

    Raises:
        FileExistsError: there is something at *path*; it is left as it was.
        OSError: it could not be made.
    """
    beside = _write_beside(path, content, mode)
    try:
        # A link, unlike a rename, refuses to take another file's place.
        path.hardlink_to(beside)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def entries_of(folder: Path) -> list[Path]:
    """Return what lies in *folder*, by name; nothing where there is no such folder.

    Raises:
        MissingPieceError: it can't be looked into.
    """
    try:
        found = sorted(folder.iterdir())
        # Names may be told to whom what lies there is not.
        os.stat(os.path.join(folder, "."))  # noqa: PTH116, PTH118 — a path drops the dot
        return found
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _shut(error, folder) from error


def paths_below(folder: Path) -> list[Path]:
    """Return everything but folders that lies in *folder*, however deep, by name.

    Raises:
        MissingPieceError: something there can't be looked into.
    """

    def refuse(error: OSError) -> None:
        raise _shut(error, folder) from error

    found = os.walk(folder, onerror=refuse)
    return sorted(Path(place, name) for place, _, names in found for name in names)


def _shut(error: OSError, folder: Path) -> MissingPieceError:
    where = os.fsdecode(error.filename or folder)
    return MissingPieceError(
        f"`{where}` can't be looked into: {error.strerror or error}",
        hint="let this account read it, or move away what is none of the gateway's",
    )


def sync_folder(folder: Path) -> None:
    """Make the names in *folder* durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hold(path: Path) -> int | None:
    """Hold the file at *path* for this process; return its handle, or `None` if another does.

    It is let go of by closing the handle, and by the process's end, however that comes.

    Raises:
        OSError: there can be no such file.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _write_beside(path: Path, content: bytes, mode: int) -> Path:
    beside = path.with_name(f".{path.name}.{random_bytes(6).hex()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            file.write(content)
            file.flush()
            os.fsync(handle)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    return beside

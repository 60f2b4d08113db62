"""The folder that something is built in, beside the place where it will stand.

It is made by one process at a time, and put into place whole or not at all: its manifest
becomes a leaf of the ledger, the proof of that joins the folder, the folder is renamed. What is
true if it is interrupted: before the leaf, nothing was made, and the next of that name starts
over. Between leaf and rename, all of it is on the disk; the next of that name with the same
words finds it (`interrupted`), fetches the proof anew, and puts the folder into place.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

from gateway.canonical import canonical_json
from gateway.dataset.manifest import MANIFEST, PROOF
from gateway.dataset.verification.logged import verify_logged
from gateway.errors import EvidenceError, GateRefusedError, LedgerDamagedError
from gateway.ident import Sha256
from gateway.receipt.keys import Trust
from gateway.receipt.verify import verify_manifest
from gateway.tlog.proof import InclusionProof, format_proof

Parsed = TypeVar("Parsed")


class Log(Protocol):
    """The ledger, as far as what is made beside it needs it at its end."""

    @property
    def trust(self) -> Trust:
        """Whose signatures count."""
        ...

    @property
    def index_of(self) -> Callable[[Sha256], int | None]:
        """Leaf index of the manifest whose payload has that digest."""
        ...

    @property
    def prove(self) -> Callable[[int, str], InclusionProof]:
        """Show that a leaf is under a checkpoint."""
        ...

    @property
    def publish(self) -> Callable[[], str]:
        """Sign a checkpoint that covers every leaf there is."""
        ...


class DigestedFile:
    """A file that knows the digest of what was written to it."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name = name
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size = 0

    @classmethod
    @contextlib.contextmanager
    def create(cls, folder: Path, name: str) -> Iterator[DigestedFile]:
        """Create the file *name* in *folder*."""
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb", buffering=1 << 18) as file:
            yield cls(name, file)

    def write(self, content: bytes) -> None:
        """Add *content*."""
        self._file.write(content)
        self._sha256.update(content)
        self.size += len(content)

    def line(self, value: Mapping[str, Any]) -> None:
        """Add one line of JSON."""
        self.write(canonical_json(value) + b"\n")

    def finish(self) -> Sha256:
        """Make it durable and return its digest."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return Sha256(self._sha256.hexdigest())


def write_file(folder: Path, name: str, content: bytes) -> Sha256:
    """Write the file *name*, which is not there yet, and return its digest; it is durable."""
    with DigestedFile.create(folder, name) as file:
        file.write(content)
        return file.finish()


def sync_folder(folder: Path) -> None:
    """Make durable which files *folder* has."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def only_builder(workshop: Path) -> Iterator[None]:
    """Keep other builds of the same name away; the lock goes with the process that holds it.

    Raises:
        GateRefusedError: another one is at work.
    """
    workshop.mkdir(exist_ok=True)
    descriptor = os.open(workshop, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(descriptor)
        raise _busy(workshop) from exc
    try:
        # The folder that was locked may have been put into place by another build since.
        if not workshop.exists() or not os.path.samestat(workshop.stat(), os.fstat(descriptor)):
            raise _busy(workshop)
        yield
    finally:
        os.close(descriptor)


def _busy(workshop: Path) -> GateRefusedError:
    return GateRefusedError(
        f"another build is at work in `{workshop}`",
        hint="wait for it to end",
        code="dataset.busy",
    )


def empty_folder(workshop: Path) -> None:
    """Take everything out of *workshop*."""
    for entry in workshop.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextlib.contextmanager
def swept_on_failure(workshop: Path) -> Iterator[None]:
    """Leave nothing of a build that failed before its manifest could be a leaf."""
    try:
        yield
    except BaseException:
        # The leaf may be durable though the call that made it failed; then the folder stays
        # for the next build of that name to look at.
        if not (workshop / MANIFEST).exists():
            shutil.rmtree(workshop, ignore_errors=True)
        raise


def put_into_place(workshop: Path, folder: Path) -> None:
    """Let *workshop* stand as *folder*, durably.

    Raises:
        GateRefusedError: something stands there; *workshop* is kept.
    """
    try:
        workshop.rename(folder)
    except OSError as exc:
        raise GateRefusedError(
            f"`{folder}` could not be put into place: {exc.strerror}",
            hint=f"make room for it and build again; everything is kept in `{workshop}`",
            code="dataset.exists",
        ) from exc
    sync_folder(folder.parent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted(Generic[Parsed]):
    """What was made before, up to the leaf of its manifest, and not put into place."""

    manifest: Parsed
    payload_sha256: Sha256
    index: int
    """Leaf index of the manifest."""


def interrupted(
    workshop: Path, log: Log, parse: Callable[[dict[str, Any]], Parsed]
) -> Interrupted[Parsed] | None:
    """Return what stands in *workshop* since an interruption, or `None` where nothing does."""
    try:
        encoded = (workshop / MANIFEST).read_bytes()
        statement, payload = verify_manifest(encoded, log.trust)
        manifest = parse(statement)
    except (FileNotFoundError, EvidenceError):
        return None
    index = log.index_of(payload)
    if index is None:
        return None
    return Interrupted(manifest=manifest, payload_sha256=payload, index=index)


def write_proof(workshop: Path, log: Log, index: int) -> None:
    """Put into the folder what shows that its manifest is leaf *index* of the ledger.

    Raises:
        LedgerDamagedError: it does not show that.
    """
    (workshop / PROOF).unlink(missing_ok=True)
    write_file(workshop, PROOF, format_proof(log.prove(index, log.publish())).encode())
    sync_folder(workshop)
    try:
        verify_logged(workshop, log.trust)
    except EvidenceError as exc:
        raise LedgerDamagedError(
            f"the manifest at leaf {index} does not verify: {exc.message}",
            hint="run `gateway ledger fsck`; then run the same command again, nothing is lost",
        ) from exc

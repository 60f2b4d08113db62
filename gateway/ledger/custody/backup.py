"""Copy a data folder while the gateway serves, and put a copy back after checking all of it.

A backup is whole or is not there: it is written beside its place and moved into it at the end,
and so is what is restored. A copy that is older than a checkpoint somebody knows is not put
back: what was added since would be signed for as if it had never been.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from gateway.errors import (
    EvidenceError,
    LedgerUnwellError,
    MalformedReceiptError,
    OperatorError,
    SettingError,
    UncleanBackupError,
)
from gateway.ident import Sha256
from gateway.ledger.custody.erasure import apply_erasures
from gateway.ledger.custody.fsck import Report, fsck
from gateway.ledger.reading.reader import Reader
from gateway.limits import LEAVES_READ_AT_ONCE
from gateway.receipt.keys import Trust, parse_trust
from gateway.receipt.verify import verify_checkpoint
from gateway.store.content import Contents
from gateway.store.files import paths_below, sync_folder, write_once
from gateway.store.index.index import Index
from gateway.store.snapshot import Snapshot, copy_file, copy_small, digest
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.merkle import Frontier

MANIFEST: Final = "backup.json"
FORMAT: Final = "gateway-backup/v1"

_LEDGER: Final = "ledger.db"
_CONTENT: Final = "content.db"
_ACCESS: Final = "access.db"
_TRUST: Final = "trust.json"
_CHECKPOINT: Final = "checkpoint"
COPIES: Final = "checkpoint.copies"
"""Which copies of the checkpoint were ever written."""
_PLAIN: Final = (_TRUST, "trust.sigstore.json", "root.pub", _CHECKPOINT, COPIES)
_FOLDERS: Final = ("libraries", "timestamps")
_KEYS: Final = "keys"
_PUBLIC: Final = frozenset({*_PLAIN})

Doing = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


class CopiedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of a backup."""

    name: str
    """Its place in the data folder, with `/`."""
    bytes: int
    sha256: Sha256


class Backup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup says of itself."""

    format: str
    made: str
    version: str
    """The release that made it."""
    origin: str
    size: int
    """Leaves of its ledger."""
    root: Sha256
    keys: bool
    """Whether private keys are in it."""
    files: tuple[CopiedFile, ...]


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What was put back."""

    backup: Backup
    report: Report
    erased: int
    """Texts that erasures in the ledger took out of the copy again."""


def backup(
    data: Path,
    target: Path,
    *,
    made: str,
    version: str,
    keys: bool = False,
    doing: Doing = lambda *_: None,
) -> Backup:
    """Copy the data folder *data* to *target*, which is not there or empty.

    Raises:
        SettingError: *target* holds something.
        LedgerUnwellError: there is no room, or no permission; nothing is left of it.
    """
    with _beside(target, "backup") as place:
        found = _copy_out(data, place, keys=keys, doing=doing)
        with contextlib.closing(SqliteLedger(place / _LEDGER)) as store:
            origin, size, root = store.origin, store.head().size, _root_of(store)
        _forget_logs(place)
        files = tuple(_described(place, found, doing))
        made_of = Backup(
            format=FORMAT,
            made=made,
            version=version,
            origin=origin,
            size=size,
            root=root,
            keys=keys,
            files=files,
        )
        write_once(place / MANIFEST, msgspec.json.format(msgspec.json.encode(made_of)) + b"\n")
    return made_of


def read_backup(folder: Path) -> Backup:
    """Return what the backup in *folder* says of itself.

    Raises:
        OperatorError: there is none, or it can't be read (`backup.bad`).
    """
    try:
        encoded = (folder / MANIFEST).read_bytes()
        found = msgspec.json.decode(encoded, type=Backup)
    except OSError as wrong:
        raise _bad(f"`{folder}` holds no backup: {wrong.strerror}") from wrong
    except (msgspec.MsgspecError, ValueError, RecursionError) as wrong:
        raise _bad(f"`{folder / MANIFEST}` can't be read: {wrong}") from wrong
    if found.format != FORMAT:
        raise _bad(f"`{folder}` has the format `{found.format[:40]}`, this reads `{FORMAT}`")
    names = [one.name for one in found.files]
    for name in names:
        if not _belongs(name):
            raise _bad(f"`{folder / MANIFEST}` names `{name[:80]}`, which no backup holds")
    for name in (_LEDGER, _TRUST):
        if name not in names:
            raise _bad(f"`{folder}` holds no `{name}`")
    return found


def restore(
    folder: Path,
    data: Path,
    *,
    known: Sequence[tuple[str, str]] = (),
    leaves_from: Path | None = None,
    doing: Doing = lambda *_: None,
) -> Restored:
    """Put the backup in *folder* into *data*, which is not there or empty, once it is checked.

    *known* are checkpoints kept elsewhere: what to call each, and the signed note. The leaves
    that came after the backup may be taken from the ledger at *leaves_from*, a damaged one.

    Raises:
        OperatorError: it is no backup or a damaged one (`backup.bad`, `backup.unclean`), or an
            older copy than one that a known checkpoint covers (`backup.older`).
        SettingError: *data* holds something.
    """
    found = read_backup(folder)
    trust = _trust_in(folder)
    for where, note in known:
        _compare(found, where, note, trust, longer=leaves_from is not None)
    with _beside(data, "restored") as place:
        _copy_in(folder, place, found, doing)
        published = [note for _, note in known]
        if (place / _CHECKPOINT).exists():
            published.append((place / _CHECKPOINT).read_text("utf-8", "replace"))
        with (
            contextlib.closing(SqliteLedger(place / _LEDGER, origin=found.origin)) as store,
            contextlib.closing(Index(place / "index.db")) as index,
        ):
            if (store.head().size, _root_of(store)) != (found.size, found.root):
                raise _bad(f"`{folder}` has another ledger than it says")
            if leaves_from is not None:
                _take_leaves(leaves_from, store, doing)
            reader = Reader(store, index)
            reader.catch_up(lambda done, all_: doing("indexing", done, all_))
            report = fsck(
                store,
                trust,
                lambda done, all_: doing("checking", done, all_),
                index=index,
                published=published,
            )
            if not report.clean:
                raise UncleanBackupError(
                    f"the ledger in `{folder}` is not clean: {report.findings_count} findings",
                    hint="take another backup; docs/guides/recovering.md says what each finding"
                    " means",
                    findings=tuple(map(str, report.findings)),
                )
            with contextlib.closing(Contents(place / _CONTENT)) as contents:
                erased = apply_erasures(
                    reader, contents, lambda done, all_: doing("erasing", done, all_)
                )
        _forget_logs(place)
    return Restored(backup=found, report=report, erased=erased)


def _copy_out(data: Path, place: Path, *, keys: bool, doing: Doing) -> list[str]:
    """Copy what a backup holds from *data* to *place*; return the names."""
    found = [name for name in _PLAIN if (data / name).is_file()]
    for folder in (*_FOLDERS, *((_KEYS,) if keys else ())):
        if (data / folder).is_dir():
            paths = paths_below(data / folder)
            found += sorted(str(p.relative_to(data)) for p in paths if _is_plain(p))
    # The checkpoint before the ledger: it never covers more than the copy holds. The texts
    # before the ledger: the copy holds the opening of each, and every erasure that it has seen.
    for name in found:
        _folders_for(place, name)
        copy_file(data / name, place / name, _mode_of(name))
    with contextlib.ExitStack() as held:
        snapshots = {
            name: held.enter_context(contextlib.closing(Snapshot(data / name)))
            for name in (_CONTENT, _LEDGER)
            if (data / name).is_file()
        }
        whole, done = sum(one.bytes for one in snapshots.values()), 0
        for name, snapshot in snapshots.items():

            def copied(count: int) -> None:
                nonlocal done
                done += count
                doing("copying", done, whole)

            snapshot.copy_to(place / name, copied)
            found.append(name)
    if (data / _ACCESS).is_file():
        copy_small(data / _ACCESS, place / _ACCESS)
        found.append(_ACCESS)
    return found


def _described(place: Path, names: list[str], doing: Doing) -> Iterator[CopiedFile]:
    """Yield each file with its size and digest, as they lie in the backup."""
    sizes = {name: (place / name).stat().st_size for name in names}
    done = 0

    def read(count: int) -> None:
        nonlocal done
        done += count
        doing("digesting", done, sum(sizes.values()))

    for name in sorted(names):
        (place / name).chmod(_mode_of(name))
        yield CopiedFile(name=name, bytes=sizes[name], sha256=digest(place / name, read))


def _copy_in(folder: Path, place: Path, found: Backup, doing: Doing) -> None:
    whole, done = sum(one.bytes for one in found.files), 0

    def copied(count: int) -> None:
        nonlocal done
        done += count
        doing("copying", done, whole)

    for one in found.files:
        _folders_for(place, one.name)
        try:
            sha256 = copy_file(folder / one.name, place / one.name, _mode_of(one.name), copied)
        except FileNotFoundError as missing:
            raise _bad(f"`{folder / one.name}` is missing") from missing
        if sha256 != one.sha256:
            raise _bad(f"`{folder / one.name}` is not what was backed up: its digest differs")


def _take_leaves(path: Path, store: SqliteLedger, doing: Doing) -> None:
    """Add what the ledger at *path* has beyond *store*; whether it fits is for fsck to say."""
    with contextlib.closing(SqliteLedger(path, origin=store.origin)) as other:
        first, stop = store.head().size, other.head().size
        leaves = other.leaves(first, stop)
        while batch := list(itertools.islice(leaves, LEAVES_READ_AT_ONCE)):
            store.append(batch)
            doing("taking leaves", store.head().size - first, stop - first)


def _root_of(store: SqliteLedger) -> Sha256:
    head = store.head()
    return Sha256(Frontier(head.size, head.frontier).root().hex())


def _compare(found: Backup, where: str, note: str, trust: Trust, *, longer: bool) -> None:
    """Refuse a backup that ends before a checkpoint that somebody knows."""
    try:
        known = verify_checkpoint(note, trust)
    except EvidenceError as bad:
        raise SettingError(
            f"`{where}` is no checkpoint of this ledger: {bad.message}",
            hint="name a file that the gateway wrote, of the same ledger",
        ) from bad
    if known.size > found.size and not longer:
        raise OperatorError(
            f"the backup is an older copy: it has {found.size} leaves, `{where}` covers"
            f" {known.size}",
            hint="restore a newer one, or add --leaves-from with the damaged ledger.db",
            code="backup.older",
        )
    if known.size == found.size and known.root.hex() != found.root:
        raise OperatorError(
            f"the backup is another ledger than the one `{where}` covers",
            hint="one of the two was forked; `gateway ledger fsck` on each shows where",
            code="backup.older",
        )


def _trust_in(folder: Path) -> Trust:
    try:
        return parse_trust((folder / _TRUST).read_bytes())
    except OSError as wrong:
        raise _bad(f"`{folder / _TRUST}` can't be read: {wrong.strerror}") from wrong
    except MalformedReceiptError as wrong:
        raise _bad(f"`{folder / _TRUST}`: {wrong.message}") from wrong


@contextlib.contextmanager
def _beside(target: Path, what: str) -> Iterator[Path]:
    """Yield an empty folder beside *target*, and move it there if all goes well."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SettingError(
            f"`{target}` holds something already",
            hint="name a folder that is empty or not there",
        )
    target = target.resolve()
    place = target.with_name(f".{target.name}.{what}")
    try:
        # What an earlier attempt left when it was killed.
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700, parents=True)
        yield place
        for folder in (place, *(path for path in place.rglob("*") if path.is_dir())):
            sync_folder(folder)
        place.rename(target)
        sync_folder(target.parent)
    except OSError as wrong:
        raise LedgerUnwellError(
            f"`{target}` can't be written: {wrong.strerror or wrong}",
            hint="check permissions and free space; nothing is left of this attempt",
        ) from wrong
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _forget_logs(place: Path) -> None:
    """Remove what reading a database beside it leaves; the files themselves are whole."""
    for path in place.glob("*.db-*"):
        path.unlink()


def _folders_for(place: Path, name: str) -> None:
    (place / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and not path.name.startswith(".")


def _mode_of(name: str) -> int:
    return 0o644 if name in _PUBLIC else 0o600


def _belongs(name: str) -> bool:
    """Tell whether a backup may hold a file of that name: never one outside its place."""
    folder, *rest = name.split("/")
    if not rest:
        return name in {*_PLAIN, _LEDGER, _CONTENT, _ACCESS}
    return folder in {*_FOLDERS, _KEYS} and not {"", ".", ".."} & set(rest)


def _bad(message: str) -> OperatorError:
    return OperatorError(
        message, hint="take another backup, whole and unchanged", code="backup.bad"
    )

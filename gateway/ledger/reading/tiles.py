"""The log as C2SP tiles: read one, or write the log as a folder that any web server can serve.

There is as much of the log as the newest published checkpoint covers, and never more. What goes
into a folder has been shown to be under the checkpoint that is written there last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.errors import (
    BadProofError,
    LedgerDamagedError,
    NotFoundError,
    SettingError,
)
from gateway.ledger.reading.subtrees import Subtrees
from gateway.store.files import sync_folder, write_durably
from gateway.store.ports import LedgerStore
from gateway.tlog.checkpoint import Checkpoint, parse_checkpoint
from gateway.tlog.merkle import HASH_BYTES, leaf_hash, root_of
from gateway.tlog.note import parse_note
from gateway.tlog.tile import (
    ENTRIES,
    TILE_WIDTH,
    Tile,
    decode_entries,
    encode_entries,
    format_path,
    tiles_of,
    width_in,
)

CHECKPOINT: Final = "checkpoint"
"""What the newest checkpoint is called in a folder, and below the log's address."""

_ANOTHER: Final = "choose another folder"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export left in its folder."""

    size: int
    tiles: int
    """How many files the log of that size consists of."""
    added: int
    """How many of them were not there before."""


class Tiles:
    """Cuts the published part of a ledger into tiles; any thread may ask."""

    def __init__(self, store: LedgerStore, subtrees: Subtrees) -> None:
        self._store = store
        self._subtrees = subtrees
        self._size = 0
        """A size that is known to be published; it only grows."""

    def published(self) -> str | None:
        """Return the newest published checkpoint, a signed note, or `None`."""
        return self._store.checkpoint()

    def read(self, tile: Tile) -> bytes:
        """Return the bytes of *tile*, of which only the width that is asked for need exist.

        Raises:
            NotFoundError: no published checkpoint reaches so far.
        """
        if not self._reaches(tile):
            raise NotFoundError(
                f"the log has no `{format_path(tile)}` yet",
                hint="see `checkpoint` for how far it goes",
            )
        return self._bytes_of(tile)

    def export(
        self,
        folder: Path,
        note: str,
        progress: Progress | None = None,
        *,
        entries: bool = True,
    ) -> Exported:
        """Write the log that the published checkpoint *note* covers to *folder*.

        What is there already stays; the checkpoint is written last, when all it covers is
        durable. Without *entries* only hashes are written.

        Raises:
            LedgerDamagedError: the ledger does not hold what *note*, or the folder, says.
            SettingError: the folder can't be written, or is another log's.
        """
        checkpoint = parse_checkpoint(parse_note(note)[0])
        self._check_grown(folder, checkpoint)
        total = sum(1 for _ in _wanted(checkpoint.size, entries=entries))
        added = 0
        for done, tile in enumerate(_wanted(checkpoint.size, entries=entries), start=1):
            path = folder / format_path(tile)
            if not path.exists():
                content = self._bytes_of(tile)
                self._check_under(tile, content)
                _write(path, content)
                added += 1
            if progress is not None:
                progress(done, total)
        if self._subtrees.root(0, checkpoint.size) != checkpoint.root:
            raise _damaged("the tiles of the ledger don't lead to the root of its checkpoint")
        _write(folder / CHECKPOINT, note.encode())
        return Exported(size=checkpoint.size, tiles=total, added=added)

    def _reaches(self, tile: Tile) -> bool:
        if width_in(tile, self._size) < tile.width:
            note = self.published()
            if note is not None:
                self._size = max(self._size, parse_checkpoint(parse_note(note)[0]).size)
        return width_in(tile, self._size) >= tile.width

    def _bytes_of(self, tile: Tile) -> bytes:
        if tile.level != ENTRIES:
            return self._subtrees.tile(tile.level, tile.index, tile.width)
        first = tile.index * TILE_WIDTH
        return encode_entries(self._store.leaves(first, first + tile.width))

    def _check_grown(self, folder: Path, checkpoint: Checkpoint) -> None:
        """Check that what *folder* holds is a beginning of what *checkpoint* covers."""
        before = _read(folder / CHECKPOINT)
        if before is None:
            return
        if before.origin != checkpoint.origin:
            raise SettingError(
                f"`{folder}` holds the log `{before.origin}`, not `{checkpoint.origin}`",
                hint=_ANOTHER,
            )
        if before.size > checkpoint.size:
            raise _damaged(
                f"the ledger is older than `{folder}`: it has {checkpoint.size} leaves,"
                f" the folder {before.size}"
            )
        if self._subtrees.root(0, before.size) != before.root:
            raise _damaged(f"the first {before.size} leaves are not those of `{folder}`")

    def _check_under(self, tile: Tile, content: bytes) -> None:
        """Check *content* against the hashes above it; what has none is under the root."""
        if tile.level == ENTRIES:
            made = b"".join(map(leaf_hash, decode_entries(content)))
            above = self._subtrees.tile(0, tile.index, tile.width)
        elif tile.width == TILE_WIDTH:
            made = root_of(
                content[at : at + HASH_BYTES] for at in range(0, len(content), HASH_BYTES)
            )
            number, place = divmod(tile.index, TILE_WIDTH)
            above = self._subtrees.tile(tile.level + 1, number, place + 1)[-HASH_BYTES:]
        else:
            return
        if made != above:
            raise _damaged(f"`{format_path(tile)}` does not lead to the hashes above it")


def _wanted(size: int, *, entries: bool) -> Iterator[Tile]:
    return (tile for tile in tiles_of(size) if entries or tile.level != ENTRIES)


def _read(path: Path) -> Checkpoint | None:
    try:
        note = path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as wrong:
        raise SettingError(f"`{path}` can't be read: {wrong}", hint=_ANOTHER) from wrong
    try:
        return parse_checkpoint(parse_note(note)[0])
    except BadProofError as broken:
        raise SettingError(
            f"`{path}` is not a checkpoint: {broken.message}", hint=_ANOTHER
        ) from broken


def _write(path: Path, content: bytes) -> None:
    try:
        _make_folder(path.parent)
        write_durably(path, content)
    except OSError as wrong:
        raise SettingError(
            f"`{path}` can't be written: {wrong.strerror}", hint=_ANOTHER
        ) from wrong


def _make_folder(folder: Path) -> None:
    """Make *folder* and those it lies in; their names are durable on return."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def _damaged(what: str) -> LedgerDamagedError:
    return LedgerDamagedError(
        what, hint="run `gateway ledger fsck`; restore the newest copy, never an older one"
    )

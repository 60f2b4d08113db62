"""Zip files that are written in one way, and read as if an enemy had made them.

Written: names in order, no clock, no owner, so that the same content is the same file; whole or
not at all. Read: nothing is unpacked to a disk; every name, size and offset is checked before a
byte is decompressed, and what comes out is bounded by what was said, so that no small file
becomes a large one unseen.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from gateway.errors import EvidenceError, OperatorError
from gateway.limits import PACK_BYTES_MAX, PACK_FILES_MAX
from gateway.store.files import sync_folder

_STEP: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,119}"
NAME: Final = re.compile(f"(?:{_STEP}/){{0,4}}{_STEP}")
"""Names of files in a pack: no blanks, no steps upwards, nothing hidden."""

_CHUNK: Final = 1 << 20
_STREAM: Final = 1 << 12
"""Of a stream at once where it is only followed to its end: at most some MiB come of it."""
_END: Final = struct.Struct("<4s4H2LH")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_LOCAL_BYTES: Final = _LOCAL.size
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_CENTRAL_BYTES: Final = _CENTRAL.size
_RATIO_MAX: Final = 1_100
"""What deflate can do to a run of one letter is 1,032 to 1."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_EPOCH_WORDS: Final = (0, 0x21)
_UNIX: Final = 3
_VERSION: Final = 20
_MODE: Final = (stat.S_IFREG | 0o644) << 16
_AGAIN: Final = "take the pack from its source again"


class MalformedPackError(EvidenceError):
    """A zip file that is not a pack as the gateway writes them."""

    code = "pack.malformed"


def write_zip(path: Path, contents: Sequence[tuple[str, bytes | Path]]) -> None:
    """Write *contents* in that order to *path*, which appears whole or not at all.

    Raises:
        OperatorError: it can't be written, or something stands there already.
    """
    building = path.with_name(f".{path.name}.building")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise OperatorError(
                f"`{path}` already stands; a pack is never changed",
                hint="choose another name with --out",
                code="pack.exists",
            )
        try:
            _write(building, contents)
            # A name that was taken meanwhile stays as it is.
            os.link(building, path)
            sync_folder(path.parent)
        finally:
            with contextlib.suppress(FileNotFoundError):
                building.unlink()
    except OSError as exc:
        raise OperatorError(
            f"`{path}` could not be written: {exc.strerror}",
            hint="make room, or choose another place with --out",
            code="disk.unwell",
        ) from exc


def _write(building: Path, contents: Sequence[tuple[str, bytes | Path]]) -> None:
    with building.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, allowZip64=False) as zipped:
            for name, content in contents:
                info = zipfile.ZipInfo(name, _EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.create_system = _UNIX
                info.external_attr = _MODE
                with zipped.open(info, "w") as entry:
                    for chunk in _chunks(content):
                        entry.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _chunks(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


class Zipped:
    """A zip file opened for reading; what is in it is known, and nothing was unpacked yet."""

    def __init__(self, path: Path) -> None:
        """Look at every name and size in the file at *path*.

        Raises:
            MalformedPackError: it is no zip file, or not one as packs are.
            OSError: it can't be read.
        """
        self._file = path.open("rb")
        try:
            size = self._file.seek(0, 2)
            _check_end(self._file, size)
            try:
                self._zip = zipfile.ZipFile(self._file)
            except _BROKEN as exc:
                raise MalformedPackError(f"not a zip file: {exc}", hint=_AGAIN) from exc
            self._infos = _checked(self._zip.infolist(), size)
            _check_headers(self._file, self._zip)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._zip.close()
        self._file.close()

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return the names in it, in order, and how long each is."""
        return {name: info.file_size for name, info in self._infos.items()}

    def read(self, name: str, bytes_max: int) -> bytes:
        """Return the file *name* whole.

        Raises:
            MalformedPackError: there is none, it is longer than *bytes_max*, or broken.
        """
        if self.sizes.get(name, 0) > bytes_max:
            raise MalformedPackError(f"{name}: longer than {bytes_max} bytes", hint=_AGAIN)
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the file *name* piece by piece.

        Raises:
            MalformedPackError: there is none, or it is broken.
        """
        with self.open(name) as file:
            while True:
                try:
                    chunk = file.read(_CHUNK)
                except _BROKEN as exc:
                    raise _broken(name, exc) from exc
                if not chunk:
                    break
                yield chunk
        self._check_nothing_after(self._infos[name])

    def _check_nothing_after(self, info: zipfile.ZipInfo) -> None:
        """Check that a file's stream takes up all of its place: nothing is hidden behind it."""
        left = info.compress_size
        inflate = None if info.compress_type == zipfile.ZIP_STORED else zlib.decompressobj(-15)
        if inflate is None:
            left -= info.file_size
        self._file.seek(info.header_offset + _LOCAL_BYTES + len(info.filename))
        while inflate is not None and not inflate.eof and left:
            part = self._file.read(min(_STREAM, left))
            left -= len(part)
            inflate.decompress(part)
        if left or (inflate is not None and (inflate.unused_data or not inflate.eof)):
            raise MalformedPackError(
                f"{info.filename}: there is more, or less, than the file", hint=_AGAIN
            )

    def open(self, name: str) -> IO[bytes]:
        """Return the file *name*, to be read from front to back; see `guarded`.

        Raises:
            MalformedPackError: there is none, or it is broken.
        """
        info = self._infos.get(name)
        if info is None:
            raise MalformedPackError(f"{name}: the file is missing", hint=_AGAIN)
        try:
            return self._zip.open(info)
        except _BROKEN as exc:
            raise _broken(name, exc) from exc


_BROKEN: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    struct.error,
)


@contextlib.contextmanager
def guarded(name: str) -> Iterator[None]:
    """Turn what a broken file raises while it is read into an error that names it.

    Raises:
        MalformedPackError: it is broken.
    """
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError) as exc:
        raise _broken(name, exc) from exc


def _broken(name: str, exc: BaseException) -> MalformedPackError:
    return MalformedPackError(f"{name}: can't be read: {exc}", hint=_AGAIN)


def _check_end(file: IO[bytes], size: int) -> None:
    """Check that the directory at the end is one of a pack before all of it is read."""
    if size > PACK_BYTES_MAX:
        raise MalformedPackError(f"larger than {PACK_BYTES_MAX} bytes", hint=_AGAIN)
    file.seek(max(0, size - _END.size))
    end = file.read(_END.size)
    if len(end) < _END.size or not end.startswith(b"PK\x05\x06"):
        raise MalformedPackError("not a zip file, or not one as packs are", hint=_AGAIN)
    _, disk, first_disk, here, count, width, offset, comment = _END.unpack(end)
    if disk or first_disk or here != count or comment:
        raise MalformedPackError("a zip file in parts, or with a comment", hint=_AGAIN)
    if count > PACK_FILES_MAX:
        raise MalformedPackError(f"more than {PACK_FILES_MAX} files", hint=_AGAIN)
    if offset + width + _END.size != size or width > count * (_CENTRAL_BYTES + 1024):
        raise MalformedPackError("its directory is not where it should be", hint=_AGAIN)


def _checked(infos: Sequence[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    end = whole = 0
    for info in sorted(infos, key=lambda one: one.header_offset):
        name = info.orig_filename
        shown = "".join(char if char.isprintable() else "?" for char in name[:80])
        if not NAME.fullmatch(name) or info.filename != name:
            raise MalformedPackError(f"a file is called `{shown}`", hint=_AGAIN)
        if name in found:
            raise MalformedPackError(f"{name}: there twice", hint=_AGAIN)
        if (
            info.flag_bits
            or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            or info.extra
            or info.comment
            or not stat.S_ISREG(info.external_attr >> 16)
        ):
            raise MalformedPackError(f"{name}: not stored as in packs", hint=_AGAIN)
        if info.file_size > _RATIO_MAX * max(1, info.compress_size):
            raise MalformedPackError(f"{name}: it would grow too much", hint=_AGAIN)
        if info.header_offset != end:
            raise MalformedPackError(f"{name}: not where it should be", hint=_AGAIN)
        end += _LOCAL_BYTES + len(name.encode()) + info.compress_size
        whole += info.file_size
        found[name] = info
    if end > size or whole > PACK_BYTES_MAX:
        raise MalformedPackError(f"more than {PACK_BYTES_MAX} bytes", hint=_AGAIN)
    return found


def _check_headers(file: IO[bytes], zipped: zipfile.ZipFile) -> None:
    """Check that what is said of each file is what we say, before it and in the directory.

    Some readers believe the one and some the other, and not all read all of it; all are to find
    the same files.
    """
    directory = bytearray()
    for info in zipped.infolist():
        name = info.filename.encode()
        sizes = (info.CRC, info.compress_size, info.file_size, len(name), 0)
        said = (_VERSION, 0, info.compress_type, *_EPOCH_WORDS, *sizes)
        file.seek(info.header_offset)
        if file.read(_LOCAL_BYTES + len(name)) != _LOCAL.pack(b"PK\x03\x04", *said) + name:
            raise MalformedPackError(f"{info.filename}: not stored as in packs", hint=_AGAIN)
        version = _UNIX << 8 | _VERSION
        rest = (0, 0, 0, _MODE, info.header_offset)
        directory += _CENTRAL.pack(b"PK\x01\x02", version, *said, *rest) + name
    file.seek(zipped.start_dir)
    if not file.read().startswith(bytes(directory) + b"PK\x05\x06"):
        raise MalformedPackError("its directory is not as in packs", hint=_AGAIN)

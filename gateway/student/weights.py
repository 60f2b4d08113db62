"""The weights of a model by digest, whatever files they are saved in.

Of each tensor in the safetensors files of a folder its type, shape and bytes are digested; the
*weights digest* is over the set of those. What names tensors and files have, how they are
spread over files, in which order, how often the same one is saved and what else a header says
changes nothing; one other bit, another type or shape is another digest. The format's own header
is all that is needed: files are read once, piece by piece, and no training library is loaded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from gateway.errors import MalformedReceiptError
from gateway.ident import Sha256

WEIGHTS: Final = ".safetensors"
"""Ends the names of the files that hold weights; those at the top of a folder are the model."""

HEADER_BYTES_MAX: Final = 100_000_000
"""Longest header that the format allows."""

_PREFIX: Final = b"tos-gateway weights v1\n"
_LENGTH_BYTES: Final = 8
_PIECE_BYTES: Final = 1 << 20
_METADATA: Final = "__metadata__"
_DTYPE: Final = re.compile(r"\w{1,32}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What the weights in a folder are."""

    files: dict[str, Sha256]
    """SHA-256 of each file that holds some, by name."""
    sha256: Sha256 | None
    """The weights digest; `None` where no file holds a number."""
    tensors: int
    """Different ones."""


def is_weights(name: str) -> bool:
    """Tell whether *name* is that of a file at the top of a folder that holds weights."""
    return name.endswith(WEIGHTS) and "/" not in name


def read_weights(folder: Path) -> Weights:
    """Return what the weights at the top of *folder* are, each file read once.

    Raises:
        MalformedReceiptError: a file is no whole safetensors.
        OSError: a file can't be read.
    """
    files: dict[str, Sha256] = {}
    found: set[bytes] = set()
    for path in sorted(folder.glob(f"*{WEIGHTS}")):
        with path.open("rb") as file:
            try:
                files[path.name] = _read_file(file, found)
            except _BrokenError as broken:
                raise MalformedReceiptError(
                    f"{path.name}: holds no whole weights: {broken}"
                ) from broken
    whole = hashlib.sha256(_PREFIX + b"".join(sorted(found))).hexdigest() if found else None
    return Weights(
        files=files, sha256=None if whole is None else Sha256(whole), tensors=len(found)
    )


class _BrokenError(Exception):
    """Says in words what is wrong with a file."""


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def _read_file(file: IO[bytes], found: set[bytes]) -> Sha256:
    """Add the digest of each tensor of *file* to *found*; return that of the file itself."""
    whole = hashlib.sha256()
    start = _taken(file, _LENGTH_BYTES)
    length = int.from_bytes(start, "little")
    if length > HEADER_BYTES_MAX:
        raise _BrokenError(f"its header would be of {length} bytes")
    header = _taken(file, length)
    whole.update(start)
    whole.update(header)
    at = 0
    for tensor in _tensors_of(header):
        begin, end = tensor.data_offsets
        if begin != at or end < begin:
            raise _BrokenError("its tensors do not lie one after the other")
        shape = ",".join(map(str, tensor.shape))
        digest = hashlib.sha256(f"{tensor.dtype} {shape}\n".encode())
        for piece in _pieces(file, end - begin):
            digest.update(piece)
            whole.update(piece)
        if end > begin:
            found.add(digest.digest())
        at = end
    if file.read(1):
        raise _BrokenError("there is more in it than its tensors")
    return Sha256(whole.hexdigest())


def _tensors_of(header: bytes) -> list[_Tensor]:
    """Return the tensors that *header* names, in the order in which they lie."""
    try:
        named: dict[str, Any] = msgspec.json.decode(header, type=dict[str, Any])
        named.pop(_METADATA, None)
        tensors = [msgspec.convert(one, _Tensor) for one in named.values()]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _BrokenError("its header is none") from error
    if not all(
        _DTYPE.fullmatch(one.dtype) and min(one.shape, default=0) >= 0 for one in tensors
    ):
        raise _BrokenError("its header is none")
    return sorted(tensors, key=lambda one: one.data_offsets)


def _taken(file: IO[bytes], count: int) -> bytes:
    return b"".join(_pieces(file, count))


def _pieces(file: IO[bytes], count: int) -> Iterator[bytes]:
    while count:
        piece = file.read(min(count, _PIECE_BYTES))
        if not piece:
            raise _BrokenError("it ends too early")
        count -= len(piece)
        yield piece

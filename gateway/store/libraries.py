"""Keeps every policy library that was ever in force, under its digest.

A receipt names the digest of the library that it was ruled under; here is the text, so that
years later somebody can read it and rule again. Whoever can write here can lose a library, not
change one: what is read back is loaded again, and its digest says whether it is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import zstandard

from gateway.canonical import canonical_json
from gateway.errors import MalformedPolicyError, NotFoundError, OperatorError
from gateway.ident import Sha256
from gateway.limits import LIBRARY_BYTES_MAX
from gateway.store.files import sync_folder, write_durably

FOLDER: Final = "libraries"


def keep_library(data: Path, digest: Sha256, files: Mapping[str, str]) -> None:
    """Keep *files* as the library *digest*; durable on return.

    Raises:
        OperatorError: they can't be written.
    """
    path = _path(data, digest)
    if path.exists():
        return
    content = canonical_json(dict(files))
    if len(content) > LIBRARY_BYTES_MAX:
        raise OperatorError(
            f"the policy library is larger than {LIBRARY_BYTES_MAX} bytes",
            hint="take out of its folder what is no policy",
        )
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        sync_folder(data)
        write_durably(path, zstandard.compress(content), mode=0o600)
    except OSError as error:
        raise OperatorError(
            f"can't keep the policy library in {path.parent}: {error.strerror}",
            hint="give the gateway's account permission to, and space",
        ) from error


def kept_library(data: Path, digest: Sha256) -> dict[str, str]:
    """Return the files of the library *digest*.

    Raises:
        NotFoundError: it was never in force here.
        MalformedPolicyError: what is kept can't be read.
    """
    path = _path(data, digest)
    try:
        with path.open("rb") as file:
            unpacked = zstandard.ZstdDecompressor().stream_reader(file).read(LIBRARY_BYTES_MAX)
        return msgspec.json.decode(unpacked, type=dict[str, str])
    except FileNotFoundError as error:
        raise NotFoundError(
            f"no policy library {digest[:12]}… was ever in force here",
            hint="`gateway policy activations` lists those that were",
        ) from error
    except (OSError, zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise MalformedPolicyError(
            str(path), 1, "the kept library can't be read", hint="restore it from a backup"
        ) from error


def _path(data: Path, digest: Sha256) -> Path:
    return data / FOLDER / f"{digest}.json.zst"

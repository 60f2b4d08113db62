"""Reads a folder of policies from disk into text, and finds the library that ships.

Not here: what the text means (`policy/library.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

from gateway.errors import MalformedPolicyError, SettingError
from gateway.limits import YAML_BYTES_MAX

OWN: Final = "own"
"""What stands before the paths of the organisation's own files, beside those that ship."""

_SUFFIXES: Final = (".yaml", ".yml", ".md")
_FILES_MAX: Final = 20_000
"""A library of more files than this is some other folder."""


def builtin_policies() -> Path:
    """Return the folder of the policies that ship with the gateway.

    Raises:
        SettingError: they are in neither place where an installation puts them.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "policies_builtin", package.parent / "policies"):
        if folder.is_dir():
            return folder
    raise SettingError(
        "the built-in policies are not part of this installation",
        hint="set `policies` to a folder of policies",
    )


def read_policy_files(folder: Path, own: Path | None = None) -> dict[str, str]:
    """Return every policy file under *folder* as text by its path relative to it.

    Those under *own*, the organisation's, follow with `own/` before their paths.

    Raises:
        SettingError: *folder* is not a folder, can't be read, or holds no policy.
        MalformedPolicyError: a file in it is not UTF-8, or too large.
    """
    files = _files(folder)
    if not any(name.endswith("policy.yaml") for name in files):
        raise SettingError(
            f"`{folder}` holds no `policy.yaml`",
            hint="an empty library would forbid everything",
        )
    if own is not None:
        files |= {f"{OWN}/{name}": text for name, text in _files(own).items()}
    return files


def _files(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise SettingError(
            f"`{folder}` is no folder of policies",
            hint="set `policies` to one, or to `builtin`",
        )
    files: dict[str, str] = {}
    try:
        for name in sorted(_names(folder), key=lambda name: name.split("/")):
            path = folder / name
            if not path.is_file():
                continue
            if len(files) >= _FILES_MAX:
                raise SettingError(f"`{folder}` holds more than {_FILES_MAX} files")
            if not name.isprintable():
                # It could not be kept beside the receipts that name the library.
                raise SettingError(f"`{folder}` holds a file with an odd name: {name!a}")
            files[name] = _text(path, name)
    except OSError as error:
        raise SettingError(f"`{folder}` can't be read: {error.strerror}") from error
    return files


def _names(folder: Path) -> Iterator[str]:
    """Yield what may belong to a policy, by its path below *folder*."""

    def unread(error: OSError) -> NoReturn:
        raise error

    for place, _, names in os.walk(folder, onerror=unread):
        inside = Path(place).relative_to(folder).as_posix()
        before = "" if inside == "." else f"{inside}/"
        for name in names:
            if name.endswith(_SUFFIXES) and name not in _SUFFIXES:
                yield before + name


def _text(path: Path, name: str) -> str:
    try:
        if path.stat().st_size > YAML_BYTES_MAX:
            raise MalformedPolicyError(name, 1, f"larger than {YAML_BYTES_MAX} bytes")
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise MalformedPolicyError(
            name, line, "not UTF-8", hint="save the file as plain UTF-8"
        ) from error
    except OSError as error:
        raise SettingError(f"`{path}` can't be read: {error.strerror}") from error

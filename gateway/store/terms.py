"""Finds and reads documents of terms in a folder laid out as Open Terms Archive lays it out.

`<service>/<document>.md`, or one file a version, `<service>/<document>/2026-08-22.md` or
`<document>-2026-08-22.md`; plain text may end in `.txt`. Where several collections lie side by
side, each in a folder of its name, a document's path begins with that name. A file without a
day is the newest.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.day import parse_day
from gateway.errors import NotFoundError, SettingError
from gateway.limits import SNAPSHOT_BYTES_MAX
from gateway.policy.snapshot import Reading, read_terms

SUFFIXES: Final = (".md", ".txt")
_DATED: Final = re.compile(r"(?:^|[-_. ])(\d{4}-\d{2}-\d{2})(?:[T_ -][0-9TZ.:_-]*)?$")
_VERSIONS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One file of terms; *day* is its version's, or `None` where the file is the newest."""

    path: Path
    day: dt.date | None


class Archive:
    """A folder of terms, read as it is asked for."""

    def __init__(self, folder: Path, on: dt.date) -> None:
        if not folder.is_dir():
            raise NotFoundError(
                f"there is no folder `{folder}`", hint="name a folder of terms, as DIR"
            )
        self._folder = folder
        self._real = folder.resolve()
        self._on = on
        self._readings: dict[Path, tuple[bytes, Reading]] = {}

    def versions(self, file: str) -> list[Version]:
        """Return the versions of *file* up to the day, newest first.

        Raises:
            SettingError: the folder in which it would lie can't be listed.
        """
        try:
            return self._found(file)
        except OSError as error:
            raise SettingError(f"`{error.filename}` can't be read: {error.strerror}") from error

    def _found(self, file: str) -> list[Version]:
        for folder, name in self._places(file):
            found = [one for one in _versions(folder, name) if self._has(one)]
            if not found:  # a licence is often called `LICENSE`, and nothing else
                exact = Version(path=folder / file.rpartition("/")[2], day=None)
                found = [exact] if self._has(exact) else []
            if found:
                newest = dt.date.max
                return sorted(
                    found, key=lambda one: (one.day or newest, one.path), reverse=True
                )
        return []

    def files(self, folder: str) -> list[str]:
        """Return the paths of the documents that lie in *folder*, such as a service's."""
        found = set()
        for place, _ in self._places(f"{folder}/any"):
            if place.is_dir():
                for path in place.iterdir():
                    name = _DATED.sub("", path.stem) if path.suffix in SUFFIXES else ""
                    name = path.name if path.is_dir() else name
                    if name:
                        found.add(f"{folder}/{name}.md")
        return sorted(found)

    def read(self, version: Version) -> tuple[bytes, Reading]:
        """Return the bytes and the words of that version.

        Raises:
            SettingError: it is not a text, is too large, or lies outside of the folder.
        """
        path = version.path
        if path not in self._readings:
            content = self._content(path)
            try:
                text = content.decode("utf-8")
            except UnicodeDecodeError as error:
                line = content[: error.start].count(b"\n") + 1
                raise SettingError(f"`{path}` is not UTF-8 in line {line}") from error
            self._readings[path] = (content, read_terms(text))
        return self._readings[path]

    def _content(self, path: Path) -> bytes:
        try:
            if not path.resolve().is_relative_to(self._real):
                raise SettingError(f"`{path}` leads out of the folder of terms")
            with path.open("rb") as file:
                content = file.read(SNAPSHOT_BYTES_MAX + 1)
        except OSError as error:
            raise SettingError(f"`{path}` can't be read: {error.strerror}") from error
        if len(content) > SNAPSHOT_BYTES_MAX:
            raise SettingError(f"`{path}` is larger than {SNAPSHOT_BYTES_MAX} bytes")
        return content

    def _has(self, version: Version) -> bool:
        return version.path.is_file() and (version.day is None or version.day <= self._on)

    def _places(self, file: str) -> Iterator[tuple[Path, str]]:
        """Yield the folders in which *file* may lie, and its name without the ending."""
        *folders, name = file.split("/")
        stem = re.sub(r"\.(md|txt)$", "", name)
        yield self._folder.joinpath(*folders), stem
        if folders and folders[0] == self._real.name:
            yield self._folder.joinpath(*folders[1:]), stem


def _versions(folder: Path, stem: str) -> Iterator[Version]:
    """Yield the files in *folder* that are versions of the document called *stem*."""
    for suffix in SUFFIXES:
        yield Version(path=folder / (stem + suffix), day=None)
    for place, lead in ((folder / stem, ""), (folder, stem)):
        if not place.is_dir():
            continue
        for count, path in enumerate(place.iterdir()):
            if count >= _VERSIONS_MAX:
                raise SettingError(f"`{place}` holds more than {_VERSIONS_MAX} files")
            if path.suffix not in SUFFIXES or not path.stem.startswith(lead):
                continue
            dated = _DATED.fullmatch(path.stem[len(lead) :])
            if dated and (day := parse_day(dated[1])):
                yield Version(path=path, day=day)

"""Laws of small files that are never half written."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gateway.store.files import write_durably, write_once


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """Writing durably replaces what was there and leaves nothing beside it."""
    path = tmp_path / "checkpoint"
    for content in (b"one", b"two, longer", b""):
        write_durably(path, content)

        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_made_once(tmp_path: Path) -> None:
    """Writing once makes a private file, and refuses to take the place of another."""
    path = tmp_path / "log.key"
    write_once(path, b"secret")

    with pytest.raises(FileExistsError):
        write_once(path, b"other")

    assert path.read_bytes() == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    """Where the place can't be taken, what was written beside it is removed."""
    place = tmp_path / "taken"
    (place / "inside").mkdir(parents=True)

    with pytest.raises(OSError, match="directory"):
        write_durably(place, b"content")

    assert list(tmp_path.iterdir()) == [place]

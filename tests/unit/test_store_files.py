"""Laws of small files that are never half written."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import pytest

from gateway.errors import MissingPieceError
from gateway.store.files import entries_of, paths_below, write_durably, write_once
from tests.unit.test_policy_files import as_nobody


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


def test_what_lies_in_a_folder_is_told_by_name(tmp_path: Path) -> None:
    """Everything stands once, sorted; where there is no folder nothing lies in it."""
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / "b" / "deep" / "file").touch()
    (tmp_path / "a").touch()

    assert entries_of(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert paths_below(tmp_path) == [tmp_path / "a", tmp_path / "b" / "deep" / "file"]
    assert (entries_of(tmp_path / "never"), entries_of(tmp_path / "b" / "deep" / "no")) == (
        [],
        [],
    )


@pytest.mark.parametrize("mode", [0o000, 0o311, 0o644])
def test_a_folder_that_may_not_be_looked_into_is_not_passed_over(mode: int) -> None:
    """Whether names or what they name is shut: it is said, with the folder, and not skipped."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        shut = Path(place, "open", "shut")
        shut.mkdir(parents=True)
        (shut / "deep").mkdir()
        shut.chmod(mode)
        try:
            with as_nobody():
                for look, at in ((entries_of, shut), (paths_below, shut.parent)):
                    with pytest.raises(MissingPieceError, match=f"`{shut}.*Permission denied"):
                        look(at)
        finally:
            shut.chmod(0o755)

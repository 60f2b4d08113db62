"""Folders of datasets are found by their manifests, and what is shut is said."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from gateway.errors import MissingPieceError
from gateway.ident import Sha256
from gateway.lineage.folders import Folders, payload_in
from tests.unit.test_policy_files import as_nobody

WANTED = Sha256("a" * 64)


def test_what_is_no_folder_is_said(tmp_path: Path) -> None:
    """A place that can't be looked into has none of what is asked for, as far as is known."""
    (tmp_path / "datasets").write_text("")
    folders = Folders([tmp_path / "datasets", tmp_path / "never"])

    assert folders(WANTED) is None
    assert folders.shut == [f"`{tmp_path}/datasets` can't be looked into: Not a directory"]


def test_a_folder_that_may_not_be_looked_into_is_said() -> None:
    """Neither the place itself nor a dataset in it is passed over without a word."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        one, other = Path(place, "one"), Path(place, "other")
        (one / "dataset").mkdir(parents=True)
        (one / "dataset").chmod(0)
        other.mkdir(mode=0)
        with as_nobody():
            folders = Folders([one, other])
            assert folders(WANTED) is None
            with pytest.raises(MissingPieceError, match="can't be looked into"):
                payload_in(one / "dataset")

    assert [line.partition(" ")[0] for line in folders.shut] == [
        f"`{one}/dataset`",
        f"`{other}`",
    ]

"""What a student may begin as, and what is known of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway.errors import GateRefusedError, MissingPieceError
from gateway.ident import Sha256
from gateway.student.bases import Ours, context_of, find_base, licence_of, tiny_base
from gateway.student.evaluate import ASKING
from gateway.student.reexamine import Retest, _base_of
from gateway.student.verify import VerifiedModel
from tests.support.evidence import TRUST
from tests.support.tensors import numbered, write_tensors
from tests.unit.test_student_manifest import a_manifest

NOBODY = Ours(trust=TRUST, students=list, held=lambda _: None)
"""A ledger without a student."""


def a_checkpoint(folder: Path, card: str | None = None) -> Path:
    """Make a folder that looks like a checkpoint."""
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 64}')
    write_tensors(folder / "model.safetensors", [numbered(1)])
    if card is not None:
        (folder / "README.md").write_text(card)
    return folder


def test_a_base_that_is_not_there_says_who_must_do_what(tmp_path: Path) -> None:
    """A missing path is one line with the next move."""
    with pytest.raises(MissingPieceError, match="no base checkpoint") as missing:
        find_base(str(tmp_path / "nothing"), 0, NOBODY)

    assert "--base tiny" in missing.value.hint


def test_a_folder_without_weights_is_no_base(tmp_path: Path) -> None:
    """Weights are read from safetensors alone; pickles are not looked at."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")

    with pytest.raises(MissingPieceError, match="no checkpoint"):
        find_base(str(tmp_path), 0, NOBODY)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (None, "unknown"),
        ("# no front matter\nlicense: mit\n", "unknown"),
        ("---\nlicense: Apache-2.0\n---\n", "apache-2.0"),
        ('---\ntags: [a]\nlicense: "mit"\n---\nlicense: gpl\n', "mit"),
        ("---\ntags: [a]\n---\nlicense: gpl\n", "unknown"),
    ],
)
def test_a_licence_is_what_the_card_says_or_unknown(
    tmp_path: Path, card: str | None, licence: str
) -> None:
    """A licence is read from the card's front matter and never guessed."""
    folder = a_checkpoint(tmp_path / "org-model", card)

    assert licence == licence_of(folder)
    if licence == "unknown":
        with pytest.raises(GateRefusedError, match="nobody says under which licence"):
            find_base(str(folder), 0, NOBODY)
    else:
        assert licence == find_base(str(folder), 0, NOBODY).base.licence


def test_a_changed_file_is_another_base(tmp_path: Path) -> None:
    """The digest of a base covers each of its files."""
    folder = a_checkpoint(tmp_path / "model", "---\nlicense: mit\n---\n")
    before = find_base(str(folder), 0, NOBODY).base
    write_tensors(folder / "model.safetensors", [numbered(2)])

    assert before.sha256 != find_base(str(folder), 0, NOBODY).base.sha256
    assert context_of(folder) == 64


def test_a_tiny_base_is_named_by_its_seed() -> None:
    """The same seed is the same base."""
    assert tiny_base(1) == tiny_base(1)
    assert tiny_base(1).sha256 != tiny_base(2).sha256


def test_a_base_is_asked_again_in_whatever_files_it_lies(tmp_path: Path) -> None:
    """Whoever is to ask the base, too, finds it by its weights; other weights are refused."""
    folder = a_checkpoint(tmp_path / "model", "---\nlicense: mit\n---\n")
    began = find_base(str(folder), 0, NOBODY).base
    manifest = a_manifest()
    asked = msgspec.structs.replace(manifest.asked, base=began)
    model = VerifiedModel(
        path=tmp_path / "student",
        payload_sha256=Sha256("a" * 64),
        index=0,
        manifest=msgspec.structs.replace(manifest, asked=asked),
        datasets=(),
    )
    retest = Retest(model=model, datasets=(), base=folder, asking=ASKING)
    (folder / "model.safetensors").unlink()
    write_tensors(folder / "weights.safetensors", [numbered(1, "other")], {"by": "ada"})

    assert folder == _base_of(retest)
    write_tensors(folder / "weights.safetensors", [numbered(2)])
    with pytest.raises(GateRefusedError, match="is not base `model`"):
        _base_of(retest)

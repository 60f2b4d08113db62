"""An adapter goes without its base, and tells nobody where on a machine that lies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.dataset.assembly.build import Built
from gateway.errors import BadDigestError, MissingPieceError
from gateway.student.evaluate import Asking
from gateway.student.offline import seal_off
from gateway.student.recipe import Lora, recipe_for
from gateway.student.reexamine import Retest, datasets_of, reexamine
from gateway.student.run import Trained
from gateway.student.verify import VerifiedModel, verify_model
from tests.student.test_evaluate import answer, build
from tests.support.evidence import TRUST
from tests.support.student import Quiet, School

pytestmark = pytest.mark.student

SECRET = "merger-with-hooli"
"""A word that stands in the path of the base and nowhere else."""


TABLE = b'{"__metadata__":{"format":"pt"},"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
OTHER_WEIGHTS = len(TABLE).to_bytes(8, "little") + TABLE + bytes(4)
"""A file of weights, whole, with one tensor that no model has."""


@dataclass(frozen=True)
class Adapter:
    """A student that is an adapter on a checkpoint of this machine."""

    school: School
    dataset: Built
    base: Path
    model: VerifiedModel


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    """Return an adapter on a base that lies in a folder with a telling name."""
    seal_off()
    # Imported here, after collection: it loads the training libraries.
    from gateway.student.tiny import tiny_model, tiny_tokenizer  # noqa: PLC0415

    base = tmp_path_factory.mktemp(SECRET) / "small"
    tokenizer = tiny_tokenizer(["alder beech tree not a tree seen from the harbour at"])
    tiny_model(tokenizer, 5).save_pretrained(base)
    tokenizer.save_pretrained(base)
    (base / "README.md").write_text("---\nlicense: open\n---\n")
    school = School(tmp_path_factory.mktemp("school"))
    for number in range(16):
        answer(school, number)
    built = build(school, "set", "0.25")
    student = school.train(
        built,
        recipe_for("base", steps=2, batch=4, save_every=2, lora=Lora(rank=2)),
        base=str(base),
    )
    assert isinstance(student, Trained)
    yield Adapter(school, built, base, verify_model(student.folder, TRUST))
    school.close()


def test_no_file_of_the_folder_names_a_place_of_the_machine(made: Adapter) -> None:
    """Whatever is signed and handed on names the base by name and digest, never by path."""
    files = [path for path in made.model.path.rglob("*") if path.is_file()]
    telling = {
        path.name
        for path in files
        for place in (SECRET, str(made.school.house.folder), str(Path.home()) + os.sep)
        if place.encode() in path.read_bytes()
    }

    assert len(files) > 10
    assert not telling
    assert made.model.manifest.asked.base.name == "small"
    assert '"small"' in (made.model.path / "adapter_config.json").read_text()


def test_where_it_was_trained_it_is_asked_with_its_base(made: Adapter) -> None:
    """Evaluated again it gives the signed figures, base and all; nobody says where that is."""
    datasets = datasets_of(made.model, [made.dataset.folder], made.school.sources())
    retest = Retest(model=made.model, datasets=datasets, asking=Asking())
    again = reexamine(retest, made.school.sources(), Quiet())

    assert again.evaluation == made.model.manifest.found.evaluation
    assert again.evaluation.figure("loss", "base") is not None


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda whole: whole[:5000], "holds no whole weights"),
        (lambda _: b"", "holds no whole weights"),
        (lambda _: OTHER_WEIGHTS, "not those of its config.json"),
    ],
    ids=["cut-off", "empty", "of-another"],
)
def test_a_base_without_its_weights_is_no_base(
    made: Adapter,
    tmp_path: Path,
    harm: Callable[[bytes], bytes],
    told: str,
    request: pytest.FixtureRequest,
) -> None:
    """Weights that are cut off, or another model's, are a line; chance makes up for none."""
    base = tmp_path / "base"
    shutil.copytree(made.base, base)
    weights = base / "model.safetensors"
    weights.write_bytes(harm(weights.read_bytes()))
    recipe, out = recipe_for("base", steps=2, batch=4), request.node.name

    with pytest.raises(MissingPieceError, match=told):
        made.school.train(made.dataset, recipe, base=str(base), out=out, asking=None)

    assert not (made.model.path.parent / out).exists()


def test_elsewhere_it_says_what_it_needs_and_takes_no_other(
    made: Adapter, tmp_path: Path
) -> None:
    """A copy verifies by itself; to speak it is told where the base is, and checks it."""
    from gateway.student.serve import load  # noqa: PLC0415  # after the seal

    copy = tmp_path / "parser"
    shutil.copytree(made.model.path, copy)
    verify_model(copy, TRUST)
    with pytest.raises(MissingPieceError, match="needs its base") as missing:
        load(copy)
    other = tmp_path / "other"
    shutil.copytree(made.base, other)
    (other / "generation_config.json").write_text("{}")
    with pytest.raises(BadDigestError, match="not the one of the adapter, `small`"):
        load(copy, other)

    assert "--base FOLDER" in missing.value.hint
    load(copy, made.base)
    # One of that name beside the folder is found.
    shutil.copytree(made.base, tmp_path / "small")
    load(copy)

"""A student that is saved again in other files is still that student."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.main import main
from gateway.errors import GateRefusedError
from gateway.student.recipe import Lora, recipe_for
from gateway.student.run import Trained
from gateway.student.verify import verify_model
from gateway.student.weights import read_weights
from tests.support.evidence import TRUST
from tests.support.student import Quiet, School, install

pytestmark = pytest.mark.student

SHORT = recipe_for("tiny", steps=2, batch=8)


@pytest.fixture
def school(tmp_path: Path) -> Iterator[School]:
    """Return a school with an empty ledger."""
    school = School(tmp_path)
    yield school
    school.close()


def saved_again(model: Path, folder: Path, change: Callable[[Any], Any] | None = None) -> Path:
    """Load the model at *model* as anybody would, and save it in many files at *folder*."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415  # slow

    loaded = AutoModelForCausalLM.from_pretrained(model, local_files_only=True, dtype="auto")
    loaded = loaded if change is None else change(loaded)
    loaded.save_pretrained(folder, max_shard_size="200KB")
    AutoTokenizer.from_pretrained(model, local_files_only=True).save_pretrained(folder)
    return folder


def test_a_student_saved_in_other_files_is_that_student(school: School, tmp_path: Path) -> None:
    """Whoever goes on from it has it, and all its teachers, above; no licence is asked for."""
    first = school.train(school.dataset(8), SHORT)
    assert isinstance(first, Trained)
    again = saved_again(first.folder, tmp_path / "again")
    screen = Quiet()
    second = school.train(
        school.house.build(school.declaration, "more"),
        SHORT,
        screen,
        base=str(again),
        out="second",
    )
    assert isinstance(second, Trained)
    files = read_weights(again).files
    base = verify_model(second.folder, TRUST).manifest.asked.base

    assert len(files) > 1
    assert not set(files.values()) & set(read_weights(first.folder).files.values())
    assert first.manifest.found.weights == read_weights(again).sha256
    assert (first.payload_sha256, "again", None) == (base.manifest, base.name, base.weights)
    assert "it has the weights of student `parser`, and is that" in screen.written.getvalue()


def test_a_student_of_which_something_was_withdrawn_is_no_base_in_other_files(
    school: School, tmp_path: Path
) -> None:
    """What is held is held in whatever files it comes, though one of its name stands by it."""
    built = school.dataset(8)
    first = school.train(built, SHORT)
    assert isinstance(first, Trained)
    twin = school.train(built, SHORT, out="twin")
    assert isinstance(twin, Trained)
    school.house.withdraw(manifest=twin.payload_sha256)
    again = saved_again(first.folder, tmp_path / "again")
    built = school.house.build(school.declaration, "more")

    assert twin.manifest.found.weights == first.manifest.found.weights
    with pytest.raises(GateRefusedError, match="withdrawn by grace") as refused:
        school.train(built, SHORT, base=str(again), out="second")
    assert refused.value.problem == "student.withdrawn"


@pytest.mark.parametrize("how", ["rounded", "changed"])
def test_what_was_changed_is_nobodys(how: str, school: School, tmp_path: Path) -> None:
    """Other precision and other numbers are not seen: it is a base from outside, no more."""
    first = school.train(school.dataset(8), SHORT)
    assert isinstance(first, Trained)

    def change(model: Any) -> Any:
        import torch  # noqa: PLC0415  # slow

        if how == "rounded":
            return model.to(torch.bfloat16)
        with torch.no_grad():
            next(iter(model.parameters()))[0, 0] += 1
        return model

    other = saved_again(first.folder, tmp_path / "other", change)
    (other / "README.md").write_text("---\nlicense: open\n---\n")
    built = school.house.build(school.declaration, "more")
    second = school.train(built, SHORT, base=str(other), out="second")
    assert isinstance(second, Trained)
    base = second.manifest.asked.base

    assert (None, read_weights(other).sha256) == (base.manifest, base.weights)
    (edge,) = (one for one in second.manifest.dependencies if one.kind == "base-model")
    assert edge.annotations["weights"] == base.weights


def test_an_adapter_in_another_file_is_that_student(school: School, tmp_path: Path) -> None:
    """What was learned beside a base is known as weights are; the base itself is not it."""
    recipe = recipe_for("tiny", steps=2, batch=8, lora=Lora(rank=2))
    first = school.train(school.dataset(8), recipe)
    assert isinstance(first, Trained)
    weights = read_weights(first.folder)

    assert ["adapter_model.safetensors"] == list(weights.files)
    assert first.manifest.found.weights == weights.sha256
    assert read_weights(first.folder / "base").sha256 != weights.sha256


def test_a_folder_without_a_manifest_is_asked_about_by_its_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Withdrawn and saved in other files: it is refused as a base, and the answer is yes."""
    dataset = install(tmp_path, 8)
    house = ["--config", str(tmp_path / "gateway.yaml")]
    train = ["student", "train", str(dataset), "--steps", "2", "--json"]
    assert main([*house, *train]) == 0
    trained = json.loads(capsys.readouterr().out)
    again = saved_again(Path(trained["folder"]), tmp_path / "again")
    ask = [*house, "lineage", "ask", "distilled-from:open", str(again)]

    assert main([*ask, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    digest = read_weights(again).sha256
    given = (
        f"is the student `parser`: its training manifest signs these weights, digest {digest}"
    )
    assert ("yes", True) == (told["says"], told["restsOn"][0].endswith(given))
    assert main([*house, "lineage", "show", str(again)]) == 0
    assert given in capsys.readouterr().out.replace("\n", " ")

    withdraw = [
        "review",
        "withdraw",
        trained["manifest"],
        "--by",
        "grace",
        "--reason",
        "asked to",
    ]
    assert main([*house, *withdraw]) == 0
    elsewhere = ["--base", str(again), "--out", str(tmp_path / "second")]
    capsys.readouterr()
    assert main([*house, *train, *elsewhere]) == 1
    assert "student.withdrawn: something base `again` comes from was withdrawn by grace" in (
        capsys.readouterr().err
    )
    assert main(ask) == 0
    told_again = capsys.readouterr().out
    assert told_again.startswith("Yes: model `parser`")
    assert "WITHDRAWN since: manifest" in told_again

    shutil.copyfile(again / "config.json", tmp_path / "config.json")
    (again / "model.safetensors.index.json").unlink()
    next(again.glob("*.safetensors")).unlink()
    assert main(ask) == 2
    assert "are no student's of this ledger, as far as digests can tell" in (
        capsys.readouterr().err
    )

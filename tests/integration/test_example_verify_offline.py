"""`examples/verify_offline`, as an auditor runs it: on receipts, datasets and models."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from gateway.dataset.manifest import DATASET_MANIFEST, manifest_dependency
from gateway.receipt.keys import format_trust
from tests.support.dataset import House
from tests.support.derived import build, derive, messages, parent
from tests.support.evidence import TRUST
from tests.support.foreign import EXAMPLE, build_go_verifier, flipped
from tests.support.model import sign
from tests.unit.test_student_manifest import a_manifest

VECTORS: Any = json.loads(
    (Path(__file__).parents[1] / "conformance/vectors/ledger.json").read_bytes()
)


class Auditor:
    """Someone with the folder of the example, and Go's verifier built in it."""

    def __init__(self, folder: Path) -> None:
        self.desk = Path(shutil.copytree(EXAMPLE, folder / "verify_offline"))
        shutil.copy(build_go_verifier(folder).program, self.desk / "go" / "verify")

        self._main = loaded(self.desk / "verify_with_others.py").main

    def check(self, what: str, path: Path, trust: Path) -> tuple[int, str]:
        """Ask the example; return its exit code and what it said."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = self._main([what, str(path), str(trust)])
        return code, said.getvalue()


def loaded(script: Path) -> ModuleType:
    """Return a script as a module."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def auditor(tmp_path_factory: pytest.TempPathFactory) -> Auditor:
    """Return an auditor."""
    return Auditor(tmp_path_factory.mktemp("auditor"))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return a house with a dataset and a model that learned from it."""
    house = House(tmp_path_factory.mktemp("house"))
    declaration = house.declare()
    for number in range(300):
        first, second = f"answer {number}", f"another answer {number}"
        house.answer(declaration, *((first, second) if number % 3 == 0 else (first,)))
    built = house.build(declaration)
    answer = house.answer(declaration, "one more")
    made = derive(
        house,
        declaration,
        [(messages("tidy?", "tidied"), [parent(house, answer)])],
        name="tidy",
    )
    rows = [
        (messages(f"question {at} of {at * 7} words", f"row {at}"), [parent(house, made)])
        for at in range(9)
    ]
    derive(house, declaration, rows)
    build(house, declaration, "made", of="rewrite", held_out="0.3")
    model = house.folder / "model"
    (model / "evidence").mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "config.json").write_bytes(b"{}")
    for name in ("manifest.json", "manifest.tlog-proof"):
        shutil.copyfile(built.folder / name, model / "evidence" / f"set.{name}")
    manifest = a_manifest(teachers=built.manifest.found.teachers, use=built.manifest.found.use)
    dependency = manifest_dependency("dataset:set", built.manifest_sha256, DATASET_MANIFEST)
    sign(house, model, msgspec.structs.replace(manifest, dependencies=(dependency,)))
    (house.folder / "trust.json").write_bytes(format_trust(TRUST))
    yield house
    house.close()


@pytest.fixture
def trust(house: House) -> Path:
    """Return the trust file of the house."""
    return house.folder / "trust.json"


# -- receipts -------------------------------------------------------------------------------


def written(folder: Path, bundle: str, trust: Any) -> tuple[Path, Path]:
    """Write a bundle and a trust file of the vectors."""
    (folder / "bundle").write_text(bundle)
    (folder / "trust.json").write_text(json.dumps(trust))
    return folder / "bundle", folder / "trust.json"


@pytest.mark.parametrize("kind", VECTORS["bundles"])
def test_a_bundle_is_verified(kind: str, auditor: Auditor, tmp_path: Path) -> None:
    """Each kind of leaf, under a checkpoint that a witness cosigned."""
    files = written(tmp_path, VECTORS["bundles"][kind], VECTORS["trust"])
    code, said = auditor.check("receipt", *files)

    assert (0, "verified") == (code, said.splitlines()[-1]), said


SPELLING = {"an unknown key", "keys in another order", "a newline at the end", "blanks"}


@pytest.mark.parametrize(
    "one", [pytest.param(one, id=one["why"]) for one in VECTORS["refused"]]
)
def test_what_is_no_evidence_is_refused(
    one: dict[str, str], auditor: Auditor, tmp_path: Path
) -> None:
    """What somebody wrote who may not say it is refused; another spelling is no harm."""
    old = one["why"] == "the form of an earlier release"
    code, said = auditor.check("receipt", *written(tmp_path, one["bundle"], VECTORS["trust"]))

    assert (0 if one["why"] in SPELLING or old else 1) == code, said


@pytest.mark.parametrize(
    "one", [pytest.param(one, id=one["why"]) for one in VECTORS["refusedUnder"]]
)
def test_another_trust_refuses_it(
    one: dict[str, Any], auditor: Auditor, tmp_path: Path
) -> None:
    """Other keys, other witnesses, or an end of the key before the leaf."""
    files = written(tmp_path, VECTORS["bundles"]["receipt"], one["trust"])
    code, said = auditor.check("receipt", *files)

    assert 1 == code, said


# -- trust files ----------------------------------------------------------------------------


def trust_of(
    folder: Path, signature: str, file: str = VECTORS["trustFile"]
) -> tuple[Path, Path]:
    """Write a trust file with its signature beside it, and the root's public key."""
    (folder / "trust.json").write_text(file)
    (folder / "trust.sigstore.json").write_text(signature)
    (folder / "root.pub").write_text(VECTORS["root"]["public"])
    return folder / "trust.json", folder / "root.pub"


def test_a_trust_file_is_verified(auditor: Auditor, tmp_path: Path) -> None:
    """Whoever has the root's public key takes no trust file on faith."""
    files = trust_of(tmp_path, VECTORS["trustSignature"])
    code, said = auditor.check("trust", *files)

    assert 0 == code, said
    assert "signed by the root key" in said


@pytest.mark.parametrize(
    "signature", [one["signature"] for one in VECTORS["trustSignatureRefused"]]
)
def test_another_signature_is_refused(signature: str, auditor: Auditor, tmp_path: Path) -> None:
    """Another file, another key, another log, or a statement about something else."""
    assert 1 == auditor.check("trust", *trust_of(tmp_path, signature))[0]


def test_a_changed_trust_file_is_refused(auditor: Auditor, tmp_path: Path) -> None:
    """A quorum of none is not what the root signed."""
    changed = VECTORS["trustFile"].replace('"quorum": 1', '"quorum": 0')
    code, said = auditor.check("trust", *trust_of(tmp_path, VECTORS["trustSignature"], changed))

    assert 1 == code, said


# -- datasets and models --------------------------------------------------------------------


def test_a_dataset_is_verified(auditor: Auditor, house: House, trust: Path) -> None:
    """Manifest, files, receipts, keys and rows; each is told."""
    code, said = auditor.check("dataset", house.folder / "datasets" / "set", trust)

    assert 0 == code, said
    assert "300 leaves of rows, 0 above and 1 key statements are among" in said
    assert "300 receipts or derivations, each signed" in said
    assert "400 rows, each as what vouches for it committed to it" in said


def test_rows_made_of_others_are_verified(auditor: Auditor, house: House, trust: Path) -> None:
    """Derivations, what stands above them, and the rows that are held out, too."""
    code, said = auditor.check("dataset", house.folder / "datasets" / "made", trust)

    assert 0 == code, said
    assert "1 leaves of rows, 2 above and 1 key statements are among" in said
    assert "2 leaves above them, each signed, and found where it is named" in said
    assert "9 rows, each as what vouches for it committed to it" in said


def test_a_model_is_verified(auditor: Auditor, house: House, trust: Path) -> None:
    """Manifest, files, what it learned from, and its weights once more."""
    code, said = auditor.check("model", house.folder / "model", trust)

    assert 0 == code, said
    assert "learned from dataset set" in said
    assert "model.sig is over the same 6 files" in said


def change(name: str, at: int = -30) -> Callable[[Path], None]:
    """Return what changes one bit of a file."""

    def bend(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(flipped(content, at % len(content)))

    return bend


BENT: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a row": ("dataset", change("rows.jsonl")),
    "a salt": ("dataset", change("receipts.jsonl", 150)),
    "a receipt": ("dataset", change("evidence/leaves", 900)),
    "a hash of a leaf": ("dataset", change("evidence/tiles/0", 64)),
    "the topmost hash": ("dataset", change("evidence/tiles/1", 0)),
    "the checkpoint": ("dataset", change("evidence/checkpoint", 30)),
    "the authorisation": ("dataset", change("evidence/keys.jsonl", 400)),
    "the manifest": ("dataset", change("manifest.json", 700)),
    "the manifest's proof": ("dataset", change("manifest.tlog-proof", 60)),
    "a file too many": ("dataset", lambda path: (path / "more").write_text("")),
    "a file missing": ("dataset", lambda path: (path / "policies.json").unlink()),
    "a link": ("dataset", lambda path: (path / "more").symlink_to("rows.jsonl")),
    "a row held out": ("made", change("held-out.jsonl")),
    "a leaf above": ("made", change("evidence/above/leaves", 900)),
    "a leaf above's place": ("made", change("evidence/above/leaves", 7)),
    "a hash of a leaf above": ("made", change("evidence/above/tiles/0", 64)),
    "another model's manifest": (
        "dataset",
        lambda path: shutil.copy(path.parents[1] / "model/manifest.json", path),
    ),
    "the weights": ("model", change("model.safetensors", 0)),
    "the model's manifest": ("model", change("manifest.json", 700)),
    "the model's signature": ("model", change("model.sig", 700)),
    "what it learned from": ("model", change("evidence/set.manifest.json", 700)),
    "what it learned from is not shown": (
        "model",
        lambda path: (path / "evidence/set.manifest.json").unlink(),
    ),
}


@pytest.mark.parametrize("mutation", BENT)
def test_a_bent_folder_is_refused(
    mutation: str, auditor: Auditor, house: House, trust: Path, tmp_path: Path
) -> None:
    """One bit anywhere, a file too many or too few: it is not what was signed."""
    what, bend = BENT[mutation]
    shutil.copytree(house.folder / "model", tmp_path / "house/model")
    shutil.copytree(house.folder / "datasets", tmp_path / "house/datasets")
    names = {"model": "model", "dataset": "datasets/set", "made": "datasets/made"}
    folder = tmp_path / "house" / names[what]
    bend(folder)
    code, said = auditor.check("model" if what == "model" else "dataset", folder, trust)

    assert (1, "fail") == (code, said.splitlines()[-1][:4]), said


def test_it_runs_from_the_command_line(auditor: Auditor, house: House, trust: Path) -> None:
    """As the README says: one command, a line for each thing found true, and an exit code."""
    script = auditor.desk / "verify_with_others.py"
    model = house.folder / "model"
    words: list[str | Path] = [sys.executable, script, "model", model, trust]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=200)

    assert (0, "verified") == (done.returncode, done.stdout.splitlines()[-1]), done.stderr


def test_it_says_what_is_missing(auditor: Auditor, tmp_path: Path) -> None:
    """Asked wrongly, or without the Go program, it says what to do."""
    assert 2 == auditor.check("nothing", tmp_path, tmp_path)[0]
    (auditor.desk / "go" / "verify").rename(auditor.desk / "go" / "aside")
    try:
        code, said = auditor.check("receipt", tmp_path, tmp_path)
    finally:
        (auditor.desk / "go" / "aside").rename(auditor.desk / "go" / "verify")

    assert 2 == code
    assert "README.md says how" in said

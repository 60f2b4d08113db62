"""Every command of the guide on answering works, in a folder as the guide describes it."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

from gateway.app.installation import Installation, open_installation
from gateway.cli.main import main
from gateway.dataset.manifest import (
    BASE_MODEL,
    DATASET_MANIFEST,
    manifest_dependency,
)
from gateway.dataset.provenance import Dependency
from gateway.ident import Sha256
from gateway.lineage.folders import payload_in
from gateway.receipt.model import PROVENANCE_TYPE, STATEMENT_TYPE, TRAINING_BUILD
from gateway.receipt.sigstore import write_manifest
from tests.support.student import install

GUIDE: Final = Path(__file__).resolve().parents[2] / "docs" / "guides" / "answering.md"
EXPECTED: Final = re.compile(r"\s+# exits ([0-9])$")


def train(house: Installation, name: str, dataset: Sha256, outside: str | None = None) -> None:
    """Put a student into the log and its folder where the trainer would."""
    parents = [manifest_dependency("dataset:set", dataset, DATASET_MANIFEST)]
    if outside is not None:
        parents.append(
            Dependency(
                name=f"base:{outside}",
                digest={"sha256": "a" * 64},
                annotations={"kind": BASE_MODEL},
            )
        )
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": "model.safetensors", "digest": {"sha256": "e" * 64}}],
        "predicateType": PROVENANCE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": TRAINING_BUILD,
                "externalParameters": {"student": name},
                "internalParameters": {"snapshot": {"rows": 6, "tokens": 90, "learned": 40}},
                "resolvedDependencies": msgspec.to_builtins(parents),
            },
            "runDetails": {"metadata": {"finishedOn": "2026-11-22T00:00:00Z"}},
        },
    }
    encoded, leaf = write_manifest(statement, house.keyring.manifest)
    house.sequencer.append_and_wait(leaf)
    folder = house.data / "students" / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(encoded)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an installation with a dataset and two students."""
    folder = tmp_path_factory.mktemp("answering")
    dataset = payload_in(install(folder, 6))
    assert dataset is not None
    args = argparse.Namespace(config=str(folder / "gateway.yaml"))
    with contextlib.closing(open_installation(args)) as house:
        train(house, "reader", dataset)
        train(house, "based", dataset, outside="elsewhere/base-1b")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Iterator[Path]:
    """Return a copy of the installation, with the test standing in it."""
    shutil.copytree(made, tmp_path / "here")
    with contextlib.chdir(tmp_path / "here"):
        yield tmp_path / "here"


def run(line: str) -> tuple[int, str]:
    """Run one command, of ours or of the system; return its exit code and what it said."""
    words = shlex.split(line)
    if words[0] != "gateway":
        return subprocess.run(["bash", "-c", line], check=False).returncode, ""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main(words[1:])
    return code, said.getvalue()


def test_every_command_of_the_guide_works(folder: Path) -> None:
    """From the first command to the last, each exits as the guide promises."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) > 12
    for line in lines:
        promised = EXPECTED.search(line)
        command = EXPECTED.sub("", line).replace("openai", "open")

        code, said = run(command)

        assert (int(promised[1]) if promised else 0) == code, (line, said)


def test_ask_says_yes_with_its_evidence(folder: Path) -> None:
    """On a terminal the first word is the answer; as JSON it is a field."""
    code, said = run("gateway lineage ask distilled-from:open reader")
    told = json.loads(run("gateway lineage ask distilled-from:open reader --json")[1])

    assert (0, "yes") == (code, told["says"])
    assert said.startswith("Yes: model `reader` (leaf ")
    assert 6 == told["findings"][0]["rows"]


def test_the_same_is_said_from_a_pack(folder: Path) -> None:
    """Verifying tells the answer in the same sentences as asking did."""
    run("gateway lineage pack reader --question distilled-from:open --out pack.zip")
    _, asked = run("gateway lineage ask distilled-from:open reader")

    code, said = run("gateway verify pack.zip")

    assert 0 == code
    sentences = [line.removeprefix("says ") for line in said.splitlines() if line[:4] == "says"]
    assert sentences[:2] == asked.splitlines()[:2]


def test_an_account_is_found_by_its_name_and_by_patterns(folder: Path) -> None:
    """The account's receipts are counted right, whether it is named or described."""
    expected = (("team", "yes", 6), ("t*m", "yes", 6), ("tea", "never seen", 0))
    for name, says, receipts in expected:
        _, said = run(f"gateway lineage ask principal:{name} set --json")
        told = json.loads(said)

        assert says == told["says"]
        assert f"has {receipts} receipts in the log" in told["restsOn"][0]


def test_an_export_is_asked_about_and_verified_like_its_dataset(folder: Path) -> None:
    """A dataset in another form came from the same teachers, and shows it."""
    code, said = run("gateway dataset export gateway-data/datasets/set --format openai")
    assert 0 == code, said
    (place,) = (folder / "gateway-data" / "exports").iterdir()

    assert 0 == run(f"gateway verify {place}")[0]
    code, said = run(f"gateway lineage ask distilled-from:open {place}")
    assert (0, True) == (code, said.startswith("Yes: export "))
    assert 0 == run(f"gateway lineage pack {place} --out export.zip")[0]
    assert 0 == run("gateway verify export.zip")[0]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("gateway lineage ask distilled-from:open nobody", 2),
        ("gateway lineage ask distilled-from:open .", 2),
        (f"gateway lineage ask distilled-from:open {'0' * 64}", 2),
        ("gateway lineage pack --out pack.zip", 2),
        ("gateway lineage pack reader --not-in all --out pack.zip", 2),
        ("gateway lineage pack --not-in all --out pack.zip", 2),
        ("gateway lineage pack reader --question x --out pack.zip", 2),
        ("gateway lineage report nobody --format ab-2013", 2),
        ("gateway lineage pack reader --out gateway.yaml/pack.zip", 3),
    ],
)
def test_what_can_not_be_done_is_one_line(
    folder: Path, line: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that is none, or a place that is none: one line, and nothing written."""
    assert code == run(line)[0]
    assert 1 == len(capsys.readouterr().err.strip().splitlines())
    assert not (folder / "pack.zip").exists()

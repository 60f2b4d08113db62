"""A student that stands, by its commands: asked again, served, and named by receipts."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from gateway import settings
from gateway.app.running import start
from gateway.cli.main import main
from gateway.log import build_logger
from gateway.receipt.keys import parse_trust
from gateway.receipt.model import Receipt
from gateway.student.figures import Evaluation
from gateway.student.verify import verify_model
from tests.integration.test_app_door import JSON, statements
from tests.student.test_evaluate import a_row
from tests.student.test_serve import DIGEST, echo, served
from tests.support.caller import Caller
from tests.support.house import CHAT
from tests.support.student import install

pytestmark = pytest.mark.student


@dataclass(frozen=True)
class Standing:
    """An installation with a student in it."""

    folder: Path
    dataset: Path
    model: Path
    manifest: str

    def run(self, *words: str) -> int:
        """Run a command of the gateway there."""
        return main(["--config", str(self.folder / "gateway.yaml"), *words])


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Standing:
    """Train a student by the command."""
    folder = tmp_path_factory.mktemp("standing")
    dataset = install(folder, 32, held_out="0.25", row=a_row)
    config = str(folder / "gateway.yaml")
    train = ["student", "train", str(dataset), "--steps", "6", "--batch", "8", "--json"]
    words = [*train, "--metric", "tests.student.test_evaluate:says_tree", "--no-samples"]
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        assert main(["--config", config, *words]) == 0
    facts = json.loads(told.getvalue())
    return Standing(folder, dataset, Path(facts["folder"]), facts["manifest"])


def test_it_is_asked_again_by_command(
    standing: Standing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its datasets are found under the data folder; the figures are those that were signed."""
    page = tmp_path / "evaluation.html"
    metric = ("--metric", "tests.student.test_evaluate:says_tree")
    code = standing.run(
        "student", "evaluate", str(standing.model), *metric, "--json", "--html", str(page)
    )
    told = json.loads(capsys.readouterr().out)
    trust = parse_trust((standing.folder / "gateway-data" / "trust.json").read_bytes())
    signed = verify_model(standing.model, trust).manifest.found.evaluation

    assert code == 0
    assert (told["manifest"], told["signed"]) == (standing.manifest, False)
    assert msgspec.convert(told["evaluation"], Evaluation) == signed
    assert signed is not None
    assert signed.rows >= 4
    assert {one["of"] for one in told["evaluation"]["figures"]} == {
        "base",
        "student",
        "teacher",
        "gain",
    }
    assert "signed by nobody" in page.read_text()
    assert not (standing.model / "samples.jsonl").exists()


def test_a_person_reads_a_table(standing: Standing, capsys: pytest.CaptureFixture[str]) -> None:
    """Base, student and teacher stand side by side, each with its interval."""
    words = ("--datasets", str(standing.dataset), "--limit", "5")
    code = standing.run("student", "evaluate", str(standing.model), *words)
    told = capsys.readouterr().out

    assert code == 0
    assert "5 of " in told
    assert "signed by nobody" in told
    assert all(word in told for word in ("base", "student", "teacher", "gain", "["))


def test_what_can_not_be_asked_is_one_line(
    standing: Standing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another dataset, no metric and no rows each have their code and a hint."""
    model = str(standing.model)
    evaluate = ("student", "evaluate", model)

    assert standing.run(*evaluate, "--datasets", str(tmp_path)) == 1
    assert standing.run(*evaluate, "--metric", "nowhere:nothing") == 2
    assert standing.run(*evaluate, "--limit", "0") == 2
    assert standing.run(*evaluate, "--suite", str(tmp_path / "none.jsonl")) == 2
    assert standing.run("student", "evaluate", str(tmp_path)) == 1
    lines = capsys.readouterr().err.splitlines()
    problems = [line for line in lines if line.startswith("gateway: ")]

    assert [line.split(": ")[1] for line in problems] == [
        "student.dataset_missing",
        "student.metric",
        "recipe.bad",
        "student.suite",
        "evidence.bad",
    ]


async def test_receipts_of_a_student_name_its_training_manifest(standing: Standing) -> None:
    """Behind the gateway it is a provider like others; each receipt leads to its manifest."""
    file = standing.folder / "gateway.yaml"
    before = file.read_text()
    with served(echo) as client:
        url = str(client.base_url).removesuffix("/v1/")
        file.write_text(
            f"{before}listen: 127.0.0.1:0\nproviders:\n  pupil:\n    base_url: {url}\n"
            f"    policy: open\n    student: {standing.model}\n"
        )
        gateway = await start(settings.load(file, environment={}), build_logger("error"))
        try:
            body = json.dumps(CHAT | {"model": "parser"}).encode()
            with Caller(gateway.port) as caller:
                answer = await asyncio.to_thread(
                    caller.ask, "POST", "/pupil/v1/chat/completions", JSON, body
                )
            receipts = [one for one in statements(gateway) if isinstance(one, Receipt)]
        finally:
            await gateway.stop()
            file.write_text(before)
    last = receipts[-1]

    assert answer.status == 200
    assert last.model.manifest == standing.manifest
    assert last.provider.name == "pupil"
    # What the server says of itself is passed on; the receipt names what the house verified.
    assert answer.header("x-student-manifest") == DIGEST

"""Preferences all the way, by the commands: from judged answers to a student that answers."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway import settings
from gateway.app.installation import open_sourced
from gateway.app.running import start
from gateway.cli.main import main
from gateway.clock import day_of
from gateway.dataset.calls import Call
from gateway.dataset.ruling import PolicyLaw
from gateway.log import build_logger
from gateway.receipt.keys import parse_trust
from gateway.receipt.model import ModelFacts, Receipt
from gateway.student.progress import read_metrics
from gateway.student.verify import VerifiedModel, verify_model
from tests.integration.test_app_door import JSON, statements
from tests.support.caller import Answer, Caller
from tests.support.dataset import a_policy
from tests.support.house import CHAT, write_installation
from tests.support.pipeline import NOBODY, Works
from tests.support.student import answer, question

pytestmark = pytest.mark.student

JUDGE = "judge-1"
HANG_S = 300
PAIRS = 24
JOB = """\
version: 1
name: parser
datasets: [gateway-data/datasets/pairs]
base: tiny
objective: dpo
steps: 8
batch: 8
evaluate: {rows: 4}
"""


def judged_pairs(works: Works) -> str:
    """Have two answers given to each question, and judged; return what they are for."""
    declared = works.declare("train.preference")
    pipeline = works.pipeline(declared)
    today = day_of(works.house.clock.now_ms())
    call = Call(provider="open", model="open-1", operation="chat", policies=("open",))
    ruling = PolicyLaw(works.house.library, works.house.register).rule(
        declared.use, call, today
    )
    with pipeline.transform("court", version="1", kind="judge") as court:
        for number in range(PAIRS):
            asked, other = question(number), answer(number + 5)
            both = works.answer(declared, answer(number), other, prompt=asked, ruling=ruling)
            judge = works.answer(
                declared, "the first", model=ModelFacts(requested=JUDGE), ruling=ruling
            )
            court.pair(f"{both}/0", f"{both}/1", judge=judge, verdict="first")
    return declared.id


class Heard(io.StringIO):
    """What a command prints; tells when the address of a student is among it."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = threading.Event()

    def write(self, text: str) -> int:
        """Take *text*."""
        written = super().write(text)
        if " answers at http" in self.getvalue() and self.getvalue().endswith("\n"):
            self.answers.set()
        return written

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.getvalue().rpartition(" answers at ")[2].strip().removesuffix("/v1")


async def ask_through(file: Path) -> tuple[Answer, Receipt]:
    """Ask the student `pupil` of the settings through a gateway; return answer and receipt."""
    gateway = await start(settings.load(file, environment={}), build_logger("error"))
    try:
        asked = CHAT | {"model": "parser", "max_tokens": 4}
        with Caller(gateway.port) as caller:
            said = await asyncio.to_thread(
                caller.ask,
                "POST",
                "/pupil/v1/chat/completions",
                JSON,
                json.dumps(asked).encode(),
            )
        receipts = [one for one in statements(gateway) if isinstance(one, Receipt)]
    finally:
        await gateway.stop()
    return said, receipts[-1]


def served(file: Path, model: Path) -> tuple[int, Answer, Receipt]:
    """Serve the student by its command, ask it through a gateway, then tell it to end."""
    heard, came = Heard(), list[tuple[Answer, Receipt]]()

    def call() -> None:
        assert heard.answers.wait(HANG_S)
        try:
            entry = f"providers:\n  pupil:\n    base_url: {heard.url}\n    policy: open\n"
            entry += f"    student: {model}\n"
            file.write_text(file.read_text().replace("providers:\n", entry))
            came.append(asyncio.run(ask_through(file)))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    trust = str(file.parent / "gateway-data" / "trust.json")
    caller = threading.Thread(target=call)
    with contextlib.redirect_stdout(heard):
        caller.start()
        code = main(
            ["student", "serve", str(model), "--listen", "127.0.0.1:0", "--trust", trust]
        )
        caller.join()
    ((said, receipt),) = came
    return code, said, receipt


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    """Return an installation, open, whose provider lets its answers teach and judge."""
    file = write_installation(tmp_path_factory.mktemp("works"), NOBODY)
    policy = a_policy("open", "permit", when="purpose: [train, verify]")
    (file.parent / "policies" / "open" / "policy.yaml").write_text(policy)
    with contextlib.closing(open_sourced(settings.load(file, environment={}))) as house:
        yield Works(file, house)


def done(works: Works, *words: str) -> str:
    """Run a command that ends well, and return what it printed."""
    code, out, err = works.command(*words)
    assert code == 0, out + err
    return out


def test_what_was_judged_teaches_a_student_that_answers(works: Works) -> None:
    """Pairs with their judge are built, learned, asked, verified, served, and found again."""
    folder = works.file.parent
    declared = judged_pairs(works)
    kind = ("--kind", "preference", "--transform", "court", "--held-out", "0.25")
    done(works, "dataset", "build", "pairs", "--for", declared, *kind)
    (folder / "job.yaml").write_text(JOB)
    job = ("--job", str(folder / "job.yaml"), "--json")
    trained = json.loads(done(works, "student", "train", *job))
    model = Path(trained["folder"])
    asked = json.loads(done(works, "student", "evaluate", str(model), "--limit", "4", "--json"))
    trust_file = folder / "gateway-data" / "trust.json"
    verified = done(works, "verify", str(model), "--trust", str(trust_file))
    says = {
        wanted: json.loads(done(works, "lineage", "ask", wanted, str(model), "--json"))["says"]
        for wanted in (
            "distilled-from:open",
            f"judged-by:open/{JUDGE}",
            f"distilled-from:open/{JUDGE}",
            "distilled-from:closed",
        )
    }
    code, said, receipt = served(works.file, model)

    student: VerifiedModel = verify_model(model, parse_trust(trust_file.read_bytes()))
    steps = read_metrics(model / "metrics.jsonl")
    assert student.manifest.asked.method == "dpo"
    assert [step.step for step in steps] == list(range(1, 9))
    assert steps[0].loss == pytest.approx(0.6931, abs=1e-3)
    assert steps[-1].loss < steps[0].loss
    assert (steps[-1].margin or 0) > 0
    assert trained["rows"] + student.manifest.found.snapshot.held_out == PAIRS
    signed = student.manifest.found.evaluation
    assert msgspec.to_builtins(signed)["sha256"] == asked["evaluation"]["sha256"]
    assert f"model {trained['manifest']}" in verified
    assert says == {
        "distilled-from:open": "yes",
        f"judged-by:open/{JUDGE}": "yes",
        f"distilled-from:open/{JUDGE}": "no",
        "distilled-from:closed": "no",
    }
    assert (code, said.status) == (0, 200)
    assert receipt.model.manifest == trained["manifest"]

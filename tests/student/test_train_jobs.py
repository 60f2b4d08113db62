"""One YAML says what is trained; it is strict, flags go over it, and a plan trains nothing."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pytest

from gateway.cli.main import main
from gateway.clock import day_of
from gateway.dataset.calls import Call
from gateway.dataset.ruling import PolicyLaw
from gateway.errors import CallerError, GateRefusedError
from gateway.intent.model import Declaration
from gateway.student.job import TrainingJob, overridden, read_job
from gateway.student.progress import read_metrics
from gateway.student.recipe import Lora, Recipe, recipe_for
from gateway.student.run import RUN, Trained, only_run
from gateway.student.verify import verify_model
from tests.support.evidence import TRUST
from tests.support.pipeline import Works, works_in
from tests.support.student import Quiet, School, answer, install, question

pytestmark = pytest.mark.student


@pytest.fixture
def school(tmp_path: Path) -> Iterator[School]:
    """Return a school with an empty ledger."""
    school = School(tmp_path)
    yield school
    school.close()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: parser\n", "version: 1"),
        ("version: 1\nmax_lenght: 5\n", ":2: unknown key `max_lenght`"),
        ("version: 1\nlora: {rnak: 5}\n", "rnak"),
        ("version: 1\nlora: {rank: 100000000}\n", "rank must be 1 to 65,536, not 100000000"),
        ("version: 1\nlora: {targets: ''}\n", "targets names no layer"),
        ("version: 1\nbatch: many\n", ":2:"),
        ("version: 1\nepochs: 1\nsteps: 2\n", ":3: `epochs` and `steps` both"),
        ("version: 1\nfeed: a\ndatasets: [b]\n", ":2: `feed` and `datasets` both"),
        ("version: 1\nobjective: rl\n", ":2:"),
        ("version: 2\n", ":1:"),
    ],
)
def test_a_job_that_is_wrong_is_told_its_line(tmp_path: Path, text: str, told: str) -> None:
    """A job file has no key that nobody reads, and no value that is taken for another."""
    file = tmp_path / "job.yaml"
    file.write_text(text)

    with pytest.raises(CallerError) as wrong:
        read_job(file)

    assert wrong.value.problem == "job.bad"
    assert told in wrong.value.message


def test_flags_go_over_the_file(tmp_path: Path) -> None:
    """What is said on the command line rules; paths in the file start at the file."""
    file = tmp_path / "job.yaml"
    file.write_text(
        "version: 1\nname: parser\ndatasets: [sets/a]\nepochs: 2\nlearning_rate: 1e-3\n"
        "packing: true\nlora: {rank: 4, merge: true}\nbase_licence: {licence: mit, by: ada}\n"
    )
    job = read_job(file)
    over = overridden(job, {"steps": 7, "batch": 4, "datasets": (), "name": None})

    assert job.datasets == (str(tmp_path / "sets/a"),)
    assert job.recipe().epochs == 2
    assert (over.epochs, over.name) == (None, "parser")
    assert over.recipe() == recipe_for(
        "tiny",
        steps=7,
        batch=4,
        learning_rate=1e-3,
        packing=True,
        lora=Lora(rank=4, merge=True),
    )
    assert overridden(job, {"feed": "daily"}).datasets == ()


@pytest.mark.parametrize(
    "said",
    [
        {"batch": 7, "ranks": 2},
        {"batch": 8, "rows_at_once": 3},
        {"packing": True, "objective": "dpo"},
        {"learning_rate": 2.0},
        {"replay": 1.0},
        {"ranks": 0},
        {"steps": 0},
        {"steps": 10**12},
        {"epochs": math.nan},
        {"epochs": math.inf},
        {"beta": math.inf},
        {"beta": math.nan},
        {"seed": -1},
        {"seed": 2**32},
        {"batch": 10**9},
        {"rows_at_once": 0},
        {"rows_at_once": -1, "batch_tokens": 100},
        {"ranks": 10**6, "batch": 10**6},
    ],
)
def test_numbers_that_make_no_run_are_refused(said: dict[str, Any]) -> None:
    """A recipe that can't be trained as it stands is refused before anything is read."""
    with pytest.raises(CallerError) as refused:
        overridden(TrainingJob(), said).recipe()
    assert refused.value.problem == "recipe.bad"


def test_a_batch_in_tokens_is_shared_evenly() -> None:
    """Rows an update follow from the tokens asked for, in shares that the ranks can hold."""
    recipe = recipe_for("tiny", batch_tokens=8000, ranks=2, rows_at_once=4)

    assert recipe.batch_for(1000, 100_000) == 80
    assert recipe.batch_for(10, 100_000) == 8
    assert Recipe(learning_rate=0.1, batch=6, max_length=64).at_once_for(6) == 6


def test_a_plan_says_what_a_run_would_be_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan goes through the gate, counts tokens, steps and memory, and writes no file."""
    dataset = install(tmp_path, count=8)
    job = tmp_path / "job.yaml"
    job.write_text(f"version: 1\ndatasets: [{dataset}]\nsteps: 5\nbatch: 4\n")
    words = ["--config", str(tmp_path / "gateway.yaml"), "student", "train"]

    assert main([*words, "--job", str(job), "--plan", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert main(words) == 2
    assert main([*words, "--job", str(job), "--follow"]) == 2
    assert main([*words, str(dataset), "--feed", "daily"]) == 2
    assert main([*words, "--feed", "daily", "--follow", "--rounds", "0"]) == 2
    assert main([*words, "--feed", "daily", "--rounds", "2"]) == 2
    assert main([*words[:3], "evaluate", "nowhere", "--seed", "-1"]) == 2
    problems = capsys.readouterr().err

    assert planned["outcome"] == "planned"
    assert (planned["rows"], planned["steps"], planned["left_out"]) == (8, 5, {})
    assert planned["memory_bytes"] == 16 * planned["parameters"]
    assert not (tmp_path / "gateway-data" / "students").exists()
    assert problems.count("job.bad") == 5


def test_an_adapter_is_a_student_like_another(school: School) -> None:
    """An adapter is signed and speaks as it is; merged on request, the folder needs no base."""
    from gateway.student.offline import seal_off  # noqa: PLC0415  # before the libraries

    seal_off()
    from gateway.student.bases import load_model  # noqa: PLC0415  # as above

    built = school.dataset(16)
    forms = {}
    for merge in (False, True):
        recipe = recipe_for("tiny", steps=3, batch=8, lora=Lora(rank=4, merge=merge))
        student = school.train(built, recipe, out=f"merged-{merge}")
        assert isinstance(student, Trained)
        verify_model(student.folder, TRUST)
        forms[merge] = (student, load_model(student.folder).state_dict())
    adapter, merged = forms[False][0], forms[True][0]

    assert (adapter.manifest.found.form, merged.manifest.found.form) == ("adapter", "merged")
    assert (adapter.folder / "adapter_model.safetensors").exists()
    assert not (merged.folder / "adapter_model.safetensors").exists()
    assert forms[False][1].keys() == forms[True][1].keys()
    for name, weights in forms[True][1].items():
        assert weights.allclose(forms[False][1][name], atol=1e-6), name


def test_rounds_go_on_from_one_another_and_the_manifest_lists_them(school: School) -> None:
    """A snapshot of a feed is a round; one that comes while a run is cut off is one more."""
    first = school.dataset(16, name="daily-1")
    second = school.dataset(24, name="daily-2")
    recipe = recipe_for("tiny", steps=4, batch=8, save_every=2)
    both = (first.folder, second.folder)

    whole = school.train(first, recipe, datasets=both, feed=True, out="whole")
    cut = school.train(
        first, recipe, Quiet(stop_at=2), datasets=both[:1], feed=True, out="grown"
    )
    grown = school.train(first, recipe, datasets=both, feed=True, out="grown", resume=True)

    assert isinstance(whole, Trained)
    assert isinstance(grown, Trained)
    assert not isinstance(cut, Trained)
    rounds = whole.manifest.found.rounds
    assert [one.dataset for one in rounds] == [first.manifest_sha256, second.manifest_sha256]
    assert [one.steps for one in rounds] == [4, 4]
    steps = read_metrics(whole.folder / "metrics.jsonl")
    assert [(step.step, step.round) for step in steps] == [
        (number, 1 if number <= 4 else 2) for number in range(1, 9)
    ]
    assert steps[4].loss < steps[0].loss
    assert grown.manifest.found.rounds == rounds
    assert (whole.folder / "model.safetensors").read_bytes() == (
        grown.folder / "model.safetensors"
    ).read_bytes()


def start(works: Works, *words: str) -> subprocess.Popen[str]:
    """Start a command of the gateway."""
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "--config", str(works.file), *words],
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def heard(said: IO[str] | None, word: str) -> str:
    """Return the line of what a command says in which *word* comes next."""
    assert said is not None
    return next(line for line in said if word in line)


def answered(works: Works, declared: Declaration, numbers: range) -> None:
    """Have questions answered under the policies in force."""
    call = Call(provider="open", model="open-1", operation="chat", policies=("open",))
    law = PolicyLaw(works.house.library, works.house.register)
    ruling = law.rule(declared.use, call, day_of(works.house.clock.now_ms()))
    for number in numbers:
        works.answer(declared, answer(number), prompt=question(number), ruling=ruling)


def test_a_feed_that_grows_is_learned_round_by_round_until_told_to_stop(
    tmp_path: Path,
) -> None:
    """While one command freezes snapshots another learns them; what it learned is kept."""
    with works_in(tmp_path) as works, ExitStack() as running:
        declared = works.declare()
        answered(works, declared, range(8))
        follow = ("dataset", "follow", "daily", "--for", declared.id, "--rows", "8")
        feed = running.enter_context(start(works, *follow, "--rounds", "2"))
        running.callback(feed.kill)
        heard(feed.stdout, "waiting: 0 of 8 rows")
        words = ("student", "train", "--feed", "daily", "--steps", "2", "--batch", "8")
        learning = running.enter_context(start(works, *words, "--follow"))
        running.callback(learning.kill)
        heard(learning.stderr, "waiting for the next snapshot")
        answered(works, declared, range(8, 16))
        heard(learning.stderr, "waiting for the next snapshot")
        learning.send_signal(signal.SIGTERM)
        cut = learning.communicate()[0]
        assert (learning.returncode, feed.wait()) == (143, 0)
        again = (*words, "--resume", "--json")
        first = works.house.data / "datasets" / "daily-0001"
        gone = first.rename(first.with_name("gone"))
        code, _, told = works.command(*again)
        gone.rename(first)
        left, out, _ = works.command(*again)
        trained = json.loads(out)
        student = verify_model(Path(trained["folder"]), works.house.keyring.trust)

    assert cut.startswith("interrupted at step 4 of 4; go on with --resume; ")
    assert cut.count("\n") == 1
    assert (code, told.count("\n")) == (1, 1)
    assert "`daily-0001` of feed `daily` is missing" in told
    assert (left, trained["steps"]) == (0, 4)
    assert [one.steps for one in student.manifest.found.rounds] == [2, 2]
    assert [one.asked.dataset for one in student.datasets] == ["daily-0001", "daily-0002"]
    assert student.manifest.found.resumes == 1


def test_a_run_that_never_began_leaves_nothing(school: School) -> None:
    """Where no row is left to learn from, no folder of a run is left either."""
    built = school.dataset(4)

    with pytest.raises(GateRefusedError, match="no row is left"):
        school.train(built, recipe_for("tiny", max_length=8))

    assert list((school.house.folder / "students").iterdir()) == []


def test_a_run_at_work_is_not_called_interrupted(tmp_path: Path) -> None:
    """Whoever begins a run that another process is at is told so, and to wait."""
    run = tmp_path / ".parser.run"

    with only_run(run, resume=False):
        (run / RUN).write_bytes(b"{}")
        with (
            pytest.raises(GateRefusedError, match="at work") as busy,
            only_run(run, resume=False),
        ):
            pass

    assert busy.value.problem == "student.busy"
    assert (run / RUN).exists()


def test_an_adapter_beside_no_layer_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Layers that the base does not have are named; a plan finds them out already."""
    dataset = install(tmp_path, count=8)
    job = tmp_path / "job.yaml"
    job.write_text(f"version: 1\ndatasets: [{dataset}]\nlora: {{targets: 'q_proj,nope'}}\n")
    words = ["--config", str(tmp_path / "gateway.yaml"), "student", "train"]

    assert main([*words, "--job", str(job), "--plan"]) == 2
    assert "recipe.bad: lora: the base has no layer `nope`" in capsys.readouterr().err

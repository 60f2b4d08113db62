"""Ranks learn together: they agree with one rank, with each other, and refuse other rows."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from gateway.canonical import sha256_hex
from gateway.clock import SystemClock
from gateway.errors import BadDigestError, OperatorError
from gateway.student.course import Course
from gateway.student.progress import Metrics, Step, read_held_out
from gateway.student.ranks import Team, assembled
from gateway.student.recipe import recipe_for
from tests.student.test_train_engine import course_of, learn
from tests.student.test_train_engine import tokenizer as tokenizer  # noqa: PLC0414  # a fixture
from tests.support.student import Quiet, install

pytestmark = pytest.mark.student


@dataclass(kw_only=True)
class Found:
    """What two ranks said."""

    whole: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    refused: str = ""
    lost: dict[str, OperatorError] = field(default_factory=dict)
    begun_at: dict[str, int] = field(default_factory=dict)
    gone_on: dict[str, list[float]] = field(default_factory=dict)
    connected: list[str] = field(default_factory=list)
    open: set[tuple[str, str]] = field(default_factory=set)
    """Of which rank, and at which address, something is open while they learn."""


@contextmanager
def listened(found: list[str]) -> Iterator[None]:
    """Write down every address that this process connects to."""
    # What other tests left running in threads of their own is no part of it.
    others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
    listening = [True]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect" and listening and threading.get_ident() not in others:
            found.append(str(args[1]))

    sys.addaudithook(hook)
    try:
        yield
    finally:
        listening.clear()


class Visited(Quiet):
    """A screen in front of which something befalls the other ranks after a step."""

    def __init__(self, at: int, befalls: Callable[[int], object]) -> None:
        super().__init__()
        self._at, self._befalls = at, befalls

    def step(self, step: Step) -> None:
        """Show a step; after the one that was named, visit every other rank."""
        super().step(step)
        if step.step == self._at:
            for child in ranks_below():
                self._befalls(child)


def ranks_below(first: int | None = None) -> list[int]:
    """Return the other ranks' processes, below the first one's."""
    found = []
    for child in psutil.Process(first).children():
        # One that ends meanwhile is a rank no longer.
        with contextlib.suppress(psutil.NoSuchProcess):
            if "gateway.student.ranks" in child.cmdline():
                found.append(child.pid)
    return found


def opened_by(process: int) -> set[tuple[str, int]]:
    """Return every address and port at which a process listens, or between which it talks."""
    opened = psutil.Process(process).net_connections("inet")
    ends: list[tuple[Any, ...]] = [end for one in opened for end in (one.laddr, one.raddr)]
    # What only listens has no other end. Libraries spell the same address in two ways.
    return {(end[0].removeprefix("::ffff:"), end[1]) for end in ends if end}


def interrupted(rank: int) -> None:
    """Interrupt a rank, as a terminal does."""
    os.kill(rank, signal.SIGINT)


def killed(rank: int) -> None:
    """Kill a rank, as a machine without memory does."""
    os.kill(rank, signal.SIGKILL)


def out_of_room(rank: int) -> None:
    """Leave a rank no room on its disk."""
    resource.prlimit(rank, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def learn_together(
    team: Team, course: Course, tokenizer: Any, screen: Quiet | None = None
) -> Metrics:
    """Have *team* learn *course* from its last checkpoint on; return the metrics."""
    from gateway.student import engine  # noqa: PLC0415  # after the seal

    begin = engine.last_checkpoint(course)
    screen = screen or Quiet()
    metrics = Metrics(
        Path(course.folder).parent / "metrics.jsonl", resumed_at=begin.step if begin else 0
    )
    crew = engine.Crew(clock=SystemClock(), stop=screen.stop, metrics=metrics, screen=screen)
    try:
        team.learn(course, begin, tokenizer, crew)
    finally:
        metrics.close()
    return metrics


def begun_at(course: Course) -> int:
    """Return the step of the newest whole checkpoint of *course*."""
    from gateway.student import engine  # noqa: PLC0415  # after the seal

    last = engine.last_checkpoint(course)
    return 0 if last is None else last.step


@pytest.fixture(scope="module")
def together(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Return what two ranks say of a whole run, a resumed one, and one over changed rows."""
    folder = tmp_path_factory.mktemp("ranks")
    tokenizer.save_pretrained(folder / "tokenizer")
    recipe = recipe_for("tiny", batch=8, save_every=3, measure_every=5, ranks=2)

    def course(name: str) -> Course:
        made = course_of(folder / name, tokenizer, recipe, 5, held_out=5)
        return msgspec.structs.replace(made, tokenizer=str(folder / "tokenizer"))

    found = Found()
    whole, cut = course("whole"), course("cut")
    ends = {"killed": (5, killed), "out-of-room": (2, out_of_room)}
    lost = {name: course(name) for name in ends}
    for name, (at, befalls) in ends.items():
        with pytest.raises(OperatorError) as ended, assembled(2) as team:
            learn_together(team, lost[name], tokenizer, Visited(at, befalls))
        found.lost[name] = ended.value
        assert [] == ranks_below()
    before = opened_by(os.getpid())

    def look(other: int) -> None:
        mine = opened_by(os.getpid()) - before
        found.open |= {("first", address) for address, _ in mine}
        found.open |= {("second", address) for address, _ in opened_by(other)}

    with listened(found.connected):
        try:
            with assembled(2) as team:
                metrics = learn_together(team, whole, tokenizer, Visited(2, look))
                found.whole = [step.loss for step in metrics.steps]
                found.held_out = [one.held_out_loss for one in metrics.held_out]
                learn_together(team, cut, tokenizer, Quiet(stop_at=2))
                metrics = learn_together(team, cut, tokenizer)
                found.resumed = [step.loss for step in metrics.steps]
                for name, course_of_lost in lost.items():
                    found.begun_at[name] = begun_at(course_of_lost)
                    metrics = learn_together(team, course_of_lost, tokenizer)
                    found.gone_on[name] = [step.loss for step in metrics.steps]
                told = learn_together(team, course("told"), tokenizer, Visited(1, interrupted))
                found.told = [step.loss for step in told.steps]
                rows = Path(cut.rows[0].path)
                content = bytearray(rows.read_bytes())
                content[len(content) // 2] ^= 1
                rows.write_bytes(content)
                learn_together(team, cut, tokenizer)
        except BadDigestError as error:
            found.refused = str(error)
    return found


def test_two_ranks_make_the_steps_of_one(
    together: Found, tokenizer: Any, tmp_path: Path
) -> None:
    """Over the same updates, two ranks have the losses of one, to 1e-5, held out or not."""
    recipe = recipe_for("tiny", batch=8, measure_every=5)
    steps = learn(course_of(tmp_path, tokenizer, recipe, 5, held_out=5), tokenizer)
    held_out = read_held_out(tmp_path / "metrics.jsonl")

    assert together.whole == pytest.approx([step.loss for step in steps], abs=1e-5)
    assert together.held_out == pytest.approx([one.held_out_loss for one in held_out], abs=1e-5)


def test_ranks_resume_to_the_bit_and_refuse_other_rows(together: Found) -> None:
    """A resumed run of two ranks is the same run; no rank takes rows that were changed."""
    assert len(together.whole) == 5
    assert together.resumed == together.whole
    assert "the token rows changed" in together.refused


def test_a_rank_that_is_killed_is_named_and_the_run_goes_on_to_the_bit(
    together: Found,
) -> None:
    """Killed outright, a rank ends the other with one line; what was saved is gone on from."""
    lost = together.lost["killed"]

    assert lost.problem == "student.rank_lost"
    assert lost.message == "rank 1 was lost: killed by SIGKILL"
    assert "go on with --resume" in lost.hint
    assert together.begun_at["killed"] == 3
    assert together.gone_on["killed"] == together.whole


def test_a_rank_without_room_for_its_part_ends_all_of_them(together: Found) -> None:
    """A checkpoint that one rank could not write counts for none; nobody waits for it."""
    lost = together.lost["out-of-room"]

    assert (lost.problem, lost.message) == (
        "student.rank_lost",
        "rank 1 was lost: ended with code 1",
    )
    assert together.begun_at["out-of-room"] == 0
    assert together.gone_on["out-of-room"] == together.whole


def test_ranks_talk_over_the_loopback_alone(together: Found) -> None:
    """What ranks on one machine open leads nowhere else, and nobody elsewhere comes to it."""
    assert {("first", "127.0.0.1"), ("second", "127.0.0.1")} == together.open
    assert all("127.0.0.1" in opened for opened in together.connected)


def test_a_signal_to_any_rank_ends_all_of_them_at_a_step(together: Found) -> None:
    """Ctrl-C reaches every process: all save in the same step, none is lost."""
    assert 1 <= len(together.told) < len(together.whole)
    assert together.told == together.whole[: len(together.told)]


FSDP = ("--config_file", "gateway/student/fsdp.yaml", "--num_processes", "2")
LAUNCHERS = {
    "ours": ("-m", "gateway"),
    # It starts ranks with `torchrun`. On a CPU what the file says of sharding comes to nothing.
    "accelerate": (
        *("-m", "accelerate.commands.launch", *FSDP),
        *("--mixed_precision", "no", "-m", "gateway"),
    ),
}


def test_a_launcher_from_outside_starts_the_same_run(tmp_path: Path) -> None:
    """Under `accelerate launch` two ranks make the weights that ours make, to the bit."""
    dataset = install(tmp_path)
    told, weights = {}, {}
    for name, launcher in LAUNCHERS.items():
        out = tmp_path / name
        words = ["--config", str(tmp_path / "gateway.yaml"), "student", "train", str(dataset)]
        words += ["--out", str(out), "--steps", "2"] + ["--ranks=2"] * (name == "ours")
        done = subprocess.run(
            [sys.executable, *launcher, *words],
            env={**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        told[name] = "2 ranks" in done.stderr
        weights[name] = sha256_hex((out / "model.safetensors").read_bytes())

    assert told == dict.fromkeys(LAUNCHERS, True)
    assert len(set(weights.values())) == 1


@pytest.mark.crash
def test_no_rank_outlives_the_first(tmp_path: Path) -> None:
    """Killed outright, the first rank takes the others along, without another word."""
    dataset = install(tmp_path)
    words = ("student", "train", str(dataset), "--steps", "100000", "--ranks", "2")
    with subprocess.Popen(
        [sys.executable, "-m", "gateway", "--config", str(tmp_path / "gateway.yaml"), *words],
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stderr is not None
        next(line for line in first.stderr if line.startswith("step"))
        others = ranks_below(first.pid)
        first.kill()
        # It ends once nobody is left that could write to it.
        rest = first.stderr.read()

    assert len(others) == 1
    assert [line for line in rest.splitlines() if not line.startswith("step")] == []

"""What a run is: who asked for it, what it is made of, and the folder that holds it.

A run under way is kept beside the place of its student, in `.<name>.run/`, and is removed once
the student stands. Only one process at a time works in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from gateway.clock import Clock, rfc3339
from gateway.errors import GateError, GateRefusedError, MissingPieceError
from gateway.ident import Sha256
from gateway.receipt.envelope import Signer
from gateway.student.bases import BaseAtHand, SaidOfBase
from gateway.student.evaluate import ASKING, Asking, Drawing
from gateway.student.files import write_durably
from gateway.student.gate import Admitted, Snapshot, Sources, StudentGate
from gateway.student.manifest import ModelManifest, recipe_facts, recipe_sha256
from gateway.student.progress import Screen
from gateway.student.recipe import Recipe
from gateway.tlog.proof import InclusionProof

RUN: Final = "run.json"
ROWS: Final = "rows"
METRICS: Final = "metrics.jsonl"

LIBRARIES: Final = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "tokenizers",
    "datasets",
    "safetensors",
)
"""Whose versions have a say in what is learned."""


class StoppedError(Exception):
    """Somebody asked for an end where no step is under way; what was learned is kept."""


def until(stop: threading.Event) -> Callable[[], None]:
    """Return what raises `StoppedError` once *stop* is set."""

    def check() -> None:
        if stop.is_set():
            raise StoppedError

    return check


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be trained, from what, and where it will stand."""

    datasets: tuple[Path, ...]
    base: str
    recipe: Recipe
    student: str | None = None
    """Its name; `None` takes the one that was declared."""
    place: Callable[[str], Path]
    """Gives the folder of a student by its name."""
    resume: bool = False
    feed: bool = False
    """The datasets are the snapshots of a feed in their order: one round each."""
    more: Callable[[], tuple[Path, ...]] | None = None
    """Where a feed is followed: gives the snapshots that are there by now."""
    rounds: int | None = None
    """Where a feed is followed: how many rounds make the student; `None` has no end."""
    asking: Asking | None = ASKING
    """What is asked of held-out rows at the end; `None` asks nothing."""
    said_of_base: SaidOfBase | None = None
    """The licence of the base, where its card says none and somebody answers for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What a training needs of the house besides the gate's sources."""

    sources: Callable[[], Sources]
    """What the gate reads, as it is now; asked again at each checkpoint and before signing."""
    append: Callable[[bytes], int]
    """Makes a leaf durable and returns its index."""
    index_of: Callable[[Sha256], int | None]
    """Finds a manifest's leaf by the digest of its payload."""
    prove: Callable[[int], InclusionProof]
    """Proves a leaf under a checkpoint that was signed after it."""
    signer: Signer
    clock: Clock
    version: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is, kept in its folder; a resumed run must be the same one."""

    student: str
    recipe: Sha256
    """Over the recipe and the base."""
    said: Mapping[str, str] = {}
    """The recipe in words, to tell what is another one."""
    versions: Mapping[str, str] = {}
    """Of this gateway and its libraries: another one may make other steps of the same words."""
    datasets: tuple[Sha256, ...]
    snapshot: tuple[Sha256, ...]
    """Of the token rows, one file a dataset."""
    started: str
    resumes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A student that stands."""

    folder: Path
    payload_sha256: Sha256
    index: int | None
    """Leaf index of its manifest; `None` if it was a leaf before."""
    manifest: ModelManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """A run that was told to stop; a run with `--resume` goes on at *step*."""

    folder: Path
    step: int
    steps: int
    kept: bool = True
    """Whether there is anything to go on with; if not, the same order begins it anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One call of `train_student`, past the gate."""

    order: Order
    rooms: Rooms
    screen: Screen
    stop: threading.Event
    gate: StudentGate
    admitted: Admitted
    at_hand: BaseAtHand
    place: Path
    drawing: Drawing | None = None
    """The held-out rows that the gate let through, to draw from."""

    @property
    def folder(self) -> Path:
        """Where the run keeps what it needs to go on."""
        return self.place.parent / f".{self.place.name}.run"

    @property
    def staged(self) -> Path:
        """Where the model folder is put together."""
        return self.folder / "model"

    @property
    def recipe(self) -> Recipe:
        """Return how it is to be trained."""
        return self.order.recipe

    def check_stop(self) -> None:
        """Look whether somebody asked for an end.

        Raises:
            StoppedError: somebody did.
        """
        until(self.stop)()


def run_of(job: Job, snapshot: Snapshot, *, resumed: bool) -> Run:
    """Return what this run is; where the folder holds one, it must be the same.

    A feed may have gone on since: the snapshots that were there must still come first.

    Raises:
        GateError: the run in the folder is another one.
        MissingPieceError: what the folder says of it can't be read.
    """
    now = Run(
        student=job.admitted.student,
        recipe=recipe_sha256(job.recipe, job.at_hand.base),
        datasets=tuple(dataset.manifest_sha256 for dataset in job.admitted.datasets),
        snapshot=tuple(part.sha256 for part in snapshot.parts),
        started=rfc3339(job.rooms.clock.now_ms()),
        said=recipe_facts(job.recipe) | {"base": job.at_hand.base.name},
        versions={name: metadata.version(name) for name in LIBRARIES}
        | {"gateway": job.rooms.version},
    )
    path = job.folder / RUN
    if path.exists():
        then = read_run(job)
        for what, version in now.versions.items():
            if then.versions.get(what) != version:
                raise GateError(
                    f"the run in `{job.folder}` was begun with another version of {what}: "
                    f"{then.versions.get(what, 'unknown')}, this is {version}",
                    hint="go on with that version, or remove that folder and begin anew",
                    code="student.resume_differs",
                )
        known = len(then.datasets) if job.order.feed else None
        for name, was, is_now in (
            ("student", then.student, now.student),
            ("recipe", then.recipe, now.recipe),
            ("datasets", then.datasets, now.datasets[:known]),
            ("snapshot", then.snapshot, now.snapshot[:known]),
        ):
            if was != is_now:
                raise GateError(
                    f"the run in `{job.folder}` was begun with another {name}"
                    + (_differing(then.said, now.said) if name == "recipe" else ""),
                    hint="give the same datasets and options, or remove that folder",
                    code="student.resume_differs",
                )
        now = msgspec.structs.replace(now, started=then.started, resumes=then.resumes + resumed)
    write_durably(path, msgspec.json.encode(now))
    return now


def read_run(job: Job) -> Run:
    """Return what the folder of *job* says that its run is.

    Raises:
        MissingPieceError: that can't be read.
    """
    path = job.folder / RUN
    try:
        return msgspec.json.decode(path.read_bytes(), type=Run)
    except (msgspec.MsgspecError, ValueError) as error:
        raise MissingPieceError(
            f"`{path}` can't be read", hint=f"remove `{job.folder}` and begin the run anew"
        ) from error


def invocation_of(snapshot: Sha256, started: str) -> str:
    """Return how a manifest names the run that made it."""
    return f"run-{snapshot[:16]}-{started}"


def end_run(folder: Path) -> None:
    """Remove the folder of a run; what says that there is one goes last."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != RUN:
                path.unlink()
        (folder / RUN).unlink(missing_ok=True)
        folder.rmdir()


def stands_already(place: Path) -> GateRefusedError:
    """Return the refusal of a student where another one stands."""
    return GateRefusedError(
        f"`{place}` already stands; a student is never changed",
        hint="choose another --name, or another place with --out",
        code="student.exists",
    )


def _differing(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return in words where two recipes differ."""
    differing = [
        f"{name} {then.get(name, 'as chosen for it')}, not {now.get(name, 'as chosen for it')}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]
    return f" ({'; '.join(differing)})" if differing else ""


@contextlib.contextmanager
def only_run(folder: Path, *, resume: bool) -> Iterator[None]:
    """Hold the run's folder alone; the lock goes with the process.

    Raises:
        GateRefusedError: there is a run to resume, or another one is at work.
        MissingPieceError: there is no run to resume.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise GateRefusedError(
                f"another run is at work in `{folder}`",
                hint="wait for it to end",
                code="student.busy",
            ) from error
        try:
            begun = (folder / RUN).exists()
            if begun and not resume:
                raise GateRefusedError(
                    f"a run of this student was interrupted; it stands in `{folder}`",
                    hint="go on with --resume, or remove that folder",
                    code="student.interrupted",
                )
            if resume and not begun:
                raise MissingPieceError(
                    f"there is no run to resume in `{folder}`",
                    hint="begin one without --resume",
                )
            yield
        finally:
            if not (folder / RUN).exists():
                # It ended before it was a run: there is nothing to go on with.
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)

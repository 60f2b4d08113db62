"""Train a student, from datasets that pass the gate to a model folder that stands.

In this order: base, gate, token rows, steps, folder, leaf, place. What is true if the power
fails: before the first whole checkpoint, nothing was learned; after it, a run with `--resume`
goes on from there; once the manifest is signed, a run with `--resume` makes it a leaf, if it
is none yet, fetches the proof of that, signs the weights, and puts the folder in place. Each of
these is asked for anew until it is there. Every run, first or resumed, goes through the gate.

Nothing here imports a training library before the gate has let the datasets in.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.clock import Clock, rfc3339
from gateway.dataset.manifest import (
    DATASET_MANIFEST,
    MANIFEST,
    PROOF,
    Metadata,
    left_out_counts,
    manifest_dependency,
)
from gateway.errors import GateError, GateRefusedError, MissingPieceError, OperatorError
from gateway.ident import Sha256
from gateway.receipt.envelope import Signer
from gateway.receipt.keys import PublicKey, Trust
from gateway.receipt.model import Subject
from gateway.receipt.sigstore import open_manifest, write_manifest
from gateway.receipt.verify import document_keys, verify_manifest
from gateway.student.bases import BaseAtHand, context_of, find_base, load_model, load_tokenizer
from gateway.student.card import format_card, shares
from gateway.student.corpus import all_texts, check_stop_token, pieces_of
from gateway.student.files import file_sha256, files_under, put_in_place, write_durably
from gateway.student.gate import Admitted, Snapshot, Sources, StudentGate
from gateway.student.manifest import (
    Asked,
    Findings,
    ModelManifest,
    SnapshotFacts,
    base_dependencies,
    losses_of,
    recipe_facts,
    recipe_sha256,
    statement_of,
)
from gateway.student.offline import seal_off
from gateway.student.picture import draw_png
from gateway.student.progress import Metrics, Screen, Step
from gateway.student.recipe import Recipe
from gateway.student.report import format_report
from gateway.student.signature import SIGNATURE, write_signature
from gateway.student.verify import (
    EVIDENCE,
    EVIDENCE_SUFFIX,
    PROOF_SUFFIX,
    check_files,
    signed_files,
    verify_model,
)
from gateway.tlog.proof import InclusionProof, format_proof

RUN: Final = "run.json"
ROWS: Final = "rows.arrow"
METRICS: Final = "metrics.jsonl"
PICTURE: Final = "loss.png"
REPORT: Final = "report.html"
CARD: Final = "README.md"

_LIBRARIES: Final = ("torch", "transformers", "trl", "tokenizers", "datasets", "safetensors")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What a training needs of the house besides the gate's sources."""

    sources: Callable[[], Sources]
    """What the gate reads, as it is now; asked again before anything is signed."""
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
    datasets: tuple[Sha256, ...]
    snapshot: Sha256
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One call of `train_student`, past the gate."""

    order: Order
    rooms: Rooms
    screen: Screen
    stop: threading.Event
    gate: StudentGate
    admitted: Admitted
    at_hand: BaseAtHand
    place: Path

    @property
    def folder(self) -> Path:
        """Where the run keeps what it needs to go on."""
        return self.place.parent / f".{self.place.name}.run"

    @property
    def staged(self) -> Path:
        """Where the model folder is put together."""
        return self.folder / "model"


def train_student(
    order: Order, rooms: Rooms, screen: Screen, stop: threading.Event
) -> Trained | Interrupted:
    """Train the student of *order* and put its folder in place.

    Raises:
        EvidenceError: a dataset or the base does not verify.
        GateRefusedError: something may not be learned from, or the name is taken.
        GateError: the loss is no longer a number, or the run is not the one to be resumed.
        MissingPieceError: there is no such base, or no run to resume.
    """
    sources = rooms.sources()
    at_hand = find_base(order.base, order.recipe.seed, sources.trust)
    gate = StudentGate(order.student, at_hand.base, sources)
    admitted = gate.admit(order.datasets)
    job = _Job(
        order=order,
        rooms=rooms,
        screen=screen,
        stop=stop,
        gate=gate,
        admitted=admitted,
        at_hand=at_hand,
        place=order.place(admitted.student),
    )
    if job.place.exists():
        raise GateRefusedError(
            f"`{job.place}` already stands; a student is never changed",
            hint="choose another --name, or another place with --out",
            code="student.exists",
        )
    _tell_admitted(admitted, screen)
    try:
        with _only_run(job.folder, resume=order.resume):
            return _go(job)
    except OSError as error:
        raise OperatorError(
            f"the run in `{job.folder}` can't be written: {error.strerror or error}",
            hint="make room there, then go on with --resume",
            code="disk.unwell",
        ) from error


def _go(job: _Job) -> Trained | Interrupted:
    if (job.staged / MANIFEST).exists():
        # A run that ended between its signature and its place; nothing is learned again.
        return _finish(job)
    seal_off()
    job.screen.say("loading the training libraries …")
    recipe = job.order.recipe
    tokenizer = _tokenizer(job)
    check_stop_token(tokenizer)
    context = context_of(job.at_hand.path) if job.at_hand.path else None
    snapshot = job.gate.snapshot(
        job.admitted,
        tokenizer,
        job.folder / ROWS,
        min(recipe.max_length, context or recipe.max_length),
    )
    run = _run_of(job, snapshot)
    _tell_snapshot(snapshot, tokenizer, job.screen)
    # Only now: it imports what takes seconds.
    from gateway.student import engine  # noqa: PLC0415

    course = engine.Course(
        rows=snapshot.path,
        folder=job.folder / "checkpoints",
        snapshot=snapshot.sha256,
        recipe=recipe,
        recipe_sha256=run.recipe,
        step_count=recipe.steps_for(snapshot.rows),
        stop=job.stop,
    )
    begin = engine.last_checkpoint(course.folder, snapshot.sha256, run.recipe)
    metrics = Metrics(job.folder / METRICS, resumed_at=begin.step if begin else 0)
    model = _model(job, tokenizer)
    snapshot.check()
    try:
        learned = engine.learn(
            course, begin, model, tokenizer, metrics, job.screen, job.rooms.clock
        )
    finally:
        metrics.close()
    if not learned.whole:
        return Interrupted(folder=job.folder, step=learned.step, steps=course.step_count)
    snapshot.check()
    # Somebody may have withdrawn something while it was learned.
    StudentGate(job.order.student, job.at_hand.base, job.rooms.sources()).admit(
        job.order.datasets
    )
    job.screen.say("writing and signing the model folder …")
    _stage(job, run, snapshot, tokenizer, learned.model, metrics.steps, learned.device)
    return _finish(job)


def _tokenizer(job: _Job) -> Any:
    if job.at_hand.path is not None:
        return load_tokenizer(job.at_hand.path)
    from gateway.student.tiny import tiny_tokenizer  # noqa: PLC0415  # training libraries

    return tiny_tokenizer(all_texts(job.gate.texts(job.admitted)))


def _model(job: _Job, tokenizer: Any) -> Any:
    if job.at_hand.path is not None:
        return load_model(job.at_hand.path)
    from gateway.student.tiny import tiny_model  # noqa: PLC0415  # training libraries

    return tiny_model(tokenizer, job.order.recipe.seed)


def _run_of(job: _Job, snapshot: Snapshot) -> Run:
    """Return what this run is; where it is resumed, it must be what it was."""
    now = Run(
        student=job.admitted.student,
        recipe=recipe_sha256(job.order.recipe, job.at_hand.base),
        datasets=tuple(dataset.manifest_sha256 for dataset in job.admitted.datasets),
        snapshot=snapshot.sha256,
        started=rfc3339(job.rooms.clock.now_ms()),
    )
    path = job.folder / RUN
    if path.exists():
        try:
            then = msgspec.json.decode(path.read_bytes(), type=Run)
        except (msgspec.MsgspecError, ValueError) as error:
            raise MissingPieceError(
                f"`{path}` can't be read", hint=f"remove `{job.folder}` and begin the run anew"
            ) from error
        for name in ("student", "recipe", "datasets", "snapshot"):
            if getattr(then, name) != getattr(now, name):
                raise GateError(
                    f"the run in `{job.folder}` was begun with another {name}",
                    hint="give the same datasets and options, or remove that folder",
                    code="student.resume_differs",
                )
        now = msgspec.structs.replace(then, resumes=then.resumes + 1)
    write_durably(path, msgspec.json.encode(now))
    return now


def _stage(
    job: _Job,
    run: Run,
    snapshot: Snapshot,
    tokenizer: Any,
    model: Any,
    steps: Sequence[Step],
    device: str,
) -> None:
    """Put the model folder together; its manifest is written last."""
    shutil.rmtree(job.staged, ignore_errors=True)
    evidence = job.staged / EVIDENCE
    evidence.mkdir(parents=True)
    # Trainers switch the cache off; whoever lets the student speak wants it.
    model.config.use_cache = True
    model.save_pretrained(job.staged, safe_serialization=True)
    tokenizer.save_pretrained(job.staged)
    shutil.copyfile(job.folder / METRICS, job.staged / METRICS)
    for number, dataset in enumerate(job.admitted.datasets):
        name = dataset.name if number == 0 else f"{dataset.name}-{number + 1}"
        shutil.copyfile(dataset.path / MANIFEST, evidence / f"{name}{EVIDENCE_SUFFIX}")
        shutil.copyfile(dataset.path / PROOF, evidence / f"{name}{PROOF_SUFFIX}")
    draw_png(steps, f"{job.admitted.student}: loss", job.staged / PICTURE)
    manifest = _manifest(job, run, snapshot, steps, device)
    (job.staged / REPORT).write_text(format_report(manifest, steps), encoding="utf-8")
    (job.staged / CARD).write_text(format_card(manifest), encoding="utf-8")
    files = files_under(job.staged)
    for path in files.values():
        path.chmod(0o644)
    manifest = msgspec.structs.replace(
        manifest,
        subjects=tuple(
            Subject(name=name, digest={"sha256": file_sha256(path)})
            for name, path in files.items()
        ),
    )
    encoded, _ = write_manifest(statement_of(manifest), job.rooms.signer)
    write_durably(job.staged / MANIFEST, encoded)


def _manifest(
    job: _Job, run: Run, snapshot: Snapshot, steps: Sequence[Step], device: str
) -> ModelManifest:
    """Return the manifest of the run, its files still to be named."""
    admitted, base, recipe = job.admitted, job.at_hand.base, job.order.recipe
    finished = rfc3339(job.rooms.clock.now_ms())
    return ModelManifest(
        asked=Asked(
            student=admitted.student,
            declarations=admitted.declarations,
            datasets=tuple(dataset.name for dataset in admitted.datasets),
            base=base,
        ),
        found=Findings(
            recipe=recipe_facts(recipe),
            snapshot=SnapshotFacts(
                sha256=snapshot.sha256,
                rows=snapshot.rows,
                tokens=snapshot.tokens,
                learned=snapshot.learned,
                left_out=left_out_counts(snapshot.left_out),
                template_sha256=snapshot.template_sha256,
                tokenizer_sha256=snapshot.tokenizer_sha256,
            ),
            steps=len(steps),
            resumes=run.resumes,
            losses=losses_of([step.loss for step in steps]),
            use=admitted.use,
            obligations=admitted.obligations,
            teachers=admitted.teachers,
            above=admitted.above,
            day=admitted.day.isoformat(),
            library=admitted.library,
            device=device,
            versions={name: metadata.version(name) for name in _LIBRARIES}
            | {"python": platform.python_version()},
        ),
        dependencies=(
            *(
                manifest_dependency(
                    f"dataset:{dataset.name}", dataset.manifest_sha256, DATASET_MANIFEST
                )
                for dataset in admitted.datasets
            ),
            *base_dependencies(base),
        ),
        subjects=(),
        metadata=Metadata(
            invocation_id=f"run-{run.snapshot[:16]}-{run.started}",
            started_on=run.started,
            finished_on=finished,
        ),
        version=job.rooms.version,
    )


def _finish(job: _Job) -> Trained:
    """Make the signed manifest a leaf, if it is none yet, and put the folder in place."""
    trust, rooms = job.rooms.sources().trust, job.rooms
    encoded = (job.staged / MANIFEST).read_bytes()
    statement, payload = verify_manifest(encoded, trust)
    checked = check_files(job.staged, statement, trust)
    index, appended = rooms.index_of(payload), None
    if index is None:
        leaf, _ = open_manifest(encoded)
        index = appended = rooms.append(leaf)
    # From here on the ledger says that this student was trained; what is left can be made anew.
    proof = format_proof(rooms.prove(index))
    write_durably(job.staged / PROOF, proof.encode())
    signature = write_signature(
        checked.manifest.asked.student,
        signed_files(job.staged, checked),
        rooms.signer,
        _key_of(rooms.signer, trust),
    )
    write_durably(job.staged / SIGNATURE, signature)
    verify_model(job.staged, trust)
    put_in_place(job.staged, job.place)
    shutil.rmtree(job.folder, ignore_errors=True)
    return Trained(
        folder=job.place,
        payload_sha256=payload,
        index=appended,
        manifest=checked.manifest,
    )


def _key_of(signer: Signer, trust: Trust) -> PublicKey:
    key = document_keys(trust).get(signer.keyid)
    if key is None:
        raise GateError(
            f"the manifest key {signer.keyid[:16]}… is not in the trust file, or ended there",
            hint="see `gateway key list`; then go on with --resume",
            code="student.untrusted_key",
        )
    return key


@contextlib.contextmanager
def _only_run(folder: Path, *, resume: bool) -> Iterator[None]:
    """Hold the run's folder alone; the lock goes with the process."""
    begun = (folder / RUN).exists()
    if begun and not resume:
        raise GateRefusedError(
            f"a run of this student was interrupted; it stands in `{folder}`",
            hint="go on with --resume, or remove that folder",
            code="student.interrupted",
        )
    if resume and not begun:
        raise MissingPieceError(
            f"there is no run to resume in `{folder}`", hint="begin one without --resume"
        )
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise GateRefusedError(
            f"another run is at work in `{folder}`",
            hint="wait for it to end",
            code="student.busy",
        ) from error
    finally:
        os.close(handle)


def _tell_admitted(admitted: Admitted, screen: Screen) -> None:
    rows = sum(dataset.rows for dataset in admitted.datasets)
    screen.say(
        f"gate: {rows} rows verified, and permitted again on {admitted.day} "
        f"for student `{admitted.student}`"
    )
    for teacher, share in shares(admitted.teachers):
        model = teacher.model or "not named"
        screen.say(f"  {teacher.provider} {model}: {teacher.rows} rows ({share:.0%})")


def _tell_snapshot(snapshot: Snapshot, tokenizer: Any, screen: Screen) -> None:
    screen.say(
        f"token rows: {snapshot.rows} ({snapshot.tokens} tokens, {snapshot.learned} learned), "
        f"digest {snapshot.sha256[:16]}…"
    )
    for reason, count in sorted(snapshot.left_out.items()):
        screen.say(f"  left out: {count} rows, {reason}")
    screen.show_example(pieces_of(snapshot.example, tokenizer))
    screen.say("stop token trained: yes")

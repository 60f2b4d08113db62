"""Train a student, from datasets that pass the gate to a model folder that stands.

In this order: base, gate, token rows, rounds of steps, folder, leaf, place. What is true if the
power fails: before the first whole checkpoint, nothing was learned; after it, a run with
`--resume` goes on from there; once the manifest is signed, a run with `--resume` makes it a
leaf, if it is none yet, fetches the proof of that, signs the weights, and puts the folder in
place. Each of these is asked for anew until it is there. Every run, first or resumed, goes
through the gate, and the gate is asked again at every checkpoint.

Nothing here imports a training library before the gate has let the datasets in.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.canonical import digest_of
from gateway.dataset.manifest import MANIFEST
from gateway.errors import GateRefusedError, GatewayError, MissingPieceError, OperatorError
from gateway.student.bases import (
    Ours,
    check_weights,
    context_of,
    find_base,
    load_tokenizer,
)
from gateway.student.before import show_learned_before
from gateway.student.card import shares
from gateway.student.corpus import Corpus, Shape, all_texts, check_stop_token, pieces_of
from gateway.student.course import Course, RowsFile, pool_of
from gateway.student.evaluate import Drawing, Drawn, Search
from gateway.student.files import written_by_others
from gateway.student.gate import Admitted, Snapshot, Sources, StudentGate
from gateway.student.manifest import Round, recipe_sha256
from gateway.student.offline import seal_off
from gateway.student.progress import Metrics, Screen
from gateway.student.ranks import Team, assembled
from gateway.student.run import (
    METRICS,
    ROWS,
    RUN,
    Interrupted,
    Job,
    Order,
    Rooms,
    Run,
    StoppedError,
    Trained,
    only_run,
    run_of,
    stands_already,
    until,
)
from gateway.student.stage import Outcome, finish, stage, stood

FOLLOW_S: Final = 5.0
"""Between two looks for the next snapshot of a feed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would be, nothing of it done but the gate and the token rows."""

    admitted: Admitted
    snapshot: Snapshot
    courses: tuple[Course, ...]
    parameters: int
    learned_parameters: int

    @property
    def steps(self) -> int:
        """Return the steps of all rounds."""
        return sum(course.step_count for course in self.courses)

    @property
    def memory(self) -> int:
        """Return the bytes of weights, gradients and moments; a step needs more on top."""
        return 4 * self.parameters + 12 * self.learned_parameters


def plan_training(
    order: Order, rooms: Rooms, screen: Screen, stop: threading.Event | None = None
) -> Plan:
    """Take *order* through the gate and count what it would learn; train nothing.

    Raises:
        EvidenceError: a dataset or the base does not verify.
        GateRefusedError: something may not be learned from.
        MissingPieceError: there is no such base.
        OperatorError: there is no room for token rows.
        StoppedError: it was told to stop.
    """
    job = admit(order, rooms, screen, stop or threading.Event())
    _check_place(job)
    tell_admitted(job.admitted, screen)
    seal_off()
    try:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer, snapshot = tokens_of(job, Path(folder))
            tell_snapshot(snapshot, tokenizer, screen)
            courses = tuple(
                courses_of(job, recipe_sha256(order.recipe, job.at_hand.base), snapshot)
            )
            tell_courses(job, courses)
            # Only now: it imports what takes seconds.
            from gateway.student import engine  # noqa: PLC0415

            parameters, learned = engine.parameters_of(courses[0], tokenizer)
    except OSError as error:
        raise OperatorError(
            f"the plan needs room for token rows: {error.strerror or error}",
            hint="make room where temporary files go, or name another place in TMPDIR",
            code="disk.unwell",
        ) from error
    return Plan(
        admitted=job.admitted,
        snapshot=snapshot,
        courses=courses,
        parameters=parameters,
        learned_parameters=learned,
    )


def train_student(
    order: Order, rooms: Rooms, screen: Screen, stop: threading.Event
) -> Trained | Interrupted:
    """Train the student of *order* and put its folder in place.

    Raises:
        EvidenceError: a dataset or the base does not verify.
        GateRefusedError: something may not be learned from, or no longer; or the name is taken.
        GateError: the loss is no longer a number, or the run is not the one to be resumed.
        MissingPieceError: there is no such base, or no run to resume.
        OperatorError: the run's folder can't be written, or a rank was lost.
        StoppedError: it was told to stop at the gate; whatever was kept is as it was.
    """
    job = admit(order, rooms, screen, stop)
    _check_place(job)
    tell_admitted(job.admitted, screen)
    try:
        with only_run(job.folder, resume=order.resume):
            return _go(job)
    except StoppedError:
        return Interrupted(folder=job.folder, step=0, steps=0, kept=_begun(job))
    except OSError as error:
        raise _unwell(job, error) from error


def _begun(job: Job) -> bool:
    return (job.folder / RUN).exists()


def _unwell(job: Job, error: OSError) -> GatewayError:
    """Return what a person can do about what the system said."""
    then = "go on with --resume" if _begun(job) else "begin anew"
    why, where = error.strerror or error, error.filename
    gone = isinstance(error, FileNotFoundError) and where is not None
    if gone and not Path(where).is_relative_to(job.folder):
        return MissingPieceError(
            f"`{where}` can't be read any more: {why}", hint=f"put it back, then {then}"
        )
    return OperatorError(
        f"the run in `{job.folder}` can't be written: {why}",
        hint=f"make room there, then {then}",
        code="disk.unwell",
    )


def _check_place(job: Job) -> None:
    # What stands may be what the run that is to be resumed put there; it looks by itself.
    if job.place.exists() and not (job.order.resume and _begun(job)):
        raise stands_already(job.place)


def admit(order: Order, rooms: Rooms, screen: Screen, stop: threading.Event) -> Job:
    """Take *order* through the gate; no training library is needed for it.

    Raises:
        EvidenceError: a dataset or the base does not verify.
        GateRefusedError: something may not be learned from.
        MissingPieceError: there is no such base.
        StoppedError: it was told to stop.
    """
    sources = rooms.sources()
    ours = Ours(trust=sources.trust, students=sources.students, held=sources.words.held)
    at_hand = find_base(order.base, order.recipe.seed, ours, order.said_of_base)
    if at_hand.is_student is not None:
        screen.say(f"base: it has the weights of student `{at_hand.is_student}`, and is that")
    check_stop = until(stop)
    gate = StudentGate(order.student, at_hand.base, sources, order.recipe.objective, check_stop)
    drawing = None if order.asking is None else Drawing(order.asking, order.recipe.seed)
    admitted = gate.admit(order.datasets, None if drawing is None else drawing.offer)
    return Job(
        order=order,
        rooms=rooms,
        screen=screen,
        stop=stop,
        gate=gate,
        admitted=admitted,
        at_hand=at_hand,
        place=order.place(admitted.student),
        drawing=drawing,
    )


def _go(job: Job) -> Trained | Interrupted:
    if job.place.exists():
        # A run that was cut off between its place and its end.
        return stood(job)
    if (job.staged / MANIFEST).exists():
        # A run that ended between its signature and its place; nothing is learned again.
        return finish(job)
    seal_off()
    job.screen.say("loading the training libraries …")
    resumed = job.order.resume
    while True:
        search = None if job.drawing is None else job.drawing.search()
        tokenizer, snapshot = tokens_of(job, job.folder, search)
        drawn = _drawn(job, search, snapshot)
        run = run_of(job, snapshot, resumed=resumed)
        tell_snapshot(snapshot, tokenizer, job.screen)
        with written_by_others():
            tokenizer.save_pretrained(job.folder / "tokenizer")
        with assembled(job.recipe.ranks) as team:
            rounds = _Rounds(
                job=job, run=run, snapshot=snapshot, tokenizer=tokenizer, team=team
            )
            outcome = rounds.learn()
        if isinstance(outcome, Interrupted):
            return outcome
        grown = _grown(job)
        if grown is None:
            break
        if job.stop.is_set():
            steps = len(outcome.metrics.steps)
            return Interrupted(folder=job.folder, step=steps, steps=steps)
        job, resumed = grown, False
    snapshot.check()
    job.screen.say("writing and signing the model folder …")

    def still() -> Admitted:
        sources = job.rooms.sources()
        # The manifest says by which policies it was trained; those must be the ones in force.
        _check_library(job, sources)
        return _gate(job, sources).admit(job.order.datasets)

    try:
        stage(job, run, snapshot, outcome, drawn, still)
    except StoppedError:
        steps = len(outcome.metrics.steps)
        return Interrupted(folder=job.folder, step=steps, steps=steps)
    return finish(job)


def _drawn(job: Job, search: Search | None, snapshot: Snapshot) -> Drawn | None:
    """Return the held-out rows to ask at the end, before anything is learned.

    Raises:
        GateRefusedError: too many of them would be learned.
        CallerError: the task metric fails on the teacher's own answer.
    """
    if job.drawing is None:
        return None
    if search is None:
        job.screen.say("nothing is held out: no evaluation")
        return None
    if snapshot.held_out is None:
        job.screen.say("no row that is held out fits: no evaluation")
        return None
    sources = job.rooms.sources()

    def seen(row: Mapping[str, Any]) -> None:
        job.check_stop()
        search.see(row)

    unseen = show_learned_before(job.at_hand.base, sources, sources.folders(), seen)
    for name in unseen:
        job.screen.say(f"not looked through: {name}, from which its base learned")
    drawn = search.drawn(unseen)
    job.screen.say(
        f"held out: {drawn.of} rows; {len(drawn.rows)} are asked at the end, of which "
        f"{drawn.overlap.rows} stand among the learned"
    )
    return drawn


def _grown(job: Job) -> Job | None:
    """Wait until the feed has a snapshot more, and return the job over all of them.

    Nothing is returned where no round is to follow; the same job, where it was told to stop.
    """
    order = job.order
    if order.more is None or (order.rounds or math.inf) <= len(order.datasets):
        return None
    job.screen.say("waiting for the next snapshot of the feed …")
    while not job.stop.wait(FOLLOW_S):
        folders = order.more()[: order.rounds]
        if len(folders) > len(order.datasets):
            grown = replace(order, datasets=folders)
            return admit(grown, job.rooms, job.screen, job.stop)
    return job


def tokens_of(job: Job, folder: Path, search: Search | None = None) -> tuple[Any, Snapshot]:
    """Verify the rows once more and write them to *folder* as tokens.

    Those that will be learned go past *search*.

    Raises:
        EvidenceError: a dataset changed since it was admitted.
        GateRefusedError: the template teaches no end, or no row is left.
        StoppedError: the run was told to stop.
    """
    recipe = job.recipe
    tokenizer = _tokenizer(job)
    check_stop_token(tokenizer)
    context = context_of(job.at_hand.path) if job.at_hand.path else None
    shape = Shape(
        recipe.objective, min(recipe.max_length, context or recipe.max_length), recipe.packing
    )

    def seen(row: Mapping[str, Any]) -> None:
        job.check_stop()
        if search is not None:
            search.see(row)

    rows = folder / ROWS
    rows.mkdir(parents=True, exist_ok=True)
    for stale in rows.iterdir():
        stale.unlink()
    return tokenizer, job.gate.snapshot(job.admitted, Corpus(rows, tokenizer, shape, seen))


def courses_of(job: Job, run_recipe: Any, snapshot: Snapshot) -> Iterator[Course]:
    """Yield what each round is to learn; what follows on the round before is left open."""
    files = [
        RowsFile(path=str(part.path), sha256=part.sha256, units=part.units)
        for part in snapshot.parts
    ]
    held_out = snapshot.held_out
    numbers = range(1, len(files) + 1) if job.order.feed else range(1, 2)
    done = 0
    for number in numbers:
        known = number if job.order.feed else len(files)
        parts = snapshot.parts[:known]
        course = Course(
            rows=tuple(files[:known]),
            earlier=number - 1,
            held_out=None
            if held_out is None
            else RowsFile(
                path=str(held_out.path), sha256=held_out.sha256, units=held_out.units
            ),
            round=number,
            rounds=len(numbers),
            first_step=done,
            step_count=0,
            batch=0,
            folder=str(job.folder / "checkpoints" / f"round-{number}"),
            snapshot=digest_of({part.path.name: part.sha256 for part in parts}),
            recipe=job.recipe,
            recipe_sha256=run_recipe,
            base=None if job.at_hand.path is None else str(job.at_hand.path),
            tokenizer=str(job.folder / "tokenizer"),
        )
        units = len(pool_of(course))
        own = parts[number - 1 :] if job.order.feed else parts
        batch = job.recipe.batch_for(
            sum(part.units for part in own), sum(part.tokens for part in own)
        )
        steps = job.recipe.steps_for(units, batch)
        done += steps
        yield msgspec.structs.replace(course, batch=batch, step_count=steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rounds:
    """The rounds of one run, one after the other."""

    job: Job
    run: Run
    snapshot: Snapshot
    tokenizer: Any
    team: Team

    def learn(self) -> Outcome | Interrupted:
        """Learn every round that was not learned yet; return what came of all of them."""
        # Only now: it imports what takes seconds.
        from gateway.student import engine  # noqa: PLC0415

        job = self.job
        courses = list(courses_of(job, self.run.recipe, self.snapshot))
        begins = [engine.last_checkpoint(course) for course in courses]
        tell_courses(job, courses)
        resumed_at = max(
            (
                course.first_step + begin.step
                for course, begin in zip(courses, begins, strict=True)
                if begin
            ),
            default=0,
        )
        steps = courses[-1].first_step + courses[-1].step_count
        if job.stop.is_set():
            return Interrupted(folder=job.folder, step=resumed_at, steps=steps)
        metrics = _metrics_of(job, resumed_at)
        standing = job.admitted

        def still() -> None:
            # Kept: on the day after, the rows are ruled on once, not at every checkpoint.
            nonlocal standing
            # Told to stop meanwhile, it stops with the next step, and all is asked anew.
            with contextlib.suppress(StoppedError):
                standing = _still(job, standing)

        crew = engine.Crew(
            clock=job.rooms.clock,
            stop=job.stop,
            metrics=metrics,
            screen=job.screen,
            still=still,
        )
        after: Path | None = None
        try:
            for asked, begin in zip(courses, begins, strict=True):
                course = msgspec.structs.replace(
                    asked, after=None if after is None else str(after)
                )
                if begin is None or begin.step < course.step_count:
                    learned = self.team.learn(course, begin, self.tokenizer, crew)
                    if not learned.whole:
                        return Interrupted(
                            folder=job.folder,
                            step=learned.step,
                            steps=steps,
                        )
                last = engine.last_checkpoint(course)
                assert last is not None  # noqa: S101  # INVARIANT: a whole round has one.
                after = last.path
        finally:
            metrics.close()
        assert after is not None  # noqa: S101  # INVARIANT: there is a round.
        return Outcome(
            model=engine.learned_model(courses[-1], after, self.tokenizer),
            tokenizer=self.tokenizer,
            metrics=metrics,
            rounds=self._rounds(courses),
            device=engine.device_name(),
            precision=engine.precision_of(job.recipe),
        )

    def _rounds(self, courses: list[Course]) -> tuple[Round, ...]:
        if not self.job.order.feed:
            return ()
        return tuple(
            Round(
                dataset=dataset.manifest_sha256,
                snapshot=course.snapshot,
                steps=course.step_count,
            )
            for dataset, course in zip(self.job.admitted.datasets, courses, strict=True)
        )


def _metrics_of(job: Job, resumed_at: int) -> Metrics:
    """Return the metrics of the run up to the step it goes on from.

    Raises:
        MissingPieceError: some of its steps are not among them.
    """
    path = job.folder / METRICS
    metrics = Metrics(path, resumed_at=resumed_at)
    if [step.step for step in metrics.steps] != list(range(1, resumed_at + 1)):
        metrics.close()
        raise MissingPieceError(
            f"`{path}` does not tell of every step that was made",
            hint=f"put it back as it was; or remove `{job.folder}` and begin the run anew",
        )
    return metrics


def tell_courses(job: Job, courses: Sequence[Course]) -> None:
    """Say how many steps each round makes, and how an update is shared."""
    for course in courses:
        shown = f"round {course.round}: " if job.order.feed else ""
        ranks = course.recipe.ranks
        at_once = course.recipe.at_once_for(course.batch)
        times = course.batch // (at_once * ranks)
        job.screen.say(
            f"{shown}{course.step_count} steps of {course.batch} rows "
            f"({ranks} ranks × {at_once} at once × {times})"
        )


def _still(job: Job, admitted: Admitted) -> Admitted:
    """Ask at a checkpoint whether what was *admitted* still stands; return it as of now.

    Raises:
        GateRefusedError: something was withdrawn, or the policies are others.
    """
    sources = job.rooms.sources()
    _check_library(job, sources)
    return _gate(job, sources).still(admitted)


def _check_library(job: Job, sources: Sources) -> None:
    if sources.library != job.admitted.library:
        raise GateRefusedError(
            f"the policies were changed while the student was trained (library "
            f"{job.admitted.library[:12]}… is {sources.library[:12]}… now); what it "
            "learned is kept",
            hint="go on with --resume: every row is ruled on again first",
            code="student.policies_changed",
        )


def _gate(job: Job, sources: Sources) -> StudentGate:
    order = job.order
    return StudentGate(
        order.student, job.at_hand.base, sources, order.recipe.objective, job.check_stop
    )


def _tokenizer(job: Job) -> Any:
    if job.at_hand.path is not None:
        check_weights(job.at_hand.path)
        return load_tokenizer(job.at_hand.path)
    from gateway.student.tiny import tiny_tokenizer  # noqa: PLC0415  # training libraries

    admitted = job.admitted
    if job.order.feed:
        # The words stay what they were in the first round, whatever comes later.
        admitted = replace(admitted, datasets=admitted.datasets[:1])
    return tiny_tokenizer(all_texts(job.gate.texts(admitted)))


def tell_admitted(admitted: Admitted, screen: Screen) -> None:
    """Say what the gate let in."""
    rows = sum(dataset.rows for dataset in admitted.datasets)
    screen.say(
        f"gate: {rows} rows verified, and permitted again on {admitted.day} "
        f"for student `{admitted.student}`"
    )
    for teacher, share in shares(admitted.teachers):
        model = teacher.model or "not named"
        screen.say(f"  {teacher.provider} {model}: {teacher.rows} rows ({share:.0%})")


def tell_snapshot(snapshot: Snapshot, tokenizer: Any, screen: Screen) -> None:
    """Say what became of the rows, and show one of them."""
    screen.say(
        f"token rows: {snapshot.rows} ({snapshot.tokens} tokens, {snapshot.learned} learned), "
        f"digest {snapshot.sha256[:16]}…"
    )
    units = sum(part.units for part in snapshot.parts)
    if units != snapshot.rows:
        screen.say(f"  packed into {units} rows")
    if snapshot.held_out is not None:
        screen.say(f"  held out: {snapshot.held_out.rows} rows, measured on and not learned")
    for reason, count in sorted(snapshot.left_out.items()):
        screen.say(f"  left out: {count} rows, {reason}")
    screen.show_example(pieces_of(snapshot.example, tokenizer))
    screen.say("stop token trained: yes")

"""Ask a student that stands what was held out of the datasets it learned from.

The folder is verified, and its datasets go through the gate once more, as of today: what was
withdrawn since is not asked. What comes of it is signed by nobody; the evaluation that the
training manifest holds stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.dataset.manifest import DATASET_MANIFEST
from gateway.errors import CallerError, GateRefusedError, MissingPieceError
from gateway.student.bases import (
    base_beside,
    base_digest,
    load_model,
    load_tokenizer,
    weights_at,
)
from gateway.student.before import payload_of, show_learned_before
from gateway.student.evaluate import Asking, Drawing, Drawn, Examined
from gateway.student.figures import Who
from gateway.student.gate import Sources, StudentGate
from gateway.student.manifest import Base
from gateway.student.offline import seal_off
from gateway.student.progress import Screen
from gateway.student.verify import VerifiedModel

SUITE_LINE_BYTES_MAX: Final = 1 << 20
"""Longest line of a suite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retest:
    """What is to be asked of a student that stands."""

    model: VerifiedModel
    datasets: tuple[Path, ...]
    """Exactly the datasets it learned from."""
    among: tuple[Path, ...] = ()
    """Where the datasets that its base learned from may be, besides those of the house."""
    base: Path | None = None
    """Where its base is, if it is to be asked too; a tiny one is made again."""
    suite: Path | None = None
    """Rows of somebody's own, instead of those that were held out."""
    asking: Asking
    seed: int = 0


def reexamine(retest: Retest, sources: Sources, screen: Screen) -> Examined:
    """Return what base and student make of the rows today.

    Raises:
        EvidenceError: a dataset does not verify.
        GateRefusedError: a dataset may not serve this student any more, is not one of its own,
            holds nothing out, or what was held out was learned.
        CallerError: there is no such metric, or a line of the suite is no row.
        MissingPieceError: the base is not there.
    """
    drawn = _drawn(retest, sources)
    screen.say(
        f"{len(drawn.rows)} of {drawn.of} rows; {drawn.overlap.rows} stand among the "
        f"{drawn.overlap.compared} that were learned"
    )
    for name in drawn.overlap.unseen:
        screen.say(f"not looked through: {name}, from which its base learned, is not at hand")
    base = _base_of(retest)
    seal_off()
    screen.say("loading the training libraries …")
    # Only now: it imports what takes seconds.
    from gateway.student.examine import examine_models  # noqa: PLC0415
    from gateway.student.tiny import tiny_model  # noqa: PLC0415  # as above

    model, recipe = retest.model, retest.model.manifest.found.recipe
    tokenizer = load_tokenizer(model.path)
    models: dict[Who, Callable[[], Any]] = {}
    if model.manifest.asked.base.kind == "tiny":
        models["base"] = lambda: tiny_model(tokenizer, int(recipe["seed"]))
    elif base is not None:
        models["base"] = lambda: load_model(base)
    else:
        screen.say("its base is not asked: say where it is with --base")
    models["student"] = lambda: load_model(model.path, base)
    with screen.counting(f"asking {' and '.join(models)} {len(drawn.rows)} rows") as tick:
        return examine_models(drawn, tokenizer, int(recipe["max_length"]), models, tick)


def datasets_of(
    model: VerifiedModel, among: Sequence[Path], sources: Sources
) -> tuple[Path, ...]:
    """Return those of the folders *among* that the student learned from, in its order.

    Raises:
        GateRefusedError: one of them is not among them.
    """
    at_hand: dict[str, Path] = {}
    for folder in among:
        payload = payload_of(folder, sources.trust)
        if payload is not None:
            at_hand.setdefault(payload, folder)
    found: list[Path] = []
    for dependency in model.manifest.dependencies:
        if dependency.kind != DATASET_MANIFEST:
            continue
        folder_of = at_hand.get(dependency.digest["sha256"])
        if folder_of is None:
            raise GateRefusedError(
                f"{dependency.name} of student `{model.manifest.asked.student}` is not at hand",
                hint="name its datasets: --datasets FOLDER…; without them nobody can tell what "
                "was learned",
                code="student.dataset_missing",
            )
        found.append(folder_of)
    return tuple(found)


def _drawn(retest: Retest, sources: Sources) -> Drawn:
    asked = retest.model.manifest.asked
    gate = StudentGate(asked.student, asked.base, sources, asked.method)
    drawing = Drawing(retest.asking, retest.seed)
    if retest.suite is None:
        admitted = gate.admit(retest.datasets, drawing.offer)
    else:
        for line in suite_lines(retest.suite):
            drawing.offer(line)
        admitted = gate.admit(retest.datasets)
    search = drawing.search()
    if search is None:
        what = (
            "the suite holds no row" if retest.suite else "nothing was held out of its datasets"
        )
        raise GateRefusedError(
            what,
            hint="build the dataset with --held-out, or give rows of your own with --suite",
            code="student.nothing_held_out",
        )
    for row in gate.texts(admitted):
        search.see(row)
    places = (*retest.among, *sources.folders())
    return search.drawn(show_learned_before(asked.base, sources, places, search.see))


def suite_lines(path: Path) -> Iterator[bytes]:
    """Yield the rows of the suite at *path*, each looked at.

    Raises:
        CallerError: it can't be read, or a line of it is no conversation with its answer.
    """
    try:
        with path.open("rb") as file:
            for number in range(1, 1 << 62):
                line = file.readline(SUITE_LINE_BYTES_MAX + 1)
                if not line:
                    return
                if line.strip():
                    _check_line(line, f"{path}:{number}")
                    yield line.strip()
    except OSError as error:
        raise _bad_suite(f"the suite `{path}` can't be read: {error.strerror}") from error


def _check_line(line: bytes, where: str) -> None:
    if len(line) > SUITE_LINE_BYTES_MAX:
        raise _bad_suite(f"{where}: longer than {SUITE_LINE_BYTES_MAX} bytes")
    try:
        row = msgspec.json.decode(line, type=_SuiteRow)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _bad_suite(f"{where}: {error}") from error
    messages = row.messages
    if len(messages) < 2 or messages[-1].role != "assistant" or not messages[-1].content:
        raise _bad_suite(f"{where}: a row is a conversation that ends with the answer to give")


def _bad_suite(message: str) -> CallerError:
    return CallerError(
        message,
        hint='write one row a line: {"messages": [{"role": "user", "content": …}, '
        '{"role": "assistant", "content": …}]}',
        code="student.suite",
    )


class _Said(msgspec.Struct):
    role: str
    content: str


class _SuiteRow(msgspec.Struct, forbid_unknown_fields=True):
    messages: list[_Said]
    tools: list[dict[str, Any]] | None = None


def _base_of(retest: Retest) -> Path | None:
    """Return where the base is, once it is seen to be the one the student began as."""
    base = retest.model.manifest.asked.base
    if base.kind == "tiny" and retest.base is not None:
        raise GateRefusedError(
            f"the student began as a tiny base, and not as what is at `{retest.base}`",
            hint="leave --base out: a tiny base is made again",
            code="student.other_base",
        )
    # The base of an adapter is known, for it is needed.
    path = retest.base or base_beside(retest.model.path)
    if path is None or base.kind == "tiny":
        return None
    if not path.is_dir():
        raise MissingPieceError(
            f"there is no base checkpoint at `{path}`",
            hint="give the folder it was trained from",
        )
    if base_digest(path) != base.sha256 and not _has_weights(path, base):
        raise GateRefusedError(
            f"the checkpoint at `{path}` is not base `{base.name}` that the student began as",
            hint=f"its files must have digest {base.sha256[:16]}…; give the folder that it was "
            "trained from",
            code="student.other_base",
        )
    return path


def _has_weights(path: Path, base: Base) -> bool:
    """Tell whether *base* lies at *path*, in other files."""
    return base.weights is not None and base.weights == weights_at(path).sha256

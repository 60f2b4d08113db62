"""Read the YAML file that says what is to be trained, from what, and how.

Strict like every file of this house: a key that is not known is an error that names the nearest
one, in its line. What is not said is chosen to suit the base (`recipe.py`). Described in
`docs/guides/training.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from gateway.errors import CallerError, MalformedPolicyError
from gateway.policy.source import Keyed, convert, line_at, read
from gateway.student.bases import SaidOfBase
from gateway.student.evaluate import ASKING, Asking
from gateway.student.recipe import TINY, Lora, Objective, Recipe, recipe_for

_HINT: Final = "see docs/guides/training.md"

_CHOSEN: Final = frozenset(Recipe.__struct_fields__)


class TrainingJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a job file says; every key but `version` may be left to a flag or to us."""

    version: Literal[1] = 1
    name: str | None = None
    """The student's name."""
    datasets: tuple[str, ...] = ()
    """Dataset folders, from the folder of the file."""
    feed: str | None = None
    """A feed whose snapshots are learned one after the other, instead of *datasets*."""
    base: str = TINY
    base_licence: SaidOfBase | None = None
    out: str | None = None
    objective: Objective | None = None
    epochs: float | None = None
    steps: int | None = None
    learning_rate: float | None = None
    batch: int | None = None
    batch_tokens: int | None = None
    rows_at_once: int | None = None
    max_length: int | None = None
    packing: bool | None = None
    precision: Literal["auto", "fp32", "bf16"] | None = None
    seed: int | None = None
    warmup: float | None = None
    schedule: Literal["cosine", "constant"] | None = None
    save_every: int | None = None
    keep: int | None = None
    measure_every: int | None = None
    lora: Lora | None = None
    beta: float | None = None
    replay: float | None = None
    ranks: int | None = None
    evaluate: Asking | bool = True
    """What is asked of held-out rows at the end."""

    @property
    def asking(self) -> Asking | None:
        """Return what is to be asked; `None` where nothing is."""
        if isinstance(self.evaluate, bool):
            return ASKING if self.evaluate else None
        return self.evaluate

    def recipe(self) -> Recipe:
        """Return the recipe that it asks for.

        Raises:
            CallerError: no run can be made with these numbers.
        """
        said: dict[str, Any] = {
            name: value for name in _CHOSEN if (value := getattr(self, name, None)) is not None
        }
        if self.feed is not None:
            # A round must not end where the next can't begin.
            said.setdefault("schedule", "constant")
        try:
            return recipe_for(self.base, **said)
        except ValueError as error:
            raise CallerError(str(error), hint=_HINT, code="recipe.bad") from error


def read_job(path: Path) -> TrainingJob:
    """Return the job that the file at *path* describes; its paths start at the file's folder.

    Raises:
        CallerError: it can't be read, or says something that can't be; with file and line.
    """
    try:
        root = read(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise _bad(
            f"can't read the job file {path}: {reason}", "name another with --job"
        ) from error
    except MalformedPolicyError as error:
        raise _bad(error.message, error.hint) from error
    if not isinstance(root, Keyed) or "version" not in root.entries:
        raise _bad(f"{path}:1: a job begins with `version: 1`", _HINT)
    try:
        job = convert(root, TrainingJob, str(path))
    except MalformedPolicyError as error:
        raise _bad(error.message, error.hint) from error
    if job.feed is not None and job.datasets:
        line = line_at(root, "feed")
        raise _bad(f"{path}:{line}: `feed` and `datasets` both", "keep one of them")
    if job.epochs is not None and job.steps is not None:
        line = line_at(root, "steps")
        raise _bad(f"{path}:{line}: `epochs` and `steps` both", "keep one of them")
    home = path.parent
    base = job.base
    if base.startswith((".", "/")) or (home / base).is_dir():
        base = str(home / base)
    return msgspec.structs.replace(
        job,
        datasets=tuple(str(home / dataset) for dataset in job.datasets),
        out=None if job.out is None else str(home / job.out),
        base=base,
    )


def overridden(job: TrainingJob, said: Mapping[str, Any]) -> TrainingJob:
    """Return *job* with what was *said* on the command line put over what the file says."""
    over = {name: value for name, value in said.items() if value is not None and value != ()}
    instead = (
        ("steps", "epochs", None),
        ("epochs", "steps", None),
        ("datasets", "feed", None),
        ("feed", "datasets", ()),
    )
    over |= {
        other: nothing
        for one, other, nothing in instead
        if said.get(one) and not said.get(other)
    }
    return msgspec.structs.replace(job, **over)


def _bad(message: str, hint: str) -> CallerError:
    return CallerError(message, hint=hint, code="job.bad")

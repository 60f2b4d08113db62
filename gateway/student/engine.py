"""Drive TRL over token rows; the only module that trains.

Everything a library would choose by itself is chosen here. Preparation is switched off: what
the gate digested is what is learned. A checkpoint counts only once our mark stands in it, and
the mark is written last.

Not here: the order of a run from gate to ledger (`train.py`).
"""

from __future__ import annotations

import math
import shutil
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import torch
from datasets import Dataset
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import set_seed
from transformers.utils.logging import disable_progress_bar
from trl import SFTConfig, SFTTrainer

from gateway.clock import Clock
from gateway.errors import GateError, MissingPieceError
from gateway.ident import Sha256
from gateway.student.files import sync, write_durably
from gateway.student.progress import Metrics, Screen, Step
from gateway.student.recipe import Recipe

MARK: Final = "complete.json"
"""Our file in a checkpoint, written last: without it the checkpoint does not count."""


class Checkpoint(NamedTuple):
    """A whole checkpoint."""

    step: int
    path: Path


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What a whole checkpoint belongs to."""

    step: int
    snapshot: Sha256
    recipe: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What one call of `learn` needs."""

    rows: Path
    folder: Path
    """Where checkpoints go."""
    snapshot: Sha256
    recipe: Recipe
    recipe_sha256: Sha256
    step_count: int
    stop: threading.Event
    """Set from outside: save after the step under way, then return."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """How far it came; *whole* only if every step was made."""

    model: Any
    step: int
    whole: bool
    seconds: float
    device: str


def learn(
    course: Course,
    begin: Checkpoint | None,
    model: Any,
    tokenizer: Any,
    metrics: Metrics,
    screen: Screen,
    clock: Clock,
) -> Learned:
    """Train *model* on the rows of *course*, from the checkpoint *begin* if there is one.

    Raises:
        GateError: the loss is no longer a number.
    """
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        torch.set_num_threads(1)
    disable_progress_bar()
    set_seed(course.recipe.seed)
    watch = _Watch(course, metrics, screen, clock)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        trainer = SFTTrainer(
            model=model,
            args=_arguments(course, on_gpu=on_gpu),
            train_dataset=Dataset.from_file(str(course.rows)),
            processing_class=tokenizer,
            callbacks=[watch],
        )
        for noise in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(noise)
        screen.begin(course.step_count)
        try:
            trainer.train(resume_from_checkpoint=str(begin.path) if begin else None)
        finally:
            screen.end()
    if watch.diverged_at is not None:
        raise GateError(
            f"the loss is no longer a number at step {watch.diverged_at}",
            hint=f"nothing was put in place; remove `{course.folder.parent}`, lower --lr, "
            "begin anew",
            code="student.diverged",
        )
    return Learned(
        model=trainer.accelerator.unwrap_model(trainer.model),
        step=trainer.state.global_step,
        whole=trainer.state.global_step >= course.step_count,
        seconds=clock.monotonic_s() - watch.begun_s,
        device=torch.cuda.get_device_name(0) if on_gpu else "cpu",
    )


def last_checkpoint(folder: Path, snapshot: Sha256, recipe: Sha256) -> Checkpoint | None:
    """Return the newest whole checkpoint of this snapshot and recipe, or `None`.

    Folders without the mark were cut off while they were written; they are swept away.

    Raises:
        GateError: a checkpoint belongs to other rows or to another recipe.
    """
    whole: list[Checkpoint] = []
    for path in folder.glob("checkpoint-*"):
        mark = _read_mark(path / MARK)
        if mark is None:
            shutil.rmtree(path)
            continue
        for name, now in (("snapshot", snapshot), ("recipe", recipe)):
            if getattr(mark, name) != now:
                raise GateError(
                    f"{path.name} was made under another {name}",
                    hint="the rows, the base or the settings changed; begin the run anew",
                    code="student.resume_differs",
                )
        whole.append(Checkpoint(mark.step, path))
    return max(whole, default=None)


def _read_mark(path: Path) -> Mark | None:
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mark)
    except (msgspec.MsgspecError, ValueError) as error:
        raise MissingPieceError(
            f"{path}: the mark of a checkpoint can't be read", hint="remove that checkpoint"
        ) from error


def _arguments(course: Course, *, on_gpu: bool) -> SFTConfig:
    """Return the arguments of the run; what is not named here has no say in the outcome."""
    recipe, total = course.recipe, course.step_count
    return SFTConfig(
        output_dir=str(course.folder),
        # how far and how fast
        max_steps=total,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(total * recipe.warmup),
        optim="adamw_torch_fused" if on_gpu else "adamw_torch",
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=0.0,
        max_grad_norm=1.0,
        label_smoothing_factor=0.0,
        neftune_noise_alpha=None,
        # in what portions
        per_device_train_batch_size=recipe.batch,
        gradient_accumulation_steps=1,
        average_tokens_across_devices=True,
        dataloader_num_workers=0,
        dataloader_drop_last=False,
        dataloader_pin_memory=on_gpu,
        train_sampling_strategy="random",
        remove_unused_columns=True,
        # on what machine
        use_cpu=not on_gpu,
        bf16=on_gpu,
        fp16=False,
        gradient_checkpointing=None,  # the old name of the next one; its default is True
        activation_checkpointing=False,
        torch_compile=False,
        use_liger_kernel=False,
        auto_find_batch_size=False,
        full_determinism=False,
        seed=recipe.seed,
        data_seed=recipe.seed,
        # the rows are ready: nothing is prepared, cut, packed or masked any more
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        padding_free=False,
        pad_to_multiple_of=None,
        shuffle_dataset=False,
        assistant_only_loss=False,
        completion_only_loss=None,
        loss_type="nll",
        activation_offloading=False,
        trust_remote_code=False,
        # what is written
        logging_strategy="steps",
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=recipe.save_every_of(total),
        save_total_limit=recipe.keep,
        save_only_model=False,
        enable_jit_checkpoint=False,
        eval_strategy="no",
        load_best_model_at_end=False,
        ignore_data_skip=False,
        disable_tqdm=True,
        log_level="error",
        report_to="none",
        push_to_hub=False,
    )


class _Watch(TrainerCallback):  # type: ignore[misc]  # the library carries no types
    """Keeps the metrics, marks checkpoints, and stops the run when it must stop."""

    def __init__(self, course: Course, metrics: Metrics, screen: Screen, clock: Clock) -> None:
        self._course = course
        self._metrics = metrics
        self._screen = screen
        self._clock = clock
        self._tokens_before = metrics.steps[-1].tokens if metrics.steps else 0
        self.begun_s = clock.monotonic_s()
        self.diverged_at: int | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the stopwatch."""
        self.begun_s = self._clock.monotonic_s()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save and stop if somebody asked for it."""
        if self._course.stop.is_set():
            control.should_save = True
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float],
        **_: Any,
    ) -> None:
        """Keep one step; a loss that is no number ends the run unsaved."""
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs.get("grad_norm", 0.0)):
            self.diverged_at = state.global_step
            control.should_save = False
            control.should_training_stop = True
            return
        step = Step(
            step=state.global_step,
            loss=float(logs["loss"]),
            learning_rate=float(logs.get("learning_rate", 0.0)),
            gradient_norm=float(logs.get("grad_norm", 0.0)),
            accuracy=float(logs.get("mean_token_accuracy", 0.0)),
            tokens=self._tokens_before + int(logs.get("num_tokens", 0)),
            seconds=round(self._clock.monotonic_s() - self.begun_s, 3),
        )
        self._metrics.add(step)
        self._screen.step(step)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Make the checkpoint durable, then mark it whole."""
        folder = self._course.folder / f"checkpoint-{state.global_step}"
        for path in sorted(folder.iterdir()):
            sync(path)
        mark = Mark(
            step=state.global_step,
            snapshot=self._course.snapshot,
            recipe=self._course.recipe_sha256,
        )
        write_durably(folder / MARK, msgspec.json.encode(mark))

"""Drive TRL over token rows; the only module that trains.

Everything a library would choose by itself is chosen here. Preparation is switched off: what
the gate digested is what is learned, in the order that `course.py` says. A checkpoint counts
only once our mark stands in it, and the mark is written last.

Not here: the order of a run from gate to ledger (`train.py`), and how several processes find
each other (`ranks.py`).
"""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import datasets
import msgspec
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from torch import distributed
from torch.utils.data import Sampler
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import set_seed
from transformers.utils.logging import disable_progress_bar, set_verbosity_error
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from gateway.clock import Clock
from gateway.errors import (
    CallerError,
    GateError,
    GatewayError,
    MissingPieceError,
    OperatorError,
)
from gateway.ident import Sha256
from gateway.student.bases import load_model
from gateway.student.course import Course, RowsFile, order_of, pool_of
from gateway.student.files import sync_under, system_error, write_durably
from gateway.student.offline import hushed
from gateway.student.progress import HeldOutLoss, Metrics, Screen, Step, memory_of_process
from gateway.student.ranks import RANK_LOST
from gateway.student.recipe import Lora, Recipe
from gateway.student.tiny import tiny_model

MARK: Final = "complete.json"
"""Our file in a checkpoint, written last: without it the checkpoint does not count."""

_NOT_STUDENT: Final = ("README.md", "training_args.bin")
"""What the trainer leaves in a checkpoint and no run reads: its own card, and a pickle."""


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
class Crew:
    """Whoever watches a run: the first of its ranks has all of them, the others none."""

    clock: Clock
    stop: threading.Event = field(default_factory=threading.Event)
    """Set from outside: save after the step under way, then return."""
    metrics: Metrics | None = None
    screen: Screen | None = None
    still: Callable[[], None] | None = None
    """Asked at each checkpoint; raises what the run must be stopped for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """How far it came; *whole* only if every step was made."""

    step: int
    whole: bool
    seconds: float


def learn(course: Course, begin: Checkpoint | None, tokenizer: Any, crew: Crew) -> Learned:
    """Learn the rows of *course*, from the checkpoint *begin* if there is one.

    Raises:
        CallerError: an adapter is asked for beside layers that are not there.
        GateError: the loss is no longer a number.
        GatewayError: what *crew* was told to stop for.
        OperatorError: a checkpoint can't be written.
    """
    on_gpu = torch.cuda.is_available()
    _add_alike()
    disable_progress_bar()
    set_verbosity_error()
    datasets.disable_progress_bars()
    set_seed(course.recipe.seed)
    rows = _rows(course)
    arguments = _arguments(course, on_gpu=on_gpu)
    watch = _Watch(course, crew)
    with hushed():
        model = first_model(course, tokenizer)
        trainer = _trainer(course, model, arguments, rows, tokenizer, watch)
        trainer.order = order_of(course, len(rows))
        for noise in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(noise)
        if crew.screen is not None:
            crew.screen.begin(course.first_step + course.step_count)
        try:
            trainer.train(resume_from_checkpoint=str(begin.path) if begin else None)
        except Exception as error:  # libraries raise what they like where a disk is full
            explained = _explained(error, course, watch)
            if explained is not None:
                raise explained from error
            raise
        finally:
            if crew.screen is not None:
                crew.screen.end()
    watch.raise_if_told()
    step = trainer.state.global_step
    return Learned(
        step=course.first_step + step,
        whole=step >= course.step_count,
        seconds=crew.clock.monotonic_s() - watch.begun_s,
    )


def device_name() -> str:
    """Return what is computed on."""
    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else "cpu"


def precision_of(recipe: Recipe) -> str:
    """Return what is computed in on this machine: `fp32` or `bf16`."""
    if recipe.precision == "auto":
        able = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return "bf16" if able else "fp32"
    return recipe.precision


def parameters_of(course: Course, tokenizer: Any) -> tuple[int, int]:
    """Return how many numbers the model of *course* has, and how many of them are learned."""
    with hushed():
        model = first_model(course, tokenizer)
        if course.recipe.lora is not None:
            model = get_peft_model(model, _adapter(course.recipe.lora, model))
    sizes = [(one.numel(), one.requires_grad) for one in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, learned in sizes if learned)


def first_model(course: Course, tokenizer: Any) -> Any:
    """Return the model that *course* begins with: its base, or what the round before left."""
    recipe = course.recipe
    if course.after is not None and recipe.lora is None:
        return load_model(Path(course.after))
    model = (
        tiny_model(tokenizer, recipe.seed)
        if course.base is None
        else load_model(Path(course.base))
    )
    if course.after is not None:
        return PeftModel.from_pretrained(model, course.after, is_trainable=True)
    return model


def learned_model(course: Course, checkpoint: Path, tokenizer: Any) -> Any:
    """Return what *checkpoint* holds, as a model; an adapter stands on its base, unmerged."""
    # Whoever merges it after a resume makes the sums of whoever learned it.
    _add_alike()
    with hushed():
        return first_model(msgspec.structs.replace(course, after=str(checkpoint)), tokenizer)


def last_checkpoint(course: Course) -> Checkpoint | None:
    """Return the newest whole checkpoint of *course*, or `None`.

    Folders without the mark were cut off while they were written; they are swept away.

    Raises:
        GateError: a checkpoint belongs to other rows or to another recipe.
    """
    whole: list[Checkpoint] = []
    for path in course.checkpoints.glob("checkpoint-*"):
        mark = _read_mark(path / MARK)
        if mark is None:
            shutil.rmtree(path)
            continue
        for name, now in (("snapshot", course.snapshot), ("recipe", course.recipe_sha256)):
            if getattr(mark, name) != now:
                raise GateError(
                    f"{path.name} was made under another {name}",
                    hint="the rows, the base or the settings changed; begin the run anew",
                    code="student.resume_differs",
                )
        whole.append(Checkpoint(mark.step, path))
    return max(whole, default=None)


def _add_alike() -> None:
    """Make every sum on a CPU in one thread: several add in an order of their own."""
    if not torch.cuda.is_available():
        torch.set_num_threads(1)


def _sweep(course: Course) -> None:
    """Remove the oldest whole checkpoints of *course* beyond those that are kept."""
    whole = sorted(
        Checkpoint(mark.step, path)
        for path in course.checkpoints.glob("checkpoint-*")
        if (mark := _read_mark(path / MARK)) is not None
    )
    for old in whole[: -course.recipe.keep]:
        # The mark goes first: what is cut off while it is removed does not count.
        (old.path / MARK).unlink()
        shutil.rmtree(old.path)


def _read_mark(path: Path) -> Mark | None:
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mark)
    except (msgspec.MsgspecError, ValueError) as error:
        raise MissingPieceError(
            f"{path}: the mark of a checkpoint can't be read", hint="remove that checkpoint"
        ) from error


def _rows(course: Course) -> Dataset:
    """Return the rows of the round; nothing is copied, only their places are held."""
    parts = [Dataset.from_file(file.path) for file in course.rows]
    rows = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
    pool = pool_of(course)
    if len(pool) != len(rows):
        rows = rows.select(pool, keep_in_memory=True)
    return _named(rows, f"{course.snapshot}-{course.round}")


def _named(rows: Dataset, name: str) -> Dataset:
    # What the library keeps beside the rows is found again by this, in the run's own folder.
    rows._fingerprint = name  # noqa: SLF001  # there is no other way to say it
    return rows


def _trainer(
    course: Course,
    model: Any,
    arguments: Any,
    rows: Dataset,
    tokenizer: Any,
    watch: _Watch,
) -> Any:
    kind = _Pairs if course.recipe.objective == "dpo" else _Answers
    held_out = course.held_out
    lora = course.recipe.lora
    return kind(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=None if held_out is None else _held_out(held_out),
        processing_class=tokenizer,
        callbacks=[watch],
        peft_config=None if lora is None or course.after is not None else _adapter(lora, model),
    )


def _held_out(file: RowsFile) -> Dataset:
    return _named(Dataset.from_file(file.path), file.sha256)


def _adapter(lora: Lora, model: Any) -> LoraConfig:
    targets = lora.targets
    if targets != "all-linear":
        there = {name.rpartition(".")[2] for name, _ in model.named_modules()}
        for target in targets.split(","):
            if target.rpartition(".")[2] not in there:
                raise CallerError(
                    f"lora: the base has no layer `{target}`",
                    hint="name layers of its own in `targets`, or leave it out",
                    code="recipe.bad",
                )
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if targets == "all-linear" else targets.split(","),
        bias="none",
    )


class _Order(Sampler[int]):  # type: ignore[misc]  # the library carries no types
    """The places of the rows, one after the other, as they were decided."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = order

    def __iter__(self) -> Iterator[int]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)


class _Answers(SFTTrainer):  # type: ignore[misc]  # the library carries no types
    """Learns answers in our order; measures what is held out by the token, not by the batch."""

    order: Sequence[int] = ()
    control: Any

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return _Order(self.order)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the mean loss of a held-out token, the same on any number of ranks."""
        rows = self.eval_dataset.select_columns(
            [name for name in self.eval_dataset.column_names if name != "receipts"]
        )
        ranks, rank = self.args.world_size, self.args.process_index
        size = self.args.per_device_eval_batch_size
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        self.model.eval()
        for first in range(0, len(rows), size * ranks):
            mine = range(first + rank * size, min(first + (rank + 1) * size, len(rows)))
            # A rank without rows reads one all the same: its model may be spread over all.
            inputs = self._prepare_inputs(
                self.data_collator([rows[place] for place in mine or range(1)])
            )
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = self.compute_loss(self.model, inputs)
            learned = (inputs["labels"][:, 1:] != -100).sum() * bool(mine)
            total += torch.stack([loss.double() * learned, learned.double()])
        self.model.train()
        if ranks > 1:
            distributed.all_reduce(total)
        measured = {"eval_loss": float(total[0] / total[1])}
        self._metrics["eval"].clear()
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, measured
        )
        return measured


class _Pairs(DPOTrainer):  # type: ignore[misc]  # the library carries no types
    """Learns preferences in our order, from the token rows that the gate wrote."""

    order: Sequence[int] = ()

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return _Order(self.order)

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        # The library would make texts of it, and tokens of those; they are made.
        return dataset


def _arguments(course: Course, *, on_gpu: bool) -> Any:
    """Return the arguments of the run; what is not named here has no say in the outcome."""
    recipe, total = course.recipe, course.step_count
    at_once = recipe.at_once_for(course.batch)
    common: dict[str, Any] = {
        "output_dir": course.folder,
        # how far and how fast
        "max_steps": total,
        "num_train_epochs": 1,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "cosine"
        if recipe.schedule == "cosine"
        else "constant_with_warmup",
        "warmup_steps": math.ceil(total * recipe.warmup),
        "optim": "adamw_torch_fused" if on_gpu else "adamw_torch",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": None,
        # in what portions
        "per_device_train_batch_size": at_once,
        "per_device_eval_batch_size": at_once,
        "gradient_accumulation_steps": course.batch // (at_once * recipe.ranks),
        "average_tokens_across_devices": True,
        "dataloader_num_workers": 0,
        "dataloader_drop_last": False,
        "dataloader_pin_memory": on_gpu,
        "remove_unused_columns": True,
        # on what machine
        "use_cpu": not on_gpu,
        "bf16": precision_of(recipe) == "bf16",
        "fp16": False,
        "gradient_checkpointing": None,  # the old name of the next one; its default is True
        "activation_checkpointing": False,
        "ddp_find_unused_parameters": False,
        "torch_compile": False,
        "use_liger_kernel": False,
        "auto_find_batch_size": False,
        "full_determinism": False,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        # the rows are ready: nothing is prepared, cut, packed or masked any more
        "max_length": None,
        "pad_to_multiple_of": None,
        "activation_offloading": False,
        "trust_remote_code": False,
        # what is written
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": recipe.save_every_of(total),
        "save_total_limit": None,  # an older one goes once the newer one is marked
        "save_only_model": False,
        "enable_jit_checkpoint": False,
        "eval_strategy": "no" if course.held_out is None else "steps",
        "eval_steps": recipe.measure_every_of(total),
        "load_best_model_at_end": False,
        "ignore_data_skip": False,
        "disable_tqdm": True,
        "log_level": "error",
        "report_to": "none",
        "push_to_hub": False,
    }
    if recipe.objective == "dpo":
        return DPOConfig(
            **common,
            beta=recipe.beta,
            loss_type=["sigmoid"],
            precompute_ref_log_probs=True,
            disable_dropout=True,
            label_smoothing=0.0,
            sync_ref_model=False,
        )
    return SFTConfig(
        **common,
        dataset_kwargs={"skip_prepare_dataset": True},
        packing=False,
        # Rows that hold several documents say where each begins; they go without a mask.
        padding_free=recipe.packing,
        shuffle_dataset=False,
        assistant_only_loss=False,
        completion_only_loss=None,
        loss_type="nll",
    )


class _Watch(TrainerCallback):  # type: ignore[misc]  # the library carries no types
    """Keeps the metrics, marks checkpoints, and stops the run when it must stop."""

    def __init__(self, course: Course, crew: Crew) -> None:
        self._course = course
        self._crew = crew
        self._together = distributed.is_available() and distributed.is_initialized()
        done = crew.metrics.steps if crew.metrics is not None else []
        self._tokens_before = done[-1].tokens if done else 0
        self._seconds_before = done[-1].seconds if done and course.round > 1 else 0.0
        self.begun_s = crew.clock.monotonic_s()
        self._diverged_at: int | None = None
        self._told: GatewayError | None = None
        self.saving = False

    def raise_if_told(self) -> None:
        """Raise what the run was stopped for, if it was."""
        if self._told is not None:
            raise self._told
        if self._diverged_at is not None:
            raise GateError(
                f"the loss is no longer a number at step {self._diverged_at}",
                hint=f"nothing was put in place; remove `{self._course.checkpoints.parent}`, "
                "lower --lr, begin anew",
                code="student.diverged",
            )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the stopwatch."""
        self.begun_s = self._crew.clock.monotonic_s()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save and stop if somebody asked for it; all ranks in the same step."""
        if self._any(self._crew.stop.is_set()):
            control.should_save = True
            control.should_training_stop = True
        self.saving = control.should_save

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
        number = self._course.first_step + state.global_step
        if not math.isfinite(logs["loss"]) or not math.isfinite(logs.get("grad_norm", 0.0)):
            self._diverged_at = number
            control.should_save = False
            control.should_training_stop = True
            return
        crew, margin = self._crew, logs.get("rewards/margins")
        step = Step(
            step=number,
            loss=float(logs["loss"]),
            learning_rate=float(logs.get("learning_rate", 0.0)),
            gradient_norm=float(logs.get("grad_norm", 0.0)),
            accuracy=float(logs.get("mean_token_accuracy", 0.0)),
            tokens=self._tokens_before + int(logs.get("num_tokens", 0)),
            seconds=round(self._seconds_before + crew.clock.monotonic_s() - self.begun_s, 3),
            memory=_memory(),
            round=self._course.round if self._course.rounds > 1 else None,
            margin=None if margin is None else float(margin),
        )
        if crew.metrics is not None:
            crew.metrics.add(step)
        if crew.screen is not None:
            crew.screen.step(step)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float],
        **_: Any,
    ) -> None:
        """Keep what was measured on held-out rows."""
        held_out = self._course.held_out
        if held_out is None or self._crew.metrics is None or "eval_loss" not in metrics:
            return
        measured = HeldOutLoss(
            step=self._course.first_step + state.global_step,
            held_out_loss=float(metrics["eval_loss"]),
            rows=held_out.units,
        )
        self._crew.metrics.measure(measured)
        if self._crew.screen is not None:
            self._crew.screen.measure(measured)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Make the checkpoint durable, mark it whole, then ask whether to go on."""
        if self._together:
            # Each rank writes its own part of a checkpoint; the mark speaks for all of them.
            distributed.barrier()
        if args.process_index == 0:
            folder = self._course.checkpoints / f"checkpoint-{state.global_step}"
            for name in _NOT_STUDENT:
                (folder / name).unlink(missing_ok=True)
            sync_under(folder)
            if self._crew.metrics is not None:
                self._crew.metrics.sync()
            mark = Mark(
                step=state.global_step,
                snapshot=self._course.snapshot,
                recipe=self._course.recipe_sha256,
            )
            write_durably(folder / MARK, msgspec.json.encode(mark))
            _sweep(self._course)
        self.saving = False
        if self._crew.still is not None:
            try:
                self._crew.still()
            except GatewayError as error:
                self._told = error
        if self._any(self._told is not None):
            control.should_training_stop = True

    def _any(self, mine: bool) -> bool:  # noqa: FBT001  # what this rank says
        """Tell whether any rank says so; every rank must ask at the same moment."""
        if not self._together:
            return mine
        device = "cuda" if torch.cuda.is_available() else "cpu"
        said = torch.tensor([int(mine)], device=device)
        distributed.all_reduce(said, op=distributed.ReduceOp.MAX)
        return bool(said.item())


def _memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return memory_of_process()


def _explained(error: Exception, course: Course, watch: _Watch) -> GatewayError | None:
    """Return what a person can do about *error*; `None` where it says so, or nobody can."""
    if isinstance(error, GatewayError):
        return None
    if isinstance(error, torch.OutOfMemoryError):
        return OperatorError(
            "the accelerator has not enough memory for this run",
            hint="lower rows_at_once or max_length, or use lora; then begin the run anew",
            code="student.no_memory",
        )
    if watch._together and _of_ranks(error):  # noqa: SLF001  # of this module
        return OperatorError(
            f"the ranks lost each other: {_first_line(error)}",
            hint="go on with --resume",
            code=RANK_LOST,
        )
    number = system_error(error)
    if watch.saving and (number is not None or isinstance(error, RuntimeError)):
        why = _first_line(error) if number is None else os.strerror(number)
        return OperatorError(
            f"a checkpoint in `{course.checkpoints}` can't be written: {why}",
            hint="make room there, then go on with --resume",
            code="disk.unwell",
        )
    return None


def _of_ranks(error: Exception) -> bool:
    """Tell whether *error* came of talking to another rank."""
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

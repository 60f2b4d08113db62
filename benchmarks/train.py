"""What it costs to train behind the gate: tokens a second against plain TRL, and verification.

Ours and plain TRL learn the same conversations with the same settings, in turns (A B B A), in
one process; plain TRL is fed messages and prepares them its own way. On a CPU, what counts is
the time that this process computed. A plain PyTorch loop runs beside them, so that an upgrade
that slows TRL is seen. Then a dataset goes through the gate, and its share of a whole run is
worked out. Where a GPU is at hand, `--gpu` does the same at the shapes of 0.6B and 1.7B with
random weights, packed, in bf16, and says MFU. Bars: `budget.yaml`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gateway.student.offline import hushed, seal_off

os.environ.setdefault("OMP_NUM_THREADS", "1")
seal_off()

import msgspec  # noqa: E402  # after the seal, as all that follows
import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import (  # noqa: E402
    PrinterCallback,
    Qwen3Config,
    Qwen3ForCausalLM,
    TrainerCallback,
)
from trl import SFTConfig, SFTTrainer  # noqa: E402

from gateway.canonical import sha256_hex  # noqa: E402
from gateway.clock import SystemClock  # noqa: E402
from gateway.ident import Sha256  # noqa: E402
from gateway.student import engine  # noqa: E402
from gateway.student.corpus import (  # noqa: E402
    Corpus,
    Shape,
    TokenRow,
    TokenWriter,
    all_texts,
    tokenise,
)
from gateway.student.course import Course, RowsFile, order_of  # noqa: E402
from gateway.student.gate import StudentGate  # noqa: E402
from gateway.student.progress import Metrics  # noqa: E402
from gateway.student.recipe import Recipe, recipe_for  # noqa: E402
from gateway.student.tiny import tiny_model, tiny_tokenizer  # noqa: E402

HERE = Path(__file__).resolve().parent
WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet"]
WARM_UP = 5
PEAK_FLOPS = 989e12
"""Of one H100 or H200 in bf16, without sparsity, as its maker states it."""

SHAPES: dict[str, dict[str, int]] = {
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28},
    "1.7B": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28},
}


class CpuClock(SystemClock):
    """Tells the seconds that this process computed: others on the machine don't count."""

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never goes back."""
        return now()


def now() -> float:
    """Return the time on whatever the work is done on: this process, or a GPU beside it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


class Ticks(NamedTuple):
    """When each step ended, and how many tokens had been read by then."""

    seconds: list[float]
    tokens: list[int]
    losses: list[float]

    @property
    def tokens_per_s(self) -> float:
        """Return the speed without the first steps."""
        return (self.tokens[-1] - self.tokens[WARM_UP]) / (
            self.seconds[-1] - self.seconds[WARM_UP]
        )


class _Ticking(TrainerCallback):  # type: ignore[misc]  # the library carries no types
    def __init__(self) -> None:
        self.ticks = Ticks([], [], [])

    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:
        if "loss" in logs:
            self.ticks.seconds.append(now())
            self.ticks.tokens.append(int(logs["num_tokens"]))
            self.ticks.losses.append(float(logs["loss"]))


def a_row(draw: random.Random) -> dict[str, Any]:
    """Return a conversation of some fifty to three hundred tokens."""
    said = [" ".join(draw.choices(WORDS, k=draw.randint(8, 60))) for _ in range(2)]
    return {
        "messages": [
            {"role": "user", "content": said[0]},
            {"role": "assistant", "content": said[1]},
        ]
    }


def course_over(
    folder: Path, rows: Sequence[TokenRow], recipe: Recipe, steps: int, *, base: Path | None
) -> Course:
    """Write *rows* as the gate does and return the course over them."""
    folder.mkdir(parents=True)
    writer = TokenWriter(
        folder / "rows-1.arrow", Shape("sft", recipe.max_length, recipe.packing)
    )
    for number, row in enumerate(rows):
        writer.write(row, f"x-{number}/0")
    part = writer.close()
    return Course(
        rows=(RowsFile(path=str(part.path), sha256=part.sha256, units=part.units),),
        step_count=steps or -(-part.units // recipe.batch),
        batch=recipe.batch,
        folder=str(folder / "checkpoints"),
        snapshot=part.sha256,
        recipe=recipe,
        recipe_sha256=Sha256(sha256_hex(b"benchmark")),
        base=None if base is None else str(base),
        tokenizer="",
    )


def ours(course: Course, tokenizer: Any) -> Ticks:
    """Learn *course* with our engine, checkpoints and metrics and all."""
    metrics = Metrics(Path(course.folder).parent / "metrics.jsonl")
    engine.learn(course, None, tokenizer, engine.Crew(clock=CpuClock(), metrics=metrics))
    metrics.close()
    steps = metrics.steps
    return Ticks([s.seconds for s in steps], [s.tokens for s in steps], [s.loss for s in steps])


def plain_trl(
    course: Course, model: Any, rows: Dataset, tokenizer: Any, folder: Path, **how: Any
) -> Ticks:
    """Learn the same rows with TRL as its documentation has it, and the same settings."""
    recipe, ticking = course.recipe, _Ticking()
    gpu = torch.cuda.is_available()
    with hushed():
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=str(folder),
                max_steps=course.step_count,
                per_device_train_batch_size=recipe.batch,
                learning_rate=recipe.learning_rate,
                lr_scheduler_type="cosine",
                weight_decay=0.0,
                optim="adamw_torch_fused" if gpu else "adamw_torch",
                use_cpu=not gpu,
                bf16=gpu,
                gradient_checkpointing=None,
                activation_checkpointing=False,
                max_length=recipe.max_length,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                log_level="error",
                seed=0,
                **how,
            ),
            train_dataset=rows,
            processing_class=tokenizer,
            callbacks=[ticking],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return ticking.ticks


def plain_loop(course: Course, model: Any, rows: Sequence[TokenRow], pad: int) -> Ticks:
    """Learn the same rows in the same order with twenty lines of PyTorch."""
    ticks, recipe = Ticks([], [], []), course.recipe
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.0)
    order, done = order_of(course, len(rows)), 0
    for step in range(course.step_count):
        batch = [rows[at] for at in order[step * recipe.batch : (step + 1) * recipe.batch]]
        longest = max(row.tokens for row in batch)
        ids = torch.tensor(
            [row.input_ids + [pad] * (longest - row.tokens) for row in batch], device=device
        )
        labels = torch.tensor(
            [row.labels + [-100] * (longest - row.tokens) for row in batch], device=device
        )
        mask = (
            torch.arange(longest, device=device)[None]
            < torch.tensor([[row.tokens] for row in batch], device=device)
        ).long()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]).float(), labels[:, 1:].reshape(-1)
        )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        done += sum(row.tokens for row in batch)
        ticks.losses.append(loss.item())
        ticks.seconds.append(now())
        ticks.tokens.append(done)
    return ticks


def in_turns(
    contenders: dict[str, Callable[[], Ticks]], repeats: int
) -> dict[str, list[float]]:
    """Return the tokens a second of each contender, in rounds A B C C B A."""
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(repeats):
        names = list(contenders)
        for name in names if number % 2 == 0 else reversed(names):
            speeds[name].append(contenders[name]().tokens_per_s)
            print(f"  {name}: {speeds[name][-1]:,.0f} tokens/s", file=sys.stderr)
    return speeds


def on_cpu(folder: Path, steps: int, repeats: int) -> dict[str, Any]:
    """Return the speeds of a tiny student on one core, and by how much the losses differ."""
    torch.set_num_threads(1)
    draw = random.Random(0)
    said = [a_row(draw) for _ in range(16 * steps)]
    tokenizer = tiny_tokenizer(all_texts(said))
    recipe = recipe_for("tiny", batch=16, max_length=512, save_every=10**6, warmup=0.0)
    rows = [tokenise(row, tokenizer, recipe.max_length) for row in said]
    made = [0]

    def fresh() -> Course:
        made[0] += 1
        return course_over(folder / f"ours-{made[0]}", rows, recipe, steps, base=None)

    course = fresh()
    first = {
        "ours": ours(fresh(), tokenizer).losses[0],
        "loop": plain_loop(course, tiny_model(tokenizer, 0), rows, 0).losses[0],
    }
    assert abs(first["ours"] - first["loop"]) < 1e-4, first
    messages = Dataset.from_list(said)
    speeds = in_turns(
        {
            "ours": lambda: ours(fresh(), tokenizer),
            "plain TRL": lambda: plain_trl(
                course,
                tiny_model(tokenizer, 0),
                messages,
                tokenizer,
                folder / "trl",
                assistant_only_loss=True,
            ),
            "plain loop": lambda: plain_loop(course, tiny_model(tokenizer, 0), rows, 0),
        },
        repeats,
    )
    return {"speeds": speeds, "tokens_a_row": statistics.mean(row.tokens for row in rows)}


def at_the_gate(folder: Path, count: int) -> dict[str, float]:
    """Return the seconds that a dataset of *count* rows takes at the gate, and as tokens."""
    sys.path.insert(0, str(HERE.parent))
    from gateway.student.bases import tiny_base  # noqa: PLC0415  # only here
    from tests.support.student import School  # noqa: PLC0415  # a house with a ledger

    folder.mkdir()
    school = School(folder)
    built = school.dataset(count)
    # As in a gateway, leaves are indexed as they come, and manifests are found there.
    school.house.index.catch_up(school.house.ledger)
    sources = school.sources()
    known = {built.manifest_sha256: sources.manifest(built.manifest_sha256)}
    gate = StudentGate(None, tiny_base(0), dataclasses.replace(sources, manifest=known.get))
    begun = time.process_time()
    admitted = gate.admit((built.folder,))
    verified = time.process_time() - begun
    tokenizer = tiny_tokenizer(all_texts(gate.texts(admitted)))
    begun = time.process_time()
    gate.snapshot(admitted, Corpus(folder, tokenizer, Shape("sft", 512)))
    both = time.process_time() - begun
    begun = time.process_time()
    gate.still(admitted)
    still = time.process_time() - begun
    school.close()
    return {"rows": count, "verified_s": verified, "with_tokens_s": both, "still_s": still}


def on_gpu(folder: Path, name: str, repeats: int) -> dict[str, Any]:
    """Return the speeds at the shape *name* in bf16, and how much of the machine was used."""
    draw, vocabulary, length = random.Random(0), 151_936, 2048
    config = Qwen3Config(
        vocab_size=vocabulary,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=length,
        tie_word_embeddings=True,
        **SHAPES[name],
    )
    torch.manual_seed(0)
    base = folder / f"base-{name}"
    Qwen3ForCausalLM(config).save_pretrained(base)
    lengths = [min(length, max(32, int(draw.lognormvariate(6.1, 0.8)))) for _ in range(2000)]
    rows = []
    for count in lengths:
        ids = [draw.randrange(3, vocabulary) for _ in range(count)]
        rows.append(TokenRow(ids, [-100] * (count // 2) + ids[count // 2 :]))
    tokenizer = tiny_tokenizer(WORDS)
    recipe = recipe_for(
        "base", batch=8, max_length=length, packing=True, save_every=10**6, learning_rate=1e-5
    )
    made = [0]

    def fresh() -> Course:
        made[0] += 1
        return course_over(folder / f"{name}-{made[0]}", rows, recipe, 0, base=base)

    course = fresh()
    ready = Dataset.from_list([row._asdict() for row in rows])
    # The loop pads: as many rows as fill about as many places as eight packs.
    loop = msgspec.structs.replace(
        course, recipe=msgspec.structs.replace(recipe, batch=16, packing=False)
    )
    speeds = in_turns(
        {
            "ours": lambda: ours(fresh(), tokenizer),
            "plain TRL": lambda: plain_trl(
                course,
                engine.first_model(course, tokenizer),
                ready,
                tokenizer,
                folder / f"trl-{name}",
                packing=True,
            ),
            "plain loop": lambda: plain_loop(
                loop, engine.first_model(course, tokenizer), rows, 0
            ),
        },
        repeats,
    )
    used = flops_a_token(config, lengths) / PEAK_FLOPS
    return {
        "speeds": speeds,
        "mfu": {who: statistics.median(of) * used for who, of in speeds.items()},
        "memory": torch.cuda.max_memory_allocated(),
    }


def flops_a_token(config: Any, lengths: Sequence[int]) -> float:
    """Return the operations a token takes, forth and back: matrices, head, and attention."""
    heads = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    layer = config.hidden_size * (2 * heads + 2 * keys + 3 * config.intermediate_size)
    matrices = config.num_hidden_layers * layer + config.hidden_size * config.vocab_size
    seen = sum(length**2 for length in lengths) / sum(lengths)
    return 6 * matrices + 6 * config.num_hidden_layers * heads * seen


def table(name: str, speeds: dict[str, list[float]], mfu: dict[str, float]) -> list[str]:
    """Return *speeds* as lines of a Markdown table, each against plain TRL of its own round."""
    lines = []
    for who, of in speeds.items():
        ratios = [mine / theirs for mine, theirs in zip(of, speeds["plain TRL"], strict=True)]
        used = f"{mfu[who]:.1%}" if who in mfu else "–"
        spread = f"{min(of):,.0f} / {statistics.median(of):,.0f} / {max(of):,.0f}"
        lines.append(
            f"| {name} | {who} | {spread} | {statistics.median(ratios):.3f} | {used} |"
        )
    return lines


def main() -> int:
    """Measure, print a table, and with `--check` compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--rows", type=int, default=2000, help="rows at the gate")
    parser.add_argument("--tokens", type=int, default=600, help="in a row, for the share")
    parser.add_argument("--epochs", type=float, default=3.0, help="of the run they are for")
    parser.add_argument(
        "--gpu", action="store_true", help="the large shapes, where there is one"
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    bars = yaml.safe_load((HERE / "budget.yaml").read_text())["train"]
    found: dict[str, Any] = {}
    lines = [
        "| model | who | tokens/s, min / median / max | against plain TRL | MFU |",
        "|---|---|--:|--:|--:|",
    ]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if args.gpu and torch.cuda.is_available():
            print(f"on {torch.cuda.get_device_name(0)}", file=sys.stderr)
            for name in SHAPES:
                found[name] = on_gpu(folder, name, args.repeats)
                lines += table(name, found[name]["speeds"], found[name]["mfu"])
        else:
            found["tiny"] = on_cpu(folder, args.steps, args.repeats)
            lines += table("tiny, one core", found["tiny"]["speeds"], {})
        gate = found["gate"] = at_the_gate(folder / "house", args.rows)
    ratios = {
        name: statistics.median(
            mine / theirs
            for mine, theirs in zip(
                of["speeds"]["ours"], of["speeds"]["plain TRL"], strict=True
            )
        )
        for name, of in found.items()
        if name != "gate"
    }
    found["ratios"] = ratios
    a_row_s = gate["verified_s"] / args.rows
    lines += ["", "| at the gate | µs a row |", "|---|--:|"]
    lines.append(f"| verified and ruled on | {a_row_s * 1e6:,.0f} |")
    lines.append(f"| and as tokens | {gate['with_tokens_s'] / args.rows * 1e6:,.0f} |")
    if "tiny" in found:
        speed = statistics.median(found["tiny"]["speeds"]["ours"])
        # Once before, once as tokens, once before it is signed: so often a row is verified.
        for tokens in (found["tiny"]["tokens_a_row"], args.tokens):
            trained_s = args.epochs * tokens / speed
            found["gate_share"] = 3 * a_row_s / (3 * a_row_s + trained_s)
            lines.append(
                f"| share of {args.epochs:g} epochs of rows of {tokens:.0f} tokens, verified "
                f"three times | {found['gate_share']:.2%} |"
            )
    print("\n".join(lines))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    share = found.get("gate_share", 0.0)
    slow = [name for name, ratio in ratios.items() if ratio < bars["trl_ratio_min"]]
    if args.check and (slow or share > bars["verification_share_max"]):
        print(f"over the bar: {slow or share}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

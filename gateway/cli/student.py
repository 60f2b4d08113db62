"""`gateway student train | verify | evaluate | card | serve`: from datasets to answers.

Exit codes: 0 fine; 1 a gate refused, evidence doesn't verify, or training diverged; 2 wrong
usage; 3 something is missing that the operator must put there; 143 interrupted, resumable.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from gateway.cli import evaluate
from gateway.clock import SystemClock, day_of
from gateway.errors import CallerError, MissingPieceError
from gateway.limits import TRUST_BYTES_MAX
from gateway.receipt.keys import Trust, parse_trust
from gateway.student.card import format_card, is_adapter
from gateway.student.evaluate import ASKING, Asking
from gateway.student.job import TrainingJob, overridden, read_job
from gateway.student.recipe import Lora, Recipe
from gateway.student.verify import VerifiedModel, verify_model
from gateway.tlog.proof import InclusionProof

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.app.installation import Installation
    from gateway.student.run import Interrupted, Order, Rooms, Trained
    from gateway.student.train import Plan

TRUST_DEFAULT: Final = Path("gateway-data") / "trust.json"
LISTEN_DEFAULT: Final = "127.0.0.1:8090"

_TRAIN_HINT: Final = "see `gateway student train --help`"

FINE: Final = 0
INTERRUPTED: Final = 143


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `student` and its commands to the gateway's own."""
    student = commands.add_parser("student", help="train, verify and serve a student")
    actions = student.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_train(actions)
    verify = actions.add_parser("verify", help="verify a model folder, offline")
    verify.set_defaults(run=run_verify)
    evaluate.add(actions)
    card = actions.add_parser("card", help="print the model card, from the signed manifest")
    card.set_defaults(run=run_card)
    serve = actions.add_parser(
        "serve",
        help="answer chat completions with a student",
        description="Verify a model folder, then serve it in OpenAI's shape.",
    )
    serve.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=_address,
        default=_address(LISTEN_DEFAULT),
        help=f"where to answer (default: {LISTEN_DEFAULT})",
    )
    serve.add_argument(
        "--behind",
        metavar="URL",
        help="serve nothing: look at a server that answers in its place, such as vLLM at "
        "http://127.0.0.1:8000/v1, and print the settings that put it behind the gateway",
    )
    serve.add_argument(
        "--key-file", metavar="FILE", type=Path, help="the key that server wants, in a file"
    )
    serve.add_argument(
        "--base", metavar="FOLDER", type=Path, help="where an adapter's base is, if it moved"
    )
    serve.set_defaults(run=run_serve)
    for parser in (verify, card, serve):
        parser.add_argument("model", metavar="MODEL", type=Path, help="a model folder")
        parser.add_argument(
            "--trust",
            metavar="FILE",
            type=Path,
            default=TRUST_DEFAULT,
            help=f"the public keys to trust (default: {TRUST_DEFAULT})",
        )


def _add_train(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    train = actions.add_parser(
        "train",
        help="train a student from datasets that pass the gate",
        description="Verify every row, rule on it again, then train with TRL. A run that is "
        "interrupted goes on with --resume and the same words.",
    )
    train.add_argument(
        "datasets", metavar="DATASET", type=Path, nargs="*", help="a dataset folder"
    )
    train.add_argument(
        "--job",
        metavar="FILE",
        type=Path,
        help="a YAML file that says all of this; what stands here as well goes over it",
    )
    train.add_argument(
        "--base",
        help="what it begins as: a folder, `org/name` of the hub, or `tiny` (the default): a "
        "small random model",
    )
    train.add_argument("--name", help="the student's name (default: as it was declared)")
    train.add_argument(
        "--out", metavar="DIR", type=Path, help="its folder (default: DATA/students/NAME)"
    )
    train.add_argument(
        "--objective", choices=["sft", "dpo"], help="learn answers (the default), or pairs"
    )
    train.add_argument(
        "--feed", metavar="NAME", help="learn the snapshots of a feed, a round each"
    )
    train.add_argument(
        "--follow", action="store_true", help="with a feed: wait for further snapshots"
    )
    train.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="with --follow: the rounds that make the student",
    )
    long = train.add_mutually_exclusive_group()
    long.add_argument("--epochs", type=float, help="how often to read all rows (default: 3)")
    long.add_argument("--steps", type=int, help="how many updates to make")
    train.add_argument("--lr", type=float, help="learning rate (default: 3e-3 tiny, else 2e-5)")
    train.add_argument("--batch", type=int, help="rows an update (default: 16 tiny, else 8)")
    train.add_argument(
        "--max-length",
        type=int,
        metavar="TOKENS",
        help="longer rows are left out and counted (default: 512 tiny, else 2048)",
    )
    train.add_argument(
        "--packing", action="store_true", default=None, help="several short rows in one"
    )
    train.add_argument("--precision", choices=["auto", "fp32", "bf16"], help="(default: auto)")
    train.add_argument("--lora", type=int, metavar="RANK", help="learn an adapter of that rank")
    train.add_argument(
        "--ranks", type=int, metavar="N", help="processes that learn together (default: 1)"
    )
    train.add_argument("--seed", type=int, help="same seed, same run (default: 0)")
    train.add_argument("--save-every", type=int, metavar="STEPS", help="between checkpoints")
    train.add_argument(
        "--no-eval", action="store_true", help="ask nothing of held-out rows at the end"
    )
    train.add_argument(
        "--metric",
        metavar="MODULE:FUNCTION",
        help="a task metric for held-out answers: (prompt, answer, reference) -> float",
    )
    train.add_argument(
        "--no-samples", action="store_true", help="keep no held-out row's words in the folder"
    )
    train.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    train.add_argument(
        "--plan",
        action="store_true",
        help="the gate alone: say tokens, steps and memory, and train nothing",
    )
    train.add_argument("--json", action="store_true", help="print what was trained as JSON")
    train.set_defaults(run=run_train)


def run_train(args: argparse.Namespace) -> int:
    """Train a student; return the exit code."""
    # One of several that a launcher started; only the first of them works for all.
    from gateway.student.ranks import accompany, launched  # noqa: PLC0415

    others = launched()
    if others is not None and others[0] > 0:
        check_extra()
        return accompany()
    job = _job(args, None if others is None else others[1])
    recipe = job.recipe()
    check_extra()
    # What follows needs the extra, and seconds to load; the other commands do without.
    from gateway.app.installation import open_installation  # noqa: PLC0415

    with _told_to_stop() as stop, contextlib.closing(open_installation(args)) as installation:
        order = _order(args, job, recipe, installation)
        return _run(args, order, rooms_of(installation), stop)


def _order(
    args: argparse.Namespace, job: TrainingJob, recipe: Recipe, installation: Installation
) -> Order:
    """Return what is asked for, by its places in the house."""
    from gateway.dataset.assembly.follow import Chain  # noqa: PLC0415  # only to train
    from gateway.student.run import Order  # noqa: PLC0415  # as above

    students, feeds = installation.data / "students", installation.data / "datasets"
    out, feed = job.out, job.feed

    def snapshots() -> tuple[Path, ...]:
        chain = Chain(feed or "", feeds, installation.keyring.trust)
        if not chain.snapshots:
            raise MissingPieceError(
                f"feed `{feed}` has no snapshot in `{feeds}` yet",
                hint=f"make one: `gateway dataset follow {feed}`",
            )
        return tuple(snapshot.folder for snapshot in chain.snapshots)

    return Order(
        datasets=tuple(map(Path, job.datasets)) if feed is None else snapshots()[: args.rounds],
        base=job.base,
        recipe=recipe,
        student=job.name,
        place=lambda name: students / name if out is None else Path(out),
        resume=args.resume,
        feed=feed is not None,
        more=snapshots if args.follow else None,
        rounds=args.rounds,
        asking=job.asking,
        said_of_base=job.base_licence,
    )


@contextlib.contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Give what is set once the process is told to stop; handlers are put back afterwards."""
    stop = threading.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(args: argparse.Namespace, order: Order, rooms: Rooms, stop: threading.Event) -> int:
    from gateway.student.progress import Screen  # noqa: PLC0415  # only to train
    from gateway.student.run import StoppedError, Trained  # noqa: PLC0415  # as above
    from gateway.student.train import plan_training, train_student  # noqa: PLC0415  # as above

    try:
        if args.plan:
            return _tell_plan(plan_training(order, rooms, Screen(), stop), as_json=args.json)
        outcome = train_student(order, rooms, Screen(), stop)
    except StoppedError:
        if args.json:
            told = {"folder": None, "step": 0, "steps": 0, "kept": order.resume}
            print(json.dumps({"outcome": "interrupted"} | told))
        else:
            print("interrupted at the gate; nothing was changed; give the same command again")
        return INTERRUPTED
    if args.json:
        print(json.dumps(_facts(outcome)))
    elif isinstance(outcome, Trained):
        _tell_trained(outcome)
    else:
        _tell_interrupted(outcome)
    return FINE if isinstance(outcome, Trained) else INTERRUPTED


def run_verify(args: argparse.Namespace) -> int:
    """Verify a model folder; raise what does not verify."""
    verified = verify_model(args.model, _read_trust(args.trust), _passed)
    found = verified.manifest.found
    print(f"says student `{verified.manifest.asked.student}`, taught by", _teachers(verified))
    held_out = found.snapshot.held_out or 0
    print(f"     from {found.snapshot.rows} rows, {held_out} more held out to measure with")
    print(f"     for {found.use.purpose}, ruled on again on {found.day}")
    return FINE


def run_card(args: argparse.Namespace) -> int:
    """Print the card of a model folder that verifies."""
    verified = verify_model(args.model, _read_trust(args.trust))
    print(format_card(verified.manifest, verified.datasets), end="")
    return FINE


def run_serve(args: argparse.Namespace) -> int:
    """Serve a student until told to stop, or look at who serves it; return the exit code."""
    if args.behind is not None:
        return _run_behind(args)
    check_extra()
    from gateway.student.serve import bind, serve_model  # noqa: PLC0415  # only this command

    verified = verify_model(args.model, _read_trust(args.trust), _passed)
    if args.base is not None and not is_adapter(verified.manifest):
        raise CallerError(
            "--base is for an adapter; this student stands by itself",
            hint="leave --base out",
            code="student.no_adapter",
        )
    host, port = args.listen
    bound = bind(host, port)
    with bound:
        serve_model(
            verified,
            bound,
            SystemClock(),
            lambda url: print(
                f"student `{verified.manifest.asked.student}` answers at {url}", flush=True
            ),
            args.base,
        )
    return FINE


def _run_behind(args: argparse.Namespace) -> int:
    """Look at a server that answers in a student's place; print the settings for it."""
    from gateway.student.behind import look_behind, settings_for  # noqa: PLC0415  # only here

    verified = verify_model(args.model, _read_trust(args.trust), _passed)
    behind = look_behind(args.behind, verified, _key_in(args.key_file))
    _passed("listed", f"the server serves `{behind.model}`")
    if behind.same_folder:
        _passed("folder", "it says that it serves this very folder, by path")
    if behind.asked:
        _passed(
            "samples", f"{behind.answered} of {behind.asked} answered as when it was evaluated"
        )
    print("note nobody can prove from outside which weights a server runs; keep others off it")
    print("\nput this into gateway.yaml, and ask for the model by that name:\n")
    print(settings_for(behind, verified), end="")
    return FINE


def _key_in(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise MissingPieceError(
            f"the key file `{path}` can't be read", hint="put the key there, in one line"
        ) from error


def _job(args: argparse.Namespace, ranks: int | None) -> TrainingJob:
    """Return what is to be trained: what the file says, and over it the flags."""
    job = TrainingJob() if args.job is None else read_job(args.job)
    lora = job.lora
    if args.lora is not None:
        try:
            lora = msgspec.structs.replace(lora or Lora(), rank=args.lora)
        except ValueError as error:
            raise CallerError(str(error), hint=_TRAIN_HINT, code="recipe.bad") from error
    if ranks is not None and args.ranks not in {None, ranks}:
        raise CallerError(
            f"a launcher started {ranks} ranks, --ranks says {args.ranks}",
            hint="leave --ranks out",
            code="recipe.bad",
        )
    job = overridden(
        job,
        {
            "datasets": tuple(map(str, args.datasets)),
            "feed": args.feed,
            "base": args.base,
            "name": args.name,
            "out": None if args.out is None else str(args.out),
            "objective": args.objective,
            "epochs": args.epochs,
            "steps": args.steps,
            "learning_rate": args.lr,
            "batch": args.batch,
            "max_length": args.max_length,
            "packing": args.packing,
            "precision": args.precision,
            "lora": lora,
            "ranks": ranks or args.ranks,
            "seed": args.seed,
            "save_every": args.save_every,
            "evaluate": _asking(args, job),
        },
    )
    if not job.datasets and job.feed is None:
        raise CallerError("no dataset is named", hint=_TRAIN_HINT, code="job.bad")
    if job.feed is None and (args.follow or args.rounds is not None):
        raise CallerError(
            "--follow and --rounds are for a feed", hint="name one: --feed NAME", code="job.bad"
        )
    if job.feed is not None and args.datasets:
        raise CallerError(
            f"feed `{job.feed}` and datasets both", hint="keep one of them", code="job.bad"
        )
    if args.rounds is not None and (args.rounds < 1 or not args.follow):
        raise CallerError(
            "--rounds is how many rounds to --follow a feed for, at least 1",
            hint=_TRAIN_HINT,
            code="job.bad",
        )
    return job


def _asking(args: argparse.Namespace, job: TrainingJob) -> Asking | bool | None:
    """Return what the flags say is to be asked; `None` where they say nothing."""
    if args.no_eval:
        return False
    if args.metric is None and not args.no_samples:
        return None
    asking = job.asking or ASKING
    if args.metric is not None:
        asking = msgspec.structs.replace(asking, metric=args.metric)
    return msgspec.structs.replace(asking, samples=0) if args.no_samples else asking


def rooms_of(installation: Installation, doing: str = "gateway student train") -> Rooms:
    """Return what a training needs of the house, or whoever is *doing* something like it."""
    from gateway.app.activation import activate  # noqa: PLC0415  # only to train
    from gateway.dataset.held import HeldWords  # noqa: PLC0415  # as above
    from gateway.dataset.ruling import PolicyLaw  # noqa: PLC0415  # as above
    from gateway.ident import Sha256  # noqa: PLC0415  # as above
    from gateway.ledger.reading.register import KINDS  # noqa: PLC0415  # as above
    from gateway.receipt.model import Manifest  # noqa: PLC0415  # as above
    from gateway.store.files import entries_of  # noqa: PLC0415  # as above
    from gateway.student.gate import Sources  # noqa: PLC0415  # as above
    from gateway.student.recognise import training_manifests  # noqa: PLC0415  # as above
    from gateway.student.run import Rooms  # noqa: PLC0415  # as above

    activate(installation, doing)

    def find(payload: Sha256) -> Manifest | None:
        found = installation.reader.manifest(payload)
        return None if found is None else found[1]

    def index_of(payload: Sha256) -> int | None:
        found = installation.reader.manifest(payload)
        return None if found is None else found[0]

    def students() -> Iterator[Manifest]:
        places = installation.index.statements(("manifest",))
        return training_manifests(places, installation.reader.leaf)

    def prove(index: int) -> InclusionProof:
        return installation.reader.prove(index, installation.sequencer.checkpoint_now())

    def sources() -> Sources:
        # A gateway that runs beside us may have written a withdrawal since, and legal may have
        # written other policies.
        installation.policies = None
        installation.reader.catch_up()
        installation.register.fold(installation.reader.statements(kinds=KINDS))
        return Sources(
            trust=installation.keyring.trust,
            law=PolicyLaw(installation.library, installation.register, installation.overlays),
            library=installation.library.digest,
            words=HeldWords(installation.register, installation.index),
            manifest=find,
            today=day_of(installation.clock.now_ms()),
            students=students,
            lifted=installation.register.lifted,
            erased_of=installation.content.erased_of,
            # The leaf of the last erasure that was carried out.
            erased=1 + (installation.content.applied() or (-1,))[0],
            folders=lambda: entries_of(installation.data / "datasets"),
        )

    return Rooms(
        sources=sources,
        append=lambda leaf: installation.sequencer.append_and_wait(leaf).index,
        index_of=index_of,
        prove=prove,
        signer=installation.keyring.manifest,
        clock=installation.clock,
        version=installation.writer.version,
    )


def _facts(outcome: Trained | Interrupted) -> dict[str, object]:
    from gateway.student.run import Trained  # noqa: PLC0415  # loaded by now

    if isinstance(outcome, Trained):
        found = outcome.manifest.found
        return {
            "outcome": "trained",
            "student": outcome.manifest.asked.student,
            "folder": str(outcome.folder),
            "manifest": outcome.payload_sha256,
            "leaf": outcome.index,
            "rows": found.snapshot.rows,
            "steps": found.steps,
            "loss_first": found.losses.first,
            "loss_last": found.losses.last,
        }
    return {
        "outcome": "interrupted",
        "folder": str(outcome.folder),
        "step": outcome.step,
        "steps": outcome.steps,
        "kept": outcome.kept,
    }


def _tell_plan(plan: Plan, *, as_json: bool) -> int:
    snapshot = plan.snapshot
    if as_json:
        facts = {
            "outcome": "planned",
            "student": plan.admitted.student,
            "rows": snapshot.rows,
            "held_out": 0 if snapshot.held_out is None else snapshot.held_out.rows,
            "left_out": snapshot.left_out,
            "tokens": snapshot.tokens,
            "learned_tokens": snapshot.learned,
            "rounds": len(plan.courses),
            "steps": plan.steps,
            "parameters": plan.parameters,
            "learned_parameters": plan.learned_parameters,
            "memory_bytes": plan.memory,
        }
        print(json.dumps(facts))
        return FINE
    print(f"the gate lets {snapshot.rows} rows in for student `{plan.admitted.student}`")
    print(f"  tokens      {snapshot.tokens:,} ({snapshot.learned:,} of them learned)")
    print(f"  steps       {plan.steps:,}")
    print(f"  parameters  {plan.parameters:,} ({plan.learned_parameters:,} of them learned)")
    print(f"  memory      {plan.memory / 1e9:.2f} GB, and what a step needs on top")
    print("nothing was trained; leave --plan out to train")
    return FINE


def _tell_interrupted(run: Interrupted) -> None:
    if not run.kept:
        print("interrupted before there was anything to keep; begin anew")
        return
    where = f"at step {run.step} of {run.steps}" if run.steps else "before the next step"
    print(f"interrupted {where}; go on with --resume; the run is kept in {run.folder}")


def _tell_trained(trained: Trained) -> None:
    found = trained.manifest.found
    print(
        f"student `{trained.manifest.asked.student}`: {found.steps} steps, loss "
        f"{found.losses.first} → {found.losses.last}"
    )
    print(f"  folder    {trained.folder}")
    print(f"  manifest  {trained.payload_sha256}")
    if trained.index is not None:
        print(f"  leaf      {trained.index}")
    print(f"try next: gateway lineage show {trained.folder}")


def _teachers(verified: VerifiedModel) -> str:
    return ", ".join(
        f"{teacher.provider} {teacher.model or ''}".strip() + f" ({teacher.rows} rows)"
        for teacher in verified.manifest.found.teachers
    )


def _read_trust(path: Path) -> Trust:
    try:
        with path.open("rb") as file:
            return parse_trust(file.read(TRUST_BYTES_MAX + 1))
    except OSError as error:
        raise MissingPieceError(
            f"the trust file `{path}` can't be read: {error.strerror}",
            hint="give `--trust FILE`, the `trust.json` that the log's operator publishes",
        ) from error


def _passed(check: str, found: str) -> None:
    # What others wrote may hold controls that a terminal would obey.
    safe = "".join(one if one.isprintable() else "�" for one in found)
    print(f"ok   {check:<10} {safe}")


def check_extra() -> None:
    """Refuse where the training libraries are not installed."""
    for name in ("torch", "trl", "pyarrow"):
        if importlib.util.find_spec(name) is None:
            raise MissingPieceError(
                f"this needs `{name}`, which is not installed",
                hint="install the extra: `pip install 'tos-gateway[student]'`",
            )


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"`{text}` is not HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)

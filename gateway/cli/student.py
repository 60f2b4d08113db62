"""`gateway student train | verify | card | serve`: from datasets to a student that answers.

Exit codes: 0 fine; 1 a gate refused, evidence doesn't verify, or training diverged; 2 wrong
usage; 3 something is missing that the operator must put there; 143 interrupted, resumable.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.clock import SystemClock, day_of
from gateway.errors import CallerError, MissingPieceError
from gateway.limits import TRUST_BYTES_MAX
from gateway.receipt.keys import Trust, parse_trust
from gateway.student.card import format_card
from gateway.student.recipe import TINY, Recipe, recipe_for
from gateway.student.verify import VerifiedModel, verify_model
from gateway.tlog.proof import InclusionProof

if TYPE_CHECKING:
    from gateway.app.installation import Installation
    from gateway.student.run import Interrupted, Rooms, Trained

TRUST_DEFAULT: Final = Path("gateway-data") / "trust.json"
LISTEN_DEFAULT: Final = "127.0.0.1:8090"

FINE: Final = 0
INTERRUPTED: Final = 143


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `student` and its commands to the gateway's own."""
    student = commands.add_parser("student", help="train, verify and serve a student")
    actions = student.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_train(actions)
    verify = actions.add_parser("verify", help="verify a model folder, offline")
    verify.set_defaults(run=run_verify)
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
        "datasets", metavar="DATASET", type=Path, nargs="+", help="a dataset folder"
    )
    train.add_argument(
        "--base",
        default=TINY,
        help="what it begins as: a folder, `org/name` of the hub, or `tiny` (the default): a "
        "small random model",
    )
    train.add_argument("--name", help="the student's name (default: as it was declared)")
    train.add_argument(
        "--out", metavar="DIR", type=Path, help="its folder (default: DATA/students/NAME)"
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
    train.add_argument("--seed", type=int, default=0, help="same seed, same run (default: 0)")
    train.add_argument("--save-every", type=int, metavar="STEPS", help="between checkpoints")
    train.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    train.add_argument("--json", action="store_true", help="print what was trained as JSON")
    train.set_defaults(run=run_train)


def run_train(args: argparse.Namespace) -> int:
    """Train a student; return the exit code."""
    recipe = _recipe(args)
    _check_extra()
    # What follows needs the extra, and seconds to load; the other commands do without.
    from gateway.app.installation import open_installation  # noqa: PLC0415
    from gateway.student.progress import Screen  # noqa: PLC0415
    from gateway.student.run import Order, Trained  # noqa: PLC0415
    from gateway.student.train import train_student  # noqa: PLC0415

    installation = open_installation(args)
    students = installation.data / "students"
    order = Order(
        datasets=tuple(args.datasets),
        base=args.base,
        recipe=recipe,
        student=args.name,
        place=lambda name: args.out or students / name,
        resume=args.resume,
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        outcome = train_student(order, _rooms(installation), Screen(), stop)
    finally:
        installation.close()
    if args.json:
        print(json.dumps(_facts(outcome)))
    elif isinstance(outcome, Trained):
        _tell_trained(outcome)
    else:
        print(f"interrupted at step {outcome.step} of {outcome.steps}; the run is kept in")
        print(f"  {outcome.folder}")
        print("go on with the same command and --resume")
    return FINE if isinstance(outcome, Trained) else INTERRUPTED


def run_verify(args: argparse.Namespace) -> int:
    """Verify a model folder; raise what does not verify."""
    verified = verify_model(args.model, _read_trust(args.trust), _passed)
    found = verified.manifest.found
    print(f"says student `{verified.manifest.asked.student}`, taught by", _teachers(verified))
    print(f"     for {found.use.purpose}, ruled on again on {found.day}")
    return FINE


def run_card(args: argparse.Namespace) -> int:
    """Print the card of a model folder that verifies."""
    verified = verify_model(args.model, _read_trust(args.trust))
    print(format_card(verified.manifest, verified.datasets), end="")
    return FINE


def run_serve(args: argparse.Namespace) -> int:
    """Serve a student until told to stop; return the exit code."""
    _check_extra()
    from gateway.student.serve import bind, serve_model  # noqa: PLC0415  # only this command

    verified = verify_model(args.model, _read_trust(args.trust), _passed)
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
        )
    return FINE


def _recipe(args: argparse.Namespace) -> Recipe:
    try:
        return recipe_for(
            args.base,
            epochs=args.epochs,
            steps=args.steps,
            learning_rate=args.lr,
            batch=args.batch,
            max_length=args.max_length,
            seed=args.seed,
            save_every=args.save_every,
        )
    except ValueError as error:
        raise CallerError(
            str(error), hint="see `gateway student train --help`", code="recipe.bad"
        ) from error


def _rooms(installation: Installation) -> Rooms:
    """Return what a training needs of the house."""
    from gateway.app.activation import activate  # noqa: PLC0415  # only to train
    from gateway.dataset.held import HeldWords  # noqa: PLC0415  # as above
    from gateway.dataset.ruling import PolicyLaw  # noqa: PLC0415  # as above
    from gateway.ident import Sha256  # noqa: PLC0415  # as above
    from gateway.ledger.register import KINDS  # noqa: PLC0415  # as above
    from gateway.receipt.model import Manifest  # noqa: PLC0415  # as above
    from gateway.student.gate import Sources  # noqa: PLC0415  # as above
    from gateway.student.run import Rooms  # noqa: PLC0415  # as above

    activate(installation, "gateway student train")

    def find(payload: Sha256) -> Manifest | None:
        found = installation.reader.manifest(payload)
        return None if found is None else found[1]

    def index_of(payload: Sha256) -> int | None:
        found = installation.reader.manifest(payload)
        return None if found is None else found[0]

    def prove(index: int) -> InclusionProof:
        return installation.reader.prove(index, installation.sequencer.checkpoint_now())

    def sources() -> Sources:
        # A gateway that runs beside us may have written a withdrawal since.
        installation.reader.catch_up()
        installation.register.fold(installation.reader.statements(kinds=KINDS))
        return Sources(
            trust=installation.keyring.trust,
            law=PolicyLaw(installation.library, installation.register, installation.overlays),
            library=installation.library.digest,
            words=HeldWords(installation.register, installation.index),
            manifest=find,
            today=day_of(installation.clock.now_ms()),
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
    }


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


def _check_extra() -> None:
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

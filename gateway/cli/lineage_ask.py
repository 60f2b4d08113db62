"""`gateway lineage ask | pack | report`: answers about origin, with what shows them."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from gateway.app.installation import Installation, open_installation
from gateway.cli.bar import progress_bar
from gateway.cli.ledger import write_out
from gateway.cli.lineage_subject import CHOICE, ROW, Looking, answered
from gateway.cli.stopping import until_stopped
from gateway.cli.use import screen
from gateway.errors import MalformedPolicyError, NotFoundError
from gateway.ident import ExchangeId, Sha256, is_derivation_id, is_exchange_id
from gateway.limits import ACCOUNTS_ASKED_MAX
from gateway.lineage.answer import Answer, as_json
from gateway.lineage.folders import payload_in
from gateway.lineage.gathering import LogSources, ask_log, hold_log
from gateway.lineage.holdings import About, name_of
from gateway.lineage.leaves import PART_LEAVES, LeafSet
from gateway.lineage.pack import Order, PackSources, write_pack
from gateway.lineage.question import (
    MalformedQuestionError,
    Question,
    account_matches,
    parse_question,
)
from gateway.lineage.regulators import FORMATS, report_of
from gateway.lineage.ways import is_among, is_like
from gateway.receipt.model import Derivation, Statement
from gateway.receipt.statement import read_leaf
from gateway.store.files import entries_of
from gateway.store.index.index import Index
from gateway.store.index.lineage import Word
from gateway.store.index.rows import Kind
from gateway.store.libraries import kept_library
from gateway.tlog.checkpoint import parse_checkpoint
from gateway.tlog.note import parse_note

_GLOB: Final = frozenset("*?[")
_ACCOUNTS_SHOWN: Final = 8
_EVERYTHING: Final = "all"
_QUESTIONS: Final = (
    "distilled-from:PROVIDER[/MODEL], judged-by:PROVIDER[/MODEL], policy:ID[@VERSION], "
    "clause:POLICY:CLAUSE, declared:use-…, agreement:ID or principal:ACCOUNT; * stands for "
    "any letters"
)


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `ask`, `pack` and `report` among the *verbs* of `gateway lineage`."""
    ask = verbs.add_parser(
        "ask",
        help="answer yes, no, or can't tell, with the evidence",
        description="Answer a question about where a model, a dataset, an export or an answer "
        f"came from. QUESTION is {_QUESTIONS}. Exit code 0: yes or no; 1: can't tell, or "
        "nothing is known of whom it asks for.",
    )
    ask.add_argument("question", metavar="QUESTION", help="like distilled-from:openai")
    _add_what(ask)
    ask.add_argument("--json", action="store_true", help="one JSON document")
    ask.set_defaults(run=_ask)

    pack = verbs.add_parser(
        "pack",
        help="put everything that an answer rests on into one file",
        description="Write a zip file with the manifests, lists, receipts, policies and words "
        "that answers rest on, and a page for people. `gateway verify` checks it offline. "
        "With --account it answers what an account's outputs went into, and what not.",
    )
    _add_what(pack, nargs="?")
    pack.add_argument(
        "--question",
        metavar="QUESTION",
        action="append",
        default=[],
        help=f"{_QUESTIONS}; may be given again (default: distilled-from:*)",
    )
    pack.add_argument(
        "--account",
        "--principal",
        metavar="ACCOUNT",
        action="append",
        default=[],
        help="the same as --question principal:ACCOUNT",
    )
    pack.add_argument(
        "--not-in",
        metavar="WHAT",
        help="what the account is asked for in: a model, or `all` for every stage of the log",
    )
    pack.add_argument("--out", metavar="FILE", type=Path, required=True, help="where to")
    pack.add_argument(
        "--receipts",
        choices=("all", "sample"),
        help="which receipts go into it (default: all, a sample where they are very many)",
    )
    pack.add_argument(
        "--with-rows",
        action="store_true",
        help="the rows of the datasets too, with the salts that open their commitments",
    )
    pack.set_defaults(run=_pack)

    report = verbs.add_parser(
        "report",
        help="draft what a regulator asks for, filled from the manifests",
        description="Write a draft in Markdown. It says of each figure which manifest it is "
        "from, and marks what the gateway doesn't know. It is no legal advice.",
    )
    _add_what(report)
    report.add_argument("--format", choices=sorted(FORMATS), required=True, help="whose form")
    report.add_argument(
        "--out", metavar="FILE", type=Path, help="where to (default: standard output)"
    )
    report.set_defaults(run=_report)


def _add_what(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    parser.add_argument(
        "what",
        metavar="WHAT",
        nargs=nargs,
        help="a model, dataset or export: its folder, name or the sha256 of its manifest; "
        "x-… or d-…, with /N for one row of it; or DATASET#ROW",
    )


def _ask(args: argparse.Namespace) -> int:
    question = parse_question(args.question)
    with contextlib.closing(open_installation(args)) as house:
        house.reader.catch_up()
        about, by_weights = _about(args.what, house)
        (answer,) = ask_log(about, [question], log_of(house))
        named = list(accounts_told(house.index, question.value))
        answer = as_seen(answer, question, house)
    if by_weights:
        answer = msgspec.structs.replace(answer, rests_on=(by_weights, *answer.rests_on))
    if args.json:
        print(json.dumps(as_json(answer), indent=2, ensure_ascii=False))
    else:
        for sentence in answer.sentences:
            screen().print(_plain(sentence), soft_wrap=True, markup=False, highlight=False)
        for line in named if question.kind == "principal" else ():
            screen().print(_plain(line), soft_wrap=True, markup=False, highlight=False)
    return 0 if answer.says in {"yes", "no"} else 1


def as_seen(said: Answer, question: Question, house: Installation) -> Answer:
    """Return an answer that is no plain *no* where nobody here ever heard of what is asked for.

    It may be a name that is spelt otherwise. Heard of is what stands in the ledger, and whom
    the policies in force speak of. A pack answers from what is in it, and says of how many
    receipts; there a *no* stays one.
    """
    if said.says != "no" or _is_seen(question, house):
        return said
    return msgspec.structs.replace(said, says="never seen")


def _is_seen(question: Question, house: Installation) -> bool:
    value, index = question.value, house.index
    match question.kind:
        case "principal":
            return any(account_matches(value, one) for one in index.values("principal"))
        case "declared":
            wanted = value.casefold()
            known = (one.declaration for one in house.register.declarations())
            return any(is_like(one.casefold(), wanted) for one in known)
        case "distilled-from" | "judged-by":
            lineage = index.lineage
            return value == "*" or is_among(
                value,
                [*index.values("provider"), *lineage.values("provider")],
                [
                    *index.values("model"),
                    *index.values("model_reported"),
                    *lineage.values("model"),
                    *house.library.models,
                ],
                [*lineage.values("policy"), *house.library.policies],
            )
        case _:
            # The library in force has policies and agreements that nothing rests on yet.
            return True


def _pack(args: argparse.Namespace) -> int:
    return until_packed(args.out, lambda: _write_pack(args))


def until_packed(out: Path, work: Callable[[], int]) -> int:
    """Return what *work* returns, which writes *out* whole; told to stop, say so."""
    return until_stopped(
        work,
        lambda: (
            f"pack.interrupted: told to stop before `{_plain(str(out))}` was written;"
            " nothing of it is left; hint: run the command again"
        ),
    )


def _write_pack(args: argparse.Namespace) -> int:
    what, accounts = args.not_in or args.what, args.account
    if what is None or (args.not_in and args.what) or (args.not_in and not accounts):
        raise MalformedQuestionError(
            "say what the pack is to be about",
            hint="a model, or --account ACCOUNT --not-in all",
        )
    asked = [*args.question, *(f"principal:{one}" for one in accounts)]
    questions = tuple(
        dict.fromkeys(parse_question(one) for one in asked or ["distilled-from:*"])
    )
    with contextlib.closing(open_installation(args)) as house:
        house.reader.catch_up()
        about, by_weights = _about(what, house, everything=True)
        order = Order(
            about=about,
            questions=questions,
            out=args.out,
            receipts=args.receipts,
            rows=args.with_rows,
        )
        with progress_bar("packing") as progress:
            packed = write_pack(order, pack_sources_of(house, what), progress)
    for one in packed.facts.answers:
        print(_plain(one.sentences[0]))
    if by_weights:
        print(_plain(f"It takes as given: {by_weights}."))
    shown = packed.facts.receipts
    if shown.of:
        print(f"receipts: {shown.shown} of {shown.of} ({shown.chosen})")
    for missing in packed.facts.missing:
        print(_plain(f"not in it: {missing}"), file=sys.stderr)
    print(f"{args.out}: verify it anywhere with `gateway verify {args.out}` and trust.json")
    return 0


def _report(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        house.reader.catch_up()
        about, _ = _about(args.what, house)
        draft = report_of(args.format, about, hold_log(about, log_of(house)))
    if args.out is None:
        print(draft, end="")
    else:
        write_out(args.out, draft.encode())
        print(f"{args.out}: a draft; fill in what is marked, and have it reviewed")
    return 0


def _about(what: str, house: Installation, *, everything: bool = False) -> tuple[About, str]:
    """Return what *what* names, and how it was recognised, where it says nothing of itself.

    Raises:
        NotFoundError: it names nothing in this log, or several things.
    """
    if everything and what == _EVERYTHING:
        return About(kind="log", name=_EVERYTHING), ""
    row, choice = ROW.fullmatch(what), CHOICE.fullmatch(what)
    if choice is not None:
        return _about_answer(house, choice["of"], int(choice["choice"])), ""
    if is_exchange_id(what) or is_derivation_id(what):
        return _about_answer(house, what, None), ""
    looking = Looking(house, 1)
    if row is not None and not Path(what).is_dir():
        _, source, place = looking.row(row["of"], int(row["row"]))
        return _about_answer(house, source, place), ""
    payload = looking.named(what)
    known = house.reader.manifest(payload)
    if known is None:
        raise NotFoundError(
            f"`{_plain(what[:80])}` is not in this log",
            hint="give a folder, a name or the sha256 of a manifest, x-… or d-…",
        )
    kind, name = name_of(known[1])
    about = About(kind=kind, name=name, manifest=payload, leaf=known[0])
    return about, looking.by_weights


def _about_answer(house: Installation, name: str, choice: int | None) -> About:
    leaf, statement = answered(house, name, choice)
    if isinstance(statement, Derivation):
        named = name if choice is None else f"{name}/{choice}"
        return About(kind="derivation", name=named, derivation=name, row=choice, leaf=leaf)
    return About(kind="exchange", name=name, exchange=name, leaf=leaf)


def accounts_like(index: Index, pattern: str) -> list[str]:
    """Return the accounts that a question names; `*` and `?` stand for any letters.

    Names are looked at, each once, and no leaf.

    Raises:
        MalformedQuestionError: it stands for too many.
    """
    if not _GLOB & set(pattern):
        return [pattern]
    found = [one for one in index.values("principal") if account_matches(pattern, one)]
    if len(found) > ACCOUNTS_ASKED_MAX:
        raise MalformedQuestionError(
            f"`{_plain(pattern[:64])}` stands for {len(found):,} names, more than"
            f" {ACCOUNTS_ASKED_MAX:,}",
            hint="ask for fewer at once",
        )
    return found


def accounts_told(index: Index, pattern: str) -> Iterator[str]:
    """Yield in a line what a pattern stands for; nothing where it is a name."""
    if _GLOB & set(pattern):
        found = accounts_like(index, pattern)
        shown = ", ".join(found[:_ACCOUNTS_SHOWN]) or "none"
        more = len(found) - _ACCOUNTS_SHOWN
        also = f" and {more:,} more" if more > 0 else ""
        yield f"`{pattern}` stands for {len(found):,} names: {shown}{also}"


def log_of(house: Installation, size: int | None = None) -> LogSources:
    """Return the ledger of *house* as answers are made of it, up to *size* leaves."""
    trust, reader, index = house.keyring.trust, house.reader, house.index

    def manifest(payload: Sha256) -> int | None:
        row = index.by_payload(payload)
        return None if row is None else row.index

    def statements(kinds: Sequence[Kind]) -> Iterator[tuple[int, Statement]]:
        for at in index.statements(kinds):
            yield at, read_leaf(reader.leaf(at))

    def account(pattern: str) -> LeafSet:
        names = tuple(accounts_like(index, pattern))
        words: tuple[Word, ...] = (("kind", "receipt"), ("principal", names))
        chunks = index.lineage.chunks_with(words, reader.size())
        return LeafSet({chunk * PART_LEAVES: bits for chunk, bits in chunks})

    def exchange(name: str) -> int | None:
        find = reader.derivation if is_derivation_id(name) else reader.find
        found = find(ExchangeId(name))
        return None if found is None else found[0]

    return LogSources(
        origin=trust.origin,
        size=reader.size() if size is None else size,
        leaf=reader.leaf,
        manifest=manifest,
        students=index.lineage.students_with,
        manifests=lambda: index.statements(("manifest",)),
        statements=statements,
        account=account,
        exchange=exchange,
        authority=reader.authority(trust),
    )


def pack_sources_of(house: Installation, what: str = "") -> PackSources:
    """Return what packs are made of in *house*; *what* may be a folder that helps."""
    note = house.sequencer.checkpoint_now()
    covers = parse_checkpoint(parse_note(note)[0])
    folders: dict[Sha256, Path] = {}
    places = [house.data / kind for kind in ("datasets", "students", "exports")]
    if what and Path(what).is_dir():
        places.append(Path(what).resolve().parent)
    for place in places:
        for folder in entries_of(place):
            payload = payload_in(folder)
            if payload is not None:
                folders.setdefault(payload, folder)

    def library(digest: Sha256) -> Mapping[str, str] | None:
        if not digest:
            return house.policy_files
        try:
            return kept_library(house.data, digest)
        except (NotFoundError, MalformedPolicyError):
            return None

    return PackSources(
        log=log_of(house, covers.size),
        note=note,
        prove=house.reader.prove,
        tile=house.reader.tiles.read,
        trust=house.keyring.trust,
        signer=house.keyring.manifest,
        folder=folders.get,
        library=library,
        version=house.writer.version,
    )


def _plain(text: str) -> str:
    # Names of models and accounts are words of others: no control may reach the terminal.
    return "".join(char if char.isprintable() else "?" for char in text)

"""`gateway review list | approve | decline | withdraw`: a named person's word, and why.

Each verdict is a signed leaf; there is no undo, only a later statement.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from rich.table import Table

from gateway.app.installation import Installation, open_installation
from gateway.app.providers import build_providers
from gateway.cli.lineage_impact import impact_of_answer
from gateway.cli.use import declaration_named, screen
from gateway.clock import rfc3339
from gateway.dataset.held import HeldWords
from gateway.dataset.standing import Standing, standing_of
from gateway.errors import CallerError, NotFoundError
from gateway.exchange.rule import Law
from gateway.exchange.states import Asked, Principal
from gateway.ident import (
    DeclarationId,
    DerivationId,
    ExchangeId,
    Sha256,
    is_declaration_id,
    is_derivation_id,
    is_exchange_id,
    new_exchange_id,
)
from gateway.intent.model import IntendedUse
from gateway.ledger.reading.register import subject_of
from gateway.lineage.impact import Below, Impact
from gateway.policy.model import Effect
from gateway.policy.obligation import REVIEW_FIRST
from gateway.provider.model import Operation, ProviderCall
from gateway.receipt.model import (
    Covered,
    Predicate,
    Receipt,
    Refusal,
    Verdict,
    Withdrawal,
)
from gateway.receipt.statement import read_leaf, write_statement
from gateway.store.index.lineage import Stage

_SHA256_DIGITS = 64
_AGREEMENT = "agreement:"
_WHOLE = frozenset({"declaration", "exchange"})
"""Columns that are copied by hand, and so never broken."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `review` among *commands*."""
    verbs = commands.add_parser(
        "review",
        help="rule on what the terms leave to a person",
        description="See what waits for a person's word, and give it.",
    ).add_subparsers(metavar="VERB", required=True)

    listing = verbs.add_parser("list", help="list what waits for a word")
    listing.add_argument("--project", help="only this project's")
    listing.add_argument("--json", action="store_true", help="one JSON document")
    listing.set_defaults(run=_list)

    for word, sentence in (
        ("approve", "say yes to a held declaration, or to an output that waits for review"),
        ("decline", "say no to a declaration or an output"),
    ):
        verdict = verbs.add_parser(word, help=sentence, description=f"{sentence.capitalize()}.")
        verdict.add_argument("subject", metavar="DECLARATION_OR_EXCHANGE", help="use-… or x-…")
        verdict.add_argument(
            "--provider",
            metavar="NAME",
            help="rule for this provider only, ahead of its first request",
        )
        verdict.add_argument("--model", help="with --provider: for this model")
        _who_and_why(verdict)
        verdict.set_defaults(run=_verdict, approved=word == "approve")

    withdraw = verbs.add_parser(
        "withdraw",
        help="end the use of something, and of everything that was made of it",
        description="Say that something may no longer be used: an exchange, rows of a pipeline,"
        " a declaration, an agreement, a dataset, a student or an export. It is the last word"
        " on it, and holds everything that was made of it.",
    )
    withdraw.add_argument(
        "subject",
        metavar="SUBJECT",
        help="x-…, d-…, use-…, agreement:ID, or a manifest by its sha256 or its name",
    )
    _who_and_why(withdraw)
    withdraw.set_defaults(run=_withdraw)


def _who_and_why(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", metavar="NAME", required=True, help="who says so")
    parser.add_argument("--reason", metavar="TEXT", required=True, help="why")


@dataclass(slots=True)
class _Held:
    """Requests of one declaration to one provider that the terms left to a person."""

    declaration: DeclarationId
    provider: str
    project: str
    use: IntendedUse
    requests: int = 0
    last: str = ""
    clauses: dict[str, set[str]] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)


def _list(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        held = [one for one in _held(house, args.project) if _waits(one, house)]
        outputs = list(_outputs_waiting(house, args.project))
        stages = list(_stages_held(house, args.project))
    if args.json:
        print(json.dumps(_as_json(held, outputs, stages), indent=2))
        return 0
    _print_held(held)
    _print_outputs(outputs)
    _print_stages(stages)
    return 0


def _stages_held(
    house: Installation, project: str | None
) -> Iterator[tuple[Stage, Withdrawal]]:
    """Yield the datasets, students and exports that a withdrawal holds."""
    words = HeldWords(house.register, house.index)
    for stage in house.index.lineage.stages():
        withdrawal = words.held(stage.manifest)
        if withdrawal is not None and project in {None, stage.project}:
            yield stage, withdrawal


def _held(house: Installation, project: str | None) -> list[_Held]:
    found: dict[tuple[DeclarationId, str], _Held] = {}
    for refusal in _refusals(house, project=project):
        declaration = refusal.declared.declaration
        if declaration is None:
            continue
        one = found.setdefault(
            (declaration, refusal.provider.name),
            _Held(
                declaration=declaration,
                provider=refusal.provider.name,
                project=refusal.caller.project,
                use=refusal.declared.use,
            ),
        )
        one.requests += 1
        one.last = refusal.received
        for reason in refusal.ruling.reasons:
            one.clauses.setdefault(reason.policy, set()).add(reason.clause)
            one.missing.update(reason.missing)
            one.sources.add(reason.source)
    return list(found.values())


def _refusals(
    house: Installation,
    *,
    project: str | None = None,
    declaration: str | None = None,
    provider: str | None = None,
) -> Iterator[Refusal]:
    held = house.index.select(
        kind="refusal",
        effect="hold",
        project=project,
        declaration=declaration,
        provider=provider,
    )
    for row in held:
        statement = read_leaf(house.reader.leaf(row.index))
        if isinstance(statement, Refusal):
            yield statement


def _waits(one: _Held, house: Installation) -> bool:
    register = house.register
    holding = [(policy, clause) for policy, many in one.clauses.items() for clause in many]
    return (
        register.withdrawn(one.declaration) is None
        and register.declined(one.declaration) is None
        and register.approval(one.declaration, holding) is None
    )


def _outputs_waiting(house: Installation, project: str | None) -> Iterator[tuple[int, Receipt]]:
    for row in house.index.select(kind="receipt", project=project):
        if REVIEW_FIRST not in row.obligations:
            continue
        receipt = read_leaf(house.reader.leaf(row.index))
        if isinstance(receipt, Receipt) and _standing(receipt, house) is Standing.WAITING:
            yield row.index, receipt


def _standing(receipt: Receipt, house: Installation) -> Standing | None:
    register, declaration = house.register, receipt.declared.declaration
    said = list(register.verdicts(receipt.exchange))
    subjects: list[DeclarationId | ExchangeId] = [receipt.exchange]
    if declaration is not None:
        said += register.verdicts(declaration)
        subjects.append(declaration)
    said.sort(key=lambda entry: entry[0])
    withdrawals = [w for one in subjects if (w := register.withdrawn(one)) is not None]
    return standing_of(receipt, [*(verdict for _, verdict in said), *withdrawals])


def _print_held(held: list[_Held]) -> None:
    console = screen()
    if not held:
        print("No declaration waits for a word.")
        return
    table = Table(title="Declarations that wait for a word", title_justify="left", box=None)
    for heading in ("declaration", "use", "provider", "held by", "not declared", "requests"):
        table.add_column(heading, overflow="fold", no_wrap=heading in _WHOLE)
    for one in held:
        clauses = (f"{policy}: {', '.join(sorted(c))}" for policy, c in one.clauses.items())
        table.add_row(
            one.declaration,
            f"{one.project}: {one.use.purpose}"
            + (f" for {one.use.student}" if one.use.student else ""),
            one.provider,
            "; ".join([*clauses, *sorted(one.sources)]),
            ", ".join(sorted(one.missing)),
            f"{one.requests}, last {one.last[:16]}",
        )
    console.print(table)
    print(
        "Say yes or no: gateway review approve|decline "
        f"{held[0].declaration} --by NAME --reason TEXT"
    )


def _print_outputs(outputs: list[tuple[int, Receipt]]) -> None:
    if not outputs:
        print("No output waits for a review.")
        return
    table = Table(title="Outputs that wait for a review", title_justify="left", box=None)
    for heading in ("exchange", "leaf", "provider", "model", "received"):
        table.add_column(heading, overflow="fold", no_wrap=heading in _WHOLE)
    for index, receipt in outputs:
        table.add_row(
            receipt.exchange,
            str(index),
            receipt.provider.name,
            receipt.model.reported or receipt.model.requested or "",
            receipt.received[:19],
        )
    screen().print(table)
    print(
        "Say yes or no: gateway review approve|decline "
        f"{outputs[0][1].exchange} --by NAME --reason TEXT"
    )


def _print_stages(stages: list[tuple[Stage, Withdrawal]]) -> None:
    if not stages:
        return
    table = Table(
        title="Held: something that they were made of was withdrawn",
        title_justify="left",
        box=None,
    )
    for heading in ("what", "name", "manifest", "withdrawn", "by", "reason"):
        table.add_column(heading, overflow="fold")
    for stage, withdrawal in stages:
        what = subject_of(withdrawal)
        table.add_row(
            stage.kind,
            stage.name,
            f"{stage.manifest[:16]}…",
            "itself" if what == stage.manifest else what[:40],
            withdrawal.by,
            withdrawal.reason,
        )
    screen().print(table)


def _as_json(
    held: list[_Held],
    outputs: list[tuple[int, Receipt]],
    stages: list[tuple[Stage, Withdrawal]],
) -> dict[str, Any]:
    return {
        "held": [
            {
                "kind": stage.kind,
                "name": stage.name,
                "manifest": stage.manifest,
                "withdrawn": subject_of(withdrawal),
                "by": withdrawal.by,
                "reason": withdrawal.reason,
            }
            for stage, withdrawal in stages
        ],
        "declarations": [
            {
                "declaration": one.declaration,
                "project": one.project,
                "purpose": one.use.purpose,
                "provider": one.provider,
                "clauses": {policy: sorted(c) for policy, c in one.clauses.items()},
                "missing": sorted(one.missing),
                "sources": sorted(one.sources),
                "requests": one.requests,
                "last": one.last,
            }
            for one in held
        ],
        "outputs": [
            {"exchange": receipt.exchange, "index": index, "provider": receipt.provider.name}
            for index, receipt in outputs
        ],
    }


def _verdict(args: argparse.Namespace) -> int:
    by, reason = _said(args)
    word = "approved" if args.approved else "declined"
    with contextlib.closing(open_installation(args)) as house:
        subject: str = args.subject
        covers: tuple[Covered, ...] = ()
        declaration: DeclarationId | None = None
        exchange: ExchangeId | None = None
        if is_declaration_id(subject):
            declaration = DeclarationId(subject)
            covers = _covers(house, declaration, args.provider, args.model)
            if args.approved and not covers:
                raise NotFoundError(
                    f"nothing holds {subject}, so there is nothing to say yes to",
                    hint="add --provider NAME to rule before its first request",
                )
        elif is_exchange_id(subject):
            exchange = ExchangeId(subject)
            _check_answered(house, exchange)
        else:
            raise CallerError(f"`{subject[:40]}` is neither use-… nor x-…")
        index = _state(
            house,
            Verdict(
                approved=args.approved,
                by=by,
                reason=reason,
                declaration=declaration,
                exchange=exchange,
                covers=covers,
                at=rfc3339(house.clock.now_ms()),
                writer=house.writer,
            ),
        )
    print(f"{word} {subject} (leaf {index})")
    for covered in covers:
        print(f"  covers {covered.policy}: {', '.join(covered.clauses)}")
    return 0


def _covers(
    house: Installation, declaration: DeclarationId, provider: str | None, model: str | None
) -> tuple[Covered, ...]:
    """Return the clauses that hold *declaration*: those seen so far, or of one provider."""
    clauses: dict[str, set[str]] = {}
    refused = list(_refusals(house, declaration=declaration, provider=provider))
    for refusal in refused:
        # Every reason of a hold wants an answer, an undecided permit as well.
        for reason in refusal.ruling.reasons:
            clauses.setdefault(reason.policy, set()).add(reason.clause)
    if not refused:
        declaration_named(house.register, declaration)
    if provider is not None:
        for policy, clause in _ahead(house, declaration, provider, model):
            clauses.setdefault(policy, set()).add(clause)
    return tuple(
        Covered(policy=policy, clauses=tuple(sorted(some)))
        for policy, some in sorted(clauses.items())
    )


def _ahead(
    house: Installation, declaration: DeclarationId, provider: str, model: str | None
) -> Iterable[tuple[str, str]]:
    """Yield the clauses that would hold a chat with *provider* today."""
    declared = declaration_named(house.register, declaration)
    now_ms = house.clock.now_ms()
    law = Law(
        house.library,
        house.register,
        house.clock,
        held=HeldWords(house.register, house.index).held,
        undeclared=False,
        unreadable=False,
        overlays=house.overlays,
    )
    asked = Asked(
        exchange=new_exchange_id(now_ms),
        received_ms=now_ms,
        principal=Principal(name="review", project=declared.project),
        declaration=declared,
        declared=True,
        call=ProviderCall(provider=provider, operation=Operation.CHAT, model=model),
        endpoint="",
        body=b"",
    )
    decision = law.rule(asked, build_providers(house).named(provider)).decision
    if decision.effect is Effect.HOLD:
        for reason in decision.reasons:
            yield reason.policy, reason.clause


def _check_answered(house: Installation, exchange: ExchangeId) -> None:
    found = house.reader.find(exchange)
    if found is None:
        raise NotFoundError(
            f"no exchange `{exchange}` is on record", hint="`gateway receipt list` shows them"
        )
    statement = read_leaf(found[1])
    if not isinstance(statement, Receipt):
        about = getattr(statement, "declared", None)
        hint = f"rule on its declaration {about.declaration}" if about else "nothing came back"
        raise NotFoundError(f"{exchange} has no output to rule on", hint=hint)


def _withdraw(args: argparse.Namespace) -> int:
    by, reason = _said(args)
    subject: str = args.subject
    with contextlib.closing(open_installation(args)) as house:
        house.reader.catch_up()
        withdrawal = Withdrawal(
            by=by, reason=reason, at=rfc3339(house.clock.now_ms()), writer=house.writer
        )
        withdrawal, known, impact = _withdrawing(subject, withdrawal, house)
        if known is not None:
            print(f"{subject} was withdrawn already, by {known.by}: {known.reason}")
            return 0
        index = _state(house, withdrawal)
    print(f"withdrew {subject} (leaf {index})")
    for sentence in _held_with(impact, withdrawal):
        print("".join(char if char.isprintable() else "?" for char in sentence))
    return 0


def _withdrawing(
    subject: str, said: Withdrawal, house: Installation
) -> tuple[Withdrawal, Withdrawal | None, Impact]:
    """Return the withdrawal of *subject*, the one that stands already, and what it reaches."""
    register, below = house.register, Below(house.index, house.register)
    replace = msgspec.structs.replace
    if is_exchange_id(subject):
        exchange = ExchangeId(subject)
        _check_answered(house, exchange)
        impact = impact_of_answer(house, subject)
        return replace(said, exchange=exchange), register.withdrawn(exchange), impact
    if is_derivation_id(subject):
        derivation = DerivationId(ExchangeId(subject))
        impact = impact_of_answer(house, subject)
        return replace(said, derivation=derivation), register.withdrawn(derivation), impact
    if is_declaration_id(subject):
        declaration = declaration_named(register, subject).id
        impact = below.of_declaration(declaration)
        return replace(said, declaration=declaration), register.withdrawn(declaration), impact
    if subject.startswith(_AGREEMENT):
        name = subject.removeprefix(_AGREEMENT)
        agreements = {facts.agreement: known for facts, known in register.agreements()}
        if name not in agreements:
            raise NotFoundError(
                f"no agreement `{name[:64]}` is registered", hint="`gateway agreement list`"
            )
        impact = below.of_named("agreement", name)
        return replace(said, agreement=name), agreements[name], impact
    manifest = _manifest_named(subject, house)
    impact = below.of_manifests("manifest", subject, [manifest])
    return replace(said, manifest=manifest), register.withdrawn(manifest), impact


def _manifest_named(subject: str, house: Installation) -> Sha256:
    """Return the manifest of that digest, or of the one thing that is called so."""
    if len(subject) == _SHA256_DIGITS:
        if house.reader.manifest(Sha256(subject)) is None:
            raise NotFoundError(
                f"no manifest {subject[:12]}… is in the ledger",
                hint="`gateway lineage show FOLDER` prints the digest of a manifest",
            )
        return Sha256(subject)
    named = house.index.lineage.named(subject)
    if not named:
        raise CallerError(
            f"`{subject[:40]}` is neither x-…, d-…, use-…, agreement:ID, nor a manifest's"
            " sha256 or name"
        )
    if len(named) > 1:
        raise NotFoundError(
            f"{len(named)} things are called `{subject[:64]}`",
            hint="name one by its manifest: "
            + ", ".join(f"{one.manifest} ({one.kind}, leaf {one.leaf})" for one in named),
        )
    return named[0].manifest


def _held_with(impact: Impact, withdrawal: Withdrawal) -> Iterator[str]:
    """Yield what a withdrawal holds, and whom it concerns."""
    found = [one for one in impact.touched if one.stage.manifest != withdrawal.manifest]
    if impact.derivations:
        count = impact.derivations
        yield f"held with it: {count:,} derivation{'s'[: count > 1]} made of it"
    if not found:
        yield "no dataset, student or export was made of it"
        return
    # An agreement lifted clauses: what does without it, stands.
    how = "ruled on without it" if withdrawal.agreement is not None else "held with it"
    for kind in ("dataset", "student", "export"):
        some = [one for one in found if one.stage.kind == kind]
        names = ", ".join(f"{one.stage.name} ({one.stage.manifest[:12]}…)" for one in some)
        answers = sum(one.answers for one in some)
        gave = f", with {answers:,} answers" if answers else ""
        if some:
            yield f"{how}: {len(some):,} {kind}{'s'[: len(some) > 1]}{gave}: {names}"
    for who, what in impact.actions:
        yield f"{who} answers for {what}"
    yield from (f"mind: {doubt}" for doubt in impact.unknown)


def _said(args: argparse.Namespace) -> tuple[str, str]:
    by, reason = args.by.strip(), args.reason.strip()
    if not by or not reason:
        raise CallerError("a word needs a name and a reason", hint="--by NAME --reason TEXT")
    if not (by + reason).isprintable():
        raise CallerError(
            "a name and a reason are one line each, of characters that can be read",
            hint="they stand in the ledger for good",
        )
    return by, reason


def _state(house: Installation, predicate: Predicate) -> int:
    leaf = write_statement(predicate, (), house.keyring.receipt)
    return house.sequencer.append_and_wait(leaf).index

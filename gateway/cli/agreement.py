"""`gateway agreement …` and `gateway organisation …`: what was signed, and who we are.

Both are statements by a named person, leaves of the ledger, and never edited: an agreement ends
on its last day or is withdrawn, and the newest word about the organisation counts.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.table import Table

from gateway.app.installation import Installation, open_installation
from gateway.canonical import sha256_hex
from gateway.cli.arguments import day
from gateway.cli.use import screen
from gateway.clock import day_of, rfc3339
from gateway.errors import CallerError, MalformedPolicyError, NotFoundError
from gateway.ident import Sha256
from gateway.intent.model import NAME
from gateway.intent.purpose import PURPOSES
from gateway.limits import AGREEMENTS_PER_CREDENTIAL_MAX, EVIDENCE_BYTES_MAX
from gateway.policy.agreement import check_lifts
from gateway.policy.condition import Measured, Value, value_of
from gateway.policy.source import Scalar, nearest
from gateway.policy.vocabulary import FACTS, REGISTRABLE
from gateway.proxy.auth import fingerprint_of
from gateway.receipt.model import (
    AgreementFacts,
    OrganisationFacts,
    Predicate,
    Scope,
    Withdrawal,
)
from gateway.receipt.statement import write_statement

_MONTH: Final = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
_YES_NO: Final = {"yes": "true", "no": "false", "?1": "true", "?0": "false"}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `agreement` and `organisation` among *commands*."""
    _add_agreement(commands)
    _add_organisation(commands)


def _add_agreement(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verbs = commands.add_parser(
        "agreement",
        help="register order forms and written permissions",
        description="Register what a provider agreed to in writing. It lifts exactly the "
        "clauses it names, for its scope, for calls with its credentials, until it expires.",
    ).add_subparsers(metavar="VERB", required=True)

    register = verbs.add_parser("register", help="state that an agreement was signed")
    register.add_argument("id", metavar="ID", help="a name for it, like openai-order-7")
    register.add_argument(
        "policy", metavar="POLICY", help="whose clauses it lifts, like openai"
    )
    _several(register, "--lifts", "CLAUSE", "a clause that it lifts", required=True)
    _several(register, "--purpose", "PURPOSE", "like train.sft", required=True)
    _several(register, "--project", "NAME", "only this project's uses")
    _several(register, "--student", "NAME", "only this student")
    _several(register, "--model", "ID", "only this exact model's output")
    register.add_argument("--evidence", type=Path, required=True, metavar="FILE")
    register.add_argument("--signer", required=True, help="who signed for the provider")
    register.add_argument("--by", required=True, help="who registers it")
    register.add_argument("--from", dest="starts", type=day, required=True, metavar="DAY")
    register.add_argument("--until", dest="expires", type=day, required=True, metavar="DAY")
    _several(
        register,
        "--credential",
        "env:NAME",
        "the provider's key that it holds for; only a keyed fingerprint is written down",
        required=True,
    )
    register.set_defaults(run=_register)

    listing = verbs.add_parser("list", help="list the agreements and what they lift")
    listing.add_argument("--json", action="store_true", help="one JSON document")
    listing.set_defaults(run=_list)

    withdraw = verbs.add_parser("withdraw", help="end an agreement before its last day")
    withdraw.add_argument("id", metavar="ID")
    withdraw.add_argument("--by", metavar="NAME", required=True, help="who says so")
    withdraw.add_argument("--reason", metavar="TEXT", required=True, help="why")
    withdraw.set_defaults(run=_withdraw)


def _several(
    parser: argparse.ArgumentParser,
    flag: str,
    metavar: str,
    told: str,
    *,
    required: bool = False,
) -> None:
    """Add a flag that may be given more than once."""
    parser.add_argument(
        flag, action="append", default=[], metavar=metavar, help=told, required=required
    )


def _add_organisation(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verbs = commands.add_parser(
        "organisation",
        help="state what the organisation is, where terms ask for it",
        description="State facts of the organisation and its affiliates together: "
        + ", ".join(REGISTRABLE),
    ).add_subparsers(metavar="VERB", required=True)

    register = verbs.add_parser("register", help="state facts of the organisation")
    register.add_argument("words", metavar="KEY=VALUE", nargs="+", help="monthly-users=40000")
    register.add_argument(
        "--measured", metavar="YYYY-MM", help="the month that numbers hold for"
    )
    register.add_argument("--basis", required=True, help="from what it is known")
    register.add_argument("--by", required=True, help="who states it")
    register.set_defaults(run=_state_organisation)

    show = verbs.add_parser("show", help="show what is stated, and what nobody stated")
    show.add_argument("--json", action="store_true", help="one JSON document")
    show.set_defaults(run=_show_organisation)


def _register(args: argparse.Namespace) -> int:
    if not NAME.fullmatch(args.id) or args.id.startswith(("x-", "use-")):
        raise CallerError(
            f"`{args.id[:40]}` is no name for an agreement", hint="like openai-order-7"
        )
    for purpose in args.purpose:
        if purpose not in PURPOSES:
            hint = nearest(purpose, PURPOSES, f"one of {', '.join(PURPOSES)}")
            raise CallerError(f"unknown purpose `{purpose[:40]}`", hint=hint)
    if args.starts > args.expires:
        raise CallerError("`--until` lies before `--from`")
    evidence = _evidence(args.evidence)
    with contextlib.closing(open_installation(args)) as house:
        if any(args.id == facts.agreement for facts, _ in house.register.agreements()):
            raise CallerError(
                f"agreement `{args.id}` is registered already",
                hint="an agreement is never edited; withdraw it, and register another name",
            )
        today = day_of(house.clock.now_ms())
        check_lifts(house.library, args.policy, args.lifts, max(today, args.starts))
        credentials = {
            fingerprint_of(house.keyring.commitment, house.settings.secret(one, "--credential"))
            for one in args.credential
        }
        _check_room(house, credentials, today)
        index = _append(
            house,
            AgreementFacts(
                agreement=args.id,
                policy=args.policy,
                lifts=_sorted(args.lifts),
                scope=Scope(
                    purposes=_sorted(args.purpose),
                    projects=_sorted(args.project),
                    students=_sorted(args.student),
                    models=_sorted(args.model),
                ),
                evidence=sha256_hex(evidence),
                evidence_name=args.evidence.name,
                signer=_named(args.signer, "--signer"),
                by=_named(args.by, "--by"),
                credentials=tuple(sorted(credentials)),
                starts=args.starts.isoformat(),
                expires=args.expires.isoformat(),
                at=rfc3339(house.clock.now_ms()),
                writer=house.writer,
            ),
        )
    print(f"{args.id} lifts {', '.join(_sorted(args.lifts))} of {args.policy} (leaf {index})")
    return 0


def _check_room(house: Installation, credentials: Iterable[Sha256], today: dt.date) -> None:
    if any(
        len(house.register.bound(one, today)) >= AGREEMENTS_PER_CREDENTIAL_MAX
        for one in credentials
    ):
        raise CallerError(
            f"{AGREEMENTS_PER_CREDENTIAL_MAX} agreements hold for this key already",
            hint="withdraw those that another one replaces: `gateway agreement list`",
        )


def _list(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        found = house.register.agreements()
        today = day_of(house.clock.now_ms())
    if args.json:
        shown = [
            {
                **msgspec.to_builtins(facts),
                "standing": _standing(facts, withdrawal, today),
                "withdrawn": None
                if withdrawal is None
                else {"by": withdrawal.by, "reason": withdrawal.reason},
            }
            for facts, withdrawal in found
        ]
        print(json.dumps(shown, indent=2))
        return 0
    if not found:
        print("no agreement is registered; `gateway agreement register --help` shows how")
        return 0
    table = Table(box=None, pad_edge=False)
    for heading in ("agreement", "policy", "lifts", "for", "days", "signer", "standing"):
        table.add_column(heading, overflow="fold")
    for facts, withdrawal in found:
        table.add_row(
            facts.agreement,
            facts.policy,
            ", ".join(facts.lifts),
            _scope(facts.scope),
            f"{facts.starts} to {facts.expires}",
            facts.signer,
            _standing(facts, withdrawal, today),
        )
    screen().print(table)
    return 0


def _withdraw(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        known = {facts.agreement: said for facts, said in house.register.agreements()}
        if args.id not in known:
            raise NotFoundError(
                f"no agreement `{args.id[:40]}` is registered",
                hint="`gateway agreement list` shows them",
            )
        said = known[args.id]
        if said is not None:
            print(f"{args.id} was withdrawn already, by {said.by}: {said.reason}")
            return 0
        index = _append(
            house,
            Withdrawal(
                by=_named(args.by, "--by"),
                reason=_named(args.reason, "--reason"),
                agreement=args.id,
                at=rfc3339(house.clock.now_ms()),
                writer=house.writer,
            ),
        )
    print(f"withdrew {args.id} (leaf {index})")
    return 0


def _state_organisation(args: argparse.Namespace) -> int:
    if args.measured is not None and not _MONTH.fullmatch(args.measured):
        raise CallerError(f"`{args.measured[:40]}` is not a month", hint="write YYYY-MM")
    facts: dict[str, str | bool | int] = {}
    for word in args.words:
        name, equals, text = word.partition("=")
        fact = FACTS.get(name)
        if not equals or fact is None or name not in REGISTRABLE:
            hint = nearest(name, REGISTRABLE, f"one of {', '.join(REGISTRABLE)}")
            raise CallerError(f"`{name[:40]}` is nothing to state here", hint=hint)
        value = _value(name, _YES_NO.get(text.lower(), text))
        if fact.kind == "number" and fact.presumed_in != "always" and args.measured is None:
            raise CallerError(
                f"`{name}` is measured in a month", hint="add `--measured YYYY-MM`"
            )
        facts[name] = value
    with contextlib.closing(open_installation(args)) as house:
        index = _append(
            house,
            OrganisationFacts(
                facts=facts,
                measured=args.measured,
                basis=_named(args.basis, "--basis"),
                by=_named(args.by, "--by"),
                at=rfc3339(house.clock.now_ms()),
                writer=house.writer,
            ),
        )
    print(f"{', '.join(f'{name}={value}' for name, value in facts.items())} (leaf {index})")
    return 0


def _show_organisation(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        stated = dict(house.register.organisation)
    if args.json:
        print(json.dumps({name: _plain(stated.get(name)) for name in REGISTRABLE}, indent=2))
        return 0
    table = Table(box=None, pad_edge=False)
    for heading in ("fact", "stated", "means"):
        table.add_column(heading, overflow="fold")
    for name in REGISTRABLE:
        table.add_row(name, _told(stated.get(name), name), FACTS[name].meaning)
    screen().print(table)
    return 0


def _value(name: str, text: str) -> str | bool | int:
    number = text.isascii() and text.isdecimal()
    node = Scalar(value=int(text) if number else text, line=1)
    try:
        value = value_of(FACTS[name], node, "--")
    except MalformedPolicyError as error:
        said = error.message.partition(": ")[2]
        raise CallerError(said, hint=error.hint) from error
    assert isinstance(value, str | bool | int)  # noqa: S101 # INVARIANT: registered facts are no sets or days.
    return value


def _told(value: Value | None, name: str) -> str:
    if value is None:
        fact = FACTS[name]
        if fact.presumed is None:
            return "not stated"
        where = "" if fact.presumed_in == "always" else " in plain use"
        return f"not stated; presumed {_word(fact.presumed)}{where}"
    if isinstance(value, Measured):
        return ", ".join(f"{number} in {month}" for month, number in reversed(value.months))
    return _word(value)


def _word(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _plain(value: Value | None) -> Any:
    return dict(value.months) if isinstance(value, Measured) else value


def _standing(facts: AgreementFacts, withdrawal: Withdrawal | None, today: dt.date) -> str:
    if withdrawal is not None:
        return "withdrawn"
    if today.isoformat() > facts.expires:
        return "expired"
    return "in force" if facts.starts <= today.isoformat() else "not yet in force"


def _scope(scope: Scope) -> str:
    parts = [", ".join(scope.purposes)]
    for what, names in (
        ("project", scope.projects),
        ("student", scope.students),
        ("model", scope.models),
    ):
        if names:
            parts.append(f"{what} {' or '.join(names)}")
    return "; ".join(parts)


def _evidence(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(EVIDENCE_BYTES_MAX + 1)
    except OSError as error:
        raise CallerError(
            f"the evidence `{path}` can't be read: {error.strerror}",
            hint="name the signed document; its digest is written down, not its text",
        ) from error
    if not content or len(content) > EVIDENCE_BYTES_MAX:
        raise CallerError(f"the evidence `{path}` is empty, or larger than any contract")
    return content


def _named(text: str, flag: str) -> str:
    if not text.strip():
        raise CallerError(f"`{flag}` says nothing", hint="write a name or a reason")
    return text.strip()


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def _append(house: Installation, predicate: Predicate) -> int:
    leaf = write_statement(predicate, (), house.keyring.receipt)
    return house.sequencer.append_and_wait(leaf).index

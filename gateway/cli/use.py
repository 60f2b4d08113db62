"""`gateway use declare | list | show`: what outputs are wanted for, said once, by somebody."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.app.installation import Installation, open_installation
from gateway.cli.arguments import day
from gateway.clock import rfc3339
from gateway.errors import (
    GateRefusedError,
    MalformedDeclarationError,
    UnknownDeclarationError,
)
from gateway.ident import DeclarationId
from gateway.intent.declare import LISTS, YES_NO, use_of
from gateway.intent.model import NAME, Declaration, declaration_id
from gateway.ledger.reading.register import Register
from gateway.receipt.model import DeclarationFacts
from gateway.receipt.statement import write_statement

_WHOLE: Final = frozenset({"declaration"})
"""Columns that are copied by hand, and so never broken."""
_YES: Final = frozenset({"yes", "true", "?1"})
_NO: Final = frozenset({"no", "false", "?0"})


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `use` among *commands*."""
    verbs = commands.add_parser(
        "use",
        help="declare what outputs are wanted for",
        description="Declare an intended use once; requests then cite its id.",
    ).add_subparsers(metavar="VERB", required=True)

    declare = verbs.add_parser(
        "declare",
        help="register an intended use and print its id",
        description="Register an intended use. The same words have the same id, so saying "
        "them again changes nothing. Example: gateway use declare --project search --owner "
        "ada purpose=train.sft student=invoice-parser student-kind=extractor competes=no",
    )
    declare.add_argument("--project", required=True, help="whose use it is")
    declare.add_argument("--owner", required=True, help="the person who answers for it")
    declare.add_argument("--expires", metavar="DAY", type=day, help="its last day, YYYY-MM-DD")
    declare.add_argument("words", metavar="KEY=VALUE", nargs="+", help="like purpose=train.sft")
    declare.set_defaults(run=_declare)

    listing = verbs.add_parser("list", help="list what was declared")
    listing.add_argument("--project", help="only this project's")
    listing.add_argument("--json", action="store_true", help="one JSON document")
    listing.set_defaults(run=_list)

    show = verbs.add_parser("show", help="show one declaration and what was said of it")
    show.add_argument("id", metavar="ID", help="use-…")
    show.add_argument("--json", action="store_true", help="one JSON document")
    show.set_defaults(run=_show)


class _Screen(Console):
    """A console on which words of others, in tables too, are no controls."""

    def render_str(self, text: str, *more: Any, **said: Any) -> Text:
        return super().render_str(shown(text), *more, **said)


def screen() -> Console:
    """Return where tables go; what is not a terminal gets lines that are not broken early."""
    return _Screen(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160)


def shown(text: str) -> str:
    """Return words of others with nothing in them that a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


def declaration_named(register: Register, text: str) -> Declaration:
    """Return the registered declaration that *text* names.

    Raises:
        UnknownDeclarationError: there is none.
    """
    declaration = register.declaration(DeclarationId(text))
    if declaration is None:
        raise UnknownDeclarationError(
            f"no declaration `{text[:40]}` is registered",
            hint="`gateway use list` shows them, `gateway use declare` makes one",
        )
    return declaration


def _declare(args: argparse.Namespace) -> int:
    use = use_of(dict(_words(args.words)))
    if not NAME.fullmatch(args.project):
        raise MalformedDeclarationError(
            f"`{args.project}` is no name for a project", hint="like `search` or `acme.ocr-2`"
        )
    owner = args.owner.strip()
    if not owner or not owner.isprintable():
        raise MalformedDeclarationError(
            "a declaration has an owner, in one line that can be read", hint="--owner NAME"
        )
    expires = args.expires and args.expires.isoformat()
    named = declaration_id(args.project, use)
    with contextlib.closing(open_installation(args)) as house:
        declared = house.register.declarations()
        known = next((one for one in declared if one.declaration == named), None)
        if known is not None:
            _check_as_known(house, known, expires)
            print(f"{named} (declared already, by {known.owner})")
            return 0
        if expires is not None and expires < rfc3339(house.clock.now_ms())[:10]:
            raise MalformedDeclarationError(
                f"its last day, {expires}, is over", hint="--expires DAY, or leave it out"
            )
        facts = DeclarationFacts(
            declaration=named,
            project=args.project,
            use=use,
            owner=owner,
            expires=expires,
            at=rfc3339(house.clock.now_ms()),
            writer=house.writer,
        )
        leaf = write_statement(facts, (), house.keyring.receipt)
        index = house.sequencer.append_and_wait(leaf).index
    print(f"{named} (leaf {index})")
    return 0


def _check_as_known(house: Installation, known: DeclarationFacts, expires: str | None) -> None:
    """Raise where a use that is declared again is not what it was asked to be.

    Its words make its id, and the first declaration counts: nothing renews or widens it.
    """
    standing = _standing(known, house)
    asked_more = expires is not None and expires != known.expires
    if standing in {"declared", "approved"} and not asked_more:
        return
    ends = "has no last day" if known.expires is None else f"ends on {known.expires}"
    raise GateRefusedError(
        f"{known.declaration}, declared by {known.owner}, "
        + (ends if standing in {"declared", "approved"} else f"is {standing}"),
        hint="these words name that declaration for ever; declare a use that differs, like one "
        "for the next student",
        code="declaration.ended",
    )


def _list(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        found = [
            facts
            for facts in house.register.declarations()
            if args.project in (None, facts.project)
        ]
        if args.json:
            print(json.dumps([_as_json(facts, house) for facts in found], indent=2))
            return 0
        table = Table(box=None, pad_edge=False)
        for heading in ("declaration", "project", "purpose", "student", "owner", "standing"):
            table.add_column(heading, overflow="fold", no_wrap=heading in _WHOLE)
        for facts in found:
            table.add_row(
                facts.declaration,
                facts.project,
                facts.use.purpose,
                facts.use.student or "",
                facts.owner,
                _standing(facts, house),
            )
    if found:
        screen().print(table)
    else:
        print("nothing is declared yet; `gateway use declare --help` shows how")
    return 0


def _show(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        declaration_named(house.register, args.id)
        (facts,) = (f for f in house.register.declarations() if f.declaration == args.id)
        shown = _as_json(facts, house)
    if args.json:
        print(json.dumps(shown, indent=2))
        return 0
    print(facts.declaration)
    print(f"  project: {facts.project}")
    print(f"  owner: {facts.owner}, since {facts.at}")
    if facts.expires:
        print(f"  expires: {facts.expires}")
    for key, value in shown["use"].items():
        print(f"  {key}: {_said(value)}")
    print(f"  standing: {shown['standing']}")
    for verdict in shown["verdicts"]:
        word = "yes" if verdict["approved"] else "no"
        about = "; ".join(
            f"{c['policy']}: {', '.join(c['clauses'])}" for c in verdict["covers"]
        )
        print(
            f"  {word} by {verdict['by']} (leaf {verdict['index']}): {verdict['reason']}"
            + (f" [{about}]" if about else "")
        )
    return 0


def _as_json(facts: DeclarationFacts, house: Installation) -> dict[str, Any]:
    withdrawal = house.register.withdrawn(facts.declaration)
    return {
        "declaration": facts.declaration,
        "project": facts.project,
        "owner": facts.owner,
        "at": facts.at,
        "expires": facts.expires,
        "use": msgspec.to_builtins(facts.use),
        "standing": _standing(facts, house),
        "verdicts": [
            {
                "index": index,
                "approved": verdict.approved,
                "by": verdict.by,
                "reason": verdict.reason,
                "covers": msgspec.to_builtins(verdict.covers),
            }
            for index, verdict in house.register.verdicts(facts.declaration)
        ],
        "withdrawn": None
        if withdrawal is None
        else {"by": withdrawal.by, "reason": withdrawal.reason},
    }


def _standing(facts: DeclarationFacts, house: Installation) -> str:
    today = rfc3339(house.clock.now_ms())[:10]
    if house.register.withdrawn(facts.declaration) is not None:
        return "withdrawn"
    if house.register.declined(facts.declaration) is not None:
        return "declined"
    if facts.expires is not None and facts.expires < today:
        return f"expired {facts.expires}"
    said = house.register.verdicts(facts.declaration)
    return "approved" if said else "declared"


def _words(words: list[str]) -> Iterator[tuple[str, object]]:
    seen: set[str] = set()
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise MalformedDeclarationError(
                f"`{word[:40]}` is not KEY=VALUE", hint="like purpose=train.sft competes=no"
            )
        if key in seen:
            raise MalformedDeclarationError(f"`{key[:40]}` is said twice", hint="say it once")
        seen.add(key)
        if key in YES_NO and value.lower() in _YES | _NO:
            yield key, value.lower() in _YES
        elif key in LISTS:
            yield key, [one for one in value.split(",") if one]
        else:
            yield key, value


def _said(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(str(one) for one in value) or "none"
        case _:
            return str(value)

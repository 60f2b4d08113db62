"""`gateway limit show`: what may be used, what has been, and what is left.

Exit codes: 0 fine; 3 the settings or what counts can't be read.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

from gateway.app.installation import Installation, open_installation
from gateway.budget.model import (
    SCOPES,
    Bound,
    Counted,
    Limit,
    Scope,
    bounds_of,
    parse_counter,
    shown,
    span,
)
from gateway.cli.use import screen
from gateway.clock import rfc3339
from gateway.store.counters import FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    bound: Bound
    used: int
    end_ms: int

    @property
    def left(self) -> int:
        """How much may still be used."""
        return max(0, self.bound.limit.amount - self.used)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `limit` among *commands*."""
    verbs = commands.add_parser(
        "limit",
        help="show limits, and what is left of them",
        description="Show what keys, projects and declarations may use, and what is left.",
    ).add_subparsers(metavar="VERB", required=True)
    show = verbs.add_parser(
        "show", help="show every limit", description="Show every limit and what is left of it."
    )
    show.add_argument("--key", metavar="ID", help="only this gateway key's")
    show.add_argument("--project", metavar="WORD", help="only this project's")
    show.add_argument("--declaration", metavar="ID", help="only this declaration's")
    show.add_argument("--used", action="store_true", help="only those of which some is used")
    show.add_argument("--json", action="store_true", help="one JSON object a line")
    show.set_defaults(run=_show)


def _show(args: argparse.Namespace) -> int:
    with contextlib.closing(open_installation(args)) as house:
        prices, rules = house.settings.prices(), house.settings.rules()
        rows = [row for row in _rows(house) if _is_wanted(row, args)]
    currency = prices.currency if prices is not None else ""
    if args.json:
        for row in rows:
            print(json.dumps(_as_json(row, currency)))
        return 0
    if not rows:
        print("no limit binds anybody who is known" if rules else "nothing is limited")
        return 0
    table = Table(box=None, pad_edge=False)
    for heading in ("whose", "what", "limit", "used", "left", "until (UTC)"):
        number = heading in ("limit", "used", "left")
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        bound, limit = row.bound, row.bound.limit
        what = currency if limit.measure == "money" and currency else limit.measure
        table.add_row(
            f"{bound.scope} {bound.name}",
            f"{what} a {limit.window}",
            *(shown(limit.measure, amount) for amount in (limit.amount, row.used, row.left)),
            rfc3339(row.end_ms)[:19].replace("T", " "),
        )
    screen().print(table)
    return 0


def _rows(house: Installation) -> list[_Row]:
    """Return every limit of whoever is known, by keys, declarations or what was counted."""
    now_ms = house.clock.now_ms()
    counted = {one.counter: one for one in _counted(house)}
    own: dict[tuple[Scope, str], tuple[Limit, ...]] = {}
    for key in house.access.list():
        if key.revoked is None:
            own["key", key.id] = key.limits
            own.setdefault(("project", key.project), ())
    for facts in house.register.declarations():
        own.setdefault(("project", facts.project), ())
        own.setdefault(("declaration", facts.declaration), ())
    for counter in counted:
        found = parse_counter(counter)
        if found is not None:
            own.setdefault(found[:2], ())
    rules = house.settings.rules()
    bounds = [
        bound
        for named in sorted(own, key=lambda one: (SCOPES.index(one[0]), one[1]))
        for bound in bounds_of(rules, own[named], [named])
    ]
    return [_row(bound, counted.get(bound.counter), now_ms) for bound in bounds]


def _row(bound: Bound, counted: Counted | None, now_ms: int) -> _Row:
    if counted is None:
        return _Row(bound=bound, used=0, end_ms=span(bound.limit.window, now_ms)[1])
    return _Row(bound=bound, used=counted.used, end_ms=counted.end)


def _counted(house: Installation) -> Iterable[Counted]:
    # Looking makes no file: it would be whoever looks who owned it, not the gateway.
    if house.settings.database() is None and not (house.data / FILE).exists():
        return ()
    with contextlib.closing(house.counters()) as counters:
        return counters.counted()


def _is_wanted(row: _Row, args: argparse.Namespace) -> bool:
    wanted = {
        scope: name
        for scope, name in zip(SCOPES, (args.key, args.project, args.declaration), strict=True)
        if name is not None
    }
    if args.used and not row.used:
        return False
    return not wanted or wanted.get(row.bound.scope) == row.bound.name


def _as_json(row: _Row, currency: str) -> dict[str, object]:
    bound, limit = row.bound, row.bound.limit
    amounts: dict[str, object] = {
        name: shown("money", amount) if limit.measure == "money" else amount
        for name, amount in (("limit", limit.amount), ("used", row.used), ("left", row.left))
    }
    return {
        bound.scope: bound.name,
        "measure": limit.measure,
        "window": limit.window,
        **amounts,
        "currency": currency if limit.measure == "money" else None,
        "until": rfc3339(row.end_ms),
    }

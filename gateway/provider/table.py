"""What the dialects know of every operation, as a table that people read.

The table stands in docs/reference/http.md between two marks, and is written from the routes
alone: what it says is what happens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gateway.provider.model import OPAQUE_ROUTE, Dialect, Route, Taking

BEGIN: Final = "<!-- operations: written by `gateway operations`, not by hand -->"
END: Final = "<!-- end of operations -->"

_HEAD: Final = (
    "| request | operation | its body | read of it | read of the answer | receipted |\n"
    "|---|---|---|---|---|---|\n"
)
_TAKINGS: Final[Mapping[Taking, str]] = {
    Taking.HELD: "held whole",
    Taking.PASSING: "passes",
    Taking.JUDGED: "judged item by item",
}
_BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_BELOW: Final = re.compile(r"(?:/\{…\})+$")


def operations_table(dialects: Mapping[str, Dialect]) -> str:
    """Return one table for each of *dialects*; requests with the same facts share a row."""
    told: dict[tuple[Route, ...], str] = {}
    parts = []
    for name, dialect in dialects.items():
        known = told.setdefault(dialect.ROUTES, name)
        table = f"As `{known}`.\n" if known != name else _HEAD + "".join(_rows(dialect))
        parts.append(f"### `{name}`\n\n{table}")
    return "\n".join(parts)


def page_with(page: str, table: str) -> str:
    """Return *page* with *table* between its marks.

    Raises:
        ValueError: it has no such marks, or in another order.
    """
    before, begun, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (begun and ended):
        raise ValueError("no marks")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def _rows(dialect: Dialect) -> list[str]:
    alike: dict[tuple[str, ...], list[Route]] = {}
    for route in (*dialect.ROUTES, OPAQUE_ROUTE):
        alike.setdefault(_facts(route), []).append(route)
    return [
        f"| {', '.join(_requests(routes))} | {' | '.join(facts)} |\n"
        for facts, routes in alike.items()
    ]


def _facts(route: Route) -> tuple[str, ...]:
    answered = route.answered
    if route.lists is not None:
        answered = f"the list, of kind `{route.lists}`"
    body = "–" if _BODILESS.issuperset(route.methods) else _TAKINGS[route.taking]
    return (
        f"`{route.operation}`",
        body,
        route.asked or "–",
        answered or "–",
        route.receipted or "–",
    )


def _requests(routes: list[Route]) -> list[str]:
    """Return the requests of a row; what stands anywhere below another is told with it."""
    by_methods: dict[tuple[str, ...], list[str]] = {}
    for route in routes:
        by_methods.setdefault(route.methods, []).append(route.path)
    requests = []
    for methods, paths in by_methods.items():
        told = []
        for path in paths:
            above = _BELOW.sub("", path)
            if above != path and above in paths:
                continue
            below = any(one != path and _BELOW.sub("", one) == path for one in paths)
            told.append(f"`{path}`{' and below' if below else ''}")
        if methods == OPAQUE_ROUTE.methods:
            requests.append("everything else")
        else:
            requests.append(f"{'/'.join(methods)} {', '.join(told)}")
    return requests

"""Find the operation that a request asks for, by its method and path.

A pattern is a path as providers document it; `{file}` stands for one segment and names a
resource of that kind, `{…}` for one segment that names nothing. Paths are compared as they are
sent: a slash at the end, another case or an escaped slash lead nowhere that is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from gateway.provider.model import OPAQUE_ROUTE, Found, Resource, Route

_SEGMENT: Final = re.compile(r"\{([a-z-]+|…)\}")


class Routes:
    """The routes of one wire format; *prefix* is what may stand before each, as a pattern."""

    def __init__(self, routes: Iterable[Route], prefix: str = "") -> None:
        self._prefix = prefix
        # The first route that fits counts, so narrower ones stand before wider ones.
        self._compiled = [
            (frozenset(route.methods), re.compile(prefix + _pattern(route.path)), route)
            for route in routes
        ]
        self._plain: dict[tuple[str, str], Route] = {}
        for route in routes:
            if not prefix and "{" not in route.path:
                for method in route.methods:
                    self._plain.setdefault((method, route.path), route)

    def found(self, method: str, path: str, query: str = "") -> Found:
        """Return the route of a request, or `OPAQUE_ROUTE`."""
        known = self._plain.get((method, path))
        if known is not None:
            return Found(route=known, path=path, query=query)
        for methods, pattern, route in self._compiled:
            if method in methods and (matched := pattern.fullmatch(path)) is not None:
                kinds = [kind for kind in _SEGMENT.findall(route.path) if kind != "…"]
                named = matched.groups()[-len(kinds) :] if kinds else ()
                if len(self._plain) < _PLAIN_MAX and not kinds and "…" not in route.path:
                    self._plain[method, path] = route
                return Found(
                    route=route,
                    path=path,
                    query=query,
                    names=tuple(
                        Resource(kind, id_) for kind, id_ in zip(kinds, named, strict=True)
                    ),
                )
        return Found(route=OPAQUE_ROUTE, path=path, query=query)


_PLAIN_MAX: Final = 512
"""Paths without resources in them that are found at once; callers can make up any number."""


def _pattern(path: str) -> str:
    out, at = [], 0
    for segment in _SEGMENT.finditer(path):
        out.append(re.escape(path[at : segment.start()]))
        out.append("[^/]+" if segment[1] == "…" else "([^/]+)")
        at = segment.end()
    out.append(re.escape(path[at:]))
    return "".join(out)

"""The desk: what the caller says it is for; by id, inline, by its key's default, or nothing."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Final

from gateway.errors import UnknownDeclarationError
from gateway.exchange.states import Principal
from gateway.ident import DeclarationId
from gateway.intent.declare import parse_use_header
from gateway.intent.model import INFERENCE, Declaration, IntendedUse, declaration_id
from gateway.ledger.reading.register import Register
from gateway.receipt.model import Statement

HEADER: Final = "x-intended-use"
_PARSED_MAX: Final = 4096


@functools.lru_cache(maxsize=_PARSED_MAX)
def _unregistered(project: str, use: IntendedUse) -> Declaration:
    return Declaration(id=declaration_id(project, use), project=project, use=use)


class Desk:
    """Turns a header into a declaration; widens nothing."""

    def __init__(
        self,
        register: Register,
        catch_up: Callable[[], Sequence[tuple[int, Statement]]],
    ) -> None:
        self._register = register
        self._catch_up = catch_up
        self._catching_up = asyncio.Lock()
        # OWNED BY: the event loop.
        self._parsed: dict[str, DeclarationId | IntendedUse] = {}

    async def declared(
        self, header: str | None, principal: Principal
    ) -> tuple[Declaration, bool]:
        """Return the declaration, and whether anything was declared at all.

        Raises:
            MalformedDeclarationError: the header can't be read.
            UnknownDeclarationError: the project has no such declaration.
        """
        header = header or principal.declaration
        if header is None:
            return _unregistered(principal.project, INFERENCE), False
        said = self._parsed.get(header)
        if said is None:
            said = parse_use_header(header)
            if len(self._parsed) >= _PARSED_MAX:
                self._parsed.clear()
            self._parsed[header] = said
        if isinstance(said, IntendedUse):
            inline = _unregistered(principal.project, said)
            # The same words may have been registered: then its expiry and owner count too.
            return self._register.declaration(inline.id) or inline, True
        return await self._registered(said, principal.project), True

    async def refresh(self) -> None:
        """Take in what other processes wrote since the gateway last wrote itself."""
        async with self._catching_up:
            for index, statement in await asyncio.to_thread(self._catch_up):
                self._register.apply(index, statement)

    async def _registered(self, named: DeclarationId, project: str) -> Declaration:
        declaration = self._register.declaration(named)
        if declaration is None:
            # Another process may have registered it just now.
            await self.refresh()
            declaration = self._register.declaration(named)
        if declaration is None or declaration.project != project:
            raise UnknownDeclarationError(
                f"project `{project}` has no declaration `{named}`",
                hint="register it with `gateway use declare`, or list them with"
                " `gateway use list`",
            )
        return declaration

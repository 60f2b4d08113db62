"""Put policy libraries in force: by a leaf, for a command or a running gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Final

from gateway.app.installation import Installation
from gateway.app.library import load_library
from gateway.clock import rfc3339
from gateway.errors import GatewayError, MalformedReceiptError
from gateway.exchange.rule import Law
from gateway.ledger.ports import Foreign
from gateway.log import Logger
from gateway.policy.library import Library
from gateway.receipt.model import Activation, Statement
from gateway.receipt.statement import read_leaf, write_statement
from gateway.store.libraries import keep_library

OTHER_POLICIES: Final = "another process put other policies in force; reload them here"


def activation_of(
    house: Installation, library: Library, files: Mapping[str, str], by: str
) -> bytes | None:
    """Keep the library and return the leaf that puts it in force, or `None` if it is.

    Raises:
        OperatorError: the library can't be kept.
    """
    # Before the leaf that names it; and again where the text was lost since.
    keep_library(house.data, library.digest, files)
    newest = house.register.activation()
    previous = None if newest is None else newest.library
    if newest is not None and (previous, newest.overlays) == (library.digest, house.overlays):
        return None
    activation = Activation(
        library=library.digest,
        policies=len(library.policies),
        overlays=house.overlays,
        previous=previous,
        by=by,
        at=rfc3339(house.clock.now_ms()),
        writer=house.writer,
    )
    return write_statement(activation, (), house.keyring.receipt)


def activate(house: Installation, by: str) -> None:
    """Put the library that a command rules under in force, if it is not yet.

    Raises:
        OperatorError: it can't be kept, or the ledger can't be written.
    """
    leaf = activation_of(house, house.library, house.policy_files, by)
    if leaf is not None:
        index = house.sequencer.append_and_wait(leaf).index
        house.register.apply(index, read_leaf(leaf))


async def reload_policies(house: Installation, law: Law, log: Logger, by: str) -> bool:
    """Put the policies on disk in force; tell whether they are.

    A library that does not load, or whose activation can't be written down, changes nothing:
    the old one stays in force, and health and metrics raise an alarm until one loads.
    """
    try:
        files, library = await asyncio.to_thread(load_library, house.settings)
        # A disk may be slow, and others are being answered: the loop must not wait for it.
        await asyncio.to_thread(keep_library, house.data, library.digest, files)
        leaf = activation_of(house, library, files, by)
        if leaf is not None:
            sequenced = await house.sequencer.append(leaf)
            house.register.apply(sequenced.index, read_leaf(leaf))
    except GatewayError as error:
        law.alarm = str(error)
        log.error(  # noqa: TRY400  # what is wrong is one line; a trace would hide it
            "policies.kept_old", in_force=law.library.digest, error=str(error)
        )
        return False
    law.adopt(library)
    house.policies = files, library
    log.info("policies.loaded", digest=library.digest, by=by)
    return True


def statements_of(foreign: Foreign, log: Logger) -> Iterator[tuple[int, Statement]]:
    """Yield what other processes stated, as far as this release can read it."""
    for index, leaf in foreign:
        try:
            yield index, read_leaf(leaf)
        except MalformedReceiptError as error:
            # A newer release may have written it; what comes after it still counts.
            log.warning("ledger.unread", leaf=index, why=error.message)

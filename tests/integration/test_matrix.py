"""What was generated and what was written down are the same, whatever is asked and how it ends.

Every operation × streamed or not × an end that is good, an error of the provider's, a provider
that breaks off, a caller that hangs up, a gateway that is killed.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from gateway.provider.catalogue import DIALECTS
from gateway.provider.model import GENERATES, Operation, Route, Taking
from gateway.receipt.model import Abandonment, Opening, Receipt
from gateway.receipt.statement import read_leaf, statement_subjects
from tests.support.caller import Answer, Caller
from tests.support.ledger import Written
from tests.support.matrix import ITEM_UNITS, ROWS, UNITS, Names, Preparing, Row
from tests.support.provider import Script
from tests.support.proxy import Gateway
from tests.support.stub.server import StubServer, stub_server
from tests.support.surface import surface_gateway

LATE: Final = -1
"""One byte before an answer's end."""
CUTS: Final = (0, 12, LATE)
STATUSES: Final = (429, 500)


def told(row: Row) -> str:
    """Return what a row is called."""
    return row.name


every_row = pytest.mark.parametrize("row", ROWS, ids=told)


@pytest.fixture(scope="module")
def gateway(
    stub: tuple[StubServer, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """Run a gateway for the matrix; in the end its ledger is whole and nothing is open."""
    with surface_gateway(tmp_path_factory.mktemp("matrix"), stub[1]) as running:
        yield running
        running.wait_until_idle()
        running.stop()
        done = running.command("ledger", "fsck", timeout_s=50)
        assert 0 == done.returncode, done.stdout + done.stderr


@dataclass(slots=True)
class Cell:
    """One row before one end of it: what was prepared, and what is written from now on."""

    row: Row
    server: StubServer
    gateway: Gateway
    names: Names
    written: Written

    def ask(self, script: Script | None = None) -> Answer:
        """Ask for the row once."""
        with Caller(self.gateway.port) as caller:
            self.send(caller, script)
            return caller.read()

    def send(self, caller: Caller, script: Script | None = None) -> None:
        """Send the row's request."""
        target, headers, body = self.row.asking(self.names)
        more = () if script is None else tuple(script.header().items())
        caller.send_request(self.row.method, target, (*headers, *more), body)

    def receipts(self, count: int = 1) -> list[Receipt]:
        """Return the receipts of so many exchanges; insist that there are no more."""
        self.gateway.wait_until_idle()
        found = [one for one in self.written.receipts(count) if one.item is None]
        opened = Counter(one.exchange for one in self.written.statements(Opening))

        assert Counter(one.exchange for one in found) == opened
        assert {1} == set(opened.values())
        assert len(found) == count
        assert len(self.server.received) == count
        return found

    def generated(self) -> int:
        """Return how much was generated, but for items."""
        return sum(1 for one in self.server.made if not one.item)

    def items(self) -> list[Receipt]:
        """Return the receipts of items."""
        return [one for one in self.written.statements(Receipt) if one.item is not None]

    def digests(self) -> dict[str, str]:
        """Return the digest of each exchange's answer, as its receipt names it."""
        found: dict[str, str] = {}
        for leaf in self.written.leaves():
            statement = read_leaf(leaf)
            if isinstance(statement, Receipt) and statement.item is None:
                subjects = {one.name: one.digest for one in statement_subjects(leaf)}
                found[statement.exchange] = subjects["response.body"]["sha256"]
        return found


def prepared(row: Row, fate: str, server: StubServer, gateway: Gateway) -> Cell:
    """Make ready what *row* needs, so that nothing but the row is counted from here on."""
    gateway.wait_until_idle()
    server.wait_until_idle()
    server.begin(f"{row.name}/{fate}")
    return ready(row, server, gateway)


def ready(row: Row, server: StubServer, gateway: Gateway) -> Cell:
    """Make ready what *row* needs beside what others need."""
    names: Names = {}
    if row.prepare is not None:
        with Caller(gateway.port) as caller:
            names = row.prepare(Preparing(caller, row.provider, row.headers))
    gateway.wait_until_idle()
    server.wait_until_idle()
    server.forget()
    return Cell(row, server, gateway, names, Written(gateway.data))


def conserved(cell: Cell, answer: Answer, receipt: Receipt) -> None:
    """Insist that what the caller has is what the receipt speaks of."""
    assert len(answer.body) == receipt.response_bytes
    assert hashlib.sha256(answer.body).hexdigest() == cell.digests()[receipt.exchange]
    made = [one for one in cell.server.made if not one.item]
    if made and receipt.provider.request_id is not None:
        assert made[0].request_id == receipt.provider.request_id


def itemised(cell: Cell) -> None:
    """Insist that each item has exactly one receipt, however often it was fetched."""
    again = cell.ask()
    cell.gateway.wait_until_idle()
    names = Counter(one.item.custom_id for one in cell.items() if one.item is not None)

    assert again.whole
    assert cell.row.items == len(names)
    assert {1} >= set(names.values())
    assert ITEM_UNITS.get(cell.row.name, {}) == units_of(cell.items())


def units_of(receipts: list[Receipt]) -> Counter[str]:
    """Return how many units of output of each kind *receipts* list."""
    return Counter(output.kind for receipt in receipts for output in receipt.outputs)


@every_row
def test_a_good_end(row: Row, stub: tuple[StubServer, str], gateway: Gateway) -> None:
    """An answer that came whole has one receipt, over the bytes that the caller has."""
    cell = prepared(row, "good", stub[0], gateway)
    answer = cell.ask()
    (receipt,) = cell.receipts()

    assert (True, 200) == (answer.whole, answer.status)
    assert "complete" == receipt.ended
    assert row.made == cell.generated()
    assert answer.header("x-gateway-exchange") == receipt.exchange
    assert UNITS.get(row.name, {}) == units_of([receipt])
    conserved(cell, answer, receipt)
    itemised(cell)


@pytest.mark.parametrize("status", STATUSES)
@every_row
def test_an_error(
    row: Row, status: int, stub: tuple[StubServer, str], gateway: Gateway
) -> None:
    """A provider's error passes as it is, has a receipt, and is no generation."""
    cell = prepared(row, f"status-{status}", stub[0], gateway)
    answer = cell.ask(Script(status=status, retry_after="1"))
    (receipt,) = cell.receipts()

    assert (True, status) == (answer.whole, answer.status)
    assert ["1"] == answer.values("retry-after")
    assert status == receipt.provider.status
    assert () == receipt.outputs
    assert 0 == len(cell.server.made)
    assert [] == cell.items()
    conserved(cell, answer, receipt)


def cut_of(cell: Cell, fate: str, cut: int) -> int:
    """Return at which byte to cut; where the last one is, an answer that came whole tells."""
    if cut != LATE:
        return cut
    answer = cell.ask()
    assert answer.whole
    cell.gateway.wait_until_idle()
    fresh = prepared(cell.row, f"{fate}-late", cell.server, cell.gateway)
    cell.names, cell.written = fresh.names, fresh.written
    return len(answer.body) - 1


def name_of(cut: int | None) -> str:
    """Return what a cut is called."""
    return "head" if cut is None else "late" if cut == LATE else str(cut)


@pytest.mark.parametrize("cut", CUTS, ids=name_of)
@every_row
def test_a_provider_that_breaks_off(
    row: Row, cut: int, stub: tuple[StubServer, str], gateway: Gateway
) -> None:
    """An answer that breaks off is never given a clean end; what came has its receipt."""
    cell = prepared(row, f"break-{cut}", stub[0], gateway)
    answer = cell.ask(Script(break_after=cut_of(cell, "break", cut)))
    (receipt,) = cell.receipts()

    assert not answer.whole or answer.status == 502
    assert "cut-short-by-provider" == receipt.ended
    assert receipt.error is not None
    assert row.made == cell.generated()
    if row.items:
        itemised(cell)


@pytest.mark.parametrize(
    "cut", [None, *CUTS], ids=lambda cut: "head" if cut is None else name_of(cut)
)
@every_row
def test_a_caller_that_hangs_up(
    row: Row, cut: int | None, stub: tuple[StubServer, str], gateway: Gateway
) -> None:
    """A caller that goes stops the provider, and what came until then has its receipt."""
    cell = prepared(row, f"hang-up-{cut}", stub[0], gateway)
    script = (
        Script(slow_first_byte=True)
        if cut is None
        else Script(stall_after=cut_of(cell, "hang-up", cut))
    )
    with Caller(gateway.port) as caller:
        cell.send(caller, script)
        assert cell.server.stalled.wait(60)
    assert cell.server.hung_up.wait(60)
    (receipt,) = cell.receipts()

    assert "cut-short-by-caller" == receipt.ended
    assert row.made == cell.generated()
    if row.items:
        itemised(cell)


# -- the gateway is killed -------------------------------------------------------------------

WAITING: Final = (
    ("head", Script(slow_first_byte=True)),
    ("0", Script(stall_after=0)),
    ("12", Script(stall_after=12)),
)


def killed_amid(
    cells: list[Cell], script: Script, server: StubServer, gateway: Gateway
) -> None:
    """Send every cell's request, and kill the gateway when all of them wait."""
    callers = [Caller(gateway.port) for _ in cells]
    for cell, caller in zip(cells, callers, strict=True):
        caller.__enter__()
        cell.send(caller, script)
    assert server.all_stalled(len(cells), within_s=120), len(server.received)
    gateway.kill()
    for caller in callers:
        caller.__exit__(None, None, None)
    server.release()


@pytest.mark.crash
@pytest.mark.parametrize(("place", "script"), WAITING, ids=[place for place, _ in WAITING])
def test_a_gateway_that_is_killed(place: str, script: Script, tmp_path: Path) -> None:
    """After a kill amid every operation each is closed once, and the ledger is whole."""
    with stub_server() as (server, url), surface_gateway(tmp_path / "gateway", url) as gateway:
        server.begin(f"kill-{place}")
        cells = [ready(row, server, gateway) for row in ROWS]
        written = Written(gateway.data)
        killed_amid(cells, script, server, gateway)
        generated = sum(1 for one in server.made if not one.item)
        gateway.start()
        gateway.wait_until_idle()

        opened = Counter(one.exchange for one in written.statements(Opening))
        receipts = Counter(
            one.exchange for one in written.statements(Receipt) if one.item is None
        )
        abandoned = Counter(one.exchange for one in written.statements(Abandonment))
        assert opened == receipts + abandoned
        assert {1} == set(opened.values())
        assert len(ROWS) == len(opened) == len(server.received)
        assert sum(row.made for row in ROWS) == generated
        assert set() == written.unclosed()
        gateway.stop()
        done = gateway.command("ledger", "fsck", timeout_s=100)
        assert 0 == done.returncode, done.stdout + done.stderr


@pytest.mark.crash
def test_a_gateway_that_is_killed_at_work(tmp_path: Path) -> None:
    """A kill amid whole answers loses none that a caller saw, and doubles none."""
    with stub_server() as (server, url), surface_gateway(tmp_path / "gateway", url) as gateway:
        server.begin("work")
        cells = [ready(row, server, gateway) for row in ROWS]
        written = Written(gateway.data)
        seen: dict[str, str] = {}
        begun = threading.Barrier(7)

        def ask(mine: list[Cell]) -> None:
            begun.wait(60)
            for cell in mine:
                try:
                    answer = cell.ask()
                except OSError:
                    return
                if answer.whole and answer.status == 200:
                    exchange = answer.values("x-gateway-exchange")[0]
                    seen[exchange] = hashlib.sha256(answer.body).hexdigest()

        for kill in range(3):
            threads = [
                threading.Thread(target=ask, args=(cells[number::6],)) for number in range(6)
            ]
            for thread in threads:
                thread.start()
            begun.wait(60)
            threading.Event().wait(0.05 + 0.1 * kill)
            gateway.kill()
            for thread in threads:
                thread.join()
            gateway.start()
        gateway.wait_until_idle()
        whole = cells[0]
        whole.written = written
        found = whole.digests()

        assert {} == {name: found.get(name) for name in seen if found.get(name) != seen[name]}
        assert set() == written.unclosed()
        opened = Counter(one.exchange for one in written.statements(Opening))
        assert {1} == set(opened.values())
        # The provider may be asked by none that has no opening.
        assert len(server.received) <= len(opened)
        gateway.stop()
        done = gateway.command("ledger", "fsck", timeout_s=100)
        assert 0 == done.returncode, done.stdout + done.stderr


# -- every operation has a row ---------------------------------------------------------------

ELSEWHERE: Final = frozenset({Operation.SESSION, Operation.OPAQUE})
"""Sessions have a matrix of their own; what nobody reads is here once for each dialect."""


def rowed(route: Route) -> bool:
    """Tell whether a route must have a row."""
    makes = route.operation in GENERATES | {Operation.RETRIEVAL, Operation.TOKEN_COUNT}
    return (makes or route.taking is Taking.JUDGED) and route.operation not in ELSEWHERE


def without_row(name: str, routes: tuple[Route, ...]) -> list[str]:
    """Return those of *routes* that no row takes."""
    dialect = DIALECTS[name]
    taken = {
        (row.method, id(dialect.found(row.method, re.sub(r"[{}]", "", row.path)).route))
        for row in ROWS
    }
    return [
        f"{method} {route.path}"
        for route in routes
        for method in route.methods
        if rowed(route) and (method, id(route)) not in taken
    ]


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_every_operation_has_a_row(name: str) -> None:
    """An operation that a dialect reads is in the matrix."""
    assert [] == without_row(name, tuple(DIALECTS[name].ROUTES))


def test_an_operation_without_a_row_is_found() -> None:
    """The check above is alive: a route that no row takes is told."""
    strange = Route(methods=("POST",), path="/v1/dreams", operation=Operation.CHAT)

    assert ["POST /v1/dreams"] == without_row("openai", (strange,))

"""Limits that replicas share: exact whoever asks, by the database's clock."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from gateway.budget.model import Change, Charge, Full, span
from gateway.store.postgres.access import PostgresAccessKeys
from gateway.store.postgres.counters import PostgresCounters
from gateway.store.postgres.ledger import PostgresLedger
from tests.support.caller import Caller
from tests.support.evidence import ORIGIN
from tests.support.postgres import Server
from tests.support.provider import fake_provider
from tests.support.replicas import new_replicas, running
from tests.support.workers import CHAT, OPENAI, chat

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.usefixtures("one_day"),
]

NAME = "project a tokens/day"
OTHER = "key k tokens/month"


@pytest.fixture
def ledger(url: str) -> Iterator[PostgresLedger]:
    """Return a new ledger."""
    with contextlib.closing(PostgresLedger.create(url, ORIGIN)) as one:
        yield one


@pytest.fixture
def counters(ledger: PostgresLedger) -> Iterator[PostgresCounters]:
    """Return counters in a new ledger's database."""
    with contextlib.closing(PostgresCounters(ledger)) as one:
        yield one


def charge(amount: int = 1, at_most: int = 10) -> Charge:
    """Return a charge of a day's counter."""
    return Charge(counter=NAME, window="day", amount=amount, at_most=at_most)


def other(amount: int = 1, at_most: int = 10) -> Charge:
    """Return a charge of a month's counter."""
    return Charge(counter=OTHER, window="month", amount=amount, at_most=at_most)


def used(counters: PostgresCounters) -> dict[str, int]:
    """Return what every counter holds."""
    return {one.counter: one.used for one in counters.counted()}


async def test_a_limit_holds_exactly(counters: PostgresCounters) -> None:
    """The last that fits is taken, one more is not, and who asks is told when it frees."""
    (start,) = await counters.take([charge(10)])  # type: ignore[misc]
    before_ms = int(time.time() * 1000)
    full = await counters.take([charge()])
    after_ms = int(time.time() * 1000) + 1

    assert isinstance(full, Full)
    assert (0, 10) == (full.place, full.used)
    assert span("day", after_ms)[0] == start
    # The database's clock is this machine's, to the millisecond.
    assert span("day", after_ms)[1] - after_ms <= full.frees_ms + 1
    assert full.frees_ms <= span("day", after_ms)[1] - before_ms + 1
    assert isinstance(await counters.take([charge(11, 10)]), Full)
    first = await counters.take([other(11)])
    assert isinstance(first, Full)
    assert 0 == first.used


async def test_all_charges_are_made_or_none(counters: PostgresCounters) -> None:
    """A charge for which there is no room undoes the others, in whatever order they come."""
    taken = await counters.take([charge(4), other(10)])
    for charges in ([charge(), other()], [other(), charge()]):
        full = await counters.take(charges)

        assert isinstance(full, Full)
        assert OTHER == charges[full.place].counter
    assert {NAME: 4, OTHER: 10} == used(counters)
    month = span("month", int(time.time() * 1000))
    assert month[0] == taken[1]  # type: ignore[index]
    found = {one.counter: (one.start, one.end) for one in counters.counted()}
    assert month == found[OTHER]


async def test_what_was_taken_is_changed_in_its_own_window(
    counters: PostgresCounters, url: str
) -> None:
    """A change finds the window it is for; a window that is over begins anew."""
    (start,) = await counters.take([charge(5)])  # type: ignore[misc]
    await counters.change([Change(counter=NAME, start=start, amount=-2)])
    assert {NAME: 3} == used(counters)
    await counters.change([Change(counter=NAME, start=start, amount=-9)])
    assert {NAME: 0} == used(counters)
    await counters.take([charge(10)])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE counter SET start = start - 86400000, ends = start")
    assert {} == used(counters)
    assert (start,) == await counters.take([charge(7)])
    await counters.change([Change(counter=NAME, start=start - 86_400_000, amount=-7)])

    assert {NAME: 7} == used(counters)


async def test_a_database_clock_that_is_put_back_forgets_nothing(
    counters: PostgresCounters, url: str
) -> None:
    """What was counted in a window that seems to come later still counts."""
    await counters.take([charge(10)])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "UPDATE counter SET start = start + 86400000, ends = ends + 86400000"
        )

    assert isinstance(await counters.take([charge()]), Full)


def test_replicas_together_never_pass_a_limit(ledger: PostgresLedger) -> None:
    """Of four that take at once, in both orders, as many succeed as there is room for."""

    def take(flipped: int) -> int:
        with contextlib.closing(PostgresCounters(ledger)) as mine:

            async def run() -> int:
                taken = 0
                for _ in range(60):
                    charges = [charge(3, 300), other(1, 10_000)]
                    order = charges[:: -1 if flipped % 2 else 1]
                    taken += isinstance(await mine.take(order), tuple)
                return taken

            return asyncio.run(run())

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        taken = sum(pool.map(take, range(4)))

    assert 100 == taken
    with contextlib.closing(PostgresCounters(ledger)) as counters:
        assert {NAME: 300, OTHER: 100} == used(counters)


def test_tables_of_the_first_release_are_brought_up_to_date(
    ledger: PostgresLedger, url: str
) -> None:
    """A database without counters or what keys are good for gets both, and keeps its keys."""
    with contextlib.closing(PostgresAccessKeys(ledger)) as keys:
        before = keys.new("ada", "search")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE counter")
        connection.execute(
            "ALTER TABLE access_key DROP COLUMN providers, DROP COLUMN models,"
            " DROP COLUMN limits"
        )
    with contextlib.closing(PostgresAccessKeys(ledger)) as keys:
        found = keys.find(before)
        assert found is not None
        assert ((), (), ()) == (found.providers, found.models, found.limits)
        after = keys.find(keys.new("ada", "search", models=["gpt-4*"]))
        assert after is not None
        assert ("gpt-4*",) == after.models


def test_limits_hold_across_replicas(server: Server, tmp_path: Path) -> None:
    """Two gateways over one database together ask no more often than the limit allows."""
    with fake_provider() as (provider, provider_url):
        replicas = new_replicas(tmp_path, provider_url, server.new_place(), 2)
        for gateway in replicas:
            gateway.settings_file.write_text(
                gateway.settings_file.read_text()
                + "limits:\n- {project: default, requests: {day: 15}, tokens: {month: 90000}}\n"
            )
        with running(replicas) as both:

            def one(number: int) -> int:
                with Caller(both[number % 2].port) as caller:
                    said = json.loads(chat("hi")) | {"max_tokens": 50}
                    return caller.ask("POST", CHAT, OPENAI, json.dumps(said).encode()).status

            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                statuses = list(pool.map(one, range(40)))
            shown = [
                json.loads(line)
                for line in both[0].command("limit", "show", "--json").stdout.splitlines()
            ]

        assert 15 == statuses.count(200) == len(provider.received)
        assert 25 == statuses.count(429)
        of = {f"{row['measure']}/{row['window']}": row["used"] for row in shown}
        assert 15 == of["requests/day"]
        assert 0 < of["tokens/month"] < 15 * 200

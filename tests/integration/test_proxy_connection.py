"""A caller's connection: early answers, slow callers, upgrades, and the end of each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.errors import DoorFullError
from gateway.exchange.duplex import Duplex
from gateway.limits import (
    BODY_BYTES_PER_S_MIN,
    BODY_GRACE_S,
    BODY_SILENCE_S_MAX,
    DISCARDED_BYTES_MAX,
    DOOR_BYTES_HELD_MAX,
    HEAD_S_MAX,
    IDLE_CALLER_S_MAX,
    LINGER_S_MAX,
    PIPELINED_BYTES_MAX,
    RELAY_BYTES_AHEAD_MAX,
    SKIPPED_BYTES_MAX,
    UNREAD_S_MAX,
    UNSENT_BYTES_MAX,
)
from gateway.proxy.connection import Connection
from gateway.proxy.knock import Knock
from gateway.proxy.problem import status_of
from gateway.proxy.reply import Reply
from tests.support.door import EchoHost, Wire, connected
from tests.support.house import eventually

GET = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


def post(length: int, *lines: bytes) -> bytes:
    """Return the head of a request with a body."""
    more = b"".join(line + b"\r\n" for line in lines)
    return b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%b\r\n" % (length, more)


CHUNKED = b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


async def refuse(knock: Knock, reply: Reply) -> None:
    """Answer without a look at the body."""
    await reply.answer(401, b"No", (), b"no")


@pytest.fixture
def host() -> EchoHost:
    """Return a host that echoes."""
    return EchoHost()


@pytest.fixture
async def wire(host: EchoHost) -> AsyncIterator[Wire]:
    """Return a caller's end of a connection with that host."""
    async with connected(host) as one:
        yield one


async def the_connection(host: EchoHost) -> Connection:
    """Return the only connection, once it is there."""
    await eventually(lambda: bool(host.connections))
    (connection,) = host.connections
    return connection


def is_waited_for(connection: Connection) -> bool:
    """Tell whether somebody waits for more of a body."""
    knock = connection._knock
    return knock is not None and knock.begun_s is not None


async def wait(host: EchoHost, seconds: float, since_s: float | None = None) -> None:
    """Let so much time have passed, as the door's clock sees it.

    What is not over yet is looked at *since* a moment before it began: a machine that takes
    seconds for what comes between is not late.
    """
    connection = await the_connection(host)
    connection.look((now_s() if since_s is None else since_s) + seconds)


def now_s() -> float:
    """Return the time, as the door's clock has it."""
    return asyncio.get_running_loop().time()


# -- answers that come before the body ----------------------------------------------------


async def test_a_short_rest_is_skipped_and_the_connection_kept(
    host: EchoHost, wire: Wire
) -> None:
    """A small body that nobody wanted is dropped, and the next request is its own."""
    host.when_knocked = refuse
    await wire.send(post(SKIPPED_BYTES_MAX))
    assert b"connection" not in await wire.receive(until=b"no")
    host.when_knocked = host.echo
    await wire.send(b"G" * SKIPPED_BYTES_MAX + GET)

    assert (await wire.receive(until=b"\r\n\r\n")).startswith(OK)
    assert ["/a"] == [one.target for one in host.seen]


@pytest.mark.parametrize("head", [post(32 << 20), CHUNKED], ids=["sized", "chunked"])
async def test_a_long_rest_is_read_so_that_the_answer_is_seen(
    head: bytes, host: EchoHost, wire: Wire
) -> None:
    """Who sends on after the answer can read it; then the connection ends."""
    host.when_knocked = refuse
    await wire.send(head)
    if head is CHUNKED:
        await wire.send(b"%x\r\n" % (32 << 20))
    for _ in range(32):
        await wire.send(bytes(1 << 20))
    wire.say_no_more()
    back = await wire.receive()

    assert back.startswith(b"HTTP/1.1 401 No\r\n")
    assert b"connection: close\r\n" in back
    assert back.endswith(b"\r\n\r\nno")


async def test_an_endless_rest_is_cut_off(host: EchoHost, wire: Wire) -> None:
    """Beyond a bound nothing more is read of a body that nobody wants."""
    host.when_knocked = refuse
    await wire.send(post(1 << 40))
    await wire.receive(until=b"no")
    sent = 0
    while sent <= 4 * DISCARDED_BYTES_MAX and host.connections:
        await wire.send(bytes(1 << 20))
        sent += 1 << 20

    assert not host.connections


async def test_a_caller_that_lingers_is_let_go(host: EchoHost, wire: Wire) -> None:
    """After an answer that ends the connection its caller has some seconds to go."""
    host.when_knocked = refuse
    await wire.send(post(1 << 30))
    await wire.receive(until=b"no")
    await wait(host, LINGER_S_MAX + 1)
    await eventually(lambda: not host.connections)


async def test_leave_is_given_only_where_the_body_is_wanted(host: EchoHost, wire: Wire) -> None:
    """`100 Continue` is said when the body is read, and not before a refusal."""
    await wire.send(post(3, b"expect: 100-continue"))
    assert b"HTTP/1.1 100 Continue\r\n\r\n" == await wire.receive(until=b"\r\n\r\n")
    await wire.send(b"abc")
    assert (await wire.receive(until=b"abc")).startswith(OK)
    host.when_knocked = refuse
    await wire.send(post(3, b"expect: 100-continue"))
    back = await wire.receive()

    assert back.startswith(b"HTTP/1.1 401 No\r\n")
    assert b"connection: close\r\n" in back
    assert 1 == len(host.seen)


async def test_who_does_not_wait_for_leave_gets_none(host: EchoHost, wire: Wire) -> None:
    """A body that is on its way already needs no leave."""
    await wire.send(post(3, b"expect: 100-continue") + b"a")
    await wire.send(b"bc")

    assert (await wire.receive(until=b"abc")).startswith(OK)


async def test_another_expectation_is_refused(host: EchoHost, wire: Wire) -> None:
    """What nobody here can promise is a 417, and the end."""
    await wire.send(post(3, b"expect: a-miracle"))
    back = await wire.receive()

    assert back.startswith(b"HTTP/1.1 417 ")
    assert ["request.expectation"] == host.refused


# -- requests ahead of their answers ------------------------------------------------------


async def test_requests_wait_for_the_one_before(host: EchoHost, wire: Wire) -> None:
    """The next request is not begun before the last one is answered, and order stays."""
    go = asyncio.Event()

    async def slowly(knock: Knock, reply: Reply) -> None:
        await go.wait()
        await host.echo(knock, reply)

    host.when_knocked = slowly
    await wire.send(GET * 3 + LAST)
    connection = await the_connection(host)
    await eventually(lambda: connection._knock is not None)
    assert [] == host.seen
    go.set()
    back = await wire.receive()

    assert 4 == back.count(OK)
    assert ["/a", "/a", "/a", "/last"] == [one.target for one in host.seen]


async def test_who_sends_too_far_ahead_is_read_no_more(host: EchoHost, wire: Wire) -> None:
    """Requests ahead are held up to a bound; the rest waits with its caller, and comes."""
    go = asyncio.Event()

    async def slowly(knock: Knock, reply: Reply) -> None:
        await go.wait()
        await host.echo(knock, reply)

    host.when_knocked = slowly
    long = GET[:-2] + b"x-more: " + b"x" * 1_000 + b"\r\n\r\n"
    count = 400_000 // len(long)
    sending = asyncio.ensure_future(wire.send(long * count + LAST))
    connection = await the_connection(host)
    await eventually(lambda: connection._paused)
    held = len(connection._buffer)
    go.set()
    back = await wire.receive()
    await sending

    assert held <= PIPELINED_BYTES_MAX + (256 << 10)
    assert count + 1 == back.count(OK) == len(host.seen)


# -- slow callers -------------------------------------------------------------------------


async def test_a_head_has_its_time(host: EchoHost, wire: Wire) -> None:
    """A head that drips is a 408 once its time is over, however often a byte comes."""
    begun_s = now_s()
    await wire.send(GET[:-9])
    connection = await the_connection(host)
    await eventually(lambda: connection._scanned > 0)
    await wait(host, HEAD_S_MAX - 1, begun_s)
    await wire.send(GET[-9:-5])
    await eventually(lambda: connection._scanned > len(GET) - 9)
    await wait(host, HEAD_S_MAX + 1)

    assert (await wire.receive()).startswith(b"HTTP/1.1 408 ")
    assert ["request.too_slow"] == host.refused


@pytest.mark.parametrize(
    ("before", "idle_s"), [(b"", HEAD_S_MAX), (GET, IDLE_CALLER_S_MAX)], ids=["new", "kept"]
)
async def test_an_idle_caller_is_let_go(
    before: bytes, idle_s: float, host: EchoHost, wire: Wire
) -> None:
    """A connection that nothing comes over is closed without a word."""
    begun_s = wire.begun_s
    if before:
        begun_s = now_s()
        await wire.send(before)
        await wire.receive(until=b"\r\n\r\n")
    await wait(host, idle_s - 1, begun_s)
    assert host.connections
    await wait(host, idle_s + 1)

    assert b"" == await wire.receive()


async def test_a_body_may_not_pause_for_long(host: EchoHost, wire: Wire) -> None:
    """A caller that stops in the middle of its body is a 408."""
    begun_s = now_s()
    await wire.send(post(100) + b"abc")
    connection = await the_connection(host)
    await eventually(lambda: is_waited_for(connection))
    await wait(host, BODY_SILENCE_S_MAX - 1, begun_s)
    await wire.send(b"d")
    await eventually(lambda: connection._knock is not None and connection._knock.body_bytes > 3)
    await wait(host, BODY_SILENCE_S_MAX + 2)

    assert (await wire.receive()).startswith(b"HTTP/1.1 408 ")
    assert ["request.too_slow"] == host.broken


async def test_a_body_may_not_drip(host: EchoHost, wire: Wire) -> None:
    """A caller that is waited for longer than the grace must have sent for its time."""
    await wire.send(post(1 << 20) + b"abc")
    connection = await the_connection(host)
    await eventually(lambda: is_waited_for(connection))
    knock = connection._knock
    assert knock is not None
    knock.waited_s = BODY_GRACE_S + 10
    knock.body_bytes = 11 * BODY_BYTES_PER_S_MIN
    await wait(host, 0.5, knock.begun_s)
    assert knock.failure is None
    await wait(host, 2, knock.begun_s)

    assert (await wire.receive()).startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_nobody_reads_is_not_held(host: EchoHost, wire: Wire) -> None:
    """What a caller sends beyond a bound waits with it until its reader takes more."""
    go = asyncio.Event()

    async def slowly(knock: Knock, reply: Reply) -> None:
        await go.wait()
        await host.echo(knock, reply)

    host.when_knocked = slowly
    size = 4 << 20
    sending = asyncio.ensure_future(wire.send(post(size) + bytes(size)))
    connection = await the_connection(host)
    await eventually(lambda: connection._paused)
    knock = connection._knock
    assert knock is not None
    held = knock.ahead
    go.set()
    back = await wire.receive(until=bytes(size))
    await sending

    assert held <= RELAY_BYTES_AHEAD_MAX + (256 << 10)
    assert back.startswith(OK)


async def test_bodies_under_way_are_bounded_together(host: EchoHost, wire: Wire) -> None:
    """What is held of bodies counts until the answer; over the limit it is a 503."""
    told: list[int] = []

    async def holding(knock: Knock, reply: Reply) -> None:
        told.append(host.bytes_held)
        try:
            knock.sender.hold(1000)
        except DoorFullError as error:
            await reply.answer(status_of(error), b"No", (), b"")
        else:
            await reply.answer(200, b"OK", (), b"")

    host.when_knocked = holding
    await wire.send(GET)
    await wire.receive(until=b"\r\n\r\n")
    await eventually(lambda: host.bytes_held == 0)
    host.bytes_held = DOOR_BYTES_HELD_MAX
    await wire.send(GET + LAST)
    back = await wire.receive()

    assert 2 == back.count(b"HTTP/1.1 503 No\r\n")
    assert [0, DOOR_BYTES_HELD_MAX, DOOR_BYTES_HELD_MAX] == told
    assert DOOR_BYTES_HELD_MAX == host.bytes_held


async def test_a_caller_that_reads_nothing_is_cut_off(host: EchoHost, wire: Wire) -> None:
    """An answer waits for its caller up to a bound, and only so long."""
    given = 0

    async def endlessly(knock: Knock, reply: Reply) -> None:
        nonlocal given
        reply.head(200, b"OK", (), sized=False)
        while not reply.gone:
            await reply.pass_on(bytes(16 << 10))
            given += 1

    host.when_knocked = endlessly
    await wire.send(GET)
    connection = await the_connection(host)
    await eventually(lambda: connection.blocked)
    before, blocked_s = given, now_s()
    await wait(host, 1, blocked_s)
    await wait(host, UNREAD_S_MAX - 1, blocked_s)
    assert host.connections
    assert connection.transport.get_write_buffer_size() <= UNSENT_BYTES_MAX + (17 << 10)
    await wait(host, UNREAD_S_MAX + 2, blocked_s)
    await eventually(lambda: not host.connections)

    assert given <= before + 1


async def test_a_caller_that_never_takes_its_last_answer_is_cut_off(
    host: EchoHost, wire: Wire
) -> None:
    """An end that can't be reached, for nobody reads, is not waited for."""

    async def much(knock: Knock, reply: Reply) -> None:
        await reply.answer(200, b"OK", (), bytes(16 << 20))

    host.when_knocked = much
    await wire.send(LAST)
    connection = await the_connection(host)
    await eventually(lambda: connection.blocked)
    await wait(host, 1)
    await wait(host, UNREAD_S_MAX + 2)
    await eventually(lambda: not host.connections)


# -- the end ------------------------------------------------------------------------------


async def test_a_closing_door_ends_each_connection_in_time(host: EchoHost) -> None:
    """Idle connections end at once; others answer, say that they close, and end."""
    go = asyncio.Event()

    async def slowly(knock: Knock, reply: Reply) -> None:
        await go.wait()
        await host.echo(knock, reply)

    host.when_knocked = slowly
    async with connected(host) as idle, connected(host) as busy:
        await busy.send(GET)
        await eventually(lambda: len(host.connections) == 2)
        await eventually(lambda: any(one._knock is not None for one in host.connections))
        host.closing = True
        for connection in list(host.connections):
            connection.retire()
        nothing = await idle.receive()
        go.set()
        back = await busy.receive()

    assert b"" == nothing
    assert back.startswith(OK)
    assert b"connection: close\r\n" in back


async def test_nothing_is_left_behind(host: EchoHost, wire: Wire) -> None:
    """A connection that waits for its next request holds nothing of the last one."""
    await wire.send(post(100_000) + bytes(100_000))
    await wire.receive(until=bytes(100_000))
    connection = await the_connection(host)
    await eventually(lambda: connection._knock is None)

    assert 0 == len(connection._buffer)
    assert (None, None, None) == (connection._task, connection._chunks, connection.when_lost)


async def test_a_bug_in_an_answer_breaks_it_off(host: EchoHost, wire: Wire) -> None:
    """An answer that its handler never ended is no clean end for its caller."""

    async def half(knock: Knock, reply: Reply) -> None:
        reply.head(200, b"OK", (), sized=False)
        await reply.pass_on(b"half")

    host.when_knocked = half
    await wire.send(GET)
    back = await wire.receive()

    assert back.endswith(b"4\r\nhalf\r\n")


# -- another protocol ---------------------------------------------------------------------


async def test_an_upgraded_connection_is_bytes_and_nothing_else(
    host: EchoHost, wire: Wire
) -> None:
    """After a 101 what came behind the head, and all that follows, is the protocol's own."""
    held: list[Duplex] = []

    async def switch(knock: Knock, reply: Reply) -> None:
        headers = ((b"connection", b"Upgrade"), (b"upgrade", b"parrot"))
        duplex = reply.upgrade(101, b"Switching Protocols", headers)
        held.append(duplex)
        while part := await duplex.read():
            await duplex.write(part.upper())

    host.when_knocked = switch
    head = b"GET /a HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: parrot\r\n\r\n"
    await wire.send(head + b"early ")
    await wire.send(b"late\r\n\r\n")
    back = await wire.receive(until=b"LATE\r\n\r\n")
    wire.say_no_more()
    rest = await wire.receive()

    assert back == (
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: parrot\r\n\r\n"
        b"EARLY LATE\r\n\r\n"
    )
    assert b"" == rest
    assert held[0].gone
    await eventually(lambda: not host.connections)


async def test_an_upgrade_that_is_not_taken_is_an_ordinary_request(
    host: EchoHost, wire: Wire
) -> None:
    """Who asks for another protocol and gets none has an answer and may ask again."""
    wish = b"GET /a HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    await wire.send(wish + LAST)

    assert 2 == (await wire.receive()).count(OK)

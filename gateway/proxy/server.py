"""The door: HTTP/1.1 over TCP or TLS, one task a request, and the last line of each.

Bodies are left as they came, and a caller that hangs up cancels nothing here: the exchange goes
on in the hall.
"""

from __future__ import annotations

import asyncio
import errno
import ssl

from gateway.errors import MalformedRequestError, OperatorError, PortInUseError, SettingError
from gateway.exchange.hall import Hall
from gateway.limits import CONNECTIONS_MAX, DRAIN_TIMEOUT_S
from gateway.log import Logger, frames
from gateway.provider.model import Problem
from gateway.proxy.connection import Connection
from gateway.proxy.handlers import Handlers
from gateway.proxy.knock import Knock
from gateway.proxy.problem import problem_json, problem_of
from gateway.proxy.reply import REASONS, Reply, send_problem

LOOK_S = 1.0
"""How often connections are looked at for what takes too long."""

LAST_BYTES_S = 1.0
"""How long the last answers of a closing door may take to reach their callers' sockets."""


class Door:
    """Listens, and hands each request to the handlers."""

    def __init__(self, handlers: Handlers, hall: Hall, log: Logger) -> None:
        self._handlers = handlers
        self._hall = hall
        self._log = log
        self._listening: asyncio.Server | None = None
        # OWNED BY: the event loop.
        self.closing = False
        self.bytes_held = 0
        self._connections: set[Connection] = set()
        self._emptied: asyncio.Event | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def open(
        self, host: str, port: int, tls: ssl.SSLContext | None, *, shared: bool = False
    ) -> int:
        """Listen on *host*:*port*; return the port (a chosen one where it was 0).

        *shared*: other doors listen there too, and the system gives each its callers.

        Raises:
            PortInUseError: somebody else listens there.
            OperatorError: the address can't be listened on.
        """
        loop = asyncio.get_running_loop()
        try:
            self._listening = await loop.create_server(
                lambda: Connection(self, loop),
                host,
                port,
                ssl=tls,
                backlog=1024,
                reuse_address=True,
                reuse_port=shared,
            )
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise PortInUseError(
                    f"{host}:{port} is taken",
                    hint="stop what listens there, or set `listen` to another port",
                ) from exc
            raise OperatorError(
                f"can't listen on {host}:{port}: {exc.strerror}", hint="check `listen`"
            ) from exc
        self._timer = loop.call_later(LOOK_S, self._look, loop)
        return int(self._listening.sockets[0].getsockname()[1])

    # -- what connections ask of their host -----------------------------------------------

    def arrived(self, connection: Connection) -> bool:
        """Keep *connection* in mind; tell whether it is let in."""
        if self.closing or len(self._connections) >= CONNECTIONS_MAX:
            return False
        self._connections.add(connection)
        return True

    def left(self, connection: Connection) -> None:
        """Forget *connection*."""
        self._connections.discard(connection)
        if self._emptied is not None and not self._connections:
            self._emptied.set()

    def refusal(self, error: MalformedRequestError) -> bytes:
        """Return the whole answer to what is no request."""
        self._handlers.metrics.problem(error.problem)
        problem = problem_of(error)
        body = problem_json(problem)
        reason = REASONS.get(problem.status, b"Error")
        head = b"HTTP/1.1 %d %b\r\nx-gateway-problem: %b\r\n" % (
            problem.status,
            reason,
            problem.code.encode(),
        )
        return head + (
            b"content-type: application/problem+json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (len(body), body)
        )

    async def knocked(self, knock: Knock, connection: Connection) -> None:
        """Answer a request; never fails."""
        reply = Reply(knock, connection)
        try:
            if knock.raw_path.startswith("/-/"):
                await self._serve(knock, reply)
            else:
                with self._hall:
                    await self._serve(knock, reply)
        finally:
            reply.leave()

    async def _serve(self, knock: Knock, reply: Reply) -> None:
        try:
            await self._handlers.serve(knock, reply)
        except Exception as exc:  # noqa: BLE001  the last line of the task: a bug of ours
            self._log.error(
                "exchange.broken",
                error=type(exc).__name__,
                path=knock.raw_path.partition("?")[0],
                where=frames(exc),
            )
            await send_problem(
                reply,
                Problem(
                    status=500,
                    code="gateway.error",
                    message="the gateway broke on this request",
                    next_step="tell its operator; whatever was asked is on record",
                ),
                None,
            )

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for connection in list(self._connections):
            connection.look(now_s)
        self._timer = loop.call_later(LOOK_S, self._look, loop)

    async def close(self) -> int:
        """Stop listening, see exchanges through; return how many had to be left."""
        self.closing = True
        if self._listening is not None:
            self._listening.close()
        for connection in list(self._connections):
            connection.retire()
        left = await self._hall.drain(DRAIN_TIMEOUT_S)
        if self._connections:
            self._emptied = asyncio.Event()
            try:
                async with asyncio.timeout(LAST_BYTES_S):
                    await self._emptied.wait()
            except TimeoutError:
                for connection in list(self._connections):
                    connection.cut()
        if self._timer is not None:
            self._timer.cancel()
        return left


def tls_context(cert: str, key: str) -> ssl.SSLContext:
    """Return the context of a door that speaks TLS.

    Raises:
        SettingError: the files are missing or don't belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as exc:
        raise SettingError(
            f"`tls` names a certificate or key that can't be used: {exc}",
            hint="both are PEM files, and the key belongs to the certificate",
        ) from exc
    return context

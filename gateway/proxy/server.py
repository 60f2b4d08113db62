"""The door: HTTP/1.1 over TCP or TLS, one task a request, and the last line of each.

aiohttp's low-level server reads requests; bodies are left as they came, and a caller that hangs
up cancels nothing here: the exchange goes on in the hall.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from typing import Any

from aiohttp import web

from gateway.errors import OperatorError, PortInUseError, SettingError
from gateway.exchange.hall import Hall
from gateway.limits import DRAIN_TIMEOUT_S, HEADER_BYTES_MAX
from gateway.log import Logger
from gateway.provider.model import Problem
from gateway.proxy.handlers import Handlers, send_problem
from gateway.proxy.reply import Knock, Reply

KEEPALIVE_S = 75.0


class Door:
    """Listens, and hands each request to the handlers."""

    def __init__(self, handlers: Handlers, hall: Hall, log: Logger) -> None:
        self._handlers = handlers
        self._hall = hall
        self._log = log
        self._server: web.Server | None = None
        self._listening: asyncio.Server | None = None

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
        self._server = web.Server(
            self._knocked,  # type: ignore[arg-type]  # our own request class, see below
            request_factory=self._request,
            handler_cancellation=False,
            auto_decompress=False,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
        )
        try:
            self._listening = await loop.create_server(
                self._server,
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
        return int(self._listening.sockets[0].getsockname()[1])

    @staticmethod
    def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> Knock:
        return Knock(message, payload, protocol, writer, task, asyncio.get_running_loop())

    async def _knocked(self, knock: Knock) -> web.StreamResponse:
        reply = Reply(knock)
        if knock.raw_path.startswith("/-/"):
            await self._serve(knock, reply)
        else:
            with self._hall:
                await self._serve(knock, reply)
        # Each holds the other: let go, so that both are freed now and not by the collector.
        knock.reply = None
        return reply

    async def _serve(self, knock: Knock, reply: Reply) -> None:
        try:
            await self._handlers.serve(knock, reply)
        except Exception as exc:  # noqa: BLE001  the last line of the task: a bug of ours
            self._log.error(
                "exchange.broken", error=type(exc).__name__, path=knock.path, exc_info=exc
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

    async def close(self) -> int:
        """Stop listening, see exchanges through; return how many had to be left."""
        if self._listening is not None:
            self._listening.close()
        left = await self._hall.drain(DRAIN_TIMEOUT_S)
        if self._server is not None:
            await self._server.shutdown(timeout=1.0)
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

"""The door of a witness: an HTTP server, bounded in size, time and number of requests."""

from __future__ import annotations

import asyncio
import errno
import signal
import ssl
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from gateway.errors import OperatorError, PortInUseError
from gateway.ledger.publishing.cosigner import Cosigner, Reply
from gateway.limits import (
    COSIGNING_BODY_TIMEOUT_S,
    COSIGNING_REQUESTS_MAX,
    NOTE_BYTES_MAX,
)
from gateway.log import Logger


async def serve(
    cosigner: Cosigner, host: str, port: int, tls: ssl.SSLContext | None, log: Logger
) -> None:
    """Answer logs until told to stop.

    Raises:
        PortInUseError: the address can't be listened on.
    """
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, told.set)
    runner = web.AppRunner(WitnessServer(cosigner, log).application(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        try:
            await site.start()
        except OSError as wrong:
            if wrong.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
                raise PortInUseError(
                    f"{host}:{port} can't be listened on: {wrong.strerror}",
                    hint="choose another --listen",
                ) from wrong
            raise
        listening = runner.addresses[0]
        log.info(
            "witness.started", listen=f"{listening[0]}:{listening[1]}", witness=cosigner.vkey
        )
        await told.wait()
    finally:
        await runner.cleanup()


class WitnessServer:
    """Hands requests to the cosigner, one at a time."""

    def __init__(self, cosigner: Cosigner, log: Logger) -> None:
        self._cosigner = cosigner
        self._log = log
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cosigner")
        # OWNED BY: the event loop.
        self._under_way = 0

    def application(self) -> web.Application:
        """Return the routes."""
        app = web.Application(client_max_size=2 * NOTE_BYTES_MAX)
        app.router.add_post("/add-checkpoint", self._add)
        app.on_cleanup.append(self._close)
        return app

    async def _close(self, _: web.Application) -> None:
        self._thread.shutdown()

    async def _add(self, request: web.Request) -> web.Response:
        if self._under_way >= COSIGNING_REQUESTS_MAX:
            return web.Response(status=503, text="too many ask; come again\n")
        self._under_way += 1
        try:
            async with asyncio.timeout(COSIGNING_BODY_TIMEOUT_S):
                body = await request.read()
            loop = asyncio.get_running_loop()
            reply = await loop.run_in_executor(self._thread, self._cosigner.answer, body)
        except TimeoutError:
            return web.Response(status=408, text="the request took too long\n")
        except OperatorError as error:
            self._log.error("witness.unwell", error=str(error))
            return web.Response(status=503, text="nothing can be cosigned now\n")
        finally:
            self._under_way -= 1
        self._tell(reply)
        return web.Response(
            status=reply.status, content_type=reply.kind, body=reply.text.encode()
        )

    def _tell(self, reply: Reply) -> None:
        match reply.told:
            case "witness.cosigned":
                self._log.info(reply.told, origin=reply.origin, size=reply.size)
            case "witness.contradicted":
                # The note is evidence: the log itself signed what contradicts its past.
                self._log.error(
                    reply.told, origin=reply.origin, size=reply.size, note=reply.note
                )
            case _:
                pass

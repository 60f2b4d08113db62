"""Post bytes to an address of others, bounded in time and size, over a connection that is kept.

Witnesses and timestamp authorities are asked through this. Certificates are checked against
the system's authorities; redirections are not followed.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from gateway.errors import LedgerUnwellError

_WORN: Final = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
"""How a kept connection ends that the other side had closed meanwhile."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, media type without parameters, and the whole body."""

    status: int
    kind: str
    body: bytes


class Line:
    """A connection to one address, made when it is needed; one thread at a time uses it."""

    def __init__(self, url: str, *, timeout_s: float, bytes_max: int) -> None:
        parts = urlsplit(url)
        self.url = url
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout_s = timeout_s
        self._bytes_max = bytes_max
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes, kind: str) -> Answer:
        """Send *body* and return what comes back.

        A request may arrive twice, where a kept connection ended without an answer.

        Raises:
            LedgerUnwellError: nothing came back in time, or it was too large.
        """
        kept = self._connection is not None
        try:
            return self._try(body, kind)
        except _WORN as worn:
            self.close()
            if not kept:
                raise self._silent(worn) from worn
        except (OSError, http.client.HTTPException, ValueError) as wrong:
            self.close()
            raise self._silent(wrong) from wrong
        try:
            return self._try(body, kind)
        except (OSError, http.client.HTTPException, ValueError) as wrong:
            self.close()
            raise self._silent(wrong) from wrong

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _try(self, body: bytes, kind: str) -> Answer:
        cut = threading.Event()
        connection = self._connection or self._dial()
        self._connection = connection
        # A timeout of the socket bounds each wait, not the sum of many short ones.
        timer = threading.Timer(self._timeout_s, _cut, (connection.sock, cut))
        timer.daemon = True
        timer.start()
        try:
            connection.request("POST", self._target, body, {"Content-Type": kind})
            response = connection.getresponse()
            answer = response.read(self._bytes_max + 1)
        except (OSError, http.client.HTTPException) as wrong:
            if cut.is_set():
                # The other side did not end it: we did.
                raise TimeoutError("timed out") from wrong
            raise
        finally:
            timer.cancel()
        if cut.is_set():
            raise TimeoutError("timed out")
        if len(answer) > self._bytes_max:
            raise http.client.HTTPException(f"the answer is over {self._bytes_max} bytes")
        if response.will_close:
            self.close()
        return Answer(response.status, response.headers.get_content_type(), answer)

    def _dial(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        if self._secure:
            connection = http.client.HTTPSConnection(
                self._host,
                self._port,
                timeout=self._timeout_s,
                context=ssl.create_default_context(),
            )
        else:
            connection = http.client.HTTPConnection(
                self._host, self._port, timeout=self._timeout_s
            )
        connection.connect()
        return connection

    def _silent(self, wrong: Exception) -> LedgerUnwellError:
        reason = str(wrong) or type(wrong).__name__
        return LedgerUnwellError(f"`{self.url}` gives no answer: {reason}")


def _cut(connected: socket.socket, told: threading.Event) -> None:
    told.set()
    with contextlib.suppress(OSError):
        # Below TLS, whose own farewell would wait for the other side.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)

"""A loopback proxy that cuts connections at an exact message of the client's."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from typing import Literal

When = Literal["before", "after"]
"""Before the message is passed on, or after the server has answered it."""

_BYTES: int = 1 << 16


class Cutter:
    """Passes bytes on, in both directions, until it is told to cut."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        # OWNED BY: whoever holds the lock.
        self._cut_in: int | None = None
        self._when: When = "before"
        self.messages = 0
        """What clients sent since `cut` was last called, in messages as they came."""
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, after_messages: int | None, when: When) -> None:
        """Cut the connection that the next but *after_messages* messages comes on, once."""
        with self._lock:
            self._cut_in, self._when, self.messages = after_messages, when, 0

    @property
    def armed(self) -> bool:
        """Whether the cut has not come yet."""
        return self._cut_in is not None

    def close(self) -> None:
        """Cut everything for good."""
        self._listener.close()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._server_port))
        except OSError:
            client.close()
            return
        with client, server, selectors.DefaultSelector() as both:
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                both.register(one, selectors.EVENT_READ)
            with self._lock:
                self._open += [client, server]
            with contextlib.suppress(OSError):
                self._pass_on(client, server, both)
            with self._lock:
                self._open.remove(client)
                self._open.remove(server)

    def _pass_on(
        self, client: socket.socket, server: socket.socket, both: selectors.BaseSelector
    ) -> None:
        while True:
            for key, _ in both.select():
                sent = key.fileobj is client
                content = (client if sent else server).recv(_BYTES)
                if not content:
                    return
                if sent and (when := self._due()) is not None:
                    if when == "after":
                        server.sendall(content)
                        # It has answered, so whatever the message asked for is done.
                        server.recv(_BYTES)
                    return
                (server if sent else client).sendall(content)

    def _due(self) -> When | None:
        with self._lock:
            self.messages += 1
            if self._cut_in is None:
                return None
            self._cut_in -= 1
            if self._cut_in >= 0:
                return None
            self._cut_in = None
            return self._when


@contextlib.contextmanager
def cutting(port: int) -> Iterator[Cutter]:
    """Stand before the server at *port* for a while."""
    cutter = Cutter(port)
    try:
        yield cutter
    finally:
        cutter.close()

"""A provider that gives the answers it was told, one a request, the last one for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One answer."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    kind: str = "application/json"


@dataclass(slots=True)
class Teller:
    """What is to be answered, and what was asked."""

    answers: Sequence[Told]
    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    """The headers of each request, by their names in lower case."""
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextmanager
def telling(*answers: Told) -> Iterator[Teller]:
    """Run a server that tells *answers*."""
    teller = Teller(answers)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        """Answers every method alike."""

        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            """Answer one request."""
            length = int(self.headers.get("content-length", "0"))
            body = self.rfile.read(length)
            with lock:
                place = min(len(teller.asked), len(teller.answers) - 1)
                teller.asked.append({name.lower(): v for name, v in self.headers.items()})
                teller.bodies.append(body)
                teller.paths.append(self.path)
            told = teller.answers[place]
            self.send_response(told.status)
            self.send_header("content-type", told.kind)
            self.send_header("content-length", str(len(told.body)))
            for name, value in told.headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(told.body)

        do_GET = do_POST = do_DELETE = handle_one  # noqa: N815  http.server names them

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    teller.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield teller
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

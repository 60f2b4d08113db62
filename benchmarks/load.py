"""A lean load generator: keep-alive connections that ask, read the whole answer, and ask again.

It prints one JSON object: how many answers, latencies, times to first byte, and complaints.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable

import httptools
import uvloop

PROMPT = "Read the attached figures, compare them with last month, and say what changed. " * 6


def request_bytes(host: str, path: str, headers: list[str], *, stream: bool) -> bytes:
    """Return one chat request of about 1 KB, or one for an embedding."""
    asked: dict[str, object] = {
        "model": "stub-large",
        "messages": [
            {"role": "system", "content": "You are a careful accountant."},
            {"role": "user", "content": PROMPT},
        ],
        "temperature": 0,
    }
    if path.endswith("/embeddings"):
        asked = {"model": "stub-embed", "input": [PROMPT], "encoding_format": "base64"}
    elif stream:
        asked["stream"] = True
    body = json.dumps(asked, separators=(",", ":")).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: {host}",
        "accept: application/json",
        "accept-encoding: gzip, deflate",
        "authorization: Bearer sk-benchmark-0123456789abcdef",
        "content-type: application/json",
        "user-agent: OpenAI/Python 3.54.0",
        "x-stainless-lang: python",
        "x-stainless-package-version: 3.54.0",
        "x-stainless-os: Linux",
        "x-stainless-arch: x64",
        "x-stainless-runtime: CPython",
        "x-stainless-runtime-version: 3.11.7",
        "x-stainless-async: false",
        "x-stainless-retry-count: 0",
        *headers,
        f"content-length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Caller(asyncio.Protocol):
    """One connection that asks again as soon as it has its answer."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._asked = False
        self._aborts = False
        self._bytes = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        if not self._load.take():
            self._asked = False
            self._transport.close()
            return
        self._asked = True
        self._aborts = self._load.to_be_aborted()
        self._parser = httptools.HttpResponseParser(self)
        self._begun = time.perf_counter()
        self._first = 0.0
        self._bytes = 0
        self._transport.write(self._load.aborted if self._aborts else self._load.request)

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        """Note when the first byte came."""
        if not self._bytes:
            self._first = time.perf_counter()
        self._bytes += len(part)
        if self._aborts and self._transport is not None:
            self._asked = False
            self._transport.abort()

    def on_message_complete(self) -> None:
        """Note the answer and ask again."""
        now = time.perf_counter()
        if not self._asked:
            return
        self._load.answered(
            self._parser.get_status_code(),
            now - self._begun,
            self._first - self._begun,
            self._bytes,
        )
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the load that this connection has ended."""
        if self._aborts and not self._asked:
            self._load.goes_on()
            return
        self._load.ended()
        if self._asked:
            print(f"cut off after {self._bytes} bytes: {exc}", file=sys.stderr)


class Load:
    """So many requests over so many connections."""

    def __init__(
        self,
        request: bytes,
        requests: int,
        connections: int,
        *,
        aborted: bytes = b"",
        abort_every: int = 0,
    ) -> None:
        self.request = request
        self.aborted = aborted
        """What is asked for, and hung up on at its first bytes, every so many times."""
        self.aborts = 0
        self.again: Callable[[], None] = lambda: None
        """Opens another connection in the place of one that was aborted."""
        self._abort_every = abort_every
        self.whole = asyncio.Event()
        self._left = requests
        self._open = connections
        self._latencies: list[float] = []
        self._firsts: list[float] = []
        self._sizes: dict[int, int] = {}
        self._statuses: dict[int, int] = {}

    def take(self) -> bool:
        """Return whether another request is to be made."""
        self._left -= 1
        return self._left >= 0

    def to_be_aborted(self) -> bool:
        """Return whether this request is one of those that are hung up on."""
        if not self._abort_every or self._left % self._abort_every:
            return False
        self.aborts += 1
        return True

    def goes_on(self) -> None:
        """Ask on over another connection."""
        self.again()

    def answered(self, status: int, latency_s: float, first_s: float, size: int) -> None:
        """Note one answer."""
        self._latencies.append(latency_s)
        self._firsts.append(first_s)
        self._sizes[size] = self._sizes.get(size, 0) + 1
        self._statuses[status] = self._statuses.get(status, 0) + 1

    def ended(self) -> None:
        """Note that a connection has ended."""
        self._open -= 1
        if not self._open:
            self.whole.set()

    def report(self, wall_s: float) -> dict[str, object]:
        """Return what was seen."""
        return {
            "answers": len(self._latencies),
            "aborts": self.aborts,
            "wall_s": wall_s,
            "latency_ms": _spread(self._latencies),
            "first_byte_ms": _spread(self._firsts),
            "sizes": self._sizes,
            "statuses": self._statuses,
        }


def _spread(seconds: list[float]) -> dict[str, float]:
    ranked = sorted(seconds) or [0.0]
    return {
        name: 1000 * ranked[min(len(ranked) - 1, int(len(ranked) * part))]
        for name, part in (("p50", 0.5), ("p99", 0.99))
    }


async def run(port: int, load: Load, connections: int) -> dict[str, object]:
    """Make every request and return the report."""
    begun = time.perf_counter()
    loop = asyncio.get_running_loop()
    opening: set[asyncio.Task[object]] = set()

    def again() -> None:
        task = loop.create_task(loop.create_connection(lambda: Caller(load), "127.0.0.1", port))
        opening.add(task)
        task.add_done_callback(opening.discard)

    load.again = again
    for _ in range(connections):
        again()
    await load.whole.wait()
    return load.report(time.perf_counter() - begun)


async def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--abort-every", type=int, default=0, help="a stream, hung up on")
    parser.add_argument("--header", action="append", default=[])
    said = parser.parse_args()
    host = f"127.0.0.1:{said.port}"
    load = Load(
        request_bytes(host, said.path, said.header, stream=said.stream),
        said.requests,
        said.connections,
        aborted=request_bytes(host, said.path, said.header, stream=True),
        abort_every=said.abort_every,
    )
    print(json.dumps(await run(said.port, load, said.connections)))


if __name__ == "__main__":
    uvloop.run(main())

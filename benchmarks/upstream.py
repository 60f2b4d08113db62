"""A lean provider for benchmarks: canned answers, so that it is never the bottleneck.

A body of about 1 KB, an embedding of 1,536 numbers, or a stream of 60 events that leave one by
one, a little time apart.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import struct

import httptools
import uvloop

EVENTS = 60
CREATED = 1_795_000_000


def body() -> bytes:
    """Return a chat completion of about 1 KB."""
    words = "The total is checked against the ledger and the second source agrees. " * 6
    answer = {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": CREATED,
        "model": "stub-large",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": words, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 64,
            "completion_tokens": 96,
            "total_tokens": 160,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_benchmark",
    }
    return json.dumps(answer).encode()


def embedding() -> bytes:
    """Return an embedding of 1,536 numbers, in base64 as the SDK asks for it."""
    numbers = struct.pack("<1536f", *(0.001 * (at % 97) - 0.05 for at in range(1536)))
    answer = {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": 0,
                "embedding": base64.b64encode(numbers).decode(),
            }
        ],
        "model": "stub-embed",
        "usage": {"prompt_tokens": 96, "total_tokens": 96},
    }
    return json.dumps(answer).encode()


def events() -> list[bytes]:
    """Return the chunks of a streamed chat completion, `[DONE]` last, framed for HTTP."""
    head = {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": "stub-large",
        "service_tier": "default",
        "system_fingerprint": "fp_benchmark",
    }
    said = []
    for at in range(EVENTS - 1):
        last = at == EVENTS - 2
        delta = {} if last else {"content": " word" if at else "", "role": "assistant"}
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": None,
            "finish_reason": "stop" if last else None,
        }
        said.append(b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n")
    said.append(b"data: [DONE]\n\n")
    return [b"%x\r\n%b\r\n" % (len(one), one) for one in said]


HEADERS = (
    b"HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 08:00:00 GMT\r\n"
    b"x-request-id: req_benchmark\r\nopenai-processing-ms: 21\r\nopenai-version: 2020-10-01\r\n"
    b"x-ratelimit-limit-requests: 10000\r\nx-ratelimit-remaining-requests: 9999\r\n"
)
BODY = body()
WHOLE = (
    HEADERS + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY
)
EMBEDDING = embedding()
EMBEDDED = (
    HEADERS
    + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(EMBEDDING)
    + EMBEDDING
)
STREAM_HEAD = (
    HEADERS + b"content-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
STREAM = events()
END = b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection; answers each request when it has come whole."""

    def __init__(self, pace_s: float) -> None:
        self._pace_s = pace_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._streaming = False
        self._embeds = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop sending."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Look what is asked for."""
        self._embeds = url.endswith(b"/embeddings")

    def on_body(self, part: bytes) -> None:
        """Look whether a stream is asked for."""
        self._streaming = self._streaming or b'"stream":true' in part

    def on_message_complete(self) -> None:
        """Answer."""
        if self._transport is None:
            return
        if not self._streaming:
            self._transport.write(EMBEDDED if self._embeds else WHOLE)
            return
        self._streaming = False
        self._transport.write(STREAM_HEAD + STREAM[0])
        self._loop.call_later(self._pace_s, self._next, 1)

    def _next(self, at: int) -> None:
        if self._transport is None:
            return
        if at == len(STREAM):
            self._transport.write(END)
            return
        self._transport.write(STREAM[at])
        if at == len(STREAM) - 1:
            self._transport.write(END)
        else:
            self._loop.call_later(self._pace_s, self._next, at + 1)


async def serve(pace_s: float) -> None:
    """Listen on a free port of loopback, say which, and serve until killed."""
    server = await asyncio.get_running_loop().create_server(
        lambda: Upstream(pace_s), "127.0.0.1", 0
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pace-ms", type=float, default=1.0, help="time between two events")
    uvloop.run(serve(parser.parse_args().pace_ms / 1000))

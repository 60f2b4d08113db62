"""Scenes that are played twice, once at the stub and once through a gateway, and compared.

What is compared is what the SDK made of the answers, every byte and header that reached the
SDK, and every byte and header that reached the provider.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2

from gateway.provider.catalogue import BUILT_IN
from gateway.provider.catalogue import DIALECTS as KNOWN
from tests.support.ports import free_port
from tests.support.provider import Received
from tests.support.proxy import Gateway
from tests.support.stub.server import NAMES, StubServer

BORROWED: Final = frozenset(
    {
        "azure-openai",
        "fireworks",
        "gemini",
        "groq",
        "llamacpp",
        "ollama",
        "openrouter",
        "together",
        "vllm",
    }
)
"""Whose own terms, or whose models' terms, hold something that is asked for here: OpenAI's take
their place."""

DIALECTS: Final = {"gemini": "gemini", "azure-openai": "azure"}
"""Who speaks another language than their name says."""

BARE: Final = frozenset({"anthropic", "gemini"})
"""Who is asked without a path in front, as in life: an address that an answer holds has none
either, and the gateway must put its own there."""

CONNECTION: Final = frozenset(
    {"connection", "date", "host", "keep-alive", "server", "transfer-encoding"}
)
"""What belongs to one connection, and not to what was asked or answered."""


@dataclass(slots=True, kw_only=True)
class Seen:
    """One answer as its bytes came to the SDK."""

    method: str
    target: str
    status: int
    headers: list[tuple[str, str]]
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    """Read to its end; an SDK may close a stream before."""


class _Tee(httpx2.SyncByteStream):
    """Passes bytes on and keeps them."""

    def __init__(self, stream: httpx2.SyncByteStream, seen: Seen) -> None:
        self._stream = stream
        self._seen = seen

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._seen.body += chunk
            yield chunk
        self._seen.whole = True

    def close(self) -> None:
        """Close what is below."""
        self._stream.close()


class Recorder(httpx2.HTTPTransport):
    """What an SDK sends through; keeps every byte that comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Seen] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send *request*; return the answer, which is kept as it is read."""
        response = super().handle_request(request)
        seen = Seen(
            method=request.method,
            target=request.url.raw_path.decode(),
            status=response.status_code,
            headers=[(n.decode().lower(), v.decode()) for n, v in response.headers.raw],
        )
        self.seen.append(seen)
        stream = response.stream
        assert isinstance(stream, httpx2.SyncByteStream)
        response.stream = _Tee(stream, seen)
        return response


def client() -> tuple[httpx2.Client, Recorder]:
    """Return an HTTP client for an SDK, and what records for it."""
    recorder = Recorder()
    return httpx2.Client(transport=recorder, timeout=120, follow_redirects=True), recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What came of a scene."""

    told: Any
    """What the scene returned, as JSON has it."""
    seen: list[Seen]
    received: list[Received]
    made: Counter[tuple[str, str, str]]


Scene = Callable[[Any], Any]
Connect = Callable[[str, httpx2.Client], Any]
"""Makes an SDK's client from a base address and an HTTP client."""


def play(server: StubServer, name: str, scene: Scene, connect: Connect, address: str) -> Played:
    """Play *scene* from the beginning with a client that asks at *address*."""
    server.begin(name)
    http, recorder = client()
    with http:
        told = plain(scene(connect(address, http)))
    return Played(
        told=told,
        seen=recorder.seen,
        received=list(server.received),
        made=server.made_by(),
    )


def plain(value: Any) -> Any:
    """Return *value* as JSON has it, whatever an SDK made of it."""
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(exclude={"sdk_http_response"}, warnings=False))
    match value:
        case bytes():
            return f"{len(value)} bytes {hashlib.sha256(value).hexdigest()}"
        case Mapping():
            return {str(name): plain(one) for name, one in value.items()}
        case str() | int() | float() | None:
            return value
        case Iterable():
            return [plain(one) for one in value]
        case _:
            return repr(value)


def same(direct: Played, through: Played, *, rewritten: bytes | None = None) -> None:
    """Insist that nothing differs but what is documented.

    *rewritten* is a pattern of addresses that the gateway writes anew; wherever it fits, on
    either side, it is taken out before bytes are compared.
    """
    heads = [[_head(seen) for seen in played.seen] for played in (direct, through)]
    assert heads[0] == heads[1], heads
    both_told = [_without(played.told, rewritten) for played in (direct, through)]
    assert both_told[0] == both_told[1], both_told
    for one, other in zip(direct.seen, through.seen, strict=True):
        both = _body(one, rewritten), _body(other, rewritten)
        if not (one.whole and other.whole):
            read = min(map(len, both))
            both = both[0][:read], both[1][:read]
        assert both[0] == both[1], one.target
        headers = [_headers(seen.headers, rewritten) for seen in (one, other)]
        assert headers[0] == headers[1], (one.target, headers)
        assert any(name == "x-gateway-exchange" for name, _ in other.headers), other.target
    for asked, sent in zip(direct.received, through.received, strict=True):
        # What may have to change on its way back is asked for without an encoding.
        bare = ["identity"] == sent.header("accept-encoding")
        requests = [_asked(received, bare=bare) for received in (asked, sent)]
        assert requests[0] == requests[1], requests
    assert direct.made == through.made, (direct.made, through.made)


def _without(told: Any, rewritten: bytes | None) -> Any:
    return told if rewritten is None else re.sub(rewritten.decode(), "", json.dumps(told))


def _head(seen: Seen) -> tuple[str, int]:
    return seen.method, seen.status


def _body(seen: Seen, rewritten: bytes | None) -> bytes:
    body = bytes(seen.body)
    return re.sub(rewritten, b"", body) if rewritten else body


def _headers(headers: list[tuple[str, str]], rewritten: bytes | None) -> list[tuple[str, str]]:
    kept = [
        (name, re.sub(rewritten.decode(), "", value) if rewritten else value)
        for name, value in headers
        if name not in CONNECTION and not name.startswith("x-gateway-")
    ]
    if rewritten is not None:
        kept = [(name, value) for name, value in kept if name != "content-length"]
    return sorted(kept)


def _asked(received: Received, *, bare: bool) -> tuple[str, str, list[tuple[str, str]], bytes]:
    """Return a request as it reached the provider; a random boundary is the same as another."""
    body = received.body
    headers = [(n.decode().lower(), v.decode("latin-1")) for n, v in received.headers]
    found = re.search(r"boundary=([^;\s]+)", dict(headers).get("content-type", ""))
    if found is not None:
        body = body.replace(found[1].encode(), b"boundary")
        headers = [(name, value.replace(found[1], "boundary")) for name, value in headers]
    target = received.target
    left_out = CONNECTION | {"accept-encoding"} if bare else CONNECTION
    kept = [(name, value) for name, value in headers if name not in left_out]
    return received.method, target, sorted(kept), body


# -- a gateway before the stub -------------------------------------------------------------


def surface_text(port: int, url: str, more: str = "") -> str:
    """Return a `gateway.yaml` that knows every provider of the stub at *url*."""
    lines = [f"listen: 127.0.0.1:{port}", "data: ./gateway-data", "providers:"]
    for name in NAMES:
        where = url if name in BARE else f"{url}/{name}"
        lines += [f"  {name}:", f"    base_url: {where}"]
        if name in BORROWED:
            lines += ["    policy: openai"]
        if name not in BUILT_IN:
            lines += [f"    dialect: {dialect_of(name)}"]
    return "\n".join(lines) + "\n" + more


def dialect_of(name: str) -> str:
    """Return the dialect of a provider that the catalogue does not have."""
    wanted = DIALECTS.get(name, "openai")
    return wanted if wanted in KNOWN else "openai"


@contextmanager
def surface_gateway(folder: Path, url: str, more: str = "") -> Iterator[Gateway]:
    """Run a gateway before the stub at *url*; it is killed at the end."""
    port = free_port()
    gateway = Gateway(folder=folder, port=port, settings=surface_text(port, url, more))
    gateway.init()
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.kill()

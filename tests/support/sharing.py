"""Callers who share one key of each provider, and are told apart by the gateway alone."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.ports import free_port
from tests.support.proxy import PROVIDER_SECRET, Gateway
from tests.support.surface import surface_text

CREDENTIALS: Final = {"anthropic": "x-api-key", "gemini": "x-goog-api-key"}
"""Where a caller's key stands, if it is no bearer token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """What the body says."""
        return json.loads(self.body)

    @property
    def problem(self) -> str | None:
        """The gateway's own code, if it is an error of its own."""
        return self.headers.get("x-gateway-problem")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharer:
    """One principal with a gateway key."""

    gateway: Gateway
    name: str
    key: str
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with everything."""

    def ask(
        self,
        method: str,
        provider: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        keyed: bool = True,
        port: int | None = None,
    ) -> Got:
        """Ask *provider* through the gateway; *body* is bytes, or JSON."""
        said = dict(self.headers) | dict(headers or {})
        if keyed:
            name = CREDENTIALS.get(provider, "authorization")
            said[name] = self.key if name != "authorization" else f"Bearer {self.key}"
        if provider == "anthropic":
            said.setdefault("anthropic-version", "2023-06-01")
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            said.setdefault("content-type", "application/json")
        return ask(port or self.gateway.port, method, f"/{provider}{path}", said, body)


def ask(
    port: int, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None
) -> Got:
    """Ask for exactly *target*."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None and "content-length" not in headers:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return Got(status=answer.status, headers=told, body=answer.read())
    finally:
        connection.close()


def form(*, boundary: str = "x7x", **fields: str | tuple[str, bytes]) -> tuple[str, bytes]:
    """Return content type and body of a multipart form; a pair is a file's name and content."""
    lines: list[bytes] = []
    for name, value in fields.items():
        told = f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"'
        if isinstance(value, str):
            lines.append(f"{told}\r\n\r\n{value}\r\n".encode())
        else:
            head = f'{told}; filename="{value[0]}"\r\n\r\n'
            lines.append(head.encode() + value[1] + b"\r\n")
    return f"multipart/form-data; boundary={boundary}", b"".join(
        [*lines, f"--{boundary}--\r\n".encode()]
    )


def new_shared_gateway(folder: Path, url: str, more: str = "") -> Gateway:
    """Return a gateway with managed keys before every provider of the stub at *url*."""
    port = free_port()
    text = surface_text(port, url, more).replace("providers:", "keys: managed\nproviders:", 1)
    # Each provider has the same credential, whoever asks.
    text = re.sub(r"( +)base_url: .*", r"\g<0>\n\1credential: file:provider.key", text)
    folder.mkdir(parents=True, exist_ok=True)
    secret = folder / "provider.key"
    secret.write_text(PROVIDER_SECRET)
    secret.chmod(0o600)
    gateway = Gateway(folder=folder, port=port, settings=text)
    gateway.init()
    return gateway


@contextmanager
def shared_gateway(folder: Path, url: str, more: str = "") -> Iterator[Gateway]:
    """Run a gateway with managed keys before the stub at *url*; it is killed at the end."""
    gateway = new_shared_gateway(folder, url, more)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.kill()


def sharer(gateway: Gateway, name: str, project: str = "search") -> Sharer:
    """Return a new principal of *gateway*."""
    done = gateway.command("key", "new", "--principal", name, "--project", project)
    assert done.returncode == 0, done.stderr
    return Sharer(gateway=gateway, name=name, key=done.stdout.strip().splitlines()[-1])

"""A caller on a plain socket: it sees every byte, and can hang up at any of them."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import httptools

Headers = Sequence[tuple[str, str]]


@dataclass(slots=True, kw_only=True)
class Answer:
    """What came back, as far as the caller read it."""

    status: int = 0
    reason: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False
    """The message ended by its own framing."""
    wire: bytes = b""

    def header(self, name: str) -> str | None:
        """Return the first header *name*, or `None`."""
        values = self.values(name)
        return values[0] if values else None

    def values(self, name: str) -> list[str]:
        """Return every header *name*, in order."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == wanted]

    def multiset(self, *, without: Iterable[str] = ()) -> Counter[tuple[bytes, bytes]]:
        """Return the headers, names in lower case, without those named or ours."""
        left_out = {name.encode() for name in without}
        return Counter(
            (name.lower(), value)
            for name, value in self.headers
            if name.lower() not in left_out and not name.lower().startswith(b"x-gateway-")
        )


class _Reader:
    """Takes an answer apart as llhttp reads it."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.body = bytearray()
        self.wire = bytearray()

    def on_status(self, status: bytes) -> None:
        self.answer.reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        self.answer.headers.append((name, value))

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.answer.whole = True


class Caller:
    """One connection to a server on loopback."""

    def __init__(self, port: int, *, timeout_s: float = 120) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)

    def __enter__(self) -> Self:
        """Return the caller itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection."""
        self._socket.close()

    def send(self, content: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(content)

    def ask(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes = b"",
        *,
        until_bytes: int | None = None,
    ) -> Answer:
        """Send a request and read its answer; see `send_request` and `read`."""
        self.send_request(method, target, headers, body)
        return self.read(head_only=method == "HEAD", until_bytes=until_bytes)

    def send_request(
        self, method: str, target: str, headers: Headers = (), body: bytes = b""
    ) -> None:
        """Send a request; its length is declared unless *headers* say otherwise."""
        said = {name.lower() for name, _ in headers}
        lines = [f"{method} {target} HTTP/1.1", "host: gateway.example"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body and not said & {"content-length", "transfer-encoding"}:
            lines.append(f"content-length: {len(body)}")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def read(self, *, head_only: bool = False, until_bytes: int | None = None) -> Answer:
        """Read one answer; stop at its end, at so many body bytes, or where it breaks off."""
        answer = Answer()
        self._reader = _Reader(answer)
        self._parser = httptools.HttpResponseParser(self._reader)
        return self._read_into(answer, head_only=head_only, until_bytes=until_bytes)

    def read_on(self, answer: Answer) -> Answer:
        """Read on where `read` stopped at so many bytes, to the end of *answer*."""
        return self._read_into(answer, head_only=False, until_bytes=None)

    def _read_into(self, answer: Answer, *, head_only: bool, until_bytes: int | None) -> Answer:
        reader, parser = self._reader, self._parser
        while not answer.whole:
            if until_bytes is not None and len(reader.body) >= until_bytes:
                break
            try:
                part = self._socket.recv(1 << 16)
            except ConnectionError:
                break
            reader.wire += part
            if not part:
                break
            if head_only:
                if b"\r\n\r\n" in reader.wire:
                    parser.feed_data(bytes(reader.wire))
                    answer.whole = True
            else:
                parser.feed_data(part)
        answer.body, answer.wire = bytes(reader.body), bytes(reader.wire)
        if answer.wire:
            answer.status = parser.get_status_code()
        return answer

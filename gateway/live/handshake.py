"""The request that begins a session: what it asks for, and whose key it shows.

Key, accept and extensions are negotiated end to end; here they are only read.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qs

import msgspec

from gateway.exchange.forward import RawHeaders
from gateway.live.messages import Inflation
from gateway.provider.model import Found, Operation, ProviderCall

WEBSOCKET: Final = b"websocket"
KEY_PROTOCOL: Final = "openai-insecure-api-key."
"""How browsers, which can't set headers, hand over a key: as a subprotocol."""

_GEMINI: Final = re.compile(
    r"/{1,2}ws/google\.(?:"  # the SDK for Node writes two slashes
    r"ai\.generativelanguage\.[a-z0-9]+\.GenerativeService\.BidiGenerateContent(?:Constrained)?"
    r"|cloud\.aiplatform\.[a-z0-9]+\.LlmBidiService/BidiGenerateContent"
    r")"
)


class Kind(enum.Enum):
    """A way of talking that is read here."""

    REALTIME = "realtime"
    """OpenAI's realtime API, Azure's, and those that follow it."""
    RESPONSES = "responses"
    """OpenAI's responses over WebSocket."""
    GEMINI = "gemini"
    """Google's live API."""


def kind_of(path: str) -> Kind | None:
    """Return how both sides will talk on *path*; `None`: nobody here knows."""
    if path.endswith("/realtime"):
        return Kind.REALTIME
    if path.endswith("/responses"):
        return Kind.RESPONSES
    return Kind.GEMINI if _GEMINI.fullmatch(path) else None


def asks_for_websocket(method: str, headers: Mapping[str, str]) -> bool:
    """Tell whether a request asks to switch to a WebSocket (RFC 6455 section 4.2.1)."""
    named = {part.strip().lower() for part in headers.get("connection", "").split(",")}
    return (
        method == "GET"
        and "upgrade" in named
        and headers.get("upgrade", "").strip().lower() == "websocket"
    )


def model_of(query: str) -> str | None:
    """Return the model that the query names; of Azure, its deployment."""
    said = parse_qs(query)
    for name in ("model", "deployment"):
        if values := said.get(name):
            return values[-1]
    return None


def call_of(call: ProviderCall, found: Found) -> ProviderCall:
    """Return what the request for a session asks for, as far as it says; *call* reads it."""
    if kind_of(found.path) is None:
        return msgspec.structs.replace(call, operation=Operation.OPAQUE, found=found)
    return msgspec.structs.replace(
        call,
        operation=Operation.SESSION,
        model=call.model or model_of(found.query),
        streaming=True,
        found=found,
    )


def before_talk(call: ProviderCall) -> ProviderCall:
    """Return *call* as what is not generating yet.

    Where the first message names the model, nothing is asked of any before that has passed.
    """
    kind = kind_of(call.found.path) if call.found is not None else None
    if call.model is None and kind in {Kind.RESPONSES, Kind.GEMINI}:
        return msgspec.structs.replace(call, operation=Operation.LISTING)
    return call


def showing_key(headers: Mapping[str, str], protocols: Iterable[str]) -> Mapping[str, str]:
    """Return *headers* as the porter reads them, a key among the *protocols* as a token."""
    key = protocol_key(protocols)
    if key is None or "authorization" in headers:
        return headers
    return {**dict(headers.items()), "authorization": f"Bearer {key}"}


def protocol_key(protocols: Iterable[str]) -> str | None:
    """Return the key that stands among the subprotocols, if one does."""
    for line in protocols:
        for protocol in line.split(","):
            if protocol.strip().startswith(KEY_PROTOCOL):
                return protocol.strip().removeprefix(KEY_PROTOCOL) or None
    return None


def without_keys(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """Return *headers* without keys among the subprotocols."""
    kept = []
    for name, value in headers:
        if name.lower() != b"sec-websocket-protocol":
            kept.append((name, value))
            continue
        protocols = [
            part.strip()
            for part in value.split(b",")
            if not part.strip().startswith(KEY_PROTOCOL.encode())
        ]
        if protocols:
            kept.append((name, b", ".join(protocols)))
    return kept


def inflations(headers: RawHeaders) -> tuple[Inflation | None, Inflation | None] | None:
    """Return what undoes the caller's and the provider's compression, as *headers* say.

    `None`: they agreed on an extension that is not known here, so nothing can be read.
    """
    agreed = [
        extension.strip().lower()
        for name, value in headers
        if name.lower() == b"sec-websocket-extensions"
        for extension in value.decode("latin-1").split(",")
        if extension.strip()
    ]
    if not agreed:
        return None, None
    name, *parameters = [part.strip() for part in agreed[0].split(";")]
    if len(agreed) > 1 or name != "permessage-deflate":
        return None
    said = {part.partition("=")[0].strip() for part in parameters}
    return (
        Inflation(keeps_context="client_no_context_takeover" not in said),
        Inflation(keeps_context="server_no_context_takeover" not in said),
    )

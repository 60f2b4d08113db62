"""Whether a request asks for a session, over a connection that is switched."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.live.handshake import asks_for_websocket, showing_key
from gateway.provider.model import Found, Operation
from gateway.proxy.knock import Knock


def switches(knock: Knock) -> bool:
    """Tell whether the connection would be switched to WebSocket."""
    return "upgrade" in knock.headers and asks_for_websocket(knock.method, knock.headers)


def headers_with_key(knock: Knock) -> Mapping[str, str]:
    """Return the headers in which a key may stand."""
    if not switches(knock):
        return knock.headers
    return showing_key(knock.headers, knock.headers.getall("sec-websocket-protocol", []))


def talks(knock: Knock, found: Found | None) -> bool:
    """Tell whether a session is asked for, where there may be one.

    Elsewhere that is ignored, as any server may (RFC 9110 section 7.8): what is kept is handed
    out by the rules for that, whatever a provider would make of such a request.
    """
    if found is None or not switches(knock):
        return False
    route = found.route
    return route.operation is Operation.SESSION or (
        route.operation is Operation.OPAQUE and route.lists is None
    )

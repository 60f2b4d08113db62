"""The request as it goes upstream: the caller's bytes, less what is ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from gateway.exchange.body import StreamedBody
from gateway.exchange.forward import Outgoing, RawHeaders
from gateway.exchange.states import Asked
from gateway.live.handshake import without_keys
from gateway.provider.model import Dialect
from gateway.proxy.knock import Knock
from gateway.proxy.reply import end_to_end
from gateway.proxy.switch import switches
from gateway.store.access import SECRET

_AS_SENT: Final = ("utf-8", "surrogateescape")


def outgoing_of(
    knock: Knock,
    asked: Asked,
    target: str,
    dialect: Dialect,
    *,
    managed: bool,
    plain: bool = False,
    dropped: frozenset[bytes] = frozenset(),
    added: RawHeaders = (),
) -> Outgoing:
    """Return the request as it goes upstream: the caller's bytes, less what is ours."""
    if managed:
        # Whatever header the gateway key came in, it never reaches a provider.
        dropped = dropped | {name.encode() for name in dialect.CREDENTIAL_HEADERS}
        target = _without_key(target, dialect)
    target = _without_secrets(target)
    if plain:
        dropped = dropped | {b"accept-encoding"}
    headers = [*end_to_end(knock.lines, dropped), *added]
    if managed and switches(knock):
        headers = without_keys(headers)
    if plain:
        # It may have to change on its way back.
        headers.append((b"accept-encoding", b"identity"))
    if SECRET.search(b"\n".join(value for _, value in headers)):
        # A gateway key in a header where none belongs, such as a cookie, or where callers
        # bring their own key of the provider.
        headers = [header for header in headers if not SECRET.search(header[1])]
    if managed and asked.principal.credential is not None:
        found = asked.call.found
        name, value = dialect.credential_header(
            asked.principal.credential, "" if found is None else found.path
        )
        headers.append((name.encode(), value.encode()))
    body, length = asked.body, None
    if isinstance(body, StreamedBody):
        length = body.length
        passing: bytes | AsyncIterator[bytes] | None = aiter(body)
    elif knock.trailers:
        passing = _in_chunks(body)
    else:
        # Where the caller speaks of no body, not even of an empty one, neither do we.
        framed = knock.content_length is not None or knock.is_chunked
        passing = body if framed else None
    return Outgoing(
        method=knock.method.encode(),
        target=(target or "/").encode("utf-8", "surrogateescape"),
        headers=headers,
        body=passing,
        length=length,
        trailers=(lambda: end_to_end(knock.trailers, dropped)) if knock.is_chunked else None,
        takes_trailers="trailers" in knock.headers.get("te", "").lower(),
    )


async def _in_chunks(body: bytes) -> AsyncIterator[bytes]:
    """Yield *body* as what comes in chunks: only behind those is there room for trailers."""
    yield body


def _without_key(target: str, dialect: Dialect) -> str:
    """Return *target* without a key in its query; one that holds none as it was sent."""
    path, mark, query = target.partition("?")
    upstream = dialect.query_upstream(query)
    if upstream == query:
        return target
    return path + mark + upstream if upstream else path


def _without_secrets(target: str) -> str:
    """Return *target* without a gateway key in its query, where none belongs."""
    path, mark, query = target.partition("?")
    if not mark or not SECRET.search(query.encode(*_AS_SENT)):
        return target
    pairs = (pair for pair in query.split("&") if not SECRET.search(pair.encode(*_AS_SENT)))
    left = "&".join(pairs)
    return path + mark + left if left else path

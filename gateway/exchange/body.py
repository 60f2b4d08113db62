"""A request body that is too large, or too strange, to be held: counted as it passes."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator

from gateway.errors import BodyTooLargeError
from gateway.ident import ExchangeId, Sha256
from gateway.limits import BODY_BYTES_MAX


class StreamedBody:
    """Passes bytes on unchanged and commits to them under the installation's key."""

    def __init__(
        self, chunks: AsyncIterator[bytes], length: int | None, exchange: ExchangeId, key: bytes
    ) -> None:
        self._chunks = chunks
        self.length = length
        """As declared; `None` where the body comes in chunks."""
        self.bytes = 0
        """How many have passed so far."""
        self._mac = hmac.new(key, exchange.encode(), "sha256")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body's bytes as they come.

        Raises:
            BodyTooLargeError: it grew beyond what is passed on at all.
        """
        async for chunk in self._chunks:
            self.bytes += len(chunk)
            if self.bytes > BODY_BYTES_MAX:
                raise BodyTooLargeError(
                    f"the request body is larger than {BODY_BYTES_MAX} bytes",
                    hint="send it in parts",
                )
            self._mac.update(chunk)
            yield chunk

    def passed(self, chunk: bytes) -> None:
        """Count bytes that pass in another way, over a connection that was switched."""
        self.bytes += len(chunk)
        self._mac.update(chunk)

    def keyed_sha256(self) -> Sha256:
        """Return HMAC-SHA256 over exchange id and the bytes that have passed, in hex."""
        return Sha256(self._mac.hexdigest())

"""A request body that passes by: unchanged, counted, and committed to."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BodyTooLargeError
from gateway.exchange.body import StreamedBody
from gateway.ident import ExchangeId
from gateway.limits import BODY_BYTES_MAX, MIB

EXCHANGE = ExchangeId("x-1")


async def chunks(parts: list[bytes]) -> AsyncIterator[bytes]:
    """Yield *parts*."""
    for part in parts:
        yield part


@given(st.lists(st.binary(max_size=20), max_size=6), st.binary(min_size=1))
async def test_the_commitment_is_to_the_bytes_that_passed(
    parts: list[bytes], key: bytes
) -> None:
    """However it is cut, what comes out went in, and one key opens its digest."""
    body = StreamedBody(chunks(parts), None, EXCHANGE, key)
    passed = [chunk async for chunk in body]
    expected = hmac.new(key, EXCHANGE.encode() + b"".join(parts), hashlib.sha256)

    assert parts == passed
    assert len(b"".join(parts)) == body.bytes
    assert expected.hexdigest() == body.keyed_sha256()


async def test_a_body_that_breaks_off_is_committed_to_as_far_as_it_came() -> None:
    """What passed before a break is what the digest is of."""
    body = StreamedBody(chunks([b"ab", b"cd"]), 10, EXCHANGE, b"k")
    async for _ in body:
        break

    assert 2 == body.bytes
    assert hmac.new(b"k", b"x-1ab", "sha256").hexdigest() == body.keyed_sha256()


async def test_a_body_without_end_is_ended() -> None:
    """A body over what is passed on at all is an error, whatever length it declared."""
    part = bytes(64 * MIB)
    count = BODY_BYTES_MAX // len(part) + 1
    body = StreamedBody(chunks([part] * count), 10, EXCHANGE, b"k")
    with pytest.raises(BodyTooLargeError):
        async for _ in body:
            pass

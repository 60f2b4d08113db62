"""Names for things: their shape, their order, and that no two are alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ident import (
    is_declaration_id,
    is_exchange_id,
    item_id,
    made_at_ms,
    new_exchange_id,
    random_bytes,
)

instants = st.integers(0, 2**48 - 1)


@given(instants, instants)
def test_ids_sort_by_their_millisecond(first: int, second: int) -> None:
    """An id of an earlier millisecond sorts first, whatever its random part is."""
    a, b = new_exchange_id(first), new_exchange_id(second)

    assert is_exchange_id(a)
    assert first == second or (first < second) is (a < b)


@given(instants)
def test_an_id_tells_its_millisecond(at_ms: int) -> None:
    """The first ten signs after `x-` are the time in Crockford's base 32."""
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    said = new_exchange_id(at_ms)[2:12]

    assert at_ms == sum(
        digits.index(sign) * 32 ** (9 - place) for place, sign in enumerate(said)
    )


def test_no_two_ids_are_alike() -> None:
    """Ten thousand ids of one millisecond are ten thousand."""
    assert 10_000 == len({new_exchange_id(1) for _ in range(10_000)})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x-",
        "x-" + "0" * 25,
        "x-" + "0" * 27,
        "x-" + "I" * 26,
        "x-" + "a" * 26,
        "y-" + "0" * 26,
        "X-" + "0" * 26,
        "x-" + "0" * 26 + "\n",
        "x-" + "٣" * 26,
    ],
)
def test_what_is_no_exchange_id_is_not_taken_for_one(text: str) -> None:
    """Shape is checked to the last sign."""
    assert not is_exchange_id(text)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("use-0123456789abcdef0123", True),
        ("use-0123456789ABCDEF0123", False),
        ("use-0123456789abcdef012", False),
        ("use-0123456789abcdef0123\n", False),
        ("", False),
    ],
)
def test_a_declaration_id_is_known_by_its_shape(
    text: str,
    is_one: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    """`use-` and twenty small hex digits, nothing else."""
    assert is_one is is_declaration_id(text)


def test_random_bytes_are_as_many_as_asked_for() -> None:
    """Salts and keys have the length that was asked for, and differ."""
    assert (16, 0) == (len(random_bytes(16)), len(random_bytes(0)))
    assert random_bytes(16) != random_bytes(16)


@pytest.mark.parametrize("now_ms", [0, 1, 1_790_000_000_123, (1 << 48) - 1])
def test_an_exchanges_id_says_when_it_began(now_ms: int) -> None:
    """Its first digits are the millisecond; an item's are those of its exchange."""
    exchange = new_exchange_id(now_ms)

    assert now_ms == made_at_ms(exchange)
    assert now_ms == made_at_ms(item_id(exchange, 7))

"""Laws of text with holes, for JSON of any shape."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.provider.spans import arrays_of, replaced, without

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
lists = st.dictionaries(st.text(), values | st.lists(values, max_size=6), max_size=4)


@given(lists, st.booleans(), st.sampled_from([None, 1]), st.data())
def test_only_what_goes_is_gone(
    value: dict[str, Any],
    ascii_: bool,  # noqa: FBT001  hypothesis hands over by place
    indent: int | None,
    data: st.DataObject,
) -> None:
    """What is left parses to the same value without the elements that went."""
    text = json.dumps(value, ensure_ascii=ascii_, indent=indent)
    arrays = arrays_of(text)
    going = {
        id(element.value)
        for array in arrays
        for element in array
        if isinstance(element.value, (dict, list)) and data.draw(st.booleans())
    }

    left = without(text, arrays, lambda one: id(one) in going)

    expected = {
        key: [one for place, one in enumerate(held) if id(found[place].value) not in going]
        if isinstance(held, list)
        else held
        for (key, held), found in zip(value.items(), _beside(value, arrays), strict=True)
    }
    assert expected == json.loads(left)


def _beside(value: dict[str, Any], arrays: list[list[Any]]) -> list[list[Any]]:
    """Return the array of each value that is one, and an empty one for the others."""
    rest = iter(arrays)
    return [next(rest) if isinstance(held, list) else [] for held in value.values()]


@given(values, st.text(min_size=1, max_size=4))
def test_replacing_nothing_changes_nothing(value: Any, key: str) -> None:
    """Text stays what it was, byte for byte, unless the function says otherwise."""
    text = json.dumps(value)

    assert text == replaced(text, key, lambda said: said)

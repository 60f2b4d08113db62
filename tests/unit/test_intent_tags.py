"""Laws of the names that callers give exchanges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MalformedDeclarationError
from gateway.intent.model import NAME
from gateway.intent.tags import parse_tags
from gateway.limits import TAGS_MAX

names = st.lists(st.from_regex(NAME, fullmatch=True), min_size=1, max_size=TAGS_MAX)


@given(names)
def test_names_between_commas_are_read_as_they_are_written(tags: list[str]) -> None:
    """What a caller writes is what stands on the receipt, in its order, each once."""
    once = tuple(dict.fromkeys(tags))

    assert once == parse_tags([" ,\t".join(tags)]) == parse_tags(tags)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=3))
def test_anything_else_is_refused(values: list[str]) -> None:
    """Whatever is read holds nothing but names; the rest is refused with one code."""
    try:
        tags = parse_tags(values)
    except MalformedDeclarationError as refused:
        code, tags = refused.problem, ()
    else:
        code = "tags.malformed"

    assert "tags.malformed" == code
    assert all(NAME.fullmatch(tag) for tag in tags)
    assert len(tags) <= TAGS_MAX


@pytest.mark.parametrize("value", ["", "a,", "a;b=1", "A", '"a"', "a b", "ü", "x" * 65])
def test_what_is_no_list_of_names_is_refused(value: str) -> None:
    """Parameters, quotes, capitals and empty places are no names."""
    with pytest.raises(MalformedDeclarationError):
        parse_tags([value])


def test_too_many_are_refused() -> None:
    """A receipt has room for sixteen."""
    with pytest.raises(MalformedDeclarationError):
        parse_tags([",".join(f"t{at}" for at in range(TAGS_MAX + 1))])

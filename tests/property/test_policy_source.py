"""Laws of the strict YAML reader for text that nobody thought of."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import MalformedPolicyError
from gateway.policy import source
from gateway.policy.model import WrittenPolicy, WrittenTerms
from gateway.policy.source import convert, plain, read

yaml_like = st.text(
    st.sampled_from([*"{}[]:,-?&*!|>'\"%#@`~<=\n \t\\", *"a0.xU", "é"]), max_size=60
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.integers(-(10**17), 10**17)
    | st.text(st.characters(codec="utf-8", max_codepoint=0xFFFF), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(string.ascii_letters, min_size=1, max_size=6), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
@given(text=st.text() | yaml_like)
@example(text='"\\UFFFFFFFF"')
@example(text="%YAML " + "1" * 5000 + ".1\n--- a")
@example(text="%TAG !a! %FF\n--- a")
@example(text="\ud800")
@example(text="a: 1" + "0" * 5000)
def test_any_text_is_a_value_or_one_error(loader: str, text: str) -> None:
    """Whatever is read, with either parser, gives a value or a `MalformedPolicyError`."""
    import yaml  # noqa: PLC0415 # the reader's own two parsers, to try both

    try:
        plain(source._read_with(getattr(yaml, loader), text, "f.yaml"))
    except MalformedPolicyError as error:
        refused = (error.line >= 1, "\n" not in str(error))
    else:
        refused = (True, True)

    assert refused == (True, True)


@given(values)
def test_json_is_read_as_what_it_says(value: Any) -> None:
    """A JSON document of text, whole numbers and null reads as itself."""
    if value is not None:
        assert value == plain(read(json.dumps(value), "f.yaml"))


@given(values)
def test_any_value_fits_a_schema_or_is_one_error(value: Any) -> None:
    """Whatever stands in a policy file converts or is refused with a line."""
    node = read(json.dumps(value), "f.yaml")
    for kind in (WrittenPolicy, WrittenTerms):
        with pytest.raises(MalformedPolicyError) as caught:
            convert(node, kind, "f.yaml")
        assert caught.value.line >= 1
        assert "\n" not in str(caught.value)

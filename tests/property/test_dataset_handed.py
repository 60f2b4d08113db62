"""Laws of rows as pipelines hand them in."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.canonical import canonical_json
from gateway.dataset.derivation.filed import _row
from gateway.dataset.derivation.handed import (
    KEYS,
    kind_of,
    line_of,
    pair_of,
    plain_row,
    read_line,
)
from gateway.dataset.shape import check_shape
from gateway.errors import GateRefusedError

texts = st.text(max_size=8)
users = st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": texts})
answers = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": texts}, optional={"name": texts}
)
calls = st.fixed_dictionaries(
    {
        "role": st.just("assistant"),
        "content": st.none() | texts,
        "tool_calls": st.just([{"id": "c", "type": "function", "function": {"name": "f"}}]),
    }
)
prompts = st.lists(users | answers | calls, max_size=3).flatmap(
    lambda said: users.map(lambda last: [*said, last])
)
tools = st.fixed_dictionaries({}, optional={"tools": st.just([{"type": "function"}])})
conversations = st.builds(
    lambda said, answer, more: {"messages": [*said, answer]} | more,
    prompts,
    answers | calls,
    tools,
)
pairs = st.builds(
    lambda said, sides, more: (
        {"prompt": said, "chosen": [sides[0]], "rejected": [sides[1]]} | more
    ),
    prompts,
    st.lists(answers, min_size=2, max_size=2, unique_by=canonical_json),
    tools,
)
asked = st.builds(
    lambda said, more: {"prompt": said, "verifier": "exact-match"} | more,
    prompts,
    st.fixed_dictionaries({}, optional={"answer": texts}),
)
rows = conversations | pairs | asked
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "tool", "other"]) | values,
        "content": values,
        "name": values,
        "tool_calls": values,
        "tool_call_id": values,
        "reasoning_content": values,
    },
)
anything = st.dictionaries(
    st.sampled_from(sorted(KEYS)) | texts, st.lists(messages, max_size=2) | values, max_size=4
)


@given(rows)
def test_a_row_is_written_in_one_way_that_gates_read(row: dict[str, Any]) -> None:
    """What a pipeline may record is canonical, comes back, and is of a kind that gates know."""
    kind, line = line_of(row)

    assert canonical_json(row) == line
    assert row == read_line(line)
    check_shape(line, kind)
    assert (kind, line) == line_of(dict(reversed(row.items())))


@given(rows, st.dictionaries(texts.filter(lambda key: key not in KEYS), values, max_size=2))
def test_columns_and_nulls_are_no_part_of_a_row(row: dict[str, Any], more: Any) -> None:
    """Whatever a table puts beside a row, or into its empty places, the row stays the same."""
    wide = {**dict.fromkeys(sorted(KEYS - row.keys())), **row, **more}
    for key in row.keys() & {"messages", "prompt", "chosen", "rejected"}:
        wide[key] = [{"name": None, "tool_calls": [], **one} for one in row[key]]

    assert row == plain_row(wide) == plain_row(row)


@settings(max_examples=100)
@given(anything)
def test_anything_else_is_refused_with_one_code(row: dict[str, Any]) -> None:
    """No value makes anything but a row that gates know, or a refusal."""
    try:
        kind, line = line_of(row)
    except GateRefusedError as refused:
        code = refused.problem
    else:
        code = "derive.row_malformed"
        check_shape(line, kind)

    assert "derive.row_malformed" == code


nothing = st.sampled_from([math.nan, math.inf, -math.inf])
# A whole number out of range is refused too, by its own name.
beside = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | texts
deep = st.recursive(
    nothing,
    lambda inner: (
        st.tuples(beside, inner)
        | st.lists(inner, min_size=1, max_size=2)
        | st.builds(lambda key, one: {key: one}, texts, inner)
    ),
    max_leaves=3,
)


@settings(max_examples=100)
@given(rows, deep)
@example({"messages": [{"role": "assistant", "content": "a"}]}, math.nan)
def test_what_is_no_number_is_no_part_of_a_row(row: dict[str, Any], value: Any) -> None:
    """NaN and Infinity have no form in JSON: they are refused, and not written as null."""
    for tool in ({"minimum": value}, {"any": [None, value]}):
        with pytest.raises(GateRefusedError, match="NaN or Infinity, which JSON has") as odd:
            line_of(row | {"tools": [tool]})
        assert odd.value.problem == "derive.row_malformed"


@pytest.mark.parametrize("said", ["NaN", "Infinity", "-Infinity"])
def test_a_line_with_what_is_no_number_says_so(said: str) -> None:
    """Many programs write it all the same; whoever reads the line is told what is wrong."""
    line = f'{{"messages": [], "tools": [{{"minimum": {said}}}]}}'

    assert "NaN or Infinity" in str(_row(line.encode()))
    assert "not JSON" in str(_row(line[:-1].encode()))
    assert "not JSON" in str(_row(b'{"messages": "NaN"'))


@given(conversations, answers)
def test_a_pair_is_made_of_two_answers_to_one_prompt(row: dict[str, Any], other: Any) -> None:
    """A pair holds the prompt once, and each answer as it was given."""
    rejected = {**row, "messages": [*row["messages"][:-1], other]}
    pair = pair_of(row, rejected)

    assert kind_of(pair) == "preference"
    assert row["messages"] == [*pair["prompt"], *pair["chosen"]]
    assert rejected["messages"] == [*pair["prompt"], *pair["rejected"]]
    with pytest.raises(GateRefusedError):
        pair_of(row, {"messages": [*row["messages"], other]})

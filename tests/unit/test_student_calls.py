"""Calls of tools are read where they are sound, and stay words where they aren't."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.student.calls import BEGIN, END, Holding, read_calls

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
]


def a_call(name: str = "look_up", **arguments: object) -> str:
    """Return a call as a student writes it."""
    return BEGIN + json.dumps({"name": name, "arguments": arguments}) + END


def test_a_call_at_the_end_is_read() -> None:
    """Words before calls stay words; each call has its tool and its arguments."""
    text = "Let me see.\n" + a_call(word="amber") + "\n" + a_call(word="birch")
    content, calls = read_calls(text, TOOLS)

    assert content == "Let me see."
    assert [json.loads(call.arguments) for call in calls] == [
        {"word": "amber"},
        {"word": "birch"},
    ]
    assert {call.name for call in calls} == {"look_up"}


def test_arguments_written_as_text_are_read_too() -> None:
    """A template may write the arguments as the text that a provider gave."""
    text = f'{BEGIN}{{"name": "look_up", "arguments": "{{\\"word\\": \\"x\\"}}"}}{END}'

    assert read_calls(text, TOOLS)[1][0].arguments == '{"word": "x"}'


@pytest.mark.parametrize(
    "text",
    [
        a_call("delete_everything"),
        a_call() + " and so on",
        BEGIN + '{"name": "look_up"' + END,
        BEGIN + '{"name": "look_up", "arguments": [1]}' + END,
        BEGIN + '{"name": "look_up", "arguments": "no json"}' + END,
        BEGIN + '{"name": 7}' + END,
        BEGIN + '["look_up"]' + END,
        a_call() + BEGIN,
        a_call() + a_call("delete_everything"),
        "no call at all",
    ],
)
def test_what_is_no_sound_call_stays_text(text: str) -> None:
    """A tool that was not offered, broken JSON and calls amid words are never run."""
    assert read_calls(text, TOOLS) == (text, ())


def test_without_tools_there_are_no_calls() -> None:
    """A caller that offered nothing is given words."""
    assert read_calls(a_call(), None) == (a_call(), ())
    assert read_calls(a_call(), []) == (a_call(), ())


@given(
    text=st.lists(
        st.sampled_from(["a ", "\n", BEGIN, END, "<", "<tool", a_call(), a_call("other"), "b"]),
        max_size=6,
    ).map("".join),
    cuts=st.lists(st.integers(0, 80), max_size=8),
)
def test_a_stream_adds_up_to_the_words(text: str, cuts: list[int]) -> None:
    """However the text comes in pieces, what is handed on is the content, whole and once."""
    told: list[str] = []
    holding = Holding(told.append)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    for first, stop in itertools.pairwise(places):
        holding.say(text[first:stop])
    before = "".join(told)
    content, calls = read_calls(text, TOOLS)
    holding.end(content)

    assert "".join(told) == content
    assert content.startswith(before)
    assert not calls or BEGIN not in before

"""The twin of `gateway.provider.dialect`."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway import limits
from gateway.errors import MalformedBodyError
from gateway.provider import dialect
from gateway.provider.model import Choice, Problem, ToolCall, UnteachableError


def nested(depth: int) -> bytes:
    """Return a JSON object that is *depth* levels deep."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_a_body_is_bounded_in_depth() -> None:
    """A body may be as deep as the limit and no deeper; its width is free."""
    wide = b'{"a":[' + b"{}," * 500 + b"{}]}"

    assert dialect.json_object(nested(limits.JSON_DEPTH_MAX)) is not None
    assert len(dialect.json_object(wide)["a"]) == 501
    with pytest.raises(MalformedBodyError, match="nested deeper than 200"):
        dialect.json_object(nested(limits.JSON_DEPTH_MAX + 1))


@pytest.mark.parametrize(
    ("body", "message"),
    [(b'{"a":', "not JSON"), (b"[]", "no object"), (b"[" * 5000, "not JSON")],
)
def test_a_body_that_is_no_object_says_so(body: bytes, message: str) -> None:
    """What can't be read is told with its place."""
    with pytest.raises(MalformedBodyError, match=message):
        dialect.json_object(body)


def test_a_text_is_a_text_or_nothing() -> None:
    """Where a body must hold text, anything else is the caller's to mend."""
    assert dialect.text_of({"model": "m"}, "model") == "m"
    assert dialect.text_of({}, "model") is None
    with pytest.raises(MalformedBodyError, match="`model` is not a text"):
        dialect.text_of({"model": 3}, "model")


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ({"type": "a", "code": "b"}, "a"),
        ({"type": "", "code": 3}, "3"),
        ({"type": ["a"], "status": "S"}, "S"),
        ({"type": "x" * 100}, "x" * 64),
        ({}, "error"),
        (None, "error"),
    ],
)
def test_an_error_has_a_name(error: object, name: str) -> None:
    """The provider's type counts, then its code, and there is always some name."""
    assert name == dialect.error_name(error)


@pytest.mark.parametrize(
    ("usage", "count"),
    [({"a": {"b": 3}}, 3), ({"a": 3}, None), ({"a": {"b": True}}, None), (None, None)]
    + [({"a": {"b": odd}}, None) for odd in (-1, 1 << 60, 1.5, "3")],
)
def test_a_count_is_a_plain_number(usage: object, count: int | None) -> None:
    """What is no plain count is no count."""
    assert count == dialect.count_of(usage, "a", "b")


def test_texts_are_joined_as_they_stand() -> None:
    """Text blocks become one text with nothing between them."""
    assert dialect.joined_text(None) == ""
    assert dialect.joined_text("a") == "a"
    assert dialect.joined_text([{"type": "text", "text": x} for x in "ab"]) == "ab"
    for odd in (3, [3], [{"type": "text", "text": 3}]):
        with pytest.raises(UnteachableError, match=r"row\.malformed"):
            dialect.joined_text(odd)
    with pytest.raises(UnteachableError, match=r"row\.refused"):
        dialect.joined_text([{"type": "refusal", "refusal": "no"}])
    with pytest.raises(UnteachableError, match=r"row\.not-text"):
        dialect.joined_text([{"type": "image"}])


def test_an_answer_is_a_message() -> None:
    """Words and calls are kept; calls without words have none."""
    call = ToolCall(id="a", name="f", arguments='{"x": 1}')
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    ]
    done = frozenset({"stop"})

    assert dialect.answer_message(Choice(index=0, text="hi", finish_reason="stop"), done) == {
        "role": "assistant",
        "content": "hi",
    }
    assert dialect.answer_message(
        Choice(index=0, tool_calls=(call,), finish_reason="stop"), done
    ) == {"role": "assistant", "content": None, "tool_calls": calls}


@pytest.mark.parametrize(
    ("choice", "code"),
    [
        (Choice(index=0, text="x", refusal="no", finish_reason="stop"), "row.refused"),
        (Choice(index=0, text="x", finish_reason="content_filter"), "row.filtered"),
        (Choice(index=0, text="x", finish_reason="length"), "row.truncated"),
        (Choice(index=0, text="\n", finish_reason="stop"), "row.empty"),
    ],
)
def test_an_answer_that_teaches_nothing_is_none(choice: Choice, code: str) -> None:
    """What is refused, filtered, cut off or empty has a stable code."""
    with pytest.raises(UnteachableError) as caught:
        dialect.answer_message(choice, frozenset({"stop"}))

    assert code == str(caught.value)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (ToolCall(id="srvtoolu_1", name="f", arguments="{}"), "row.server-tool"),
        (ToolCall(id="mcptoolu_1", name="f", arguments="{}"), "row.server-tool"),
        (ToolCall(id="", name="f", arguments="{}"), "row.malformed"),
        (ToolCall(id="a", name="", arguments="{}"), "row.malformed"),
        (ToolCall(id="a", name="f", arguments="{"), "row.malformed"),
    ],
)
def test_some_calls_teach_nothing(call: ToolCall, code: str) -> None:
    """A call of the provider's own, or one that can't be made, has no place in a row."""
    with pytest.raises(UnteachableError) as caught:
        dialect.call_in_row(call)

    assert code == str(caught.value)


def test_calls_have_json_or_free_text() -> None:
    """A function's empty arguments are an empty object; a custom tool's are what they are."""
    empty = ToolCall(id="a", name="f", arguments="")

    assert dialect.call_in_row(empty)["function"] == {"name": "f", "arguments": "{}"}
    assert dialect.call_in_row(empty, frozenset({"f"}))["custom"] == {"name": "f", "input": ""}


@pytest.mark.parametrize(
    ("last", "merged"),
    [
        ({"role": "assistant", "content": "I "}, [{"role": "assistant", "content": "I am"}]),
        ({"role": "assistant", "content": None}, [{"role": "assistant", "content": "am"}]),
    ],
)
def test_a_prefix_begins_the_answer(last: dict[str, Any], merged: list[Any]) -> None:
    """Words of the assistant at the end of a request become the answer's first."""
    messages = [last]
    dialect.continue_prefix(messages, {"role": "assistant", "content": "am"})

    assert merged == messages


def test_what_is_no_prefix_stays() -> None:
    """A user's words or a tool call before the answer are messages of their own."""
    lasts: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
    for last in lasts:
        messages = [last]
        dialect.continue_prefix(messages, {"role": "assistant", "content": "b"})

        assert messages == [last, {"role": "assistant", "content": "b"}]


def test_a_problem_is_told_in_one_sentence() -> None:
    """The sentence says what, why, under which clause, and the next move."""
    reasons: tuple[dict[str, str], ...] = (
        {
            "policy": "openai",
            "clause": "no-rival",
            "because": "Outputs may not\n develop rivals.",
            "change": "declare `competes=?0`.",
        },
        {"because": "It is late."},
        {},
        {"because": "never told"},
    )
    told = Problem(
        status=403,
        code="use.forbidden",
        message="not allowed.",
        exchange="x-1",
        reasons=reasons,
    )

    assert dialect.problem_sentence(told) == (
        "not allowed; because Outputs may not develop rivals. (openai/no-rival); It is late; "
        "what would change it: declare `competes=?0` [exchange x-1]"
    )
    assert dialect.problem_sentence(bare(told)) == "not allowed; next: ask legal"
    assert dialect.problem_sentence(Problem(status=403, code="a.b", message="no")) == "no"


def bare(problem: Problem) -> Problem:
    """Return *problem* without reasons and exchange, but with a next step."""
    return Problem(
        status=problem.status,
        code=problem.code,
        message=problem.message,
        next_step="ask\nlegal",
    )


def test_details_ride_along() -> None:
    """Code, exchange, reasons and next step are there for programs to read."""
    problem = Problem(
        status=403, code="a.b", message="c", exchange="x-1", reasons=({"clause": "d"},)
    )

    assert dialect.problem_details(problem) == {
        "code": "a.b",
        "exchange": "x-1",
        "reasons": [{"clause": "d"}],
        "next_step": None,
    }


def test_json_text_is_kept_as_sent() -> None:
    """Blanks and numbers of what is passed on as text are not touched."""
    assert dialect.raw_text(msgspec.Raw(b'{"a":  1.0}')) == '{"a":  1.0}'


@pytest.mark.parametrize(
    ("header", "token"), [("Bearer k", "k"), ("BEARER k", "k"), ("k", None), ("Bearer", None)]
)
def test_a_bearer_token_is_found(header: str, token: str | None) -> None:
    """Only the scheme `Bearer` carries a key, however it is written."""
    assert token == dialect.bearer_of({"authorization": header})

"""Rows in other forms: what is not named as lost is there, and what is there was not lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.canonical import canonical_json
from gateway.dataset.export.forms import FORMS, Form
from gateway.dataset.export.lost import LEFT_OUT, LOSSES, Lost
from gateway.dataset.export.parquet import RECEIPT_COLUMNS, Shard, read_shard
from gateway.receipt.model import RowKind

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)
ids = st.text("abc123", min_size=1, max_size=4)
calls = st.one_of(
    st.builds(
        lambda id_, name, given: {
            "id": id_,
            "type": "function",
            "function": {"name": name, "arguments": given},
        },
        ids,
        ids,
        st.sampled_from(["{}", '{"at": 1.0}', '{"to":"é"}', "[1]", "not json"]),
    ),
    st.builds(
        lambda id_, name, given: {
            "id": id_,
            "type": "custom",
            "custom": {"name": name, "input": given},
        },
        ids,
        ids,
        words,
    ),
)
system = st.builds(lambda said: {"role": "system", "content": said}, words)
user = st.builds(
    lambda said, name: {"role": "user", "content": said} | ({"name": name} if name else {}),
    words,
    st.none() | ids,
)
answer = st.builds(
    lambda said, thought: (
        {"role": "assistant", "content": said}
        | ({"reasoning_content": thought} if thought else {})
    ),
    words,
    st.none() | words,
)
calling = st.builds(
    lambda said, called: {"role": "assistant", "content": said, "tool_calls": called},
    st.none() | words,
    st.lists(calls, min_size=1, max_size=3),
)
result = st.builds(
    lambda said, id_: {"role": "tool", "content": said, "tool_call_id": id_}, words, ids
)
odd = st.sampled_from(
    [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "in parts"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "user", "content": "heavy", "weight": 0},
        {"role": "assistant", "content": ""},
    ]
)
tools = st.lists(
    st.sampled_from(
        [
            {"type": "function", "function": {"name": "add", "parameters": {"a": 1}}},
            {"type": "custom", "custom": {"name": "sql", "format": {"type": "text"}}},
            {"type": "function", "function": {"name": "odd"}, "strict": True},
            {"type": "function", "function": {"type": "name", "name": "wrapped"}},
            {"name": "bare"},
        ]
    ),
    max_size=2,
)
talks = st.lists(st.one_of(system, user, answer, calling, result, odd), max_size=6)
plain = st.lists(
    st.tuples(
        user.filter(lambda said: "name" not in said),
        st.builds(lambda said: {"role": "assistant", "content": said}, words),
    ),
    min_size=1,
    max_size=3,
)


def with_tools(row: dict[str, Any], defined: list[Any] | None) -> dict[str, Any]:
    """Return *row* with definitions of tools, where there are any."""
    return row if defined is None else row | {"tools": defined}


rows: dict[RowKind, st.SearchStrategy[dict[str, Any]]] = {
    "messages": st.builds(
        lambda talk, last, defined: with_tools({"messages": [*talk, last]}, defined),
        talks,
        answer | calling,
        st.none() | tools,
    ),
    "preference": st.builds(
        lambda talk, chosen, rejected, defined: with_tools(
            {"prompt": talk, "chosen": [chosen], "rejected": [rejected]}, defined
        ),
        talks.filter(bool),
        answer | calling,
        answer | calling,
        st.none() | tools,
    ),
    "prompt": st.builds(
        lambda talk, verifier, known: (
            {"prompt": talk, "verifier": verifier}
            | ({} if known is None else {"answer": known})
        ),
        talks.filter(bool),
        ids,
        st.none() | words | st.integers(0, 9) | st.lists(words, max_size=2),
    ),
}
shaped = [(form, kind) for form in FORMS.values() for kind in form.kinds]
shapes = pytest.mark.parametrize(
    ("form", "kind"), shaped, ids=[f"{form.name}-{kind}" for form, kind in shaped]
)


@shapes
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_row_that_names_no_loss_is_all_there(
    form: Form, kind: RowKind, data: st.DataObject
) -> None:
    """What was written without a loss gives the row again, byte for byte."""
    row = data.draw(rows[kind])

    converted = form.convert(row, kind)

    assert set(converted.lost) <= (LEFT_OUT if converted.row is None else LOSSES).keys()
    if converted.row is not None and not converted.lost:
        assert canonical_json(row) == canonical_json(form.restore(converted.row, kind))


@pytest.mark.parametrize(
    "name",
    ["openai", "prompt-completion", "trl-preference", "openai-preference", "prompt-only"],
)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_forms_with_whole_messages_lose_nothing(name: str, data: st.DataObject) -> None:
    """Whatever a row holds, the forms of OpenAI and TRL hold it."""
    (kind,) = FORMS[name].kinds

    assert () == FORMS[name].convert(data.draw(rows[kind]), kind).lost


@settings(max_examples=30, deadline=None)
@given(
    plain, st.none() | system, st.sampled_from([None, [], [{"type": "custom", "custom": {}}]])
)
def test_a_plain_talk_loses_nothing_as_turns(
    talk: list[tuple[Any, Any]], first: Any, defined: list[Any] | None
) -> None:
    """Turns that alternate are what ShareGPT is for, with a system and with tools."""
    said = [*([first] if first else []), *(message for pair in talk for message in pair)]
    row = with_tools({"messages": said}, defined)

    assert () == FORMS["sharegpt"].convert(row, "messages").lost


@settings(max_examples=30, deadline=None)
@given(plain, st.none() | system)
def test_one_question_loses_nothing_as_one(talk: list[tuple[Any, Any]], first: Any) -> None:
    """Alpaca holds one question and its answer; of more, it says that they are gone."""
    said = [*([first] if first else []), *(message for pair in talk for message in pair)]
    converted = FORMS["alpaca"].convert({"messages": said}, "messages")

    assert (() if len(talk) == 1 else ("earlier-turns",)) == converted.lost
    assert converted.row is not None
    assert talk[-1][0]["content"] == converted.row["instruction"]
    assert talk[-1][1]["content"] == converted.row["output"]


def kept_words(value: Any) -> str:
    """Return every text in *value*, one after the other."""
    match value:
        case str():
            return value
        case dict():
            return "\n".join(map(kept_words, value.values()))
        case list():
            return "\n".join(map(kept_words, value))
        case _:
            return ""


GONE = {
    "calls-unanswered",
    "earlier-turns",
    "not-text",
    "message-keys",
    "tool-turns",
    "words-beside-calls",
}


@pytest.mark.parametrize("name", ["sharegpt", "alpaca", "parquet"])
@settings(max_examples=30, deadline=None)
@given(row=rows["messages"])
def test_no_word_is_gone_that_is_not_named(name: str, row: dict[str, Any]) -> None:
    """Where no loss says that words are gone, all words stand in what was written."""
    converted = FORMS[name].convert(row, "messages")
    if converted.row is None or GONE & set(converted.lost):
        return

    there = kept_words(converted.row)
    for message in row["messages"]:
        content = message["content"]
        said = content if isinstance(content, str) else ""
        assert said in there


@settings(max_examples=30, deadline=None)
@given(row=rows["messages"])
def test_sides_alternate_and_the_answer_is_last(row: dict[str, Any]) -> None:
    """Readers of turns drop a talk whose sides don't take turns; none is written."""
    converted = FORMS["sharegpt"].convert(row, "messages")

    assert converted.row is not None
    who = [turn["from"] for turn in converted.row["conversations"]]
    spoken = who[1:] if who[0] == "system" else who
    assert all(one in {"human", "observation"} for one in spoken[::2])
    assert all(one in {"gpt", "function_call"} for one in spoken[1::2])
    assert 0 == len(spoken) % 2
    called = "tool_calls" in row["messages"][-1]
    assert ("function_call" if called else "gpt") == spoken[-1]


def has(row: dict[str, Any], name: str) -> bool:
    """Tell whether a message of *row* has something under *name*."""
    return any(message.get(name) for message in row["messages"])


def is_of_tools(message: dict[str, Any]) -> bool:
    """Tell whether *message* calls a tool, or is what one gave."""
    return message["role"] == "tool" or "tool_calls" in message


@settings(max_examples=60, deadline=None)
@given(row=rows["messages"])
def test_turns_name_what_they_lost_and_nothing_else(row: dict[str, Any]) -> None:
    """A loss is named exactly where the row held what turns have no place for."""
    messages = row["messages"]
    called = [call for message in messages for call in message.get("tool_calls", ())]
    systems = [
        at for at, said in enumerate(messages) if said["role"] in {"system", "developer"}
    ]

    lost = set(FORMS["sharegpt"].convert(row, "messages").lost)

    assert has(row, "name") is ("names" in lost)
    assert has(row, "reasoning_content") is ("reasoning" in lost)
    assert (bool(called) or has(row, "tool_call_id")) is ("call-ids" in lost)
    assert any("custom" in call for call in called) is ("custom-calls" in lost)
    assert any("weight" in message for message in messages) is ("message-keys" in lost)
    assert any(isinstance(said["content"], list) for said in messages) is ("parts" in lost)
    assert any(said["role"] == "developer" for said in messages) is ("roles" in lost)
    assert any(at > 0 for at in systems) is ("system-moved" in lost)


@settings(max_examples=60, deadline=None)
@given(row=rows["messages"])
def test_a_question_names_what_it_lost_and_nothing_else(row: dict[str, Any]) -> None:
    """What stood around the last question is named as lost exactly where there was any."""
    *before, answer = row["messages"]
    asked = [at for at, said in enumerate(before) if said["role"] == "user"]
    converted = FORMS["alpaca"].convert(row, "messages")
    if converted.row is None:
        assert converted.lost == (
            ("answer-is-a-call",) if "tool_calls" in answer else ("no-question",)
        )
        assert "tool_calls" in answer or not asked
        return

    first = 1 if before[0]["role"] == "system" else 0
    others = [said for at, said in enumerate(before) if at >= first and at != asked[-1]]
    lost = set(converted.lost)
    assert any(map(is_of_tools, others)) is ("tool-turns" in lost)
    assert (not all(map(is_of_tools, others))) is ("earlier-turns" in lost)
    assert bool(row.get("tools")) is ("tools" in lost)


LOSSY: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "names": ("sharegpt", [{"role": "user", "content": "a", "name": "ada"}]),
    "reasoning": (
        "sharegpt",
        [{"role": "assistant", "content": "a", "reasoning_content": "b"}],
    ),
    "system-moved": (
        "sharegpt",
        [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}],
    ),
    "turns-joined": ("sharegpt", [{"role": "user", "content": "a"}] * 2),
    "turn-added": ("sharegpt", []),
    "roles": ("sharegpt", [{"role": "critic", "content": "a"}]),
    "parts": ("parquet", [{"role": "user", "content": [{"type": "text", "text": "a"}]}]),
    "not-text": ("parquet", [{"role": "user", "content": [{"type": "image"}]}]),
    "message-keys": ("parquet", [{"role": "user", "content": "a", "weight": 1}]),
    "form": ("parquet", [{"role": "user"}]),
}


@pytest.mark.parametrize("loss", LOSSY)
def test_each_loss_is_named_where_it_happens(loss: str) -> None:
    """A message that a form can't hold is told by the name of what it loses."""
    name, before = LOSSY[loss]
    row = {"messages": [*before, {"role": "assistant", "content": "z"}]}

    assert loss in FORMS[name].convert(row, "messages").lost


def test_calls_made_at_once_are_told() -> None:
    """Parallel calls stand together, their results as one, and the ids of both are gone."""
    called = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1.0}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    row = {
        "messages": [
            {"role": "user", "content": "both"},
            {"role": "assistant", "content": None, "tool_calls": called},
            {"role": "tool", "content": "1", "tool_call_id": "a"},
            {"role": "tool", "content": "2", "tool_call_id": "b"},
            {"role": "assistant", "content": "3"},
        ]
    }
    converted = FORMS["sharegpt"].convert(row, "messages")

    assert ("call-ids", "parallel-results") == converted.lost
    assert converted.row is not None
    assert [
        {"from": "human", "value": "both"},
        {
            "from": "function_call",
            "value": '[{"name": "f", "arguments": {"x": 1.0}}, {"name": "g", "arguments": {}}]',
        },
        {"from": "observation", "value": "1\n\n2"},
        {"from": "gpt", "value": "3"},
    ] == converted.row["conversations"]


def test_what_alpaca_has_no_place_for_is_left_out() -> None:
    """An answer that is a call, and an answer to nobody, are no rows in words alone."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = {"role": "user", "content": "do"}
    calling_row = {
        "messages": [asked, {"role": "assistant", "content": None, "tool_calls": [call]}]
    }
    unasked = {"messages": [{"role": "assistant", "content": "hello"}]}

    convert = FORMS["alpaca"].convert
    assert (None, ("answer-is-a-call",)) == (
        convert(calling_row, "messages").row,
        convert(calling_row, "messages").lost,
    )
    assert ("no-question",) == convert(unasked, "messages").lost


def test_losses_are_counted_with_their_first_rows() -> None:
    """The report counts each loss, lists a bounded number of rows, and says what it means."""
    lost = Lost()
    for number in range(30):
        said = [{"role": "user", "content": "a", "name": "ada"}]
        row = {"messages": [*said, {"role": "assistant", "content": "b"}]}
        lost.add(number, FORMS["sharegpt"].convert(row, "messages"))

    report = lost.report(30)

    assert 30 == report["lossy"]
    assert 30 == report["lost"]["names"]["rows"]
    assert list(range(20)) == report["lost"]["names"]["first"]
    assert LOSSES["names"] == report["lost"]["names"]["means"]


@pytest.mark.parametrize("kind", rows)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_columns_are_read_as_they_were_written(
    kind: RowKind, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A file of columns gives every row again, whatever the others hold; its schema is one."""
    drawn = data.draw(st.lists(rows[kind], min_size=1, max_size=4))
    path: Path = tmp_path_factory.mktemp("shard") / "train.parquet"
    receipt = dict.fromkeys(RECEIPT_COLUMNS, "x") | {"receipt_index": 7}
    written = [FORMS["parquet"].convert(row, kind).row for row in drawn]

    shard = Shard(path, kind, "a" * 64)
    for row in written:
        assert row is not None
        shard.add(row | receipt, 100)
    shard.close()

    assert [row | receipt for row in written if row is not None] == list(read_shard(path))

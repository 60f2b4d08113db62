"""The twin of `gateway.provider.anthropic` beyond words: other blocks, batches, what is kept.

Shapes are those of Anthropic's public reference: "Messages", "Streaming messages", "Errors",
"Create a Text Completion", "Message Batches", "Files", "Code execution tool", "Compaction",
"Refusals and fallback" (https://platform.claude.com/docs/en/api).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.canonical import sha256_hex
from gateway.provider.anthropic.dialect import AnthropicDialect
from gateway.provider.anthropic.messages import json_object
from gateway.provider.model import (
    Answer,
    Choice,
    Made,
    Operation,
    ProviderCall,
    Resource,
    Unit,
    UnteachableError,
    Usage,
)
from gateway.provider.readers import NonsenseError
from gateway.provider.units import json_unit
from tests.support.recordings import anthropic_call, event

DIALECT = AnthropicDialect()
OPAQUE = Answer(readable=False, whole=False)
TOLD = Answer(readable=True, whole=True)
RESULT = {
    "type": "code_execution_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": {
        "type": "code_execution_result",
        "stdout": "42\n",
        "stderr": "",
        "return_code": 0,
        "content": [{"type": "code_execution_output", "file_id": "file_9"}],
    },
}
UPLOADED = {"type": "container_upload", "file_id": "file_8"}
COMPACTED = {"type": "compaction", "content": "so far: nothing", "encrypted_content": "xyz"}
FELL_BACK = {
    "type": "fallback",
    "from": {"model": "c-x"},
    "to": {"model": "c-y-20260801"},
    "trigger": {"type": "refusal", "category": "bio"},
}
STRANGE = {"type": "brand_new", "whatever": [1]}
CITED = {"type": "char_location", "cited_text": "a", "document_index": 0}


def call_of(method: str, path: str, **asked: Any) -> ProviderCall:
    """Return what is asked on a route, with a body."""
    body = json.dumps(asked).encode()
    return DIALECT.read_request("anthropic", DIALECT.found(method, path), "", body)


def read(call: ProviderCall, *pieces: bytes, status: int = 200, kind: str = "json") -> Answer:
    """Return what is read of an answer that comes in *pieces*."""
    reader = DIALECT.answer_reader(call, status, kind)
    for piece in pieces:
        reader.feed(piece)
    return reader.finish()


def said(*blocks: dict[str, Any], stop: str = "end_turn", **more: Any) -> Answer:
    """Return what is read of a whole message that holds *blocks*."""
    body = {"id": "msg_1", "type": "message", "model": "c-x", "content": list(blocks)}
    return read(anthropic_call(), json.dumps(body | {"stop_reason": stop} | more).encode())


def streamed(*blocks: tuple[dict[str, Any], list[dict[str, Any]]], **ending: Any) -> Answer:
    """Return what is read of a stream of blocks, each with its deltas."""
    start = {"id": "msg_1", "type": "message", "model": "c-x", "content": []}
    pieces = [event("message_start", message=start)]
    for index, (block, deltas) in enumerate(blocks):
        pieces.append(event("content_block_start", index=index, content_block=block))
        pieces += [event("content_block_delta", index=index, delta=delta) for delta in deltas]
        pieces.append(event("content_block_stop", index=index))
    pieces.append(event("message_delta", delta={"stop_reason": "end_turn"} | ending))
    pieces.append(event("message_stop"))
    return read(anthropic_call(stream=True), *pieces, kind="text/event-stream")


def made(*resources: tuple[str, str]) -> tuple[Made, ...]:
    """Return that *resources* were made."""
    return tuple(Made(resource=Resource(kind, id_)) for kind, id_ in resources)


@pytest.mark.parametrize(
    ("block", "unit"),
    [
        (RESULT, json_unit("tool-result", 0, RESULT)),
        (UPLOADED, json_unit("other", 0, UPLOADED)),
        (COMPACTED, json_unit("other", 0, COMPACTED)),
        (FELL_BACK, json_unit("other", 0, FELL_BACK)),
        (STRANGE, json_unit("other", 0, STRANGE)),
        ({}, json_unit("other", 0, {})),
    ],
)
def test_every_block_is_a_unit(block: dict[str, Any], unit: Unit) -> None:
    """A block that is neither words nor a call has the digest of its JSON, and no row."""
    answer = said({"type": "text", "text": "hi"}, block)
    again = streamed(({"type": "text", "text": "hi"}, []), (block, []))

    assert answer.choices[0].others == again.choices[0].others == (unit,)
    with pytest.raises(UnteachableError):
        DIALECT.row_of(anthropic_call(), answer.choices[0])


def test_a_block_that_grows_is_what_it_would_have_been_whole() -> None:
    """Deltas of a block that nobody here can read are put together as the SDKs do it."""
    grown = streamed(
        (
            {"type": "compaction", "content": None},
            [
                {"type": "compaction_delta", "content": "so far: "},
                {"type": "compaction_delta", "content": "nothing", "encrypted_content": None},
                {"type": "compaction_delta", "encrypted_content": "xyz"},
            ],
        ),
        (
            {"type": "new_tool_use", "id": "n", "input": {}},
            [
                {"type": "input_json_delta", "partial_json": '{"a": '},
                {"type": "input_json_delta", "partial_json": "1}"},
            ],
        ),
    )
    broken = read(
        anthropic_call(stream=True),
        event("content_block_start", index=0, content_block={"type": "new_tool_use"}),
        event(
            "content_block_delta",
            index=0,
            delta={"type": "input_json_delta", "partial_json": '{"a'},
        ),
        kind="text/event-stream",
    )

    assert grown.choices[0].others == (
        json_unit("other", 0, COMPACTED),
        json_unit("other", 0, {"type": "new_tool_use", "id": "n", "input": {"a": 1}}),
    )
    assert broken.choices[0].others == (
        json_unit("other", 0, {"type": "new_tool_use", "input": '{"a'}),
    )


def test_a_delta_that_nobody_knows_is_listed() -> None:
    """Of a text whose delta is new, the text is read and the delta has its digest."""
    delta = {"type": "glow_delta", "glow": 3}
    lost = read(
        anthropic_call(stream=True),
        event("content_block_delta", index=4, delta=delta),
        kind="text/event-stream",
    )
    answer = streamed(
        ({"type": "text", "text": "a"}, [delta, {"type": "text_delta", "text": "b"}])
    )

    assert answer.choices[0].text == "ab"
    assert answer.choices[0].others == (json_unit("other", 0, [delta]),)
    assert lost.choices[0].others == (json_unit("other", 0, {"type": "unknown", "glow": 3}),)


def test_an_event_that_nobody_knows_waits_and_is_listed() -> None:
    """It may carry anything, so it goes out with the receipt, which has its digest."""
    strange = event("brand_new", said="x")
    reader = DIALECT.answer_reader(anthropic_call(stream=True), 200, "text/event-stream")
    went = [reader.feed(event("ping")), reader.feed(strange), reader.feed(event("ping"))]
    answer = reader.finish()

    assert went == [len(event("ping"))] * 3
    assert answer.units == (json_unit("other", 0, {"type": "brand_new", "said": "x"}),)


def test_citations_are_noted_beside_the_text() -> None:
    """What a text rests on is listed, and a row has the text alone."""
    whole = said({"type": "text", "text": "a", "citations": [CITED]})
    pieces = streamed(
        (
            {"type": "text", "text": "", "citations": []},
            [
                {"type": "citations_delta", "citation": CITED},
                {"type": "text_delta", "text": "a"},
            ],
        )
    )

    assert whole.units == pieces.units == (json_unit("other", 0, [CITED]),)
    row = DIALECT.row_of(anthropic_call(), whole.choices[0])
    assert row["messages"][-1] == {"role": "assistant", "content": "a"}


def test_what_was_made_on_the_way_belongs_to_the_caller() -> None:
    """Files that a tool wrote, and the container that it ran in, are told of."""
    container = {"id": "container_1", "expires_at": "2026-11-22T00:00:00Z"}
    expected = made(("file", "file_9"), ("file", "file_8"), ("container", "container_1"))

    assert set(said(RESULT, UPLOADED, container=container).made) == set(expected)
    assert streamed((RESULT, []), (UPLOADED, []), container=container).made == expected
    assert said(RESULT, container={"id": 3}).made == made(("file", "file_9"))


def test_a_conversation_that_is_kept_there_can_be_gone_on_from_by_its_owner() -> None:
    """An answer that starts a thread is a resource; one that goes on from it has no row."""
    body = json.dumps({"id": "msg_7", "content": [], "stop_reason": "end_turn"}).encode()
    begun = anthropic_call(thread={"type": "create"})
    goes_on = anthropic_call(thread={"type": "continue", "previous_message_id": "msg_7"})
    start = event("message_start", message={"id": "msg_7", "content": []})

    assert read(begun, body).made == made(("message", "msg_7"))
    stream = anthropic_call(thread={"type": "create"}, stream=True)
    assert read(stream, start, kind="event-stream").made == made(("message", "msg_7"))
    assert goes_on.uses == (Resource("message", "msg_7"),)
    with pytest.raises(UnteachableError, match=r"row\.not-whole-prompt"):
        DIALECT.row_of(goes_on, Choice(index=0, text="a", finish_reason="end_turn"))


def test_tokens_that_the_counters_leave_out_are_counted() -> None:
    """Compacting the context and asking an advisor cost tokens of their own."""
    beside = {"input_tokens": 100, "cache_read_input_tokens": 20, "output_tokens": 10}
    usage = {
        "input_tokens": 5,
        "output_tokens": 2,
        "iterations": [
            {"type": "message", "input_tokens": 5, "output_tokens": 2},
            {"type": "compaction"} | beside,
            {"type": "advisor_message"} | beside,
            3,
        ],
    }

    assert said(usage=usage).usage == Usage(
        input_tokens=245, output_tokens=22, cached_input_tokens=40
    )
    assert said(usage=usage | {"iterations": 3}).usage == Usage(input_tokens=5, output_tokens=2)


def test_the_model_that_took_over_is_the_one_that_answered() -> None:
    """Where another model goes on in the same answer, it is the reported one."""
    assert said(FELL_BACK).model == "c-y-20260801"
    assert said({"type": "fallback", "to": 3}).model == "c-x"


@pytest.mark.parametrize(
    ("details", "error", "refusal"),
    [
        ({"type": "refusal", "category": "cyber", "explanation": "no"}, "cyber", "no"),
        ({"type": "refusal", "category": None, "explanation": None}, None, None),
        ("odd", None, None),
    ],
)
def test_a_refusal_says_its_category(
    details: object, error: str | None, refusal: str | None
) -> None:
    """A refusal is a stop, by the category that Anthropic gives it."""
    whole = said({"type": "text", "text": "I"}, stop="refusal", stop_details=details)
    pieces = streamed(
        ({"type": "text", "text": "I"}, []), stop_reason="refusal", stop_details=details
    )

    for answer in (whole, pieces):
        assert (answer.stop, answer.error, answer.whole) == ("refusal", error, True)
        assert answer.choices[0].refusal == refusal


@pytest.mark.parametrize(
    "reason", ["pause_turn", "model_context_window_exceeded", "compaction"]
)
def test_an_answer_that_is_not_all_there_has_no_row(reason: str) -> None:
    """Only an ordinary end makes a row, and none of these is one or a stop."""
    answer = said({"type": "text", "text": "I"}, stop=reason)

    assert answer.whole
    assert answer.stop is None
    with pytest.raises(UnteachableError, match=r"row\.truncated"):
        DIALECT.row_of(anthropic_call(), answer.choices[0])


@pytest.mark.parametrize(
    ("status", "error", "stop"),
    [
        (429, {"type": "rate_limit_error", "message": "slow"}, "rate-limit"),
        (402, {"type": "billing_error", "message": "pay"}, "quota"),
        (529, {"type": "overloaded_error", "message": "Overloaded"}, None),
        (
            400,
            {
                "type": "invalid_request_error",
                "message": "Your credit balance is too low to access the Anthropic API.",
            },
            "quota",
        ),
        (
            400,
            {
                "type": "invalid_request_error",
                "message": "Output blocked by content filtering policy",
            },
            "policy",
        ),
        (400, {"type": "invalid_request_error", "message": 3}, None),
    ],
)
def test_an_error_may_be_a_stop(status: int, error: dict[str, Any], stop: str | None) -> None:
    """The account's limits and the usage policy stop a caller; busy servers do not."""
    body = json.dumps({"type": "error", "error": error}).encode()

    for call in (anthropic_call(), call_of("POST", "/v1/messages/batches")):
        answer = read(call, body, status=status)
        assert (answer.error, answer.stop) == (error["type"], stop)
    assert read(anthropic_call(), body).stop == stop
    late = read(anthropic_call(stream=True), event("error", error=error), kind="event-stream")
    assert (late.error, late.stop, late.whole) == (error["type"], stop, False)


def test_an_error_of_no_shape_is_one_all_the_same() -> None:
    """An error inside a stream that says nothing still ends it unfinished."""
    late = read(anthropic_call(stream=True), event("error"), kind="event-stream")

    assert (late.error, late.stop, late.whole) == ("error", None, False)
    assert read(anthropic_call(), b'{"error": "odd"}', status=500).error == "error"


@pytest.mark.parametrize(
    ("asked", "uses"),
    [
        ({"container": "container_1"}, [("container", "container_1")]),
        (
            {
                "container": {
                    "id": "container_1",
                    "skills": [
                        {"type": "custom", "skill_id": "skill_1"},
                        {"type": "anthropic", "skill_id": "pdf"},
                        {"type": "custom"},
                        3,
                    ],
                }
            },
            [("container", "container_1"), ("skill", "skill_1")],
        ),
        ({"container": {"id": None, "skills": None}}, []),
        ({"container": 3, "thread": {"type": "create"}}, []),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image", "source": {"type": "file", "file_id": "f1"}},
                            {"type": "document", "source": {"type": "file", "file_id": "f2"}},
                            {"type": "container_upload", "file_id": "f1"},
                            {"type": "text", "text": "file_id"},
                            {"type": "image", "source": {"file_id": 3}},
                        ],
                    }
                ]
            },
            [("file", "f1"), ("file", "f2")],
        ),
    ],
)
def test_what_a_request_uses_is_named(
    asked: dict[str, Any], uses: list[tuple[str, str]]
) -> None:
    """Files, containers and skills of a request must belong to who asks."""
    assert anthropic_call(**asked).uses == tuple(Resource(*one) for one in uses)


@pytest.mark.parametrize(
    ("listed", "models"),
    [
        (None, ()),
        ([], ()),
        ("default", (None,)),
        ([{"model": "c-y"}, {"model": "c-y"}, {"model": 3}, 4], ("c-y", None)),
        ([{"model": "c-y"}] * 100, (None,)),
    ],
)
def test_models_that_may_take_over_are_known(
    listed: object, models: tuple[str | None, ...]
) -> None:
    """A list that can't be read means that any model may answer."""
    assert anthropic_call(fallbacks=listed).fallbacks == models


def test_the_providers_own_tools_are_features() -> None:
    """A search and servers of tools are seen in the request."""
    web = {"type": "web_search_20250305", "name": "web_search"}

    assert anthropic_call(tools=[web]).features == {"tools", "grounding"}
    assert anthropic_call(mcp_servers=[{"url": "https://a.example"}]).features == {"tools"}


# -- older completions ------------------------------------------------------------------------

PROMPT = "Be brief.\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: Bye\n\nAssistant:"


def completion(**more: Any) -> dict[str, Any]:
    """Return a completion's body, or one event of it."""
    return {"type": "completion", "id": "compl_1", "model": "c-2", "stop": None} | more


def test_an_older_completion_is_read() -> None:
    """Whole or streamed, it is one text."""
    call = call_of("POST", "/v1/complete", model="c-2", prompt=PROMPT)
    stream = call_of("POST", "/v1/complete", model="c-2", prompt=PROMPT, stream=True)
    whole = completion(completion=" Bye!", stop_reason="stop_sequence")
    pieces = [
        event("completion", **completion(completion=" Bye", stop_reason=None)),
        event("ping"),
        event("completion", **completion(completion="!", stop_reason=None)),
        event("completion", **completion(completion="", stop_reason="stop_sequence")),
    ]
    choice = Choice(index=0, text=" Bye!", finish_reason="stop_sequence")
    expected = Answer(readable=True, whole=True, id="compl_1", model="c-2", choices=(choice,))

    assert call.operation is Operation.COMPLETION
    assert read(call, json.dumps(whole).encode()) == expected
    assert read(stream, *pieces, kind="text/event-stream") == expected
    assert not read(stream, *pieces[:3], kind="text/event-stream").whole
    assert DIALECT.row_of(call, choice) == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "Bye"},
            {"role": "assistant", "content": " Bye!"},
        ]
    }


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        (3, "row.malformed"),
        ("hello", "row.no-messages"),
        ("\n\nAssistant:", "row.no-messages"),
    ],
)
def test_some_older_prompts_have_no_row(prompt: object, code: str) -> None:
    """A prompt without turns is no conversation."""
    call = call_of("POST", "/v1/complete", model="c-2", prompt=prompt)
    choice = Choice(index=0, text="x", finish_reason="stop_sequence")

    with pytest.raises(UnteachableError, match=code.replace(".", r"\.")):
        DIALECT.row_of(call, choice)


def test_an_older_completion_may_go_wrong() -> None:
    """Errors, refusals and nonsense are what they are for messages."""
    call = call_of("POST", "/v1/complete", model="c-2", prompt=PROMPT)
    stream = call_of("POST", "/v1/complete", model="c-2", prompt=PROMPT, stream=True)
    error = {"type": "overloaded_error"}

    assert read(call, b"{}") == read(call, b"[") == OPAQUE
    assert read(call, json.dumps({"type": "error", "error": error}).encode()) == Answer(
        readable=True, whole=True, error="overloaded_error"
    )
    late = read(stream, event("error", error=error), kind="event-stream")
    assert (late.error, late.whole) == ("overloaded_error", False)
    refused = completion(completion="", stop_reason="refusal")
    assert read(call, json.dumps(refused).encode()).stop == "refusal"


# -- what is kept -----------------------------------------------------------------------------

BATCH = {"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress"}


def test_a_batch_that_was_made_belongs_to_the_caller() -> None:
    """Its answers are still to come."""
    answer = read(call_of("POST", "/v1/messages/batches"), json.dumps(BATCH).encode())

    assert answer == Answer(
        readable=True,
        whole=True,
        id="msgbatch_1",
        pending=True,
        made=made(("batch", "msgbatch_1")),
    )


@pytest.mark.parametrize(
    ("method", "tail", "body", "pending"),
    [
        ("GET", "", BATCH, True),
        ("GET", "", BATCH | {"processing_status": "ended"}, False),
        ("POST", "/cancel", BATCH | {"processing_status": "canceling"}, True),
        ("DELETE", "", {"id": "msgbatch_1", "type": "message_batch_deleted"}, False),
    ],
)
def test_a_batch_says_whether_it_has_ended(
    method: str,
    tail: str,
    body: dict[str, Any],
    pending: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    """Looking at a batch makes nothing and gives it to nobody."""
    call = call_of(method, "/v1/messages/batches/msgbatch_1" + tail)

    assert read(call, json.dumps(body).encode()) == Answer(
        readable=True, whole=True, id="msgbatch_1", pending=pending
    )


@pytest.mark.parametrize(
    "path", ["/v1/messages/batches/msgbatch_1/results", "/v1/files/file_1/content"]
)
def test_what_is_fetched_is_one_unit(path: str) -> None:
    """Bytes that were made before have their digest as they pass."""
    unit = Unit(kind="other", index=0, bytes=4, sha256=sha256_hex(b"abcd"))

    assert read(call_of("GET", path), b"ab", b"cd", kind="x") == Answer(
        readable=True, whole=True, units=(unit,)
    )


@pytest.mark.parametrize(
    ("method", "path", "body", "answer"),
    [
        (
            "POST",
            "/v1/files",
            {"id": "file_1", "type": "file"},
            Answer(readable=True, whole=True, made=made(("file", "file_1"))),
        ),
        ("GET", "/v1/files", {"data": [{"id": "file_1"}]}, TOLD),
        ("DELETE", "/v1/files/file_1", {"id": "file_1", "type": "file_deleted"}, TOLD),
        ("GET", "/v1/messages/batches", {"data": [BATCH]}, TOLD),
        ("GET", "/v1/models", {"data": []}, TOLD),
        ("POST", "/v1/messages/count_tokens", {"input_tokens": 3}, TOLD),
        ("POST", "/v1/messages/count_tokens", [3], OPAQUE),
        ("POST", "/v1/files", {"id": 3}, OPAQUE),
        (
            "POST",
            "/v1/skills",
            {"id": "skill_1"},
            Answer(readable=False, whole=False, made=made(("skill", "skill_1"))),
        ),
        (
            "POST",
            "/v1/memory_stores",
            {"id": "memstore_1"},
            Answer(readable=False, whole=False, made=made(("memory-store", "memstore_1"))),
        ),
        ("GET", "/v1/skills", {"data": [{"id": "skill_1"}]}, OPAQUE),
        ("POST", "/v1/skills/skill_1/versions", {"id": "skver_1"}, OPAQUE),
        ("POST", "/v1/organizations/invites", {"id": "invite_1"}, OPAQUE),
    ],
)
def test_only_who_makes_a_thing_owns_it(
    method: str, path: str, body: object, answer: Answer
) -> None:
    """What a request made is told of; what it lists, tells or changes is not."""
    assert read(call_of(method, path), json.dumps(body).encode()) == answer


def test_what_can_not_be_read_passes() -> None:
    """Of opaque answers nothing waits but the newest chunk, and errors are not read either."""
    call = call_of("POST", "/v1/sessions")
    reader = DIALECT.answer_reader(call, 200, "text/event-stream")

    assert [reader.feed(b"ab"), reader.feed(b"cd")] == [0, 2]
    assert read(call, b'{"id": "s"}', status=500) == OPAQUE
    unasked = ProviderCall(provider="anthropic", operation=Operation.OPAQUE)
    assert read(unasked, b'{"id": "s"}') == OPAQUE


def test_a_block_without_a_canonical_form_makes_an_answer_unreadable() -> None:
    """What is nested too deep to be digested is passed on and never trained on."""
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    block = {"type": "brand_new", "deep": deep}

    assert said(block) == OPAQUE
    assert not streamed((block, [])).readable
    assert not streamed((STRANGE, [{"type": "new_delta", "deep": deep}])).readable
    assert said({"type": "brand_new", "new": "\ud800"}) == OPAQUE


def test_what_only_one_decoder_reads_is_nonsense() -> None:
    """A block that can be looked at from outside may still be none inside."""
    assert json_object(b'{"a": 1}') == {"a": 1}
    with pytest.raises(NonsenseError):
        json_object(b'{"a": ')


@pytest.mark.parametrize("raw", [b'{"type": "new", "a": "\\ud800"}', b'{"type": "new"'])
def test_an_event_that_is_no_json_is_nonsense(raw: bytes) -> None:
    """A new kind of event is listed by its JSON, so it must be some."""
    stream = anthropic_call(stream=True)

    assert not read(stream, b"data: " + raw + b"\n\n", kind="text/event-stream").readable

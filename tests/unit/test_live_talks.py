"""Laws of what is made of the messages in sessions; the sessions themselves run elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import MalformedBodyError
from gateway.live.gemini import GeminiTalk
from gateway.live.handshake import (
    Kind,
    asks_for_websocket,
    inflations,
    kind_of,
    model_of,
    protocol_key,
    showing_key,
    without_keys,
)
from gateway.live.realtime import RealtimeTalk
from gateway.live.responses import ResponsesTalk
from gateway.live.talk import Talk, Turn
from gateway.provider.catalogue import dialect_named
from gateway.provider.model import Operation, ProviderCall

CALL = ProviderCall(provider="openai", operation=Operation.SESSION, model="m", streaming=True)


def a_responses_talk() -> ResponsesTalk:
    """Return a talk in responses."""
    return ResponsesTalk(CALL, dialect_named("openai"), "/v1/responses")


TALKS: dict[str, Callable[[], Talk]] = {
    "realtime": lambda: RealtimeTalk(CALL),
    "responses": a_responses_talk,
    "gemini": lambda: GeminiTalk(CALL),
}


def hear(talk: Talk, events: Iterable[dict[str, Any]]) -> list[Turn]:
    """Return the turns that end in *events*."""
    return [turn for event in events for turn in talk.hear(json.dumps(event).encode())]


def ask(talk: Talk, **event: Any) -> ProviderCall:
    """Say *event*, and let it pass."""
    call = talk.wanted(json.dumps(event).encode())
    talk.passed()
    return call


def event(kind: str, id_: str = "r1", item: str = "i1", **more: Any) -> dict[str, Any]:
    """Return an event of a realtime response."""
    return {"type": f"response.{kind}", "response_id": id_, "item_id": item, **more}


def created(id_: str = "r1") -> dict[str, Any]:
    """Return the beginning of a realtime response."""
    return {"type": "response.created", "response": {"id": id_}}


def done(id_: str = "r1", **more: Any) -> dict[str, Any]:
    """Return the end of a realtime response."""
    response = {"id": id_, "status": "completed", "output": [], **more}
    return {"type": "response.done", "response": response}


# -- any bytes ----------------------------------------------------------------------------

words = st.sampled_from(
    [
        "type",
        "response",
        "session",
        "delta",
        "item",
        "id",
        "output",
        "usage",
        "error",
        "response.done",
        "response.created",
        "response.output_audio.delta",
        "response.output_item.done",
        "response.completed",
        "conversation.item.input_audio_transcription.completed",
        "session.update",
        "response.create",
        "setup",
        "model",
        "tools",
        "serverContent",
        "modelTurn",
        "parts",
        "toolCall",
        "functionCalls",
        "turnComplete",
        "usageMetadata",
        "inlineData",
        "status_details",
        "stream_id",
        "input",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=5),
    max_leaves=12,
)
messages = st.one_of(
    st.binary(max_size=40),
    values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(words, values, max_size=6).map(lambda value: json.dumps(value).encode()),
)


@pytest.mark.parametrize("kind", sorted(TALKS))
@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.booleans(), messages), max_size=6))
def test_nothing_that_is_said_breaks_a_talk(kind: str, said: list[tuple[bool, bytes]]) -> None:
    """A caller's message is read or malformed; a provider's is heard or passed over."""
    talk = TALKS[kind]()
    for by_caller, message in said:
        if by_caller:
            try:
                talk.wanted(message)
            except MalformedBodyError:
                continue
            assert talk.asks in {True, False}
            talk.passed()
        else:
            for turn in talk.hear(message):
                turn.answer()
    for turn in talk.under_way():
        assert not turn.answer().whole or not turn.answer().readable
    talk.between()


# -- realtime -----------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [False, True])
def test_names_of_both_versions_are_read(*, beta: bool) -> None:
    """What the first version called `response.text.delta` is the same as now."""
    prefix = "" if beta else "output_"
    talk = RealtimeTalk(CALL)
    sound = b"\x00\x01\x02\x03"
    (turn,) = hear(
        talk,
        [
            created(),
            event(f"{prefix}text.delta", delta="Hel"),
            event(f"{prefix}text.delta", delta="lo"),
            event(f"{prefix}audio.delta", delta=base64.b64encode(sound[:1]).decode()),
            event(f"{prefix}audio.delta", delta=base64.b64encode(sound[1:]).decode()),
            event(f"{prefix}audio_transcript.delta", delta="Hi"),
            done(),
        ],
    )
    (choice,) = turn.answer().choices

    assert "Hello" == choice.text
    assert [("audio", 4), ("transcript", 2)] == [(one.kind, one.bytes) for one in choice.others]
    assert hashlib.sha256(sound).hexdigest() == choice.others[0].sha256


def test_answers_beside_each_other_are_told_apart() -> None:
    """Events of two responses may come in any order; each has its own words and digest."""
    talk = RealtimeTalk(CALL)
    turns = hear(
        talk,
        [
            created("a"),
            created("b"),
            event("output_text.delta", "a", delta="A"),
            event("output_text.delta", "b", delta="B"),
            done("b"),
            event("output_text.delta", "a", delta="A"),
            done("a"),
        ],
    )

    assert ["B", "AA"] == [turn.answer().choices[0].text for turn in turns]
    assert turns[0].digest.sha256() != turns[1].digest.sha256()


def test_a_part_of_an_answer_is_what_came_of_it() -> None:
    """An answer that never ended is not whole, and says what it has said."""
    talk = RealtimeTalk(CALL)
    hear(talk, [created(), event("output_text.delta", delta="Hel")])
    (turn,) = talk.under_way()

    assert ("Hel", False) == (turn.answer().choices[0].text, turn.answer().whole)


def test_requests_and_answers_are_matched() -> None:
    """An answer is to the request that waited longest; one that was refused waits no more."""
    talk = RealtimeTalk(CALL)
    for name in ("one", "two", "three"):
        ask(talk, type="response.create", event_id=name)
    hear(talk, [{"type": "error", "error": {"type": "invalid", "event_id": "two"}}])
    turns = hear(
        talk, [created("a"), done("a"), created("b"), done("b"), created("c"), done("c")]
    )

    assert ["one", "three", None] == [
        json.loads(turn.request)["event_id"] if turn.request else None for turn in turns
    ]
    assert "invalid" == talk.between().error


@pytest.mark.parametrize(
    ("said", "features"),
    [
        ({"type": "session.update", "session": {"tools": [{}]}}, {"tools"}),
        ({"type": "session.update", "session": {"tools": []}}, set()),
        ({"type": "session.update", "session": {"output_modalities": ["audio"]}}, {"voice"}),
        ({"type": "session.update", "session": {"modalities": ["text"]}}, set()),
        ({"type": "response.create", "response": {"modalities": ["text", "audio"]}}, {"voice"}),
        (
            {"type": "response.create", "response": {"reasoning": {"effort": "low"}}},
            {"reasoning"},
        ),
        (
            {
                "type": "conversation.item.create",
                "item": {"content": [{"type": "input_image", "image_url": "data:"}]},
            },
            {"images"},
        ),
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, set()),
    ],
)
def test_what_is_asked_for_is_read(said: dict[str, Any], features: set[str]) -> None:
    """Tools, speech, reasoning and images show in the call that is ruled on."""
    assert features == ask(RealtimeTalk(CALL), **said).features


def test_nothing_is_asked_for_by_a_message_that_does_not_pass() -> None:
    """What was refused leaves the call as it was."""
    talk = RealtimeTalk(CALL)
    talk.wanted(b'{"type": "session.update", "session": {"tools": [1]}}')

    assert CALL is talk.wanted(b'{"type": "input_audio_buffer.clear"}')


def test_an_escaped_word_is_the_word() -> None:
    """An image is seen however its type is spelled."""
    said = b'{"type": "x", "item": {"type": "input_im\\u0061ge"}}'

    assert {"images"} == RealtimeTalk(CALL).wanted(said).features


# -- responses ----------------------------------------------------------------------------


def a_response(id_: str, words: str, lane: str | None = None) -> list[dict[str, Any]]:
    """Return the events of a response."""
    more = {} if lane is None else {"stream_id": lane}
    item = {"id": "msg", "type": "message", "role": "assistant", "status": "completed"}
    whole = {**item, "content": [{"type": "output_text", "text": words, "annotations": []}]}
    place = {"output_index": 0, "item_id": "msg", "content_index": 0}
    said: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": id_, "output": []}},
        {"type": "response.output_text.delta", **place, "delta": words},
        {"type": "response.output_item.done", "output_index": 0, "item": whole},
        {
            "type": "response.completed",
            "response": {"id": id_, "status": "completed", "output": [whole]},
        },
    ]
    return [{**one, **more} for one in said]


def test_lanes_are_told_apart() -> None:
    """Answers in two lanes come mixed; each is to the request of its lane."""
    talk = a_responses_talk()
    for lane in ("x", "y"):
        ask(talk, type="response.create", model=f"m-{lane}", input=lane, stream_id=lane)
    x, y = a_response("r1", "to x", "x"), a_response("r2", "to y", "y")
    mixed = [one for pair in zip(y, x, strict=True) for one in pair]
    turns = hear(talk, mixed)

    assert ["to y", "to x"] == [turn.answer().choices[0].text for turn in turns]
    assert ["m-y", "m-x"] == [turn.call.model for turn in turns]
    assert ["y", "x"] == [json.loads(turn.request)["input"] for turn in turns]


def test_an_answer_that_nobody_asked_for_is_read() -> None:
    """A successor that the provider begins by itself has its own receipt."""
    talk = a_responses_talk()
    ask(talk, type="response.create", model="m", input="x")
    turns = hear(talk, [*a_response("r1", "one"), *a_response("r2", "two")])

    assert ["one", "two"] == [turn.answer().choices[0].text for turn in turns]
    assert turns[0].request
    assert not turns[1].request
    assert all(turn.answer().whole for turn in turns)


def test_resources_that_a_message_names_are_told() -> None:
    """An earlier response that is built on, or steered, must belong to who asks."""
    talk = a_responses_talk()
    asked = ask(talk, type="response.create", model="m", input="x", previous_response_id="r0")
    steered = ask(talk, type="response.steer", input="x", previous_response_id="r0")

    assert [("response", "r0")] == [(one.kind, one.id) for one in asked.uses]
    assert [("response", "r0")] == [(one.kind, one.id) for one in steered.uses]


# -- Google -------------------------------------------------------------------------------


def test_counts_between_turns_are_not_lost() -> None:
    """Tokens that are told of outside of any turn are the session's."""
    talk = GeminiTalk(CALL)
    hear(
        talk,
        [
            {"usageMetadata": {"promptTokenCount": 3, "responseTokenCount": 1}},
            {"usageMetadata": {"promptTokenCount": 4, "responseTokenCount": 0}},
        ],
    )
    usage = talk.between().usage

    assert usage is not None
    assert (7, 1) == (usage.input_tokens, usage.output_tokens)


@pytest.mark.parametrize(
    ("setup", "features"),
    [
        ({"model": "models/x"}, {"voice"}),
        ({"model": "x", "generationConfig": {"responseModalities": ["TEXT"]}}, set()),
        ({"model": "x", "generation_config": {"response_modalities": ["text"]}}, set()),
        (
            {"model": "x", "tools": [{"googleSearch": {}}]},
            {"voice", "tools", "grounding"},
        ),
        (
            {"model": "x", "generationConfig": {"thinkingConfig": {"a": 1}}},
            {"voice", "reasoning"},
        ),
    ],
)
def test_a_setup_is_read(setup: dict[str, Any], features: set[str]) -> None:
    """Model and features of the first message show in the call that is ruled on."""
    call = ask(GeminiTalk(CALL), setup=setup)

    assert ("x", sorted(features)) == (call.model, sorted(call.features))


def test_an_interrupted_turn_ends_as_one() -> None:
    """Who is spoken over has said what came until then."""
    talk = GeminiTalk(CALL)
    (turn,) = hear(
        talk,
        [
            {"serverContent": {"modelTurn": {"parts": [{"text": "Hel"}]}}},
            {"serverContent": {"interrupted": True}},
            {"serverContent": {"turnComplete": True}},
        ],
    )
    (choice,) = turn.answer().choices

    assert ("Hel", "interrupted") == (choice.text, choice.finish_reason)


# -- the handshake ------------------------------------------------------------------------


GOOGLE = "/ws/google.ai.generativelanguage"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/realtime", Kind.REALTIME),
        ("/openai/realtime", Kind.REALTIME),
        ("/openai/v1/realtime", Kind.REALTIME),
        ("/v1/responses", Kind.RESPONSES),
        (
            f"{GOOGLE}.v1.GenerativeService.BidiGenerateContent",
            Kind.GEMINI,
        ),
        (
            f"{GOOGLE}.v1alpha.GenerativeService.BidiGenerateContentConstrained",
            Kind.GEMINI,
        ),
        ("/ws/google.cloud.aiplatform.v1.LlmBidiService/BidiGenerateContent", Kind.GEMINI),
        (f"{GOOGLE}.v1.GenerativeService.BidiGenerateMusic", None),
        (f"/{GOOGLE}.v1.GenerativeService.BidiGenerateContent", Kind.GEMINI),
        ("/v1/realtime/translations", None),
        ("/v1/realtime/", None),
        ("/v1/Realtime", None),
    ],
)
def test_kinds_of_sessions_are_known_by_their_path(path: str, kind: Kind | None) -> None:
    """A path is compared as it is sent; what is not known is opaque."""
    assert kind is kind_of(path)


@pytest.mark.parametrize(
    ("method", "headers", "asks"),
    [
        ("GET", {"connection": "keep-alive, Upgrade", "upgrade": "WebSocket"}, True),
        ("POST", {"connection": "Upgrade", "upgrade": "websocket"}, False),
        ("GET", {"connection": "close", "upgrade": "websocket"}, False),
        ("GET", {"connection": "Upgrade", "upgrade": "h2c"}, False),
        ("GET", {"connection": "Upgrade"}, False),
    ],
)
def test_only_a_websocket_is_switched_to(
    method: str, headers: dict[str, str], *, asks: bool
) -> None:
    """Other upgrades are requests as ever."""
    assert asks == asks_for_websocket(method, headers)


def test_the_query_names_the_model() -> None:
    """OpenAI's `model`, Azure's `deployment`, or nothing."""
    assert "a/b" == model_of("x=1&model=a%2Fb")
    assert "d" == model_of("api-version=1&deployment=d")
    assert model_of("call_id=rtc_1") is None


def test_a_key_among_subprotocols_is_found_and_left_out() -> None:
    """Browsers put their key there; upstream it is no subprotocol."""
    line = "realtime, openai-insecure-api-key.gw-1,openai-beta.realtime-v1"
    headers = [(b"Sec-WebSocket-Protocol", line.encode()), (b"x", b"openai-insecure-api-key.")]

    assert "gw-1" == protocol_key([line])
    assert [
        (b"Sec-WebSocket-Protocol", b"realtime, openai-beta.realtime-v1"),
        headers[1],
    ] == without_keys(headers)
    assert [] == without_keys([(b"sec-websocket-protocol", b"openai-insecure-api-key.gw-1")])
    assert {"a": "b", "authorization": "Bearer gw-1"} == showing_key({"a": "b"}, [line])
    assert {"authorization": "Bearer x"} == showing_key({"authorization": "Bearer x"}, [line])


@pytest.mark.parametrize(
    ("agreed", "read"),
    [
        ([], True),
        ([b"permessage-deflate"], True),
        ([b"Permessage-Deflate; server_no_context_takeover; client_max_window_bits=12"], True),
        ([b"x-webkit-deflate-frame"], False),
        ([b"permessage-deflate, x-other"], False),
        ([b"permessage-deflate", b"permessage-deflate"], False),
    ],
)
def test_only_known_extensions_are_read(agreed: list[bytes], *, read: bool) -> None:
    """What both sides agreed on and nobody here knows makes a session opaque."""
    headers = [(b"Sec-WebSocket-Extensions", line) for line in agreed]

    assert read == (inflations(headers) is not None)

"""Streams of OpenAI's other operations and of servers like it, and what they say.

Written by hand after the public references: OpenAI's "Create a model response" and "Streaming
events", "Create image", "Create speech", "Create transcription"
(https://developers.openai.com/api/reference); OpenRouter's "Streaming" and "Reasoning tokens"
(https://openrouter.ai/docs/api-reference); Groq's and Mistral's "Chat completions"
(https://console.groq.com/docs/api-reference, https://docs.mistral.ai/api); llama.cpp's
"tools/server/README.md"; Azure's "Content filtering"
(https://learn.microsoft.com/azure/ai-foundry/openai).
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from gateway.canonical import canonical_json, sha256_hex
from gateway.provider.model import (
    Choice,
    Made,
    ProviderCall,
    Resource,
    Shown,
    ToolCall,
    Unit,
    UnitKind,
    Usage,
)
from gateway.provider.openai.dialect import OpenAIDialect
from tests.support.recordings import Piece, chunk, openai_call

DIALECT: Final = OpenAIDialect()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One streamed answer and what a reader must make of it."""

    name: str
    call: ProviderCall
    pieces: tuple[Piece, ...]
    choices: tuple[Choice, ...] = ()
    units: tuple[Unit, ...] = ()
    usage: Usage | None = None
    whole: bool = True
    error: str | None = None
    stop: str | None = None
    provider: str | None = None
    made: tuple[Made, ...] = ()

    @property
    def bytes(self) -> bytes:
        """Return all of it."""
        return b"".join(piece for piece, _ in self.pieces)

    @property
    def last_content_at(self) -> int:
        """Return where the last content event begins, or the size if there is none."""
        at = len(self.bytes)
        for piece, content in reversed(self.pieces):
            at -= len(piece)
            if content:
                return at
        return len(self.bytes)


def call_of(path: str, **body: Any) -> ProviderCall:
    """Return what is asked by posting *body* to *path*."""
    found = DIALECT.found("POST", path)
    asked = json.dumps({"model": "gpt-x", **body}).encode()
    return DIALECT.read_request("openai", found, "application/json", asked)


def response_call(**body: Any) -> ProviderCall:
    """Return a response that is asked for."""
    return call_of("/v1/responses", **({"input": "hello"} | body))


def unit(kind: UnitKind, index: int, value: Any) -> Unit:
    """Return the unit of *value*: bytes by themselves, all else as canonical JSON."""
    content = value if isinstance(value, bytes) else canonical_json(value)
    return Unit(kind=kind, index=index, bytes=len(content), sha256=sha256_hex(content))


def b64(content: bytes) -> str:
    """Return *content* in base64."""
    return base64.b64encode(content).decode()


def named(kind: str, **more: Any) -> bytes:
    """Return one event with its name."""
    said = json.dumps({"type": kind, **more}, ensure_ascii=False)
    return f"event: {kind}\ndata: {said}\n\n".encode()


RESPONSE: Final[dict[str, Any]] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1_790_000_000,
    "status": "in_progress",
    "model": "gpt-x-2026-08-01",
    "output": [],
    "store": True,
    "usage": None,
}
COUNTS: Final = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 21,
}
USED: Final = Usage(input_tokens=9, output_tokens=12, cached_input_tokens=4, reasoning_tokens=5)
MADE: Final = (Made(resource=Resource("response", "resp_1")),)

THOUGHT: Final = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "Let me think."}],
    "encrypted_content": "gAAAB",
}
MESSAGE: Final = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Grüße, 世界", "annotations": []}],
}
LOOK: Final = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "call_1",
    "name": "look",
    "arguments": '{"a":1}',
    "status": "completed",
}
SQL: Final = {
    "id": "ctc_1",
    "type": "custom_tool_call",
    "call_id": "call_2",
    "name": "sql",
    "input": "select",
}
SEARCH: Final = {
    "id": "ws_1",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "ledger"},
}
CODE: Final = {
    "id": "ci_1",
    "type": "code_interpreter_call",
    "container_id": "cntr_1",
    "code": "1 + 1",
    "outputs": None,
}
CITED: Final = [{"type": "url_citation", "url": "https://example.com", "title": "t"}]
FOUND: Final = {
    "id": "msg_2",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "Found.", "annotations": CITED}],
}
DRAWN: Final = {
    "id": "ig_1",
    "type": "image_generation_call",
    "status": "completed",
    "result": b64(b"\x89PNG whole"),
    "revised_prompt": "a cat",
}


def whole_response(*items: Any, **more: Any) -> dict[str, Any]:
    """Return a response that is all there."""
    return RESPONSE | {"status": "completed", "output": list(items), "usage": COUNTS} | more


def begun(*kinds: str) -> Iterator[Piece]:
    """Yield how a streamed response begins."""
    for kind in kinds or ("response.created", "response.in_progress"):
        yield named(kind, response=RESPONSE), False


def ended(*items: Any, kind: str = "response.completed", **more: Any) -> Piece:
    """Return how a streamed response ends."""
    return named(kind, response=whole_response(*items, **more)), False


def delta(kind: str, words: str, at: int, **more: Any) -> Piece:
    """Return a piece of an item."""
    return named(f"response.{kind}.delta", delta=words, output_index=at, **more), True


def item(at: int, told: Any, *, new: bool = False) -> Piece:
    """Return that an item is done; *new*: nothing of it was heard before."""
    return named("response.output_item.done", output_index=at, item=told), new


def added(at: int, told: dict[str, Any], **more: Any) -> Piece:
    """Return that an item was begun."""
    begun = told | more
    content = told["type"] not in ("message", "reasoning")
    return named("response.output_item.added", output_index=at, item=begun), content


def _responses() -> Iterator[Stream]:
    asked = response_call(stream=True)
    yield Stream(
        name="response-reasoning-and-text",
        call=asked,
        pieces=(
            *begun(),
            added(0, THOUGHT, summary=[], encrypted_content=None),
            delta("reasoning_summary_text", "Let me ", 0, summary_index=0),
            delta("reasoning_summary_text", "think.", 0, summary_index=0),
            item(0, THOUGHT),
            added(1, MESSAGE, content=[], status="in_progress"),
            (named("response.content_part.added", output_index=1, part={}), False),
            delta("output_text", "Grüße", 1, content_index=0, obfuscation="aB3"),
            delta("output_text", ", 世界", 1, content_index=0),
            (named("response.output_text.done", output_index=1, text="Grüße, 世界"), False),
            item(1, MESSAGE),
            ended(THOUGHT, MESSAGE),
        ),
        choices=(
            Choice(
                index=0,
                text="Grüße, 世界",
                reasoning=("Let me think.", "gAAAB"),
                shown=Shown("Let me think.", is_summary=True),
                finish_reason="completed",
            ),
        ),
        usage=USED,
        made=MADE,
    )
    yield Stream(
        name="response-calls",
        call=asked,
        pieces=(
            *begun("response.created", "response.queued"),
            added(0, LOOK, arguments=""),
            delta("function_call_arguments", '{"a"', 0),
            delta("function_call_arguments", ":1}", 0),
            item(0, LOOK),
            added(1, SQL, input=""),
            delta("custom_tool_call_input", "select", 1),
            item(1, SQL),
            ended(LOOK, SQL),
        ),
        choices=(
            Choice(
                index=0,
                tool_calls=(
                    ToolCall(id="call_1", name="look", arguments='{"a":1}'),
                    ToolCall(id="call_2", name="sql", arguments="select"),
                ),
                finish_reason="completed",
            ),
        ),
        usage=USED,
        made=MADE,
    )
    partial = b"\x89PNG part"
    yield Stream(
        name="response-server-tools-and-an-image",
        call=asked,
        pieces=(
            *begun(),
            added(0, SEARCH, status="in_progress"),
            (named("response.web_search_call.searching", output_index=0), False),
            item(0, SEARCH, new=True),
            added(1, CODE, code=""),
            (named("response.code_interpreter_call_code.delta", delta="1 +"), True),
            item(1, CODE, new=True),
            added(2, DRAWN, result=None),
            (
                named(
                    "response.image_generation_call.partial_image",
                    output_index=2,
                    partial_image_b64=b64(partial),
                ),
                True,
            ),
            item(2, DRAWN, new=True),
            added(3, FOUND, content=[]),
            delta("output_text", "Found.", 3),
            ended(SEARCH, CODE, DRAWN, FOUND),
        ),
        choices=(
            Choice(
                index=0,
                text="Found.",
                finish_reason="completed",
                others=(
                    unit("image", 0, partial),
                    unit("tool-result", 0, SEARCH),
                    unit("tool-result", 0, CODE),
                    unit("image", 0, b"\x89PNG whole"),
                    unit("other", 0, "a cat"),
                    unit("tool-result", 0, CITED),
                ),
            ),
        ),
        usage=USED,
        made=(
            *MADE,
            Made(resource=Resource("container", "cntr_1"), of=Resource("response", "resp_1")),
        ),
    )
    yield Stream(
        name="response-refusal",
        call=asked,
        pieces=(
            *begun(),
            added(0, MESSAGE, content=[]),
            delta("refusal", "I can't ", 0),
            delta("refusal", "do that.", 0),
            ended(MESSAGE | {"content": [{"type": "refusal", "refusal": "I can't do that."}]}),
        ),
        choices=(Choice(index=0, refusal="I can't do that.", finish_reason="completed"),),
        usage=USED,
        stop="refusal",
        made=MADE,
    )
    yield Stream(
        name="response-incomplete",
        call=asked,
        pieces=(
            *begun(),
            delta("output_text", "So", 0),
            ended(
                MESSAGE | {"content": [{"type": "output_text", "text": "So"}]},
                kind="response.incomplete",
                status="incomplete",
                incomplete_details={"reason": "max_output_tokens"},
            ),
        ),
        choices=(Choice(index=0, text="So", finish_reason="max_output_tokens"),),
        usage=USED,
        made=MADE,
    )
    yield Stream(
        name="response-failed",
        call=asked,
        pieces=(
            *begun(),
            ended(
                kind="response.failed",
                status="failed",
                error={"code": "server_error", "message": "oh"},
            ),
        ),
        usage=USED,
        error="server_error",
        made=MADE,
    )
    yield Stream(
        name="response-cut-off-by-an-error",
        call=asked,
        pieces=(
            *begun(),
            added(0, THOUGHT, summary=[], encrypted_content=None),
            delta("reasoning_text", "Hm", 0),
            added(1, MESSAGE, content=[]),
            delta("output_text", "So", 1),
            (named("error", code="rate_limit_exceeded", message="oh", param=None), False),
        ),
        choices=(
            Choice(
                index=0,
                text="So",
                reasoning=("Hm",),
                shown=Shown("Hm", is_summary=False),
                finish_reason="in_progress",
            ),
        ),
        whole=False,
        error="rate_limit_exceeded",
        stop="rate-limit",
        made=MADE,
    )
    yield Stream(
        name="response-of-a-server-that-repeats-nothing",
        call=asked,
        pieces=(
            *begun("response.created"),
            delta("output_text", "Hi", 0),
            delta("function_call_arguments", "{}", 1),
            ended(),
            (b"data: [DONE]\n\n", False),
        ),
        choices=(
            Choice(
                index=0,
                text="Hi",
                tool_calls=(ToolCall(id="", name="", arguments="{}"),),
                finish_reason="completed",
            ),
        ),
        usage=USED,
        made=MADE,
    )


def _compatible() -> Iterator[Stream]:
    asked = openai_call(stream=True)
    done = (b"data: [DONE]\n\n", False)
    stop = (chunk({}, "stop"), False)
    counts = {"prompt_tokens": 9, "completion_tokens": 12}
    details = [
        {"type": "reasoning.text", "text": "Hm.", "format": "x", "index": 0},
        {"type": "reasoning.encrypted", "data": "EqQB", "index": 1},
    ]
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64(b'P')}"}}
    linked = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    yield Stream(
        name="openrouter",
        call=asked,
        pieces=(
            (b": OPENROUTER PROCESSING\n\n", False),
            (chunk({"role": "assistant", "content": ""}, provider="Azure"), False),
            (chunk({"reasoning": "Hm.", "reasoning_details": details[:1]}), True),
            (chunk({"content": "", "reasoning_details": details[1:]}), True),
            (chunk({"content": "42", "images": [picture, linked]}), True),
            stop,
            (chunk({"content": ""}, usage=counts | {"cost": 0.1}), False),
            done,
        ),
        choices=(
            Choice(
                index=0,
                text="42",
                reasoning=("Hm.", "EqQB"),
                shown=Shown("Hm.", is_summary=False),
                finish_reason="stop",
                others=(unit("image", 0, b"P"), unit("link", 0, "https://example.com/a.png")),
            ),
        ),
        usage=Usage(input_tokens=9, output_tokens=12),
        provider="Azure",
    )
    yield Stream(
        name="groq",
        call=asked,
        pieces=(
            (chunk({"role": "assistant", "content": ""}, x_groq={"id": "req_1"}), False),
            (chunk({"content": "Hi"}), True),
            (chunk({}, "stop", x_groq={"id": "req_1", "usage": counts}), False),
            done,
        ),
        choices=(Choice(index=0, text="Hi", finish_reason="stop"),),
        usage=Usage(input_tokens=9, output_tokens=12),
    )
    timings = {"prompt_n": 5, "cache_n": 4, "predicted_n": 12, "predicted_ms": 3.0}
    yield Stream(
        name="llamacpp-without-an-end",
        call=asked,
        pieces=(
            (chunk({"role": "assistant", "content": None}), False),
            (chunk({"content": "Hi"}), True),
            (chunk({}, "stop", timings=timings), False),
        ),
        choices=(Choice(index=0, text="Hi", finish_reason="stop"),),
        usage=Usage(input_tokens=9, output_tokens=12, cached_input_tokens=4),
    )
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    yield Stream(
        name="mistral",
        call=asked,
        pieces=(
            (chunk({"role": "assistant", "content": ""}), False),
            (chunk({"content": [thought]}), True),
            (chunk({"content": [{"type": "reference", "reference_ids": [1]}]}), True),
            (chunk({"content": [{"type": "text", "text": "42"}]}), True),
            (chunk({"content": ""}, "stop", usage=counts), False),
            done,
        ),
        choices=(
            Choice(
                index=0,
                text="42",
                reasoning=("Hm.",),
                shown=Shown("Hm.", is_summary=False),
                finish_reason="stop",
                others=(unit("other", 0, {"type": "reference", "reference_ids": [1]}),),
            ),
        ),
        usage=Usage(input_tokens=9, output_tokens=12),
    )
    yield Stream(
        name="ollama-calls-with-objects",
        call=asked,
        pieces=(
            (
                chunk(
                    {
                        "role": "assistant",
                        "content": "",
                        "tool_calls": [
                            {
                                "id": "call_1",
                                "index": 0,
                                "type": "function",
                                "function": {"name": "look", "arguments": {"a": 1}},
                            }
                        ],
                    }
                ),
                True,
            ),
            (chunk({}, "tool_calls"), False),
            done,
        ),
        choices=(
            Choice(
                index=0,
                tool_calls=(ToolCall(id="call_1", name="look", arguments='{"a":1}'),),
                finish_reason="tool_calls",
            ),
        ),
    )
    yield Stream(
        name="azure-filter",
        call=asked,
        pieces=(
            (chunk(None, id="", model="", prompt_filter_results=[{"prompt_index": 0}]), False),
            (chunk({"role": "assistant", "content": ""}), False),
            (chunk({"content": "So"}), True),
            (chunk({}, "content_filter", content_filter_results={"hate": {}}), False),
            done,
        ),
        choices=(Choice(index=0, text="So", finish_reason="content_filter"),),
        stop="policy",
    )
    yield Stream(
        name="spoken",
        call=openai_call(stream=True, modalities=["text", "audio"], store=True),
        pieces=(
            (chunk({"role": "assistant", "audio": {"id": "audio_1"}}), True),
            (chunk({"audio": {"transcript": "Hel"}}), True),
            (chunk({"audio": {"data": b64(b"\x01\x02")}}), True),
            (chunk({"audio": {"transcript": "lo", "data": b64(b"\x03\x04\x05\x06")}}), True),
            (chunk({"audio": {"expires_at": 1_790_000_000}}), True),
            stop,
            done,
        ),
        choices=(
            Choice(
                index=0,
                finish_reason="stop",
                others=(
                    unit("audio", 0, b"\x01\x02\x03\x04\x05\x06"),
                    unit("transcript", 0, "Hello"),
                ),
            ),
        ),
        made=(Made(resource=Resource("completion", "chatcmpl-1")),),
    )
    later = {"executed_tools": [{"name": "search"}]}, {"x_new": {"y": 1}}, {"x_new": [2]}
    yield Stream(
        name="fields-of-which-nobody-heard",
        call=asked,
        pieces=(
            *((chunk({"content": "Hi"} | one), True) for one in later),
            (chunk({"content": None, "unheard": None, "name": "m"}), False),
            stop,
            (chunk(None, citations=["https://example.com"]), False),
            done,
        ),
        choices=(
            Choice(
                index=0,
                text="HiHiHi",
                finish_reason="stop",
                others=(
                    unit("tool-result", 0, [{"name": "search"}]),
                    unit("other", 0, [{"y": 1}, [2]]),
                ),
            ),
        ),
        units=(unit("tool-result", 0, ["https://example.com"]),),
    )
    two = openai_call(stream=True)
    yield Stream(
        name="error-of-groq",
        call=two,
        pieces=(
            (chunk({"content": "So"}), True),
            (chunk(None, x_groq={"error": {"type": "over_capacity"}}), False),
        ),
        choices=(Choice(index=0, text="So"),),
        whole=False,
        error="over_capacity",
    )


def _older() -> Iterator[Stream]:
    def text(words: str, index: int = 0, finish: str | None = None) -> Piece:
        told = {"text": words, "index": index, "logprobs": None, "finish_reason": finish}
        said = {"id": "cmpl-1", "object": "text_completion", "model": "m", "choices": [told]}
        return b"data: " + json.dumps(said).encode() + b"\n\n", bool(words)

    yield Stream(
        name="legacy-completion",
        call=call_of("/v1/completions", prompt=["a", "b"], stream=True),
        pieces=(
            text("one"),
            text("two", 1),
            text("", 0, "stop"),
            text(" more", 1),
            text("", 1, "length"),
        ),
        choices=(
            Choice(index=0, text="one", finish_reason="stop"),
            Choice(index=1, text="two more", finish_reason="length"),
        ),
    )


def _media() -> Iterator[Stream]:
    first, last = b"\x89PNG 1", b"\x89PNG 2"
    yield Stream(
        name="images",
        call=call_of("/v1/images/generations", prompt="a cat", stream=True),
        pieces=(
            (named("image_generation.partial_image", b64_json=b64(first)), True),
            (named("image_generation.completed", b64_json=b64(last), usage=COUNTS), True),
        ),
        units=(unit("image", 0, first), unit("image", 1, last)),
        usage=USED,
    )
    yield Stream(
        name="speech",
        call=call_of("/v1/audio/speech", input="hi", stream_format="sse"),
        pieces=(
            (named("speech.audio.delta", audio=b64(b"RIFF")), True),
            (named("speech.audio.delta", audio=b64(b"12")), True),
            (
                named("speech.audio.done", usage={"input_tokens": 3, "output_tokens": 4}),
                False,
            ),
        ),
        units=(unit("audio", 0, b"RIFF12"),),
        usage=Usage(input_tokens=3, output_tokens=4),
    )
    spoken = {"speaker": "A", "start": 0.0, "end": 1.5, "text": "Hello"}
    yield Stream(
        name="transcript",
        call=call_of("/v1/audio/transcriptions", stream=True),
        pieces=(
            (named("transcript.text.delta", delta="Hel"), True),
            (named("transcript.text.segment", **spoken), True),
            (named("transcript.text.delta", delta="lo"), True),
            (
                named(
                    "transcript.text.done",
                    text="Hello",
                    usage={"type": "duration", "seconds": 2},
                ),
                False,
            ),
        ),
        units=(unit("transcript", 0, "Hello"), unit("other", 0, [["A", 0.0, 1.5, "Hello"]])),
        usage=Usage(seconds=2),
    )
    yield Stream(
        name="transcript-broken-off",
        call=call_of("/v1/audio/transcriptions", stream=True),
        pieces=(
            (named("transcript.text.delta", delta="Hel"), True),
            (named("error", error={"type": "server_error"}), False),
        ),
        units=(unit("transcript", 0, "Hel"),),
        whole=False,
        error="server_error",
    )


STREAMS: Final = tuple(itertools.chain(_responses(), _compatible(), _older(), _media()))

"""Answers as the wire formats have them, event by event, and what they say.

Written by hand after the public references: OpenAI's "Create chat completion" and "The chat
completion chunk object" (https://developers.openai.com/api/reference), Anthropic's "Messages"
and "Streaming messages" (https://docs.claude.com/en/api/messages-streaming), Google's
"Generating content" (https://ai.google.dev/api/generate-content).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.provider.anthropic.dialect import AnthropicDialect
from gateway.provider.gemini.dialect import GeminiDialect
from gateway.provider.model import Choice, Dialect, ProviderCall, Shown, ToolCall, Usage
from gateway.provider.openai.dialect import OpenAIDialect
from gateway.provider.units import base64_unit, json_unit

Piece = tuple[bytes, bool]
"""An event's bytes, and whether it carries content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One streamed answer and what a reader must make of it."""

    name: str
    dialect: Dialect
    call: ProviderCall
    pieces: tuple[Piece, ...]
    choices: tuple[Choice, ...]
    usage: Usage | None = None
    whole: bool = True
    error: str | None = None
    kind: str = "text/event-stream"
    """The answer's `content-type`."""

    @property
    def stream(self) -> bytes:
        """Return all bytes."""
        return b"".join(piece for piece, _ in self.pieces)

    @property
    def last_content_at(self) -> int:
        """Return where the last content event begins, or the size if there is none."""
        at = len(self.stream)
        for piece, content in reversed(self.pieces):
            at -= len(piece)
            if content:
                return at
        return len(self.stream)


def openai_call(**more: Any) -> ProviderCall:
    """Return a chat completion that is asked for."""
    body = {"model": "gpt-x", "messages": [{"role": "user", "content": "hello"}], **more}
    dialect = OpenAIDialect()
    found = dialect.found("POST", "/v1/chat/completions")
    return dialect.read_request("openai", found, "application/json", json.dumps(body).encode())


def anthropic_call(**more: Any) -> ProviderCall:
    """Return a message that is asked for."""
    body = {"model": "c-x", "messages": [{"role": "user", "content": "hello"}], **more}
    dialect = AnthropicDialect()
    found = dialect.found("POST", "/v1/messages")
    return dialect.read_request(
        "anthropic", found, "application/json", json.dumps(body).encode()
    )


def gemini_call(query: str = "alt=sse", /, **more: Any) -> ProviderCall:
    """Return content that is asked for in a stream."""
    body = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}], **more}
    dialect = GeminiDialect()
    path = "/v1beta/models/g-x:streamGenerateContent"
    found = dialect.found("POST", path, query)
    return dialect.read_request("gemini", found, "application/json", json.dumps(body).encode())


def chunk(
    delta: dict[str, Any] | None, finish: str | None = None, index: int = 0, **more: Any
) -> bytes:
    """Return one event of a streamed chat completion; no *delta*: no choices."""
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    said = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": "gpt-x-2026-08-01",
        "system_fingerprint": "fp_1",
        "choices": [] if delta is None else [choice],
        "usage": None,
        **more,
    }
    return b"data: " + json.dumps(said, ensure_ascii=False).encode() + b"\n\n"


def event(kind: str, **more: Any) -> bytes:
    """Return one event of a streamed message."""
    said = json.dumps({"type": kind, **more}, ensure_ascii=False)
    return f"event: {kind}\ndata: {said}\n\n".encode()


def _openai() -> Iterator[Recording]:
    dialect = OpenAIDialect()
    role = (chunk({"role": "assistant", "content": "", "refusal": None}), False)
    stop = (chunk({}, "stop"), False)
    done = (b"data: [DONE]\n\n", False)
    counts = {
        "prompt_tokens": 9,
        "completion_tokens": 12,
        "total_tokens": 21,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    used = Usage(input_tokens=9, output_tokens=12, cached_input_tokens=4, reasoning_tokens=5)

    yield Recording(
        name="openai-text",
        dialect=dialect,
        call=openai_call(stream=True),
        pieces=(
            role,
            (chunk({"content": "Grüße"}), True),
            (chunk({"content": ", 世界"}, obfuscation="aB3"), True),
            stop,
            (chunk(None, usage=counts), False),
            done,
        ),
        choices=(Choice(index=0, text="Grüße, 世界", finish_reason="stop"),),
        usage=used,
    )
    yield Recording(
        name="azure-text",
        dialect=dialect,
        call=openai_call(stream=True),
        pieces=(
            (chunk(None, id="", model="", prompt_filter_results=[{"prompt_index": 0}]), False),
            role,
            (chunk({"content": "Hi"}), True),
            stop,
            done,
        ),
        choices=(Choice(index=0, text="Hi", finish_reason="stop"),),
    )
    begun = {"index": 0, "id": "call_1", "type": "function"}
    second = {"index": 1, "id": "call_2", "type": "custom", "custom": {"name": "sql"}}
    yield Recording(
        name="openai-tools",
        dialect=dialect,
        call=openai_call(stream=True, tools=[{"type": "function"}]),
        pieces=(
            role,
            (
                chunk(
                    {"tool_calls": [begun | {"function": {"name": "look", "arguments": ""}}]}
                ),
                True,
            ),
            (
                chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}),
                True,
            ),
            (chunk({"tool_calls": [second]}), True),
            (chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}), True),
            (chunk({"tool_calls": [{"index": 1, "custom": {"input": "select"}}]}), True),
            (chunk({}, "tool_calls"), False),
            done,
        ),
        choices=(
            Choice(
                index=0,
                tool_calls=(
                    ToolCall(id="call_1", name="look", arguments='{"a":1}'),
                    ToolCall(id="call_2", name="sql", arguments="select"),
                ),
                finish_reason="tool_calls",
            ),
        ),
    )
    yield Recording(
        name="deepseek-reasoning",
        dialect=dialect,
        call=openai_call(stream=True),
        pieces=(
            (b": keep-alive\n\n", False),
            (chunk({"role": "assistant", "content": None, "reasoning_content": ""}), False),
            (chunk({"content": None, "reasoning_content": "Let me "}), True),
            (chunk({"content": None, "reasoning_content": "think."}), True),
            (b": keep-alive\n\n", False),
            (chunk({"content": "42", "reasoning_content": None}), True),
            (chunk({"content": ""}, "stop", usage=counts), False),
            done,
        ),
        choices=(
            Choice(
                index=0,
                text="42",
                reasoning=("Let me think.",),
                shown=Shown("Let me think.", is_summary=False),
                finish_reason="stop",
            ),
        ),
        usage=used,
    )
    yield Recording(
        name="openai-two-choices-and-a-refusal",
        dialect=dialect,
        call=openai_call(stream=True, n=2),
        pieces=(
            role,
            (chunk({"content": "yes"}, index=0), True),
            (chunk({"refusal": "I can't "}, index=1), True),
            (chunk({}, "stop", index=0), False),
            (chunk({"refusal": "do that."}, index=1), True),
            (chunk({}, "stop", index=1), False),
            done,
        ),
        choices=(
            Choice(index=0, text="yes", finish_reason="stop"),
            Choice(index=1, refusal="I can't do that.", finish_reason="stop"),
        ),
    )
    yield Recording(
        name="openai-legacy-function",
        dialect=dialect,
        call=openai_call(stream=True),
        pieces=(
            (chunk({"function_call": {"name": "look", "arguments": ""}}), True),
            (chunk({"function_call": {"arguments": "{}"}}), True),
            (chunk({}, "function_call"), False),
            done,
        ),
        choices=(
            Choice(
                index=0,
                tool_calls=(ToolCall(id="", name="look", arguments="{}"),),
                finish_reason="function_call",
            ),
        ),
    )
    yield Recording(
        name="openai-error-in-the-middle",
        dialect=dialect,
        call=openai_call(stream=True),
        pieces=(
            role,
            (chunk({"content": "so"}), True),
            (b'data: {"error": {"message": "oh", "type": "server_error"}}\n\n', False),
        ),
        choices=(Choice(index=0, text="so"),),
        whole=False,
        error="server_error",
    )


def _anthropic() -> Iterator[Recording]:
    dialect = AnthropicDialect()
    start = (
        event(
            "message_start",
            message={
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "c-x-20260801",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {
                    "input_tokens": 10,
                    "cache_creation_input_tokens": 3,
                    "cache_read_input_tokens": 5,
                    "output_tokens": 1,
                },
            },
        ),
        False,
    )
    ping = (event("ping"), False)
    stop = (event("message_stop"), False)
    used = Usage(input_tokens=18, output_tokens=30, cached_input_tokens=5)

    def begin(index: int, **block: Any) -> bytes:
        return event("content_block_start", index=index, content_block=block)

    def delta(index: int, **said: Any) -> bytes:
        return event("content_block_delta", index=index, delta=said)

    def end(index: int) -> Piece:
        return (event("content_block_stop", index=index), False)

    def stopping(reason: str, tokens: int, **more: Any) -> Piece:
        said = {"stop_reason": reason, "stop_sequence": None, **more}
        return (event("message_delta", delta=said, usage={"output_tokens": tokens}), False)

    yield Recording(
        name="anthropic-text",
        dialect=dialect,
        call=anthropic_call(stream=True),
        pieces=(
            start,
            (begin(0, type="text", text=""), False),
            ping,
            (delta(0, type="text_delta", text="Grüße"), True),
            (delta(0, type="text_delta", text=", 世界"), True),
            end(0),
            stopping("end_turn", 17),
            stopping("end_turn", 30),
            stop,
        ),
        choices=(Choice(index=0, text="Grüße, 世界", finish_reason="end_turn"),),
        usage=used,
    )
    yield Recording(
        name="anthropic-thinking-and-tools",
        dialect=dialect,
        call=anthropic_call(stream=True),
        pieces=(
            start,
            (begin(0, type="thinking", thinking="", signature=""), False),
            (delta(0, type="thinking_delta", thinking="Let me "), True),
            (delta(0, type="thinking_delta", thinking="look."), True),
            (delta(0, type="signature_delta", signature="EqQB"), False),
            end(0),
            (begin(1, type="redacted_thinking", data="EmwK"), True),
            end(1),
            (begin(2, type="text", text=""), False),
            (delta(2, type="text_delta", text="Looking."), True),
            end(2),
            (begin(3, type="tool_use", id="toolu_1", name="look", input={}), True),
            (delta(3, type="input_json_delta", partial_json=""), False),
            (delta(3, type="input_json_delta", partial_json='{"a"'), True),
            (event("a_new_kind", index="odd", delta=3), True),
            (delta(3, type="input_json_delta", partial_json=": 1}"), True),
            end(3),
            (begin(4, type="tool_use", id="toolu_2", name="now", input={}), True),
            end(4),
            stopping("tool_use", 30),
            stop,
        ),
        choices=(
            Choice(
                index=0,
                text="Looking.",
                reasoning=("Let me look.", "EmwK"),
                shown=Shown("Let me look.", is_summary=False),
                tool_calls=(
                    ToolCall(id="toolu_1", name="look", arguments='{"a": 1}'),
                    ToolCall(id="toolu_2", name="now", arguments="{}"),
                ),
                finish_reason="tool_use",
            ),
        ),
        usage=used,
    )
    yield Recording(
        name="anthropic-refusal",
        dialect=dialect,
        call=anthropic_call(stream=True),
        pieces=(
            start,
            (begin(0, type="text", text=""), False),
            (delta(0, type="text_delta", text="I"), True),
            end(0),
            stopping(
                "refusal",
                30,
                stop_details={"type": "refusal", "category": None, "explanation": "not this"},
            ),
            stop,
        ),
        choices=(Choice(index=0, text="I", refusal="not this", finish_reason="refusal"),),
        usage=used,
    )
    searched = {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": [{"type": "web_search_result", "url": "https://a.example", "title": "A"}],
    }
    cited = {"type": "web_search_result_location", "url": "https://a.example"}
    yield Recording(
        name="anthropic-search",
        dialect=dialect,
        call=anthropic_call(stream=True),
        pieces=(
            start,
            (begin(0, type="server_tool_use", id="srvtoolu_1", name="web_search"), True),
            (delta(0, type="input_json_delta", partial_json='{"query": "a"}'), True),
            end(0),
            (begin(1, **searched), True),
            end(1),
            (begin(2, type="text", text="", citations=[]), False),
            (delta(2, type="citations_delta", citation=cited), True),
            (delta(2, type="text_delta", text="As A says."), True),
            end(2),
            stopping("end_turn", 30),
            stop,
        ),
        choices=(
            Choice(
                index=0,
                text="As A says.",
                tool_calls=(
                    ToolCall(id="srvtoolu_1", name="web_search", arguments='{"query": "a"}'),
                ),
                finish_reason="end_turn",
                others=(json_unit("tool-result", 0, searched),),
            ),
        ),
        usage=used,
    )
    yield Recording(
        name="anthropic-overloaded",
        dialect=dialect,
        call=anthropic_call(stream=True),
        pieces=(
            start,
            (begin(0, type="text", text="So"), True),
            (
                event("error", error={"type": "overloaded_error", "message": "Overloaded"}),
                False,
            ),
        ),
        choices=(Choice(index=0, text="So"),),
        usage=Usage(input_tokens=18, output_tokens=1, cached_input_tokens=5),
        whole=False,
        error="overloaded_error",
    )


def _gemini() -> Iterator[Recording]:
    dialect = GeminiDialect()

    def said(*parts: dict[str, Any], end: str | None = None, **more: Any) -> dict[str, Any]:
        content = {"content": {"parts": list(parts), "role": "model"}} if parts else {}
        candidate = content | ({"finishReason": end} if end else {}) | more
        usage = {
            "promptTokenCount": 9,
            "candidatesTokenCount": 4 if end else 1,
            "thoughtsTokenCount": 3,
            "totalTokenCount": 16,
        }
        return {
            "candidates": [candidate],
            "usageMetadata": usage,
            "modelVersion": "g-x-001",
            "responseId": "resp-1",
        }

    def events(*told: tuple[dict[str, Any], bool]) -> tuple[Piece, ...]:
        return tuple(
            (b"data: %b\r\n\r\n" % json.dumps(one).encode(), content) for one, content in told
        )

    def array(*told: tuple[dict[str, Any], bool]) -> tuple[Piece, ...]:
        pieces = [
            ((b"[" if not at else b",\r\n") + json.dumps(one, indent=2).encode(), content)
            for at, (one, content) in enumerate(told)
        ]
        return (*pieces, (b"\n]\n", False))

    used = Usage(input_tokens=9, output_tokens=7, reasoning_tokens=3)
    text = (
        (said({"text": "Grüße"}), True),
        (said({"text": ', {"世界": []}'}), True),
        (said({"text": ""}, end="STOP"), False),
    )
    spoken = (Choice(index=0, text='Grüße, {"世界": []}', finish_reason="STOP"),)
    yield Recording(
        name="gemini-text",
        dialect=dialect,
        call=gemini_call(),
        pieces=events(*text),
        choices=spoken,
        usage=used,
    )
    yield Recording(
        name="gemini-array",
        dialect=dialect,
        call=gemini_call(""),
        pieces=array(*text),
        choices=spoken,
        usage=used,
        kind="application/json; charset=UTF-8",
    )
    call = {"functionCall": {"name": "look", "args": {"at": [1]}, "id": "c1"}}
    image = {"inlineData": {"mimeType": "image/png", "data": "aW1hZ2U="}}
    yield Recording(
        name="gemini-thoughts-calls-and-pictures",
        dialect=dialect,
        call=gemini_call(),
        pieces=events(
            (said({"text": "Let me ", "thought": True}), True),
            (said({"text": "look.", "thought": True}), True),
            (said({"text": "Looking.", "thoughtSignature": "c2ln"}), True),
            (said(call, image), True),
            (said({"text": "", "thoughtSignature": "c2ln"}), False),
            (said(end="STOP"), False),
        ),
        choices=(
            Choice(
                index=0,
                text="Looking.",
                reasoning=("Let me look.",),
                shown=Shown("Let me look.", is_summary=True),
                tool_calls=(ToolCall(id="c1", name="look", arguments='{"at": [1]}'),),
                finish_reason="STOP",
                others=(base64_unit("image", 0, "aW1hZ2U="),),
            ),
        ),
        usage=used,
    )
    yield Recording(
        name="gemini-two-candidates",
        dialect=dialect,
        call=gemini_call("", generationConfig={"candidateCount": 2}),
        pieces=array(
            (said({"text": "a"}, index=0), True),
            (said({"text": "b"}, index=1, end="MAX_TOKENS"), True),
            (said(index=0, end="STOP"), False),
        ),
        choices=(
            Choice(index=0, text="a", finish_reason="STOP"),
            Choice(index=1, text="b", finish_reason="MAX_TOKENS"),
        ),
        usage=used,
        kind="application/json",
    )
    blocked = said() | {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
    del blocked["candidates"]
    yield Recording(
        name="gemini-blocked",
        dialect=dialect,
        call=gemini_call(),
        pieces=events((blocked, True)),
        choices=(),
        usage=Usage(input_tokens=9, output_tokens=4, reasoning_tokens=3),
        error="PROHIBITED_CONTENT",
    )
    yield Recording(
        name="gemini-error-in-the-middle",
        dialect=dialect,
        call=gemini_call(),
        pieces=events(
            (said({"text": "So"}), True),
            ({"error": {"code": 503, "status": "UNAVAILABLE", "message": "x"}}, False),
        ),
        choices=(Choice(index=0, text="So"),),
        usage=Usage(input_tokens=9, output_tokens=4, reasoning_tokens=3),
        whole=False,
        error="UNAVAILABLE",
    )


RECORDINGS = (*_openai(), *_anthropic(), *_gemini())

"""A stub of Anthropic's API: messages, batches, files, models and the older completions.

Shapes are written from Anthropic's API reference (platform.claude.com/docs/en/api); each
handler names its page. Words that begin a question choose what comes back: `call NAME`,
`refuse`, `search`, `secret` (a redacted block), `overload` (an error inside a stream).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from gateway.demo.provider import (
    Reply,
    Said,
    WrongRequestError,
    _blocks,
    _count,
    _count_said,
    _last_question,
    _message_events,
    _sample_arguments,
    _say,
    _stop_reason,
    _words_of,
)
from tests.support.stub.openai import MODELS, model_of
from tests.support.stub.world import (
    NOW_TEXT,
    Ask,
    Json,
    Stub,
    bad,
    doors,
    line,
    named,
    page,
    pieces_of,
)


class AnthropicStub(Stub):
    """Anthropic's API under `/v1`."""

    NAME = "anthropic"
    DOORS = tuple(
        doors("""
        POST /v1/messages messages
        POST /v1/messages/count_tokens count_tokens
        POST /v1/messages/batches batch_create
        GET /v1/messages/batches batch_list
        GET /v1/messages/batches/{id} batch
        DELETE /v1/messages/batches/{id} batch_delete
        POST /v1/messages/batches/{id}/cancel batch_cancel
        GET /v1/messages/batches/{id}/results batch_results
        POST /v1/complete complete
        GET /v1/models models
        GET /v1/models/{id} model
        POST /v1/files file_create
        GET /v1/files file_list
        GET /v1/files/{id} file
        DELETE /v1/files/{id} file_delete
        GET /v1/files/{id}/content file_content
        GET /v1/skills skills
        POST /v1/unheard/of unheard
        """)
    )

    def headers(self, request_id: str) -> dict[str, str]:
        """Return request id, organisation and rate limits ("Rate limits", "Overview")."""
        return {
            "request-id": request_id,
            "anthropic-organization-id": "0f6e7d5c-0000-4000-8000-000000000001",
            "anthropic-ratelimit-requests-limit": "4000",
            "anthropic-ratelimit-requests-remaining": "3999",
            "anthropic-ratelimit-requests-reset": "2026-11-22T00:00:01Z",
            "anthropic-ratelimit-input-tokens-limit": "400000",
            "anthropic-ratelimit-input-tokens-remaining": "399000",
            "anthropic-ratelimit-input-tokens-reset": "2026-11-22T00:00:01Z",
        }

    def route(self, ask: Ask, request_id: str) -> Reply:
        """Insist on a version, as the API does ("Versions")."""
        if "anthropic-version" not in ask.headers:
            raise bad("anthropic-version: header is required")
        return super().route(ask, request_id)

    def error(self, status: int, kind: str, message: str, request_id: str) -> Reply:
        """Return an error object ("Errors")."""
        told = {"type": "error", "error": {"type": kind, "message": message}}
        return self.whole({**told, "request_id": request_id}, request_id, status=status)

    def error_event(self, path: str) -> bytes:
        """Return an error as it comes inside a stream ("Streaming messages")."""
        told = {"type": "overloaded_error", "message": "scripted"}
        return named({"type": "error", "error": told})

    # -- messages ("Create a Message", "Streaming Messages") ----------------------------------

    def messages(self, ask: Ask, request_id: str) -> Reply:
        """Answer a message."""
        asked = ask.json()
        message = self.message(asked)
        streaming = asked.get("stream") is True
        made = self.world.generate(
            ask, "messages", message["id"], request_id, message["model"], streaming=streaming
        )
        if not streaming:
            return self.whole(message, request_id, made)
        return self.stream(map(named, self.events(message, asked)), request_id, made)

    def message(self, asked: Json) -> Json:
        """Return the message that answers what was *asked*."""
        model = model_of(asked)
        if not isinstance(asked.get("max_tokens"), int):
            raise bad("max_tokens: field required")
        if not isinstance(asked.get("messages"), list) or not asked["messages"]:
            raise bad("messages: field required")
        seed = self.world.seed("msg_01")
        said = self.says(asked)
        word = _last_question(asked).partition(" ")[0]
        content = _blocks(said, seed)
        if word == "secret":
            content.insert(0, {"type": "redacted_thinking", "data": "EmwKAhgB" + seed})
        if word == "search":
            content[0:0] = self.searched(seed)
            text = content[-1]
            text["citations"] = [
                {
                    "type": "web_search_result_location",
                    "url": "https://a.example",
                    "title": "A page",
                    "encrypted_index": seed[:20],
                    "cited_text": text["text"][:9],
                }
            ]
        message: Json = {
            "id": "msg_01" + seed[:22],
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": content,
            "stop_reason": _stop_reason(said),
            "stop_sequence": None,
            "usage": {
                "input_tokens": _count(_words_of(asked)),
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 0,
                    "ephemeral_1h_input_tokens": 0,
                },
                "output_tokens": _count_said([said]),
                "service_tier": "standard",
            },
        }
        if said.refusal:
            message["stop_details"] = {
                "type": "refusal",
                "category": "cyber",
                "explanation": said.refusal,
            }
        return message

    def says(self, asked: Json) -> Said:
        """Return what is said; a JSON schema is answered with JSON ("Structured outputs")."""
        wanted = (asked.get("output_config") or {}).get("format") or asked.get("output_format")
        if wanted:
            schema = wanted.get("schema") or {}
            return Said(text=json.dumps(_sample_arguments(schema, _last_question(asked))))
        return _say(asked, 0, dialect="anthropic")

    def searched(self, seed: str) -> list[Json]:
        """Return a search that the provider ran itself ("Web search tool")."""
        name = "srvtoolu_01" + seed[:22]
        found = {"type": "web_search_result", "url": "https://a.example", "title": "A page"}
        return [
            {
                "type": "server_tool_use",
                "id": name,
                "name": "web_search",
                "input": {"query": "what was asked"},
            },
            {
                "type": "web_search_tool_result",
                "tool_use_id": name,
                "content": [{**found, "encrypted_content": seed, "page_age": None}],
            },
        ]

    def events(self, message: Json, asked: Json) -> Iterator[Json]:
        """Yield the events of a streamed message."""
        plain = {"thinking", "text", "tool_use"}
        if all(block["type"] in plain for block in message["content"]):
            events: Iterator[Json] = _message_events(message)
        else:
            events = _odd_events(message)
        for event in events:
            if event["type"] == "message_delta" and "stop_details" in message:
                event["delta"]["stop_details"] = message["stop_details"]
            yield event
            if event["type"] == "content_block_stop" and _last_question(asked).startswith(
                "overload"
            ):
                told = {"type": "overloaded_error", "message": "Overloaded"}
                yield {"type": "error", "error": told}
                return

    def count_tokens(self, ask: Ask, request_id: str) -> Reply:
        """Count what a message would cost ("Count tokens in a Message")."""
        return self.whole({"input_tokens": _count(_words_of(ask.json()))}, request_id)

    def complete(self, ask: Ask, request_id: str) -> Reply:
        """Continue a text ("Create a Text Completion", legacy)."""
        asked = ask.json()
        model = model_of(asked)
        streaming = asked.get("stream") is True
        question = str(asked["prompt"]).replace("\n\nAssistant:", "").replace("\n\nHuman:", "")
        told = {"model": model, "max_tokens": asked["max_tokens_to_sample"]}
        told["messages"] = [{"role": "user", "content": question.strip()}]
        said = _say(told, 0, dialect="anthropic")
        name = self.world.new_id("compl_01")
        made = self.world.generate(
            ask, "complete", name, request_id, model, streaming=streaming
        )
        head: Json = {"type": "completion", "id": name, "model": model, "stop": None}
        end = "max_tokens" if said.cut else "stop_sequence"
        if streaming:
            events = [
                {**head, "completion": word, "stop_reason": None}
                for word in pieces_of(said.text)
            ]
            last = {**head, "completion": "", "stop_reason": end}
            return self.stream(
                map(named, [*events[:1], {"type": "ping"}, *events[1:], last]), request_id, made
            )
        done = {**head, "completion": " " + said.text, "stop_reason": end}
        return self.whole(done, request_id, made)

    # -- batches ("Create a Message Batch" and its neighbours) --------------------------------

    def batch_create(self, ask: Ask, request_id: str) -> Reply:
        """Take a batch; it is worked on at the second look."""
        requests = ask.json()["requests"]
        if len({one["custom_id"] for one in requests}) != len(requests):
            raise bad("requests: custom_id must be unique")
        counts = dict.fromkeys(("succeeded", "errored", "canceled", "expired"), 0)
        kept = self.world.keep(
            "message batch",
            {
                "id": self.world.new_id("msgbatch_01"),
                "type": "message_batch",
                "processing_status": "in_progress",
                "request_counts": {"processing": len(requests), **counts},
                "ended_at": None,
                "created_at": NOW_TEXT,
                "expires_at": "2026-09-22T14:13:20Z",
                "archived_at": None,
                "cancel_initiated_at": None,
                "results_url": None,
                "_requests": requests,
                "_looks": 0,
            },
        )
        return self.whole(_shown(kept), request_id)

    def batch_list(self, ask: Ask, request_id: str) -> Reply:
        """List batches, newest first."""
        return self.listed(list(map(_shown, self.world.all("message batch"))), ask, request_id)

    def batch(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell how far a batch is."""
        kept = self.world.find("message batch", name)
        kept["_looks"] += 1
        if kept["_looks"] > 1 and kept["processing_status"] != "ended":
            self.work(ask, kept)
        return self.whole(_shown(kept), request_id)

    def batch_cancel(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Stop a batch; one request was done by then."""
        kept = self.world.find("message batch", name)
        kept |= {"processing_status": "canceling", "cancel_initiated_at": NOW_TEXT}
        return self.whole(_shown(kept), request_id)

    def batch_delete(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Delete a batch."""
        self.world.drop("message batch", name)
        return self.whole({"id": name, "type": "message_batch_deleted"}, request_id)

    def batch_results(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Return the results, one line each, in another order than they were asked for."""
        kept = self.world.find("message batch", name)
        if kept["processing_status"] != "ended":
            raise bad("The batch is still in progress", 404)
        return self.binary(self.world.contents[name], "application/x-jsonl", request_id)

    def work(self, ask: Ask, kept: Json) -> None:
        """Answer the requests; some fail, and what was cancelled or expires is left."""
        counts = kept["request_counts"]
        cancelled = kept["processing_status"] == "canceling"
        results = []
        for at, one in sorted(enumerate(kept["_requests"]), key=lambda found: -found[0]):
            question = _last_question(one["params"])
            if cancelled and at:
                result: Json = {"type": "canceled"}
            elif question.startswith("expire"):
                result = {"type": "expired"}
            else:
                result = self.result_of(ask, one)
            counts[result["type"]] += 1
            counts["processing"] -= 1
            results.append({"custom_id": one["custom_id"], "result": result})
        self.world.contents[kept["id"]] = b"".join(line(one) + b"\n" for one in results)
        where = f"{ask.base}/v1/messages/batches/{kept['id']}/results"
        kept |= {"processing_status": "ended", "ended_at": NOW_TEXT, "results_url": where}

    def result_of(self, ask: Ask, one: Json) -> Json:
        """Return how one request is answered."""
        request_id = "req_" + self.world.seed("request")[:24]
        inner = dataclasses.replace(
            ask, method="POST", path="/v1/messages", body=line(one["params"])
        )
        try:
            message = self.message(inner.json())
        except WrongRequestError as wrong:
            told = {"type": wrong.kind, "message": str(wrong)}
            return {"type": "errored", "error": {"type": "error", "error": told}}
        made = self.world.generate(
            inner,
            "messages",
            message["id"],
            request_id,
            message["model"],
            item=one["custom_id"],
        )
        made.whole = True
        return {"type": "succeeded", "message": message}

    # -- files, models and the rest ("Files", "Models") ---------------------------------------

    def file_create(self, ask: Ask, request_id: str) -> Reply:
        """Take a file."""
        (part,) = ask.form()["file"]
        kept = self.world.keep(
            "file",
            {
                "id": self.world.new_id("file_01"),
                "type": "file",
                "filename": part.filename,
                "mime_type": part.content_type,
                "size_bytes": len(part.content),
                "created_at": NOW_TEXT,
                "downloadable": True,
            },
        )
        self.world.contents[kept["id"]] = part.content
        return self.whole(kept, request_id)

    def file_list(self, ask: Ask, request_id: str) -> Reply:
        """List files."""
        return self.listed(self.world.all("file"), ask, request_id)

    def file(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell of a file."""
        return self.whole(self.world.find("file", name), request_id)

    def file_delete(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Delete a file."""
        self.world.drop("file", name)
        return self.whole({"id": name, "type": "file_deleted"}, request_id)

    def file_content(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Return a file's bytes."""
        kept = self.world.find("file", name)
        return self.binary(self.world.contents[name], kept["mime_type"], request_id)

    def models(self, ask: Ask, request_id: str) -> Reply:
        """List models."""
        return self.listed([_model(name) for name in MODELS[::-1]], ask, request_id)

    def model(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell of a model."""
        if name not in MODELS:
            raise bad(f"model: {name}", 404)
        return self.whole(_model(name), request_id)

    def skills(self, ask: Ask, request_id: str) -> Reply:
        """List skills: none ("List Skills")."""
        return self.whole({"data": [], "has_more": False, "next_page": None}, request_id)

    def unheard(self, ask: Ask, request_id: str) -> Reply:
        """Answer an operation that nobody has heard of yet."""
        made = self.world.generate(
            ask, "unheard", self.world.new_id("un_"), request_id, "stub-large"
        )
        return self.whole({"id": made.id, "said": "something new"}, request_id, made)

    def listed(self, things: list[Json], ask: Ask, request_id: str) -> Reply:
        """Return a page of *things*, newest first."""
        found, more = page(things, ask)
        ends = {"first_id": found[0]["id"], "last_id": found[-1]["id"]} if found else {}
        none = {"first_id": None, "last_id": None}
        return self.whole({"data": found, "has_more": more, **none, **ends}, request_id)


def _odd_events(message: Json) -> Iterator[Json]:
    """Yield the events of a message that holds more than words, thoughts and tool calls."""
    usage = message["usage"]
    begun = {**message, "content": [], "stop_reason": None}
    begun.pop("stop_details", None)
    yield {
        "type": "message_start",
        "message": {**begun, "usage": {**usage, "output_tokens": 1}},
    }
    yield {"type": "ping"}
    for index, block in enumerate(message["content"]):
        delta = {"type": "content_block_delta", "index": index}
        match block["type"]:
            case "text":
                empty: Json = {"type": "text", "text": ""}
                if "citations" in block:
                    empty["citations"] = []
                deltas: list[Json] = [
                    {"type": "citations_delta", "citation": one}
                    for one in block.get("citations") or ()
                ]
                deltas += [
                    {"type": "text_delta", "text": word} for word in pieces_of(block["text"])
                ]
            case "server_tool_use":
                empty = {**block, "input": {}}
                told = json.dumps(block["input"])
                deltas = [{"type": "input_json_delta", "partial_json": told}]
            case "thinking":
                empty = {**block, "thinking": "", "signature": ""}
                deltas = [
                    {"type": "thinking_delta", "thinking": block["thinking"]},
                    {"type": "signature_delta", "signature": block["signature"]},
                ]
            case _:
                empty, deltas = block, []
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for one in deltas:
            yield {**delta, "delta": one}
        yield {"type": "content_block_stop", "index": index}
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    used = {"output_tokens": usage["output_tokens"]}
    yield {"type": "message_delta", "delta": ending, "usage": used}
    yield {"type": "message_stop"}


def _shown(thing: Json) -> Json:
    return {name: value for name, value in thing.items() if not name.startswith("_")}


def _model(name: str) -> Json:
    return {
        "type": "model",
        "id": name,
        "display_name": name.replace("-", " ").title(),
        "created_at": NOW_TEXT,
    }

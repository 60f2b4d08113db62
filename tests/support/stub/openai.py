"""A stub of OpenAI's API: every operation a gateway may meet, with answers of the right shape.

Shapes are written from OpenAI's API reference (platform.openai.com/docs/api-reference); each
handler names its page. Words that begin a question choose what comes back: `call NAME`,
`refuse`, `filter`, `fail`, `search`, `draw`, `run`, `mcp`.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import struct
from collections.abc import Iterator

from gateway.demo.provider import (
    Reply,
    Said,
    WrongRequestError,
    _chat_choice,
    _chat_events,
    _count,
    _count_said,
    _last_question,
    _openai_usage,
    _sample_arguments,
    _say,
    _words_of,
)
from tests.support.stub.world import (
    NOW,
    Ask,
    Json,
    Made,
    Stub,
    bad,
    data,
    doors,
    fragments,
    line,
    named,
    page,
    pieces_of,
    png,
    sound,
    vector,
)

MODELS = ("stub-large", "stub-small", "stub-reasoner")
CATEGORIES = ("harassment", "hate", "self-harm", "sexual", "violence")
SOUNDS = {"mp3": "audio/mpeg", "wav": "audio/wav", "pcm": "audio/pcm", "opus": "audio/ogg"}


class OpenAIStub(Stub):
    """OpenAI's API under `/v1`."""

    NAME = "openai"
    DOORS = tuple(
        doors("""
        POST /v1/chat/completions chat
        GET /v1/chat/completions stored_list
        GET /v1/chat/completions/{id} stored
        POST /v1/chat/completions/{id} stored_update
        DELETE /v1/chat/completions/{id} stored_delete
        GET /v1/chat/completions/{id}/messages stored_messages
        POST /v1/responses responses
        POST /v1/responses/compact compact
        POST /v1/responses/input_tokens input_tokens
        GET /v1/responses/{id} response
        DELETE /v1/responses/{id} response_delete
        POST /v1/responses/{id}/cancel response_cancel
        GET /v1/responses/{id}/input_items input_items
        POST /v1/conversations conversation_create
        GET /v1/conversations/{id} conversation
        POST /v1/conversations/{id} conversation_update
        DELETE /v1/conversations/{id} conversation_delete
        GET /v1/conversations/{id}/items conversation_items
        POST /v1/conversations/{id}/items conversation_add
        GET /v1/conversations/{id}/items/{item} conversation_item
        POST /v1/completions completions
        POST /v1/embeddings embeddings
        POST /v1/moderations moderations
        POST /v1/images/generations images
        POST /v1/images/edits image_edits
        POST /v1/images/variations image_edits
        POST /v1/audio/speech speech
        POST /v1/audio/transcriptions transcriptions
        POST /v1/audio/translations translations
        POST /v1/files file_create
        GET /v1/files file_list
        GET /v1/files/{id} file
        DELETE /v1/files/{id} file_delete
        GET /v1/files/{id}/content file_content
        POST /v1/uploads upload_create
        POST /v1/uploads/{id}/parts upload_part
        POST /v1/uploads/{id}/complete upload_complete
        POST /v1/uploads/{id}/cancel upload_cancel
        POST /v1/batches batch_create
        GET /v1/batches batch_list
        GET /v1/batches/{id} batch
        POST /v1/batches/{id}/cancel batch_cancel
        POST /v1/fine_tuning/jobs tuning_create
        GET /v1/fine_tuning/jobs tuning_list
        GET /v1/fine_tuning/jobs/{id} tuning
        POST /v1/fine_tuning/jobs/{id}/cancel tuning_cancel
        POST /v1/fine_tuning/jobs/{id}/pause tuning_pause
        POST /v1/fine_tuning/jobs/{id}/resume tuning_resume
        GET /v1/fine_tuning/jobs/{id}/events tuning_events
        GET /v1/fine_tuning/jobs/{id}/checkpoints tuning_checkpoints
        GET /v1/models models
        GET /v1/models/{id} model
        DELETE /v1/models/{id} model_delete
        POST /v1/vector_stores store_create
        GET /v1/vector_stores store_list
        GET /v1/vector_stores/{id} store
        DELETE /v1/vector_stores/{id} store_delete
        POST /v1/vector_stores/{id}/files store_file
        GET /v1/vector_stores/{id}/files store_files
        GET /v1/vector_stores/{id}/files/{file}/content store_content
        POST /v1/vector_stores/{id}/search store_search
        POST /v1/assistants assistant_create
        GET /v1/assistants assistant_list
        GET /v1/assistants/{id} assistant
        DELETE /v1/assistants/{id} assistant_delete
        POST /v1/threads thread_create
        GET /v1/threads/{id} thread
        DELETE /v1/threads/{id} thread_delete
        POST /v1/threads/runs thread_and_run
        POST /v1/threads/{id}/messages message_create
        GET /v1/threads/{id}/messages message_list
        GET /v1/threads/{id}/messages/{message} thread_message
        POST /v1/threads/{id}/runs run_create
        GET /v1/threads/{id}/runs/{run} run
        GET /v1/threads/{id}/runs/{run}/steps run_steps
        GET /v1/threads/{id}/runs/{run}/steps/{step} run_step
        POST /v1/containers container_create
        GET /v1/containers/{id} container
        POST /v1/containers/{id}/files container_file
        GET /v1/containers/{id}/files/{file}/content container_content
        POST /v1/evals eval_create
        POST /v1/evals/{id}/runs eval_run
        GET /v1/evals/{id}/runs/{run}/output_items eval_items
        GET /v1/evals/{id}/runs/{run}/output_items/{item} eval_item
        POST /v1/videos video_create
        GET /v1/videos/{id} video
        GET /v1/videos/{id}/content video_content
        POST /v1/realtime/client_secrets client_secret
        POST /v1/unheard/of unheard
        """)
    )

    def headers(self, request_id: str) -> dict[str, str]:
        """Return request id, version and rate limits ("Debugging requests")."""
        return {
            "x-request-id": request_id,
            "openai-processing-ms": "21",
            "openai-version": "2020-10-01",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-limit-tokens": "2000000",
            "x-ratelimit-remaining-tokens": "1999000",
            "x-ratelimit-reset-tokens": "30ms",
        }

    def error(self, status: int, kind: str, message: str, request_id: str) -> Reply:
        """Return `{"error": {…}}` ("Error codes")."""
        told = {"message": message, "type": kind, "param": None, "code": None}
        return self.whole({"error": told}, request_id, status=status)

    def error_event(self, path: str) -> bytes:
        """Return an error as it comes inside a stream ("Streaming events")."""
        told = {"type": "server_error", "message": "scripted", "param": None, "code": None}
        if path.endswith("/responses"):
            event = {"type": "error", "sequence_number": 99, **told, "code": "server_error"}
            return named(event)
        return data({"error": told})

    # -- chat ("Create chat completion", "The chat completion chunk object") ------------------

    def chat(self, ask: Ask, request_id: str) -> Reply:
        """Answer a chat; `store: true` keeps it."""
        asked = ask.json()
        model = model_of(asked)
        streaming = asked.get("stream") is True
        seed = self.world.seed("chatcmpl-")
        said = [self.says(asked, number) for number in range(asked.get("n") or 1)]
        answer: Json = {
            "id": self.chat_id(seed),
            "object": "chat.completion.chunk" if streaming else "chat.completion",
            "created": NOW,
            "model": self.resolved(model),
            "service_tier": "default",
            "system_fingerprint": "fp_44709d6fcb",
        }
        usage = self.dress_usage(_openai_usage(asked, said))
        made = self.world.generate(
            ask, "chat", answer["id"], request_id, model, streaming=streaming
        )
        choices = [
            self.dress_choice(_chat_choice(one, at, seed), one, asked, seed)
            for at, one in enumerate(said)
        ]
        whole = {**answer, "object": "chat.completion", "choices": choices, "usage": usage}
        whole = self.dress(whole, asked)
        if asked.get("store"):
            kept = {**whole, "metadata": asked.get("metadata") or {}}
            self.world.keep("chat completion", {**kept, "_asked": asked["messages"]})
        if not streaming:
            return self.whole(whole, request_id, made)
        with_usage = (asked.get("stream_options") or {}).get("include_usage") is True
        events = self.chunks(answer, said, seed, usage if with_usage else None, asked)
        return self.stream([*events, b"data: [DONE]\n\n"], request_id, made)

    def chat_id(self, seed: str) -> str:
        """Return the id of an answer."""
        return "chatcmpl-" + seed[:29]

    def resolved(self, model: str) -> str:
        """Return the model that answers: a name without a date becomes a dated one."""
        return model

    def says(self, asked: Json, number: int) -> Said:
        """Return what choice *number* says; a JSON schema is answered with JSON."""
        if not isinstance(asked.get("messages"), list) or not asked["messages"]:
            raise bad("messages: field required")
        wanted = asked.get("response_format") or {}
        if wanted.get("type") == "json_schema":
            schema = wanted["json_schema"].get("schema") or {}
            return Said(text=json.dumps(_sample_arguments(schema, _last_question(asked))))
        return _say(asked, number, dialect="openai")

    def dress(self, whole: Json, asked: Json) -> Json:
        """Return a whole answer as this provider has it."""
        return whole

    def dress_usage(self, usage: Json) -> Json:
        """Return the usage as this provider counts it."""
        return usage

    def dress_choice(self, choice: Json, said: Said, asked: Json, seed: str) -> Json:
        """Return a choice: OpenAI shows no reasoning; log probabilities and sound on demand."""
        message = choice["message"]
        message.pop("reasoning_content", None)
        if _last_question(asked).startswith("filter"):
            message["content"], choice["finish_reason"] = None, "content_filter"
        if asked.get("logprobs"):
            choice["logprobs"] = {
                "content": logprobs(message["content"] or ""),
                "refusal": None,
            }
        if "audio" in (asked.get("modalities") or ()):
            message["audio"] = {
                "id": "audio_" + seed[:16],
                "data": base64.b64encode(sound(said.text, 300)).decode(),
                "transcript": said.text,
                "expires_at": NOW + 3600,
            }
            message["content"] = None
        if any(str(tool.get("type")).startswith("web_search") for tool in tools_of(asked)):
            cited = {"start_index": 0, "end_index": 4, "title": "A page"}
            message["annotations"] = [
                {"type": "url_citation", "url_citation": {**cited, "url": "https://a.example"}}
            ]
        return choice

    def chunks(
        self, answer: Json, said: list[Said], seed: str, usage: Json | None, asked: Json
    ) -> Iterator[bytes]:
        """Yield the chunks of a streamed answer, padded as OpenAI pads them."""
        padded = (asked.get("stream_options") or {}).get("include_obfuscation") is not False
        shown = [dataclasses.replace(one, reasoning="") for one in said]
        for at, event in enumerate(_chat_events(answer, shown, seed, usage)):
            for choice in event["choices"]:
                if asked.get("logprobs") and choice["delta"].get("content"):
                    told = logprobs(choice["delta"]["content"])
                    choice["logprobs"] = {"content": told, "refusal": None}
            if padded:
                event["obfuscation"] = seed[: 3 + at % 11]
            yield data(event)

    # -- stored completions ("List Chat Completions" and its neighbours) ----------------------

    def stored_list(self, ask: Ask, request_id: str) -> Reply:
        """List what `store: true` kept."""
        return self.listed("chat completion", ask, request_id)

    def stored(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Return a stored answer."""
        return self.whole(shown(self.world.find("chat completion", name)), request_id)

    def stored_update(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Change its metadata."""
        found = self.world.find("chat completion", name)
        found["metadata"] = ask.json().get("metadata")
        return self.whole(shown(found), request_id)

    def stored_delete(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Delete it."""
        return self.deleted("chat completion", name, "chat.completion.deleted", request_id)

    def stored_messages(self, ask: Ask, request_id: str, name: str) -> Reply:
        """List what it was asked."""
        found = self.world.find("chat completion", name)
        asked = [
            {"id": f"{name}-{at}", "name": None, "content_parts": None, **message}
            for at, message in enumerate(found["_asked"])
        ]
        return self.whole(list_of(asked, more=False), request_id)

    # -- responses ("Create a model response", "Streaming events") ----------------------------

    def responses(self, ask: Ask, request_id: str) -> Reply:
        """Answer at once, as a stream, or in the background."""
        asked = ask.json()
        model = model_of(asked)
        streaming, later = asked.get("stream") is True, asked.get("background") is True
        seed = self.world.seed("resp_")
        final = self.final_response(asked, model, seed)
        made = self.world.generate(
            ask, "responses", final["id"], request_id, model, streaming=streaming
        )
        events = list(response_events(final, queued=later))
        if asked.get("store") is not False or later:
            self.world.keep(
                "response",
                {"id": final["id"], "final": final, "polls": 0 if later else 2, "asked": asked}
                | {"events": events},
            )
        if streaming:
            return self.stream(map(named, events), request_id, made)
        return self.whole(early(final, "queued") if later else final, request_id, made)

    def final_response(self, asked: Json, model: str, seed: str) -> Json:
        """Return the response as it will be in the end."""
        chat = as_chat(asked)
        question = _last_question(chat)
        word = question.partition(" ")[0]
        said = _say(chat, 0, dialect="openai")
        wanted = ((asked.get("text") or {}).get("format") or {}).get("schema")
        if wanted is not None:
            said = Said(text=json.dumps(_sample_arguments(wanted, question)))
        kinds = {str(tool.get("type")): tool for tool in tools_of(asked)}
        output = list(output_items(said, word, kinds, asked, seed))
        status, error, details = "completed", None, None
        if word == "fail":
            status, output = "failed", []
            error = {"code": "server_error", "message": "scripted"}
        elif said.cut:
            status, details = "incomplete", {"reason": "max_output_tokens"}
        prompt, completion = _count(_words_of(chat)), _count_said([said])
        return {
            "id": "resp_" + seed[:40],
            "object": "response",
            "created_at": NOW,
            "status": status,
            "background": asked.get("background") is True,
            "error": error,
            "incomplete_details": details,
            "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "model": self.resolved(model),
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": asked.get("previous_response_id"),
            "reasoning": {"effort": (asked.get("reasoning") or {}).get("effort")},
            "store": asked.get("store") is not False,
            "temperature": 1.0,
            "text": asked.get("text") or {"format": {"type": "text"}},
            "tool_choice": asked.get("tool_choice") or "auto",
            "tools": asked.get("tools") or [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": completion,
                "output_tokens_details": {"reasoning_tokens": _count(said.reasoning)},
                "total_tokens": prompt + completion,
            },
            "user": None,
            "metadata": asked.get("metadata") or {},
        }

    def response(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Return a response or its stream; one in the background is done at the second look."""
        kept = self.world.find("response", name)
        if ask.said("stream") == "true":
            after = int(ask.said("starting_after", "-1"))
            events = [e for e in kept["events"] if e["sequence_number"] > after]
            return self.stream(map(named, events), request_id)
        kept["polls"] += 1
        if kept.get("cancelled"):
            return self.whole(early(kept["final"], "cancelled"), request_id)
        if kept["polls"] < 2:
            return self.whole(early(kept["final"], "in_progress"), request_id)
        return self.whole(kept["final"], request_id)

    def response_delete(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Delete a response."""
        return self.deleted("response", name, "response", request_id)

    def response_cancel(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Cancel a response that is made in the background."""
        kept = self.world.find("response", name)
        if not kept["final"]["background"]:
            raise bad("Only responses created with background=true can be cancelled")
        if kept["polls"] < 2:
            kept["cancelled"] = True
            return self.whole(early(kept["final"], "cancelled"), request_id)
        return self.whole(kept["final"], request_id)

    def input_items(self, ask: Ask, request_id: str, name: str) -> Reply:
        """List what a response was asked."""
        asked = self.world.find("response", name)["asked"]
        items = [
            {
                "id": f"msg_in_{at}",
                "type": "message",
                "role": message["role"],
                "status": "completed",
                "content": [{"type": "input_text", "text": str(message["content"])}],
            }
            for at, message in enumerate(as_chat(asked)["messages"])
        ]
        return self.whole(list_of(items, more=False), request_id)

    def compact(self, ask: Ask, request_id: str) -> Reply:
        """Return a conversation in short, encrypted ("Compact a response")."""
        asked = ask.json()
        seed = self.world.seed("resp_")
        made = self.world.generate(ask, "responses", "resp_" + seed[:40], request_id, "")
        count = _count(_words_of(as_chat(asked)))
        usage = {"input_tokens": count, "output_tokens": 9, "total_tokens": count + 9}
        item = {"id": "cmp_" + seed[:20], "type": "compaction", "encrypted_content": seed}
        return self.whole(
            {
                "id": made.id,
                "object": "response.compaction",
                "created_at": NOW,
                "output": [item],
                "usage": {
                    **usage,
                    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                    "output_tokens_details": {"reasoning_tokens": 0},
                },
            },
            request_id,
            made,
        )

    def input_tokens(self, ask: Ask, request_id: str) -> Reply:
        """Count the input of a response ("Get input token counts")."""
        count = _count(_words_of(as_chat(ask.json())))
        told = {"object": "response.input_tokens", "input_tokens": count}
        return self.whole(told, request_id)

    # -- conversations ("Conversations") ------------------------------------------------------

    def conversation_create(self, ask: Ask, request_id: str) -> Reply:
        """Begin a conversation."""
        asked = ask.json()
        kept = self.world.keep(
            "conversation",
            {
                "id": self.world.new_id("conv_", 40),
                "object": "conversation",
                "created_at": NOW,
                "metadata": asked.get("metadata") or {},
                "_items": [self.item_of(item) for item in asked.get("items") or []],
            },
        )
        return self.whole(shown(kept), request_id)

    def item_of(self, item: Json) -> Json:
        """Return a message as a conversation keeps it."""
        content = item.get("content")
        if isinstance(content, str):
            content = [{"type": "input_text", "text": content}]
        name = self.world.new_id("msg_", 40)
        return {"id": name, "type": "message", "status": "completed", **item} | {
            "content": content
        }

    def conversation(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Return a conversation."""
        return self.whole(shown(self.world.find("conversation", name)), request_id)

    def conversation_update(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Change its metadata."""
        found = self.world.find("conversation", name)
        found["metadata"] = ask.json()["metadata"]
        return self.whole(shown(found), request_id)

    def conversation_delete(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Delete it."""
        return self.deleted("conversation", name, "conversation.deleted", request_id)

    def conversation_items(self, ask: Ask, request_id: str, name: str) -> Reply:
        """List its items."""
        items = self.world.find("conversation", name)["_items"]
        return self.whole(list_of(items, more=False), request_id)

    def conversation_add(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Add items."""
        found = self.world.find("conversation", name)
        added = [self.item_of(item) for item in ask.json()["items"]]
        found["_items"] += added
        return self.whole(list_of(added, more=False), request_id)

    def conversation_item(self, ask: Ask, request_id: str, name: str, item: str) -> Reply:
        """Return one item."""
        for one in self.world.find("conversation", name)["_items"]:
            if one["id"] == item:
                return self.whole(one, request_id)
        raise bad(f"No such item: {item}", 404)

    # -- older and smaller things -------------------------------------------------------------

    def completions(self, ask: Ask, request_id: str) -> Reply:
        """Continue a text ("Create completion", legacy)."""
        asked = ask.json()
        model = model_of(asked)
        streaming = asked.get("stream") is True
        given = asked.get("prompt")
        prompts = [str(p) for p in given] if isinstance(given, list) else [str(given)]
        seed = self.world.seed("cmpl-")
        made = self.world.generate(
            ask, "completions", "cmpl-" + seed[:29], request_id, model, streaming=streaming
        )
        told = {**asked, "max_tokens": asked.get("max_tokens") or 16}
        said = [
            _say({**told, "messages": [{"role": "user", "content": p}]}, at, dialect="openai")
            for p in prompts
            for at in range(asked.get("n") or 1)
        ]
        head = {"id": made.id, "object": "text_completion", "created": NOW}
        head |= {"model": self.resolved(model), "system_fingerprint": "fp_44709d6fcb"}
        counted = sum(map(_count, prompts)), _count_said(said)
        usage = {"prompt_tokens": counted[0], "completion_tokens": counted[1]}
        usage["total_tokens"] = sum(counted)
        ends = ["length" if one.cut else "stop" for one in said]
        if streaming:
            events = [
                {**head, "choices": [text_choice(at, word, None)]}
                for at, one in enumerate(said)
                for word in pieces_of(one.text)
            ]
            events += [
                {**head, "choices": [text_choice(at, "", end)]} for at, end in enumerate(ends)
            ]
            if (asked.get("stream_options") or {}).get("include_usage"):
                events.append({**head, "choices": [], "usage": usage})
            return self.stream([*map(data, events), b"data: [DONE]\n\n"], request_id, made)
        choices = [
            text_choice(at, one.text, end)
            for at, (one, end) in enumerate(zip(said, ends, strict=True))
        ]
        return self.whole({**head, "choices": choices, "usage": usage}, request_id, made)

    def embeddings(self, ask: Ask, request_id: str) -> Reply:
        """Return numbers for texts, as floats or as base64 ("Create embeddings")."""
        asked = ask.json()
        model = model_of(asked)
        given = asked.get("input")
        texts = [str(text) for text in given] if isinstance(given, list) else [str(given)]
        made = self.world.generate(
            ask, "embeddings", self.world.new_id("emb-"), request_id, model
        )
        packed = asked.get("encoding_format") == "base64"
        found = []
        for at, text in enumerate(texts):
            numbers = vector(text, asked.get("dimensions") or 8)
            as_bytes = struct.pack(f"<{len(numbers)}f", *numbers)
            one = base64.b64encode(as_bytes).decode() if packed else numbers
            found.append({"object": "embedding", "index": at, "embedding": one})
        count = sum(map(_count, texts))
        usage = {"prompt_tokens": count, "total_tokens": count}
        answer = {"object": "list", "data": found, "model": model, "usage": usage}
        return self.whole(answer, request_id, made)

    def moderations(self, ask: Ask, request_id: str) -> Reply:
        """Say what is offensive ("Create moderation")."""
        asked = ask.json()
        given = asked.get("input")
        texts = given if isinstance(given, list) else [given]
        model = asked.get("model") or "omni-moderation-latest"
        made = self.world.generate(
            ask, "moderations", self.world.new_id("modr-"), request_id, model
        )
        results = []
        for text in texts:
            scores = dict(zip(CATEGORIES, (abs(n) for n in vector(str(text), 5)), strict=True))
            flags = {name: "kill" in str(text) for name in CATEGORIES}
            results.append(
                {
                    "flagged": any(flags.values()),
                    "categories": flags,
                    "category_scores": scores,
                    "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
                }
            )
        return self.whole({"id": made.id, "model": model, "results": results}, request_id, made)

    def images(self, ask: Ask, request_id: str) -> Reply:
        """Draw ("Create image", "Image streaming")."""
        return self.draw(ask, request_id, ask.json(), "image_generation")

    def image_edits(self, ask: Ask, request_id: str) -> Reply:
        """Draw on what was sent ("Create image edit", "Create image variation")."""
        parts = ask.form()
        if not any(name in parts for name in ("image", "image[]")):
            raise bad("image: field required")
        asked = ask.fields()
        asked = {**asked, "n": int(asked.get("n", 1)), "stream": asked.get("stream") == "true"}
        asked["partial_images"] = int(asked.get("partial_images", 0))
        return self.draw(ask, request_id, asked, "image_edit")

    def draw(self, ask: Ask, request_id: str, asked: Json, operation: str) -> Reply:
        """Return pictures in base64, or where they can be had, or as they are drawn."""
        streaming = asked.get("stream") is True
        name = self.world.new_id("img-")
        model = asked.get("model") or "gpt-image-1"
        made = self.world.generate(ask, "images", name, request_id, model, streaming=streaming)
        told = {"background": "opaque", "output_format": "png", "quality": "low"}
        told["size"] = "1024x1024"
        usage = {
            "input_tokens": 7,
            "input_tokens_details": {"text_tokens": 7, "image_tokens": 0},
            "output_tokens": 64,
            "total_tokens": 71,
        }
        prompt = str(asked.get("prompt"))
        if streaming:
            count = asked.get("partial_images") or 0
            events = [
                {
                    "type": f"{operation}.partial_image",
                    "partial_image_index": at,
                    "b64_json": base64.b64encode(png(f"{prompt}/{at}")).decode(),
                    "created_at": NOW,
                    **told,
                }
                for at in range(count)
            ]
            whole = base64.b64encode(png(prompt)).decode()
            done = {"type": f"{operation}.completed", "b64_json": whole, "created_at": NOW}
            events.append({**done, **told, "usage": usage})
            return self.stream(map(named, events), request_id, made)
        pictures: list[Json] = []
        for at in range(asked.get("n") or 1):
            if asked.get("response_format") == "url":
                where = f"{ask.base}/drawn/{name}-{at}.png"
                pictures.append({"url": where, "revised_prompt": prompt + ", in detail"})
            else:
                drawn = base64.b64encode(png(f"{prompt}/{at}" if at else prompt)).decode()
                pictures.append({"b64_json": drawn})
        return self.whole(
            {"created": NOW, "data": pictures, **told, "usage": usage}, request_id, made
        )

    def speech(self, ask: Ask, request_id: str) -> Reply:
        """Speak ("Create speech"): sound as it is, or events that carry it."""
        asked = ask.json()
        model = model_of(asked)
        streaming = asked.get("stream_format") == "sse"
        made = self.world.generate(
            ask, "speech", self.world.new_id("sp-"), request_id, model, streaming=streaming
        )
        spoken = sound(str(asked.get("input")))
        if streaming:
            events: list[Json] = [
                {
                    "type": "speech.audio.delta",
                    "audio": base64.b64encode(spoken[at : at + 1500]).decode(),
                }
                for at in range(0, len(spoken), 1500)
            ]
            usage = {"input_tokens": 5, "output_tokens": 99, "total_tokens": 104}
            events.append({"type": "speech.audio.done", "usage": usage})
            return self.stream(map(data, events), request_id, made)
        kind = SOUNDS.get(asked.get("response_format") or "mp3", "application/octet-stream")
        return self.binary(spoken, kind, request_id, made)

    def transcriptions(self, ask: Ask, request_id: str) -> Reply:
        """Write down what is said ("Create transcription", "transcript.text.delta")."""
        return self.hear(ask, request_id, "transcribe")

    def translations(self, ask: Ask, request_id: str) -> Reply:
        """Write down in English what is said ("Create translation")."""
        return self.hear(ask, request_id, "translate")

    def hear(self, ask: Ask, request_id: str, task: str) -> Reply:
        """Return the words in the form that was asked for."""
        (heard,) = ask.form()["file"]
        asked = ask.fields()
        form = asked.get("response_format") or "json"
        streaming = asked.get("stream") == "true"
        made = self.world.generate(
            ask,
            "transcriptions",
            self.world.new_id("tr-"),
            request_id,
            asked["model"],
            streaming=streaming,
        )
        text = f"{len(heard.content)} bytes were heard, and this is what they say."
        usage = {"type": "duration", "seconds": 3}
        if streaming:
            events: list[Json] = [
                {"type": "transcript.text.delta", "delta": word} for word in pieces_of(text)
            ]
            counted = {
                "type": "tokens",
                "input_tokens": 30,
                "output_tokens": 12,
                "total_tokens": 42,
                "input_token_details": {"text_tokens": 0, "audio_tokens": 30},
            }
            events.append({"type": "transcript.text.done", "text": text, "usage": counted})
            return self.stream([*map(data, events)], request_id, made)
        if form in {"text", "srt", "vtt"}:
            told = {
                "text": text + "\n",
                "srt": f"1\n00:00:00,000 --> 00:00:03,000\n{text}\n\n",
                "vtt": f"WEBVTT\n\n00:00:00.000 --> 00:00:03.000\n{text}\n\n",
            }[form]
            return self.binary(told.encode(), "text/plain; charset=utf-8", request_id, made)
        answer: Json = {"text": text, "usage": usage}
        if form == "verbose_json":
            segment = {"id": 0, "seek": 0, "start": 0.0, "end": 3.0, "text": text}
            segment |= {"tokens": [1, 2, 3], "temperature": 0.0, "avg_logprob": -0.2}
            segment |= {"compression_ratio": 1.1, "no_speech_prob": 0.01}
            answer |= {"task": task, "language": "english", "duration": 3.0}
            answer["segments"] = [segment]
        return self.whole(answer, request_id, made)

    # -- files and uploads ("Files", "Uploads") -----------------------------------------------

    def keep_file(self, content: bytes, filename: str, purpose: str) -> Json:
        """Keep a file and return what is told of it."""
        name = self.world.new_id("file-")
        self.world.contents[name] = content
        return self.world.keep(
            "file",
            {
                "id": name,
                "object": "file",
                "bytes": len(content),
                "created_at": NOW,
                "expires_at": None,
                "filename": filename,
                "purpose": purpose,
                "status": "processed",
                "status_details": None,
            },
        )

    def file_create(self, ask: Ask, request_id: str) -> Reply:
        """Take a file."""
        form = ask.form()
        (part,), (purpose,) = form["file"], form["purpose"]
        kept = self.keep_file(part.content, part.filename or "file", purpose.content.decode())
        return self.whole(kept, request_id)

    def file_list(self, ask: Ask, request_id: str) -> Reply:
        """List files, of one purpose if asked."""
        wanted = ask.said("purpose")
        files = [f for f in self.world.all("file") if wanted in {"", f["purpose"]}]
        found, more = page(files, ask, 10_000)
        return self.whole(list_of(found, more=more), request_id)

    def file(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell of a file."""
        return self.whole(self.world.find("file", name), request_id)

    def file_delete(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Delete a file."""
        return self.deleted("file", name, "file", request_id)

    def file_content(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Return a file's bytes."""
        told = self.world.find("file", name)
        attached = {"content-disposition": f'attachment; filename="{told["filename"]}"'}
        kind = "application/octet-stream"
        return self.binary(self.world.contents[name], kind, request_id, more=attached)

    def upload_create(self, ask: Ask, request_id: str) -> Reply:
        """Begin an upload."""
        asked = ask.json()
        kept = self.world.keep(
            "upload",
            {
                "id": self.world.new_id("upload_"),
                "object": "upload",
                "bytes": asked["bytes"],
                "created_at": NOW,
                "expires_at": NOW + 3600,
                "filename": asked["filename"],
                "purpose": asked["purpose"],
                "status": "pending",
                "file": None,
            },
        )
        return self.whole(kept, request_id)

    def upload_part(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Take a part."""
        self.world.find("upload", name)
        (part,) = ask.form()["data"]
        told = {"id": self.world.new_id("part_"), "object": "upload.part"}
        self.world.contents[told["id"]] = part.content
        return self.whole({**told, "created_at": NOW, "upload_id": name}, request_id)

    def upload_complete(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Make a file of the parts, in the order that is told."""
        kept = self.world.find("upload", name)
        content = b"".join(self.world.contents[part] for part in ask.json()["part_ids"])
        if len(content) != kept["bytes"]:
            raise bad(f"expected {kept['bytes']} bytes, got {len(content)}")
        kept["file"] = self.keep_file(content, kept["filename"], kept["purpose"])
        kept["status"] = "completed"
        return self.whole(kept, request_id)

    def upload_cancel(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Give an upload up."""
        kept = self.world.find("upload", name)
        kept["status"] = "cancelled"
        return self.whole(kept, request_id)

    # -- batches ("Batch", "The request output object") ---------------------------------------

    def batch_create(self, ask: Ask, request_id: str) -> Reply:
        """Take a batch; it is worked on at the second look."""
        asked = ask.json()
        count = self.world.contents[self.world.find("file", asked["input_file_id"])["id"]]
        total = len([one for one in count.splitlines() if one.strip()])
        kept = self.world.keep(
            "batch",
            {
                "id": self.world.new_id("batch_"),
                "object": "batch",
                "endpoint": asked["endpoint"],
                "errors": None,
                "input_file_id": asked["input_file_id"],
                "completion_window": asked["completion_window"],
                "status": "validating",
                "output_file_id": None,
                "error_file_id": None,
                "created_at": NOW,
                "in_progress_at": None,
                "expires_at": NOW + 86400,
                "finalizing_at": None,
                "completed_at": None,
                "failed_at": None,
                "expired_at": None,
                "cancelling_at": None,
                "cancelled_at": None,
                "request_counts": {"total": total, "completed": 0, "failed": 0},
                "metadata": asked.get("metadata"),
            },
        )
        return self.whole(kept, request_id)

    def batch_list(self, ask: Ask, request_id: str) -> Reply:
        """List batches."""
        return self.listed("batch", ask, request_id)

    def batch(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell how far a batch is: under way at the first look, done at the second."""
        kept = self.world.find("batch", name)
        if kept["status"] == "validating":
            kept |= {"status": "in_progress", "in_progress_at": NOW}
        elif kept["status"] == "in_progress":
            self.work(ask, kept)
        elif kept["status"] == "cancelling":
            self.work(ask, kept, only=1)
            kept |= {"status": "cancelled", "cancelled_at": NOW}
        return self.whole(kept, request_id)

    def batch_cancel(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Stop a batch; what was done by then is kept."""
        kept = self.world.find("batch", name)
        kept |= {"status": "cancelling", "cancelling_at": NOW}
        return self.whole(kept, request_id)

    def work(self, ask: Ask, kept: Json, only: int | None = None) -> None:
        """Answer the lines in another order than they came in; some fail, some expire."""
        lines = [
            one
            for one in self.world.contents[kept["input_file_id"]].splitlines()
            if one.strip()
        ]
        expiring = (kept["metadata"] or {}).get("expire") == "1"
        done = len(lines) // 2 if expiring else len(lines) if only is None else only
        good: list[Json] = []
        wrong: list[Json] = []
        for at, one in sorted(enumerate(lines), key=lambda found: -found[0]):
            asked = json.loads(one)
            told: Json = {
                "id": self.world.new_id("batch_req_"),
                "custom_id": asked["custom_id"],
            }
            if at >= done:
                code = "batch_expired" if expiring else "batch_cancelled"
                message = "This request could not be executed in time."
                told |= {"response": None, "error": {"code": code, "message": message}}
                wrong.append(told)
                continue
            answered, body = self.answer_line(ask, asked)
            told |= {"response": answered | {"body": body}, "error": None}
            (good if answered["status_code"] == 200 else wrong).append(told)
        for found, where in ((good, "output_file_id"), (wrong, "error_file_id")):
            if found:
                content = b"".join(line(one) + b"\n" for one in found)
                kind = f"{kept['id']}_{where.removesuffix('_file_id')}.jsonl"
                kept[where] = self.keep_file(content, kind, "batch_output")["id"]
        kept["request_counts"] |= {"completed": len(good), "failed": len(wrong)}
        ending = "expired" if expiring else "completed"
        kept |= {"status": ending, f"{ending}_at": NOW}

    def answer_line(self, ask: Ask, asked: Json) -> tuple[Json, Json]:
        """Return how one line is answered, and the body."""
        request_id = "req_" + self.world.seed("request")[:24]
        inner = dataclasses.replace(
            ask, method=asked["method"], path=asked["url"], body=line(asked["body"])
        )
        try:
            reply = self.route(inner, request_id)
        except WrongRequestError as wrong:
            reply = self.error(wrong.status, wrong.kind, str(wrong), request_id)
        if isinstance(reply.generation, Made):
            reply.generation.item = asked["custom_id"]
            reply.generation.whole = True
        told = {"status_code": reply.status, "request_id": request_id}
        return told, json.loads(b"".join(reply.pieces))

    # -- fine-tuning ("Fine-tuning") ----------------------------------------------------------

    def tuning_create(self, ask: Ask, request_id: str) -> Reply:
        """Begin to customise a model."""
        asked = ask.json()
        self.world.find("file", asked["training_file"])
        kept = self.world.keep(
            "fine-tuning job",
            {
                "object": "fine_tuning.job",
                "id": self.world.new_id("ftjob-"),
                "model": asked["model"],
                "created_at": NOW,
                "finished_at": None,
                "fine_tuned_model": None,
                "organization_id": "org-stub",
                "result_files": [],
                "status": "queued",
                "validation_file": None,
                "training_file": asked["training_file"],
                "hyperparameters": {"n_epochs": 4, "batch_size": 1},
                "trained_tokens": None,
                "error": None,
                "seed": 7,
            },
        )
        return self.whole(kept, request_id)

    def tuning_list(self, ask: Ask, request_id: str) -> Reply:
        """List jobs."""
        return self.listed("fine-tuning job", ask, request_id)

    def tuning(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell how far a job is."""
        return self.whole(self.world.find("fine-tuning job", name), request_id)

    def tuning_cancel(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Stop a job."""
        kept = self.world.find("fine-tuning job", name)
        kept["status"] = "cancelled"
        return self.whole(kept, request_id)

    def tuning_pause(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Let a job rest."""
        kept = self.world.find("fine-tuning job", name)
        kept["status"] = "paused"
        return self.whole(kept, request_id)

    def tuning_resume(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Let a job go on."""
        kept = self.world.find("fine-tuning job", name)
        kept["status"] = "running"
        return self.whole(kept, request_id)

    def tuning_events(self, ask: Ask, request_id: str, name: str) -> Reply:
        """List what happened to a job."""
        self.world.find("fine-tuning job", name)
        event: Json = {
            "object": "fine_tuning.job.event",
            "id": f"ftevent-{name}",
            "level": "info",
        }
        event |= {"created_at": NOW, "message": "Created fine-tuning job", "type": "message"}
        return self.whole(list_of([event], more=False), request_id)

    def tuning_checkpoints(self, ask: Ask, request_id: str, name: str) -> Reply:
        """List a job's checkpoints: none."""
        self.world.find("fine-tuning job", name)
        return self.whole(list_of([], more=False), request_id)

    # -- models ("Models") --------------------------------------------------------------------

    def models(self, ask: Ask, request_id: str) -> Reply:
        """List models."""
        told = {"object": "list", "data": [model_object(name) for name in MODELS]}
        return self.whole(told, request_id)

    def model(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell of a model."""
        if name not in MODELS:
            raise bad(f"The model '{name}' does not exist", 404)
        return self.whole(model_object(name), request_id)

    def model_delete(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Delete a customised model."""
        return self.whole({"id": name, "object": "model", "deleted": True}, request_id)

    # -- what passes opaque: vector stores, assistants, videos --------------------------------

    def store_create(self, ask: Ask, request_id: str) -> Reply:
        """Make a vector store ("Vector stores")."""
        asked = ask.json()
        counts = {"in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0, "total": 0}
        kept = self.world.keep(
            "vector store",
            {
                "id": self.world.new_id("vs_"),
                "object": "vector_store",
                "created_at": NOW,
                "name": asked.get("name"),
                "usage_bytes": 0,
                "file_counts": counts,
                "status": "completed",
                "last_active_at": NOW,
                "metadata": {},
                "_files": [],
            },
        )
        return self.whole(shown(kept), request_id)

    def store_list(self, ask: Ask, request_id: str) -> Reply:
        """List vector stores."""
        return self.listed("vector store", ask, request_id)

    def store(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell of a vector store."""
        return self.whole(shown(self.world.find("vector store", name)), request_id)

    def store_delete(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Delete a vector store."""
        return self.deleted("vector store", name, "vector_store.deleted", request_id)

    def store_file(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Put a file into a vector store."""
        kept = self.world.find("vector store", name)
        file = self.world.find("file", ask.json()["file_id"])["id"]
        told = {"id": file, "object": "vector_store.file", "created_at": NOW}
        told |= {"vector_store_id": name, "status": "completed", "usage_bytes": 10}
        kept["_files"].append({**told, "last_error": None})
        return self.whole(kept["_files"][-1], request_id)

    def store_files(self, ask: Ask, request_id: str, name: str) -> Reply:
        """List a vector store's files."""
        files = self.world.find("vector store", name)["_files"]
        return self.whole(list_of(files, more=False), request_id)

    def store_search(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Search a vector store."""
        kept = self.world.find("vector store", name)
        found = [
            {
                "file_id": one["id"],
                "filename": "notes.txt",
                "score": 0.9,
                "attributes": {},
                "content": [{"type": "text", "text": "what it says"}],
            }
            for one in kept["_files"]
        ]
        told: Json = {"object": "vector_store.search_results.page", "data": found}
        told |= {"search_query": [ask.json()["query"]], "has_more": False, "next_page": None}
        return self.whole(told, request_id)

    def store_content(self, ask: Ask, request_id: str, name: str, file: str) -> Reply:
        """Return what a file of a vector store says."""
        self.world.find("vector store", name)
        part = {"type": "text", "text": self.world.contents[file].decode()}
        told = {"object": "vector_store.file_content.page", "data": [part]}
        return self.whole({**told, "has_more": False, "next_page": None}, request_id)

    def assistant_create(self, ask: Ask, request_id: str) -> Reply:
        """Make an assistant ("Assistants")."""
        asked = ask.json()
        kept = self.world.keep(
            "assistant",
            {
                "id": self.world.new_id("asst_"),
                "object": "assistant",
                "created_at": NOW,
                "name": asked.get("name"),
                "description": None,
                "model": asked["model"],
                "instructions": asked.get("instructions"),
                "tools": [],
                "metadata": {},
            },
        )
        return self.whole(kept, request_id)

    def assistant_list(self, ask: Ask, request_id: str) -> Reply:
        """List assistants."""
        return self.listed("assistant", ask, request_id)

    def assistant(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell of an assistant."""
        return self.whole(self.world.find("assistant", name), request_id)

    def assistant_delete(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Delete an assistant."""
        return self.deleted("assistant", name, "assistant.deleted", request_id)

    def thread_create(self, ask: Ask, request_id: str) -> Reply:
        """Begin a thread ("Threads")."""
        return self.whole(shown(self.new_thread(ask.json())), request_id)

    def new_thread(self, asked: Json) -> Json:
        """Keep a thread and return it."""
        thread: Json = {
            "id": self.world.new_id("thread_"),
            "object": "thread",
            "created_at": NOW,
        }
        thread |= {"metadata": {}, "tool_resources": None, "_messages": []}
        for message in asked.get("messages") or []:
            thread["_messages"].append(self.message_of(thread["id"], message))
        return self.world.keep("thread", thread)

    def message_of(self, thread: str, message: Json, run: str | None = None) -> Json:
        """Return a message of a thread."""
        text = {"value": message["content"], "annotations": []}
        return {
            "id": self.world.new_id("msg_"),
            "object": "thread.message",
            "created_at": NOW,
            "thread_id": thread,
            "role": message["role"],
            "content": [{"type": "text", "text": text}],
            "assistant_id": None,
            "run_id": run,
            "attachments": [],
            "metadata": {},
            "status": "completed",
            "incomplete_details": None,
            "incomplete_at": None,
            "completed_at": NOW,
        }

    def thread(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell of a thread."""
        return self.whole(shown(self.world.find("thread", name)), request_id)

    def thread_delete(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Delete a thread."""
        return self.deleted("thread", name, "thread.deleted", request_id)

    def message_create(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Add a message to a thread."""
        message = self.message_of(name, ask.json())
        self.world.find("thread", name)["_messages"].append(message)
        return self.whole(message, request_id)

    def message_list(self, ask: Ask, request_id: str, name: str) -> Reply:
        """List a thread's messages."""
        found, more = page(self.world.find("thread", name)["_messages"], ask)
        return self.whole(list_of(found, more=more), request_id)

    def thread_and_run(self, ask: Ask, request_id: str) -> Reply:
        """Begin a thread and let an assistant answer it."""
        asked = ask.json()
        return self.run_on(ask, request_id, self.new_thread(asked.get("thread") or {}), asked)

    def thread_message(self, ask: Ask, request_id: str, name: str, message: str) -> Reply:
        """Return a thread's message."""
        for one in self.world.find("thread", name)["_messages"]:
            if one["id"] == message:
                return self.whole(one, request_id)
        raise bad(f"No such message: {message}", 404)

    def run_create(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Let an assistant answer a thread ("Runs", "Assistant stream events")."""
        return self.run_on(ask, request_id, self.world.find("thread", name), ask.json())

    def run_on(self, ask: Ask, request_id: str, thread: Json, asked: Json) -> Reply:
        """Answer the last message of *thread*, whole or as a stream."""
        assistant = self.world.find("assistant", asked["assistant_id"])
        run: Json = {
            "id": self.world.new_id("run_"),
            "object": "thread.run",
            "created_at": NOW,
            "thread_id": thread["id"],
            "assistant_id": assistant["id"],
            "status": "queued",
            "model": assistant["model"],
            "instructions": assistant["instructions"],
            "tools": [],
            "metadata": {},
            "usage": None,
            "parallel_tool_calls": True,
        }
        streaming = asked.get("stream") is True
        made = self.world.generate(
            ask, "runs", run["id"], request_id, assistant["model"], streaming=streaming
        )
        text = f"The thread has {len(thread['_messages'])} messages."
        message = self.message_of(
            thread["id"], {"role": "assistant", "content": text}, run["id"]
        )
        thread["_messages"].append(message)
        usage = {"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15}
        done = {**run, "status": "completed", "usage": usage, "completed_at": NOW}
        self.world.keep("run", done)
        if not streaming:
            return self.whole(run, request_id, made)
        events: list[tuple[str, Json]] = [("thread.run.created", run)]
        events.append(("thread.run.in_progress", {**run, "status": "in_progress"}))
        empty = {**message, "content": [], "status": "in_progress"}
        events.append(("thread.message.created", empty))
        for word in pieces_of(text):
            told = {"index": 0, "type": "text", "text": {"value": word}}
            delta = {"id": message["id"], "object": "thread.message.delta"}
            events.append(("thread.message.delta", {**delta, "delta": {"content": [told]}}))
        events.append(("thread.message.completed", message))
        events.append(("thread.run.completed", done))
        pieces = [b"event: %b\ndata: %b\n\n" % (n.encode(), line(v)) for n, v in events]
        return self.stream([*pieces, b"event: done\ndata: [DONE]\n\n"], request_id, made)

    def run(self, ask: Ask, request_id: str, thread: str, name: str) -> Reply:
        """Tell how far a run is: it is done."""
        return self.whole(self.world.find("run", name), request_id)

    def run_steps(self, ask: Ask, request_id: str, thread: str, name: str) -> Reply:
        """List a run's steps."""
        return self.whole(list_of([self.step_of(name)], more=False), request_id)

    def run_step(self, ask: Ask, request_id: str, thread: str, name: str, step: str) -> Reply:
        """Return a run's step."""
        return self.whole(self.step_of(name), request_id)

    def step_of(self, name: str) -> Json:
        """Return the one step of a run: it wrote a message."""
        run = self.world.find("run", name)
        told = {"type": "message_creation", "message_creation": {"message_id": "msg_of_it"}}
        return {
            "id": f"step_of_{name}",
            "object": "thread.run.step",
            "created_at": NOW,
            "run_id": name,
            "assistant_id": run["assistant_id"],
            "thread_id": run["thread_id"],
            "type": "message_creation",
            "status": "completed",
            "step_details": told,
            "usage": run["usage"],
        }

    # -- containers and evaluations ("Containers", "Evals") ------------------------------------

    def container_create(self, ask: Ask, request_id: str) -> Reply:
        """Make a container."""
        told: Json = {"id": self.world.new_id("cntr_"), "object": "container"}
        told |= {"created_at": NOW, "last_active_at": NOW, "name": ask.json().get("name")}
        return self.whole(self.world.keep("container", told), request_id)

    def container(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell of a container."""
        return self.whole(self.world.find("container", name), request_id)

    def container_file(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Put a file into a container."""
        self.world.find("container", name)
        (part,) = ask.form()["file"]
        told: Json = {"id": self.world.new_id("cfile_"), "object": "container.file"}
        self.world.contents[told["id"]] = part.content
        told |= {"container_id": name, "path": f"/mnt/data/{part.filename}", "source": "user"}
        return self.whole({**told, "created_at": NOW, "bytes": len(part.content)}, request_id)

    def container_content(self, ask: Ask, request_id: str, name: str, file: str) -> Reply:
        """Return the bytes of a container's file."""
        self.world.find("container", name)
        return self.binary(self.world.contents[file], "application/octet-stream", request_id)

    def eval_create(self, ask: Ask, request_id: str) -> Reply:
        """Make an evaluation."""
        told: Json = {"id": self.world.new_id("eval_"), "object": "eval", "created_at": NOW}
        told |= {"name": ask.json().get("name"), "testing_criteria": [], "metadata": {}}
        return self.whole(self.world.keep("eval", told), request_id)

    def eval_run(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Begin a run of an evaluation."""
        self.world.find("eval", name)
        run: Json = {"id": self.world.new_id("evalrun_"), "object": "eval.run"}
        made = self.world.generate(ask, "evals", run["id"], request_id, "stub-large")
        run |= {"eval_id": name, "status": "completed", "model": "stub-large"}
        return self.whole(self.world.keep("eval run", run), request_id, made)

    def eval_items(self, ask: Ask, request_id: str, name: str, run: str) -> Reply:
        """List what a run wrote."""
        return self.whole(list_of([self.written_in(name, run)], more=False), request_id)

    def eval_item(self, ask: Ask, request_id: str, name: str, run: str, item: str) -> Reply:
        """Return one thing that a run wrote."""
        return self.whole(self.written_in(name, run), request_id)

    def written_in(self, name: str, run: str) -> Json:
        """Return the one thing that a run wrote."""
        self.world.find("eval", name)
        self.world.find("eval run", run)
        output = [{"role": "assistant", "content": "It is a ledger."}]
        sample = {"model": "stub-large", "finish_reason": "stop", "output": output}
        told: Json = {"id": f"item_of_{run}", "object": "eval.run.output_item", "run_id": run}
        return {**told, "eval_id": name, "status": "pass", "sample": sample}

    def video_create(self, ask: Ask, request_id: str) -> Reply:
        """Begin a video ("Create video")."""
        asked = ask.json() if "json" in ask.headers.get("content-type", "") else ask.fields()
        name = self.world.new_id("video_")
        made = self.world.generate(ask, "videos", name, request_id, asked.get("model", ""))
        video = {"id": name, "object": "video", "created_at": NOW, "status": "queued"}
        video |= {"model": asked.get("model"), "progress": 0, "seconds": "4"}
        video |= {"size": "720x1280", "completed_at": None, "expires_at": None, "error": None}
        video |= {"remixed_from_video_id": None, "prompt": asked.get("prompt")}
        return self.whole(self.world.keep("video", video), request_id, made)

    def video(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell of a video: it is done."""
        kept = self.world.find("video", name)
        kept |= {"status": "completed", "progress": 100, "completed_at": NOW}
        return self.whole(kept, request_id)

    def video_content(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Return a video's bytes."""
        self.world.find("video", name)
        return self.binary(sound(name, 50_000), "video/mp4", request_id)

    def client_secret(self, ask: Ask, request_id: str) -> Reply:
        """Return a key for a browser ("Create client secret")."""
        told = {"value": "ek_" + self.world.seed("ek_")[:24], "expires_at": NOW + 600}
        session = {"type": "realtime", "object": "realtime.session", "id": "sess_1"}
        return self.whole({**told, "session": session}, request_id)

    def unheard(self, ask: Ask, request_id: str) -> Reply:
        """Answer an operation that nobody has heard of yet."""
        made = self.world.generate(
            ask, "unheard", self.world.new_id("un_"), request_id, "stub-large"
        )
        return self.whole({"id": made.id, "said": "something new"}, request_id, made)

    # -- shared by many -----------------------------------------------------------------------

    def listed(self, kind: str, ask: Ask, request_id: str) -> Reply:
        """Return a page of what is kept."""
        found, more = page(self.world.all(kind), ask)
        return self.whole(list_of([shown(one) for one in found], more=more), request_id)

    def deleted(self, kind: str, name: str, told: str, request_id: str) -> Reply:
        """Forget something and say so."""
        self.world.drop(kind, name)
        return self.whole({"id": name, "object": told, "deleted": True}, request_id)


def model_of(asked: Json) -> str:
    """Return the model that is asked; the name `missing` stands for one that is not there."""
    model = asked.get("model")
    if not isinstance(model, str) or not model:
        raise bad("model: field required")
    if model == "missing":
        raise bad("The model 'missing' does not exist", 404)
    return model


def tools_of(asked: Json) -> list[Json]:
    """Return the tools of a request."""
    return [tool for tool in asked.get("tools") or [] if isinstance(tool, dict)]


def shown(thing: Json) -> Json:
    """Return *thing* without what only the stub knows of it."""
    return {name: value for name, value in thing.items() if not name.startswith("_")}


def list_of(things: list[Json], *, more: bool) -> Json:
    """Return a page of a list."""
    ends = {"first_id": things[0]["id"], "last_id": things[-1]["id"]} if things else {}
    none = {"first_id": None, "last_id": None}
    return {"object": "list", "data": things, **none, **ends, "has_more": more}


def model_object(name: str) -> Json:
    """Return a model as it is listed."""
    return {"id": name, "object": "model", "created": NOW, "owned_by": "stub"}


def text_choice(index: int, text: str, end: str | None) -> Json:
    """Return a choice of a legacy completion."""
    return {"text": text, "index": index, "logprobs": None, "finish_reason": end}


def logprobs(text: str) -> list[Json]:
    """Return how likely each word of *text* was."""
    return [
        {
            "token": word,
            "logprob": -0.25 * (at % 4),
            "bytes": list(word.encode()),
            "top_logprobs": [],
        }
        for at, word in enumerate(pieces_of(text))
    ]


def as_chat(asked: Json) -> Json:
    """Return a request for a response as a chat, as far as its words go."""
    given = asked.get("input")
    messages: list[Json] = []
    if asked.get("instructions"):
        messages.append({"role": "system", "content": asked["instructions"]})
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    else:
        messages += [
            {"role": item.get("role", "user"), "content": item.get("content", "")}
            for item in given or []
            if isinstance(item, dict) and item.get("type", "message") == "message"
        ]
    tools = [tool for tool in tools_of(asked) if tool.get("type") in {"function", "custom"}]
    chat: Json = {
        "model": asked.get("model", ""),
        "messages": messages or [{"role": "user", "content": "nothing"}],
    }
    if asked.get("max_output_tokens"):
        chat["max_tokens"] = asked["max_output_tokens"]
    return chat | {"tools": tools, "tool_choice": asked.get("tool_choice")}


def output_items(
    said: Said, word: str, kinds: dict[str, Json], asked: Json, seed: str
) -> Iterator[Json]:
    """Yield the items of a response's output."""
    if said.reasoning or asked.get("reasoning"):
        summary = said.reasoning or "It was thought about."
        item: Json = {"id": "rs_" + seed[:40], "type": "reasoning"}
        item["summary"] = [{"type": "summary_text", "text": summary}]
        if "reasoning.encrypted_content" in (asked.get("include") or ()):
            item["encrypted_content"] = "gAAAA" + seed
        yield item
    for kind, tool in kinds.items():
        name = seed[:32]
        if kind.startswith("web_search") and word == "search":
            action = {"type": "search", "query": "what was asked"}
            yield {"id": "ws_" + name, "type": "web_search_call", "status": "completed"} | {
                "action": action
            }
        if kind == "file_search" and word == "search":
            yield {
                "id": "fs_" + name,
                "type": "file_search_call",
                "status": "completed",
                "queries": ["what was asked"],
                "results": None,
            }
        if kind == "image_generation" and word == "draw":
            yield {
                "id": "ig_" + name,
                "type": "image_generation_call",
                "status": "completed",
                "result": base64.b64encode(png(seed)).decode(),
            }
        if kind == "code_interpreter" and word == "run":
            yield {
                "id": "ci_" + name,
                "type": "code_interpreter_call",
                "status": "completed",
                "code": "print(6 * 7)",
                "container_id": "cntr_1",
                "outputs": None,
            }
        if kind == "mcp" and word == "mcp":
            yield {
                "id": "mcp_" + name,
                "type": "mcp_call",
                "status": "completed",
                "name": "lookup",
                "arguments": '{"what":"it"}',
                "server_label": tool.get("server_label"),
                "output": "found",
                "error": None,
                "approval_request_id": None,
            }
        if kind == "custom" and said.tool == tool.get("name"):
            yield {
                "id": "ctc_" + name,
                "type": "custom_tool_call",
                "call_id": "call_" + seed[:22],
                "name": said.tool,
                "input": "print a line",
                "status": "completed",
            }
            return
    if said.tool:
        yield {
            "id": "fc_" + seed[:40],
            "type": "function_call",
            "call_id": "call_" + seed[:22],
            "name": said.tool,
            "arguments": json.dumps(said.arguments),
            "status": "completed",
        }
        return
    content: Json = {"type": "refusal", "refusal": said.refusal}
    if not said.refusal:
        content = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
        if word == "search":
            content["annotations"] = [
                {
                    "type": "url_citation",
                    "start_index": 0,
                    "end_index": 4,
                    "url": "https://a.example",
                    "title": "A page",
                }
            ]
    status = "incomplete" if said.cut else "completed"
    yield {"id": "msg_" + seed[:40], "type": "message", "status": status} | {
        "role": "assistant",
        "content": [content],
    }


def early(final: Json, status: str) -> Json:
    """Return a response before it has any output."""
    return {**final, "status": status, "output": [], "usage": None, "error": None} | {
        "incomplete_details": None
    }


def response_events(final: Json, *, queued: bool) -> Iterator[Json]:
    """Yield the events of a streamed response, numbered from 0."""
    for number, event in enumerate(_unnumbered(final, queued=queued)):
        kind = event.pop("type")
        yield {"type": kind, "sequence_number": number, **event}


def _unnumbered(final: Json, *, queued: bool) -> Iterator[Json]:
    yield {
        "type": "response.created",
        "response": early(final, "queued" if queued else "in_progress"),
    }
    if queued:
        yield {"type": "response.queued", "response": early(final, "queued")}
    yield {"type": "response.in_progress", "response": early(final, "in_progress")}
    for index, item in enumerate(final["output"]):
        at: Json = {"item_id": item["id"], "output_index": index}
        begun = {
            name: value
            for name, value in item.items()
            if name not in {"result", "output", "encrypted_content"}
        }
        for name, empty in (("content", []), ("summary", []), ("arguments", ""), ("input", "")):
            if name in begun:
                begun[name] = empty
        if "status" in begun:
            begun["status"] = "in_progress"
        if item["type"] == "code_interpreter_call":
            begun["code"] = ""
        yield {"type": "response.output_item.added", "output_index": index, "item": begun}
        yield from _inner_events(item, at)
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{final['status']}", "response": final}


def _inner_events(item: Json, at: Json) -> Iterator[Json]:
    """Yield what happens between an item's beginning and its end."""
    match item["type"]:
        case "reasoning":
            here = {**at, "summary_index": 0}
            (part,) = item["summary"]
            empty = {"type": "summary_text", "text": ""}
            begun = "response.reasoning_summary_"
            yield {"type": f"{begun}part.added", **here, "part": empty}
            for word in pieces_of(part["text"]):
                yield {"type": f"{begun}text.delta", **here, "delta": word}
            yield {"type": f"{begun}text.done", **here, "text": part["text"]}
            yield {"type": f"{begun}part.done", **here, "part": part}
        case "message":
            for index, part in enumerate(item["content"]):
                here = {**at, "content_index": index}
                yield from _part_events(part, here)
        case "function_call":
            yield from _deltas("function_call_arguments", "arguments", item["arguments"], at)
        case "custom_tool_call":
            yield from _deltas("custom_tool_call_input", "input", item["input"], at)
        case "mcp_call":
            yield {"type": "response.mcp_call.in_progress", **at}
            yield from _deltas("mcp_call_arguments", "arguments", item["arguments"], at)
            yield {"type": "response.mcp_call.completed", **at}
        case "code_interpreter_call":
            yield {"type": "response.code_interpreter_call.in_progress", **at}
            yield from _deltas("code_interpreter_call_code", "code", item["code"], at)
            yield {"type": "response.code_interpreter_call.interpreting", **at}
            yield {"type": "response.code_interpreter_call.completed", **at}
        case "image_generation_call":
            begun = "response.image_generation_call."
            yield {"type": f"{begun}in_progress", **at}
            yield {"type": f"{begun}generating", **at}
            partial = base64.b64encode(png(item["id"])).decode()
            told = {"partial_image_index": 0, "partial_image_b64": partial}
            yield {"type": f"{begun}partial_image", **at, **told}
            yield {"type": f"{begun}completed", **at}
        case kind:
            for word in ("in_progress", "searching", "completed"):
                yield {"type": f"response.{kind}.{word}", **at}


def _part_events(part: Json, here: Json) -> Iterator[Json]:
    refused = part["type"] == "refusal"
    name = "refusal" if refused else "text"
    kind = "response.refusal" if refused else "response.output_text"
    empty = {**part, name: ""} | ({} if refused else {"annotations": []})
    yield {"type": "response.content_part.added", **here, "part": empty}
    more: Json = {} if refused else {"logprobs": []}
    for word in pieces_of(part[name]):
        yield {"type": f"{kind}.delta", **here, "delta": word, **more}
    for at, annotation in enumerate(part.get("annotations") or ()):
        told = {"annotation_index": at, "annotation": annotation}
        yield {"type": f"{kind}.annotation.added", **here, **told}
    yield {"type": f"{kind}.done", **here, name: part[name], **more}
    yield {"type": "response.content_part.done", **here, "part": part}


def _deltas(event: str, name: str, text: str, at: Json) -> Iterator[Json]:
    for part in fragments(text):
        yield {"type": f"response.{event}.delta", **at, "delta": part}
    yield {"type": f"response.{event}.done", **at, name: text}

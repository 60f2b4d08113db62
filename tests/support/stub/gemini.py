"""A stub of the Gemini API: generated content, embeddings, batches, files, caches, models.

Shapes are written from Google's API reference (ai.google.dev/api); each handler names its page.
Words that begin a question choose what comes back: `call NAME`, `block` (nothing but a reason),
`filter`, `draw` (a picture), `run` (code that the provider ran), `fail`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator

from gateway.demo.provider import (
    Reply,
    Said,
    WrongRequestError,
    _count,
    _count_said,
    _reasoning,
    _sample_arguments,
    _say,
)
from tests.support.stub.openai import MODELS
from tests.support.stub.world import (
    NOW_TEXT,
    Ask,
    Json,
    Stub,
    bad,
    doors,
    line,
    pieces_of,
    png,
    sound,
    vector,
)

STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


class GeminiStub(Stub):
    """The Gemini API under `/v1`, `/v1beta` and `/v1alpha`."""

    NAME = "gemini"
    DOORS = tuple(
        doors("""
        POST /v/models/{m}:generateContent generate
        POST /v/models/{m}:streamGenerateContent generate_stream
        POST /v/models/{m}:countTokens count_tokens
        POST /v/models/{m}:embedContent embed
        POST /v/models/{m}:batchEmbedContents embed_many
        POST /v/models/{m}:predict predict
        POST /v/models/{m}:predictLongRunning predict_later
        GET /v/models/{m}/operations/{id} operation
        GET /v/operations/{id} operation
        POST /v/tunedModels tuned_create
        GET /download/v/files/{id}:download file_content
        POST /v/models/{m}:batchGenerateContent batch_create
        POST /v/models/{m}:asyncBatchEmbedContent batch_embed
        GET /v/batches batch_list
        GET /v/batches/{id} batch
        POST /v/batches/{id}:cancel batch_cancel
        DELETE /v/batches/{id} batch_delete
        POST /upload/v/files upload_start
        PUT /upload/v/files upload_data
        GET /v/files file_list
        GET /v/files/{id}:download file_content
        GET /v/files/{id} file
        DELETE /v/files/{id} file_delete
        POST /v/cachedContents cache_create
        GET /v/cachedContents cache_list
        GET /v/cachedContents/{id} cache
        PATCH /v/cachedContents/{id} cache_update
        DELETE /v/cachedContents/{id} cache_delete
        GET /v/models models
        GET /v/models/{id} model
        POST /v/interactions interaction_create
        GET /v/interactions/{id} interaction
        POST /v/interactions/{id}/cancel interaction_cancel
        POST /v/unheard:of unheard
        """)
    )

    def require_key(self, ask: Ask) -> None:
        """Refuse who shows no credential; the bytes of an upload come without one."""
        if "upload_id" not in ask.query:
            super().require_key(ask)

    def route(self, ask: Ask, request_id: str) -> Reply:
        """Find the operation under any of the API's versions ("API versions")."""
        path = re.sub(r"^(/upload|/download)?/(v1beta|v1alpha|v1)(?=/)", r"\1/v", ask.path)
        for door in self.DOORS:
            if door.method == ask.method and (found := door.pattern.fullmatch(path)):
                reply: Reply = getattr(self, door.handler)(ask, request_id, *found.groups())
                return reply
        raise bad(f"unknown request: {ask.method} {ask.path}", 404)

    def headers(self, request_id: str) -> dict[str, str]:
        """Return what Google's front end adds."""
        return {
            "x-gemini-service-tier": "standard",
            "server-timing": "gfet4t7; dur=21",
            "vary": "Origin",
            "x-request-id": request_id,
        }

    def error(self, status: int, kind: str, message: str, request_id: str) -> Reply:
        """Return `{"error": {code, message, status}}` ("Troubleshooting")."""
        return self.whole({"error": _error(status, message)}, request_id, status=status)

    def error_event(self, path: str) -> bytes:
        """Return an error as it comes inside a stream."""
        return b"data: %b\r\n\r\n" % line({"error": _error(503, "scripted")})

    # -- generated content ("Generating content") ---------------------------------------------

    def generate(self, ask: Ask, request_id: str, model: str) -> Reply:
        """Answer whole."""
        answer = self.answer(ask.json(), model)
        made = self.world.generate(
            ask, "generateContent", answer["responseId"], request_id, model
        )
        return self.whole(answer, request_id, made)

    def generate_stream(self, ask: Ask, request_id: str, model: str) -> Reply:
        """Answer in parts: events with CRLF, or one JSON array sent in pieces."""
        answer = self.answer(ask.json(), model)
        made = self.world.generate(
            ask, "generateContent", answer["responseId"], request_id, model, streaming=True
        )
        parts = list(self.parts(answer))
        if ask.said("alt") == "sse":
            pieces = [b"data: %b\r\n\r\n" % line(part) for part in parts]
            return self.stream(pieces, request_id, made, "text/event-stream")
        texts = [json.dumps(part, indent=2, ensure_ascii=False).encode() for part in parts]
        pieces = [b"[" + texts[0], *(b",\r\n" + text for text in texts[1:]), b"]"]
        return self.stream(pieces, request_id, made, "application/json; charset=UTF-8")

    def answer(self, asked: Json, model: str) -> Json:
        """Return a whole GenerateContentResponse."""
        if model == "missing":
            raise bad("models/missing is not found for API version v1beta", 404)
        if not isinstance(asked.get("contents"), list) or not asked["contents"]:
            raise bad("contents is not specified")
        seed = self.world.seed("responseId")
        config = asked.get("generationConfig") or {}
        chat = as_chat(asked, model)
        question = chat["messages"][-1]["content"] or "nothing"
        word = question.partition(" ")[0]
        base: Json = {"modelVersion": model, "responseId": seed[:22]}
        prompt = sum(_count(message["content"]) for message in chat["messages"])
        used: Json = {
            "promptTokenCount": prompt,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
        }
        if word == "block":
            told = {"blockReason": "PROHIBITED_CONTENT"}
            usage = {**used, "totalTokenCount": prompt}
            return {"promptFeedback": told, "usageMetadata": usage, **base}
        thinking = (config.get("thinkingConfig") or {}).get("includeThoughts") is True
        candidates, everything = [], []
        for index in range(config.get("candidateCount") or 1):
            said = self.says(chat, config, index)
            everything.append(said)
            parts: list[Json] = []
            if thinking:
                parts.append({"text": _reasoning(question, index), "thought": True})
            parts += self.content(said, word, config, seed)
            if thinking:
                parts[-1]["thoughtSignature"] = base64.b64encode(seed.encode()).decode()
            reason = "MAX_TOKENS" if said.cut else "SAFETY" if word == "filter" else "STOP"
            candidate: Json = {"content": {"parts": parts, "role": "model"}}
            candidate |= {"finishReason": reason, "index": index}
            if word == "filter":
                del candidate["content"]
            candidates.append(candidate)
        thoughts = 12 * len(candidates) if thinking else 0
        spoken = _count_said(everything)
        usage = {**used, "candidatesTokenCount": spoken}
        usage["totalTokenCount"] = prompt + spoken + thoughts
        if thinking:
            usage["thoughtsTokenCount"] = thoughts
        return {"candidates": candidates, "usageMetadata": usage, **base}

    def says(self, chat: Json, config: Json, index: int) -> Said:
        """Return what a candidate says; a schema is answered with JSON."""
        schema = config.get("responseSchema") or config.get("responseJsonSchema")
        if schema is not None:
            question = chat["messages"][-1]["content"]
            return Said(text=json.dumps(_sample_arguments(_lower(schema), question)))
        said = _say(chat, index, dialect="anthropic")
        return Said(text=said.refusal) if said.refusal else said

    def content(self, said: Said, word: str, config: Json, seed: str) -> list[Json]:
        """Return the parts of an answer."""
        if said.tool:
            call: Json = {"name": said.tool, "args": dict(said.arguments), "id": seed[:8]}
            return [{"functionCall": call}]
        parts: list[Json] = []
        if word == "run":
            code = {"language": "PYTHON", "code": "print(6 * 7)"}
            parts.append({"executableCode": code})
            result = {"outcome": "OUTCOME_OK", "output": "42\n"}
            parts.append({"codeExecutionResult": result})
        parts.append({"text": said.text})
        if word == "draw" or "IMAGE" in (config.get("responseModalities") or ()):
            drawn = base64.b64encode(png(seed)).decode()
            parts.append({"inlineData": {"mimeType": "image/png", "data": drawn}})
        if "AUDIO" in (config.get("responseModalities") or ()):
            spoken = base64.b64encode(sound(said.text, 480)).decode()
            kind = "audio/L16;codec=pcm;rate=24000"
            parts = [{"inlineData": {"mimeType": kind, "data": spoken}}]
        return parts

    def parts(self, answer: Json) -> Iterator[Json]:
        """Yield a streamed answer's parts; counts grow, and the last ones count."""
        base = {name: answer[name] for name in ("modelVersion", "responseId")}
        if "candidates" not in answer:
            yield answer
            return
        usage = dict(answer["usageMetadata"])
        early = {**usage, "candidatesTokenCount": 1}
        for candidate in answer["candidates"]:
            index = candidate["index"]
            for part in candidate.get("content", {}).get("parts", ()):
                for piece in _pieces_of(part):
                    content = {"parts": [piece], "role": "model"}
                    told = {"content": content, "index": index}
                    yield {"candidates": [told], "usageMetadata": early, **base}
        ends = [
            {
                "content": {"parts": [{"text": ""}], "role": "model"},
                "finishReason": candidate["finishReason"],
                "index": candidate["index"],
            }
            for candidate in answer["candidates"]
        ]
        yield {"candidates": ends, "usageMetadata": usage, **base}

    def count_tokens(self, ask: Ask, request_id: str, model: str) -> Reply:
        """Count tokens ("Counting tokens")."""
        asked = ask.json()
        chat = as_chat(asked.get("generateContentRequest") or asked, model)
        count = sum(_count(message["content"]) for message in chat["messages"])
        details = [{"modality": "TEXT", "tokenCount": count}]
        return self.whole({"totalTokens": count, "promptTokensDetails": details}, request_id)

    def embed(self, ask: Ask, request_id: str, model: str) -> Reply:
        """Return numbers for one text ("Embeddings")."""
        made = self.world.generate(
            ask, "embedContent", self.world.new_id("emb"), request_id, model
        )
        return self.whole({"embedding": embedding_of(ask.json())}, request_id, made)

    def embed_many(self, ask: Ask, request_id: str, model: str) -> Reply:
        """Return numbers for many texts."""
        made = self.world.generate(
            ask, "embedContent", self.world.new_id("emb"), request_id, model
        )
        found = [embedding_of(one) for one in ask.json()["requests"]]
        return self.whole({"embeddings": found}, request_id, made)

    def predict(self, ask: Ask, request_id: str, model: str) -> Reply:
        """Draw ("Imagen")."""
        asked = ask.json()
        made = self.world.generate(ask, "predict", self.world.new_id("img"), request_id, model)
        prompt = asked["instances"][0]["prompt"]
        count = (asked.get("parameters") or {}).get("sampleCount") or 1
        drawn = [base64.b64encode(png(f"{prompt}/{at}")).decode() for at in range(count)]
        found = [{"mimeType": "image/png", "bytesBase64Encoded": one} for one in drawn]
        return self.whole({"predictions": found}, request_id, made)

    def predict_later(self, ask: Ask, request_id: str, model: str) -> Reply:
        """Begin a video ("Veo")."""
        name = f"models/{model}/operations/" + self.world.seed("operations")[:16]
        made = self.world.generate(ask, "predictLongRunning", name, request_id, model)
        self.world.keep("operation", {"name": name, "_looks": 0}, "name")
        return self.whole({"name": name}, request_id, made)

    def operation(self, ask: Ask, request_id: str, *found: str) -> Reply:
        """Tell how far an operation is: done at the second look ("Operations")."""
        below = ask.path.partition("/v1beta/")[2]
        kept = self.world.find("operation", below)
        kept["_looks"] += 1
        if kept["_looks"] > 1:
            uri = "https://generativelanguage.googleapis.com/v1beta/files/a:download?alt=media"
            sample = [{"video": {"uri": uri}}]
            kind = "type.googleapis.com/google.ai.generativelanguage.v1beta.PredictLongRunning"
            answer = {"generateVideoResponse": {"generatedSamples": sample}}
            response: Json = {"@type": f"{kind}Response", **answer}
            if kept.get("_tuned"):
                response = {"name": kept["_tuned"], "state": "ACTIVE", "temperature": 1.0}
            kept |= {"done": True, "response": response}
        return self.whole(_shown(kept), request_id)

    def tuned_create(self, ask: Ask, request_id: str) -> Reply:
        """Begin to customise a model ("Tuning")."""
        name = "operations/" + self.world.seed("operations")[:16]
        told = {"tunedModel": "tunedModels/" + self.world.seed("tunedModels")[:12]}
        kept = {"name": name, "_looks": 0, "_tuned": told["tunedModel"]}
        self.world.keep("operation", kept, "name")
        return self.whole({"name": name, "metadata": told}, request_id)

    # -- batches ("Batch Mode") ---------------------------------------------------------------

    def batch_create(self, ask: Ask, request_id: str, model: str) -> Reply:
        """Take a batch, inline or as a file; it is worked on at the second look."""
        return self.begin_batch(ask, request_id, model, "GenerateContentBatch")

    def batch_embed(self, ask: Ask, request_id: str, model: str) -> Reply:
        """Take a batch of texts to embed."""
        return self.begin_batch(ask, request_id, model, "EmbedContentBatch")

    def begin_batch(self, ask: Ask, request_id: str, model: str, kind: str) -> Reply:
        """Keep a batch as a long-running operation."""
        asked = ask.json()["batch"]
        given = asked.get("inputConfig") or asked.get("input_config") or {}
        file = given.get("fileName") or given.get("file_name")
        if file is not None:
            lines = self.world.contents[self.world.find("file", file)["name"]].splitlines()
            requests = [json.loads(one) for one in lines if one.strip()]
        else:
            requests = given["requests"]["requests"]
        name = "batches/" + self.world.seed("batches")[:32]
        kept = {
            "name": name,
            "metadata": {
                "@type": f"type.googleapis.com/google.ai.generativelanguage.v1main.{kind}",
                "model": f"models/{model}",
                "displayName": asked.get("displayName") or asked.get("display_name"),
                "createTime": NOW_TEXT,
                "updateTime": NOW_TEXT,
                "batchStats": {"requestCount": str(len(requests))},
                "state": "BATCH_STATE_PENDING",
                "name": name,
            },
            "_requests": requests,
            "_file": file is not None,
            "_looks": 0,
            "_model": model,
        }
        self.world.keep("batch", kept, "name")
        return self.whole(_shown(kept), request_id)

    def batch_list(self, ask: Ask, request_id: str) -> Reply:
        """List batches."""
        found = list(map(_shown, self.world.all("batch")[::-1]))
        return self.whole({"operations": found} if found else {}, request_id)

    def batch(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell how far a batch is: running at the first look, done at the second."""
        kept = self.world.find("batch", f"batches/{name}")
        kept["_looks"] += 1
        if kept["metadata"]["state"] == "BATCH_STATE_PENDING":
            kept["metadata"]["state"] = "BATCH_STATE_RUNNING"
        elif kept["metadata"]["state"] == "BATCH_STATE_RUNNING":
            self.work(ask, kept)
        return self.whole(_shown(kept), request_id)

    def batch_cancel(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Stop a batch."""
        kept = self.world.find("batch", f"batches/{name}")
        kept["metadata"]["state"] = "BATCH_STATE_CANCELLED"
        kept |= {"done": True, "error": {"code": 1, "message": "cancelled"}}
        return self.whole({}, request_id)

    def batch_delete(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Delete a batch."""
        self.world.drop("batch", f"batches/{name}")
        return self.whole({}, request_id)

    def work(self, ask: Ask, kept: Json) -> None:
        """Answer the requests, inline in order or in a file in another one."""
        found = []
        requests = list(enumerate(kept["_requests"]))
        for at, one in requests[::-1] if kept["_file"] else requests:
            label = one["key"] if kept["_file"] else (one.get("metadata") or {}).get("key")
            told: Json = {"key": label} if kept["_file"] else {}
            if one.get("metadata") and not kept["_file"]:
                told["metadata"] = one["metadata"]
            found.append(told | self.one_answer(ask, one["request"], kept, label or str(at)))
        output: Json = {"inlinedResponses": {"inlinedResponses": found}}
        if kept["_file"]:
            content = b"".join(line(one) + b"\n" for one in found)
            file = self.keep_file(ask, content, "application/jsonl", "results")
            output = {"responsesFile": file["name"]}
        elif "Embed" in kept["metadata"]["@type"]:
            output = {"inlinedEmbedContentResponses": {"inlinedResponses": found}}
        failed = sum("error" in one for one in found)
        stats = kept["metadata"]["batchStats"]
        stats["successfulRequestCount"] = str(len(found) - failed)
        if failed:
            stats["failedRequestCount"] = str(failed)
        kept["metadata"] |= {"state": "BATCH_STATE_SUCCEEDED", "endTime": NOW_TEXT}
        kind = kept["metadata"]["@type"] + "Output"
        kept["metadata"]["output"] = output
        kept |= {"done": True, "response": {"@type": kind, **output}}

    def one_answer(self, ask: Ask, asked: Json, kept: Json, label: str) -> Json:
        """Return how one request of a batch is answered."""
        request_id = "req_" + self.world.seed("request")[:24]
        model = kept["_model"]
        if "Embed" in kept["metadata"]["@type"]:
            made = self.world.generate(
                ask, "embedContent", self.world.new_id("emb"), request_id, model, item=label
            )
            made.whole = True
            return {"response": {"embedding": embedding_of(asked)}}
        try:
            answer = self.answer(asked, model)
        except WrongRequestError as wrong:
            return {"error": {"code": 3, "message": str(wrong)}}
        made = self.world.generate(
            ask, "generateContent", answer["responseId"], request_id, model, item=label
        )
        made.whole = True
        return {"response": answer}

    # -- files ("Using files", resumable uploads) ---------------------------------------------

    def upload_start(self, ask: Ask, request_id: str) -> Reply:
        """Begin an upload at an absolute address, or take what comes there."""
        if "upload_id" in ask.query:
            return self.upload_data(ask, request_id)
        if ask.headers.get("x-goog-upload-protocol") == "resumable":
            told = (ask.json().get("file") or {}) if ask.body else {}
            name = self.world.seed("upload_id")[:40]
            kind = ask.headers.get("x-goog-upload-header-content-type", "")
            kept = {"id": name, "told": told, "kind": kind}
            self.world.keep("upload", kept)
            self.world.contents[name] = b""
            where = f"{ask.base}{ask.path}?upload_id={name}&upload_protocol=resumable"
            more = {
                "x-goog-upload-url": where,
                "x-goog-upload-control-url": where,
                "x-goog-upload-status": "active",
                "x-goog-upload-chunk-granularity": "8388608",
                "x-guploader-uploadid": name,
            }
            return self.binary(b"", "text/plain; charset=utf-8", request_id, more=more)
        kind = ask.headers.get("content-type", "application/octet-stream")
        kept = self.keep_file(ask, ask.body, kind, None)
        return self.whole({"file": kept}, request_id)

    def upload_data(self, ask: Ask, request_id: str) -> Reply:
        """Take the next bytes; the last ones make it a file."""
        kept = self.world.find("upload", ask.said("upload_id"))
        have = self.world.contents[kept["id"]]
        commands = ask.headers.get("x-goog-upload-command", "")
        if "query" in commands:
            told = {"x-goog-upload-size-received": str(len(have))}
            return self.whole({}, request_id, more={**told, "x-goog-upload-status": "active"})
        offset = int(ask.headers.get("x-goog-upload-offset", "0"))
        if offset != len(have):
            raise bad(f"expected offset {len(have)}, got {offset}")
        self.world.contents[kept["id"]] = have + ask.body
        if "finalize" not in commands:
            active = {"x-goog-upload-status": "active"}
            return self.binary(b"", "text/plain", request_id, more=active)
        told = kept["told"]
        file = self.keep_file(
            ask,
            self.world.contents[kept["id"]],
            told.get("mimeType") or told.get("mime_type") or kept["kind"],
            told.get("displayName") or told.get("display_name"),
        )
        final = {"x-goog-upload-status": "final"}
        return self.whole({"file": file}, request_id, more=final)

    def keep_file(self, ask: Ask, content: bytes, kind: str, display: str | None) -> Json:
        """Keep a file and return what is told of it; its address is absolute."""
        name = "files/" + self.world.seed("files")[:12]
        self.world.contents[name] = content
        told: Json = {
            "name": name,
            "mimeType": kind,
            "sizeBytes": str(len(content)),
            "createTime": NOW_TEXT,
            "updateTime": NOW_TEXT,
            "expirationTime": "2026-09-23T14:13:20Z",
            "sha256Hash": base64.b64encode(name.encode()).decode(),
            "uri": f"https://generativelanguage.googleapis.com/v1beta/{name}",
            "state": "ACTIVE",
            "source": "GENERATED" if display == "results" else "UPLOADED",
        }
        if display:
            told["displayName"] = display
        if display == "results":
            told["downloadUri"] = f"{told['uri']}:download?alt=media"
        return self.world.keep("file", told, "name")

    def file_list(self, ask: Ask, request_id: str) -> Reply:
        """List files."""
        found = self.world.all("file")[::-1]
        return self.whole({"files": found} if found else {}, request_id)

    def file(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell of a file."""
        return self.whole(self.world.find("file", f"files/{name}"), request_id)

    def file_content(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Return a file's bytes."""
        kept = self.world.find("file", f"files/{name}")
        content = self.world.contents[kept["name"]]
        return self.binary(content, kept["mimeType"], request_id)

    def file_delete(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Delete a file."""
        self.world.drop("file", f"files/{name}")
        return self.whole({}, request_id)

    # -- caches, models and the rest ("Caching", "Models", "Interactions") --------------------

    def cache_create(self, ask: Ask, request_id: str) -> Reply:
        """Keep content for later questions."""
        asked = ask.json()
        kept = self.world.keep(
            "cached content",
            {
                "name": "cachedContents/" + self.world.seed("cachedContents")[:24],
                "model": asked["model"],
                "displayName": asked.get("displayName", ""),
                "createTime": NOW_TEXT,
                "updateTime": NOW_TEXT,
                "expireTime": "2026-09-21T15:13:20Z",
                "usageMetadata": {"totalTokenCount": 2048},
            },
            "name",
        )
        return self.whole(kept, request_id)

    def cache_list(self, ask: Ask, request_id: str) -> Reply:
        """List what is cached."""
        found = self.world.all("cached content")
        return self.whole({"cachedContents": found} if found else {}, request_id)

    def cache(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell of a cache."""
        return self.whole(
            self.world.find("cached content", f"cachedContents/{name}"), request_id
        )

    def cache_update(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Keep it for longer."""
        kept = self.world.find("cached content", f"cachedContents/{name}")
        kept["expireTime"] = "2026-09-21T16:13:20Z"
        return self.whole(kept, request_id)

    def cache_delete(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Delete it."""
        self.world.drop("cached content", f"cachedContents/{name}")
        return self.whole({}, request_id)

    def models(self, ask: Ask, request_id: str) -> Reply:
        """List models."""
        return self.whole({"models": [_model(name) for name in MODELS]}, request_id)

    def model(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Tell of a model."""
        if name not in MODELS:
            raise bad(f"models/{name} is not found", 404)
        return self.whole(_model(name), request_id)

    def interaction_create(self, ask: Ask, request_id: str) -> Reply:
        """Answer an interaction: whole, as a stream, or in the background."""
        asked = ask.json()
        name = self.world.new_id("int_")
        model = asked.get("model") or ""
        question = [{"role": "user", "content": str(asked.get("input"))}]
        said = _say({"model": model, "messages": question}, 0, dialect="anthropic")
        streaming, later = asked.get("stream") is True, asked.get("background") is True
        made = self.world.generate(
            ask, "interactions", name, request_id, model, streaming=streaming
        )
        content = [{"type": "text", "text": said.text}]
        final: Json = {
            "id": name,
            "object": "interaction",
            "model": model,
            "status": "completed",
            "role": "model",
            "created": NOW_TEXT,
            "updated": NOW_TEXT,
            "steps": [{"type": "model_output", "content": content}],
            "usage": {
                "total_input_tokens": 4,
                "total_output_tokens": _count(said.text),
                "total_tokens": 4 + _count(said.text),
            },
        }
        begun = {**final, "status": "in_progress", "steps": [], "usage": {}}
        kept = {"id": name, "final": final, "begun": begun, "looks": 0 if later else 2}
        self.world.keep("interaction", kept)
        if not streaming:
            return self.whole(begun if later else final, request_id, made)
        step = {"type": "model_output", "content": []}
        events: list[Json] = [
            {"event_type": "interaction.created", "interaction": begun},
            {"event_type": "step.start", "index": 0, "step": step},
        ]
        for word in pieces_of(said.text):
            delta = {"type": "text", "text": word}
            events.append({"event_type": "step.delta", "index": 0, "delta": delta})
        events.append({"event_type": "step.stop", "index": 0})
        events.append({"event_type": "interaction.completed", "interaction": final})
        pieces = [
            b"event: %b\ndata: %b\n\n" % (event["event_type"].encode(), line(event))
            for event in events
        ]
        return self.stream([*pieces, b"event: done\ndata: [DONE]\n\n"], request_id, made)

    def interaction(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Return an interaction: one in the background is done at the second look."""
        kept = self.world.find("interaction", name)
        kept["looks"] += 1
        done = kept["looks"] > 1
        return self.whole(kept["final"] if done else kept["begun"], request_id)

    def interaction_cancel(self, ask: Ask, request_id: str, name: str) -> Reply:
        """Cancel an interaction that is made in the background."""
        kept = self.world.find("interaction", name)
        kept["final"] = {**kept["begun"], "status": "cancelled"}
        return self.whole(kept["final"], request_id)

    def unheard(self, ask: Ask, request_id: str) -> Reply:
        """Answer an operation that nobody has heard of yet."""
        made = self.world.generate(
            ask, "unheard", self.world.new_id("un_"), request_id, "stub-large"
        )
        return self.whole({"id": made.id, "said": "something new"}, request_id, made)


def as_chat(asked: Json, model: str) -> Json:
    """Return what is asked as a chat, as far as its words go."""
    messages = []
    system = asked.get("systemInstruction")
    for content in [*([system] if system else []), *(asked.get("contents") or [])]:
        texts = [str(p.get("text", "")) for p in content.get("parts") or []]
        role = {"model": "assistant"}.get(content.get("role", "user"), "user")
        messages.append({"role": role, "content": " ".join(texts).strip()})
    tools = [
        {"name": one["name"], "parameters": _lower(one.get("parameters") or {})}
        for tool in asked.get("tools") or []
        for one in tool.get("functionDeclarations") or []
    ]
    mode = ((asked.get("toolConfig") or {}).get("functionCallingConfig") or {}).get("mode")
    chat: Json = {"model": model, "messages": messages, "tools": tools}
    if mode == "ANY":
        chat["tool_choice"] = "required"
    most = (asked.get("generationConfig") or {}).get("maxOutputTokens")
    return chat | ({"max_tokens": most} if most else {})


def embedding_of(asked: Json) -> Json:
    """Return numbers for one text."""
    texts = [str(p.get("text", "")) for p in (asked.get("content") or {}).get("parts") or []]
    told = asked.get("embedContentConfig") or asked
    return {"values": vector(" ".join(texts), told.get("outputDimensionality") or 8)}


def _lower(schema: Json) -> Json:
    """Return a schema with its types in lower case, as JSON Schema has them."""
    properties = {
        name: {**wanted, "type": str(wanted.get("type", "string")).lower()}
        for name, wanted in (schema.get("properties") or {}).items()
    }
    return {**schema, "properties": properties}


def _pieces_of(part: Json) -> Iterator[Json]:
    if "text" not in part:
        yield part
        return
    pieces = pieces_of(part["text"])
    for at, word in enumerate(pieces):
        last = at == len(pieces) - 1
        more = {n: v for n, v in part.items() if n != "text" and (last or n == "thought")}
        yield {"text": word, **more}


def _error(status: int, message: str) -> Json:
    return {"code": status, "message": message, "status": STATUSES.get(status, "UNKNOWN")}


def _shown(thing: Json) -> Json:
    return {name: value for name, value in thing.items() if not name.startswith("_")}


def _model(name: str) -> Json:
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name.replace("-", " ").title(),
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }

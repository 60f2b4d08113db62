"""A stub provider on loopback that speaks OpenAI chat completions and Anthropic messages.

Its answers are computed from the question, so the same question has the same answer. It lists
what it generated and how far each answer got, which is what receipts are held against.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from gateway.canonical import digest_of, sha256_hex
from gateway.clock import Clock, FrozenClock, SystemClock
from gateway.limits import BODY_BYTES_HELD_MAX, HEADER_BYTES_MAX

EXTRACT: Final = "Extract vendor, date and total as JSON:"
"""A question that begins so is answered with the JSON of the invoice that follows."""

_INVOICE: Final = re.compile(
    r"invoice (?P<number>\S+) from (?P<vendor>[^,]+), dated (?P<date>\d{4}-\d\d-\d\d)"
    r".*?total (?:of |due: |is )?(?P<total>\d+\.\d\d) (?P<currency>[A-Z]{3})",
    re.IGNORECASE | re.DOTALL,
)
_VENDORS: Final = (
    "Abel Papers", "Birch & Sons", "Corvid Freight", "Dune Optics", "Elm Street Foods",
    "Fathom Cables", "Gable Roofing", "Harrow Tools", "Inlet Boats", "Juniper Print",
)  # fmt: skip
_GOODS: Final = (
    "desk lamps", "copper pipe", "archive boxes", "lens blanks", "oat flour", "patch leads",
    "roof slates", "torque wrenches", "anchor chain", "letterheads",
)  # fmt: skip
_SHAPES: Final = (
    "Invoice {number} from {vendor}, dated {date}. {count} x {goods}, total {total} EUR.",
    "To pay: invoice {number} from {vendor}, dated {date}; {count} {goods}, total {total} EUR.",
    "INVOICE {number} from {vendor}, dated {date}\n{goods}: {count}\nTotal due: {total} EUR",
)
_OPENERS: Final = (
    "Here is what I can say about “{topic}”.",
    "In short, “{topic}” comes down to three points.",
    "A plain answer to “{topic}” follows.",
)
_POINTS: Final = (
    "Begin with what is known and write it down.",
    "Check the figures against a second source.",
    "Keep the wording simple and the sentences short.",
    "Say who decides and by when.",
    "Leave a record that others can follow.",
    "Test the smallest case before the large one.",
)
_SAMPLES: Final[dict[str, Any]] = {
    "string": "example",
    "integer": 3,
    "number": 1.5,
    "boolean": True,
    "array": [],
    "object": {},
    "null": None,
}
_MODELS: Final = ("stub-large", "stub-small", "stub-reasoner")
_PIECE: Final = re.compile(r"\s*\S+")

Event = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Generation:
    """One answer that was generated, and how far it got."""

    operation: str
    id: str
    request_id: str
    model: str
    streaming: bool
    bytes_sent: int = 0
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What goes back: one piece for a body, one piece for each event of a stream."""

    status: int
    content_type: str
    headers: Mapping[str, str]
    pieces: tuple[bytes, ...]
    streaming: bool = False
    generation: Generation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one choice says, before either wire format dresses it."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    cut: bool = False
    """The answer was longer than the tokens that were asked for."""


class WrongRequestError(ValueError):
    """A request that a real provider would refuse too; carries the status to refuse it with."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class StubProvider:
    """A real HTTP server on loopback; *numbered* ids differ from call to call.

    With *numbered* off, ids depend on the question alone, so that two calls can be compared.
    """

    def __init__(self, *, clock: Clock | None = None, numbered: bool = True) -> None:
        self.generations: list[Generation] = []
        self._clock = clock or FrozenClock()
        self._numbered = numbered
        self._runner: web.AppRunner | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen, and return the base URL (`http://127.0.0.1:40123`)."""
        app = web.Application(client_max_size=2 * BODY_BYTES_HELD_MAX)
        app.router.add_route("*", "/{path:.*}", self.serve)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            max_field_size=HEADER_BYTES_MAX,
            max_line_size=HEADER_BYTES_MAX,
            shutdown_timeout=0.5,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        return f"http://{host}:{bound}"

    async def stop(self) -> None:
        """Close every connection and stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        return await self.deliver(request, self.reply_to(request, await request.read()))

    def reply_to(self, request: web.Request, body: bytes) -> Reply:
        """Return the whole answer to *request*; nothing has been sent yet."""
        anthropic = "anthropic-version" in request.headers or request.path == "/v1/messages"
        identity = f"{request.method} {request.path} ".encode() + body
        seed = sha256_hex(identity + (b"%d" % len(self.generations) if self._numbered else b""))
        try:
            _require_key(request.headers)
            return self._route(request, body, seed, anthropic=anthropic)
        except WrongRequestError as wrong:
            return _error(wrong, seed, anthropic=anthropic)

    async def deliver(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        """Send *reply*, piece by piece, and note how far it got."""
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        response.headers["content-type"] = reply.content_type
        if not reply.streaming:
            response.content_length = sum(map(len, reply.pieces))
        await response.prepare(request)
        for piece in reply.pieces:
            await response.write(piece)
            if reply.generation is not None:
                reply.generation.bytes_sent += len(piece)
            if reply.streaming:
                await asyncio.sleep(0)
        await response.write_eof()
        if reply.generation is not None:
            reply.generation.whole = True
        return response

    def _route(self, request: web.Request, body: bytes, seed: str, *, anthropic: bool) -> Reply:
        match request.method, request.path:
            case "POST", "/v1/chat/completions":
                return self._chat(_json_of(body), seed)
            case "POST", "/v1/messages":
                if "anthropic-version" not in request.headers:
                    raise WrongRequestError(
                        400, "invalid_request_error", "anthropic-version: header is required"
                    )
                return self._messages(_json_of(body), seed)
            case "POST", "/v1/messages/count_tokens":
                count = _count(_words_of(_json_of(body)))
                return _whole({"input_tokens": count}, _anthropic_headers(seed))
            case "POST", "/v1/embeddings":
                return self._embeddings(_json_of(body), seed)
            case "GET", "/v1/models":
                return _models(seed, anthropic=anthropic)
            case _:
                raise WrongRequestError(
                    404,
                    "not_found_error",
                    f"unknown request: {request.method} {request.path}",
                )

    def _chat(self, asked: dict[str, Any], seed: str) -> Reply:
        """Answer OpenAI's `POST /v1/chat/completions`."""
        model = _model_of(asked)
        streaming = asked.get("stream") is True
        said = [_say(asked, number, dialect="openai") for number in range(_choices_of(asked))]
        answer: dict[str, Any] = {
            "id": "chatcmpl-" + seed[:29],
            "object": "chat.completion.chunk" if streaming else "chat.completion",
            "created": self._clock.now_ms() // 1000,
            "model": model,
            "service_tier": "default",
            "system_fingerprint": "fp_" + sha256_hex(model.encode())[:10],
        }
        usage = _openai_usage(asked, said)
        generation = self._generate("chat", answer["id"], seed, model, streaming=streaming)
        if streaming:
            with_usage = (asked.get("stream_options") or {}).get("include_usage") is True
            events = _chat_events(answer, said, seed, usage if with_usage else None)
            return _stream(
                [b"data: %b\n\n" % _line(event) for event in events] + [b"data: [DONE]\n\n"],
                _openai_headers(seed),
                generation,
            )
        answer["choices"] = [_chat_choice(one, at, seed) for at, one in enumerate(said)]
        answer["usage"] = usage
        return _whole(answer, _openai_headers(seed), generation)

    def _messages(self, asked: dict[str, Any], seed: str) -> Reply:
        """Answer Anthropic's `POST /v1/messages`."""
        model = _model_of(asked)
        if not isinstance(asked.get("max_tokens"), int):
            raise WrongRequestError(400, "invalid_request_error", "max_tokens: field required")
        streaming = asked.get("stream") is True
        said = _say(asked, 0, dialect="anthropic")
        message: dict[str, Any] = {
            "id": "msg_01" + seed[:22],
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": _blocks(said, seed),
            "stop_reason": _stop_reason(said),
            "stop_sequence": None,
            "usage": {
                "input_tokens": _count(_words_of(asked)),
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": _count_said([said]),
                "service_tier": "standard",
            },
        }
        generation = self._generate("chat", message["id"], seed, model, streaming=streaming)
        if not streaming:
            return _whole(message, _anthropic_headers(seed), generation)
        return _stream(
            [
                b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _line(event))
                for event in _message_events(message)
            ],
            _anthropic_headers(seed),
            generation,
        )

    def _embeddings(self, asked: dict[str, Any], seed: str) -> Reply:
        """Answer OpenAI's `POST /v1/embeddings` with eight numbers for each text."""
        model = _model_of(asked)
        given = asked.get("input")
        texts = [str(text) for text in given] if isinstance(given, list) else [str(given)]
        generation = self._generate("embeddings", "emb-" + seed[:16], seed, model)
        vectors = [
            [byte / 128 - 1 for byte in bytes.fromhex(sha256_hex(text.encode()))[:8]]
            for text in texts
        ]
        count = sum(map(_count, texts))
        answer = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": at, "embedding": vector}
                for at, vector in enumerate(vectors)
            ],
            "model": model,
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }
        return _whole(answer, _openai_headers(seed), generation)

    def _generate(
        self, operation: str, name: str, seed: str, model: str, *, streaming: bool = False
    ) -> Generation:
        generation = Generation(
            operation=operation,
            id=name,
            request_id=_request_id(seed),
            model=model,
            streaming=streaming,
        )
        self.generations.append(generation)
        return generation


def invoice_text(number: int) -> str:
    """Return a short invoice; another *number* gives another one."""
    return _SHAPES[number % 3].format(
        number=f"{2000 + number}-{number % 7}",
        vendor=_VENDORS[number * 7 % 10],
        date=f"2026-{number * 5 % 12 + 1:02d}-{number * 11 % 28 + 1:02d}",
        goods=_GOODS[number * 3 % 10],
        count=number % 9 + 2,
        total=f"{number * 37 % 900 + 12}.{number * 13 % 100:02d}",
    )


def invoice_answer(text: str) -> str:
    """Return the JSON that extracting vendor, date and total from *text* should give."""
    found = _INVOICE.search(text)
    wanted = ("vendor", "date", "total")
    said = {name: found[name] if found else None for name in wanted}
    return json.dumps(said, ensure_ascii=False)


def _say(asked: dict[str, Any], number: int, *, dialect: str) -> Said:
    """Return what choice *number* says to what was *asked*."""
    question = _last_question(asked)
    first, _, rest = question.partition(" ")
    tools = _tools_of(asked)
    reasoning = _reasoning(question, number) if _thinks(asked, dialect) else ""
    if first == "refuse":
        return Said(refusal="I can't help with that.")
    if tools and (first == "call" or _must_call(asked)):
        name = rest.split(" ", 1)[0] if rest.split(" ", 1)[0] in tools else next(iter(tools))
        return Said(
            reasoning=reasoning,
            tool=name,
            arguments=_sample_arguments(tools[name], question),
        )
    if question.startswith(EXTRACT):
        text = invoice_answer(question.removeprefix(EXTRACT))
    else:
        text = _prose(question, number)
    pieces = _PIECE.findall(text)
    most = asked.get("max_completion_tokens") or asked.get("max_tokens") or len(pieces)
    return Said(text="".join(pieces[:most]), reasoning=reasoning, cut=most < len(pieces))


def _reasoning(question: str, number: int) -> str:
    return f"The question is about {_topic(question)}. I weigh it in {number + 2} steps."


def _prose(question: str, number: int) -> str:
    """Return an opener and three points, chosen by the words of *question*."""
    chosen = bytes.fromhex(digest_of([question, number]))
    opener = _OPENERS[chosen[0] % len(_OPENERS)].format(topic=_topic(question))
    start = chosen[1] % len(_POINTS)
    points = [_POINTS[(start + step) % len(_POINTS)] for step in range(3)]
    return " ".join([opener, *points])


def _topic(question: str) -> str:
    return " ".join(question.split()[:8]) or "nothing"


def _thinks(asked: dict[str, Any], dialect: str) -> bool:
    if dialect == "openai":
        return str(asked["model"]).endswith("-reasoner")
    thinking = asked.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") in {"enabled", "adaptive"}


def _tools_of(asked: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each tool's name and the JSON schema of its arguments, in either format."""
    tools = {}
    for tool in asked.get("tools") or []:
        function = tool.get("function") or tool
        if isinstance(function.get("name"), str):
            schema = function.get("parameters") or function.get("input_schema") or {}
            tools[function["name"]] = schema
    return tools


def _must_call(asked: dict[str, Any]) -> bool:
    choice = asked.get("tool_choice")
    if isinstance(choice, dict):
        return choice.get("type") in {"function", "tool", "any"}
    return choice == "required"


def _sample_arguments(schema: dict[str, Any], question: str) -> dict[str, Any]:
    """Return a value for every property of *schema*; strings are taken from the question."""
    words = question.split()
    arguments = {}
    for at, (name, wanted) in enumerate(sorted((schema.get("properties") or {}).items())):
        kind = wanted.get("type", "string") if isinstance(wanted, dict) else "string"
        value = _SAMPLES.get(kind) if isinstance(kind, str) else None
        arguments[name] = words[-1 - at % len(words)] if kind == "string" else value
    return arguments


def _last_question(asked: dict[str, Any]) -> str:
    for message in reversed(asked["messages"]):
        if isinstance(message, dict) and message.get("role") == "user":
            return _text_of(message.get("content"))
    return ""


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _words_of(asked: dict[str, Any]) -> str:
    told = [_text_of(asked.get("system"))]
    told += [_text_of(m.get("content")) for m in asked["messages"] if isinstance(m, dict)]
    return " ".join(told)


def _count(text: str) -> int:
    return len(_PIECE.findall(text))


def _count_said(said: Iterable[Said]) -> int:
    return sum(
        _count(one.text) + _count(one.reasoning) + _count(one.refusal) + 4 * len(one.arguments)
        for one in said
    ) + len(list(said))


def _openai_usage(asked: dict[str, Any], said: list[Said]) -> dict[str, Any]:
    prompt, completion = _count(_words_of(asked)), _count_said(said)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": sum(_count(one.reasoning) for one in said),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _finish_reason(said: Said) -> str:
    if said.tool:
        return "tool_calls"
    return "length" if said.cut else "stop"


def _stop_reason(said: Said) -> str:
    if said.refusal:
        return "refusal"
    if said.tool:
        return "tool_use"
    return "max_tokens" if said.cut else "end_turn"


def _chat_choice(said: Said, index: int, seed: str) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": said.text or None,
        "refusal": said.refusal or None,
        "annotations": [],
    }
    if said.reasoning:
        message["reasoning_content"] = said.reasoning
    if said.tool:
        message["tool_calls"] = [
            {
                "id": f"call_{seed[:20]}{index:02d}",
                "type": "function",
                "function": {"name": said.tool, "arguments": json.dumps(said.arguments)},
            }
        ]
    return {
        "index": index,
        "message": message,
        "logprobs": None,
        "finish_reason": _finish_reason(said),
    }


def _chat_events(
    answer: dict[str, Any], said: list[Said], seed: str, usage: dict[str, Any] | None
) -> Iterator[Event]:
    """Yield the chunks of a streamed chat answer; *usage* comes last, with no choices."""
    extra: dict[str, Any] = {} if usage is None else {"usage": None}
    for index, one in enumerate(said):
        for delta in _chat_deltas(one, f"call_{seed[:20]}{index:02d}"):
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            yield {**answer, "choices": [choice], **extra}
    for index, one in enumerate(said):
        choice = {"index": index, "delta": {}, "logprobs": None}
        yield {
            **answer,
            "choices": [{**choice, "finish_reason": _finish_reason(one)}],
            **extra,
        }
    if usage is not None:
        yield {**answer, "choices": [], "usage": usage}


def _chat_deltas(said: Said, call_id: str) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": "" if said.text else None, "refusal": None}
    for piece in _PIECE.findall(said.reasoning):
        yield {"reasoning_content": piece}
    for piece in _PIECE.findall(said.text):
        yield {"content": piece}
    for piece in _PIECE.findall(said.refusal):
        yield {"refusal": piece}
    if said.tool:
        head = {"name": said.tool, "arguments": ""}
        yield {
            "tool_calls": [{"index": 0, "id": call_id, "type": "function", "function": head}]
        }
        for part in _fragments(json.dumps(said.arguments)):
            yield {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}


def _blocks(said: Said, seed: str) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if said.reasoning:
        signature = "Er" + sha256_hex(said.reasoning.encode())
        blocks.append({"type": "thinking", "thinking": said.reasoning, "signature": signature})
    if said.text:
        blocks.append({"type": "text", "text": said.text})
    if said.tool:
        blocks.append(
            {
                "type": "tool_use",
                "id": "toolu_01" + seed[:22],
                "name": said.tool,
                "input": dict(said.arguments),
            }
        )
    return blocks


def _message_events(message: dict[str, Any]) -> Iterator[Event]:
    """Yield the events of a streamed message, in the order of Anthropic's grammar."""
    usage = message["usage"]
    begun = {**message, "content": [], "stop_reason": None}
    yield {
        "type": "message_start",
        "message": {**begun, "usage": {**usage, "output_tokens": 1}},
    }
    yield {"type": "ping"}
    for index, block in enumerate(message["content"]):
        empty, deltas = _block_deltas(block)
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": message["stop_reason"], "stop_sequence": None},
        "usage": {"output_tokens": usage["output_tokens"]},
    }
    yield {"type": "message_stop"}


def _block_deltas(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return *block* as it is announced, empty, and the deltas that fill it."""
    match block["type"]:
        case "thinking":
            deltas = [
                {"type": "thinking_delta", "thinking": piece}
                for piece in _PIECE.findall(block["thinking"])
            ]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
            return {"type": "thinking", "thinking": "", "signature": ""}, deltas
        case "text":
            pieces = _PIECE.findall(block["text"])
            return {"type": "text", "text": ""}, [
                {"type": "text_delta", "text": piece} for piece in pieces
            ]
        case _:
            return {**block, "input": {}}, [
                {"type": "input_json_delta", "partial_json": part}
                for part in ["", *_fragments(json.dumps(block["input"]))]
            ]


def _fragments(text: str, characters: int = 7) -> list[str]:
    return [text[at : at + characters] for at in range(0, len(text), characters)]


def _models(seed: str, *, anthropic: bool) -> Reply:
    if anthropic:
        listed = [
            {
                "type": "model",
                "id": name,
                "display_name": name.replace("-", " ").title(),
                "created_at": "2026-10-01T00:00:00Z",
            }
            for name in _MODELS
        ]
        page = {
            "data": listed,
            "first_id": _MODELS[0],
            "last_id": _MODELS[-1],
            "has_more": False,
        }
        return _whole(page, _anthropic_headers(seed))
    models = [
        {"id": name, "object": "model", "created": 1_790_000_000, "owned_by": "stub"}
        for name in _MODELS
    ]
    return _whole({"object": "list", "data": models}, _openai_headers(seed))


def _error(wrong: WrongRequestError, seed: str, *, anthropic: bool) -> Reply:
    if anthropic:
        headers = _anthropic_headers(seed)
        told: dict[str, Any] = {
            "type": "error",
            "error": {"type": wrong.kind, "message": str(wrong)},
            "request_id": headers["request-id"],
        }
        return _whole(told, headers, status=wrong.status)
    error = {"message": str(wrong), "type": wrong.kind, "param": None, "code": None}
    return _whole({"error": error}, _openai_headers(seed), status=wrong.status)


def _whole(
    answer: dict[str, Any],
    headers: Mapping[str, str],
    generation: Generation | None = None,
    *,
    status: int = 200,
) -> Reply:
    return Reply(
        status=status,
        content_type="application/json",
        headers=headers,
        pieces=(_line(answer),),
        generation=generation,
    )


def _stream(pieces: list[bytes], headers: Mapping[str, str], generation: Generation) -> Reply:
    return Reply(
        status=200,
        content_type="text/event-stream; charset=utf-8",
        headers={**headers, "cache-control": "no-cache"},
        pieces=tuple(pieces),
        streaming=True,
        generation=generation,
    )


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _request_id(seed: str) -> str:
    return "req_" + seed[32:56]


def _openai_headers(seed: str) -> dict[str, str]:
    return {
        "x-request-id": _request_id(seed),
        "openai-processing-ms": str(int(seed[:2], 16) + 20),
        "openai-version": "2020-10-01",
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-reset-requests": "6ms",
        "x-ratelimit-limit-tokens": "2000000",
        "x-ratelimit-remaining-tokens": "1999000",
        "x-ratelimit-reset-tokens": "30ms",
    }


def _anthropic_headers(seed: str) -> dict[str, str]:
    return {
        "request-id": _request_id(seed),
        "anthropic-organization-id": "0f6e7d5c-0000-4000-8000-000000000001",
        "anthropic-ratelimit-requests-limit": "4000",
        "anthropic-ratelimit-requests-remaining": "3999",
        "anthropic-ratelimit-requests-reset": "2026-11-22T00:00:01Z",
        "anthropic-ratelimit-input-tokens-limit": "400000",
        "anthropic-ratelimit-input-tokens-remaining": "399000",
        "anthropic-ratelimit-input-tokens-reset": "2026-11-22T00:00:01Z",
    }


def _require_key(headers: Mapping[str, str]) -> None:
    if not any(headers.get(name) for name in ("authorization", "x-api-key", "api-key")):
        raise WrongRequestError(401, "authentication_error", "no API key was given")


def _json_of(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except ValueError as wrong:
        raise WrongRequestError(
            400, "invalid_request_error", "the body is not valid JSON"
        ) from wrong
    if not isinstance(asked, dict):
        raise WrongRequestError(400, "invalid_request_error", "the body is not an object")
    if "input" not in asked and not isinstance(asked.get("messages"), list):
        raise WrongRequestError(400, "invalid_request_error", "messages: field required")
    return asked


def _model_of(asked: dict[str, Any]) -> str:
    model = asked.get("model")
    if not isinstance(model, str) or not model:
        raise WrongRequestError(400, "invalid_request_error", "model: field required")
    return model


def _choices_of(asked: dict[str, Any]) -> int:
    count = asked.get("n") or 1
    if not isinstance(count, int) or not 1 <= count <= 128:
        raise WrongRequestError(400, "invalid_request_error", "n: not between 1 and 128")
    return count


async def serve_until_stopped(
    provider: StubProvider, port: int, say: Callable[[str], None]
) -> None:
    """Serve on *port* until cancelled; *say* is told the base URL once it listens."""
    say(await provider.start(port=port))
    try:
        await asyncio.Event().wait()
    finally:
        await provider.stop()


def main() -> None:
    """Serve on loopback until interrupted."""
    parser = argparse.ArgumentParser(description="A stub provider on loopback.")
    parser.add_argument("--port", type=int, default=0)
    port: int = parser.parse_args().port
    provider = StubProvider(clock=SystemClock())
    try:
        asyncio.run(
            serve_until_stopped(provider, port, lambda url: print(url, flush=True))  # noqa: T201 - the URL is what it says
        )
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()

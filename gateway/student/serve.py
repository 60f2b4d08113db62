"""Serve a student over HTTP in OpenAI's shape, once its folder has verified.

One answer is made at a time, in a thread of its own; a bounded number of callers wait, the
next is told to come back. Every answer names the training manifest it comes from.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import signal
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway.clock import Clock
from gateway.errors import OperatorError, PortInUseError
from gateway.limits import BODY_BYTES_HELD_MAX, STUDENT_CALLERS_WAITING_MAX
from gateway.student.calls import Holding, ToolCall, read_calls
from gateway.student.chat import ChatRequest, question_of, read_request
from gateway.student.speech import MANIFEST_HEADER, Question, Speak, Spoken, UnanswerableError
from gateway.student.verify import VerifiedModel


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it goes out: its words, and the calls that stood after them."""

    spoken: Spoken
    content: str
    calls: tuple[ToolCall, ...]

    @property
    def finish_reason(self) -> str:
        """Return OpenAI's word for how it ended."""
        if self.calls and self.spoken.finish_reason == "stop":
            return "tool_calls"
        return self.spoken.finish_reason


class StudentServer:
    """Answers chat completions for one student."""

    def __init__(self, name: str, manifest_sha256: str, speak: Speak, clock: Clock) -> None:
        self._name = name
        self._manifest_sha256 = manifest_sha256
        self._speak = speak
        self._clock = clock
        self._created_s = clock.now_ms() // 1000
        self._numbers = itertools.count(1)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="student")
        # OWNED BY: the event loop. Callers that have an answer under way or wait for one.
        self._callers = 0

    def application(self) -> web.Application:
        """Return the routes."""
        app = web.Application(
            client_max_size=BODY_BYTES_HELD_MAX, middlewares=[_in_openais_shape]
        )
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.on_response_prepare.append(self._name_manifest)
        app.on_cleanup.append(self._close)
        return app

    async def _name_manifest(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers[MANIFEST_HEADER] = self._manifest_sha256

    async def _close(self, _: web.Application) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"student": self._name, "waiting": self._callers})

    async def _models(self, _: web.Request) -> web.Response:
        model = {
            "id": self._name,
            "object": "model",
            "created": self._created_s,
            "owned_by": "tos-gateway",
        }
        return web.json_response({"object": "list", "data": [model]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = read_request(await request.read())
            question = question_of(asked)
        except web.RequestPayloadError:
            return _last(_problem(400, "invalid_request", "the body is not packed as it says"))
        except UnanswerableError as error:
            return _problem(400, error.code, str(error))
        if asked.model != self._name:
            return _problem(
                404, "model_not_found", f"this is student `{self._name}`, not `{asked.model}`"
            )
        if self._callers >= STUDENT_CALLERS_WAITING_MAX:
            refused = _problem(429, "too_many_callers", "too many callers wait; try again")
            refused.headers["retry-after"] = "1"
            return refused
        self._callers += 1
        try:
            if asked.stream:
                return await self._streamed(request, asked, question)
            return await self._whole(asked, question)
        finally:
            self._callers -= 1

    async def _whole(self, asked: ChatRequest, question: Question) -> web.Response:
        cut = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            reply = await loop.run_in_executor(
                self._thread, self._answer, question, _nobody, cut
            )
        except UnanswerableError as error:
            return _problem(400, error.code, str(error))
        finally:
            cut.set()  # where the caller hung up, nobody waits for the rest
        head = self._head("chat.completion")
        message: dict[str, Any] = {"role": "assistant", "content": reply.content}
        if reply.calls:
            message["content"] = reply.content or None
            message["tool_calls"] = list(_calls(reply, head))
        choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
        body = head | {"choices": [choice], "usage": _usage(reply.spoken)}
        return web.json_response(body)

    async def _streamed(
        self, request: web.Request, asked: ChatRequest, question: Question
    ) -> web.StreamResponse:
        cut = threading.Event()
        pieces = self._pieces(question, cut)
        try:
            first = await anext(pieces)
        except UnanswerableError as error:
            return _problem(400, error.code, str(error))
        response = web.StreamResponse(
            headers={"content-type": "text/event-stream", "cache-control": "no-cache"}
        )
        head = self._head("chat.completion.chunk")
        wants_usage = bool((asked.stream_options or {}).get("include_usage"))
        try:
            await response.prepare(request)
            await _send(response, head, {"role": "assistant", "content": ""})
            piece: str | Reply = first
            while isinstance(piece, str):
                await _send(response, head, {"content": piece})
                piece = await anext(pieces)
            if piece.calls:
                calls = [{"index": at, **call} for at, call in enumerate(_calls(piece, head))]
                await _send(response, head, {"tool_calls": calls})
            await _send(response, head, {}, piece.finish_reason)
            if wants_usage:
                await _write(response, head | {"choices": [], "usage": _usage(piece.spoken)})
            await response.write(b"data: [DONE]\n\n")
        except ConnectionResetError:
            pass  # the caller has gone; `cut` ends the answer
        finally:
            cut.set()
            await pieces.aclose()
        return response

    async def _pieces(
        self, question: Question, cut: threading.Event
    ) -> AsyncGenerator[str | Reply, None]:
        """Yield the text as it comes, and last the answer that it adds up to."""
        loop = asyncio.get_running_loop()
        # INVARIANT: at most one entry a token of the answer, whose count is bounded.
        queue: asyncio.Queue[str | Reply | BaseException] = asyncio.Queue()

        def put(entry: str | Reply | BaseException) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, entry)

        future = self._thread.submit(self._answer, question, put, cut)
        future.add_done_callback(lambda done: put(done.exception() or done.result()))
        while True:
            entry = await queue.get()
            if isinstance(entry, BaseException):
                raise entry
            yield entry
            if not isinstance(entry, str):
                return

    def _answer(
        self, question: Question, say: Callable[[str], None], cut: threading.Event
    ) -> Reply:
        """Answer in the student's thread, unless the caller has gone while it waited."""
        if cut.is_set():
            raise UnanswerableError("the caller has gone")
        if not question.tools:
            spoken = self._speak(question, say, cut)
            return Reply(spoken, spoken.text, ())
        holding = Holding(say)
        spoken = self._speak(question, holding.say, cut)
        content, calls = read_calls(spoken.text, question.tools)
        holding.end(content)
        return Reply(spoken, content, calls)

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._manifest_sha256[:8]}-{next(self._numbers)}",
            "object": kind,
            "created": self._clock.now_ms() // 1000,
            "model": self._name,
        }


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that has the address; who connects waits until it is served.

    Raises:
        PortInUseError: somebody else has it.
        OperatorError: this machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        # Two that are bound with SO_REUSEADDR clash only when they listen: ask now.
        bound.listen(1)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"{host}:{port} is taken",
                hint="stop what listens there, or give another --listen",
            ) from error
        raise OperatorError(
            f"can't listen on {host}:{port}: {error.strerror}", hint="give another --listen"
        ) from error
    return bound


def serve_model(
    model: VerifiedModel,
    bound: socket.socket,
    clock: Clock,
    ready: Callable[[str], None],
    base: Path | None = None,
) -> None:
    """Load the verified *model* and answer on *bound* until told to stop.

    Where it is an adapter, *base* says where its base is, if that is not where it was.

    Raises:
        MissingPieceError: an adapter's base is not there.
        BadDigestError: it is another base.
    """
    speak = load(model.path, base)
    server = StudentServer(model.manifest.asked.student, model.payload_sha256, speak, clock)
    host, port = bound.getsockname()[:2]
    asyncio.run(_serve(server, bound, lambda: ready(f"http://{host}:{port}/v1")))


async def _serve(
    server: StudentServer, bound: socket.socket, ready: Callable[[], None]
) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    runner = web.AppRunner(server.application(), handler_cancellation=True, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, bound).start()
        ready()
        await stopped.wait()
    finally:
        await runner.cleanup()


def load(folder: Path, base: Path | None = None) -> Speak:
    """Return what lets the student in the verified *folder* speak."""
    from gateway.student.offline import seal_off  # noqa: PLC0415

    seal_off()
    # After the seal, and only here: it imports the training libraries.
    from gateway.student.generate import Student  # noqa: PLC0415

    return Student(folder, base).answer


def _calls(reply: Reply, head: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the calls of *reply* in OpenAI's shape; their ids follow from the answer's."""
    answer = str(head["id"]).removeprefix("chatcmpl-")
    for at, call in enumerate(reply.calls):
        yield {
            "id": f"call_{answer}-{at}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }


def _usage(spoken: Spoken) -> dict[str, int]:
    return {
        "prompt_tokens": spoken.prompt_tokens,
        "completion_tokens": spoken.answer_tokens,
        "total_tokens": spoken.prompt_tokens + spoken.answer_tokens,
    }


@web.middleware
async def _in_openais_shape(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Say what aiohttp itself refuses as everything else is said."""
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        return _last(_problem(413, "body_too_large", "the request is too large"))
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        return _problem(
            error.status,
            "unknown_url",
            f"a student has no {request.method} {request.path}: ask POST /v1/chat/completions",
        )


def _problem(status: int, code: str, message: str) -> web.Response:
    kind = "invalid_request_error" if status < 429 else "rate_limit_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return web.json_response({"error": error}, status=status)


def _last(response: web.Response) -> web.Response:
    """Return *response*, the last on its connection: where another would begin nobody knows."""
    response.force_close()
    return response


async def _send(
    response: web.StreamResponse,
    head: dict[str, Any],
    delta: dict[str, Any],
    finish_reason: str | None = None,
) -> None:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    await _write(response, head | {"choices": [choice]})


async def _write(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


def _nobody(_: str) -> None:
    """Hand text to nobody: the whole answer is waited for."""

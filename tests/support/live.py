"""A loopback provider of sessions: realtime, responses and Google's live API over WebSocket.

What a session is asked to do differently stands in the caller's own words: a text that begins
with `!` is a script (`!stall`, `!break`, `!burst`, `!close 1011`).
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.support.aside import aside

SOUND = b"\x00\x01" * 400
"""What is spoken, whatever is said."""

Event = dict[str, Any]


@dataclass(slots=True)
class Opened:
    """A session as it reached the provider."""

    target: str
    headers: list[tuple[str, str]]
    heard: list[str | bytes] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    code: int | None = None

    def header(self, name: str) -> list[str]:
        """Return the values of the header *name*."""
        return [value for key, value in self.headers if key.lower() == name]


class LiveProvider:
    """Answers sessions; *answers* counts those that it gave whole."""

    def __init__(self) -> None:
        self.sessions: list[Opened] = []
        self.answers = 0
        self.stalled = threading.Event()
        self._server: Server | None = None
        self._number = 0

    async def start(self, tls: ssl.SSLContext | None = None) -> int:
        """Listen; return the port."""
        self._server = await serve(
            self._talk,
            "127.0.0.1",
            0,
            ssl=tls,
            process_request=self._refuse,
            select_subprotocol=lambda _, offered: offered[0] if offered else None,
            max_size=None,
        )
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    async def stop(self) -> None:
        """Hang up on everybody."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def opened(self, count: int = 1, *, within_s: float = 60) -> Opened:
        """Return the session that came last, once there are *count*.

        Who asked for one may have its answer before it is on this list.
        """
        until = time.monotonic() + within_s
        while len(self.sessions) < count:
            assert time.monotonic() < until, self.sessions
            time.sleep(0.01)
        return self.sessions[-1]

    def forget(self) -> None:
        """Forget all sessions so far."""
        self.sessions.clear()
        self.answers = 0
        self.stalled.clear()

    def _refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        if "refuse" not in request.path:
            return None
        response = connection.respond(HTTPStatus.UNAUTHORIZED, '{"error": {"code": "no"}}')
        response.headers["x-request-id"] = "req_refused"
        return response

    async def _talk(self, connection: ServerConnection) -> None:
        request = connection.request
        assert request is not None
        opened = Opened(request.path, list(request.headers.raw_items()))
        self.sessions.append(opened)
        path = request.path.partition("?")[0]
        try:
            if path.endswith("/realtime"):
                await self._realtime(connection, opened, request.path)
            elif path.endswith("/responses"):
                await self._responses(connection, opened)
            elif "BidiGenerateContent" in path:
                await self._gemini(connection, opened)
            else:
                async for message in connection:
                    opened.heard.append(message)
                    await connection.send(message)
        except ConnectionClosed:
            pass
        finally:
            opened.code = connection.close_code
            opened.ended.set()

    # -- realtime -------------------------------------------------------------------------

    async def _realtime(
        self, connection: ServerConnection, opened: Opened, target: str
    ) -> None:
        model = target.partition("model=")[2].partition("&")[0] or "gpt-realtime"
        session: Event = {"type": "realtime", "id": "sess_1", "object": "realtime.session"}
        session |= {"model": f"{model}-2026-01-01"}
        await _say(connection, {"type": "session.created", "session": session})
        said = ""
        async for message in connection:
            opened.heard.append(message)
            event = json.loads(message)
            match event["type"]:
                case "session.update":
                    session |= event["session"]
                    await _say(connection, {"type": "session.updated", "session": session})
                case "conversation.item.create":
                    said = event["item"]["content"][0].get("text", "")
                    await _say(
                        connection,
                        {
                            "type": "conversation.item.added",
                            "event_id": "e",
                            "item": event["item"],
                        },
                    )
                case "input_audio_buffer.commit":
                    await self._heard(connection)
                    await self._respond(connection, "spoken words")
                case "response.create":
                    await self._respond(connection, said)
                case "response.cancel":
                    await self._done(connection, "resp_c", "cancelled", [])
                case _:
                    pass

    async def _heard(self, connection: ServerConnection) -> None:
        begun = "conversation.item.input_audio_transcription"
        place = {"event_id": "e", "item_id": "item_u", "content_index": 0}
        await _say(connection, {"type": f"{begun}.delta", **place, "delta": "what I"})
        usage = {"type": "tokens", "input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
        said = {"transcript": "what I said", "usage": usage}
        await _say(connection, {"type": f"{begun}.completed", **place, **said})
        self.answers += 1

    async def _respond(self, connection: ServerConnection, said: str) -> None:
        self._number += 1
        id_ = f"resp_{self._number}"
        place: Event = {"event_id": "e", "response_id": id_, "output_index": 0}
        item: Event = {"id": "item_1", "type": "message", "role": "assistant", "content": []}
        begun: Event = {"id": id_, "object": "realtime.response", "status": "in_progress"}
        await _say(connection, {"type": "response.created", "event_id": "e", "response": begun})
        await _say(connection, {"type": "response.output_item.added", **place, "item": item})
        place |= {"item_id": "item_1", "content_index": 0}
        for word in ("You ", "said ", said):
            delta = {"type": "response.output_text.delta", **place, "delta": word}
            await _say(connection, delta)
        await self._follow(connection, said)
        place["content_index"] = 1
        for piece in (SOUND[:300], SOUND[300:]):
            sound = base64.b64encode(piece).decode()
            await _say(
                connection, {"type": "response.output_audio.delta", **place, "delta": sound}
            )
        heard = {"type": "response.output_audio_transcript.delta", **place, "delta": "Aloud"}
        await _say(connection, heard)
        call: Event = {
            "id": "item_2",
            "type": "function_call",
            "name": "look",
            "call_id": "call_1",
        }
        call |= {"arguments": '{"at":"it"}', "status": "completed"}
        text = {"type": "output_text", "text": f"You said {said}"}
        output = [{**item, "content": [text]}, call]
        await self._done(connection, id_, "completed", output)

    async def _done(
        self, connection: ServerConnection, id_: str, status: str, output: list[Event]
    ) -> None:
        usage = {
            "input_tokens": 11,
            "output_tokens": 5,
            "total_tokens": 16,
            "input_token_details": {"cached_tokens": 2},
        }
        done: Event = {"id": id_, "object": "realtime.response", "status": status}
        done |= {"output": output, "usage": usage}
        self.answers += 1
        await _say(connection, {"type": "response.done", "event_id": "e", "response": done})

    async def _follow(self, connection: ServerConnection, said: str) -> None:
        """Do what a script says, in the middle of an answer."""
        if said == "!stall":
            self.stalled.set()
            await connection.wait_closed()
        elif said == "!break":
            connection.transport.abort()
            await connection.wait_closed()
        elif said == "!burst":
            for number in range(8):
                await _say(connection, {"type": "x", "number": number, "x": "x" * 1_000_000})
            await connection.close(1000, "that is all")
        elif said.startswith("!close "):
            await connection.close(int(said[7:]), "as you wish")

    # -- responses ------------------------------------------------------------------------

    async def _responses(self, connection: ServerConnection, opened: Opened) -> None:
        async for message in connection:
            opened.heard.append(message)
            asked = json.loads(message)
            if asked["type"] != "response.create":
                continue
            said = asked["input"] if isinstance(asked["input"], str) else "a list"
            self._number += 1
            async for event in self._events(connection, asked["model"], said):
                await _say(connection, event)
            self.answers += 1

    async def _events(
        self, connection: ServerConnection, model: str, said: str
    ) -> AsyncIterator[Event]:
        id_ = f"resp_{self._number}"
        shell: Event = {
            "id": id_,
            "object": "response",
            "created_at": 1,
            "model": f"{model}-2026-01-01",
            "status": "in_progress",
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress"}
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        part = {"type": "output_text", "text": "", "annotations": []}
        yield {"type": "response.created", "sequence_number": 0, "response": shell}
        added = {"output_index": 0, "item": {**item, "content": []}}
        yield {"type": "response.output_item.added", "sequence_number": 1, **added}
        begun = {"type": "response.content_part.added", "sequence_number": 2, **place}
        yield {**begun, "part": part}
        words = ("You ", "said ", said)
        for number, word in enumerate(words):
            delta = {"type": "response.output_text.delta", "sequence_number": 3 + number}
            yield {**delta, **place, "delta": word, "logprobs": []}
        await self._follow(connection, said)
        whole = {**item, "status": "completed", "content": [{**part, "text": "".join(words)}]}
        done = {"output_index": 0, "item": whole}
        yield {"type": "response.output_item.done", "sequence_number": 6, **done}
        usage = {
            "input_tokens": 4,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 7,
        }
        end = {**shell, "status": "completed", "output": [whole], "usage": usage}
        yield {"type": "response.completed", "sequence_number": 7, "response": end}

    # -- Google ---------------------------------------------------------------------------

    async def _gemini(self, connection: ServerConnection, opened: Opened) -> None:
        async for message in connection:
            opened.heard.append(message)
            asked = json.loads(message)
            if "setup" in asked:
                await _say(connection, {"setupComplete": {}}, binary=True)
            content = asked.get("clientContent") or asked.get("client_content") or {}
            if content.get("turnComplete") or content.get("turn_complete"):
                await self._turn(connection, content["turns"][-1]["parts"][0]["text"])

    async def _turn(self, connection: ServerConnection, said: str) -> None:
        async def tell(content: Event, **more: Any) -> None:
            await _say(connection, {"serverContent": content, **more}, binary=True)

        thought = {"text": "What did they say?", "thought": True}
        await tell({"modelTurn": {"role": "model", "parts": [thought]}})
        await tell({"modelTurn": {"role": "model", "parts": [{"text": "You said "}]}})
        await self._follow(connection, said)
        data = base64.b64encode(SOUND).decode()
        sound = {"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": data}}
        await tell({"modelTurn": {"role": "model", "parts": [{"text": said}, sound]}})
        await tell({"outputTranscription": {"text": "Aloud"}})
        call = {"id": "fc_1", "name": "look", "args": {"at": "it"}}
        await _say(connection, {"toolCall": {"functionCalls": [call]}}, binary=True)
        await tell({"generationComplete": True})
        usage = {"promptTokenCount": 9, "responseTokenCount": 4, "totalTokenCount": 13}
        self.answers += 1
        await tell({"turnComplete": True}, usageMetadata=usage)


async def _say(connection: ServerConnection, event: Event, *, binary: bool = False) -> None:
    text = json.dumps(event)
    await connection.send(text.encode() if binary else text)


@contextmanager
def live_provider(tls: ssl.SSLContext | None = None) -> Iterator[tuple[LiveProvider, str]]:
    """Run a provider of sessions on a thread of its own; yield it and its base URL."""
    provider = LiveProvider()
    with aside(lambda: provider.start(tls), provider.stop) as port:
        yield provider, f"{'https' if tls else 'http'}://127.0.0.1:{port}"

"""A form that is too large to be held passes all the same, and has its receipt."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from gateway.limits import BODY_BYTES_HELD_MAX
from tests.support.caller import Answer, Caller, Headers
from tests.support.house import RawProvider, gateway_in, sized

HEADERS: Headers = (
    ("content-type", "multipart/form-data; boundary=x1"),
    ("authorization", "Bearer k"),
)


def form(sound: bytes) -> bytes:
    """Return a form that has *sound* transcribed."""
    return (
        b'--x1\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        b'--x1\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        + sound
        + b"\r\n--x1--\r\n"
    )


async def test_an_hour_of_speech_is_transcribed(tmp_path: Path) -> None:
    """The model of a small form is known; a large one is forwarded without, byte for byte."""
    async with RawProvider().listening() as upstream:
        upstream.steps = [sized(b'{"text": "Hello"}')]
        async with gateway_in(tmp_path, upstream.url) as gateway:
            for size, model in ((64, "whisper-1"), (BODY_BYTES_HELD_MAX + 1, None)):
                body = form(b"\x00" * size)
                answer, receipt = await asyncio.to_thread(_ask, gateway.port, body)

                assert (answer.status, answer.body) == (200, b'{"text": "Hello"}')
                assert receipt["operation"] == "transcription"
                assert receipt["model"].get("requested") == model
                assert [unit["kind"] for unit in receipt["outputs"]] == ["transcript"]
                assert receipt["request"]["bytes"] == len(body)
                assert upstream.received[-1].endswith(body)


def _ask(port: int, body: bytes) -> tuple[Answer, dict[str, Any]]:
    with Caller(port) as caller:
        answer = caller.ask("POST", "/open/v1/audio/transcriptions", HEADERS, body)
        exchange = answer.header("x-gateway-exchange")
        statement = caller.ask("GET", f"/-/receipts/{exchange}", ())
    return answer, json.loads(statement.body)["predicate"]

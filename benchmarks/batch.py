"""What a batch costs: lines a second in and out, and the memory that the gateway holds.

A provider of our own takes the file and makes up the results, line by line. `--lines 100000
--bytes 10000` is a gigabyte.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from aiohttp import web

from tests.support.batches import batching_gateway
from tests.support.proxy import Gateway

BOUNDARY = "xyz7"
TRAINING = "purpose=train.sft, student=parser"
ANSWER = {
    "id": "c-1",
    "model": "stub-large",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Forty-nine. " * 20},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 60, "total_tokens": 69},
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=5_000)
    parser.add_argument("--bytes", type=int, default=1_000, help="of a line, about")
    parser.add_argument("--teach", action="store_true", help="declare a use that teaches")
    said = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        provider(said.lines) as url,
        batching_gateway(Path(folder), url) as gateway,
    ):
        report = measure(gateway, said.lines, said.bytes, teach=said.teach)
    print(json.dumps(report, indent=1))
    return 0


def measure(gateway: Gateway, count: int, size: int, *, teach: bool) -> dict[str, Any]:
    """Hand in, begin and fetch one batch; return the figures."""
    process = gateway.process
    assert process is not None
    watched = psutil.Process(process.pid)  # type: ignore[attr-defined]
    idle = watched.memory_info().rss
    watcher = Watcher(watched)
    watcher.start()
    began = time.monotonic()
    headers = {"x-intended-use": TRAINING} if teach else {}
    file = ask(gateway, "POST", "/openai/v1/files", form(count, size), headers)
    handed_s = time.monotonic() - began
    watcher.phase = "begin"
    body = json.dumps({"input_file_id": file["id"], "endpoint": "/v1/chat/completions"})
    batch = ask(gateway, "POST", "/openai/v1/batches", [body.encode()])
    ask(gateway, "GET", f"/openai/v1/batches/{batch['id']}")
    seconds = []
    for phase in ("fetch", "fetch again"):
        watcher.phase = phase
        began = time.monotonic()
        assert count == fetch(gateway, "/openai/v1/files/file-2/content", watcher)
        seconds.append(time.monotonic() - began)
    watcher.stop.set()
    watcher.join()
    return {
        "lines": count,
        "handed_in_lines_per_s": round(count / handed_s),
        "handed_in_mb_per_s": round(count * size / handed_s / 1e6, 1),
        "fetched_lines_per_s": round(count / seconds[0]),
        "fetched_again_lines_per_s": round(count / seconds[1]),
        "rss_idle_mb": round(idle / 1e6),
        "rss_highest_mb": {phase: round(rss / 1e6) for phase, rss in watcher.highest.items()},
        "load": psutil.getloadavg()[0],
    }


class Watcher(threading.Thread):
    """Looks at how much memory the gateway holds, and says so now and then."""

    def __init__(self, watched: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.phase = "hand in"
        self.lines = 0
        self.highest: dict[str, int] = {}
        self._watched = watched

    def run(self) -> None:
        """Look twenty times a second, and say every five seconds."""
        began = said = time.monotonic()
        while not self.stop.wait(0.05):
            held = self._watched.memory_info()
            self.highest[self.phase] = max(self.highest.get(self.phase, 0), held.rss)
            if time.monotonic() - said >= 5:
                said = time.monotonic()
                print(
                    f"{said - began:5.0f} s  {self.phase:<11} {self.lines:>8} lines out"
                    f"  {held.rss / 1e6:4.0f} MB, {held.shared / 1e6:.0f} of files",
                    file=sys.stderr,
                    flush=True,
                )


def form(count: int, size: int) -> Iterator[bytes]:
    """Yield a form whose file has *count* lines."""
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n'
    yield (head % ("purpose", "")).encode() + b"batch\r\n"
    yield (head % ("file", '; filename="a.jsonl"')).encode()
    words = "word " * (size // 5)
    for first in range(0, count, 200):
        lines = []
        for number in range(first, min(first + 200, count)):
            asked = {"model": "m", "messages": [{"role": "user", "content": words}]}
            line = {"custom_id": f"c{number}", "method": "POST", "body": asked}
            lines.append(json.dumps(line | {"url": "/v1/chat/completions"}))
        yield ("\n".join(lines) + "\n").encode()
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


def ask(
    gateway: Gateway,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> Any:
    """Ask, and return what was answered."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=3600)
    kind = "application/json"
    if path.endswith("/files"):
        kind = f"multipart/form-data; boundary={BOUNDARY}"
    told = {"authorization": "Bearer sk", "content-type": kind, **(headers or {})}
    connection.request(method, path, body, told, encode_chunked=body is not None)
    answer = connection.getresponse()
    got = answer.read()
    connection.close()
    assert answer.status == 200, got
    return json.loads(got)


def fetch(gateway: Gateway, path: str, watcher: Watcher) -> int:
    """Fetch, and return how many lines came."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=3600)
    connection.request("GET", path, headers={"authorization": "Bearer sk"})
    answer = connection.getresponse()
    count = 0
    while piece := answer.read(1 << 20):
        count += piece.count(b"\n")
        watcher.lines = count
    connection.close()
    return count


@contextmanager
def provider(count: int) -> Iterator[str]:
    """Run a provider that keeps nothing."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    runner = asyncio.run_coroutine_threadsafe(_listen(count), loop).result(10)
    host, port = runner.addresses[0]
    yield f"http://{host}:{port}"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)


async def _listen(count: int) -> web.AppRunner:
    batch = {"id": "batch_1", "object": "batch", "status": "completed"}
    batch |= {"input_file_id": "file-1", "output_file_id": "file-2"}

    async def take(request: web.Request) -> web.Response:
        async for _ in request.content.iter_chunked(1 << 20):
            pass
        return web.json_response({"id": "file-1", "object": "file", "purpose": "batch"})

    async def tell(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(batch)

    async def give(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        body = json.dumps(ANSWER)
        for first in range(0, count, 100):
            lines = [
                f'{{"id":"r","custom_id":"c{number}","response":{{"status_code":200,'
                f'"request_id":"q","body":{body}}},"error":null}}\n'
                for number in range(first, min(first + 100, count))
            ]
            await response.write("".join(lines).encode())
        return response

    app = web.Application()
    app.router.add_post("/openai/v1/files", take)
    app.router.add_post("/openai/v1/batches", tell)
    app.router.add_get("/openai/v1/batches/{name}", tell)
    app.router.add_get("/openai/v1/files/{name}/content", give)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


if __name__ == "__main__":
    raise SystemExit(main())

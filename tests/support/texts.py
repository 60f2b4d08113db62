"""An installation with texts in it, of calls that a student may learn from."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from gateway import settings
from gateway.app.running import Gateway, start
from gateway.cli.main import main
from gateway.ident import ExchangeId
from gateway.log import build_logger
from tests.support.caller import Answer, Caller, Headers
from tests.support.house import CHAT, RawProvider, completion, sized, write_installation

TARGET: Final = "/open/v1/chat/completions"
USE: Final = "purpose=train.sft, student=parser"


class Kept:
    """A folder with settings and data; *exchanges* are those that were answered."""

    def __init__(self, folder: Path, file: Path) -> None:
        self.folder = folder
        self.file = file
        self.data = folder / "gateway-data"
        self.exchanges: list[ExchangeId] = []
        self.gateway: Gateway | None = None
        """The gateway, while it serves."""

    async def ask(self, secret: str = "sk-1", text: str = "tell me") -> ExchangeId:
        """Ask for something to learn from; return the exchange."""
        said = CHAT | {"messages": [{"role": "user", "content": text}]}
        answer = await self.say(TARGET, said, secret)
        assert answer.status == 200, answer.body
        exchange = ExchangeId(answer.header("x-gateway-exchange") or "")
        self.exchanges.append(exchange)
        return exchange

    async def say(self, target: str, body: object, secret: str = "sk-1") -> Answer:
        """Post *body* to *target*, to learn from what comes back; return the answer."""
        gateway = self.gateway
        assert gateway is not None
        headers: Headers = (
            ("content-type", "application/json"),
            ("authorization", f"Bearer {secret}"),
            ("x-intended-use", USE),
        )

        def talk() -> Answer:
            with Caller(gateway.port) as caller:
                return caller.ask("POST", target, headers, json.dumps(body).encode())

        return await asyncio.to_thread(talk)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Gateway]:
        """Serve the data folder meanwhile."""
        sourced = settings.load(self.file, environment={})
        self.gateway = await start(sourced, build_logger("debug", io.StringIO()))
        try:
            yield self.gateway
        finally:
            await self.gateway.stop()
            self.gateway = None

    def command(self, *words: str) -> tuple[int, str, str]:
        """Run `gateway …` here; return its exit code and what it printed."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["--config", str(self.file), *words])
        return code, out.getvalue(), err.getvalue()


@asynccontextmanager
async def kept_in(folder: Path, *secrets: str) -> AsyncIterator[Kept]:
    """Serve an installation in *folder* and answer one call with each of *secrets*."""
    async with RawProvider().listening() as provider:
        provider.steps = [sized(completion("good day"))]
        kept = Kept(folder, write_installation(folder, provider.url))
        async with kept.serving():
            for number, secret in enumerate(secrets):
                await kept.ask(secret, f"question {number} of {secret}")
            yield kept

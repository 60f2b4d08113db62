"""A real gateway in its own process and its own folder, pointed at a fake provider."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.support.nursery import Nursery, shared
from tests.support.ports import free_port

PROVIDERS = ("openai", "anthropic", "deepseek")
"""The providers of the catalogue whose place the fake takes."""

NOBODY = """\
  nobody:
    base_url: http://127.0.0.1:1
    dialect: openai
    policy: openai
"""
"""A provider that nothing listens for, as the end of `gateway.yaml`."""

START_S_MAX = 120.0
"""How long a gateway may take to answer `/-/health`; ordinarily it is well under a second."""


class Process(Protocol):
    """What is needed of a running process: `Popen` has it."""

    pid: int

    def poll(self) -> int | None:
        """Return `None` while it runs."""
        ...

    def kill(self) -> None:
        """Kill it."""
        ...

    def terminate(self) -> None:
        """Ask it to end."""
        ...

    def wait(self, timeout: float) -> int:
        """Wait for its end and return its exit code."""
        ...


@dataclass(slots=True, kw_only=True)
class Gateway:
    """One gateway: its folder, its door, and the process while it runs."""

    folder: Path
    port: int
    settings: str
    process: Process | None = field(default=None, repr=False)
    nursery: Nursery | None = field(default=None, repr=False)
    """Where the process comes from, if not from where those of all tests do."""

    @property
    def url(self) -> str:
        """Return the door's base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        """Return the data folder."""
        return self.folder / "gateway-data"

    @property
    def settings_file(self) -> Path:
        """Return where `gateway.yaml` is."""
        return self.folder / "gateway.yaml"

    def openai(self, provider: str = "openai") -> str:
        """Return the base URL for an SDK that speaks OpenAI."""
        return f"{self.url}/{provider}/v1"

    def anthropic(self, provider: str = "anthropic") -> str:
        """Return the base URL for an SDK that speaks Anthropic."""
        return f"{self.url}/{provider}"

    def command(self, *words: str, timeout_s: float = 200) -> subprocess.CompletedProcess[str]:
        """Run `gateway …` with this gateway's settings and return what came of it."""
        return shared().run(self.folder, words, timeout_s=timeout_s)

    def init(self) -> None:
        """Write the settings and make the data folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings_file.write_text(self.settings)
        done = self.command("init")
        assert done.returncode == 0, done.stdout + done.stderr

    def spawn(self) -> None:
        """Start the process; it may not listen yet when this returns."""
        if "\nworkers:" not in self.settings_file.read_text():
            nursery = self.nursery or shared()
            self.process = nursery.spawn(self.folder, "--config", str(self.settings_file))
            return
        # Several processes are told apart by their command lines.
        with (self.folder / "gateway.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "--config", str(self.settings_file), "serve"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def start(self) -> None:
        """Start the process and wait until its health is green."""
        self.spawn()
        self.wait_until_healthy()

    def wait_until_healthy(self) -> None:
        """Return once `/-/health` answers 200; fail with the log if the process ends first."""
        until = time.monotonic() + START_S_MAX
        while time.monotonic() < until:
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            try:
                if self.get("/-/health")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.01)
        raise AssertionError("the gateway never became healthy\n" + self.log())

    def wait_until_idle(self, *, within_s: float = 120) -> None:
        """Return once no exchange is under way."""
        until = time.monotonic() + within_s
        while json.loads(self.get("/-/health")[2])["exchanges"]:
            assert time.monotonic() < until, self.log()
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill the process as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.process = None

    def stop(self) -> int:
        """Ask the process to end and return its exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(120)
        self.process = None
        return code

    def log(self) -> str:
        """Return the newest part of what the process has said."""
        file = self.folder / "gateway.log"
        return file.read_text(errors="replace")[-8000:] if file.exists() else ""

    def get(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Ask the door for *path*; return status, headers (lower case) and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            answer = connection.getresponse()
            got = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, got, answer.read()
        except http.client.HTTPException as broken:
            raise ConnectionError(str(broken)) from broken
        finally:
            connection.close()

    def receipt(self, exchange: str, *, within_s: float = 120) -> dict[str, Any]:
        """Return `/-/receipts/{exchange}` as JSON, waiting until it is there."""
        until = time.monotonic() + within_s
        while True:
            status, _, body = self.get(f"/-/receipts/{exchange}")
            if status == 200 or time.monotonic() > until:
                assert status == 200, body
                found: dict[str, Any] = json.loads(body)
                return found
            time.sleep(0.02)


def settings_text(
    port: int,
    provider_url: str,
    *,
    keys: str = "passthrough",
    names: tuple[str, ...] = PROVIDERS,
    more: str = "",
) -> str:
    """Return a `gateway.yaml` whose providers all lead to *provider_url*."""
    lines = [
        f"listen: 127.0.0.1:{port}",
        "data: ./gateway-data",
        f"keys: {keys}",
        "providers:",
    ]
    for name in names:
        lines += [f"  {name}:", f"    base_url: {provider_url}"]
        if keys == "managed":
            lines += ["    credential: file:provider.key"]
    return "\n".join(lines) + "\n" + more


def new_gateway(
    folder: Path,
    provider_url: str,
    *,
    keys: str = "passthrough",
    names: tuple[str, ...] = PROVIDERS,
    more: str = "",
) -> Gateway:
    """Return a gateway in *folder* with its data folder made, not yet started."""
    port = free_port()
    gateway = Gateway(
        folder=folder,
        port=port,
        settings=settings_text(port, provider_url, keys=keys, names=names, more=more),
    )
    folder.mkdir(parents=True, exist_ok=True)
    if keys == "managed":
        secret = folder / "provider.key"
        secret.write_text(PROVIDER_SECRET)
        secret.chmod(0o600)
    gateway.init()
    return gateway


PROVIDER_SECRET = "sk-of-the-organisation"
"""What a gateway with managed keys sends upstream."""


@contextmanager
def running_gateway(
    folder: Path,
    provider_url: str,
    *,
    keys: str = "passthrough",
    names: tuple[str, ...] = PROVIDERS,
    more: str = "",
) -> Iterator[Gateway]:
    """Run a gateway in *folder*; it is killed at the end, which loses nothing."""
    gateway = new_gateway(folder, provider_url, keys=keys, names=names, more=more)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.kill()

"""A provider changes its terms: what legal sees, what changes, and whom it touches. Offline.

`policies/` is how legal reads the terms of a made-up provider, `terms/` the text that was read.
Then Acme announces new terms (`newer-terms/`), legal reads them (`newer/`), and everything that
was ever done with Acme's output is ruled on again before the new policy is put in force.

    python examples/terms_change/terms_change.py
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import openai

HERE = Path(__file__).parent
SETTINGS = """\
listen: 127.0.0.1:{port}
policies: ./policies
providers:
  acme: {{base_url: "{stub}", dialect: openai}}
"""
USE = "purpose=train.sft student=invoice-parser student-kind=extractor competes=no"
DAY = "2040-01-15"
"""Two weeks after the new terms take effect."""


def main() -> None:
    """Tell it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("policies", "newer", "terms", "newer-terms"):
            shutil.copytree(HERE / name, folder / name)
        door, served = open_the_door(stack, folder)

        say("1. Under today's terms: twelve answers for training, and a dataset of them")
        who = ("--project", "default", "--owner", "Ada")
        use = gateway(folder, "use", "declare", *who, *USE.split(), quiet=True).split()[0]
        ask(door, use, count=12)
        gateway(folder, "dataset", "build", "invoices", "--for", use)

        say("2. Acme announces new terms. What changed near what the policy cites?")
        watch = (
            "policy",
            "watch",
            "newer-terms",
            "--policies",
            "policies",
            "--before",
            "terms",
        )
        gateway(folder, *watch, code=1)

        say("3. Legal reads them and writes version 2. In rulings, not in lines:")
        gateway(folder, "policy", "diff", "policies", "newer", code=1)

        say(f"4. Ruled again over the whole ledger, as of {DAY}: who must act?")
        replay = ("policy", "replay", "--with", "newer", "--on", DAY)
        gateway(folder, *replay, "--out", "report", code=1)
        gateway(folder, "verify", "report")

        say("5. Put in force: from its leaf on, every ruling names the new library")
        shutil.rmtree(folder / "policies")
        (folder / "newer").rename(folder / "policies")
        before = health(door)
        served.send_signal(signal.SIGHUP)
        while health(door) == before:
            time.sleep(0.02)
        gateway(folder, "policy", "activations")


def open_the_door(stack: ExitStack, folder: Path) -> tuple[str, subprocess.Popen[bytes]]:
    """Start a stub provider and a gateway in *folder*; return the door's address."""
    stub = start(stack, folder, "-m", "gateway.demo.provider")
    assert stub.stdout is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = SETTINGS.format(port=port, stub=stub.stdout.readline().decode().strip())
    (folder / "gateway.yaml").write_text(settings)
    gateway(folder, "init", quiet=True)
    served = start(stack, folder, "-m", "gateway", "serve")
    door = f"http://127.0.0.1:{port}"
    for _ in range(10_000):
        try:
            health(door)
        except OSError:
            time.sleep(0.02)
        else:
            return door, served
    raise SystemExit(f"{door} never answered")


def ask(door: str, use: str, count: int) -> None:
    """Ask *count* questions for the declared *use*."""
    with openai.OpenAI(
        base_url=f"{door}/acme/v1", api_key="sk-x", default_headers={"x-intended-use": use}
    ) as client:
        for number in range(count):
            client.chat.completions.create(
                model="acme-large",
                messages=[{"role": "user", "content": f"Read invoice number {number}."}],
            )


def gateway(folder: Path, *words: str, code: int = 0, quiet: bool = False) -> str:
    """Run one command in *folder*, show it, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if not quiet:
        print(f"$ gateway {' '.join(words)}\n{done.stdout}", flush=True)
    if done.returncode != code:
        raise SystemExit(f"exit code {done.returncode}: {done.stderr}")
    return done.stdout


def start(stack: ExitStack, folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Run a process in *folder* until the story is over."""
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


def health(door: str) -> bytes:
    """Return what the gateway says of itself."""
    with urllib.request.urlopen(f"{door}/-/health") as answer:
        return bytes(answer.read())


def say(heading: str) -> None:
    """Print a heading."""
    print(f"\n{heading}\n{'-' * len(heading)}", flush=True)


if __name__ == "__main__":
    main()

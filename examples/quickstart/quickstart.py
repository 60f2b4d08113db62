"""A call, a refusal and a receipt: the gateway in one page, offline.

It starts a stub provider and a gateway in a folder of its own, asks through the real OpenAI
SDK, and verifies the receipt of the answer with the public trust file alone.

    python examples/quickstart/quickstart.py
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import openai

SETTINGS = """\
listen: 127.0.0.1:{port}
providers:
  openai:
    base_url: {stub}
"""
FORBIDDEN = "purpose=train.sft, student=rival, student-kind=chat, competes=?1"


def main() -> None:
    """Show it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stub = start(stack, folder, "-m", "gateway.demo.provider")
        assert stub.stdout is not None
        port = free_port()
        (folder / "gateway.yaml").write_text(
            SETTINGS.format(port=port, stub=stub.stdout.readline().decode().strip())
        )
        subprocess.run([sys.executable, "-m", "gateway", "init"], cwd=folder, check=True)
        start(stack, folder, "-m", "gateway", "serve")
        door = f"http://127.0.0.1:{port}"
        wait_for(f"{door}/-/health")

        # All that changes in your code is the base URL.
        client = stack.enter_context(
            openai.OpenAI(base_url=f"{door}/openai/v1", api_key="sk-x")
        )

        print("\n1. A call, as ever.")
        question = [{"role": "user", "content": "What is a ledger?"}]
        answer = client.chat.completions.with_raw_response.create(
            model="stub-large", messages=question
        )
        print("  ", answer.parse().choices[0].message.content)

        print("\n2. A use that the terms forbid is refused, and says why.")
        try:
            client.chat.completions.create(
                model="stub-large",
                messages=question,
                extra_headers={"x-intended-use": FORBIDDEN},
            )
        except openai.PermissionDeniedError as refused:
            print("  ", refused.body["message"])

        print("\n3. The answer has a receipt; its bundle verifies offline.")
        exchange = answer.headers["x-gateway-exchange"]
        with urllib.request.urlopen(f"{door}/-/receipts/{exchange}/bundle") as bundle:
            (folder / "receipt.bundle").write_bytes(bundle.read())
        verify = [sys.executable, "-m", "gateway", "verify", "receipt.bundle"]
        subprocess.run(verify, cwd=folder, check=True)


def start(stack: ExitStack, folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Run a process in *folder* until the page is over."""
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(url: str) -> None:
    """Return once *url* answers."""
    for _ in range(10_000):
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"{url} never answered")


if __name__ == "__main__":
    main()

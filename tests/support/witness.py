"""Witnesses to ask: real processes, crooked ones, and a log in memory that they watch."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from gateway.ledger.publishing.post import Answer, Line
from gateway.receipt.keys import LogSigner, generate_pem
from gateway.tlog.checkpoint import Checkpoint, format_checkpoint
from gateway.tlog.cosignature import CosignatureVerifier, parse_cosignature_vkey
from gateway.tlog.merkle import consistency_proof, leaf_hash, root_of
from gateway.tlog.note import sign_note
from gateway.tlog.proof import ConsistencyProof, format_consistency
from tests.support.ports import held_port

ROOT: Final = Path(__file__).resolve().parents[2]
LOG: Final = LogSigner(generate_pem("ed25519"), "log.example/one")


class MemoryLog:
    """A log of short leaves, signed by *signer*; it may branch off from another."""

    def __init__(self, leaves: list[bytes], signer: LogSigner = LOG) -> None:
        self.leaves = leaves
        self.signer = signer
        self._hashes = [leaf_hash(leaf) for leaf in leaves]

    def root(self, first: int, stop: int) -> bytes:
        """Return the root of a range of leaves."""
        return root_of(self._hashes[first:stop])

    def checkpoint(self, size: int) -> Checkpoint:
        """Return the checkpoint of the first *size* leaves."""
        return Checkpoint(self.signer.name, size, self.root(0, size))

    def note(self, size: int) -> str:
        """Return it signed."""
        return sign_note(format_checkpoint(self.checkpoint(size)), [self.signer])

    def body(self, old_size: int, size: int) -> bytes:
        """Return what a witness is asked: to go from *old_size* to *size*."""
        hashes = tuple(consistency_proof(old_size, size, self.root))
        return format_consistency(ConsistencyProof(old_size, hashes, self.note(size))).encode()


def a_log(size: int, tail: str = "", common: int | None = None) -> MemoryLog:
    """Return a log of *size* leaves; from leaf *common* on, *tail* tells it from others."""
    same = size if common is None else common
    leaves = [f"leaf {n}" for n in range(same)] + [f"leaf {n}{tail}" for n in range(same, size)]
    return MemoryLog([leaf.encode() for leaf in leaves])


class WitnessProcess:
    """`gateway ledger witness` in a process of its own, killed and started as a test likes."""

    def __init__(
        self, folder: Path, name: str, *vkeys: str, tls: tuple[Path, Path] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._tls = tls
        self.key, self.state = folder / "witness.key", folder / "witness.json"
        self.name = name
        self._vkeys = vkeys
        # Killed, it comes back to the same place, to which nobody else may come meanwhile.
        self._port = held_port(self)
        self.vkey = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self, *before: str) -> WitnessProcess:
        """Start it where it was, after the words *before*; return once it answers."""
        logs = [word for vkey in self._vkeys for word in ("--log", vkey)]
        if self._tls is not None:
            logs += ["--cert", str(self._tls[0]), "--cert-key", str(self._tls[1])]
        self._process = subprocess.Popen(
            [
                *(*before, sys.executable, "-m", "gateway", "ledger", "witness", *logs),
                *("--listen", f"127.0.0.1:{self._port}", "--name", self.name),
                *("--key", str(self.key), "--state", str(self.state)),
            ],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "PATH": os.environ.get("PATH", "")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.vkey = self._process.stdout.readline().strip()
        started = self._process.stderr.readline()
        if not started.startswith("{"):
            raise AssertionError(started + self._process.stderr.read())
        self._port = int(json.loads(started)["listen"].rpartition(":")[2])
        return self

    def listen_like(self, other: WitnessProcess) -> None:
        """Take the address that *other* had."""
        self._port = other._port

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def cosigned(self, origin: str) -> int:
        """Return how many leaves of the log *origin* it has cosigned."""
        held = json.loads(self.state.read_bytes())["logs"].get(origin)
        return 0 if held is None else int(held["size"])

    @property
    def verifier(self) -> CosignatureVerifier:
        """Its public key."""
        return parse_cosignature_vkey(self.vkey)

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process that was started last."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(lambda process: process.kill())

    def stop(self) -> int:
        """Tell it to end; return its exit code."""
        return self._end(lambda process: process.terminate())

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self) -> None:
        """Wait until it has ended by itself."""
        self._end(lambda _: None)

    def post(self, body: bytes) -> Answer:
        """Ask it, over a connection of its own."""
        return post(self.url, body)

    def _end(self, how: Callable[[subprocess.Popen[str]], None]) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        how(process)
        process.communicate(timeout=60)
        return process.returncode


def post(url: str, body: bytes) -> Answer:
    """Ask a witness, over a connection of its own."""
    line = Line(f"{url}/add-checkpoint", timeout_s=60, bytes_max=65_536)
    try:
        return line.post(body, "text/plain")
    finally:
        line.close()


class CrookedServer:
    """An HTTP server on loopback whose every answer a test makes up."""

    def __init__(self, answer: Callable[[bytes], tuple[int, str, bytes]]) -> None:
        self.answer = answer
        self.bodies: list[bytes] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.bodies.append(body)
                status, kind, text = outer.answer(body)
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A caller that hung up is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

"""A gateway whose checkpoints a witness in another process cosigns, as callers see it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gateway.receipt.bundle import format_bundle, parse_bundle
from gateway.receipt.keys import parse_trust
from gateway.tlog.cosignature import check_quorum
from tests.support.caller import Caller
from tests.support.provider import FakeProvider
from tests.support.proxy import Gateway, new_gateway
from tests.support.witness import LOG, WitnessProcess
from tests.support.workers import CHAT, OPENAI, chat, kill, start


@dataclass
class Watched:
    """A gateway, and the one witness that its settings and its trust file name."""

    gateway: Gateway
    witness: WitnessProcess
    workers: int

    def ask(self) -> str:
        """Have an exchange; return its id."""
        with Caller(self.gateway.port) as caller:
            answer = caller.ask("POST", CHAT, OPENAI, chat("hello"))
        assert 200 == answer.status, answer.body
        return answer.values("x-gateway-exchange")[0]

    def bundle(self, exchange: str) -> tuple[int, bytes]:
        """Return status and body of an exchange's bundle."""
        status, _, body = self.gateway.get(f"/-/receipts/{exchange}/bundle")
        return status, body

    def cosigned(self, exchange: str) -> bytes:
        """Return an exchange's bundle, once its witness has said what it must hold.

        A witness that takes its time on a busy machine is asked again.
        """
        until(lambda: self.bundle(exchange)[0] == 200)
        status, body = self.bundle(exchange)
        assert 200 == status, body
        return body

    def health(self) -> tuple[int, list[str]]:
        """Return status and alarms."""
        status, _, body = self.gateway.get("/-/health")
        return status, json.loads(body)["alarms"]

    def verify(self, bundle: bytes) -> subprocess.CompletedProcess[str]:
        """Verify a bundle by the gateway's own trust file."""
        file = self.gateway.folder / "bundle.json"
        file.write_bytes(bundle)
        return self.gateway.command(
            "verify", str(file), "--trust", str(self.gateway.data / "trust.json")
        )


def until(true: Callable[[], bool], *, within_s: float = 150) -> None:
    """Wait until *true*."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(params=[1, 2], ids=["alone", "workers"])
def watched(
    request: pytest.FixtureRequest,
    provider_and_url: tuple[FakeProvider, str],
    tmp_path: Path,
) -> Iterator[Watched]:
    """Return a gateway of one and of more processes, started, and its witness."""
    # A witness is told of a log by its vkey, and a log of a witness: this one knows another
    # log first.
    first = WitnessProcess(tmp_path / "witness", "witness.example/w", LOG.vkey).start()
    url, vkey = first.url, first.vkey
    first.kill()
    more = (
        f"checkpoint:\n  witnesses: [{{url: '{url}', vkey: '{vkey}'}}]\n"
        f"  copies: [{tmp_path / 'copy'}]\nworkers: {request.param}\n"
    )
    gateway = new_gateway(tmp_path / "gateway", provider_and_url[1], more=more)
    trust = parse_trust((gateway.data / "trust.json").read_bytes())
    assert ((vkey,), 1) == (trust.witnesses, trust.quorum)
    witness = WitnessProcess(tmp_path / "witness", "witness.example/w", LOG.vkey, trust.log)
    witness.listen_like(first)
    witness.start()
    try:
        start(gateway, request.param)
        yield Watched(gateway, witness, request.param)
    finally:
        kill(gateway)
        witness.kill()


def test_bundles_carry_what_witnesses_say(watched: Watched) -> None:
    """What is handed out is cosigned, and verified only so; without a witness it must wait."""
    gateway, witness = watched.gateway, watched.witness
    body = watched.cosigned(watched.ask())
    bundle = parse_bundle(body)
    note = bundle.proof.checkpoint
    assert 1 == len(check_quorum(note, [witness.verifier], 1))
    done = watched.verify(body)
    assert 0 == done.returncode, done.stdout + done.stderr
    bare = replace(bundle.proof, checkpoint=note[: note.index("— witness.example")])
    refused = watched.verify(format_bundle(replace(bundle, proof=bare)))
    assert 1 == refused.returncode
    assert "0 of the trusted witnesses" in refused.stdout + refused.stderr
    until(lambda: (200, []) == watched.health())
    # Nobody answers: callers are served all the same, and auditors are told to wait.
    witness.signal(signal.SIGSTOP)
    later = watched.ask()
    until(lambda: (503, ["checkpoint.unwitnessed"]) == watched.health())
    status, body = watched.bundle(later)
    assert 503 == status
    assert "checkpoint.unwitnessed" == json.loads(body)["code"]
    assert b"too few witnesses" in body
    metrics = gateway.get("/-/metrics")[2].decode()
    assert 'gateway_checkpoint_alarms{code="checkpoint.unwitnessed"} 1.0' in metrics
    until(lambda: '"checkpoint.unwitnessed"' in gateway.log())
    witness.signal(signal.SIGCONT)
    until(lambda: (200, []) == watched.health())
    assert 0 == watched.verify(watched.cosigned(later)).returncode
    until(lambda: '"checkpoint.well"' in gateway.log())
    assert (gateway.folder.parent / "copy").read_text().startswith(note.split("\n")[0])


def test_a_gateway_that_was_taken_back_does_not_start(watched: Watched) -> None:
    """A data folder restored whole is refused, by the copy first and then by the witness."""
    gateway = watched.gateway
    watched.ask()
    gateway.stop()
    backup = gateway.folder / "backup"
    shutil.copytree(gateway.data, backup)
    start(gateway, watched.workers)
    watched.cosigned(watched.ask())
    gateway.stop()
    shutil.rmtree(gateway.data)
    backup.rename(gateway.data)
    copy = gateway.folder.parent / "copy"
    for says in (
        f"the copy of the checkpoint `{copy}` says",
        "the witness `witness.example/w`",
    ):
        done = gateway.command("serve")
        told = done.stdout + done.stderr

        assert 3 == done.returncode, told
        assert "ledger.damaged" in told
        assert says in told
        # Whoever took back the copy too is found out by the witness.
        with contextlib.suppress(FileNotFoundError):
            (gateway.data / "checkpoint.copies").unlink()
        copy.unlink(missing_ok=True)

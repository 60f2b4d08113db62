"""The examples do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import openai
import pytest

from tests.support.proxy import Gateway

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*words: str, timeout_s: float = 280) -> subprocess.CompletedProcess[str]:
    """Run an example and return what came of it."""
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


def test_the_quickstart_runs() -> None:
    """The first page of the documentation ends with a receipt that verifies."""
    done = run(str(EXAMPLES / "quickstart" / "quickstart.py"))

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "ok   inclusion" in done.stdout
    assert "is forbidden" in done.stdout


def test_a_change_of_terms_is_told_to_its_end() -> None:
    """What changed, which rulings follow, whom it touches, and since when it is in force."""
    done = run(str(EXAMPLES / "terms_change" / "terms_change.py"))

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "stale: changed near a cited place" in done.stdout
    assert "train-internal (2040-01-01): permit by `may-train` -> forbid" in done.stdout
    assert "12 permit to forbid" in done.stdout
    assert "Ada: learn no more from dataset invoices" in done.stdout
    assert "by SIGHUP" in done.stdout


@pytest.mark.student
@pytest.mark.timeout(2400)
def test_a_withdrawal_reaches_the_fourth_stage() -> None:
    """From an API to a last model: yes, no, evidence that verifies, and an end to it all."""
    done = run(str(EXAMPLES / "multi_stage" / "multi_stage.py"), timeout_s=2390)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "Yes: model `library-reader`" in done.stdout
    assert "No: model `library-reader`" in done.stdout
    assert "ok   answer" in done.stdout
    assert "student library-reader, 2 stages away" in done.stdout
    assert "student.withdrawn" in done.stdout
    assert "gateway/student-withdrawn" in done.stdout


@pytest.mark.parametrize("use", ["", "purpose=train.sft, student-kind=chat, competes=?1"])
def test_a_stranger_can_verify(use: str, gateway: Gateway, tmp_path: Path) -> None:
    """A verifier that shares no code with the gateway accepts its bundles, bent ones never."""
    headers = {"x-intended-use": use} if use else {}
    with openai.OpenAI(base_url=gateway.openai(), api_key="k", max_retries=0) as client:
        try:
            answered = client.chat.completions.with_raw_response.create(
                model="m", messages=[{"role": "user", "content": "hi"}], extra_headers=headers
            ).headers
        except openai.PermissionDeniedError as refused:
            answered = refused.response.headers
    exchange = answered["x-gateway-exchange"]
    bundle = gateway.get(f"/-/receipts/{exchange}/bundle")[2]
    script, trust = EXAMPLES / "verify_offline" / "verify.py", gateway.data / "trust.json"
    good, bent = tmp_path / "good", tmp_path / "bent"
    good.write_bytes(bundle)
    at = bundle.index(b'"leaf":"') + 400
    bent.write_bytes(
        bundle[:at] + (b"A" if bundle[at : at + 1] != b"A" else b"B") + bundle[at + 1 :]
    )
    accepted = run(str(script), str(good), str(trust))

    assert 0 == accepted.returncode, accepted.stdout + accepted.stderr
    assert exchange in accepted.stdout
    assert 1 == run(str(script), str(bent), str(trust)).returncode

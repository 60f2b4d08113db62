"""OpenSSF model-signing's own command verifies `model.sig`, and refuses what was changed."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.receipt.keys import P256Signer, generate_pem
from tests.support.dataset import House
from tests.support.evidence import MANIFEST_SIGNER
from tests.support.model import a_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a model folder as a training leaves it."""
    house = House(tmp_path_factory.mktemp("house"))
    yield a_model(house)
    house.close()


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """Return a copy of it, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "model"))


def asked(model: Path, key: P256Signer = MANIFEST_SIGNER) -> subprocess.CompletedProcess[str]:
    """Ask the command whether *key* signed the folder as it is."""
    pem = model.parent / "manifest.pem"
    pem.write_text(key.public.pem)
    return subprocess.run(
        [
            *(sys.executable, "-m", "model_signing", "verify", "key", str(model)),
            *("--signature", str(model / "model.sig"), "--public_key", str(pem)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_it_verifies_what_we_sign(model: Path) -> None:
    """The folder as it was trained passes, with the manifest key and nothing else of ours."""
    done = asked(model)

    assert (0, "Verification succeeded") == (done.returncode, done.stdout.strip()), done.stderr


def edit(name: str) -> Callable[[Path], None]:
    """Return a change of the last byte of a file."""

    def change(model: Path) -> None:
        content = bytearray((model / name).read_bytes())
        content[-1] ^= 1
        (model / name).write_bytes(content)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edit("model.safetensors"), "Hash mismatch for 'model.safetensors'"),
        (edit("manifest.json"), "Hash mismatch for 'manifest.json'"),
        (edit("manifest.tlog-proof"), "Hash mismatch for 'manifest.tlog-proof'"),
        (edit("evidence/set.manifest.json"), "Hash mismatch for 'evidence/set.manifest.json'"),
        (lambda model: (model / "more").write_text("x"), "Extra files found"),
        (lambda model: (model / "config.json").unlink(), "Missing files"),
        (edit("model.sig"), "Verification failed"),
    ],
    ids=["weights", "manifest", "proof", "evidence", "added", "missing", "signature"],
)
def test_it_refuses_what_was_changed(
    model: Path, change: Callable[[Path], None], said: str
) -> None:
    """An edited, added or missing file is refused, and named."""
    change(model)

    done = asked(model)

    assert done.returncode == 1
    assert said in (done.stdout + done.stderr).replace("\\", "")


def test_it_refuses_another_key(model: Path) -> None:
    """A signature by somebody else is none."""
    done = asked(model, P256Signer(generate_pem("p256")))

    assert done.returncode == 1
    assert "Key mismatch" in done.stdout + done.stderr


def test_it_signs_as_we_do(model: Path, tmp_path: Path) -> None:
    """What the command makes of the same folder is over the same files, byte for byte."""
    pem = tmp_path / "manifest.key"
    pem.write_bytes(generate_pem("p256"))
    theirs = tmp_path / "theirs.sig"
    ours = json.loads((model / "model.sig").read_bytes())
    (model / "model.sig").unlink()
    subprocess.run(
        [
            *(sys.executable, "-m", "model_signing", "sign", "key", str(model)),
            *("--signature", str(theirs), "--private_key", str(pem)),
        ],
        check=True,
        capture_output=True,
        timeout=200,
    )

    made = resources(json.loads(theirs.read_bytes()))

    assert made == resources(ours)


def resources(bundle: dict[str, Any]) -> tuple[list[dict[str, str]], str]:
    """Return the files that a signature names, and their digest together."""
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return payload["predicate"]["resources"], payload["subject"][0]["digest"]["sha256"]

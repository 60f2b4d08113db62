"""Laws of keys in a PKCS #11 module, over SoftHSM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.errors import KeyUnreadableError
from gateway.receipt.keys import Ed25519Signer, LogSigner, P256Signer, generate_pem, parse_trust
from gateway.store.hsm import parse_pkcs11_uri
from tests.support.tools import needed

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
PIN = "5678"


class SoftHsm:
    """A token of its own in a folder, with a log key and a manifest key."""

    def __init__(self, folder: Path) -> None:
        self._program = str(needed("softhsm2-util"))
        found = [path for path in MODULES if Path(path).exists()]
        assert found, f"softhsm2-util is there, its module is at none of {MODULES}"
        self.module = found[0]
        (folder / "tokens").mkdir()
        conf = folder / "softhsm2.conf"
        conf.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
        self.environment = {**os.environ, "SOFTHSM2_CONF": str(conf)}
        self._run("--init-token", "--free", "--label", "t", "--so-pin", "1234", "--pin", PIN)
        self.log, self.manifest = generate_pem("ed25519"), generate_pem("p256")
        for number, (label, pem) in enumerate([("log", self.log), ("man", self.manifest)], 1):
            file = folder / f"{label}.pem"
            file.write_bytes(pem)
            words = ("--token", "t", "--label", label, "--id", f"0{number}", "--pin", PIN)
            self._run("--import", str(file), *words)
            file.unlink()
        self.pin_file = folder / "pin"
        self.pin_file.write_text(f"{PIN}\n")

    def uri(self, label: str, pin: str | None = None) -> str:
        """Return how settings name a key of the token."""
        said = f"pin-source=file:{self.pin_file}" if pin is None else f"pin-value={pin}"
        return f"pkcs11:token=t;object={label}?module-path={self.module}&{said}"

    def python(self, program: str, *words: str) -> str:
        """Return what *program* prints in a process that may use the token."""
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def gateway(self, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the gateway's in *folder*."""
        return subprocess.run(
            [sys.executable, "-m", "gateway", "--config", str(folder / "gateway.yaml"), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
        )

    def _run(self, *words: str) -> None:
        subprocess.run(
            [self._program, *words], env=self.environment, check=True, capture_output=True
        )


@pytest.fixture
def hsm(tmp_path: Path) -> SoftHsm:
    """Return a fresh token."""
    folder = tmp_path / "hsm"
    folder.mkdir()
    return SoftHsm(folder)


SIGN = """
import sys
from gateway.store.hsm import Pkcs11Key, parse_pkcs11_uri
for uri, kind in zip(sys.argv[1::2], sys.argv[2::2]):
    key = Pkcs11Key(parse_pkcs11_uri(uri), kind)
    for _ in range(3):
        key.public.verify(key.sign(b"message"), b"message")
    print(key.keyid, key.sign(b"message").hex())
"""


def test_a_module_signs_as_the_key_would(hsm: SoftHsm) -> None:
    """Both kinds of keys, in one token, sign what their public halves verify."""
    said = hsm.python(SIGN, hsm.uri("log"), "ed25519", hsm.uri("man"), "p256").split()
    log, manifest = Ed25519Signer(hsm.log), P256Signer(hsm.manifest)

    assert [log.keyid, manifest.keyid] == said[::2]
    log.public.verify(bytes.fromhex(said[1]), b"message")
    manifest.public.verify(bytes.fromhex(said[3]), b"message")


REFUSED = """
import sys
from gateway.errors import KeyUnreadableError
from gateway.store.hsm import Pkcs11Key, parse_pkcs11_uri
try:
    Pkcs11Key(parse_pkcs11_uri(sys.argv[1]), sys.argv[2])
except KeyUnreadableError as error:
    print(error)
"""


def test_what_is_not_there_is_named(hsm: SoftHsm) -> None:
    """A key, token, module or PIN that is not the right one is one line for the operator."""
    other_kind = hsm.python(REFUSED, hsm.uri("man"), "ed25519")
    assert "No key matching" in other_kind
    assert "object" not in other_kind
    assert "PinIncorrect" in hsm.python(REFUSED, hsm.uri("log", "9999"), "ed25519")
    away = hsm.uri("log").replace("token=t", "token=away")
    assert "No token matching" in hsm.python(REFUSED, away, "ed25519")
    nowhere = hsm.uri("log").replace(hsm.module, "/nowhere.so")
    said = hsm.python(REFUSED, nowhere, "ed25519")
    assert "/nowhere.so" in said
    assert PIN not in said


def test_a_gateway_signs_with_keys_in_a_module(hsm: SoftHsm, tmp_path: Path) -> None:
    """With `signing` in a module no long-lived key is on the disk, and evidence verifies."""
    (tmp_path / "gateway.yaml").write_text(
        f'data: ./data\nsigning:\n  log: "{hsm.uri("log")}"\n  manifest: "{hsm.uri("man")}"\n'
    )
    assert hsm.gateway(tmp_path, "init", "--origin", "log.example/hsm").returncode == 0
    names = {path.name for path in (tmp_path / "data/keys").iterdir()}
    use = ("purpose=train.sft", "student=s", "student-kind=extractor")
    said = hsm.gateway(tmp_path, "use", "declare", "--project", "p", "--owner", "ada", *use)
    assert said.returncode == 0, said.stderr
    bundled = hsm.gateway(tmp_path, "ledger", "prove", "1", "--out", "b.json")
    assert bundled.returncode == 0, bundled.stderr
    checked = hsm.gateway(tmp_path, "verify", "b.json", "--trust", "data/trust.json")

    assert checked.returncode == 0, checked.stdout
    assert not names & {"log.key", "manifest.key"}
    trust = parse_trust((tmp_path / "data/trust.json").read_bytes())
    assert trust.log == LogSigner(hsm.log, "log.example/hsm").vkey
    assert trust.manifest_keys[0].key == P256Signer(hsm.manifest).public.pem


def test_a_key_comes_from_a_variable(tmp_path: Path) -> None:
    """A PEM in the environment, on one line or several, is a key like one in a file."""
    pem = generate_pem("p256").decode()
    (tmp_path / "gateway.yaml").write_text("data: ./data\nsigning: {manifest: 'env:MAN'}\n")
    for number, value in enumerate((pem, pem.replace("\n", "\\n"))):
        environment = {**os.environ, "MAN": value, "GATEWAY__DATA": f"./data{number}"}
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "--config", "gateway.yaml", "init"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        trust = parse_trust((tmp_path / f"data{number}/trust.json").read_bytes())
        assert trust.manifest_keys[0].key == P256Signer(pem.encode()).public.pem


def test_a_uri_is_read_by_its_parts(tmp_path: Path) -> None:
    """Percent signs are resolved, and a PIN in a file is read."""
    (tmp_path / "pin").write_text("12 34\n")
    uri = f"pkcs11:object=a%20key;token=T?pin-source=file:{tmp_path / 'pin'}&module-path=/m.so"

    found = parse_pkcs11_uri(uri)
    assert (found.object, found.token, found.module_path, found.pin) == (
        "a key",
        "T",
        "/m.so",
        "12 34",
    )
    assert "12 34" not in repr(found)


@pytest.mark.parametrize(
    "uri",
    [
        "file:x",
        "pkcs11:token=t",
        "pkcs11:token=t;object=o",
        "pkcs11:token=t;object=o?module-path=",
        "pkcs11:token=t;object=o;slot-id=1?module-path=/m",
        "pkcs11:token=t;token=u;object=o?module-path=/m",
        "pkcs11:token=t;object=o?module-path=/m&pin-value=1&pin-source=/nowhere",
        "pkcs11:token=t;object=o?module-path=/m&pin-source=/nowhere/at/all",
    ],
)
def test_what_names_no_key_is_refused(uri: str) -> None:
    """A URI without a token, a key or a module, or with more than is understood, is none."""
    with pytest.raises(KeyUnreadableError):
        parse_pkcs11_uri(uri)

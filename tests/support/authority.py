"""A timestamp authority on loopback, made of `openssl ts` and a root made for the test."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Final

from tests.support.tools import needed
from tests.support.witness import CrookedServer

REPLY: Final = "application/timestamp-reply"

_SETTINGS: Final = """
[req]
distinguished_name = nobody
[nobody]
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[signer]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[door]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1
extendedKeyUsage = serverAuth
[authority]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/signer.pem
signer_key = {folder}/signer.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
tsa_name = yes
ess_cert_id_alg = sha256
"""

_NEW_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """Stamps what it is sent; its root is in `root`."""

    def __init__(self, folder: Path, name: str = "Test TSA") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._openssl = str(needed("openssl"))
        self.root = folder / "root.pem"
        self._settings = folder / "settings"
        self._settings.write_text(_SETTINGS.format(folder=folder))
        (folder / "serial").write_text("01")
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        options = ("-config", str(self._settings))
        self._run(
            *("req", "-x509", *key, "-keyout", str(folder / "root.key"), "-days", "2"),
            *(
                "-subj",
                "/CN=Test root",
                "-extensions",
                "root",
                "-out",
                str(self.root),
                *options,
            ),
        )
        self.issue("signer", name)

    def issue(self, what: str, name: str) -> tuple[Path, Path]:
        """Make a key and a certificate for *what*, `signer` or `door`; return both files."""
        made, key = self._folder / f"{what}.pem", self._folder / f"{what}.key"
        request = self._folder / f"{what}.csr"
        self._run(
            *("req", *_NEW_KEY, "-keyout", str(key), "-subj", f"/CN={name}"),
            *("-out", str(request), "-config", str(self._settings)),
        )
        self._run(
            *("x509", "-req", "-in", str(request), "-CA", str(self.root), "-days", "2"),
            *("-CAkey", str(self._folder / "root.key"), "-CAcreateserial", "-out", str(made)),
            *("-extfile", str(self._settings), "-extensions", what),
        )
        return made, key

    @functools.cached_property
    def server(self) -> CrookedServer:
        """Where it listens."""
        return CrookedServer(self.answer)

    def answer(self, query: bytes) -> tuple[int, str, bytes]:
        """Stamp one request."""
        asked, made = self._folder / "query", self._folder / "reply"
        asked.write_bytes(query)
        self._run(
            *("ts", "-reply", "-queryfile", str(asked), "-config", str(self._settings)),
            *("-section", "authority", "-out", str(made)),
        )
        return 200, REPLY, made.read_bytes()

    def verify(self, note: Path, token: Path) -> bool:
        """Tell whether openssl takes *token* for a timestamp of *note*."""
        ran = subprocess.run(
            [self._openssl, "ts", "-verify", "-data", str(note), "-in", str(token), "-CAfile",
             str(self.root)],
            capture_output=True,
            check=False,
        )  # fmt: skip
        return ran.returncode == 0 and b"Verification: OK" in ran.stdout + ran.stderr

    def _run(self, *words: str) -> None:
        subprocess.run([self._openssl, *words], capture_output=True, check=True)

"""Software of others that verifies ours: how it is built, called, and what it said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.tools import needed

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "verify_offline"
_GO_SOURCES: Final = "/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog"


@dataclass(frozen=True, slots=True)
class GoVerifier:
    """The program of `examples/verify_offline/go`, compiled."""

    program: Path

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it and return what came of it."""
        return subprocess.run(
            [self.program, *words], capture_output=True, text=True, check=False, timeout=50
        )

    def accepts(self, *words: str | Path) -> str:
        """Insist that it says yes; return what it said."""
        done = self(*words)

        assert (0, "ok   ") == (done.returncode, done.stdout[:5]), done.stdout + done.stderr
        return done.stdout

    def rejects(self, *words: str | Path) -> str:
        """Insist that it says no, rather than failing to run; return why."""
        done = self(*words)

        assert (1, "fail ") == (done.returncode, done.stdout[:5]), done.stdout + done.stderr
        return done.stdout


def build_go_verifier(folder: Path) -> GoVerifier:
    """Compile the Go program against Debian's `golang.org/x/mod`, without any network."""
    go = needed("go")
    needed("tlog.go", _GO_SOURCES)
    program = folder / "verify"
    built = subprocess.run(
        [go, "build", "-o", program, "."],
        cwd=EXAMPLE / "go",
        env={
            **os.environ,
            "GO111MODULE": "off",
            "GOPATH": "/usr/share/gocode",
            "GOCACHE": str(folder / "cache"),
            "GOFLAGS": "",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert 0 == built.returncode, built.stderr
    return GoVerifier(program)


def flipped(content: bytes, at: int, bit: int = 1) -> bytes:
    """Return *content* with one bit of one byte changed."""
    return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]


def places(length: int, count: int) -> Sequence[int]:
    """Return *count* places spread over *length*, the first and the last among them."""
    if length <= count:
        return range(length)
    return sorted({round(step * (length - 1) / (count - 1)) for step in range(count)})

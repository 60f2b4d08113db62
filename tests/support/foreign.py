"""Software of others that verifies ours: how it is built, called, and what it said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.tools import needed

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "verify_offline"
_FOREIGN: Final = Path(__file__).parents[1] / "conformance" / "foreign"
_GO_SOURCES: Final = "/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog"


@dataclass(frozen=True, slots=True)
class GoVerifier:
    """The program of `examples/verify_offline/go`, compiled."""

    program: Path

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it and return what came of it."""
        return subprocess.run(
            [self.program, *words], capture_output=True, text=True, check=False, timeout=200
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
    """Compile the example's Go program."""
    return GoVerifier(_build_go(EXAMPLE / "go", folder / "verify"))


@dataclass(frozen=True, slots=True)
class GoJudge:
    """The program of `foreign/go`, compiled: asked what our own code was asked."""

    program: Path

    def __call__(self, questions: Iterable[dict[str, object]]) -> list[bool]:
        """Return whether Go's code says yes, question by question."""
        asked = "\n".join(map(json.dumps, questions))
        done = subprocess.run(
            [self.program],
            input=asked,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )

        assert (0, "") == (done.returncode, done.stderr), done.stderr
        return [line == "yes" for line in done.stdout.splitlines()]


def build_go_judge(folder: Path) -> GoJudge:
    """Compile the Go program that answers questions."""
    return GoJudge(_build_go(_FOREIGN / "go", folder / "judge"))


def _build_go(source: Path, program: Path) -> Path:
    """Compile *source* against Debian's `golang.org/x/mod`, without any network."""
    go = needed("go")
    needed("tlog.go", _GO_SOURCES)
    built = subprocess.run(
        [go, "build", "-o", program, "."],
        cwd=source,
        env={
            **os.environ,
            "GO111MODULE": "off",
            "GOPATH": "/usr/share/gocode",
            "GOCACHE": str(program.with_name("cache")),
            "GOFLAGS": "",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )

    assert 0 == built.returncode, built.stderr
    return program


@dataclass(frozen=True, slots=True)
class SigstoreJs:
    """Sigstore's own JavaScript, installed from npm, and the few lines that ask it."""

    folder: Path

    def __call__(self, questions: Iterable[tuple[bytes | str, str]]) -> list[str]:
        """Ask whether each bundle was signed by the key in PEM; return the answers in order."""
        lines = [
            json.dumps({"bundle": text if isinstance(text, str) else text.decode(), "key": key})
            for text, key in questions
        ]
        done = subprocess.run(
            [needed("node"), self.folder / "verify.mjs"],
            input="\n".join(lines),
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        answers = done.stdout.splitlines()

        assert (0, len(lines)) == (done.returncode, len(answers)), done.stdout + done.stderr
        return answers


def install_sigstore_js(folder: Path) -> SigstoreJs:
    """Install exactly what the lock file names; without a registry it is skipped, or fails."""
    npm = needed("npm")
    needed("node")
    installed = folder / "npm"
    shutil.copytree(_FOREIGN / "npm", installed, ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(
        [npm, "ci", "--prefer-offline"],
        cwd=installed,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    if done.returncode:
        message = f"npm can't install Sigstore's JavaScript: {done.stderr.strip()[-300:]}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return SigstoreJs(installed)


def flipped(content: bytes, at: int, bit: int = 1) -> bytes:
    """Return *content* with one bit of one byte changed."""
    return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]


def places(length: int, count: int) -> Sequence[int]:
    """Return *count* places spread over *length*, the first and the last among them."""
    if length <= count:
        return range(length)
    return sorted({round(step * (length - 1) / (count - 1)) for step in range(count)})

"""`gateway init`, `serve`, `config show` as operators run them: one line, one exit code."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.main import main
from tests.support.ports import free_port


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `gateway …` in *folder*."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, **environment},
    )


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Insist on exit code 3 and one line that says what is wrong and what to do."""
    (line,) = done.stderr.splitlines()

    assert 3 == done.returncode
    assert line.startswith("gateway: ")
    assert "; hint: " in line
    assert all(word in line for word in words)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with an installation in it."""
    (tmp_path / "gateway.yaml").write_text(f"listen: 127.0.0.1:{free_port()}\n")
    assert 0 == main(["--config", str(tmp_path / "gateway.yaml"), "init"])
    return tmp_path


def test_a_second_init_changes_nothing(folder: Path) -> None:
    """A ledger is made once; making it again is refused and leaves every file as it was."""
    files = {
        path: path.read_bytes()
        for path in (folder / "gateway-data").rglob("*")
        if path.is_file() and "-" not in path.suffix
    }
    refused(run(folder, "init"), "holds a ledger already", "gateway serve")

    assert files
    assert files == {path: path.read_bytes() for path in files}


def test_an_init_that_was_cut_short_is_finished_by_the_next(folder: Path) -> None:
    """Keys without a ledger are used, not replaced."""
    keys = (folder / "gateway-data/keys/manifest.key").read_bytes()
    for file in (folder / "gateway-data").glob("ledger.db*"):
        file.unlink()

    assert 0 == main(["--config", str(folder / "gateway.yaml"), "init"])
    assert keys == (folder / "gateway-data/keys/manifest.key").read_bytes()


def test_serving_without_a_ledger_makes_none(tmp_path: Path) -> None:
    """A mistyped folder is an error; no second ledger begins by accident."""
    refused(run(tmp_path, "serve"), "ledger.missing", "gateway init")

    assert [] == list(tmp_path.iterdir())


def test_a_port_that_is_taken_is_named(folder: Path) -> None:
    """Two gateways can't have one door."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        refused(run(folder, "serve", "--listen", taken), "port.in_use", taken)


def test_a_key_that_others_can_read_is_no_key(folder: Path) -> None:
    """A private key with the wrong permissions is named, with the remedy."""
    (folder / "gateway-data/keys/manifest.key").chmod(0o644)
    refused(run(folder, "serve"), "key.unreadable", "manifest.key", "chmod")


@pytest.mark.parametrize("kept", [0, 100, 4096], ids=lambda count: f"{count} bytes")
def test_a_truncated_ledger_is_not_served(kept: int, folder: Path) -> None:
    """A ledger whose file lost its end is damage, not a new ledger."""
    file = folder / "gateway-data/ledger.db"
    file.write_bytes(file.read_bytes()[:kept])
    refused(run(folder, "serve"), "ledger.damaged")


def test_a_mistake_in_the_settings_names_its_place(folder: Path) -> None:
    """File and line of a wrong setting, or the variable's name, stand in the one line."""
    with (folder / "gateway.yaml").open("a") as file:
        file.write("kees: managed\n")
    refused(run(folder, "serve"), "gateway.yaml:2", "kees", "keys")
    (folder / "gateway.yaml").write_text("")
    refused(run(folder, "serve", GATEWAY__KEYS="open"), "GATEWAY__KEYS", "open")


def test_a_policy_that_cant_be_read_closes_the_door(folder: Path) -> None:
    """Without a library that loads nothing is served; legal is told file and line."""
    policy = folder / "policies/x"
    policy.mkdir(parents=True)
    (policy / "policy.yaml").write_text("policy: x\nversion: one\n")
    (folder / "gateway.yaml").write_text("policies: ./policies\n")
    done = run(folder, "serve")
    (line,) = done.stderr.splitlines()

    assert 1 == done.returncode
    assert "policy.malformed" in line
    assert "x/terms.yaml:1" in line


def test_config_show_tells_where_each_value_came_from(folder: Path) -> None:
    """Default, file and environment are each named beside their value."""
    done = run(folder, "config", "show", GATEWAY__UNDECLARED="forbid")
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}

    assert (0, "") == (done.returncode, done.stderr)
    assert "GATEWAY__UNDECLARED" in rows["undeclared"]
    assert "gateway.yaml:1" in rows["listen"]
    assert "default" in rows["keys"]


def test_a_gateway_that_is_told_to_stop_stops_well(folder: Path) -> None:
    """SIGTERM ends a serving gateway with exit code 0, and both ends are in the log."""
    with subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        started = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=200)

    assert "gateway.started" in started
    assert "gateway.stopped" in rest
    assert (0, "") == (process.returncode, errors)


@pytest.mark.parametrize("words", [[], ["no-such"], ["serve", "--no-such"], ["config"]])
def test_wrong_usage_is_exit_code_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no command says how commands look."""
    assert 2 == main(words)
    assert "usage: gateway" in capsys.readouterr().err


def test_help_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    """Asking for help is no mistake, and every group of commands is listed."""
    assert 0 == main(["--help"])
    assert "gateway demo" in capsys.readouterr().out

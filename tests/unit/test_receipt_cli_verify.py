"""Laws of `gateway verify`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gateway.cli import verify
from gateway.receipt.bundle import format_bundle
from gateway.receipt.keys import P256Signer, format_trust, generate_pem
from gateway.receipt.model import Predicate
from gateway.receipt.sigstore import write_manifest, write_trust_signature
from gateway.receipt.statement import write_opening, write_statement
from tests.support.evidence import (
    ABANDONMENT,
    AT,
    AUTHORIZATION,
    DECLARED,
    MANIFEST_SIGNER,
    OPENING,
    ORIGIN,
    RECEIPT,
    RECEIPT_SIGNER,
    REFUSAL,
    SUBJECTS,
    TRUST,
    VERDICT,
    WITHDRAWAL,
    a_bundle,
    a_manifest,
)

BUNDLE = format_bundle(
    a_bundle(write_statement(RECEIPT, SUBJECTS, RECEIPT_SIGNER), authorization=AUTHORIZATION)
)


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    """Return the path of the test's trust file."""
    path = tmp_path / "trust.json"
    path.write_bytes(format_trust(TRUST))
    return path


def run(*words: str | Path) -> int:
    """Run `gateway verify` with *words* and return the exit code."""
    parser = argparse.ArgumentParser()
    verify.add(parser.add_subparsers(required=True))
    args = parser.parse_args(["verify", *map(str, words)])
    code: int = args.run(args)
    return code


def kept(folder: Path, content: bytes) -> Path:
    """Return the path of a file in *folder* that holds *content*."""
    path = folder / "evidence.json"
    path.write_bytes(content)
    return path


def test_a_good_bundle_is_told_check_by_check(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each check has its line, and the exit code is 0."""
    assert run(kept(tmp_path, BUNDLE), "--trust", trust) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["ok", "checkpoint"],
        ["ok", "authorised"],
        ["ok", "signature"],
        ["ok", "inclusion"],
    ]
    assert RECEIPT_SIGNER.keyid[:16] in lines[2]
    assert "example (m-2026) answered" in lines[4]


@pytest.mark.parametrize(
    "predicate",
    [REFUSAL, ABANDONMENT, DECLARED, VERDICT, WITHDRAWAL],
    ids=lambda one: type(one).__name__,
)
def test_every_kind_is_told_in_words(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str], predicate: Predicate
) -> None:
    """Each kind of statement is told in one line without controls."""
    leaf = write_statement(predicate, [], RECEIPT_SIGNER)
    bundle = a_bundle(leaf, authorization=AUTHORIZATION)

    assert run(kept(tmp_path, format_bundle(bundle)), "--trust", trust) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


@pytest.mark.parametrize(
    "leaf", [write_opening(OPENING), write_manifest(a_manifest(), MANIFEST_SIGNER)[1]]
)
def test_openings_and_manifests_are_leaves_too(
    tmp_path: Path, trust: Path, leaf: bytes
) -> None:
    """A bundle of an opening or a manifest verifies."""
    assert run(kept(tmp_path, format_bundle(a_bundle(leaf))), "--trust", trust) == 0


def test_a_manifest_alone_says_what_it_does_not_check(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A manifest without its folder verifies its signature and names the unchecked files."""
    encoded, _ = write_manifest(a_manifest(), MANIFEST_SIGNER)

    assert run(kept(tmp_path, encoded), "--trust", trust) == 0
    assert "rows.jsonl" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("encoded", "code"),
    [
        (BUNDLE.replace(b"index 5", b"index 6"), "proof.bad"),
        (BUNDLE[:-1], "receipt.malformed"),
        (b"", "receipt.malformed"),
        (BUNDLE.replace(b"acme", b"acne"), "proof.bad"),
    ],
)
def test_a_bent_bundle_fails_by_name(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str], encoded: bytes, code: str
) -> None:
    """What does not verify is named on a line of its own, and the exit code is 1."""
    assert run(kept(tmp_path, encoded), "--trust", trust) == 1

    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("fail")]
    assert code in line


def test_another_trust_fails(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trust file that is broken is named, with who must act."""
    trust.write_bytes(b"{}")

    assert run(kept(tmp_path, BUNDLE), "--trust", trust) == 1
    assert "trust.malformed" in capsys.readouterr().out


def test_a_root_vouches_for_the_trust_file(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With `--root` the trust file itself is checked, and nothing goes on without it."""
    root, stranger = (P256Signer(generate_pem("p256")) for _ in range(2))
    (tmp_path / "root.pub").write_text(root.public.pem)
    (tmp_path / "other.pub").write_text(stranger.public.pem)
    words = ("--trust", trust, "--root", tmp_path / "root.pub")
    signature = trust.with_name("trust.sigstore.json")

    assert run(kept(tmp_path, BUNDLE), *words) == 2
    signature.write_bytes(write_trust_signature(trust.read_bytes(), ORIGIN, AT, root))
    assert run(kept(tmp_path, BUNDLE), *words) == 0
    assert f"signed by the root {root.keyid[:16]}… at {AT}" in capsys.readouterr().out
    assert run(kept(tmp_path, BUNDLE), *words[:3], tmp_path / "other.pub") == 1
    trust.write_bytes(trust.read_bytes() + b"\n")
    assert run(kept(tmp_path, BUNDLE), *words) == 1
    assert "not the one that the root signed" in capsys.readouterr().out


def test_without_trust_there_is_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a trust file at hand nothing is verified, and the hint says what to give."""
    monkeypatch.chdir(tmp_path)

    assert run(kept(tmp_path, BUNDLE)) == 2
    assert "--trust" in capsys.readouterr().err


def test_the_gateway_s_own_trust_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a gateway's data its trust file is taken without being named."""
    (tmp_path / "gateway-data").mkdir()
    (tmp_path / "gateway-data" / "trust.json").write_bytes(format_trust(TRUST))
    monkeypatch.chdir(tmp_path)

    assert run(kept(tmp_path, BUNDLE)) == 0


@pytest.mark.parametrize("files", [[], ["manifest.json"], ["rows.jsonl"], ["a.safetensors"]])
def test_a_folder_of_something_else_is_wrong_usage(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str], files: list[str]
) -> None:
    """A folder that is neither a dataset nor a model is named, with what it lacks."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in files:
        (folder / name).write_bytes(b"")

    assert run(folder, "--trust", trust) == 2
    assert str(folder) in capsys.readouterr().err


@pytest.mark.parametrize("beside", ["rows.jsonl", "model.safetensors", "lost.json"])
def test_a_folder_whose_manifest_is_gone_is_not_fine(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str], beside: str
) -> None:
    """Where the proof of a manifest stands and the manifest doesn't, somebody took it away."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in (beside, "manifest.tlog-proof"):
        (folder / name).write_bytes(b"")

    assert run(folder, "--trust", trust) == 1
    assert "manifest.json" in capsys.readouterr().out


def test_a_pipe_in_place_of_a_manifest_is_not_waited_for(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What never ends is no manifest, and is said to be none."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "manifest.tlog-proof").write_bytes(b"")
    (folder / "rows.jsonl").write_bytes(b"")
    os.mkfifo(folder / "manifest.json")

    assert run(folder, "--trust", trust) == 1
    assert "not a plain file" in capsys.readouterr().out


@pytest.mark.parametrize("beside", ["rows.jsonl", "model.safetensors", "lost.json"])
def test_a_broken_folder_is_not_fine(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str], beside: str
) -> None:
    """A folder that looks like one of ours and does not verify gives exit code 1."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(b"{}")
    (folder / beside).write_bytes(b"")

    assert run(folder, "--trust", trust) == 1
    assert capsys.readouterr().out.startswith("fail")


def test_a_dataset_without_its_rows_is_not_fine(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the manifest says decides what a folder is, whatever was taken out of it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    encoded, _ = write_manifest(a_manifest(), MANIFEST_SIGNER)
    (folder / "manifest.json").write_bytes(encoded)

    assert run(folder, "--trust", trust) == 1
    assert capsys.readouterr().out.startswith("fail")


def test_a_missing_path_is_wrong_usage(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path to nothing is named."""
    assert run(tmp_path / "nothing.json", "--trust", trust) == 2
    assert "nothing.json" in capsys.readouterr().err


def test_a_terminal_is_not_obeyed(
    tmp_path: Path, trust: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Controls that somebody wrote into a statement don't reach the terminal."""
    sly = msgspec.structs.replace(VERDICT, reason="\x1b[2Jok   signature")
    leaf = write_statement(sly, [], RECEIPT_SIGNER)
    bundle = a_bundle(leaf, authorization=AUTHORIZATION)

    assert run(kept(tmp_path, format_bundle(bundle)), "--trust", trust) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_bundle_is_verified_with_nothing_but_the_key(tmp_path: Path, trust: Path) -> None:
    """A fresh interpreter in an empty folder verifies a bundle and loads no server."""
    program = (
        "import argparse, sys, pathlib\n"
        "from gateway.cli import verify\n"
        "paths = [pathlib.Path(word) for word in sys.argv[1:]]\n"
        "code = verify.run(argparse.Namespace(path=paths[0], trust=paths[1]))\n"
        "loaded = {'aiohttp', 'apsw', 'yaml', 'structlog', 'torch'} & set(sys.modules)\n"
        "sys.exit(code or len(loaded))"
    )
    words = [sys.executable, "-c", program, str(kept(tmp_path, BUNDLE)), str(trust)]

    assert subprocess.run(words, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "field", ["declaration", "exchange", "derivation", "manifest", "agreement"]
)
def test_a_withdrawal_names_what_was_taken_back(field: str) -> None:
    """Whatever was withdrawn stands in the sentence by its name."""
    nothing = dict.fromkeys(("declaration", "exchange", "derivation", "manifest", "agreement"))
    said = msgspec.structs.replace(WITHDRAWAL, **(nothing | {field: "what-it-is"}))

    assert "what-it-is" in verify._sentence(said)

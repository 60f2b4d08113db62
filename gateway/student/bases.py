"""What a student begins as: a tiny model of our own, a checkpoint on disk, or one of the hub.

Weights are read from safetensors alone and code from a checkpoint is never run. The hub is
asked in a process of its own, so that the one that trains never goes online.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.canonical import digest_of
from gateway.dataset.manifest import MANIFEST
from gateway.errors import GateRefusedError, MissingPieceError
from gateway.receipt.keys import Trust
from gateway.student.files import file_sha256
from gateway.student.manifest import UNKNOWN, Base
from gateway.student.recipe import CONTEXT_TOKENS, TINY, VOCABULARY_COUNT_MAX
from gateway.student.verify import verify_model

HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
WANTED: Final = (
    "*.safetensors",
    "*.json",
    "*.txt",
    "*.jinja",
    "*.model",
    "README.md",
    "LICENSE*",
)
"""The files of a checkpoint that are read: weights, settings, words. No code, no pickles."""

_HINT: Final = (
    "put a checkpoint there (config.json, *.safetensors and its tokenizer), "
    "name one of the hub as `org/name`, or train with `--base tiny`"
)
_LICENCE: Final = re.compile(
    r"^license:[ \t]*[\"']?([A-Za-z0-9.+-]{1,64})[\"']?[ \t]*$", re.MULTILINE
)
_DOWNLOAD: Final = """\
import os, sys
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
from huggingface_hub import snapshot_download
print(snapshot_download(sys.argv[1], allow_patterns=sys.argv[2:]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseAtHand:
    """A base that is at hand; *path* is `None` for a tiny one."""

    base: Base
    path: Path | None


def find_base(asked: str, seed: int, trust: Trust) -> BaseAtHand:
    """Return the base that *asked* names: `tiny`, a folder, or an id of the hub.

    Raises:
        MissingPieceError: there is none, or what is there can't be trained from.
        EvidenceError: it is a student of ours whose folder does not verify.
    """
    if asked == TINY:
        return BaseAtHand(base=tiny_base(seed), path=None)
    path = Path(asked).expanduser()
    if path.is_dir():
        return BaseAtHand(base=_local(path, trust), path=path)
    if HUB_ID.fullmatch(asked) and not path.parent.is_dir():
        return _from_hub(asked)
    raise MissingPieceError(f"there is no base checkpoint at `{asked}`", hint=_HINT)


def tiny_base(seed: int) -> Base:
    """Return what a tiny base is named by: its shape and the seed of its weights."""
    shape = {"context": CONTEXT_TOKENS, "seed": seed, "vocabulary": VOCABULARY_COUNT_MAX}
    return Base(kind="tiny", name=TINY, sha256=digest_of(shape), licence="apache-2.0")


def load_tokenizer(path: Path) -> Any:
    """Return the tokenizer of the checkpoint at *path*, its template marked where it can be.

    Raises:
        MissingPieceError: there is none that can be read.
    """
    from transformers import AutoTokenizer  # noqa: PLC0415  # slow; only where it is used
    from trl.chat_template_utils import (  # noqa: PLC0415  # as above
        get_training_chat_template,
        has_generation_markers,
    )

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, "tokenizer", error) from error
    if not tokenizer.chat_template:
        raise GateRefusedError(
            f"the base at `{path}` has no chat template",
            hint="use a base that was made for conversations, or `--base tiny`",
            code="student.template_missing",
        )
    if not has_generation_markers(tokenizer.chat_template):
        try:
            tokenizer.chat_template = get_training_chat_template(tokenizer)
        except ValueError as error:
            raise GateRefusedError(
                "the chat template of the base does not mark what an assistant said",
                hint="add {% generation %} marks around the answer and its stop token",
                code="student.template_unmarked",
            ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(path: Path) -> Any:
    """Return the model of the checkpoint at *path*, whole numbers of 32 bits, on the CPU.

    Raises:
        MissingPieceError: there is none that can be read.
    """
    import torch  # noqa: PLC0415  # slow; only where it is used
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  # as above

    try:
        return AutoModelForCausalLM.from_pretrained(
            path,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, "model", error) from error


def context_of(path: Path) -> int | None:
    """Return how many tokens the checkpoint at *path* can look back, where it says so."""
    try:
        said = msgspec.json.decode((path / "config.json").read_bytes(), type=_Context)
    except (OSError, msgspec.MsgspecError, ValueError):
        return None
    return said.max_position_embeddings


class _Context(msgspec.Struct):
    max_position_embeddings: int | None = None


def licence_of(folder: Path) -> str:
    """Return the licence that the card in *folder* names, or `unknown`."""
    card = folder / "README.md"
    if not card.is_file():
        return UNKNOWN
    text = card.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---\n"):
        return UNKNOWN
    found = _LICENCE.search(text[: text.find("\n---", 4) + 1])
    return found.group(1).lower() if found else UNKNOWN


def _local(path: Path, trust: Trust) -> Base:
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise MissingPieceError(
            f"`{path}` is no checkpoint: it lacks config.json or *.safetensors", hint=_HINT
        )
    manifest = None
    if (path / MANIFEST).is_file():
        manifest = verify_model(path, trust).payload_sha256
    return Base(
        kind="local",
        name=path.resolve().name,
        sha256=digest_of({file.name: file_sha256(file) for file in _wanted(path)}),
        licence=licence_of(path),
        manifest=manifest,
    )


def _from_hub(asked: str) -> BaseAtHand:
    # Nothing of what is asked reaches a shell: the id matched HUB_ID and goes as an argument.
    fetched = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _DOWNLOAD, asked, *WANTED],
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode != 0:
        why = (fetched.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingPieceError(
            f"the base `{asked}` could not be had from the hub: {_short(why)}",
            hint="check the name and the network (and HF_HUB_OFFLINE), or give a local path",
        )
    path = Path(fetched.stdout.strip().splitlines()[-1])
    files = {file.name: file_sha256(file) for file in _wanted(path)}
    base = Base(
        kind="hub",
        name=asked,
        sha256=digest_of(files),
        licence=licence_of(path),
        revision=path.name if re.fullmatch(r"[0-9a-f]{40}", path.name) else None,
    )
    return BaseAtHand(base=base, path=path)


def _short(why: str) -> str:
    """Return the first sentence of what a library says."""
    return why.rpartition("Error: ")[2].split(". ")[0][:200]


def _wanted(path: Path) -> Iterable[Path]:
    files = {file for pattern in WANTED for file in path.glob(pattern) if file.is_file()}
    return sorted(files)


def _unreadable(path: Path, what: str, error: Exception) -> MissingPieceError:
    why = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return MissingPieceError(
        f"the {what} of the base at `{os.fspath(path)}` can't be read: {why[:200]}", hint=_HINT
    )

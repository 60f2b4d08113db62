"""What a student begins as: a tiny model of our own, a checkpoint on disk, or one of the hub.

Weights are read from safetensors alone and code from a checkpoint is never run. The hub is
asked in a process of its own, so that the one that trains never goes online.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from gateway.canonical import digest_of
from gateway.dataset.manifest import MANIFEST, parse_training
from gateway.errors import (
    BadDigestError,
    GateRefusedError,
    MalformedReceiptError,
    MissingPieceError,
)
from gateway.ident import Sha256
from gateway.receipt.envelope import open_envelope
from gateway.receipt.keys import Trust
from gateway.receipt.model import Manifest
from gateway.receipt.sigstore import open_manifest
from gateway.student.files import file_sha256, write_durably
from gateway.student.manifest import UNKNOWN, Base, parse_model_manifest
from gateway.student.offline import hushed
from gateway.student.recipe import CONTEXT_TOKENS, TINY, VOCABULARY_COUNT_MAX
from gateway.student.recognise import recognise
from gateway.student.verify import verify_model
from gateway.student.weights import WEIGHTS, Weights, read_weights

ADAPTER: Final = "adapter_config.json"
"""The file that makes a folder one of an adapter."""

BESIDE: Final = "base"
"""In a folder with an adapter on a tiny base: that base, which stands nowhere else."""

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
LICENCE_NAME: Final = re.compile(r"[A-Za-z0-9.+-]{1,64}")
_LICENCE: Final = re.compile(
    rf"^license:[ \t]*[\"']?({LICENCE_NAME.pattern})[\"']?[ \t]*$", re.MULTILINE
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
    is_student: str | None = None
    """The name of the student of ours that it is by its weights, where it says nothing."""


class SaidOfBase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody answers for, where the card of a base names no licence."""

    licence: str
    by: str

    def __post_init__(self) -> None:
        """Refuse what names nothing or nobody."""
        if not LICENCE_NAME.fullmatch(self.licence) or not self.by.strip():
            raise ValueError("base_licence needs the name of a licence, and who says so")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """The students of this ledger, among which a base is looked for."""

    trust: Trust
    students: Callable[[], Iterable[Manifest]]
    """Their training manifests, oldest first."""
    held: Callable[[Sha256], object | None]
    """Returns the withdrawal of a manifest, or of anything above it, if any."""


def find_base(asked: str, seed: int, ours: Ours, said: SaidOfBase | None = None) -> BaseAtHand:
    """Return the base that *asked* names: `tiny`, a folder, or an id of the hub.

    One that has the weights of a student of ours is that student, whatever files hold them.

    Raises:
        MissingPieceError: there is none, or what is there can't be trained from.
        EvidenceError: it is a student of ours whose folder does not verify.
        GateRefusedError: nobody knows under which licence it stands, or it mixes weights of a
            student of ours with others.
    """
    if asked == TINY:
        return BaseAtHand(base=tiny_base(seed), path=None)
    path = Path(asked).expanduser()
    if path.is_dir():
        found = _local(path, ours)
    elif HUB_ID.fullmatch(asked) and not path.parent.is_dir():
        found = _from_hub(asked, ours)
    else:
        raise MissingPieceError(f"there is no base checkpoint at `{asked}`", hint=_HINT)
    return replace(found, base=_licensed(found.base, said))


def weights_at(path: Path) -> Weights:
    """Return what the weights of the checkpoint at *path* are.

    Raises:
        MissingPieceError: a file holds none, or can't be read.
    """
    try:
        return read_weights(path)
    except MalformedReceiptError as error:
        raise MissingPieceError(
            f"`{os.fspath(path)}`: {error.message}", hint="get the checkpoint again"
        ) from error
    except OSError as error:
        raise _unreadable(path, "weights", error) from error


def _licensed(base: Base, said: SaidOfBase | None) -> Base:
    """Return *base* with its licence: what its card says, or else what somebody says.

    A student of ours has none of its own: the terms of those above it are ruled on instead.
    """
    if base.manifest is not None:
        return base
    if base.licence != UNKNOWN:
        if said is not None and said.licence.lower() != base.licence:
            raise GateRefusedError(
                f"the card of base `{base.name}` says `{base.licence}`, "
                f"{said.by} says `{said.licence}`",
                hint="leave base_licence out, or correct the card of the base",
                code="student.base_licence_differs",
            )
        return base
    if said is None:
        raise GateRefusedError(
            f"nobody says under which licence base `{base.name}` stands",
            hint="put `license: …` at the top of its README.md, or name licence and person "
            "under `base_licence` in the job",
            code="student.base_licence_unknown",
        )
    return msgspec.structs.replace(base, licence=said.licence.lower(), licence_said_by=said.by)


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


def load_model(path: Path, base: Path | None = None) -> Any:
    """Return the model of the checkpoint at *path*, numbers of 32 bits, on the CPU.

    Where the folder holds an adapter, it is added to the base that it was learned beside: the
    one at *base*, or the one that `base_beside` finds.

    Raises:
        MissingPieceError: there is none that can be read, or an adapter's base is not there.
        BadDigestError: an adapter's base is not the one that it was learned beside.
    """
    import torch  # noqa: PLC0415  # slow; only where it is used
    from safetensors import SafetensorError  # noqa: PLC0415  # as above
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  # as above

    if (path / ADAPTER).is_file():
        return _adapted(path, base or base_beside(path))
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            path,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        SafetensorError,
    ) as error:
        raise _unreadable(path, "model", error) from error
    missing = sorted(loading["missing_keys"])
    if missing:
        # The library would make them up by chance, and say nothing.
        raise MissingPieceError(
            f"the weights of the base at `{os.fspath(path)}` are not those of its config.json: "
            f"{len(missing)} are missing, `{missing[0]}` is one",
            hint=_HINT,
        )
    return model


def check_weights(path: Path) -> None:
    """Look at every file of weights at *path*, its table of contents alone; cheap.

    Raises:
        MissingPieceError: one is cut off, or is no such file.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415  # only to train

    for file in sorted(path.glob(f"*{WEIGHTS}")):
        try:
            with safe_open(file, framework="np"):
                pass
        except (OSError, SafetensorError) as error:
            raise MissingPieceError(
                f"`{os.fspath(file)}` holds no whole weights: {_line(error)}",
                hint="get the checkpoint again",
            ) from error


def base_beside(path: Path) -> Path | None:
    """Return where the base of the adapter at *path* is; `None` where it is not at hand.

    It is looked for in the folder, where the adapter was trained from, and beside the folder.
    The folder itself names no place of anybody's machine.
    """
    try:
        adapter = msgspec.json.decode((path / ADAPTER).read_bytes(), type=_Adapter)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise _unreadable(path, "adapter", error) from error
    named = Path(adapter.base_model_name_or_path)
    places = [path / named, path.resolve().parent / named.name]
    try:
        remembered = _pointer(path).read_bytes().removesuffix(b"\n")
        places.insert(1, Path(os.fsdecode(remembered)))
    except OSError:
        pass  # It was not trained here.
    return next((place for place in places if place.is_dir()), None)


def remember_base(path: Path, base: Path) -> None:
    """Note for this machine alone, beside the folder at *path*, where its *base* is."""
    write_durably(_pointer(path), os.fsencode(base.resolve()) + b"\n")


def _pointer(path: Path) -> Path:
    path = path.resolve()
    return path.parent / f".{path.name}.base"


def _adapted(path: Path, beside: Path | None) -> Any:
    from peft import PeftModel  # noqa: PLC0415  # slow; only where it is used

    if beside is None:
        raise MissingPieceError(
            f"the adapter at `{os.fspath(path)}` needs its base, which is not where it was",
            hint="say where it is: --base FOLDER; or train with `merge: true`",
        )
    if (path / MANIFEST).is_file():
        leaf, _ = open_manifest((path / MANIFEST).read_bytes())
        statement = msgspec.json.decode(open_envelope(leaf).payload)
        base = parse_model_manifest(statement).asked.base
        if base.kind != "tiny" and base_digest(beside) != base.sha256:
            raise BadDigestError(
                f"the base at `{os.fspath(beside)}` is not the one of the adapter, "
                f"`{base.name}` with digest {base.sha256[:16]}…",
                hint="say where that base is: --base FOLDER; or train with `merge: true`",
            )
    with hushed():
        return PeftModel.from_pretrained(load_model(beside), path).merge_and_unload()


def base_digest(path: Path, known: Mapping[str, Sha256] | None = None) -> Sha256:
    """Return the digest over the files of the checkpoint at *path*, by name.

    Those of files that are *known* are not worked out again.
    """
    at_hand = known or {}
    return digest_of(
        {file.name: at_hand.get(file.name) or file_sha256(file) for file in _wanted(path)}
    )


class _Adapter(msgspec.Struct):
    base_model_name_or_path: str


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


def _local(path: Path, ours: Ours) -> BaseAtHand:
    if not (path / "config.json").is_file() or not any(path.glob(f"*{WEIGHTS}")):
        raise MissingPieceError(
            f"`{path}` is no checkpoint: it lacks config.json or *.safetensors", hint=_HINT
        )
    name = path.resolve().name
    if not (path / MANIFEST).is_file():
        return _outside("local", name, path, ours)
    manifest = verify_model(path, ours.trust).payload_sha256
    base = Base(kind="local", name=name, sha256=base_digest(path), manifest=manifest)
    return BaseAtHand(base=base, path=path)


def _from_hub(asked: str, ours: Ours) -> BaseAtHand:
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
    revision = path.name if re.fullmatch(r"[0-9a-f]{40}", path.name) else None
    return _outside("hub", asked, path, ours, revision)


def _outside(
    kind: Literal["local", "hub"],
    name: str,
    path: Path,
    ours: Ours,
    revision: str | None = None,
) -> BaseAtHand:
    """Return a base without a manifest: by its weights a student of ours, or from outside."""
    weights = weights_at(path)
    base = Base(
        kind=kind,
        name=name,
        sha256=base_digest(path, weights.files),
        licence=licence_of(path),
        revision=revision,
    )
    known = recognise(weights, ours.students())
    if known.whole:
        # Several may have them; one of which something is withdrawn counts before others.
        held = (one for one in known.whole if ours.held(one.payload_sha256) is not None)
        student = next(held, known.whole[0])
        return BaseAtHand(
            base=msgspec.structs.replace(base, manifest=student.payload_sha256),
            path=path,
            is_student=parse_training(student.statement).student,
        )
    if known.part:
        ours_by_name = parse_training(known.part[0].statement).student
        raise GateRefusedError(
            f"base `{name}` has weights of our student `{ours_by_name}` among others, and not "
            "the manifest that says what it was made from",
            hint=f"begin with the folder of `{ours_by_name}` as it was trained",
            code="student.base_relabelled",
        )
    return BaseAtHand(base=msgspec.structs.replace(base, weights=weights.sha256), path=path)


def _short(why: str) -> str:
    """Return the first sentence of what a library says."""
    return why.rpartition("Error: ")[2].split(". ")[0][:200]


def _wanted(path: Path) -> Iterable[Path]:
    files = {file for pattern in WANTED for file in path.glob(pattern) if file.is_file()}
    return sorted(files)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _unreadable(path: Path, what: str, error: Exception) -> MissingPieceError:
    why = _line(error)
    return MissingPieceError(
        f"the {what} of the base at `{os.fspath(path)}` can't be read: {why[:200]}", hint=_HINT
    )

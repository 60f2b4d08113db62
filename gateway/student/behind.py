"""Point at a server that answers in a student's place, such as vLLM, and say what that shows.

Nobody can prove from outside which weights a server runs. What can be seen is looked at: the
name it lists, the folder it says it serves, the training manifest and the model it says that
it answers for, and whether it answers the folder's own samples as the student did when it was
evaluated. A server that sets out to deceive can say and answer all that.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from gateway.errors import CallerError, EvidenceError, GateError, MissingPieceError
from gateway.student.evaluate import Sample
from gateway.student.likeness import same
from gateway.student.speech import MANIFEST_HEADER
from gateway.student.verify import VerifiedModel
from gateway.student.views import SAMPLES, read_samples
from gateway.tlog.text import shown

WAIT_S: Final = 30.0
ANSWER_BYTES_MAX: Final = 4 << 20
TOKENS_MAX: Final = 512
"""How long an answer to a sample may become; an evaluation lets none be longer."""

BEGINNING_CHARACTERS: Final = 24
"""How much of an answer stays the same on any kernel; a long one may part ways later on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """A server that says it serves the student."""

    url: str
    """Its base, where `/v1/…` hangs below."""
    model: str
    """The name to ask it by."""
    same_folder: bool
    """It says that it serves the very folder that was verified, by path."""
    answered: int
    """Samples that it answered as the student did when it was evaluated."""
    asked: int


def look_behind(url: str, model: VerifiedModel, key: str | None = None) -> Behind:
    """Return what the OpenAI-shaped server at *url* shows of the student.

    Raises:
        CallerError: the address is none.
        MissingPieceError: nobody answers there in OpenAI's shape, or not to this key.
        GateError: it lists no such student, says that it is another model, or answers none of
            the samples as the student did.
    """
    server = _Server(url, key)
    name = model.manifest.asked.student
    listed = _listed(server)
    found = next((one for one in listed if _is_folder(one, model.path)), None)
    same_folder = found is not None
    if found is None:
        found = next((one for one in listed if one.id in {name, str(model.path)}), None)
    if found is None:
        ids = ", ".join(f"`{shown(one.id[:80])}`" for one in listed[:8]) or "no model"
        raise GateError(
            f"the server at {url} lists {ids}, not student `{name}`",
            hint="start it with the folder: "
            f"`vllm serve {model.path} --served-model-name {name}`",
            code="student.not_served",
        )
    samples = _samples(model)
    said = [_answer(server, found, sample) for sample in samples]
    _check_manifest(server, model)
    alike = [
        _as_evaluated(one, sample.student) for one, sample in zip(said, samples, strict=True)
    ]
    # By path it is the folder, as far as it tells: then other kernels may explain the rest.
    enough = _begun_alike if same_folder else _as_evaluated
    if samples and not any(map(enough, said, (one.student for one in samples))):
        raise _differs(
            f"the server at {url} answers none of {len(samples)} samples as student `{name}` "
            "did when it was evaluated",
            "it serves other weights under that name, or writes conversations out in "
            "another way; start it with the folder and its own chat template",
        )
    return Behind(
        url=server.base,
        model=found.id,
        same_folder=same_folder,
        answered=sum(alike),
        asked=len(samples),
    )


def settings_for(behind: Behind, model: VerifiedModel) -> str:
    """Return what stands in `gateway.yaml` so that receipts name the student's manifest."""
    return (
        "providers:\n"
        f"  {model.manifest.asked.student}:\n"
        f"    base_url: {behind.url}\n"
        "    route: self-hosted\n"
        f"    student: {_quoted(str(model.path.resolve()))}\n"
    )


_START: Final = "start it first; where it wants a key, put the key in a file: --key-file FILE"

_WANTS_A_KEY: Final = frozenset({401, 403})


class _Model(msgspec.Struct):
    id: str
    root: str | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


def _quoted(path: str) -> str:
    """Return *path* as YAML reads it: in quotes where it would mean something else."""
    plain = re.fullmatch(r"[\w./-]+", path, re.ASCII)
    return path if plain else json.dumps(path)


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    model: str | None = None


class _Server:
    """One server in OpenAI's shape; each question has a connection of its own."""

    def __init__(self, url: str, key: str | None) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise _no_address(url) from error
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise _no_address(url)
        self.url = url
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, port
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._headers = {"content-type": "application/json"}
        self.manifest: str | None = None
        """The training manifest that it says it answers for; ours says so, others don't."""
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        beside = "" if port is None else f":{port}"
        self.base = f"{parts.scheme}://{host}{beside}{self._path}"

    def ask(self, method: str, target: str, body: Any = None) -> bytes:
        """Return what it answers, where that is a success.

        Raises:
            MissingPieceError: nobody is there, or the answer is none.
        """
        sent = None if body is None else msgspec.json.encode(body)
        line = self._line()
        try:
            line.request(method, f"{self._path}/v1/{target}", sent, self._headers)
            answer = line.getresponse()
            read = answer.read(ANSWER_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise self._silent(f"can't be asked: {shown(why[:200])}") from error
        finally:
            line.close()
        if answer.length and len(read) <= ANSWER_BYTES_MAX:
            raise self._silent(f"breaks off within its answer to /v1/{target}")
        if 300 <= answer.status < 400:
            # Not followed: the key, and what is asked, are for this address alone.
            elsewhere = shown((answer.getheader("location") or "nowhere")[:200])
            raise self._silent(
                f"sends /v1/{target} on to {elsewhere}", "give the address that answers itself"
            )
        if answer.status != 200:
            hint = _START if answer.status in _WANTS_A_KEY else "look into the server's own log"
            raise self._silent(f"answers /v1/{target} with status {answer.status}", hint)
        if len(read) > ANSWER_BYTES_MAX:
            raise self._silent(f"answers /v1/{target} with more than {ANSWER_BYTES_MAX} bytes")
        self.manifest = answer.getheader(MANIFEST_HEADER) or self.manifest
        return read

    def _line(self) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=WAIT_S, context=context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=WAIT_S)

    def _silent(self, why: str, hint: str = _START) -> MissingPieceError:
        return MissingPieceError(f"the server at {self.url} {why}", hint=hint)


def _no_address(url: str) -> CallerError:
    return CallerError(
        f"`{url}` is not the address of a server",
        hint="give its base, like http://127.0.0.1:8000/v1",
        code="student.behind_bad",
    )


def _listed(server: _Server) -> list[_Model]:
    try:
        return msgspec.json.decode(server.ask("GET", "models"), type=_Models).data
    except (msgspec.MsgspecError, ValueError) as error:
        raise MissingPieceError(
            f"the server at {server.url} lists its models in no shape that is known: {error}",
            hint="it must speak OpenAI's API: `GET /v1/models`",
        ) from error


def _is_folder(listed: _Model, folder: Path) -> bool:
    """Tell whether the server names the folder itself, seen from here."""
    if listed.root is None or not Path(listed.root).is_absolute():
        return False
    try:
        return Path(listed.root).samefile(folder)
    except OSError:
        return False


def _samples(model: VerifiedModel) -> Sequence[Sample]:
    if SAMPLES not in model.manifest.digests:
        return ()
    try:
        return read_samples(model.path / SAMPLES)
    except (EvidenceError, OSError):
        return ()


def _answer(server: _Server, found: _Model, sample: Sample) -> str:
    """Return how the server goes on, the likeliest token each time.

    Raises:
        MissingPieceError: its answer is none.
        GateError: it says that another model answered.
    """
    asked = {
        "model": found.id,
        "messages": sample.prompt,
        "temperature": 0,
        "max_tokens": TOKENS_MAX,
    }
    read = server.ask("POST", "chat/completions", asked)
    try:
        answer = msgspec.json.decode(read, type=_Completion)
        said = answer.choices[0].message.content or ""
    except (msgspec.MsgspecError, ValueError, IndexError) as error:
        raise MissingPieceError(
            f"the server at {server.url} answers in no shape that is known: {error}",
            hint="it must speak OpenAI's API: `POST /v1/chat/completions`",
        ) from error
    if answer.model not in {None, found.id, found.root}:
        raise _differs(
            f"the server at {server.url} was asked for `{shown(found.id[:80])}` and answers as "
            f"`{shown((answer.model or '')[:80])}`",
            "something between sends it elsewhere; give the address of the server itself",
        )
    return said


def _as_evaluated(said: str, evaluated: str) -> bool:
    """Tell whether it was said as when the student was evaluated, which cuts endless ones."""
    return same(said, evaluated) or (bool(evaluated) and said.startswith(evaluated))


def _begun_alike(said: str, evaluated: str) -> bool:
    beginning = evaluated[:BEGINNING_CHARACTERS]
    return _as_evaluated(said, evaluated) or (bool(beginning) and said.startswith(beginning))


def _check_manifest(server: _Server, model: VerifiedModel) -> None:
    if server.manifest not in {None, model.payload_sha256}:
        raise _differs(
            f"the server at {server.url} says that it answers for training manifest "
            f"{shown((server.manifest or '')[:16])}…, the folder has "
            f"{model.payload_sha256[:16]}…",
            "it serves another student; start it with this folder",
        )


def _differs(message: str, hint: str) -> GateError:
    return GateError(message, hint=hint, code="student.behind_differs")

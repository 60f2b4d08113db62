"""Be a witness (c2sp.org/tlog-witness): cosign what has only grown, and never two histories.

What was cosigned is durable before the cosignature is handed out, and is all that is
remembered. It stands in one file, beside the key; neither is of use without the other.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from gateway.clock import Clock
from gateway.errors import (
    BadProofError,
    BadSignatureError,
    KeyUnreadableError,
    LedgerDamagedError,
    LedgerUnwellError,
    OperatorError,
)
from gateway.ledger.publishing.witness import SIZE_KIND
from gateway.limits import COSIGNING_LOGS_MAX, KEY_FILE_MODE_MAX
from gateway.receipt.keys import WitnessSigner, generate_pem
from gateway.store.files import hold, write_durably, write_once
from gateway.tlog.checkpoint import Checkpoint, parse_checkpoint
from gateway.tlog.cosignature import cosign
from gateway.tlog.merkle import EMPTY_ROOT, verify_consistency
from gateway.tlog.note import NoteVerifier, open_note, parse_note
from gateway.tlog.proof import ConsistencyProof, parse_consistency
from gateway.tlog.text import format_base64, parse_hash

_PLAIN: Final = "text/plain"


class Held(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The newest checkpoint of one log that was cosigned, and when in seconds since 1970."""

    size: int
    root: str
    time: int


NOTHING: Final = Held(size=0, root=format_base64(EMPTY_ROOT), time=0)


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a witness remembers, by origin; and whose memory it is."""

    format: Literal["witness/v1"] = "witness/v1"
    witness: str
    logs: dict[str, Held]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a log is told: status, media type, text; and a line for the witness's own log."""

    status: int
    kind: str
    text: str
    told: str = ""
    """What happened, where that is of note: an event's name."""
    origin: str = ""
    size: int = 0
    note: str = ""
    """The checkpoint that was refused although the log signed it."""


class Cosigner:
    """A witness for certain logs; any thread may ask, one at a time is answered."""

    def __init__(
        self,
        state_file: Path,
        signer: WitnessSigner,
        logs: Sequence[NoteVerifier],
        clock: Clock,
    ) -> None:
        self.vkey = signer.vkey
        self._file = state_file
        self._signer = signer
        self._clock = clock
        self._logs: dict[str, list[NoteVerifier]] = {}
        for verifier in logs:
            self._logs.setdefault(verifier.name, []).append(verifier)
        # Held from reading what was cosigned to having written what is.
        self._cosigning = threading.Lock()
        handle = hold(state_file.with_name(f"{state_file.name}.held"))
        if handle is None:
            raise OperatorError(
                f"another witness works with `{state_file}`",
                hint="stop it first; two with one memory would not keep one history",
                code="witness.running",
            )
        self._handle = handle
        try:
            _read_state(state_file, signer.vkey)
        except OperatorError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the state."""
        os.close(self._handle)

    def answer(self, body: bytes) -> Reply:
        """Answer an `add-checkpoint`.

        Raises:
            OperatorError: what was cosigned can't be read, or kept; nothing is cosigned.
        """
        try:
            proof = parse_consistency(body.decode())
            now = parse_checkpoint(parse_note(proof.checkpoint)[0])
        except UnicodeDecodeError:
            return _no(400, "the request is not UTF-8")
        except BadProofError as bad:
            return _no(400, bad.message)
        verifiers = self._logs.get(now.origin)
        if verifiers is None:
            return _no(404, "this log is not known here")
        if not any(_signed(proof.checkpoint, verifier) for verifier in verifiers):
            return _no(403, "the checkpoint is not signed by a key of this log")
        if proof.old_size > now.size:
            return _no(400, "the old size is larger than the checkpoint's")
        with self._cosigning:
            return self._judge(proof, now)

    def _judge(self, proof: ConsistencyProof, now: Checkpoint) -> Reply:
        state = _read_state(self._file, self.vkey)
        held = state.logs.get(now.origin, NOTHING)
        if proof.old_size != held.size:
            return Reply(409, SIZE_KIND, f"{held.size}\n")
        root = parse_hash(held.root, "the root that was cosigned")
        if held.size == now.size and root != now.root:
            return _contradicted(409, SIZE_KIND, f"{held.size}\n", proof, now)
        try:
            verify_consistency(held.size, root, now.size, now.root, proof.hashes)
        except BadProofError as bad:
            return _contradicted(422, _PLAIN, f"{bad.message}\n", proof, now)
        # It says that at this time nothing larger was known, so that it must not go back.
        time = max(self._clock.now_ms() // 1000, held.time)
        text = parse_note(proof.checkpoint)[0]
        line = cosign(text, self._signer, time)
        kept = Held(size=now.size, root=format_base64(now.root), time=time)
        _write_state(self._file, state, {**state.logs, now.origin: kept})
        # From here on a crash loses an answer, which the log asks for again.
        return Reply(200, _PLAIN, line, "witness.cosigned", now.origin, now.size)


def open_witness(key_file: Path, state_file: Path, name: str | None) -> WitnessSigner:
    """Return the key of a witness; where there are neither key nor state, make both.

    Raises:
        KeyUnreadableError: one is there without the other, or they don't belong together.
        LedgerUnwellError: they can't be written.
    """
    made = state_file.exists()
    if key_file.exists():
        if not made:
            raise KeyUnreadableError(
                f"there is a key `{key_file}`, and no `{state_file}` that says what was"
                " cosigned with it",
                hint="restore it; if it is lost, start anew with another key and another name",
            )
        state = _read_state(state_file)
    else:
        state = _make(key_file, state_file, name)
    known = state.witness.partition("+")[0]
    if name not in (None, known):
        raise KeyUnreadableError(
            f"this witness is called `{known}`, not `{name}`",
            hint="leave out --name, or start anew with another key and state",
        )
    signer = WitnessSigner(_private(key_file), known)
    if signer.vkey != state.witness:
        raise KeyUnreadableError(
            f"`{key_file}` is not the key of `{state_file}`",
            hint="keep key and state of one witness together",
        )
    return signer


def _make(key_file: Path, state_file: Path, name: str | None) -> State:
    """Make the state, then the key: a key without its memory must not be used."""
    if state_file.exists() and _read_state(state_file).logs:
        raise KeyUnreadableError(
            f"there is no `{key_file}`, with which what `{state_file}` lists was cosigned",
            hint="restore it; if it is lost, start anew with another state and another name",
        )
    if name is None:
        raise KeyUnreadableError(
            "a new witness needs a name", hint="add --name, like witness.example.com/legal"
        )
    pem = generate_pem("ed25519")
    try:
        state = State(witness=WitnessSigner(pem, name).vkey, logs={})
    except BadProofError as bad:
        raise KeyUnreadableError(f"--name: {bad.message}", hint=bad.hint) from bad
    _write_state(state_file, state, {})
    try:
        write_once(key_file, pem, mode=KEY_FILE_MODE_MAX)
    except OSError as wrong:
        raise LedgerUnwellError(
            f"the key can't be written to `{key_file}`: {wrong.strerror}",
            hint="choose another folder, or free space",
        ) from wrong
    return state


def _private(key_file: Path) -> bytes:
    try:
        mode = stat.S_IMODE(key_file.stat().st_mode)
        pem = key_file.read_bytes()
    except OSError as wrong:
        raise KeyUnreadableError(
            f"`{key_file}` can't be read: {wrong.strerror}",
            hint="let the witness's account, and nobody else, read it",
        ) from wrong
    if mode & ~KEY_FILE_MODE_MAX:
        raise KeyUnreadableError(
            f"`{key_file}` may be read by others (mode {mode:04o})",
            hint=f"chmod 600 {key_file}",
        )
    return pem


def _read_state(path: Path, vkey: str | None = None) -> State:
    try:
        state = msgspec.json.decode(path.read_bytes(), type=State)
        for origin, held in state.logs.items():
            NoteVerifier(origin, bytes(32))
            parse_hash(held.root, f"the root of `{origin}`")
    except OSError as wrong:
        raise LedgerUnwellError(
            f"`{path}` can't be read: {wrong.strerror}",
            hint="bring it back; a witness that has forgotten must not cosign",
        ) from wrong
    except (msgspec.DecodeError, UnicodeDecodeError, BadProofError) as bad:
        raise LedgerDamagedError(
            f"`{path}` does not say what was cosigned: {bad}", hint="restore it from a backup"
        ) from bad
    if vkey not in (None, state.witness):
        raise LedgerDamagedError(
            f"`{path}` is the memory of `{state.witness}`, not of `{vkey}`",
            hint="keep key and state of one witness together",
        )
    return state


def _write_state(path: Path, state: State, logs: Mapping[str, Held]) -> None:
    if len(logs) > COSIGNING_LOGS_MAX:
        raise LedgerUnwellError(
            f"a witness remembers at most {COSIGNING_LOGS_MAX} logs",
            hint="run another one, with a key and a state of its own",
        )
    now = msgspec.structs.replace(state, logs=dict(logs))
    try:
        write_durably(path, msgspec.json.format(msgspec.json.encode(now), indent=1) + b"\n")
    except OSError as wrong:
        raise LedgerUnwellError(
            f"`{path}` can't be written: {wrong.strerror}",
            hint="free space, and let the witness's account write there",
        ) from wrong


def _signed(note: str, verifier: NoteVerifier) -> bool:
    try:
        open_note(note, [verifier])
    except BadSignatureError:
        return False
    return True


def _contradicted(
    status: int, kind: str, text: str, proof: ConsistencyProof, now: Checkpoint
) -> Reply:
    told = "witness.contradicted"
    return Reply(status, kind, text, told, now.origin, now.size, proof.checkpoint)


def _no(status: int, why: str) -> Reply:
    return Reply(status, _PLAIN, f"{why}\n")

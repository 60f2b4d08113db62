"""Have published checkpoints stamped with the time by others (RFC 3161), and verify the stamps.

A token says that a checkpoint, and so every leaf under it, was there at that time. Nothing
waits for it: tokens are fetched on a thread of their own and kept in a folder, each beside the
note that it stamps.
"""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from gateway.clock import Clock
from gateway.errors import (
    BadSignatureError,
    GatewayError,
    LedgerUnwellError,
    MissingPieceError,
    SettingError,
)
from gateway.ledger.publishing.alarms import UNSTAMPED, Alarm
from gateway.ledger.publishing.post import Line
from gateway.limits import (
    NOTE_BYTES_MAX,
    TIMESTAMP_ANSWER_BYTES_MAX,
    TIMESTAMP_RETRY_S,
    TIMESTAMP_TIMEOUT_S,
)
from gateway.store.files import sync_folder, write_durably, write_once
from gateway.tlog.checkpoint import parse_checkpoint
from gateway.tlog.note import parse_note

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_QUERY: Final = "application/timestamp-query"
_REPLY: Final = "application/timestamp-reply"
_TOKEN: Final = re.compile(r"(0|[1-9][0-9]{0,18})-([1-9][0-9]?)\.tsr")
_HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """A token as it is kept: of which checkpoint, from which authority of the settings."""

    path: Path
    size: int
    place: int
    note: bytes
    token: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamped:
    """What a token that verifies says: when, and who."""

    at: dt.datetime
    by: str


class Stamper:
    """Asks every authority for a token on the newest checkpoint, once in so many hours."""

    def __init__(
        self,
        folder: Path,
        urls: Sequence[str],
        certificates: Path,
        *,
        every_hours: int,
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._lines = [
            Line(url, timeout_s=TIMESTAMP_TIMEOUT_S, bytes_max=TIMESTAMP_ANSWER_BYTES_MAX)
            for url in urls
        ]
        self._certificates_file = certificates
        self._certificates: list[Certificate] = []
        self._every_ms = every_hours * _HOUR_MS
        self._clock = clock
        self._note: str | None = None
        self._stirred = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        # OWNED BY: the thread, once started; read by others.
        self._trouble = [""] * len(urls)
        self._last: list[tuple[int, int] | None] = [None] * len(urls)
        """Of each authority the newest token: how many leaves, and when in milliseconds."""

    def start(self) -> None:
        """Look at what there is, and start the thread.

        Raises:
            MissingPieceError: what reads and verifies tokens is not installed.
            SettingError: the certificates can't be read.
        """
        self.look()
        # After `stop` it goes on: who publishes may change.
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="timestamps", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is being asked for is not waited for."""
        self._stopping.set()
        self._stirred.set()
        if self._thread is not None:
            self._thread.join(timeout=1)

    def offer(self, note: str) -> None:
        """Take note of a newly published checkpoint; returns at once."""
        self._note = note
        self._stirred.set()

    def alarms(self) -> list[Alarm]:
        """Return what is overdue, and why."""
        return [
            Alarm(UNSTAMPED, f"`{line.url}` {why}")
            for line, why in zip(self._lines, self._trouble, strict=True)
            if why
        ]

    def stamp_what_is_due(self) -> None:
        """Ask for every token that is due."""
        note = self._note
        if note is None:
            return
        size = parse_checkpoint(parse_note(note)[0]).size
        for at, line in enumerate(self._lines):
            now_ms = self._clock.now_ms()
            if not self._is_due(at, size, now_ms):
                continue
            try:
                self._stamp(at, line, note, size)
                self._last[at] = size, now_ms
                self._trouble[at] = ""
            except GatewayError as wrong:
                self._trouble[at] = wrong.message

    def _is_due(self, at: int, size: int, now_ms: int) -> bool:
        last = self._last[at]
        if last is None:
            return True
        stamped, then_ms = last
        # A clock that was set back must not put off the next one for years.
        return stamped != size and not 0 <= now_ms - then_ms < self._every_ms

    def _run(self) -> None:
        while not self._stopping.is_set():
            # The first checkpoint is stamped at once. Those that follow come each second, and
            # are looked at from time to time.
            self._stirred.wait()
            self.stamp_what_is_due()
            self._stopping.wait(TIMESTAMP_RETRY_S)
        for line in self._lines:
            line.close()

    def look(self) -> None:
        """Find out what was stamped last; see `start`."""
        load_client()
        self._certificates = read_certificates(self._certificates_file)
        for stamp in read_stamps(self._folder):
            if stamp.place > len(self._lines):
                continue
            try:
                at = verify_stamp(stamp.token, stamp.note, self._certificates).at
            except GatewayError:
                # It is no evidence, so that another one is asked for.
                continue
            found = stamp.size, int(at.timestamp() * 1000)
            self._last[stamp.place - 1] = max(self._last[stamp.place - 1] or found, found)

    def _stamp(self, at: int, line: Line, note: str, size: int) -> None:
        message = self._keep_note(note, size)
        request, nonce = _new_request(message)
        answer = line.post(request, _QUERY)
        if answer.status != 200 or answer.kind != _REPLY:
            raise LedgerUnwellError(f"answers {answer.status}, {answer.kind}")
        try:
            verify_stamp(answer.body, message, self._certificates, nonce=nonce)
        except BadSignatureError as bad:
            raise LedgerUnwellError(
                f"answers with no token that verifies: {bad.message}"
            ) from bad
        try:
            write_durably(self._folder / f"{size}-{at + 1}.tsr", answer.body)
        except OSError as wrong:
            raise _unwritten(self._folder, wrong) from wrong

    def _keep_note(self, note: str, size: int) -> bytes:
        """Keep the note that is stamped; return the one that is kept for that size."""
        path = self._folder / f"{size}.checkpoint"
        try:
            if not self._folder.exists():
                self._folder.mkdir(mode=0o700, exist_ok=True)
                sync_folder(self._folder.parent)
            try:
                write_once(path, note.encode(), mode=0o644)
            except FileExistsError:
                return path.read_bytes()
        except OSError as wrong:
            raise _unwritten(self._folder, wrong) from wrong
        return note.encode()


def read_stamps(folder: Path) -> Iterator[Stamp]:
    """Yield every token in *folder* by size, with the note that it stamps.

    Raises:
        LedgerUnwellError: one of them, or its note, can't be read.
    """
    if not folder.is_dir():
        return
    found = [
        (match, path) for path in folder.iterdir() if (match := _TOKEN.fullmatch(path.name))
    ]
    for match, path in sorted(found, key=lambda one: (int(one[0][1]), int(one[0][2]))):
        note = folder / f"{match[1]}.checkpoint"
        try:
            yield Stamp(
                path=path,
                size=int(match[1]),
                place=int(match[2]),
                note=_read(note, NOTE_BYTES_MAX),
                token=_read(path, TIMESTAMP_ANSWER_BYTES_MAX),
            )
        except OSError as wrong:
            raise LedgerUnwellError(
                f"`{wrong.filename}` can't be read: {wrong.strerror}",
                hint="restore it, or remove the token without its note",
            ) from wrong


def verify_stamp(
    token: bytes,
    message: bytes,
    certificates: Sequence[Certificate],
    *,
    nonce: int | None = None,
) -> Stamped:
    """Check that *token* stamps *message*, by somebody whom *certificates* lead to.

    The certificates need to have been valid when it was made, not now.

    Raises:
        BadSignatureError: it does not, or is no token.
    """
    client = load_client()
    roots = [one for one in certificates if one.issuer == one.subject]
    between = [one for one in certificates if one.issuer != one.subject]
    try:
        response = client.decode_timestamp_response(token)
        verifier = client.VerifierBuilder(roots=roots, intermediates=between, nonce=nonce)
        verifier.build().verify_message(response, message)
        return Stamped(at=response.tst_info.gen_time, by=_signer_of(response))
    except (ValueError, client.VerificationError) as bad:
        raise BadSignatureError(f"not a timestamp of this checkpoint: {bad}") from bad


def read_certificates(path: Path) -> list[Certificate]:
    """Return the certificates in a PEM file, a root at least.

    Raises:
        SettingError: it can't be read, or holds none.
    """
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415  as `load_client`

    try:
        found = load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as bad:
        raise SettingError(
            f"the certificates `{path}` can't be read: {bad}",
            hint="a PEM file with the roots of the timestamp authorities",
        ) from bad
    if not any(one.issuer == one.subject for one in found):
        raise SettingError(
            f"`{path}` holds no root certificate",
            hint="add the certificate that signed itself; others may stand beside it",
        )
    return found


def load_client() -> ModuleType:
    """Return the library that reads and verifies tokens; only who stamps needs it.

    Raises:
        MissingPieceError: it is not installed.
    """
    try:
        import rfc3161_client  # noqa: PLC0415
    except ImportError as missing:
        raise MissingPieceError(
            "timestamps need the extra `timestamps`",
            hint="pip install 'tos-gateway[timestamps]'",
        ) from missing
    return rfc3161_client


def _new_request(message: bytes) -> tuple[bytes, int]:
    """Return a request, DER, for a token on *message*, and its nonce."""
    client = load_client()
    asked = (
        client.TimestampRequestBuilder()
        .data(message)
        .hash_algorithm(client.HashAlgorithm.SHA256)
        .cert_request(cert_request=True)
        .nonce(nonce=True)
        .build()
    )
    return asked.as_bytes(), asked.nonce


def _signer_of(response: Any) -> str:
    from cryptography.x509 import load_der_x509_certificate  # noqa: PLC0415  as `load_client`

    (signer,) = response.signed_data.signer_infos
    for encoded in response.signed_data.certificates:
        one = load_der_x509_certificate(encoded)
        if (one.issuer, one.serial_number) == (signer.issuer, signer.serial_number):
            return one.subject.rfc4514_string()
    return "somebody whose certificate is not with it"


def _read(path: Path, bytes_max: int) -> bytes:
    with path.open("rb") as file:
        return file.read(bytes_max + 1)


def _unwritten(folder: Path, wrong: OSError) -> LedgerUnwellError:
    return LedgerUnwellError(
        f"nothing can be kept in `{folder}`: {wrong.strerror}",
        hint="free space, and let the gateway's account write to the data folder",
    )

"""Ask witnesses to cosign a checkpoint (c2sp.org/tlog-witness), all of them at once.

A witness remembers what it cosigned last, and cosigns only what has grown out of that. One
that remembers more than our ledger holds, or something else, shows that ours is not the
ledger it was.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.errors import BadProofError, EvidenceError, GatewayError, LedgerDamagedError
from gateway.ledger.publishing.post import Answer, Line
from gateway.limits import (
    WITNESS_ANSWER_BYTES_MAX,
    WITNESS_GRACE_S,
    WITNESS_TIMEOUT_S,
)
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.cosignature import CosignatureVerifier, add_cosignatures, cosigned_by
from gateway.tlog.proof import ConsistencyProof, format_consistency
from gateway.tlog.text import parse_decimal, shown

SIZE_KIND: Final = "text/x.tlog.size"
"""The media type by which a witness says how much it has cosigned."""

_ATTEMPTS: Final = 3
"""The first may be refused for a size we did not know, the next because another was quicker."""


class Grown(Protocol):
    """The ledger, as far as a witness must be shown that it only grew."""

    def size(self) -> int:
        """Return how many leaves are durable now."""
        ...

    def prove_growth(self, old_size: int, now: Checkpoint) -> list[bytes]:
        """Return the proof, checked, that the tree of *old_size* grew into that of *now*."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of asking one witness: a signature line, or why there is none."""

    name: str
    line: str | None = None
    trouble: str = ""
    ahead: bool = False
    """It has cosigned more than the checkpoint that it was asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What came of asking all: signature lines in the order they came, and who gave none."""

    lines: tuple[str, ...]
    missing: dict[str, str]
    """Names of witnesses, and why each has not cosigned."""
    ahead: bool
    """Some have cosigned more than the checkpoint, and so has the ledger grown meanwhile."""


class Witness:
    """One witness: where it answers, and what is known of it."""

    def __init__(
        self,
        url: str,
        verifier: CosignatureVerifier,
        *,
        timeout_s: float = WITNESS_TIMEOUT_S,
    ) -> None:
        self.name = verifier.name
        self._verifier = verifier
        self._line = Line(
            f"{url.rstrip('/')}/add-checkpoint",
            timeout_s=timeout_s,
            bytes_max=WITNESS_ANSWER_BYTES_MAX,
        )
        self.busy = threading.Lock()
        """Held while it is asked."""
        self._closing = False
        # OWNED BY: whoever holds `busy`; read by others.
        self.cosigned_size: int | None = None
        self.trouble = ""

    def ask(self, note: str, now: Checkpoint, ledger: Grown) -> Asked:
        """Ask for a cosignature of *note*, the signed *now*.

        Raises:
            LedgerDamagedError: it has cosigned what the ledger contradicts.
            GatewayError: the ledger can't be read.
        """
        old_size = min(self.cosigned_size or 0, now.size)
        for _ in range(_ATTEMPTS):
            proof = ledger.prove_growth(old_size, now)
            body = format_consistency(ConsistencyProof(old_size, tuple(proof), note))
            try:
                answer = self._line.post(body.encode(), "text/plain; charset=utf-8")
            except GatewayError as silent:
                return self._none(silent.message)
            match answer.status:
                case 200:
                    return self._cosigned(answer, note, now.size)
                case 409:
                    known = _size_in(answer)
                    # It must name a size unless the sizes agree and the roots don't.
                    if old_size == now.size and known in (None, old_size):
                        raise self._contradicted(f"{old_size} leaves with another root")
                    if known is None:
                        return self._none("answers 409 without a size")
                    if known == old_size:
                        return self._none(f"says that {known} is not the size it says it is")
                    if known > now.size:
                        return self._is_ahead(known, ledger)
                    old_size = known
                case 422:
                    raise self._contradicted(f"other {old_size} leaves")
                case 404:
                    return self._none("does not know this log; give it the log's vkey")
                case 403:
                    return self._none("knows this log under another key")
                case status:
                    return self._none(f"answers {status}: {shown(_text(answer)).strip()}")
        return self._none("has others ask it about this log all the time")

    def close(self) -> None:
        """Let go of the connection; who waits for an answer on it does so then."""
        self._closing = True
        if self.busy.acquire(blocking=False):
            self.done()

    def claim(self) -> bool:
        """Hold `busy`, unless somebody asks already; tell whether."""
        if not self.busy.acquire(blocking=False):
            return False
        self._closing = False
        return True

    def done(self) -> None:
        """Let others ask, after `busy` was held."""
        if self._closing:
            self._line.close()
        self.busy.release()

    def _cosigned(self, answer: Answer, note: str, size: int) -> Asked:
        for line in _text(answer).split("\n")[:-1]:
            try:
                if cosigned_by(add_cosignatures(note, [line + "\n"]), [self._verifier]):
                    self.cosigned_size, self.trouble = size, ""
                    return Asked(name=self.name, line=line + "\n")
            except EvidenceError as bad:
                return self._none(f"answers with no cosignature: {bad.message}")
        return self._none("answers with no cosignature by its key")

    def _is_ahead(self, known: int, ledger: Grown) -> Asked:
        # Another process may have published meanwhile; then the ledger has grown as far.
        if known > ledger.size():
            raise self._contradicted(f"{known} leaves, more than the ledger has")
        self.cosigned_size = known
        return Asked(name=self.name, trouble="has cosigned a newer checkpoint", ahead=True)

    def _none(self, why: str) -> Asked:
        self.trouble = why
        return Asked(name=self.name, trouble=why)

    def _contradicted(self, what: str) -> LedgerDamagedError:
        self.trouble = f"has cosigned {what}"
        return LedgerDamagedError(
            f"the ledger contradicts what was cosigned: the witness `{self.name}` has cosigned"
            f" {what}",
            hint="restore the newest copy of the ledger, never an older one; look for another"
            " gateway that runs on a copy of this data folder",
        )


class Witnesses:
    """All witnesses of a log, and how many of them must have cosigned what is published."""

    def __init__(self, witnesses: Sequence[Witness], quorum: int) -> None:
        self.all = tuple(witnesses)
        self.quorum = quorum
        self._noting = threading.Lock()
        # OWNED BY: whoever holds the lock.
        self._damage: LedgerDamagedError | None = None

    @property
    def damage(self) -> LedgerDamagedError | None:
        """What a witness has cosigned that the ledger contradicts; said once, it stays said."""
        return self._damage

    @property
    def enough_to_know(self) -> int:
        """How many must answer so that none of what was published can have been missed.

        A quorum cosigned it; of so many, at least one was among them.
        """
        return len(self.all) - self.quorum + 1

    def collect(
        self, note: str, now: Checkpoint, ledger: Grown, *, enough: int | None = None
    ) -> Collected:
        """Ask every witness that is not being asked still; return once *enough* cosigned.

        Without *enough* the quorum is. Those who are well are waited for a moment longer.

        Raises:
            LedgerDamagedError: one has cosigned what the ledger contradicts.
        """
        wanted = self.quorum if enough is None else enough
        answers: queue.SimpleQueue[Asked] = queue.SimpleQueue()
        well = {one.name for one in self.all if not one.trouble}
        waiting = set()
        for one in self.all:
            # Who has not answered the last time is not asked twice at once.
            if one.claim():
                waiting.add(one.name)
                thread = threading.Thread(
                    target=self._ask,
                    args=(one, note, now, ledger, answers),
                    name=f"witness {one.name}",
                    daemon=True,
                )
                thread.start()
        lines: list[str] = []
        missing = {one.name: one.trouble or "does not answer in time" for one in self.all}
        ahead, until = False, time.monotonic() + _ATTEMPTS * WITNESS_TIMEOUT_S
        while waiting and (len(lines) < wanted or waiting & well) and self._damage is None:
            try:
                asked = answers.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            waiting.discard(asked.name)
            ahead = ahead or asked.ahead
            if asked.line is None:
                missing[asked.name] = asked.trouble
                continue
            lines.append(asked.line)
            del missing[asked.name]
            if len(lines) == wanted:
                until = time.monotonic() + WITNESS_GRACE_S
        if self._damage is not None:
            raise self._damage.with_traceback(None)
        return Collected(lines=tuple(lines), missing=missing, ahead=ahead)

    def close(self) -> None:
        """Let go of all connections."""
        for one in self.all:
            one.close()

    def _ask(
        self,
        one: Witness,
        note: str,
        now: Checkpoint,
        ledger: Grown,
        answers: queue.SimpleQueue[Asked],
    ) -> None:
        try:
            asked = one.ask(note, now, ledger)
        except LedgerDamagedError as damage:
            with self._noting:
                self._damage = self._damage or damage
            asked = Asked(name=one.name, trouble=damage.message)
        except GatewayError as unreadable:
            one.trouble = unreadable.message
            asked = Asked(name=one.name, trouble=unreadable.message)
        finally:
            one.done()
        answers.put(asked)


def _size_in(answer: Answer) -> int | None:
    text = _text(answer)
    if answer.kind != SIZE_KIND or not text.endswith("\n"):
        return None
    try:
        return parse_decimal(text[:-1], "the size that the witness has cosigned")
    except BadProofError:
        return None


def _text(answer: Answer) -> str:
    return answer.body.decode("utf-8", "replace")

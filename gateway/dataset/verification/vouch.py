"""What vouches for a row: a usage receipt of the answer it is, or a derivation that made it.

Both are leaves of the log. Of each the fields that decide are read; of each kind of receipt,
of a row or above it, one is read whole, and every derivation. What evidence alone can say
against a row is said here; the terms are the trainer's gate's to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import orjson

from gateway.canonical import canonical_json, salted_sha256, sha256_hex
from gateway.dataset.above import Above, UnresolvedParentError, above_of, call_above
from gateway.dataset.calls import REWRITE, VERIFY, call_of
from gateway.dataset.facts import Facts, Shared, read_facts
from gateway.dataset.manifest import (
    ABOVE,
    LEAVES,
    MANIFEST,
    RECEIPTS,
    DatasetManifest,
    Influence,
)
from gateway.dataset.shape import check_shape
from gateway.dataset.verification.ancestors import Ancestors
from gateway.dataset.verification.count import (
    RELABELLED,
    Counted,
    Given,
    Kind,
    count_makers,
    kind_of,
    named_by,
)
from gateway.dataset.verification.prompts import HeldOutPrompts
from gateway.errors import BadDigestError, EvidenceError, MalformedReceiptError
from gateway.intent.purpose import covers, teaches
from gateway.limits import KINDS_REMEMBERED_MAX
from gateway.receipt.authority import Authority
from gateway.receipt.envelope import open_envelope
from gateway.receipt.model import Derivation, Receipt
from gateway.receipt.statement import read_payload
from gateway.receipt.verify import verify_leaf
from gateway.tlog.checkpoint import Checkpoint

if TYPE_CHECKING:
    from gateway.dataset.verification.rows import ReceiptLine

RECEIPT_SWAPPED: Final = "dataset.receipt_swapped"
WRONG_KIND: Final = "dataset.wrong_kind"

_AGAIN: Final = "take the dataset from its source again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """What rows are held against."""

    manifest: DatasetManifest
    checkpoint: Checkpoint
    authority: Authority
    every_signature: bool = False
    ancestors: Ancestors | None = None
    """Where rows were made of others: every leaf above."""
    held_out: HeldOutPrompts | None = None
    """Where rows are held out: their prompts."""


class Place(NamedTuple):
    """Where a row stands: in which file, and its number over both."""

    file: str
    row: int

    def __str__(self) -> str:
        """Return it as messages name it."""
        return f"{self.file}: row {self.row}"


class Vouching(Protocol):
    """Reads the leaves that vouch for rows, one after the other, and the rows of each."""

    def read(self, row: int, index: int, leaf: bytes) -> None:
        """Read *leaf*, which vouches for *row* and perhaps for some that follow.

        Raises:
            EvidenceError: it can't vouch for a row of this dataset.
        """
        ...

    def check(
        self, place: Place, line: bytes, said: ReceiptLine
    ) -> tuple[Derivation | None, tuple[Above, ...]]:
        """Check that what was read last vouches for the row *line*; return what made it.

        Raises:
            EvidenceError: it doesn't.
        """
        ...


class Receipts:
    """Usage receipts vouch for answers; whole is read the first receipt of each kind."""

    def __init__(self, law: Law, counted: Counted) -> None:
        self._law = law
        self._counted = counted
        self._named = named_by(law.manifest)
        self._known: dict[Shared, tuple[Given, set[str]]] = {}
        self._facts: Facts | None = None
        self._given = Given()

    def read(self, row: int, index: int, leaf: bytes) -> None:
        """Read the receipt in *leaf*; see `Vouching`."""
        with _named_leaf(row, index):
            facts, payload = self._read(index, leaf)
        key = facts.shared
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= KINDS_REMEMBERED_MAX:
                self._known.clear()
            known = self._known[key] = self._learn(row, facts, payload)
        given, days = known
        day = facts.received[:10]
        if day not in given.days:
            if day not in days:
                raise _other_teachers(row)
            given.days.add(day)
        project = self._law.manifest.asked.project
        if facts.caller.project != project:
            raise _not_of_use(row, facts.exchange, f"is of project `{facts.caller.project}`")
        if not facts.readable or facts.ended != "complete":
            raise _not_of_use(row, facts.exchange, "is of an answer that was not read whole")
        given.receipts += 1
        self._facts, self._given = facts, given

    def check(
        self, place: Place, line: bytes, said: ReceiptLine
    ) -> tuple[Derivation | None, tuple[Above, ...]]:
        """Check the row against the receipt; see `Vouching`."""
        facts = self._facts
        if facts is None:
            raise MalformedReceiptError(f"{place}: nothing vouches for it")
        if said.exchange != facts.exchange or said.derivation is not None:
            raise _misnamed(place, said, facts.exchange)
        if said.reasoned and not self._law.manifest.asked.reasoning:
            raise BadDigestError(
                f"{place}: with reasoning, which the manifest did not ask for", code=RELABELLED
            )
        committed = [
            one.value
            for unit in facts.outputs
            if unit.choice == said.choice
            and (one := unit.reasoned if said.reasoned else unit.row) is not None
        ]
        _check_committed(place, line, said, committed, f"receipt {facts.exchange}")
        self._given.rows += 1
        return None, ()

    def _read(self, index: int, leaf: bytes) -> tuple[Facts, bytes]:
        try:
            read = read_facts(leaf)
        except MalformedReceiptError as exc:
            raise MalformedReceiptError(exc.message, code=WRONG_KIND) from exc
        if read is None:
            raise MalformedReceiptError("not a usage receipt", code=WRONG_KIND)
        facts, keyid, payload = read
        self._law.authority.receipt_key(keyid, index)
        if self._law.every_signature:
            verify_leaf(leaf, index, self._law.authority)
        return facts, payload

    def _learn(self, row: int, facts: Facts, payload: bytes) -> tuple[Given, set[str]]:
        """Return where rows of a kind are counted, if they may stand in this dataset."""
        receipt = read_payload(payload)
        if not isinstance(receipt, Receipt):
            raise MalformedReceiptError(
                f"{LEAVES}: row {row}: its leaf is not a usage receipt", code=WRONG_KIND
            )
        purpose = receipt.declared.use.purpose
        asked = self._law.manifest.found.use.purpose
        if not teaches(purpose) or not covers(purpose, asked):
            raise _not_of_use(
                row, facts.exchange, f"was declared for `{purpose}`, the dataset for `{asked}`"
            )
        if receipt.ruling.effect != "permit":
            raise _not_of_use(row, facts.exchange, "was not permitted")
        kind = kind_of(call_of(receipt), receipt.model.manifest)
        named = self._named.get(kind)
        if named is None:
            raise _other_teachers(row)
        given = self._counted.given(kind)
        given.add(0, 0, (), (pin.policy for pin in receipt.ruling.policies))
        return given, named.days


class Derivations:
    """Derivations vouch for the rows that they made, and all that stands above speaks too."""

    def __init__(self, law: Law, ancestors: Ancestors, counted: Counted) -> None:
        self._law = law
        self._above = ancestors
        self._counted = counted
        self._named = named_by(law.manifest)
        self._known: dict[tuple[Shared, Influence], _Answers] = {}
        self._derivation: Derivation | None = None
        self._index = -1

    def read(self, row: int, index: int, leaf: bytes) -> None:
        """Read the derivation in *leaf*; see `Vouching`."""
        asked = self._law.manifest.asked
        with _named_leaf(row, index):
            envelope = open_envelope(leaf)
            derivation = read_payload(envelope.payload)
            if not isinstance(derivation, Derivation):
                raise MalformedReceiptError("not a derivation", code=WRONG_KIND)
            self._law.authority.receipt_key(envelope.signatures[0].keyid or "", index)
            if self._law.every_signature:
                verify_leaf(leaf, index, self._law.authority)
        name = derivation.derivation
        if derivation.caller.project != asked.project:
            raise _not_of_use(row, name, f"is of project `{derivation.caller.project}`")
        purpose, wanted = derivation.declared.use.purpose, self._wanted
        if not teaches(purpose) or not covers(purpose, wanted):
            raise _not_of_use(
                row, name, f"was declared for `{purpose}`, the dataset for `{wanted}`"
            )
        self._derivation, self._index = derivation, index

    def check(
        self, place: Place, line: bytes, said: ReceiptLine
    ) -> tuple[Derivation | None, tuple[Above, ...]]:
        """Check the row against the derivation; see `Vouching`."""
        derivation, kind = self._derivation, self._law.manifest.asked.kind
        if derivation is None:
            raise MalformedReceiptError(f"{place}: nothing vouches for it")
        name = derivation.derivation
        if said.derivation != name or said.exchange is not None or said.reasoned:
            raise _misnamed(place, said, name)
        rows = derivation.rows
        committed = rows[said.choice] if 0 <= said.choice < len(rows) else None
        _check_committed(
            place, line, said, [committed.row.value] if committed else [], f"derivation {name}"
        )
        if committed is None or committed.kind != kind:
            raise MalformedReceiptError(
                f"{place}: derivation {name} made another kind of row than `{kind}`",
                code=WRONG_KIND,
            )
        try:
            check_shape(line, kind)
            above = above_of(derivation, said.choice, self._above.find, index=self._index)
        except EvidenceError as exc:
            raise type(exc)(f"{place}: {exc.message}", hint=exc.hint, code=exc.problem) from exc
        if not committed.parents and derivation.written is None:
            raise UnresolvedParentError(
                f"{place}: derivation {name} made it of nothing, and nobody wrote it"
            )
        self._count(place, derivation, above)
        return derivation, above

    @property
    def _wanted(self) -> str:
        return self._law.manifest.found.use.purpose

    def _count(self, place: Place, derivation: Derivation, above: tuple[Above, ...]) -> None:
        """Count one row for all that stands above it."""
        makers, kinds = [derivation], dict[Kind, Given]()
        for one in above:
            at = self._above.place_of(one.index)
            if at is None:
                raise UnresolvedParentError(f"{place}: leaf {one.index} is not in {ABOVE}")
            if one.answer is not None:
                kind, given = self._answer(place, one, one.answer)
            else:
                match one.statement:
                    case Derivation() as made:
                        _check_use(place, made.derivation, made, one.influence, self._law)
                        makers.append(made)
                        self._counted.met.add(at)
                        continue
                    case _:
                        kind, given = self._student(place, one)
            given.met.add(at)
            kinds[kind] = given
        for given in kinds.values():
            given.rows += 1
        count_makers(self._counted, makers)

    def _answer(self, place: Place, one: Above, facts: Facts) -> tuple[Kind, Given]:
        """Return where an answer above a row is counted, if it may stand there."""
        key = (facts.shared, one.influence)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= KINDS_REMEMBERED_MAX:
                self._known.clear()
            known = self._known[key] = self._learn(place, one)
        project = self._law.manifest.asked.project
        if facts.caller.project != project:
            raise _not_of_use(
                place.row, facts.exchange, f"is of project `{facts.caller.project}`"
            )
        if not facts.readable or facts.ended != "complete":
            raise _not_of_use(
                place.row, facts.exchange, "is of an answer that was not read whole"
            )
        day = facts.received[:10]
        if day not in known.days:
            raise _other_teachers(place.row)
        known.given.days.add(day)
        return known.kind, known.given

    def _learn(self, place: Place, one: Above) -> _Answers:
        """Read one answer of a kind whole, and hold against it what all of them share."""
        receipt = one.statement
        if not isinstance(receipt, Receipt):
            raise MalformedReceiptError(f"{place}: leaf {one.index} is no answer above it")
        _check_use(place, receipt.exchange, receipt, one.influence, self._law)
        if receipt.ruling.effect != "permit":
            raise _not_of_use(place.row, receipt.exchange, "was not permitted")
        kind = kind_of(call_of(receipt), receipt.model.manifest, one.influence)
        named = self._named.get(kind)
        if named is None:
            raise _other_teachers(place.row)
        given = self._counted.given(kind)
        given.add(0, 0, (), (pin.policy for pin in receipt.ruling.policies))
        return _Answers(kind, given, named.days)

    def _student(self, place: Place, one: Above) -> tuple[Kind, Given]:
        """Return where a student that was run in a pipeline is counted."""
        called = call_above(one)
        if called is None:
            raise MalformedReceiptError(f"{place}: leaf {one.index} is nothing to learn from")
        call, manifest, _ = called
        kind = kind_of(call, manifest, one.influence)
        if kind not in self._named:
            raise _other_teachers(place.row)
        return kind, self._counted.given(kind)


class _Answers(NamedTuple):
    """Answers of one kind above rows: where they are counted, and the days that are named."""

    kind: Kind
    given: Given
    days: set[str]


def _check_use(
    place: Place, name: str, made: Derivation | Receipt, influence: Influence, law: Law
) -> None:
    """Check that what stands above a row was made for a use that the row's use is part of.

    It may also have been declared for what it was there: rewriting, or judging.
    """
    if made.caller.project != law.manifest.asked.project:
        raise _not_of_use(place.row, name, f"is of project `{made.caller.project}`")
    purpose, wanted = made.declared.use.purpose, law.manifest.found.use.purpose
    serves = VERIFY if influence == "judge" else REWRITE
    if not teaches(purpose) or not (covers(purpose, wanted) or covers(purpose, serves)):
        raise _not_of_use(
            place.row,
            name,
            f"was declared for `{purpose}`, which covers neither `{wanted}` nor `{serves}`",
        )


class _named_leaf:  # noqa: N801 — reads as a statement
    """Name the leaf in whatever is wrong with it."""

    def __init__(self, row: int, index: int) -> None:
        self._row, self._index = row, index

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        """Say the same of the leaf by its name."""
        if isinstance(exc, EvidenceError):
            raise type(exc)(
                f"{leaf_name(self._row, self._index)}: {exc.message}",
                hint=exc.hint,
                code=exc.problem,
            ) from exc


def leaf_name(row: int, index: int) -> str:
    """Return how messages name the leaf that vouches for *row*."""
    return f"{LEAVES}: leaf {index} (of row {row})"


def _check_committed(
    place: Place, line: bytes, said: ReceiptLine, committed: list[str], who: str
) -> None:
    """Check that *line* is what was sealed, and that one of the commitments is to it."""
    if not committed:
        raise BadDigestError(
            f"{RECEIPTS}: row {place.row}: {who} commits to no row of choice {said.choice}",
            code=RECEIPT_SWAPPED,
        )
    if sha256_hex(line) != said.sha256:
        raise BadDigestError(
            f"{place}: it was changed after it was sealed ({who})",
            hint=_AGAIN,
            code="dataset.row_respelt" if _is_respelt(line, said) else "dataset.row_changed",
        )
    if salted_sha256(_salt(said.salt, place.row), line) not in committed:
        raise BadDigestError(
            f"{place}: {who} commits to another row", hint=_AGAIN, code=RECEIPT_SWAPPED
        )


def _is_respelt(line: bytes, said: ReceiptLine) -> bool:
    """Tell whether a row means what was sealed, and is only written otherwise."""
    try:
        return sha256_hex(canonical_json(orjson.loads(line))) == said.sha256
    except (ValueError, TypeError, RecursionError):
        return False


def _salt(text: str, number: int) -> bytes:
    try:
        salt = bytes.fromhex(text)
    except ValueError as exc:
        raise MalformedReceiptError(f"{RECEIPTS}: row {number}: the salt is not hex") from exc
    if salt.hex() != text:
        raise MalformedReceiptError(f"{RECEIPTS}: row {number}: the salt is not plain hex")
    return salt


def _misnamed(place: Place, said: ReceiptLine, name: str) -> MalformedReceiptError:
    if said.derivation is not None:
        named = f"derivation {said.derivation}"
    else:
        named = f"exchange {said.exchange}"
    return MalformedReceiptError(
        f"{RECEIPTS}: row {place.row}: names {named}, its leaf is of {name}",
        code=RECEIPT_SWAPPED,
    )


def _not_of_use(row: int, name: str, why: str) -> MalformedReceiptError:
    what = "derivation" if name.startswith("d-") else "receipt"
    return MalformedReceiptError(f"{LEAVES}: row {row}: {what} {name} {why}", code=RELABELLED)


def _other_teachers(row: int) -> BadDigestError:
    return BadDigestError(
        f"{MANIFEST}: its teachers are not those of the receipts: none is that of row {row}",
        code=RELABELLED,
    )

"""Find what a row is made of: references become places in the ledger, or are refused.

A reference is a text: `x-…` or `x-…/1` (a choice of an exchange), `d-…/3` (a row that was
recorded before), or the SHA-256 of a student's training manifest. Refused is what is not in the
ledger, what no row can be made of, and what may no longer be used: withdrawn or erased, itself
or anything above it, or another project's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, Union, get_args

from gateway.clock import Clock
from gateway.dataset.above import Ancestor, UnresolvedParentError, above_of
from gateway.dataset.derivation.handed import malformed
from gateway.errors import GateRefusedError
from gateway.ident import (
    DeclarationId,
    ExchangeId,
    Sha256,
    is_derivation_id,
    is_exchange_id,
)
from gateway.receipt.envelope import Signer
from gateway.receipt.model import (
    TRAINING_BUILD,
    Derivation,
    Manifest,
    Parent,
    ParentRole,
    Receipt,
    Withdrawal,
    Writer,
)
from gateway.receipt.statement import read_leaf
from gateway.store.content import Content

PARENT_UNKNOWN: Final = "derive.parent_unknown"
PARENT_MISSING: Final = "derive.parent_missing"
PARENT_OTHER_PROJECT: Final = "derive.parent_other_project"
PARENT_WITHDRAWN: Final = "derive.parent_withdrawn"
PARENT_ERASED: Final = "derive.parent_erased"

_PLACE_DIGITS_MAX: Final = 6
_RESOLVED_MAX: Final = 1_024

_ROLES: Final[tuple[ParentRole, ...]] = get_args(ParentRole)

Reference = Union[str, "ParentRef"]


class Kept(Protocol):
    """What was kept of an exchange or a derivation."""

    @property
    def rows(self) -> Mapping[int, bytes]:
        """Return the canonical row of each choice, or in each place."""
        ...


class Texts(Protocol):
    """Where texts are kept."""

    def get(self, exchange: ExchangeId) -> Kept | None:
        """Return what is kept, or `None`."""
        ...

    def was_erased(self, exchange: ExchangeId) -> bool:
        """Tell whether there was something, and it is gone for good."""
        ...

    def put_many(self, contents: Sequence[tuple[ExchangeId, Content]]) -> None:
        """Keep texts; durable on return."""
        ...

    def erase_all(self, exchanges: Sequence[ExchangeId]) -> int:
        """Destroy texts; return how many went."""
        ...


class Words(Protocol):
    """What people said, as far as a pipeline needs it."""

    def withdrawn(self, subject: DeclarationId | ExchangeId | Sha256) -> Withdrawal | None:
        """Return the withdrawal of a declaration, an exchange, a derivation or a manifest."""
        ...

    def held(self, manifest: Sha256) -> Withdrawal | None:
        """Return the withdrawal of a manifest, or of something that it was made of."""
        ...


@dataclass(frozen=True, kw_only=True)
class Records:
    """What a pipeline reads and writes; `app/pipeline.py` gives those of an installation."""

    find: Callable[[ExchangeId], tuple[int, bytes] | None]
    """Returns index and leaf of what closed an exchange."""
    derivation: Callable[[ExchangeId], tuple[int, bytes] | None]
    manifest: Callable[[Sha256], tuple[int, Manifest] | None]
    leaf: Callable[[int], bytes]
    texts: Texts
    words: Words
    append: Callable[[bytes], int]
    """Makes a leaf durable and returns its index; *words* know then what others said before."""
    signer: Callable[[], Signer]
    clock: Clock
    writer: Writer


@dataclass(frozen=True, slots=True)
class ParentRef:
    """A parent as a pipeline names it: a reference, and what the parent was to the row."""

    reference: str
    role: ParentRole = "source"


def parent(reference: str, *, choice: int | None = None, role: str = "source") -> ParentRef:
    """Return *reference* as a parent in a *role*; *choice* may be given apart from it.

    `source`: the row was made of it. `rewriter`: a model's answer that is, or holds, the row's
    new words. `judge`: an answer that decided whether the row stands. `chosen`, `rejected`: the
    two sides of a pair. `prompt`: the words of the prompt come from it.
    """
    known = next((one for one in _ROLES if one == role), None)
    if known is None:
        raise GateRefusedError(
            f"`{role}` is no role of a parent",
            hint=f"one of {', '.join(_ROLES)}",
            code=PARENT_UNKNOWN,
        )
    named = reference if choice is None else f"{reference.partition('/')[0]}/{choice}"
    return ParentRef(named, known)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A parent that is in the ledger."""

    index: int
    statement: Ancestor
    choice: int

    @property
    def id(self) -> ExchangeId | None:
        """Return under what its text is kept, if any is."""
        match self.statement:
            case Receipt():
                return self.statement.exchange
            case Derivation():
                return self.statement.derivation
            case _:
                return None

    @property
    def is_pair(self) -> bool:
        """Tell whether it is a row that holds a better and a worse answer."""
        statement = self.statement
        return (
            isinstance(statement, Derivation)
            and self.choice < len(statement.rows)
            and statement.rows[self.choice].kind == "preference"
        )

    def as_parent(self, role: ParentRole) -> Parent:
        """Return it as a statement names it."""
        match self.statement:
            case Receipt():
                return Parent(
                    role=role,
                    exchange=self.statement.exchange,
                    choice=self.choice,
                    index=self.index,
                )
            case Derivation():
                return Parent(
                    role=role,
                    derivation=self.statement.derivation,
                    choice=self.choice,
                    index=self.index,
                )
            case _:
                return Parent(
                    role=role, manifest=self.statement.payload_sha256, index=self.index
                )


class Parents:
    """Resolves the parents of one project's rows.

    Before it looks one up it has *settle* record what is not in the ledger yet.
    """

    def __init__(self, records: Records, project: str, settle: Callable[[str], None]) -> None:
        self._records = records
        self._project = project
        self._settle = settle
        self._known: OrderedDict[str, Resolved] = OrderedDict()
        self._read: tuple[ExchangeId, Kept | None] | None = None
        """The text that was read last; rows that follow on each other often share theirs."""

    def resolve(self, ref: ParentRef) -> Resolved:
        """Return the parent that *ref* names, if rows may be made of it.

        Raises:
            GateRefusedError: it is not in the ledger, or it may not.
        """
        name, _, at = ref.reference.partition("/")
        choice = _place(at, ref.reference)
        # A parent stands in the ledger before what is made of it.
        self._settle(name)
        known = self._known.get(name)
        found = known or self._found(name, ref.reference)
        if known is None:
            self._known[name] = found
            if len(self._known) > _RESOLVED_MAX:
                self._known.popitem(last=False)
        resolved = Resolved(found.index, found.statement, choice)
        self._check_choice(resolved, ref)
        self._check_standing(resolved, ref.reference)
        return resolved

    def _found(self, name: str, shown: str) -> Resolved:
        records = self._records
        if is_exchange_id(name):
            closed = records.find(ExchangeId(name))
            if closed is None:
                raise _unknown(shown, "nothing in the ledger closes that exchange")
            statement = read_leaf(closed[1])
            if not isinstance(statement, Receipt):
                raise _unknown(shown, "that exchange was not answered, so it has no receipt")
            return Resolved(closed[0], statement, 0)
        if is_derivation_id(name):
            made = records.derivation(ExchangeId(name))
            derivation = None if made is None else read_leaf(made[1])
            if made is None or not isinstance(derivation, Derivation):
                raise _unknown(shown, "no such derivation is in the ledger")
            return Resolved(made[0], derivation, 0)
        digest = name.removeprefix("sha256:")
        if len(digest) == 64 and not digest.strip("0123456789abcdef"):
            manifest = records.manifest(Sha256(digest))
            if manifest is None or manifest[1].build_type != TRAINING_BUILD:
                raise _unknown(shown, "no training manifest with that digest is in the ledger")
            return Resolved(manifest[0], manifest[1], 0)
        raise _unknown(shown, "a parent is x-…/choice, d-…/place or a manifest's SHA-256")

    def _check_choice(self, resolved: Resolved, ref: ParentRef) -> None:
        """Raise where the parent has no such choice or row, or none that a row is made of."""
        choice, shown = resolved.choice, ref.reference
        match resolved.statement:
            case Receipt() as receipt:
                units = [unit for unit in receipt.outputs if unit.choice == choice]
                if not units:
                    raise _unknown(shown, f"its receipt lists no choice {choice}")
                if ref.role != "judge" and all(unit.row is None for unit in units):
                    raise _unknown(
                        shown,
                        f"its receipt commits to no row of choice {choice}: nothing was"
                        f" declared that teaches, or the answer has no form as a row",
                    )
            case Derivation() as derivation:
                if choice >= len(derivation.rows):
                    raise _unknown(shown, f"it has {len(derivation.rows)} rows, from 0")
            case _:
                if choice:
                    raise _unknown(shown, "a student's manifest has no choices")

    def _check_standing(self, resolved: Resolved, shown: str) -> None:
        """Raise where the parent, or anything above it, is another's, withdrawn or erased."""
        statement = resolved.statement
        self._check_one(statement, shown)
        if isinstance(statement, Derivation):
            # Of its other ancestors none is erased: with their texts this row would be gone.
            self.line(resolved)
        if isinstance(statement, Derivation):
            try:
                above = above_of(
                    statement, resolved.choice, self._records.leaf, index=resolved.index
                )
            except UnresolvedParentError as exc:
                raise _unknown(shown, exc.message) from exc
            for one in above:
                self._check_one(one.statement, shown)

    def _check_one(self, statement: Ancestor, shown: str) -> None:
        words, texts = self._records.words, self._records.texts
        if isinstance(statement, Manifest):
            if words.held(statement.payload_sha256) is not None:
                raise _withdrawn(shown, statement.payload_sha256[:16])
            return
        if statement.caller.project != self._project:
            raise GateRefusedError(
                f"parent `{shown[:80]}` is of project `{statement.caller.project}`",
                hint=f"this pipeline is run for `{self._project}`",
                code=PARENT_OTHER_PROJECT,
            )
        own = statement.exchange if isinstance(statement, Receipt) else statement.derivation
        subjects: list[DeclarationId | ExchangeId] = [own]
        if statement.declared.declaration is not None:
            subjects.append(statement.declared.declaration)
        for subject in subjects:
            if words.withdrawn(subject) is not None:
                raise _withdrawn(shown, subject)
        if isinstance(statement, Receipt) and statement.model.manifest is not None:
            manifest = statement.model.manifest
            if words.held(manifest) is not None:
                raise _withdrawn(shown, manifest[:16])
        if texts.was_erased(own):
            raise GateRefusedError(
                f"parent `{shown[:80]}`: the text of `{own}` was erased",
                hint="make the row of something else",
                code=PARENT_ERASED,
            )

    def gone(self, parents: Iterable[Parent]) -> ExchangeId | None:
        """Return one of *parents* whose text is gone, though a row was made of it just now."""
        texts = self._records.texts
        for one in parents:
            if one.role == "judge":
                continue
            if one.exchange is not None and texts.was_erased(one.exchange):
                return one.exchange
            if one.derivation is not None:
                kept = self._kept(one.derivation)
                if kept is None or one.choice not in kept.rows:
                    return one.derivation
        return None

    def forget(self) -> None:
        """Read texts anew from here on: others may have erased them."""
        self._read = None

    def _kept(self, named: ExchangeId) -> Kept | None:
        if self._read is None or self._read[0] != named:
            self._read = named, self._records.texts.get(named)
        return self._read[1]

    def kept_line(self, resolved: Resolved) -> bytes:
        """Return the canonical row of a parent; nothing where no text of it is kept."""
        kept = None if resolved.id is None else self._kept(resolved.id)
        return b"" if kept is None else kept.rows.get(resolved.choice, b"")

    def line(self, resolved: Resolved) -> bytes:
        """Return the canonical row of a parent.

        Raises:
            GateRefusedError: `derive.parent_erased`, no text of it is kept.
        """
        kept = None if resolved.id is None else self._kept(resolved.id)
        line = None if kept is None else kept.rows.get(resolved.choice)
        if line is None:
            raise GateRefusedError(
                f"no text is kept of `{resolved.id or 'a manifest'}/{resolved.choice}`",
                hint="its row can't be kept or judged without it",
                code=PARENT_ERASED,
            )
        return line


def parents_named(
    row: Mapping[str, Any], column: str | None = None, role: ParentRole = "source"
) -> list[ParentRef]:
    """Return the parents that a row names in its *column*, else in `receipt` or `receipts`.

    There stands a reference, or `{"receipt": reference, "role": …}`, or a list of those; where
    no role is said they stand in *role*.

    Raises:
        GateRefusedError: `derive.parent_missing`, it names none; `derive.row_malformed`, it
            does in both; `derive.parent_unknown`, what stands there is no reference.
    """
    filled = _filled(row, column)
    if not filled:
        raise GateRefusedError(
            f"the row names no parent in `{'` or `'.join(_columns(column))}`",
            hint="write the reference there: x-…/0, d-…/3, or a list of them",
            code=PARENT_MISSING,
        )
    if len(filled) > 1:
        raise malformed(
            "the row names parents in `receipt` and in `receipts`", "name all of them in one"
        )
    value = row[filled[0]]
    named = value if isinstance(value, list | tuple) else [value]
    return [_named(one, role) for one in named]


def check_no_parents(row: Mapping[str, Any], column: str | None = None) -> None:
    """Raise `derive.row_malformed` where a row that people wrote names what it was made of."""
    filled = _filled(row, column)
    if filled:
        raise malformed(
            f"a written row has no parents, and this one names some in `{filled[0]}`",
            "what was made of an answer is recorded as a transform of it; a column that means"
            " something else needs another name",
        )


def _columns(column: str | None) -> tuple[str, ...]:
    return ("receipt", "receipts") if column is None else (column,)


def _filled(row: Mapping[str, Any], column: str | None) -> list[str]:
    """Return the columns in which *row* names parents."""
    return [name for name in _columns(column) if row.get(name)]


def _named(one: object, role: ParentRole) -> ParentRef:
    match one:
        case str():
            return ParentRef(one, role)
        case {"receipt": str() as reference, **said}:
            return parent(reference, role=str(said.get("role") or role))
        case _:
            raise _unknown(str(one), "a reference is a text, or a text with a role")


def ref_of(reference: Reference) -> ParentRef:
    """Return a parent that is named by its reference alone as a source.

    Raises:
        GateRefusedError: `derive.parent_unknown`, it is neither.
    """
    if isinstance(reference, ParentRef):
        return reference
    if isinstance(reference, str):
        return ParentRef(reference)
    raise _unknown(repr(reference), "a reference is a text")


def _place(text: str, shown: str) -> int:
    """Return the choice or place that stands behind the stroke of a reference; 0 without."""
    if not text and "/" not in shown:
        return 0
    if not text.isascii() or not text.isdecimal() or len(text) > _PLACE_DIGITS_MAX:
        raise _unknown(shown, "behind the stroke stands a number, like x-…/0 or d-…/3")
    return int(text)


def _unknown(shown: str, why: str) -> GateRefusedError:
    return GateRefusedError(
        f"parent `{shown[:80]}` can't be resolved: {why}",
        hint="references come with `x-gateway-exchange`, from `gateway receipt list`, or from"
        " an earlier step",
        code=PARENT_UNKNOWN,
    )


def _withdrawn(shown: str, subject: str) -> GateRefusedError:
    return GateRefusedError(
        f"parent `{shown[:80]}` may no longer be used: `{subject}` was withdrawn",
        hint="make the row of something else",
        code=PARENT_WITHDRAWN,
    )

"""What a trainer may be given, decided for one student on one day.

Every row is verified, ruled on again and turned into tokens in one pass, from the same bytes;
what comes out is a `Snapshot`, which only this module makes and which is all a trainer takes.
There is no override: what does not verify or may not be learned from ends the run before it
begins.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, Self

import msgspec

from gateway.canonical import sha256_hex
from gateway.dataset.above import Above
from gateway.dataset.ancestry import Ancestry
from gateway.dataset.calls import Call
from gateway.dataset.gate.duties import barred_by, unmet_prefix
from gateway.dataset.gate.gate import Gate
from gateway.dataset.gate.groups import Group
from gateway.dataset.gate.ports import Law, Words
from gateway.dataset.gate.refusals import LeftOut
from gateway.dataset.manifest import (
    MANIFEST,
    TRAINING_MANIFEST,
    DatasetManifest,
    Teacher,
    parse_manifest,
)
from gateway.dataset.verification.prompts import HeldOutPrompts
from gateway.dataset.verification.verify import (
    NoDatasetError,
    Row,
    VerifiedDataset,
    verified_rows,
)
from gateway.errors import (
    BadDigestError,
    EvidenceError,
    GateRefusedError,
    MalformedReceiptError,
)
from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.intent.model import NAME, Declaration, IntendedUse
from gateway.intent.purpose import covers
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.receipt.keys import Trust
from gateway.receipt.model import TRAINING_BUILD, Derivation, Manifest
from gateway.receipt.verify import verify_manifest
from gateway.student.corpus import Corpus, Part, TokenRow
from gateway.student.files import file_sha256
from gateway.student.manifest import Base
from gateway.student.recipe import PURPOSES, ROW_KINDS, Objective

_BUILD_AGAIN: Final = "build the dataset again: `gateway dataset build`"

_ERASED: Final = frozenset({"content-erased", "parent-erased"})
"""Why rows are refused whose text, or the text of something above them, was erased."""

_NAMES_AT_ONCE: Final = 512
"""Texts of which it is asked together whether they were erased."""


class Said(Words, Protocol):
    """What people said, as far as this gate needs it; the ledger's register keeps it."""

    def declaration(self, declaration: DeclarationId) -> Declaration | None:
        """Return the registered declaration of that id."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What the gate reads."""

    trust: Trust
    law: Law
    library: Sha256
    """Digest of the whole policy library."""
    words: Said
    manifest: Callable[[Sha256], Manifest | None]
    """Finds a manifest among the leaves of the ledger by the digest of its payload."""
    today: dt.date
    students: Callable[[], Iterable[Manifest]]
    """Every training manifest of the ledger."""
    lifted: int = 0
    """Rises when an agreement ends, or something else that rulings rest on is said."""
    erased_of: Callable[[Sequence[ExchangeId]], set[ExchangeId]]
    """Tells of which exchanges and derivations text was kept once, and erased."""
    erased: int
    """Rises when texts are erased."""
    folders: Callable[[], Iterable[Path]] = tuple
    """Where datasets stand in this house, to look through what a base learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Datasets of which every row verified and may teach this student today."""

    student: str
    declarations: tuple[DeclarationId, ...]
    datasets: tuple[VerifiedDataset, ...]
    use: IntendedUse
    teachers: tuple[Teacher, ...]
    above: tuple[Teacher, ...]
    obligations: tuple[str, ...]
    day: dt.date
    library: Sha256
    lifted: int = 0
    erased: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Token rows on disk, by digest: the only thing a trainer takes."""

    parts: tuple[Part, ...]
    """One file a dataset, in their order."""
    held_out: Part | None
    sha256: Sha256
    """Over the digests of all files by name."""
    left_out: dict[str, int]
    example: TokenRow
    template_sha256: Sha256
    tokenizer_sha256: Sha256

    @property
    def files(self) -> tuple[Part, ...]:
        """Return every file of it."""
        return self.parts if self.held_out is None else (*self.parts, self.held_out)

    @property
    def rows(self) -> int:
        """Return how many rows are learned from."""
        return sum(part.rows for part in self.parts)

    @property
    def tokens(self) -> int:
        """Return how many tokens those rows hold."""
        return sum(part.tokens for part in self.parts)

    @property
    def learned(self) -> int:
        """Return how many of those tokens are learned."""
        return sum(part.learned for part in self.parts)

    def check(self) -> None:
        """Compare the files with their digests again.

        Raises:
            BadDigestError: one changed since the gate wrote it.
        """
        for part in self.files:
            if file_sha256(part.path) != part.sha256:
                raise BadDigestError(
                    f"{part.path.name}: the token rows changed after the gate wrote them",
                    hint="begin the run anew",
                )


class StudentGate:
    """Decides for one student; rulings are made once for each kind of call.

    *check_stop* is called at every row, and may end it there by raising.
    """

    def __init__(
        self,
        student: str | None,
        base: Base,
        sources: Sources,
        objective: Objective = "sft",
        check_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._check_stop = check_stop
        self._objective = objective
        self._student = student
        self._base = base
        self._sources = sources
        self._ancestry = Ancestry(sources.manifest)
        self._gates: dict[tuple[DeclarationId, bool], Gate] = {}

    def admit(
        self, folders: Sequence[Path], held_out: Callable[[bytes], None] | None = None
    ) -> Admitted:
        """Verify every dataset and rule on every row of it, without a training library.

        Each line that is held out is handed to *held_out* as it passes; it may be used once
        this returns.

        Raises:
            EvidenceError: a folder does not verify; the message names file and row.
            GateRefusedError: something in it may not teach this student; says what and why.
        """
        datasets = tuple(self._whole(folder, held_out) for folder in folders)
        if len({dataset.manifest_sha256 for dataset in datasets}) != len(datasets):
            raise _refused("the same dataset is named twice", "name each dataset once")
        _check_order(datasets)
        use = datasets[0].manifest.found.use
        if any(dataset.manifest.found.use != use for dataset in datasets):
            raise _refused(
                "the datasets were built for different uses",
                "build them for one declaration; a student has one intended use",
            )
        self._rule_on_base()
        teachers = tuple(one for dataset in datasets for one in dataset.teachers)
        above = self._above(teachers)
        duties = {
            duty
            for gate in self._gates.values()
            for ruled in gate.ruled.values()
            for duty in ruled.obligations
        }
        obligations = tuple(sorted(duties.union(*(one.obligations for one in above))))
        student = self._name(use, datasets)
        prefix = unmet_prefix(use, student, obligations)
        if prefix is not None:
            raise _refused(
                f"the teachers' terms want a name that begins with `{prefix}`: `{student}`",
                f"train it as `--name {prefix}-{student}`, or keep it internal",
            )
        return Admitted(
            student=student,
            declarations=tuple(dict.fromkeys(declared for declared, _ in self._gates)),
            datasets=datasets,
            use=use,
            teachers=teachers,
            above=above,
            obligations=obligations,
            day=self._sources.today,
            library=self._sources.library,
            lifted=self._sources.lifted,
            erased=self._sources.erased,
        )

    def snapshot(self, admitted: Admitted, corpus: Corpus) -> Snapshot:
        """Verify and rule once more, turning each row into tokens as it passes.

        Raises:
            EvidenceError: a folder changed since it was admitted.
            GateRefusedError: no row is left to learn from.
        """
        seen: set[int] = set()
        kept_apart = [_prompts(one) for one in admitted.datasets if one.manifest.found.splits]
        for dataset in admitted.datasets:
            kind = dataset.manifest.asked.kind
            corpus.begin()
            for row in self._passed(dataset.path, dataset.manifest_sha256):
                # All are rows of one ledger; a leaf of it has far fewer rows than this.
                place = row.index << 20 | row.choice
                if place in seen:
                    corpus.leave_out("repeated")
                    continue
                seen.add(place)
                held_out = row.split == "held-out"
                if not held_out and any(one.has(row.line, kind) for one in kept_apart):
                    # Another dataset keeps it apart, to measure the same student with.
                    corpus.leave_out("held-out")
                    continue
                corpus.take(msgspec.json.decode(row.line), row.name, held_out=held_out)
        written = corpus.close()
        if written.example is None:
            counted = Counter(written.left_out).most_common()
            reasons = ", ".join(f"{count} {why}" for why, count in counted)
            raise _refused(
                f"no row is left to learn from ({reasons})",
                "raise --max-length, as far as the context of the base goes",
            )
        tokenizer = corpus.tokenizer
        return Snapshot(
            parts=written.parts,
            held_out=written.held_out,
            sha256=written.sha256,
            left_out=dict(written.left_out),
            example=written.example,
            template_sha256=sha256_hex(tokenizer.chat_template.encode()),
            tokenizer_sha256=sha256_hex(tokenizer.backend_tokenizer.to_str().encode()),
        )

    def texts(self, admitted: Admitted) -> Iterator[dict[str, Any]]:
        """Yield the rows to train on, verified again, for a tokenizer to learn its words from.

        Raises:
            EvidenceError: a folder changed since it was admitted.
            GateRefusedError: a row may not teach this student any more.
        """
        kept_apart = [_prompts(one) for one in admitted.datasets if one.manifest.found.splits]
        for dataset in admitted.datasets:
            kind = dataset.manifest.asked.kind
            for row in self._passed(dataset.path, dataset.manifest_sha256):
                if row.split == "train" and not any(
                    one.has(row.line, kind) for one in kept_apart
                ):
                    yield msgspec.json.decode(row.line)

    def held_out(self, admitted: Admitted) -> Iterator[Row]:
        """Yield the rows that are held out, verified and ruled on again, to measure with.

        Raises:
            EvidenceError: a folder changed since it was admitted.
            GateRefusedError: a row may not serve this student any more.
        """
        for dataset in admitted.datasets:
            for row in self._passed(dataset.path, dataset.manifest_sha256):
                if row.split == "held-out":
                    yield row

    def still(self, admitted: Admitted) -> Admitted:
        """Return *admitted* while all that it rests on stands, by what this gate reads now.

        What was withdrawn, and what the declarations say, is asked in any case. Where policies
        or the day are others than then, an agreement ended, or texts were erased, every row is
        ruled on again; what comes back is as of now, to ask with the next time.

        Raises:
            EvidenceError: a folder changed since it was admitted.
            GateRefusedError: something in it may not teach this student any more.
        """
        for dataset in admitted.datasets:
            self._check_words(dataset.manifest, dataset.manifest_sha256)
            self._check_verdict(dataset)
        self._rule_on_base()
        sources = self._sources
        if (sources.library, sources.today, sources.lifted, sources.erased) == (
            admitted.library,
            admitted.day,
            admitted.lifted,
            admitted.erased,
        ):
            return admitted
        return self.admit([dataset.path for dataset in admitted.datasets])

    def _whole(
        self, folder: Path, held_out: Callable[[bytes], None] | None = None
    ) -> VerifiedDataset:
        """Return the dataset at *folder* after all of it passed."""
        passing = self._passed(folder)
        while True:
            try:
                row = next(passing)
                if held_out is not None and row.split == "held-out":
                    held_out(row.line)
            except StopIteration as done:
                dataset: VerifiedDataset = done.value
                return dataset

    def _passed(
        self, folder: Path, admitted: Sha256 | None = None
    ) -> Generator[Row, None, VerifiedDataset]:
        """Yield each row that verified and may teach; at the end, refuse if any may not.

        *admitted* is the dataset that must be there: another one may verify just as well.
        """
        with _naming(folder):
            return (yield from self._ruled_on(folder, admitted))

    def _ruled_on(
        self, folder: Path, admitted: Sha256 | None
    ) -> Generator[Row, None, VerifiedDataset]:
        payload, gate = self._opened(folder)
        if admitted not in {None, payload}:
            raise BadDigestError(
                f"{folder}: another dataset than the one that was admitted",
                hint="leave the folder alone while a student is trained, and begin anew",
            )
        checking = verified_rows(folder, self._sources.trust)
        refused: list[_Refused] = []
        erasures = _Erasures(self._sources.erased_of)
        count = 0
        dataset: VerifiedDataset | None = None
        while dataset is None:
            self._check_stop()
            try:
                row = next(checking)
            except StopIteration as done:
                dataset = done.value
                break
            statement = row.statement
            if statement is None:
                raise MalformedReceiptError(f"row {row.number} of `{folder}` has no receipt")
            count += 1
            why = gate.admit_row(statement, row.choice, row.above())
            if why is None:
                refused += erasures.see(row)
                yield row
            else:
                refused.append(_Refused.of(row, why))
        if dataset is None or dataset.manifest_sha256 != payload:
            raise BadDigestError(f"{folder}: its manifest changed while it was read")
        refused += erasures.ask()
        if refused:
            raise _rows_refused(dataset.name, count, refused)
        return dataset

    def _opened(self, folder: Path) -> tuple[Sha256, Gate]:
        """Return the gate of the declaration that the dataset at *folder* was built for."""
        statement, payload = verify_manifest(_read_manifest(folder), self._sources.trust)
        known = self._sources.manifest(payload)
        if known is not None and known.build_type == TRAINING_BUILD:
            raise NoDatasetError(
                f"`{folder}` is a student, no dataset",
                hint=f"to go on from it, say --base {folder}, and name the datasets to learn",
            )
        manifest = parse_manifest(statement)
        name, declared = manifest.asked.dataset, manifest.asked.declaration
        if known is None:
            raise _refused(
                f"the manifest of dataset `{name}` is not in this ledger",
                "train with the gateway whose ledger it was built from",
                code="student.unknown_dataset",
            )
        declaration = self._check_words(manifest, payload)
        reasoning = manifest.asked.reasoning
        if (declared, reasoning) not in self._gates:
            self._gates[declared, reasoning] = Gate(
                declaration,
                self._sources.today,
                self._sources.law,
                self._sources.words,
                self._ancestry,
                reasoning=reasoning,
            )
        return payload, self._gates[declared, reasoning]

    def _check_words(self, manifest: DatasetManifest, payload: Sha256) -> Declaration:
        """Return the declaration of a dataset, if it stands, covers this, and nothing is held.

        Held is what was withdrawn, and what was made of something that was.
        """
        name, declared = manifest.asked.dataset, manifest.asked.declaration
        words = self._sources.words
        for what, withdrawal in (
            (f"declaration {declared} of dataset `{name}`", words.withdrawn(declared)),
            (f"dataset `{name}`, or something it was made of,", words.held(payload)),
        ):
            if withdrawal is not None:
                raise _refused(
                    f"{what} was withdrawn by {withdrawal.by}: {withdrawal.reason}",
                    "a withdrawal is the last word; " + _BUILD_AGAIN,
                    code="student.withdrawn",
                )
        return self._declaration(manifest)

    def _check_verdict(self, dataset: VerifiedDataset) -> None:
        declared = dataset.manifest.asked.declaration
        spoken = self._sources.words.verdicts(declared)
        if spoken and not spoken[-1][1].approved:
            verdict = spoken[-1][1]
            raise _refused(
                f"declaration {declared} of dataset `{dataset.name}` was declined by "
                f"{verdict.by}: {verdict.reason}",
                "ask legal; a later yes opens it again",
                code="student.rows_refused",
            )

    def _declaration(self, manifest: DatasetManifest) -> Declaration:
        """Return the declaration of a dataset, if it stands and covers this training."""
        declared, today = manifest.asked.declaration, self._sources.today.isoformat()
        declaration = self._sources.words.declaration(declared)
        if declaration is None or declaration.use != manifest.found.use:
            raise _refused(
                f"declaration {declared} is not registered with these words",
                "register the use: `gateway use declare`; then " + _BUILD_AGAIN,
            )
        if declaration.expires is not None and declaration.expires < today:
            raise _refused(
                f"declaration {declared} expired on {declaration.expires}",
                "declare the use again: `gateway use declare`; then " + _BUILD_AGAIN,
            )
        use = declaration.use
        purpose, kind = PURPOSES[self._objective], ROW_KINDS[self._objective]
        if not covers(use.purpose, purpose):
            raise _refused(
                f"declaration {declared} is for `{use.purpose}`, this training is `{purpose}`",
                f"declare a use for `{purpose}`; then " + _BUILD_AGAIN,
            )
        if manifest.asked.kind != kind:
            raise _refused(
                f"dataset `{manifest.asked.dataset}` holds rows of kind "
                f"`{manifest.asked.kind}`, `{self._objective}` learns from `{kind}`",
                f"build one of that kind: `gateway dataset build --kind {kind}`",
                code="student.wrong_kind",
            )
        if use.student is not None and self._student not in {None, use.student}:
            raise _refused(
                f"declaration {declared} is for student `{use.student}`, "
                f"not for `{self._student}`",
                f"train it as `--name {use.student}`, or declare the other student",
            )
        if use.base_model is not None and use.base_model != self._base.name:
            raise _refused(
                f"declaration {declared} is for base `{use.base_model}`, "
                f"not for `{self._base.name}`",
                "give the declared base, or declare the other one",
            )
        return declaration

    def _rule_on_licences(self) -> None:
        """Rule on what is declared under the licence of the base, and of what that began as.

        A licence that the policies do not know permits nothing.
        """
        for name, licence in self._licences():
            policy = policy_of_licence(licence)
            for (declared, _), gate in self._gates.items():
                ruled = gate.ruling_for(
                    Group(
                        call=Call(
                            provider=name, model=None, operation="chat", policies=(policy,)
                        ),
                        manifest=None,
                        day=self._sources.today.isoformat(),
                    )
                )
                why = ruled.left_out or barred_by(ruled.obligations)
                if why is not None:
                    raise _refused(
                        f"the licence `{licence}` of base `{name}` does not allow declaration "
                        f"{declared}: {why.reason} {why.detail}".rstrip(),
                        "begin with another base, or ask legal: `gateway policy explain`",
                        code="student.base_licence_refused",
                    )

    def _licences(self) -> Iterator[tuple[str, str]]:
        """Yield name and licence of each base from outside: this one's, or those above it."""
        parent = self._base.manifest
        if parent is None and self._base.kind != "tiny":
            yield self._base.name, self._base.licence
        waiting = [] if parent is None else [parent]
        for payload in waiting:
            if self._sources.manifest(payload) is None:
                continue  # Whoever asks for the teachers above refuses it by name.
            training = self._ancestry.training(payload)
            for base in training.bases():
                yield base.name.removeprefix("base:"), str(base.annotations.get("licence"))
            waiting += [
                Sha256(one.digest["sha256"])
                for one in training.parents()
                if one.kind == TRAINING_MANIFEST
            ]

    def _rule_on_base(self) -> None:
        """Where the base is a student of ours, whoever taught it teaches here too."""
        self._rule_on_licences()
        parent = self._base.manifest
        if parent is None:
            return
        if self._sources.manifest(parent) is None:
            raise _refused(
                f"the training manifest of base `{self._base.name}` is not in this ledger",
                "train with the gateway whose ledger it was trained from",
                code="student.unknown_base",
            )
        above, words = self._ancestry.above(parent), self._sources.words
        said = [
            words.held(parent),
            *map(words.withdrawn, above.manifests),
            *map(words.withdrawn, above.declarations),
        ]
        for withdrawal in said:
            if withdrawal is not None:
                raise _refused(
                    f"something base `{self._base.name}` comes from was withdrawn by "
                    f"{withdrawal.by}: {withdrawal.reason}",
                    "begin with another base",
                    code="student.withdrawn",
                )
        for (declared, _), gate in self._gates.items():
            ruled = gate.ruling_for(
                Group(
                    call=Call(provider=self._base.name, model=None, operation="chat"),
                    manifest=parent,
                    day=self._sources.today.isoformat(),
                )
            )
            why = ruled.left_out or barred_by(ruled.obligations)
            if why is not None:
                raise _refused(
                    f"the teachers of base `{self._base.name}` do not allow declaration "
                    f"{declared}: {why.reason} {why.detail}".rstrip(),
                    "begin with another base, or ask legal: `gateway policy explain`",
                )

    def _above(self, teachers: Sequence[Teacher]) -> tuple[Teacher, ...]:
        """Return the teachers of those teachers, and of a base, that are students of ours."""
        parents = [one.manifest for one in teachers if one.manifest is not None]
        if self._base.manifest is not None:
            parents.append(self._base.manifest)
        return tuple(
            dict.fromkeys(
                teacher
                for parent in dict.fromkeys(parents)
                for teacher in self._ancestry.above(parent).teachers
            )
        )

    def _name(self, use: IntendedUse, datasets: Sequence[VerifiedDataset]) -> str:
        name = self._student or use.student or f"{datasets[0].name}-student"
        if not NAME.fullmatch(name):
            raise _refused(
                f"`{name}` is not a name for a student",
                "use lower-case letters, digits, dots and dashes",
            )
        return name


def policy_of_licence(licence: str) -> str:
    """Return the id of the policy that reads *licence*, as cards of models name it."""
    return re.sub(r"^llama(?=\d)", "llama-", licence.lower())


def _prompts(dataset: VerifiedDataset) -> HeldOutPrompts:
    return HeldOutPrompts(dataset.path, dataset.manifest.asked.kind)


def _check_order(datasets: Sequence[VerifiedDataset]) -> None:
    """Check that snapshots of a feed come in its order: a round is learned after another."""
    later = {dataset.manifest_sha256: dataset.name for dataset in datasets}
    for dataset in datasets:
        later.pop(dataset.manifest_sha256)
        before = later.get(dataset.manifest.asked.follows or Sha256(""))
        if before is not None:
            raise _refused(
                f"dataset `{dataset.name}` follows `{before}`, which is named after it",
                "name the snapshots of a feed in their order",
            )


class _Refused(NamedTuple):
    """A row that may not teach, without its words."""

    number: int
    source: ExchangeId
    is_derived: bool
    why: LeftOut

    @classmethod
    def of(cls, row: Row, why: LeftOut) -> Self:
        """Return that *row* is refused, and *why*."""
        return cls(row.number, row.source, row.derivation is not None, why)


class _Erasures:
    """Asks of many rows together whether their text, or that of what they are of, is erased."""

    def __init__(self, erased_of: Callable[[Sequence[ExchangeId]], set[ExchangeId]]) -> None:
        self._erased_of = erased_of
        # Of each row: how it is refused if its text is gone, and whose texts stand above it.
        self._rows: list[tuple[_Refused, tuple[ExchangeId, ...]]] = []
        self._names: dict[ExchangeId, None] = {}

    def see(self, row: Row) -> Iterator[_Refused]:
        """Take *row*; yield what is refused of those at hand, where it is time to ask."""
        above = tuple(name for one in row.above() if (name := _text_of(one)) is not None)
        self._rows.append((_Refused.of(row, LeftOut("content-erased")), above))
        self._names.update(dict.fromkeys((row.source, *above)))
        if len(self._names) >= _NAMES_AT_ONCE:
            yield from self.ask()

    def ask(self) -> Iterator[_Refused]:
        """Yield what is refused of the rows at hand."""
        rows, names = self._rows, list(self._names)
        self._rows, self._names = [], {}
        erased = self._erased_of(names) if names else set()
        for row, above in rows if erased else ():
            gone = next((name for name in above if name in erased), None)
            if row.source in erased:
                yield row
            elif gone is not None:
                yield row._replace(why=LeftOut("parent-erased", gone))


def _text_of(above: Above) -> ExchangeId | None:
    """Return under what the text of an ancestor is kept; a student has none."""
    if above.answer is not None:
        return ExchangeId(above.answer.exchange)
    statement = above.statement
    return statement.derivation if isinstance(statement, Derivation) else None


def _rows_refused(dataset: str, count: int, refused: Sequence[_Refused]) -> GateRefusedError:
    reasons = [row.why.reason for row in refused]
    listed = ", ".join(f"{number} {why}" for why, number in Counter(reasons).most_common())
    first = min(refused, key=lambda row: row.number)
    what = "derivation" if first.is_derived else "receipt"
    detail = f" ({first.why.detail})" if first.why.detail else ""
    hint, code = _BUILD_AGAIN + " leaves them out", "student.rows_refused"
    if _ERASED.issuperset(reasons):
        hint, code = hint + "; then remove this one, which holds their words", "student.erased"
    return _refused(
        f"{len(refused)} of {count} rows of dataset `{dataset}` may not teach this student: "
        f"{listed}; first row {first.number}, {what} {first.source}{detail}",
        hint,
        code=code,
    )


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Say in which folder it is that something does not verify: several may be named."""
    try:
        yield
    except EvidenceError as error:
        if str(folder) in error.message:
            raise
        raise type(error)(
            f"{folder}: {error.message}",
            hint=error.hint or "take the dataset from its source again",
            code=error.problem,
        ) from error


def _refused(message: str, hint: str, *, code: str = "student.refused") -> GateRefusedError:
    return GateRefusedError(message, hint=hint, code=code)


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST
    if path.is_fifo():
        # To open one waits for whoever writes to it.
        raise NoDatasetError(
            f"`{folder}` is no dataset folder: {MANIFEST} is no file",
            hint="name a folder that `gateway dataset build` made",
        )
    try:
        with path.open("rb") as file:
            return file.read(BUNDLE_BYTES_MAX + 1)
    except OSError as error:
        raise NoDatasetError(
            f"`{folder}` is no dataset folder: {MANIFEST} can't be read: {error.strerror}",
            hint="name a folder that `gateway dataset build` made",
        ) from error

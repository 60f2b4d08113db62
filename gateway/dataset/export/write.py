"""Write an export: a dataset in another form, its receipts beside it, signed as one.

The dataset is verified and every row of it ruled on again, as of today, in the pass that writes
it: an export is a use. The folder appears whole or not at all, by the steps of `workshop.py`;
what an interruption left is put into place only after every row was ruled on once more.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import msgspec

from gateway.canonical import canonical_json, sha256_hex
from gateway.clock import Clock, day_of, rfc3339
from gateway.dataset.ancestry import Ancestry
from gateway.dataset.export.card import card_of_export, llama_factory_of
from gateway.dataset.export.forms import Form
from gateway.dataset.export.lost import Lost
from gateway.dataset.export.manifest import (
    CARD,
    DATASET_MANIFEST_FILE,
    DATASET_PROOF_FILE,
    LLAMA_FACTORY,
    LOST,
    RECEIPTS,
    Asked,
    DataFile,
    ExportManifest,
    Found,
    Part,
    parse_export,
    statement_of,
)
from gateway.dataset.export.parts import PartWriter
from gateway.dataset.export.receipts import ReceiptLine, exported_sha256
from gateway.dataset.export.verify import verify_export
from gateway.dataset.gate.gate import Gate
from gateway.dataset.gate.ports import Law, Words
from gateway.dataset.gate.refusals import LeftOut
from gateway.dataset.manifest import (
    DATASET_MANIFEST,
    MANIFEST,
    PROOF,
    DatasetManifest,
    manifest_dependency,
    parse_manifest,
)
from gateway.dataset.provenance import Metadata
from gateway.dataset.verification.logged import verify_logged
from gateway.dataset.verification.verify import Row, VerifiedDataset, verified_rows
from gateway.dataset.workshop import (
    DigestedFile,
    empty_folder,
    interrupted,
    only_builder,
    put_into_place,
    swept_on_failure,
    sync_folder,
    write_file,
    write_proof,
)
from gateway.errors import (
    BadDigestError,
    EvidenceError,
    GateRefusedError,
    MalformedReceiptError,
    OperatorError,
)
from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.intent.model import NAME, Declaration
from gateway.limits import EXPORT_FILES_MAX, EXPORT_SHARD_ROWS
from gateway.receipt.envelope import Signer
from gateway.receipt.keys import Trust
from gateway.receipt.model import Manifest, Receipt, Subject
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.verify import verify_manifest
from gateway.tlog.merkle import leaf_hash
from gateway.tlog.proof import InclusionProof

_ERASURES_REMEMBERED: Final = 4_096
"""Of rows that follow each other, many come from the same answers."""

PARTS: Final[tuple[Part, ...]] = ("train", "held-out")


class Said(Words, Protocol):
    """What people said, as far as an export needs it."""

    def declaration(self, declaration: DeclarationId) -> Declaration | None:
        """Return the registered declaration of that id."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be exported, in which form, and where to."""

    dataset: Path
    form: Form
    folder: Path
    splits: tuple[Part, ...] = ()
    """Which parts; none named is all that there are."""
    shard_rows: int | None = None
    """Rows of one file; without a number lines of JSON stand in one file a part."""
    receipt_column: bool = False
    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What an export reads and the one thing it writes besides its folder: a leaf."""

    law: Law
    library: Sha256
    words: Said
    refresh: Callable[[], None]
    """Take in what others have written to the ledger meanwhile."""
    was_erased: Callable[[ExchangeId], bool]
    """Tells whether text of an exchange, or of a derivation, was kept once, and erased."""
    manifest: Callable[[Sha256], Manifest | None]
    index_of: Callable[[Sha256], int | None]
    """Leaf index of the manifest whose payload has that digest."""
    prove: Callable[[int, str], InclusionProof]
    publish: Callable[[], str]
    """Sign a checkpoint that covers every leaf there is."""
    append: Callable[[bytes], int]
    """Make a leaf durable and return its index."""
    signer: Signer
    trust: Trust
    clock: Clock
    version: str
    invocation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An export that stands."""

    folder: Path
    manifest: ExportManifest
    manifest_sha256: Sha256
    index: int | None
    """Leaf index of the manifest; `None` where an interrupted export was put into place."""


Progress = Callable[[int, int], None]
"""Told how many rows were looked at, and how many there are."""


def export_dataset(
    order: Order, sources: Sources, progress: Progress | None = None
) -> Exported:
    """Export a dataset and make the export's manifest a leaf of the ledger.

    Raises:
        GateRefusedError: a row may no longer be learned from, the form can't hold the rows, or
            something stands in the way; the message names it.
        EvidenceError: the dataset does not verify.
        MissingPieceError: the form needs a library that is not installed.
        OperatorError: the ledger or the disk can't take it.
    """
    source = _open(order, sources)
    asked = _asked(order, source.manifest)
    workshop = workshop_of(order.folder)
    passing = _Passing(source, order, sources, progress or _silent)
    try:
        order.folder.parent.mkdir(parents=True, exist_ok=True)
        with only_builder(workshop):
            rescued = _finish_interrupted(order, asked, sources, workshop, passing)
            if rescued is not None:
                return rescued
            empty_folder(workshop)
            with swept_on_failure(workshop):
                return _export(order, asked, sources, workshop, passing)
    except OSError as exc:
        raise OperatorError(
            f"export `{asked.name}` could not be written: {exc.strerror}",
            hint=f"make room in `{order.folder.parent}`, or choose another place with --out",
            code="disk.unwell",
        ) from exc


def _silent(done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A dataset that may be exported if its rows may, as far as its manifest tells."""

    manifest: DatasetManifest
    payload_sha256: Sha256
    gate: Gate


def _open(order: Order, sources: Sources) -> _Source:
    if not NAME.fullmatch(order.folder.name):
        raise _refused(
            f"`{order.folder.name}` is not a name for an export",
            "use lower-case letters, digits, dots and dashes",
            code="dataset.misnamed",
        )
    if order.folder.exists():
        raise _refused(
            f"`{order.folder}` already stands; an export is never changed",
            "choose another place with --out",
            code="dataset.exists",
        )
    logged = verify_logged(order.dataset, sources.trust)
    manifest = parse_manifest(logged.statement)
    payload, asked = logged.payload_sha256, manifest.asked
    if sources.index_of(payload) is None:
        raise _refused(
            f"the manifest of dataset `{asked.dataset}` is not in this ledger",
            "export with the gateway whose ledger it was built from",
            code="export.unknown_dataset",
        )
    _check_standing(manifest, payload, sources)
    if asked.kind not in order.form.kinds:
        raise _refused(
            f"`{order.form.name}` holds rows of kind "
            f"`{'`, `'.join(order.form.kinds)}`, dataset `{asked.dataset}` those of "
            f"`{asked.kind}`",
            "docs/formats/exports.md says which form holds what",
            code="export.unfit",
        )
    _check_parts(order, manifest)
    today = day_of(sources.clock.now_ms())
    gate = Gate(
        _declaration(manifest, sources, today.isoformat()),
        today,
        sources.law,
        sources.words,
        Ancestry(sources.manifest),
        reasoning=asked.reasoning,
    )
    return _Source(manifest=manifest, payload_sha256=payload, gate=gate)


def _check_standing(manifest: DatasetManifest, payload: Sha256, sources: Sources) -> None:
    """Refuse a dataset of which something was withdrawn, as far as is known by now."""
    asked = manifest.asked
    withdrawal = sources.words.withdrawn(asked.declaration) or sources.words.held(payload)
    if withdrawal is not None:
        raise _refused(
            f"dataset `{asked.dataset}`, or something it was made of, was withdrawn by "
            f"{withdrawal.by}: {withdrawal.reason}",
            "a withdrawal is the last word; build the dataset again: `gateway dataset build`",
            code="export.withdrawn",
        )


def _declaration(manifest: DatasetManifest, sources: Sources, today: str) -> Declaration:
    """Return the declaration of a dataset, if it stands today."""
    declared = manifest.asked.declaration
    declaration = sources.words.declaration(declared)
    if declaration is None or declaration.use != manifest.found.use:
        raise _refused(
            f"declaration {declared} is not registered with these words",
            "register the use: `gateway use declare`; then build the dataset again",
        )
    if declaration.expires is not None and declaration.expires < today:
        raise _refused(
            f"declaration {declared} expired on {declaration.expires}",
            "declare the use again: `gateway use declare`; then build the dataset again",
            code="declaration.expired",
        )
    return declaration


def _check_parts(order: Order, manifest: DatasetManifest) -> None:
    there = _parts_of(manifest)
    for part in order.splits:
        if part not in there:
            raise _refused(
                f"dataset `{manifest.asked.dataset}` has no part `{part}`",
                "nothing was held out of it; leave --split away",
                code="export.no_split",
            )
    rows = _shard_rows(order)
    if rows is not None and manifest.found.rows // rows + len(there) > EXPORT_FILES_MAX:
        raise _refused(
            f"{manifest.found.rows} rows in files of {rows} are more than {EXPORT_FILES_MAX} "
            "files",
            "give a larger --shard-rows",
            code="export.too_many_files",
        )


def _parts_of(manifest: DatasetManifest) -> tuple[Part, ...]:
    return PARTS if manifest.found.splits else ("train",)


def _shard_rows(order: Order) -> int | None:
    return order.shard_rows or (EXPORT_SHARD_ROWS if order.form.is_parquet else None)


def _asked(order: Order, manifest: DatasetManifest) -> Asked:
    wanted = order.splits or PARTS
    return Asked(
        name=order.folder.name,
        dataset=manifest.asked.dataset,
        project=manifest.asked.project,
        declaration=manifest.asked.declaration,
        format=order.form.name,
        kind=manifest.asked.kind,
        splits=tuple(part for part in _parts_of(manifest) if part in wanted),
        shard_rows=_shard_rows(order),
        receipt_column=order.receipt_column,
        strict=order.strict,
    )


class _Passing:
    """The rows of the dataset, each as it was verified and may be learned from today."""

    def __init__(
        self, source: _Source, order: Order, sources: Sources, progress: Progress
    ) -> None:
        self.source = source
        self._order = order
        self._sources = sources
        self._was_erased = functools.lru_cache(_ERASURES_REMEMBERED)(sources.was_erased)
        self._progress = progress

    def rows(self) -> Generator[Row, None, VerifiedDataset]:
        """Yield each row, whatever its part; return the dataset once all of it verified.

        Raises:
            EvidenceError: it does not verify, or is another than the one that was opened.
            GateRefusedError: a row may no longer be learned from.
        """
        manifest = self.source.manifest
        checking = verified_rows(self._order.dataset, self._sources.trust)
        dataset: VerifiedDataset | None = None
        for count in itertools.count(1):
            try:
                row = next(checking)
            except StopIteration as done:
                dataset = done.value
                break
            why = self._why_not(row)
            if why is not None:
                detail = f" ({why.detail})" if why.detail else ""
                raise _refused(
                    f"row {row.number} of `{manifest.asked.dataset}` ({row.name}) may no "
                    f"longer be learned from: {why.reason}{detail}",
                    "nothing was exported; build the dataset again: `gateway dataset build`",
                    code="export.row_refused",
                )
            yield row
            self._progress(count, manifest.found.rows)
        if dataset is None or dataset.manifest_sha256 != self.source.payload_sha256:
            raise BadDigestError(
                f"{self._order.dataset}: its manifest changed while it was read",
                hint="leave the folder alone while it is exported, and begin again",
            )
        return dataset

    def still_stands(self) -> None:
        """Hold the dataset to what was said while its rows passed.

        Raises:
            GateRefusedError: something it was made of was withdrawn meanwhile.
        """
        self._sources.refresh()
        _check_standing(self.source.manifest, self.source.payload_sha256, self._sources)

    def all_pass(self) -> None:
        """Rule on every row once more, and keep none.

        Raises:
            EvidenceError, GateRefusedError: as `rows` does.
        """
        for _ in self.rows():
            pass
        self.still_stands()

    def _why_not(self, row: Row) -> LeftOut | None:
        statement = row.statement
        if statement is None:
            raise MalformedReceiptError(f"row {row.number}: nothing vouches for it")
        above = row.above()
        why = self.source.gate.admit_row(statement, row.choice, above)
        if why is not None:
            return why
        if self._was_erased(row.source):
            return LeftOut("content-erased")
        for one in above:
            said = one.statement
            if not isinstance(said, Manifest):
                name = said.exchange if isinstance(said, Receipt) else said.derivation
                if self._was_erased(name):
                    return LeftOut("parent-erased", name)
        return None


def _export(
    order: Order, asked: Asked, sources: Sources, workshop: Path, passing: _Passing
) -> Exported:
    started = sources.clock.now_ms()
    source = passing.source
    written = _write_rows(order, asked, workshop, passing)
    if not written.rows:
        raise _refused(
            f"no row of `{asked.dataset}` has a place in `{asked.format}`",
            "choose another form",
            code="export.empty",
        )
    digests = written.digests
    digests[LOST] = write_file(
        workshop, LOST, canonical_json(written.lost.report(written.rows)) + b"\n"
    )
    for name, copied in ((DATASET_MANIFEST_FILE, MANIFEST), (DATASET_PROOF_FILE, PROOF)):
        content = (order.dataset / copied).read_bytes()
        digests[name] = write_file(workshop, name, content)
    manifest = ExportManifest(
        asked=asked,
        found=Found(
            rows=written.rows,
            files=tuple(written.files),
            lossy=written.lost.rows,
            lost=dict(written.lost.by_kind.most_common()),
            left_out=dict(written.lost.left_out.most_common()),
            use=source.manifest.found.use,
            day=source.gate.today.isoformat(),
            library=sources.library,
            obligations=_duties(source),
        ),
        dependencies=(
            manifest_dependency(asked.dataset, source.payload_sha256, DATASET_MANIFEST),
        ),
        subjects=(),
        metadata=Metadata(
            invocation_id=sources.invocation,
            started_on=rfc3339(started),
            finished_on=rfc3339(sources.clock.now_ms()),
        ),
        version=sources.version,
    )
    digests[CARD] = write_file(workshop, CARD, card_of_export(manifest).encode())
    info = llama_factory_of(manifest)
    if info is not None:
        digests[LLAMA_FACTORY] = write_file(workshop, LLAMA_FACTORY, info)
    manifest = msgspec.structs.replace(
        manifest,
        subjects=tuple(
            Subject(name=name, digest={"sha256": digests[name]}) for name in sorted(digests)
        ),
    )
    passing.still_stands()
    encoded, leaf = write_manifest(statement_of(manifest), sources.signer)
    payload = verify_manifest(encoded, sources.trust)[1]
    write_file(workshop, MANIFEST, encoded)
    for folder in ((workshop / DATASET_MANIFEST_FILE).parent, workshop, workshop.parent):
        sync_folder(folder)
    # The first durable mark: from here on the ledger says that this was exported.
    index = sources.append(leaf)
    write_proof(workshop, sources, index)
    put_into_place(workshop, order.folder)
    return Exported(
        folder=order.folder, manifest=manifest, manifest_sha256=payload, index=index
    )


def _duties(source: _Source) -> tuple[str, ...]:
    """Return the obligations of then and of today: one that is gone is not undone."""
    today = {duty for ruled in source.gate.ruled.values() for duty in ruled.obligations}
    return tuple(sorted(today.union(source.manifest.found.obligations)))


@dataclass(slots=True)
class _Written:
    """What was written of the rows."""

    rows: int = 0
    lost: Lost = field(default_factory=Lost)
    files: list[DataFile] = field(default_factory=list)
    digests: dict[str, Sha256] = field(default_factory=dict)


def _write_rows(order: Order, asked: Asked, workshop: Path, passing: _Passing) -> _Written:
    written, kind = _Written(), asked.kind
    index, leaf = -1, ""
    with contextlib.ExitStack() as stack:
        receipts = stack.enter_context(DigestedFile.create(workshop, RECEIPTS))
        parts = {
            part: PartWriter(
                workshop, part, order.form, asked, source=passing.source.payload_sha256
            )
            for part in asked.splits
        }
        for part in parts.values():
            stack.callback(part.abandon)
        for row in passing.rows():
            writer = parts.get(row.split)
            if writer is None:
                continue
            converted = order.form.convert(msgspec.json.decode(row.line), kind)
            if converted.lost and order.strict:
                raise _refused(
                    f"row {row.number} of `{asked.dataset}` ({row.name}) would lose: "
                    f"{', '.join(converted.lost)}",
                    "nothing was exported; leave --strict away, or choose another form",
                    code="export.lossy",
                )
            written.lost.add(row.number, converted)
            if converted.row is None:
                continue
            if row.index != index:
                # Many rows of a pipeline stand in one leaf.
                index, leaf = row.index, leaf_hash(row.leaf or b"").hex()
            line = ReceiptLine(
                choice=row.choice,
                exported=exported_sha256(converted.row),
                index=row.index,
                leaf=leaf,
                lost=converted.lost,
                receipt=row.name,
                row=written.rows,
                salt=row.salt,
                sha256=sha256_hex(row.line),
                source=row.number,
                split="held-out" if row.split == "held-out" else None,
            )
            writer.add(converted.row, line, len(row.line))
            receipts.write(msgspec.json.encode(line) + b"\n")
            written.rows += 1
        for part in parts.values():
            for file, sha256 in part.finish():
                written.files.append(file)
                written.digests[file.name] = sha256
        written.digests[RECEIPTS] = receipts.finish()
    return written


def workshop_of(folder: Path) -> Path:
    """Return where the export that will stand as *folder* is made."""
    return folder.parent / f".{folder.name}.exporting"


def _finish_interrupted(
    order: Order, asked: Asked, sources: Sources, workshop: Path, passing: _Passing
) -> Exported | None:
    """Put an export into place whose manifest is a leaf already, of the same words."""
    left = interrupted(workshop, sources, parse_export)
    if left is None or left.manifest.asked != asked:
        return None
    manifest = left.manifest
    made_of = {dependency.digest["sha256"] for dependency in manifest.dependencies}
    if made_of != {passing.source.payload_sha256}:
        return None
    # What may no longer be learned from may have been said since.
    passing.all_pass()
    write_proof(workshop, sources, left.index)
    try:
        verify_export(workshop, sources.trust)
    except EvidenceError:
        # What stands here is not what was signed: it is written anew.
        return None
    put_into_place(workshop, order.folder)
    return Exported(
        folder=order.folder,
        manifest=manifest,
        manifest_sha256=left.payload_sha256,
        index=None,
    )


def _refused(message: str, hint: str, *, code: str = "export.refused") -> GateRefusedError:
    return GateRefusedError(message, hint=hint, code=code)

"""Write a dataset folder: rows, their receipts, the evidence, and a signed manifest.

The folder appears whole or not at all. It is built under a name of its own beside the place
where it will stand; the manifest becomes a leaf of the ledger, and the proof of that joins the
folder; then the folder is renamed into place. What is true if the power fails: before the leaf,
nothing was built, and the next build of that name starts over. Between leaf and rename, all
that was built is on the disk, and the next build of that name with the same words fetches the
proof of the manifest's leaf and puts the folder into place instead of building again.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from gateway.canonical import canonical_json, sha256_hex
from gateway.clock import Clock, day_of, rfc3339
from gateway.dataset.ancestry import Ancestry
from gateway.dataset.card import card_of
from gateway.dataset.gate import Gate, Kept, Law, LeftOut, Row, Words, group_of
from gateway.dataset.keys import format_key_line
from gateway.dataset.logged import verify_logged
from gateway.dataset.manifest import (
    CARD,
    CHECKPOINT,
    KEYS,
    LEAVES,
    LEDGER_CHECKPOINT,
    LEFT_OUT,
    MANIFEST,
    POLICIES,
    PROOF,
    RECEIPTS,
    ROWS,
    SPANS,
    TILES,
    TRAINING_MANIFEST,
    DatasetManifest,
    Dependency,
    Findings,
    Metadata,
    Parameters,
    Teacher,
    left_out_counts,
    manifest_dependency,
    parse_manifest,
    statement_of,
    tile_file,
)
from gateway.dataset.rows import ReceiptLine, Span
from gateway.dataset.tree import ReadTile, TilesWriter, levels_of
from gateway.dataset.workshop import (
    DigestedFile,
    empty_folder,
    only_builder,
    put_into_place,
    swept_on_failure,
    sync_folder,
    write_file,
)
from gateway.errors import EvidenceError, GateRefusedError, LedgerDamagedError, OperatorError
from gateway.ident import DeclarationId, ExchangeId, Sha256
from gateway.intent.model import NAME, Declaration
from gateway.limits import ROWS_PER_SPAN
from gateway.receipt.authority import Authority
from gateway.receipt.envelope import Signer, open_envelope
from gateway.receipt.keys import Trust
from gateway.receipt.model import (
    KeyAuthorization,
    KeyRevocation,
    Manifest,
    Receipt,
    Subject,
)
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import signed_statement, verify_manifest
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import leaf_hash
from gateway.tlog.proof import InclusionProof, format_proof


class EmptyDatasetError(GateRefusedError):
    """No candidate may be learned from; *left_out* counts why."""

    code = "dataset.empty"

    def __init__(self, left_out: Mapping[str, int], *, hint: str) -> None:
        counted = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        super().__init__(f"no row may be learned from ({counted or 'no candidate'})", hint=hint)
        self.left_out = dict(left_out)


class Texts(Protocol):
    """Where the text of exchanges is kept."""

    def get(self, exchange: ExchangeId) -> Kept | None:
        """Return what was kept of an exchange, or `None`."""
        ...

    def was_erased(self, exchange: ExchangeId) -> bool:
        """Tell whether text of an exchange was kept once, and erased."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be built, and where."""

    name: str
    declaration: Declaration
    folder: Path
    filters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a build reads and the one thing it writes besides its folder: a leaf."""

    candidates: Callable[[], Iterable[tuple[int, bytes]]]
    """Leaf index and leaf of every receipt that the filters select, in order of the ledger."""
    texts: Texts
    law: Law
    library: Sha256
    words: Words
    manifest: Callable[[Sha256], Manifest | None]
    index_of: Callable[[Sha256], int | None]
    """Leaf index of the manifest whose payload has that digest."""
    prove: Callable[[int, str], InclusionProof]
    tile: ReadTile
    leaf: Callable[[int], bytes]
    publish: Callable[[], str]
    """Sign a checkpoint that covers every leaf there is."""
    checkpoint: str
    """A signed note that covers every candidate."""
    covers: Checkpoint
    """What that note says."""
    append: Callable[[bytes], int]
    """Make a leaf durable and return its index."""
    signer: Signer
    trust: Trust
    authority: Authority
    clock: Clock
    version: str
    invocation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A dataset folder that stands."""

    folder: Path
    manifest: DatasetManifest
    manifest_sha256: Sha256
    index: int | None
    """Leaf index of the manifest; `None` where an interrupted build was put into place."""


Progress = Callable[[int, int], None]
"""Told how many candidates were looked at, and how many rows were taken."""


def build_dataset(order: Order, sources: Sources, progress: Progress | None = None) -> Built:
    """Build a dataset folder and make its manifest a leaf of the ledger.

    Raises:
        GateRefusedError: nothing may be learned from, the name is taken, or the declaration
            has expired or was withdrawn.
        EvidenceError: a receipt of the ledger does not verify.
        OperatorError: the ledger or the disk can't take it.
    """
    _check(order, sources)
    workshop = order.folder.parent / f".{order.folder.name}.building"
    try:
        order.folder.parent.mkdir(parents=True, exist_ok=True)
        with only_builder(workshop):
            rescued = _finish_interrupted(order, sources, workshop)
            if rescued is not None:
                return rescued
            empty_folder(workshop)
            with swept_on_failure(workshop):
                return _build(order, sources, workshop, progress or _silent)
    except OSError as exc:
        raise OperatorError(
            f"dataset `{order.name}` could not be written: {exc.strerror}",
            hint=f"make room in `{order.folder.parent}`, or choose another place with --out",
            code="disk.unwell",
        ) from exc


def _silent(seen: int, rows: int) -> None:
    """Tell nobody."""


def _check(order: Order, sources: Sources) -> None:
    declaration, today = order.declaration, day_of(sources.clock.now_ms())
    if not NAME.fullmatch(order.name):
        raise GateRefusedError(
            f"`{order.name}` is not a name for a dataset",
            hint="use lower-case letters, digits, dots and dashes",
            code="dataset.misnamed",
        )
    if order.folder.exists():
        raise GateRefusedError(
            f"`{order.folder}` already stands; a dataset is never changed",
            hint="choose another name, or another place with --out",
            code="dataset.exists",
        )
    if declaration.expires is not None and declaration.expires < today.isoformat():
        raise GateRefusedError(
            f"declaration {declaration.id} expired on {declaration.expires}",
            hint="declare the use again: `gateway use declare`",
            code="declaration.expired",
        )
    withdrawal = sources.words.withdrawn(declaration.id)
    if withdrawal is not None:
        raise GateRefusedError(
            f"declaration {declaration.id} was withdrawn by {withdrawal.by}: "
            f"{withdrawal.reason}",
            hint="a withdrawal is the last word; declare another use",
            code="declaration.withdrawn",
        )


def _build(order: Order, sources: Sources, workshop: Path, progress: Progress) -> Built:
    started = sources.clock.now_ms()
    gate = Gate(
        order.declaration,
        day_of(started),
        sources.law,
        sources.words,
        Ancestry(sources.manifest),
    )
    tally = _write_rows(workshop, gate, sources, progress)
    if not tally.rows:
        raise EmptyDatasetError(
            dict(tally.left_out.most_common()),
            hint="docs/formats/dataset.md says what each reason means and who can change it",
        )
    files = tally.files
    files[CHECKPOINT] = write_file(workshop, CHECKPOINT, sources.checkpoint.encode())
    files[POLICIES] = write_file(workshop, POLICIES, _rulings(gate, sources.library))
    manifest = _manifest(order, sources, gate, tally, started)
    files[CARD] = write_file(workshop, CARD, card_of(manifest).encode())
    manifest = msgspec.structs.replace(
        manifest,
        subjects=tuple(
            Subject(name=name, digest={"sha256": files[name]}) for name in sorted(files)
        ),
    )
    encoded, leaf = write_manifest(statement_of(manifest), sources.signer)
    payload = verify_manifest(encoded, sources.trust)[1]
    write_file(workshop, MANIFEST, encoded)
    for folder in (
        workshop / TILES,
        (workshop / TILES).parent,
        workshop,
        workshop.parent,
    ):
        sync_folder(folder)
    # The first durable mark: from here on the ledger says that this dataset was built.
    index = sources.append(leaf)
    _write_proof(workshop, sources, index)
    put_into_place(workshop, order.folder)
    return Built(folder=order.folder, manifest=manifest, manifest_sha256=payload, index=index)


@dataclass(slots=True)
class _Teacher:
    """What is counted of one kind of call while rows are written."""

    rows: int = 0
    receipts: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    days: set[str] = field(default_factory=set)
    declarations: set[DeclarationId] = field(default_factory=set)
    reported: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Tally:
    """What is counted while rows are written."""

    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    teachers: dict[tuple[Any, Sha256 | None], _Teacher] = field(default_factory=dict)
    files: dict[str, Sha256] = field(default_factory=dict)


def _write_rows(workshop: Path, gate: Gate, sources: Sources, progress: Progress) -> _Tally:
    tally = _Tally()
    with contextlib.ExitStack() as stack:
        rows, receipts, leaves, left_out, spans, keys = (
            stack.enter_context(DigestedFile.create(workshop, name))
            for name in (ROWS, RECEIPTS, LEAVES, LEFT_OUT, SPANS, KEYS)
        )
        levels = [
            stack.enter_context(DigestedFile.create(workshop, tile_file(level)))
            for level in range(levels_of(sources.covers.size))
        ]
        tiles = TilesWriter(
            sources.covers.size, sources.tile, lambda level, hashes: levels[level].write(hashes)
        )
        keyids: set[str] = set()
        span_row = -ROWS_PER_SPAN
        for seen, (index, leaf) in enumerate(sources.candidates(), start=1):
            if index >= sources.covers.size:
                break
            receipt, keyid = _receipt(index, leaf, sources.authority)
            taken: list[Row] = []
            for choice, outcome in _outcomes(gate, receipt, sources.texts):
                match outcome:
                    case LeftOut(reason, detail):
                        tally.left_out[reason] += 1
                        left_out.line(_left_out(receipt, choice, reason, detail))
                    case Row():
                        taken.append(outcome)
            if taken:
                if tally.rows - span_row >= ROWS_PER_SPAN:
                    span_row = tally.rows
                    span = Span(
                        index=index,
                        leaves=leaves.size,
                        receipts=receipts.size,
                        row=tally.rows,
                        rows=rows.size,
                        tiles=tiles.offsets(index),
                    )
                    spans.write(msgspec.json.encode(span) + b"\n")
                tiles.touch(index)
                leaves.write(len(leaf).to_bytes(2, "big") + leaf)
                keyids.add(keyid)
                hashed = leaf_hash(leaf).hex()
                for row in taken:
                    line = _receipt_line(tally.rows, receipt, index, hashed, row)
                    rows.write(row.line + b"\n")
                    receipts.write(msgspec.json.encode(line) + b"\n")
                    tally.rows += 1
                _count(tally, receipt, len(taken))
            progress(seen, tally.rows)
        tiles.finish()
        for at, statement in sorted(_said_of(keyids, sources).items()):
            proof = sources.prove(at, sources.checkpoint)
            keys.write(format_key_line(at, statement, proof.hashes) + b"\n")
        for file in (rows, receipts, leaves, left_out, spans, keys, *levels):
            tally.files[file.name] = file.finish()
    return tally


def _said_of(keyids: Iterable[str], sources: Sources) -> dict[int, bytes]:
    """Return what the log says of these keys, and of those that signed that, by leaf index."""
    said: dict[int, bytes] = {}
    left, seen = list(keyids), set(keyids)
    while left:
        keyid = left.pop()
        life = sources.authority.life(keyid)
        if life is None:
            continue
        for at in (life.authorised_at, life.ended_at):
            if at is None or not 0 <= at < sources.covers.size:
                continue
            leaf = sources.leaf(at)
            statement = read_leaf(leaf)
            # A trust file may name a key from a leaf on that says nothing of it.
            if isinstance(statement, KeyAuthorization | KeyRevocation):
                said[at] = leaf
                by = open_envelope(leaf).signatures[0].keyid or ""
                left += {by} - seen
                seen.add(by)
    return said


def _outcomes(
    gate: Gate, receipt: Receipt, texts: Texts
) -> Iterator[tuple[int | None, Row | LeftOut]]:
    refused = gate.admit(receipt)
    if refused is not None:
        yield None, refused
    else:
        kept = texts.get(receipt.exchange)
        erased = kept is None and texts.was_erased(receipt.exchange)
        yield from gate.rows_of(receipt, kept, erased=erased)


def _receipt(index: int, leaf: bytes, authority: Authority) -> tuple[Receipt, str]:
    """Return the receipt in *leaf* and its key; if it doesn't verify that is an alarm.

    Whoever verifies the dataset looks for it in the log; its signature is checked here.
    """
    try:
        receipt, keyid = signed_statement(leaf, index, authority)
    except EvidenceError as exc:
        raise LedgerDamagedError(
            f"leaf {index} of the ledger does not verify: {exc.message}",
            hint="run `gateway ledger fsck`; nothing was built",
        ) from exc
    if not isinstance(receipt, Receipt) or keyid is None:
        raise LedgerDamagedError(
            f"leaf {index} should be a usage receipt", hint="rebuild the index"
        )
    return receipt, keyid


def _receipt_line(
    row: int, receipt: Receipt, index: int, hashed: str, taken: Row
) -> ReceiptLine:
    return ReceiptLine(
        choice=taken.choice,
        exchange=receipt.exchange,
        index=index,
        leaf=hashed,
        row=row,
        salt=taken.salt.hex(),
        sha256=taken.sha256,
    )


def _left_out(receipt: Receipt, choice: int | None, reason: str, detail: str) -> dict[str, Any]:
    line: dict[str, Any] = {"exchange": receipt.exchange, "reason": reason}
    if choice is not None:
        line["choice"] = choice
    if detail:
        line["detail"] = detail
    return line


def _count(tally: _Tally, receipt: Receipt, rows: int) -> None:
    key = (group_of(receipt).call, receipt.model.manifest)
    teacher = tally.teachers.setdefault(key, _Teacher())
    teacher.rows += rows
    teacher.receipts += 1
    teacher.days.add(receipt.received[:10])
    if receipt.declared.declaration is not None:
        teacher.declarations.add(receipt.declared.declaration)
    if receipt.model.reported is not None:
        teacher.reported.add(receipt.model.reported)
    if receipt.usage is not None:
        teacher.input_tokens = _plus(teacher.input_tokens, receipt.usage.input_tokens)
        teacher.output_tokens = _plus(teacher.output_tokens, receipt.usage.output_tokens)


def _plus(sum_so_far: int | None, more: int | None) -> int | None:
    return sum_so_far if more is None else (sum_so_far or 0) + more


def _teachers(gate: Gate, tally: _Tally) -> Iterator[Teacher]:
    for (call, manifest), counted in sorted(
        tally.teachers.items(), key=lambda item: -item[1].rows
    ):
        ruled = [
            ruling
            for group, ruling in gate.ruled.items()
            if group.call == call and group.manifest == manifest and group.day in counted.days
        ]
        held = any(ruling.verdicts for ruling in ruled)
        yield Teacher(
            provider=call.provider,
            model=call.model,
            answered_by=call.answered_by,
            manifest=manifest,
            operation=call.operation,
            streaming=call.streaming,
            features=call.features,
            reported=tuple(sorted(counted.reported)),
            rows=counted.rows,
            receipts=counted.receipts,
            input_tokens=counted.input_tokens,
            output_tokens=counted.output_tokens,
            days=tuple(sorted(counted.days)),
            effect="hold" if held else "permit",
            obligations=tuple(sorted({duty for r in ruled for duty in r.obligations})),
            policies=tuple(
                sorted(
                    {pin for r in ruled for pin in r.policies},
                    key=lambda pin: (pin.policy, pin.version, pin.sha256),
                )
            ),
            clauses=tuple(
                sorted({f"{why.policy}:{why.clause}" for r in ruled for why in r.reasons})
            ),
            verdicts=tuple(sorted({index for r in ruled for index in r.verdicts})),
            declarations=tuple(sorted(counted.declarations)),
            generated_for=call.generated_for,
            route=call.route,
            account_tier=call.account_tier,
            agreements=call.agreements,
        )


def _manifest(
    order: Order, sources: Sources, gate: Gate, tally: _Tally, started_ms: int
) -> DatasetManifest:
    teachers = tuple(_teachers(gate, tally))
    students = {t.manifest: t.provider for t in teachers if t.manifest is not None}
    covers = sources.covers
    return DatasetManifest(
        asked=_parameters(order),
        found=Findings(
            rows=tally.rows,
            left_out=left_out_counts(tally.left_out),
            teachers=teachers,
            use=order.declaration.use,
            day=gate.today.isoformat(),
            library=sources.library,
            obligations=tuple(sorted({duty for t in teachers for duty in t.obligations})),
        ),
        dependencies=(
            *(
                manifest_dependency(f"student:{provider}", payload, TRAINING_MANIFEST)
                for payload, provider in sorted(students.items())
            ),
            Dependency(
                name="ledger",
                uri=f"tlog:{covers.origin}",
                digest={"sha256": sha256_hex(sources.checkpoint.encode())},
                annotations={
                    "kind": LEDGER_CHECKPOINT,
                    "origin": covers.origin,
                    "root": covers.root.hex(),
                    "size": covers.size,
                },
            ),
        ),
        subjects=(),
        metadata=Metadata(
            invocation_id=sources.invocation,
            started_on=rfc3339(started_ms),
            finished_on=rfc3339(sources.clock.now_ms()),
        ),
        version=sources.version,
    )


def _parameters(order: Order) -> Parameters:
    return Parameters(
        dataset=order.name,
        declaration=order.declaration.id,
        project=order.declaration.project,
        filters=dict(sorted(order.filters.items())),
    )


def _rulings(gate: Gate, library: Sha256) -> bytes:
    """Return every ruling that was made, by kind of call, as one JSON document."""
    return canonical_json(
        {
            "day": gate.today.isoformat(),
            "library": library,
            "rulings": [
                {
                    "accountTier": group.call.account_tier,
                    "agreements": list(group.call.agreements),
                    "answeredBy": group.call.answered_by,
                    "day": group.day,
                    "effect": ruled.effect,
                    "features": list(group.call.features),
                    "generatedFor": group.call.generated_for,
                    "streaming": group.call.streaming,
                    "leftOut": None if ruled.left_out is None else ruled.left_out.reason,
                    "manifest": group.manifest,
                    "model": group.call.model,
                    "obligations": list(ruled.obligations),
                    "operation": group.call.operation,
                    "policies": msgspec.to_builtins(ruled.policies),
                    "provider": group.call.provider,
                    "reasons": msgspec.to_builtins(ruled.reasons),
                    "reported": list(group.call.reported),
                    "route": group.call.route,
                    "verdicts": list(ruled.verdicts),
                }
                for group, ruled in gate.ruled.items()
            ],
        }
    )


def _finish_interrupted(order: Order, sources: Sources, workshop: Path) -> Built | None:
    """Put a build into place whose manifest is a leaf already and whose words are the same."""
    try:
        encoded = (workshop / MANIFEST).read_bytes()
        statement, payload = verify_manifest(encoded, sources.trust)
        manifest = parse_manifest(statement)
    except (FileNotFoundError, EvidenceError):
        return None
    index = sources.index_of(payload)
    if manifest.asked != _parameters(order) or index is None:
        return None
    _write_proof(workshop, sources, index)
    put_into_place(workshop, order.folder)
    return Built(folder=order.folder, manifest=manifest, manifest_sha256=payload, index=None)


def _write_proof(workshop: Path, sources: Sources, index: int) -> None:
    """Put into the folder what shows that its manifest is leaf *index* of the ledger."""
    (workshop / PROOF).unlink(missing_ok=True)
    write_file(workshop, PROOF, format_proof(sources.prove(index, sources.publish())).encode())
    sync_folder(workshop)
    try:
        verify_logged(workshop, sources.trust)
    except EvidenceError as exc:
        raise LedgerDamagedError(
            f"the manifest at leaf {index} does not verify: {exc.message}",
            hint="run `gateway ledger fsck`; then build the same again, nothing is lost",
        ) from exc

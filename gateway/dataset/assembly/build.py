"""Write a dataset folder: rows, their receipts, the evidence, and a signed manifest.

The folder appears whole or not at all, by the steps of `workshop.py`, whenever the power fails.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

import msgspec

from gateway.canonical import canonical_json, sha256_hex
from gateway.clock import Clock, day_of, rfc3339
from gateway.dataset.ancestry import Ancestry
from gateway.dataset.assembly.covered import Covered
from gateway.dataset.assembly.members import members_of
from gateway.dataset.assembly.signed import Signatures
from gateway.dataset.assembly.sorting import Sorter, Sorting
from gateway.dataset.assembly.taking import Choosing, Reaches, Taker, Texts
from gateway.dataset.assembly.upward import Leaves, Upward
from gateway.dataset.assembly.writing import LeftOutFile, RowsWriter, Tally
from gateway.dataset.card import card_of
from gateway.dataset.croissant import croissant_of
from gateway.dataset.gate.gate import Gate
from gateway.dataset.gate.groups import RuledAgain
from gateway.dataset.gate.ports import Law, Words
from gateway.dataset.gate.refusals import LeftOut
from gateway.dataset.manifest import (
    CARD,
    CHECKPOINT,
    CROISSANT,
    KEYS,
    LEDGER_CHECKPOINT,
    LEFT_OUT,
    MANIFEST,
    POLICIES,
    PREVIOUS_SNAPSHOT,
    TRAINING_MANIFEST,
    DatasetManifest,
    Findings,
    Parameters,
    Teacher,
    left_out_counts,
    manifest_dependency,
    parse_manifest,
    statement_of,
)
from gateway.dataset.provenance import Dependency, Metadata
from gateway.dataset.verification.count import Kind, kind_of
from gateway.dataset.verification.keys import format_key_line
from gateway.dataset.verification.tree import ReadTile
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
from gateway.errors import GateRefusedError, OperatorError
from gateway.ident import Sha256
from gateway.intent.model import NAME, Declaration
from gateway.receipt.authority import Authority
from gateway.receipt.envelope import Signer, open_envelope
from gateway.receipt.keys import Trust
from gateway.receipt.model import (
    Derivation,
    KeyAuthorization,
    KeyRevocation,
    Manifest,
    Members,
    Receipt,
    RowKind,
    Subject,
    Writer,
)
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import read_leaf, write_statement
from gateway.receipt.verify import verify_manifest
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.proof import InclusionProof

TRANSFORM: Final = "transform"
JUDGED: Final = "judged"
VERDICT: Final = "verdict"
BEST_OF: Final = "best-of"
"""Filters by which rows of a transform are chosen."""


class EmptyDatasetError(GateRefusedError):
    """No candidate may be learned from; *left_out* counts why."""

    code = "dataset.empty"

    def __init__(self, left_out: Mapping[str, int], *, hint: str) -> None:
        counted = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        super().__init__(f"no row may be learned from ({counted or 'no candidate'})", hint=hint)
        self.left_out = dict(left_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be built, and where."""

    name: str
    declaration: Declaration
    folder: Path
    filters: Mapping[str, str] = field(default_factory=dict)
    """What the candidates were selected by, word for word; `verdict`, `judged` and `best-of`
    choose among the rows of a transform."""
    kind: RowKind = "messages"
    reasoning: bool = False
    dedupe: Literal["exact", "near"] = "exact"
    held_out: str | None = None
    """The share of the clusters of prompts that is kept apart, like `0.05`."""
    seed: int = 0
    feed: Feed | None = None

    @property
    def derived(self) -> bool:
        """Whether the rows are those of a transform."""
        return TRANSFORM in self.filters


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Where a snapshot of a feed stands among the others."""

    follows: Sha256 | None
    """The manifest of the snapshot before."""
    after: int
    """What stands below this leaf was looked at already."""
    seen: Callable[[], Iterable[bytes]]
    """The SHA-256 of every row of the snapshots before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a build reads and the one thing it writes besides its folder: leaves."""

    candidates: Callable[[], Iterable[tuple[int, bytes]]]
    """Leaf index and leaf of every receipt, or derivation, that the filters select, in order
    of the ledger."""
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
    leaves: Leaves
    publish: Callable[[], str]
    """Sign a checkpoint that covers every leaf there is."""
    checkpoint: str
    """A signed note that covers every candidate."""
    covers: Checkpoint
    """What that note says."""
    append: Callable[[bytes], int]
    """Make a leaf durable and return its index."""
    signer: Signer
    states: Signer
    """The receipt key in use, which signs statements."""
    writer: Writer
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


Progress = Callable[[str, int, int], None]
"""Told what is being done, how many of what is looked at are done, and how many rows stand."""

RULING: Final = "ruling again"
COMPARING: Final = "comparing rows"
WRITING: Final = "writing rows"


def build_dataset(order: Order, sources: Sources, progress: Progress | None = None) -> Built:
    """Build a dataset folder and make its manifest a leaf of the ledger.

    Raises:
        GateRefusedError: nothing may be learned from, the name is taken, or the declaration
            has expired or was withdrawn.
        EvidenceError: a receipt of the ledger does not verify.
        OperatorError: the ledger or the disk can't take it.
    """
    _check(order, sources)
    workshop = workshop_of(order.folder)
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


def _silent(doing: str, done: int, rows: int) -> None:
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
        reasoning=order.reasoning,
    )
    tally, reaches = _write_rows(order, workshop, gate, sources, progress)
    if not tally.rows:
        raise EmptyDatasetError(
            dict(tally.left_out.most_common()),
            hint="docs/formats/dataset.md says what each reason means and who can change it",
        )
    files = tally.files
    files[KEYS] = write_file(workshop, KEYS, _key_lines(tally.keyids, sources))
    files[CHECKPOINT] = write_file(workshop, CHECKPOINT, sources.checkpoint.encode())
    files[POLICIES] = write_file(workshop, POLICIES, _rulings(gate, sources.library))
    manifest = _manifest(order, sources, gate, tally, reaches, started)
    files[CARD] = write_file(workshop, CARD, card_of(manifest).encode())
    manifest = _naming(manifest, files)
    files[CROISSANT] = write_file(workshop, CROISSANT, croissant_of(manifest))
    manifest = _naming(manifest, files)
    encoded, leaf = write_manifest(statement_of(manifest), sources.signer)
    payload = verify_manifest(encoded, sources.trust)[1]
    write_file(workshop, MANIFEST, encoded)
    named = {parent for name in files for parent in Path(name).parents}
    for folder in sorted(named, key=lambda folder: -len(folder.parts)):
        sync_folder(workshop / folder)
    sync_folder(workshop.parent)
    # Statements that name a manifest which never becomes a leaf say nothing of any dataset.
    for members in _members(order, sources, tally, payload):
        sources.append(write_statement(members, (), sources.states))
    # The first durable mark: from here on the ledger says that this dataset was built.
    index = sources.append(leaf)
    write_proof(workshop, sources, index)
    put_into_place(workshop, order.folder)
    return Built(folder=order.folder, manifest=manifest, manifest_sha256=payload, index=index)


def _naming(manifest: DatasetManifest, files: Mapping[str, Sha256]) -> DatasetManifest:
    """Return *manifest* with *files* as its subjects."""
    return msgspec.structs.replace(
        manifest,
        subjects=tuple(
            Subject(name=name, digest={"sha256": files[name]}) for name in sorted(files)
        ),
    )


def _members(
    order: Order, sources: Sources, tally: Tally, payload: Sha256
) -> Iterator[Members]:
    return members_of(
        tally.members,
        manifest=payload,
        dataset=order.name,
        at=rfc3339(sources.clock.now_ms()),
        writer=sources.writer,
    )


def _write_rows(
    order: Order, workshop: Path, gate: Gate, sources: Sources, progress: Progress
) -> tuple[Tally, Reaches]:
    tally = Tally()
    with contextlib.ExitStack() as stack:
        listed = stack.enter_context(DigestedFile.create(workshop, LEFT_OUT))
        left_out = LeftOutFile(listed, tally.left_out)

        def tell(statement: Receipt | Derivation, choice: int | None, why: LeftOut) -> None:
            if isinstance(statement, Derivation):
                left_out.tell(
                    statement.derivation, choice, why.reason, why.detail, derived=True
                )
            else:
                left_out.tell(statement.exchange, choice, why.reason, why.detail, derived=False)

        covered = Covered(sources.covers, sources.tile, sources.authority)
        choosing = Choosing(
            kind=order.kind,
            judged=JUDGED in order.filters,
            verdict=order.filters.get(VERDICT),
        )
        signatures = stack.enter_context(Signatures())
        upward = Upward(covered, signatures, sources.leaf, sources.leaves)
        taker = Taker(gate, covered, sources.texts, signatures, upward, choosing, tell)
        if order.feed is not None:
            gate.remember(order.feed.seen())
        taken = taker.taken(
            sources.candidates(),
            lambda seen, rows: progress(RULING, seen, rows),
        )
        sorting = Sorting(
            kind=order.kind,
            near=order.dedupe == "near",
            best=BEST_OF in order.filters,
            held_out=None if order.held_out is None else Fraction(order.held_out),
            seed=order.seed,
        )
        sorter = Sorter(sorting, workshop, left_out, sources.leaf)
        writer = RowsWriter(
            workshop,
            covered,
            taker.reaches,
            tally,
            stack,
            split=order.held_out is not None,
            derived=order.derived,
        )
        for one, parts in sorter.sorted(taken, lambda at, n: progress(COMPARING, at, n)):
            writer.write(one, parts)
            if sorting.compares:
                progress(WRITING, tally.rows, tally.rows)
        tally.splits = sorter.splits
        writer.finish(upward)
        # Nothing is signed or added to the ledger before all were good.
        signatures.finish()
        tally.files[LEFT_OUT] = listed.finish()
    return tally, taker.reaches


def _key_lines(keyids: Iterable[str], sources: Sources) -> bytes:
    return b"".join(
        format_key_line(at, leaf, sources.prove(at, sources.checkpoint).hashes) + b"\n"
        for at, leaf in sorted(_said_of(keyids, sources).items())
    )


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


def _teachers(gate: Gate, tally: Tally, reaches: Reaches) -> Iterator[Teacher]:
    kinds = [
        (kind, counted)
        for kind, number in reaches.kinds.items()
        if (counted := tally.kinds.get(number)) is not None and counted.rows
    ]
    ruled_of: dict[Kind, list[tuple[str, RuledAgain]]] = {}
    for group, ruling in gate.ruled.items():
        kind = kind_of(group.call, group.manifest, group.influence)
        ruled_of.setdefault(kind, []).append((group.day, ruling))
    for kind, counted in sorted(kinds, key=lambda item: -item[1].rows):
        call, manifest, influence = kind
        ruled = [
            ruling
            for day, ruling in ruled_of.get(kind, ())
            if day in counted.days or not counted.days
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
            influence=influence,
        )


def _manifest(
    order: Order,
    sources: Sources,
    gate: Gate,
    tally: Tally,
    reaches: Reaches,
    started_ms: int,
) -> DatasetManifest:
    teachers = tuple(_teachers(gate, tally, reaches))
    students = {t.manifest: t.provider for t in teachers if t.manifest is not None}
    covers = sources.covers
    return DatasetManifest(
        asked=parameters_of(order),
        found=Findings(
            rows=tally.rows,
            splits=tally.splits,
            left_out=left_out_counts(tally.left_out),
            teachers=teachers,
            use=order.declaration.use,
            day=gate.today.isoformat(),
            library=sources.library,
            obligations=tuple(sorted({duty for t in teachers for duty in t.obligations})),
            made_by=tally.made_by,
            written_by=tally.written_by,
            members=tally.members.facts(),
        ),
        dependencies=(
            *_previous(order),
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


def _previous(order: Order) -> tuple[Dependency, ...]:
    """Return the edge to the snapshot before, where there is one."""
    if order.feed is None or order.feed.follows is None:
        return ()
    return (manifest_dependency("snapshot", order.feed.follows, PREVIOUS_SNAPSHOT),)


def parameters_of(order: Order) -> Parameters:
    """Return *order* as its manifest says it."""
    feed = order.feed
    return Parameters(
        dataset=order.name,
        declaration=order.declaration.id,
        project=order.declaration.project,
        filters=dict(sorted(order.filters.items())),
        kind=order.kind,
        reasoning=order.reasoning,
        dedupe=order.dedupe,
        held_out=order.held_out,
        seed=order.seed,
        follows=None if feed is None else feed.follows,
        after=None if feed is None else feed.after,
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
                    "influence": group.influence,
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


def workshop_of(folder: Path) -> Path:
    """Return where the dataset that will stand as *folder* is built."""
    return folder.parent / f".{folder.name}.building"


def _finish_interrupted(order: Order, sources: Sources, workshop: Path) -> Built | None:
    """Put a build into place whose manifest is a leaf already and whose words are the same."""
    left = interrupted(workshop, sources, parse_manifest)
    if left is None or left.manifest.asked != parameters_of(order):
        return None
    write_proof(workshop, sources, left.index)
    put_into_place(workshop, order.folder)
    return Built(
        folder=order.folder,
        manifest=left.manifest,
        manifest_sha256=left.payload_sha256,
        index=None,
    )

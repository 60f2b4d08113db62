"""Write a pack: all that an answer rests on, in one zip file that is verified offline.

A pack holds the manifests of everything above what is asked about, the signed lists of leaves
of its datasets, receipts (all, or a sample that says so), what people said, the policies that
were ruled under, cards, and a page for people; each leaf with what shows its place under one
checkpoint. It holds no text of a row or a prompt, and no salt, unless rows are asked for. The
answers in it are made from what is in it, by the code that verifies it. The same ledger under
the same checkpoint gives the same pack; it appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from gateway.canonical import canonical_json, sha256_hex
from gateway.dataset.above import UnresolvedParentError
from gateway.dataset.above import parents_of as parents_of_row
from gateway.dataset.manifest import (
    KEYS,
    LEAVES,
    parse_manifest,
    tile_file,
)
from gateway.dataset.verification.keys import format_key_line
from gateway.dataset.verification.tree import ReadTile, TilesWriter, levels_of
from gateway.errors import NotFoundError, OperatorError
from gateway.ident import Sha256
from gateway.limits import PACK_FILE_BYTES_MAX, PACK_FILES_MAX, PACK_RECEIPTS_MAX, PACK_SAMPLE
from gateway.lineage.answer import Answer
from gateway.lineage.ask import answer
from gateway.lineage.holdings import About, Holdings, parents_of, subjects_of
from gateway.lineage.leaves import LeafSet
from gateway.lineage.pack_format import (
    CHECKPOINT_FILE,
    FILES,
    FORMAT,
    INDEX_BYTES,
    LENGTH_BYTES,
    PACK,
    PACK_TYPE,
    PAGE,
    POLICIES,
    SIGNATURE,
    TEXTS,
    TRUST,
    Account,
    Choice,
    PackFacts,
    Shown,
    describes,
    manifest_file,
    pack_json,
    pins_of,
    proof_file,
)
from gateway.lineage.pack_page import page_of
from gateway.lineage.question import Question
from gateway.lineage.tree import LEAVES_MAX
from gateway.lineage.zipped import write_zip
from gateway.receipt.authority import Authority
from gateway.receipt.envelope import Signer, open_envelope, seal_unnamed
from gateway.receipt.keys import Trust, format_trust
from gateway.receipt.model import (
    DATASET_BUILD,
    STATEMENT_TYPE,
    Activation,
    AgreementFacts,
    DeclarationFacts,
    Derivation,
    KeyAuthorization,
    KeyRevocation,
    Manifest,
    Members,
    Parent,
    Receipt,
    Statement,
    Verdict,
    Withdrawal,
)
from gateway.receipt.sigstore import wrap_leaf
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import signed_statement
from gateway.store.index.rows import Kind
from gateway.tlog.checkpoint import parse_checkpoint
from gateway.tlog.note import parse_note
from gateway.tlog.proof import InclusionProof, format_proof

SAID: Final[tuple[Kind, ...]] = (
    "declaration",
    "verdict",
    "withdrawal",
    "agreement",
    "activation",
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a pack is to be about, and where it goes."""

    about: About
    questions: tuple[Question, ...]
    out: Path
    receipts: Choice | None = None
    """`None`: all, unless there are more than a pack should hold."""
    sample: int = PACK_SAMPLE
    """How many receipts are a sample, of all and of each account."""
    rows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSources:
    """What answers are made of, straight from a ledger."""

    origin: str
    size: int
    """How many leaves count."""
    leaf: Callable[[int], bytes]
    manifest: Callable[[Sha256], int | None]
    """Leaf index of the manifest with that payload."""
    manifests: Callable[[], Iterable[int]]
    """Leaf indices of every manifest, rising."""
    statements: Callable[[Sequence[Kind]], Iterable[tuple[int, Statement]]]
    account: Callable[[str], LeafSet]
    """The leaves that are receipts of an account."""
    exchange: Callable[[str], int | None]
    """Leaf index of the statement that closed an exchange, or of a derivation."""
    authority: Authority


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSources:
    """What a pack is made of; nothing is written but the pack."""

    log: LogSources
    """Its size is that of the checkpoint."""
    note: str
    """A published checkpoint."""
    prove: Callable[[int, str], InclusionProof]
    tile: ReadTile
    trust: Trust
    signer: Signer
    folder: Callable[[Sha256], Path | None]
    """The folder of a manifest, where it is at hand."""
    library: Callable[[Sha256], Mapping[str, str] | None]
    """The text of a policy library that was in force."""
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A pack that stands."""

    path: Path
    facts: PackFacts


@dataclass(slots=True)
class _Chosen:
    """Which leaves go into a pack."""

    manifests: dict[Sha256, int] = field(default_factory=dict)
    leaves: set[int] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    shown: Shown = field(default_factory=lambda: Shown(chosen="all", shown=0, of=0))


def ask_log(about: About, questions: Sequence[Question], log: LogSources) -> tuple[Answer, ...]:
    """Answer *questions* from a ledger; whoever packs the same gets the same answers.

    Raises:
        NotFoundError: what it is about is not in the log.
        EvidenceError: the ledger's own evidence does not verify.
    """
    accounts = _accounts(questions, log)
    _, found = _gather(about, accounts, log, lists=bool(accounts))
    evidence = found.evidence(about)
    return tuple(answer(question, evidence) for question in questions)


def hold_log(about: About, log: LogSources) -> Holdings:
    """Return what the ledger holds of a stage and all above it, without its receipts.

    Raises:
        NotFoundError: what it is about is not in the log.
        EvidenceError: the ledger's own evidence does not verify.
    """
    return _gather(about, {}, log, lists=False)[1]


def write_pack(order: Order, sources: PackSources, progress: Progress | None = None) -> Packed:
    """Write the pack that *order* asks for.

    Raises:
        NotFoundError: what it is about is not in the log.
        EvidenceError: the ledger's own evidence does not verify.
        OperatorError: it can't be written, or is too large.
    """
    log, tell = sources.log, progress or _quietly
    covers = parse_checkpoint(parse_note(sources.note)[0])
    accounts = _accounts(order.questions, log)
    chosen, found = _gather(order.about, accounts, log, lists=True)
    about = msgspec.structs.replace(order.about, leaves=found.asked.packed())
    _choose_receipts(order, chosen, found)
    holdings = Holdings(
        origin=covers.origin, size=covers.size, accounts=accounts, asked=found.asked
    )
    with _workshop(order.out) as workshop:
        parts: dict[str, bytes | Path] = {}
        _write_leaves(workshop, chosen, sources, holdings, about, tell)
        for index in chosen.manifests.values():
            _take_manifest(index, sources, holdings, parts)
        holdings.check()
        chosen.missing += holdings.lacks()
        _add_policies(holdings, sources, chosen, parts)
        _add_files(holdings, sources, chosen, parts, rows=order.rows)
        parts |= {
            str(path.relative_to(workshop)): path
            for path in sorted(workshop.rglob("*"))
            if path.is_file()
        }
        parts[CHECKPOINT_FILE] = sources.note.encode()
        parts[TRUST] = format_trust(sources.trust)
        evidence = holdings.evidence(about)
        facts = PackFacts(
            format=FORMAT,
            version=sources.version,
            origin=covers.origin,
            size=covers.size,
            root=Sha256(covers.root.hex()),
            about=about,
            answers=tuple(answer(question, evidence) for question in order.questions),
            accounts=tuple(
                Account(account=name, leaves=leaves.packed())
                for name, leaves in sorted(accounts.items())
            ),
            receipts=chosen.shown,
            missing=tuple(dict.fromkeys(chosen.missing)),
            rows=order.rows,
            files={},
        )
        parts[PAGE] = page_of(facts, evidence, holdings).encode()
        facts = msgspec.structs.replace(
            facts, files={name: _sha256(parts[name]) for name in sorted(parts)}
        )
        if len(parts) + 2 > PACK_FILES_MAX:
            raise OperatorError(
                f"the pack would hold {len(parts)} files, more than {PACK_FILES_MAX}",
                hint="ask about fewer stages at once",
                code="pack.too_large",
            )
        said = pack_json(facts)
        write_zip(
            order.out,
            [
                *sorted(parts.items()),
                (PACK, said),
                (SIGNATURE, _signed(said, sources.signer)),
            ],
        )
    return Packed(path=order.out, facts=facts)


def _quietly(done: int, total: int) -> None:
    """Tell nobody."""


@contextlib.contextmanager
def _workshop(out: Path) -> Iterator[Path]:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as exc:
        raise OperatorError(
            f"nothing can be written in `{out.parent}`: {exc.strerror}",
            hint="choose another place with --out",
            code="disk.unwell",
        ) from exc
    try:
        yield folder
    except OSError as exc:
        raise OperatorError(
            f"`{out}` could not be written: {exc.strerror}",
            hint="make room, or choose another place with --out",
            code="disk.unwell",
        ) from exc
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -- choosing -----------------------------------------------------------------------------


def _accounts(questions: Iterable[Question], log: LogSources) -> dict[str, LeafSet]:
    return {
        one.value: log.account(one.value).below(log.size)
        for one in questions
        if one.kind == "principal"
    }


def _gather(
    about: About, accounts: Mapping[str, LeafSet], log: LogSources, *, lists: bool
) -> tuple[_Chosen, Holdings]:
    """Gather everything that answers are made of, but for receipts."""
    chosen = _Chosen()
    found = Holdings(origin=log.origin, size=log.size, accounts=dict(accounts))
    if about.kind == "exchange":
        at = log.exchange(about.exchange or "")
        if at is None or at >= log.size:
            raise NotFoundError(f"no statement closes `{about.exchange}`")
        chosen.leaves.add(at)
        found.take(at, signed_statement(log.leaf(at), at, log.authority)[0], about)
    if about.kind == "derivation":
        chosen.leaves |= _take_above(about, log, found)
    for payload in _begin(about, log, found):
        _climb(payload, log, chosen, found)
    if lists or any(
        isinstance(said, Withdrawal) and (said.exchange or said.derivation)
        for _, said in log.statements(("withdrawal",))
    ):
        for index, statement in log.statements(("members",)):
            if isinstance(statement, Members) and statement.manifest in chosen.manifests:
                chosen.leaves.add(index)
                found.take(index, statement, about)
    for index, statement in _words(log, chosen, found):
        chosen.leaves.add(index)
        found.take(index, statement, about)
    return chosen, found


def _begin(about: About, log: LogSources, found: Holdings) -> Iterator[Sha256]:
    """Yield the manifests that are asked about."""
    match about.kind:
        case "log":
            for index in log.manifests():
                manifest = read_leaf(log.leaf(index))
                if index < log.size and isinstance(manifest, Manifest):
                    yield manifest.payload_sha256
        case "exchange":
            student = None if found.exchange is None else found.exchange[1].model.manifest
            if student is not None:
                yield student
        case "derivation":
            yield from dict.fromkeys(_students(found))
        case _:
            if about.manifest is not None:
                yield about.manifest


def _take_above(about: About, log: LogSources, found: Holdings) -> set[int]:
    """Take in the rows that are asked about and every leaf above them; return their places."""
    at = log.exchange(about.derivation or "")
    if at is None or at >= log.size:
        raise NotFoundError(f"no derivation is called `{about.derivation}`")
    statements: dict[int, Statement] = {}
    waiting, seen = [(at, about.row)], {(at, about.row)}
    # As far as the tree above them is followed, and no further.
    while waiting and len(seen) <= LEAVES_MAX:
        index, place = waiting.pop(0)
        if index not in statements:
            statements[index] = signed_statement(log.leaf(index), index, log.authority)[0]
        said = statements[index]
        if isinstance(said, Derivation):
            for parent in _parents(said, place):
                row = parent.choice if parent.derivation is not None else None
                if parent.manifest is None and 0 <= parent.index < index:
                    waiting += {(parent.index, row)} - seen
                    seen.add((parent.index, row))
    found.asked = LeafSet.of(
        index for index, said in statements.items() if isinstance(said, Receipt | Derivation)
    )
    for index in found.asked:
        found.take(index, statements[index], about)
    return set(found.asked)


def _parents(derivation: Derivation, place: int | None) -> Iterable[Parent]:
    if place is None:
        return derivation.parents
    try:
        return tuple(parents_of_row(derivation, place))
    except UnresolvedParentError:
        return ()


def _students(found: Holdings) -> Iterator[Sha256]:
    """Yield the students that answered, or ran in a pipeline, above rows."""
    for said in found.above.values():
        if isinstance(said, Receipt) and said.model.manifest is not None:
            yield said.model.manifest
        if isinstance(said, Derivation):
            yield from (one.manifest for one in said.parents if one.manifest is not None)


def _climb(start: Sha256, log: LogSources, chosen: _Chosen, found: Holdings) -> None:
    """Take in a manifest and all those above it."""
    waiting = [start]
    while waiting:
        payload = waiting.pop()
        if payload in chosen.manifests:
            continue
        index = log.manifest(payload)
        if index is None or index >= log.size:
            chosen.missing.append(f"manifest {payload} is not in this log")
            continue
        manifest, _ = signed_statement(log.leaf(index), index, log.authority)
        if isinstance(manifest, Manifest):
            chosen.manifests[payload] = index
            found.take_manifest(index, manifest)
            waiting += parents_of(manifest)


def _words(
    log: LogSources, chosen: _Chosen, found: Holdings
) -> Iterator[tuple[int, Statement]]:
    """Yield what people said that bears on what was found."""
    datasets = found.datasets()
    declarations: set[str] = set()
    agreements: set[str] = set()
    verdicts: set[int] = set()
    libraries: set[str] = set()
    for dataset in datasets.values():
        declarations.add(dataset.asked.declaration)
        libraries.add(dataset.found.library)
        for teacher in dataset.found.teachers:
            declarations |= set(teacher.declarations)
            agreements |= set(teacher.agreements)
            verdicts |= set(teacher.verdicts)
    asked: set[str] = set()
    for one in (*found.above.values(), *(found.exchange or ())[1:]):
        declarations.add(one.declared.declaration or "")
        if isinstance(one, Receipt):
            asked.add(one.exchange)
            agreements |= set(one.ruling.agreements)
            libraries.add(one.ruling.library or "")
        else:
            asked.add(one.derivation)
    used = found.wanted() if found.lists else LeafSet()
    for index, said in log.statements(SAID):
        match said:
            case DeclarationFacts():
                bears = said.declaration in declarations
            case Verdict():
                bears = (
                    index in verdicts
                    or said.declaration in declarations
                    or said.exchange in asked
                    or _among(said.exchange, used, log)
                )
            case Withdrawal():
                bears = (
                    said.declaration in declarations
                    or said.exchange in asked
                    or said.derivation in asked
                    or said.agreement in agreements
                    or said.manifest in chosen.manifests
                    or _among(said.exchange, used, log)
                    or _among(said.derivation, used, log)
                )
            case AgreementFacts():
                bears = said.agreement in agreements
            case Activation():
                bears = said.library in libraries
            case _:
                bears = False
        if bears and index < log.size:
            yield index, said


def _among(exchange: str | None, used: LeafSet, sources: LogSources) -> bool:
    at = None if exchange is None else sources.exchange(exchange)
    return at is not None and at in used


def _choose_receipts(order: Order, chosen: _Chosen, found: Holdings) -> None:
    """Choose receipts and derivations: all, or those asked about and some of the others."""
    wanted = found.wanted()
    whole = len(wanted)
    asked: Choice = order.receipts or ("all" if whole <= PACK_RECEIPTS_MAX else "sample")
    if asked == "all":
        taken = set(wanted)
    else:
        taken = set(_spread(wanted, order.sample))
        members = LeafSet()
        for payload in chosen.manifests:
            members |= found.members(payload) or LeafSet()
        for account in found.accounts.values():
            taken |= set(_spread(account, order.sample))
            taken |= set(_spread(account & members, order.sample))
    # What stands above rows that are asked about is in any case here.
    taken |= {index for index in chosen.leaves if index in wanted}
    chosen.leaves |= taken
    chosen.shown = Shown(
        chosen="all" if len(taken) == whole else "sample", shown=len(taken), of=whole
    )
    for payload, dataset in found.datasets().items():
        if found.members(payload) is None:
            chosen.missing.append(
                f"dataset `{dataset.asked.dataset}` has no signed list of what it was made from"
            )


def _spread(leaves: LeafSet, count: int) -> Iterator[int]:
    """Yield up to *count* leaves, spread evenly over all."""
    whole = len(leaves)
    if whole <= count:
        yield from leaves
        return
    step, due = whole / count, 0.0
    for at, index in enumerate(leaves):
        if at >= due:
            yield index
            due += step


# -- writing ------------------------------------------------------------------------------


def _write_leaves(
    workshop: Path,
    chosen: _Chosen,
    sources: PackSources,
    holdings: Holdings,
    about: About,
    tell: Progress,
) -> None:
    """Write leaves, the tiles that lead to them, and the keys that signed them."""
    levels = levels_of(sources.log.size)
    names = [LEAVES, KEYS, *(tile_file(level) for level in range(levels))]
    for name in names:
        (workshop / name).parent.mkdir(parents=True, exist_ok=True)
    keyids: set[str] = set()
    with contextlib.ExitStack() as stack:
        files: dict[str, BinaryIO] = {
            name: stack.enter_context((workshop / name).open("xb")) for name in names
        }
        tiles = TilesWriter(
            sources.log.size,
            sources.tile,
            lambda level, hashes: _put(files[tile_file(level)], hashes),
        )
        ordered = sorted(chosen.leaves)
        for done, index in enumerate(ordered, start=1):
            leaf = sources.log.leaf(index)
            statement, keyid = signed_statement(leaf, index, sources.log.authority)
            holdings.take(index, statement, about)
            if keyid is not None:
                keyids.add(keyid)
            tiles.touch(index)
            _put(
                files[LEAVES],
                index.to_bytes(INDEX_BYTES, "big") + len(leaf).to_bytes(LENGTH_BYTES, "big"),
            )
            _put(files[LEAVES], leaf)
            tell(done, len(ordered))
        tiles.finish()
        for at, leaf in sorted(_said_of(keyids, sources).items()):
            hashes = sources.prove(at, sources.note).hashes
            _put(files[KEYS], format_key_line(at, leaf, hashes) + b"\n")


def _put(file: BinaryIO, content: bytes) -> None:
    file.write(content)


def _said_of(keyids: Iterable[str], sources: PackSources) -> dict[int, bytes]:
    """Return what the log says of these keys, and of those that signed that."""
    said: dict[int, bytes] = {}
    left, seen = list(keyids), set(keyids)
    while left:
        life = sources.log.authority.life(left.pop())
        for at in () if life is None else (life.authorised_at, life.ended_at):
            if at is None or not 0 <= at < sources.log.size:
                continue
            leaf = sources.log.leaf(at)
            # A trust file may name a key from a leaf on that says nothing of it.
            if isinstance(read_leaf(leaf), KeyAuthorization | KeyRevocation):
                said[at] = leaf
                by = open_envelope(leaf).signatures[0].keyid or ""
                left += {by} - seen
                seen.add(by)
    return said


def _take_manifest(
    index: int, sources: PackSources, holdings: Holdings, parts: dict[str, bytes | Path]
) -> None:
    leaf = sources.log.leaf(index)
    statement, keyid = signed_statement(leaf, index, sources.log.authority)
    if not isinstance(statement, Manifest) or keyid is None:
        raise NotFoundError(f"leaf {index} is no manifest")
    holdings.take_manifest(index, statement)
    payload = statement.payload_sha256
    parts[manifest_file(payload)] = wrap_leaf(leaf, keyid)
    parts[proof_file(payload)] = format_proof(sources.prove(index, sources.note)).encode()


def _add_policies(
    holdings: Holdings,
    sources: PackSources,
    chosen: _Chosen,
    parts: dict[str, bytes | Path],
) -> None:
    """Add the text of each policy whose digest a manifest pins."""
    datasets = holdings.datasets()
    wanted = pins_of(datasets.values())
    libraries = dict.fromkeys(dataset.found.library for dataset in datasets.values())
    for digest in itertools.chain(libraries, (Sha256(""),)):
        if wanted.keys() <= {Sha256(n[len(POLICIES) : -5]) for n in parts}:
            break
        for text in (sources.library(digest) or {}).values():
            content = text.encode()
            found = sha256_hex(content)
            if found in wanted:
                parts[f"{POLICIES}{found}.yaml"] = content
    for digest, name in wanted.items():
        if f"{POLICIES}{digest}.yaml" not in parts:
            chosen.missing.append(
                f"the text of policy {name} ({digest[:12]}…) is not kept here"
            )


def _add_files(
    holdings: Holdings,
    sources: PackSources,
    chosen: _Chosen,
    parts: dict[str, bytes | Path],
    *,
    rows: bool,
) -> None:
    """Add cards and lists of parts as they were signed, and rows where they are asked for."""
    for payload, (_, manifest) in sorted(holdings.manifests.items()):
        signed = subjects_of(manifest)
        is_dataset = manifest.build_type == DATASET_BUILD
        name = parse_manifest(manifest.statement).asked.dataset if is_dataset else payload[:12]
        wanted = [one for one in signed if describes(one)]
        if rows and is_dataset:
            wanted += [one for one in signed if one in TEXTS]
        if not wanted:
            continue
        folder = sources.folder(payload)
        for one in sorted(wanted):
            path = None if folder is None else folder / one
            if path is None or not path.is_file():
                chosen.missing.append(f"{one} of {name}: its folder is not at hand")
            elif one not in TEXTS and path.stat().st_size > PACK_FILE_BYTES_MAX:
                chosen.missing.append(f"{one} of {name}: it is too long")
            elif _sha256(path) != signed[one]:
                chosen.missing.append(f"{one} of {name}: it is not as it was signed")
            else:
                parts[f"{FILES}{payload}/{one}"] = path


def _sha256(content: bytes | Path) -> Sha256:
    if isinstance(content, bytes):
        return sha256_hex(content)
    digest = sha256()
    with content.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return Sha256(digest.hexdigest())


def _signed(said: bytes, signer: Signer) -> bytes:
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": PACK, "digest": {"sha256": sha256_hex(said)}}],
        "predicateType": PACK_TYPE,
        "predicate": {"format": FORMAT},
    }
    return wrap_leaf(seal_unnamed(canonical_json(statement), signer), signer.keyid)

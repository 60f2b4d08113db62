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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import msgspec

from gateway.canonical import canonical_json, sha256_hex
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
from gateway.lineage.ask import answer
from gateway.lineage.gathering import Chosen, LogSources, accounts_asked, gather
from gateway.lineage.holdings import About, Holdings, subjects_of
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
from gateway.lineage.zipped import write_zip
from gateway.receipt.envelope import Signer, open_envelope, seal_unnamed
from gateway.receipt.keys import Trust, format_trust
from gateway.receipt.model import (
    DATASET_BUILD,
    STATEMENT_TYPE,
    KeyAuthorization,
    KeyRevocation,
    Manifest,
)
from gateway.receipt.sigstore import wrap_leaf
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import signed_statement
from gateway.tlog.checkpoint import parse_checkpoint
from gateway.tlog.note import parse_note
from gateway.tlog.proof import InclusionProof, format_proof

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


def write_pack(order: Order, sources: PackSources, progress: Progress | None = None) -> Packed:
    """Write the pack that *order* asks for.

    Raises:
        NotFoundError: what it is about is not in the log.
        EvidenceError: the ledger's own evidence does not verify.
        OperatorError: it can't be written, or is too large.
    """
    log, tell = sources.log, progress or _quietly
    covers = parse_checkpoint(parse_note(sources.note)[0])
    accounts = accounts_asked(order.questions, log)
    chosen, found = gather(order.about, accounts, log, lists=True)
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


def _choose_receipts(order: Order, chosen: Chosen, found: Holdings) -> None:
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
    chosen: Chosen,
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
    chosen: Chosen,
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
    chosen: Chosen,
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

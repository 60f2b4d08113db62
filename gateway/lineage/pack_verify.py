"""Verify a pack offline: a trust file is enough, and nothing in the pack is believed.

Every file must be the one that was signed for; every manifest and leaf must be signed by a key
that could sign it there, and stand in the log under the one checkpoint; lists of leaves must be
whole; policies and cards must be those that manifests name. Then each answer is made again from
what was found, and must be the one that the pack gives. The first thing that is wrong ends it.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import msgspec

from gateway.canonical import sha256_hex
from gateway.dataset.manifest import KEYS, LEAVES, TILES, tile_file
from gateway.dataset.verification.keys import read_authority
from gateway.dataset.verification.tree import Tree, levels_of
from gateway.errors import BadDigestError, BadProofError, BadSignatureError, EvidenceError
from gateway.ident import Sha256
from gateway.limits import (
    BUNDLE_BYTES_MAX,
    NOTE_BYTES_MAX,
    PACK_BYTES_MAX,
    PACK_FILE_BYTES_MAX,
    TRUST_BYTES_MAX,
)
from gateway.lineage.answer import Answer
from gateway.lineage.ask import answer
from gateway.lineage.holdings import Holdings, subjects_of
from gateway.lineage.leaves import LeafSet
from gateway.lineage.pack_format import (
    CHECKPOINT_FILE,
    FILES,
    FORMAT,
    INDEX_BYTES,
    LENGTH_BYTES,
    MANIFESTS,
    PACK,
    PACK_TYPE,
    PAGE,
    POLICIES,
    SIGNATURE,
    TEXTS,
    TRUST,
    PackFacts,
    describes,
    manifest_file,
    pack_json,
    pins_of,
    proof_file,
)
from gateway.lineage.pack_page import page_of
from gateway.lineage.question import MalformedQuestionError, Question, parse_question
from gateway.lineage.tree import LEAVES_MAX
from gateway.lineage.zipped import MalformedPackError, Zipped, guarded
from gateway.receipt.authority import Authority
from gateway.receipt.envelope import open_envelope, signed_by
from gateway.receipt.keys import Trust, parse_trust
from gateway.receipt.model import Manifest, Subject
from gateway.receipt.sigstore import open_manifest
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import (
    Passed,
    document_keys,
    verify_checkpoint,
    verify_inclusion_of,
    verify_leaf,
    verify_manifest,
)
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import HASH_BYTES, leaf_hash
from gateway.tlog.proof import format_proof, parse_proof
from gateway.tlog.tile import TILE_WIDTH

Progress = Callable[[int, int], None]

_AGAIN: Final = "take the pack from its source again"
_KEYS_BYTES_MAX: Final = PACK_FILE_BYTES_MAX


class ClaimDiffersError(EvidenceError):
    """A pack that gives another answer than the evidence in it."""

    code = "pack.claim_differs"


class _Statement(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """What is signed over `pack.json`."""

    type: str = msgspec.field(name="_type")
    subject: tuple[Subject, ...]
    predicate_type: str
    predicate: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPack:
    """A pack whose evidence was checked, and whose answers follow from it."""

    facts: PackFacts
    holdings: Holdings
    checkpoint: Checkpoint
    answers: tuple[Answer, ...]


def verify_pack(
    path: Path,
    trust: Trust,
    version: str,
    passed: Passed | None = None,
    progress: Progress | None = None,
) -> VerifiedPack:
    """Check the pack at *path* whole, reporting each check to *passed*.

    *version* is that of this package: what is signed for but was put into words by another one
    is not made again, and *passed* is told so. *progress* is told how many leaves were checked.

    Raises:
        EvidenceError: something does not verify; the message names the file.
        OSError: it can't be read.
    """
    tell = passed or _quietly
    with contextlib.closing(Zipped(path)) as zipped:
        facts = _facts(zipped, trust)
        tell("signature", f"{PACK} is signed by a manifest key")
        _check_files(zipped, facts)
        tell("files", f"{len(facts.files)} files as signed, nothing beside them")
        checkpoint, note = _checkpoint(zipped, trust, facts)
        tell("checkpoint", f"size {checkpoint.size} of {checkpoint.origin}")
        _check_trust(zipped, trust, tell)
        holdings = Holdings(origin=checkpoint.origin, size=checkpoint.size)
        holdings.accounts = {
            one.account: LeafSet.unpacked(one.leaves) for one in facts.accounts
        }
        with _in(PACK):
            holdings.asked = LeafSet.unpacked(facts.about.leaves)
            if len(holdings.asked) > LEAVES_MAX + 1:
                raise MalformedPackError("too many leaves stand above rows", hint=_AGAIN)
        _take_manifests(zipped, trust, note, holdings)
        tell("manifests", f"{len(holdings.manifests)}, each signed and in the log")
        authority = _authority(zipped, checkpoint, trust)
        count = _take_leaves(
            zipped, checkpoint, authority, facts, holdings, progress or _nobody
        )
        tell("leaves", f"{count}, each signed and in the log")
        lists = _check_lists(holdings)
        noun = "dataset lists" if lists == 1 else "datasets list"
        tell("members", f"{lists} {noun} every leaf that was used")
        holdings.check()
        _check_words(facts, holdings)
        _check_shown(facts, holdings)
        tell("receipts", _shown_line(facts))
        _check_policies(zipped, holdings)
        _check_described(zipped, holdings, facts)
        tell("policies", "policies and cards are those that manifests name")
        answers = _answer_again(zipped, facts, holdings, version, tell)
        return VerifiedPack(
            facts=facts, holdings=holdings, checkpoint=checkpoint, answers=answers
        )


def _quietly(check: str, found: str) -> None:
    """Tell nobody."""


def _nobody(done: int, total: int) -> None:
    """Tell nobody."""


def _facts(zipped: Zipped, trust: Trust) -> PackFacts:
    """Return what `pack.json` says, signed by a key that may vouch for documents."""
    said = zipped.read(PACK, PACK_FILE_BYTES_MAX)
    with _in(SIGNATURE):
        leaf, hinted = open_manifest(zipped.read(SIGNATURE, BUNDLE_BYTES_MAX))
        keys = document_keys(trust)
        if hinted not in keys:
            raise BadSignatureError(f"the key {hinted[:16]}… is not trusted for packs")
        envelope = open_envelope(leaf)
        signed_by(envelope, {hinted: keys[hinted]})
        try:
            statement = msgspec.json.decode(envelope.payload, type=_Statement)
        except msgspec.MsgspecError as exc:
            raise MalformedPackError(f"it signs something else: {exc}") from exc
        expected = (Subject(name=PACK, digest={"sha256": sha256_hex(said)}),)
        if statement.predicate_type != PACK_TYPE:
            raise MalformedPackError("it signs something else")
        if statement.predicate != {"format": FORMAT}:
            form = str(statement.predicate.get("format", "none"))[:80]
            raise MalformedPackError(
                f"a pack of the format `{form}`; this version reads `{FORMAT}`",
                hint="take a pack that was made by this version, or verify it with its own",
            )
        if statement.subject != expected:
            raise BadDigestError(f"{PACK} is not the file that was signed")
    with _in(PACK):
        try:
            facts = msgspec.json.decode(said, type=PackFacts)
            again = pack_json(facts)
        except (msgspec.MsgspecError, RecursionError, TypeError) as exc:
            # A number of more than 64 bits can be read, and not written.
            raise MalformedPackError(f"can't be read: {exc}", hint=_AGAIN) from exc
        if again != said:
            raise MalformedPackError("not written in the one way", hint=_AGAIN)
    return facts


def _check_files(zipped: Zipped, facts: PackFacts) -> None:
    """Check that the files are those that were signed for, byte for byte, and no others."""
    there = zipped.sizes.keys() - {PACK, SIGNATURE}
    for name in sorted(there - facts.files.keys()):
        raise BadDigestError(f"{name}: there, but not signed for", hint=_AGAIN)
    for name in sorted(facts.files.keys() - there):
        raise BadDigestError(f"{name}: signed for, but not there", hint=_AGAIN)
    for name, digest in facts.files.items():
        hashed = hashlib.sha256()
        for chunk in zipped.chunks(name):
            hashed.update(chunk)
        if hashed.hexdigest() != digest:
            raise BadDigestError(f"{name}: not the bytes that were signed for", hint=_AGAIN)
        if not _is_known(name, facts):
            raise MalformedPackError(f"{name}: no file of a pack", hint=_AGAIN)


def _is_known(name: str, facts: PackFacts) -> bool:
    tiles = {tile_file(level) for level in range(levels_of(facts.size))}
    return name in {PAGE, TRUST, CHECKPOINT_FILE, KEYS, LEAVES, *tiles} or name.startswith(
        (MANIFESTS, POLICIES, FILES)
    )


def _checkpoint(zipped: Zipped, trust: Trust, facts: PackFacts) -> tuple[Checkpoint, str]:
    with _in(CHECKPOINT_FILE):
        try:
            note = zipped.read(CHECKPOINT_FILE, NOTE_BYTES_MAX).decode()
        except UnicodeDecodeError as exc:
            raise BadProofError("not text") from exc
        checkpoint = verify_checkpoint(note, trust)
    said = (facts.origin, facts.size, facts.root)
    if said != (checkpoint.origin, checkpoint.size, checkpoint.root.hex()):
        raise BadProofError(f"{PACK}: it names another checkpoint than {CHECKPOINT_FILE}")
    return checkpoint, note


def _check_trust(zipped: Zipped, trust: Trust, tell: Passed) -> None:
    """Compare the trust file in the pack with the one at hand; only the latter counts."""
    with _in(TRUST):
        other = parse_trust(zipped.read(TRUST, TRUST_BYTES_MAX))
        known = {trust.origin, *(one.origin for one in trust.predecessors)}
        if other.origin not in known:
            raise BadSignatureError(f"it is of the log `{other.origin}`, which nobody trusts")
    same = "the same as" if other == trust else "an older or newer one than"
    tell("trust", f"the trust file in the pack is {same} yours; yours counts")


def _take_manifests(zipped: Zipped, trust: Trust, note: str, holdings: Holdings) -> None:
    names = [name for name in zipped.sizes if name.startswith(MANIFESTS)]
    payloads = sorted({Sha256(name.split("/")[1]) for name in names})
    odd = set(names) ^ {
        name for one in payloads for name in (manifest_file(one), proof_file(one))
    }
    if odd:
        raise MalformedPackError(f"{min(odd)}: no manifest and its proof", hint=_AGAIN)
    for payload in payloads:
        with _in(proof_file(payload)):
            try:
                written = zipped.read(proof_file(payload), 2 * NOTE_BYTES_MAX).decode()
            except UnicodeDecodeError as exc:
                raise BadProofError("not text") from exc
            proof = parse_proof(written)
            if format_proof(proof) != written or proof.checkpoint != note:
                raise BadProofError("not of the checkpoint of this pack, or another form")
        with _in(manifest_file(payload)):
            encoded = zipped.read(manifest_file(payload), BUNDLE_BYTES_MAX)
            _, found = verify_manifest(encoded, trust, proof.index)
            leaf, _ = open_manifest(encoded)
            if found != payload:
                raise BadDigestError(f"it is the manifest {found}")
        with _in(proof_file(payload)):
            verify_inclusion_of(leaf, proof, trust)
        manifest = read_leaf(leaf)
        assert isinstance(manifest, Manifest)  # noqa: S101 — verify_manifest says so
        holdings.take_manifest(proof.index, manifest)


def _authority(zipped: Zipped, checkpoint: Checkpoint, trust: Trust) -> Authority:
    if zipped.sizes.get(KEYS, 0) > _KEYS_BYTES_MAX:
        raise MalformedPackError(f"{KEYS}: longer than {_KEYS_BYTES_MAX} bytes")
    with tempfile.TemporaryFile() as lines:
        for chunk in zipped.chunks(KEYS):
            lines.write(chunk)
        lines.seek(0)
        return read_authority(lines, checkpoint, trust)


def _take_leaves(
    zipped: Zipped,
    checkpoint: Checkpoint,
    authority: Authority,
    facts: PackFacts,
    holdings: Holdings,
    progress: Progress,
) -> int:
    count = 0
    with contextlib.ExitStack() as stack:
        # Tiles are read at two places at once, which a zip file can't; the names are ours.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / TILES).mkdir(parents=True)
        for level in range(levels_of(checkpoint.size)):
            with (folder / tile_file(level)).open("xb") as file:
                for chunk in zipped.chunks(tile_file(level)):
                    file.write(chunk)
        tree = stack.enter_context(contextlib.closing(Tree(folder, checkpoint)))
        stack.enter_context(guarded(LEAVES))
        leaves = stack.enter_context(zipped.open(LEAVES))
        for index, leaf in _framed(leaves, checkpoint.size):
            hashes = tree.tile(index // TILE_WIDTH)
            at = HASH_BYTES * (index % TILE_WIDTH)
            with _in(f"{LEAVES}: leaf {index}"):
                if hashes[at : at + HASH_BYTES] != leaf_hash(leaf):
                    raise BadProofError("the log has another leaf at its place")
                holdings.take(index, verify_leaf(leaf, index, authority), facts.about)
            count += 1
            progress(count, max(count, facts.receipts.shown))
    return count


def _framed(leaves: IO[bytes], size: int) -> Iterator[tuple[int, bytes]]:
    last = -1
    while head := leaves.read(INDEX_BYTES + LENGTH_BYTES):
        index = int.from_bytes(head[:INDEX_BYTES], "big")
        length = int.from_bytes(head[INDEX_BYTES:], "big")
        leaf = leaves.read(length)
        if len(head) != INDEX_BYTES + LENGTH_BYTES or len(leaf) != length:
            raise MalformedPackError(f"{LEAVES}: it ends within a leaf", hint=_AGAIN)
        if not last < index < size:
            raise MalformedPackError(f"{LEAVES}: leaf {index} is out of order", hint=_AGAIN)
        last = index
        yield index, leaf


def _check_lists(holdings: Holdings) -> int:
    """Check that every list of leaves is whole, and names a dataset of the pack."""
    for payload in holdings.lists:
        if payload not in holdings.manifests:
            raise MalformedPackError(f"{LEAVES}: members of {payload[:16]}…, which is not here")
    found = [holdings.members(payload) for payload in sorted(holdings.manifests)]
    return sum(1 for one in found if one is not None)


def _check_words(facts: PackFacts, holdings: Holdings) -> None:
    """Check that what people said is here where a manifest names it, or said to be missing."""
    for one in holdings.lacks():
        if one not in facts.missing:
            raise ClaimDiffersError(f"{LEAVES}: it lacks {one}", hint=_AGAIN)


def _check_shown(facts: PackFacts, holdings: Holdings) -> None:
    wanted = holdings.wanted()
    there = LeafSet.of({*holdings.answers, *holdings.derivations})
    shown = wanted & there
    said = facts.receipts
    whole = len(shown) == len(wanted)
    if (said.of, said.shown, said.chosen == "all") != (len(wanted), len(shown), whole):
        raise ClaimDiffersError(
            f"{PACK}: it says that {said.shown} of {said.of} receipts are shown;"
            f" {len(shown)} of {len(wanted)} are"
        )


def _shown_line(facts: PackFacts) -> str:
    said = facts.receipts
    if not said.of:
        return "no list of leaves names any"
    if said.chosen == "all":
        return f"all {said.of} that the lists name are here"
    return f"{said.shown} of {said.of} that the lists name are here, as a sample"


def _check_policies(zipped: Zipped, holdings: Holdings) -> None:
    pinned = pins_of(holdings.datasets().values())
    for name in zipped.sizes:
        if name.startswith(POLICIES):
            content = zipped.read(name, PACK_FILE_BYTES_MAX)
            digest = sha256_hex(content)
            if name != f"{POLICIES}{digest}.yaml" or digest not in pinned:
                raise BadDigestError(f"{name}: no policy that a manifest names", hint=_AGAIN)


def _check_described(zipped: Zipped, holdings: Holdings, facts: PackFacts) -> None:
    for name in zipped.sizes:
        if not name.startswith(FILES):
            continue
        payload, _, file = name.removeprefix(FILES).partition("/")
        known = holdings.manifests.get(Sha256(payload))
        signed = {} if known is None else subjects_of(known[1])
        wanted = describes(file) or (facts.rows and file in TEXTS)
        if not wanted or signed.get(file) != facts.files[name]:
            raise BadDigestError(f"{name}: no file that a manifest names", hint=_AGAIN)


def _answer_again(
    zipped: Zipped, facts: PackFacts, holdings: Holdings, version: str, tell: Passed
) -> tuple[Answer, ...]:
    evidence = holdings.evidence(facts.about)
    made = []
    for said in facts.answers:
        with _in(PACK):
            again = answer(_question(said), evidence)
        if again != said:
            raise ClaimDiffersError(
                f"{PACK}: it answers `{said.says}` to `{said.question}`; the evidence in it"
                f" gives another answer (`{again.says}`)",
                hint="whoever made the pack says more than it shows; do not rely on it",
            )
        tell("answer", f"{said.question}: {said.says}, as the evidence in it says")
        made.append(again)
    if facts.version == version:
        page = zipped.read(PAGE, PACK_BYTES_MAX)
        blank = msgspec.structs.replace(facts, files={})
        if page != page_of(blank, evidence, holdings).encode():
            raise ClaimDiffersError(f"{PAGE}: it is not the page that the evidence gives")
        tell("page", f"{PAGE} says what the evidence gives")
    else:
        tell("page", f"{PAGE} is by version {facts.version}: signed for, not made again")
    return tuple(made)


def _question(said: Answer) -> Question:
    try:
        return parse_question(said.question)
    except MalformedQuestionError as exc:
        raise MalformedPackError(exc.message, hint=_AGAIN) from exc


@contextlib.contextmanager
def _in(name: str) -> Iterator[None]:
    """Name the file in whatever is wrong with it."""
    try:
        yield
    except EvidenceError as exc:
        if exc.message.startswith(name):
            raise
        raise type(exc)(f"{name}: {exc.message}", hint=exc.hint, code=exc.problem) from exc

"""A house with a chain in it: an API teaches a student, the student another, with lists.

Datasets are manifests with their signed lists of leaves; their rows are nobody's concern here.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.canonical import sha256_hex
from gateway.clock import day_of
from gateway.dataset.manifest import (
    DatasetManifest,
    Findings,
    Influence,
    MembersFacts,
    Parameters,
    Teacher,
    WrittenBy,
    statement_of,
)
from gateway.dataset.provenance import Metadata
from gateway.ident import Sha256
from gateway.intent.model import Declaration
from gateway.lineage.folders import payload_in
from gateway.lineage.gathering import LogSources
from gateway.lineage.holdings import About, name_of
from gateway.lineage.leaves import PART_LEAVES, LeafSet
from gateway.lineage.pack import Order, Packed, PackSources, write_pack
from gateway.lineage.question import Question, parse_question
from gateway.policy.library import Library
from gateway.receipt.model import (
    Activation,
    Caller,
    Derivation,
    Manifest,
    Members,
    Receipt,
    Subject,
)
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import payload_sha256, read_leaf
from gateway.store.index.rows import Kind
from gateway.tlog.checkpoint import parse_checkpoint
from gateway.tlog.note import open_note
from tests.support.dataset import LOG_VERIFIER, POLICIES, WRITER, House
from tests.support.evidence import MANIFEST_SIGNER, ORIGIN, TRUST

VERSION: Final = "0.1.0"
CARD: Final = b"# What it is\n"
_KINDS: Final = {
    "declaration": "DeclarationFacts",
    "verdict": "Verdict",
    "withdrawal": "Withdrawal",
    "agreement": "AgreementFacts",
    "activation": "Activation",
    "members": "Members",
}


class Chain(House):
    """A house that answers, builds datasets of answers, and trains students on those."""

    def __init__(self, folder: Path, library: Library | None = None) -> None:
        super().__init__(folder, library)
        self.state(
            Activation(
                library=self.library.digest,
                policies=len(POLICIES),
                by="grace",
                at=self.now,
                writer=WRITER,
            )
        )
        self.use = self.declare()

    def ask(self, count: int = 1, *, account: str = "team", **said: Any) -> list[Receipt]:
        """Have *count* questions answered for an account."""
        caller = Caller(principal=account, project=self.use.project)
        return [self.answer(self.use, caller=caller, **said) for _ in range(count)]

    def places(self, receipts: Iterable[Receipt]) -> list[int]:
        """Return the leaves of receipts."""
        wanted = {one.exchange for one in receipts}
        found = []
        for index, leaf in enumerate(self.ledger.leaves(0, self.ledger.head().size)):
            statement = read_leaf(leaf)
            if isinstance(statement, Receipt) and statement.exchange in wanted:
                found.append(index)
        return found

    def collect(
        self,
        name: str,
        receipts: Sequence[Receipt],
        *,
        judges: Sequence[Receipt] = (),
        unnamed: Sequence[Receipt] = (),
        declaration: Declaration | None = None,
        written: Sequence[WrittenBy] = (),
        lists: bool = True,
        list_of: Sequence[int] | None = None,
    ) -> Sha256:
        """Make a dataset of answers, a row each; return its manifest's payload digest.

        Its teachers are not those of *unnamed*, though it lists them.
        """
        declared = declaration or self.use
        places = self.places([*receipts, *judges, *unnamed])
        facts = MembersFacts(count=len(places), sha256=_digest(places))
        manifest = DatasetManifest(
            asked=Parameters(dataset=name, declaration=declared.id, project=declared.project),
            found=Findings(
                rows=len(receipts),
                teachers=(
                    *_teachers(receipts, "text", self._verdicts(declared)),
                    *_teachers(judges, "judge", self._verdicts(declared)),
                ),
                use=declared.use,
                day=day_of(self.clock.now_ms()).isoformat(),
                library=self.library.digest,
                written_by=tuple(written),
                members=facts if lists else None,
            ),
            dependencies=(),
            subjects=(
                Subject(name="README.md", digest={"sha256": sha256_hex(CARD)}),
                Subject(name="rows.jsonl", digest={"sha256": sha256_hex(b"{}\n")}),
            ),
            metadata=Metadata(
                invocation_id="build-1", started_on=self.now, finished_on=self.now
            ),
            version=VERSION,
        )
        encoded, leaf = write_manifest(statement_of(manifest), MANIFEST_SIGNER)
        payload = payload_sha256(leaf)
        if lists:
            for part in members_of(payload, name, places if list_of is None else list_of):
                self.state(part)
        self.append(leaf)
        folder = self.folder / "datasets" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes(encoded)
        (folder / "README.md").write_bytes(CARD)
        (folder / "rows.jsonl").write_bytes(b"{}\n")
        return payload

    def _verdicts(self, declared: Declaration) -> tuple[int, ...]:
        return tuple(index for index, _ in self.register.verdicts(declared.id))

    def sources_of_packs(self, note: str | None = None) -> PackSources:
        """Return what packs are made of."""
        note = note or self.sequencer.checkpoint_now()

        def statements(kinds: Sequence[Kind]) -> list[tuple[int, Any]]:
            names = {_KINDS[kind] for kind in kinds}
            return [one for one in self.statements() if type(one[1]).__name__ in names]

        def exchange(name: str) -> int | None:
            for index, one in self.statements():
                if isinstance(one, Receipt) and one.exchange == name:
                    return index
                if isinstance(one, Derivation) and one.derivation == name:
                    return index
            return None

        def folder(payload: Sha256) -> Path | None:
            places = (path.parent for path in sorted(self.folder.rglob("manifest.json")))
            return next((place for place in places if payload_in(place) == payload), None)

        return PackSources(
            log=LogSources(
                origin=ORIGIN,
                size=parse_checkpoint(open_note(note, [LOG_VERIFIER])).size,
                leaf=self.leaf,
                manifest=self.index_of,
                students=self.students_with,
                manifests=lambda: [
                    index for index, one in self.statements() if isinstance(one, Manifest)
                ],
                statements=statements,
                account=lambda name: LeafSet.of(
                    index
                    for index, one in self.statements()
                    if isinstance(one, Receipt) and one.caller.principal == name
                ),
                exchange=exchange,
                authority=self.authority,
            ),
            note=note,
            prove=self.prove,
            tile=self.tile,
            trust=TRUST,
            signer=MANIFEST_SIGNER,
            folder=folder,
            library=lambda digest: POLICIES if digest == self.library.digest else None,
            version=VERSION,
        )

    def students_with(self, weights: Sha256) -> list[Sha256]:
        """Return the training manifests of the students with these weights."""
        self.index.catch_up(self.ledger)
        return self.index.lineage.students_with(weights)

    def statements(self) -> list[tuple[int, Any]]:
        """Return every leaf as a statement."""
        leaves = self.ledger.leaves(0, self.ledger.head().size)
        return [(index, read_leaf(leaf)) for index, leaf in enumerate(leaves)]

    def about(self, payload: Sha256) -> About:
        """Return how a stage is asked about."""
        manifest, index = self.manifest(payload), self.index_of(payload)
        assert manifest is not None
        kind, name = name_of(manifest)
        return About(kind=kind, name=name, manifest=payload, leaf=index)

    def pack(
        self,
        about: About | Sha256,
        *questions: str,
        name: str = "pack",
        out_in: Path | None = None,
        note: str | None = None,
        **order: Any,
    ) -> Packed:
        """Write a pack that answers *questions*."""
        asked: tuple[Question, ...] = tuple(
            parse_question(one) for one in questions or ("distilled-from:open",)
        )
        return write_pack(
            Order(
                about=about if isinstance(about, About) else self.about(about),
                questions=asked,
                out=(out_in or self.folder / "packs") / f"{name}.zip",
                **order,
            ),
            self.sources_of_packs(note),
        )


def members_of(payload: Sha256, name: str, places: Sequence[int]) -> list[Members]:
    """Return the parts of a list of leaves."""
    chunks: dict[int, bytearray] = {}
    for place in places:
        bits = chunks.setdefault(place // PART_LEAVES, bytearray(PART_LEAVES // 8))
        bits[place % PART_LEAVES >> 3] |= 1 << (place & 7)
    return [
        Members(
            manifest=payload,
            dataset=name,
            part=at,
            parts=len(chunks),
            first=chunk * PART_LEAVES,
            bits=base64.b64encode(zlib.compress(bytes(bits).rstrip(b"\0"))).decode(),
            at="2026-11-22T00:00:00.000Z",
            writer=WRITER,
        )
        for at, (chunk, bits) in enumerate(sorted(chunks.items()))
    ]


def _digest(places: Iterable[int]) -> Sha256:
    joined = b"".join(place.to_bytes(8, "big") for place in sorted(places))
    return Sha256(hashlib.sha256(joined).hexdigest())


def _teachers(
    receipts: Sequence[Receipt], influence: Influence, verdicts: tuple[int, ...]
) -> list[Teacher]:
    kinds: dict[tuple[str, Sha256 | None], list[Receipt]] = {}
    for one in receipts:
        kinds.setdefault((one.provider.name, one.model.manifest), []).append(one)
    return [
        Teacher(
            provider=provider,
            model=some[0].model.requested,
            reported=tuple(filter(None, (some[0].model.reported,))),
            manifest=manifest,
            operation="chat",
            rows=len(some),
            receipts=len(some),
            input_tokens=7 * len(some),
            output_tokens=5 * len(some),
            days=tuple(sorted({one.finished[:10] for one in some})),
            effect="hold" if provider == "held" else "permit",
            obligations=some[0].ruling.obligations,
            policies=some[0].ruling.policies,
            clauses=tuple(
                f"{reason.policy}:{reason.clause}" for reason in some[0].ruling.reasons
            ),
            verdicts=verdicts if provider == "held" else (),
            declarations=tuple(
                dict.fromkeys(
                    one.declared.declaration for one in some if one.declared.declaration
                )
            ),
            generated_for=some[0].declared.use.purpose,
            influence=influence,
        )
        for (provider, manifest), some in kinds.items()
    ]


def two_stages(chain: Chain, more: Sequence[Receipt] = ()) -> tuple[Sha256, Sha256]:
    """Train a student on a teacher, another on the first one's answers; return both.

    The second learns from *more* answers, too.
    """
    first = chain.train("cleaner", chain.collect("first", chain.ask(3, account="ada")))
    answers = chain.ask(2, provider="local", manifest=first, policies=("own", "open"))
    answers += chain.ask(1, account="bob", provider="watched")
    return first, chain.train("reader", chain.collect("second", [*answers, *more]))


def decoded(content: bytes) -> dict[str, Any]:
    """Return a JSON document."""
    return msgspec.json.decode(content, type=dict[str, Any])

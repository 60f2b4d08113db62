"""A small house with a real ledger: declared uses, answered calls, verdicts, datasets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from gateway.canonical import canonical_json, salted_sha256, sha256_hex
from gateway.clock import FrozenClock, day_of, rfc3339
from gateway.dataset.assembly.build import Built, Order, Sources, build_dataset
from gateway.dataset.calls import Call
from gateway.dataset.held import HeldWords
from gateway.dataset.manifest import (
    BASE_MODEL,
    DATASET_MANIFEST,
    manifest_dependency,
)
from gateway.dataset.provenance import Dependency
from gateway.dataset.ruling import PolicyLaw
from gateway.ident import ExchangeId, Sha256, new_derivation_id, new_exchange_id
from gateway.intent.model import Declaration, IntendedUse, declaration_id
from gateway.ledger.publishing.publisher import Publisher
from gateway.ledger.reading.register import Register
from gateway.ledger.reading.subtrees import Subtrees
from gateway.ledger.sequencing.sequencer import Sequencer
from gateway.policy.library import Library
from gateway.receipt.authority import Authority
from gateway.receipt.keys import Ed25519Signer, generate_pem, trusted_keys
from gateway.receipt.model import (
    PROVENANCE_TYPE,
    STATEMENT_TYPE,
    TRAINING_BUILD,
    Caller,
    Commitment,
    Covered,
    DeclarationFacts,
    Declared,
    Derivation,
    DerivedRow,
    Manifest,
    ModelFacts,
    OutputFacts,
    Parent,
    ParentRole,
    Predicate,
    ProviderFacts,
    Receipt,
    RequestFacts,
    RowKind,
    Subject,
    Transform,
    TransformKind,
    UsageFacts,
    Verdict,
    Withdrawal,
    Writer,
    Written,
)
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import payload_sha256, read_leaf, write_statement
from gateway.store.index.index import Index
from gateway.store.sqlite import SqliteLedger
from gateway.tlog.checkpoint import parse_checkpoint
from gateway.tlog.merkle import inclusion_proof
from gateway.tlog.note import open_note
from gateway.tlog.proof import InclusionProof
from gateway.tlog.tile import Tile
from tests.support.evidence import (
    AUTHORIZATION,
    LOG_SIGNER,
    MANIFEST_SIGNER,
    ORIGIN,
    RECEIPT_SIGNER,
    TRUST,
)

WRITER: Final = Writer(instance="test", version="0.1.0")
DAY_MS: Final = 86_400_000
LOG_VERIFIER: Final = trusted_keys(TRUST).log

TERMS: Final = """\
documents:
  - id: words
    title: Words of the provider
    url: https://provider.example/terms
    version: effective 2026-01-01
    confidence: primary
    read: {where: tests, when: 2026-01-01}
"""


def a_policy(
    name: str,
    effect: Literal["permit", "hold", "forbid"],
    *,
    version: int = 1,
    since: str = "2026-01-01",
    until: str = "",
    obligations: str = "",
    when: str = "purpose: train",
) -> str:
    """Return a policy of one clause that teaches or not, and one that permits plain use."""
    ends = f"in_force_until: {until}\n" if until else ""
    duties = f"    obligations: [{obligations}]\n" if obligations else ""
    return f"""\
policy: {name}
version: {version}
title: What {name} says
in_force_from: {since}
{ends}review_by: 2099-12-01
terms: [words]
clauses:
  - id: plain-use
    effect: permit
    when: {{purpose: inference}}
    citation: {{document: words, section: "1"}}
    because: It may be used.
    change: Other terms.
  - id: training
    effect: {effect}
    when: {{{when}}}
    citation: {{document: words, section: "2"}}
{duties}    because: The terms speak of training.
    change: Other terms.
"""


POLICIES: Final = {
    "open/policy.yaml": a_policy("open", "permit", obligations="keep-ai-label"),
    "held/policy.yaml": a_policy("held", "hold"),
    "closed/policy.yaml": a_policy("closed", "forbid"),
    "watched/policy.yaml": a_policy("watched", "permit", obligations="review-before-training"),
    "narrow/policy.yaml": a_policy(
        "narrow", "permit", when="purpose: train, audience: internal"
    ),
    "tightened/policy.1.yaml": a_policy("tightened", "permit", until="2026-06-30"),
    "tightened/policy.yaml": a_policy("tightened", "forbid", version=2, since="2026-07-01"),
    "loosened/policy.1.yaml": a_policy("loosened", "forbid", until="2026-06-30"),
    "loosened/policy.yaml": a_policy("loosened", "permit", version=2, since="2026-07-01"),
    "unsure/policy.yaml": a_policy(
        "unsure", "permit", when="purpose: train, commercial: false"
    ),
    "own/policy.yaml": a_policy("own", "permit"),
}


def a_library(**more: str) -> Library:
    """Return a library of providers named after what their terms say of training."""
    files = dict(POLICIES)
    for name, text in more.items():
        folder, _, version = name.partition("@")
        files[f"{folder}/policy{'.' + version if version else ''}.yaml"] = text
    folders = {path.split("/")[0] for path in files}
    return Library.load(files | {f"{folder}/terms.yaml": TERMS for folder in folders})


@dataclasses.dataclass(frozen=True)
class Kept:
    """What was kept of one exchange's text."""

    salt: bytes
    rows: dict[int, bytes]
    reasoned: dict[int, bytes] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class DerivedFrom:
    """A row that a pipeline made, and what of."""

    line: bytes
    parents: Sequence[Parent] = ()
    verdict: str | None = None


def made(
    text: str, *parents: Parent, verdict: str | None = None, prompt: str = "say something"
) -> DerivedFrom:
    """Return a row whose answer is *text*."""
    messages = [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": text},
    ]
    return DerivedFrom(canonical_json({"messages": messages}), parents, verdict)


class Texts(dict[ExchangeId, Kept]):
    """The texts of exchanges, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._erased: set[ExchangeId] = set()

    def get_many(self, exchanges: Sequence[ExchangeId]) -> dict[ExchangeId, Kept]:
        """Return what was kept of *exchanges*."""
        return {exchange: self[exchange] for exchange in exchanges if exchange in self}

    def erase(self, exchange: ExchangeId) -> None:
        """Forget the text of *exchange*, and remember that it was there."""
        del self[exchange]
        self._erased.add(exchange)

    def was_erased(self, exchange: ExchangeId) -> bool:
        """Tell whether there was text of *exchange*."""
        return exchange in self._erased

    def erased_of(self, exchanges: Sequence[ExchangeId]) -> set[ExchangeId]:
        """Return those of *exchanges* of which there was text."""
        return self._erased.intersection(exchanges)


class Words(HeldWords):
    """What was said in a house, with an index that is brought up to date when it is asked."""

    def __init__(self, house: House) -> None:
        super().__init__(house.register, house.index)
        self._ledger = house.ledger

    def held(self, manifest: Sha256) -> Withdrawal | None:
        """Return the withdrawal of a manifest, or of anything that it was made of, if any."""
        self.index.catch_up(self._ledger)
        return super().held(manifest)


class House:
    """A ledger with everything that a dataset is made from; its clock stands still."""

    def __init__(self, folder: Path, library: Library | None = None) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.clock = FrozenClock()
        self.ledger = SqliteLedger.create(folder / "ledger.db", ORIGIN)
        publisher = Publisher(self.ledger, LOG_SIGNER, ORIGIN, self.clock)
        self.sequencer = Sequencer(self.ledger, publisher)
        self.register = Register()
        self.index = Index(folder / "index.db")
        self.words = Words(self)
        self.authority = Authority(TRUST)
        self.texts = Texts()
        self.library = library or a_library()
        self.law = PolicyLaw(self.library, self.register)
        self.append(AUTHORIZATION)

    def close(self) -> None:
        """Let go of the ledger."""
        self.index.close()
        self.ledger.close()

    @property
    def now(self) -> str:
        """Return the instant at which the clock stands."""
        return rfc3339(self.clock.now_ms())

    def append(self, leaf: bytes) -> int:
        """Make *leaf* durable and fold it into the register; return its index."""
        index = self.sequencer.append_and_wait(leaf).index
        statement = read_leaf(leaf)
        self.register.apply(index, statement)
        self.authority.admit(index, statement)
        return index

    def leaf(self, index: int) -> bytes:
        """Return the leaf at *index*."""
        (leaf,) = self.ledger.leaves(index, index + 1)
        return leaf

    def state(self, predicate: Predicate, subjects: tuple[Subject, ...] = ()) -> int:
        """Append a signed statement."""
        return self.append(write_statement(predicate, subjects, RECEIPT_SIGNER))

    def declare(
        self, purpose: str = "train.sft", *, project: str = "search", **said: Any
    ) -> Declaration:
        """Register a declared use."""
        expires = said.pop("expires", None)
        use = IntendedUse(purpose=purpose, **({"student": "parser"} | said))
        facts = DeclarationFacts(
            declaration=declaration_id(project, use),
            project=project,
            use=use,
            owner="ada",
            expires=expires,
            at=self.now,
            writer=WRITER,
        )
        self.state(facts)
        declaration = self.register.declaration(facts.declaration)
        assert declaration is not None
        return declaration

    def receipt(
        self,
        declaration: Declaration,
        *texts: str,
        provider: str = "open",
        manifest: Sha256 | None = None,
        policies: tuple[str, ...] | None = None,
        **changes: Any,
    ) -> Receipt:
        """Return the receipt of an answered call and keep its text; nothing is appended."""
        exchange = new_exchange_id(self.clock.now_ms())
        salt = exchange[-16:].encode()
        rows = {
            choice: canonical_json(
                {
                    "messages": [
                        {"role": "user", "content": "say something"},
                        {"role": "assistant", "content": text},
                    ]
                }
            )
            for choice, text in enumerate(texts)
        }
        self.texts[exchange] = Kept(salt, rows)
        call = Call(
            provider=provider,
            model=f"{provider}-1",
            operation="chat",
            policies=policies or (provider,),
        )
        ruling = self.law.rule(declaration.use, call, day_of(self.clock.now_ms()))
        receipt = Receipt(
            exchange=exchange,
            caller=Caller(principal="team", project=declaration.project),
            declared=Declared(use=declaration.use, declaration=declaration.id),
            ruling=msgspec.structs.replace(ruling, effect="permit"),
            provider=ProviderFacts(
                name=provider, endpoint="POST https://x.example", status=200
            ),
            model=ModelFacts(
                requested=f"{provider}-1", reported=f"{provider}-1-0826", manifest=manifest
            ),
            operation="chat",
            streaming=False,
            readable=True,
            request=RequestFacts(bytes=10),
            outputs=tuple(
                OutputFacts(
                    choice=choice,
                    kind="text",
                    bytes=len(texts[choice].encode()),
                    sha256=sha256_hex(texts[choice].encode()),
                    row=Commitment(alg="sha256-salted", value=salted_sha256(salt, row)),
                )
                for choice, row in rows.items()
            ),
            usage=UsageFacts(input_tokens=7, output_tokens=5),
            finish_reasons=("stop",) * len(texts),
            ended="complete",
            opening=0,
            received=self.now,
            finished=self.now,
            writer=WRITER,
        )
        return msgspec.structs.replace(receipt, **changes)

    def answer(self, declaration: Declaration, *texts: str, **changes: Any) -> Receipt:
        """Append the receipt of an answered call and keep its text."""
        receipt = self.receipt(
            declaration, *(texts or (f"answer {len(self.texts)}",)), **changes
        )
        self.state(receipt)
        return receipt

    def place_of(self, thing: Receipt | Derivation | Sha256) -> int:
        """Return the leaf index of what was appended."""
        for index, leaf in enumerate(self.ledger.leaves(0, self.ledger.head().size)):
            match read_leaf(leaf):
                case Receipt(exchange=exchange) if isinstance(thing, Receipt):
                    if exchange == thing.exchange:
                        return index
                case Derivation(derivation=derivation) if isinstance(thing, Derivation):
                    if derivation == thing.derivation:
                        return index
                case Manifest(payload_sha256=payload) if payload == thing:
                    return index
        raise LookupError(thing)

    def parent(
        self,
        thing: Receipt | Derivation | Sha256,
        role: ParentRole = "source",
        choice: int = 0,
        **changes: Any,
    ) -> Parent:
        """Return what names *thing*, which was appended, as a parent."""
        parent = Parent(
            role=role,
            choice=choice,
            index=self.place_of(thing),
            exchange=thing.exchange if isinstance(thing, Receipt) else None,
            derivation=thing.derivation if isinstance(thing, Derivation) else None,
            manifest=None if isinstance(thing, Receipt | Derivation) else thing,
        )
        return msgspec.structs.replace(parent, **changes)

    def derivation(
        self,
        declaration: Declaration,
        *rows: DerivedFrom,
        name: str = "clean",
        kind: TransformKind = "rewrite",
        row_kind: RowKind = "messages",
        written: Written | None = None,
        tags: tuple[str, ...] = (),
        **changes: Any,
    ) -> Derivation:
        """Return what states *rows*, each with its parents, and keep their text."""
        derivation = new_derivation_id(self.clock.now_ms())
        salt = derivation[-16:].encode()
        lines = {place: row.line for place, row in enumerate(rows)}
        self.texts[derivation] = Kept(salt, lines)
        parents = list(dict.fromkeys(parent for row in rows for parent in row.parents))
        statement = Derivation(
            derivation=derivation,
            caller=Caller(principal="team", project=declaration.project),
            declared=Declared(use=declaration.use, declaration=declaration.id),
            transform=Transform(name=name, version="1", kind=kind),
            written=written,
            parents=tuple(parents),
            rows=tuple(
                DerivedRow(
                    kind=row_kind,
                    row=Commitment(alg="sha256-salted", value=salted_sha256(salt, row.line)),
                    bytes=len(row.line),
                    parents=tuple(parents.index(parent) for parent in row.parents),
                    verdict=row.verdict,
                )
                for row in rows
            ),
            tags=tags,
            at=self.now,
            writer=WRITER,
        )
        return msgspec.structs.replace(statement, **changes)

    def derive(self, declaration: Declaration, *rows: DerivedFrom, **said: Any) -> Derivation:
        """Append what states *rows*, each with its parents, and keep their text."""
        derivation = self.derivation(declaration, *rows, **said)
        self.state(derivation)
        return derivation

    def forge(self, receipt: Receipt) -> None:
        """Append a receipt that is signed by a key nobody trusts."""
        self.append(write_statement(receipt, (), Ed25519Signer(generate_pem("ed25519"))))

    def approve(self, subject: Declaration | Receipt, *clauses: tuple[str, str]) -> int:
        """Say yes to a declaration's holding clauses, or to an exchange."""
        return self._verdict(subject, clauses, approved=True)

    def decline(self, subject: Declaration | Receipt, *clauses: tuple[str, str]) -> int:
        """Say no to a declaration's holding clauses, or to an exchange."""
        return self._verdict(subject, clauses, approved=False)

    def _verdict(
        self,
        subject: Declaration | Receipt,
        clauses: tuple[tuple[str, str], ...],
        *,
        approved: bool,
    ) -> int:
        return self.state(
            Verdict(
                approved=approved,
                by="grace",
                reason="read it",
                declaration=subject.id if isinstance(subject, Declaration) else None,
                exchange=subject.exchange if isinstance(subject, Receipt) else None,
                covers=tuple(
                    Covered(policy=policy, clauses=(clause,)) for policy, clause in clauses
                ),
                at=self.now,
                writer=WRITER,
            )
        )

    def withdraw(self, **subject: Any) -> int:
        """Withdraw an exchange, a declaration or a manifest."""
        return self.state(
            Withdrawal(by="grace", reason="asked to", at=self.now, writer=WRITER, **subject)
        )

    def train(
        self,
        name: str,
        *datasets: Sha256,
        base: Sha256 | None = None,
        outside: str | None = None,
        weights: str | None = None,
        began: str | None = None,
    ) -> Sha256:
        """Append a training manifest; return its payload digest.

        Its own weights digest is *weights*, that of a base from outside *began*.
        """
        parents = [
            manifest_dependency(f"dataset:{at}", payload, DATASET_MANIFEST)
            for at, payload in enumerate(datasets)
        ]
        if base is not None:
            parents.append(manifest_dependency("student:base", base, "training-manifest"))
        if outside is not None:
            parents.append(
                Dependency(
                    name=f"base:{outside}",
                    digest={"sha256": "a" * 64},
                    annotations={"kind": BASE_MODEL}
                    | ({} if began is None else {"weights": began}),
                )
            )
        statement = {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": "model.safetensors", "digest": {"sha256": "e" * 64}}],
            "predicateType": PROVENANCE_TYPE,
            "predicate": {
                "buildDefinition": {
                    "buildType": TRAINING_BUILD,
                    "externalParameters": {"student": name},
                    "internalParameters": {} if weights is None else {"weights": weights},
                    "resolvedDependencies": msgspec.to_builtins(parents),
                },
                "runDetails": {"metadata": {"finishedOn": self.now}},
            },
        }
        _, leaf = write_manifest(statement, MANIFEST_SIGNER)
        self.append(leaf)
        return payload_sha256(leaf)

    def answer_with_reasoning(
        self,
        declaration: Declaration,
        text: str,
        reasoning: str,
        kind: Literal["summary", "visible"] = "visible",
        **changes: Any,
    ) -> Receipt:
        """Append the receipt of an answer whose reasoning was shown, and keep both rows."""
        receipt = self.receipt(declaration, text, **changes)
        kept = self.texts[receipt.exchange]
        row = msgspec.json.decode(kept.rows[0])
        row["messages"][-1]["reasoning_content"] = reasoning
        line = canonical_json(row)
        self.texts[receipt.exchange] = Kept(kept.salt, kept.rows, {0: line})
        (unit,) = receipt.outputs
        reasoned = Commitment(alg="sha256-salted", value=salted_sha256(kept.salt, line))
        receipt = msgspec.structs.replace(
            receipt,
            outputs=(msgspec.structs.replace(unit, reasoned=reasoned, reasoning_kind=kind),),
        )
        self.state(receipt)
        return receipt

    def candidates(self, transform: str | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield every receipt, or every derivation by *transform*, in order."""
        for index, leaf in enumerate(self.ledger.leaves(0, self.ledger.head().size)):
            match read_leaf(leaf):
                case Receipt() if transform is None:
                    yield index, leaf
                case Derivation(transform=made) if made.name == transform:
                    yield index, leaf

    def manifest(self, payload: Sha256) -> Manifest | None:
        """Return the manifest with this payload."""
        for leaf in self.ledger.leaves(0, self.ledger.head().size):
            statement = read_leaf(leaf)
            if isinstance(statement, Manifest) and statement.payload_sha256 == payload:
                return statement
        return None

    def index_of(self, payload: Sha256) -> int | None:
        """Return where the manifest with this payload stands."""
        for index, leaf in enumerate(self.ledger.leaves(0, self.ledger.head().size)):
            statement = read_leaf(leaf)
            if isinstance(statement, Manifest) and statement.payload_sha256 == payload:
                return index
        return None

    def tile(self, tile: Tile) -> bytes:
        """Return the hashes of *tile*."""
        return Subtrees(self.ledger).tile(tile.level, tile.index, tile.width)

    def prove(self, index: int, note: str) -> InclusionProof:
        """Return the proof that leaf *index* is under *note*."""
        covers = parse_checkpoint(open_note(note, [LOG_VERIFIER]))
        path = inclusion_proof(index, covers.size, Subtrees(self.ledger).root)
        return InclusionProof(index, tuple(path), note)

    def proof(self, index: int) -> InclusionProof:
        """Return the proof that leaf *index* is under a checkpoint of now."""
        return self.prove(index, self.sequencer.checkpoint_now())

    def sources(self, transform: str | None = None) -> Sources:
        """Return what a build reads and writes, as the house stands."""
        note = self.sequencer.checkpoint_now()
        return Sources(
            candidates=lambda: self.candidates(transform),
            texts=self.texts,
            law=self.law,
            library=self.library.digest,
            words=self.words,
            manifest=self.manifest,
            index_of=self.index_of,
            prove=self.prove,
            tile=self.tile,
            leaf=self.leaf,
            leaves=lambda indices: ((index, self.leaf(index)) for index in indices),
            publish=self.sequencer.checkpoint_now,
            checkpoint=note,
            covers=parse_checkpoint(open_note(note, [LOG_VERIFIER])),
            append=self.append,
            signer=MANIFEST_SIGNER,
            states=RECEIPT_SIGNER,
            writer=WRITER,
            trust=TRUST,
            authority=self.authority,
            clock=self.clock,
            version="0.1.0",
            invocation="build-1",
        )

    def build(self, declaration: Declaration, name: str = "set") -> Built:
        """Build a dataset under `datasets/` of the house's folder."""
        order = Order(
            name=name, declaration=declaration, folder=self.folder / "datasets" / name
        )
        return build_dataset(order, self.sources())


def left_out(folder: Path) -> list[str]:
    """Return the reasons that a dataset folder lists, in its order."""
    lines = (folder / "left-out.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line)["reason"] for line in lines]

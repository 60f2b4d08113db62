"""A real installation with receipts in it, made quickly, and pipelines that record in it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from gateway import settings
from gateway.app.installation import Installation, open_sourced
from gateway.app.pipeline import pipeline_in
from gateway.canonical import canonical_json, salted_sha256, sha256_hex
from gateway.cli.main import main
from gateway.clock import rfc3339
from gateway.dataset.derive import Pipeline
from gateway.dataset.manifest import DATASET_MANIFEST
from gateway.ident import ExchangeId, Sha256, new_exchange_id
from gateway.intent.model import Declaration, IntendedUse, declaration_id
from gateway.receipt.model import (
    PROVENANCE_TYPE,
    STATEMENT_TYPE,
    TRAINING_BUILD,
    Caller,
    Commitment,
    DeclarationFacts,
    Declared,
    Derivation,
    Erasure,
    ModelFacts,
    Opening,
    OutputFacts,
    Predicate,
    ProviderFacts,
    Receipt,
    RequestFacts,
    Ruling,
    Withdrawal,
)
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import (
    payload_sha256,
    read_leaf,
    write_opening,
    write_statement,
)
from gateway.store.content import Content
from tests.support.house import write_installation

NOBODY = "http://127.0.0.1:1"
SALT = b"a salt of a test"


class Works:
    """One installation, opened; receipts are written as if a gateway had answered."""

    def __init__(self, file: Path, house: Installation) -> None:
        self.file = file
        self.house = house

    @property
    def now(self) -> str:
        """Return this instant."""
        return rfc3339(self.house.clock.now_ms())

    def state(self, predicate: Predicate) -> int:
        """Append a statement, signed, and fold it in."""
        return self.append(write_statement(predicate, (), self.house.keyring.receipt))

    def append(self, leaf: bytes) -> int:
        """Append *leaf* and fold it in."""
        index = self.house.sequencer.append_and_wait(leaf).index
        self.house.register.apply(index, read_leaf(leaf))
        return index

    def declare(
        self, purpose: str = "train.sft", *, project: str = "search", **said: Any
    ) -> Declaration:
        """Register a declared use."""
        expires = said.pop("expires", None)
        use = IntendedUse(purpose=purpose, **({"student": "parser"} | said))
        named = declaration_id(project, use)
        self.state(
            DeclarationFacts(
                declaration=named,
                project=project,
                use=use,
                owner="ada",
                expires=expires,
                at=self.now,
                writer=self.house.writer,
            )
        )
        declaration = self.house.register.declaration(named)
        assert declaration is not None
        return declaration

    def answer(
        self,
        declaration: Declaration,
        *texts: str,
        prompt: str = "say something",
        principal: str = "team",
        **changes: Any,
    ) -> ExchangeId:
        """Append opening and receipt of an answered call, and keep its text."""
        house = self.house
        exchange = new_exchange_id(house.clock.now_ms())
        rows = {
            choice: canonical_json(
                {
                    "messages": [
                        {"role": "user", "content": prompt},
                        {"role": "assistant", "content": text},
                    ]
                }
            )
            for choice, text in enumerate(texts or ("answer",))
        }
        opening = self.append(
            write_opening(
                Opening(
                    exchange=exchange,
                    at=self.now,
                    principal=principal,
                    project=declaration.project,
                    provider="open",
                    operation="chat",
                    purpose=declaration.use.purpose,
                    declaration=declaration.id,
                    ruling_sha256=sha256_hex(b""),
                    writer=house.writer.instance,
                )
            )
        )
        house.content.put_many([(exchange, Content(request=b"{}", salt=SALT, rows=rows))])
        receipt = Receipt(
            exchange=exchange,
            caller=Caller(principal=principal, project=declaration.project),
            declared=Declared(use=declaration.use, declaration=declaration.id),
            ruling=Ruling(effect="permit", reasons=(), policies=(), day=self.now[:10]),
            provider=ProviderFacts(name="open", endpoint="POST /", status=200),
            model=ModelFacts(requested="open-1"),
            operation="chat",
            streaming=False,
            readable=True,
            request=RequestFacts(bytes=2),
            outputs=tuple(
                OutputFacts(
                    choice=choice,
                    kind="text",
                    bytes=len(row),
                    sha256=sha256_hex(row),
                    row=Commitment(alg="sha256-salted", value=salted_sha256(SALT, row)),
                )
                for choice, row in rows.items()
            ),
            finish_reasons=("stop",) * len(rows),
            ended="complete",
            opening=opening,
            received=self.now,
            finished=self.now,
            writer=house.writer,
        )
        self.state(msgspec.structs.replace(receipt, **changes))
        return exchange

    def train(self, name: str, *datasets: Sha256) -> Sha256:
        """Append the training manifest of a student; return its payload's digest."""
        statement = {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": "model.safetensors", "digest": {"sha256": "e" * 64}}],
            "predicateType": PROVENANCE_TYPE,
            "predicate": {
                "buildDefinition": {
                    "buildType": TRAINING_BUILD,
                    "externalParameters": {"student": name},
                    "internalParameters": {},
                    "resolvedDependencies": [
                        {
                            "name": f"dataset:{at}",
                            "digest": {"sha256": payload},
                            "annotations": {"kind": DATASET_MANIFEST},
                        }
                        for at, payload in enumerate(datasets)
                    ],
                },
                "runDetails": {"metadata": {"finishedOn": self.now}},
            },
        }
        _, leaf = write_manifest(statement, self.house.keyring.manifest)
        self.append(leaf)
        return payload_sha256(leaf)

    def withdraw(self, **subject: Any) -> int:
        """Withdraw an exchange, a derivation, a declaration or a manifest."""
        return self.state(
            Withdrawal(
                by="grace", reason="asked to", at=self.now, writer=self.house.writer, **subject
            )
        )

    def erase(self, **subject: Any) -> int:
        """Append an erasure; nothing is carried out yet."""
        return self.state(
            Erasure(
                by="grace", reason="asked to", at=self.now, writer=self.house.writer, **subject
            )
        )

    def pipeline(self, declaration: Declaration, by: str = "ada", **more: Any) -> Pipeline:
        """Return a pipeline that records here."""
        return pipeline_in(self.house, declaration.id, by, **more)

    def derivations(self, project: str | None = None) -> list[tuple[int, Derivation]]:
        """Return every derivation of *project*, or of any, with its index."""
        self.house.reader.catch_up()
        rows = self.house.index.select(kind="derivation", project=project)
        read = ((row.index, read_leaf(self.house.reader.leaf(row.index))) for row in rows)
        return [(index, one) for index, one in read if isinstance(one, Derivation)]

    def text(self, reference: str) -> Any:
        """Return the row that is kept under a reference, or `None`."""
        named, _, at = reference.partition("/")
        kept = self.house.content.get(ExchangeId(named))
        line = None if kept is None else kept.rows.get(int(at or 0))
        return None if line is None else json.loads(line)

    def command(self, *words: str) -> tuple[int, str, str]:
        """Run `gateway …` here; return its exit code and what it printed."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["--config", str(self.file), *words])
        return code, out.getvalue(), err.getvalue()


def messages(*texts: str) -> dict[str, Any]:
    """Return a row: a conversation that begins with a user's words and ends with an answer."""
    roles = ("user", "assistant")
    return {
        "messages": [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]
    }


def rows_of(derivations: Sequence[tuple[int, Derivation]]) -> int:
    """Return how many rows they state."""
    return sum(len(one.rows) for _, one in derivations)


@contextmanager
def works_in(folder: Path) -> Iterator[Works]:
    """Make an installation in *folder* and open it."""
    file = write_installation(folder, NOBODY)
    house = open_sourced(settings.load(file, environment={}))
    with contextlib.closing(house):
        yield Works(file, house)

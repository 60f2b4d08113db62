"""A gateway with a student of its own behind it, and the answer that the student came from."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

import msgspec

from gateway.app.installation import open_installation
from gateway.clock import rfc3339
from gateway.dataset.manifest import (
    DATASET_MANIFEST,
    DatasetManifest,
    Findings,
    MembersFacts,
    Parameters,
    Teacher,
    manifest_dependency,
)
from gateway.dataset.manifest import statement_of as dataset_statement
from gateway.dataset.provenance import Metadata
from gateway.ident import ExchangeId, Sha256
from gateway.intent.model import IntendedUse, declaration_id
from gateway.receipt.model import DeclarationFacts, PolicyPin, Subject
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.statement import payload_sha256, write_statement
from gateway.student.manifest import statement_of as training_statement
from tests.support.chain import members_of
from tests.support.dataset import WRITER, House
from tests.unit.test_student_manifest import a_manifest

USE = IntendedUse(purpose="train.sft", student="pupil")
POLICY = "self-hosted"


def with_pupil(settings: Path, url: str) -> None:
    """Add the student to the settings, as a provider at *url*."""
    student = settings.parent / "student"
    entry = (
        f"providers:\n  pupil:\n    base_url: {url}\n    dialect: openai\n"
        f"    student: {student}\n    policy: {POLICY}\n"
    )
    text = settings.read_text()
    assert "providers:\n" in text
    settings.write_text(text.replace("providers:\n", entry, 1))


def teach(settings: Path) -> tuple[ExchangeId, Sha256]:
    """Put an answer, a dataset of it and a student of that into the ledger, before it serves.

    Returns the answer's exchange, and the student's training manifest, of which there is a copy
    beside the settings.
    """
    args = argparse.Namespace(config=str(settings))
    elsewhere = House(settings.parent / "elsewhere")
    with contextlib.closing(elsewhere), contextlib.closing(open_installation(args)) as house:

        def append(leaf: bytes) -> int:
            return int(house.sequencer.append_and_wait(leaf).index)

        now = rfc3339(house.clock.now_ms())
        declaration = elsewhere.declare(student="pupil")
        facts = DeclarationFacts(
            declaration=declaration_id("search", USE),
            project="search",
            use=USE,
            owner="ada",
            at=now,
            writer=WRITER,
        )
        append(write_statement(facts, (), house.keyring.receipt))
        receipt = elsewhere.receipt(declaration, "one")
        place = append(write_statement(receipt, (), house.keyring.receipt))
        pin = PolicyPin(policy=POLICY, version=1, sha256=Sha256("a" * 64))
        teacher = Teacher(
            provider="openai",
            model="open-1",
            operation="chat",
            rows=1,
            receipts=1,
            days=(now[:10],),
            effect="permit",
            policies=(pin,),
            declarations=(facts.declaration,),
        )
        dataset = DatasetManifest(
            asked=Parameters(dataset="taught", declaration=facts.declaration, project="search"),
            found=Findings(
                rows=1,
                teachers=(teacher,),
                use=USE,
                day=now[:10],
                library=house.library.digest,
                members=MembersFacts(count=1, sha256=Sha256("b" * 64)),
            ),
            dependencies=(),
            subjects=(Subject(name="rows.jsonl", digest={"sha256": "c" * 64}),),
            metadata=Metadata(invocation_id="1", started_on=now, finished_on=now),
            version="0.1.0",
        )
        leaf = write_manifest(dataset_statement(dataset), house.keyring.manifest)[1]
        payload = payload_sha256(leaf)
        for part in members_of(payload, "taught", [place]):
            append(write_statement(part, (), house.keyring.receipt))
        append(leaf)
        training = msgspec.structs.replace(
            a_manifest(teachers=(teacher,), use=USE),
            dependencies=(manifest_dependency("dataset:taught", payload, DATASET_MANIFEST),),
        )
        encoded, leaf = write_manifest(training_statement(training), house.keyring.manifest)
        append(leaf)
        (settings.parent / "student").mkdir()
        (settings.parent / "student" / "manifest.json").write_bytes(encoded)
    return receipt.exchange, payload_sha256(leaf)

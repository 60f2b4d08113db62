"""Put a model folder together, sign it, make it a leaf, and put it in its place.

The manifest is written last of what it names, the signature of the weights last of all. Once
the manifest is signed nothing is learned again: what is left can be asked for anew until it is
there.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from gateway.clock import rfc3339
from gateway.dataset.manifest import (
    DATASET_MANIFEST,
    MANIFEST,
    PROOF,
    left_out_counts,
    manifest_dependency,
)
from gateway.dataset.provenance import Metadata
from gateway.errors import GateError
from gateway.receipt.envelope import Signer
from gateway.receipt.keys import PublicKey, Trust
from gateway.receipt.sigstore import open_manifest, write_manifest
from gateway.receipt.verify import document_keys, verify_manifest
from gateway.student.bases import BESIDE, load_model, remember_base
from gateway.student.bom import evidence_name
from gateway.student.card import is_adapter
from gateway.student.evaluate import Drawn, Examined
from gateway.student.figures import Who
from gateway.student.files import (
    PART,
    put_in_place,
    sync_under,
    write_durably,
    written_by_others,
)
from gateway.student.gate import Snapshot
from gateway.student.manifest import (
    Asked,
    Findings,
    ModelManifest,
    Round,
    SnapshotFacts,
    base_dependencies,
    losses_of,
    recipe_facts,
    statement_of,
)
from gateway.student.progress import Metrics
from gateway.student.run import (
    LIBRARIES,
    METRICS,
    Job,
    Run,
    Trained,
    end_run,
    invocation_of,
    read_run,
    stands_already,
)
from gateway.student.signature import SIGNATURE, write_signature
from gateway.student.verify import (
    EVIDENCE,
    EVIDENCE_SUFFIX,
    PROOF_SUFFIX,
    check_files,
    signed_files,
    verify_model,
)
from gateway.student.views import write_views
from gateway.tlog.proof import format_proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of all rounds."""

    model: Any
    tokenizer: Any
    metrics: Metrics
    rounds: tuple[Round, ...]
    """Empty where it was trained from no feed."""
    device: str
    precision: str


def stage(
    job: Job,
    run: Run,
    snapshot: Snapshot,
    outcome: Outcome,
    drawn: Drawn | None,
    still: Callable[[], object],
) -> None:
    """Put the model folder together, ask the student what was *drawn*; sign all that last.

    Right before that *still* says whether it may be signed.

    Raises:
        StoppedError: the run was told to stop.
        GateRefusedError: what it learned from may not teach it any more.
        CallerError: the task metric failed.
    """
    shutil.rmtree(job.staged, ignore_errors=True)
    evidence = job.staged / EVIDENCE
    evidence.mkdir(parents=True)
    with written_by_others():
        _save(job, outcome)
    job.check_stop()
    shutil.copyfile(job.folder / METRICS, job.staged / METRICS)
    for number, dataset in enumerate(job.admitted.datasets):
        name = evidence_name(number, dataset.name)
        shutil.copyfile(dataset.path / MANIFEST, evidence / f"{name}{EVIDENCE_SUFFIX}")
        shutil.copyfile(dataset.path / PROOF, evidence / f"{name}{PROOF_SUFFIX}")
    datasets = [dataset.manifest for dataset in job.admitted.datasets]
    examined = None if drawn is None else _examined(job, outcome, drawn)
    manifest = _manifest(job, run, snapshot, outcome, examined)
    samples = examined.samples if examined is not None else ()
    manifest = write_views(job.staged, manifest, datasets, samples)
    # Whatever is cut off once the manifest stands, it must not be what the manifest names.
    sync_under(job.staged)
    job.check_stop()
    # Somebody may have withdrawn something while it was learned and asked.
    still()
    encoded, _ = write_manifest(statement_of(manifest), job.rooms.signer)
    write_durably(job.staged / MANIFEST, encoded)


def finish(job: Job) -> Trained:
    """Make the signed manifest a leaf, if it is none yet, and put the folder in place.

    Raises:
        EvidenceError: the staged folder does not verify.
        GateError: the manifest key is trusted by nobody.
    """
    trust, rooms = job.rooms.sources().trust, job.rooms
    for name in (MANIFEST, PROOF, SIGNATURE):
        # Left where the one that was here before was cut off; it is written anew.
        (job.staged / f"{name}{PART}").unlink(missing_ok=True)
    encoded = (job.staged / MANIFEST).read_bytes()
    statement, payload = verify_manifest(encoded, trust)
    checked = check_files(job.staged, statement, trust)
    index, appended = rooms.index_of(payload), None
    if index is None:
        leaf, _ = open_manifest(encoded)
        index = appended = rooms.append(leaf)
    # From here on the ledger says that this student was trained; what is left can be made anew.
    proof = format_proof(rooms.prove(index))
    write_durably(job.staged / PROOF, proof.encode())
    signature = write_signature(
        checked.manifest.asked.student,
        signed_files(job.staged, checked),
        rooms.signer,
        _key_of(rooms.signer, trust),
    )
    write_durably(job.staged / SIGNATURE, signature)
    verify_model(job.staged, trust)
    if is_adapter(checked.manifest) and job.at_hand.path is not None:
        remember_base(job.place, job.at_hand.path)
    put_in_place(job.staged, job.place)
    end_run(job.folder)
    return Trained(
        folder=job.place,
        payload_sha256=payload,
        index=appended,
        manifest=checked.manifest,
    )


def stood(job: Job) -> Trained:
    """Return the student that stands, if it is this run that put it there; then end the run.

    Raises:
        EvidenceError: what stands does not verify.
        GateRefusedError: what stands is another one.
        MissingPieceError: what the folder says of the run can't be read.
    """
    standing = verify_model(job.place, job.rooms.sources().trust)
    manifest = standing.manifest
    made_by = invocation_of(manifest.found.snapshot.sha256, read_run(job).started)
    if manifest.metadata.invocation_id != made_by:
        raise stands_already(job.place)
    end_run(job.folder)
    return Trained(
        folder=job.place, payload_sha256=standing.payload_sha256, index=None, manifest=manifest
    )


def _save(job: Job, outcome: Outcome) -> None:
    """Write weights, shape and words, as whoever lets the student speak wants them."""
    model, lora = outcome.model, job.recipe.lora
    # Trainers switch the cache off; whoever lets the student speak wants it.
    model.config.use_cache = True
    if lora is None or lora.merge:
        whole = model if lora is None else model.merge_and_unload()
        whole.save_pretrained(job.staged, safe_serialization=True)
    else:
        beside = job.at_hand.path
        for adapter in model.peft_config.values():
            # By name: what is signed and handed on tells nobody where things lie here.
            adapter.base_model_name_or_path = job.at_hand.base.name if beside else BESIDE
            adapter.revision = job.at_hand.base.revision
        # The words of the base stay as they are: the library must not go and look for them.
        model.save_pretrained(job.staged, safe_serialization=True, save_embedding_layers=False)
        model.config.save_pretrained(job.staged)
        if beside is None:
            # Takes the adapter away; it is written by now.
            model.unload().save_pretrained(job.staged / BESIDE, safe_serialization=True)
    outcome.tokenizer.save_pretrained(job.staged)


def _examined(job: Job, outcome: Outcome, drawn: Drawn) -> Examined:
    """Return what base and student make of the rows; the student as it will be signed."""
    # Only now: it imports what takes seconds.
    from gateway.student.examine import examine_models  # noqa: PLC0415
    from gateway.student.tiny import tiny_model  # noqa: PLC0415  # as above

    path, tokenizer = job.at_hand.path, outcome.tokenizer

    def base() -> Any:
        return tiny_model(tokenizer, job.recipe.seed) if path is None else load_model(path)

    models: dict[Who, Callable[[], Any]] = {
        "base": base,
        "student": lambda: load_model(job.staged, path),
    }
    title = f"asking base and student {len(drawn.rows)} held-out rows"
    with job.screen.counting(title) as tick:

        def one_more(done: int, total: int) -> None:
            job.check_stop()
            tick(done, total)

        return examine_models(drawn, tokenizer, job.recipe.max_length, models, one_more)


def _manifest(
    job: Job, run: Run, snapshot: Snapshot, outcome: Outcome, examined: Examined | None
) -> ModelManifest:
    """Return the manifest of the run, its files still to be named."""
    admitted, base, recipe = job.admitted, job.at_hand.base, job.recipe
    finished = rfc3339(job.rooms.clock.now_ms())
    lora = recipe.lora
    return ModelManifest(
        asked=Asked(
            method=recipe.objective,
            student=admitted.student,
            declarations=admitted.declarations,
            datasets=tuple(dataset.name for dataset in admitted.datasets),
            base=base,
        ),
        found=Findings(
            recipe=recipe_facts(recipe),
            snapshot=SnapshotFacts(
                sha256=snapshot.sha256,
                rows=snapshot.rows,
                tokens=snapshot.tokens,
                learned=snapshot.learned,
                left_out=left_out_counts(snapshot.left_out),
                template_sha256=snapshot.template_sha256,
                tokenizer_sha256=snapshot.tokenizer_sha256,
                held_out=None if snapshot.held_out is None else snapshot.held_out.rows,
            ),
            steps=len(outcome.metrics.steps),
            resumes=run.resumes,
            losses=losses_of([step.loss for step in outcome.metrics.steps]),
            rounds=outcome.rounds,
            form="full" if lora is None else "merged" if lora.merge else "adapter",
            precision=outcome.precision,
            use=admitted.use,
            obligations=admitted.obligations,
            teachers=admitted.teachers,
            above=admitted.above,
            day=admitted.day.isoformat(),
            library=admitted.library,
            device=outcome.device,
            versions={name: metadata.version(name) for name in LIBRARIES}
            | {"python": platform.python_version()},
            evaluation=None if examined is None else examined.evaluation,
        ),
        dependencies=(
            *(
                manifest_dependency(
                    f"dataset:{dataset.name}", dataset.manifest_sha256, DATASET_MANIFEST
                )
                for dataset in admitted.datasets
            ),
            *base_dependencies(base),
        ),
        subjects=(),
        metadata=Metadata(
            invocation_id=invocation_of(snapshot.sha256, run.started),
            started_on=run.started,
            finished_on=finished,
        ),
        version=job.rooms.version,
    )


def _key_of(signer: Signer, trust: Trust) -> PublicKey:
    key = document_keys(trust).get(signer.keyid)
    if key is None:
        raise GateError(
            f"the manifest key {signer.keyid[:16]}… is not in the trust file, or ended there",
            hint="see `gateway key list`; then go on with --resume",
            code="student.untrusted_key",
        )
    return key

"""`gateway verify PATH`: check a bundle, a manifest, a pack, a dataset or a model, offline.

It needs the evidence and a trust file, and no gateway, settings or network.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Final

from gateway.errors import EvidenceError, MalformedReceiptError
from gateway.limits import BUNDLE_BYTES_MAX, TRUST_BYTES_MAX
from gateway.receipt.keys import Trust, parse_public_pem, parse_trust
from gateway.receipt.model import (
    DATASET_BUILD,
    EXPORT_BUILD,
    TRAINING_BUILD,
    Abandonment,
    Activation,
    AgreementFacts,
    DeclarationFacts,
    Derivation,
    Erasure,
    KeyAuthorization,
    KeyRevocation,
    LogSuccession,
    Manifest,
    Members,
    Opening,
    OrganisationFacts,
    Receipt,
    Refusal,
    Statement,
    Takeover,
    TermsChange,
    Verdict,
    Withdrawal,
)
from gateway.receipt.sigstore import open_manifest
from gateway.receipt.statement import read_leaf
from gateway.receipt.verify import verify_bundle, verify_manifest, verify_trust

MANIFEST: Final = "manifest.json"
PROOF: Final = "manifest.tlog-proof"
REPLAY_STATEMENT: Final = "report.dsse.json"
TRUST_SIGNATURE: Final = "trust.sigstore.json"
ZIP: Final = b"PK"
"""How a pack begins, and no other evidence."""
TRUST_DEFAULT: Final = Path("gateway-data") / "trust.json"

FINE: Final = 0
NOT_FINE: Final = 1
WRONG_USAGE: Final = 2


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `verify` among *commands*."""
    parser = commands.add_parser(
        "verify",
        help="verify a bundle, a pack, a dataset or a model, offline",
        description="Verify a receipt bundle, a manifest, an evidence pack, a dataset folder, "
        "an export of one, or a model folder. Exit code 0: everything verifies; 1: something "
        "does not; 2: wrong usage.",
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="a file or a folder")
    parser.add_argument(
        "--trust",
        metavar="FILE",
        type=Path,
        help=f"the public keys to trust (default: {TRUST_DEFAULT})",
    )
    parser.add_argument(
        "--root",
        metavar="FILE",
        type=Path,
        help="the operator's root key (root.pub): check that it signed the trust file",
    )
    parser.add_argument(
        "--every-signature",
        action="store_true",
        help="of a dataset, check each receipt's own signature too, not only its place in the "
        "log",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify whatever `args.path` is; return the exit code."""
    path: Path = args.path
    try:
        trust = _read_trust(args.trust or TRUST_DEFAULT, getattr(args, "root", None))
        if path.is_dir():
            return _verify_folder(path, trust, every_signature=args.every_signature)
        if _read(path, 3).startswith(ZIP):
            return _verify_pack(path, trust)
        return _verify_file(_read(path, BUNDLE_BYTES_MAX), trust)
    except EvidenceError as bad:
        _tell("fail", bad.problem, f"{path}: {bad.message}")
        if bad.hint:
            _tell("hint", "", bad.hint)
        return NOT_FINE
    except BrokenPipeError:
        # Whoever read what we print has had enough; the command line knows what to do.
        raise
    except OSError as broken:
        return _wrong_usage(f"can't read `{broken.filename}`: {broken.strerror}")
    except _UsageError as wrong:
        return _wrong_usage(str(wrong))


class _UsageError(Exception):
    """What was asked can't be done; says what to do instead."""


def _verify_file(encoded: bytes, trust: Trust) -> int:
    if encoded.startswith(b'{"dsseEnvelope"'):
        statement, sha256 = verify_manifest(encoded, trust)
        _tell("ok", "signature", f"manifest {sha256}")
        _tell("not", "checked", "its place in the log: give the folder, or the leaf's bundle")
        for subject in statement["subject"]:
            _tell("not", "checked", f"{subject['name']}: give the folder to check its files")
        return FINE
    verified = verify_bundle(encoded, trust, _passed)
    _tell("says", "", _sentence(verified.statement))
    return FINE


def _verify_pack(path: Path, trust: Trust) -> int:
    # The verifier of a bundle must not load what only a pack needs.
    from gateway.cli.bar import progress_bar  # noqa: PLC0415
    from gateway.lineage.pack_verify import verify_pack  # noqa: PLC0415

    with progress_bar("verifying leaves") as progress:
        verified = verify_pack(path, trust, _our_version(), _passed, progress)
    for answer in verified.answers:
        for sentence in answer.sentences:
            _tell("says", "", sentence)
    for missing in verified.facts.missing:
        _tell("not", "in it", missing)
    return FINE


def _our_version() -> str:
    # Only where a pack is verified: loading it takes as long as checking a thousand rows.
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version("tos-gateway")
    except PackageNotFoundError:
        return "0"


def _verify_folder(path: Path, trust: Trust, *, every_signature: bool) -> int:
    if (path / REPLAY_STATEMENT).is_file():
        # The verifier of a bundle must not load what only a report needs.
        from gateway.dataset.recall_report import verify_report  # noqa: PLC0415

        told = verify_report(path, trust)
        _tell("ok", "signature", "report of a replay")
        _tell("ok", "files", "each as the report was signed")
        changed = ", ".join(
            f"{count} {kind}{'' if count == 1 else 's'}"
            for kind, count in told["changed"].items()
        )
        _tell("says", "", f"replayed on {told['on']}: changed {changed or 'nothing'}")
        return FINE
    build_type = _build_type(path / MANIFEST)
    if build_type == DATASET_BUILD:
        # The verifier of a bundle must not load what only a dataset needs.
        from gateway.cli.bar import progress_bar  # noqa: PLC0415
        from gateway.dataset.verification.verify import verify_dataset  # noqa: PLC0415

        with progress_bar("verifying rows") as progress:
            dataset = verify_dataset(
                path, trust, _passed, every_signature=every_signature, progress=progress
            )
        _tell("says", "", f"dataset {dataset.name}")
        return FINE
    if build_type == EXPORT_BUILD:
        # The verifier of a bundle must not load what only an export needs.
        from gateway.dataset.export.verify import verify_export  # noqa: PLC0415

        export = verify_export(path, trust, _passed)
        _tell(
            "says", "", f"export {export.name}: {export.rows} rows of {export.dataset_sha256}"
        )
        return FINE
    # The verifier of a bundle must not load what only a model needs.
    from gateway.student.verify import verify_model  # noqa: PLC0415

    model = verify_model(path, trust, _passed)
    _tell("says", "", f"model {model.payload_sha256}")
    return FINE


def _build_type(path: Path) -> str:
    """Return which of the builds the folder of the manifest at *path* claims to be."""
    folder = path.parent
    if path.is_file() or (folder / PROOF).is_file():
        manifest = None
        # A broken manifest has a name of its own only in the folder that it belongs to.
        with contextlib.suppress(MalformedReceiptError):
            # One that is gone, or no file, has one there, too; a pipe would never end.
            encoded = _read(path, BUNDLE_BYTES_MAX) if path.is_file() else b""
            manifest = read_leaf(open_manifest(encoded)[0])
        if isinstance(manifest, Manifest):
            return manifest.build_type
        if (folder / "rows.jsonl").is_file():
            return DATASET_BUILD
        if (folder / "lost.json").is_file():
            return EXPORT_BUILD
        if any(folder.glob("*.safetensors")):
            return TRAINING_BUILD
    raise _UsageError(
        f"`{folder}` is no dataset folder (manifest.json, rows.jsonl), no export of one "
        "(manifest.json, lost.json) and no model folder (manifest.json, *.safetensors)"
    )


def _read_trust(path: Path, root_file: Path | None) -> Trust:
    """Return the trust in the file at *path*, signed by the root in *root_file* if given."""
    if not path.is_file():
        raise _UsageError(
            f"there is no trust file at `{path}`; hint: give `--trust FILE`, the `trust.json` "
            "that the log's operator publishes"
        )
    encoded = _read(path, TRUST_BYTES_MAX)
    if root_file is None:
        return parse_trust(encoded)
    root = parse_public_pem(_read(root_file, TRUST_BYTES_MAX).decode("utf-8", "replace"))
    signature = _read(path.with_name(TRUST_SIGNATURE), BUNDLE_BYTES_MAX)
    # What was signed is what counts from here on: the file may be another by now.
    trust, at = verify_trust(encoded, signature, root)
    _tell("ok", "trust", f"signed by the root {root.keyid[:16]}… at {at}")
    return trust


def _read(path: Path, bytes_max: int) -> bytes:
    with path.open("rb") as file:
        return file.read(bytes_max + 1)


def _passed(check: str, found: str) -> None:
    _tell("ok", check, found)


def _sentence(statement: Statement) -> str:
    match statement:
        case Opening():
            return f"exchange {statement.exchange} with {statement.provider} was opened"
        case Receipt():
            model = statement.model.reported or statement.model.requested or "no model named"
            return (
                f"exchange {statement.exchange}: {statement.provider.name} ({model}) answered, "
                f"{statement.ended}; declared {statement.declared.use.purpose}, "
                f"ruled {statement.ruling.effect}, received {statement.received}"
            )
        case Refusal():
            return (
                f"exchange {statement.exchange}: {statement.provider.name} was not asked; "
                f"declared {statement.declared.use.purpose}, ruled {statement.ruling.effect}"
            )
        case Abandonment():
            return f"exchange {statement.exchange} was abandoned: {statement.why}"
        case DeclarationFacts():
            return f"{statement.declaration} was declared by {statement.owner}"
        case Verdict() | Withdrawal():
            said = "withdrew"
            if isinstance(statement, Verdict):
                said = "approved" if statement.approved else "declined"
            about = str(statement.declaration or statement.exchange or "a manifest")
            if isinstance(statement, Withdrawal):
                about = _withdrawn(statement, about)
            return f"{statement.by} {said} {about}: {statement.reason}"
        case AgreementFacts():
            return (
                f"{statement.by} registered agreement {statement.agreement}, signed by"
                f" {statement.signer}: it lifts {', '.join(statement.lifts)} of"
                f" {statement.policy} from {statement.starts} to {statement.expires}"
            )
        case OrganisationFacts():
            facts = ", ".join(f"{name} {value}" for name, value in statement.facts.items())
            return f"{statement.by} stated of the organisation: {facts}"
        case Activation():
            return f"policy library {statement.library} came into force, by {statement.by}"
        case TermsChange():
            return (
                f"{statement.by} found {statement.document} changed at"
                f" {', '.join(statement.sections)}: policy {statement.policy}"
                f" {statement.version} is stale"
            )
        case KeyAuthorization():
            return (
                f"{statement.role} key {statement.keyid} may sign from here on, at most until"
                f" {statement.expires}, says {statement.by}"
            )
        case KeyRevocation():
            since = "here" if statement.since is None else f"leaf {statement.since}"
            return (
                f"{statement.role} key {statement.keyid} counts no longer from {since} on:"
                f" {statement.reason}, says {statement.by}"
            )
        case LogSuccession():
            frozen = statement.predecessor
            return (
                f"{statement.origin} goes on where {frozen.origin} was frozen, at leaf"
                f" {frozen.size}: {statement.reason}"
            )
        case Erasure():
            named = (statement.exchange, statement.principal, statement.project)
            scope = next((one for one in named if one), "everyone")
            before = f" from before {statement.before}" if statement.before else ""
            if statement.overdue:
                return f"texts were erased whose days were over on {statement.overdue}"
            return f"{statement.by} erased the texts of {scope}{before}: {statement.reason}"
        case Takeover():
            return f"a sequencer took over, epoch {statement.epoch}"
        case Derivation():
            made = statement.transform
            by = f", written by {statement.written.by}" if statement.written else ""
            return (
                f"derivation {statement.derivation}: {len(statement.rows)} rows by"
                f" `{made.name}` {made.version} ({made.kind}) of"
                f" {len(statement.parents)} parents{by}"
            )
        case Members():
            return (
                f"what dataset `{statement.dataset}` was made from, part {statement.part + 1}"
                f" of {statement.parts}"
            )
        case Manifest():
            return f"manifest {statement.payload_sha256} ({statement.build_type})"


def _withdrawn(statement: Withdrawal, otherwise: str) -> str:
    if statement.agreement:
        return f"agreement {statement.agreement}"
    if statement.manifest:
        return f"manifest {statement.manifest}"
    return str(statement.derivation or otherwise)


def _tell(outcome: str, check: str, found: str) -> None:
    print(_plain(f"{outcome:<4} {check:<10} {found}" if check else f"{outcome:<4} {found}"))


def _wrong_usage(message: str) -> int:
    print(_plain(message), file=sys.stderr)
    return WRONG_USAGE


def _plain(line: str) -> str:
    """Return *line* without the controls that others may have written for a terminal."""
    return "".join(one if one.isprintable() else "�" for one in line)

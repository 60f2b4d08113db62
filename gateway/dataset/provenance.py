"""What all manifests share: an in-toto Statement with SLSA's provenance predicate, version 1.

It says what somebody asked for, what came of it, from what it was made, and in which run; its
subjects are the files that it signs (https://slsa.dev/spec/v1.0/provenance).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from gateway.errors import MalformedReceiptError
from gateway.receipt.model import PROVENANCE_TYPE, STATEMENT_TYPE, Subject, Wire


class Dependency(Wire, frozen=True, kw_only=True):
    """Something it was made from, by digest."""

    name: str
    uri: str | None = None
    media_type: str | None = None
    digest: dict[str, str]
    annotations: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Return what it is, in its annotation `kind`, or nothing."""
        kind = self.annotations.get("kind")
        return kind if isinstance(kind, str) else ""


class Metadata(Wire, frozen=True, kw_only=True):
    """When it was made, and in which run."""

    invocation_id: str
    started_on: str
    finished_on: str


Asked = TypeVar("Asked", bound=msgspec.Struct)
Found = TypeVar("Found", bound=msgspec.Struct)


class Provenance(msgspec.Struct, Generic[Asked, Found], frozen=True, kw_only=True):
    """A manifest, read."""

    asked: Asked
    """The external parameters: what somebody asked for."""
    found: Found
    """The internal parameters: what came of it."""
    dependencies: tuple[Dependency, ...]
    subjects: tuple[Subject, ...]
    metadata: Metadata
    version: str
    """Of the package that made it."""

    @property
    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file of the folder."""
        return {subject.name: subject.digest["sha256"] for subject in self.subjects}


Made = TypeVar("Made", bound=Provenance[Any, Any])


def write_provenance(
    build_type: str, builder: str, manifest: Provenance[Any, Any]
) -> dict[str, Any]:
    """Return *manifest* as the in-toto Statement that is signed."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": msgspec.to_builtins(manifest.subjects),
        "predicateType": PROVENANCE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": build_type,
                "externalParameters": msgspec.to_builtins(manifest.asked),
                "internalParameters": msgspec.to_builtins(manifest.found),
                "resolvedDependencies": msgspec.to_builtins(manifest.dependencies),
            },
            "runDetails": {
                "builder": {"id": builder, "version": {"tos-gateway": manifest.version}},
                "metadata": msgspec.to_builtins(manifest.metadata),
            },
        },
    }


def read_provenance(
    statement: Mapping[str, Any],
    build_type: str,
    made: type[Made],
    asked: type[msgspec.Struct],
    found: type[msgspec.Struct],
) -> Made:
    """Return the manifest of that build type that *statement* is.

    Raises:
        MalformedReceiptError: it is another kind of statement, or not whole.
    """
    try:
        build, details = build_of(statement, build_type)
        manifest = made(
            asked=msgspec.convert(build["externalParameters"], asked),
            found=msgspec.convert(build["internalParameters"], found),
            dependencies=msgspec.convert(
                build.get("resolvedDependencies", ()), tuple[Dependency, ...]
            ),
            subjects=msgspec.convert(statement["subject"], tuple[Subject, ...]),
            metadata=msgspec.convert(details["metadata"], Metadata),
            version=str(details["builder"]["version"]["tos-gateway"]),
        )
    except (KeyError, TypeError, AttributeError, msgspec.ValidationError) as exc:
        raise MalformedReceiptError(f"not a manifest of its kind: {exc}") from exc
    names = [subject.name for subject in manifest.subjects]
    if len(set(names)) != len(names) or not all(
        "sha256" in subject.digest for subject in manifest.subjects
    ):
        raise MalformedReceiptError("a manifest names a file twice or without a digest")
    return manifest


def build_of(
    statement: Mapping[str, Any], build_type: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what *statement* says of the build, and of its run.

    Raises:
        MalformedReceiptError: it carries no provenance, or that of another kind of build.
        KeyError, TypeError: it is not whole.
    """
    if statement["predicateType"] != PROVENANCE_TYPE:
        raise MalformedReceiptError("a manifest carries a SLSA provenance predicate")
    predicate = statement["predicate"]
    build = predicate["buildDefinition"]
    if build["buildType"] != build_type:
        raise MalformedReceiptError(f"this manifest is of type `{build['buildType']}`")
    return build, predicate["runDetails"]

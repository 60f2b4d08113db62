"""An intended use and the declaration it is registered as.

What is not declared is unknown (`None`), never false: the ruling treats an unknown that might
forbid as a reason to hold.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from gateway.canonical import canonical_json, sha256_hex
from gateway.ident import DeclarationId

StudentKind = Literal[
    "classifier",
    "embedding",
    "reranker",
    "extractor",
    "summariser",
    "reward",
    "chat",
    "generator",
    "image",
]
"""What the student does; `chat`, `generator` and `image` are generative."""

Audience = Literal["internal", "affiliates", "customers", "public"]
"""Whom the student, or what it is made for, reaches."""

Visibility = Literal["internal", "service", "weights"]
"""How the student is seen: kept inside, offered as a service, or released as weights."""

Notice = Literal[
    "licence-copy", "notice-file", "attribution", "display", "changes-marked", "flow-down"
]
"""What goes out with the student or the data: a copy of the licence, its notice file, words of
attribution, words shown prominently, marks on what was changed, terms passed on."""

Automation = Literal["interactive", "scripted", "batch"]
"""How requests come about: a person at a keyboard, a program, or a batch."""

GENERATIVE: Final[frozenset[StudentKind]] = frozenset({"chat", "generator", "image"})

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""The shape of names that people give: projects, students, datasets."""


class IntendedUse(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename="kebab",
):
    """What a principal says it will do with the output; the keys are those of the header."""

    purpose: str
    student: str | None = None
    student_kind: StudentKind | None = None
    imitates_teacher: bool | None = None
    competes: bool | None = None
    competes_basis: str | None = None
    competes_assessed_by: str | None = None
    competes_assessed_on: str | None = None
    """`YYYY-MM-DD`."""
    similar: bool | None = None
    audience: Audience | None = None
    visibility: Visibility | None = None
    commercial: bool | None = None
    research: bool | None = None
    notices: tuple[Notice, ...] | None = None
    """In the order of their names; an empty tuple says that there are none."""
    automation: Automation | None = None
    promotes_competitor: bool | None = None
    replication_info: bool | None = None
    base_model: str | None = None
    agreement: str | None = None
    """What the declaration leans on, in words; only a registered agreement lifts anything."""
    jurisdiction: str | None = None
    """Country of the organisation, ISO 3166 two letters."""


class Declaration(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """An intended use as handed in by a project; its id is the digest of what it says."""

    id: DeclarationId
    project: str
    use: IntendedUse
    owner: str | None = None
    expires: str | None = None
    """The last day on which it may be cited, `YYYY-MM-DD`."""


INFERENCE: Final = IntendedUse(purpose="inference")
"""What a request without a declaration is ruled on for; its outputs can never be trained on."""


def declaration_id(project: str, use: IntendedUse) -> DeclarationId:
    """Return the id of *use* as declared by *project*: the same words, the same id."""
    said = canonical_json({"project": project, "use": msgspec.to_builtins(use)})
    return DeclarationId(f"use-{sha256_hex(said)[:20]}")

"""What is stated of a transform and of its rows: names, digests, verdicts, labels."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.canonical import canonical_json, sha256_hex
from gateway.dataset.derivation.handed import malformed
from gateway.errors import GateRefusedError
from gateway.ident import Sha256
from gateway.intent.model import NAME
from gateway.limits import TAGS_MAX

TRANSFORM_MALFORMED: Final = "derive.transform_malformed"

_LABEL_CHARS_MAX: Final = 64


def code_digest(code: Callable[..., Any] | Path | str) -> Sha256 | None:
    """Return the SHA-256 of a function's source, or of a file; `None` where there is none.

    Raises:
        GateRefusedError: `derive.transform_malformed`, the file can't be read.
    """
    if isinstance(code, Path | str):
        try:
            with Path(code).open("rb") as file:
                return Sha256(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as exc:
            raise malformed_transform(
                f"{code}: {exc.strerror}", "name the file of the code"
            ) from exc
    while isinstance(code, functools.partial):
        code = code.func
    try:
        return sha256_hex(inspect.getsource(code).encode())
    except (OSError, TypeError):
        # Typed in at a prompt, or compiled: nobody has its source.
        return None


def tags_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return *names* as tags, each once.

    Raises:
        GateRefusedError: `derive.transform_malformed`, one is no name, or they are too many.
    """
    tags = tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    for one in tags:
        if not NAME.fullmatch(one):
            raise malformed_transform(
                f"`{one[:40]}` is no name for a tag", "like nightly or batch-7"
            )
    if len(tags) > TAGS_MAX:
        raise malformed_transform(f"{len(tags)} tags are too many", f"{TAGS_MAX} at most")
    return tags


def verdict_of(found: str | float) -> str:
    """Return a verdict as it is stated: a word or a number.

    Raises:
        GateRefusedError: `derive.row_malformed`.
    """
    told = found if isinstance(found, str) else _number(found)
    if not told or len(told) > _LABEL_CHARS_MAX or not told.isprintable():
        raise malformed("a verdict is a word or a number", "like good, yes or 0.87")
    return told


def _number(found: object) -> str:
    if isinstance(found, bool):
        return "yes" if found else "no"
    return repr(found) if isinstance(found, int | float) else ""


def settings_digest(settings: object) -> Sha256:
    """Return the SHA-256 of what a transform is called with.

    Raises:
        GateRefusedError: `derive.transform_malformed`.
    """
    if not isinstance(settings, Mapping):
        raise malformed_transform(
            f"settings are a {type(settings).__name__}", "a dict of names"
        )
    try:
        return sha256_hex(canonical_json(dict(settings)))
    except (TypeError, ValueError) as exc:
        raise malformed_transform(
            f"the settings have no form as JSON: {exc}", "names, numbers"
        ) from exc


def name_of(text: object) -> str:
    """Return the name of a transform.

    Raises:
        GateRefusedError: `derive.transform_malformed`.
    """
    if not isinstance(text, str) or not NAME.fullmatch(text):
        raise malformed_transform(
            f"`{str(text)[:40]}` is no name for a transform",
            "small letters, digits, `.`, `_` and `-`, at most 64",
        )
    return text


def label_of(text: object, what: str, chars_max: int = _LABEL_CHARS_MAX) -> str:
    """Return one line that says *what*.

    Raises:
        GateRefusedError: `derive.transform_malformed`.
    """
    said = text.strip() if isinstance(text, str) else ""
    if not said or len(said) > chars_max or not said.isprintable():
        raise malformed_transform(
            f"nothing says {what}", f"in a line of at most {chars_max} characters"
        )
    return said


def malformed_transform(message: str, hint: str) -> GateRefusedError:
    """Return the error that what is stated of a transform is."""
    return GateRefusedError(message, hint=hint, code=TRANSFORM_MALFORMED)

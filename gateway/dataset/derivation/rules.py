"""What a row has to be, by its transform and beside what it was made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.canonical import canonical_json
from gateway.dataset.derivation.handed import pair_of, read_line
from gateway.dataset.derivation.parents import PARENT_MISSING, ParentRef, Resolved
from gateway.dataset.derivation.stated import malformed_transform
from gateway.errors import GateRefusedError
from gateway.receipt.model import TransformKind, Written

ROW_CHANGED: Final = "derive.row_changed"
JUDGE_ANSWERED: Final = "derive.judge_answered"

_JUDGEMENT_CHARS: Final = 40
"""A shorter answer of a judge may stand in a row by chance."""

Read = Callable[[Resolved], bytes]
"""Returns the row that a parent is."""


def check_parents_named(named: tuple[ParentRef, ...], author: Written | None) -> None:
    """Raise unless a row says what it was made of; what people wrote has no parents."""
    roles = [ref.role for ref in named]
    if author is not None:
        if named:
            raise malformed_transform(
                "a written row has no parents",
                "what somebody changed in an output is recorded as a rewrite of it",
            )
        return
    if all(role == "judge" for role in roles):
        raise GateRefusedError(
            "a row was made of something, and no parent says of what",
            hint="name its parents; what people wrote is recorded as written",
            code=PARENT_MISSING,
        )


def check_sides(resolved: list[tuple[ParentRef, Resolved]]) -> None:
    """Raise unless a pair is made of a pair, or of both its sides."""
    if any(ref.role == "source" and one.is_pair for ref, one in resolved):
        return
    for side in ("chosen", "rejected"):
        if all(ref.role != side for ref, _ in resolved):
            raise GateRefusedError(
                f"a pair has no parent in the role `{side}`",
                hint="both sides of a pair have a receipt, or it is made of such a pair",
                code=PARENT_MISSING,
            )


def check_kept(
    kind: TransformKind, line: bytes, resolved: list[tuple[ParentRef, Resolved]], read: Read
) -> None:
    """Raise where a filter or a judge changed the row that it was to keep."""
    by_role: dict[str, list[Resolved]] = {}
    for ref, one in resolved:
        by_role.setdefault(ref.role, []).append(one)
    match sorted(by_role.keys() - {"judge"}), by_role:
        case ["source"], {"source": [one]}:
            same = line == read(one)
        case ["chosen", "rejected"], {"chosen": [better], "rejected": [worse]}:
            pair = pair_of(read_line(read(better)), read_line(read(worse)))
            same = line == canonical_json(pair)
        case _:
            raise malformed_transform(
                f"a {kind} keeps the row of exactly one parent",
                "name one source, or one chosen and one rejected",
            )
    if not same:
        raise GateRefusedError(
            f"a {kind} keeps a row as it is, and this one was changed",
            hint="record a change as a rewrite, an extraction or a translation",
            code=ROW_CHANGED,
        )


def check_judges(line: bytes, resolved: list[tuple[ParentRef, Resolved]], read: Read) -> None:
    """Raise where a judge's own answer stands in a row: then it was more than a judge.

    What a judge repeats of a source is the source's.
    """
    judges = [one for ref, one in resolved if ref.role == "judge"]
    if not judges:
        return
    words = "\n".join(_said_in(line))
    others = "\n".join(
        text for ref, one in resolved if ref.role != "judge" for text in _said_in(read(one))
    )
    for one in judges:
        answer = next(reversed(_said_in(read(one))), "").strip()
        if len(answer) >= _JUDGEMENT_CHARS and answer in words and answer not in others:
            raise GateRefusedError(
                f"the answer of judge `{one.id}/{one.choice}` stands in the row",
                hint="whose words a row holds is its source or its rewriter",
                code=JUDGE_ANSWERED,
            )


def _said_in(line: bytes) -> list[str]:
    """Return the texts that the messages of a row say, in order."""
    row = read_line(line) if line else {}
    lists = [row.get(name) for name in ("prompt", "chosen", "rejected", "messages")]
    said = [one.get("content") for some in lists for one in some or () if some]
    texts: list[str] = []
    for content in said:
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            texts += [str(part.get("text", "")) for part in content if isinstance(part, dict)]
    return texts

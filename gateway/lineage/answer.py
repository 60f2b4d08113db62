"""What is answered: yes, no, or can't tell, with what shows it, and the same in words.

An answer is signed in packs and made again by whoever verifies one, so what it says is part of
the format of a pack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from gateway.dataset.manifest import Influence
from gateway.ident import Sha256
from gateway.receipt.model import Wire

Says = Literal["yes", "no", "can't tell", "never seen"]


class Approved(Wire, frozen=True, kw_only=True):
    """A verdict that let a held use pass: who, why, and where it stands in the log."""

    leaf: int
    by: str
    reason: str


class Finding(Wire, frozen=True, kw_only=True):
    """One way by which what was asked for reached what was asked about."""

    what: Literal["teacher", "answer", "account", "dataset", "rows"]
    stages: int
    """How many trainings lie in between."""
    dataset: str = ""
    manifest: Sha256 = Sha256("")
    """The dataset's manifest, by the digest of its payload."""
    leaf: int | None = None
    """Where that manifest stands in the log; of an answer, where its receipt does."""
    exchange: str = ""
    """Of an answer; of rows their derivation."""
    provider: str = ""
    models: tuple[str, ...] = ()
    influence: Influence = "text"
    rows: int = 0
    of_rows: int = 0
    tokens: int | None = None
    """Output tokens of its answers, where they were counted."""
    of_tokens: int | None = None
    receipts: int = 0
    first_leaves: tuple[int, ...] = ()
    """Of an account: its first receipts there."""
    policies: tuple[str, ...] = ()
    clauses: tuple[str, ...] = ()
    agreements: tuple[str, ...] = ()
    declaration: str = ""
    purpose: str = ""
    owner: str = ""
    approved: tuple[Approved, ...] = ()
    withdrawn: str = ""
    days: tuple[str, ...] = ()
    """The first and the last day on which it was asked."""


class Clear(Wire, frozen=True, kw_only=True):
    """A dataset whose signed list of leaves holds none of an account."""

    dataset: str
    manifest: Sha256
    leaf: int | None
    members: int


class Answer(Wire, frozen=True, kw_only=True):
    """What is answered, on what evidence, and what is not known."""

    question: str
    about: str
    says: Says
    findings: tuple[Finding, ...] = ()
    """What makes it a yes."""
    judged: tuple[Finding, ...] = ()
    """Where it only judged, and no words of it were learned."""
    clear: tuple[Clear, ...] = ()
    unknown: tuple[str, ...] = ()
    """What stands between this and a no."""
    rests_on: tuple[str, ...] = ()
    """Whose word it rests on, where no receipt speaks."""
    withdrawn: tuple[str, ...] = ()
    """What was withdrawn since, of all that stands above."""
    covers: str = ""
    """What it covers, and up to where."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """Return the answer in sentences; the first one says yes, no or can't tell."""
        return tuple(_sentences(self))


def as_json(answer: Answer) -> dict[str, Any]:
    """Return *answer* as JSON-ready values, its sentences beside it."""
    told: dict[str, Any] = msgspec.to_builtins(answer)
    return told | {"sentences": list(answer.sentences)}


def _sentences(answer: Answer) -> Iterator[str]:
    kind, _, value = answer.question.partition(":")
    told = _ANYBODY if answer.question == _FROM_ANYBODY else _HEADLINES[kind]
    match answer.says:
        case "yes":
            yield f"Yes: {answer.about} {told[0].format(value)}."
        case "no":
            yield f"No: {answer.about} {told[1].format(value)}."
        case "never seen":
            what = "declaration" if kind == "declared" else "receipt of"
            unheard = "nothing is known of that name"
            yield f"Never seen: the ledger has no {what} `{value}`; {unheard}."
            yield f"As far as the ledger goes, {answer.about} {told[1].format(value)}."
        case _:
            yield f"Can't tell whether {answer.about} {told[0].format(value)}."
    for found in answer.findings:
        yield sentence_of(found)
    for found in answer.judged:
        yield f"Judged, not trained on its words: {sentence_of(found)}"
    for one in answer.clear:
        yield (
            f"None of the {one.members} leaves that dataset `{one.dataset}`"
            f"{_at(one.leaf)} was made from is the account's."
        )
    for doubt in answer.unknown:
        yield f"Not known: {doubt}."
    for gone in answer.withdrawn:
        yield f"WITHDRAWN since: {gone}."
    for word in answer.rests_on:
        yield f"It takes as given: {word}."
    if answer.covers:
        yield f"It covers {answer.covers}."


_FROM_ANYBODY: Final = "distilled-from:*"
_ANYBODY: Final = (
    "was made from answers of models",
    "was made from no model's answer that went through the gateway",
)
_HEADLINES: Final[Mapping[str, tuple[str, str]]] = {
    "distilled-from": (
        "was made from answers of `{}`",
        "was made from no answer of `{}` that went through the gateway",
    ),
    "judged-by": ("was made with `{}` as a judge", "was made without `{}` as a judge"),
    "policy": ("was made under policy `{}`", "was made under no policy `{}`"),
    "clause": ("rests on clause `{}`", "does not rest on clause `{}`"),
    "declared": ("was made under declaration `{}`", "was not made under declaration `{}`"),
    "agreement": ("was made under agreement `{}`", "was made under no agreement `{}`"),
    "principal": (
        "was made from answers given to account `{}`",
        "was made from no answer given to account `{}`",
    ),
}


def sentence_of(found: Finding) -> str:
    """Say one finding in a sentence: how much, how far, under which terms, by whose word."""
    parts = list(_parts(found))
    sentence = ", ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _parts(found: Finding) -> Iterator[str]:
    away = {0: "directly", 1: "1 stage away"}.get(found.stages, f"{found.stages} stages away")
    match found.what:
        case "answer":
            yield f"exchange {found.exchange}{_at(found.leaf)} is an answer of {_who(found)}"
            if found.stages:
                yield away
        case "rows":
            yield f"the pipeline of {found.exchange}{_at(found.leaf)} ran for it"
            yield away
        case "account":
            yield (
                f"{found.receipts} of the account's receipts are among what dataset"
                f" `{found.dataset}`{_at(found.leaf)} was made from"
                f" (the first: leaf {', '.join(map(str, found.first_leaves))})"
            )
            yield away
        case "dataset":
            yield f"dataset `{found.dataset}`{_at(found.leaf)} was built for it"
            yield away
        case _:
            verb = "decided on" if found.influence == "judge" else "stand in"
            yield (
                f"answers of {_who(found)} {verb} {found.rows} of {found.of_rows} rows"
                f" ({share(found.rows, found.of_rows)}) of dataset `{found.dataset}`"
                f"{_at(found.leaf)}"
            )
            if found.tokens is not None and found.of_tokens and found.influence == "text":
                counted = f"{found.tokens} of {found.of_tokens} output tokens"
                yield f"{counted} ({share(found.tokens, found.of_tokens)}) of its teachers'"
            yield away
    if found.days:
        yield f"asked {' to '.join(found.days)}"
    if found.policies:
        yield f"under policy {' and '.join(found.policies)}"
    if found.clauses:
        held = "held by" if found.approved else "ruled by"
        yield f"{held} clause {' and '.join(found.clauses)}"
    for yes in found.approved:
        yield f"approved by {yes.by} in leaf {yes.leaf} ({yes.reason})"
    if found.agreements:
        yield f"bound to agreement {' and '.join(found.agreements)}"
    if found.declaration:
        by = f" by {found.owner}" if found.owner else ""
        yield f"declared as {found.declaration} ({found.purpose}){by}"
    if found.withdrawn:
        yield f"and since WITHDRAWN {found.withdrawn}"


def counted(number: int, noun: str) -> str:
    """Return how many of something, in words."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def share(part: int, whole: int) -> str:
    """Return how much *part* is of *whole*, in percent; what is there is never told as 0."""
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    if percent < 0.1:
        return "< 0.1 %"
    return f"{percent:.1f} %" if percent != round(percent) else f"{percent:.0f} %"


def _who(found: Finding) -> str:
    return f"{found.provider} ({', '.join(found.models)})" if found.models else found.provider


def _at(leaf: int | None) -> str:
    return " (not in this log)" if leaf is None else f" (leaf {leaf})"

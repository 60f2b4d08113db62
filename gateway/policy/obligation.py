"""The closed list of obligations and who discharges each.

An obligation that is not listed here can't be discharged, so the use it rides on is forbidden.
Some take a value; on the wire such a one is written `name=value`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Discharger = Literal["header", "gate", "text", "ledger", "card"]
"""`header`: told to the caller in a response header. `gate`: kept by the gates before a dataset
or a training. `text`: kept by whoever keeps the text of exchanges. `ledger`: the receipt itself
is the duty done. `card`: written on the dataset's and the model's card."""

REVIEW_FIRST: Final = "review-before-training"
ON_PLATFORM: Final = "keep-on-platform"
NAME_PREFIX: Final = "name-prefix"
NO_CACHE: Final = "no-cache"
DELETE_BY: Final = "delete-by-days"
"""The obligations that code elsewhere acts on by name."""

_DAYS: Final = re.compile(r"[1-9][0-9]{0,4}")

Takes = Literal["nothing", "words", "days"]
"""What stands behind the name: nothing, some words, or a number of days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligation:
    """Something that must be done if a use is permitted."""

    name: str
    discharger: Discharger
    sentence: str
    """What must be done; `{value}` stands for the obligation's value."""
    takes: Takes = "nothing"


def _one(
    name: str, discharger: Discharger, sentence: str, takes: Takes = "nothing"
) -> Obligation:
    return Obligation(name=name, discharger=discharger, sentence=sentence, takes=takes)


OBLIGATIONS: Final[dict[str, Obligation]] = {
    one.name: one
    for one in (
        _one(
            "disclose-ai", "header", "Tell the people who read the output that an AI made it."
        ),
        _one("no-human-claim", "header", "Do not pass the output off as written by a person."),
        _one(
            "verify-facts-notice",
            "header",
            "Tell users not to rely on factual claims without checking them.",
        ),
        _one("human-review", "header", "A person reviews the output before it has effects."),
        _one(
            "no-confidential-input",
            "header",
            "Send nothing confidential or personal: the provider may read and use it.",
        ),
        _one(
            "supported-region",
            "header",
            "Use it, and let others use it, only where the provider offers its service.",
        ),
        _one("adults-only", "header", "Only people of age may use it."),
        _one("no-production", "header", "Use it for tests and evaluation, not in production."),
        _one(
            "disclose-replication",
            "header",
            "Publish with a measurement what others need to replicate it, and allow the same.",
        ),
        _one(
            "notify-provider",
            "header",
            "Tell the provider of any breach of its terms that you come to suspect.",
        ),
        _one(
            "review-before-training",
            "gate",
            "A named person approves the output before anything is trained on it.",
        ),
        _one(
            "keep-on-platform",
            "gate",
            "The output stays on the provider's platform: it enters no dataset here.",
        ),
        _one(
            "name-prefix",
            "gate",
            "A student that leaves the organisation has a name that begins with {value}.",
            "words",
        ),
        _one(
            "delete-by-days",
            "text",
            "The output is erased {value} days after it was made, and not used after that.",
            "days",
        ),
        _one(
            "no-cache", "text", "The text of the output is not kept, so nothing learns from it."
        ),
        _one(
            "keep-record", "ledger", "A record of the use is kept; the receipt is that record."
        ),
        _one(
            "keep-ai-label",
            "card",
            "Data and models made from the output stay labelled as AI-generated.",
        ),
        _one(
            "attribute",
            "card",
            "Whatever is handed on says prominently: {value}.",
            "words",
        ),
        _one("include-licence", "card", "A copy of the licence goes with what is handed on."),
        _one("include-notice", "card", "The licence's notice goes with what is handed on."),
        _one(
            "flow-down",
            "card",
            "Whoever receives the student or the data is bound to the same restrictions.",
        ),
        _one(
            "document",
            "card",
            "The use of other models' output is documented as {value} asks.",
            "words",
        ),
    )
}
"""Every obligation by name."""


@functools.lru_cache(maxsize=1024)
def obligation_of(text: str) -> tuple[Obligation, str] | None:
    """Return the obligation that *text* (`name` or `name=value`) spells, and its value.

    `None` if nobody here could discharge it: an unknown name, or a value that does not fit.
    """
    name, equals, value = text.partition("=")
    known = OBLIGATIONS.get(name)
    if known is None or not _fits(known, value if equals else None):
        return None
    return known, value


def sentence_of(text: str) -> str:
    """Return what *text* asks for, in a sentence; *text* itself where nobody knows it."""
    found = obligation_of(text)
    return text if found is None else found[0].sentence.replace("{value}", found[1])


def values_of(name: str, obligations: tuple[str, ...]) -> tuple[str, ...]:
    """Return the values with which the obligation *name* is among *obligations*."""
    return tuple(
        value for one, _, value in (text.partition("=") for text in obligations) if one == name
    )


def days_to_keep(obligations: Iterable[str]) -> int | None:
    """Return for how many days an output may be kept, or `None` where no end is set."""
    found = (obligation_of(text) for text in obligations)
    return min((int(one[1]) for one in found if one and one[0].name == DELETE_BY), default=None)


def _fits(obligation: Obligation, value: str | None) -> bool:
    match obligation.takes:
        case "nothing":
            return value is None
        case "days":
            return value is not None and _DAYS.fullmatch(value) is not None
        case "words":
            # Told in a header, where a comma divides and blanks at the ends are lost.
            return (
                value is not None
                and value != ""
                and value == value.strip()
                and value.isprintable()
                and "," not in value
            )

"""Questions about where something came from, as people write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal, get_args

from gateway.errors import CallerError

Kind = Literal[
    "distilled-from", "judged-by", "policy", "clause", "declared", "agreement", "principal"
]
"""What can be asked: whose words, whose judgement, under which terms, for which declared use,
under which agreement, by whose account."""

_KINDS: Final = get_args(Kind)
_VALUE: Final = re.compile(r"[!-~]{1,200}")


class MalformedQuestionError(CallerError):
    """A question that nothing here can answer."""

    code = "lineage.question_malformed"


@dataclass(frozen=True, slots=True)
class Question:
    """One question; in *value*, `*` and `?` stand for any letters and any one."""

    kind: Kind
    value: str

    def __str__(self) -> str:
        """Return it as it is asked."""
        return f"{self.kind}:{self.value}"


def parse_question(text: str) -> Question:
    """Return the question that *text* asks, such as `distilled-from:openai/gpt-*`.

    Raises:
        MalformedQuestionError: it asks none.
    """
    kind, colon, value = text.partition(":")
    for known in _KINDS:
        if kind == known and colon and _VALUE.fullmatch(value):
            return Question(known, value)
    raise MalformedQuestionError(
        f"`{''.join(c if c.isprintable() else '?' for c in text[:80])}` asks nothing",
        hint=f"ask like distilled-from:openai/gpt-*; the kinds are {', '.join(_KINDS)}",
    )


def account_matches(pattern: str, principal: str) -> bool:
    """Tell whether *principal* is the account that a question names; `*` stands for any."""
    return fnmatchcase(principal, pattern)

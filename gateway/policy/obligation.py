"""The closed list of obligations and who discharges each.

An obligation that is not listed here can't be discharged, so the use it rides on is forbidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Discharger = Literal["header", "gate", "card"]
"""`header`: told to the caller in a response header. `gate`: kept by the gates before a dataset
or a training. `card`: written on the dataset's and the model's card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligation:
    """Something that must be done if a use is permitted."""

    name: str
    discharger: Discharger
    sentence: str


OBLIGATIONS: Final[dict[str, Obligation]] = {
    one.name: one
    for one in (
        Obligation(
            name="disclose-ai",
            discharger="header",
            sentence="Tell the people who read the output that an AI made it.",
        ),
        Obligation(
            name="no-human-claim",
            discharger="header",
            sentence="Do not pass the output off as written by a person.",
        ),
        Obligation(
            name="verify-facts-notice",
            discharger="header",
            sentence="Tell users not to rely on factual claims without checking them.",
        ),
        Obligation(
            name="review-before-training",
            discharger="gate",
            sentence="A named person approves the output before anything is trained on it.",
        ),
        Obligation(
            name="keep-ai-label",
            discharger="card",
            sentence="Data and models made from the output stay labelled as AI-generated.",
        ),
    )
}
"""Every obligation by name."""

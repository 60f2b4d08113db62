"""Why something is left out, by codes that never change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

REFUSALS: Final[dict[str, str]] = {
    "not-readable": "the answer was digested but not read; nothing of it is ever trainable",
    "not-for-training": "it was declared for a purpose under which nothing is learned from it",
    "other-project": "it belongs to another project than the declaration",
    "widened-use": "it was declared for a narrower purpose; a use is narrowed, never widened",
    "provider-error": "the provider answered with an error",
    "not-complete": "the answer ended before it was whole",
    "waiting-for-review": "a person must rule on the exchange first: `gateway review approve`",
    "declined": "a person ruled that it may not be learned from",
    "withdrawn": "it, its declaration, or something it came from was withdrawn",
    "parent-unresolved": "what it was made from, or who taught the student that answered, "
    "can't be found in the ledger",
    "parent-erased": "the text of something that it was made from was erased",
    "no-policy": "no policy is in force for the provider",
    "terms-forbid-use": "a provider's terms forbid the declared use",
    "terms-hold-use": "a provider's terms leave it to a person, who has not said yes",
    "stays-on-platform": "the terms keep the output on the provider's platform",
    "not-to-be-kept": "the terms let nobody keep the text, so nothing learns from it",
    "past-its-days": "the terms allowed to keep the output for some days, and they are over",
    "student-name": "the terms ask for a student's name that begins otherwise",
    "content-missing": "its text was not kept",
    "content-erased": "its text was erased",
    "row-mismatch": "its text is not the one that the receipt committed to",
    "duplicate": "the same row was taken already",
    "near-duplicate": "a row that is nearly the same was taken already",
    "reasoning-not-open": "the provider showed none of its reasoning, or a summary of it",
    "no-verdict": "it was not judged, or not with the verdict that was asked for",
    "not-best": "of the rows with the same prompt, another was judged better",
    "row.not-text": "the answer has no form as a training row",
    "row.refused": "the model refused to answer",
    "row.filtered": "the provider's filter cut the answer",
    "row.truncated": "the answer was cut off at a length limit",
    "row.empty": "the answer is empty",
}
"""Every reason for which something is left out, and what it means. A code never changes."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One candidate, or one choice of it, that was left out."""

    reason: str
    detail: str = ""

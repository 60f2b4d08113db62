"""The closed tree of purposes.

A purpose covers itself and everything below it: `train` covers `train.sft`.
"""

from __future__ import annotations

import functools
from typing import Final

PURPOSES: Final[dict[str, str]] = {
    "inference": "the answer is used as it is; nothing is trained on it",
    "evaluate": "outputs measure some model or system",
    "evaluate.internal": "the measurement stays inside the organisation",
    "evaluate.benchmark": "the measurement is published",
    "evaluate.red-team": "the provider's own protections are tested, with its leave",
    "train": "outputs, or what is derived from them, change a model's weights",
    "train.sft": "supervised fine-tuning on the text of outputs",
    "train.pretrain": "pre-training, or continued pre-training, on the text of outputs",
    "train.preference": "preference pairs built from or judged by outputs",
    "train.reward": "a reward model, or outputs as rewards",
    "train.logprobs": "learning from the teacher's token probabilities",
    "verify": "outputs accept or reject other data that is trained on",
    "data": "outputs become part of data that is trained on",
    "data.rewrite": "outputs clean, translate, extract or rewrite data that is trained on",
    "publish": "outputs leave the organisation as data for others to use",
    "publish.dataset": "outputs are published or handed on as a dataset",
    "provider-fine-tune": "a provider's own model is customised inside its own service",
}
"""Every purpose and what it means; a dotted name stands below the part before its last dot."""

PROVIDER_FINE_TUNE: Final = "provider-fine-tune"

TEACHES: Final = ("train", "verify", "data.rewrite")
"""The purposes under which an output may reach a student, directly or through other data."""


def is_purpose(text: str) -> bool:
    """Tell whether *text* names a purpose of the tree."""
    return text in PURPOSES


def covers(general: str, purpose: str) -> bool:
    """Tell whether *general* is *purpose* or stands above it in the tree."""
    return purpose == general or purpose.startswith(general + ".")


@functools.lru_cache(maxsize=256)
def teaches(purpose: str) -> bool:
    """Tell whether outputs generated for *purpose* may reach a student at all."""
    return any(covers(general, purpose) for general in TEACHES)

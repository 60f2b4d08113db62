"""The batches of each dialect, by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.provider.anthropic.batch import AnthropicBatches
from gateway.provider.batch import Batches
from gateway.provider.gemini.batch import GeminiBatches
from gateway.provider.model import Dialect
from gateway.provider.openai.batch import OpenAIBatches

_OPENAI: Final = OpenAIBatches()
_BATCHES: Final[Mapping[str, Batches]] = {
    "openai": _OPENAI,
    "azure": _OPENAI,
    "anthropic": AnthropicBatches(),
    "gemini": GeminiBatches(),
}


def batches_of(dialect: Dialect) -> Batches | None:
    """Return the batches of *dialect*, or `None` where it has none."""
    return _BATCHES.get(dialect.name)

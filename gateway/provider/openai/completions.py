"""Legacy completions: a text is continued. What came back is read as chat completions are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def features_of(asked: Mapping[str, Any]) -> frozenset[str]:
    """Return what else a request asks for, beside text."""
    features = set()
    if asked.get("logprobs"):
        features.add("logprobs")
    counts = [asked.get("n"), asked.get("best_of")]
    if any(isinstance(count, int) and count > 1 for count in counts):
        features.add("n")
    if asked.get("suffix"):
        features.add("code")
    return frozenset(features)

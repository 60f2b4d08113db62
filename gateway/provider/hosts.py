"""Who makes the answers that an aggregator passes on, by the names that it gives them."""

from __future__ import annotations

import re
from typing import Final

_HOSTS: Final = {
    "ai21": "ai21",
    "alibaba": "alibaba",
    "amazonbedrock": "aws-bedrock",
    "anthropic": "anthropic",
    "azure": "azure-openai",
    "cohere": "cohere",
    "databricks": "databricks",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "google": "google-cloud",
    "googleaistudio": "gemini",
    "googlevertex": "google-cloud",
    "groq": "groq",
    "minimax": "minimax",
    "mistral": "mistral",
    "moonshotai": "kimi",
    "nvidia": "nvidia-api",
    "openai": "openai",
    "perplexity": "perplexity",
    "together": "together",
    "xai": "xai",
    "zai": "zai",
}
"""OpenRouter's names, as letters and digits, and the policies that bind who answers there."""

_SIGNS: Final = re.compile(r"[^a-z0-9]+")


def policy_of_host(named: str) -> str | None:
    """Return the policy of the host that an aggregator calls *named*, or `None`."""
    return _HOSTS.get(_SIGNS.sub("", named.lower()))

"""The providers that need no entry in `gateway.yaml`, and the dialects by name.

An entry is only an address and a way to speak. Whether anything may go there is for the
policies: a provider without one in force is forbidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.errors import SettingError
from gateway.provider.anthropic.dialect import AnthropicDialect
from gateway.provider.gemini.dialect import GeminiDialect
from gateway.provider.model import Dialect
from gateway.provider.openai.azure import AzureDialect
from gateway.provider.openai.dialect import OpenAIDialect


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderEntry:
    """A provider: *policies* are the ids of those that bind, the largest effect wins."""

    id: str
    dialect: str
    base_url: str
    route: str
    """How the model is reached: `first-party`, `aggregator`, `host`, `self-hosted`."""
    policies: tuple[str, ...]


def _entry(
    id_: str, base_url: str, *, dialect: str = "openai", route: str = "first-party"
) -> ProviderEntry:
    return ProviderEntry(
        id=id_, dialect=dialect, base_url=base_url, route=route, policies=(id_,)
    )


BUILT_IN: Final[Mapping[str, ProviderEntry]] = {
    entry.id: entry
    for entry in (
        _entry("openai", "https://api.openai.com"),
        _entry("anthropic", "https://api.anthropic.com", dialect="anthropic"),
        _entry("gemini", "https://generativelanguage.googleapis.com", dialect="gemini"),
        _entry("deepseek", "https://api.deepseek.com"),
        _entry("mistral", "https://api.mistral.ai"),
        _entry("xai", "https://api.x.ai"),
        _entry("openrouter", "https://openrouter.ai/api", route="aggregator"),
        _entry("together", "https://api.together.xyz", route="host"),
        _entry("groq", "https://api.groq.com/openai", route="host"),
        _entry("fireworks", "https://api.fireworks.ai/inference", route="host"),
        _entry("nvidia-api", "https://integrate.api.nvidia.com", route="host"),
        _entry("perplexity", "https://api.perplexity.ai"),
        _entry("kimi", "https://api.moonshot.ai"),
        _entry("minimax", "https://api.minimax.io"),
        _entry("alibaba", "https://dashscope-intl.aliyuncs.com/compatible-mode"),
        _entry("zai", "https://api.z.ai/api/paas"),
        _entry("cohere", "https://api.cohere.ai/compatibility"),
        _entry("ai21", "https://api.ai21.com/studio"),
    )
}
"""What `/{id}/…` is forwarded to where the settings say nothing else; `/v1/…` follows it."""

DIALECTS: Final[Mapping[str, Dialect]] = {
    dialect.name: dialect
    for dialect in (OpenAIDialect(), AzureDialect(), AnthropicDialect(), GeminiDialect())
}


def dialect_named(name: str) -> Dialect:
    """Return the dialect called *name*.

    Raises:
        SettingError: there is none.
    """
    try:
        return DIALECTS[name]
    except KeyError as exc:
        raise SettingError(
            f"unknown dialect `{name}`", hint=f"write one of {', '.join(sorted(DIALECTS))}"
        ) from exc

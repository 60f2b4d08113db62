"""Read what a use is from YAML: its declaration, its request, and facts that others would know.

Cases and standard uses are both written in these words, `use`, `call` and `facts`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gateway.errors import MalformedPolicyError
from gateway.intent.model import IntendedUse
from gateway.intent.purpose import PURPOSES, is_purpose
from gateway.policy.condition import Value, value_of
from gateway.policy.source import Keyed, Node, line_at, nearest, node_at
from gateway.policy.vocabulary import FACTS
from gateway.provider.model import Operation, ProviderCall


class WrittenCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request as a case writes it."""

    operation: Literal[
        "chat",
        "completion",
        "embedding",
        "moderation",
        "image",
        "speech",
        "transcription",
        "token-count",
        "file",
        "batch",
        "retrieval",
        "fine-tuning",
        "session",
        "listing",
        "opaque",
    ] = "chat"
    model: str | None = None
    streaming: bool = False
    features: tuple[str, ...] = ()
    modality: tuple[str, ...] | None = None

    def as_call(self, provider: str) -> ProviderCall:
        """Return the call as it would reach *provider*."""
        return ProviderCall(
            provider=provider,
            operation=Operation(self.operation),
            model=self.model,
            streaming=self.streaming,
            features=frozenset(self.features),
        )


def check_use(node: Node, use: IntendedUse, file: str, *path: str | int) -> None:
    """Raise `MalformedPolicyError` if *use*, which stands at *path*, names no known purpose."""
    check_purpose(use.purpose, file, line_at(node, *path, "purpose"))


def check_purpose(purpose: str, file: str, line: int) -> None:
    """Raise `MalformedPolicyError` if there is no such *purpose*."""
    if not is_purpose(purpose):
        hint = nearest(purpose, PURPOSES, f"one of {', '.join(PURPOSES)}")
        raise MalformedPolicyError(file, line, f"unknown purpose `{purpose}`", hint=hint)


def check_call(node: Node, call: WrittenCall, file: str, *path: str | int) -> None:
    """Raise `MalformedPolicyError` if *call*, which stands at *path*, uses an unknown word."""
    for name, words in (("features", call.features), ("modality", call.modality)):
        for index, word in enumerate(words or ()):
            if word not in FACTS[name].words:
                line = line_at(node, *path, name, index)
                hint = nearest(word, FACTS[name].words)
                raise MalformedPolicyError(
                    file, line, f"unknown {name.removesuffix('s')} `{word}`", hint=hint
                )


def facts_at(node: Node, file: str, *path: str | int) -> dict[str, Value]:
    """Return the facts written at *path*, none if nothing stands there.

    Raises:
        MalformedPolicyError: names the line of a fact or a value that there isn't.
    """
    there = node_at(node, *path)
    if there is None:
        return {}
    if not isinstance(there, Keyed):
        raise MalformedPolicyError(file, there.line, f"`{path[-1]}` must be a mapping")
    found: dict[str, Value] = {}
    for name, child in there.entries.items():
        fact = FACTS.get(name)
        if fact is None or fact.origin == "derived":
            hint = nearest(name, FACTS, f"known facts: {', '.join(FACTS)}")
            raise MalformedPolicyError(
                file, there.key_lines[name], f"unknown fact `{name}`", hint=hint
            )
        found[name] = value_of(fact, child, file)
    return found

"""What all of OpenAI's answers say in the same words: counts, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from gateway.provider import dialect
from gateway.provider.model import Answer, Resource, Stop, Usage

_TOO_MANY: Final = 429
_UNPAID: Final = 402

_NAMELESS: Final = frozenset({"tokens", "requests", "input-images"})
"""Types of errors that only say what there was too much of; their codes say more."""

_QUOTA: Final = ("quota", "billing", "insufficient_balance", "insufficient_credits", "credit")
_POLICY: Final = (
    "content_filter",
    "content_policy",
    "contentpolicy",
    "moderation",
    "responsibleai",
    "usage_policy",
    "cyber_policy",
    "policy_violation",
    "safety",
    "image_content",
)
_FLAGGED: Final = "invalid_prompt"
"""OpenAI's code for a prompt that it takes to be against its usage policy."""


class _Error(msgspec.Struct, gc=False):
    error: Any = None
    object: Any = None
    type: Any = None
    code: Any = None


_decode_error: Final = msgspec.json.Decoder(_Error).decode


def read_error(body: bytes, status: int) -> Answer:
    """Return what an error's *body* says; one that is no JSON object can't be read."""
    said = _decode_error(body)
    error = said.error
    if error is None:
        # Mistral and vLLM put its words where others put the error itself.
        error = {"type": said.type, "code": said.code} if said.object == "error" else {}
    return refused(error, status)


def refused(error: object, status: int | None = None) -> Answer:
    """Return the answer that consists of *error*."""
    return Answer(
        readable=True, whole=True, error=error_name(error), stop=stop_of(error, status)
    )


def error_name(error: object) -> str:
    """Return the provider's own word for *error*: its type, or a code that says more."""
    if isinstance(error, dict) and str(error.get("type")) in _NAMELESS and error.get("code"):
        return dialect.error_name({"code": error["code"]})
    return dialect.error_name(error)


def stop_of(error: object, status: int | None = None) -> Stop | None:
    """Tell whether *error* says that the provider declines to go on, and how."""
    words = " ".join(_words(error)).lower().replace(" ", "_")
    if _FLAGGED in words or any(word in words for word in _POLICY):
        return "policy"
    if status == _UNPAID or any(word in words for word in _QUOTA):
        return "quota"
    if status == _TOO_MANY or "rate_limit" in words:
        return "rate-limit"
    return None


def _words(error: object) -> Iterator[str]:
    """Yield the words by which *error* is classed, its own and those of what is inside it."""
    if not isinstance(error, dict):
        return
    for key in ("type", "code"):
        if isinstance(error.get(key), str):
            yield error[key]
    inner = error.get("innererror")
    if isinstance(inner, dict) and isinstance(inner.get("code"), str):
        yield inner["code"]
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and metadata.get("flagged_input"):
        # OpenRouter: what the input was flagged for.
        yield "moderation"


def usage_of(usage: object) -> Usage | None:
    """Return token counts, by the names that chat completions or responses give them."""
    if not isinstance(usage, dict):
        return None
    count = dialect.count_of
    if "prompt_tokens" in usage or "completion_tokens" in usage:
        cached = count(usage, "prompt_tokens_details", "cached_tokens")
        if cached is None:
            # DeepSeek's name for it.
            cached = count(usage, "prompt_cache_hit_tokens")
        return Usage(
            input_tokens=count(usage, "prompt_tokens"),
            output_tokens=count(usage, "completion_tokens"),
            cached_input_tokens=cached,
            reasoning_tokens=count(usage, "completion_tokens_details", "reasoning_tokens"),
        )
    return Usage(
        input_tokens=count(usage, "input_tokens"),
        output_tokens=count(usage, "output_tokens"),
        cached_input_tokens=count(usage, "input_tokens_details", "cached_tokens"),
        reasoning_tokens=count(usage, "output_tokens_details", "reasoning_tokens"),
    )


def text_or_none(value: object) -> str | None:
    """Return *value* if it is a text that says something."""
    return value if isinstance(value, str) and value else None


_NAMES: Final[Mapping[str, str]] = {
    "assistant_id": "assistant",
    "batch_id": "batch",
    "container_id": "container",
    "conversation_id": "conversation",
    "file_id": "file",
    "file_ids": "file",
    "input_file_id": "file",
    "previous_response_id": "response",
    "thread_id": "thread",
    "training_file": "file",
    "validation_file": "file",
    "vector_store_id": "vector-store",
    "vector_store_ids": "vector-store",
}
"""Keys under which requests name what is kept with the provider."""


def named_in(body: object) -> tuple[Resource, ...]:
    """Return every resource that *body* names, wherever in it, once each.

    A body that was read is nested no deeper than `limits.JSON_DEPTH_MAX`.
    """
    found: dict[Resource, None] = {}
    level: list[Any] = [body]
    while level:
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                for key, held in value.items():
                    kind = _NAMES.get(key)
                    if kind is not None:
                        found.update(dict.fromkeys(_resources(kind, held)))
                    if isinstance(held, (dict, list)):
                        inner.append(held)
            elif isinstance(value, list):
                inner += [held for held in value if isinstance(held, (dict, list))]
        level = inner
    return tuple(found)


def _resources(kind: str, held: object) -> Iterator[Resource]:
    for one in held if isinstance(held, list) else [held]:
        if isinstance(one, str) and one:
            yield Resource(kind, one)

"""Stubs of the APIs that speak like OpenAI's, each with its own habits.

Habits are written from each vendor's own reference: DeepSeek "Reasoning model", Mistral
"Reasoning", xAI "Chat completions", OpenRouter "Reasoning tokens" and "Streaming", Together
"Chat completions", Groq "API reference", Fireworks "Post chat completions", vLLM "Reasoning
outputs", Ollama "OpenAI compatibility" and "API", llama.cpp "server".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.demo.provider import Reply, Said, _chat_events, _count
from tests.support.stub.openai import OpenAIStub, model_of
from tests.support.stub.world import NOW, NOW_TEXT, Ask, Json, data, doors, line, pieces_of

RESOLVED: Final = "openai/gpt-4o-2024-11-20"
"""What OpenRouter's `openrouter/auto` comes to."""


class CompatibleStub(OpenAIStub):
    """One that speaks OpenAI's chat completions with a habit of its own."""

    REASONING = "reasoning_content"
    """Where it shows its reasoning."""

    def headers(self, request_id: str) -> dict[str, str]:
        """Return no more than a request id."""
        return {"x-request-id": request_id}

    def says(self, asked: Json, number: int) -> Said:
        """Think where that is asked for, whatever the model is called."""
        if asked.get("reasoning") or asked.get("reasoning_effort"):
            asked = {**asked, "model": f"{asked['model']}-reasoner"}
        return super().says(asked, number)

    def dress_choice(self, choice: Json, said: Said, asked: Json, seed: str) -> Json:
        """Return a choice with its reasoning where this provider shows it."""
        dressed = super().dress_choice(choice, said, asked, seed)
        dressed["message"].pop("annotations", None)
        if said.reasoning:
            dressed["message"][self.REASONING] = said.reasoning
        return dressed

    def chunks(
        self, answer: Json, said: list[Said], seed: str, usage: Json | None, asked: Json
    ) -> Iterator[bytes]:
        """Yield chunks as this provider dresses them."""
        for event in _chat_events(answer, said, seed, usage):
            for choice in event["choices"]:
                reasoning = choice["delta"].pop("reasoning_content", None)
                if reasoning is not None:
                    choice["delta"] = self.reasoning_delta(reasoning)
            yield data(self.dress_chunk(event))

    def reasoning_delta(self, words: str) -> Json:
        """Return a delta that carries reasoning."""
        return {self.REASONING: words, "content": None}

    def dress_chunk(self, event: Json) -> Json:
        """Return a chunk as this provider has it."""
        return event


class DeepSeekStub(CompatibleStub):
    """Counts what its cache hit, and says in comments that it is still there."""

    NAME = "deepseek"

    def dress_usage(self, usage: Json) -> Json:
        """Return the usage with the cache's part."""
        prompt = usage["prompt_tokens"]
        return {**usage, "prompt_cache_hit_tokens": 0, "prompt_cache_miss_tokens": prompt}

    def chunks(
        self, answer: Json, said: list[Said], seed: str, usage: Json | None, asked: Json
    ) -> Iterator[bytes]:
        """Yield comments before the first chunk."""
        yield b": keep-alive\n\n"
        yield b": keep-alive\n\n"
        yield from super().chunks(answer, said, seed, usage, asked)


class MistralStub(CompatibleStub):
    """Shows reasoning as parts of the content."""

    NAME = "mistral"

    def chat_id(self, seed: str) -> str:
        """Return a plain id."""
        return seed[:32]

    def dress_choice(self, choice: Json, said: Said, asked: Json, seed: str) -> Json:
        """Return a choice whose content has parts where it was thought about."""
        dressed = super().dress_choice(choice, said, asked, seed)
        message = dressed["message"]
        if message.pop(self.REASONING, None):
            thought = [{"type": "text", "text": said.reasoning}]
            parts: list[Json] = [{"type": "thinking", "thinking": thought}]
            message["content"] = [*parts, {"type": "text", "text": said.text}]
        return dressed

    def reasoning_delta(self, words: str) -> Json:
        """Return a delta whose content is a thought."""
        thought = [{"type": "text", "text": words}]
        return {"content": [{"type": "thinking", "thinking": thought}]}


class XaiStub(CompatibleStub):
    """Counts its live search."""

    NAME = "xai"

    def dress_usage(self, usage: Json) -> Json:
        """Return the usage with the sources that were searched."""
        return {**usage, "num_sources_used": 0, "cost_in_usd_ticks": 1234}


class OpenRouterStub(CompatibleStub):
    """Says who made the answer, and what model `auto` came to."""

    NAME = "openrouter"
    REASONING = "reasoning"

    def chat_id(self, seed: str) -> str:
        """Return an id as OpenRouter's generations have it."""
        return f"gen-{NOW}-{seed[:20]}"

    def resolved(self, model: str) -> str:
        """Return the model that answers."""
        return RESOLVED if model == "openrouter/auto" else model

    def dress(self, whole: Json, asked: Json) -> Json:
        """Return an answer that names its provider."""
        for choice in whole["choices"]:
            choice["native_finish_reason"] = choice["finish_reason"]
            reasoning = choice["message"].get("reasoning")
            if reasoning:
                told = {"type": "reasoning.text", "text": reasoning, "format": "unknown"}
                choice["message"]["reasoning_details"] = [{**told, "index": 0}]
        return {**whole, "provider": "OpenAI"}

    def dress_usage(self, usage: Json) -> Json:
        """Return the usage with its cost."""
        return {**usage, "cost": 0.00014, "is_byok": False}

    def dress_chunk(self, event: Json) -> Json:
        """Return a chunk that names its provider."""
        return {**event, "provider": "OpenAI"}

    def chunks(
        self, answer: Json, said: list[Said], seed: str, usage: Json | None, asked: Json
    ) -> Iterator[bytes]:
        """Yield comments before the first chunk."""
        yield b": OPENROUTER PROCESSING\n\n"
        yield from super().chunks(answer, said, seed, usage, asked)


class TogetherStub(CompatibleStub):
    """Repeats the prompt's place, and reports usage with the last chunk."""

    NAME = "together"
    REASONING = "reasoning"

    def dress(self, whole: Json, asked: Json) -> Json:
        """Return an answer with a place for the prompt."""
        return {**whole, "prompt": []}


class GroqStub(CompatibleStub):
    """Puts what is its own under `x_groq`."""

    NAME = "groq"
    REASONING = "reasoning"

    def dress(self, whole: Json, asked: Json) -> Json:
        """Return an answer with Groq's own part."""
        return {
            **whole,
            "x_groq": {"id": "req_01" + whole["id"][9:31]},
            "usage_breakdown": None,
        }


class FireworksStub(CompatibleStub):
    """Reports usage in the last chunk, asked or not."""

    NAME = "fireworks"

    def chunks(
        self, answer: Json, said: list[Said], seed: str, usage: Json | None, asked: Json
    ) -> Iterator[bytes]:
        """Yield chunks; the last choice brings the usage."""
        events = list(super().chunks(answer, said, seed, None, asked))
        told = {"prompt_tokens": 5, "completion_tokens": 20, "total_tokens": 25}
        yield from events
        yield data({**answer, "choices": [], "usage": usage or told})


class VllmStub(CompatibleStub):
    """Adds what its engine knows."""

    NAME = "vllm"
    REASONING = "reasoning"

    def dress(self, whole: Json, asked: Json) -> Json:
        """Return an answer with the engine's own fields."""
        for choice in whole["choices"]:
            choice |= {"stop_reason": None, "token_ids": None}
        return {**whole, "prompt_logprobs": None, "kv_transfer_params": None}


class OllamaStub(CompatibleStub):
    """Speaks its own language too: lines of JSON under `/api`."""

    NAME = "ollama"
    REASONING = "reasoning"
    DOORS = (
        *OpenAIStub.DOORS,
        *doors("""
        POST /api/chat own_chat
        GET /api/tags own_tags
        """),
    )

    def require_key(self, ask: Ask) -> None:
        """Ask nobody for a key."""

    def dress(self, whole: Json, asked: Json) -> Json:
        """Return an answer as Ollama signs it."""
        return {**whole, "system_fingerprint": "fp_ollama"}

    def own_chat(self, ask: Ask, request_id: str) -> Reply:
        """Answer line by line."""
        asked = ask.json()
        said = self.says(asked, 0)
        made = self.world.generate(
            ask,
            "api/chat",
            self.world.new_id("ol_"),
            request_id,
            model_of(asked),
            streaming=True,
        )
        head = {"model": asked["model"], "created_at": NOW_TEXT}
        lines = [
            {**head, "message": {"role": "assistant", "content": word}, "done": False}
            for word in pieces_of(said.text)
        ]
        end = {"done": True, "done_reason": "stop", "eval_count": _count(said.text)}
        lines.append({**head, "message": {"role": "assistant", "content": ""}, **end})
        pieces = [line(one) + b"\n" for one in lines]
        return self.stream(pieces, request_id, made, "application/x-ndjson")

    def own_tags(self, ask: Ask, request_id: str) -> Reply:
        """List models."""
        return self.whole({"models": [{"name": "stub-large", "size": 1}]}, request_id)


class LlamaCppStub(CompatibleStub):
    """Says how long everything took."""

    NAME = "llamacpp"

    def require_key(self, ask: Ask) -> None:
        """Ask nobody for a key."""

    def dress(self, whole: Json, asked: Json) -> Json:
        """Return an answer with its timings."""
        timings = {"prompt_n": 5, "prompt_ms": 12.5, "predicted_n": 20, "predicted_ms": 80.25}
        return {**whole, "timings": timings}


COMPATIBLE: Final[tuple[type[CompatibleStub], ...]] = (
    DeepSeekStub,
    MistralStub,
    XaiStub,
    OpenRouterStub,
    TogetherStub,
    GroqStub,
    FireworksStub,
    VllmStub,
    OllamaStub,
    LlamaCppStub,
)

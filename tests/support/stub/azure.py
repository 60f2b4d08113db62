"""A stub of Azure OpenAI: OpenAI's operations under deployments, and under `/openai/v1`.

Shapes are written from Microsoft's pages "Azure OpenAI REST API reference" and "Content
filtering" (learn.microsoft.com/azure/ai-foundry/openai).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator

from gateway.demo.provider import Reply, Said
from tests.support.stub.openai import OpenAIStub
from tests.support.stub.world import Ask, Json, bad, data, line

_SAFE = {
    name: {"filtered": False, "severity": "safe"}
    for name in ("hate", "self_harm", "sexual", "violence")
}


class AzureStub(OpenAIStub):
    """Azure OpenAI under `/openai`."""

    NAME = "azure-openai"

    def route(self, ask: Ask, request_id: str) -> Reply:
        """Find OpenAI's operation behind Azure's path; the deployment is the model."""
        if ask.path.startswith("/openai/v1/"):
            path = ask.path.removeprefix("/openai")
            return super().route(dataclasses.replace(ask, path=path), request_id)
        if "api-version" not in ask.query:
            raise bad("Resource not found", 404)
        found = re.fullmatch(r"/openai/deployments/([^/]+)(/.+)", ask.path)
        if found is None:
            path = "/v1" + ask.path.removeprefix("/openai")
            return super().route(dataclasses.replace(ask, path=path), request_id)
        body = ask.body
        if "json" in ask.headers.get("content-type", ""):
            body = line({"model": found[1], **ask.json()})
        inner = dataclasses.replace(ask, path="/v1" + found[2], body=body)
        return super().route(inner, request_id)

    def headers(self, request_id: str) -> dict[str, str]:
        """Return the request ids and the region."""
        return {
            "x-request-id": request_id,
            "apim-request-id": "apim-" + request_id,
            "x-ms-region": "Sweden Central",
            "azureml-model-session": "d001",
            "x-ratelimit-remaining-tokens": "9000",
        }

    def dress(self, whole: Json, asked: Json) -> Json:
        """Return an answer with what the filter found in the prompt."""
        told = {"prompt_index": 0, "content_filter_results": _SAFE}
        return {**whole, "prompt_filter_results": [told]}

    def dress_choice(self, choice: Json, said: Said, asked: Json, seed: str) -> Json:
        """Return a choice with what the filter found in it."""
        return {
            **super().dress_choice(choice, said, asked, seed),
            "content_filter_results": _SAFE,
        }

    def chunks(
        self, answer: Json, said: list[Said], seed: str, usage: Json | None, asked: Json
    ) -> Iterator[bytes]:
        """Yield first a chunk without choices: what the filter found in the prompt."""
        told = {"prompt_index": 0, "content_filter_results": _SAFE}
        empty = {"id": "", "object": "", "created": 0, "model": "", "choices": []}
        yield data({**empty, "prompt_filter_results": [told]})
        for event in super().chunks(answer, said, seed, usage, asked):
            chunk = json.loads(event.removeprefix(b"data: "))
            chunk.pop("obfuscation", None)
            for choice in chunk["choices"]:
                choice["content_filter_results"] = _SAFE if choice["delta"] else {}
            yield data(chunk)

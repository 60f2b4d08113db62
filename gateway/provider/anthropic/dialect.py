"""The dialect of Anthropic's API: messages, batches of them, older completions, files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from gateway.limits import FALLBACKS_MAX
from gateway.provider import dialect
from gateway.provider.anthropic.batches import (
    made_reader,
    read_batch,
    read_batch_made,
    read_telling,
)
from gateway.provider.anthropic.complete import CompletionListener, read_completion
from gateway.provider.anthropic.errors import problem_body, read_error
from gateway.provider.anthropic.messages import MessageListener, files_in, read_message
from gateway.provider.anthropic.routes import (
    BATCH_RESULTS,
    COLLECTIONS,
    CREATE_BATCH,
    CREATE_FILE,
    FILE_CONTENT,
    FOUND,
    ROUTES,
)
from gateway.provider.anthropic.rows import row_of
from gateway.provider.model import (
    AnswerReader,
    Choice,
    Found,
    Operation,
    Problem,
    ProviderCall,
    Resource,
    Route,
    Taking,
)
from gateway.provider.readers import BodyReader, OpaqueReader, StreamReader, WholeReader

_SPOKEN: Final = frozenset({Operation.CHAT, Operation.COMPLETION})
_TOKENS: Final = ("sk-ant-oat", "eyJ")
"""How OAuth's tokens and those of workload identities begin; they are no API keys."""


class AnthropicDialect:
    """Reads and writes Anthropic's wire format."""

    name = "anthropic"
    CREDENTIAL_HEADERS = dialect.CREDENTIAL_HEADERS
    ROUTES: tuple[Route, ...] = ROUTES

    def found(self, method: str, path: str, query: str = "") -> Found:
        """Return the route of a request."""
        return FOUND.found(method, path, query)

    def read_request(
        self, provider: str, found: Found, content_type: str, body: bytes | None
    ) -> ProviderCall:
        """Return what is asked.

        Raises:
            MalformedBodyError: a body that is held and read is no JSON object.
        """
        route = found.route
        if body is None and route.taking is Taking.HELD:
            return dialect.opaque(provider, found)
        if body is None or route.taking is not Taking.HELD:
            return ProviderCall(
                provider=provider,
                operation=route.operation,
                uses=found.names,
                lists=route.lists,
                found=found,
            )
        asked = dialect.json_object(body)
        return ProviderCall(
            provider=provider,
            operation=route.operation,
            model=dialect.text_of(asked, "model"),
            streaming=asked.get("stream") is True,
            features=_features_of(asked),
            fallbacks=_fallbacks_of(asked),
            uses=tuple(dict.fromkeys((*found.names, *_used_in(asked)))),
            body=asked,
            found=found,
        )

    def answer_reader(self, call: ProviderCall, status: int, content_type: str) -> AnswerReader:
        """Return a reader for the answer to *call*."""
        route = call.found.route if call.found is not None else None
        kind = content_type.lower()
        if call.operation is Operation.OPAQUE:
            return _opaque_reader(route, status, kind)
        if status >= 400:
            return WholeReader(read_error)
        if call.operation in _SPOKEN:
            return _spoken_reader(call, kind)
        if route is FILE_CONTENT or route is BATCH_RESULTS:
            return BodyReader("other")
        if route is CREATE_FILE:
            return WholeReader(made_reader("file", readable=True))
        if route is CREATE_BATCH:
            return WholeReader(read_batch_made)
        if call.operation is Operation.BATCH and call.lists is None:
            return WholeReader(read_batch)
        return WholeReader(read_telling)

    def row_of(self, call: ProviderCall, choice: Choice) -> dict[str, Any]:
        """Return the conversation and *choice* as a training row.

        Raises:
            UnteachableError: the exchange holds something that no row can carry.
        """
        return row_of(call, choice)

    def problem_body(self, problem: Problem) -> bytes:
        """Return the error object that Anthropic's SDK puts into its exception."""
        return problem_body(problem)

    def credential_of(self, headers: Mapping[str, str], query: str) -> str | None:
        """Return the bearer token that SDKs from 2.0 on send, or the `x-api-key` of others."""
        return dialect.bearer_of(headers) or headers.get("x-api-key") or None

    def credential_header(self, secret: str, path: str = "") -> tuple[str, str]:
        """Return a token as one, and a key as `x-api-key`, which every version takes."""
        if secret.startswith(_TOKENS):
            return "authorization", f"Bearer {secret}"
        return "x-api-key", secret

    def query_upstream(self, query: str) -> str:
        """Return *query* as it is: no credential comes in it."""
        return query


def _spoken_reader(call: ProviderCall, kind: str) -> AnswerReader:
    """Return what reads a message, or an older completion, whole or streamed."""
    streamed = "event-stream" in kind or (call.streaming and "json" not in kind)
    if call.operation is Operation.COMPLETION:
        if streamed:
            return StreamReader(CompletionListener())
        return WholeReader(read_completion)
    kept = isinstance((call.body or {}).get("thread"), dict)
    if streamed:
        return StreamReader(MessageListener(kept=kept))
    return WholeReader(partial(read_message, kept=kept))


def _opaque_reader(route: Route | None, status: int, kind: str) -> AnswerReader:
    """Return what reads nothing, or of what was made its id alone."""
    collection = "" if route is None else route.path.removeprefix("/v1/")
    if (
        route is not None
        and route.methods == ("POST",)
        and collection in COLLECTIONS
        and status < 400
        and "json" in kind
    ):
        return WholeReader(made_reader(COLLECTIONS[collection], readable=False))
    return OpaqueReader()


def _features_of(asked: Mapping[str, Any]) -> frozenset[str]:
    """Return what else a request asks for, beside text."""
    features = set()
    tools = asked.get("tools")
    if tools or asked.get("mcp_servers"):
        features.add("tools")
    if dialect.searches_the_web(tools):
        features.add("grounding")
    thinking = asked.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") != "disabled":
        features.add("reasoning")
    if any(block.get("type") == "image" for block in _blocks_of(asked.get("messages"))):
        features.add("images")
    return frozenset(features)


def _fallbacks_of(asked: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Return the models that may answer where the first one declines; `None`: any."""
    listed = asked.get("fallbacks")
    if not listed:
        return ()
    if not isinstance(listed, list) or len(listed) > FALLBACKS_MAX:
        return (None,)
    models = (one.get("model") if isinstance(one, dict) else None for one in listed)
    return tuple(dict.fromkeys(one if isinstance(one, str) else None for one in models))


def _used_in(asked: Mapping[str, Any]) -> Iterator[Resource]:
    """Yield what a request uses of what is kept there: files, a container, skills."""
    container = asked.get("container")
    if isinstance(container, str):
        yield Resource(kind="container", id=container)
    elif isinstance(container, dict):
        if isinstance(container.get("id"), str):
            yield Resource(kind="container", id=container["id"])
        skills = container.get("skills")
        for skill in skills if isinstance(skills, list) else ():
            # Those of Anthropic's own belong to nobody.
            own = isinstance(skill, dict) and skill.get("type") == "custom"
            if own and isinstance(skill.get("skill_id"), str):
                yield Resource(kind="skill", id=skill["skill_id"])
    thread = asked.get("thread")
    if isinstance(thread, dict) and isinstance(thread.get("previous_message_id"), str):
        yield Resource(kind="message", id=thread["previous_message_id"])
    for key in ("messages", "system"):
        for file in files_in(asked.get(key)):
            yield Resource(kind="file", id=file)


def _blocks_of(messages: object) -> Iterator[dict[str, Any]]:
    """Yield the content blocks of *messages*, those inside tool results too."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict):
                yield block
                if block.get("type") == "tool_result":
                    yield from _blocks_of([block])

"""The dialect of the Gemini API, and of OpenAI's where Google speaks it too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus

from gateway.provider import dialect
from gateway.provider.gemini.array import ArraySplitter
from gateway.provider.gemini.asked import candidates_of, features_of, said, used_in
from gateway.provider.gemini.content import ContentListener, read_content
from gateway.provider.gemini.errors import problem_body, read_error
from gateway.provider.gemini.events import GoogleSplitter
from gateway.provider.gemini.interactions import InteractionListener, read_interaction
from gateway.provider.gemini.kept import (
    made_reader,
    read_embeddings,
    read_made,
    read_operation,
    read_operation_made,
    read_predictions,
    read_telling,
)
from gateway.provider.gemini.routes import (
    BATCH,
    CANCEL_INTERACTION,
    COLLECTIONS,
    COMPATIBLE,
    CREATE_BATCHES,
    CREATE_CACHE,
    CREATE_FILES,
    CREATE_STORE,
    CREATE_TUNED,
    DOWNLOADS,
    EMBED,
    EMBED_MANY,
    GENERATE,
    INTERACT,
    INTERACTION,
    OPERATIONS,
    PREDICT,
    PREDICT_LATER,
    ROUTES,
    STREAM,
    found,
    model_of,
)
from gateway.provider.gemini.rows import row_of
from gateway.provider.model import (
    Answer,
    AnswerReader,
    Choice,
    Found,
    Operation,
    Problem,
    ProviderCall,
    Route,
    Taking,
)
from gateway.provider.openai.dialect import OpenAIDialect
from gateway.provider.readers import BodyReader, OpaqueReader, StreamReader, WholeReader

_KEYS: Final = frozenset({"key", "access_token", "oauth_token"})
"""What a credential is called in a query."""

_TOKENS: Final = ("ya29.", "eyJ")
"""How the tokens of Google's accounts and of workload identities begin."""

_READ: Final[Mapping[Route, Callable[[bytes], Answer]]] = {
    **dict.fromkeys((EMBED, EMBED_MANY), read_embeddings),
    **dict.fromkeys((BATCH, *OPERATIONS), read_operation),
    **dict.fromkeys((*CREATE_BATCHES, CREATE_TUNED, PREDICT_LATER), read_operation_made),
    **dict.fromkeys((*CREATE_FILES, CREATE_CACHE, CREATE_STORE), read_made),
    PREDICT: read_predictions,
}
"""How the answers on these routes are read; on others it is enough that they are JSON."""

_INTERACTIONS: Final = (INTERACT, INTERACTION, CANCEL_INTERACTION)


class GeminiDialect:
    """Reads and writes the Gemini API's wire format."""

    name = "gemini"
    CREDENTIAL_HEADERS = dialect.CREDENTIAL_HEADERS
    ROUTES: tuple[Route, ...] = ROUTES

    def __init__(self) -> None:
        self._compatible = OpenAIDialect()

    def found(self, method: str, path: str, query: str = "") -> Found:
        """Return the route of a request; where Google speaks like OpenAI, one of OpenAI's."""
        compatible = COMPATIBLE.match(path)
        if compatible is None:
            return found(method, path, self.query_upstream(query))
        below = self._compatible.found(method, "/v1" + path[compatible.end() :])
        return Found(
            route=below.route, path=path, query=self.query_upstream(query), names=below.names
        )

    def read_request(
        self, provider: str, found: Found, content_type: str, body: bytes | None
    ) -> ProviderCall:
        """Return what is asked.

        Raises:
            MalformedBodyError: a body that is held and read is no JSON object.
        """
        if COMPATIBLE.match(found.path):
            return self._compatible.read_request(provider, found, content_type, body)
        route = found.route
        if body is None and route.taking is Taking.HELD:
            return dialect.opaque(provider, found)
        asked: dict[str, Any] = {}
        if body is not None and route.taking is Taking.HELD:
            asked = dialect.json_object(body)
        listing = route.operation is Operation.LISTING
        model, other = model_of(found.path), _model_in(asked)
        return ProviderCall(
            provider=provider,
            operation=route.operation,
            model=None if listing else model or other,
            # The path goes before the body; should a server take it otherwise, it is ruled on.
            fallbacks=(other,) if model and other and other != model and not listing else (),
            streaming=route is STREAM or asked.get("stream") is True,
            features=features_of(asked),
            uses=tuple(dict.fromkeys((*found.names, *used_in(asked)))),
            lists=route.lists,
            body=asked if route.taking is Taking.HELD and body is not None else None,
            found=found,
        )

    def answer_reader(self, call: ProviderCall, status: int, content_type: str) -> AnswerReader:
        """Return a reader for the answer to *call*."""
        if call.found is not None and COMPATIBLE.match(call.found.path):
            return self._compatible.answer_reader(call, status, content_type)
        route = GENERATE if call.found is None else call.found.route
        kind = content_type.lower()
        if route.operation is Operation.OPAQUE:
            return _opaque_reader(route, status, kind)
        if status >= 400:
            return WholeReader(read_error)
        if route in _INTERACTIONS:
            made = route is INTERACT
            if "event-stream" in kind:
                return StreamReader(InteractionListener(made=made))
            return WholeReader(partial(read_interaction, made=made))
        if route is GENERATE or route is STREAM:
            return _content_reader(call, kind)
        if route in DOWNLOADS:
            return BodyReader("other")
        if route.operation is Operation.SESSION:
            return OpaqueReader()
        return WholeReader(_READ.get(route, read_telling))

    def row_of(self, call: ProviderCall, choice: Choice) -> dict[str, Any]:
        """Return the conversation and *choice* as a training row.

        Raises:
            UnteachableError: the exchange holds something that no row can carry.
        """
        if call.found is not None and COMPATIBLE.match(call.found.path):
            return self._compatible.row_of(call, choice)
        return row_of(call, choice)

    def problem_body(self, problem: Problem) -> bytes:
        """Return the error object that Google's SDKs put into their exception."""
        return problem_body(problem)

    def credential_of(self, headers: Mapping[str, str], query: str) -> str | None:
        """Return the key of the header, of the query, or a token; of several in it, none."""
        asked = {value for key, value in parse_qsl(query) if key in _KEYS}
        return (
            headers.get("x-goog-api-key")
            or (asked.pop() if len(asked) == 1 else None)
            or _token_of(headers)
        )

    def credential_header(self, secret: str, path: str = "") -> tuple[str, str]:
        """Return a token as one, and a key as `x-goog-api-key`, which every version takes.

        Where Google speaks like OpenAI, a key comes as a bearer token, too.
        """
        if secret.startswith(_TOKENS) or COMPATIBLE.match(path):
            return "authorization", f"Bearer {secret}"
        return "x-goog-api-key", secret

    def query_upstream(self, query: str) -> str:
        """Return *query* without a key, everything else as it was sent."""
        if not query:
            return query
        return "&".join(
            pair
            for pair in query.split("&")
            if unquote_plus(pair.partition("=")[0]) not in _KEYS
        )


def _content_reader(call: ProviderCall, kind: str) -> AnswerReader:
    """Return what reads generated content: whole, as events, or as an array in pieces."""
    if not call.streaming:
        return WholeReader(read_content)
    listener = ContentListener(candidates_of(call.body or {}))
    splitter = GoogleSplitter() if "event-stream" in kind else ArraySplitter()
    return StreamReader(listener, splitter=splitter)


def _opaque_reader(route: Route, status: int, kind: str) -> AnswerReader:
    """Return what reads nothing, or of what was made its id alone."""
    made = COLLECTIONS.get(route.path.removeprefix("/v1beta/"))
    if made is not None and route.methods == ("POST",) and status < 400 and "json" in kind:
        return WholeReader(made_reader(made))
    return OpaqueReader()


def _model_in(asked: Mapping[str, Any]) -> str | None:
    """Return the model or agent that a body names.

    Raises:
        MalformedBodyError: it is no text.
    """
    named = dialect.text_of(asked, "model") or said(asked, "baseModel")
    if named is None and isinstance(asked.get("agent"), str):
        named = asked["agent"]
    return named.removeprefix("models/") if isinstance(named, str) else None


def _token_of(headers: Mapping[str, str]) -> str | None:
    """Return the token of `Authorization: Bearer`, or `Token`, as short-lived ones have it."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() in ("bearer", "token") else None

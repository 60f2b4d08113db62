"""The dialect of OpenAI's API, which many other servers speak too.

Which operations there are stands in `routes.py`; how each is read, in the modules beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from gateway.errors import MalformedBodyError
from gateway.provider import dialect
from gateway.provider.model import (
    OPAQUE_ROUTE,
    Answer,
    AnswerReader,
    Choice,
    Found,
    Operation,
    Problem,
    ProviderCall,
    Resource,
    Route,
    Taking,
    UnteachableError,
)
from gateway.provider.openai import chat, completions, responses
from gateway.provider.openai.embeddings import read_embeddings, read_moderations
from gateway.provider.openai.facts import named_in, read_error, text_or_none
from gateway.provider.openai.form import fields_of, is_form
from gateway.provider.openai.kept import MakingListener, read_elements, read_kept
from gateway.provider.openai.media import (
    MediaListener,
    read_images,
    read_plain_transcript,
    read_transcript,
)
from gateway.provider.openai.response_rows import row_of_response
from gateway.provider.openai.routes import (
    CANCEL,
    CHAT,
    COMPACT,
    CONTENTS,
    RESPONSE,
    RESPONSES,
    ROUTES,
    STORED,
    deployment_of,
    found,
)
from gateway.provider.openai.rows import row_of_chat
from gateway.provider.readers import (
    BodyReader,
    Listener,
    OpaqueReader,
    StreamReader,
    WholeReader,
)

ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}

_RESPONSES: Final = frozenset({RESPONSES, COMPACT, RESPONSE, CANCEL})


class OpenAIDialect:
    """Reads and writes OpenAI's wire format."""

    name = "openai"
    CREDENTIAL_HEADERS = dialect.CREDENTIAL_HEADERS
    ROUTES: tuple[Route, ...] = ROUTES

    def found(self, method: str, path: str, query: str = "") -> Found:
        """Return the route of a request."""
        return found(method, path, query)

    def read_request(
        self, provider: str, found: Found, content_type: str, body: bytes | None
    ) -> ProviderCall:
        """Return what is asked.

        Raises:
            MalformedBodyError: what makes something of a JSON object gets none.
        """
        route = found.route
        if route is OPAQUE_ROUTE:
            return dialect.opaque(provider, found)
        if route.taking is not Taking.HELD:
            return _unread(provider, found)
        if body is None:
            if _takes_form(route) and is_form(content_type):
                return _unread(provider, found)
            return dialect.opaque(provider, found)
        asked = _asked(route, content_type, body)
        features, uses = _wants_of(found, asked)
        return ProviderCall(
            provider=provider,
            operation=route.operation,
            model=self._model(found, asked),
            streaming=asked.get("stream") in _TRUE,
            features=features,
            fallbacks=self._fallbacks(found, asked),
            uses=uses,
            body=asked,
            found=found,
        )

    def _model(self, found: Found, asked: Mapping[str, Any]) -> str | None:
        """Return the model that is asked for: the body's, else the path's or the query's."""
        model = dialect.text_of(asked, "model")
        if model is None and found.route.operation is not Operation.CHAT:
            session = asked.get("session")
            if isinstance(session, dict):
                model = text_or_none(session.get("model"))
        return model or _model_outside(found)

    def _fallbacks(self, found: Found, asked: Mapping[str, Any]) -> tuple[str | None, ...]:
        """Return the models that may answer instead."""
        return chat.fallbacks_of(asked)

    def answer_reader(self, call: ProviderCall, status: int, content_type: str) -> AnswerReader:
        """Return a reader for the answer to *call*."""
        kind = content_type.lower()
        path = call.found.route.path if call.found is not None else ""
        streamed = "event-stream" in kind or (call.streaming and "json" not in kind)
        operation = call.operation
        if operation is Operation.OPAQUE:
            return _opaque_reader(call, status, streamed=streamed)
        if status >= 400:
            return WholeReader(functools.partial(read_error, status=status))
        if operation is Operation.CHAT or operation is Operation.COMPLETION:
            if path in _RESPONSES:
                return _reader_of_response(call, streamed=streamed)
            if streamed:
                return StreamReader(chat.ChatListener(call))
            return WholeReader(functools.partial(chat.read_completion, call))
        if operation is Operation.RETRIEVAL:
            return _reader_of_kept_output(call, path, streamed=streamed)
        if operation in _MEDIA:
            return _reader_of_media(operation, kind)
        read = _WHOLE.get(operation)
        return WholeReader(read if read is not None else functools.partial(read_kept, call))

    def row_of(self, call: ProviderCall, choice: Choice) -> dict[str, Any]:
        """Return the conversation and *choice* as a training row.

        Raises:
            UnteachableError: the exchange holds something that no row can carry.
        """
        asked = call.body or {}
        if call.operation is Operation.COMPLETION:
            # A text that is continued is no conversation.
            raise UnteachableError("row.no-messages")
        if call.found is not None and call.found.route.path in _RESPONSES:
            return row_of_response(asked, choice)
        return row_of_chat(asked, choice)

    def problem_body(self, problem: Problem) -> bytes:
        """Return the error object that OpenAI's SDK puts into its exception."""
        fallback = "server_error" if problem.status >= 500 else "invalid_request_error"
        return orjson.dumps(
            {
                "error": {
                    "message": dialect.problem_sentence(problem),
                    "type": ERROR_TYPES.get(problem.status, fallback),
                    "param": None,
                    **dialect.problem_details(problem),
                }
            }
        )

    def credential_of(self, headers: Mapping[str, str], query: str) -> str | None:
        """Return the bearer token, or the `api-key` that Azure's SDK sends."""
        return dialect.bearer_of(headers) or headers.get("api-key") or None

    def credential_header(self, secret: str, path: str = "") -> tuple[str, str]:
        """Return *secret* as a bearer token."""
        return "authorization", f"Bearer {secret}"

    def query_upstream(self, query: str) -> str:
        """Return *query* as it is: no credential comes in it."""
        return query


_TRUE: Final = (True, "true", "True", "1")
"""How a request says that it wants a stream; the texts are a form's."""


def _asked(route: Route, content_type: str, body: bytes) -> dict[str, Any]:
    """Return the JSON object that *body* is, or the fields of the form.

    Raises:
        MalformedBodyError: it is neither, where one is needed.
    """
    if content_type == "application/json" and body:
        return dialect.json_object(body)
    if _takes_form(route) and is_form(content_type):
        return dict(fields_of(content_type, body))
    if not body and (route.operation not in _NEEDING or "{" in route.path):
        # What is to be done (`cancel`, `resume`) and to what stands in the path.
        return {}
    if route.operation is Operation.SESSION and content_type.lower().startswith(_CALL):
        return {}
    return dialect.json_object(body)


def _takes_form(route: Route) -> bool:
    """Tell whether a form may be sent; elsewhere it could be JSON by another name."""
    return route.path in _FORMS or route.operation not in _NEEDING


_CALL: Final = "application/sdp"
_FORMS: Final = frozenset(
    {
        "/images/edits",
        "/images/variations",
        "/audio/transcriptions",
        "/audio/translations",
    }
)


_NEEDING: Final = frozenset(
    {
        Operation.CHAT,
        Operation.COMPLETION,
        Operation.EMBEDDING,
        Operation.MODERATION,
        Operation.IMAGE,
        Operation.SPEECH,
        Operation.TRANSCRIPTION,
        Operation.FINE_TUNING,
        Operation.BATCH,
    }
)
"""Operations that are nothing without a body that can be read."""


def _unread(provider: str, found: Found) -> ProviderCall:
    """Return a call as far as its path and query tell."""
    said = dict(parse_qsl(found.query)) if found.query else {}
    return ProviderCall(
        provider=provider,
        operation=found.route.operation,
        model=_model_outside(found),
        streaming=said.get("stream") == "true",
        uses=found.names,
        lists=found.route.lists,
        found=found,
    )


_MODELS: Final = frozenset({"model", "deployment"})


def _model_outside(found: Found) -> str | None:
    """Return the model that a path or a query names.

    Raises:
        MalformedBodyError: the query names several.
    """
    deployment = deployment_of(found.path)
    if deployment is not None or not found.query:
        return deployment
    said = {value for name, value in parse_qsl(found.query) if name in _MODELS}
    if len(said) > 1:
        raise MalformedBodyError(
            "the query names several models", hint="name one: which of them counts is unclear"
        )
    return said.pop() if said else None


def _wants_of(
    found: Found, asked: Mapping[str, Any]
) -> tuple[frozenset[str], tuple[Resource, ...]]:
    """Return what else is asked for, and the resources that path and body name."""
    path, operation = found.route.path, found.route.operation
    if path == CHAT:
        return chat.wants_of(asked)
    if path in _RESPONSES or operation is Operation.TOKEN_COUNT:
        return responses.features_of(asked), responses.uses_of(asked)
    if operation is Operation.COMPLETION:
        return completions.features_of(asked), ()
    if operation in _WORDS_ONLY:
        return frozenset(), ()
    return frozenset(), tuple(dict.fromkeys((*found.names, *named_in(asked))))


_WORDS_ONLY: Final = frozenset({Operation.EMBEDDING, Operation.MODERATION, Operation.SPEECH})
"""Operations whose requests name nothing that is kept."""

_MEDIA: Final = frozenset({Operation.IMAGE, Operation.SPEECH, Operation.TRANSCRIPTION})

_WHOLE: Final[Mapping[Operation, Callable[[bytes], Answer]]] = {
    Operation.EMBEDDING: read_embeddings,
    Operation.MODERATION: read_moderations,
}


def _reader_of_response(call: ProviderCall, *, streamed: bool) -> AnswerReader:
    if streamed:
        return StreamReader(responses.ResponseListener(call))
    return WholeReader(functools.partial(responses.read_response, call))


def _reader_of_kept_output(call: ProviderCall, path: str, *, streamed: bool) -> AnswerReader:
    if path in _RESPONSES:
        return _reader_of_response(call, streamed=streamed)
    if path == STORED:
        return WholeReader(functools.partial(chat.read_completion, call))
    if path in CONTENTS:
        return BodyReader("other")
    return WholeReader(read_elements)


def _reader_of_media(operation: Operation, kind: str) -> AnswerReader:
    """Return a reader of images, sound or words; the answer's own type tells its form."""
    if "event-stream" in kind:
        return StreamReader(MediaListener())
    if operation is Operation.IMAGE:
        return WholeReader(read_images)
    if operation is Operation.SPEECH:
        return BodyReader("audio")
    return WholeReader(read_transcript if "json" in kind else read_plain_transcript)


def _opaque_reader(call: ProviderCall, status: int, *, streamed: bool) -> AnswerReader:
    """Return a reader of nothing but, where something is made, what that is."""
    route = call.found.route if call.found is not None else OPAQUE_ROUTE
    if route is OPAQUE_ROUTE or status >= 400:
        return OpaqueReader()
    if streamed:
        listener: Listener = MakingListener(call)
        return StreamReader(listener)
    return WholeReader(functools.partial(_unread_but_made, call))


def _unread_but_made(call: ProviderCall, body: bytes) -> Answer:
    told = read_kept(call, body)
    return Answer(readable=False, whole=False, id=told.id, model=told.model, made=told.made)

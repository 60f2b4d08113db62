"""Every operation of the Gemini API that is known here, and where it is asked for.

Written after https://ai.google.dev/api. The API's versions (`v1`, `v1beta`, `v1alpha`) are one
here, as `/v1beta`; so are `tunedModels/…`, `publishers/…/models/…` and `models/…` where one is
asked to make something. What follows a colon is part of the path and is not escaped.
"""

from __future__ import annotations

import functools
import re
from typing import Final
from urllib.parse import unquote

from gateway.provider.model import OPAQUE_ROUTE, Found, Operation, Resource, Route, Taking
from gateway.provider.route import Routes

COMPATIBLE: Final = re.compile(r"/v[1-9][a-z0-9]{0,8}/openai(?=/)")
"""Where Google speaks like OpenAI."""

_POST: Final = ("POST",)
_GET: Final = ("GET",)
_ANY: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_DEPTH: Final = 4
"""How many segments may follow the id of something that is not read here."""

_AN_ANSWER: Final = "that it is an answer"

COLLECTIONS: Final = {
    "agents": "agent",
    "corpora": "corpus",
    "credentials": "credential",
    "environments": "environment",
    "triggers": "trigger",
    "voices": "voice",
    "webhooks": "webhook",
}
"""What is kept or run there and not read here, by the kind of resource."""


KINDS: Final = {
    "batches": "batch",
    "cachedContents": "cached-content",
    "fileSearchStores": "file-search-store",
    "files": "file",
    "interactions": "interaction",
    "operations": "operation",
    "tunedModels": "tuned-model",
    **COLLECTIONS,
}
"""Everything that is kept there, by the collection that its name begins with."""


def _generates(verb: str, operation: Operation, asked: str, answered: str, units: str) -> Route:
    """Return a route on which a model makes something of a body that is read."""
    return Route(
        methods=_POST,
        path=f"/v1beta/models/{{…}}:{verb}",
        operation=operation,
        taking=Taking.HELD,
        asked=f"model (of the path), {asked}",
        answered=answered,
        receipted=units,
    )


def _keeps(
    path: str,
    methods: tuple[str, ...] = _POST,
    operation: Operation = Operation.FILE,
    taking: Taking = Taking.PASSING,
) -> Route:
    """Return a route on which something is kept there."""
    return Route(
        methods=methods,
        path=path,
        operation=operation,
        taking=taking,
        asked="what it is made of" if taking is Taking.HELD else "",
        answered="what was made",
    )


def _tells(
    path: str, methods: tuple[str, ...] = _GET, operation: Operation = Operation.FILE
) -> Route:
    """Return a route on which something that is kept is told of, changed or deleted."""
    return Route(methods=methods, path=path, operation=operation, answered=_AN_ANSWER)


def _lists(path: str, kind: str, operation: Operation = Operation.FILE) -> Route:
    """Return a route whose answer is a list of what is kept."""
    return Route(methods=_GET, path=path, operation=operation, answered="the list", lists=kind)


def _later(path: str) -> Route:
    """Return a route on which an operation that takes its time is asked how far it is."""
    return Route(
        methods=_GET,
        path=path,
        operation=Operation.RETRIEVAL,
        answered="whether it is done, and what came of it",
        receipted="each thing that it made",
    )


def _opaque(collection: str, kind: str) -> tuple[Route, ...]:
    """Return the routes of things of a *kind*: made, listed, and whatever is below one."""
    top = f"/v1beta/{collection}"
    one = f"{top}/{{{kind}}}"
    bytes_ = "the body's bytes"
    return (
        Route(
            methods=_POST,
            path=top,
            operation=Operation.OPAQUE,
            answered="what was made",
            receipted=bytes_,
        ),
        Route(methods=_GET, path=top, operation=Operation.OPAQUE, receipted=bytes_, lists=kind),
        *(
            Route(
                methods=_ANY,
                path=one + "/{…}" * depth,
                operation=Operation.OPAQUE,
                receipted=bytes_,
            )
            for depth in range(_DEPTH + 1)
        ),
    )


_ASKED: Final = "features, contents, tools, files and cache used"
_SAID: Final = "candidates, usage, finish and block reasons"
_UNITS: Final = "each candidate's text, thoughts, calls, images, sound, code run, other parts"

GENERATE: Final = _generates("generateContent", Operation.CHAT, _ASKED, _SAID, _UNITS)
STREAM: Final = _generates("streamGenerateContent", Operation.CHAT, _ASKED, _SAID, _UNITS)
EMBED: Final = _generates(
    "embedContent", Operation.EMBEDDING, "files used", "vector, usage", "the vector"
)
EMBED_MANY: Final = _generates(
    "batchEmbedContents", Operation.EMBEDDING, "files used", "vectors, usage", "each vector"
)
PREDICT: Final = _generates("predict", Operation.IMAGE, "files used", "images", "each image")
PREDICT_LATER: Final = _generates(
    "predictLongRunning", Operation.IMAGE, "files used", "the operation", "nothing yet"
)
COUNT_TOKENS: Final = _generates("countTokens", Operation.TOKEN_COUNT, _ASKED, _AN_ANSWER, "")
CREATE_BATCHES: Final = tuple(
    Route(
        methods=_POST,
        path=f"/v1beta/models/{{…}}:{verb}",
        operation=Operation.BATCH,
        taking=Taking.JUDGED,
        asked="model (of the path), each request, inline or in a file",
        answered="the batch that was made",
    )
    for verb in ("batchGenerateContent", "asyncBatchEmbedContent")
)
CHANGE_BATCHES: Final = tuple(
    Route(
        methods=("PATCH",),
        path=f"/v1beta/batches/{{batch}}:{verb}",
        operation=Operation.BATCH,
        answered="refused: other requests could come in by it",
    )
    for verb in ("updateGenerateContentBatch", "updateEmbedContentBatch")
)
BATCH: Final = Route(
    methods=_GET,
    path="/v1beta/batches/{batch}",
    operation=Operation.RETRIEVAL,
    answered="whether it is done, its answers or the file that holds them",
    receipted="each answer that it holds",
)
OPERATIONS: Final = tuple(
    map(
        _later,
        (
            "/v1beta/models/{…}/operations/{operation}",
            "/v1beta/operations/{operation}",
        ),
    )
)
CREATE_FILES: Final = (
    _keeps("/upload/v1beta/files", ("POST", "PUT")),
    _keeps("/v1beta/files"),
    _keeps("/v1beta/files:register"),
)
DOWNLOADS: Final = tuple(
    Route(
        methods=_GET,
        path=path,
        operation=Operation.RETRIEVAL,
        answered="its bytes; of a batch's answers, each line",
        receipted="the file, by the digest of its bytes",
    )
    for path in ("/v1beta/files/{file}:download", "/download/v1beta/files/{file}:download")
)
CREATE_CACHE: Final = _keeps("/v1beta/cachedContents", taking=Taking.HELD)
CREATE_STORE: Final = _keeps("/v1beta/fileSearchStores")
CREATE_TUNED: Final = _keeps(
    "/v1beta/tunedModels", operation=Operation.FINE_TUNING, taking=Taking.HELD
)
INTERACT: Final = Route(
    methods=_POST,
    path="/v1beta/interactions",
    operation=Operation.CHAT,
    taking=Taking.HELD,
    asked="model or agent, streaming, features, what it goes on from, files used",
    answered="steps, usage, the interaction that was made",
    receipted="each text, thought, call, image, sound, result, other step",
)
INTERACTION: Final = Route(
    methods=_GET,
    path="/v1beta/interactions/{interaction}",
    operation=Operation.RETRIEVAL,
    answered="steps, usage, whether it is done",
    receipted="each text, thought, call, image, sound, result, other step",
)
CANCEL_INTERACTION: Final = Route(
    methods=_POST,
    path="/v1beta/interactions/{interaction}/cancel",
    operation=Operation.RETRIEVAL,
    answered=INTERACTION.answered,
    receipted=INTERACTION.receipted,
)
AUTH_TOKENS: Final = Route(
    methods=_POST, path="/v1beta/auth_tokens", operation=Operation.SESSION
)
"""Mints keys that lead past the gateway."""

_SERVICE: Final = "/ws/google.ai.generativelanguage.v1beta.GenerativeService"

LIVE: Final = (
    *(
        Route(
            methods=_GET,
            path=f"{_SERVICE}.{name}",
            operation=Operation.SESSION,
            asked="model and features of the first message",
            answered="turns, usage",
            receipted="each turn has a receipt of its own",
        )
        for name in ("BidiGenerateContent", "BidiGenerateContentConstrained")
    ),
    Route(
        methods=_GET,
        path=f"{_SERVICE}.BidiGenerateMusic",
        operation=Operation.OPAQUE,
        receipted="the bytes, both ways",
    ),
)

_STORE: Final = "/v1beta/fileSearchStores/{file-search-store}"
_CACHE: Final = "/v1beta/cachedContents/{cached-content}"
_TUNED: Final = "/v1beta/tunedModels/{tuned-model}"
_UPDATE: Final = ("PATCH", "DELETE")

ROUTES: Final[tuple[Route, ...]] = (
    GENERATE,
    STREAM,
    EMBED,
    EMBED_MANY,
    COUNT_TOKENS,
    PREDICT,
    PREDICT_LATER,
    *CREATE_BATCHES,
    _lists("/v1beta/batches", "batch", Operation.BATCH),
    BATCH,
    _tells("/v1beta/batches/{batch}:cancel", _POST, Operation.BATCH),
    *CHANGE_BATCHES,
    _tells("/v1beta/batches/{batch}", ("DELETE",), Operation.BATCH),
    *OPERATIONS,
    INTERACT,
    INTERACTION,
    CANCEL_INTERACTION,
    _tells("/v1beta/interactions/{interaction}", ("DELETE",)),
    *CREATE_FILES,
    _lists("/v1beta/files", "file"),
    *DOWNLOADS,
    _tells("/v1beta/files/{file}", ("GET", "DELETE")),
    CREATE_CACHE,
    _lists("/v1beta/cachedContents", "cached-content"),
    _tells(_CACHE, ("GET", *_UPDATE)),
    CREATE_STORE,
    _lists("/v1beta/fileSearchStores", "file-search-store"),
    _tells(_STORE, ("GET", *_UPDATE)),
    _keeps("/upload" + _STORE + ":uploadToFileSearchStore", ("POST", "PUT")),
    _keeps(_STORE + ":importFile", taking=Taking.HELD),
    _tells(_STORE + "/documents"),
    _tells(_STORE + "/documents/{…}", ("GET", "DELETE")),
    _tells(_STORE + "/documents/{…}:query", _POST, Operation.OPAQUE),
    _tells(_STORE + "/operations/{…}"),
    _tells(_STORE + "/upload/operations/{…}"),
    CREATE_TUNED,
    _lists("/v1beta/tunedModels", "tuned-model"),
    _tells(_TUNED, ("GET", *_UPDATE)),
    _tells(_TUNED + ":transferOwnership", _POST),
    _tells(_TUNED + "/operations/{…}"),
    _tells(_TUNED + "/operations"),
    _tells(_TUNED + "/permissions", ("GET", "POST")),
    _tells(_TUNED + "/permissions/{…}", ("GET", *_UPDATE)),
    AUTH_TOKENS,
    *LIVE,
    _tells("/v1beta/models", operation=Operation.LISTING),
    _tells("/v1beta/models/{…}", operation=Operation.LISTING),
    *(route for collection, kind in COLLECTIONS.items() for route in _opaque(collection, kind)),
)
_ROUTES: Final = Routes(ROUTES)

_PATH_REMEMBERED_MAX: Final = 256
_ONE_MODEL: Final = "/v1beta/models/{…}"
_VERSION: Final = re.compile(r"((?:/upload|/download)?)/v[1-9][a-z0-9]{0,8}(?=/)")
_LONG_NAME: Final = re.compile(
    r"(?<=^/v1beta)(?:/projects/[^/]+/locations/[^/]+)?/publishers/[^/]+(?=/models/[^/]+$)"
)
_SOCKET: Final = re.compile(r"(?<=^/ws/google\.ai\.generativelanguage\.)v[1-9][a-z0-9]{0,8}")
_TUNED_MODEL: Final = re.compile(r"/v1beta/tunedModels/([^/:]+)(?=:[A-Za-z]+$)")
_NAMED: Final = re.compile(
    rf"(?:/upload|/download)?/v1beta/({'|'.join(KINDS)})/([^/:]+)(?=[:/]|$)"
)
_MODEL: Final = re.compile(r"/(tunedModels|models)/([^/:]+)")


def found(method: str, path: str, query: str = "") -> Found:
    """Return the route of a request, and what its path names, whatever the API's version."""
    # Callers can make up any number of paths, and of any length.
    known = _known if len(path) <= _PATH_REMEMBERED_MAX else _known.__wrapped__
    route, names = known(method, path)
    return Found(route=route, path=path, query=query, names=names)


@functools.lru_cache(maxsize=512)
def _known(method: str, path: str) -> tuple[Route, tuple[Resource, ...]]:
    plain = _VERSION.sub(r"\1/v1beta", path, count=1) if _VERSION.match(path) else path
    tuned: tuple[Resource, ...] = ()
    if "/publishers/" in plain:
        plain = _LONG_NAME.sub("", plain)
    elif plain.startswith("/ws/"):
        plain = _SOCKET.sub("v1beta", plain)
    elif (named := _TUNED_MODEL.match(plain)) and not plain.endswith(":transferOwnership"):
        tuned = (Resource(kind="tuned-model", id=named[1]),)
        plain = f"/v1beta/models/{plain[len('/v1beta/tunedModels/') :]}"
    known = _ROUTES.found(method, plain)
    route, names = known.route, (*tuned, *known.names)
    if any(":" in name.id for name in names) or (":" in plain and route.path == _ONE_MODEL):
        # Something is done to it of which nobody here has heard.
        route = OPAQUE_ROUTE
    if route is OPAQUE_ROUTE and not tuned and (named := _NAMED.match(plain)):
        names = (Resource(kind=KINDS[named[1]], id=named[2]),)
    return route, names


def resource_of(name: str) -> Resource | None:
    """Return the resource that a *name* of the API's, or the end of an address, leads to."""
    *_, collection, id_ = ("", "", *name.partition("?")[0].split("/"))
    kind, id_ = KINDS.get(collection), id_.partition(":")[0]
    return Resource(kind=kind, id=id_) if kind is not None and id_ else None


def model_of(path: str) -> str | None:
    """Return the model that a *path* names, as the API's answers call it."""
    named = _MODEL.search(path)
    if named is None:
        return None
    model = unquote(named[2])
    return f"tunedModels/{model}" if named[1] == "tunedModels" else model

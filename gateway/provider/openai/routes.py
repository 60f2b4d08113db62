"""Every operation of OpenAI's API that is known here, and where Azure and others have them.

What makes something may be asked for below any path, so that a compatible server needs no code.
What is kept with a provider is looked for only below the usual ones: elsewhere `files` may be
the files of something else.
"""

from __future__ import annotations

from typing import Final

from gateway.provider.model import OPAQUE_ROUTE, Found, Operation, Route, Taking
from gateway.provider.route import Routes

CHAT: Final = "/chat/completions"
RESPONSES: Final = "/responses"
COMPACT: Final = "/responses/compact"
COMPLETIONS: Final = "/completions"
RESPONSE: Final = "/responses/{response}"
CANCEL: Final = "/responses/{response}/cancel"
STORED: Final = "/chat/completions/{completion}"

CONTENTS: Final = frozenset(
    {
        "/files/{file}/content",
        "/containers/{container}/files/{…}/content",
        "/videos/{video}/content",
    }
)
"""Where the answer is no JSON but what was kept."""

_POST: Final = ("POST",)
_GET: Final = ("GET",)
_DELETE: Final = ("DELETE",)


def _made(
    path: str, operation: Operation, asked: str, answered: str, receipted: str = ""
) -> Route:
    """Return a route on which a model makes something of a body that is read."""
    return Route(
        methods=_POST,
        path=path,
        operation=operation,
        taking=Taking.HELD,
        asked=asked,
        answered=answered,
        receipted=receipted,
    )


def _read(path: str, lists: str | None = None, operation: Operation = Operation.FILE) -> Route:
    """Return a route on which something that is kept, or the list of such, is told of."""
    return Route(
        methods=_GET,
        path=path,
        operation=operation,
        answered="resources that it tells of" if lists is None else "the list",
        lists=lists,
    )


def _keep(path: str, operation: Operation = Operation.FILE) -> Route:
    """Return a route on which something is kept, or changed where it is."""
    return Route(
        methods=_POST,
        path=path,
        operation=operation,
        taking=Taking.HELD,
        asked="model, resources that it names",
        answered="resources that it tells of",
    )


def _drop(path: str) -> Route:
    return Route(methods=_DELETE, path=path, operation=Operation.FILE)


def _again(path: str, receipted: str, methods: tuple[str, ...] = _GET) -> Route:
    """Return a route on which an output is read again, or for the first time."""
    return Route(
        methods=methods,
        path=path,
        operation=Operation.RETRIEVAL,
        answered="what was made",
        receipted=receipted,
    )


def _session(path: str, asked: str) -> Route:
    """Return a route on which both sides talk over one connection."""
    return Route(
        methods=_GET,
        path=path,
        operation=Operation.SESSION,
        asked=asked,
        answered="each response, usage",
        receipted="each response has a receipt of its own",
    )


def _unread_session(path: str) -> Route:
    """Return a route on which both sides talk in a way that nobody here reads."""
    return Route(
        methods=_GET,
        path=path,
        operation=Operation.OPAQUE,
        receipted="the bytes, both ways",
    )


_OUTPUT: Final = "text, reasoning, tool calls, refusal; images and results of server tools"
_PARTS: Final = "text, reasoning, tool calls, refusal of each choice; images, sound"

GENERATING: Final[tuple[Route, ...]] = (
    _made(
        CHAT,
        Operation.CHAT,
        "model, fallbacks, streaming, features, messages, tools, files",
        "choices, usage, finish reasons, stored completion",
        _PARTS,
    ),
    _made(
        RESPONSES,
        Operation.CHAT,
        "model, streaming, features, input, tools, earlier responses, files",
        "output items, usage, status, stored response",
        _OUTPUT,
    ),
    _made(
        COMPACT,
        Operation.CHAT,
        "model, input, earlier response",
        "output items, usage",
        "each item",
    ),
    _made(
        "/responses/input_tokens",
        Operation.TOKEN_COUNT,
        "model, resources that it names",
        "that it parses",
    ),
    _made(
        COMPLETIONS,
        Operation.COMPLETION,
        "model, streaming, features",
        "choices, usage, finish reasons",
        "each choice's text",
    ),
    _made("/embeddings", Operation.EMBEDDING, "model", "vectors, usage", "each vector"),
    _made("/moderations", Operation.MODERATION, "model", "results", "each result"),
    _made(
        "/images/generations",
        Operation.IMAGE,
        "model, streaming",
        "images, partial ones too, usage",
        "each image or its address, each revised prompt",
    ),
    _made(
        "/images/edits",
        Operation.IMAGE,
        "the form's fields: model, streaming",
        "images, partial ones too, usage",
        "each image or its address",
    ),
    _made(
        "/images/variations",
        Operation.IMAGE,
        "the form's fields: model",
        "images",
        "each image or its address",
    ),
    _made("/audio/speech", Operation.SPEECH, "model, streaming", "sound, usage", "the sound"),
    _made(
        "/audio/transcriptions",
        Operation.TRANSCRIPTION,
        "the form's fields: model, streaming",
        "words, segments, usage",
        "the transcript; segments",
    ),
    _made(
        "/audio/translations",
        Operation.TRANSCRIPTION,
        "the form's fields: model",
        "words, segments, usage",
        "the transcript; segments",
    ),
)

KEPT: Final[tuple[Route, ...]] = (
    # Sessions, and what lets somebody open one.
    _session("/realtime", "model (of the query), and what is said"),
    _unread_session("/realtime/translations"),
    _session("/responses", "each message that asks for a response"),
    _unread_session("/live/sessions"),
    _keep("/realtime/client_secrets", Operation.SESSION),
    _keep("/realtime/translations/client_secrets", Operation.SESSION),
    _keep("/realtime/sessions", Operation.SESSION),
    _keep("/realtime/transcription_sessions", Operation.SESSION),
    _keep("/realtime/calls", Operation.SESSION),
    _keep("/realtime/calls/{…}/accept", Operation.SESSION),
    _keep("/live/sessions", Operation.SESSION),
    # Responses and stored completions.
    _again(RESPONSE, _OUTPUT),
    _drop(RESPONSE),
    _again(CANCEL, _OUTPUT, _POST),
    _again("/responses/{response}/input_items", "each item"),
    Route(
        methods=_GET,
        path=CHAT,
        operation=Operation.RETRIEVAL,
        answered="the list",
        receipted="each completion",
        lists="completion",
    ),
    _again(STORED, _PARTS),
    _keep(STORED),
    _drop(STORED),
    _again("/chat/completions/{completion}/messages", "each message"),
    _keep("/conversations"),
    _read("/conversations/{conversation}"),
    _keep("/conversations/{conversation}"),
    _drop("/conversations/{conversation}"),
    _again("/conversations/{conversation}/items", "each item"),
    _keep("/conversations/{conversation}/items"),
    _again("/conversations/{conversation}/items/{…}", "the item"),
    _drop("/conversations/{conversation}/items/{…}"),
    # Files, uploads, batches.
    Route(
        methods=_POST,
        path="/files",
        operation=Operation.FILE,
        taking=Taking.JUDGED,
        asked="the form's fields; of a batch, every line",
        answered="the file",
    ),
    _read("/files", "file"),
    _again("/files/{file}/content", "the content; of a batch, every line"),
    _read("/files/{file}"),
    _drop("/files/{file}"),
    _keep("/uploads"),
    Route(
        methods=_POST,
        path="/uploads/{upload}/parts",
        operation=Operation.FILE,
        answered="resources that it tells of",
    ),
    _keep("/uploads/{upload}/complete"),
    _keep("/uploads/{upload}/cancel"),
    _keep("/batches", Operation.BATCH),
    _read("/batches", "batch", Operation.BATCH),
    _read("/batches/{batch}", operation=Operation.BATCH),
    _keep("/batches/{batch}/cancel", Operation.BATCH),
    # Vector stores.
    _keep("/vector_stores"),
    _read("/vector_stores", "vector-store"),
    _read("/vector_stores/{vector-store}"),
    _keep("/vector_stores/{vector-store}"),
    _drop("/vector_stores/{vector-store}"),
    _again("/vector_stores/{vector-store}/search", "each result", _POST),
    _keep("/vector_stores/{vector-store}/files"),
    _read("/vector_stores/{vector-store}/files"),
    _read("/vector_stores/{vector-store}/files/{file}"),
    _keep("/vector_stores/{vector-store}/files/{file}"),
    _drop("/vector_stores/{vector-store}/files/{file}"),
    _again("/vector_stores/{vector-store}/files/{file}/content", "each part"),
    _keep("/vector_stores/{vector-store}/file_batches"),
    _read("/vector_stores/{vector-store}/file_batches/{…}"),
    _keep("/vector_stores/{vector-store}/file_batches/{…}/cancel"),
    _read("/vector_stores/{vector-store}/file_batches/{…}/files"),
    # Assistants: what their runs say is not read.
    _keep("/assistants"),
    _read("/assistants", "assistant"),
    _read("/assistants/{assistant}"),
    _keep("/assistants/{assistant}"),
    _drop("/assistants/{assistant}"),
    _keep("/threads"),
    _keep("/threads/runs", Operation.OPAQUE),
    _read("/threads/{thread}"),
    _keep("/threads/{thread}"),
    _drop("/threads/{thread}"),
    _keep("/threads/{thread}/messages"),
    _again("/threads/{thread}/messages", "each message"),
    _again("/threads/{thread}/messages/{…}", "the message"),
    _keep("/threads/{thread}/messages/{…}"),
    _drop("/threads/{thread}/messages/{…}"),
    _keep("/threads/{thread}/runs", Operation.OPAQUE),
    _read("/threads/{thread}/runs"),
    _read("/threads/{thread}/runs/{…}"),
    _keep("/threads/{thread}/runs/{…}"),
    _keep("/threads/{thread}/runs/{…}/cancel"),
    _keep("/threads/{thread}/runs/{…}/submit_tool_outputs", Operation.OPAQUE),
    _again("/threads/{thread}/runs/{…}/steps", "each step"),
    _again("/threads/{thread}/runs/{…}/steps/{…}", "the step"),
    # Containers, videos, evaluations.
    _keep("/containers"),
    _read("/containers", "container"),
    _read("/containers/{container}"),
    _drop("/containers/{container}"),
    _keep("/containers/{container}/files"),
    _read("/containers/{container}/files"),
    _again("/containers/{container}/files/{…}/content", "the content"),
    _read("/containers/{container}/files/{…}"),
    _drop("/containers/{container}/files/{…}"),
    _keep("/videos", Operation.OPAQUE),
    _keep("/videos/edits", Operation.OPAQUE),
    _keep("/videos/extensions", Operation.OPAQUE),
    _keep("/videos/{video}/remix", Operation.OPAQUE),
    _read("/videos", "video"),
    _again("/videos/{video}/content", "the content"),
    _read("/videos/{video}"),
    _drop("/videos/{video}"),
    _keep("/evals"),
    _read("/evals", "eval"),
    _read("/evals/{eval}"),
    _keep("/evals/{eval}"),
    _drop("/evals/{eval}"),
    _keep("/evals/{eval}/runs", Operation.OPAQUE),
    _read("/evals/{eval}/runs"),
    _read("/evals/{eval}/runs/{…}"),
    _keep("/evals/{eval}/runs/{…}/cancel"),
    _keep("/evals/{eval}/runs/{…}"),
    _drop("/evals/{eval}/runs/{…}"),
    _again("/evals/{eval}/runs/{…}/output_items", "each item"),
    _again("/evals/{eval}/runs/{…}/output_items/{…}", "the item"),
    # Fine-tuning inside the provider's service, and models.
    _keep("/fine_tuning/jobs", Operation.FINE_TUNING),
    _read("/fine_tuning/jobs", "fine-tuning-job"),
    _read("/fine_tuning/jobs/{fine-tuning-job}"),
    _keep("/fine_tuning/jobs/{fine-tuning-job}/cancel"),
    _keep("/fine_tuning/jobs/{fine-tuning-job}/pause"),
    _keep("/fine_tuning/jobs/{fine-tuning-job}/resume", Operation.FINE_TUNING),
    _read("/fine_tuning/jobs/{fine-tuning-job}/events"),
    _read("/fine_tuning/jobs/{fine-tuning-job}/checkpoints"),
    Route(
        methods=("GET", "HEAD"),
        path="/models",
        operation=Operation.LISTING,
        answered="the list",
    ),
    Route(methods=_GET, path="/models/{…}", operation=Operation.LISTING),
    Route(methods=_GET, path="/models/{…}/{…}", operation=Operation.LISTING),
    Route(methods=_GET, path="/models/{…}/{…}/endpoints", operation=Operation.LISTING),
    _drop("/models/{…}"),
)

ROUTES: Final[tuple[Route, ...]] = (*GENERATING, *KEPT)

MAKES: Final = {
    ("POST", "/conversations"): "conversation",
    ("POST", "/files"): "file",
    ("POST", "/uploads"): "upload",
    ("POST", "/batches"): "batch",
    ("POST", "/vector_stores"): "vector-store",
    ("POST", "/assistants"): "assistant",
    ("POST", "/threads"): "thread",
    ("POST", "/containers"): "container",
    ("POST", "/videos"): "video",
    ("POST", "/videos/edits"): "video",
    ("POST", "/videos/extensions"): "video",
    ("POST", "/videos/{video}/remix"): "video",
    ("POST", "/evals"): "eval",
    ("POST", "/fine_tuning/jobs"): "fine-tuning-job",
}
"""The kind of resource whose `id` the answer on a route tells, as newly made."""

_USUALLY: Final = (
    r"(?:/openai/deployments/[^/]+|/openai|(?:/[a-z-]+)?/v[0-9]+(?:beta|alpha)?(?:/openai)?)?"
)
"""`/v1`, `/openai/v1`, `/v1beta/openai` and the like, and Azure's older paths."""

_HEAD_DEPTH: Final = 4
"""Up to so many segments stand before those of what is kept, or begin them."""

_GENERATING: Final = {route.path: route for route in GENERATING}
_KEPT: Final = {
    (method, head): Routes(
        [one for one in KEPT if method in one.methods and one.path.split("/")[1] == head],
        _USUALLY,
    )
    for route in KEPT
    for method in route.methods
    for head in [route.path.split("/")[1]]
}
"""Routes by method and first segment, so that few are tried for a path."""


def found(method: str, path: str, query: str = "") -> Found:
    """Return the route of a request, or `OPAQUE_ROUTE`."""
    if method == "POST":
        made = _found_making(path)
        if made is not None:
            return Found(route=made, path=path, query=query)
    for head in path.split("/", _HEAD_DEPTH + 1)[1 : _HEAD_DEPTH + 1]:
        routes = _KEPT.get((method, head))
        if routes is not None:
            kept = routes.found(method, path, query)
            if kept.route is not OPAQUE_ROUTE:
                return kept
    return Found(route=OPAQUE_ROUTE, path=path, query=query)


def _found_making(path: str) -> Route | None:
    """Return the route on which something is made, by the last segments of *path*."""
    before, _, last = path.rpartition("/")
    two = _GENERATING.get(f"/{before.rpartition('/')[2]}/{last}")
    route = two if two is not None else _GENERATING.get(f"/{last}")
    return None if route is None or not path.startswith("/") or "//" in path else route


def deployment_of(path: str) -> str | None:
    """Return the deployment that one of Azure's paths names, or `None`."""
    before, marked, after = path.partition("/deployments/")
    if not marked or not before.endswith("/openai"):
        return None
    return after.partition("/")[0] or None

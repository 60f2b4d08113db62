"""Every operation of Anthropic's API that is known here, and where it is asked for.

Written after https://platform.claude.com/docs/en/api. What Anthropic keeps and runs for its
customers (skills, agents, sessions, memory and so on) is not read, but belongs to who made it.
"""

from __future__ import annotations

from typing import Final

from gateway.provider.model import Operation, Route, Taking
from gateway.provider.route import Routes

_AN_ANSWER: Final = "that it is an answer"

MESSAGES: Final = Route(
    methods=("POST",),
    path="/v1/messages",
    operation=Operation.CHAT,
    taking=Taking.HELD,
    asked="model, fallbacks, streaming, features, messages, tools, files and container used",
    answered="content blocks, usage, stop reason and refusal category, what was made",
    receipted="each text, reasoning, tool call, refusal, tool result, citations, other block",
)
COUNT_TOKENS: Final = Route(
    methods=("POST",),
    path="/v1/messages/count_tokens",
    operation=Operation.TOKEN_COUNT,
    taking=Taking.HELD,
    asked="model, features, files used",
    answered=_AN_ANSWER,
)
COMPLETE: Final = Route(
    methods=("POST",),
    path="/v1/complete",
    operation=Operation.COMPLETION,
    taking=Taking.HELD,
    asked="model, streaming, prompt",
    answered="text, stop reason",
    receipted="the text",
)
CREATE_BATCH: Final = Route(
    methods=("POST",),
    path="/v1/messages/batches",
    operation=Operation.BATCH,
    taking=Taking.JUDGED,
    asked="each request, as a message",
    answered="the batch that was made",
)
LIST_BATCHES: Final = Route(
    methods=("GET",),
    path="/v1/messages/batches",
    operation=Operation.BATCH,
    answered=_AN_ANSWER,
    lists="batch",
)
BATCH: Final = Route(
    methods=("GET", "DELETE"),
    path="/v1/messages/batches/{batch}",
    operation=Operation.BATCH,
    answered="whether it has ended",
)
CANCEL_BATCH: Final = Route(
    methods=("POST",),
    path="/v1/messages/batches/{batch}/cancel",
    operation=Operation.BATCH,
    answered="whether it has ended",
)
BATCH_RESULTS: Final = Route(
    methods=("GET",),
    path="/v1/messages/batches/{batch}/results",
    operation=Operation.RETRIEVAL,
    answered="each line",
    receipted="each line has a receipt of its own",
)
CREATE_FILE: Final = Route(
    methods=("POST",),
    path="/v1/files",
    operation=Operation.FILE,
    answered="the file that was made",
)
FILE_CONTENT: Final = Route(
    methods=("GET",),
    path="/v1/files/{file}/content",
    operation=Operation.RETRIEVAL,
    answered="the bytes of what a tool of the provider's wrote",
    receipted="the file, by the digest of its bytes",
)

COLLECTIONS: Final = {
    "agents": "agent",
    "deployments": "deployment",
    "deployment_runs": "deployment-run",
    "dreams": "dream",
    "environments": "environment",
    "memory_stores": "memory-store",
    "sessions": "session",
    "skills": "skill",
    "tunnels": "tunnel",
    "user_profiles": "user-profile",
    "vaults": "vault",
}
"""What is kept or run there and not read here, by the kind of resource."""

_DEPTH: Final = 4
"""How many segments may follow the id of such a thing."""


def _opaque_routes(collection: str, kind: str) -> tuple[Route, ...]:
    """Return the routes of things of a *kind*: made, listed, and whatever is below one."""
    one = f"/v1/{collection}/{{{kind}}}"
    return (
        Route(
            methods=("POST",),
            path=f"/v1/{collection}",
            operation=Operation.OPAQUE,
            answered="what was made",
            receipted="the body's bytes",
        ),
        Route(
            methods=("GET",),
            path=f"/v1/{collection}",
            operation=Operation.OPAQUE,
            receipted="the body's bytes",
            lists=kind,
        ),
        *(
            Route(
                methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
                path=one + "/{…}" * depth,
                operation=Operation.OPAQUE,
                receipted="the body's bytes",
            )
            for depth in range(_DEPTH + 1)
        ),
    )


ROUTES: Final[tuple[Route, ...]] = (
    MESSAGES,
    COUNT_TOKENS,
    COMPLETE,
    CREATE_BATCH,
    LIST_BATCHES,
    BATCH,
    CANCEL_BATCH,
    BATCH_RESULTS,
    CREATE_FILE,
    Route(
        methods=("GET",),
        path="/v1/files",
        operation=Operation.FILE,
        answered=_AN_ANSWER,
        lists="file",
    ),
    FILE_CONTENT,
    Route(
        methods=("GET", "DELETE"),
        path="/v1/files/{file}",
        operation=Operation.FILE,
        answered=_AN_ANSWER,
    ),
    Route(
        methods=("GET",),
        path="/v1/models",
        operation=Operation.LISTING,
        answered=_AN_ANSWER,
    ),
    Route(
        methods=("GET",),
        path="/v1/models/{…}",
        operation=Operation.LISTING,
        answered=_AN_ANSWER,
    ),
    *(
        route
        for collection, kind in COLLECTIONS.items()
        for route in _opaque_routes(collection, kind)
    ),
)
FOUND: Final = Routes(ROUTES, r"(?:/[^/]+){0,8}")
"""A server that speaks like Anthropic's may have any path before its own."""

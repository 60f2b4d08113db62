"""The twin of `gateway.provider.gemini`: what is asked, and where.

Shapes are those of Google's public reference (https://ai.google.dev/api): "Generating content",
"Embeddings", "Counting tokens", "Files", "Caching", "Batch API", "Models", "Tuning", and of
https://ai.google.dev/gemini-api/docs "OpenAI compatibility", "Ephemeral tokens", "File search".
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import MalformedBodyError
from gateway.provider.gemini.dialect import GeminiDialect
from gateway.provider.gemini.routes import resource_of
from gateway.provider.model import (
    OPAQUE_ROUTE,
    Choice,
    Problem,
    ProviderCall,
    Resource,
    Taking,
    ToolCall,
    UnteachableError,
)

DIALECT = GeminiDialect()
FILE, BATCH = Resource("file", "f1"), Resource("batch", "b1")
CACHE, STORE = Resource("cached-content", "c1"), Resource("file-search-store", "s1")
TUNED, SAID = Resource("tuned-model", "t1"), Resource("interaction", "i1")
HELLO = {"role": "user", "parts": [{"text": "hello"}]}
LOOK = {
    "name": "look",
    "description": "Look.",
    "parameters": {"type": "OBJECT", "properties": {"at": {"type": "STRING"}}},
}


def asked(path: str = "/v1beta/models/g-x:generateContent", **body: Any) -> ProviderCall:
    """Return a request as it is read."""
    found = DIALECT.found("POST", path)
    return DIALECT.read_request("gemini", found, "", json.dumps(body).encode())


@pytest.mark.parametrize(
    ("method", "path", "operation", "taking", "names"),
    [
        ("POST", "/v1/models/g:generateContent", "chat", Taking.HELD, ()),
        ("POST", "/v1alpha/models/g:streamGenerateContent", "chat", Taking.HELD, ()),
        ("POST", "/v1beta/tunedModels/t1:generateContent", "chat", Taking.HELD, (TUNED,)),
        (
            "POST",
            "/v1beta1/projects/p/locations/l/publishers/google/models/g:generateContent",
            "chat",
            Taking.HELD,
            (),
        ),
        ("POST", "/v1/publishers/google/models/g:countTokens", "token-count", Taking.HELD, ()),
        ("POST", "/v1beta/models/g:embedContent", "embedding", Taking.HELD, ()),
        ("POST", "/v1beta/models/g:batchEmbedContents", "embedding", Taking.HELD, ()),
        ("POST", "/v1beta/models/g:predict", "image", Taking.HELD, ()),
        ("POST", "/v1beta/models/g:predictLongRunning", "image", Taking.HELD, ()),
        ("POST", "/v1beta/models/g:batchGenerateContent", "batch", Taking.JUDGED, ()),
        ("POST", "/v1beta/models/g:asyncBatchEmbedContent", "batch", Taking.JUDGED, ()),
        (
            "GET",
            "/v1beta/models/v/operations/o1",
            "retrieval",
            Taking.PASSING,
            (Resource("operation", "o1"),),
        ),
        ("GET", "/v1beta/batches/b1", "retrieval", Taking.PASSING, (BATCH,)),
        ("POST", "/v1beta/batches/b1:cancel", "batch", Taking.PASSING, (BATCH,)),
        ("DELETE", "/v1beta/batches/b1", "batch", Taking.PASSING, (BATCH,)),
        ("POST", "/upload/v1/files", "file", Taking.PASSING, ()),
        ("PUT", "/upload/v1beta/files", "file", Taking.PASSING, ()),
        ("POST", "/v1beta/files:register", "file", Taking.PASSING, ()),
        ("GET", "/v1beta/files/f1", "file", Taking.PASSING, (FILE,)),
        ("GET", "/v1beta/files/f1:download", "retrieval", Taking.PASSING, (FILE,)),
        ("GET", "/download/v1beta/files/f1:download", "retrieval", Taking.PASSING, (FILE,)),
        ("POST", "/v1beta/cachedContents", "file", Taking.HELD, ()),
        ("PATCH", "/v1beta/cachedContents/c1", "file", Taking.PASSING, (CACHE,)),
        ("POST", "/v1beta/fileSearchStores/s1:importFile", "file", Taking.HELD, (STORE,)),
        ("POST", "/v1beta/tunedModels", "fine-tuning", Taking.HELD, ()),
        (
            "POST",
            "/v1beta/tunedModels/t1:transferOwnership",
            "file",
            Taking.PASSING,
            (TUNED,),
        ),
        ("POST", "/v1beta/interactions", "chat", Taking.HELD, ()),
        ("GET", "/v1beta/interactions/i1", "retrieval", Taking.PASSING, (SAID,)),
        ("POST", "/v1beta/interactions/i1/cancel", "retrieval", Taking.PASSING, (SAID,)),
        ("POST", "/v1alpha/auth_tokens", "session", Taking.PASSING, ()),
        (
            "GET",
            "/ws/google.ai.generativelanguage.v1.GenerativeService.BidiGenerateContent",
            "session",
            Taking.PASSING,
            (),
        ),
        ("GET", "/v1beta/models", "listing", Taking.PASSING, ()),
        ("GET", "/v1beta/models/g", "listing", Taking.PASSING, ()),
        ("POST", "/v1beta/agents", "opaque", Taking.PASSING, ()),
        (
            "GET",
            "/v1beta/environments/e1/files/a",
            "opaque",
            Taking.PASSING,
            (Resource("environment", "e1"),),
        ),
        ("POST", "/v1beta/openai/chat/completions", "chat", Taking.HELD, ()),
        ("POST", "/v1/openai/embeddings", "embedding", Taking.HELD, ()),
    ],
)
def test_every_operation_has_its_route(
    method: str, path: str, operation: str, taking: Taking, names: tuple[Resource, ...]
) -> None:
    """An operation is known in every version of the API, with the things its path names."""
    found = DIALECT.found(method, path, "alt=sse")

    assert (found.route.operation, found.route.taking) == (operation, taking)
    assert (found.names, found.path, found.query) == (names, path, "alt=sse")


@pytest.mark.parametrize(
    ("method", "path", "names"),
    [
        ("GET", "/v1beta/files/f1:frobnicate", (FILE,)),
        ("POST", "/v1beta/files/f1:frobnicate", (FILE,)),
        ("POST", "/v1beta/batches/b1:frobnicate", (BATCH,)),
        ("POST", "/v1beta/tunedModels/t1:frobnicate", (TUNED,)),
        ("POST", "/upload/v1beta/fileSearchStores/s1:frobnicate", (STORE,)),
        ("GET", "/v1beta/fileSearchStores/s1/new/things", (STORE,)),
        ("POST", "/v1beta/models/g:frobnicate", ()),
        ("GET", "/v1beta/models/g:frobnicate", ()),
        ("POST", "/v1beta/models/g%3AgenerateContent", ()),
        ("POST", "/models/g:generateContent", ()),
        ("POST", "/v1beta/publishers/google/models/a/b:generateContent", ()),
        ("GET", "/v1beta/openai/unheard/of", ()),
        ("GET", "/", ()),
    ],
)
def test_what_nobody_has_heard_of_is_opaque(
    method: str, path: str, names: tuple[Resource, ...]
) -> None:
    """An unknown verb does something unknown, to a thing that still has an owner."""
    found = DIALECT.found(method, path)

    assert found.route is OPAQUE_ROUTE
    assert found.names == names


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("files/f1", FILE),
        ("https://generativelanguage.googleapis.com/v1beta/files/f1:download?alt=media", FILE),
        ("batches/b1", BATCH),
        ("models/veo/operations/o1", Resource("operation", "o1")),
        ("models/g", None),
        ("files/", None),
        ("f1", None),
        ("", None),
    ],
)
def test_names_lead_to_resources(name: str, resource: Resource | None) -> None:
    """A name of the API's says what kind of thing it is."""
    assert resource_of(name) == resource


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1beta/models/g-x:generateContent", "g-x"),
        ("/v1/models/g%20x:embedContent", "g x"),
        ("/v1beta/tunedModels/t1:generateContent", "tunedModels/t1"),
        ("/v1beta/publishers/google/models/g-x:predict", "g-x"),
    ],
)
def test_the_model_stands_in_the_path(path: str, model: str) -> None:
    """A request's body does not say which model is meant."""
    assert asked(path, model="models/other").model == model


def test_what_else_names_a_model_says_so_in_its_body() -> None:
    """Caches, interactions and tuned models are made for one."""
    assert asked("/v1beta/cachedContents", model="models/g-x").model == "g-x"
    assert asked("/v1beta/interactions", model="g-x").model == "g-x"
    assert asked("/v1beta/interactions", agent="deep-research").model == "deep-research"
    assert asked("/v1beta/interactions", agent={"a": 1}).model is None
    assert asked("/v1beta/tunedModels", baseModel="models/g-x").model == "g-x"
    found = DIALECT.found("GET", "/v1beta/models/g-x")
    assert DIALECT.read_request("gemini", found, "", b"").model is None


def test_a_stream_is_asked_for_by_the_path() -> None:
    """Only interactions say it in their body."""
    assert asked("/v1beta/models/g-x:streamGenerateContent").streaming
    assert not asked("/v1beta/models/g-x:generateContent").streaming
    assert asked("/v1beta/interactions", stream=True).streaming


@pytest.mark.parametrize("body", [b"", b"{", b"[]"])
def test_a_malformed_request_says_what_to_change(body: bytes) -> None:
    """A body that is read and is no JSON object is the caller's to mend."""
    found = DIALECT.found("POST", "/v1beta/models/g-x:generateContent")
    with pytest.raises(MalformedBodyError) as caught:
        DIALECT.read_request("gemini", found, "", body)

    assert caught.value.hint


@pytest.mark.parametrize(
    ("body", "features"),
    [
        ({}, set()),
        ({"generationConfig": "odd", "tools": 3}, set()),
        ({"tools": [{"functionDeclarations": [LOOK]}]}, {"tools"}),
        ({"tools": {"codeExecution": {}}}, {"tools"}),
        ({"tools": [{"googleSearch": {}}]}, {"tools", "grounding"}),
        ({"tools": [{"google_search_retrieval": {}}]}, {"tools", "grounding"}),
        ({"generationConfig": {"thinkingConfig": {"includeThoughts": True}}}, {"reasoning"}),
        ({"generation_config": {"thinking_config": {"thinking_budget": -1}}}, {"reasoning"}),
        ({"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW"}}}, {"reasoning"}),
        ({"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}}, set()),
        ({"generationConfig": {"thinkingConfig": {}}}, set()),
        ({"generationConfig": {"responseModalities": ["text", "audio"]}}, {"voice"}),
        ({"generationConfig": {"speechConfig": {}}}, {"voice"}),
        ({"generationConfig": {"responseModalities": ["IMAGE"]}}, {"image-output"}),
        ({"generationConfig": {"responseModalities": "IMAGE"}}, set()),
        ({"generationConfig": {"responseLogprobs": True}}, {"logprobs"}),
        ({"generationConfig": {"candidateCount": 2}}, {"n"}),
        ({"generationConfig": {"candidateCount": 1}}, set()),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png"}}]}]}, {"images"}),
        ({"contents": {"parts": {"file_data": {"mime_type": "image/png"}}}}, {"images"}),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "text/plain"}}, 3]}]}, set()),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": 3}}]}]}, set()),
    ],
)
def test_features_are_seen(body: dict[str, Any], features: set[str]) -> None:
    """What a request asks for beside text is listed, in either way of writing names."""
    assert asked(**body).features == features


FILE_URI = "https://generativelanguage.googleapis.com/v1beta/files/f1"


@pytest.mark.parametrize(
    ("address", "uses"),
    [
        ("https://generativelanguage.googleapis.com/v1beta/files/f1/", (FILE,)),
        ("HTTPS://GenerativeLanguage.GoogleAPIs.com:443//v1beta/./files/%661", (FILE,)),
        ("https://generativelanguage.googleapis.com/v1beta/files%2Ff1?alt=media", (FILE,)),
        (" v1beta/files/f1", (FILE,)),
        ("https://storage.googleapis.com/files/f1", ()),
        ("https://bucket.storage.googleapis.com/files/f1", ()),
        ("gs://bucket/files/f1", ()),
        ("https://www.youtube.com/watch?v=files/f1", ()),
    ],
)
def test_a_file_is_the_same_in_every_spelling(address: str, uses: tuple[Resource, ...]) -> None:
    """An odd address of a file names it, as it might to the provider; others' are theirs."""
    said = [{"parts": [{"fileData": {"fileUri": address}}]}]

    assert asked("/v1beta/models/g:generateContent", contents=said).uses == uses
    assert asked("/v1beta/models/g:generateContent", cachedContent="cachedContents/c1/").uses


def test_a_model_in_the_body_is_ruled_on_beside_that_of_the_path() -> None:
    """Which of both would answer is the provider's to say, so either may."""
    path = "/v1beta/models/g:generateContent"

    assert asked(path, model="models/other", contents=[HELLO]).fallbacks == ("other",)
    assert asked(path, model="models/g", contents=[HELLO]).fallbacks == ()
    assert asked(path, contents=[HELLO]).model == "g"


@pytest.mark.parametrize(
    ("path", "body", "uses"),
    [
        ("g:generateContent", {"contents": [HELLO]}, ()),
        (
            "g:generateContent",
            {"contents": [{"parts": [{"fileData": {"fileUri": FILE_URI}}]}]},
            (FILE,),
        ),
        (
            "g:generateContent",
            {"contents": [{"parts": [{"file_data": {"file_uri": "files/f1"}}]}]},
            (FILE,),
        ),
        (
            "g:generateContent",
            {
                "contents": [
                    {"parts": [{"fileData": {"fileUri": "https://a.example/files/f1"}}]}
                ]
            },
            (),
        ),
        ("g:generateContent", {"contents": [{"parts": [{"fileData": {"fileUri": 3}}]}]}, ()),
        ("g:generateContent", {"cachedContent": "cachedContents/c1"}, (CACHE,)),
        ("g:generateContent", {"cached_content": 3}, ()),
        (
            "g:generateContent",
            {"tools": [{"fileSearch": {"fileSearchStoreNames": ["fileSearchStores/s1"]}}]},
            (STORE,),
        ),
        ("g:generateContent", {"tools": [{"fileSearch": {"fileSearchStoreNames": 3}}]}, ()),
        (
            "g:countTokens",
            {"generateContentRequest": {"cachedContent": "cachedContents/c1"}},
            (CACHE,),
        ),
        (
            "g:batchEmbedContents",
            {"requests": [{"content": {"parts": [{"fileData": {"fileUri": FILE_URI}}]}}]},
            (FILE,),
        ),
    ],
)
def test_what_a_request_uses_is_named(
    path: str, body: dict[str, Any], uses: tuple[Resource, ...]
) -> None:
    """Files, caches and stores of a request must belong to who asks."""
    assert asked("/v1beta/models/" + path, **body).uses == uses


def test_what_is_kept_may_be_made_of_what_is_kept() -> None:
    """A file that is put into a store, and what an interaction goes on from, are used."""
    stored = asked("/v1beta/fileSearchStores/s1:importFile", fileName="files/f1")
    goes_on = asked(
        "/v1beta/interactions",
        model="g",
        previous_interaction_id="i1",
        environment="e1",
        input=[{"type": "image", "uri": FILE_URI}, {"type": "text", "text": "x"}],
        tools=[{"type": "file_search", "file_search_store_names": ["fileSearchStores/s1"]}],
    )
    plain = asked("/v1beta/interactions", previous_interaction_id=3, input="hi")

    assert stored.uses == (STORE, FILE)
    assert set(goes_on.uses) == {SAID, Resource("environment", "e1"), FILE, STORE}
    assert plain.uses == ()


# -- rows -------------------------------------------------------------------------------------


def row(choice: Choice, **body: Any) -> dict[str, Any]:
    """Return the row of *choice* in answer to a request."""
    return DIALECT.row_of(asked(**({"contents": [HELLO]} | body)), choice)


def test_a_row_is_the_conversation_and_its_answer() -> None:
    """Roles, calls and results are in OpenAI's shape, ids are made where there are none."""
    contents = [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
        {"parts": [{"text": "c"}]},
        {
            "role": "model",
            "parts": [
                {"text": "hm", "thought": True},
                {"thoughtSignature": "c2ln"},
                {"text": "Looking."},
                {"functionCall": {"name": "look", "args": {"at": "x"}}},
                {"function_call": {"name": "look", "id": "mine"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "mine", "name": "look", "response": {"a": 2}}},
                {"function_response": {"name": "look", "response": {"a": 1}}},
                {"text": "go on"},
            ],
        },
    ]
    answer = Choice(
        index=0,
        text="again",
        reasoning=("hidden",),
        tool_calls=(ToolCall(id="", name="look", arguments='{"at":  1}'),),
        finish_reason="STOP",
    )
    look = {"name": "look", "arguments": '{"at":"x"}'}

    assert row(
        answer,
        systemInstruction={"parts": [{"text": "be "}, {"text": "brief"}]},
        contents=contents,
        tools=[
            {"functionDeclarations": [LOOK]},
            {"googleSearch": {}},
            {
                "function_declarations": [
                    {"name": "bare", "parametersJsonSchema": {"type": "X"}}
                ]
            },
            {"functionDeclarations": [{"name": "none", "parameters": [{"type": 3}]}]},
        ],
    ) == {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "abc"},
            {
                "role": "assistant",
                "content": "Looking.",
                "tool_calls": [
                    {"id": "call_0", "type": "function", "function": look},
                    {
                        "id": "mine",
                        "type": "function",
                        "function": {"name": "look", "arguments": "{}"},
                    },
                ],
            },
            {"role": "tool", "content": '{"a":2}', "tool_call_id": "mine"},
            {"role": "tool", "content": '{"a":1}', "tool_call_id": "call_0"},
            {"role": "user", "content": "go on"},
            {
                "role": "assistant",
                "content": "again",
                "tool_calls": [
                    {
                        "id": "call_2",
                        "type": "function",
                        "function": {"name": "look", "arguments": '{"at":  1}'},
                    }
                ],
            },
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "Look.",
                    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
                },
            },
            {"type": "function", "function": {"name": "bare", "parameters": {"type": "X"}}},
            {"type": "function", "function": {"name": "none", "parameters": [{"type": 3}]}},
        ],
    }


SPOKEN = Choice(index=0, text="hi", finish_reason="STOP")


def test_words_may_come_in_short() -> None:
    """Texts that stand where turns may stand are turns."""
    expected = {"messages": [*({"role": "user", "content": "q"},), ANSWER]}

    assert row(SPOKEN, contents="q") == expected
    assert row(SPOKEN, contents={"parts": [{"text": "q"}]}) == expected
    assert row(SPOKEN, system_instruction="s")["messages"][0] == {
        "role": "system",
        "content": "s",
    }
    begun = [HELLO, {"role": "model", "parts": [{"text": "I say "}]}]
    assert row(SPOKEN, contents=begun)["messages"][-1]["content"] == "I say hi"


ANSWER = {"role": "assistant", "content": "hi"}


@pytest.mark.parametrize(
    ("contents", "code"),
    [
        ([], "row.no-messages"),
        (3, "row.no-messages"),
        ([{"role": "user", "parts": [{"thoughtSignature": "c2ln"}]}], "row.no-messages"),
        ([{"role": "oracle", "parts": []}], "row.malformed"),
        ([{"role": "user"}], "row.malformed"),
        ([{"role": "user", "parts": [3]}], "row.malformed"),
        ([{"role": "user", "parts": [{"brandNew": 1}]}], "row.malformed"),
        ([{"role": "user", "parts": [{"inlineData": {}}]}], "row.not-text"),
        ([{"role": "user", "parts": [{"fileData": {}}]}], "row.not-text"),
        ([{"role": "user", "parts": [{"functionCall": {}}]}], "row.not-text"),
        ([{"role": "model", "parts": [{"executableCode": {}}]}], "row.server-tool"),
        ([{"role": "model", "parts": [{"codeExecutionResult": {}}]}], "row.server-tool"),
        ([{"role": "model", "parts": [{"functionCall": {}}]}], "row.malformed"),
        ([{"role": "user", "parts": [{"functionResponse": 3}]}], "row.malformed"),
        ([{"role": "user", "parts": [{"functionResponse": {"name": "x"}}]}], "row.malformed"),
        (
            [{"role": "user", "parts": [{"functionResponse": {"parts": [{}]}}]}],
            "row.not-text",
        ),
    ],
)
def test_some_conversations_have_no_row(contents: object, code: str) -> None:
    """What no row can carry is named by a stable code."""
    with pytest.raises(UnteachableError) as caught:
        row(SPOKEN, contents=contents)

    assert str(caught.value) == code


@pytest.mark.parametrize(
    ("choice", "body", "code"),
    [
        (Choice(index=0, text="x", finish_reason="MAX_TOKENS"), {}, "row.truncated"),
        (Choice(index=0, text="x", finish_reason="SAFETY"), {}, "row.filtered"),
        (Choice(index=0, text="x", finish_reason="RECITATION"), {}, "row.filtered"),
        (Choice(index=0, finish_reason="STOP"), {}, "row.empty"),
        (SPOKEN, {"cachedContent": "cachedContents/c1"}, "row.not-whole-prompt"),
    ],
)
def test_some_answers_have_no_row(choice: Choice, body: dict[str, Any], code: str) -> None:
    """An answer that is filtered, cut off, empty or built on what is kept teaches nothing."""
    with pytest.raises(UnteachableError) as caught:
        row(choice, **body)

    assert str(caught.value) == code


def test_where_google_speaks_like_openai_so_do_we() -> None:
    """Requests, answers and rows below `openai` are read as OpenAI's are."""
    body = {"model": "g-x", "messages": [{"role": "user", "content": "q"}]}
    call = asked("/v1beta/openai/chat/completions", **body)
    reader = DIALECT.answer_reader(call, 200, "application/json")
    choice = {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}
    reader.feed(json.dumps({"id": "x", "choices": [choice]}).encode())
    (said,) = reader.finish().choices

    assert call.model == "g-x"
    assert DIALECT.row_of(call, said) == {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "hi"}]
    }


# -- problems and keys ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (405, "FAILED_PRECONDITION"),
        (429, "RESOURCE_EXHAUSTED"),
        (502, "UNAVAILABLE"),
        (599, "INTERNAL"),
    ],
)
def test_a_problem_has_the_shape_of_googles_errors(status: int, name: str) -> None:
    """The SDK finds code, status and one helpful sentence where it looks for them."""
    problem = Problem(
        status=status, code="use.held", message="wait", exchange="x-1", next_step="ask"
    )

    assert json.loads(DIALECT.problem_body(problem)) == {
        "error": {
            "code": status,
            "message": "wait; next: ask [exchange x-1]",
            "status": name,
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "use.held",
                    "domain": "tos-gateway",
                    "metadata": {"exchange": "x-1", "next_step": "ask"},
                },
                {
                    "@type": "type.googleapis.com/google.protobuf.Struct",
                    "value": {
                        "code": "use.held",
                        "exchange": "x-1",
                        "next_step": "ask",
                        "reasons": [],
                    },
                },
            ],
        }
    }


@pytest.mark.parametrize(
    ("headers", "query", "key"),
    [
        ({"x-goog-api-key": "k"}, "", "k"),
        ({}, "alt=sse&key=k%2F", "k/"),
        ({}, "access_token=t", "t"),
        ({}, "oauth_token=t&alt=sse", "t"),
        ({}, "key=a&key=b", None),
        ({"authorization": "Bearer t"}, "alt=sse", "t"),
        ({"authorization": "Token t"}, "", "t"),
        ({"authorization": "Basic t"}, "", None),
        ({"authorization": "Bearer "}, "key=", None),
        ({"x-goog-api-key": "a", "authorization": "Bearer b"}, "key=c", "a"),
        ({}, "", None),
    ],
)
def test_the_key_is_found_where_any_sdk_puts_it(
    headers: dict[str, str], query: str, key: str | None
) -> None:
    """A key comes in its header, in the query, or as a token."""
    assert key == DIALECT.credential_of(headers, query)
    assert {"authorization", "x-goog-api-key"} <= DIALECT.CREDENTIAL_HEADERS
    assert DIALECT.credential_header("k") == ("x-goog-api-key", "k")
    assert DIALECT.credential_header("k", "/v1beta/openai/models") == (
        "authorization",
        "Bearer k",
    )
    assert DIALECT.credential_header("ya29.t") == ("authorization", "Bearer ya29.t")


@pytest.mark.parametrize(
    ("query", "upstream"),
    [
        ("", ""),
        ("alt=sse", "alt=sse"),
        ("key=k", ""),
        ("alt=sse&key=k&x=%20+%2F", "alt=sse&x=%20+%2F"),
        ("k%65y=k&%61ccess_token=t&keys=1&&", "keys=1&&"),
    ],
)
def test_a_key_in_the_query_goes_no_further(query: str, upstream: str) -> None:
    """It is taken out however it is written, and is in nothing that is kept of the request."""
    assert DIALECT.query_upstream(query) == upstream
    assert DIALECT.found("GET", "/v1beta/models", query).query == upstream
    assert DIALECT.found("GET", "/v1beta/openai/models", query).query == upstream

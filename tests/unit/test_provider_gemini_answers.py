"""The twin of `gateway.provider.gemini`: what comes back, whole, in events and in pieces.

Shapes are those of Google's public reference (https://ai.google.dev/api): "Generating content",
"Embeddings", "Files", "Caching", "Batch API", "Tuning", "Interactions", and of
https://ai.google.dev/gemini-api/docs "Imagen", "Veo", "Troubleshooting", "Code execution".
"""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.canonical import sha256_hex
from gateway.provider.gemini.array import ArraySplitter
from gateway.provider.gemini.dialect import GeminiDialect
from gateway.provider.model import (
    Answer,
    Choice,
    Made,
    Operation,
    ProviderCall,
    Resource,
    Shown,
    Stop,
    ToolCall,
    Unit,
    UnteachableError,
    Usage,
)
from gateway.provider.units import bytes_unit, embedding_unit, json_unit

DIALECT = GeminiDialect()
OPAQUE = Answer(readable=False, whole=False)
TOLD = Answer(readable=True, whole=True)
GENERATE = "/v1beta/models/g-x:generateContent"
STREAM = "/v1beta/models/g-x:streamGenerateContent"


def call_of(method: str, path: str, **asked: Any) -> ProviderCall:
    """Return what is asked on a route, with a body."""
    body = json.dumps(asked).encode()
    return DIALECT.read_request("gemini", DIALECT.found(method, path), "", body)


def read(call: ProviderCall, *pieces: object, status: int = 200, kind: str = "json") -> Answer:
    """Return what is read of an answer that comes in *pieces*."""
    reader = DIALECT.answer_reader(call, status, kind)
    for piece in pieces:
        reader.feed(piece if isinstance(piece, bytes) else json.dumps(piece).encode())
    return reader.finish()


def event(told: object) -> bytes:
    """Return an event of a stream."""
    return b"data: %b\r\n\r\n" % json.dumps(told).encode()


def parts(*said: object, end: str | None = "STOP", **more: Any) -> dict[str, Any]:
    """Return a response with one candidate that says *said*."""
    candidate = {"content": {"parts": list(said), "role": "model"}}
    return {"candidates": [candidate | ({"finishReason": end} if end else {}) | more]}


def choice_of(*said: object, **more: Any) -> Choice:
    """Return what is read of one candidate of a whole answer."""
    (choice,) = read(call_of("POST", GENERATE), parts(*said, **more)).choices
    return choice


def b64(content: bytes) -> str:
    """Return *content* in base64."""
    return base64.b64encode(content).decode()


def made(*resources: tuple[str, str]) -> tuple[Made, ...]:
    """Return that *resources* were made."""
    return tuple(Made(resource=Resource(kind, id_)) for kind, id_ in resources)


def output_of(of: Resource, *files: str) -> tuple[Made, ...]:
    """Return that *files* hold what came of something."""
    return tuple(Made(resource=Resource("file", file), role="output", of=of) for file in files)


# -- generated content ------------------------------------------------------------------------


def test_a_whole_answer_is_read() -> None:
    """Words, thoughts and calls are read; arguments are the JSON text as it was sent."""
    body = parts(
        {"text": "hm", "thought": True},
        {"text": "a", "thoughtSignature": "c2ln"},
        {"text": "so", "thought": True},
        {"functionCall": {"id": "c1", "name": "look", "args": {"n": 1}}},
        {"functionCall": {"name": "now"}},
        {"text": "b"},
        {},
    ) | {
        "usageMetadata": {
            "promptTokenCount": 10,
            "toolUsePromptTokenCount": 5,
            "cachedContentTokenCount": 4,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 2,
        },
        "modelVersion": "g-x-001",
        "responseId": "resp-1",
    }
    raw = json.dumps(body).replace('{"n": 1}', '{"n":  1e400}').encode()

    assert read(call_of("POST", GENERATE), raw) == Answer(
        readable=True,
        whole=True,
        id="resp-1",
        model="g-x-001",
        choices=(
            Choice(
                index=0,
                text="ab",
                reasoning=("hm", "so"),
                shown=Shown("hm\n\nso", is_summary=True),
                tool_calls=(
                    ToolCall(id="c1", name="look", arguments='{"n":  1e400}'),
                    ToolCall(id="", name="now", arguments="{}"),
                ),
                finish_reason="STOP",
            ),
        ),
        usage=Usage(
            input_tokens=15, output_tokens=5, cached_input_tokens=4, reasoning_tokens=2
        ),
    )


RAN = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "42\n"}}
CODE = {"executableCode": {"language": "PYTHON", "code": "print(6 * 7)"}}
PIECEMEAL = {"functionCall": {"name": "look", "willContinue": True, "partialArgs": []}}
FOUND = {"webSearchQueries": ["a"], "groundingChunks": [{"web": {"uri": "https://a.example"}}]}


@pytest.mark.parametrize(
    ("part", "unit"),
    [
        (RAN, json_unit("tool-result", 0, RAN)),
        (
            {"toolResponse": {"id": "t"}},
            json_unit("tool-result", 0, {"toolResponse": {"id": "t"}}),
        ),
        (CODE, json_unit("other", 0, CODE)),
        ({"toolCall": {"id": "t"}}, json_unit("other", 0, {"toolCall": {"id": "t"}})),
        (PIECEMEAL, json_unit("other", 0, PIECEMEAL)),
        ({"brandNew": [1]}, json_unit("other", 0, {"brandNew": [1]})),
        (
            {"inlineData": {"mimeType": "image/png", "data": b64(b"pixels")}},
            bytes_unit("image", 0, b"pixels"),
        ),
        (
            {"inlineData": {"mimeType": "video/mp4", "data": b64(b"film")}},
            bytes_unit("other", 0, b"film"),
        ),
        (
            {"inlineData": {"mimeType": "audio/wav", "data": b64(b"sound")}},
            bytes_unit("audio", 0, b"sound"),
        ),
        (
            {"fileData": {"fileUri": "https://a.example/x"}},
            json_unit("link", 0, "https://a.example/x"),
        ),
    ],
)
def test_every_part_is_a_unit(part: dict[str, Any], unit: Unit) -> None:
    """What is neither words nor a call has the digest of what it is, and no row."""
    choice = choice_of({"text": "hi"}, part)

    assert (choice.text, choice.others) == ("hi", (unit,))
    with pytest.raises(UnteachableError):
        DIALECT.row_of(call_of("POST", GENERATE, contents="q"), choice)


def test_a_thought_goes_on_in_the_next_piece() -> None:
    """Pieces that follow one another are one block of reasoning."""
    said = [{"text": "h", "thought": True}, {"text": "m", "thought": True}, {"text": "a"}]
    pieces = [event(parts(one, end=None)) for one in said]
    answer = read(call_of("POST", STREAM), *pieces, kind="text/event-stream")

    assert answer.choices[0].reasoning == ("hm",)


def test_words_in_a_part_of_a_new_kind_are_read_and_listed() -> None:
    """Whatever stands beside them has its digest too."""
    part = {"text": "hi", "brandNew": 1}
    choice = choice_of(part)

    assert (choice.text, choice.others) == ("hi", (json_unit("other", 0, part),))


def test_a_sound_that_comes_in_pieces_is_one() -> None:
    """The pieces of a stream have the digest that the whole would have had."""
    pieces = [
        parts({"inlineData": {"mimeType": kind, "data": b64(sound)}}, end=None)
        for kind, sound in (
            ("audio/L16;rate=24000", b"la"),
            ("audio/L16;rate=24000", b"lala"),
            ("audio/wav", b"bum"),
        )
    ]
    answer = read(call_of("POST", STREAM), *map(event, pieces), kind="text/event-stream")

    assert answer.choices[0].others == (
        bytes_unit("audio", 0, b"lalala"),
        bytes_unit("audio", 0, b"bum"),
    )


def test_an_answer_that_rests_on_a_search_has_no_row() -> None:
    """What the provider found itself is the result of a tool; that it found nothing is none."""
    choice = choice_of({"text": "hi"}, groundingMetadata=FOUND, urlContextMetadata={"a": 1})

    assert choice.others == (
        json_unit("tool-result", 0, FOUND),
        json_unit("tool-result", 0, {"a": 1}),
    )
    with pytest.raises(UnteachableError, match=r"row\.server-tool"):
        DIALECT.row_of(call_of("POST", GENERATE, contents="q"), choice)
    assert choice_of({"text": "hi"}, groundingMetadata={}).others == ()


def test_citations_are_noted_beside_the_text() -> None:
    """What a text repeats is listed, and a row has the text alone; the newest list counts."""
    cited = {"citationSources": [{"uri": "https://a.example"}]}
    pieces = (
        event(parts({"text": "a"}, end=None, citationMetadata={"citationSources": []})),
        event(parts(citationMetadata=cited)),
    )
    answer = read(call_of("POST", STREAM), *pieces, kind="text/event-stream")

    assert answer.units == (json_unit("other", 0, cited),)
    assert answer.choices[0].others == ()


@pytest.mark.parametrize(
    "reason", ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "SPII"]
)
def test_what_the_filter_takes_out_is_a_stop(reason: str) -> None:
    """Such an end is the provider's own no."""
    answer = read(call_of("POST", GENERATE), parts(end=reason))

    assert (answer.stop, answer.whole, answer.error) == ("policy", True, None)
    assert answer.choices[0].finish_reason == reason


def test_a_prompt_may_be_blocked() -> None:
    """Then there is a reason and no candidate, whole or streamed."""
    body = {"promptFeedback": {"blockReason": "SAFETY"}}
    expected = Answer(readable=True, whole=True, error="SAFETY", stop="policy")

    assert read(call_of("POST", GENERATE), body) == expected
    stream = call_of("POST", STREAM)
    assert read(stream, event(body), kind="text/event-stream") == expected
    assert read(stream, [body], kind="application/json") == expected


def test_an_answer_of_nothing_is_read() -> None:
    """Without candidates it may still say what it cost; one of no such shape is nonsense."""
    call = call_of("POST", GENERATE)

    assert read(call, {"usageMetadata": {"promptTokenCount": 1}}).whole
    assert read(call, {"usageMetadata": 3}).usage is None
    for body in (b"", b"<html>", b"{}", b"[]", b'{"candidates": 3}', b"\xff"):
        assert read(call, body) == OPAQUE
    assert read(call, parts({"inlineData": {"data": "!"}})) == OPAQUE
    assert read(call, parts({"text": 3})) == OPAQUE


def test_a_stream_needs_all_that_was_asked_for() -> None:
    """It is whole once every candidate is finished."""
    call = call_of("POST", STREAM, generationConfig={"candidateCount": 2})
    one = event(parts({"text": "a"}))
    two = event(parts({"text": "b"}, index=1))

    assert not read(call, one, kind="text/event-stream").whole
    assert read(call, one, two, kind="text/event-stream").whole
    assert not read(call_of("POST", STREAM), kind="text/event-stream").whole


# -- an array in pieces -----------------------------------------------------------------------

texts = st.text(st.sampled_from('ab{}[]",\\ \n'), max_size=8)
elements = st.lists(
    st.recursive(
        st.dictionaries(texts, texts | st.integers(0, 9), max_size=3),
        lambda inner: st.dictionaries(texts, st.lists(inner, max_size=2), max_size=2),
        max_leaves=4,
    ),
    max_size=4,
)
blanks = st.sampled_from(["", " ", "\n", "\r\n  ", "\t"])
cuts = st.lists(st.integers(0, 500), max_size=8)


def split(stream: bytes, places: list[int]) -> tuple[list[tuple[int, int, Any]], bool]:
    """Return the elements of *stream* cut at *places*, and whether it could be followed."""
    splitter = ArraySplitter()
    inside = sorted({place % (len(stream) + 1) for place in places})
    edges = [0, *inside, len(stream)]
    found = [
        (begin, end, data)
        for a, b in itertools.pairwise(edges)
        for begin, end, data in splitter.feed(stream[a:b])
    ]
    assert splitter.finish() is None
    return found, not splitter.overflown


@given(elements, blanks, cuts)
def test_elements_tile_the_stream(values: list[Any], blank: str, places: list[int]) -> None:
    """However an array is cut, its elements are found, each beginning where the last ended."""
    inner = f"{blank},{blank}".join(json.dumps(value) for value in values)
    stream = f"{blank}[{blank}{inner}{blank}]{blank}".encode()
    found, followed = split(stream, places)

    assert followed
    assert [json.loads(data) for *_, data in found] == values
    at = 0
    for begin, end, data in found:
        assert begin == at < end
        assert stream[begin:end].endswith(data)
        at = end


@given(st.binary(max_size=40) | st.text(st.sampled_from('[]{},"\\1 '), max_size=30), cuts)
def test_any_bytes_are_elements_or_none(stream: bytes | str, places: list[int]) -> None:
    """Whatever comes, cuts change nothing in what is found."""
    raw = stream.encode() if isinstance(stream, str) else stream

    assert split(raw, []) == split(raw, places)


@pytest.mark.parametrize(
    "stream", [b"x", b"[1]", b"[{} {}]", b"[{},]", b"[,{}]", b"{}{}", b"[[{}]]", b"[]]", b"{},"]
)
def test_what_is_no_array_of_objects_is_not_followed(stream: bytes) -> None:
    """From there on the answer is opaque."""
    assert not split(stream, [])[1]


def test_an_element_may_be_too_large() -> None:
    """Then it is not followed any further, wherever it is cut."""
    for chunks in ([b'[{"a": "xxxxxxxxxx"}]'], [b'[{"a": "xxxxx', b'xxxxx"}]']):
        splitter = ArraySplitter(element_bytes_max=10)
        assert [found for chunk in chunks for found in splitter.feed(chunk)] == []
        assert splitter.overflown


def test_the_newest_element_with_content_waits() -> None:
    """Elements before it go out; what closes the array waits with it."""
    reader = DIALECT.answer_reader(call_of("POST", STREAM), 200, "application/json")
    empty = b"[" + json.dumps({"usageMetadata": {}}).encode()
    first, second = (json.dumps(parts({"text": one}, end=None)).encode() for one in "ab")
    end = json.dumps(parts()).encode()
    pieces = (empty, b",\r\n" + first, b",\r\n" + second[:9], second[9:], b",\r\n" + end, b"]")
    went = [reader.feed(piece) for piece in pieces]
    before = len(empty)

    assert went == [before, before, before, *[before + 2 + len(first) + 1] * 3]
    answer = reader.finish()
    assert (answer.choices[0].text, answer.whole) == ("ab", True)


def test_an_array_that_breaks_off_is_not_whole() -> None:
    """What was complete was heard; an element cut in two says nothing."""
    raw = json.dumps([parts({"text": "a"}, end=None), parts({"text": "b"})]).encode()
    answer = read(call_of("POST", STREAM), raw[:-8])

    assert (answer.choices[0].text, answer.whole, answer.readable) == ("a", False, True)


# -- errors -----------------------------------------------------------------------------------


def quota(id_: str) -> dict[str, Any]:
    """Return the detail that says which quota is used up."""
    return {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaId": id_}, 3],
    }


@pytest.mark.parametrize(
    ("error", "name", "stop"),
    [
        (
            {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "slow down"},
            "RESOURCE_EXHAUSTED",
            "rate-limit",
        ),
        (
            {
                "code": 429,
                "status": "RESOURCE_EXHAUSTED",
                "details": [quota("GenerateRequestsPerMinutePerProject"), 3],
            },
            "RESOURCE_EXHAUSTED",
            "rate-limit",
        ),
        (
            {
                "code": 429,
                "status": "RESOURCE_EXHAUSTED",
                "details": [quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier")],
            },
            "RESOURCE_EXHAUSTED",
            "quota",
        ),
        ({"code": 429, "message": "credits are used up"}, "429", "quota"),
        (
            {"code": 400, "status": "FAILED_PRECONDITION", "message": "enable billing"},
            "FAILED_PRECONDITION",
            "quota",
        ),
        (
            {"code": 400, "status": "FAILED_PRECONDITION", "message": "not here"},
            "FAILED_PRECONDITION",
            None,
        ),
        (
            {"code": 403, "status": "PERMISSION_DENIED", "message": "has been suspended."},
            "PERMISSION_DENIED",
            "policy",
        ),
        ({"code": 503, "status": "UNAVAILABLE", "message": "busy"}, "UNAVAILABLE", None),
        ({"code": 500, "status": 3, "message": 3}, "500", None),
        ({}, "error", None),
        ("odd", "error", None),
    ],
)
def test_an_error_may_be_a_stop(error: object, name: str, stop: Stop | None) -> None:
    """Errors have Google's name, alone or in an array; some are the provider's own no."""
    expected = Answer(readable=True, whole=True, error=name, stop=stop)

    for body in ({"error": error}, [{"error": error}]):
        assert read(call_of("POST", GENERATE), body, status=429) == expected
        assert read(call_of("GET", "/v1beta/files/f1"), body, status=429) == expected


def test_an_error_inside_a_stream_ends_it() -> None:
    """It comes as an event, or as an element of the array, after a good status."""
    error = {"error": {"code": 503, "status": "UNAVAILABLE"}}
    said = parts({"text": "So"}, end=None)
    stream = call_of("POST", STREAM)

    for answer in (
        read(stream, event(said), event(error), kind="text/event-stream"),
        read(stream, [said, error]),
    ):
        assert (answer.error, answer.whole, answer.readable) == ("UNAVAILABLE", False, True)
    assert read(call_of("POST", GENERATE), error).error == "UNAVAILABLE"


@pytest.mark.parametrize("blank", [b"", b"\n", b"\r\n\r\n"])
@pytest.mark.parametrize("cut", [0, 30, 75])
def test_an_error_may_stand_bare_among_events(blank: bytes, cut: int) -> None:
    """Google writes it as it would have answered; words that are no object say nothing."""
    error = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "slow"}}
    raw = event(parts({"text": "So"}, end=None)) + b": hm\r\n\r\nevent: x\n\n"
    raw += json.dumps(error, indent=2).encode() + blank
    place = cut or len(raw)
    answer = read(call_of("POST", STREAM), raw[:place], raw[place:], kind="text/event-stream")

    assert (answer.error, answer.stop) == ("RESOURCE_EXHAUSTED", "rate-limit")
    assert (answer.whole, answer.choices[0].text) == (False, "So")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"[1]", b"[{}, {}]", b"3"])
def test_an_error_of_no_shape_is_opaque(body: bytes) -> None:
    """What a proxy on the way says is not read."""
    assert read(call_of("POST", GENERATE), body, status=502) == OPAQUE


# -- vectors, pictures, films -----------------------------------------------------------------


def test_vectors_are_digested_as_their_numbers() -> None:
    """One or many, each is a unit in its place."""
    one = call_of("POST", "/v1beta/models/e:embedContent")
    many = call_of("POST", "/v1beta/models/e:batchEmbedContents")

    assert read(one, {"embedding": {"values": [0.1, 2]}, "usageMetadata": {}}).units == (
        embedding_unit(0, [0.1, 2.0]),
    )
    answer = read(
        many,
        {
            "embeddings": [{"values": [1]}, {"values": [0.5]}],
            "usageMetadata": {"promptTokenCount": 4},
        },
    )
    assert answer.units == (embedding_unit(0, [1.0]), embedding_unit(1, [0.5]))
    assert answer.usage == Usage(input_tokens=4)
    nonsense: tuple[dict[str, Any], ...] = (
        {},
        {"embedding": {}},
        {"embeddings": [{"values": ["a"]}]},
    )
    for body in nonsense:
        assert read(one, body) == OPAQUE
    assert read(one, b'{"embedding": {"values": [1e300]}}') == OPAQUE


def test_pictures_are_digested_as_their_bytes() -> None:
    """What was filtered out is a stop, and what is no picture is listed as it is."""
    call = call_of("POST", "/v1beta/models/imagen:predict")
    picture = {"mimeType": "image/png", "bytesBase64Encoded": b64(b"pixels")}
    kept = {"gcsUri": "gs://a/b"}
    taken = {"raiFilteredReason": "no"}

    assert read(call, {"predictions": [picture, kept, taken]}) == Answer(
        readable=True,
        whole=True,
        units=(
            bytes_unit("image", 0, b"pixels"),
            json_unit("link", 1, "gs://a/b"),
            json_unit("other", 2, taken),
        ),
        stop="policy",
    )
    assert read(call, {}) == TOLD
    assert read(call, {"other": 1}) == OPAQUE


FILM = "https://generativelanguage.googleapis.com/v1beta/files/v1:download?alt=media"


def test_a_film_is_made_later() -> None:
    """First there is an operation, then a file that belongs to who asked."""
    name = "models/veo/operations/o1"
    itself = Resource("operation", "o1")
    begun = read(call_of("POST", "/v1beta/models/veo:predictLongRunning"), {"name": name})
    look = call_of("GET", "/v1beta/models/veo/operations/o1")
    video = {"video": {"uri": FILM}}
    done = {"name": name, "done": True}
    response = {"generateVideoResponse": {"generatedSamples": [video]}}
    inline = {"videos": [{"encodedVideo": b64(b"film"), "encoding": "video/mp4"}]}
    blocked = {"generateVideoResponse": {"raiMediaFilteredCount": 1}}

    assert begun == Answer(
        readable=True, whole=True, id=name, pending=True, made=made(("operation", "o1"))
    )
    assert read(look, {"name": name}).pending
    assert read(look, done | {"response": response}) == Answer(
        readable=True,
        whole=True,
        id=name,
        units=(json_unit("link", 0, FILM),),
        made=output_of(itself, "v1"),
    )
    assert read(look, done | {"response": inline}).units == (bytes_unit("other", 0, b"film"),)
    assert read(look, done | {"response": blocked}).stop == "policy"
    failed = read(look, done | {"error": {"code": 3, "message": "no"}})
    assert (failed.error, failed.pending) == ("3", False)
    assert read(look, {"name": 3}) == read(look, {"name": "x"}) == OPAQUE


# -- batches ----------------------------------------------------------------------------------


def test_a_batch_is_answered_later() -> None:
    """Its answers come with it, or in a file that belongs to who asked."""
    itself = Resource("batch", "b1")
    create = call_of("POST", "/v1beta/models/g-x:batchGenerateContent")
    look = call_of("GET", "/v1beta/batches/b1")
    begun = {"name": "batches/b1", "metadata": {"state": "BATCH_STATE_PENDING"}}
    answers = [{"response": parts({"text": "a"})}, {"error": {"code": 3}}]
    inline = {"inlinedResponses": {"inlinedResponses": answers}}
    vectors: dict[str, Any] = {
        "inlinedEmbedContentResponses": {"inlinedResponses": [{"response": {}}]}
    }
    file = {"responsesFile": "files/r1"}

    assert read(create, begun) == Answer(
        readable=True, whole=True, id="batches/b1", pending=True, made=made(("batch", "b1"))
    )
    assert read(look, begun).pending
    for done in (
        {"done": True, "response": inline},
        {"done": True, "metadata": {"output": inline}},
    ):
        assert read(look, begun | done).units == tuple(
            json_unit("other", at, one) for at, one in enumerate(answers)
        )
    assert read(look, begun | {"done": True, "response": vectors}).units == (
        json_unit("other", 0, {"response": {}}),
    )
    assert read(look, begun | {"done": True, "response": file}) == Answer(
        readable=True, whole=True, id="batches/b1", made=output_of(itself, "r1")
    )


# -- what is kept -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "answer"),
    [
        ("POST", "/upload/v1beta/files", b"", TOLD),
        (
            "POST",
            "/upload/v1beta/files",
            {"file": {"name": "files/f1", "uri": "https://a.example"}},
            Answer(readable=True, whole=True, made=made(("file", "f1"))),
        ),
        (
            "POST",
            "/v1beta/files:register",
            {"files": [{"name": "files/f1"}, {"name": "files/f2"}, {"name": 3}]},
            Answer(readable=True, whole=True, made=made(("file", "f1"), ("file", "f2"))),
        ),
        (
            "POST",
            "/v1beta/cachedContents",
            {"name": "cachedContents/c1"},
            Answer(readable=True, whole=True, made=made(("cached-content", "c1"))),
        ),
        (
            "POST",
            "/v1beta/fileSearchStores",
            {"name": "fileSearchStores/s1"},
            Answer(readable=True, whole=True, made=made(("file-search-store", "s1"))),
        ),
        (
            "POST",
            "/v1beta/tunedModels",
            {
                "name": "tunedModels/t1/operations/o1",
                "metadata": {"tunedModel": "tunedModels/t1"},
            },
            Answer(
                readable=True,
                whole=True,
                id="tunedModels/t1/operations/o1",
                pending=True,
                made=made(("operation", "o1"), ("tuned-model", "t1")),
            ),
        ),
        ("GET", "/v1beta/files", {"files": [{"name": "files/f1"}]}, TOLD),
        ("GET", "/v1beta/files/f1", {"name": "files/f1"}, TOLD),
        ("DELETE", "/v1beta/files/f1", b"", TOLD),
        ("POST", "/v1beta/batches/b1:cancel", {}, TOLD),
        ("GET", "/v1beta/models", {"models": []}, TOLD),
        ("POST", "/v1beta/models/g:countTokens", {"totalTokens": 3}, TOLD),
        ("POST", "/v1beta/models/g:countTokens", [3], OPAQUE),
        (
            "POST",
            "/v1beta/agents",
            {"id": "a1"},
            Answer(readable=False, whole=False, made=made(("agent", "a1"))),
        ),
        (
            "POST",
            "/v1beta/corpora",
            {"name": "corpora/c1"},
            Answer(readable=False, whole=False, made=made(("corpus", "c1"))),
        ),
        ("POST", "/v1beta/agents", {"id": 3}, OPAQUE),
        ("POST", "/v1beta/agents", {}, OPAQUE),
        ("GET", "/v1beta/agents", {"agents": []}, OPAQUE),
        ("POST", "/v1beta/auth_tokens", {"name": "auth_tokens/t"}, OPAQUE),
        ("POST", "/v1beta/models/g:frobnicate", {"name": "x"}, OPAQUE),
    ],
)
def test_only_who_makes_a_thing_owns_it(
    method: str, path: str, body: object, answer: Answer
) -> None:
    """What a request made is told of; what it lists, tells or changes is not."""
    assert read(call_of(method, path), body) == answer


@pytest.mark.parametrize(
    "path", ["/v1beta/files/f1:download", "/download/v1beta/files/f1:download"]
)
def test_what_is_fetched_is_one_unit(path: str) -> None:
    """Bytes that were made before have their digest as they pass."""
    unit = Unit(kind="other", index=0, bytes=4, sha256=sha256_hex(b"abcd"))

    assert read(call_of("GET", path), b"ab", b"cd").units == (unit,)


# -- interactions -----------------------------------------------------------------------------

USED = {
    "total_input_tokens": 4,
    "total_tool_use_tokens": 1,
    "total_output_tokens": 3,
    "total_thought_tokens": 2,
    "total_cached_tokens": 1,
}
SEARCHED = {"type": "google_search_result", "call_id": "s", "result": [{"url": "https://a"}]}
SEARCHING = {"type": "google_search_call", "id": "s", "arguments": {"queries": ["a"]}}
STEPS = [
    {"type": "user_input", "content": [{"type": "text", "text": "q"}]},
    {"type": "thought", "summary": [{"type": "text", "text": "hm"}], "signature": "s"},
    {"type": "function_call", "id": "c1", "name": "look", "arguments": {"at": "x"}},
    SEARCHING,
    SEARCHED,
    {
        "type": "model_output",
        "content": [
            {"type": "text", "text": "a"},
            {"type": "image", "mime_type": "image/png", "data": b64(b"pixels")},
            {"type": "audio", "data": b64(b"sound")},
            {"type": "video", "uri": "https://a.example/v"},
            {"type": "brand_new", "x": 1},
            {"type": "text", "text": "b"},
        ],
    },
]
SAID = Choice(
    index=0,
    text="ab",
    reasoning=("hm",),
    shown=Shown("hm", is_summary=True),
    tool_calls=(ToolCall(id="c1", name="look", arguments='{"at":"x"}'),),
    finish_reason="completed",
    others=(
        json_unit("other", 0, SEARCHING),
        json_unit("tool-result", 0, SEARCHED),
        bytes_unit("image", 0, b"pixels"),
        json_unit("link", 0, "https://a.example/v"),
        bytes_unit("audio", 0, b"sound"),
        json_unit("other", 0, {"type": "brand_new", "x": 1}),
    ),
)


def interaction(**more: Any) -> dict[str, Any]:
    """Return an interaction's body."""
    return {"id": "i1", "status": "completed", "model": "g-x", "usage": USED} | more


def expected(**more: Any) -> Answer:
    """Return what is read of a whole interaction."""
    answer = Answer(
        readable=True,
        whole=True,
        id="i1",
        model="g-x",
        choices=(SAID,),
        usage=Usage(input_tokens=5, output_tokens=5, cached_input_tokens=1, reasoning_tokens=2),
    )
    return type(answer)(**({name: getattr(answer, name) for name in FIELDS} | more))


FIELDS = Answer.__struct_fields__


def test_an_interaction_is_read_step_by_step() -> None:
    """Who makes it owns it; whoever reads it again is told the same."""
    create = call_of("POST", "/v1beta/interactions", model="g-x", input="q")
    again = call_of("GET", "/v1beta/interactions/i1")
    body = interaction(steps=STEPS)

    assert read(create, body) == expected(made=made(("interaction", "i1")))
    assert read(again, body) == expected()
    cancel = call_of("POST", "/v1beta/interactions/i1/cancel")
    assert read(cancel, interaction(status="cancelled")).choices == ()


def test_an_interaction_of_an_earlier_version_is_read() -> None:
    """There its outputs are one list."""
    body = interaction(outputs=[{"type": "text", "text": "a"}], usage=3, agent="x")
    answer = read(call_of("GET", "/v1beta/interactions/i1"), body)

    assert answer.choices[0].text == "a"
    assert answer.usage is None


def test_an_interaction_may_take_its_time_or_fail() -> None:
    """One that is worked on is to be fetched later; one that failed says why."""
    call = call_of("GET", "/v1beta/interactions/i1")
    failed = interaction(status="failed", errors=[{"code": "internal", "message": "x"}])

    assert read(call, interaction(status="in_progress")).pending
    assert read(call, interaction(status="queued")).whole
    assert read(call, failed).error == "internal"
    assert read(call, interaction(status="failed", errors=[3])).error == "error"
    assert read(call, {"id": "i1"}) == read(call, {"status": "x"}) == OPAQUE
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    call_step = {"type": "function_call", "arguments": {"deep": deep}}
    assert read(call, interaction(steps=[call_step])) == OPAQUE


def test_an_interaction_that_is_streamed_is_what_it_would_have_been_whole() -> None:
    """Steps grow by their deltas; events of other kinds say nothing."""

    def start(index: int, **step: Any) -> bytes:
        return event({"event_type": "step.start", "index": index, "step": step})

    def delta(index: int, **said: Any) -> bytes:
        return event({"event_type": "step.delta", "index": index, "delta": said})

    told = {"id": "i1", "status": "in_progress", "model": "g-x"}
    pieces = [
        (event({"event_type": "interaction.created", "interaction": told}), False),
        (start(1, type="thought"), True),
        (delta(1, type="thought_summary", content={"type": "text", "text": "hm"}), True),
        (delta(1, type="thought_summary"), False),
        (delta(1, type="thought_signature", signature="s"), False),
        (start(2, type="function_call", id="c1", name="look"), True),
        (delta(2, type="arguments_delta", arguments='{"at":'), True),
        (delta(2, type="arguments_delta", arguments='"x"}'), True),
        (start(3, **SEARCHING), True),
        (start(4, **SEARCHED), True),
        (start(5, type="model_output"), False),
        (delta(5, type="text", text="a"), True),
        (delta(5, type="image", data=b64(b"pixels")), True),
        (delta(5, type="video", uri="https://a.example/v"), True),
        (delta(5, type="audio", data=b64(b"so")), True),
        (delta(5, type="audio", data=b64(b"und")), True),
        (delta(5, type="brand_new", x=1), True),
        (delta(5, type="text", text="b"), True),
        (delta(5, type="text", text=""), False),
        (event({"event_type": "step.stop", "index": 5}), False),
        (event({"event_type": "brand.new"}), False),
        (
            event(
                {
                    "event_type": "interaction.status_update",
                    "interaction_id": "i1",
                    "status": "in_progress",
                }
            ),
            False,
        ),
        (
            event(
                {
                    "event_type": "interaction.completed",
                    "interaction": told | {"status": "completed", "usage": USED},
                }
            ),
            False,
        ),
        (b"data: [DONE]\n\n", False),
    ]
    call = call_of("POST", "/v1beta/interactions", stream=True)
    reader = DIALECT.answer_reader(call, 200, "text/event-stream")
    at = newest = 0
    spoke = False
    for piece, content in pieces:
        newest, spoke = (at, True) if content else (newest, spoke)
        at += len(piece)
        assert reader.feed(piece) == (newest if spoke else at)

    assert reader.finish() == expected(made=made(("interaction", "i1")))


def test_a_streamed_interaction_may_go_wrong() -> None:
    """An error ends it; a delta of a step that was not seen is heard all the same."""
    call = call_of("POST", "/v1beta/interactions", stream=True)
    lost = {"event_type": "step.delta", "index": 3, "delta": {"type": "text", "text": "a"}}
    strange = {"type": "new_call", "id": "x"}
    pieces = (
        event(lost),
        event({"event_type": "step.start", "index": 4, "step": strange}),
        event({"event_type": "step.delta", "index": 4, "delta": {"type": "new", "a": 1}}),
        event({"event_type": "error", "error": {"code": "internal"}}),
    )
    answer = read(call, *pieces, kind="text/event-stream")
    silent = read(call, event({"event_type": "error"}), kind="text/event-stream")

    assert (answer.error, answer.whole, answer.choices[0].text) == ("internal", False, "a")
    grown = strange | {"deltas": [{"type": "new", "a": 1}]}
    assert answer.choices[0].others == (json_unit("other", 0, grown),)
    assert (silent.error, silent.made) == ("error", ())


def test_an_opaque_call_has_an_opaque_answer() -> None:
    """Nothing is read of an answer to what was not read; without a route it is content."""
    found = DIALECT.found("GET", "/v1beta/unheard/of")
    call = ProviderCall(provider="gemini", operation=Operation.OPAQUE, found=found)
    plain = ProviderCall(provider="gemini", operation=Operation.CHAT)

    assert read(call, parts({"text": "hi"})) == OPAQUE
    assert read(plain, parts({"text": "hi"})).choices[0].text == "hi"

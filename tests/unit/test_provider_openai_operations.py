"""The twins of `gateway.provider.openai`: everything that is no conversation, and Azure."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from gateway.errors import MalformedBodyError
from gateway.provider.catalogue import dialect_named
from gateway.provider.encoding import UNREADABLE
from gateway.provider.hosts import policy_of_host
from gateway.provider.model import (
    GENERATES,
    OPAQUE_ROUTE,
    Answer,
    Choice,
    Made,
    Operation,
    ProviderCall,
    Resource,
    Taking,
    UnteachableError,
    Usage,
)
from gateway.provider.openai.azure import AzureDialect
from gateway.provider.openai.facts import named_in
from gateway.provider.openai.form import fields_of, is_form
from gateway.provider.openai.kept import MakingListener
from gateway.provider.openai.routes import MAKES, ROUTES
from tests.support.recordings_openai import DIALECT, b64, call_of, unit

OPAQUE = Answer(readable=False, whole=False)
AZURE = AzureDialect()
JSON = "application/json"


def form(**fields: str) -> tuple[str, bytes]:
    """Return the type and the bytes of a form with a file and *fields*."""
    file = (
        b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--\r\n'
    )
    parts = [file]
    for name, value in fields.items():
        head = f'Content-Disposition: form-data; name="{name}"\r\n\r\n'
        parts.append(head.encode() + value.encode())
    body = b"".join(b"--x1\r\n" + part + b"\r\n" for part in parts) + b"--x1--\r\n"
    return "multipart/form-data; boundary=x1", body


def asked(
    method: str, path: str, body: bytes | None = None, kind: str = JSON, query: str = ""
) -> ProviderCall:
    """Return what is asked."""
    return DIALECT.read_request("openai", DIALECT.found(method, path, query), kind, body)


def read(call: ProviderCall, body: object, kind: str = JSON, status: int = 200) -> Answer:
    """Return what a whole *body* is read as."""
    reader = DIALECT.answer_reader(call, status, kind)
    reader.feed(body if isinstance(body, bytes) else json.dumps(body).encode())
    return reader.finish()


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("POST", "/v1/completions", Operation.COMPLETION),
        ("POST", "/v1/fim/completions", Operation.COMPLETION),
        ("POST", "/v1/embeddings", Operation.EMBEDDING),
        ("POST", "/v1/moderations", Operation.MODERATION),
        ("POST", "/v1/images/edits", Operation.IMAGE),
        ("POST", "/v1/audio/speech", Operation.SPEECH),
        ("POST", "/v1/audio/translations", Operation.TRANSCRIPTION),
        ("POST", "/v1/responses/input_tokens", Operation.TOKEN_COUNT),
        ("GET", "/v1/responses/resp_1", Operation.RETRIEVAL),
        ("GET", "/v1/responses/resp_1/input_items", Operation.RETRIEVAL),
        ("DELETE", "/v1/responses/resp_1", Operation.FILE),
        ("GET", "/v1/chat/completions", Operation.RETRIEVAL),
        ("GET", "/v1/files/file-1/content", Operation.RETRIEVAL),
        ("POST", "/v1/files", Operation.FILE),
        ("POST", "/v1/batches", Operation.BATCH),
        ("GET", "/v1/batches/batch_1", Operation.BATCH),
        ("POST", "/v1/fine_tuning/jobs", Operation.FINE_TUNING),
        ("GET", "/v1/fine_tuning/jobs/ft-1", Operation.FILE),
        ("POST", "/v1/threads/thread_1/runs", Operation.OPAQUE),
        ("POST", "/v1/realtime/client_secrets", Operation.SESSION),
        ("GET", "/v1/realtime", Operation.SESSION),
        ("GET", "/openai/realtime", Operation.SESSION),
        ("GET", "/v1/models", Operation.LISTING),
        ("GET", "/v1beta/openai/models", Operation.LISTING),
        ("GET", "/openai/v1/files", Operation.FILE),
        ("GET", "/openai/files", Operation.FILE),
        ("GET", "/v1/organization/costs", Operation.OPAQUE),
        ("POST", "/v1/decisions", Operation.OPAQUE),
    ],
)
def test_an_operation_has_its_name(method: str, path: str, operation: Operation) -> None:
    """What is asked for is known by its path, below `/v1` and where others have it."""
    call = asked(method, path)

    assert DIALECT.found(method, path).route.operation is operation
    taking = DIALECT.found(method, path).route.taking
    assert call.operation is (Operation.OPAQUE if taking is Taking.HELD else operation)


def test_what_makes_nothing_is_not_ruled_on_as_if_it_did() -> None:
    """Reading, listing and deleting are no generation, and lists say what they list."""
    for route in ROUTES:
        talks = route.operation in {Operation.SESSION, Operation.OPAQUE}
        if route.methods != ("POST",) and not talks:
            assert route.operation not in GENERATES
        assert route.lists is None or route.methods == ("GET",)
    assert asked("GET", "/v1/files", query="limit=2").lists == "file"
    assert {path for _, path in MAKES} <= {route.path for route in ROUTES}


def test_a_legacy_completion_is_read_and_has_no_row() -> None:
    """A text that is continued is no conversation that a row could hold."""
    call = call_of("/v1/completions", prompt="a", logprobs=2, best_of=3, suffix="b")
    choice = {"text": "so", "index": 0, "finish_reason": "stop"}
    answer = read(call, {"id": "cmpl-1", "model": "m", "choices": [choice]})

    assert call.features == {"logprobs", "n", "code"}
    assert call_of("/v1/completions", prompt="a", n=1).features == set()
    assert answer.choices == (Choice(index=0, text="so", finish_reason="stop"),)
    with pytest.raises(UnteachableError, match=r"row.no-messages"):
        DIALECT.row_of(call, answer.choices[0])


def test_an_embedding_has_one_digest_however_it_is_written() -> None:
    """Numbers as text and the same numbers in base64 are the same unit."""
    numbers = [0.5, -0.25, 0.0023064255]
    packed = struct.pack("<3f", *numbers)
    call = call_of("/v1/embeddings", input=["a", [1, 2]])
    data = [{"embedding": numbers, "index": 1}, {"embedding": b64(packed)}]
    told = {"data": data, "model": "m-1", "usage": {"prompt_tokens": 4, "total_tokens": 4}}
    answer = read(call, told)

    assert answer.units == (unit("embedding", 1, packed), unit("embedding", 1, packed))
    assert (answer.model, answer.usage) == ("m-1", Usage(input_tokens=4))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        {},
        {"data": [{}]},
        {"data": [{"embedding": "no base64!"}]},
        {"data": [{"embedding": [1e300]}]},
        {"data": [{"embedding": {"int8": [1]}}]},
    ],
)
def test_what_is_no_vector_is_opaque(body: object) -> None:
    """An answer whose vectors can't be read is digested and nothing else."""
    assert read(call_of("/v1/embeddings", input="a"), body) == OPAQUE


def test_each_moderation_is_a_unit() -> None:
    """What was found of each input is digested."""
    results = [{"flagged": True}, {"flagged": False}]
    call = call_of("/v1/moderations", input=["a", "b"])
    answer = read(call, {"id": "modr-1", "model": "m", "results": results})

    assert answer.units == tuple(unit("moderation", i, one) for i, one in enumerate(results))
    assert (answer.id, answer.model) == ("modr-1", "m")
    assert read(call, {}) == OPAQUE
    assert read(call, {"error": {"type": "x"}}).error == "x"


def test_each_image_is_a_unit() -> None:
    """An image is what it decodes to, or the address where it can be fetched for a while."""
    call = call_of("/v1/images/generations", prompt="a cat")
    url = "https://example.com/a.png"
    data = [{"b64_json": b64(b"P1"), "revised_prompt": "cat"}, {"url": url}]
    answer = read(call, {"data": data, "usage": {"input_tokens": 3, "output_tokens": 5}})

    assert answer.units == (
        unit("image", 0, b"P1"),
        unit("other", 0, "cat"),
        unit("link", 1, url),
    )
    assert answer.usage == Usage(input_tokens=3, output_tokens=5)
    assert read(call, {}) == OPAQUE
    assert read(call, {"data": [{"b64_json": "!"}]}) == OPAQUE
    assert read(call, {"error": {"code": "moderation_blocked"}}).stop == "policy"


def test_sound_passes_in_any_size() -> None:
    """A body that is sound is digested as it passes; one that is damaged is opaque."""
    call = call_of("/v1/audio/speech", input="hi", voice="a")
    reader = DIALECT.answer_reader(call, 200, "audio/mpeg")

    assert [reader.feed(b"RI"), reader.feed(b"FF"), reader.feed(b"")] == [0, 2, 2]
    assert reader.finish().units == (unit("audio", 0, b"RIFF"),)
    assert read(call, UNREADABLE, "audio/mpeg") == OPAQUE
    assert read(call, {"error": {"type": "x"}}, status=400).error == "x"


@pytest.mark.parametrize(
    ("kind", "body", "units", "usage"),
    [
        ("text/plain", b"Hi\n", (unit("transcript", 0, "Hi\n"),), None),
        (JSON, {"text": "Hi"}, (unit("transcript", 0, "Hi"),), None),
        (
            JSON,
            {"text": "Hi", "duration": 2.1, "segments": [{"id": 0}], "words": []},
            (unit("transcript", 0, "Hi"), unit("other", 0, {"segments": [{"id": 0}]})),
            Usage(seconds=3),
        ),
        (
            JSON,
            {"text": "Hi", "usage": {"type": "duration", "seconds": 4}},
            (unit("transcript", 0, "Hi"),),
            Usage(seconds=4),
        ),
        (
            JSON,
            {"text": "Hi", "usage": {"type": "tokens", "input_tokens": 5, "output_tokens": 1}},
            (unit("transcript", 0, "Hi"),),
            Usage(input_tokens=5, output_tokens=1),
        ),
        (JSON, {"text": "Hi", "duration": True}, (unit("transcript", 0, "Hi"),), None),
    ],
)
def test_a_transcript_is_a_unit(
    kind: str, body: object, units: tuple[Any, ...], usage: Usage | None
) -> None:
    """The words that were heard are digested, and with them where they stand."""
    content_type, request = form(model="whisper-1")
    call = asked("POST", "/v1/audio/transcriptions", request, content_type)
    answer = read(call, body, kind)

    assert (call.model, call.operation) == ("whisper-1", Operation.TRANSCRIPTION)
    assert (answer.units, answer.usage) == (units, usage)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"text": 3}', b"[]"])
def test_what_is_no_transcript_is_opaque(body: bytes) -> None:
    """JSON without words is no transcript."""
    content_type, request = form(model="whisper-1")
    call = asked("POST", "/v1/audio/transcriptions", request, content_type)

    assert read(call, body) == OPAQUE
    assert read(call, b"\xff", "text/plain") == OPAQUE
    assert read(call, {"error": {"type": "x"}}).error == "x"


def test_a_form_is_read_for_its_fields() -> None:
    """The model that a form names is ruled on; the files in it are stepped over."""
    content_type, body = form(model="gpt-4o-transcribe", stream="true", prompt="Grüße")
    call = asked("POST", "/v1/audio/transcriptions", body, content_type)

    assert (call.model, call.streaming) == ("gpt-4o-transcribe", True)
    assert call.body == {"model": "gpt-4o-transcribe", "stream": "true", "prompt": "Grüße"}
    unheld = asked("POST", "/v1/audio/transcriptions", None, content_type)
    assert (unheld.model, unheld.operation) == (None, Operation.TRANSCRIPTION)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", form(model="m")[1]),
        ("multipart/form-data; boundary=x2", form(model="m")[1]),
        ("multipart/form-data; boundary=x1", b"preamble\r\n" + form(model="m")[1]),
        ("multipart/form-data; boundary=x1", form()[1].replace(b"--x1", b"--x1x")),
        ("multipart/form-data; boundary=x1", form(model="m")[1][:-6]),
        ("multipart/form-data; boundary=x1", form(model="m")[1].replace(b"--x1--", b"--x1??")),
        (
            "multipart/form-data; boundary=x1",
            form(model="m")[1].replace(b"--x1--", form(model="n")[1]),
        ),
        ("multipart/form-data; boundary=x1", form(model="m" * 300_000)[1]),
        (
            "multipart/form-data; boundary=x1",
            form(model="m")[1].replace(b"\r\n\r\nm", b"\r\nx: " + b"y" * 9000 + b"\r\n\r\nm"),
        ),
    ],
)
def test_a_form_that_is_not_well_made_says_nothing(content_type: str, body: bytes) -> None:
    """Where readers might differ over a form, no model is known."""
    assert fields_of(content_type, body) == {}


DISPOSITION = b'Content-Disposition: form-data; name="model"'


@pytest.mark.parametrize(
    "head",
    [
        b'Content-Type: a; name="x"\r\n' + DISPOSITION + b'; name="x"',
        DISPOSITION + b"\r\n" + DISPOSITION,
        b'Content-Disposition: form-data;\r\n name="model"',
        b'Content-Disposition: form-data; x="; name="model"',
        b"Content-Disposition: form-data; name*=utf-8''model",
        b'Content-Disposition: form-data; name="mo\\"del"',
        b'Content-Disposition: form-data; name=""',
        b'Content-Disposition: attachment; name="model"',
        b"Content-Type: text/plain",
    ],
)
def test_a_head_over_which_readers_differ_says_nothing(head: bytes) -> None:
    """No decoy in a part's head lets another model be ruled on than the one that answers."""
    content_type, body = form(model="m")

    assert fields_of(content_type, body.replace(DISPOSITION, head)) == {}


def test_heads_as_clients_write_them_are_read() -> None:
    """Types of parts, names without quotes and names of files of any spelling are common."""
    content_type, body = form(model="m")
    typed = body.replace(DISPOSITION, DISPOSITION + b"\r\nContent-Type: text/plain")
    bare = body.replace(b'"model"', b"model").replace(b'"a.wav"', b'"a\\".wav"')

    for one in (typed, bare):
        assert fields_of(content_type, one) == {"model": "m"}


def test_a_list_in_a_form_may_have_many_members() -> None:
    """A name that ends in brackets may stand twice; what it holds is not read."""
    content_type, body = form(**{"image[]": "a", "model": "m"})
    twice = body.replace(b"--x1--", form(**{"image[]": "b"})[1])

    assert fields_of(content_type, twice)["model"] == "m"
    assert fields_of('multipart/form-data; BOUNDARY="x1"', body)["model"] == "m"
    assert is_form("Multipart/Form-Data; boundary=x")
    assert not is_form(JSON)


MADE_BY: list[tuple[str, str, dict[str, Any], tuple[Made, ...]]] = [
    (
        "POST",
        "/v1/vector_stores",
        {"id": "vs_1"},
        (Made(resource=Resource("vector-store", "vs_1")),),
    ),
    ("POST", "/v1/batches", {"id": "b_1"}, (Made(resource=Resource("batch", "b_1")),)),
    (
        "GET",
        "/v1/batches/b_1",
        {"id": "b_1", "output_file_id": "f1", "error_file_id": "f2", "status": "completed"},
        (
            Made(resource=Resource("file", "f1"), role="output", of=Resource("batch", "b_1")),
            Made(resource=Resource("file", "f2"), role="errors", of=Resource("batch", "b_1")),
        ),
    ),
    ("GET", "/v1/batches", {"data": [{"id": "b_1", "output_file_id": "f1"}]}, ()),
    (
        "POST",
        "/v1/uploads/up_1/complete",
        {"id": "up_1", "file": {"id": "f3"}},
        (Made(resource=Resource("file", "f3"), of=Resource("upload", "up_1")),),
    ),
    ("POST", "/v1/uploads/up_1/complete", {"id": "up_1", "file": {}}, ()),
    (
        "GET",
        "/v1/fine_tuning/jobs/ft_1",
        {"id": "ft_1", "result_files": ["f4", 3]},
        (
            Made(
                resource=Resource("file", "f4"),
                role="output",
                of=Resource("fine-tuning-job", "ft_1"),
            ),
        ),
    ),
    ("GET", "/v1/fine_tuning/jobs/ft_1", {"id": "ft_1", "result_files": 3}, ()),
    ("GET", "/v1/files/f_1", {"id": "f_1"}, ()),
    ("POST", "/v1/files", {"id": 3}, ()),
]


@pytest.mark.parametrize(("method", "path", "body", "made"), MADE_BY)
def test_what_is_made_belongs_to_somebody(
    method: str, path: str, body: dict[str, Any], made: tuple[Made, ...]
) -> None:
    """An answer tells what its request had made; a list, which may be anybody's, does not."""
    request = None if method == "GET" or path == "/v1/files" else b"{}"
    answer = read(asked(method, path, request), body)

    assert answer.readable
    assert answer.made == made


def test_what_is_made_by_what_nobody_reads_belongs_to_somebody_too() -> None:
    """A run's words are opaque; the thread that it makes, or a film, is not."""
    video = asked("POST", "/v1/videos", b'{"model": "sora"}')
    run = asked("POST", "/v1/threads/runs", b'{"assistant_id": "asst_1", "stream": true}')
    thread = (Made(resource=Resource("thread", "thread_1")),)
    reader = DIALECT.answer_reader(run, 200, "text/event-stream")
    first = b'event: thread.created\ndata: {"id": "thread_1"}\n\n'
    second = b'event: thread.run.created\ndata: {"id": "run_1", "thread_id": "thread_1"}\n\n'

    assert (video.operation, video.model) == (Operation.OPAQUE, "sora")
    film = read(video, {"id": "video_1"})
    assert (film.readable, film.made) == (False, (Made(resource=Resource("video", "video_1")),))
    assert run.uses == (Resource("assistant", "asst_1"),)
    assert reader.feed(first + second + b"data: [DONE]\n\n") == len(first + second)
    assert reader.finish() == Answer(readable=False, whole=False, made=thread)
    assert read(run, {"id": "run_1", "thread_id": "thread_1"}).made == thread
    assert read(video, b"nonsense") == OPAQUE
    assert read(video, {"error": {}}, status=400) == OPAQUE


def test_what_nobody_reads_has_no_end_that_anybody_knows() -> None:
    """Of a stream that is not read every event may be content, to the last."""
    listener = MakingListener(asked("POST", "/v1/threads/runs", b"{}"))

    assert listener.hear(b"{}")
    assert not listener.ending


def test_resources_in_paths_and_bodies_are_named() -> None:
    """Whatever a request builds on must belong to who asks, wherever in it that stands."""
    body = {"tool_resources": {"file_search": {"vector_store_ids": ["vs_1"]}}, "file_ids": "f1"}
    call = asked("POST", "/v1/assistants/asst_1", json.dumps(body).encode())

    assert set(call.uses) == {
        Resource("assistant", "asst_1"),
        Resource("vector-store", "vs_1"),
        Resource("file", "f1"),
    }
    tuning = asked("POST", "/v1/fine_tuning/jobs", b'{"model": "m", "training_file": "f2"}')
    assert tuning.uses == (Resource("file", "f2"),)
    part = {"type": "file", "file": {"file_id": "f3"}}
    chat = call_of("/v1/chat/completions", messages=[{"role": "user", "content": [part]}])
    assert chat.uses == (Resource("file", "f3"),)
    assert call_of("/v1/embeddings", input="a", file_id="f4").uses == ()
    assert named_in("file-1") == ()


def test_a_body_may_be_missing_where_none_is_needed() -> None:
    """Cancelling takes no body, and a call's description of itself is no JSON."""
    assert asked("POST", "/v1/batches/b_1", b"").operation is Operation.OPAQUE
    assert asked("POST", "/v1/threads", b"").body == {}
    sdp = asked("POST", "/v1/realtime/calls", b"v=0\r\n", "application/sdp", "model=gpt-rt")
    assert (sdp.operation, sdp.model) == (Operation.SESSION, "gpt-rt")
    with pytest.raises(MalformedBodyError):
        asked("POST", "/v1/threads", b"{")
    with pytest.raises(MalformedBodyError):
        asked("POST", "/v1/embeddings", b"")


def test_what_is_no_form_is_none_whatever_it_is_called() -> None:
    """A server may read JSON whatever its type says, so nobody calls a chat a form."""
    kind, body = form(model="gpt-x")

    for path in ("/v1/chat/completions", "/v1/responses", "/v1/images/generations"):
        assert asked("POST", path, b'{"model": "m"}', kind).model == "m"
        with pytest.raises(MalformedBodyError):
            asked("POST", path, body, kind)
        assert asked("POST", path, None, kind).operation is Operation.OPAQUE
    with pytest.raises(MalformedBodyError):
        asked("POST", "/v1/threads", b"v=0", "application/sdp")
    assert asked("POST", "/v1/containers/c_1/files", body, kind).body == {"model": "gpt-x"}


@pytest.mark.parametrize(
    ("body", "query", "model"),
    [
        ({"session": {"model": "gpt-rt"}}, "", "gpt-rt"),
        ({"session": {"model": 3}}, "", None),
        ({"session": 3}, "model=gpt-rt", "gpt-rt"),
        ({}, "deployment=rt", "rt"),
        ({"model": "a"}, "model=b", "a"),
    ],
)
def test_a_session_names_its_model(body: dict[str, Any], query: str, model: str | None) -> None:
    """Whoever is given a key for a session is given it for a model."""
    request = json.dumps(body).encode()

    assert asked("POST", "/v1/realtime/client_secrets", request, query=query).model == model


def test_an_object_that_tells_of_an_error_is_one() -> None:
    """An error with status 200 is an error, wherever it comes."""
    wrong = {"error": {"type": "x"}}

    assert read(asked("GET", "/v1/files"), wrong).error == "x"
    assert read(call_of("/v1/embeddings", input="a"), wrong).error == "x"
    assert read(call_of("/v1/completions", prompt="a"), wrong).error == "x"


def test_a_form_of_too_many_parts_says_nothing() -> None:
    """Nobody needs hundreds of fields to have something made."""
    content_type, body = form(**{f"f{n}": "x" for n in range(300)})

    assert fields_of(content_type, body) == {}


def test_lists_of_outputs_are_units() -> None:
    """What is listed or read again is digested, each element by itself."""
    items = [{"id": "msg_1"}, {"id": "msg_2"}]
    call = asked("GET", "/v1/conversations/conv_1/items")
    one = asked("GET", "/v1/conversations/conv_1/items/msg_1")

    assert read(call, {"object": "list", "data": items}).units == tuple(
        unit("other", i, item) for i, item in enumerate(items)
    )
    assert read(call, items).units == read(call, {"data": items}).units
    assert read(one, items[0]).units == (unit("other", 0, items[0]),)
    assert read(one, {"error": {"type": "x"}}).error == "x"
    assert read(asked("GET", "/v1/files/f_1/content"), b"abc", "").units == (
        unit("other", 0, b"abc"),
    )
    stored = asked("GET", "/v1/chat/completions/chatcmpl-1")
    choice = {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}
    assert read(stored, {"id": "chatcmpl-1", "choices": [choice]}).choices[0].text == "hi"


@pytest.mark.parametrize(
    ("status", "body", "error", "stop"),
    [
        (
            429,
            {"error": {"type": "requests", "code": "rate_limit_exceeded"}},
            "rate_limit_exceeded",
            "rate-limit",
        ),
        (429, {"error": {"type": "insufficient_quota"}}, "insufficient_quota", "quota"),
        (402, {"error": {"message": "Insufficient Balance", "code": 402}}, "402", "quota"),
        (429, {"message": "slow down"}, "error", "rate-limit"),
        (
            400,
            {
                "error": {
                    "code": "content_filter",
                    "innererror": {"code": "ResponsibleAIPolicyViolation"},
                }
            },
            "content_filter",
            "policy",
        ),
        (
            400,
            {"error": {"type": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
            "x",
            "policy",
        ),
        (
            400,
            {"error": {"type": "image_generation_user_error", "code": "moderation_blocked"}},
            "image_generation_user_error",
            "policy",
        ),
        (
            400,
            {"error": {"type": "invalid_request_error", "code": "content_policy_violation"}},
            "invalid_request_error",
            "policy",
        ),
        (400, {"error": {"code": "invalid_prompt"}}, "invalid_prompt", "policy"),
        (403, {"error": {"code": 403, "metadata": {"flagged_input": "x"}}}, "403", "policy"),
        (
            400,
            {"object": "error", "type": "BadRequestError", "code": 400},
            "BadRequestError",
            None,
        ),
        (500, {"error": {"type": ["odd"], "code": {"a": 1}}}, "error", None),
    ],
)
def test_a_provider_that_says_stop_is_heard(
    status: int, body: dict[str, Any], error: str, stop: str | None
) -> None:
    """Too much at once, too much in all and against its policy are told apart."""
    answer = read(call_of("/v1/chat/completions", messages=[]), body, status=status)

    assert (answer.error, answer.stop) == (error, stop)


@pytest.mark.parametrize(
    ("path", "events", "answer"),
    [
        (
            "/v1/images/generations",
            b'data: {"type": "x.completed"}\n\ndata: [DONE]\n\n',
            Answer(readable=True, whole=True),
        ),
        (
            "/v1/audio/speech",
            b'data: {"type": "error", "code": "rate_limit_exceeded"}\n\n',
            Answer(readable=True, whole=False, error="rate_limit_exceeded", stop="rate-limit"),
        ),
        ("/v1/audio/speech", b"data: nonsense\n\n", OPAQUE),
        ("/v1/responses", b"data: nonsense\n\n", OPAQUE),
        ("/v1/chat/completions", b'data: {"choices": [\n\n', OPAQUE),
        (
            "/v1/chat/completions",
            (
                b'data: {"usage": {"prompt_tokens": 1}}\n\n'
                b'data: {"x_groq": {"usage": {"prompt_tokens": 2}}}\n\n'
            ),
            Answer(readable=True, whole=False, usage=Usage(input_tokens=1)),
        ),
        (
            "/v1/responses",
            (
                b'data: {"type": "response.output_item.done",'
                b' "item": {"type": "message", "content": "so"}}\n\n'
            ),
            Answer(readable=True, whole=False, choices=(Choice(index=0, text="so"),)),
        ),
        ("/v1/responses", b'data: {"type": "response.output_item.added"}\n\n', OPAQUE),
        ("/v1/responses", b'data: {"type": "response.output_item.done"}\n\n', OPAQUE),
        (
            "/v1/responses",
            (
                b'data: {"type": "response.output_text.delta", "delta": 3}\n\n'
                b'data: {"type": "response.image_generation_call.partial_image"}\n\n'
            ),
            Answer(readable=True, whole=False, choices=(Choice(index=0),)),
        ),
        (
            "/v1/responses",
            (
                b'data: {"type": "response.image_generation_call.partial_image",'
                b' "partial_image_b64": "!"}\n\n'
            ),
            OPAQUE,
        ),
    ],
)
def test_odd_streams_are_read_as_far_as_they_go(
    path: str, events: bytes, answer: Answer
) -> None:
    """A stream without content, or with nonsense in it, is what it is."""
    reader = DIALECT.answer_reader(call_of(path, stream=True), 200, "text/event-stream")
    reader.feed(events)

    assert reader.finish() == answer


def test_the_models_of_an_aggregator_are_known() -> None:
    """Every model that may answer instead is ruled on; of too many, any may."""
    chat = "/v1/chat/completions"

    assert call_of(chat, models=["a", "b", "a", 3]).fallbacks == ("a", "b", None)
    assert call_of(chat, models=["m"] * 40).fallbacks == (None,)
    assert call_of(chat, models="a").fallbacks == (None,)


def test_azure_rules_on_the_deployment() -> None:
    """The deployment in a path is what is asked; another model in the body may be meant too."""
    path = "/openai/deployments/my-gpt/chat/completions"
    found = AZURE.found("POST", path, "api-version=2026-01-01")
    call = AZURE.read_request("azure-openai", found, JSON, b'{"messages": []}')
    both = AZURE.read_request("azure-openai", found, JSON, b'{"model": "gpt-x"}')
    newer = AZURE.found("POST", "/openai/v1/chat/completions")

    assert (call.model, call.fallbacks) == ("my-gpt", ())
    assert (both.model, both.fallbacks) == ("my-gpt", ("gpt-x",))
    assert AZURE.read_request("a", newer, JSON, b'{"model": "gpt-x"}').model == "gpt-x"
    assert DIALECT.read_request("o", found, JSON, b'{"model": "gpt-x"}').model == "gpt-x"
    assert DIALECT.read_request("o", found, JSON, b"{}").model == "my-gpt"
    assert dialect_named("azure").name == "azure"


def test_azures_keys_go_where_azure_looks_for_them() -> None:
    """A key is `api-key`, a token of Entra's a bearer token; a query's key goes nowhere."""
    assert AZURE.credential_of({"api-key": "k", "authorization": "Bearer t"}, "") == "k"
    assert AZURE.credential_of({"authorization": "Bearer t"}, "") == "t"
    assert AZURE.credential_of({}, "a=b&api-key=k%20y") == "k y"
    assert AZURE.credential_of({}, "") is None
    assert AZURE.credential_header("k") == ("api-key", "k")
    assert AZURE.credential_header("eyJ0.e30.c2ln") == ("authorization", "Bearer eyJ0.e30.c2ln")
    assert AZURE.query_upstream("a=%2F&api-key=k&b&api%2Dkey=k") == "a=%2F&b"
    assert DIALECT.query_upstream("a=b") == "a=b"


@pytest.mark.parametrize(
    ("named", "policy"),
    [
        ("OpenAI", "openai"),
        ("Google AI Studio", "gemini"),
        ("Amazon Bedrock", "aws-bedrock"),
        ("Z.AI", "zai"),
        ("DeepInfra", None),
        ("", None),
    ],
)
def test_hosts_of_an_aggregator_have_policies(named: str, policy: str | None) -> None:
    """An aggregator's name for a host leads to the policy that binds who answers there."""
    assert policy_of_host(named) == policy


def test_what_is_not_known_stays_opaque() -> None:
    """Where no route fits nothing is read, and the resources of nobody are named."""
    found = DIALECT.found("POST", "/v1/unheard/of")

    assert found.route is OPAQUE_ROUTE
    assert DIALECT.read_request("openai", found, JSON, None).uses == ()

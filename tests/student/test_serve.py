"""A student is served in OpenAI's shape; the real SDK is the judge."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from gateway.clock import SystemClock
from gateway.errors import BadDigestError, PortInUseError
from gateway.limits import STUDENT_CALLERS_WAITING_MAX
from gateway.student.offline import seal_off
from gateway.student.recipe import recipe_for
from gateway.student.run import Trained
from gateway.student.serve import StudentServer, bind, load
from gateway.student.speech import MANIFEST_HEADER, Question, Speak, Spoken, UnanswerableError
from gateway.student.verify import verify_model
from tests.support.evidence import TRUST
from tests.support.student import School, a_row, question

pytestmark = pytest.mark.student

DIGEST = "d" * 64
HANG_S = 300
"""Longer than any machine takes; nobody waits that long unless something hangs."""
ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": "say it"}]


@contextmanager
def served(speak: Speak) -> Iterator[openai.OpenAI]:
    """Serve a student on a loopback port in a thread; yield a client of it."""
    server = StudentServer("parser", DIGEST, speak, SystemClock())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    bound = bind("127.0.0.1", 0)

    async def start() -> web.AppRunner:
        runner = web.AppRunner(server.application(), handler_cancellation=True)
        await runner.setup()
        await web.SockSite(runner, bound).start()
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        with openai.OpenAI(
            base_url=f"http://127.0.0.1:{bound.getsockname()[1]}/v1",
            api_key="none",
            max_retries=0,
        ) as client:
            yield client
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        bound.close()


def echo(asked: Question, say: Callable[[str], None], cut: threading.Event) -> Spoken:
    """Say the last message back, word by word."""
    words = str(asked.messages[-1]["content"]).split()
    for word in words:
        say(word + " ")
    return Spoken(
        text=" ".join(words), prompt_tokens=3, answer_tokens=len(words), finish_reason="stop"
    )


def test_an_answer_comes_whole_with_its_manifest() -> None:
    """The SDK reads text, usage and finish reason; a header names the training manifest."""
    with served(echo) as client:
        raw = client.chat.completions.with_raw_response.create(model="parser", messages=ASKED)
        answer = raw.parse()

    assert answer.choices[0].message.content == "say it"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 5
    assert raw.headers[MANIFEST_HEADER] == DIGEST


def test_an_answer_is_streamed_as_it_is_made() -> None:
    """Each piece goes out before the next is made, and usage comes where it is asked for."""
    heard = threading.Event()

    def slow(asked: Question, say: Callable[[str], None], cut: threading.Event) -> Spoken:
        say("one ")
        assert heard.wait(HANG_S)
        say("two")
        return Spoken(text="one two", prompt_tokens=1, answer_tokens=2, finish_reason="length")

    with served(slow) as client:
        pieces: list[str] = []
        ended = usage = None
        for chunk in client.chat.completions.create(
            model="parser",
            messages=ASKED,
            stream=True,
            stream_options={"include_usage": True},
        ):
            for choice in chunk.choices:
                pieces.append(choice.delta.content or "")
                ended = choice.finish_reason or ended
            usage = chunk.usage or usage
            if "one " in pieces:
                heard.set()

    assert "".join(pieces) == "one two"
    assert ended == "length"
    assert usage is not None
    assert usage.completion_tokens == 2


def test_callers_beyond_the_bound_are_told_to_come_back() -> None:
    """A bounded number of callers wait; the next one gets 429 at once."""
    release = threading.Event()

    def stuck(asked: Question, say: Callable[[str], None], cut: threading.Event) -> Spoken:
        assert release.wait(HANG_S)
        return echo(asked, say, cut)

    with served(stuck) as client:
        answers: list[str | None] = []

        def call() -> None:
            made = client.chat.completions.create(model="parser", messages=ASKED)
            answers.append(made.choices[0].message.content)

        callers = [threading.Thread(target=call) for _ in range(STUDENT_CALLERS_WAITING_MAX)]
        for caller in callers:
            caller.start()
        health = str(client.base_url).removesuffix("/v1/") + "/health"
        while client.get(health, cast_to=dict[str, int])["waiting"] < len(callers):
            pass

        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="parser", messages=ASKED)
        release.set()
        for caller in callers:
            caller.join()

    assert answers == ["say it"] * STUDENT_CALLERS_WAITING_MAX


def test_what_can_not_be_answered_is_said_in_the_sdks_shape() -> None:
    """Another model, n of two and a conversation that is too long are errors of the caller."""

    def full(asked: Question, say: Callable[[str], None], cut: threading.Event) -> Spoken:
        raise UnanswerableError("too long", code="context_length_exceeded")

    with served(full) as client:
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt", messages=ASKED)
        with pytest.raises(openai.BadRequestError, match="`n` must be `1`"):
            client.chat.completions.create(model="parser", messages=ASKED, n=2)
        with pytest.raises(openai.BadRequestError, match="too long"):
            client.chat.completions.create(model="parser", messages=ASKED)
        with pytest.raises(openai.BadRequestError, match="too long"):
            client.chat.completions.create(model="parser", messages=ASKED, stream=True)


def silent(asked: Question, say: Callable[[str], None], cut: threading.Event) -> Spoken:
    """Answer nobody."""
    raise AssertionError("the student was asked")


@pytest.fixture(scope="module")
def shy() -> Iterator[openai.OpenAI]:
    """Yield a client of a student that nothing may reach."""
    with served(silent) as client:
        yield client


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}


def user(content: Any) -> dict[str, Any]:
    """Return a request whose only message says *content*."""
    return {"messages": [{"role": "user", "content": content}]}


def a_tool(**said: Any) -> dict[str, Any]:
    """Return a request that offers a tool of which *said* is said."""
    return {"tools": [{"type": "function", "function": {"name": "look_up"} | said}]}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (user([PICTURE]), r"`messages\[0\].content\[0\]` is of type `image_url`"),
        (user([{"type": "text", "text": "hear"}, SOUND]), "is of type `input_audio`"),
        (user([{"type": "file", "file": {"file_id": "f"}}]), "is of type `file`"),
        (user([{"type": "text", "text": 5}]), "a student reads text"),
        (user([{"text": "no type"}]), "missing required field `type`"),
        (user(["bare"]), r"Expected `object`, got `str` - at `\$.messages\[0\].content"),
        (user({"text": "say"}), "Expected `str | array | null`, got `object`"),
        (user(5), "got `int`"),
        (user(None), r"`messages\[0\]` has no `content`"),
        ({"messages": [{"role": "oracle", "content": "x"}]}, "Invalid enum value 'oracle'"),
        ({"messages": [{"role": "function", "content": "x", "name": "f"}]}, "'function'"),
        ({"messages": [{"content": "x"}]}, "missing required field `role`"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "needs a `tool_call_id`"),
        ({"messages": [{"role": "user", "content": "x", "images": ["AA"]}]}, "`images`"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "audio` is nothing"),
        ({"messages": []}, "`messages` is empty"),
        ({"messages": "say it"}, "Expected `array`, got `str`"),
        ({"max_completion_tokens": 0}, "`max_completion_tokens` must be at least 1"),
        ({"max_completion_tokens": -3, "max_tokens": 5}, "`max_completion_tokens` must"),
        ({"max_tokens": 0}, "`max_tokens` must be at least 1"),
        ({"max_tokens": "many"}, "Expected `int | null`, got `str`"),
        ({"n": 0}, "`n` must be `1`"),
        ({"n": "2"}, "`n` must be `1`"),
        ({"temperature": 3}, "out of range"),
        ({"temperature": "hot"}, "Expected `float | null`, got `str`"),
        ({"top_p": 0}, "out of range"),
        ({"seed": 2**70}, "`seed` is out of range"),
        ({"stop": ["a", ""]}, "none empty"),
        ({"stop": list("abcde")}, "up to 4"),
        ({"stream": "yes"}, "Expected `bool | null`, got `str`"),
        ({"logprobs": True}, "`logprobs` must be `False`"),
        ({"logit_bias": {"1": 5}}, "`logit_bias` must be"),
        ({"presence_penalty": 0.5}, "`presence_penalty` must be `0`"),
        ({"response_format": {"type": "json_object"}}, "`response_format` must be"),
        ({"modalities": ["text", "audio"]}, "`modalities` must be"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "`audio` can't be heeded"),
        ({"extra_body": {"top_k": 5}}, "unknown field `top_k`"),
        ({"parallel_tool_calls": False}, "`parallel_tool_calls` must be `True`"),
        ({"tools": [{"type": "function", "function": None}]}, "got `null`"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "'custom'"),
        (a_tool(name=5), "got `int`"),
        (a_tool(strict=True), "is `strict`"),
    ],
)
def test_what_no_student_does_is_the_callers_error(
    shy: openai.OpenAI, said: dict[str, Any], told: str
) -> None:
    """Whatever would change the answer and can't be heeded is refused, by name, unasked."""
    with pytest.raises(openai.BadRequestError, match=told) as refused:
        shy.chat.completions.create(**{"model": "parser", "messages": ASKED} | said)

    assert refused.value.type == "invalid_request_error"
    assert refused.value.code == "invalid_request"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"model": "\\ud800"}',
        b'{"model": "parser", "messages": [{"role": "user", "content": NaN}]}',
        b'{"model": "parser", "metadata": ' + b'{"a":' * 100_000,
        b"[" * 100_000,
    ],
)
def test_a_body_of_any_bytes_is_answered_in_openais_shape(
    shy: openai.OpenAI, body: bytes
) -> None:
    """What is no request at all is a 400, whatever it is made of."""
    with pytest.raises(openai.BadRequestError, match="the body can't be read") as refused:
        shy.post("/chat/completions", cast_to=object, content=body)

    assert refused.value.code == "invalid_request"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "unheard-of"])
def test_a_body_that_is_not_packed_as_it_says_is_the_callers_error(
    shy: openai.OpenAI, coding: str
) -> None:
    """A coding that the body does not have is a 400, no fault of the student's."""
    with pytest.raises(openai.BadRequestError) as refused:
        shy.chat.completions.create(
            model="parser", messages=[], extra_headers={"content-encoding": coding}
        )

    packed_badly = "not packed as it says" in str(refused.value)
    assert packed_badly or coding not in {"gzip", "deflate"}
    # Where another request would begin nobody knows then, so the SDK must not send one there.
    assert packed_badly == (refused.value.response.headers.get("connection") == "close")


def test_what_is_not_there_is_said_in_openais_shape(shy: openai.OpenAI) -> None:
    """Other addresses and other methods are an error that the SDK reads."""
    with pytest.raises(openai.NotFoundError, match="no POST /v1/embeddings"):
        shy.embeddings.create(model="parser", input="x")
    with pytest.raises(openai.APIStatusError, match="no GET /v1/chat/completions") as refused:
        shy.get("/chat/completions", cast_to=object)

    assert (refused.value.status_code, refused.value.code) == (405, "unknown_url")


def test_what_changes_no_answer_is_let_by() -> None:
    """Texts in parts are one text; settings of a provider's house and nulls mean nothing."""
    heard: list[Question] = []

    def hearing(asked: Question, say: Callable[[str], None], cut: threading.Event) -> Spoken:
        heard.append(asked)
        return Spoken(text="yes", prompt_tokens=1, answer_tokens=1, finish_reason="stop")

    history = openai.types.chat.ChatCompletionMessage(
        role="assistant", content="one", refusal=None, annotations=[]
    ).model_dump()
    with served(hearing) as client:
        client.post(
            "/chat/completions",
            cast_to=object,
            body={
                "model": "parser",
                "messages": [
                    {"role": "system", "content": "be brief"},
                    history,
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "two "},
                            {"type": "text", "text": "three"},
                        ],
                    },
                ],
                "max_completion_tokens": 7,
                "max_tokens": 9,
                "n": 1,
                "response_format": {"type": "text"},
                "presence_penalty": 0.0,
                "user": "ada",
                "service_tier": "auto",
                "store": False,
                "stop": None,
            },
        )

    assert [one["content"] for one in heard[0].messages] == ["be brief", "one", "two three"]
    assert (heard[0].tokens_max, heard[0].stop, heard[0].tools) == (7, (), None)


def test_a_hang_up_cuts_the_answer_off() -> None:
    """Where the caller leaves a stream, the student stops, and the next caller is served."""
    was_cut = threading.Event()

    def endless(asked: Question, say: Callable[[str], None], cut: threading.Event) -> Spoken:
        if asked.messages[-1]["content"] == "short":
            return echo(asked, say, cut)
        while not cut.wait(0.01):
            say("more ")
        was_cut.set()
        return Spoken(text="", prompt_tokens=1, answer_tokens=1, finish_reason="length")

    with served(endless) as client:
        stream = client.chat.completions.create(model="parser", messages=ASKED, stream=True)
        next(iter(stream))
        stream.close()
        after = client.chat.completions.create(
            model="parser", messages=[{"role": "user", "content": "short"}]
        )

    assert was_cut.wait(HANG_S)
    assert after.choices[0].message.content == "short"


LOOK_UP: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object"}},
}
CALL = '<tool_call>{"name": "look_up", "arguments": {"word": "amber"}}</tool_call>'


def calling(asked: Question, say: Callable[[str], None], cut: threading.Event) -> Spoken:
    """Say a few words and call a tool, in small pieces, where tools are offered."""
    text = f"Let me see.\n{CALL}" if asked.tools else "No tools."
    for at in range(0, len(text), 3):
        say(text[at : at + 3])
    return Spoken(text=text, prompt_tokens=3, answer_tokens=9, finish_reason="stop")


def test_a_call_of_a_tool_is_one_for_the_sdk() -> None:
    """Words, calls, their ids and the finish reason come whole and streamed alike."""
    with served(calling) as client:
        whole = client.chat.completions.create(
            model="parser", messages=ASKED, tools=[LOOK_UP], tool_choice="auto"
        ).choices[0]
        words, called, ended = "", "", None
        for chunk in client.chat.completions.create(
            model="parser", messages=ASKED, tools=[LOOK_UP], stream=True
        ):
            choice = chunk.choices[0]
            words += choice.delta.content or ""
            ended = choice.finish_reason or ended
            for piece in choice.delta.tool_calls or ():
                assert piece.function is not None
                called += f"{piece.function.name} {piece.function.arguments}"
    assert whole.message.tool_calls is not None
    call = whole.message.tool_calls[0]
    assert call.type == "function"

    assert (whole.message.content, words) == ("Let me see.", "Let me see.")
    assert (whole.finish_reason, ended) == ("tool_calls", "tool_calls")
    assert (call.function.name, call.function.arguments) == ("look_up", '{"word": "amber"}')
    assert called == 'look_up {"word": "amber"}'
    assert call.id.startswith("call_")


def test_tools_that_may_not_be_called_are_not_offered() -> None:
    """`none` offers nothing; what no student can promise is refused, not ignored."""
    with served(calling) as client:
        silent = client.chat.completions.create(
            model="parser", messages=ASKED, tools=[LOOK_UP], tool_choice="none"
        ).choices[0]
        with pytest.raises(openai.BadRequestError, match="`tool_choice` must be"):
            client.chat.completions.create(
                model="parser", messages=ASKED, tools=[LOOK_UP], tool_choice="required"
            )

    assert (silent.message.content, silent.finish_reason) == ("No tools.", "stop")
    assert silent.message.tool_calls is None


def test_a_taken_port_is_said_before_anything_is_loaded() -> None:
    """The address is taken first, so that a busy one costs no loading."""
    with bind("127.0.0.1", 0) as bound, pytest.raises(PortInUseError, match="is taken"):
        bind("127.0.0.1", bound.getsockname()[1])


def test_what_was_learned_is_said_and_changed_weights_are_not_served(tmp_path: Path) -> None:
    """A student that read few rows often says their answers, and stops; tampering is seen."""
    school = School(tmp_path)
    built = school.dataset(8)
    student = school.train(
        built, recipe_for("tiny", steps=60, batch=8, learning_rate=5e-3, save_every=60)
    )
    school.close()
    assert isinstance(student, Trained)
    verified = verify_model(student.folder, TRUST)

    with served(load(verified.path)) as client:
        said = [
            client.chat.completions.create(
                model="parser",
                messages=[{"role": "user", "content": question(number)}],
                temperature=0,
                max_tokens=20,
            ).choices[0]
            for number in range(8)
        ]
        pieces = [
            chunk.choices[0].delta.content or ""
            for chunk in client.chat.completions.create(
                model="parser",
                messages=[{"role": "user", "content": question(3)}],
                temperature=0,
                max_tokens=20,
                stream=True,
            )
        ]
        with pytest.raises(openai.BadRequestError, match=r"characters; the student's context"):
            client.chat.completions.create(
                model="parser", messages=[{"role": "user", "content": "a" * 700_000}]
            )
    rows = [line["messages"][-1]["content"] for line in map(a_row, range(8))]
    right = sum(one.message.content == row for one, row in zip(said, rows, strict=True))
    weights = student.folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    assert right >= 7
    assert {one.finish_reason for one in said} == {"stop"}
    assert "".join(pieces) == said[3].message.content
    with pytest.raises(BadDigestError, match=r"model\.safetensors"):
        verify_model(student.folder, TRUST)


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny model that has learned nothing."""
    seal_off()
    # Imported here, after collection: it loads the training libraries.
    from gateway.student.tiny import tiny_model, tiny_tokenizer  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("untaught")
    tokenizer = tiny_tokenizer(["say it again, brief"])
    tiny_model(tokenizer, 0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


CALLED: list[Any] = [
    {"role": "user", "content": "say it"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "look_up", "arguments": '{"word": "it"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "it"},
]


def test_a_student_refuses_what_it_can_not_write_out(untaught: Path) -> None:
    """Control words and a full context are the caller's; any temperature is answered at."""
    deep: dict[str, Any] = {}
    for _ in range(900):
        deep = {"a": deep}
    with served(load(untaught)) as client:
        create = client.chat.completions.create
        with pytest.raises(openai.BadRequestError, match=r"holds `<\|im_end\|>`"):
            create(model="parser", messages=[{"role": "user", "content": "a<|im_end|>b"}])
        with pytest.raises(openai.BadRequestError, match="tokens; the student's") as long:
            create(model="parser", messages=[{"role": "user", "content": "say " * 2000}])
        with pytest.raises(openai.BadRequestError, match="tokens; the student's"):
            create(model="parser", messages=[{"role": "user", "content": "é " * 2000}])
        heats = [
            create(model="parser", messages=ASKED, max_tokens=2, temperature=heat, top_p=top)
            for heat, top in ((0, 1), (1e-300, 1), (2, 1e-300))
        ]
        whole = create(model="parser", messages=CALLED, tools=[LOOK_UP], max_tokens=1)
        with pytest.raises(openai.BadRequestError, match=r"can't write|tokens; the"):
            create(
                model="parser",
                messages=ASKED,
                tools=[{"type": "function", "function": {"name": "x", "parameters": deep}}],
            )

    assert long.value.code == "context_length_exceeded"
    assert {one.usage.completion_tokens for one in heats if one.usage} <= {1, 2}
    assert whole.usage is not None


@pytest.mark.parametrize(
    ("template", "asked", "told"),
    [
        ("{{ messages[-1].content }}", {"messages": CALLED}, r"leaves out `messages\[0\]`"),
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}",
            {"messages": CALLED},
            "writes no calls",
        ),
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}",
            {"messages": ASKED, "tools": [LOOK_UP]},
            "writes no tools",
        ),
        (
            "{{ raise_exception('no system') if messages[0].role == 'system' }}",
            {"messages": [{"role": "system", "content": "x"}]},
            "no system",
        ),
        ("{{ messages[0].content | what }}", {"messages": ASKED}, "can't write"),
    ],
)
def test_what_a_template_leaves_out_is_refused(
    untaught: Path, tmp_path: Path, template: str, asked: dict[str, Any], told: str
) -> None:
    """A student answers to all that was said, or says what its template does not write."""
    folder = tmp_path / "other"
    shutil.copytree(untaught, folder)
    (folder / "chat_template.jinja").write_text(template)
    question = Question(tokens_max=1, **asked)

    with pytest.raises(UnanswerableError, match=told):
        load(folder)(question, lambda _: None, threading.Event())


def test_text_comes_token_by_token_and_ends_before_a_stop_word(tmp_path: Path) -> None:
    """Pieces are whole characters, add up to the answer, and hold back stop words."""
    seal_off()
    # Imported here, after collection: it loads the training libraries.
    import torch  # noqa: PLC0415

    from gateway.student.generate import _Mouth  # noqa: PLC0415
    from gateway.student.tiny import tiny_tokenizer  # noqa: PLC0415

    tokenizer = tiny_tokenizer(["wörter 中文"])
    spoken = "ein wörtchen 中文 – ENDE danach"
    pieces: list[str] = []
    mouth = _Mouth(tokenizer, pieces.append, ("ENDE",))
    mouth.put(torch.tensor([[1, 2, 3]]))
    for token in tokenizer.encode(spoken):
        mouth.put(torch.tensor([token]))
    mouth.end()

    assert "".join(pieces) == mouth.text == "ein wörtchen 中文 – "
    assert len(pieces) > 5
    assert mouth.stopped

"""A student is served in OpenAI's shape; the real SDK is the judge."""

from __future__ import annotations

import asyncio
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
from gateway.student.serve import MANIFEST_HEADER, StudentServer, bind, load
from gateway.student.speech import Question, Speak, Spoken, UnanswerableError
from gateway.student.verify import verify_model
from tests.support.evidence import TRUST
from tests.support.student import School, a_row, question

pytestmark = [pytest.mark.student, pytest.mark.timeout(180)]

DIGEST = "d" * 64
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
        assert heard.wait(20)
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
        assert release.wait(30)
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
        with pytest.raises(openai.BadRequestError, match="`n` must be 1"):
            client.chat.completions.create(model="parser", messages=ASKED, n=2)
        with pytest.raises(openai.BadRequestError, match="too long"):
            client.chat.completions.create(model="parser", messages=ASKED)
        with pytest.raises(openai.BadRequestError, match="too long"):
            client.chat.completions.create(model="parser", messages=ASKED, stream=True)


@pytest.mark.parametrize(
    "said",
    [{"seed": 2**70}, {"tools": [{"function": None}]}, {"tools": [{"function": {"name": 5}}]}],
)
def test_what_no_student_takes_is_the_callers_error(said: dict[str, Any]) -> None:
    """A seed beyond any, or a tool without a name, is refused before the student is asked."""
    body = {"messages": ASKED} | said

    def silent(asked: Question, say: Callable[[str], None], cut: threading.Event) -> Spoken:
        raise AssertionError("the student was asked")

    with (
        served(silent) as client,
        pytest.raises(openai.BadRequestError, match=r"seed|every tool needs"),
    ):
        client.chat.completions.create(model="parser", stream=False, **body)


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

    assert was_cut.wait(20)
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
        with pytest.raises(openai.BadRequestError, match="700000 characters"):
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

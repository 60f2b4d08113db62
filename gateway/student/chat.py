"""Read a chat completion request in OpenAI's shape: what a student can be asked, or one line.

Nothing is dropped silently that would change the answer: what no student does is refused, by
name. Settings of a provider's house, such as a service tier, mean nothing here and are let by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from gateway.student.speech import Question, UnanswerableError

STOP_WORDS_MAX: Final = 4
"""As many as OpenAI takes; each is looked for in every piece of an answer."""

_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "parallel_tool_calls": (True,),
}
"""What is asked for by these, no student does; it may be said that nothing is asked for."""


class ChatRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A chat completion request."""

    model: str
    messages: list[_Message]
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None

    n: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    logit_bias: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    response_format: Any = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    audio: Any = None
    web_search_options: Any = None
    parallel_tool_calls: Any = None

    # These change no word of an answer.
    metadata: Any = None
    prediction: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    reasoning_effort: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    user: Any = None
    verbosity: Any = None


class _Part(msgspec.Struct):
    type: str
    text: Any = None


class _Function(msgspec.Struct):
    name: str
    arguments: str


class _Call(msgspec.Struct):
    id: str
    type: Literal["function"]
    function: _Function


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    refusal: Any = None
    audio: Any = None
    function_call: Any = None
    annotations: Any = None


class _Offered(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: _Offered


def read_request(body: bytes) -> ChatRequest:
    """Return the request that *body* is.

    Raises:
        UnanswerableError: it is none; the message says where.
    """
    try:
        return msgspec.json.decode(body, type=ChatRequest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnanswerableError(f"the body can't be read: {error}") from error


def question_of(asked: ChatRequest) -> Question:
    """Return what is asked for.

    Raises:
        UnanswerableError: it asks for something no student does; the message says what.
    """
    for name, neutral in _NEUTRAL.items():
        said = getattr(asked, name)
        if said is not None and said not in neutral:
            may = f"must be `{neutral[0]!r}`" if neutral else "can't be heeded: leave it out"
            raise UnanswerableError(f"`{name}` {may}: a student does nothing else")
    if not asked.messages:
        raise UnanswerableError("`messages` is empty")
    if asked.tool_choice not in (None, "auto", "none"):  # may be a dict
        raise UnanswerableError("`tool_choice` must be `auto` or `none`")
    temperature = 1.0 if asked.temperature is None else asked.temperature
    top_p = 1.0 if asked.top_p is None else asked.top_p
    if not 0 <= temperature <= 2 or not 0 < top_p <= 1:
        raise UnanswerableError("`temperature` or `top_p` is out of range")
    if asked.seed is not None and not -(2**63) <= asked.seed < 2**64:
        raise UnanswerableError("`seed` is out of range")
    return Question(
        messages=[
            _written(message, f"messages[{at}]") for at, message in enumerate(asked.messages)
        ],
        tools=None if asked.tool_choice == "none" else list(_tools(asked)) or None,
        tokens_max=_tokens_max(asked),
        temperature=temperature,
        top_p=top_p,
        seed=asked.seed,
        stop=_stop_words(asked),
    )


def _tokens_max(asked: ChatRequest) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        bound: int | None = getattr(asked, name)
        if bound is not None and bound < 1:
            raise UnanswerableError(f"`{name}` must be at least 1")
    bound = asked.max_completion_tokens
    return asked.max_tokens if bound is None else bound


def _stop_words(asked: ChatRequest) -> tuple[str, ...]:
    said = asked.stop
    words = () if said is None else (said,) if isinstance(said, str) else tuple(said)
    if len(words) > STOP_WORDS_MAX or not all(words):
        raise UnanswerableError(f"`stop` must be up to {STOP_WORDS_MAX} words, none empty")
    return words


def _tools(asked: ChatRequest) -> Iterator[dict[str, Any]]:
    """Yield what is offered, as a template writes it."""
    for tool in asked.tools or ():
        if tool.function.strict:
            raise UnanswerableError(
                f"tool `{tool.function.name}` is `strict`: a student can't promise that its "
                "arguments follow the schema"
            )
        yield {"type": "function", "function": msgspec.to_builtins(tool.function)}


def _written(message: _Message, where: str) -> dict[str, Any]:
    """Return *message* as a template writes it, its text in one piece."""
    for name in ("audio", "function_call"):
        if getattr(message, name) is not None:
            raise UnanswerableError(f"`{where}.{name}` is nothing a student reads")
    calls = msgspec.to_builtins(message.tool_calls or [])
    if calls and message.role != "assistant":
        raise UnanswerableError(f"`{where}` calls tools; only an assistant does")
    if message.role == "tool" and message.tool_call_id is None:
        raise UnanswerableError(f"`{where}` answers no call: it needs a `tool_call_id`")
    content = message.content
    if isinstance(content, list):
        content = "".join(
            _text(part, f"{where}.content[{at}]") for at, part in enumerate(content)
        )
    elif content is None and not calls:
        raise UnanswerableError(f"`{where}` has no `content`")
    written: dict[str, Any] = {"role": message.role, "content": content}
    for name in ("name", "reasoning_content", "tool_call_id"):
        if (said := getattr(message, name)) is not None:
            written[name] = said
    return written | ({"tool_calls": calls} if calls else {})


def _text(part: _Part, where: str) -> str:
    if part.type != "text" or not isinstance(part.text, str):
        raise UnanswerableError(f"`{where}` is of type `{part.type}`; a student reads text")
    return part.text

"""What a row of each kind looks like, and which part of it is the prompt."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.errors import MalformedReceiptError
from gateway.receipt.model import RowKind

ASSISTANT: Final = "assistant"


class _Said(msgspec.Struct, frozen=True):
    role: str


class _Messages(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    messages: tuple[msgspec.Raw, ...]
    tools: list[Any] | None = None


class _Preference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    chosen: tuple[msgspec.Raw, ...]
    prompt: tuple[msgspec.Raw, ...]
    rejected: tuple[msgspec.Raw, ...]
    tools: list[Any] | None = None


class _Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    prompt: tuple[msgspec.Raw, ...]
    verifier: str
    answer: str | None = None
    tools: list[Any] | None = None


_SAID: Final = msgspec.json.Decoder(_Said)
_DECODERS: Final[dict[RowKind, msgspec.json.Decoder[Any]]] = {
    "messages": msgspec.json.Decoder(_Messages),
    "preference": msgspec.json.Decoder(_Preference),
    "prompt": msgspec.json.Decoder(_Prompt),
}


def check_shape(line: bytes, kind: RowKind) -> tuple[bytes, ...]:
    """Return the messages of the prompt, as they are written, of a well formed row of *kind*.

    Raises:
        MalformedReceiptError: the row is not one of that kind; the code is
            `dataset.wrong_kind`.
    """
    try:
        row = _DECODERS[kind].decode(line)
        match row:
            case _Messages():
                *prompt, answer = row.messages or _none("conversation")
                _check_answers((answer,))
            case _Preference():
                prompt = list(row.prompt)
                for side in (row.chosen, row.rejected):
                    _check_answers(side)
            case _:
                prompt = list(row.prompt)
                if not row.verifier:
                    _none("verifier")
        if not prompt and kind != "messages":
            _none("prompt")
        for said in prompt:
            _SAID.decode(said)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise _wrong(f"not a row of kind `{kind}`: {exc}") from exc
    return tuple(bytes(said) for said in prompt)


def _check_answers(answers: tuple[msgspec.Raw, ...]) -> None:
    if len(answers) != 1 or _SAID.decode(answers[0]).role != ASSISTANT:
        raise _wrong("an answer is one message of the assistant")


def _none(what: str) -> tuple[msgspec.Raw, ...]:
    raise _wrong(f"the row has no {what}")


def _wrong(why: str) -> MalformedReceiptError:
    return MalformedReceiptError(why, code="dataset.wrong_kind")

"""Let a trained student speak: one answer at a time, cut off when nobody listens any more.

Imports the training libraries; only what serves a student loads it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import torch
from jinja2 import TemplateError
from transformers import (
    AutoTokenizer,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from gateway.student.bases import load_model
from gateway.student.corpus import texts_of
from gateway.student.speech import Question, Spoken, UnanswerableError

_TOKEN_CHARACTERS_MAX: Final = 512
"""No token of any vocabulary stands for more; a conversation beyond that can't fit."""

TEMPERATURE_MIN: Final = 0.01
"""Below it the likeliest token is said: dividing by less leaves the numbers of the model."""

ANSWER_TOKENS_DEFAULT: Final = 256
"""How long an answer may become where the caller names no bound."""


class Student:
    """A model and its words, loaded; one thread at a time calls it."""

    def __init__(self, folder: Path, base: Path | None = None) -> None:
        disable_progress_bar()
        set_verbosity_error()
        self._tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        # An adapter is added to its base here, once that is seen to be the right one.
        self._model = on_device(load_model(folder, base)).eval()
        self._device = next(self._model.parameters()).device
        self.context_tokens = int(self._model.config.max_position_embeddings)

    def answer(
        self, question: Question, say: Callable[[str], None], cut: threading.Event
    ) -> Spoken:
        """Return the answer to *question*, handing its text to *say* as it is made.

        Raises:
            UnanswerableError: it can't be written out, or leaves no room for an answer.
        """
        texts = list(texts_of({"messages": question.messages, "tools": question.tools}))
        length = sum(map(len, texts))
        if length > self.context_tokens * _TOKEN_CHARACTERS_MAX:
            # Turning it into tokens would keep everybody else waiting for nothing.
            raise UnanswerableError(
                f"the conversation has {length} characters; the student's context "
                f"holds {self.context_tokens} tokens",
                code="context_length_exceeded",
            )
        self._check_words(texts)
        self._check_written(question)
        encoded = self._template(
            question.messages, question.tools, return_dict=True, return_tensors="pt"
        ).to(self._device)
        prompt_tokens = int(encoded["input_ids"].shape[1])
        room = self.context_tokens - prompt_tokens
        if room < 1:
            raise UnanswerableError(
                f"the conversation has {prompt_tokens} tokens; the student's context "
                f"holds {self.context_tokens}",
                code="context_length_exceeded",
            )
        wanted = min(question.tokens_max or ANSWER_TOKENS_DEFAULT, room)
        if question.seed is not None:
            torch.manual_seed(question.seed)
        mouth = _Mouth(self._tokenizer, say, question.stop)
        sampling = question.temperature >= TEMPERATURE_MIN
        with torch.inference_mode():
            made = self._model.generate(
                **encoded,
                max_new_tokens=wanted,
                do_sample=sampling,
                temperature=question.temperature if sampling else None,
                top_p=question.top_p if sampling else None,
                top_k=None,
                pad_token_id=self._tokenizer.pad_token_id,
                streamer=mouth,
                stopping_criteria=StoppingCriteriaList([_Cut(cut, mouth)]),
            )
        new = made[0][prompt_tokens:].tolist()
        return Spoken(
            text=mouth.text,
            prompt_tokens=prompt_tokens,
            answer_tokens=len(new),
            finish_reason=self._finish_reason(new, mouth),
        )

    def _check_words(self, texts: Iterable[str]) -> None:
        """Refuse words that end a turn or begin one, wherever they come from."""
        for text in texts:
            for word in self._tokenizer.all_special_tokens:
                if word and word in text:
                    raise UnanswerableError(
                        f"the conversation holds `{word}`, by which a turn would end or begin"
                    )

    def _check_written(self, question: Question) -> None:
        """Refuse what the student's template leaves out, or can't write at all."""
        messages, tools = question.messages, question.tools
        written = self._template(messages, tools, tokenize=False)
        if tools and written == self._template(messages, None, tokenize=False):
            raise UnanswerableError("the student's template writes no tools: offer none")
        # Each text is marked at its end: a mark that is missing is a message that is.
        said = {at: one["content"] for at, one in enumerate(messages) if one.get("content")}
        shown = self._template(
            [
                {**one, "content": f"{said[at]}{_mark(at)}"} if at in said else one
                for at, one in enumerate(messages)
            ],
            tools,
            tokenize=False,
        )
        for at in said:
            if _mark(at) not in shown:
                raise UnanswerableError(
                    f"the student's template leaves out `messages[{at}]`, of role "
                    f"`{messages[at]['role']}`"
                )
        calls = [call for message in messages for call in message.get("tool_calls") or ()]
        if any(str(call["function"]["name"]) not in written for call in calls):
            raise UnanswerableError("the student's template writes no calls of tools")

    def _template(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        **how: Any,
    ) -> Any:
        try:
            return self._tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) if tools else None,
                add_generation_prompt=True,
                **how,
            )
        except (TemplateError, TypeError, KeyError, ValueError, RecursionError) as error:
            raise UnanswerableError(
                f"the student's template can't write the conversation: {error}"
            ) from error

    def _finish_reason(self, new: list[int], mouth: _Mouth) -> Literal["stop", "length"]:
        stops = self._model.generation_config.eos_token_id
        ends = set(stops if isinstance(stops, list) else [stops])
        return "stop" if mouth.stopped or (new and new[-1] in ends) else "length"


def _mark(at: int) -> str:
    """Return a text that no template and no caller means anything by."""
    return f"\ue000{at}\ue001"


def on_device(model: Any) -> Any:
    """Return *model* where it answers best: on the accelerator if there is one, in bf16."""
    if torch.cuda.is_available():
        return model.to("cuda", dtype=torch.bfloat16)
    torch.set_num_threads(1)
    return model


class _Mouth(BaseStreamer):  # type: ignore[misc]  # the library carries no types
    """Hands text on token by token, holding back half characters and halves of stop words."""

    def __init__(
        self, tokenizer: Any, say: Callable[[str], None], stop: tuple[str, ...]
    ) -> None:
        self._tokenizer = tokenizer
        self._say = say
        self._stop = tuple(word for word in stop if word)
        self._tokens: list[int] = []
        self._told_from = 0
        """Where the tokens begin that the next piece of text is read from."""
        self._told_to = 0
        self._past_prompt = False
        self._held = ""
        self.text = ""
        self.stopped = False

    def put(self, value: Any) -> None:
        """Take the next token; the first thing that comes is the prompt."""
        if not self._past_prompt:
            self._past_prompt = True
            return
        self._tokens += value.flatten().tolist()
        # Tokens are read together with those before them: words join differently alone.
        before = self._decode(self._told_from, self._told_to)
        now = self._decode(self._told_from, len(self._tokens))
        if len(now) > len(before) and not now.endswith("\ufffd"):
            self._told_from, self._told_to = self._told_to, len(self._tokens)
            self._take(now[len(before) :])

    def end(self) -> None:
        """Say what was held back."""
        before = self._decode(self._told_from, self._told_to)
        self._take(self._decode(self._told_from, len(self._tokens))[len(before) :], last=True)

    def _decode(self, first: int, stop: int) -> str:
        text: str = self._tokenizer.decode(self._tokens[first:stop], skip_special_tokens=True)
        return text

    def _take(self, text: str, *, last: bool = False) -> None:
        """Take the next piece of text; say what no stop word can take back."""
        if self.stopped:
            return
        self._held += text
        for word in self._stop:
            at = self._held.find(word)
            if at >= 0:
                self._held, self.stopped = self._held[:at], True
        keep = 0 if last or self.stopped else self._overlap()
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        if out:
            self.text += out
            self._say(out)

    def _overlap(self) -> int:
        """Return how much of the end could be the beginning of a stop word."""
        return max(
            (
                length
                for word in self._stop
                for length in range(1, len(word))
                if self._held.endswith(word[:length])
            ),
            default=0,
        )


class _Cut(StoppingCriteria):  # type: ignore[misc]  # the library carries no types
    """Ends an answer that nobody waits for, or that has reached a stop word."""

    def __init__(self, cut: threading.Event, mouth: _Mouth) -> None:
        self._cut = cut
        self._mouth = mouth

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Tell for each sequence whether it ends here."""
        ended = self._cut.is_set() or self._mouth.stopped
        return torch.full((input_ids.shape[0],), ended, device=input_ids.device)

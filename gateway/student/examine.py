"""Ask a model of transformers: how likely it finds an answer, and what it answers by itself.

Imports the training libraries. Rows are read one at a time, with the head at the answer alone;
they are answered together, the likeliest token each time, for twice the teacher's length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from jinja2 import TemplateError

from gateway.student.corpus import IGNORED, TokenRow, UnlearnableError, tokenise
from gateway.student.evaluate import Drawn, Examined, Examinee, Heard, Read, examine
from gateway.student.figures import Who
from gateway.student.generate import on_device
from gateway.student.likeness import answer_of, prompt_of

ANSWERS_AT_ONCE: Final = 16
ANSWER_TOKENS_MAX: Final = 512
"""How long an answer may become, however long the teacher's is."""

ROOM_BESIDE: Final = 16
"""Tokens an answer may have beyond twice the teacher's."""


class Transformer:
    """A model and its words; the model stands on the device it is to be asked on."""

    def __init__(self, model: Any, tokenizer: Any, max_length: int) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._max_length = min(max_length, int(model.config.max_position_embeddings))
        self._device = next(model.parameters()).device
        self._ends = _ends(model, tokenizer)

    def read(
        self, rows: Sequence[Mapping[str, Any]], tick: Callable[[], None]
    ) -> list[Read | None]:
        """Return how likely it finds the answer of each row; `None` where a row is too long."""
        made: list[Read | None] = []
        for row in rows:
            tokens = self._tokens(row)
            made.append(None if tokens is None else self._read(tokens))
            tick()
        return made

    def answer(
        self, rows: Sequence[Mapping[str, Any]], tick: Callable[[], None]
    ) -> list[Heard | None]:
        """Return its own answer to each row; `None` where a row is too long."""
        asked: list[tuple[int, list[int], list[int]]] = []
        for at, row in enumerate(rows):
            tokens, prompt = self._tokens(row), self._prompt(row)
            if tokens is not None and prompt is not None:
                asked.append((at, prompt, _answer_in(tokens)))
        made: list[Heard | None] = [None] * len(rows)
        # Answers of like length together: none waits long for another.
        asked.sort(key=lambda one: len(one[2]))
        for first in range(0, len(asked), ANSWERS_AT_ONCE):
            batch = asked[first : first + ANSWERS_AT_ONCE]
            for (at, _, reference), heard in zip(batch, self._answers(batch), strict=True):
                made[at] = self._heard(heard, reference)
                tick()
        for _ in range(len(rows) - len(asked)):
            tick()
        return made

    def _tokens(self, row: Mapping[str, Any]) -> TokenRow | None:
        messages = [*prompt_of(row), answer_of(row)]
        try:
            return tokenise(
                {"messages": messages, "tools": row.get("tools")},
                self._tokenizer,
                self._max_length,
            )
        except UnlearnableError:
            return None

    def _prompt(self, row: Mapping[str, Any]) -> list[int] | None:
        """Return what the student is asked, written out as whoever serves it does."""
        try:
            encoded = self._tokenizer.apply_chat_template(
                prompt_of(row),
                tools=row.get("tools") or None,
                add_generation_prompt=True,
                return_dict=True,
            )
        except (TemplateError, TypeError, KeyError, ValueError):
            return None
        ids: list[int] = list(encoded["input_ids"])
        return ids if 0 < len(ids) < self._max_length else None

    def _read(self, row: TokenRow) -> Read:
        ids = torch.tensor([row.input_ids], device=self._device)
        learned = torch.tensor(
            [at for at, label in enumerate(row.labels) if label != IGNORED],
            device=self._device,
        )
        with torch.inference_mode():
            # The head at the answer alone: a vocabulary is wide, and a conversation long.
            logits = self._model(input_ids=ids, logits_to_keep=learned - 1).logits[0].float()
        meant = ids[0, learned]
        loss = torch.nn.functional.cross_entropy(logits, meant, reduction="sum")
        text = self._tokenizer.decode(meant.tolist(), skip_special_tokens=True)
        return Read(
            loss=float(loss),
            tokens=len(learned),
            agreed=int((logits.argmax(dim=-1) == meant).sum()),
            bytes=max(1, len(text.encode())),
        )

    def _answers(
        self, batch: Sequence[tuple[int, list[int], list[int]]]
    ) -> list[tuple[list[int], bool]]:
        """Return the tokens of each answer and whether it ended by itself."""
        width = max(len(prompt) for _, prompt, _ in batch)
        pad = self._tokenizer.pad_token_id
        filled = [[pad] * (width - len(prompt)) + prompt for _, prompt, _ in batch]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for _, prompt, _ in batch]
        limits = [_limit(len(reference)) for _, _, reference in batch]
        room = int(self._model.config.max_position_embeddings) - width
        with torch.inference_mode():
            made = self._model.generate(
                input_ids=torch.tensor(filled, device=self._device),
                attention_mask=torch.tensor(mask, device=self._device),
                max_new_tokens=max(1, min(max(limits), room)),
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                num_beams=1,
                use_cache=True,
                eos_token_id=self._ends,
                pad_token_id=pad,
            )
        return [
            self._cut(new[width:].tolist(), limit)
            for new, limit in zip(made, limits, strict=True)
        ]

    def _cut(self, new: list[int], limit: int) -> tuple[list[int], bool]:
        """Return *new* up to its end, or up to *limit* where it has none before."""
        for at, token in enumerate(new[:limit]):
            if token in self._ends:
                return new[: at + 1], True
        return new[:limit], False

    def _heard(self, heard: tuple[list[int], bool], reference: list[int]) -> Heard:
        tokens, stopped = heard
        return Heard(
            text=self._tokenizer.decode(tokens, skip_special_tokens=True),
            tokens=len(tokens),
            stopped=stopped,
            reference=self._tokenizer.decode(reference, skip_special_tokens=True),
            reference_tokens=len(reference),
        )


def examine_models(
    drawn: Drawn,
    tokenizer: Any,
    max_length: int,
    models: Mapping[Who, Callable[[], Any]],
    tick: Callable[[int, int], None] | None = None,
) -> Examined:
    """Return what the models make of the rows; each is loaded when its turn comes.

    Raises:
        CallerError: the task metric failed, or gave no number.
        GateRefusedError: no row fits.
    """

    def examinee(load: Callable[[], Any]) -> Callable[[], Examinee]:
        return lambda: Transformer(on_device(load()), tokenizer, max_length)

    return examine(drawn, {who: examinee(load) for who, load in models.items()}, tick)


def _limit(reference: int) -> int:
    return min(ANSWER_TOKENS_MAX, 2 * reference + ROOM_BESIDE)


def _answer_in(row: TokenRow) -> list[int]:
    return [label for label in row.labels if label != IGNORED]


def _ends(model: Any, tokenizer: Any) -> list[int]:
    said = model.generation_config.eos_token_id
    ends = set(said if isinstance(said, list) else [said]) | {tokenizer.eos_token_id}
    return sorted(end for end in ends if end is not None)

"""Turn verified rows into the token rows that a trainer takes as they are.

Only a row's last answer is learned: it alone is what the row's receipt vouches for. What came
before it is context, even where an assistant is said to have spoken it.

Not here: who decides which rows come (`gate.py`), and how they are learned (`engine.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa  # type: ignore[import-untyped]  # carries no types
from jinja2 import TemplateError

from gateway.errors import GateRefusedError
from gateway.ident import Sha256
from gateway.student.files import file_sha256

IGNORED: Final = -100
"""The label of a token that is read and not learned."""

ROWS_PER_WRITE: Final = 1024
"""Token rows held in memory before they are written."""

_PROBE: Final = (
    {"role": "user", "content": "ask"},
    {"role": "assistant", "content": "answer"},
    {"role": "user", "content": "ask"},
)


class UnlearnableError(ValueError):
    """A row that can't be learned from as it is; the message is a stable reason code."""


class TokenRow(NamedTuple):
    """One row as the trainer takes it."""

    input_ids: list[int]
    labels: list[int]

    @property
    def learned(self) -> int:
        """Return how many tokens are learned."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """What was written: rows and tokens, and what was left out by reason."""

    rows: int
    tokens: int
    learned: int
    left_out: Mapping[str, int]


def check_stop_token(tokenizer: Any) -> None:
    """Refuse a template under which a student would never learn to stop.

    Raises:
        GateRefusedError: the template marks no answers, or its stop token stands outside them.
    """
    row = _rendered(tokenizer, _PROBE, None)
    span = _last_span(row["assistant_masks"])
    if span is None:
        raise GateRefusedError(
            "the chat template of the base marks no answers",
            hint="use a base whose template has generation marks, or `--base tiny`",
            code="student.template_unmarked",
        )
    added = set(tokenizer.get_added_vocab().values())
    learned = [row["input_ids"][at] for at in range(*span)]
    if not any(token in added for token in learned[-2:]):
        raise GateRefusedError(
            "the chat template of the base leaves the stop token outside the answer",
            hint="a student trained so would never stop; use another base or its chat template",
            code="student.stop_untrained",
        )


def tokenise(row: Mapping[str, Any], tokenizer: Any, max_length: int) -> TokenRow:
    """Return *row* as tokens, its last answer marked as what is learned.

    Raises:
        UnlearnableError: the row is too long, has no answer, or holds control words.
    """
    messages = row["messages"]
    if not messages or messages[-1].get("role") != "assistant":
        raise UnlearnableError("no-answer")
    words = tuple(tokenizer.get_added_vocab())
    if any(word in text for text in texts_of(row) for word in words):
        raise UnlearnableError("control-words")
    rendered = _rendered(tokenizer, messages, row.get("tools"))
    ids: list[int] = list(rendered["input_ids"])
    span = _last_span(rendered["assistant_masks"])
    if span is None:
        raise UnlearnableError("no-answer")
    if len(ids) > max_length:
        raise UnlearnableError("too-long")
    labels = [IGNORED] * len(ids)
    labels[slice(*span)] = ids[slice(*span)]
    return TokenRow(ids, labels)


def texts_of(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield every text that the template may write out of *row*."""
    for message in row["messages"]:
        yield str(message.get("role", ""))
        content = message.get("content")
        if isinstance(content, str):
            yield content
        for part in content if isinstance(content, list) else ():
            if isinstance(part, Mapping) and isinstance(part.get("text"), str):
                yield part["text"]
        for call in message.get("tool_calls") or ():
            function = call.get("function", {})
            yield str(function.get("name", ""))
            yield str(function.get("arguments", ""))
    for tool in row.get("tools") or ():
        yield str(tool)


class TokenWriter:
    """Writes token rows as an Arrow stream; its digest is known when it is closed."""

    def __init__(self, path: Path) -> None:
        self._schema = pa.schema(
            [
                ("input_ids", pa.list_(pa.int32())),
                ("labels", pa.list_(pa.int32())),
                ("receipt", pa.string()),
            ]
        )
        self._path = path
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._sink, self._schema)
        self._held: list[tuple[TokenRow, str]] = []
        self.rows = 0
        self.tokens = 0
        self.learned = 0

    def write(self, row: TokenRow, receipt: str) -> None:
        """Add *row*, which *receipt* vouches for."""
        self._held.append((row, receipt))
        self.rows += 1
        self.tokens += len(row.input_ids)
        self.learned += row.learned
        if len(self._held) >= ROWS_PER_WRITE:
            self._flush()

    def close(self) -> Sha256:
        """Finish the file and return the digest of its bytes."""
        self._flush()
        self._writer.close()
        self._sink.close()
        return file_sha256(self._path)

    def _flush(self) -> None:
        if not self._held:
            return
        self._writer.write_batch(
            pa.record_batch(
                [
                    pa.array([r.input_ids for r, _ in self._held], self._schema[0].type),
                    pa.array([r.labels for r, _ in self._held], self._schema[1].type),
                    pa.array([receipt for _, receipt in self._held], self._schema[2].type),
                ],
                schema=self._schema,
            )
        )
        self._held.clear()


def pieces_of(row: TokenRow, tokenizer: Any) -> Iterator[tuple[str, bool]]:
    """Yield the text of *row* in runs, each with whether it is learned."""
    start = 0
    marks = [label != IGNORED for label in row.labels]
    for at in range(1, len(marks) + 1):
        if at == len(marks) or marks[at] != marks[start]:
            yield tokenizer.decode(row.input_ids[start:at]), marks[start]
            start = at


def all_texts(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield every text of *rows*, for a tokenizer to learn its words from."""
    for row in rows:
        yield from texts_of(row)


def _rendered(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Any
) -> dict[str, list[int]]:
    try:
        rendered: dict[str, list[int]] = tokenizer.apply_chat_template(
            list(messages),
            tools=tools or None,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
    except (TemplateError, TypeError, KeyError, ValueError) as error:
        raise UnlearnableError("template-refused") from error
    return rendered


def _last_span(marks: Sequence[int]) -> tuple[int, int] | None:
    """Return where the last run of marks begins and stops, or `None` where there is none."""
    stop = len(marks)
    while stop and not marks[stop - 1]:
        stop -= 1
    start = stop
    while start and marks[start - 1]:
        start -= 1
    return (start, stop) if stop else None

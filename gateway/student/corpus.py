"""Turn verified rows into the token rows that a trainer takes as they are.

Only a row's last answer is learned: it alone is what the row's receipt vouches for. What came
before it is context, even where an assistant is said to have spoken it. A row that is too long
is left out and counted, never cut. Rows are packed here or nowhere: several documents in one
row, each with its own beginning, so that what is digested is what is learned.

Not here: who decides which rows come (`gate.py`), and how they are learned (`engine.py`).
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa  # type: ignore[import-untyped]  # carries no types
from jinja2 import TemplateError

from gateway.canonical import digest_of
from gateway.errors import GateRefusedError
from gateway.ident import Sha256
from gateway.student.files import file_sha256
from gateway.student.likeness import texts_in
from gateway.student.recipe import Objective

IGNORED: Final = -100
"""The label of a token that is read and not learned."""

ROWS_PER_WRITE: Final = 1024
"""Token rows held in memory before they are written."""

PACKED_TOGETHER: Final = 8192
"""Documents among which packing looks for those that fill a row; these are held in memory."""

HELD_OUT: Final = "held-out.arrow"

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
    def tokens(self) -> int:
        """Return how many tokens are read."""
        return len(self.input_ids)

    @property
    def learned(self) -> int:
        """Return how many tokens are learned."""
        return sum(label != IGNORED for label in self.labels)


class TokenPair(NamedTuple):
    """Two answers to one prompt as the trainer takes them."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def tokens(self) -> int:
        """Return how many tokens are read: the prompt stands before each answer."""
        return 2 * len(self.prompt_ids) + self.learned

    @property
    def learned(self) -> int:
        """Return how many tokens are learned."""
        return len(self.chosen_ids) + len(self.rejected_ids)

    def shown(self) -> TokenRow:
        """Return the chosen side as a row, for people to look at."""
        ids = self.prompt_ids + self.chosen_ids
        return TokenRow(ids, [IGNORED] * len(self.prompt_ids) + self.chosen_ids)


class Shape(NamedTuple):
    """How token rows are to be written."""

    objective: Objective
    max_length: int
    packing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The token rows of one dataset, or those that are held out, in one file."""

    path: Path
    sha256: Sha256
    rows: int
    """Rows of the dataset."""
    units: int
    """Rows of the file: fewer than *rows* where several are packed into one."""
    tokens: int
    learned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Everything that was written."""

    parts: tuple[Part, ...]
    """One a dataset, in their order."""
    held_out: Part | None
    left_out: Mapping[str, int]
    example: TokenRow | None

    @property
    def sha256(self) -> Sha256:
        """Return the digest of all files by name."""
        return digest_of({part.path.name: part.sha256 for part in self.files})

    @property
    def files(self) -> tuple[Part, ...]:
        """Return every file that was written."""
        return self.parts if self.held_out is None else (*self.parts, self.held_out)


class Corpus:
    """Takes verified rows one by one and writes them as *shape* asks for.

    Each row that is written to be learned from is shown to *learned*.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: Any,
        shape: Shape,
        learned: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self._learned = learned
        self._folder = folder
        self._shape = shape
        self._parts: list[Part] = []
        self._writer: TokenWriter | None = None
        self._held_out: TokenWriter | None = None
        self._left_out: Counter[str] = Counter()
        self._example: TokenRow | None = None

    @property
    def objective(self) -> Objective:
        """Return what the rows are written for."""
        return self._shape.objective

    def begin(self) -> None:
        """Begin the part of the next dataset."""
        self._end()
        path = self._folder / f"rows-{len(self._parts) + 1}.arrow"
        self._writer = TokenWriter(path, self._shape)

    def leave_out(self, reason: str) -> None:
        """Count a row that is not written."""
        self._left_out[reason] += 1

    def take(self, row: Mapping[str, Any], receipt: str, *, held_out: bool = False) -> None:
        """Write *row*, which *receipt* vouches for, or count why it can't be learned from."""
        try:
            tokens = tokenise_as(row, self.tokenizer, self._shape)
        except UnlearnableError as error:
            self.leave_out(str(error))
            return
        if held_out:
            if self._held_out is None:
                self._held_out = TokenWriter(self._folder / HELD_OUT, self._shape)
            self._held_out.write(tokens, receipt)
            return
        if self._writer is None:
            self.begin()
        assert self._writer is not None  # noqa: S101  # INVARIANT: just begun.
        self._writer.write(tokens, receipt)
        if self._learned is not None:
            self._learned(row)
        if self._example is None:
            self._example = tokens if isinstance(tokens, TokenRow) else tokens.shown()

    def close(self) -> Tokens:
        """Finish all files and return what they are."""
        self._end()
        return Tokens(
            parts=tuple(self._parts),
            held_out=None if self._held_out is None else self._held_out.close(),
            left_out=dict(self._left_out),
            example=self._example,
        )

    def _end(self) -> None:
        if self._writer is not None:
            self._parts.append(self._writer.close())
            self._writer = None


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


def tokenise_as(row: Mapping[str, Any], tokenizer: Any, shape: Shape) -> TokenRow | TokenPair:
    """Return *row* as tokens in the shape that its objective learns from.

    Raises:
        UnlearnableError: the row is too long, has no answer, or holds control words.
    """
    if shape.objective == "dpo":
        return tokenise_pair(row, tokenizer, shape.max_length)
    return tokenise(row, tokenizer, shape.max_length)


def tokenise(row: Mapping[str, Any], tokenizer: Any, max_length: int) -> TokenRow:
    """Return *row* as tokens, its last answer marked as what is learned.

    Raises:
        UnlearnableError: the row is too long, has no answer, or holds control words.
    """
    _refuse_control_words(row, tokenizer)
    ids, start, stop = _answered(row.get("messages", ()), row.get("tools"), tokenizer)
    if len(ids) > max_length:
        raise UnlearnableError("too-long")
    labels = [IGNORED] * len(ids)
    labels[start:stop] = ids[start:stop]
    return TokenRow(ids, labels)


def tokenise_pair(row: Mapping[str, Any], tokenizer: Any, max_length: int) -> TokenPair:
    """Return a preference *row* as tokens: what both answers follow on, and the two answers.

    Raises:
        UnlearnableError: an answer is too long or missing, both are the same, the template
            writes the prompt differently before each, or the row holds control words.
    """
    _refuse_control_words(row, tokenizer)
    prompt, tools = list(row.get("prompt", ())), row.get("tools")
    sides: list[tuple[list[int], list[int]]] = []
    for side in ("chosen", "rejected"):
        ids, start, stop = _answered([*prompt, *row.get(side, ())], tools, tokenizer)
        sides.append((ids[:start], ids[start:stop]))
    (before, chosen), (before_other, rejected) = sides
    if before != before_other:
        raise UnlearnableError("prompts-differ")
    if chosen == rejected:
        raise UnlearnableError("same-answers")
    if len(before) + max(len(chosen), len(rejected)) > max_length:
        raise UnlearnableError("too-long")
    return TokenPair(before, chosen, rejected)


def texts_of(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield every text that the template may write out of *row*."""
    for part in ("messages", "prompt", "chosen", "rejected"):
        for message in row.get(part) or ():
            yield str(message.get("role", ""))
            if isinstance(message.get("reasoning_content"), str):
                yield message["reasoning_content"]
            yield from texts_in(message)
    for tool in row.get("tools") or ():
        yield str(tool)


class TokenWriter:
    """Writes token rows as an Arrow stream; its digest is known when it is closed."""

    def __init__(self, path: Path, shape: Shape) -> None:
        ids = pa.list_(pa.int32())
        names = ["input_ids", "labels"]
        if shape.objective == "dpo":
            names = list(TokenPair._fields)
        elif shape.packing:
            names.append("seq_lengths")
        self._schema = pa.schema([*((name, ids) for name in names), _RECEIPTS])
        self._names = names
        self._shape = shape
        self._path = path
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._sink, self._schema)
        self._held: list[dict[str, list[Any]]] = []
        self._loose: list[tuple[TokenRow, str]] = []
        self.rows = self.units = self.tokens = self.learned = 0

    def write(self, row: TokenRow | TokenPair, receipt: str) -> None:
        """Add *row*, which *receipt* vouches for."""
        self.rows += 1
        self.tokens += row.tokens
        self.learned += row.learned
        if self._shape.packing and isinstance(row, TokenRow):
            self._loose.append((row, receipt))
            if len(self._loose) >= PACKED_TOGETHER:
                self._pack()
        else:
            self._hold(row._asdict() | {"receipts": [receipt]})

    def close(self) -> Part:
        """Finish the file and return what it is."""
        self._pack()
        self._flush()
        self._writer.close()
        self._sink.close()
        return Part(
            path=self._path,
            sha256=file_sha256(self._path),
            rows=self.rows,
            units=self.units,
            tokens=self.tokens,
            learned=self.learned,
        )

    def _pack(self) -> None:
        """Write the rows at hand as few rows that hold several, each of them whole."""
        for pack in packed([row.tokens for row, _ in self._loose], self._shape.max_length):
            documents = [self._loose[number] for number in pack]
            self._hold(
                {
                    "input_ids": [token for row, _ in documents for token in row.input_ids],
                    "labels": [label for row, _ in documents for label in row.labels],
                    "seq_lengths": [row.tokens for row, _ in documents],
                    "receipts": [receipt for _, receipt in documents],
                }
            )
        self._loose.clear()

    def _hold(self, unit: dict[str, list[Any]]) -> None:
        self._held.append(unit)
        self.units += 1
        if len(self._held) >= ROWS_PER_WRITE:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        columns = [
            pa.array([unit[field.name] for unit in self._held], field.type)
            for field in self._schema
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._held.clear()


_RECEIPTS: Final = ("receipts", pa.list_(pa.string()))
"""The column that a trainer passes over: who vouches for each document of a row."""


def packed(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Return the places of *lengths* in groups that fit into *room*, the fullest first.

    The longest goes first, each into the group that it fills best; equal lengths keep their
    order, so the same lengths always give the same groups.
    """
    groups: list[list[int]] = []
    # Groups with room left, by how much: the first that is large enough is the best.
    free: list[tuple[int, int]] = []
    for place in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        found = bisect.bisect_left(free, (lengths[place], -1))
        if found == len(free):
            left, group = room, len(groups)
            groups.append([])
        else:
            left, group = free.pop(found)
        groups[group].append(place)
        bisect.insort(free, (left - lengths[place], group))
    return groups


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


def _refuse_control_words(row: Mapping[str, Any], tokenizer: Any) -> None:
    words = tuple(tokenizer.get_added_vocab())
    if any(word in text for text in texts_of(row) for word in words):
        raise UnlearnableError("control-words")


def _answered(
    messages: Sequence[Mapping[str, Any]], tools: Any, tokenizer: Any
) -> tuple[list[int], int, int]:
    """Return *messages* as tokens, and where their last answer begins and stops."""
    if not messages or messages[-1].get("role") != "assistant":
        raise UnlearnableError("no-answer")
    rendered = _rendered(tokenizer, messages, tools)
    ids: list[int] = list(rendered["input_ids"])
    span = _last_span(rendered["assistant_masks"])
    if span is None:
        raise UnlearnableError("no-answer")
    reasoning = messages[-1].get("reasoning_content")
    if reasoning and str(reasoning).strip() not in tokenizer.decode(ids[slice(*span)]):
        # The template knows no reasoning; without it the row would say something else.
        raise UnlearnableError("reasoning-dropped")
    return ids, *span


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

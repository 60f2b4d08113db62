"""How alike two texts are: the same, the same label, chrF; and what was asked before.

Pure arithmetic on text; knows no model and no file.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

GRAM_WORDS: Final = 13
"""Words in a run that two texts share only where one was taken from the other."""

LABELS_MAX: Final = 20
ROWS_PER_LABEL_MIN: Final = 5
"""Answers are labels where few different ones come often."""

_CHRF_ORDER: Final = 6
_CHRF_RECALL: Final = 2.0
"""How much more what is missing counts than what is too much."""

# Scripts that write no blanks between words: there each sign counts as one.
_SIGN: Final = "぀-ヿ㐀-鿿가-힯豈-﫿"
_WORD: Final = re.compile(rf"[{_SIGN}]|[^\W{_SIGN}]+")
# `2 + 3` and `2 - 3` ask for different things, `What is it` and `What is it?` don't.
_MARKS: Final = r".,;:!?…'\"“”„‘’«»()\[\]"
_WORD_OR_SIGN: Final = re.compile(rf"{_WORD.pattern}|[^\w\s{_MARKS}]")


def same(text: str, other: str) -> bool:
    """Tell whether two texts are the same but for blanks."""
    return " ".join(text.split()) == " ".join(other.split())


def label_of(text: str) -> str:
    """Return *text* as a label: its words, whatever their case and the marks between them."""
    return " ".join(words_of(text))


def labels_in(answers: Sequence[str]) -> frozenset[str] | None:
    """Return the labels that *answers* are drawn from, or `None` where they are no labels."""
    labels = frozenset(map(label_of, answers))
    few = len(labels) <= min(LABELS_MAX, len(answers) // ROWS_PER_LABEL_MIN)
    return labels if few else None


def chrf(text: str, reference: str) -> float:
    """Return the likeness of *text* to *reference* by runs of characters, between 0 and 1."""
    said, meant = "".join(text.split()), "".join(reference.split())
    if not said or not meant:
        return float(said == meant)
    precision = recall = 0.0
    orders = 0
    for length in range(1, _CHRF_ORDER + 1):
        ours, theirs = _runs(said, length), _runs(meant, length)
        if not ours or not theirs:
            continue
        both = (ours & theirs).total()
        precision += both / ours.total()
        recall += both / theirs.total()
        orders += 1
    precision, recall = precision / orders, recall / orders
    if not precision + recall:
        return 0.0
    weight = _CHRF_RECALL**2
    return (1 + weight) * precision * recall / (weight * precision + recall)


def words_of(text: str) -> list[str]:
    """Return the words of *text*, their case and writing made alike."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def text_of(message: Mapping[str, Any]) -> str:
    """Return everything that *message* says, calls of tools included."""
    return " ".join(texts_in(message))


def texts_in(message: Mapping[str, Any]) -> Iterator[str]:
    """Yield what *message* says, part by part, calls of tools included."""
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


def prompt_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the conversation before the answer."""
    if "messages" in row:
        return list(row["messages"][:-1])
    return list(row["prompt"])


def answer_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the teacher's answer; of a pair, the chosen one."""
    answer: dict[str, Any] = row["messages"][-1] if "messages" in row else row["chosen"][-1]
    return answer


def prompt_words(row: Mapping[str, Any]) -> list[str]:
    """Return the words of the whole conversation before the answer."""
    return [word for message in prompt_of(row) for word in words_of(text_of(message))]


class Asked:
    """Rows that are asked, looked for among the rows that are learned.

    Two prompts are spelt alike where only blanks and case differ, and alike where only marks of
    a sentence do. Memory grows with what is asked, never with what is learned.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._spelt: dict[int, list[int]] = {}
        self._prompts: dict[int, list[int]] = {}
        self._grams: dict[int, list[int]] = {}
        self._vocabulary: set[str] = set()
        self._counts: list[int] = []
        self._seen: set[int] = set()
        self._found: set[int] = set()
        self._copied: set[int] = set()
        self.learned = 0
        for at, row in enumerate(rows):
            self._spelt.setdefault(_spelling(row), []).append(at)
            self._prompts.setdefault(hash(tuple(_signs(row))), []).append(at)
            grams = set(_grams(_own_words(row)))
            self._counts.append(len(grams))
            for gram in grams:
                self._grams.setdefault(gram, []).append(at)
            self._vocabulary.update(_own_words(row))

    def see(self, row: Mapping[str, Any]) -> None:
        """Look at one row that is learned."""
        self.learned += 1
        self._copied.update(self._spelt.get(_spelling(row), ()))
        self._found.update(self._prompts.get(hash(tuple(_signs(row))), ()))
        for other in _answers(row):
            for run in self._known_runs(_own_words(row, other)):
                self._seen.update(gram for gram in _grams(run) if gram in self._grams)

    @property
    def copied(self) -> frozenset[int]:
        """Return which rows have a prompt that was learned, spelt alike."""
        return frozenset(self._copied)

    @property
    def learned_too(self) -> frozenset[int]:
        """Return which rows were learned: their prompt, or most of their runs of words."""
        return frozenset(
            self._found.union(self._copied).union(
                at
                for at, seen in self._seen_of().items()
                if self._counts[at] and 2 * seen >= self._counts[at]
            )
        )

    @property
    def share(self) -> float:
        """Return the share of all runs of words that was learned."""
        return len(self._seen) / len(self._grams) if self._grams else 0.0

    def _seen_of(self) -> Counter[int]:
        return Counter(at for gram in self._seen for at in self._grams[gram])

    def _known_runs(self, words: Sequence[str]) -> Iterator[Sequence[str]]:
        """Yield the runs long enough to share something, of words that are asked at all."""
        start = 0
        for at in range(len(words) + 1):
            if at == len(words) or words[at] not in self._vocabulary:
                if at - start >= GRAM_WORDS:
                    yield words[start:at]
                start = at + 1


def _spelling(row: Mapping[str, Any]) -> int:
    """Return a digest of the whole conversation before the answer, blanks and case aside."""
    told = ((one.get("role"), text_of(one)) for one in prompt_of(row))
    return hash(tuple((role, " ".join(text.casefold().split())) for role, text in told))


def _signs(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the words of that conversation, and every sign that is no mark of a sentence."""
    for message in prompt_of(row):
        text = unicodedata.normalize("NFKC", text_of(message)).casefold()
        yield from _WORD_OR_SIGN.findall(text)


def _own_words(row: Mapping[str, Any], answer: Mapping[str, Any] | None = None) -> list[str]:
    """Return the words of *row* that are its own: what was asked and what was answered.

    Not those of a system prompt or of tools, which a whole project shares.
    """
    told = [one for one in prompt_of(row) if one.get("role") not in {"system", "developer"}]
    told.append(dict(answer if answer is not None else answer_of(row)))
    return [word for message in told for word in words_of(text_of(message))]


def _answers(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "rejected" in row:
        yield row["rejected"][-1]
    if "messages" in row or "chosen" in row:
        yield answer_of(row)


def _grams(words: Sequence[str]) -> Iterator[int]:
    for at in range(len(words) - GRAM_WORDS + 1):
        yield hash(tuple(words[at : at + GRAM_WORDS]))


def _runs(text: str, length: int) -> Counter[str]:
    return Counter(text[at : at + length] for at in range(len(text) - length + 1))

"""Where values stand in JSON text, so that some can go or change and the rest stays."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

_decoder: Final = json.JSONDecoder()
_BLANK: Final = re.compile(r"[ \t\n\r]*")


class NoJsonError(ValueError):
    """Text that is no JSON."""


class Element(msgspec.Struct, frozen=True):
    """One element of an array, and where its text begins and ends."""

    start: int
    stop: int
    value: Any


def arrays_of(text: str) -> list[list[Element]]:
    """Return the arrays that *text* holds at its top: it is one, or an object with some.

    Raises:
        NoJsonError: it is neither an array nor an object.
    """
    try:
        return list(_arrays(text))
    except (ValueError, IndexError, RecursionError) as exc:
        raise NoJsonError("no JSON array or object") from exc


def without(text: str, arrays: Iterable[list[Element]], goes: Callable[[Any], bool]) -> str:
    """Return *text* without the elements that *goes* is true of; nothing else differs.

    With an element goes the comma after it, and with the last ones that before them.
    """
    out, at = [], 0
    for array in arrays:
        kept = -1
        for place, element in enumerate(array):
            if goes(element.value):
                continue
            if kept < 0:
                out.append(text[at : array[0].start])
            else:
                # The text between two that stay is what stood behind the first of them.
                out.append(text[array[kept].stop : array[kept + 1].start])
            out.append(text[element.start : element.stop])
            kept, at = place, element.stop
        if array and kept < 0:
            out.append(text[at : array[0].start])
        if array:
            at = array[-1].stop
    return "".join(out) + text[at:]


def replaced(text: str, key: str, other: Callable[[str], str]) -> str:
    """Return *text* with every string under *key*, at any depth, as *other* has it."""
    # Inside a string a quotation mark stands behind a backslash, so this is a key and no other.
    pattern = rf'(?<!\\)("{re.escape(key)}"[ \t\n\r]*:[ \t\n\r]*)("(?:[^"\\]|\\.)*")'

    def one(found: re.Match[str]) -> str:
        said = json.loads(found[2])
        now = other(said)
        return found[0] if now == said else found[1] + json.dumps(now, ensure_ascii=False)

    return re.sub(pattern, one, text)


def _arrays(text: str) -> Iterator[list[Element]]:
    at = _after_blank(text, 0)
    if text[at] == "[":
        array, at = _array(text, at)
        yield array
    elif text[at] == "{":
        at = _after_blank(text, at + 1)
        while text[at] != "}":
            key, at = _decoder.raw_decode(text, at)
            at = _after_blank(text, at)
            if not isinstance(key, str) or text[at] != ":":
                raise NoJsonError("no key")
            at = _after_blank(text, at + 1)
            if text[at] == "[":
                array, at = _array(text, at)
                yield array
            else:
                _, at = _decoder.raw_decode(text, at)
            at = _next(text, at, "}")
        at += 1
    else:
        raise NoJsonError("neither array nor object")
    if _after_blank(text, at) != len(text):
        raise NoJsonError("more behind it")


def _array(text: str, at: int) -> tuple[list[Element], int]:
    elements = []
    at = _after_blank(text, at + 1)
    while text[at] != "]":
        value, stop = _decoder.raw_decode(text, at)
        elements.append(Element(at, stop, value))
        at = _next(text, stop, "]")
    return elements, at + 1


def _next(text: str, at: int, end: str) -> int:
    """Return where the next value or key begins, or where *end* stands."""
    at = _after_blank(text, at)
    if text[at] == end:
        return at
    if text[at] != ",":
        raise NoJsonError("no comma")
    at = _after_blank(text, at + 1)
    if text[at] == end:
        raise NoJsonError("nothing behind the comma")
    return at


def _after_blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found is not None else at

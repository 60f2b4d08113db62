"""Read strict YAML into nodes that know their line, and nodes into typed values.

No aliases, anchors, tags, merge keys, second documents or duplicate keys; by shape there are
only strings, whole numbers and null, so `no` stays a word and a date stays text until a schema
asks for more. Whatever is wrong is one `MalformedPolicyError` with file, line and hint.

Not here: where the text comes from (`store/policies.py`, `settings.py`).
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, Union, get_args, get_origin

import msgspec
import yaml

from gateway.errors import MalformedPolicyError
from gateway.limits import YAML_BYTES_MAX, YAML_DEPTH_MAX, YAML_NODES_MAX

T = TypeVar("T")

_WHOLE_NUMBER: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
_NULLS: Final = frozenset({"", "~", "null"})
_PARSER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """One word, number or nothing."""

    value: str | int | None
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Nodes in order."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    """Nodes by name; *key_lines* holds where each name stands."""

    entries: dict[str, Node]
    key_lines: dict[str, int]
    line: int


Node = Scalar | Listing | Keyed


def read(text: str, file: str) -> Node:
    """Return *text* as a tree of nodes; nothing but blanks and comments is an empty mapping.

    Raises:
        MalformedPolicyError: *text* is not the strict YAML that we read.
    """
    return _read_with(_PARSER, text, file)


def _read_with(parser: Any, text: str, file: str) -> Node:
    if len(text) > YAML_BYTES_MAX or len(text.encode("utf-8", "replace")) > YAML_BYTES_MAX:
        raise MalformedPolicyError(
            file, 1, f"larger than {YAML_BYTES_MAX} bytes", hint="split it into several files"
        )
    try:
        return _Reading(yaml.parse(text, Loader=parser), file).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise MalformedPolicyError(
            file, line, _one_line(error.problem or "not YAML")
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, max(0, error.position or 0)) + 1
        raise MalformedPolicyError(
            file, line, "a character that YAML does not allow", hint="save it as plain UTF-8"
        ) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise MalformedPolicyError(file, 1, f"not YAML: {_one_line(str(error))}") from error


def plain(node: Node) -> Any:
    """Return *node* as dicts, lists, strings, whole numbers and `None`."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Listing):
        return [plain(item) for item in node.items]
    return {name: plain(child) for name, child in node.entries.items()}


def node_at(node: Node, *path: str | int) -> Node | None:
    """Return the node that *path* (names and indices) leads to, or `None`."""
    here: Node | None = node
    for step in path:
        match here:
            case Keyed(entries=entries) if isinstance(step, str):
                here = entries.get(step)
            case Listing(items=items) if isinstance(step, int) and step < len(items):
                here = items[step]
            case _:
                return None
    return here


def line_at(node: Node, *path: str | int) -> int:
    """Return the line where *path* leads to, or of the last node on the way that exists."""
    line, here = node.line, node
    for step in path:
        match here:
            case Keyed(entries=entries, key_lines=key_lines) if (
                isinstance(step, str) and step in entries
            ):
                line, here = key_lines[step], entries[step]
            case Listing(items=items) if isinstance(step, int) and step < len(items):
                here = items[step]
                line = here.line
            case _:
                return line
    return line


def nearest(word: str, words: Iterable[str], otherwise: str = "") -> str:
    """Return ``did you mean `…`?`` for the closest of *words*, or *otherwise*."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f"did you mean `{found[0]}`?" if found else otherwise


def convert(node: Node, kind: type[T], file: str) -> T:
    """Return *node* as a value of *kind*; `true`, decimals and dates where *kind* asks.

    Raises:
        MalformedPolicyError: names the line of the first key or value that does not fit.
    """
    try:
        return msgspec.convert(plain(node), kind, strict=False)
    except msgspec.ValidationError as error:
        fault = _fault(node, kind, "", None)
        assert fault is not None  # noqa: S101 # INVARIANT: it makes the conversion that failed.
        raise MalformedPolicyError(file, fault.line, fault.message, hint=fault.hint) from error


class _Reading:
    """One document being read from parser events."""

    def __init__(self, events: Iterable[yaml.Event], file: str) -> None:
        self._events = iter(events)
        self._file = file
        self._count = 0

    def document(self) -> Node:
        """Return the only document of the stream."""
        node: Node | None = None
        for event in self._events:
            match event:
                case yaml.DocumentStartEvent() if node is not None:
                    raise self._error(event, "a second document", hint="keep one a file")
                case yaml.StreamStartEvent() | yaml.StreamEndEvent():
                    pass
                case yaml.DocumentStartEvent() | yaml.DocumentEndEvent():
                    pass
                case _:
                    node = self._node(event, 1)
        if node is None or (isinstance(node, Scalar) and node.value is None):
            return Keyed(entries={}, key_lines={}, line=1)
        return node

    def _node(self, event: yaml.Event, depth: int) -> Node:
        self._check(event, depth)
        match event:
            case yaml.ScalarEvent():
                return Scalar(value=self._value(event), line=_line(event))
            case yaml.SequenceStartEvent():
                return Listing(items=tuple(self._items(depth)), line=_line(event))
            case _:
                return self._keyed(event, depth)

    def _check(self, event: yaml.Event, depth: int) -> None:
        self._count += 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise self._error(
                event,
                "an anchor or alias (`&`, `*`)",
                hint="write the value out where it is used",
            )
        if getattr(event, "tag", None) is not None:
            raise self._error(
                event, "a tag (`!`)", hint="leave it out; the schema knows the type"
            )
        if depth > YAML_DEPTH_MAX:
            raise self._error(event, f"nested deeper than {YAML_DEPTH_MAX} levels")
        if self._count > YAML_NODES_MAX:
            raise self._error(event, f"more than {YAML_NODES_MAX} values")

    def _value(self, event: yaml.ScalarEvent) -> str | int | None:
        text: str = event.value
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise self._error(
                event, "half of a surrogate pair", hint="write the character itself"
            )
        if event.style:
            return text
        if text in _NULLS:
            return None
        return int(text) if _WHOLE_NUMBER.fullmatch(text) else text

    def _items(self, depth: int) -> Iterable[Node]:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _keyed(self, start: yaml.Event, depth: int) -> Keyed:
        entries: dict[str, Node] = {}
        key_lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, depth, key_lines)
            key_lines[key] = _line(event)
            entries[key] = self._node(next(self._events), depth + 1)
        return Keyed(entries=entries, key_lines=key_lines, line=_line(start))

    def _key(self, event: yaml.Event, depth: int, key_lines: dict[str, int]) -> str:
        self._check(event, depth)
        if not isinstance(event, yaml.ScalarEvent) or event.value == "":
            raise self._error(
                event, "a key that is not a word", hint="put `-` before list items"
            )
        self._value(event)
        key: str = event.value
        if key == "<<" and not event.style:
            raise self._error(event, "a merge key `<<`", hint="write the keys out")
        if key in key_lines:
            raise self._error(
                event, f"key `{key}` twice", hint=f"it already stands in line {key_lines[key]}"
            )
        return key

    def _error(self, event: yaml.Event, message: str, hint: str = "") -> MalformedPolicyError:
        return MalformedPolicyError(self._file, _line(event), _one_line(message), hint=hint)


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    return mark.line + 1 if mark else 1


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fault:
    line: int
    message: str
    hint: str = ""


def _fault(node: Node, kind: Any, name: str, key_line: int | None) -> _Fault | None:
    """Return the innermost reason why *node* is no *kind*, or `None` if it is one.

    msgspec stops at its first error and can't name keys of free mappings; this walks the type
    beside the nodes instead, on the way to an error message only.
    """
    try:
        msgspec.convert(plain(node), kind, strict=False)
    except msgspec.ValidationError as error:
        said = str(error).split(" - at ")[0]
    else:
        return None
    for part in _choices(kind):
        match node:
            case Keyed() if isinstance(part, type) and issubclass(part, msgspec.Struct):
                inner = _struct_fault(node, part, name)
            case Keyed() if get_origin(part) is dict:
                inner = _first(
                    _fault(child, get_args(part)[1], key, node.key_lines[key])
                    for key, child in node.entries.items()
                )
            case Listing() if get_origin(part) in (list, tuple, frozenset):
                element = get_args(part)[0]
                inner = _first(_fault(child, element, name, None) for child in node.items)
            case _:
                inner = None
        if inner is not None:
            return inner
    line = key_line if isinstance(node, Scalar) and node.value is None else node.line
    value = node.value if isinstance(node, Scalar) else None
    message = _said(said, f"`{name}`" if name else "the document", value)
    return _Fault(line=line or node.line, message=message, hint=_type_hint(said, kind, value))


def _struct_fault(node: Keyed, kind: type[msgspec.Struct], name: str) -> _Fault | None:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    struct = kind.__struct_config__
    for key, line in node.key_lines.items():
        if struct.forbid_unknown_fields and key not in fields and key != struct.tag_field:
            known = nearest(key, fields, f"known here: {', '.join(sorted(fields))}")
            return _Fault(line=line, message=f"unknown key `{_one_line(key)}`", hint=known)
    for key, child in node.entries.items():
        if key in fields:
            inner = _fault(child, fields[key].type, key, node.key_lines[key])
            if inner is not None:
                return inner
    for key, field in fields.items():
        if field.required and key not in node.entries:
            where = f" in `{name}`" if name else ""
            return _Fault(line=node.line, message=f"key `{key}` is missing{where}")
    return None


def _first(faults: Iterable[_Fault | None]) -> _Fault | None:
    return next((fault for fault in faults if fault is not None), None)


def _choices(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(part for one in get_args(kind) for part in _choices(one))
    if hasattr(kind, "__metadata__"):
        return _choices(get_args(kind)[0])
    return (kind,)


_NOUNS: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "`true` or `false`",
    "array": "a list",
    "object": "a mapping (`key: value`)",
    "null": "empty",
    "date": "a day (YYYY-MM-DD)",
}
_EXPECTED: Final = re.compile(r"Expected `([^`]*)`(?:, got `([^`]*)`)?(.*)")


def _said(said: str, name: str, value: str | int | None) -> str:
    """Return msgspec's sentence in our words."""
    found = _EXPECTED.fullmatch(said)
    shown = "" if value is None else f" `{_one_line(str(value))[:60]}`"
    if found and found[2]:
        wanted = " or ".join(_NOUNS.get(word, word) for word in found[1].split(" | "))
        return f"{name} must be {wanted}, not{shown or ' ' + _NOUNS.get(found[2], found[2])}"
    if found:
        return f"{name} must be {_NOUNS.get(found[1], found[1])}{_one_line(found[3])}"
    if said.startswith("Invalid enum value"):
        return f"{name} can't be{shown}"
    return _one_line(f"{name} has a bad value{shown}: {said[:1].lower()}{said[1:]}")


def _type_hint(said: str, kind: Any, value: str | int | None) -> str:
    words = [
        word for part in _choices(kind) for word in get_args(part) if isinstance(word, str)
    ]
    if words and value is not None:
        return nearest(str(value), words, f"one of {', '.join(words)}")
    if said.startswith("Expected `str`, got `int`"):
        return "put quotes around it"
    return ""

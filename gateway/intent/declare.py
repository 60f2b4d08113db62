"""Reads and writes an intended use as it stands in a header.

`x-intended-use` holds a declaration's id, or the use itself as an RFC 9651 dictionary:
`purpose=train.sft, student=invoice-parser, student-kind=extractor, competes=?0`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final, get_args

import http_sf
import msgspec

from gateway import limits
from gateway.day import parse_day
from gateway.errors import MalformedDeclarationError
from gateway.ident import DeclarationId, is_declaration_id
from gateway.intent.country import COUNTRIES, country_hint
from gateway.intent.model import (
    NAME,
    Audience,
    Automation,
    IntendedUse,
    Notice,
    StudentKind,
    Visibility,
)
from gateway.intent.purpose import PURPOSES

_KEYS: Final = tuple(field.encode_name for field in msgspec.structs.fields(IntendedUse))
YES_NO: Final = frozenset(
    {
        "imitates-teacher",
        "competes",
        "similar",
        "commercial",
        "research",
        "promotes-competitor",
        "replication-info",
    }
)
"""The keys that are a yes or a no."""

LISTS: Final[Mapping[str, tuple[str, ...]]] = {"notices": get_args(Notice)}
"""The keys that are lists, and the words that may stand in them."""

_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "purpose": tuple(PURPOSES),
    "student-kind": get_args(StudentKind),
    "audience": get_args(Audience),
    "visibility": get_args(Visibility),
    "automation": get_args(Automation),
}
_TOLD_CHARS_MAX: Final = 40


def parse_use_header(value: str) -> DeclarationId | IntendedUse:
    """Return the declaration's id or the intended use that an `x-intended-use` header holds.

    Raises:
        MalformedDeclarationError: it is neither.
    """
    said = value.strip(" \t")
    if is_declaration_id(said):
        return DeclarationId(said)
    if said.startswith("use-"):
        raise MalformedDeclarationError(
            f"`{_told(said)}` is not a declaration's id",
            hint="an id is `use-` and 20 hex digits; `gateway use list` shows them",
        )
    return parse_inline(said)


def parse_inline(text: str) -> IntendedUse:
    """Return the intended use that *text*, an RFC 9651 dictionary, says.

    Raises:
        MalformedDeclarationError: it is no such dictionary, or not a use.
    """
    if len(text) > limits.DECLARATION_BYTES_MAX:
        raise MalformedDeclarationError(
            f"{len(text)} characters are too long for an intended use",
            hint="register it with `gateway use declare` and send its id",
        )
    try:
        members = http_sf.parse(
            text.encode("ascii"), tltype="dictionary", on_duplicate_key=_refuse_twice
        )
    except UnicodeEncodeError as exc:
        raise MalformedDeclarationError(
            f"`{_told(text[exc.start])}` is not ASCII",
            hint='write it percent-encoded, as in %"caf%c3%a9"',
        ) from exc
    except http_sf.StructuredFieldError as exc:
        raise MalformedDeclarationError(
            f"`{_told(text)}` can't be read: {_in_our_words(exc)}",
            hint="write it like `purpose=train.sft, student=my-student, competes=?0`",
        ) from exc
    return use_of({key: _bare(key, member) for key, member in members.items()})


def use_of(words: Mapping[str, object]) -> IntendedUse:
    """Return the intended use that *words* say; keys are those of the header.

    Raises:
        MalformedDeclarationError: a key or a value is not one of a use, or no purpose is said.
    """
    for key, value in words.items():
        _check(key, value)
    if "purpose" not in words:
        raise MalformedDeclarationError(
            "no purpose is declared", hint=f"add `purpose=…`, {_one_of(PURPOSES)}"
        )
    said = {
        key: tuple(sorted(set(value))) if isinstance(value, list) else value
        for key, value in words.items()
    }
    return msgspec.convert(said, IntendedUse)


def format_inline(use: IntendedUse) -> str:
    """Return *use* as a dictionary that `parse_inline` reads back.

    Raises:
        MalformedDeclarationError: it holds what no header can carry.
    """
    said: dict[str, object] = msgspec.to_builtins(use)
    try:
        return str(http_sf.ser({key: (_item(value), {}) for key, value in said.items()}))
    except ValueError as exc:
        raise MalformedDeclarationError(
            "the use holds characters that no header can carry", hint="write it in plain words"
        ) from exc


def _check(key: str, value: object) -> None:
    """Raise `MalformedDeclarationError` unless *key* may have *value*."""
    if key not in _KEYS:
        near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.5)
        raise MalformedDeclarationError(
            f"unknown key `{_told(key)}`",
            hint=f"did you mean `{near[0]}`?" if near else f"a use has {', '.join(_KEYS)}",
        )
    if key in LISTS:
        _check_list(key, value)
        return
    if key in YES_NO:
        if not isinstance(value, bool):
            raise MalformedDeclarationError(
                f"`{key}` is a yes or a no", hint=f"write `{key}=?1` or `{key}=?0`"
            )
        return
    if not isinstance(value, str) or not value:
        raise MalformedDeclarationError(
            f"`{key}` says nothing that can be read", hint=f"write `{key}=word` or leave it out"
        )
    allowed = _WORDS.get(key)
    if allowed is not None and value not in allowed:
        near = difflib.get_close_matches(value, allowed, n=1)
        hint = f"did you mean `{near[0]}`? it is " if near else "write "
        raise MalformedDeclarationError(
            f"unknown {key} `{_told(value)}`", hint=hint + _one_of(allowed)
        )
    if key == "jurisdiction" and value not in COUNTRIES:
        raise MalformedDeclarationError(
            f"`{_told(value)}` is no country", hint=country_hint(value)
        )
    if key == "competes-assessed-on" and parse_day(value) is None:
        raise MalformedDeclarationError(
            f"`{_told(value)}` is no day", hint='write "YYYY-MM-DD" in quotes'
        )
    if key == "student" and NAME.fullmatch(value) is None:
        raise MalformedDeclarationError(
            f"`{_told(value)}` is no name for a student",
            hint="use small letters, digits, `.`, `_` and `-`, at most 64",
        )


def _check_list(key: str, value: object) -> None:
    words = value if isinstance(value, list) else [value]
    for word in words:
        if not isinstance(value, list) or word not in LISTS[key]:
            raise MalformedDeclarationError(
                f"unknown word `{_told(str(word))}` in `{key}`",
                hint=f"write `{key}=({LISTS[key][0]} …)`, each {_one_of(LISTS[key])}",
            )


def _bare(key: str, member: object) -> object:
    """Return what a dictionary's *member* says: a plain text, truth value, or list of them."""
    value, parameters = member if isinstance(member, tuple) else (member, None)
    if not parameters:
        if isinstance(value, bool):
            return value
        if isinstance(value, list):
            return [_bare(key, item) for item in value]
        if isinstance(value, http_sf.Token | http_sf.DisplayString | str):
            return str(value)
    raise MalformedDeclarationError(
        f"`{_told(key)}` is neither a word nor a yes or no",
        hint=f'write `{_told(key)}=word`, `{_told(key)}="some words"` or `{_told(key)}=?0`',
    )


def _item(value: object) -> object:
    """Return *value* in the plainest type of item, or of list, that can carry it."""
    if isinstance(value, tuple | list):
        return [(_item(one), {}) for one in value]
    if not isinstance(value, str):
        return value
    if NAME.fullmatch(value) and value[0].isalpha():
        return http_sf.Token(value)
    return value if value.isascii() and value.isprintable() else http_sf.DisplayString(value)


def _refuse_twice(key: str, context: str) -> None:
    raise MalformedDeclarationError(f"`{_told(key)}` is said twice", hint="say it once")


def _told(text: str) -> str:
    """Return *text* as a message may repeat it: one line, printable, not long."""
    told = "".join(sign if sign.isprintable() and sign != "`" else "?" for sign in text)
    return told if len(told) <= _TOLD_CHARS_MAX else told[:_TOLD_CHARS_MAX] + "…"


def _one_of(words: Iterable[str]) -> str:
    return "one of " + ", ".join(words)


def _in_our_words(exc: http_sf.StructuredFieldError) -> str:
    """Return what the parser says, in lower case and with the caller's words in backticks."""
    said = str(exc).replace("'", "`")
    return said[:1].lower() + said[1:]

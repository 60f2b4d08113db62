"""The small fields of a form (multipart/form-data, RFC 7578), out of a body that is held.

Files in it are stepped over. A form that is not well made, or that says the same thing twice,
says nothing: readers differ over what such a form means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from gateway.limits import FORM_FIELD_BYTES_MAX, FORM_HEAD_BYTES_MAX, FORM_PARTS_MAX

_BOUNDARY: Final = re.compile(
    r';\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;",]{1,70}))', re.IGNORECASE
)
_PARAMETER: Final = (
    rb';[ \t]*([a-z0-9*_-]+)=(?:"((?:[^"\\\r\n]|\\[^\r\n])*)"|([^\s";,\\]+))[ \t]*'
)
_PARAMETERS: Final = re.compile(_PARAMETER, re.IGNORECASE)
_DISPOSITION: Final = re.compile(
    rb"content-disposition:[ \t]*form-data[ \t]*((?:%b)*)" % _PARAMETER, re.IGNORECASE
)
_HEADER: Final = re.compile(rb"[!#-'*+.0-9A-Z^-z|~-]+:[^\r\n]*")
_FILE: Final = frozenset({b"filename", b"filename*"})


def is_form(content_type: str) -> bool:
    """Tell whether a body of *content_type* is a form."""
    return content_type.lower().lstrip().startswith("multipart/form-data")


class _OddFormError(ValueError):
    """A form over which readers might differ."""


def fields_of(content_type: str, body: bytes) -> dict[str, str]:
    """Return the fields of the form that *body* is; none where it is not well made."""
    fields: dict[str, str] = {}
    try:
        for name, value in _parts(content_type, body):
            if name in fields and not name.endswith("[]"):
                return {}
            fields[name] = value
    except _OddFormError:
        return {}
    return fields


def _parts(content_type: str, body: bytes) -> Iterator[tuple[str, str]]:
    """Yield name and value of each field; raise `_OddFormError` where it is not well made."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise _OddFormError
    line = b"--" + (found[1] or found[2]).encode("utf-8", "surrogateescape")
    if not body.startswith(line):
        # A preamble is allowed, and nobody sends one.
        raise _OddFormError
    at = len(line)
    for _ in range(FORM_PARTS_MAX):
        if body.startswith(b"--", at):
            return
        head_end = body.find(b"\r\n\r\n", at, at + FORM_HEAD_BYTES_MAX)
        end = body.find(b"\r\n" + line, head_end + 2) if head_end >= 0 else -1
        if not body.startswith(b"\r\n", at) or end < 0:
            break
        name = _name_in(body[at + 2 : head_end])
        begin, at = head_end + 4, end + 2 + len(line)
        if name is None:
            continue
        if end - begin > FORM_FIELD_BYTES_MAX:
            break
        yield name, body[begin:end].decode("utf-8", "replace")
    raise _OddFormError


def _name_in(head: bytes) -> str | None:
    """Return the name of the field whose *head* this is, or `None` for a file."""
    lines = head.split(b"\r\n")
    said = [found for line in lines if (found := _DISPOSITION.fullmatch(line)) is not None]
    if len(said) != 1 or not all(map(_HEADER.fullmatch, lines)):
        raise _OddFormError
    told = [(one[1].lower(), one[2] or one[3]) for one in _PARAMETERS.finditer(said[0][1])]
    names = [value for name, value in told if name == b"name"]
    if any(name in _FILE for name, _ in told):
        return None
    if len(names) != 1 or names[0] is None or b"\\" in names[0]:
        raise _OddFormError
    return names[0].decode("utf-8", "replace")

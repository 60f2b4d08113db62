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
_NAME: Final = re.compile(rb';\s*name="([^"\\\r\n]*)"', re.IGNORECASE)
_FILE: Final = re.compile(rb";\s*filename\*?=", re.IGNORECASE)


def is_form(content_type: str) -> bool:
    """Tell whether a body of *content_type* is a form."""
    return content_type.lower().lstrip().startswith("multipart/form-data")


def fields_of(content_type: str, body: bytes) -> dict[str, str]:
    """Return the fields of the form that *body* is; none where it is not well made."""
    fields: dict[str, str] = {}
    for part in _parts(content_type, body):
        if part is None:
            return {}
        name, value = part
        if name in fields and not name.endswith("[]"):
            return {}
        fields[name] = value
    return fields


def _parts(content_type: str, body: bytes) -> Iterator[tuple[str, str] | None]:
    """Yield name and value of each field; `None` from where the form is not well made."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        yield None
        return
    line = b"--" + (found[1] or found[2]).encode("utf-8", "surrogateescape")
    if not body.startswith(line):
        # A preamble is allowed, and nobody sends one.
        yield None
        return
    at = len(line)
    for _ in range(FORM_PARTS_MAX):
        if body.startswith(b"--", at):
            return
        head_end = body.find(b"\r\n\r\n", at, at + FORM_HEAD_BYTES_MAX)
        end = body.find(b"\r\n" + line, head_end + 2) if head_end >= 0 else -1
        if not body.startswith(b"\r\n", at) or end < 0:
            break
        head = body[at:head_end]
        at = end + 2 + len(line)
        if _FILE.search(head):
            continue
        name = _NAME.search(head)
        if name is None or end - head_end - 4 > FORM_FIELD_BYTES_MAX:
            break
        yield (
            name[1].decode("utf-8", "replace"),
            body[head_end + 4 : end].decode("utf-8", "replace"),
        )
    yield None

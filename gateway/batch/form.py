"""Where the parts of a form stand in a body that passes by (RFC 7578), found byte by byte.

It is strict: whatever two servers could read in two ways is no form here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gateway.limits import (
    BATCH_FORM_FIELD_BYTES_MAX,
    BATCH_FORM_HEAD_BYTES_MAX,
    BATCH_FORM_PARTS_MAX,
)

_BOUNDARY: Final = re.compile(
    r"""(?i)multipart/form-data\s*;\s*boundary=(?:"([^"\\]{1,70})"|([!#-'*+./0-9A-Z^_`a-z|~-]{1,70}))\s*"""
)
_DISPOSITION: Final = re.compile(
    r"""(?i)form-data((?:\s*;\s*[a-z*]+\s*=\s*(?:"[^"\r\n]*"|[^\s";]+))*)\s*"""
)
_NAME: Final = re.compile(r"""(?i)(?<![*a-z])name\s*=\s*(?:"([^"\r\n\\]*)"|([^\s";]+))""")
_PLAIN_CODINGS: Final = frozenset({"7bit", "8bit", "binary"})


class NoFormError(ValueError):
    """Bytes that are no form, or one that could be read in two ways."""


@dataclass(slots=True)
class Part:
    """One part: its name, and where its content stands in the body."""

    name: str
    start: int
    stop: int = -1
    """-1 while it has not ended."""
    value: bytes | None = b""
    """What it holds, as long as that is short."""


class Form:
    """Finds the parts of one form as its bytes come."""

    def __init__(self, content_type: str) -> None:
        """Take what the head says of the body.

        Raises:
            NoFormError: it says that it is something else.
        """
        found = _BOUNDARY.fullmatch(content_type.strip())
        if found is None:
            raise NoFormError("the content-type names no boundary")
        boundary = (found[1] or found[2]).encode()
        self._line = b"--" + boundary
        self._ending = b"\r\n--" + boundary
        self.parts: list[Part] = []
        self.ended = False
        self._buffer = bytearray()
        self._at = 0
        """Where the buffer begins in the body."""
        self._part: Part | None = None

    def field(self, name: str) -> bytes | None:
        """Return the value of a part that has ended, or `None` where there is none yet.

        Raises:
            NoFormError: there are two, or it is too long to be a field's.
        """
        found = [part for part in self.parts if part.name == name]
        if len(found) > 1:
            raise NoFormError(f"the form has two parts `{name}`")
        if not found or found[0].stop < 0:
            return None
        if found[0].value is None:
            raise NoFormError(f"the part `{name}` is too long")
        return found[0].value

    def part(self, name: str) -> Part | None:
        """Return the one part of that name.

        Raises:
            NoFormError: there are two.
        """
        found = [part for part in self.parts if part.name == name]
        if len(found) > 1:
            raise NoFormError(f"the form has two parts `{name}`")
        return found[0] if found else None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            NoFormError: they go on in no form.
        """
        self._buffer += chunk
        while self._step():
            pass

    def finish(self) -> None:
        """Take the end of the body.

        Raises:
            NoFormError: the form has not ended, or something stands behind its end.
        """
        if not self.ended or bytes(self._buffer) not in {b"", b"\r\n"}:
            raise NoFormError("the form does not end where the body does")

    def _step(self) -> bool:
        """Go on by one thing; tell whether there was enough for it."""
        if self.ended:
            if len(self._buffer) > 2:
                raise NoFormError("something stands behind the form's end")
            return False
        if self._part is not None:
            return self._go_through(self._part)
        return self._begin()

    def _go_through(self, part: Part) -> bool:
        """Look for the end of a part's content."""
        found = self._buffer.find(self._ending)
        if found < 0:
            # The last bytes may be the beginning of its end.
            self._pass(part, len(self._buffer) - len(self._ending) + 1)
            return False
        self._pass(part, found)
        part.stop = self._at
        self._part = None
        self._skip(2)
        return True

    def _pass(self, part: Part, count: int) -> None:
        if count <= 0:
            return
        if part.value is not None:
            part.value += bytes(self._buffer[:count])
            if len(part.value) > BATCH_FORM_FIELD_BYTES_MAX:
                part.value = None
        self._skip(count)

    def _begin(self) -> bool:
        """Read a boundary, and the head of the part behind it."""
        needed = len(self._line) + 2
        if len(self._buffer) < needed:
            return False
        if self._buffer[: len(self._line)] != self._line:
            raise NoFormError("the body does not begin with its boundary")
        behind = bytes(self._buffer[len(self._line) : needed])
        if behind == b"--":
            self._skip(needed)
            self.ended = True
            return True
        if behind != b"\r\n":
            raise NoFormError("a boundary does not end its line")
        end = self._buffer.find(b"\r\n\r\n", needed - 2)
        if end < 0:
            if len(self._buffer) > BATCH_FORM_HEAD_BYTES_MAX:
                raise NoFormError("the head of a part is too long")
            return False
        head = bytes(self._buffer[needed:end])
        self._skip(end + 4)
        if len(self.parts) >= BATCH_FORM_PARTS_MAX:
            raise NoFormError("the form has too many parts")
        self._part = Part(_name_in(head), self._at)
        self.parts.append(self._part)
        return True

    def _skip(self, count: int) -> None:
        del self._buffer[:count]
        self._at += count


def _name_in(head: bytes) -> str:
    """Return the name of the part whose head says so.

    Raises:
        NoFormError: it says nothing of the kind, or it could be read in two ways.
    """
    disposition: str | None = None
    for line in head.split(b"\r\n"):
        try:
            name, colon, value = line.decode().partition(":")
        except UnicodeDecodeError as wrong:
            raise NoFormError("the head of a part is no text") from wrong
        name, value = name.lower(), value.strip()
        if not colon or not name.strip() or name != name.strip() or "\n" in value:
            raise NoFormError("the head of a part has a broken line")
        if name == "content-disposition":
            if disposition is not None:
                raise NoFormError("the head of a part names it twice")
            disposition = value
        elif name == "content-transfer-encoding" and value.lower() not in _PLAIN_CODINGS:
            raise NoFormError("a part comes in an encoding of its own")
    if disposition is None or _DISPOSITION.fullmatch(disposition) is None:
        raise NoFormError("the head of a part does not name it")
    names = _NAME.findall(disposition)
    if len(names) != 1 or "name*" in disposition.lower().replace("filename*", ""):
        raise NoFormError("the head of a part does not name it once")
    return str(names[0][0] or names[0][1])

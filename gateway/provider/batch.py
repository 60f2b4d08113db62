"""What the batches of a wire format are like: requests and answers in lines.

Pure reading, as in the dialects: which operation hands in what, what a line asks for, what a
line of the results says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from gateway.provider.model import ProviderCall, Resource


class LineError(ValueError):
    """A line that can't be read; the message says so to the caller."""


class BatchLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a batch as it was handed in: a request like any other."""

    custom_id: str | None
    """The caller's own name for it; `None`: its place is all that it has."""
    by_place: bool = False
    """Answers come in the order of the requests, and names tie nothing."""
    model_later: bool = False
    """Which model it asks is said where the batch begins."""
    method: str
    path: str
    query: str = ""
    body: bytes

    def __repr__(self) -> str:
        """Return where it is asked, and no word of what was said."""
        return f"BatchLine({self.method} {self.path})"


class ResultLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the results: the answer to a line, or why there is none."""

    custom_id: str | None = None
    number: int | None = None
    """Its place among the requests, where that is all that ties it to one."""
    status: int | None = None
    request_id: str | None = None
    body: bytes | None = None
    """The answer's own bytes; `None`: the line was never answered."""
    error: str | None = None
    """The provider's name for what went wrong, where there is no answer."""

    def __repr__(self) -> str:
        """Return its name, and no word of what was said."""
        return f"ResultLine({self.custom_id}, {self.status})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handing:
    """How an operation hands in lines."""

    form: Literal["form-part", "array", "lines"]
    """In a part of a form, as elements of an array, or the body is nothing but lines."""
    part: str = ""
    """The part of the form that holds them."""
    only: tuple[str, str] = ("", "")
    """The form's field, and its value, that say that these are lines."""
    array: tuple[frozenset[str], ...] = ()
    """The names that lead to the array, each in every spelling."""
    begins: bool = False
    """The batch begins with it; else another operation names what was handed in."""
    upload: Resource | None = None
    """Set where the bytes belong to an upload that was begun before, perhaps in pieces."""
    first: bool = True
    last: bool = True


@dataclass(frozen=True, slots=True)
class Unseen:
    """Why something is never forwarded: lines would go by it that nobody judged."""

    why: str
    hint: str
    code: str


class Batches(Protocol):
    """The batches of one wire format."""

    def handing(self, call: ProviderCall, headers: Mapping[str, str]) -> Handing | None:
        """Return how *call* hands lines in, if it does."""
        ...

    def begun(self, call: ProviderCall) -> Resource | None:
        """Return what was handed in that *call* begins a batch of, if it begins one."""
        ...

    def asked_at(self, call: ProviderCall) -> str | None:
        """Return the path at which the lines ask that *call* begins, if it says so."""
        ...

    def results(self, call: ProviderCall) -> Resource | None:
        """Return the batch, or the file of one, whose results *call* fetches, if it may."""
        ...

    def refused(self, call: ProviderCall) -> Unseen | None:
        """Return why *call*, which would hand in lines unseen, is never forwarded."""
        ...

    def read_line(self, call: ProviderCall, content: bytes) -> BatchLine:
        """Return what one line asks for that *call* hands in.

        Raises:
            LineError: it can't be read.
        """
        ...

    def read_result(self, content: bytes) -> ResultLine | None:
        """Return what one line of results says; `None` where it can't be read."""
        ...

    def answers_in(self, call: ProviderCall, document: bytes) -> list[bytes] | None:
        """Return the results that one *document* holds; `None`: they come line by line."""
        ...

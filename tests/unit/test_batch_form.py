"""Laws of the bodies that hand batches in: what could be read in two ways is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import pytest

from gateway.batch.elements import Elements, MissingArrayError, NoArrayError
from gateway.batch.form import Form, NoFormError
from gateway.batch.pieces import Piece
from gateway.batch.reading import Reading
from gateway.provider.batch import Handing

TYPE: Final = "multipart/form-data; boundary=b"
NAMED: Final = b'--b\r\ncontent-disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
HANDING: Final = Handing(form="form-part", part="file", only=("purpose", "batch"))
PATH: Final = (frozenset({"batch"}), frozenset({"requests", "requestList"}))


def part(name: bytes, content: bytes, more: bytes = b"") -> bytes:
    """Return one part of a form."""
    return NAMED % (name, more, content)


def read(body: bytes, content_type: str = TYPE) -> Form:
    """Read a whole form, byte by byte."""
    form = Form(content_type)
    for at in range(len(body)):
        form.feed(body[at : at + 1])
    form.finish()
    return form


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=b; boundary=c",
        "multipart/form-data; boundary*=utf-8''b",
        "multipart/mixed; boundary=b",
    ],
    ids=range(6),
)
def test_a_head_that_names_no_boundary_is_no_forms(content_type: str) -> None:
    """A form says once, and in one way, what divides its parts."""
    with pytest.raises(NoFormError):
        Form(content_type)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"preamble\r\n" + part(b"a", b"1") + b"--b--",
        part(b"a", b"1"),
        part(b"a", b"1") + b"--b--\r\nmore",
        b'--b\ncontent-disposition: form-data; name="a"\n\n1\n--b--',
        b'--b  \r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n--b--',
        b"--b\r\ncontent-type: text/plain\r\n\r\n1\r\n--b--",
        b'--b\r\ncontent-disposition: form-data; name="a"; name="c"\r\n\r\n1\r\n--b--',
        b"--b\r\ncontent-disposition: form-data; name=\"a\"; name*=utf-8''c\r\n\r\n1\r\n--b--",
        part(b"a", b"1", b"\r\ncontent-disposition: form-data; name=c") + b"--b--",
        part(b"a", b"MQ==", b"\r\ncontent-transfer-encoding: base64") + b"--b--",
        part(b"a", b"1", b"\r\n folded: line") + b"--b--",
        part(b"a", b"1", b"\r\nx\xff: y") + b"--b--",
    ],
    ids=range(13),
)
def test_what_two_servers_could_read_in_two_ways_is_no_form(body: bytes) -> None:
    """Whatever is left of the grammar, or of one meaning, is refused."""
    with pytest.raises(NoFormError):
        read(body)


def test_a_field_stands_once() -> None:
    """A name that two parts have names neither."""
    form = read(part(b"purpose", b"batch") + part(b"purpose", b"vision") + b"--b--\r\n")

    with pytest.raises(NoFormError, match="two parts"):
        form.field("purpose")


@pytest.mark.parametrize("order", [1, -1])
def test_a_purpose_counts_wherever_it_stands(order: int) -> None:
    """Lines are found before their purpose is, and behind it."""
    fields = [part(b"purpose", b"batch"), part(b"file", b"{}", b'; filename="a"')]
    body = b"".join(fields[::order]) + b"--b--"
    reading = Reading(TYPE, HANDING)
    reading.feed(body)
    found = reading.finish()

    assert found is not None
    assert b"{}" == body[found.start : found.stop]
    assert reading.is_wanted
    assert not reading.is_other


def test_another_purpose_hands_in_nothing() -> None:
    """A form for something else is known as soon as it says so."""
    reading = Reading(TYPE, HANDING)
    reading.feed(part(b"purpose", b"vision") + b"--b\r\n")

    assert reading.is_other
    assert not reading.may_hold_lines


def test_a_form_of_two_purposes_hands_in_nothing() -> None:
    """Who says first that it is a batch, and then something else, is not believed."""
    reading = Reading(TYPE, HANDING)
    reading.feed(part(b"file", b"{}") + part(b"purpose", b"batch"))
    reading.feed(part(b"purpose", b"vision") + b"--b--")

    assert reading.finish() is None
    assert reading.broken


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    """Yield *content* byte by byte."""
    for at in range(len(content)):
        yield content[at : at + 1]


def elements(content: bytes) -> list[Piece]:
    """Return the elements of the array of requests."""

    async def all_of_them() -> list[Piece]:
        return [piece async for piece in aiter(Elements(chunks(content), PATH))]

    return asyncio.run(all_of_them())


def test_elements_are_where_they_stand() -> None:
    """Each element is what stands in the document, whatever is around the array."""
    content = (
        rb'{"a":[{"requests":[9]}],"batch":{"requests":[ {"q":"]\"}"} ,[1],2 ],"n":{}},"z":0}'
    )
    found = elements(content)

    assert [b'{"q":"]\\"}"}', b"[1]", b"2"] == [one.content for one in found]
    assert [0, 1, 2] == [one.number for one in found]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"batch":{"requests":[1]}',
        b'{"batch":{"requests":[1]}}{}',
        b'{"batch":{"requests":[1],"requests":[2]}}',
        b'{"batch":{"requests":[1],"requestList":[2]}}',
        b'{"batch":{"requests":[1]},"batch":{}}',
        b'{"batch":{"requests":[1,]}}',
        b'{"batch":{"requests":[,1]}}',
        b'{"batch":{"requests":[1}}',
        b'{"batch":{"requests":[1]],"a":2}}',
        b'{batch:{"requests":[1]}}',
    ],
    ids=range(12),
)
def test_a_document_with_two_readings_has_no_array(content: bytes) -> None:
    """What is no JSON, or holds the array twice, holds none."""
    with pytest.raises(NoArrayError):
        elements(content)


@pytest.mark.parametrize("content", [b"{}", b'{"batch":{"file":"f-1"}}'], ids=range(2))
def test_a_document_without_the_array_is_told_whole(content: bytes) -> None:
    """Who names a file in the array's place is heard."""
    with pytest.raises(MissingArrayError) as missing:
        elements(content)

    assert isinstance(missing.value.document, dict)

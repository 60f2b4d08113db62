"""Laws of reading batches: nothing is lost between pieces, whatever bytes they are cut from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.batch.elements import Elements, NoArrayError
from gateway.batch.form import Form, NoFormError
from gateway.batch.pieces import Cut, Piece, lines_of
from gateway.batch.spool import Spool
from gateway.provider.anthropic.batch import AnthropicBatches
from gateway.provider.batch import BatchLine, LineError
from gateway.provider.gemini.batch import GeminiBatches
from gateway.provider.model import Operation, ProviderCall
from gateway.provider.openai.batch import OpenAIBatches

PATH = (frozenset({"requests"}),)
sizes = st.integers(1, 40)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
some_json = st.binary(max_size=80) | st.text('{}[]",:\\ requests1', max_size=60).map(str.encode)


async def chunks(content: bytes, size: int) -> AsyncIterator[bytes]:
    """Yield *content* in pieces of *size*."""
    for at in range(0, len(content), size):
        yield content[at : at + size]


def elements(content: bytes, size: int) -> list[Piece]:
    """Return the elements of the array `requests`."""

    async def read() -> list[Piece]:
        return [piece async for piece in aiter(Elements(chunks(content, size), PATH))]

    return asyncio.run(read())


def without(content: bytes, cut: Cut) -> bytes:
    """Return *content* less what is *cut*."""
    out, at = b"", 0
    for start, stop in cut:
        out, at = out + content[at:start], stop
    return out + content[at:]


@given(
    st.lists(values, max_size=5), values, values, sizes, st.sampled_from([None, 1]), st.data()
)
def test_the_others_are_left(
    asked: list[Any],
    before: Any,
    behind: Any,
    size: int,
    indent: int | None,
    data: st.DataObject,
) -> None:
    """Whatever elements are cut out of an array, the rest is the same document without them."""
    document = {"a": before, "requests": asked, "z": behind}
    content = json.dumps(document, indent=indent).encode()
    pieces = elements(content, size)
    stays = [data.draw(st.booleans()) for _ in pieces]
    cut, count = Cut(), 0
    for piece, stay in zip(pieces, stays, strict=True):
        if not stay:
            cut.add(piece.start, piece.stop)
        elif count == 0 and cut:
            cut.add(piece.start, piece.lead)
        count += stay

    assert asked == [json.loads(piece.content or b"") for piece in pieces]
    if count:
        left = [one for one, stay in zip(asked, stays, strict=True) if stay]
        assert document | {"requests": left} == json.loads(without(content, cut))


@example(b'{"requests": [null,\xef\xbb\xbf1]}', 11)
@given(some_json, sizes)
def test_any_bytes_are_an_array_or_refused(content: bytes, size: int) -> None:
    """What is taken for a document is the JSON that others read, with the same elements."""
    try:
        pieces = elements(content, size)
    except NoArrayError:
        return
    try:
        # As text: bytes alone, with a mark of their order before them, might pass for JSON.
        read = [json.loads((piece.content or b"").decode()) for piece in pieces]
    except ValueError:
        # An element that is no JSON is no request either.
        return

    assert read == json.loads(content)["requests"]


@given(st.lists(st.binary(max_size=20), max_size=8), sizes, st.integers(0, 9))
def test_every_line_is_seen(lines: list[bytes], size: int, at: int) -> None:
    """Lines are what stands between line ends, wherever chunks are cut."""
    content = b"\n".join(lines)

    async def read() -> list[Piece]:
        return [piece async for piece in lines_of(chunks(content, size), at)]

    found = asyncio.run(read())
    expected = [
        (number, line.strip(b" \t\r"))
        for number, line in enumerate(content.split(b"\n"))
        if line.strip(b" \t\r")
    ]
    assert expected == [(piece.number, piece.content) for piece in found]
    for piece in found:
        stood = content[piece.start - at : piece.stop - at]
        assert stood.removesuffix(b"\n").strip(b" \t\r") == piece.content


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), st.binary(max_size=30)),
    sizes,
)
def test_parts_of_a_form_are_found(fields: dict[str, bytes], size: int) -> None:
    """Each part of a form is where it stands, and short ones are known by what they hold."""
    content = b"".join(
        b'--xyz\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        % (name.encode(), value)
        for name, value in fields.items()
        if b"--xyz" not in value
    )
    content += b"--xyz--\r\n"
    form = Form("multipart/form-data; boundary=xyz")
    for at in range(0, len(content), size):
        form.feed(content[at : at + size])
    form.finish()

    for part in form.parts:
        assert fields[part.name] == content[part.start : part.stop] == form.field(part.name)


@given(st.binary(max_size=200), sizes)
def test_any_bytes_are_a_form_or_not(content: bytes, size: int) -> None:
    """Nothing but its own error comes of bytes that are no form."""
    form = Form('multipart/form-data; boundary="--"')
    try:
        for at in range(0, len(content), size):
            form.feed(content[at : at + size])
        form.finish()
    except NoFormError:
        return

    assert form.ended


@settings(max_examples=30)
@given(st.binary(max_size=5000), st.data())
def test_what_was_put_aside_comes_back(content: bytes, data: st.DataObject) -> None:
    """Any stretch of a spool is what was put there, and nothing of it stands on the disk."""
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, len(content)))
    size = data.draw(st.integers(1, 700))

    async def run() -> tuple[bytes, bytes]:
        spool = Spool(Path("/tmp"))
        try:
            async for chunk in chunks(content, size):
                await spool.add(chunk)
            await spool.end()
            part = [chunk async for chunk in spool.read(start, stop)]
            rest = [chunk async for chunk in spool.without([(start, stop)])]
        finally:
            spool.close()
        return b"".join(part), b"".join(rest)

    assert (content[start:stop], content[:start] + content[stop:]) == asyncio.run(run())


@given(st.binary(max_size=100) | values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_line_or_not(content: bytes) -> None:
    """Of each wire format a line is read, or refused by its own error, and so are results."""
    call = ProviderCall(provider="any", operation=Operation.BATCH)
    for batches in (OpenAIBatches(), AnthropicBatches(), GeminiBatches()):
        try:
            line = batches.read_line(call, content)
        except LineError:
            pass
        else:
            assert isinstance(line, BatchLine)
        batches.read_result(content)
        batches.answers_in(call, content)
